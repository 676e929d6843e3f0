from __future__ import annotations

import collections
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_dicom import write_dicom, write_frames

from vae_aug.codecs.images import read_image, write_image
from vae_aug.errors import AnnotationError, RecordError
from vae_aug.ingest.convert import SCANNER_KEY
from vae_aug.ingest.ingest import ingest, ingest_by_patient
from vae_aug.ingest.privacy import hash_identifier
from vae_aug.ingest.splits import Leak, find_leaks
from vae_aug.records.check import check_records
from vae_aug.records.records import iterate_examples, read_info, read_records

HEIGHT, WIDTH = 40, 80


pytestmark = pytest.mark.usefixtures("config_home")


def make_noise(seed, channels=1, dtype=np.uint8):
    shape = (HEIGHT, WIDTH, channels)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def write_coco(folder, boxes_by_name, *, split="train", labels=("lesion", "stone"), size=None):
    """Write a COCO data set of noise; boxes are (x, y, w, h, category id)."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for index, (name, boxes) in enumerate(boxes_by_name.items()):
        if not (folder / "images" / name).exists():
            write_image(folder / "images" / name, make_noise(index))
        height, width = size or (HEIGHT, WIDTH)
        entry = {"id": index, "file_name": name, "width": width, "height": height}
        images.append({**entry, "patient": name.split("_")[0]})
        annotations += [
            {"id": number, "image_id": index, "category_id": c, "bbox": [x, y, w, h]}
            for number, (x, y, w, h, c) in enumerate(boxes, start=len(annotations))
        ]
    categories = [{"id": i, "name": name} for i, name in enumerate(labels, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / f"{split}.json").write_text(json.dumps(content))
    return folder


GOOD = {
    "DOE_1.png": [(10, 5.5, 20, 10, 2), (0, 0, 80, 40, 1)],
    "DOE_2.png": [],
    "ROE_1.png": [(1, 2, 3, 4, 2)],
}


def list_files(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def to_pixels(element):
    """Return boxes `xyxy` in pixels."""
    height, width = element["image"].shape[:2]
    return element["objects"]["bbox"].numpy()[:, [1, 0, 3, 2]] * [width, height, width, height]


def test_records_hold_what_the_source_holds(tmp_path):
    source, out = write_coco(tmp_path / "in", GOOD), tmp_path / "out"
    done = []
    report = ingest(
        source, out, format="coco", shards=2, salt="s", progress=lambda *a: done.append(a)
    )
    assert (report.images, report.boxes, report.patients) == (3, 3, 2)
    assert report.class_counts == {"lesion": 1, "stone": 2}
    assert report.problems == () and report.split == "train"
    assert done == [(1, 3), (2, 3), (3, 3)]
    elements = list(read_records(out, "train"))
    for index, (element, (name, boxes)) in enumerate(zip(elements, GOOD.items(), strict=True)):
        np.testing.assert_array_equal(element["image"], make_noise(index))
        expected = np.array([(x, y, x + w, y + h) for x, y, w, h, _ in boxes]).reshape(-1, 4)
        np.testing.assert_allclose(to_pixels(element), expected, atol=1e-5)
        assert element["objects"]["label"].numpy().tolist() == [box[4] - 1 for box in boxes]
        key = hash_identifier("source", f"images/{name}", b"s")
        assert element["image/source_id"].numpy().decode() == key
        patient = hash_identifier("patient", name.split("_")[0], b"s")
        assert element["image/patient"].numpy().decode() == patient
    assert check_records(out) == 3
    assert list_files(out) == [
        "dataset.json",
        "ingest_train.json",
        "ingest_train.png",
        "label_map.pbtxt",
        "train-00000-of-00002.tfrecord",
        "train-00001-of-00002.tfrecord",
    ]


def test_nothing_written_names_a_patient(tmp_path):
    boxes = {**GOOD, "DOE_gone.png": [], "DOE_bad.png": [(99, 99, 1, 1, 1)]}
    source = write_coco(tmp_path / "in", boxes)
    (source / "images" / "DOE_gone.png").unlink()
    report = ingest(source, tmp_path / "out", format="coco")
    assert [p.effect for p in report.problems] == ["skipped", "dropped", "unannotated"]
    for path in (tmp_path / "out").iterdir():
        assert b"DOE" not in path.read_bytes() and b"ROE" not in path.read_bytes()
    written = json.loads((tmp_path / "out" / "ingest_train.json").read_text())
    assert (written["images"], written["skipped"], written["dropped"]) == (3, 1, 1)
    assert (written["faulty"], written["unannotated"]) == (1, 0)
    salt = (tmp_path / "config" / "vae-aug" / "salt").read_bytes().strip()
    assert written["problems"][0]["file"] == hash_identifier("source", "DOE_gone.png", salt)


def test_public_data_may_keep_its_names(tmp_path):
    source = write_coco(tmp_path / "in", {**GOOD, "DOE_bad.png": [(99, 99, 1, 1, 1)]})
    ingest(source, tmp_path / "out", format="coco", keep_ids=True)
    element = next(iter(read_records(tmp_path / "out", "train")))
    assert element["image/source_id"] == b"images/DOE_1.png" and element["image/patient"] == b"DOE"
    written = json.loads((tmp_path / "out" / "ingest_train.json").read_text())
    assert written["problems"][0]["file"] == "images/DOE_bad.png"
    assert not (tmp_path / "config").exists()


BAD = {
    "clip.png": [(70, 30, 20, 20, 1), (-5, -5, 200, 200, 2)],
    "drop.png": [(90, 0, 5, 5, 1), (1, 1, 0, 5, 1), (9, 9, -3, 5, 1), (1, 1, 2, 2, 1)],
    "twice.png": [(1, 1, 2, 2, 1), (1, 1, 2, 2, 1), (1, 1, 2, 2, 2)],
    "text.png": [],
}


def test_bad_input_is_named_counted_and_left_out(tmp_path):
    source = write_coco(tmp_path / "in", BAD)
    (source / "images" / "text.png").write_text("no image")
    report = ingest(source, tmp_path / "out", format="coco", keep_ids=True)
    # Of drop.png three boxes of four cannot be used, so a detector must not see it.
    assert (report.images, report.boxes, report.faulty) == (2, 2 + 3, 1)
    assert (report.clipped, report.dropped, report.duplicates) == (2, 3, 1)
    assert report.skipped == (
        ("images/text.png", "neither PNG nor JPEG; convert the image to one of them"),
    )
    reasons = [problem.reason for problem in report.problems]
    assert reasons[0].startswith("box 0 (lesion): partly outside the image, (70, 30, 90, 50)")
    assert [reason.split(":")[1].split(",")[0].strip() for reason in reasons[2:5]] == [
        "outside the image",
        "zero area",
        "inverted (a minimum above its maximum)",
    ]
    first = next(iter(read_records(tmp_path / "out")))
    np.testing.assert_allclose(to_pixels(first), [[70, 30, 80, 40], [0, 0, 80, 40]], atol=1e-5)
    assert check_records(tmp_path / "out") == 2
    (faulty,) = read_records(tmp_path / "out", "train_unannotated")
    assert faulty["image/source_id"] == b"images/drop.png" and not len(faulty["objects"]["bbox"])


def test_partial_annotations_are_kept_if_asked_for(tmp_path):
    lost = {"lost.png": [(90, 0, 5, 5, 1)]}
    source = write_coco(tmp_path / "in", BAD | lost)
    report = ingest(source, tmp_path / "out", keep_ids=True, keep_partial=True)
    assert (report.images, report.boxes, report.faulty) == (4, 2 + 1 + 3 + 0, 1)
    (faulty,) = read_records(tmp_path / "out", "train_unannotated")
    # No box is left of it, and without one it would be a negative.
    assert faulty["image/source_id"] == b"images/lost.png"


@pytest.mark.parametrize("name", ["clip.png", "drop.png", "text.png"])
def test_strict_refuses_and_writes_nothing(tmp_path, name):
    source = write_coco(tmp_path / "in", {**GOOD, name: BAD[name]})
    if name == "text.png":
        (source / "images" / name).write_text("no image")
    message = rf"images/{name}: .*Correct it, or run without strict"
    with pytest.raises(AnnotationError, match=message):
        ingest(source, tmp_path / "out", format="coco", strict=True, keep_ids=True)
    assert list_files(tmp_path / "out") == []


def test_size_that_differs_from_the_file(tmp_path):
    source = write_coco(tmp_path / "in", {"a.png": [(1, 1, 2, 2, 1)]}, size=(WIDTH, HEIGHT))
    message = r"no usable image.*80 x 40 pixels \(height x width\), the image has 40 x 80"
    with pytest.raises(AnnotationError, match=message):
        ingest(source, tmp_path / "out", format="coco")
    assert list_files(tmp_path / "out") == []


def read_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_interrupt_leaves_the_former_records(tmp_path):
    source, out = write_coco(tmp_path / "in", GOOD), tmp_path / "out"
    ingest(source, out, format="coco", shards=2)
    before = read_files(out)

    def interrupt(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(source, out, format="coco", shards=3, overwrite=True, progress=interrupt)
    assert read_files(out) == before


def test_splits_share_their_labels(tmp_path):
    out = tmp_path / "out"
    source = write_coco(tmp_path / "in", GOOD)
    write_coco(source, {"X_1.png": [(1, 1, 2, 2, 1)]}, split="val", labels=("stone",))
    ingest(source, out, format="coco", split="train")
    report = ingest(source, out, format="coco", split="val")
    assert report.split == "validation" and report.class_counts == {"lesion": 0, "stone": 1}
    info = read_info(out)
    assert info.label_names == ("lesion", "stone") and set(info.splits) == {"train", "validation"}
    assert next(iter(read_records(out, "val")))["objects"]["label"].numpy().tolist() == [1]
    write_coco(source, {"X_1.png": []}, split="test", labels=("cyst",))
    with pytest.raises(AnnotationError, match=r"the source has also \['cyst'\]"):
        ingest(source, out, format="coco", split="test")


def test_given_labels_rule(tmp_path):
    source = write_coco(tmp_path / "in", GOOD)
    report = ingest(source, tmp_path / "out", format="coco", labels=["stone", "cyst"])
    # An image of which a box was dropped is no example of the others.
    assert report.class_counts == {"stone": 1, "cyst": 0}
    assert (report.dropped, report.faulty) == (1, 1)
    assert "the label is not in the list ['stone', 'cyst']" in report.problems[0].reason
    assert (tmp_path / "out" / "label_map.pbtxt").read_text().count("item {") == 2
    with pytest.raises(AnnotationError, match=r"none of \['Stone'\] is a label of the source"):
        ingest(source, tmp_path / "out2", format="coco", labels=["Stone"])


def test_grey_jpeg_and_colour_png(tmp_path):
    folder = tmp_path / "in"
    (folder / "images").mkdir(parents=True)
    Image.fromarray(make_noise(0)[..., 0]).convert("RGB").save(folder / "images" / "a.jpg")
    write_coco(folder, {"a.jpg": []})
    ingest(folder, tmp_path / "grey", format="coco")
    element = next(iter(read_records(tmp_path / "grey")))
    expected = read_image(folder / "images" / "a.jpg")[..., :1]
    assert read_info(tmp_path / "grey").channels == 1
    np.testing.assert_array_equal(element["image"], expected)
    write_image(folder / "images" / "b.png", make_noise(1, 3, np.uint16))
    write_coco(folder, {"a.jpg": [], "b.png": []})
    ingest(folder, tmp_path / "colour", format="coco")
    grey, colour = read_records(tmp_path / "colour")
    np.testing.assert_array_equal(grey["image"], np.repeat(expected, 3, 2) * np.uint16(257))
    np.testing.assert_array_equal(colour["image"], make_noise(1, 3, np.uint16))


def test_dicom_window_and_depth(tmp_path):
    (tmp_path / "in").mkdir()
    stored = np.array([[0, 1000], [2000, 3000]], np.uint16)
    write_dicom(tmp_path / "in" / "1.dcm", stored)
    write_dicom(tmp_path / "in" / "2.dcm", stored, NumberOfFrames=2)
    report = ingest(tmp_path / "in", tmp_path / "a", format="dicom", salt="s")
    # It declares two frames and holds the pixels of one.
    assert (report.images, report.unannotated) == (0, 1)
    assert [file for file, _ in report.skipped] == ["2.dcm"]
    assert "(0028,0008) Number of Frames" in report.skipped[0][1]
    assert report.patients == 1 and read_info(tmp_path / "a").dtype == "uint16"
    element = next(iter(read_records(tmp_path / "a", unannotated=True)))
    np.testing.assert_array_equal(element["image"][..., 0], [[0, 21845], [43690, 65535]])
    ingest(tmp_path / "in", tmp_path / "b", format="dicom", window=(1000, 2), bits=8)
    element = next(iter(read_records(tmp_path / "b", unannotated=True)))
    np.testing.assert_array_equal(element["image"][..., 0], [[0, 255], [255, 255]])


def test_annotations_of_other_formats_may_point_at_dicom(tmp_path):
    folder = write_coco(tmp_path / "in", {"a.png": [(1, 1, 2, 2, 1)]})
    (folder / "images" / "a.png").unlink()
    write_dicom(folder / "images" / "a.png", make_noise(0, dtype=np.uint16)[..., 0], bits_stored=16)
    report = ingest(folder, tmp_path / "out", format="coco")
    assert (report.images, report.boxes) == (1, 1) and read_info(tmp_path / "out").dtype == "uint16"


def test_records_of_all_formats_are_the_same(tmp_path):
    source = write_coco(tmp_path / "in", {"a.png": [(8, 4, 16, 10, 2), (0, 0, 80, 40, 1)]})
    content = json.loads((source / "train.json").read_text())
    del content["images"][0]["patient"]
    (source / "train.json").write_text(json.dumps(content))
    (source / "labels").mkdir()
    (source / "labels" / "a.txt").write_text("1 0.2 0.225 0.2 0.25\n0 0.5 0.5 1 1\n")
    (source / "classes.txt").write_text("lesion\nstone\n")
    (source / "Annotations").mkdir()
    root = ET.Element("annotation")
    for name, box in (("stone", (8, 4, 24, 14)), ("lesion", (0, 0, 80, 40))):
        element = ET.SubElement(root, "object")
        ET.SubElement(element, "name").text = name
        bndbox = ET.SubElement(element, "bndbox")
        for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
            ET.SubElement(bndbox, side).text = str(value)
    ET.ElementTree(root).write(source / "Annotations" / "a.xml")
    (source / "train.csv").write_text(
        "filename,xmin,ymin,xmax,ymax,label\na.png,8,4,24,14,stone\na.png,0,0,80,40,lesion\n"
    )
    shards = set()
    for format in ("coco", "voc", "yolo", "csv"):
        ingest(source, tmp_path / format, format=format, salt="s")
        shards.add((tmp_path / format / "train-00000-of-00001.tfrecord").read_bytes())
    assert len(shards) == 1


def test_arguments_are_checked_before_anything_is_read(tmp_path):
    for settings, message in (
        ({"format": "coco", "split": "a/b"}, "a split is named with"),
        ({"format": "coco", "window": "lungs"}, "window must be"),
    ):
        with pytest.raises(ValueError, match=message):
            ingest(tmp_path / "missing", tmp_path / "out", **settings)
    with pytest.raises(AnnotationError, match="missing: no such file or folder"):
        ingest(tmp_path / "missing", tmp_path / "out", format="coco")
    assert not (tmp_path / "out").exists()


def test_folder_that_cannot_be_written(tmp_path):
    source = write_coco(tmp_path / "in", GOOD)
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="out: cannot be written"):
        ingest(source, tmp_path / "file" / "out", format="coco")


# --- Real data: counts of ../shared/data/README.md, and every box against the source


def read_by_id(folder, split):
    return {e["image/source_id"].numpy().decode(): e for e in read_records(folder, split)}


def check_boxes(elements, expected, labels):
    """Compare with {source id: [(label, xmin, ymin, xmax, ymax)]} in the order of the source."""
    assert set(elements) == set(expected)
    for key, boxes in expected.items():
        element = elements[key]
        names = [labels[label] for label in element["objects"]["label"].numpy()]
        assert names == [box[0] for box in boxes]
        corners = np.array([box[1:] for box in boxes], np.float64).reshape(-1, 4)
        np.testing.assert_allclose(to_pixels(element), corners, atol=1e-3)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "file", "split", "images", "boxes", "patients"),
    [
        ("kidney_stone_ct", "train", "train", 532, 1150, 0),
        ("kidney_stone_ct", "valid", "val", 123, 325, 0),
        ("kidney_stone_ct", "test", "test", 123, 224, 0),
        pytest.param("lgg_flair", "train", "train", 1047, 769, 48, marks=pytest.mark.slow),
        ("lgg_flair", "val", "validation", 207, 159, 12),
    ],
)
def test_real_coco(data_dir, tmp_path, name, file, split, images, boxes, patients):
    source = data_dir / name
    report = ingest(source, tmp_path, format="coco", split=split, keep_ids=True, strict=True)
    assert (report.images, report.boxes, report.patients) == (images, boxes, patients)
    content = json.loads((source / f"{file}.json").read_text())
    labels = [category["name"] for category in content["categories"]]
    names = {entry["id"]: f"images/{entry['file_name']}" for entry in content["images"]}
    expected = {name: [] for name in names.values()}
    for entry in content["annotations"]:
        x, y, w, h = entry["bbox"]
        box = (labels[entry["category_id"] - 1], x, y, x + w, y + h)
        expected[names[entry["image_id"]]].append(box)
    elements = read_by_id(tmp_path, split)
    check_boxes(elements, expected, labels)
    for key in list(names.values())[::50]:
        with Image.open(source / key) as image:
            np.testing.assert_array_equal(elements[key]["image"][..., 0], image.convert("L"))


@pytest.mark.real_data
@pytest.mark.parametrize("format", ["voc", "csv"])
def test_real_voc_and_csv(data_dir, tmp_path, format):
    source = data_dir / "bccd" / ("test.csv" if format == "csv" else "")
    report = ingest(source, tmp_path, format=format, split="all", keep_ids=True)
    # Two images have a box without area each, and are no examples of the others.
    assert (report.images, report.boxes, report.dropped, report.faulty) == (362, 4862, 2, 2)
    expected = {}
    for path in sorted((data_dir / "bccd" / "BCCD" / "Annotations").glob("*.xml")):
        boxes = [
            (o.findtext("name"), *(float(o.findtext(f"bndbox/{s}")) for s in SIDES))
            for o in ET.parse(path).iter("object")
        ]
        if all(box[1] < box[3] and box[2] < box[4] for box in boxes):
            expected[f"BCCD/JPEGImages/{path.stem}.jpg"] = boxes
    check_boxes(read_by_id(tmp_path, "all"), expected, list(report.class_counts))


SIDES = ("xmin", "ymin", "xmax", "ymax")


@pytest.mark.real_data
def test_real_dicom_with_boxes(data_dir, tmp_path):
    source = data_dir / "lung_ct_dicom"
    report = ingest(
        source, tmp_path, format="dicom", keep_ids=True, strict=True, unannotated="keep"
    )
    assert (report.images, report.boxes, report.patients) == (11, 11, 1)
    assert (report.unannotated, report.unannotated_written, report.faulty) == (53, 53, 0)
    elements = read_by_id(tmp_path, "train")
    boxes = {
        path.stem: [
            (o.findtext("name"), *(float(o.findtext(f"bndbox/{s}")) for s in SIDES))
            for o in ET.parse(path).iter("object")
        ]
        for path in (source / "annotations").glob("*.xml")
    }
    assert len(boxes) == 11
    check_boxes(elements, {key: boxes.get(key, []) for key in elements}, ["A"])
    assert elements[next(iter(boxes))]["image"].dtype == "uint16"


@pytest.mark.slow
@pytest.mark.real_data
def test_real_dicom_without_boxes(data_dir, tmp_path):
    source = data_dir / "mr_brain_dicom"
    with pytest.raises(AnnotationError, match="does not say whether the image has boxes"):
        ingest(source, tmp_path, format="dicom", strict=True, salt="s")
    report = ingest(source, tmp_path, format="dicom", salt="s")
    assert (report.images, report.boxes, report.patients) == (0, 0, 1)
    assert (report.unannotated, report.unannotated_written) == (384, 384)
    images = read_records(tmp_path, unannotated=True)
    patients = {element["image/patient"].numpy() for element in images.take(3)}
    assert patients == {hash_identifier("patient", "02", b"s").encode()}


# --- Splits, workers, report, privacy


def test_patients_are_shared_out(tmp_path):
    boxes = {f"P{i}_{j}.png": [(1, 2, 3, 4, 1 + i % 2)] for i in range(10) for j in range(2)}
    boxes["P0_bad.png"] = [(99, 99, 1, 1, 1)]
    source = write_coco(tmp_path / "in", boxes)
    reports = ingest_by_patient(source, tmp_path / "out", (0.6, 0.2, 0.2), keep_ids=True)
    assert [report.split for report in reports] == ["train", "validation", "test"]
    assert sum(report.images for report in reports) == 20
    assert sum(report.faulty for report in reports) == 1
    assert sum(report.dropped for report in reports) == 1
    assert sum(report.patients for report in reports) == 10
    held = [
        {
            e["image/patient"].numpy()
            for e in read_records(tmp_path / "out", report.split, unannotated=True)
        }
        for report in reports
    ]
    assert len(set().union(*held)) == sum(map(len, held)) == 10
    assert [leak for leak in find_leaks(tmp_path / "out") if leak.kind != "image"] == []
    again = ingest_by_patient(source, tmp_path / "again", (0.6, 0.2, 0.2), keep_ids=True)
    assert again == reports
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_two_workers_write_what_one_writes(tmp_path):
    boxes = {f"P{i}_1.png": [(i, 2, 3, 4, 1), (70, 2, 30, 4, 2)] for i in range(24)}
    source = write_coco(tmp_path / "in", boxes)
    (source / "images" / "P7_1.png").write_bytes(b"no image")
    reports = [
        ingest(source, tmp_path / str(workers), shards=3, salt="s", workers=workers)
        for workers in (1, 2)
    ]
    assert reports[0] == reports[1]
    assert len(reports[0].skipped) == 1 and reports[0].clipped == 23
    names = list_files(tmp_path / "1")
    assert names == list_files(tmp_path / "2") and len(names) == 7
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_the_report_tells_sizes_scanners_and_grey_levels(tmp_path):
    (tmp_path / "in").mkdir()
    stored = np.zeros((HEIGHT, WIDTH), np.uint16)
    stored[:, : WIDTH // 4] = 4095
    for index in range(2):
        write_dicom(
            tmp_path / "in" / f"{index}.dcm",
            stored,
            Manufacturer="Philips Medical Systems",
            BurnedInAnnotation=("YES", "NO")[index],
        )
    report = ingest(tmp_path / "in", tmp_path / "out", window="full")
    assert report.scanners == {"philips CT": 2}
    assert report.intensities == {"philips CT": (0.75, *[0.0] * 14, 0.25)}
    assert report.burned_in == 1 and report.box_sizes_px == {}
    examples = [
        example
        for path in (tmp_path / "out").glob("*.tfrecord")
        for _, example in iterate_examples(path)
    ]
    told = [example.features.feature[SCANNER_KEY].bytes_list.value for example in examples]
    assert told == [[b"philips CT"]] * 2
    boxes = {"a_1.png": [(0, 0, w, 2 * w, 1) for w in (2, 4, 6, 8, 10)]}
    report = ingest(write_coco(tmp_path / "coco", boxes), tmp_path / "out2")
    assert report.box_sizes_px == {"width": (2, 4, 6, 8, 10), "height": (4, 8, 12, 16, 20)}
    written = json.loads((tmp_path / "out2" / "ingest_train.json").read_text())
    assert written["box_sizes_px"]["width"] == [2, 4, 6, 8, 10]
    sheet = np.asarray(Image.open(tmp_path / "out2" / "ingest_train.png"))
    assert (sheet == (255, 210, 0)).all(axis=-1).sum() > 50


# --- Images of which the source says nothing


def write_bare(folder):
    folder.mkdir(parents=True)
    for index in range(3):
        write_image(folder / f"{index}.png", make_noise(index))
    return folder


def test_bare_images_are_kept_apart_from_those_that_a_detector_reads(tmp_path):
    out = tmp_path / "out"
    report = ingest(write_bare(tmp_path / "in"), out)
    assert (report.images, report.unannotated, report.unannotated_written) == (0, 3, 3)
    assert [p.effect for p in report.problems] == ["unannotated"] * 3
    info = read_info(out)
    assert not info.splits and info.unannotated["train_unannotated"].examples == 3
    assert check_records(out, "train_unannotated") == 3
    with pytest.raises(RecordError, match=r"no annotated images.*--unannotated negative"):
        read_records(out, "train")
    with pytest.raises(RecordError, match="vae-aug train reads them"):
        read_records(out)
    assert len(list(read_records(out, "train", unannotated=True))) == 3


def test_a_split_is_read_without_its_unannotated_images(tmp_path):
    source, out = (
        write_coco(tmp_path / "in", GOOD | {"bad.png": [(99, 99, 1, 1, 1)]}),
        tmp_path / "o",
    )
    ingest(source, out, shards=2)
    assert list_files(out)[-4:] == [
        "train-00000-of-00002.tfrecord",
        "train-00001-of-00002.tfrecord",
        "train_unannotated-00000-of-00002.tfrecord",
        "train_unannotated-00001-of-00002.tfrecord",
    ]
    assert len(list(read_records(out))) == len(list(read_records(out, "train"))) == 3
    assert len(list(read_records(out, "train", unannotated=True))) == 4
    # Once the source is corrected, nothing of them stays.
    ingest(write_coco(tmp_path / "in", GOOD), out, shards=2, overwrite=True)
    assert not list(out.glob("train_unannotated-*")) and not read_info(out).unannotated


@pytest.mark.parametrize(
    "choice, images, written",
    [("keep", 0, 3), ("negative", 3, 0)],
)
def test_the_user_decides_on_unannotated_images(tmp_path, choice, images, written):
    report = ingest(write_bare(tmp_path / "in"), tmp_path / "out", unannotated=choice)
    assert (report.images, report.boxes, report.unannotated_written) == (images, 0, written)


def test_unannotated_images_can_be_left_out_or_refused(tmp_path):
    source = write_coco(tmp_path / "in", GOOD | {"bad.png": [(99, 99, 1, 1, 1)]})
    report = ingest(source, tmp_path / "out", unannotated="skip")
    assert (report.images, report.faulty, report.unannotated_written) == (3, 1, 0)
    bare = write_bare(tmp_path / "bare")
    for settings in ({"unannotated": "error"}, {"strict": True}):
        with pytest.raises(AnnotationError, match=r"0\.png: the source does not say"):
            ingest(bare, tmp_path / "none", **settings)
    with pytest.raises(AnnotationError, match="none of the 3 images is annotated"):
        ingest(bare, tmp_path / "none", unannotated="skip")
    with pytest.raises(ValueError, match="unannotated must be one of 'keep', 'skip'"):
        ingest(bare, tmp_path / "none", unannotated="drop")


def test_a_faulty_annotation_is_no_negative_under_any_choice(tmp_path):
    source = write_coco(tmp_path / "in", GOOD | {"bad.png": [(99, 99, 1, 1, 1)]})
    for choice in ("keep", "skip", "negative"):
        for keep_partial in (False, True):
            out = tmp_path / f"{choice}{keep_partial}"
            settings = {"unannotated": choice, "keep_partial": keep_partial, "keep_ids": True}
            ingest(source, out, **settings)
            ids = {e["image/source_id"].numpy() for e in read_records(out, "train")}
            assert b"images/bad.png" not in ids and len(ids) == 3


def test_images_may_lie_in_a_folder_that_the_user_names(tmp_path):
    source = write_coco(tmp_path / "in", GOOD)
    (source / "images").rename(tmp_path / "elsewhere")
    (source / "images").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(AnnotationError, match="outside the source; name its folder with --images"):
        ingest(source, tmp_path / "out", format="coco")
    report = ingest(source, tmp_path / "out", images=tmp_path / "elsewhere")
    assert (report.images, report.boxes) == (3, 3)
    (source / "images").unlink()
    report = ingest(source, tmp_path / "out", images=tmp_path / "elsewhere", overwrite=True)
    assert (report.images, report.boxes) == (3, 3)
    with pytest.raises(AnnotationError, match="gone: no such folder"):
        ingest(source, tmp_path / "out", images=tmp_path / "gone")


# --- What is there already, and what is in two splits


def test_a_split_that_is_there_is_refused_before_the_source_is_read(tmp_path):
    source, out = write_coco(tmp_path / "in", GOOD), tmp_path / "out"
    ingest(source, out, salt="s")
    before = read_files(out)
    message = r"has train \(3 images\) already; nothing was changed\. If this is the same command"
    with pytest.raises(RecordError, match=message):
        ingest(source, out, salt="s")
    with pytest.raises(RecordError, match=message):
        ingest_by_patient(tmp_path / "nowhere", out, (0.5, 0.5))
    assert read_files(out) == before
    report = ingest(source, out, salt="s", overwrite=True)
    assert report.replaced == 3 and read_files(out) == before
    assert ingest(source, tmp_path / "new", salt="s", overwrite=True).replaced == 0


def test_leaks_into_other_splits_are_found_after_every_ingest(tmp_path):
    source, out = write_coco(tmp_path / "in", GOOD), tmp_path / "out"
    images = {"NEW_1.png": [(1, 1, 2, 2, 1)], "DOE_2.png": []}
    write_coco(source, images, split="val")
    first = ingest(source, out, split="train", keep_ids=True)
    assert first.leaks is None
    done = []
    report = ingest(
        source, out, split="val", keep_ids=True, progress=lambda *counts: done.append(counts)
    )
    splits = ("train", "validation")
    assert [leak for leak in report.leaks if leak.kind != "image"] == [
        Leak("patient", splits, "DOE"),
        Leak("source_id", splits, "images/DOE_2.png"),
    ]
    assert done == [(1, 2), (2, 2), *((image, 5) for image in range(1, 6))]
    assert "leaks" not in json.loads((out / "ingest_validation.json").read_text())
    settings = {"keep_ids": True, "overwrite": True, "leak_check": False}
    assert ingest(source, out, split="val", **settings).leaks is None


def test_a_damaged_other_split_is_named_and_the_new_one_stays(tmp_path):
    source, out = write_coco(tmp_path / "in", GOOD), tmp_path / "out"
    write_coco(source, {"NEW_1.png": []}, split="val")
    ingest(source, out)
    shard = out / "train-00000-of-00001.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(RecordError, match=r"validation is written; the search .* failed: .*train-"):
        ingest(source, out, split="val")
    assert check_records(out, "validation") == 1


def write_splits(folder):
    """A COCO data set of three files, of patients A to F; test names one image of train again."""
    names = {
        "train": ("A_1", "A_2", "B_1", "C_1"),
        "val": ("D_1", "E_1"),
        "test": ("F_1", "A_1"),
    }
    for split, stems in names.items():
        write_coco(folder, {f"{stem}.png": [(1, 2, 3, 4, 1)] for stem in stems}, split=split)
    return folder


def test_splits_that_were_left_unread_are_named_and_all_can_be_read(tmp_path):
    source = write_splits(tmp_path / "in")
    reports = ingest_by_patient(source, tmp_path / "some", (0.5, 0.5), keep_ids=True)
    assert sum(report.images for report in reports) == 4
    note = "the source also has validation (2 images) and test (1 image), left unread; --split all"
    assert reports[0].notes[-1].startswith(note)
    reports = ingest_by_patient(source, tmp_path / "all", (0.5, 0.5), split="all", keep_ids=True)
    assert sum(report.images for report in reports) == 7
    assert sum(report.patients for report in reports) == 6 and reports[0].notes == ()
    assert reports[0].evidence.endswith("in train.json, val.json, test.json")
    (source / "val.json").write_text("{")
    reports = ingest_by_patient(source, tmp_path / "bad", (0.5, 0.5), format="coco")
    assert "validation (cannot be read)" in reports[0].notes[-1]
    assert "correct or remove what cannot be read, then --split all" in reports[0].notes[-1]
    with pytest.raises(AnnotationError, match=r"val\.json"):
        ingest_by_patient(source, tmp_path / "none", (0.5, 0.5), format="coco", split="all")


def test_images_that_splits_describe_differently_are_faulty(tmp_path):
    source = write_coco(tmp_path / "in", GOOD)
    write_coco(source, {"DOE_1.png": [], "NEW.png": []}, split="val")
    report = ingest(source, tmp_path / "out", split="all", keep_ids=True)
    assert (report.images, report.faulty) == (3, 1)
    assert "1 image is in several splits of the source, with different boxes" in report.notes


def test_folders_of_splits_can_be_read_at_once(tmp_path):
    for split in ("train", "val"):
        write_bare(tmp_path / "in" / split)
    report = ingest(tmp_path / "in", tmp_path / "out", split="all", unannotated="negative")
    assert report.images == 6
    # Without splits everything is read once.
    write_bare(tmp_path / "bare")
    assert ingest(tmp_path / "bare", tmp_path / "out2", split="all").unannotated == 3


def test_a_source_without_patients_is_split_by_image_and_says_so(tmp_path):
    source = write_bare(tmp_path / "in")
    reports = ingest_by_patient(source, tmp_path / "out", (0.5, 0.5))
    assert reports[0].notes[0].startswith("WARNING: the source names no patients: these were split")
    write_coco(tmp_path / "coco", {"A_1.png": [], "_2.png": [], "B_1.png": []})
    reports = ingest_by_patient(tmp_path / "coco", tmp_path / "out2", (0.5, 0.5))
    assert reports[0].notes[0].startswith("WARNING: the source names no patient of 1 image:")


def test_dicom_files_name_the_patients_that_annotations_do_not(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b", "c", "d"):
        pixels = np.random.default_rng(ord(name)).integers(0, 999, (8, 8)).astype(np.uint16)
        write_dicom(folder / f"{name}.dcm", pixels, PatientID="P1" if name in "ab" else name)
    rows = "".join(f"{name}.dcm,1,1,4,4,lesion\n" for name in ("a", "b", "c", "d"))
    (folder / "train.csv").write_text(f"filename,xmin,ymin,xmax,ymax,class\n{rows}")
    reports = ingest_by_patient(folder, tmp_path / "out", (0.5, 0.5), format="csv")
    assert sum(report.patients for report in reports) == 3 and reports[0].notes == ()
    assert [leak for leak in reports[0].leaks if leak.kind == "patient"] == []


def count_opened(folder, call):
    """Count how often each file of a folder is opened by Python during a call."""
    opened, is_counting = collections.Counter(), True

    def note(event, arguments):
        if event == "open" and is_counting and str(arguments[0]).startswith(f"{folder}/"):
            opened[Path(arguments[0]).name] += 1

    sys.addaudithook(note)  # which cannot be removed
    call()
    is_counting = False
    return dict(opened)


def test_a_dicom_file_is_opened_for_its_header_and_for_its_pixels(tmp_path):
    """The pixels of PET are read twice: the range of the series comes first."""
    folder = tmp_path / "in"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 999, (3, 8, 8)).astype(np.uint16)
    write_dicom(folder / "ct.dcm", pixels[0], PatientID="A")
    write_dicom(folder / "pt.dcm", pixels[1], PatientID="B", Modality="PT", SeriesInstanceUID="1.2")
    write_frames(folder / "frames.dcm", pixels, PatientID="C")
    opened = count_opened(folder, lambda: ingest_by_patient(folder, tmp_path / "out", (0.5, 0.5)))
    assert opened == {"ct.dcm": 2, "pt.dcm": 3, "frames.dcm": 2}


def test_evidence_names_the_file_that_was_read(tmp_path):
    source = write_splits(tmp_path / "in")
    for format, said in (
        ("auto", "found JSON with 'images', 'annotations' and 'categories' in val.json"),
        ("coco", "as told, reading val.json"),
    ):
        settings = {"format": format, "split": "val", "salt": "s"}
        report = ingest(source, tmp_path / format, **settings)
        assert report.reveal(report.evidence) == said
        written = json.loads((tmp_path / format / "ingest_validation.json").read_text())
        assert hash_identifier("source", "val.json", b"s") in written["evidence"]
    report = ingest(write_bare(tmp_path / "bare"), tmp_path / "out", format="images")
    assert report.evidence == "as told"
