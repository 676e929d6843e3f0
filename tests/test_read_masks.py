"""Masks: which files they are, what their values mean, and what cannot be told."""

import os
import random
import re
import struct
import unicodedata

import cv2
import numpy as np
import pytest
from conftest import ROOT
from corpus import masks as corpus
from corpus.sources import find_losses, write_image
from PIL import Image

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.mask_pixels import read_mask
from vae_aug.ingest.formats.mask_scheme import VOC_NUMBERS
from vae_aug.ingest.formats.masks import find_regions, is_mask_name, name_values, read_masks
from vae_aug.ingest.formats.source import ReaderOptions

HEIGHT, WIDTH = 48, 64
# The far edges are exclusive: columns 10 to 29, rows 12 to 19.
BOX = [10, 12, 30, 20]
CASES = ROOT.parent / "shared" / "cases"


def make_mask(value=255, box=BOX, mask=None):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8) if mask is None else mask
    left, top, right, bottom = box
    mask[top:bottom, left:right] = value
    return mask


def write_mask(path, pixels=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = make_mask() if pixels is None else pixels
    stored = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    path.write_bytes(cv2.imencode(path.suffix.lower(), stored)[1].tobytes())


def write_set(folder, *masks, text=None):
    """Write masks 0.png, 1.png, ... with their images; `text` is a file's name and contents."""
    for index, pixels in enumerate(masks):
        write_image(folder / "images" / f"{index}.png")
        write_mask(folder / "masks" / f"{index}.png", pixels)
    if text is not None:
        (folder / text[0]).write_text(text[1], "utf-8")
    return folder


def list_boxes(image):
    return list(zip(image.labels, image.boxes.tolist(), strict=True))


def states(found):
    return {image.source_id: (image.annotation, len(image.labels)) for image in found.images}


def list_reasons(found):
    return [(problem.file, problem.reason) for problem in found.problems]


def test_cases():
    if not CASES.is_dir():
        pytest.skip(f"no cases: {CASES} is not a folder")
    # Half of white: JPEG moved the edges of maskjpg2png by a pixel before the case was made.
    for name, box in (("maskjpg2png", [9, 11, 31, 21]), ("maskaa", [10, 12, 30, 20])):
        (image,) = read_masks(CASES / "field" / "06-masks-grey-edges" / name).images
        assert image.annotation == "complete" and list_boxes(image) == [("object", box)]


# --- Which files are masks


@pytest.mark.parametrize(
    ("image", "masks"),
    [
        ("images/a.png", ["masks/a.png"]),
        ("Images/a.jpg", ["Mask/a.tif"]),
        ("imgs/a.png", ["GT/a_gt.png"]),
        ("img/a.png", ["ground_truth/A.PNG"]),
        ("image/a.png", ["labels/a.png"]),
        ("image/a.png", ["label/a_label.png"]),
        ("images/a.png", ["annotations/a.png"]),
        ("JPEGImages/a.png", ["SegmentationClass/a.png"]),
        ("Original/a.png", ["Ground Truth/a.png"]),
        ("ISIC_Training_Input/ISIC_7.jpg", ["ISIC_Training_GroundTruth/ISIC_7_segmentation.png"]),
        ("CXR_png/a.png", ["ManualMask/leftMask/a.png", "ManualMask/rightMask/a.png"]),
        ("train/images/a.png", ["train/masks/a_mask.png"]),
        ("images/train/a.png", ["masks/train/a.png"]),
        ("images/train/a.png", ["masks/a.png"]),
        ("id7/images/id7.png", ["id7/masks/x1.png", "id7/masks/x2.png"]),
        ("benign (1).png", ["benign (1)_mask.png", "benign (1)_mask_1.png"]),
        ("a.png", ["a_mask1.png", "a_mask2.png"]),
        ("a.png", ["a_seg.png"]),
        ("a.png", ["a-segmentation.png"]),
        ("a.png", ["a_annotation.png"]),
        ("a.png", ["a_lesion.png"]),
        ("a.png", ["a_lesion_mask.png"]),
        ("a.png", ["a_manual1.png"]),
        ("a.png", ["mask_a.png"]),
        ("image_7.png", ["mask_7.png"]),
        ("images/img7.png", ["masks/mask7.png"]),
        (unicodedata.normalize("NFD", "é.png"), [unicodedata.normalize("NFC", "é_Mask.png")]),
    ],
)
def test_masks_by_their_names(tmp_path, image, masks):
    write_image(tmp_path / image)
    for index, mask in enumerate(masks):
        write_mask(tmp_path / mask, make_mask(box=[10 + 20 * index, 12, 20 + 20 * index, 20]))
    found = read_masks(tmp_path)
    boxes = [("object", [10 + 20 * i, 12, 20 + 20 * i, 20]) for i in range(len(masks))]
    assert [image.source_id for image in found.images] == [image]
    assert list_boxes(found.images[0]) == boxes and found.problems == ()
    assert all(is_mask_name(tmp_path / mask, tmp_path) for mask in masks)
    assert not is_mask_name(tmp_path / image, tmp_path)


def test_equal_regions_of_two_masks_count_once(tmp_path):
    write_image(tmp_path / "a.png")
    for name in ("a_mask.png", "a_mask_1.png"):
        write_mask(tmp_path / name)
    assert list_boxes(read_masks(tmp_path).images[0]) == [("object", BOX)]


def test_a_mask_never_becomes_an_image(tmp_path):
    for name in "ade":
        write_image(tmp_path / f"{name}.png")
    for name in ("a_mask.png", "b_mask.png", "e_label.png", "c_label.png"):
        write_mask(tmp_path / name)
    found = read_masks(tmp_path)
    # A mask that lost its image may be that of any image without one.
    expected = {f"{name}.png": ("complete", 1) for name in "ae"}
    assert states(found) == {**expected, "d.png": ("faulty", 0)}
    expected = [(name, "a mask whose image is missing") for name in ("b_mask.png", "c_label.png")]
    assert list_reasons(found) == expected


@pytest.mark.parametrize("folder", ["pred_masks", "predictions", "masks/predicted"])
def test_predictions_are_neither_masks_nor_images(tmp_path, folder):
    write_set(tmp_path, make_mask(), make_mask(0))
    write_mask(tmp_path / folder / "1.png")
    write_mask(tmp_path / "images" / "1_pred_mask.png")
    found = read_masks(tmp_path)
    assert states(found) == {"images/0.png": ("complete", 1), "images/1.png": ("complete", 0)}
    assert [reason for _, reason in list_reasons(found)] == [
        "is named as a prediction, which is no annotation"
    ] * 2


def test_words_that_may_be_of_images(tmp_path):
    for name in ("annotations/a.png", "p1_lesion.png", "with_mask/b.png", "without_mask/c.png"):
        write_image(tmp_path / name)
        assert not is_mask_name(tmp_path / name, tmp_path) or "with_mask" in name
    with pytest.raises(AnnotationError, match="none of its 4 images has a mask"):
        read_masks(tmp_path)


@pytest.mark.parametrize("folder", ["no_lesion", "sin_lesion", "sans_lesion"])
def test_folders_of_images_without_a_lesion_hold_no_masks(tmp_path, folder):
    for name in ("images/a.png", f"{folder}/a.png"):
        write_image(tmp_path / name)
    assert not is_mask_name(tmp_path / folder / "a.png", tmp_path)


def test_a_mask_of_another_patient_is_not_taken(tmp_path):
    for name in ("p1/images/1.png", "p2/images/2.png"):
        write_image(tmp_path / name)
    for name in ("p1/masks/1.png", "p2/masks/1.png"):
        write_mask(tmp_path / name)
    found = read_masks(tmp_path)
    assert states(found) == {"p1/images/1.png": ("complete", 1), "p2/images/2.png": ("faulty", 0)}
    assert list_reasons(found) == [("p2/masks/1.png", "a mask whose image is missing")]


@pytest.mark.parametrize(
    ("images", "mask"),
    [
        (["images/a.png", "images/a.jpg"], "masks/a.png"),
        (["p1/a.png", "p2/a.png"], "masks/a.png"),
        (["a.png", "a_1.png"], "a_mask_1.png"),
    ],
)
def test_a_mask_that_may_be_of_two_images_makes_both_faulty(tmp_path, images, mask):
    for name in images:
        write_image(tmp_path / name)
    write_mask(tmp_path / mask)
    found = read_masks(tmp_path)
    assert states(found) == dict.fromkeys(images, ("faulty", 0))
    assert {problem.file for problem in found.problems} == {mask}


def test_splits(tmp_path):
    for split in ("train", "Val"):
        write_image(tmp_path / "images" / split / f"{split}.png")
        write_mask(tmp_path / "masks" / split / f"{split}.png")
    assert list(states(read_masks(tmp_path, "validation"))) == ["images/Val/Val.png"]
    with pytest.raises(AnnotationError, match="no folder for the split 'test'; it has train, val"):
        read_masks(tmp_path, "test")


@pytest.mark.parametrize("other", ["test", "Testing"])
def test_all_splits_at_once(tmp_path, other):
    """Images of one name keep to the masks of their split."""
    small = [40, 30, 50, 40]
    for split, masks, box in (("train", "train", BOX), ("test", other, small)):
        write_image(tmp_path / "images" / split / "a.png")
        write_mask(tmp_path / "lung_masks" / masks / "a.png", make_mask(255, box))
    found = read_masks(tmp_path, "all")
    assert [list_boxes(image) for image in found.images] == [[("object", small)], [("object", BOX)]]
    write_image(tmp_path / "images" / "test" / "b.png")
    write_mask(tmp_path / "lesion_masks" / other / "b.png")
    assert len(read_masks(tmp_path, "train").images) == 1
    with pytest.raises(AnnotationError, match="different things"):
        read_masks(tmp_path, "all")


def test_images_in_a_folder_that_the_user_named(tmp_path):
    write_image(tmp_path / "pictures" / "a.png")
    write_mask(tmp_path / "set" / "masks" / "a.png")
    found = read_masks(tmp_path / "set", "train", ReaderOptions(images=tmp_path / "pictures"))
    assert states(found) == {"../pictures/a.png": ("complete", 1)}


def test_a_mask_outside_the_source_is_not_read(tmp_path):
    write_set(tmp_path / "set", make_mask())
    write_mask(tmp_path / "a.png")
    write_image(tmp_path / "set" / "images" / "1.png")
    (tmp_path / "set" / "masks" / "1.png").symlink_to(tmp_path / "a.png")
    found = read_masks(tmp_path / "set")
    assert states(found) == {"images/0.png": ("complete", 1), "images/1.png": ("faulty", 0)}
    assert list_reasons(found) == [("masks/1.png", "the mask lies outside the source")]


def test_empty_missing_and_unreadable_masks(tmp_path):
    write_set(tmp_path, make_mask(), make_mask(0), np.zeros((HEIGHT, WIDTH + 1), np.uint8))
    for name in ("3", "4"):
        write_image(tmp_path / "images" / f"{name}.png")
    (tmp_path / "masks" / "4.png").write_bytes(b"\x89PNG\r\n")
    found = read_masks(tmp_path)
    expected = [("complete", 1), ("complete", 0), ("faulty", 0), ("none", 0), ("faulty", 0)]
    assert list(states(found).values()) == expected
    assert [(p.file, p.effect) for p in found.problems] == [
        ("masks/2.png", "unread"),
        ("masks/4.png", "unread"),
    ]
    assert found.problems[0].reason.startswith("the mask is 48 x 65, the image 48 x 64 pixels")


def test_one_value_is_one_mask_and_a_small_one_a_class(tmp_path):
    for value, label in ((21, "object"), (100, "object"), (254, "object"), (2, "2"), (20, "20")):
        found = read_masks(write_set(tmp_path / str(value), make_mask(value), make_mask(0)))
        assert [image.labels for image in found.images] == [(label,), ()]
        assert found.label_names == (label,)


# --- Masks that are not all read


@pytest.mark.parametrize("name", ["b_mask_2.png", "masks/b.png", "b_mask.tif"])
@pytest.mark.parametrize("kind", ["link", "link out", "loop", "pipe", "empty", "pointer"])
def test_a_mask_that_cannot_be_read_beside_an_empty_one(tmp_path, name, kind):
    for image in "abc":
        write_image(tmp_path / f"{image}.png")
    write_mask(tmp_path / "a_mask.png")
    write_mask(tmp_path / "b_mask_1.png", make_mask(0))
    write_mask(tmp_path / "c_mask.png", make_mask(0))
    lost = tmp_path / name
    lost.parent.mkdir(exist_ok=True)
    if kind == "pipe":
        os.mkfifo(lost)
    elif kind in ("link", "link out", "loop"):
        lost.symlink_to({"link": "gone", "link out": "/gone/b.png", "loop": lost.name}[kind])
    else:
        lost.write_bytes(b"version https://git-lfs" if kind == "pointer" else b"")
    found = read_masks(tmp_path)
    assert states(found) == {
        "a.png": ("complete", 1),
        "b.png": ("faulty", 0),
        "c.png": ("complete", 0),
    }
    assert [problem.file for problem in found.problems] == [name]


@pytest.mark.parametrize("name", ["b_mask_2.npy", "b_mask.nii.gz", "b_mask", "b_mask.png.part"])
def test_a_mask_of_another_kind_beside_an_empty_one(tmp_path, name):
    for image in "ab":
        write_image(tmp_path / f"{image}.png")
    write_mask(tmp_path / "a_mask.png")
    write_mask(tmp_path / "b_mask_1.png", make_mask(0))
    for file in ("a_mask_1.npy", "b_mask_1.png.aux.xml", name):
        (tmp_path / file).write_bytes(b"\0")
    found = read_masks(tmp_path)
    assert states(found) == {"a.png": ("complete", 1), "b.png": ("faulty", 0)}
    ((file, reason),) = list_reasons(found)
    assert file == name and reason.startswith("it bears the name of a mask")


def test_a_folder_of_the_name_of_a_mask_beside_an_empty_one(tmp_path):
    for image in "abc":
        write_image(tmp_path / f"{image}.png")
    write_mask(tmp_path / "a_mask.png")
    write_mask(tmp_path / "b_mask_1.png", make_mask(0))
    write_mask(tmp_path / "c_mask.png", make_mask(0))
    (tmp_path / "b_mask_2.png").mkdir()
    assert states(read_masks(tmp_path)) == {
        "a.png": ("complete", 1),
        "b.png": ("faulty", 0),
        "c.png": ("complete", 0),
    }


def test_objects_without_a_class(tmp_path):
    """Of Pascal VOC: `b` has objects and no class, `d` no mask of classes."""
    for name, value, count in (("a", 1, 1), ("b", 0, 1), ("c", 0, 0), ("d", None, 1)):
        write_image(tmp_path / "JPEGImages" / f"{name}.png")
        if value is not None:
            write_mask(tmp_path / "SegmentationClass" / f"{name}.png", make_mask(value))
        write_mask(tmp_path / "SegmentationObject" / f"{name}.png", make_mask(count))
    found = read_masks(tmp_path)
    expected = [("complete", 1), ("faulty", 0), ("complete", 0), ("faulty", 0)]
    assert list(states(found).values()) == expected
    assert list_reasons(found)[0] == (
        "SegmentationObject/b.png",
        "it numbers objects, and no mask tells their class",
    )


def test_folders_of_masks_beside_each_other(tmp_path):
    """Each image has one mask: whether `a` has something at the right is not said."""
    for name in "abc":
        write_image(tmp_path / "images" / f"{name}.png")
    write_mask(tmp_path / "leftMask" / "a.png", make_mask(0))
    write_mask(tmp_path / "rightMask" / "b.png")
    write_mask(tmp_path / "rightMask" / "c.png", make_mask(0))
    write_mask(tmp_path / "leftMask" / "c.png", make_mask(0))
    expected = [("none", 0), ("complete", 1), ("complete", 0)]
    assert list(states(read_masks(tmp_path)).values()) == expected


def test_folders_of_patients_are_none_of_classes(tmp_path):
    for name, value in (("p1/a", 255), ("p2/b", 0)):
        write_image(tmp_path / "images" / f"{name}.png")
        write_mask(tmp_path / "masks" / f"{name}.png", make_mask(value))
    assert list(states(read_masks(tmp_path)).values()) == [("complete", 1), ("complete", 0)]


@pytest.mark.parametrize("folders", ["masks/left masks/right", "leftMask rightMask"])
def test_a_mask_is_missing_that_other_images_have(tmp_path, folders):
    left, right = folders.split()
    for name, value in (("a", 255), ("b", 0), ("c", 255)):
        write_image(tmp_path / "images" / f"{name}.png")
        write_mask(tmp_path / left / f"{name}.png", make_mask(value))
    write_mask(tmp_path / right / "a.png")
    found = read_masks(tmp_path)
    assert [state for state, _ in states(found).values()] == ["complete", "none", "complete"]
    ((file, reason),) = list_reasons(found)
    assert file == "images/b.png" and reason.startswith("has no mask in right")
    write_mask(tmp_path / right / "b.png", make_mask(0))
    assert states(read_masks(tmp_path))["images/b.png"] == ("complete", 0)


@pytest.mark.parametrize("target", ["../elsewhere", "gone", "lesion_masks"])
def test_a_link_to_a_folder_of_masks_elsewhere_leaves_no_negatives(tmp_path, target):
    source = write_set(tmp_path / "set", make_mask(), make_mask(0))
    write_mask(tmp_path / "elsewhere" / "1.png")
    (source / "lesion_masks").symlink_to(target)
    found = read_masks(source)
    assert states(found) == {"images/0.png": ("complete", 1), "images/1.png": ("faulty", 0)}
    reason = "is a link to a folder elsewhere, or to nothing; it is not followed"
    assert list_reasons(found) == [("lesion_masks", reason)]


# --- Soft edges


def make_shapes(seed):
    """Draw three ellipses of 9 to 40 pixels."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((120, 160), np.uint8)
    for row, column in ((30, 40), (80, 60), (60, 120)):
        axes = rng.integers(4, 20, 2).tolist()
        cv2.ellipse(mask, (column, row), axes, 0, 0, 360, 255, -1)
    return mask


def soften(mask, how):
    if isinstance(how, int):
        data = cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, how])[1]
        return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    if how == "antialias":
        return cv2.resize(mask, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    if how == "blur":
        return cv2.GaussianBlur(mask, (0, 0), 2)
    interpolation = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}[how]
    return cv2.resize(mask, None, fx=2.5, fy=2.5, interpolation=interpolation)


@pytest.mark.parametrize("how", [50, 75, 90, 95, "linear", "cubic", "antialias", "blur"])
def test_soft_edges_are_one_mask(tmp_path, how):
    masks = [soften(make_shapes(seed), how) for seed in range(3)]
    write_set(tmp_path, *masks)
    for index, mask in enumerate(masks):
        write_mask(tmp_path / "images" / f"{index}.png", np.full_like(mask, 7))
    found = read_masks(tmp_path)
    assert found.label_names == ("object",) and found.problems == ()
    for seed, image in enumerate(found.images):
        scale = image.width / 160
        expected = [np.multiply(box, scale) for _, box in find_regions(make_shapes(seed))]
        boxes = sorted(image.boxes.tolist())
        assert image.annotation == "complete" and len(boxes) == 3
        np.testing.assert_allclose(boxes, sorted(box.tolist() for box in expected), atol=3)


def test_a_jpeg_is_a_mask(tmp_path):
    write_image(tmp_path / "images" / "a.png")
    write_mask(tmp_path / "masks" / "a.jpg")
    assert list_boxes(read_masks(tmp_path).images[0]) == [("object", BOX)]


@pytest.mark.parametrize("value", [1, 3])
def test_a_jpeg_that_is_nearly_black_is_no_mask(tmp_path, value):
    """JPEG of quality 95 makes of 1 what is 8 of 20 columns wide, or nothing."""
    for name in "ab":
        write_image(tmp_path / "images" / f"{name}.png")
    write_mask(tmp_path / "masks" / "a.jpg", make_mask(value))
    write_mask(tmp_path / "masks" / "b.png", make_mask(value))
    found = read_masks(tmp_path)
    assert list(states(found).values()) == [("faulty", 0), ("complete", 1)]
    assert "it is a JPEG" in list_reasons(found)[0][1]


def test_grey_that_is_no_edge_makes_a_mask_unreadable(tmp_path):
    soft = cv2.GaussianBlur(make_mask(), (0, 0), 1)
    lone = make_mask(120, [40, 30, 42, 32], soft.copy())
    far = make_mask(20, [60, 30, 61, 31], soft.copy())
    photograph = np.tile(np.linspace(140, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    found = read_masks(write_set(tmp_path, soft, lone, far, photograph))
    assert [state for state, _ in states(found).values()] == ["complete", *["faulty"] * 3]
    reasons = [reason for _, reason in list_reasons(found)]
    assert reasons[0].startswith("a grey region of it is nowhere half as bright as white")
    for reason in reasons[1:]:
        assert reason.startswith("it is grey more than 16 pixels from where it would be cut")


# --- Classes


HIGH = [[50, 100, 150, 200, 250], [128, 255], [1, 2, 255], [1, 21]]


@pytest.mark.parametrize("values", [[1, 2], list(range(1, 21)), [3, 20], *HIGH])
def test_classes_survive(tmp_path, values):
    """Each value has one region of 3x3; the first also touches the second."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for index, value in enumerate(values):
        left, top = 8 * (index % 7) + 2, 12 * (index // 7) + 2
        make_mask(value, [left, top, left + 3, top + 3], mask)
    make_mask(values[1], [5, 2, 8, 3], mask)
    write_set(tmp_path, mask)
    if values in HIGH:
        with pytest.raises(AnnotationError, match=f"hold the values {values[0]}, .* labelmap.txt"):
            read_masks(tmp_path)
        lines = "".join(f"{value}:{value},{value},{value}::\n" for value in values)
        (tmp_path / "labelmap.txt").write_text(lines)
    found = read_masks(tmp_path)
    assert found.label_names == tuple(map(str, values)) and found.problems == ()
    assert {label for label, _ in list_boxes(found.images[0])} == set(found.label_names)


def test_a_line_between_classes_is_a_class(tmp_path):
    mask = make_mask(1, mask=make_mask(2, [9, 11, 31, 21]))
    found = read_masks(write_set(tmp_path, mask))
    assert list_boxes(found.images[0]) == [("2", [9, 11, 31, 21]), ("1", BOX)]


@pytest.mark.parametrize("how", [75, "linear"])
def test_classes_that_were_smoothed_are_refused(tmp_path, how):
    mask = soften(make_mask(100, [34, 20, 56, 40], make_mask(200)), how)
    write_set(tmp_path, mask)
    write_mask(tmp_path / "images" / "0.png", np.full_like(mask, 7))
    with pytest.raises(AnnotationError, match=r"values 100, 200; \d+ more lie at edges"):
        read_masks(tmp_path)
    (tmp_path / "classes.txt").write_text("\n" * 99 + "cyst" + "\n" * 100 + "nodule")
    found = read_masks(tmp_path)
    assert states(found) == {"images/0.png": ("faulty", 0)}
    assert "lie in specks and at edges, between classes" in found.problems[0].reason


def test_classes_in_a_jpeg_are_refused(tmp_path):
    write_set(tmp_path, make_mask(1), make_mask(2))
    (tmp_path / "masks" / "1.png").unlink()
    write_mask(tmp_path / "masks" / "1.jpg", make_mask(2, [8, 8, 40, 40]))
    found = read_masks(tmp_path)
    assert [state for state, _ in states(found).values()] == ["complete", "faulty"]
    assert "is a JPEG, which changes the values" in found.problems[0].reason


def test_an_edge_that_may_be_a_class_is_refused(tmp_path):
    mask = make_mask(255, mask=make_mask(128, [9, 11, 31, 21]))
    with pytest.raises(AnnotationError, match="1 grey values, in thin regions alone"):
        read_masks(write_set(tmp_path, mask))
    (tmp_path / "classes.txt").write_text("\n".join(map(str, range(1, 256))))
    assert read_masks(tmp_path).images[0].labels == ("128", "255")


def test_numbers_of_objects_are_refused(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), np.uint16)
    for index in range(21):
        left, top = 8 * (index % 7), 12 * (index // 7)
        mask[top : top + 5, left : left + 5] = 100 * index + 7
    with pytest.raises(AnnotationError, match=r"hold 21 values; .* Write classes\.txt"):
        read_masks(write_set(tmp_path, mask))
    (tmp_path / "classes.txt").write_text("cell\n" * 2100)
    found = read_masks(tmp_path)
    assert found.label_names == ("cell",) and len(found.images[0].labels) == 21


@pytest.mark.parametrize(
    ("text", "value", "label"),
    [
        ("nodule", 255, "nodule"),
        ("nodule", 128, "nodule"),
        ("\ufeffnodule\r\n", 1, "nodule"),
        ("background\ncyst\nnodule\n", 2, "nodule"),
        ("\nnodule", 2, "nodule"),
    ],
)
def test_names(tmp_path, text, value, label):
    write_set(tmp_path, make_mask(value), text=("classes.txt", text))
    found = read_masks(tmp_path)
    assert list_boxes(found.images[0]) == [(label, BOX)]
    assert name_values(tmp_path, {value})[value] == label


def test_a_value_without_a_name_is_a_fault(tmp_path):
    mask = make_mask(2, [40, 30, 50, 40], make_mask(1))
    found = read_masks(write_set(tmp_path, mask, text=("classes.txt", "nodule\n")))
    assert states(found) == {"images/0.png": ("faulty", 1)}
    reason = "a region of value 2, for which classes.txt has no line"
    assert list_reasons(found) == [("masks/0.png", reason)]


def test_noise_is_no_mask(tmp_path):
    noise = np.zeros((240, 240), np.uint8)
    noise[::2, ::2] = 255
    write_set(tmp_path, noise)
    write_mask(tmp_path / "images" / "0.png", noise)
    found = read_masks(tmp_path)
    assert list_reasons(found) == [("masks/0.png", "it has more than 10000 regions, as noise has")]


def test_a_mask_without_an_image_may_be_that_of_the_image_whose_name_it_begins_with(tmp_path):
    for name in ("a", "b", "a2"):
        write_image(tmp_path / f"{name}.png")
        write_mask(tmp_path / f"{name}_mask.png", make_mask(255 * (name == "b")))
    write_mask(tmp_path / "a_left_nodule_mask.png")
    write_mask(tmp_path / "b_left_nodule_mask.png")
    found = states(read_masks(tmp_path))
    assert found == {"a.png": ("faulty", 0), "b.png": ("complete", 1), "a2.png": ("complete", 0)}


VIEW = make_mask(box=(8, 2, 56, 46))


@pytest.mark.parametrize(
    ("field", "lesion"),
    [
        ("mask/{}_mask.png", "1st_manual/{}_manual1.png"),
        ("mask/{}.png", "GT/{}.png"),
        ("{}_mask.png", "{}_manual1.png"),
    ],
)
def test_fields_of_view_are_refused_by_name(tmp_path, field, lesion):
    folder = "images/" if "/" in field else ""
    for index in range(3):
        write_image(tmp_path / f"{folder}{index}.png")
        write_mask(tmp_path / field.format(index), VIEW)
        write_mask(tmp_path / lesion.format(index))
    (tmp_path / "classes.txt").write_text("vessel\n")
    with pytest.raises(AnnotationError, match=r"'mask'.* as a field of view is and no lesion"):
        read_masks(tmp_path)
    write_mask(tmp_path / field.format(0))
    assert set(states(read_masks(tmp_path))[f"{folder}1.png"]) == {"complete", 2}


def test_objects_of_more_than_half_an_image_need_a_name(tmp_path):
    write_set(tmp_path, VIEW, VIEW)
    with pytest.raises(AnnotationError, match=r"in 'masks' is one region.*classes\.txt"):
        read_masks(tmp_path)
    write_set(tmp_path, VIEW, VIEW, text=("classes.txt", "brain\n"))
    assert read_masks(tmp_path).images[0].labels == ("brain",)


def test_several_regions_or_classes_are_no_field_of_view(tmp_path):
    halves = VIEW.copy()
    halves[:, 31:33] = 0
    read_masks(write_set(tmp_path / "halves", halves, halves))
    read_masks(write_set(tmp_path / "one", VIEW))
    classes = np.where(VIEW, 1, 0).astype(np.uint8)
    classes[20:30, 20:30] = 2
    read_masks(write_set(tmp_path / "classes", classes, classes))


def test_inverted_masks_are_refused(tmp_path):
    masks = [np.invert(make_mask()), np.invert(make_mask(0))]
    with pytest.raises(AnnotationError, match="runs along the border and covers more than half"):
        read_masks(write_set(tmp_path, *masks))
    write_set(tmp_path, make_mask())
    assert states(read_masks(tmp_path)) == {
        "images/0.png": ("complete", 1),
        "images/1.png": ("complete", 1),
    }


DIFFERENT = [
    ("lung_mask/{}.png", "lesion_mask/{}.png"),
    ("masks/Lung/{}.png", "masks/Lesion/{}.png"),
    ("masks/{}.png", "tumorMasks/{}.png"),
    ("masks/{}_mask.png", "masks/{}_lesion.png"),
]


@pytest.mark.parametrize("names", ["aa", "ab", "aba"])
@pytest.mark.parametrize("places", DIFFERENT)
def test_masks_of_different_things_with_one_value_are_refused(tmp_path, places, names):
    """Of one image, of two, or two of which one has both."""
    small = [40, 30, 50, 40]
    masks = [place.format(name) for place, name in zip(places * 2, names, strict=False)]
    for name, mask, box in zip(names, masks, (BOX, small, small), strict=False):
        write_image(tmp_path / "images" / f"{name}.png")
        write_mask(tmp_path / mask, make_mask(255, box))
    with pytest.raises(AnnotationError, match="named as of different things, and use the same val"):
        read_masks(tmp_path)
    for mask, value in zip(masks, (1, 2, 1), strict=False):
        write_mask(tmp_path / mask, make_mask(value, BOX if value == 1 else small))
    found = read_masks(tmp_path).images
    assert {label for image in found for label in image.labels} == {"1", "2"}


@pytest.mark.parametrize("places", DIFFERENT)
def test_an_empty_mask_says_nothing_of_other_things(tmp_path, places):
    """`b` may have a lesion, whose mask is missing."""
    for name, place, value in (("a", places[1], 255), ("b", places[0], 0)):
        write_image(tmp_path / "images" / f"{name}.png")
        write_mask(tmp_path / place.format(name), make_mask(value))
    found = read_masks(tmp_path)
    assert [state for state, _ in states(found).values()] == ["complete", "none"]
    write_mask(tmp_path / places[1].format("b"), make_mask(0))
    assert states(read_masks(tmp_path))["images/b.png"] == ("complete", 0)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("leftMask/a.png", "rightMask/a.png"),
        ("train_masks/a_mask_1.png", "train_masks/a_mask_2.png"),
        ("Lung/masks/a_1.png", "Lung/GT/a.png"),
        ("annotator_A/masks/a.png", "annotator_B/masks/a.png"),
        ("masks_png/a.png", "masks_binary/a.png"),
        ("masks/od/a.png", "masks/os/a.png"),
    ],
)
def test_masks_of_one_thing_count_together(tmp_path, first, second):
    write_image(tmp_path / "images" / "a.png")
    write_mask(tmp_path / first)
    write_mask(tmp_path / second, make_mask(255, [40, 30, 50, 40]))
    write_image(tmp_path / "images" / "a_1.png") if "a_1" in first else None
    assert all(set(image.labels) == {"object"} for image in read_masks(tmp_path).images)


@pytest.mark.parametrize(
    "places",
    [
        ("masks/p1/{}", "masks/p2/{}"),
        ("masks/batch_1/{}", "masks/first_part/{}"),
        ("masks/site_a/{}", "masks/site_b/{}"),
        ("Lung_masks/train/{}", "Lung_masks/{}"),
        ("Lung/masks/{}", "Heart/masks/{}", "Lung/images/{}", "Heart/images/{}"),
        ("berlin_masks/{}", "paris_masks/{}", "berlin_images/{}", "paris_images/{}"),
        ("masks/Berlin/{}", "masks/Paris/{}", "images/Berlin/{}", "images/Paris/{}"),
    ],
)
def test_other_words_of_folders_are_no_things(tmp_path, places):
    """As COVID-19 Radiography has it, whose `Normal/masks` and `COVID/masks` mark the lungs."""
    images = places[2:] or ("images/{}", "images/{}")
    if "train" in places[0]:
        images = ("images/train/{}", "images/train/{}")
    for name, mask, image in zip(("a.png", "b.png"), places, images, strict=False):
        write_image(tmp_path / image.format(name))
        write_mask(tmp_path / mask.format(name))
    assert set(states(read_masks(tmp_path)).values()) == {("complete", 1)}


def test_images_elsewhere_share_the_things_of_their_masks(tmp_path):
    for place in ("set/images/a.png", "elsewhere/b.png"):
        write_image(tmp_path / place)
    for name in "ab":
        write_mask(tmp_path / "set" / "lung_masks" / f"{name}.png")
    found = read_masks(tmp_path / "set", "train", ReaderOptions(images=tmp_path / "elsewhere"))
    assert set(states(found).values()) == {("complete", 1)}


def test_a_copy_of_a_mask_is_no_other_thing(tmp_path):
    write_image(tmp_path / "images" / "a.png")
    write_image(tmp_path / "images" / "b.png")
    for name in ("masks/a.png", "masks_backup/a.png", "masks/b.png"):
        write_mask(tmp_path / name)
    assert set(states(read_masks(tmp_path)).values()) == {("complete", 1)}
    write_mask(tmp_path / "masks_backup/a.png", make_mask(255, [40, 30, 50, 40]))
    with pytest.raises(AnnotationError, match="different things"):
        read_masks(tmp_path)


# --- Depths, palettes and colours


def save(folder, image):
    write_image(folder / "images" / "0.png")
    (folder / "masks").mkdir(exist_ok=True)
    image.save(folder / "masks" / "0.png")
    return read_masks(folder)


@pytest.mark.parametrize("value", [1, 256, 4095, 65535])
def test_sixteen_bits(tmp_path, value):
    pixels = np.where(make_mask(), value, 0).astype(np.uint16)
    assert list_boxes(read_masks(write_set(tmp_path, pixels)).images[0]) == [("object", BOX)]


def test_values_of_sixteen_bits_are_named_by_classes_alone(tmp_path):
    masks = [np.where(make_mask(), value, 0).astype(np.uint16) for value in (300, 400)]
    with pytest.raises(AnnotationError, match=r"values 300, 400\..* Name each in classes\.txt"):
        read_masks(write_set(tmp_path, *masks))
    (tmp_path / "classes.txt").write_text("\n" * 299 + "cyst" + "\n" * 100 + "nodule")
    assert [image.labels for image in read_masks(tmp_path).images] == [("cyst",), ("nodule",)]
    (tmp_path / "labelmap.txt").write_text("cyst:44,44,44::")  # 300 in eight bits
    found = read_masks(tmp_path)
    assert {image.annotation for image in found.images} == {"faulty"}
    assert found.problems[0].reason.startswith("it has the grey value 300, which is no colour")


def test_a_tiff_that_leaves_its_bits_unsaid_has_one(tmp_path):
    # Width, height, compression (none), BlackIsZero, offset, rows and bytes of the only strip.
    tags = {256: 8, 257: 2, 259: 1, 262: 1, 273: 8, 278: 2, 279: 2}
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    count, end = struct.pack("<H", len(tags)), bytes(4)
    path = tmp_path / "mask.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 10) + b"\x3c\0" + count + entries + end)
    expected = [[0, 0, 1, 1, 1, 1, 0, 0], [0] * 8]
    np.testing.assert_array_equal(read_mask(path).values > 0, expected)


def test_one_bit(tmp_path):
    found = save(tmp_path, Image.fromarray(make_mask()).convert("1"))
    assert list_boxes(found.images[0]) == [("object", BOX)]


def make_palette(mask, colours):
    image = Image.fromarray(mask)
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colours)] = colours
    palette[255] = (224, 224, 192)
    image.putpalette(palette.ravel().tolist())
    return image


VOC = [(0, 0, 0), (128, 0, 0), (0, 128, 0)]


def test_a_palette_numbers_classes_without_void(tmp_path):
    mask = make_mask(2, mask=make_mask(255, [9, 11, 31, 21]))
    found = save(tmp_path, make_palette(mask, VOC))
    assert list_boxes(found.images[0]) == [("2", BOX)]


MIXED = [VOC[0], VOC[2], VOC[1]]


@pytest.mark.parametrize(
    ("values", "palettes"),
    [
        ((2,), (MIXED,)),  # Pascal VOC's colours with other numbers
        ((1, 2), ([VOC[0], (9, 0, 0), (0, 9, 0)], [VOC[0], (7, 0, 0), (0, 9, 0)])),
        ((1, 1), ([VOC[0], (9, 0, 0)], [VOC[0], (0, 9, 0)])),
    ],
)
def test_palettes_whose_numbers_mean_other_colours_are_refused(tmp_path, values, palettes):
    """The second mask uses entry 2, and its entry 1 is not that of the first."""
    (tmp_path / "classes.txt").write_text("nodule\ncyst")
    (tmp_path / "masks").mkdir()
    for name, (value, palette) in enumerate(zip(values, palettes, strict=True)):
        write_image(tmp_path / "images" / f"{name}.png")
        make_palette(make_mask(value), palette).save(tmp_path / "masks" / f"{name}.png")
    with pytest.raises(AnnotationError, match=r"colours? besides black.* write labelmap\.txt"):
        read_masks(tmp_path)
    text = "".join(f"c{i}:{r},{g},{b}::\n" for i, (r, g, b) in enumerate(palettes[0][1:]))
    (tmp_path / "labelmap.txt").write_text(text)
    assert read_masks(tmp_path).images[0].labels == (f"c{values[0] - 1}",)


@pytest.mark.parametrize(
    ("classes", "lines"),
    [
        (
            "nodule\ncyst",
            "`nodule:0,128,0::`, `cyst:128,0,0::`, or by the numbers of Pascal VOC "
            "`cyst:0,128,0::`, `nodule:128,0,0::`",
        ),
        ("", "`name:0,128,0::`, `name:128,0,0::`"),
    ],
)
def test_a_refused_palette_names_the_lines_that_tell_what_it_means(tmp_path, classes, lines):
    both = make_mask(2, [40, 30, 50, 40], make_mask(1))
    (tmp_path / "classes.txt").write_text(classes) if classes else None
    with pytest.raises(AnnotationError) as refusal:
        save(tmp_path, make_palette(both, MIXED))
    assert str(refusal.value).endswith(
        "2 colours besides black, and nothing says which classes these are (entry 1 of their "
        "palette has the colour of Pascal VOC's class 2, so that classes.txt may number either); "
        f"write labelmap.txt, one line a colour: {lines}."
    )
    (tmp_path / "labelmap.txt").write_text("\n".join(re.findall("`(.*?)`", lines)[:2]))
    names = ("nodule", "cyst") if classes else ("name", "name")
    assert read_masks(tmp_path).images[0].labels == names


def test_numbers_of_pascal_voc():
    """The first eight colours and the last, as the development kit's documentation shows them."""
    shown = [(128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)]
    shown += [(128, 128, 128), (64, 0, 0)]
    numbers = {r << 16 | g << 8 | b: k for k, (r, g, b) in enumerate(shown, start=1)}
    assert numbers.items() <= VOC_NUMBERS.items()
    assert len(VOC_NUMBERS) == 20 and VOC_NUMBERS[0x004080] == 20


def test_void_alone_is_no_empty_mask(tmp_path):
    for name, value in (("a", 1), ("b", 255), ("c", 0)):
        write_image(tmp_path / "images" / f"{name}.png")
        (tmp_path / "masks").mkdir(exist_ok=True)
        make_palette(make_mask(value), VOC).save(tmp_path / "masks" / f"{name}.png")
    found = read_masks(tmp_path)
    assert list(states(found).values()) == [("complete", 1), ("faulty", 0), ("complete", 0)]
    assert list_reasons(found) == [("masks/b.png", "it marks pixels as void, and none as a class")]


def test_a_palette_of_greys_is_grey(tmp_path):
    image = Image.fromarray(make_mask(0, mask=np.ones((HEIGHT, WIDTH), np.uint8)))
    image.putpalette([255, 255, 255, 0, 0, 0])
    assert list_boxes(save(tmp_path, image).images[0]) == [("object", BOX)]


def test_a_palette_without_black_first_counts_by_colour(tmp_path):
    image = make_palette(make_mask(0, mask=np.ones((HEIGHT, WIDTH), np.uint8)), [(9, 0, 0)])
    assert list_boxes(save(tmp_path, image).images[0]) == [("object", BOX)]


def test_entries_of_one_colour_are_refused(tmp_path):
    found = save(tmp_path, make_palette(make_mask(7), VOC))
    assert states(found) == {"images/0.png": ("faulty", 0)}
    assert list_reasons(found) == [
        ("masks/0.png", "several entries of its palette have one colour")
    ]


def colour(mask, value=(200, 0, 0)):
    return (mask[..., None] > 0).astype(np.uint8) * np.array(value, np.uint8)


def test_one_colour_is_an_object_and_several_need_names(tmp_path):
    one = colour(make_mask())
    assert list_boxes(read_masks(write_set(tmp_path, one)).images[0]) == [("object", BOX)]
    two = one + colour(make_mask(box=[40, 30, 50, 40]), (0, 0, 90))
    with pytest.raises(AnnotationError, match=r"hold 2 colours besides black, .* labelmap\.txt"):
        read_masks(write_set(tmp_path, two))
    text = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncyst:0,0,90::\nnodule:200,0,0::\n"
    found = read_masks(write_set(tmp_path, two, text=("labelmap.txt", text)))
    assert found.label_names == ("cyst", "nodule")
    assert list_boxes(found.images[0]) == [("nodule", BOX), ("cyst", [40, 30, 50, 40])]
    found = read_masks(write_set(tmp_path, two, colour(make_mask(), (1, 2, 3))))
    reason = "it has 1 colours that no line of labelmap.txt has, 1,2,3 first"
    assert list_reasons(found) == [("masks/1.png", reason)]


@pytest.mark.parametrize("text", ["nodule", "nodule:1,2", "a:1,2,300::", "a:1,1,1::\nb:1,1,1::"])
def test_a_labelmap_that_is_none(tmp_path, text):
    write_set(tmp_path, make_mask(), text=("labelmap.txt", text))
    with pytest.raises(AnnotationError, match=r"labelmap\.txt: line \d"):
        read_masks(tmp_path)


def test_colour_among_grey_and_transparency_are_refused(tmp_path):
    write_set(tmp_path, make_mask(), colour(make_mask()))
    rgba = np.dstack([make_mask()] * 4)
    Image.fromarray(rgba).save(tmp_path / "masks" / "2.png")
    Image.fromarray(rgba | np.array([0, 0, 0, 255], np.uint8)).save(tmp_path / "masks" / "3.png")
    for name in ("2", "3"):
        write_image(tmp_path / "images" / f"{name}.png")
    found = read_masks(tmp_path)
    assert [state for state, _ in states(found).values()] == [
        *("complete", "faulty", "faulty", "complete")
    ]
    assert list_reasons(found) == [
        ("masks/1.png", "it is in colour, while other masks of the data set are grey"),
        ("masks/2.png", "is partly transparent; save it without transparency"),
    ]


def test_no_mutation_loses_a_box(tmp_path):
    read_count = 0
    for seed in range(120):
        folder = tmp_path / str(seed)
        folder.mkdir()
        truth = corpus.make(random.Random(seed), folder)
        try:
            annotations = read_masks(folder)
        except AnnotationError:
            continue
        read_count += 1
        assert find_losses(annotations, truth) == [], seed
    assert read_count > 80
