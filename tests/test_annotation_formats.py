"""LabelMe, CVAT, masks, the YAML of YOLO, and how a format is told."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_annotations import HEIGHT, WIDTH, list_ids, make_coco, make_voc, write_images, write_text
from test_dicom import write_dicom

from vae_aug.codecs.images import write_image
from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats import read_cvat, read_labelme, read_masks, read_yolo
from vae_aug.ingest.formats.detect import detect_format
from vae_aug.ingest.ingest import ingest

BLANK = np.zeros((HEIGHT, WIDTH), np.uint16)


def list_boxes(image):
    return list(zip(image.labels, np.round(image.boxes, 6).tolist(), strict=True))


def list_reasons(annotations):
    return [(p.file, p.effect, p.reason) for p in annotations.problems]


# --- LabelMe


def make_labelme(*shapes, image="a.png"):
    entries = [{"label": n, "shape_type": kind, "points": points} for n, kind, points in shapes]
    content = {"shapes": entries, "imagePath": image, "imageHeight": HEIGHT, "imageWidth": WIDTH}
    return json.dumps(content)


def test_labelme_shapes_become_boxes(tmp_path):
    write_images(tmp_path, "a.png", "b.png", "c.png")
    shapes = (
        ("stone", "rectangle", [[30, 20], [10, 5.5]]),
        ("cyst", "polygon", [[1, 2], [9, 3], [4, 12]]),
        ("cyst", "circle", [[20, 20], [23, 24]]),
        ("stone", "mask", [[4, 5], [7, 9]]),
        ("stone", "point", [[4, 5]]),
        ("stone", "polygon", [[4, 5], [6, 7]]),
        ("", "rectangle", [[1, 1], [2, 2]]),
    )
    write_text(tmp_path / "a.json", make_labelme(*shapes))
    write_text(tmp_path / "c.json", "{")
    write_text(tmp_path / "d.json", make_labelme(image="gone.png"))
    found = read_labelme(tmp_path)
    assert found.label_names == ("cyst", "stone")
    assert list_ids(found) == ["a.png", "b.png", "c.png"]
    assert [image.annotation for image in found.images] == ["faulty", "none", "faulty"]
    assert (found.images[0].height, found.images[0].width) == (HEIGHT, WIDTH)
    assert list_boxes(found.images[0]) == [
        ("stone", [10, 5.5, 30, 20]),
        ("cyst", [1, 2, 9, 12]),
        # The radius of the circle is that of a triangle with sides 3, 4 and 5.
        ("cyst", [15, 15, 25, 25]),
        ("stone", [4, 5, 8, 10]),
    ]
    assert list_boxes(found.images[1]) == list_boxes(found.images[2]) == []
    *reasons, broken, missing = list_reasons(found)
    assert reasons == [
        ("a.json", "dropped", "shapes[4]: a point or line has no area"),
        ("a.json", "dropped", "shapes[5]: a polygon wants at least 3 points; got 2"),
        ("a.json", "dropped", "box 6: has no label"),
    ]
    assert broken[:2] == ("c.json", "unread") and "no valid JSON" in broken[2]
    assert missing == ("d.json", "skipped", "the image that it describes is missing")


@pytest.mark.parametrize("content", ["[]", '{"shapes": 3}', "\xff", "[" * 100_000])
def test_labelme_refuses_what_is_none(tmp_path, content):
    write_images(tmp_path, "a.png")
    write_text(tmp_path / "a.json", content)
    with pytest.raises(AnnotationError, match="no JSON file of LabelMe"):
        read_labelme(tmp_path)


@pytest.mark.parametrize("points", [None, 3, [[1]], [[1, 2, 3]], ["ab", "cd"], [[1, "x"], [2, 3]]])
def test_labelme_points_of_any_kind_are_reported_not_raised(tmp_path, points):
    write_images(tmp_path, "a.png")
    write_text(tmp_path / "a.json", make_labelme(("stone", "rectangle", points)))
    report = ingest(tmp_path, tmp_path / "out", format="labelme", labels=["stone"])
    assert (report.images, report.faulty, report.dropped) == (0, 1, 1)


# --- CVAT


def make_cvat(*images, labels=("stone", "cyst")):
    names = "".join(f"<label><name>{name}</name></label>" for name in labels)
    meta = f"<meta><job><labels>{names}</labels></job></meta>"
    parts = [
        f'<image id="{i}" name="{name}" width="{WIDTH}" height="{HEIGHT}" {extra}>{shapes}</image>'
        for i, (name, extra, shapes) in enumerate(images)
    ]
    return f"<annotations><version>1.1</version>{meta}{''.join(parts)}</annotations>"


CVAT_SHAPES = (
    '<box label="stone" xtl="10" ytl="5.5" xbr="30" ybr="20" occluded="1"/>'
    '<box label="stone" xtl="10" ytl="12" xbr="30" ybr="20" rotation="90"/>'
    '<polygon label="cyst" points="1,2;9,3;4,12"/>'
    '<ellipse label="cyst" cx="20" cy="15" rx="5" ry="3" rotation="90"/>'
    '<mask label="cyst" rle="1" left="4" top="5" width="6" height="7"/>'
    '<points label="cyst" points="1,2"/>'
    '<polygon label="cyst" points="1"/>'
)


def test_cvat_shapes_become_boxes(tmp_path):
    write_images(tmp_path / "images", "a.png", "b.png")
    entries = (("a.png", "", CVAT_SHAPES), ("b.png", "", ""), ("gone.png", "", ""))
    write_text(tmp_path / "annotations.xml", make_cvat(*entries))
    found = read_cvat(tmp_path)
    assert found.label_names == ("stone", "cyst")
    assert list_ids(found) == ["images/a.png", "images/b.png"]
    boxes = list_boxes(found.images[0])
    assert boxes == [
        ("stone", [10, 5.5, 30, 20]),
        ("stone", [16, 6, 24, 26]),
        ("cyst", [1, 2, 9, 12]),
        ("cyst", [17, 10, 23, 20]),
        ("cyst", [4, 5, 10, 12]),
    ]
    assert [image.annotation for image in found.images] == ["faulty", "complete"]
    assert list_reasons(found) == [
        ("annotations.xml", "dropped", "image 0, shape 5: a points is no box"),
        ("annotations.xml", "dropped", "image 0, shape 6: a polygon wants at least 3 points x,y"),
        ("gone.png", "skipped", "the annotations name this image, the file is missing"),
    ]


def test_cvat_subsets_are_splits(tmp_path):
    write_images(tmp_path / "images" / "Train", "a.png")
    write_images(tmp_path / "images" / "Validation", "b.png")
    entries = (("a.png", 'subset="Train"', ""), ("b.png", 'subset="Validation"', ""))
    write_text(tmp_path / "annotations.xml", make_cvat(*entries))
    with pytest.raises(AnnotationError, match="has no subset 'test'; it has Train, Validation"):
        read_cvat(tmp_path, "test")
    (tmp_path / "images" / "Train").rename(tmp_path / "images" / "train")
    assert list_ids(read_cvat(tmp_path, "train")) == ["images/train/a.png"]


@pytest.mark.parametrize("content", ["<annotation/>", "<annotations/>"])
def test_cvat_refuses_what_is_none(tmp_path, content):
    write_text(tmp_path / "annotations.xml", content)
    with pytest.raises(AnnotationError, match="expected an export 'CVAT for images"):
        read_cvat(tmp_path)


# --- Masks


def make_mask(value=255):
    mask = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
    mask[5:10, 20:26] = value
    # Touches the first region by a corner only, so it belongs to it.
    mask[10:12, 26:30] = value
    mask[30, 70] = value
    return mask


MASK_BOXES = [[20, 5, 30, 12], [70, 30, 71, 31]]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/a.png", "masks/a.png"),
        ("images/train/a.png", "masks/train/a.png"),
        ("train/images/a.png", "train/masks/a_mask.png"),
        ("TCGA_1/a.png", "TCGA_1/a_mask.png"),
    ],
)
def test_mask_regions_become_boxes(tmp_path, image, mask):
    write_images((tmp_path / image).parent, "a.png", "b.png")
    (tmp_path / mask).parent.mkdir(parents=True, exist_ok=True)
    write_image(tmp_path / mask, make_mask())
    found = read_masks(tmp_path)
    assert found.label_names == ("object",)
    assert list_ids(found) == [image, image.replace("a.png", "b.png")]
    assert list_boxes(found.images[0]) == [("object", box) for box in MASK_BOXES]
    assert list_boxes(found.images[1]) == []
    assert detect_format(tmp_path).format == "masks"


def test_mask_values_are_classes(tmp_path):
    write_images(tmp_path / "images", "a.png", "b.png")
    (tmp_path / "masks").mkdir()
    both = make_mask(1)
    coloured = np.full((HEIGHT, WIDTH, 3), (1, 2, 3), np.uint8)
    both[5:10, 23:26] = 3
    write_image(tmp_path / "masks" / "a.png", both)
    write_image(tmp_path / "masks" / "b.png", coloured)
    found = read_masks(tmp_path)
    assert found.label_names == ("1", "3")
    expected = [("1", [20, 5, 23, 10]), ("3", [23, 5, 26, 10]), ("1", [26, 10, 30, 12])]
    assert list_boxes(found.images[0])[:3] == expected
    assert [(p.file, p.effect) for p in found.problems] == [("masks/b.png", "unread")]
    write_text(tmp_path / "classes.txt", "stone\ncyst\n")
    named = read_masks(tmp_path)
    assert named.label_names == ("stone", "cyst")
    assert named.images[0].labels == ("stone", "stone", "stone")
    assert "a region of value 3" in named.problems[0].reason


# --- YOLO's YAML


@pytest.mark.parametrize(
    "entry", ["{path: data, train: pics/images}", "{train: ../data/pics/images}"]
)
def test_yolo_yaml_names_the_folder_of_a_split(tmp_path, entry):
    write_images(tmp_path / "data" / "pics" / "images", "a.png")
    write_text(tmp_path / "data" / "pics" / "labels" / "a.txt", "0 0.5 0.5 0.25 0.5\n")
    write_text(tmp_path / "data.yaml", f"{entry[:-1]}, names: [stone]}}")
    found = read_yolo(tmp_path / "data.yaml")
    assert list_ids(found) == ["data/pics/images/a.png"]
    assert list_boxes(found.images[0]) == [("stone", [30, 10, 50, 30])]


def test_yolo_yaml_names_a_list_of_images(tmp_path):
    write_images(tmp_path / "images", "a.png", "b.png")
    write_text(tmp_path / "labels" / "b.txt", "0 0.5 0.5 0.25 0.5\n")
    write_text(tmp_path / "mine.txt", "./images/b.png\n\n")
    write_text(tmp_path / "data.yaml", "{val: mine.txt, names: {0: stone}}")
    assert list_ids(read_yolo(tmp_path, "validation")) == ["images/b.png"]


# --- Telling the format


def make_source(folder, format):
    write_images(folder / "images", "a.png", "b.png")
    if format == "coco":
        write_text(folder / "train.json", make_coco())
    elif format == "voc":
        write_text(folder / "Annotations" / "a.xml", make_voc(("stone", 0, (1, 2, 3, 4))))
    elif format == "cvat":
        write_text(folder / "annotations.xml", make_cvat(("a.png", "", CVAT_SHAPES)))
    elif format == "labelme":
        write_text(folder / "images" / "a.json", make_labelme())
    elif format == "yolo":
        write_text(folder / "data.yaml", "names: [stone]")
        write_text(folder / "labels" / "a.txt", "0 0.5 0.5 0.25 0.5\n")
    elif format == "csv":
        write_text(folder / "train.csv", "file,x1,y1,x2,y2,class\na.png,1,2,3,4,stone\n")


@pytest.mark.parametrize("format", ["coco", "voc", "cvat", "labelme", "yolo", "csv", "images"])
def test_the_format_is_told_from_the_files(tmp_path, format):
    make_source(tmp_path / "in", format)
    write_text(tmp_path / "in" / "notes.json", "{}")
    write_text(tmp_path / "in" / "README.txt", "0 is the background")
    assert detect_format(tmp_path / "in").format == format
    report = ingest(tmp_path / "in", tmp_path / "out", keep_ids=True)
    assert report.format == format and report.images + report.unannotated + report.faulty >= 1


def test_dicom_is_told_with_and_without_xml(tmp_path):
    write_dicom(tmp_path / "IM0001", BLANK)
    found = detect_format(tmp_path)
    assert found == ("dicom", "found DICOM", "IM0001", ())
    write_text(tmp_path / "annotations" / "1.2.3.xml", make_voc())
    assert detect_format(tmp_path).format == "dicom"


def test_an_ambiguous_source_is_refused_and_can_be_told(tmp_path):
    make_source(tmp_path / "in", "coco")
    make_source(tmp_path / "in", "csv")
    message = r"coco: JSON with .*; csv: a table of boxes\); name one"
    with pytest.raises(AnnotationError, match=message):
        ingest(tmp_path / "in", tmp_path / "out")
    assert ingest(tmp_path / "in", tmp_path / "out", format="csv").format == "csv"
    assert detect_format(tmp_path / "in" / "train.json").format == "coco"


def test_nothing_to_tell_is_refused(tmp_path):
    with pytest.raises(AnnotationError, match="holds neither annotations of a known format"):
        detect_format(tmp_path)
    with pytest.raises(AnnotationError, match="no such file or folder"):
        detect_format(tmp_path / "missing")


# --- One data set in several formats

BOXES = {"a.png": [("stone", (10, 5, 30, 15)), ("cyst", (20, 10, 60, 30))], "b.png": []}


def write_same(folder, format):
    write_images(folder / "images", *BOXES)
    write_image(folder / "images" / "b.png", np.full((HEIGHT, WIDTH, 1), 9, np.uint8))
    names = ("cyst", "stone")
    if format == "coco":
        content = {
            "images": [{"id": i, "file_name": name} for i, name in enumerate(BOXES)],
            "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
            "annotations": [
                {"image_id": i, "category_id": names.index(n), "bbox": [x, y, r - x, b - y]}
                for i, boxes in enumerate(BOXES.values())
                for n, (x, y, r, b) in boxes
            ],
        }
        write_text(folder / "train.json", json.dumps(content))
    elif format == "voc":
        for name, boxes in BOXES.items():
            xml = make_voc(*((n, 0, box) for n, box in boxes), filename=name)
            write_text(folder / "Annotations" / f"{name[0]}.xml", xml)
    elif format == "yolo":
        write_text(folder / "classes.txt", "\n".join(names))
        for name, boxes in BOXES.items():
            lines = [
                f"{names.index(n)} {(x + r) / 2 / WIDTH:.6f} {(y + b) / 2 / HEIGHT:.6f} "
                f"{(r - x) / WIDTH:.6f} {(b - y) / HEIGHT:.6f}"
                for n, (x, y, r, b) in boxes
            ]
            write_text(folder / "labels" / f"{name[0]}.txt", "\n".join(lines))
    elif format == "cvat":
        box = '<box label="{}" xtl="{}" ytl="{}" xbr="{}" ybr="{}"/>'
        entries = [
            (name, "", "".join(box.format(n, *xyxy) for n, xyxy in boxes))
            for name, boxes in BOXES.items()
        ]
        write_text(folder / "annotations.xml", make_cvat(*entries, labels=names))
    elif format == "labelme":
        for name, boxes in BOXES.items():
            shapes = [(n, "rectangle", [box[:2], box[2:]]) for n, box in boxes]
            write_text(folder / "images" / f"{name[0]}.json", make_labelme(*shapes, image=name))


@pytest.mark.parametrize("format", ["voc", "yolo", "cvat", "labelme"])
def test_the_format_of_the_annotations_leaves_no_trace_in_the_records(tmp_path, format):
    """Boxes whose relative corners six decimals hold exactly; others differ by the rounding."""
    records = {}
    for name in ("coco", format):
        write_same(tmp_path / name, name)
        ingest(tmp_path / name, tmp_path / f"{name}_out", salt="s")
        shard = tmp_path / f"{name}_out" / "train-00000-of-00001.tfrecord"
        records[name] = shard.read_bytes()
    assert records[format] == records["coco"]


@pytest.mark.real_data
def test_the_formats_of_the_public_data_are_told(data_dir):
    expected = {"kidney_stone_ct": "coco", "lgg_flair": "coco", "lung_ct_dicom": "dicom"}
    assert {name: detect_format(data_dir / name).format for name in expected} == expected
    # It holds a table of boxes beside the XML files.
    with pytest.raises(AnnotationError, match="several formats"):
        detect_format(data_dir / "bccd")
