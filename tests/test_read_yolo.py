"""YOLO data sets: what they say, and what cannot be understood."""

import random
import unicodedata

import numpy as np
import pytest
from conftest import ROOT
from corpus import yolo as corpus
from corpus.sources import find_losses, write_image
from PIL import Image

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.source import ReaderOptions
from vae_aug.ingest.formats.yolo import find_yolo_names, is_darknet, is_yolo_text, read_yolo
from vae_aug.ingest.formats.yolo_points import find_boxed_lengths

# Images have 48 x 64 pixels, so this is (24, 18, 40, 30).
LINE = "0 0.5 0.5 0.25 0.25"
BOX = [24, 18, 40, 30]


def write(folder, files):
    """Write texts and bytes; None makes an image."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            write_image(path)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content, "utf-8")


def read(folder, files, split="train", **options):
    write(folder, files)
    return read_yolo(folder, split, ReaderOptions(**options))


def states(found):
    return {image.source_id: (image.annotation, image.labels) for image in found.images}


def read_line(folder, text, names="nodule\ncyst\n"):
    """Read a label file beside a good one; return the image and the reasons of its faults."""
    files = {"images/a.png": None, "images/z.png": None, "labels/z.txt": LINE}
    found = read(folder, {**files, "classes.txt": names, "labels/a.txt": text})
    return found.images[0], [problem.reason for problem in found.problems]


CASES = ROOT.parent / "shared" / "cases"


def test_cases():
    if not CASES.is_dir():
        pytest.skip(f"no cases: {CASES} is not a folder")
    field = CASES / "field"
    unknown = field / "03-annotated-sets-taken-for-bare-images"
    found = read_yolo(unknown / "cvatyolo")
    assert [image.labels for image in found.images] == [("nodule",), ("cyst",)]
    assert [image.boxes.tolist() for image in found.images] == [[BOX], [[8, 18, 24, 30]]]
    with pytest.raises(AnnotationError, match=r"names of the classes .* write classes\.txt"):
        read_yolo(unknown / "makesenseyolo")
    for folder in (unknown, field / "16-yolo-bom-in-files"):
        (image,) = read_yolo(folder / "yolobom").images
        assert image.annotation == "complete" and image.labels == ("nodule", "cyst")
    assert read_yolo(field / "16-yolo-bom-in-files" / "bomclasses").label_names[0] == "nodule"
    # Stored pixels (40, 4, 60, 12) of 48 x 64, turned by a quarter: (48 - 12, 40, 48 - 4, 60).
    (image,) = read_yolo(field / "07-exif-orientation" / "exif6yolo").images
    np.testing.assert_allclose(image.boxes, [[36, 40, 44, 60]], atol=1e-4)
    with pytest.raises(AnnotationError, match=r"data\.yaml: no valid YAML"):
        read_yolo(CASES / "hostile" / "yolo_badyaml" / "src")


# --- Label files


@pytest.mark.parametrize(
    "content",
    [
        LINE.encode("utf-8-sig"),
        LINE.encode("utf-16"),
        f"\r\n \r\n{LINE}\r\n".encode(),
        f"{LINE}\r".encode(),
        LINE.replace(" ", "\t").encode(),
        LINE.replace(" ", "\u00a0").encode(),
        LINE.translate(corpus.FULL_WIDTH).encode(),
        LINE.replace("0 ", "0.0 ", 1).encode(),
        b"0 5e-1 .5 +0.25 0.250000",
        f"{LINE}\n{LINE}\n".encode(),
        b"0 0.375 0.375 0.625 0.375 0.625 0.625 0.375 0.625",
        b"0 0.625 0.625 0.375 0.375 0.625 0.375",
    ],
)
def test_spellings_of_one_box(tmp_path, content):
    image, reasons = read_line(tmp_path, content)
    assert (image.annotation, image.labels, reasons) == ("complete", ("nodule",), [])
    assert image.boxes.tolist() == [BOX]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2 .5 .5 .1 .1", "class '2' is not one of the 2 names"),
        ("-1 .5 .5 .1 .1", "does not begin with the number of a class"),
        ("0.5 .5 .5 .1 .1", "does not begin with the number of a class"),
        ("nodule .5 .5 .1 .1", "does not begin with the number of a class"),
        ("# none", "does not begin with the number of a class"),
        ("0,0.5,0.5,0.1,0.1", "does not begin with the number of a class"),
        ("0 0,5 0,5 0,1 0,1", "a coordinate is no number (with a decimal point"),
        ("0 .5 nan .1 .1", "a coordinate is no number"),
        ("0 .5 1_0 .1 .1", "a coordinate is no number"),
        ("0 .5 .5 .1", "expected 4 numbers or a polygon behind the class; got 3"),
        ("0 .1 .2 .3 .4 .5 .6 .7", "expected 4 numbers or a polygon behind the class; got 7"),
        ("0 .5 .5 .1 .1 .93", "has six columns, as predictions with a score have"),
        ("0 32 24 10 10", "a number lies beyond [0, 1]"),
        ("0 .5 -.2 .1 .1", "a number lies beyond [0, 1]"),
        ("1 .1 .1 .4 .1 .4 .4\n0 .5 .5 .1 .1", "four numbers among polygons"),
    ],
)
def test_a_line_that_is_no_box_makes_its_image_faulty(tmp_path, line, reason):
    image, (found,) = read_line(tmp_path, f"{line}\n")
    assert image.annotation == "faulty"
    assert found.startswith(f"line {line.count(chr(10)) + 1}: {reason}")


def test_text_that_cannot_be_read_makes_its_image_faulty(tmp_path):
    image, (reason,) = read_line(tmp_path, LINE.encode("utf-16-le"))
    assert image.annotation == "faulty" and reason.startswith("is no text: it holds zero bytes")


def test_keypoints_behind_a_box(tmp_path):
    files = {"a.png": None, "a.txt": f"{LINE} .1 .1 2 .2 .2 1", "b.png": None, "b.txt": LINE}
    found = read(tmp_path, {**files, "data.yaml": "{names: [nodule], kpt_shape: [2, 3]}"})
    assert [image.boxes.tolist() for image in found.images] == [[BOX], [BOX]]


def test_pixels_and_corners_are_refused(tmp_path):
    files = {"a.png": None, "classes.txt": "nodule", "a.txt": "0 32 24 16 12\n0 9 9 4 4"}
    with pytest.raises(AnnotationError, match="divide x and width by the image's width"):
        read(tmp_path / "pixels", files)
    corners = {**files, "a.txt": "0 .1 .2 .4 .9\n0 .3 .3 .5 .5"}
    with pytest.raises(AnnotationError, match="Write the centre and the size"):
        read(tmp_path / "corners", corners)


# --- Images without boxes


def test_which_images_are_negatives(tmp_path):
    files = {f"images/{name}.png": None for name in ("ward/a", "ward/b", "ward/c", "lab/d")}
    labels = {"labels/ward/a.txt": LINE, "labels/ward/b.txt": "", "labels/lab/.keep": ""}
    found = read(tmp_path, {**files, **labels, "classes.txt": "nodule"})
    assert states(found) == {
        "images/lab/d.png": ("none", ()),
        "images/ward/a.png": ("complete", ("nodule",)),
        "images/ward/b.png": ("complete", ()),
        "images/ward/c.png": ("complete", ()),
    }
    assert found.problems == ()


# Three boxes and points in them; read as polygons, they would reach to (w, h).
POSES = ((0.7, 0.7, 0.1, 0.1), (0.6, 0.2, 0.06, 0.1), (0.3, 0.8, 0.1, 0.2))


def make_poses(points, more=()):
    """Return a line for each of `POSES`, with points at the given shares of its sides."""
    lines = []
    for x, y, w, h in POSES:
        placed = ((x + across * w, y + down * h, *more) for across, down in points)
        lines.append([x, y, w, h, *(number for point in placed for number in point)])
    return "\n".join(" ".join(map(str, [0, *line])) for line in lines)


@pytest.mark.parametrize(
    "text",
    [
        make_poses([(0, 0)]),
        make_poses([(-0.5, -0.5), (0.5, 0.5)]),
        make_poses([(-0.4, -0.4), (0.4, 0.4), (0.1, 0)]),
        make_poses([(-0.4, 0.4), (0.4, 0.4)], more=[2]),
        make_poses([(-0.4, 0.4), (0.4, 0.4), (0, 0)], more=[1]),
        make_poses([(-0.4, 0.4), (0.4, 0.4), (0.1, 0)], more=[0.9]),  # scores
        # A box before its own outline, as some tools write it.
        "0 .5 .5 .4 .4 .3 .3 .7 .5 .4 .7\n0 .5 .5 .4 .4 .3 .3 .7 .3 .7 .7 .3 .7",
    ],
)
def test_key_points_that_can_be_nothing_else(tmp_path, text):
    image, reasons = read_line(tmp_path, text)
    boxes = [list(map(float, line.split()[1:5])) for line in text.splitlines()]
    expected = [
        [64 * (x - w / 2), 48 * (y - h / 2), 64 * (x + w / 2), 48 * (y + h / 2)]
        for x, y, w, h in dict.fromkeys(map(tuple, boxes))
    ]
    assert reasons == []
    assert image.annotation == "complete" and image.boxes == pytest.approx(np.array(expected))


@pytest.mark.parametrize(
    "text",
    [
        ".7 .7 .8 .7 .8 .8",
        ".7 .7 .8 .7 .8 .8 .7 .8 .6 .7",
        ".4 .4 .5 .4 .5 .5\n0 .4 .4 .5 .4 .5 .5 .4 .5",
        ".4 .4 .5 .45 .45 .55 .35 .5",  # an oriented box
        ".2 .2 .25 .2 .22 .25 .2 .25 .18 .23\n0 .4 .4 .45 .4 .42 .45 .4 .45 .38 .43\n"
        "0 .3 .3 .35 .3 .32 .35 .3 .35 .28 .33",
    ],
)
def test_polygons_that_can_be_nothing_else(tmp_path, text):
    image, reasons = read_line(tmp_path, f"0 {text}")
    points = np.array(text.split("\n0 ")[0].split(), float).reshape(-1, 2) * (64, 48)
    assert reasons == []
    assert image.boxes[0] == pytest.approx([*points.min(axis=0), *points.max(axis=0)])


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ("[2, 3]", [19.2, 14.4, 44.8, 33.6]),
        ("[3, 2]", [19.2, 14.4, 44.8, 33.6]),
        ("[0, 2]", [22.4, 16.8, 41.6, 31.2]),
    ],
)
def test_rows_that_may_be_polygons_and_key_points_are_refused(tmp_path, shape, box):
    files = {"images/a.png": None, "labels/a.txt": "0 .5 .5 .4 .4 .35 .35 .65 .35 .65 .65"}
    with pytest.raises(AnnotationError, match=r"'kpt_shape: \[3, 2\] or \[2, 3\]' into data.yaml"):
        read(tmp_path, {**files, "data.yaml": "names: [nodule]"})
    (tmp_path / "data.yaml").write_text(f"names: [nodule]\nkpt_shape: {shape}\n")
    assert read_yolo(tmp_path).images[0].boxes[0] == pytest.approx(box)


@pytest.mark.parametrize("name", ["labels/c_1.txt", "labels/train/c.txt", "c.txt", "old/c.txt"])
def test_a_text_without_image_puts_images_without_text_in_doubt(tmp_path, name):
    files = {f"images/{name}.png": None for name in "abc"}
    files |= {"labels/a.txt": LINE, "labels/b.txt": "\n", "classes.txt": "nodule", name: LINE}
    found = read(tmp_path, files)
    expected = {"a": "complete", "b": "complete", "c": "faulty"}
    assert {k[7]: state for k, (state, _) in states(found).items()} == expected
    assert [problem.file for problem in found.problems] == [name]
    assert "not certain that images without a text file have no boxes" in found.notes[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c_1.txt", "0 .5 .5 .4"),  # cut short, and called as the image and more
        ("c_1.txt", "nodule .5 .5 .4 .4"),
        ("gt c v2.txt", "nodule .5 .5 .4 .4"),
        ("x.txt", "0 .5 .5"),
        ("c_1.txt", "0 .5 .5 .4".encode("utf-16")),
    ],
)
def test_a_text_that_is_cut_short_or_called_otherwise_is_a_leftover(tmp_path, name, text):
    files = {"a.png": None, "c.png": None, "a.txt": LINE, "classes.txt": "nodule"}
    write(tmp_path, files)
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    found = read_yolo(tmp_path)
    assert {k: state for k, (state, _) in states(found).items()} == {
        "a.png": "complete",
        "c.png": "faulty",
    }
    assert [problem.file for problem in found.problems] == [name]


def test_prose_is_no_leftover(tmp_path):
    files = {"a.png": None, "c.png": None, "a.txt": LINE, "classes.txt": "nodule"}
    files |= {"README.txt": "2 hospitals.\n", "remarks.txt": "ok", "class_weights.txt": "0 1.0\n"}
    found = read(tmp_path, {**files, "fold_c.txt": "c.png\na.png\n", "spacing.txt": "1 0.5"})
    assert [image.annotation for image in found.images] == ["complete", "complete"]


def test_texts_of_another_split_are_no_leftovers(tmp_path):
    files = {"train/images/a.png": None, "train/images/b.png": None, "train/labels/a.txt": LINE}
    files |= {"valid/labels/v.txt": LINE, "classes.txt": "nodule"}
    found = read(tmp_path, files)
    assert [image.annotation for image in found.images] == ["complete", "complete"]


def test_names_in_another_case_or_form(tmp_path):
    nfd = unicodedata.normalize("NFD", "é.png")
    files = {"Images/A.PNG": None, f"Images/{nfd}": None, "classes.txt": "nodule"}
    found = read(tmp_path, {**files, "LABELS/a.TXT": LINE, "LABELS/é.txt": LINE})
    assert [image.labels for image in found.images] == [("nodule",)] * 2 and not found.problems


def test_images_that_share_a_text_file_are_faulty(tmp_path):
    files = {"images/a.png": None, "images/a.jpg": None, "images/b.png": None}
    files |= {"labels/a.txt": LINE, "labels/b.txt": LINE, "classes.txt": "nodule"}
    found = read(tmp_path, files)
    assert [image.annotation for image in found.images] == ["faulty", "faulty", "complete"]


def test_two_text_files_of_one_image(tmp_path):
    files = {
        "images/a.png": None,
        "labels/a.txt": "",
        "images/a.txt": LINE,
        "classes.txt": "nodule",
    }
    found = read(tmp_path, files)
    assert states(found) == {"images/a.png": ("faulty", ())}
    write(tmp_path, {"labels/a.txt": LINE})
    assert states(read_yolo(tmp_path)) == {"images/a.png": ("complete", ("nodule",))}


def test_the_last_folder_of_images_becomes_labels(tmp_path):
    files = {"images/x/images/a.png": None, "images/x/labels/a.txt": LINE, "classes.txt": "nodule"}
    assert states(read(tmp_path, files)) == {"images/x/images/a.png": ("complete", ("nodule",))}


# --- Names


@pytest.mark.parametrize(
    "files",
    [
        {"data.yaml": "{names: [nodule, cyst], nc: 2}"},
        {"data.yaml": "names: {'1': cyst, '0': nodule}"},
        {"a.yaml": "names: [nodule, cyst]", "b.yaml": "names: [nodule, cyst]"},
        {"data.yaml": "names: obj.names", "obj.names": "nodule\ncyst\n\n"},
        {"labels/classes.txt": "\ufeffnodule\r\ncyst\r\n"},
        {"images/_darknet.labels": "nodule\ncyst"},
        {"labels.txt": "nodule\ncyst"},
        {".hidden.yaml": "[", "ci.yaml": "[", "classes.txt": "nodule\ncyst"},
    ],
)
def test_names(tmp_path, files):
    found = read(tmp_path, {"images/a.png": None, "labels/a.txt": f"1{LINE[1:]}", **files})
    assert found.label_names == ("nodule", "cyst") and found.images[0].labels == ("cyst",)
    assert find_yolo_names(tmp_path) is not None and not is_darknet(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"data.yaml": "{names: [nodule], nc: 2}"}, r"data\.yaml: 'nc' .* is '2', but there are 1"),
        ({"data.yaml": "names: [nodule, no]"}, "no text; put it in quotes"),
        ({"data.yaml": "names: nodule"}, "'names' is neither a list nor a file"),
        ({"data.yaml": "names: 3"}, "'names' is no list"),
        ({"data.yaml": "names: {a: 0}"}, "expected numbers from 0 as keys of 'names'"),
        ({"data.yaml": "names: {0: a, '0': b}"}, "'names' has a number twice"),
        ({"data.yaml": "{names: [a], kpt_shape: 3}"}, "'kpt_shape' is not two numbers"),
        ({"data.yaml": "names: [a", "classes.txt": "a"}, r"data\.yaml: no valid YAML"),
        ({"a.yaml": "names: [a]", "b.yml": "names: [b]"}, r"a\.yaml and b\.yml differ"),
        (
            {"a.yaml": "names: [a]", "classes.txt": "b"},
            r"a\.yaml and classes\.txt name the classes",
        ),
        ({"classes.txt": "\n"}, r"names of the classes in data\.yaml"),
    ],
)
def test_names_that_cannot_be_told(tmp_path, files, message):
    with pytest.raises(AnnotationError, match=message):
        read(tmp_path, {"images/a.png": None, "labels/a.txt": LINE, **files})


def test_a_gap_in_the_names_keeps_the_numbers(tmp_path):
    image, (reason,) = read_line(tmp_path, "2 .5 .5 .1 .1\n1 .5 .5 .2 .2\n", "nodule\n\ncyst\n")
    assert image.labels == ("cyst",) and reason == "line 2: class '1' is not one of the 2 names"


def test_a_yaml_file_that_is_named_needs_no_agreement(tmp_path):
    files = {
        "images/a.png": None,
        "labels/a.txt": LINE,
        "classes.txt": "dog",
        "a.yaml": "names: [b]",
    }
    write(tmp_path, files)
    assert read_yolo(tmp_path / "a.yaml").label_names == ("b",)


# --- Splits


@pytest.mark.parametrize(
    ("entry", "images", "labels"),
    [
        ("ward/images", "ward/images", "ward/labels"),
        ("../ward/images/", "ward/images", "ward/labels"),
        ("D:\\set\\Ward\\images", "ward/images", "ward/labels"),
        ("/content/set/images/one", "images/one", "labels/one"),
        ("[images/one, images/none]", "images/one", "labels/one"),
        ("images/on*", "images/one", "labels/one"),
        ("list.txt", "images/one", "labels/one"),
    ],
)
def test_what_the_yaml_file_names_for_a_split(tmp_path, entry, images, labels):
    files = {f"{images}/a.png": None, f"{labels}/a.txt": LINE, "images/other/b.png": None}
    files |= {"data.yaml": f"train: {entry}\nval: images/other\nnames: [nodule]"}
    files |= {"list.txt": f"data/{images}/a.png\n"}
    assert states(read(tmp_path, files)) == {f"{images}/a.png": ("complete", ("nodule",))}


def test_a_split_that_is_nowhere(tmp_path):
    files = {"images/a.png": None, "labels/a.txt": LINE}
    yaml = "train: images/none\nval: images\nnames: [nodule]"
    with pytest.raises(
        AnnotationError, match="names images for val, and for the split 'train' none"
    ):
        read(tmp_path, {**files, "data.yaml": yaml})
    with pytest.raises(AnnotationError, match="expected a folder, a list of images or several"):
        read(tmp_path, {"data.yaml": "train: 7\nnames: [nodule]"})


def test_images_of_a_list_that_are_missing_are_named(tmp_path):
    files = {"images/a.png": None, "labels/a.txt": LINE, "train.txt": "images/a.png\nimages/b.png"}
    found = read(tmp_path, {**files, "data.yaml": "train: train.txt\nnames: [nodule]"})
    assert [(p.file, p.reason) for p in found.problems] == [
        ("images/b.png", "listed in train.txt, and not there")
    ]
    write(tmp_path, {"train.txt": "b.png"})
    with pytest.raises(AnnotationError, match="none of the 1 image that it lists is there"):
        read_yolo(tmp_path)


# --- Darknet and CVAT

DARKNET = {
    "obj.data": "classes=1\ntrain = data/train.txt\nvalid=data/valid.txt\nnames = data/obj.names",
    "obj.names": "nodule\n",
    "train.txt": "data/obj_train_data/a.png\ndata/obj_train_data/b.png\n",
    "valid.txt": "data/obj_valid_data/v.png\n",
    "obj_train_data/a.txt": LINE,
    "obj_train_data/b.txt": "",
    "obj_valid_data/v.txt": LINE,
}
PICTURES = {f"obj_{name}.png": None for name in ("train_data/a", "train_data/b", "valid_data/v")}


def test_darknet(tmp_path):
    assert states(read(tmp_path, {**DARKNET, **PICTURES})) == {
        "obj_train_data/a.png": ("complete", ("nodule",)),
        "obj_train_data/b.png": ("complete", ()),
    }
    assert list(states(read_yolo(tmp_path, "validation"))) == ["obj_valid_data/v.png"]
    assert is_darknet(tmp_path) and find_yolo_names(tmp_path).name == "obj.data"
    with pytest.raises(AnnotationError, match=r"names images for train, valid, and .* 'test' none"):
        read_yolo(tmp_path, "test")


def test_darknet_without_its_images(tmp_path):
    with pytest.raises(AnnotationError, match=r"train\.txt: none of the 2 images .* --images"):
        read(tmp_path / "set", DARKNET)
    write(tmp_path, {"elsewhere/a.png": None, "elsewhere/b.png": None})
    found = read_yolo(tmp_path / "set", "train", ReaderOptions(images=tmp_path / "elsewhere"))
    assert [(i.annotation, i.labels) for i in found.images] == [
        ("complete", ("nodule",)),
        ("complete", ()),
    ]


def test_images_in_a_folder_that_the_user_named(tmp_path):
    write(tmp_path, {"elsewhere/a.png": None, "elsewhere/b.png": None})
    files = {"labels/train/a.txt": LINE, "labels/train/b.txt": "", "classes.txt": "nodule"}
    found = read(tmp_path / "set", files, images=tmp_path / "elsewhere")
    assert [image.labels for image in found.images] == [("nodule",), ()]
    assert [image.annotation for image in found.images] == ["complete", "complete"]


# --- Borders


def test_what_lies_outside_is_not_read(tmp_path):
    write(tmp_path, {"out/b.png": None, "out/a.txt": LINE})
    files = {"images/a.png": None, "images/c.png": None, "labels/c.txt": LINE}
    files |= {"train.txt": "../out/b.png\nimages/a.png\nimages/c.png"}
    write(tmp_path / "set", {**files, "data.yaml": "train: train.txt\nnames: [nodule]"})
    (tmp_path / "set" / "labels" / "a.txt").symlink_to(tmp_path / "out" / "a.txt")
    found = read_yolo(tmp_path / "set")
    assert states(found) == {
        "images/a.png": ("faulty", ()),
        "images/c.png": ("complete", ("nodule",)),
    }
    reasons = {problem.file: problem.reason for problem in found.problems}
    assert "outside the source" in reasons["../out/b.png"]
    assert "leads out of the source" in reasons["labels/a.txt"]


def test_exif_turns_sizes(tmp_path):
    write(tmp_path, {"a.txt": LINE, "classes.txt": "nodule"})
    exif = Image.Exif()
    exif[274] = 6
    Image.new("L", (64, 48)).save(tmp_path / "a.jpg", exif=exif)
    assert read_yolo(tmp_path).images[0].boxes.tolist() == [[18, 24, 30, 40]]
    ignored = read_yolo(tmp_path, "train", ReaderOptions(exif="ignore"))
    assert ignored.images[0].boxes.tolist() == [BOX]


# --- All of it


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (LINE.encode(), True),
        (f"\ufeff\n\n{LINE}".encode("utf-16"), True),
        (LINE.encode("utf-16-le"), True),
        (b"class x y w h\r\n0 .5 .5 .1 .1\r\n", True),
        (b"0 .1 .1 .2 .1 .2 .2", True),
        (b"", False),
        (b"nodule\ncyst", False),
        (b"images/a.png", False),
        (b"0 is the background", False),
    ],
)
def test_texts_that_look_like_yolo(tmp_path, content, expected):
    (tmp_path / "a.txt").write_bytes(content)
    assert is_yolo_text(tmp_path / "a.txt") is expected


def test_no_mutation_loses_a_box(tmp_path):
    read_count = 0
    for seed in range(300):
        folder = tmp_path / str(seed)
        folder.mkdir()
        truth = corpus.make(random.Random(seed), folder)
        try:
            annotations = read_yolo(folder)
        except AnnotationError:
            continue
        read_count += 1
        assert find_losses(annotations, truth) == [], seed
    assert read_count > 150


def test_a_polygon_that_was_cut_short_is_no_box_with_a_key_point(tmp_path):
    """Seven numbers fit no polygon, and by chance look like a box, a point and a score."""
    row = "0 0.32812500 0.39583333 0.41406250 0.39583333 0.41406250 0.45833333 0.32812500"
    assert find_boxed_lengths(tmp_path, [row]) == frozenset()
