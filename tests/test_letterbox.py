"""Fitting into the square and back."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from vae_aug.letterbox import compute_content, letterbox, letterbox_boxes, unletterbox


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (224, 224, (0, 0, 224, 224)),
        (320, 391, (20, 0, 183, 224)),  # 320 * 224 / 391 = 183.3
        (448, 112, (0, 84, 224, 56)),
        (1000, 1, (0, 111, 224, 1)),
    ],
)
def test_content_by_hand(height, width, expected):
    assert tuple(int(g) for g in compute_content(height, width, 224)) == expected


def test_same_size_is_untouched():
    image = tf.random.stateless_uniform([2, 8, 8, 1], [1, 2])
    assert letterbox(image, 8) is image
    np.testing.assert_array_equal(unletterbox(image, 8, 8), image)


def test_padding_is_black_and_content_is_kept():
    square = letterbox(tf.ones([1, 4, 8, 1]), 8)[0, :, :, 0].numpy()
    np.testing.assert_array_equal(square[:2], 0)
    np.testing.assert_array_equal(square[2:6], 1)
    np.testing.assert_array_equal(square[6:], 0)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 3))
def test_scaling_is_that_of_tensorflow(height, width, channels):
    images = tf.random.stateless_uniform([2, height, width, channels], [1, 2])
    top, left, *size = compute_content(tf.constant(height), tf.constant(width), 32)
    content = letterbox(images, 32)[:, top : top + size[0], left : left + size[1]]
    expected = tf.image.resize(images, size, antialias=True)
    np.testing.assert_allclose(content, expected, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 60), st.integers(2, 60))
def test_a_constant_survives_there_and_back(height, width):
    image = tf.fill([1, height, width, 1], 0.25)
    back = unletterbox(letterbox(image, 32), height, width)
    assert back.shape == (1, height, width, 1)
    np.testing.assert_allclose(back, image, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(32, 512))
def test_content_fills_the_longer_side_and_keeps_the_shape(height, width, size):
    top, left, *content = (int(part) for part in compute_content(height, width, size))
    assert max(content) == size
    for start, side, whole in zip((top, left), content, (height, width), strict=True):
        assert 0 <= start == (size - side) // 2
        # Half a pixel is what rounding takes, and one pixel is the least there can be.
        assert side == 1 or abs(side - whole * size / max(height, width)) <= 0.5


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 32), st.booleans())
def test_an_image_that_fits_comes_back_bit_for_bit(side, is_wide):
    height, width = (side, 32) if is_wide else (32, side)
    image = tf.random.stateless_uniform([1, height, width, 2], [side, 1])
    np.testing.assert_array_equal(unletterbox(letterbox(image, 32), height, width), image)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200))
def test_a_slope_survives_there_and_back(height, width):
    rows, columns = ((np.arange(side) + 0.5) / side for side in (height, width))
    image = ((rows[:, None] + columns) / 2).astype(np.float32)[None, ..., None]
    back = unletterbox(letterbox(tf.constant(image), 32), height, width)
    assert back.shape == image.shape
    # The filter, a triangle of 2 pixels of the content, is cut off at the edge, so the mean of the
    # first pixel moves from 0.5 to 0.595; before it nothing slopes. An axis has half of the range.
    bound = sum(0.5 * 0.6 / int(side) for side in compute_content(height, width, 32)[2:])
    np.testing.assert_allclose(back, image, atol=bound)


def test_an_image_is_fitted_as_a_batch_of_it():
    image = tf.random.stateless_uniform([9, 20, 1], [1, 2])
    square = letterbox(image, 32)
    np.testing.assert_array_equal(square, letterbox(image[None], 32)[0])
    back = unletterbox(square, 9, 20)
    np.testing.assert_array_equal(back, unletterbox(square[None], 9, 20)[0])


def test_unknown_sizes_in_a_graph():
    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 1])])
    def both(image):
        square = letterbox(image, 16)
        return square, unletterbox(square, tf.shape(image)[1], tf.shape(image)[2])

    square, back = both(tf.zeros([3, 10, 20, 1]))
    assert square.shape == (3, 16, 16, 1)
    assert back.shape == (3, 10, 20, 1)


def test_boxes_move_with_the_pixels():
    image = np.zeros([1, 40, 80, 1], np.float32)
    image[0, 10:30, 20:60] = 1
    box = tf.constant([[10 / 40, 20 / 80, 30 / 40, 60 / 80]])
    moved = letterbox_boxes(box, 40, 80, 80)[0].numpy() * 80
    np.testing.assert_allclose(moved, [30, 20, 50, 60], atol=1e-4)
    rows, columns = np.nonzero(letterbox(tf.constant(image), 80)[0, :, :, 0].numpy())
    assert (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1) == (30, 20, 50, 60)
