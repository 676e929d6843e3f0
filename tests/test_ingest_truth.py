"""What must not make an image with a box a negative, through the whole of ingest."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image
from test_dicom import write_dicom

from vae_aug.codecs.images import write_image
from vae_aug.errors import AnnotationError, RecordError
from vae_aug.ingest.ingest import ingest
from vae_aug.records.records import read_records

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


@pytest.mark.parametrize("format", ["auto", "coco"])
def test_a_file_of_coco_for_each_patient(tmp_path, format):
    source = tmp_path / "in"
    for patient in ("p1", "p2"):
        write_images(source / patient, "a.png")
        write_text(source / patient / "annotations.json", make_coco(["a.png"], ["a.png"]))
    match = "2 files may describe .* p1/annotations.json, p2/annotations.json. Join them, or give"
    with pytest.raises(AnnotationError, match=match):
        ingest(source, tmp_path / "out", format=format)
    assert run(source / "p1" / "annotations.json", tmp_path / "out")[1] == {"a.png": 1}
    # The only one is read, wherever it lies.
    (source / "p2" / "annotations.json").unlink()
    assert run(source, tmp_path / "only", format=format)[1] == {"p1/a.png": 1}


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_name_of_a_file_tells_its_split_before_its_folder_does(tmp_path, split):
    source = tmp_path / "in"
    for name in ("train", "val"):
        write_images(source / "train", f"{name}.png")
        text = make_coco([f"{name}.png"], [f"{name}.png"])
        write_text(source / "train" / f"{name}.json", text)
    report, _ = run(source, tmp_path / "out", split=split)
    assert (report.images, report.boxes) == (1, 1)


# --- Links


VOC = (
    f"<annotation><size><width>{WIDTH}</width><height>{HEIGHT}</height></size><object>"
    "<name>nodule</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    "</object></annotation>"
)
SHAPE = {"label": "nodule", "shape_type": "rectangle", "points": [[1, 2], [9, 9]]}
LABELME = json.dumps(
    {"imagePath": "a.png", "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": [SHAPE]}
)
CVAT = (
    f"<annotations><image id='0' name='a.png' width='{WIDTH}' height='{HEIGHT}'>"
    "<box label='nodule' xtl='1' ytl='2' xbr='9' ybr='9'/></image></annotations>"
)
VIA = json.dumps(
    {
        "a.png": {
            "filename": "a.png",
            "regions": [
                {
                    "shape_attributes": dict(name="rect", x=1, y=2, width=8, height=7),
                    "region_attributes": {"label": "nodule"},
                }
            ],
        }
    }
)
SOURCES = {
    "coco": {"train.json": make_coco(["a.png"], ["a.png"])},
    "csv": {"train.csv": f"{HEADER}a.png,nodule,1,2,9,9\n"},
    "cvat": {"annotations.xml": CVAT},
    "via": {"train.json": VIA},
    "voc": {"a.xml": VOC, "ImageSets/Main/train.txt": "a\n"},
    "labelme": {"a.json": LABELME},
    "yolo": {"a.txt": BOX, "data.yaml": "names: [nodule]\n", "classes.txt": "nodule\n"},
    "masks": {"classes.txt": "background\nnodule\n"},
}
LINKED = [(format, name) for format, files in SOURCES.items() for name in files]
LINKED += [("yolo", "obj.data"), ("yolo", "train.txt")]


def write_source(folder, format):
    write_images(folder, "a.png", "b.png")
    for name, text in SOURCES[format].items():
        write_text(folder / name, text)
    if format == "masks":
        pixels = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
        pixels[2:9, 1:9] = 1
        write_image(folder / "a_mask.png", pixels)


def link(folder, name, target):
    """Move a file to `target`, and leave a link to it; make it if it is not there."""
    path = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.rename(target)
    elif name == "obj.data":
        (folder / "data.yaml").unlink()
        target.write_text("names = classes.txt\ntrain = train.txt\n")
    else:
        target.write_text("b.png\n")
        (folder / "data.yaml").write_text("names: [nodule]\ntrain: train.txt\n")
    path.symlink_to(os.path.relpath(target, path.parent))


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(("format", "name"), LINKED)
def test_what_a_link_out_of_the_source_leads_to_is_not_read(tmp_path, format, name, told):
    source = tmp_path / "in"
    write_source(source, format)
    link(source, name, tmp_path / "elsewhere" / name)
    try:
        options = {"format": format if told else "auto", "unannotated": "negative"}
        report, found = run(source, tmp_path / "out", **options)
    except AnnotationError as error:
        assert "out of the source" in str(error)
        return
    assert found == {} or "a.png" not in found
    assert report.faulty and "out of the source" in str(report.problems)


@pytest.mark.parametrize("is_link", [True, False])
@pytest.mark.parametrize(("format", "name"), LINKED[:-2])
def test_links_within_the_source_are_followed(tmp_path, format, name, is_link):
    source = tmp_path / "in"
    write_source(source, format)
    link(source, name, source / ".kept" / name)
    if is_link:
        (tmp_path / "link").symlink_to(source, target_is_directory=True)
        source = tmp_path / "link"
    assert run(source, tmp_path / "out", format=format)[1]["a.png"] == 1


def test_a_folder_of_labels_may_be_a_link_to_another_of_the_source(tmp_path):
    source = tmp_path / "in"
    write_images(source / "images", "a.png", "b.png")
    write_text(source / "classes.txt", "nodule\n")
    write_text(source / "real_labels" / "a.txt", BOX)
    (source / "labels").symlink_to("real_labels", target_is_directory=True)
    for format in ("auto", "yolo"):
        _, found = run(source, tmp_path / format, format=format)
        assert found == {"images/a.png": 1, "images/b.png": 0}
    write_text(tmp_path / "elsewhere" / "a.txt", BOX)
    for path in (source / "labels", source / "real_labels" / "a.txt"):
        path.unlink()
    (source / "labels").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    report, found = run(source, tmp_path / "other", format="yolo")
    assert (found, report.faulty, report.unannotated) == ({}, 1, 1)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(
    ("format", "name"),
    [(f, n) for f, n in LINKED[:-2] if f != "masks" and "ImageSets" not in n and n != "a.txt"],
)
def test_text_of_another_encoding_is_told_so(tmp_path, format, name, told):
    source = tmp_path / "in"
    write_source(source, format)
    text = (source / name).read_text().replace("nodule", "Läsion")
    (source / name).write_bytes(text.encode("cp1252"))
    with pytest.raises(AnnotationError) as caught:
        report, _ = run(source, tmp_path / "out", format=format if told else "auto")
        raise AnnotationError(str(report.problems))  # faulty images, of which each has a file
    message = str(caught.value)
    assert "is no text in UTF-8" in message and "save it as UTF-8" in message
    assert "What each reader misses" not in message


def test_an_annotation_file_that_the_user_gives_may_be_a_link(tmp_path):
    write_source(tmp_path / "in", "csv")
    link(tmp_path / "in", "train.csv", tmp_path / "elsewhere" / "train.csv")
    assert run(tmp_path / "in" / "train.csv", tmp_path / "out")[1] == {"a.png": 1}


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


# --- Annotation files that lost their image


SUPERVISELY = json.dumps(
    {
        "size": {"height": HEIGHT, "width": WIDTH},
        "objects": [
            {
                "classTitle": "nodule",
                "geometryType": "rectangle",
                "points": {"exterior": [[1, 2], [9, 9]], "interior": []},
            }
        ],
    }
)


@pytest.mark.parametrize(
    ("format", "images", "lost", "kept", "text", "empty"),
    [
        ("labelme", ".", "gone.json", "a.json", LABELME.replace("a.png", "gone.png"), "[]"),
        ("voc", "JPEGImages", "Annotations/gone.xml", "Annotations/a.xml", VOC, ""),
        ("supervisely", "img", "ann/gone.png.json", "ann/a.png.json", SUPERVISELY, "[]"),
    ],
)
def test_an_annotation_that_lost_its_image_may_be_that_of_any_without_one(
    tmp_path, format, images, lost, kept, text, empty
):
    source = tmp_path / "in"
    write_images(source / images, "a.png", "b.png")
    write_text(source / lost, text)
    write_text(source / kept, text.replace("gone.png", "a.png"))
    report, found = run(source, tmp_path / "out", unannotated="negative")
    assert list(found.values()) == [1]
    assert (report.faulty, report.unannotated) == (1, 0)
    assert "1 annotation files have no image" in str(report.notes)
    # One without boxes can be missed.
    start, end = ("<object>", "</object>") if format == "voc" else ("[{", "}]")
    text = text[: text.index(start)] + empty + text[text.index(end) + len(end) :]
    write_text(source / lost, text)
    report, found = run(source, tmp_path / "other", unannotated="negative")
    assert list(found.values()) == [1, 0] and report.faulty == 0


# --- Annotations of an image of another format


@pytest.mark.parametrize("format", ["labelme", "voc", "dicom"])
@pytest.mark.parametrize("size", ["none", "its own", "another"])
def test_boxes_of_a_png_are_not_those_of_a_dicom_file_of_its_name(tmp_path, format, size):
    """They are if the file claims the size of the DICOM image."""
    source = tmp_path / "in"
    source.mkdir()
    write_dicom(source / "a.dcm", np.zeros((HEIGHT, WIDTH), np.uint16), SOPInstanceUID="1.1")
    text = (
        LABELME
        if format == "labelme"
        else VOC.replace("<size>", "<filename>a.png</filename><size>")
    )
    if size == "another":
        text = text.replace(str(WIDTH), str(2 * WIDTH))
    elif size == "none":
        text = text.replace("size>", "sizes>").replace("imageWidth", "w")
    write_text(source / f"a.{'json' if format == 'labelme' else 'xml'}", text)
    options = {"format": format, "unannotated": "negative"}
    if size == "another":
        with pytest.raises(AnnotationError, match="holds no usable image"):
            run(source, tmp_path / "out", **options)
        return
    report, found = run(source, tmp_path / "out", **options)
    assert list(found.values()) == ([1] if size == "its own" else [])
    assert report.faulty == (size == "none")


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


def test_a_name_that_is_no_text_stops_nothing(tmp_path):
    write_images(tmp_path / "in", "a.png", "b.png")
    try:
        os.rename(tmp_path / "in" / "b.png", os.fsencode(tmp_path / "in") + b"/caf\xe9.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    ingest(tmp_path / "in", tmp_path / "out", keep_ids=True, unannotated="negative")
    assert read(tmp_path / "out") == {"a.png": 0, "caf\\udce9.png": 0}


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
