from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from vae_aug.augment.elements import find_layout, get_at, read_example, replace_at

IMAGE = np.zeros((6, 5, 1), np.uint8)
BOXES = np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)


class Pair(NamedTuple):
    image: object
    target: object


@pytest.mark.parametrize(
    ("element", "image", "boxes", "box_format"),
    [
        ({"image": IMAGE, "objects": {"bbox": BOXES}}, ("image",), ("objects", "bbox"), "rel_yxyx"),
        (
            {"images": IMAGE, "bounding_boxes": {"boxes": BOXES}},
            ("images",),
            ("bounding_boxes", "boxes"),
            "xyxy",
        ),
        ((IMAGE, {"boxes": BOXES}), (0,), (1, "boxes"), "xyxy"),
        ((IMAGE, {"objects": {"bbox": BOXES}}), (0,), (1, "objects", "bbox"), "rel_yxyx"),
        ((IMAGE, np.int64(3)), (0,), None, "rel_yxyx"),
        ((IMAGE, {"label": np.int64(3)}, np.float32(1.0)), (0,), None, "rel_yxyx"),
        ({"image": IMAGE, "bbox": BOXES}, ("image",), ("bbox",), "rel_yxyx"),
        ({"image": IMAGE}, ("image",), None, "rel_yxyx"),
        (Pair(IMAGE, {"boxes": BOXES}), (0,), (1, "boxes"), "xyxy"),
        (IMAGE, (), None, "rel_yxyx"),
    ],
)
def test_layouts(element, image, boxes, box_format):
    layout = find_layout(element)
    assert (layout.image, layout.boxes, layout.box_format) == (image, boxes, box_format)
    assert not layout.batched


@pytest.mark.parametrize(
    ("element", "marks"),
    [
        ({"image": IMAGE, "segmentation_masks": np.zeros((2, 9, 9))}, ("segmentation_masks",)),
        (
            {"image": IMAGE, "objects": {"bbox": BOXES, "keypoints": BOXES}},
            ("objects", "keypoints"),
        ),
        ((IMAGE, IMAGE[..., 0]), (1,)),
        ((IMAGE, {"prior": IMAGE, "boxes": BOXES}), (1, "prior")),
        ({"image": IMAGE, "mask": "none"}, None),
        ({"image": IMAGE, "bbox": BOXES, "label": np.zeros(2)}, None),
    ],
)
def test_what_marks_places_is_found(element, marks):
    assert find_layout(element).marks == marks


def test_maps_of_places_are_found_in_batches():
    batch = {"image": np.stack([IMAGE] * 2), "truth": np.stack([IMAGE[..., 0]] * 2)}
    assert find_layout(batch).marks == ("truth",)


def test_format_given_by_the_user_wins():
    element = {"images": IMAGE, "bounding_boxes": {"boxes": BOXES}}
    assert find_layout(element, "xywh").box_format == "xywh"


@pytest.mark.parametrize("key", ["image/source_id", "source_id", "image/id", "image_id", "id"])
def test_identity_is_found_in_the_element_and_in_the_target(key):
    assert find_layout({"image": IMAGE, key: "x"}).source_id == (key,)
    assert find_layout((IMAGE, {key: 7, "boxes": BOXES})).source_id == (1, key)


def test_identity_of_objects_is_not_the_image_s():
    assert find_layout({"image": IMAGE, "objects": {"bbox": BOXES, "id": 3}}).source_id is None


def test_specs_and_batches():
    spec = {"image": tf.RaggedTensorSpec([4, None, None, 3], tf.uint16, 2)}
    assert find_layout(spec).batched
    assert find_layout(tf.TensorSpec([None, None, None, 1], tf.float16)).batched


@pytest.mark.parametrize(
    ("element", "error", "words"),
    [
        ({"picture": IMAGE}, ValueError, "'image' and 'images'.*received keys 'picture'"),
        ({"image": IMAGE, "images": IMAGE}, ValueError, "exactly one"),
        (("a", IMAGE), ValueError, "tuple of 2 that begins with str"),
        ((), ValueError, "begins with nothing"),
        (None, ValueError, "received NoneType"),
        (IMAGE.astype(np.int32), TypeError, "received int32.*Cast it"),
        (IMAGE.astype(np.float64), TypeError, "received float64"),
        ({"image": IMAGE[..., 0]}, ValueError, r"\['image'\].*\[H, W, C\].*uint8 \(6, 5\)"),
        (np.zeros((6, 5, 2), np.uint8), ValueError, "1 or 3 channels"),
        (np.zeros((1, 6, 5), np.uint8), ValueError, "1 or 3 channels, last"),
        (tf.TensorSpec(None, tf.uint8), ValueError, "tf.ensure_shape"),
        (tf.TensorSpec([None, None, None], tf.uint8), ValueError, "tf.ensure_shape"),
        (tf.RaggedTensorSpec([4, None, None, 3], tf.uint8, 3), ValueError, "ragged rank 3"),
        ({"image": "path.png"}, TypeError, "received str"),
        ({"image": IMAGE, "bbox": np.zeros((3, 5))}, ValueError, r"\[N, 4\]; received.*\(3, 5\)"),
        ({"image": IMAGE[None], "bbox": BOXES}, ValueError, r"\[B, N, 4\]"),
    ],
)
def test_refused_elements_say_what_came_and_what_is_wanted(element, error, words):
    with pytest.raises(error, match=words):
        find_layout(element)


@pytest.mark.parametrize(
    "element",
    [{"a": [1, 2], "image": 0}, (0, {"b": 1}), [0, 1], Pair(0, {"b": 1})],
    ids=["dict", "tuple", "list", "namedtuple"],
)
def test_replacing_keeps_everything_else_and_the_source(element):
    path = ("image",) if isinstance(element, dict) else (0,)
    changed = replace_at(element, path, 9)
    assert type(changed) is type(element)
    assert get_at(changed, path) == 9 and get_at(element, path) == 0
    others = [(1,)] if not isinstance(element, dict) else [("a",)]
    assert all(get_at(changed, other) is get_at(element, other) for other in others)


def test_replacing_a_bare_image():
    assert replace_at(IMAGE, (), 3) == 3


def test_an_example_is_what_the_transform_looks_at():
    element = {"image": IMAGE, "objects": {"bbox": BOXES}, "id": 7, "epoch": 2}
    example = read_example(element, find_layout(element))
    assert example.image.shape == (6, 5, 1)
    np.testing.assert_array_equal(example.boxes, BOXES)
    assert (example.source_id.numpy(), int(example.epoch)) == (b"7", 2)
    example = read_example({"image": IMAGE}, find_layout({"image": IMAGE}), epoch=5)
    assert (example.source_id.numpy(), int(example.epoch)) == (b"", 5)


def test_a_batch_is_read_with_a_batch_axis():
    ragged = tf.RaggedTensor.from_row_lengths(tf.ones([3, 4]), [1, 0, 2])
    element = {"image": np.zeros((3, 6, 5, 1), np.uint8), "bbox": ragged, "id": [7, 8, 9]}
    batch = read_example(element, find_layout(element), epoch=5)
    assert batch.boxes.shape == (3, 2, 4)
    ended = np.isnan(batch.boxes[..., 0])  # where a row of boxes ended
    assert ended.tolist() == [[False, True], [True, True], [False, False]]
    assert batch.source_id.numpy().tolist() == [b"7", b"8", b"9"]
    assert batch.epoch.numpy().tolist() == [5, 5, 5]


@pytest.mark.parametrize("empty", [[], np.zeros((0, 4), np.float32), np.zeros((0,), np.float32)])
def test_no_boxes_in_any_spelling(empty):
    element = {"image": IMAGE, "bbox": empty}
    if np.shape(empty) == (0,):
        with pytest.raises(ValueError, match=r"\[N, 4\]"):
            find_layout(element)
    else:
        assert read_example(element, find_layout(element)).boxes.shape == (0, 4)


@pytest.mark.parametrize("marks", [[[1.0, 2.0]], (1, 2), object()], ids=type)
def test_marks_are_told_by_their_key_whatever_they_are(marks):
    element = {"image": IMAGE, "bbox": BOXES, "keypoints": marks}
    assert find_layout(element).marks == ("keypoints",)
