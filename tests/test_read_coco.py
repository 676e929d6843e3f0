"""COCO as people have it: ids in any spelling and twice, names, boxes that are none, relatives."""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from corpus import coco as corpus
from corpus.sources import HEIGHT, WIDTH, find_losses, write_image

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.coco import is_coco, read_coco
from vae_aug.ingest.formats.source import ReaderOptions

CATEGORIES = [{"id": 1, "name": "nodule"}, {"id": 2, "name": "cyst"}]
BOX = [10, 12, 20, 8]


def write(folder, annotations, images=None, names=("a.png", "b.png"), **content):
    """Write two images with ids 1 and 2, and a file that lists them."""
    for name in names:
        write_image(folder / name)
    if images is None:
        images = [{"id": i + 1, "file_name": name} for i, name in enumerate(names)]
    content = {
        "images": images,
        "annotations": annotations,
        "categories": CATEGORIES,
        **content,
    }
    (folder / "train.json").write_text(json.dumps(content), encoding="utf-8")


def point(image_id=1, category_id=1, bbox=BOX, **more):
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, **more}


def summarize(annotations):
    """Return by image what the source says of it, and its labels and boxes."""
    return {
        image.source_id: (
            image.annotation,
            list(zip(image.labels, image.boxes.tolist(), strict=True)),
        )
        for image in annotations.images
    }


NODULE = ("nodule", [10, 12, 30, 20])


@pytest.mark.parametrize(
    ("key", "value", "state"),
    [
        ("annotated", False, "none"),  # COCO Annotator
        ("annotated", True, "complete"),
        ("status", "unlabeled", "none"),
        ("workflow_state", "In Progress", "none"),
        ("status", "approved", "complete"),
        ("skipped", True, "none"),
        ("needs_review", True, "none"),
        ("to_be_labeled", 0, "complete"),
        ("tags", ["Cyst"], "faulty"),
        ("tags", ["axial", "no cyst"], "complete"),
        ("comment", "a nodule at the left", "faulty"),
        ("attributes", {"pathology": "malignant", "view": "MLO"}, "faulty"),
        ("metadata", {"view": "MLO", "pathology": "normal"}, "complete"),
        ("figures", [{"left": 1}], "faulty"),
        ("events", [{"user": "x"}], "complete"),
        ("category_ids", [1], "faulty"),
        ("category_ids", [], "complete"),
        ("is_reviewed", "", "none"),
        ("unlabelled", 1, "none"),
        ("num_annotations", 0, "complete"),
    ],
)
def test_an_image_that_nobody_annotated_is_no_negative(tmp_path, key, value, state):
    images = [
        {"id": number, "file_name": f"{name}.png", key: value}
        for number, name in enumerate("ab", 1)
    ]
    write(tmp_path, [point()], images)
    assert summarize(read_coco(tmp_path)) == {
        "a.png": ("complete", [NODULE]),
        "b.png": (state, []),
    }


@pytest.mark.parametrize(
    ("key", "value", "state"),
    [
        ("annotations", [{"bbox": [10, 12, 20, 8]}], "faulty"),
        ("labels", [{"class_name": "nodule", "bbox": [10, 12, 20, 8]}], "faulty"),
        ("bboxes", [[10, 12, 20, 8]], "faulty"),
        ("num_annotations", 2, "faulty"),
        ("annotations", [], "complete"),
        ("extra", {"name": "a.png"}, "complete"),
        ("spacing", [1, 1, 1, 1], "complete"),
    ],
)
def test_what_an_image_itself_may_hold_is_no_negative(tmp_path, key, value, state):
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png", key: value}]
    write(tmp_path, [point()], images)
    assert summarize(read_coco(tmp_path)) == {
        "a.png": ("complete", [NODULE]),
        "b.png": (state, []),
    }


@pytest.mark.parametrize(
    ("key", "value", "state"),
    [
        ("skipped_images", ["b.png"], "faulty"),
        ("skipped", [2], "faulty"),
        ("todo", ["2"], "faulty"),
        ("skipped", [2.0], "faulty"),
        ("not_annotated", ["images/B.PNG"], "faulty"),
        ("needs_review", [{"id": 2}], "faulty"),
        ("to_annotate", ["b"], "faulty"),
        ("in_progress", {"2": True}, "faulty"),
        ("ignored_category_ids", [2], "complete"),
        ("skipped_images", ["a.png"], "complete"),
        ("train_images", [1, 2], "complete"),
        ("negative_images", ["b.png"], "complete"),
        ("skipped_images", 1, "complete"),
    ],
)
def test_images_that_a_list_of_the_file_calls_skipped_are_no_negatives(tmp_path, key, value, state):
    write(tmp_path, [point()], **{key: value})
    found = summarize(read_coco(tmp_path))
    assert found == {"a.png": ("complete", [NODULE]), "b.png": (state, [])}


def test_further_lists_that_point_to_images_are_refused(tmp_path):
    images = [{"id": number, "file_name": f"{name}.png"} for number, name in enumerate("ab", 1)]
    write(tmp_path, [point()], images, videos=[{"id": 1}], regions=[point(2)])
    with pytest.raises(AnnotationError, match="the entries of 'regions' point to images"):
        read_coco(tmp_path)


@pytest.mark.parametrize(
    ("more", "state"),
    [
        ({"attributes": {"occluded": False, "rotation": 30.0}}, "faulty"),  # CVAT
        ({"attributes": {"occluded": False, "rotation": 0.0}}, "complete"),
        ({"angle": -0.5}, "faulty"),
        ({"rotation": "none"}, "complete"),
        ({"deleted": True}, "faulty"),
        ({"isDeleted": False}, "complete"),
    ],
)
def test_a_box_that_is_turned_or_was_deleted_is_a_fault(tmp_path, more, state):
    write(tmp_path, [point(**more)])
    assert summarize(read_coco(tmp_path))["a.png"][0] == state


def test_corners_are_refused(tmp_path):
    images = [
        {"id": number, "file_name": f"{name}.png", "width": WIDTH, "height": HEIGHT}
        for number, name in enumerate("ab", 1)
    ]
    corners = [point(bbox=[10, 12, 30, 20]), point(2, bbox=[WIDTH - 20, 9, WIDTH - 1, 20])]
    write(tmp_path, corners, images)
    with pytest.raises(AnnotationError, match=r"train\.json: read as \[x, y, width, height\]"):
        read_coco(tmp_path)
    # A single box that cannot be one of corners shows that they are none.
    write(tmp_path, [*corners, point(bbox=[30, 12, 20, 8])], images)
    assert len(summarize(read_coco(tmp_path))["b.png"][1]) == 1
    # Nor does what lies within the image tell anything.
    write(tmp_path, corners[:1], images)
    assert summarize(read_coco(tmp_path))["a.png"] == ("complete", [("nodule", [10, 12, 40, 32])])


@pytest.mark.parametrize(("mode", "state"), [(0, "faulty"), (4, "faulty"), (1, "complete")])
def test_the_bbox_mode_of_detectron(tmp_path, mode, state):
    write(tmp_path, [point(bbox_mode=mode)])
    assert summarize(read_coco(tmp_path))["a.png"][0] == state


def test_an_image_without_annotations_is_a_negative(tmp_path):
    write(tmp_path, [point()])
    assert summarize(read_coco(tmp_path)) == {
        "a.png": ("complete", [NODULE]),
        "b.png": ("complete", []),
    }


@pytest.mark.parametrize(
    ("listed", "pointed"),
    [(1, "1"), ("1", 1), (1, 1.0), (1.0, "1"), (1, "1.0"), (" 1", 1), (0, "0"), (-5, "-5.00")],
)
def test_ids_alike_as_numbers_are_one(tmp_path, listed, pointed):
    images = [{"id": listed, "file_name": "a.png"}, {"id": "é 7", "file_name": "b.png"}]
    decomposed = unicodedata.normalize("NFD", "é 7")
    write(tmp_path, [point(pointed), point(decomposed, "2.0")], images)
    assert summarize(read_coco(tmp_path)) == {
        "a.png": ("complete", [NODULE]),
        "b.png": ("complete", [("cyst", [10, 12, 30, 20])]),
    }


@pytest.mark.parametrize(
    "pointed",
    [3, "01", "1e0", None, "", "NaN", "null", True, 1.5, [], {}, float("nan"), float("inf"), "P"],
)
def test_an_annotation_of_no_image_makes_all_doubtful(tmp_path, pointed):
    """Its box may belong to any image, so neither may pass as complete."""
    write(tmp_path, [point(), point(pointed)])
    found = read_coco(tmp_path)
    assert summarize(found) == {"a.png": ("faulty", [NODULE]), "b.png": ("faulty", [])}
    (problem,) = found.problems
    assert problem.effect == "dropped"
    assert problem.reason == "annotations[1]: its image_id is not among the images"
    assert "1 annotation points to images that the file does not list" in found.notes[0]


@pytest.mark.parametrize("name", [None, "", " ", 3, ["a.png"]])
def test_annotations_of_an_image_without_a_name_make_all_doubtful(tmp_path, name):
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": name}]
    write(tmp_path, [point(2)], images)
    assert summarize(read_coco(tmp_path)) == {"a.png": ("faulty", [])}
    write(tmp_path, [point(1)], images)
    found = read_coco(tmp_path)
    assert summarize(found) == {"a.png": ("complete", [NODULE])}
    assert [problem.reason for problem in found.problems] == ["an image has no file_name"]


def test_numbers_that_overflow(tmp_path):
    """They are left to `clean_boxes`, without a warning."""
    write(tmp_path, [point(bbox=["1e308", "inf", 1e308, "-inf"])])
    assert not np.isfinite(read_coco(tmp_path).images[0].boxes[0, 2:]).any()


def test_a_large_id_written_as_a_float_may_be_anothers(tmp_path):
    """2^53 + 1 is no float: it reads as 2^53, which is the id of another image."""
    images = [{"id": 2**53, "file_name": "a.png"}, {"id": 2**53 + 1, "file_name": "b.png"}]
    write(tmp_path, [point(float(2**53 + 1))], images)
    assert summarize(read_coco(tmp_path)) == {"a.png": ("faulty", []), "b.png": ("faulty", [])}
    write(tmp_path, [point(2**53 + 1), point(str(2**53))], images)
    assert [len(image.labels) for image in read_coco(tmp_path).images] == [1, 1]


@pytest.mark.parametrize(
    ("key", "entries", "message"),
    [
        ("images", [{"id": 1}, {"id": 1}], r"images\[1\] has the id 1,"),
        ("images", [{"id": 1}, {"id": "1"}], r"images\[1\] has the id 1,"),
        ("images", [{"id": "DOE"}, {"id": "DOE"}], r"images\[1\] has an id of text,"),
        ("categories", [CATEGORIES[0], {"id": 1.0, "name": "b"}], r"categories\[1\] has the id 1,"),
        ("images", [{"id": None, "file_name": "a.png"}], "an entry of 'images' has no 'id'"),
        ("images", [{"id": True, "file_name": "a.png"}], "an entry of 'images' has no 'id'"),
        ("categories", [{"id": "nan", "name": "b"}], "an entry of 'categories' has no 'id'"),
        ("categories", [{"id": 1, "name": None}], "a category has no 'name'"),
        ("annotations", None, "'annotations' is missing or no list"),
        ("categories", {}, "'categories' is missing or no list"),
        ("annotations", [{"id": 1, "image_id": 1, "caption": "x"}], "as captions have"),
        ("annotations", [{"image_id": 1, "segments_info": []}], "as panoptic segmentations have"),
        ("images", [{"id": 1, "neg_category_ids": []}], "as LVIS has"),
    ],
)
def test_what_is_refused(tmp_path, key, entries, message):
    write(tmp_path, **{"annotations": [], key: entries})
    with pytest.raises(AnnotationError, match=message):
        read_coco(tmp_path)


def test_an_annotation_that_is_there_twice_is_taken_once(tmp_path):
    write(tmp_path, [point(id=5), point(id=6), point(id=5), point(id=None), point(id=None)])
    found = read_coco(tmp_path)
    assert summarize(found)["a.png"] == ("complete", [NODULE] * 4)
    assert found.notes == ("1 annotation is there twice, and is taken once",)


def test_annotations_that_share_an_id_alone_are_all_taken(tmp_path):
    write(tmp_path, [point(id=0), point(category_id=2, id=0), point(2, id="0"), point(id="0")])
    found = read_coco(tmp_path)
    cyst = ("cyst", NODULE[1])
    assert summarize(found) == {
        "a.png": ("complete", [NODULE, cyst]),
        "b.png": ("complete", [NODULE]),
    }
    assert any("2 annotations have the id of another one" in note for note in found.notes)


def test_results_of_a_detector_are_refused(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps([{**point(), "score": 0.5}]))
    with pytest.raises(AnnotationError, match="holds what a detector found"):
        read_coco(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": None}, "it has neither a bbox nor polygons"),
        ({"bbox": [], "segmentation": {"counts": "a", "size": [1, 1]}}, "neither a bbox nor"),
        ({"bbox": None, "segmentation": [[1, 2, 3, 4]]}, "neither a bbox nor polygons"),
        ({"bbox": [1, 2, 3]}, "its bbox is not"),
        ({"bbox": [1, 2, 3, 4, 5]}, "its bbox is not"),
        ({"bbox": "[1, 2, 3, 4]"}, "its bbox is not"),
        ({"bbox": {"x": 1}}, "its bbox is not"),
        ({"category_id": 3}, "its category_id is not"),
        ({"category_id": None}, "its category_id is not"),
        ({"category_id": "01"}, "its category_id is not"),
    ],
)
def test_what_is_no_box_is_a_fault_of_its_image(tmp_path, change, reason):
    write(tmp_path, [point(), {**point(2), **change}])
    found = read_coco(tmp_path)
    assert summarize(found) == {"a.png": ("complete", [NODULE]), "b.png": ("faulty", [])}
    assert [problem.file for problem in found.problems] == ["train.json"]
    assert reason in found.problems[0].reason


@pytest.mark.parametrize(
    "segmentation",
    [[[10, 12, 30, 12, 30, 20]], [[10, 12, 11, 13, 12, 12], [29, 19, 30, 20, 30, 19]]],
)
@pytest.mark.parametrize("bbox", [None, []])
def test_polygons_stand_in_for_a_missing_bbox(tmp_path, segmentation, bbox):
    write(tmp_path, [point(bbox=bbox, segmentation=segmentation)])
    assert summarize(read_coco(tmp_path))["a.png"] == ("complete", [NODULE])
    write(tmp_path, [point(bbox=bbox, segmentation=segmentation[0] + [10, 20])])
    assert read_coco(tmp_path).images[0].boxes[0, :2].tolist() == [10, 12]


# Rows 12 to 19 and columns 10 to 29 of 48 x 64, as pycocotools packs them, and the same as a list.
PACKED = "\\?8X10000000000000000000000000000000000000db1"
RUNS = [492, *[8, 40] * 19, 8, 48 * 64 - 492 - 48 * 19 - 8]


@pytest.mark.parametrize(
    "segmentation",
    [
        [[10, 12, 30, 12, 30, 20, 10, 20]],
        [[10, 12, 12, 20, 11, 20], [28, 12, 30, 20, 30, 12]],
        {"size": [48, 64], "counts": PACKED},
        {"size": [48, 64], "counts": RUNS},
    ],
)
@pytest.mark.parametrize(
    ("bbox", "state"),
    [
        ([10, 12, 20, 8], "complete"),
        ([9, 11, 22, 10], "complete"),
        ([11, 13, 18, 6], "complete"),
        ([10, 12, 30, 20], "faulty"),  # corners
        ([40, 12, 20, 8], "faulty"),
        ([5, 6, 10, 4], "faulty"),  # of a smaller image
        ([12, 10, 8, 20], "faulty"),  # rows and columns
        ([10, 12, 2, 8], "faulty"),
    ],
)
def test_a_bbox_is_that_of_its_own_outline(tmp_path, segmentation, bbox, state):
    write(tmp_path, [point(bbox=bbox, segmentation=segmentation), point(2)])
    found = read_coco(tmp_path)
    assert [image.annotation for image in found.images] == [state, "complete"]
    assert all("its bbox and its segmentation lie apart" in p.reason for p in found.problems)


@pytest.mark.parametrize(
    "segmentation",
    [
        *([], [[1, 2, 3]], [["x", 1, 2, 3, 4, 5]], {"counts": "x", "size": [48, 64]}),
        *({"counts": "o" * 99, "size": [48, 64]}, {"counts": [3072], "size": [48, 64]}),
        *({"counts": [1, 2], "size": [48, 64]}, {"counts": [True], "size": [1, 1]}, {}, "x"),
    ],
)
def test_what_is_no_outline_contradicts_no_bbox(tmp_path, segmentation):
    write(tmp_path, [point(segmentation=segmentation)])
    assert summarize(read_coco(tmp_path))["a.png"] == ("complete", [NODULE])


def test_boxes_of_few_pixels_may_differ_from_their_outline_by_pixels(tmp_path):
    outline = [[10, 12, 10, 12, 11, 13]]
    write(tmp_path, [point(bbox=[10, 12, 3, 3], segmentation=outline)])
    assert read_coco(tmp_path).images[0].annotation == "complete"


def test_numbers_and_marks_as_text(tmp_path):
    bbox = ["10", " 12 ", "2e1", 8.0]
    marks = ("0", "1", 0, 1, True, False, None)
    write(tmp_path, [point(bbox=bbox, iscrowd=mark) for mark in marks] + [point(ignore=1)])
    image = read_coco(tmp_path).images[0]
    assert image.boxes.tolist() == [[10, 12, 30, 20]] * 8
    assert image.is_crowd == (False, True, False, True, True, False, False, False)
    assert image.difficult == (False,) * 7 + (True,)


def test_relative_coordinates(tmp_path):
    relative = [0.2, 0.25, 0.3, 0.1]
    write(tmp_path, [point(bbox=relative), point(2, bbox=[0, 0, 1, 1])])
    with pytest.raises(AnnotationError, match="the coordinates are relative"):
        read_coco(tmp_path)
    write(tmp_path, [point(), point(2, bbox=relative)])
    assert summarize(read_coco(tmp_path)) == {
        "a.png": ("complete", [NODULE]),
        "b.png": ("faulty", []),
    }
    # A box of one pixel is possible in an image of eight.
    images = [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}]
    write(tmp_path, [point(bbox=[0, 0, 1, 1])], images)
    assert summarize(read_coco(tmp_path))["a.png"] == ("complete", [("nodule", [0, 0, 1, 1])])


@pytest.mark.parametrize(
    "name",
    [
        "Röntgen_é.png",
        unicodedata.normalize("NFD", "Röntgen_é.png"),
        "RÖNTGEN_É.PNG",
        "C:\\Users\\me\\Röntgen_é.png",
        "/data/Röntgen_é.png",
        "images\\Röntgen_é.png",
    ],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_in_other_spellings(tmp_path, name, form):
    on_disk = unicodedata.normalize(form, "Röntgen_é.png")
    write_image(tmp_path / "images" / on_disk)
    write(tmp_path, [point()], [{"id": 1, "file_name": name}], names=())
    assert summarize(read_coco(tmp_path)) == {f"images/{on_disk}": ("complete", [NODULE])}


def test_two_entries_of_one_file(tmp_path):
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "./A.PNG"}]
    write(tmp_path, [point()], images, names=("a.png",))
    found = read_coco(tmp_path)
    assert summarize(found) == {"a.png": ("faulty", [NODULE])}
    assert "twice, with different boxes" in found.problems[0].reason


def test_patients_and_classes_as_numbers(tmp_path):
    patients = (1, "1", 1.0, "1.0", 0, "01", None, "NaN")
    names = [f"{index}.png" for index in range(len(patients))]
    images = [
        {"id": index, "file_name": name, "patient": patient}
        for index, (name, patient) in enumerate(zip(names, patients, strict=True))
    ]
    write(tmp_path, [], images, names, categories=[{"id": "10", "name": 7}, {"id": 9, "name": "x"}])
    found = read_coco(tmp_path)
    assert [image.patient for image in found.images] == ["1", "1", "1", "1", "0", "01", "", ""]
    assert found.label_names == ("x", "7")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings(tmp_path, encoding):
    write(tmp_path, [point()], names=("ä.png",))
    text = (tmp_path / "train.json").read_text("utf-8").replace("\\u00e4", "ä")
    (tmp_path / "train.json").write_bytes(text.encode(encoding))
    assert summarize(read_coco(tmp_path)) == {"ä.png": ("complete", [NODULE])}


def test_images_outside_the_source(tmp_path):
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "out" / "c.png")
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "out" / "c.png")
    names = ("../out/c.png", "link.png", "a.png")
    images = [{"id": index, "file_name": name} for index, name in enumerate(names)]
    write(tmp_path / "in", [point(0), point(1), point(2)], images, names=("a.png",))
    found = read_coco(tmp_path / "in")
    assert summarize(found) == {"a.png": ("complete", [NODULE])}
    assert all("lies outside the source" in problem.reason for problem in found.problems)
    found = read_coco(tmp_path / "in", options=ReaderOptions(images=tmp_path / "out"))
    assert [image.path.name for image in found.images] == ["c.png", "link.png", "a.png"]


def test_the_format_is_told_from_the_keys():
    assert is_coco({"images": [], "annotations": None}) and is_coco(
        {"images": [], "categories": []}
    )
    assert not any(map(is_coco, ([], {}, None, {"images": {}, "annotations": []}, {"images": []})))


@pytest.fixture
def cases():
    folder = Path(__file__).resolve().parent.parent.parent / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip(f"no cases: {folder} is not a folder")
    return folder


def test_reported_cases(cases):
    for name in ("cocodup", "cococatdup"):
        with pytest.raises(AnnotationError, match=r"\[1\] has the id 1,"):
            read_coco(cases / "field" / "01-coco-duplicate-image-ids" / name)
    for name in ("18-coco-string-image-id/viacoco", "21-unicode-nfd-names/coconfd"):
        (image,) = read_coco(cases / "field" / name).images
        assert image.annotation == "complete" and image.boxes.tolist() == [[10, 12, 30, 20]]
    found = read_coco(cases / "hostile" / "coco_traversal" / "src")
    assert [image.source_id for image in found.images] == ["images/ok.jpg"]
    assert len(found.problems) == 5


def test_no_mutation_loses_a_box(tmp_path):
    read = 0
    for seed in range(400):
        folder = tmp_path / str(seed)
        folder.mkdir()
        truth = corpus.make(random.Random(seed), folder)
        try:
            annotations = read_coco(folder)
        except AnnotationError:
            continue
        read += 1
        assert find_losses(annotations, truth) == [], seed
    assert read > 150
