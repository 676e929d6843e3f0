from __future__ import annotations

import json

import numpy as np
import pytest
from test_dicom import write_dicom

from vae_aug.codecs.images import write_image
from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats import (
    READERS,
    read_coco,
    read_csv,
    read_dicom_folder,
    read_voc,
    read_yolo,
)

HEIGHT, WIDTH = 40, 80


def write_images(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        write_image(folder / name, np.zeros((HEIGHT, WIDTH, 1), np.uint8))


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_coco(**changes):
    content = {
        "images": [
            {"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT, "patient": "P1"},
            {"id": 3, "file_name": "b.png", "width": WIDTH, "height": HEIGHT},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 9, "bbox": [10, 5.5, 20, 10], "iscrowd": 1},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 80, 40]},
        ],
        "categories": [{"id": 9, "name": "stone"}, {"id": 2, "name": "lesion"}],
    }
    return json.dumps({**content, **changes})


def make_voc(*objects, filename="a.png", size=(WIDTH, HEIGHT)):
    parts = [
        f"<object><name>{name}</name><Difficult>{flag}</Difficult><truncated>0</truncated><bndbox>"
        + "".join(f"<{s}>{v}</{s}>" for s, v in zip(SIDES, box, strict=True))
        + "</bndbox></object>"
        for name, flag, box in objects
    ]
    width, height = size
    return (
        f"<annotation><filename>{filename}</filename><size><width>{width}</width>"
        f"<height>{height}</height></size>{''.join(parts)}</annotation>"
    )


SIDES = ("xmin", "ymin", "xmax", "ymax")


def list_problems(annotations):
    return [(p.file, p.effect) for p in annotations.problems]


def list_ids(annotations):
    return [image.source_id for image in annotations.images]


# --- COCO


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("train.json", "."),
        ("train.json", "images"),
        ("train.json", "images/train"),
        ("train.json", "train"),
        ("annotations/instances_train2017.json", "train"),
        ("annotations/train.json", "images"),
        ("train/_annotations.coco.json", "train"),
        ("annotations.json", "images"),
    ],
)
def test_coco_layouts(tmp_path, file, images):
    write_images(tmp_path / images, "a.png", "b.png")
    write_text(tmp_path / file, make_coco())
    for source in (tmp_path, tmp_path / file):
        names, items, problems, *_ = read_coco(source, "train")
        assert names == ("lesion", "stone") and problems == ()
        first, second = items
        assert first.path.name == "a.png" and first.patient == "P1" and second.patient == ""
        np.testing.assert_array_equal(first.boxes, [[10, 5.5, 30, 15.5], [0, 0, 80, 40]])
        assert first.labels == ("stone", "lesion") and first.is_crowd == (True, False)
        assert (first.height, first.width) == (HEIGHT, WIDTH)
        assert second.boxes.shape == (0, 4) and second.labels == ()


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_goes_by_three_names(tmp_path, name):
    write_images(tmp_path / "images", "a.png", "b.png")
    write_text(tmp_path / f"{name}.json", make_coco())
    for split in ("val", "valid", "validation"):
        assert len(read_coco(tmp_path, split).images) == 2
    with pytest.raises(AnnotationError, match=rf"no train.json .* found {name}\.json"):
        read_coco(tmp_path, "train")


def test_coco_problems_are_named(tmp_path):
    annotations = [
        {"id": 1, "image_id": "DOE", "category_id": 2, "bbox": [0, 0, 1, 1]},
        {"id": 2, "image_id": 7, "category_id": 5, "bbox": [0, 0, 1, 1]},
        {"id": 3, "image_id": 7, "category_id": 2, "bbox": [0, 0, 1]},
        {"id": 4, "image_id": 7, "category_id": 2},
        {"id": 5, "image_id": 7, "category_id": 2, "bbox": [0, 0, "x", 1]},
        {"image_id": [], "category_id": {}},
    ]
    write_images(tmp_path, "a.png")
    write_text(tmp_path / "train.json", make_coco(annotations=annotations))
    result = read_coco(tmp_path)
    expected = [("train.json", "dropped")] * 5 + [("b.png", "skipped")]
    assert list_problems(result) == expected
    assert result.problems[0].reason == "annotations[0]: its image_id is not among the images"
    assert "category_id" in result.problems[2].reason and "bbox" in result.problems[3].reason
    # A value that is no number is left to `clean_boxes`.
    assert np.isnan(result.images[0].boxes).any()


def test_coco_image_listed_twice(tmp_path):
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "a.png"}]
    write_images(tmp_path, "a.png")
    write_text(tmp_path / "train.json", make_coco(images=images, annotations=[]))
    result = read_coco(tmp_path)
    assert list_ids(result) == ["a.png"] and list_problems(result) == [("a.png", "skipped")]


def test_coco_categories_of_one_name_are_one_label(tmp_path):
    """As Roboflow exports them: a parent category of the same name with id 0."""
    categories = [{"id": i, "name": n} for i, n in enumerate(["stone", "stone", "cyst"])]
    write_images(tmp_path, "a.png", "b.png")
    write_text(tmp_path / "train.json", make_coco(annotations=[], categories=categories))
    assert read_coco(tmp_path).label_names == ("stone", "cyst")


def test_coco_names_that_no_file_can_have(tmp_path):
    names = ["x" * 300, "", None, "a\0b", "images", 5]
    images = [{"id": index, "file_name": name} for index, name in enumerate(names)]
    write_images(tmp_path / "images", "a.png")
    write_text(tmp_path / "train.json", make_coco(images=images, annotations=[]))
    result = read_coco(tmp_path)
    assert result.images == () and len(result.problems) == len(names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (make_coco(categories=[{"id": 1, "name": " "}]), "a class has an empty name"),
        ("{", "no valid JSON"),
        ("[" * 100_000, "no valid JSON"),
        ("[]", "'images' is missing"),
        (make_coco(annotations={}), "'annotations' is missing or no list"),
        (make_coco(images=[{"file_name": "a.png"}]), "an entry of 'images' has no 'id'"),
        (make_coco(categories=[{"id": 1}]), "a category has no 'name'"),
        (make_coco(categories=[{"id": 1, "name": "a"}, {"id": "b", "name": "b"}]), "mixed types"),
    ],
)
def test_coco_that_is_none(tmp_path, text, message):
    write_text(tmp_path / "train.json", text)
    with pytest.raises(AnnotationError, match=message):
        read_coco(tmp_path)


# --- Pascal VOC


@pytest.mark.parametrize(
    ("xml", "images"),
    [
        ("Annotations", "JPEGImages"),
        ("VOC2007/Annotations", "VOC2007/JPEGImages"),
        ("annotations", "images"),
        (".", "."),
        ("train", "train"),
    ],
)
def test_voc_layouts(tmp_path, xml, images):
    write_images(tmp_path / images, "a.png", "c.png")
    objects = [("stone", 1, (10, 5, 30, 15)), ("cyst", 0, (0, 0, 80, 40))]
    write_text(tmp_path / xml / "a.xml", make_voc(*objects))
    names, (first, second), problems, *_ = read_voc(tmp_path)
    assert names == ("cyst", "stone") and problems == ()
    # Pixel values as they are in the file: nothing is subtracted.
    np.testing.assert_array_equal(first.boxes, [[10, 5, 30, 15], [0, 0, 80, 40]])
    assert first.labels == ("stone", "cyst") and first.difficult == (True, False)
    assert second.path.name == "c.png" and len(second.boxes) == 0


def test_voc_split_lists(tmp_path):
    write_images(tmp_path / "JPEGImages", "a.png", "b.png", "c.png")
    write_text(tmp_path / "Annotations" / "a.xml", make_voc(("x", 0, (1, 1, 2, 2))))
    write_text(tmp_path / "Annotations" / "b.xml", make_voc(("y", 0, (1, 1, 2, 2))))
    write_text(tmp_path / "ImageSets" / "Main" / "train.txt", "c\na 1\ngone\n")
    write_text(tmp_path / "ImageSets" / "Main" / "val.txt", "b -1\n")
    train = read_voc(tmp_path, "train")
    assert list_ids(train) == ["JPEGImages/c.png", "JPEGImages/a.png"]
    assert list_problems(train) == [("gone", "skipped")]
    assert train.label_names == ("x", "y")
    assert list_ids(read_voc(tmp_path, "validation")) == ["JPEGImages/b.png"]
    assert len(read_voc(tmp_path, "all").images) == 3
    with pytest.raises(AnnotationError, match=r"has no test\.txt; it has train, val"):
        read_voc(tmp_path, "test")


def test_voc_problems_are_named(tmp_path):
    write_images(tmp_path, "a.png", "broken.png", "other.png", "unnamed.png")
    write_text(tmp_path / "a.xml", make_voc(("x", 0, ("NaN", "?", 30, 15)), size=(0, 0)))
    write_text(tmp_path / "broken.xml", "<annotation><object>")
    write_text(tmp_path / "foreign.xml", "<svg/>")
    write_text(tmp_path / "lost.xml", make_voc(filename="lost.png"))
    write_text(tmp_path / "renamed.xml", make_voc(filename="C:\\scans\\other.png"))
    write_text(tmp_path / "unnamed.xml", make_voc(("", 0, (1, 1, 2, 2))))
    result = read_voc(tmp_path)
    # No image may pass as one without boxes: broken.xml and foreign.xml may describe any of those
    # that have no file of their own name.
    assert list_ids(result) == ["a.png", "broken.png", "other.png", "unnamed.png"]
    states = [image.annotation for image in result.images]
    assert states == ["complete", "faulty", "faulty", "faulty"]
    assert list_problems(result) == [
        ("broken.xml", "unread"),
        ("foreign.xml", "skipped"),
        ("lost.xml", "skipped"),
        ("renamed.xml", "unread"),
        ("unnamed.xml", "dropped"),
    ]
    first = result.images[0]
    assert first.height is None and np.isnan(first.boxes[0, :2]).all()


def test_voc_that_is_none(tmp_path):
    write_images(tmp_path, "a.png")
    with pytest.raises(AnnotationError, match="found none"):
        read_voc(tmp_path)
    with pytest.raises(AnnotationError, match="no such folder"):
        read_voc(tmp_path / "missing")


# --- YOLO

YOLO_LINES = "1 0.25 0.2625 0.25 0.25\n0 0.5 0.5 1 1\n\n"


@pytest.mark.parametrize(
    ("labels", "images"),
    [
        ("labels/train", "images/train"),
        ("train/labels", "train/images"),
        ("labels", "images"),
        ("train", "train"),
        (".", "."),
    ],
)
@pytest.mark.parametrize(
    ("names_file", "names"),
    [
        ("data.yaml", "train: x\nnames: [lesion, stone]\n"),
        ("data.yml", "names:\n  1: stone\n  0: lesion\n"),
        ("classes.txt", "lesion\nstone\n"),
    ],
)
def test_yolo_layouts(tmp_path, labels, images, names_file, names):
    write_images(tmp_path / images, "a.png", "b.png")
    write_text(tmp_path / labels / "a.txt", YOLO_LINES)
    write_text(tmp_path / names_file, names)
    names, (first, second), problems, *_ = read_yolo(tmp_path)
    assert names == ("lesion", "stone") and problems == ()
    np.testing.assert_allclose(first.boxes, [[10, 5.5, 30, 15.5], [0, 0, 80, 40]])
    assert first.labels == ("stone", "lesion") and len(second.boxes) == 0


def test_yolo_problems_are_named(tmp_path):
    write_images(tmp_path, "a.png", "bytes.png")
    (tmp_path / "bad.png").write_bytes(b"x")
    lines = [
        "2 .5 .5 .1 .1",
        "9" * 5000 + " 0 0 1 1",
        "x .5 .5 .1 .1",
        "0 .5 .5",
        "0 .5 .5 .1 y",
        "0 .1 .2 .3 .2 .3 .6",
    ]
    write_text(tmp_path / "a.txt", "\n".join(lines))
    write_text(tmp_path / "bad.txt", "0 .5 .5 .1 .1")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    write_text(tmp_path / "data.yaml", "names: [p, q]")
    result = read_yolo(tmp_path / "data.yaml")
    assert list_problems(result) == [("a.txt", "dropped")] * 5 + [
        ("bad.png", "skipped"),
        ("bytes.txt", "unread"),
    ]
    assert result.problems[0].reason == "line 1: class '2' is not one of the 2 names"
    first, second = result.images
    assert (first.annotation, second.annotation) == ("faulty", "faulty")
    # The last line is a polygon: its bounding box.
    np.testing.assert_allclose(first.boxes, [[8, 8, 24, 24]])


def test_yolo_that_is_none(tmp_path):
    write_images(tmp_path / "images", "a.png")
    with pytest.raises(AnnotationError, match=r"names of the classes in data\.yaml"):
        read_yolo(tmp_path)
    write_text(tmp_path / "classes.txt", "a")
    with pytest.raises(AnnotationError, match="none of its 1 image has a text file"):
        read_yolo(tmp_path)
    write_text(tmp_path / "data.yaml", "names: [")
    with pytest.raises(AnnotationError, match=r"data\.yaml: no valid YAML"):
        read_yolo(tmp_path)
    with pytest.raises(AnnotationError, match="no such folder"):
        read_yolo(tmp_path / "missing")


# --- CSV


@pytest.mark.parametrize(
    "header",
    [
        "filename,xmin,ymin,xmax,ymax,label",
        "image,x1,y1,x2,y2,class",
        "\ufeffFileName;xmin;ymin;xmax;ymax;cell_type",
    ],
)
def test_csv_headers(tmp_path, header):
    rows = ["a.png,10,5.5,30,15.5,stone", "b.png,,,,,", "a.png,0,0,80,40,lesion"]
    if ";" in header:
        rows = [row.replace(",", ";") for row in rows]
    write_images(tmp_path / "images", "a.png", "b.png")
    (tmp_path / "train.csv").write_text("\n".join([header, *rows]), "utf-8")
    names, (first, second), problems, *_ = read_csv(tmp_path)
    assert names == ("lesion", "stone") and problems == ()
    np.testing.assert_array_equal(first.boxes, [[10, 5.5, 30, 15.5], [0, 0, 80, 40]])
    assert first.labels == ("stone", "lesion") and len(second.boxes) == 0


def test_csv_columns_beside_the_box(tmp_path):
    write_images(tmp_path / "deep" / "down", "a.png")
    table = "filename,width,height,class,xmin,xmax,ymin,ymax,patient\na.png,80,40,x,1,3,2,4,P7\n"
    write_text(tmp_path / "train.csv", table)
    (image,) = read_csv(tmp_path / "train.csv", "whatever").images
    assert (image.height, image.width, image.patient) == (40, 80, "P7")
    assert image.source_id == "deep/down/a.png"
    np.testing.assert_array_equal(image.boxes, [[1, 2, 3, 4]])


def test_csv_problems_are_named(tmp_path):
    write_images(tmp_path / "p", "twice.png")
    write_images(tmp_path / "q", "twice.png")
    write_images(tmp_path, "a.png")
    rows = ["a.png,1,2,x,4,c", "a.png,1,2,3,4,", "gone.png,1,2,3,4,c", "twice.png,1,2,3,4,c"]
    write_text(tmp_path / "train.csv", "\n".join(["filename,xmin,ymin,xmax,ymax,label", *rows]))
    result = read_csv(tmp_path)
    assert list_problems(result) == [
        ("train.csv", "dropped"),
        ("gone.png", "skipped"),
        ("twice.png", "skipped"),
    ]
    assert np.isnan(result.images[0].boxes[0, 2])


def test_csv_that_is_none(tmp_path):
    with pytest.raises(AnnotationError, match=r"has no train\.csv .*found no \.csv file"):
        read_csv(tmp_path)
    write_text(tmp_path / "train.csv", "filename,xmin,ymin,label\n")
    with pytest.raises(AnnotationError, match="xmax, ymax missing from"):
        read_csv(tmp_path)
    write_text(tmp_path / "train.csv", "")
    with pytest.raises(AnnotationError, match=r"filename, xmin, .* missing from"):
        read_csv(tmp_path)
    (tmp_path / "train.csv").write_bytes(b"\xff\xff\xff")
    with pytest.raises(AnnotationError, match="is no text in UTF-8"):
        read_csv(tmp_path)


# --- DICOM


def test_dicom_with_voc_named_by_uid(tmp_path):
    (tmp_path / "series").mkdir()
    uids = [
        write_dicom(tmp_path / "series" / f"{i}.dcm", np.zeros((HEIGHT, WIDTH), np.uint16))
        for i in range(3)
    ]
    uids = [str(dataset.SOPInstanceUID) for dataset in uids]
    folder = tmp_path / "annotations"
    write_text(folder / f"{uids[1]}.xml", make_voc(("A", 0, (1, 2, 3, 4)), filename="Unknow"))
    write_text(folder / f"{uids[2]}.xml", "<broken")
    write_text(folder / "1.2.3.xml", make_voc(("B", 0, (1, 2, 3, 4))))
    write_text(tmp_path / "README.txt", "no image")
    write_text(tmp_path / "broken.dcm", "no DICOM")
    result = read_dicom_folder(tmp_path)
    assert result.label_names == ("A", "B")
    assert list_ids(result) == uids
    # The image of 1.2.3.xml is not there, so it may be the first.
    assert [image.annotation for image in result.images] == ["faulty", "complete", "faulty"]
    assert [len(image.boxes) for image in result.images] == [0, 1, 0]
    assert {image.patient for image in result.images} == {"ID-4711"}
    assert list_problems(result) == [
        ("broken.dcm", "skipped"),
        ("annotations/1.2.3.xml", "skipped"),
        (f"annotations/{uids[2]}.xml", "unread"),
    ]


def test_dicom_that_is_none(tmp_path):
    with pytest.raises(AnnotationError, match="holds no DICOM file"):
        read_dicom_folder(tmp_path)
    with pytest.raises(AnnotationError, match="no such folder"):
        read_dicom_folder(tmp_path / "missing")


# --- All formats


@pytest.mark.parametrize("format", ["voc", "yolo", "dicom"])
def test_folders_of_other_splits_are_not_taken_for_the_one_asked(tmp_path, format):
    (tmp_path / "train").mkdir()
    write_text(tmp_path / "classes.txt", "a")
    with pytest.raises(AnnotationError, match="no folder for the split 'test'; it has train"):
        READERS[format](tmp_path, "test")


def test_formats_agree(tmp_path):
    write_images(tmp_path / "images", "a.png", "b.png")
    write_text(tmp_path / "train.json", make_coco())
    write_text(tmp_path / "labels" / "a.txt", YOLO_LINES)
    write_text(tmp_path / "classes.txt", "lesion\nstone")
    objects = [("stone", 0, (10, 5.5, 30, 15.5)), ("lesion", 0, (0, 0, 80, 40))]
    write_text(tmp_path / "Annotations" / "a.xml", make_voc(*objects))
    rows = ["a.png,10,5.5,30,15.5,stone", "a.png,0,0,80,40,lesion", "b.png,,,,,"]
    write_text(tmp_path / "train.csv", "\n".join(["filename,xmin,ymin,xmax,ymax,label", *rows]))
    results = [READERS[format](tmp_path, "train") for format in ("coco", "voc", "yolo", "csv")]
    for result in results:
        assert result.label_names == ("lesion", "stone")
        assert list_ids(result) == ["images/a.png", "images/b.png"]
        for image, expected in zip(result.images, results[0].images, strict=True):
            assert image.labels == expected.labels
            np.testing.assert_allclose(image.boxes, expected.boxes, atol=1e-12)
