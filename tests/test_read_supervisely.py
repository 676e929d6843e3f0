"""Projects of Supervisely."""

from __future__ import annotations

import base64
import json
import random
import zlib

import cv2
import numpy as np
import pytest
from conftest import ROOT
from corpus import supervisely as corpus
from corpus.sources import find_losses, write_image

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.source import ReaderOptions
from vae_aug.ingest.formats.supervisely import is_supervisely, read_supervisely

BOX = ("nodule", [10, 12, 30, 20])


def make_object(geometry="rectangle", points=((10, 12), (30, 20)), **changes):
    exterior = {"exterior": [list(point) for point in points], "interior": []}
    return {"classTitle": "nodule", "geometryType": geometry, "points": exterior, **changes}


def make_bitmap(pixels=None, **changes):
    pixels = np.full((8, 20), 255, np.uint8) if pixels is None else pixels
    packed = zlib.compress(cv2.imencode(".png", pixels)[1].tobytes())
    bitmap = {"data": base64.b64encode(packed).decode(), "origin": [10, 12], **changes}
    return {"classTitle": "nodule", "geometryType": "bitmap", "bitmap": bitmap}


def write(folder, name, *objects, image="a.png", **changes):
    """Write `ann/<name>` and `img/<image>` in a data set."""
    if image:
        write_image(folder / "img" / image)
    (folder / "ann").mkdir(parents=True, exist_ok=True)
    size = {"height": 48, "width": 64}
    content = {"description": "", "tags": [], "size": size, "objects": list(objects), **changes}
    (folder / "ann" / name).write_text(json.dumps(content), encoding="utf-8")


def write_meta(folder, *titles):
    classes = [{"title": title, "shape": "rectangle"} for title in titles]
    (folder / "meta.json").write_text(json.dumps({"classes": classes, "tags": []}))


def summarize(annotations):
    """Return by image what the source says of it, and its labels and boxes."""
    return {
        image.source_id: (
            image.annotation,
            list(zip(image.labels, image.boxes.tolist(), strict=True)),
        )
        for image in annotations.images
    }


def test_a_project_of_two_data_sets(tmp_path):
    write_meta(tmp_path, "nodule", "cyst")
    write(tmp_path / "ds0", "a.png.json", make_object())
    write(tmp_path / "ds1", "a.png.json")
    write_image(tmp_path / "ds1" / "img" / "bare.png")
    found = read_supervisely(tmp_path)
    assert summarize(found) == {
        "ds0/img/a.png": ("complete", [BOX]),
        "ds1/img/a.png": ("complete", []),
        "ds1/img/bare.png": ("none", []),
    }
    assert (found.label_names, found.problems) == (("nodule", "cyst"), ())
    assert (found.images[0].height, found.images[0].width) == (48, 64)


def test_a_class_that_meta_lacks_is_a_class(tmp_path):
    write_meta(tmp_path, "zebra")
    write(tmp_path / "ds", "a.png.json", make_object(), make_object(classTitle="cyst"))
    assert read_supervisely(tmp_path).label_names == ("zebra", "cyst", "nodule")


@pytest.mark.parametrize("name", ["a.png.json", "a.json", "A.PNG.json"])
def test_names_of_files(tmp_path, name):
    write(tmp_path, name, make_object())
    assert summarize(read_supervisely(tmp_path)) == {"img/a.png": ("complete", [BOX])}


def test_a_name_in_another_unicode_form(tmp_path):
    write(tmp_path, "Be\u0301.png.json", make_object(), image="Bé.png")
    assert summarize(read_supervisely(tmp_path)) == {"img/Bé.png": ("complete", [BOX])}


def test_images_of_one_stem(tmp_path):
    write_image(tmp_path / "img" / "a.jpg.png")
    write_image(tmp_path / "img" / "b.PNG")
    write_image(tmp_path / "img" / "b.tif")
    write(tmp_path, "a.png.json", make_object())
    write(tmp_path, "b.json", make_object())
    states = {name: state for name, (state, _) in summarize(read_supervisely(tmp_path)).items()}
    assert states["img/a.png"] == "complete"
    assert (states["img/b.PNG"], states["img/b.tif"]) == ("faulty", "faulty")


@pytest.mark.parametrize(
    ("entry", "box"),
    [
        (make_object(points=((30, 20), (10, 12))), [10, 12, 30, 20]),
        (make_object("polygon", ((10, 12), (30, 15), (12, 20))), [10, 12, 30, 20]),
        (make_bitmap(), [10, 12, 30, 20]),
        (make_object(geometryType=None), [10, 12, 30, 20]),
        (make_object(classTitle=7), [10, 12, 30, 20]),
    ],
)
def test_shapes(tmp_path, entry, box):
    write_meta(tmp_path, "nodule")
    write(tmp_path / "ds", "a.png.json", entry)
    state, ((_, found),) = summarize(read_supervisely(tmp_path))["ds/img/a.png"]
    assert (state, found) == ("complete", box)


BOMB = base64.b64encode(zlib.compress(bytes(2**26))).decode()


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (make_object("point", ((1, 2),)), "a point has no area"),
        (make_object("line"), "a line has no area"),
        (make_object("graph"), "a graph has no area"),
        (make_object("cuboid"), "a cuboid has no area"),
        (make_object("star"), "its geometryType is not known"),
        (make_object(geometryType=[]), "its geometryType is not known"),
        (make_object(points=((1, 2),)), "a rectangle wants 2 points; got 1"),
        (make_object("polygon"), "a polygon wants 3 points; got 2"),
        (make_object(points=((1,), (2, 3))), "its points.exterior is not a list"),
        (make_bitmap(data="????"), "the data of its bitmap are damaged"),
        (make_bitmap(data=BOMB), "the data of its bitmap are no PNG"),
        (make_bitmap(origin=None), "its bitmap has no origin or no data"),
        (make_object(classTitle=""), "has no label"),
        (None, "is no object"),
    ],
)
def test_objects_without_a_box(tmp_path, entry, reason):
    write(tmp_path, "a.png.json", make_object(), entry)
    found = read_supervisely(tmp_path)
    assert summarize(found) == {"img/a.png": ("faulty", [BOX])}
    assert reason in found.problems[0].reason


@pytest.mark.parametrize("text", ["", "{", '{"size": {}}', '{"objects": {}}', "[]"])
def test_a_file_that_cannot_be_read_makes_its_image_faulty(tmp_path, text):
    write(tmp_path, "a.png.json", make_object())
    write_image(tmp_path / "img" / "b.png")
    (tmp_path / "ann" / "b.png.json").write_text(text)
    found = read_supervisely(tmp_path)
    assert summarize(found)["img/b.png"] == ("faulty", [])
    assert [(p.file, p.effect) for p in found.problems] == [("ann/b.png.json", "unread")]


def test_the_annotation_of_a_video_is_not_read(tmp_path):
    write(tmp_path, "a.png.json", make_object())
    write(tmp_path, "v.mp4.json", image="v.mp4.png", framesCount=3, frames=[])
    found = read_supervisely(tmp_path)
    assert summarize(found)["img/v.mp4.png"][0] == "faulty"
    assert "is the annotation of a video" in found.problems[0].reason


def test_a_file_whose_image_is_missing(tmp_path):
    write(tmp_path, "a.png.json")
    write(tmp_path, "gone.png.json", make_object(), image="")
    found = read_supervisely(tmp_path)
    assert summarize(found) == {"img/a.png": ("complete", [])}
    assert [(p.file, p.effect) for p in found.problems] == [("ann/gone.png.json", "skipped")]


def test_files_that_describe_one_image_differently(tmp_path):
    write(tmp_path, "a.png.json", make_object())
    write(tmp_path, "a.json")
    assert summarize(read_supervisely(tmp_path))["img/a.png"][0] == "faulty"


# --- Splits


def test_data_sets_named_like_splits(tmp_path):
    write(tmp_path / "train", "a.png.json", make_object())
    write(tmp_path / "val", "a.png.json")
    assert list(summarize(read_supervisely(tmp_path))) == ["train/img/a.png"]
    assert list(summarize(read_supervisely(tmp_path, "validation"))) == ["val/img/a.png"]
    with pytest.raises(AnnotationError, match="no folder for the split 'test'"):
        read_supervisely(tmp_path, "test")


@pytest.mark.parametrize(
    ("tag", "state"),
    [(" Cyst", "faulty"), ("has lesion", "faulty"), ("no cyst", "complete"), ("axial", "complete")],
)
def test_an_image_tagged_with_a_class(tmp_path, tag, state):
    write_meta(tmp_path, "cyst")
    write(tmp_path, "a.png.json", make_object(), tags=[{"name": tag}])
    write(tmp_path, "b.png.json", image="b.png", tags=[{"name": tag}])
    found = summarize(read_supervisely(tmp_path))
    assert [value[0] for value in found.values()] == ["complete", state]


@pytest.mark.parametrize(
    ("name", "value", "state"),
    [
        ("diagnosis", "malignant", "faulty"),
        ("diagnosis", "normal", "complete"),
        ("todo", None, "none"),
        ("status", "in progress", "none"),
        ("labeled", None, "complete"),
    ],
)
def test_an_image_tagged_with_a_finding_or_a_state(tmp_path, name, value, state):
    write(tmp_path, "a.png.json", make_object())
    write(tmp_path, "b.png.json", image="b.png", tags=[{"name": name, "value": value}])
    found = summarize(read_supervisely(tmp_path))
    assert [value[0] for value in found.values()] == ["complete", state]


def test_tags_named_like_splits(tmp_path):
    write(tmp_path, "a.png.json", make_object(), tags=[{"name": "Train"}])
    write(tmp_path, "b.png.json", image="b.png", tags=["val", "good"])
    write(tmp_path, "c.png.json", image="c.png", tags=[{"name": "train"}, {"name": "test"}])
    write(tmp_path, "d.png.json", image="d.png")
    expected = {"img/a.png": ("complete", [BOX]), "img/c.png": ("faulty", [])}
    assert summarize(read_supervisely(tmp_path)) == expected
    assert summarize(read_supervisely(tmp_path, "val")) == {"img/b.png": ("complete", [])}


# --- Borders


def test_images_in_a_folder_that_the_user_names(tmp_path):
    write(tmp_path / "in" / "ds", "a.png.json", make_object(), image="")
    write_image(tmp_path / "pics" / "ds" / "a.png")
    found = read_supervisely(tmp_path / "in", "train", ReaderOptions(images=tmp_path / "pics"))
    assert list(summarize(found).values()) == [("complete", [BOX])]
    with pytest.raises(AnnotationError, match="holds no image of the split"):
        read_supervisely(tmp_path / "in")


def test_links_that_leave_the_source_are_not_followed(tmp_path):
    write(tmp_path / "other", "a.png.json", make_object())
    write(tmp_path / "in", "b.png.json", image="b.png")
    (tmp_path / "in" / "ann" / "a.png.json").symlink_to(tmp_path / "other" / "ann" / "a.png.json")
    (tmp_path / "in" / "img" / "a.png").symlink_to(tmp_path / "other" / "img" / "a.png")
    assert summarize(read_supervisely(tmp_path / "in")) == {"img/b.png": ("complete", [])}


@pytest.mark.parametrize("name", ["ann/a.png.json", "meta.json"])
def test_files_behind_links_that_leave_the_source_are_not_opened(tmp_path, name):
    write(tmp_path / "in", "a.png.json", make_object())
    write(tmp_path / "in", "b.png.json", image="b.png")
    (tmp_path / "in" / "meta.json").write_text('{"classes": []}')
    (tmp_path / "in" / name).rename(tmp_path / "elsewhere.json")
    (tmp_path / "in" / name).symlink_to(tmp_path / "elsewhere.json")
    if name == "meta.json":
        with pytest.raises(AnnotationError, match=r"meta\.json: is reached by a link"):
            read_supervisely(tmp_path / "in")
    else:
        found = summarize(read_supervisely(tmp_path / "in"))
        assert found == {"img/a.png": ("faulty", []), "img/b.png": ("complete", [])}


def test_what_is_supervisely(tmp_path):
    assert is_supervisely({"size": {"height": 1, "width": 1}, "objects": []})
    assert is_supervisely({"objects": [make_object()]})
    for other in (None, [], {}, {"objects": []}, {"shapes": [], "size": {}}, {"objects": [1]}):
        assert not is_supervisely(other)
    with pytest.raises(AnnotationError, match="no such folder"):
        read_supervisely(tmp_path / "missing")
    with pytest.raises(AnnotationError, match="holds no annotations of Supervisely"):
        read_supervisely(tmp_path)


def test_a_broken_meta_is_refused(tmp_path):
    write(tmp_path, "a.png.json", make_object())
    (tmp_path / "meta.json").write_text("[]")
    with pytest.raises(AnnotationError, match=r"meta\.json: expected an object with a list"):
        read_supervisely(tmp_path)


def test_the_reported_case():
    folder = ROOT.parent / "shared" / "cases" / "field"
    folder = folder / "03-annotated-sets-taken-for-bare-images" / "supervisely"
    if not folder.is_dir():
        pytest.skip(f"no reported cases: {folder} is not a folder")
    assert summarize(read_supervisely(folder)) == {"ds/img/a.png": ("complete", [BOX])}


def test_no_box_is_lost_whatever_is_in_a_project(tmp_path):
    read = 0
    for seed in range(200):
        folder = tmp_path / str(seed)
        folder.mkdir()
        truth = corpus.make(random.Random(seed), folder)
        try:
            found = read_supervisely(folder)
        except AnnotationError:
            continue
        assert find_losses(found, truth) == [], seed
        read += any(image.annotation == "complete" for image in found.images)
    # The corpus tests something only if most projects are read.
    assert read > 100
