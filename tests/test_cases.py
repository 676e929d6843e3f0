"""Inputs as people report them, and hostile ones, each with its right value.

The folder is `$VAE_AUG_CASES` or `../shared/cases`; its READMEs say where each was reported.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from vae_aug.codecs.images import decode_image
from vae_aug.errors import AnnotationError
from vae_aug.ingest.dicom.image import read_dicom
from vae_aug.ingest.ingest import ingest
from vae_aug.records.check import iterate_examples
from vae_aug.records.shards import list_shards
from vae_aug.records.tfrecord import get_values

CASES = Path(os.environ.get("VAE_AUG_CASES") or ROOT.parent / "shared" / "cases")
pytestmark = pytest.mark.skipif(
    not CASES.is_dir(), reason=f"no cases: {CASES} is not a folder; set VAE_AUG_CASES to one"
)
SIDES = ("xmin", "ymin", "xmax", "ymax")


def find_case(name):
    return next(path for path in sorted(CASES.rglob(name)) if path.is_dir())


def load(out, part="train"):
    """Return by source id the boxes of each record, as (label, xyxy in pixels), and its image."""
    records = {}
    for path in list_shards(out, part):
        for _, example in iterate_examples(path):
            width, height = (
                get_values(example, f"image/{side}", "int64_list")[0]
                for side in ("width", "height")
            )
            columns = [get_values(example, f"image/object/bbox/{s}", "float_list") for s in SIDES]
            boxes = np.stack(columns, axis=-1) * [width, height, width, height]
            texts = get_values(example, "image/object/class/text", "bytes_list")
            named = [(t.decode(), b.round(3).tolist()) for t, b in zip(texts, boxes, strict=True)]
            image = decode_image(get_values(example, "image/encoded", "bytes_list")[0])
            name = get_values(example, "image/source_id", "bytes_list")[0].decode()
            records[name] = (named, image)
    return records


def run(name, out, **options):
    """Ingest a case and return the boxes of its annotated images."""
    report = ingest(find_case(name), out, keep_ids=True, **options)
    return report, {key: boxes for key, (boxes, _) in load(out).items()}


NODULE = [("nodule", [10, 12, 30, 20])]


@pytest.mark.parametrize("name", ["cocodup", "cococatdup"])
def test_duplicate_ids_of_coco_are_refused_by_name(tmp_path, name):
    with pytest.raises(AnnotationError, match=r"\b1\b"):
        run(name, tmp_path)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("lmrenamed", {"demo.png": NODULE, "other.png": NODULE}),
        ("lmcopied", {"a.png": NODULE, "b.png": [("cyst", [40, 30, 50, 40])]}),
        ("lmabs", {"a.png": NODULE}),
        ("csvheaderless", {"a.png": NODULE}),
        ("viacsv", {"a.png": NODULE}),
        ("supervisely", {"ds/img/a.png": NODULE}),
        (
            "cvatyolo",
            {
                "obj_train_data/a.png": [("nodule", [24, 18, 40, 30])],
                "obj_train_data/b.png": [("cyst", [8, 18, 24, 30])],
            },
        ),
        ("vocsamestem", {"JPEGImages/a.png": [("n", [10, 12, 30, 20])]}),
        ("viacoco", {"a.png": NODULE}),
        ("csveu", {"a.png": [("Läsion", [10.5, 12.25, 30, 20])]}),
    ],
)
def test_boxes_are_those_of_the_source(tmp_path, name, expected):
    _, found = run(name, tmp_path)
    assert found == expected


@pytest.mark.parametrize("name", ["yolobom", "bomclasses"])
def test_byte_order_marks_of_yolo_are_no_part_of_classes_and_names(tmp_path, name):
    for folder in (path for path in CASES.rglob(name) if path.is_dir()):
        report = ingest(folder, tmp_path / folder.parent.name, keep_ids=True)
        boxes = [
            entry for boxes, _ in load(tmp_path / folder.parent.name).values() for entry in boxes
        ]
        assert boxes[0][0] == "nodule"
        np.testing.assert_allclose(boxes[0][1], [10, 12, 30, 20], atol=1e-3)
        assert len(boxes) == (2 if name == "yolobom" else 1)
        assert report.faulty == report.unannotated == 0


def test_yolo_without_names_of_classes_is_refused(tmp_path):
    with pytest.raises(AnnotationError, match=r"classes\.txt"):
        run("makesenseyolo", tmp_path)


def test_a_broken_data_yaml_is_refused_by_name(tmp_path):
    with pytest.raises(AnnotationError, match=r"data\.yaml"):
        ingest(find_case("yolo_badyaml") / "src", tmp_path)


@pytest.mark.parametrize("name, patients", [("kits", 2), ("imglabels", 1)])
def test_label_volumes_are_paired(tmp_path, name, patients):
    pytest.importorskip("nibabel")
    report, found = run(name, tmp_path)
    assert report.patients == patients
    assert report.boxes == 2 * patients
    by_slice = {1: [3, 2, 7, 5], 2: [10, 8, 12, 10]}
    for key, boxes in found.items():
        expected = by_slice.get(int(key.rpartition("#")[2]))
        assert [box for _, box in boxes] == ([expected] if expected else [])


@pytest.mark.parametrize("name", ["maskjpg2png", "maskaa"])
def test_soft_edges_are_one_mask(tmp_path, name):
    _, found = run(name, tmp_path)
    ((label, box),) = found["images/a.png"]
    assert label == "object"
    np.testing.assert_allclose(box, [9, 11, 31, 21], atol=2)


@pytest.mark.parametrize("name", ["exif6yolo", "exif3lm", "exif6csv"])
def test_boxes_lie_on_the_image_as_its_orientation_shows_it(tmp_path, name):
    report, _ = run(name, tmp_path)
    ((((_, box),), image),) = load(tmp_path).values()
    left, top, right, bottom = (round(value) for value in box)
    lesion = image[top:bottom, left:right].mean()
    outside = np.ones(image.shape[:2], bool)
    outside[top - 2 : bottom + 2, left - 2 : right + 2] = False
    if name != "exif6csv":  # whose image is black
        assert lesion > 2 * image[outside].mean()
    assert sorted([right - left, bottom - top]) == [8, 20]
    assert report.turned == 1


def test_padding_with_the_wrong_vr_is_padding(tmp_path):
    files = {path.parent.name: path for path in CASES.rglob("08-*/**/*.dcm")}
    pixels = {name: read_dicom(path).pixels for name, path in files.items()}
    np.testing.assert_array_equal(pixels["ctpad_us"], pixels["ctpad_ss"])
    assert sorted(np.unique(pixels["ctpad_us"]).tolist()) == [0, 62529, 65535]


def test_the_first_value_of_a_voi_lut_may_be_negative():
    ramp = read_dicom(find_case("voict") / "a.dcm", bits=8).pixels[0, :, 0]
    # Values rise by 16 a column, and the table has one grey level for each 8 of them.
    np.testing.assert_array_equal(ramp, 2 * np.arange(len(ramp)))


def test_empty_elements_of_dicom_count_as_missing():
    for path in CASES.rglob("12-*/**/*.dcm"):
        greys = read_dicom(path, bits=8).pixels.ravel().tolist()
        # By the formula for 0, 50, 100 in the window (50, 101): 0.005, 0.505 and above 1.
        assert greys == ([1, 129, 255] if path.stem == "voi_empty" else [0, 128, 255])


def test_line_ends_are_no_part_of_a_class(tmp_path):
    report, _ = run("tfrtext", tmp_path)
    assert list(report.class_counts) == ["nodule"]
    assert report.faulty == report.unannotated == 0


def test_names_are_found_in_another_unicode_form(tmp_path):
    _, found = run("coconfd", tmp_path)
    assert list(found.values()) == [NODULE]


@pytest.mark.parametrize("name", ["coco_traversal", "labelme_traversal"])
def test_images_outside_the_source_are_named_and_left_out(tmp_path, name):
    report = ingest(find_case(name) / "src", tmp_path, keep_ids=True)
    assert set(load(tmp_path)) == {"images/ok.jpg" if name == "coco_traversal" else "a.jpg"}
    assert all("secret" not in key for key in load(tmp_path, "train_unannotated"))
    assert report.skipped


def test_a_file_that_claims_two_billion_frames_is_skipped(tmp_path):
    report = ingest(find_case("dicom_frames") / "src", tmp_path, keep_ids=True)
    assert [Path(file).name for file, _ in report.skipped] == ["frames.dcm"]
    assert "(0028,0008)" in report.skipped[0][1]
    assert report.unannotated_written == 1
