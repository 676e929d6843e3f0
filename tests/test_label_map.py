from __future__ import annotations

import pytest
from test_tfrecords import BOX, list_states, make_foreign, write_file

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats import read_tfrecords


@pytest.mark.parametrize(
    ("text", "number", "label"),
    [
        (b"cyst", 2, "cyst"),
        (b"Zyste", 2, "cyst"),
        (b"", 2, "cyst"),
        (b"other", None, "other"),
        (b"other", 9, "other"),
        (b"cyst", 1, None),
        (b"cyst", 0, None),
        (b"cyst", 9, None),
        (b"other", 2, None),
        (None, 9, None),
    ],
)
def test_text_and_number_must_fit_the_label_map(tmp_path, text, number, label):
    (tmp_path / "a.pbtxt").write_text(
        'item { id: 1 name: "stone" } item { id: 2 name: "cyst" display_name: "Zyste" }'
    )
    write_file(tmp_path / "a.record", make_foreign([(BOX, text, number)]))
    found = read_tfrecords(tmp_path)
    assert list_states(found) == ["complete" if label else "faulty"]
    assert found.images[0].labels == ((label,) if label else ())


@pytest.mark.parametrize(
    "items",
    [
        'item { id: 1 name: "a" } item { id: 1 name: "b" }',
        'item { id: 1 name: "a" } item { id: 2 name: " a" }',
        'item { name: "a" }',
        "item { id: 1 }",
        "item { id: 99999999999 name: 'a' }",
        "item {" * 3000,
        b"\xff\xff",
    ],
)
def test_other_label_maps_are_refused(tmp_path, items):
    write_file(tmp_path / "a.record", make_foreign())
    data = items if isinstance(items, bytes) else items.encode()
    (tmp_path / "label_map.pbtxt").write_bytes(data)
    with pytest.raises(AnnotationError, match=r"label_map\.pbtxt: "):
        read_tfrecords(tmp_path)


def test_numbers_that_only_some_boxes_name_are_refused(tmp_path):
    boxes = [(BOX, b"cyst", 1)], [(BOX, None, 2)]
    write_file(tmp_path / "a.record", *map(make_foreign, boxes))
    with pytest.raises(AnnotationError, match="some boxes have class/text and others only class/l"):
        read_tfrecords(tmp_path)


def test_label_maps_of_two_folders_must_agree(tmp_path):
    for name in ("a", "b"):
        write_file(tmp_path / name / f"{name}.record", make_foreign([(BOX, None, 1)]))
        (tmp_path / name / "label_map.pbtxt").write_text(f'item {{ id: 1 name: "{name}" }}')
    with pytest.raises(AnnotationError, match="its label maps differ"):
        read_tfrecords(tmp_path)
    (tmp_path / "b" / "label_map.pbtxt").write_text('item { id: 1 name: "a" }')
    assert read_tfrecords(tmp_path / "*" / "*.record").label_names == ("a",)


def test_white_space_around_a_label_is_none_of_it(tmp_path):
    (tmp_path / "label_map.pbtxt").write_bytes(b'\xef\xbb\xbfitem { id: 1 name: "nodule\\n" }')
    boxes = [(BOX, b"nodule\n", 1), (BOX, b" nodule", 1), (BOX, b"nodule", None)]
    for index, box in enumerate(boxes):
        write_file(tmp_path / f"{index}.record", make_foreign([box]))
    found = read_tfrecords(tmp_path)
    assert found.label_names == ("nodule",)
    assert [image.labels for image in found.images] == [("nodule",)] * 3


def test_one_of_several_label_maps_is_the_one_of_the_usual_name(tmp_path):
    write_file(tmp_path / "a.record", make_foreign([(BOX, None, 1)]))
    for name in ("old", "new"):
        (tmp_path / f"{name}.pbtxt").write_text(f'item {{ id: 1 name: "{name}" }}')
    message = r"holds several label maps \(new\.pbtxt, old\.pbtxt\); call the right one label_map"
    with pytest.raises(AnnotationError, match=message):
        read_tfrecords(tmp_path)
    (tmp_path / "new.pbtxt").rename(tmp_path / "label_map.pbtxt")
    assert read_tfrecords(tmp_path).label_names == ("new",)
