"""LabelMe as people have it: files copied, renamed and broken, and shapes of every kind."""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from corpus import labelme as corpus
from corpus.sources import find_losses, write_image

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.labelme import is_labelme, parse_labelme, read_labelme
from vae_aug.ingest.formats.source import ReaderOptions

SHAPE = {"label": "nodule", "points": [[10, 12], [30, 20]], "shape_type": "rectangle"}
OTHER = {"label": "cyst", "points": [[40, 30], [50, 40]], "shape_type": "rectangle"}
NODULE, CYST = ("nodule", [10, 12, 30, 20]), ("cyst", [40, 30, 50, 40])


def write(path, shapes, image_path, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"shapes": shapes, "imagePath": image_path, **more}
    path.write_text(json.dumps(content), encoding="utf-8")


def summarize(annotations):
    """Return by image what the source says of it, and its labels and boxes."""
    return {
        image.source_id: (
            image.annotation,
            list(zip(image.labels, image.boxes.tolist(), strict=True)),
        )
        for image in annotations.images
    }


def test_what_says_that_there_are_no_boxes(tmp_path):
    for name in "abc":
        write_image(tmp_path / f"{name}.png")
    write(tmp_path / "a.json", [SHAPE], "a.png")
    write(tmp_path / "b.json", [], "b.png")
    assert summarize(read_labelme(tmp_path)) == {
        "a.png": ("complete", [NODULE]),
        "b.png": ("complete", []),
        "c.png": ("none", []),
    }


@pytest.mark.parametrize(
    ("more", "state"),
    [
        ({"flags": {"Nodule": True}}, "faulty"),
        ({"flags": {"nodule": False, "axial": True}}, "complete"),
        ({"flags": {"has_nodule": True}}, "faulty"),
        ({"flags": {"suspicious lesion": True}}, "faulty"),
        ({"flags": {"no_nodule": True}}, "complete"),
        ({"flags": {"pathology": "benign"}}, "faulty"),
        ({"diagnosis": "malignant"}, "faulty"),
        ({"description": "nodule"}, "faulty"),
        ({"figures": [{"x": 1}]}, "faulty"),
        ({"lineColor": [0, 255, 0, 128]}, "complete"),
        ({"flags": {"skip": True}}, "none"),
        ({"diagnosis": "no tumor"}, "complete"),
        ({"annotations": [{"bbox": [1, 2, 3, 4]}]}, "faulty"),
        ({"flags": {"done": False}}, "none"),
        ({"flags": {"done": True}}, "complete"),
        ({"checked": False}, "none"),
        ({"checked": True}, "complete"),
        ({"flags": ["done"]}, "complete"),
    ],
)
def test_what_is_said_of_an_image_as_a_whole(tmp_path, more, state):
    for name, shapes in (("a", [SHAPE]), ("b", [])):
        write_image(tmp_path / f"{name}.png")
        write(tmp_path / f"{name}.json", shapes, f"{name}.png", **more)
    found = summarize(read_labelme(tmp_path))
    assert found == {"a.png": ("complete", [NODULE]), "b.png": (state, [])}


def test_a_shape_that_is_marked_as_deleted_is_a_fault(tmp_path):
    write_image(tmp_path / "a.png")
    write(tmp_path / "a.json", [{**SHAPE, "flags": {"deleted": True}}, OTHER], "a.png")
    (image,) = read_labelme(tmp_path).images
    assert (image.annotation, len(image.labels)) == ("faulty", 1)


@pytest.mark.parametrize(
    "image_path",
    ["a.png", "b.png", "gone.png", "C:\\me\\a.png", "/home/me/b.png", "../in/b.png", None, 3, ""],
)
def test_the_image_of_the_files_name_comes_first(tmp_path, image_path):
    for name in "ab":
        write_image(tmp_path / f"{name}.png")
    write(tmp_path / "a.json", [SHAPE], image_path)
    write(tmp_path / "b.json", [OTHER], "a.png")
    assert summarize(read_labelme(tmp_path)) == {
        "a.png": ("complete", [NODULE]),
        "b.png": ("complete", [CYST]),
    }


@pytest.mark.parametrize("image_path", ["a.png", "./A.PNG", "D:\\old\\a.png", "../images/a.png"])
def test_else_image_path_counts(tmp_path, image_path):
    write_image(tmp_path / "images" / "a.png")
    write(tmp_path / "labels" / "x1.json", [SHAPE], image_path)
    assert summarize(read_labelme(tmp_path)) == {"images/a.png": ("complete", [NODULE])}


def test_an_image_of_the_files_name_in_another_folder(tmp_path):
    for name in "ab":
        write_image(tmp_path / "images" / f"{name}.png")
    write(tmp_path / "labels" / "a.json", [SHAPE], "a.png")
    write(tmp_path / "labels" / "b.json", [OTHER], "..\\images\\a.png")
    assert summarize(read_labelme(tmp_path)) == {
        "images/a.png": ("complete", [NODULE]),
        "images/b.png": ("complete", [CYST]),
    }


def test_images_of_one_name_in_several_folders(tmp_path):
    """Another patient's image of the same name must not be taken."""
    for patient in ("p1", "p2"):
        write_image(tmp_path / "images" / patient / "1.png")
        path = f"../../images/{patient}/1.png"
        write(tmp_path / "labels" / patient / "1.json", [SHAPE if patient == "p1" else OTHER], path)
    write_image(tmp_path / "labels" / "images" / "1.png")
    assert summarize(read_labelme(tmp_path)) == {
        "images/p1/1.png": ("complete", [NODULE]),
        "images/p2/1.png": ("complete", [CYST]),
        "labels/images/1.png": ("none", []),
    }


@pytest.mark.parametrize(
    ("image_path", "states"),
    [
        ("a.png", {"a.jpg": "none", "a.png": "complete"}),
        ("X:\\A.JPG", {"a.jpg": "complete", "a.png": "none"}),
        ("old.png", {"a.jpg": "faulty", "a.png": "faulty"}),
        ("a.tif", {"a.jpg": "faulty", "a.png": "faulty"}),
    ],
)
def test_two_images_of_one_stem(tmp_path, image_path, states):
    for name in states:
        write_image(tmp_path / name)
    write(tmp_path / "a.json", [SHAPE], image_path)
    found = summarize(read_labelme(tmp_path))
    assert {name: state for name, (state, _) in found.items()} == states


def test_two_files_that_claim_one_image(tmp_path):
    write_image(tmp_path / "a.png")
    write(tmp_path / "a.json", [SHAPE], "a.png")
    write(tmp_path / "a_second.json", [OTHER], "a.png")
    found = read_labelme(tmp_path)
    assert summarize(found) == {"a.png": ("faulty", [NODULE])}
    assert found.problems[0].reason == "the source holds this image twice, with different boxes"


@pytest.mark.parametrize(
    "data",
    [b"{", b"\xff\xfe\xfd", b'{"shapes": [], "shapes": []}', b'{"name": "package"}', b"[]", b""],
)
def test_a_file_that_cannot_be_read_is_a_fault_of_the_image_of_its_name(tmp_path, data):
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name)
    (tmp_path / "a.json").write_bytes(data)
    (tmp_path / "notes.json").write_bytes(data)
    write(tmp_path / "b.json", [SHAPE], "b.png")
    found = read_labelme(tmp_path)
    assert summarize(found) == {"a.png": ("faulty", []), "b.png": ("complete", [NODULE])}
    assert sorted((p.file, p.effect) for p in found.problems) == [
        ("a.json", "unread"),
        ("notes.json", "skipped"),
    ]


@pytest.mark.parametrize("shapes", [None, {}, "x", 3])
def test_shapes_that_are_no_list(tmp_path, shapes):
    write_image(tmp_path / "a.png")
    write(tmp_path / "a.json", shapes, "a.png")
    assert summarize(read_labelme(tmp_path)) == {"a.png": ("faulty", [])}


@pytest.mark.parametrize(
    ("kind", "points", "box"),
    [
        ("rectangle", [[30, 20], [10, 12]], [10, 12, 30, 20]),
        ("rectangle", [[10, 12], [30, 12], [30, 20], [10, 20]], [10, 12, 30, 20]),
        ("rotation", [[20, 10], [30, 20], [20, 30], [10, 20]], [10, 10, 30, 30]),
        ("polygon", [[10, "12"], ["30", 12], [20, " 20.0"]], [10, 12, 30, 20]),
        (None, [[10, 12], [30, 12], [20, 20]], [10, 12, 30, 20]),
        # The radius is the hypotenuse of 3 and 4.
        ("circle", [[20, 20], [23, 24]], [15, 15, 25, 25]),
        ("mask", [[4, 5], [7, 9]], [4, 5, 8, 10]),
        ("circle", [["inf", 20], ["inf", 24]], None),
        ("mask", [["-1e309", 20], ["1e400", 24]], None),
        ("rectangle", [[10, 12], [30, 12], [30, 20]], "a rectangle wants 2 or 4 points; got 3"),
        ("rectangle", [[10, 12]], "a rectangle wants 2 or 4 points; got 1"),
        ("rectangle", [], "a rectangle wants 2 or 4 points; got 0"),
        ("polygon", [[10, 12], [30, 20]], "a polygon wants at least 3 points; got 2"),
        ("circle", [[1, 1]], "a circle wants 2 points; got 1"),
        ("line", [[1, 1], [5, 5]], "a point or line has no area"),
        ("linestrip", [[1, 1], [5, 5], [6, 7]], "a point or line has no area"),
        ("point", [[1, 1]], "a point or line has no area"),
        ("cuboid", [[1, 1]] * 8, "its shape_type is not known"),
        ([], [[1, 1]], "its shape_type is not known"),
        ("rectangle", None, "its points are not a list of [x, y]"),
        ("rectangle", [[1, 2, 3], [3, 4, 5]], "its points are not a list of [x, y]"),
        ("rectangle", [{"x": 1, "y": 2}], "its points are not a list of [x, y]"),
    ],
)
def test_shapes(tmp_path, kind, points, box):
    write_image(tmp_path / "a.png")
    write(tmp_path / "a.json", [{"label": "x", "points": points, "shape_type": kind}], "a.png")
    found = read_labelme(tmp_path)
    if box is None:
        # It is left to `clean_boxes`, without a warning.
        assert not np.isfinite(found.images[0].boxes).all()
    elif isinstance(box, str):
        assert summarize(found) == {"a.png": ("faulty", [])}
        assert found.problems[0].reason == f"shapes[0]: {box}"
    else:
        assert summarize(found) == {"a.png": ("complete", [("x", box)])}


@pytest.mark.parametrize("label", [None, "", " \n", [], 1.5, True])
def test_a_shape_without_a_label_is_a_fault(tmp_path, label):
    write_image(tmp_path / "a.png")
    write(tmp_path / "a.json", [SHAPE, {**SHAPE, "label": label}, 3], "a.png")
    assert summarize(read_labelme(tmp_path)) == {"a.png": ("faulty", [NODULE])}


def test_labels_in_any_spelling_are_one(tmp_path):
    labels = ["é ", unicodedata.normalize("NFD", "é"), 7, "7"]
    write_image(tmp_path / "a.png")
    write(tmp_path / "a.json", [{**SHAPE, "label": label} for label in labels], "a.png")
    found = read_labelme(tmp_path)
    assert found.label_names == ("7", "é") and found.images[0].labels == ("é", "é", "7", "7")


def test_relative_coordinates(tmp_path):
    relative = {**SHAPE, "points": [[0.1, 0.2], [0.3, 0.4]]}
    for name in "ab":
        write_image(tmp_path / f"{name}.png")
        write(tmp_path / f"{name}.json", [relative], f"{name}.png", imageHeight=48, imageWidth=64)
    with pytest.raises(AnnotationError, match="the coordinates are relative"):
        read_labelme(tmp_path)
    write(tmp_path / "a.json", [SHAPE], "a.png")
    states = {name: state for name, (state, _) in summarize(read_labelme(tmp_path)).items()}
    assert states == {"a.png": "complete", "b.png": "faulty"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks(tmp_path, encoding):
    write_image(tmp_path / "ä.png")
    content = {"shapes": [{**SHAPE, "label": "é"}], "imagePath": "ä.png"}
    (tmp_path / "ä.JSON").write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    assert summarize(read_labelme(tmp_path)) == {"ä.png": ("complete", [("é", NODULE[1])])}


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_other_unicode_forms_and_letter_case(tmp_path, forms):
    image, file = (unicodedata.normalize(form, "Röntgen") for form in forms)
    write_image(tmp_path / f"{image}.png")
    write(tmp_path / f"{file.upper()}.json", [SHAPE], "gone.png")
    assert summarize(read_labelme(tmp_path)) == {f"{image}.png": ("complete", [NODULE])}


def test_images_outside_the_source(tmp_path):
    write_image(tmp_path / "out" / "c.png")
    write_image(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "out" / "c.png")
    write(tmp_path / "in" / "a.json", [SHAPE], "a.png")
    write(tmp_path / "in" / "b.json", [SHAPE], "../out/c.png")
    write(tmp_path / "in" / "link.json", [SHAPE], "link.png")
    found = read_labelme(tmp_path / "in")
    assert summarize(found) == {"a.png": ("complete", [NODULE])}
    found = read_labelme(tmp_path / "in", options=ReaderOptions(images=tmp_path / "out"))
    assert summarize(found) == {
        "a.png": ("complete", [NODULE]),
        "link.png": ("complete", [NODULE]),
        "../out/c.png": ("complete", [NODULE]),
    }


def test_an_image_that_is_only_in_the_file_is_named(tmp_path):
    write_image(tmp_path / "a.png")
    write(tmp_path / "gone.json", [SHAPE], "gone.png", imageData="iVBORw0KGgo=")
    (problem,) = read_labelme(tmp_path).problems
    assert (problem.file, problem.effect) == ("gone.json", "skipped")
    assert problem.reason.startswith("the image that it describes is missing; save the copy")


def test_what_is_none(tmp_path):
    with pytest.raises(AnnotationError, match="no such folder"):
        read_labelme(tmp_path / "missing")
    write_image(tmp_path / "a.png")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(AnnotationError, match="no JSON file of LabelMe"):
        read_labelme(tmp_path)
    with pytest.raises(AnnotationError, match="no JSON of LabelMe"):
        parse_labelme(tmp_path / "a.json")
    assert is_labelme({"shapes": []}) and is_labelme({"shapes": None, "imagePath": ""})
    assert not any(map(is_labelme, ([], None, {}, {"shapes": None}, {"imagePath": "a"})))


@pytest.fixture
def cases():
    folder = Path(__file__).resolve().parent.parent.parent / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip(f"no cases: {folder} is not a folder")
    return folder


def test_reported_cases(cases):
    folder = cases / "field" / "02-labelme-stale-imagePath"
    expected = {
        "lmcopied": {"a.png": NODULE, "b.png": CYST},
        "lmrenamed": {"demo.png": NODULE, "other.png": NODULE},
        "lmabs": {"a.png": NODULE},
    }
    for name, boxes in expected.items():
        states = {image: ("complete", [box]) for image, box in boxes.items()}
        assert summarize(read_labelme(folder / name)) == states
    (image,) = read_labelme(cases / "field" / "07-exif-orientation" / "exif3lm").images
    # The size is that of the image as it is shown; turned by 180 degrees it stays the same.
    assert (image.height, image.width) == (48, 64) and image.boxes.tolist() == [[4, 36, 24, 44]]
    found = read_labelme(cases / "hostile" / "labelme_traversal" / "src")
    assert summarize(found) == {"a.jpg": ("complete", [("stone", [10, 10, 40, 40])])}
    assert len(found.problems) == 2


def test_no_mutation_loses_a_box(tmp_path):
    read = 0
    for seed in range(400):
        folder = tmp_path / str(seed)
        folder.mkdir()
        truth = corpus.make(random.Random(seed), folder)
        try:
            annotations = read_labelme(folder)
        except AnnotationError:
            continue
        read += 1
        assert find_losses(annotations, truth) == [], seed
    assert read > 150
