"""What must not make an image with a box a negative, through the whole of ingest."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image
from test_dicom import write_dicom

from vae_aug.data.images import write_image
from vae_aug.data.ingest import ingest
from vae_aug.data.records import read_records
from vae_aug.errors import AnnotationError, RecordError

HEIGHT, WIDTH = 48, 64
BOX = "0 .5 .5 .25 .25"
HEADER = "filename,class,xmin,ymin,xmax,ymax\n"


def write_images(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        write_image(folder / name, np.full((HEIGHT, WIDTH, 1), 7, np.uint8))


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_coco(names, boxes):
    images = [
        {"id": i, "file_name": n, "width": WIDTH, "height": HEIGHT} for i, n in enumerate(names)
    ]
    annotations = [
        {"id": i, "image_id": names.index(name), "category_id": 1, "bbox": [10, 12, 20, 8]}
        for i, name in enumerate(boxes)
    ]
    categories = [{"id": 1, "name": "nodule"}]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


def read(out):
    """Return the number of boxes of each annotated image."""
    try:
        elements = list(read_records(out, "train"))
    except RecordError:
        return {}
    return {e["image/source_id"].numpy().decode(): len(e["objects"]["bbox"]) for e in elements}


def run(source, out, **options):
    report = ingest(source, out, keep_ids=True, **options)
    return report, read(out)


# --- Several files of one format


@pytest.mark.parametrize(
    "files",
    [
        ("a.json", "annotations/more.json"),
        ("train.json", "train_extra.json"),
        ("train.json", "annotations/instances_train.json"),
    ],
)
@pytest.mark.parametrize("format", ["auto", "coco"])
def test_several_coco_files_that_may_describe_a_split_are_refused(tmp_path, files, format):
    write_images(tmp_path / "in", "a.png", "b.png")
    for file, boxes in zip(files, (["a.png"], ["b.png"]), strict=True):
        write_text(tmp_path / "in" / file, make_coco(["a.png", "b.png"], boxes))
    with pytest.raises(AnnotationError, match="2 files may describe the images of the split"):
        ingest(tmp_path / "in", tmp_path / "out", format=format)
    # The file itself may be given.
    _, found = run(tmp_path / "in" / files[0], tmp_path / "out")
    assert found["a.png"] == 1


def test_files_of_other_splits_and_tasks_are_no_rivals(tmp_path):
    source = tmp_path / "in"
    for split in ("train", "val"):
        write_images(source / f"{split}2017", f"{split}.png")
        for task in ("instances", "captions", "person_keypoints"):
            path = source / "annotations" / f"{task}_{split}2017.json"
            write_text(path, make_coco([f"{split}.png"], [f"{split}.png"]))
    _, found = run(source, tmp_path / "out")
    assert found == {"train2017/train.png": 1}
    report, _ = run(source, tmp_path / "val", split="val")
    assert (report.images, report.boxes) == (1, 1)


def test_the_only_file_of_cvats_own_export_is_read(tmp_path):
    write_images(tmp_path / "in" / "images", "a.png")
    path = tmp_path / "in" / "annotations" / "instances_default.json"
    write_text(path, make_coco(["a.png"], ["a.png"]))
    assert run(tmp_path / "in", tmp_path / "out")[1] == {"images/a.png": 1}


def test_several_tables_that_may_describe_a_split_are_refused(tmp_path):
    write_images(tmp_path / "in", "a.png", "b.png")
    write_text(tmp_path / "in" / "train.csv", f"{HEADER}a.png,n,1,2,9,9\nb.png,,,,,\n")
    write_text(tmp_path / "in" / "train_part2.csv", f"{HEADER}b.png,n,1,2,9,9\n")
    with pytest.raises(AnnotationError, match="2 files may describe"):
        ingest(tmp_path / "in", tmp_path / "out")


# --- YOLO


@pytest.mark.parametrize("kind", ["json", "link", "pipe", "folder", "backup"])
def test_what_bears_the_name_of_an_image_is_no_missing_label_file(tmp_path, kind):
    source = tmp_path / "in"
    write_images(source / "images", "a.png", "b.png", "c.png")
    write_text(source / "classes.txt", "nodule\n")
    write_text(source / "labels" / "a.txt", BOX)
    place = source / "labels" / "b.txt"
    if kind == "json":
        write_text(place.with_suffix(".json"), "[]")
    elif kind == "link":
        place.symlink_to("../.git/annex/objects/x")
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        write_text(source / "labels" / "b.txt.bak", BOX)
    report, found = run(source, tmp_path / "out", format="yolo")
    assert found == {"images/a.png": 1, "images/c.png": 0}
    assert report.faulty == 1


def test_labels_in_the_folder_of_another_split_leave_their_image_in_doubt(tmp_path):
    source = tmp_path / "in"
    write_images(source / "images" / "train", "a.png", "b.png")
    write_images(source / "images" / "val", "c.png")
    write_text(source / "classes.txt", "nodule\n")
    write_text(source / "labels" / "train" / "a.txt", BOX)
    for name in ("b", "c"):
        write_text(source / "labels" / "val" / f"{name}.txt", BOX)
    report, found = run(source, tmp_path / "out")
    assert found == {"images/train/a.png": 1} and report.faulty == 1


def test_equal_names_in_two_splits_are_no_leftovers(tmp_path):
    source = tmp_path / "in"
    for split in ("train", "val"):
        write_images(source / "images" / split, "a.png", "b.png")
    write_text(source / "classes.txt", "nodule\n")
    write_text(source / "labels" / "train" / "a.txt", BOX)
    write_text(source / "labels" / "val" / "b.txt", BOX)
    _, found = run(source, tmp_path / "out")
    assert found == {"images/train/a.png": 1, "images/train/b.png": 0}


# --- Others


@pytest.mark.parametrize("label", ["?", "x", "unknown"])
def test_a_class_without_coordinates_is_no_negative(tmp_path, label):
    write_images(tmp_path / "in", "a.png", "b.png", "c.png")
    rows = f"a.png,n,1,2,9,9\nb.png,{label},,,,\nc.png,,,,,\n"
    write_text(tmp_path / "in" / "train.csv", HEADER + rows)
    assert run(tmp_path / "in", tmp_path / "out")[1] == {"a.png": 1, "c.png": 0}


def test_a_table_names_no_frame_of_dicom(tmp_path):
    (tmp_path / "in").mkdir()
    pixels = np.zeros((4, HEIGHT, WIDTH), np.uint16)
    frames = {"NumberOfFrames": 4, "PixelData": pixels.tobytes()}
    write_dicom(tmp_path / "in" / "0.dcm", pixels[0], **frames)
    write_images(tmp_path / "in", "a.png")
    write_text(tmp_path / "in" / "train.csv", f"{HEADER}0.dcm,n,1,2,9,9\na.png,n,1,2,9,9\n")
    report, found = run(tmp_path / "in", tmp_path / "out", format="csv")
    assert found == {"a.png": 1}
    assert "has 4 frames (0028,0008)" in report.skipped[0][1]


def test_links_that_lead_to_each_other_stop_nothing(tmp_path):
    write_images(tmp_path / "in", "a.png")
    (tmp_path / "in" / "x.lnk").symlink_to("x.lnk")
    write_text(tmp_path / "in" / "train.json", make_coco(["a.png"], ["a.png"]))
    assert run(tmp_path / "in", tmp_path / "out")[1] == {"a.png": 1}


def test_files_that_were_not_read_are_named_and_fail_under_strict(tmp_path):
    write_images(tmp_path / "in", "a.png")
    write_text(tmp_path / "in" / "train.csv", f"{HEADER}a.png,,,,,\n")
    (tmp_path / "in" / "boxes.xlsx").write_bytes(b"PK")
    report, _ = run(tmp_path / "in", tmp_path / "out")
    assert report.skipped[0][0] == "boxes.xlsx"
    with pytest.raises(AnnotationError, match=r"boxes\.xlsx: looks like an annotation"):
        ingest(tmp_path / "in", tmp_path / "strict", strict=True)


def test_an_unread_file_that_bears_the_name_of_an_image_leaves_it_in_doubt(tmp_path):
    write_images(tmp_path / "in", "a.png", "b.png", "c.png")
    rows = "a.png,n,1,2,9,9\nb.png,,,,,\nc.png,,,,,\n"
    write_text(tmp_path / "in" / "train.csv", HEADER + rows)
    np.save(tmp_path / "in" / "b.npy", np.zeros(3))
    report, found = run(tmp_path / "in", tmp_path / "out")
    assert found == {"a.png": 1, "c.png": 0} and report.faulty == 1


def test_boxes_of_unknown_images_doubt_unannotated_ones_too(tmp_path):
    source = tmp_path / "in"
    write_images(source, "a.png")
    write_images(source / "sub", "c.png")
    write_text(source / "classes.txt", "nodule\n")
    write_text(source / "a.txt", BOX)
    write_text(source / "renamed.txt", BOX)
    report, found = run(source, tmp_path / "out", unannotated="negative")
    assert found == {"a.png": 1} or not found
    assert report.faulty >= 1 and report.unannotated == 0


def test_more_boxes_than_an_image_can_have_make_it_faulty(tmp_path):
    write_images(tmp_path / "in", "a.png", "b.png")
    write_text(tmp_path / "in" / "classes.txt", "nodule\n")
    lines = (f"0 .{i % 90 + 5:03} .{i // 90 % 90 + 5:03} .01 .0{i:06}1" for i in range(70_000))
    write_text(tmp_path / "in" / "a.txt", "\n".join(lines))
    write_text(tmp_path / "in" / "b.txt", BOX)
    report, found = run(tmp_path / "in", tmp_path / "out")
    assert found == {"b.png": 1} and report.faulty == 1


def test_a_size_that_orientation_turns_is_explained(tmp_path):
    (tmp_path / "in").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / "in" / "a.jpg", exif=exif)
    write_text(tmp_path / "in" / "train.json", make_coco(["a.jpg"], ["a.jpg"]))
    with pytest.raises(AnnotationError, match="--exif ignore takes it as stored"):
        ingest(tmp_path / "in", tmp_path / "out")
    report, found = run(tmp_path / "in", tmp_path / "out", exif="ignore")
    assert found == {"a.jpg": 1} and report.turned == 0
