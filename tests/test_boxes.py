from __future__ import annotations

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from vae_aug.boxes import convert_boxes
from vae_aug.config import BoxFormat

FORMATS = list(BoxFormat.__args__)

# One box of an image of height 100 and width 200, worked by hand in every format.
SAME_BOX = {
    "xyxy": [20, 10, 60, 40],
    "yxyx": [10, 20, 40, 60],
    "xywh": [20, 10, 40, 30],
    "center_xywh": [40, 25, 40, 30],
    "center_yxhw": [25, 40, 30, 40],
    "rel_xyxy": [0.1, 0.1, 0.3, 0.4],
    "rel_yxyx": [0.1, 0.1, 0.4, 0.3],
    "rel_xywh": [0.1, 0.1, 0.2, 0.3],
}


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("target", FORMATS)
def test_every_pair_of_formats(source, target):
    boxes = np.array([SAME_BOX[source]], np.float64)
    converted = convert_boxes(boxes, source, target, height=100, width=200)
    np.testing.assert_allclose(converted, [SAME_BOX[target]], atol=1e-12)


@pytest.mark.parametrize("target", FORMATS)
def test_tensors_give_what_arrays_give(target):
    boxes = np.array([[[3.5, 4.25, 10, 20], [0, 0, 200, 100]]], np.float32)
    expected = convert_boxes(boxes, "xyxy", target, height=100, width=200)
    converted = convert_boxes(tf.constant(boxes), "xyxy", target, height=100, width=200)
    assert converted.dtype == tf.float32 and expected.dtype == np.float32
    np.testing.assert_array_equal(converted.numpy(), expected)


def test_tensors_of_unknown_shape_in_a_dataset():
    dataset = tf.data.Dataset.from_tensors((np.zeros((0, 4), np.float32), 10, 20)).map(
        lambda boxes, h, w: convert_boxes(boxes, "xywh", "rel_yxyx", height=h, width=w)
    )
    assert next(iter(dataset)).shape == (0, 4)


# The dtype that boxes of another come back in; whole numbers become fractions.
COMES_BACK = {
    np.array: {"uint8": "float64", "int64": "float64"},
    tf.constant: {"uint8": "float32", "int64": "float32"},
}
STEPS = {"bfloat16": 2**-7, "float16": 2**-10, "float32": 2**-23, "float64": 2**-52}
"""Distance of a dtype's numbers from 1 on."""


@hypothesis.given(
    corners=st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 4), max_size=5),
    source=st.sampled_from(FORMATS),
    through=st.sampled_from(FORMATS),
    height=st.integers(1, 255),
    width=st.integers(1, 255),
    make=st.sampled_from([np.array, tf.constant]),
    dtype=st.sampled_from(["uint8", "int64", *STEPS]),
)
@hypothesis.settings(deadline=None, max_examples=100)
def test_there_and_back(corners, source, through, height, width, make, dtype):
    hypothesis.assume(dtype != "bfloat16" or make is tf.constant)  # NumPy has none
    size = {"height": height, "width": width}
    ends = np.sort(np.reshape(corners, (-1, 2, 2)), axis=1).reshape(-1, 4)
    boxes = tf.cast(convert_boxes(ends, "rel_xyxy", source, **size), dtype)
    boxes = boxes.numpy() if make is np.array else boxes
    there = convert_boxes(boxes, source, through, **size)
    back = convert_boxes(there, through, source, **size)
    expected = COMES_BACK[make].get(dtype, dtype)
    assert tf.as_dtype(there.dtype) == tf.as_dtype(back.dtype) == expected
    largest = 1 if source.startswith("rel_") else max(height, width)
    bound = 8 * STEPS[expected] * largest
    np.testing.assert_allclose(np.float64(back), np.float64(boxes), atol=bound)


def test_boxes_of_several_images_by_their_own_sizes():
    boxes = np.array([[[10, 20, 30, 60]], [[10, 20, 30, 60]]], np.float32)
    height, width = np.array([[100], [200]]), np.array([[50], [100]])
    # By hand: y over the height, x over the width of each image.
    expected = [[[0.2, 0.2, 0.6, 0.6]], [[0.1, 0.1, 0.3, 0.3]]]
    for kind in np.asarray, tf.constant:
        size = {"height": kind(height), "width": kind(width)}
        found = convert_boxes(kind(boxes), "xyxy", "rel_yxyx", **size)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_same_format_keeps_every_bit():
    boxes = np.array([[np.nan, -1, np.inf, 0.1]], np.float32)
    assert convert_boxes(boxes, "rel_yxyx", "rel_yxyx") is boxes


def test_integers_become_floating():
    assert convert_boxes([[1, 2, 4, 8]], "xyxy", "xywh").tolist() == [[1, 2, 3, 6]]


@pytest.mark.parametrize(
    ("boxes", "source", "target", "message"),
    [
        (np.zeros((1, 4)), "coco", "xyxy", "source must be one of .*got 'coco'"),
        (np.zeros((1, 4)), "xyxy", "voc", "target must be one of .*got 'voc'"),
        (np.zeros((1, 5)), "xyxy", "xywh", r"shape \[..., 4\]; got \(1, 5\)"),
        (np.zeros(()), "xyxy", "xywh", r"shape \[..., 4\]"),
        (np.zeros((1, 4)), "xyxy", "rel_xyxy", "needs height and width"),
    ],
)
def test_bad_arguments(boxes, source, target, message):
    with pytest.raises(ValueError, match=message):
        convert_boxes(boxes, source, target)
