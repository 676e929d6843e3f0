"""Ranges of values, grey and back; what the transform makes of them is in `test_transform.py`."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from vae_aug.grey import change_luminance, compute_grey, find_range

UNIT = np.random.default_rng(0).random((2, 6, 5, 3), np.float32)


def test_each_image_of_a_batch_has_its_own_range():
    images = tf.constant(UNIT * np.float32([1.0, 200.0]).reshape(2, 1, 1, 1))
    low, high = find_range(images)
    assert high.numpy().ravel().tolist() == [1.0, 255.0] and not low.numpy().any()
    grey = compute_grey(images, low, high)
    for index in range(2):
        limits = find_range(images[index])
        assert [float(x) for x in tf.nest.map_structure(tf.squeeze, limits)] == [0.0, high[index]]
        np.testing.assert_array_equal(compute_grey(images[index], *limits), grey[index])


@pytest.mark.parametrize(
    ("dtype", "value_range", "expected"),
    [
        (tf.uint8, None, (0, 255)),
        (tf.uint16, None, (0, 65535)),
        (tf.uint16, (100, 900), (100, 900)),
    ],
)
def test_range_of_integers_is_that_of_the_dtype_or_the_user(dtype, value_range, expected):
    limits = find_range(tf.zeros([4, 4, 1], dtype), value_range)
    assert tuple(float(limit) for limit in limits) == expected


def test_grey_is_luminance_between_black_and_white():
    red, white = (tf.constant([[colour]], tf.float32) for colour in ([255, 0, 0], [255] * 3))
    assert compute_grey(red, 0.0, 255.0).numpy().item() == pytest.approx(0.299)
    assert compute_grey(white, 0.0, 510.0).numpy().item() == 0.5


def test_change_goes_to_every_channel_and_stays_in_the_range():
    image = tf.constant([[[10, 100, 250]]], tf.uint8)
    changed = change_luminance(image, tf.constant([[[0.1]]]), *find_range(image))
    assert changed.numpy().tolist() == [[[36, 126, 255]]]  # by 25.5, halves to even
