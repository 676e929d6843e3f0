"""Pixels are displaced by OpenCV as by TensorFlow's operations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vae_aug.engines import warp
from vae_aug.model import fields


def make_image(height, width, channels):
    """Make an image of four waves a side at most, and noise of a hundredth of their height."""
    rows, columns = (np.linspace(0, 8 * np.pi, side) for side in (height, width))
    waves = np.sin(rows)[:, None] + np.cos(columns)
    noise = np.random.default_rng(0).normal(0, 0.01, (height, width, channels))
    return (waves[..., None] + noise).astype(np.float32)


def make_displacement(height, width, seed, size):
    """Make a displacement that changes by less than half a pixel from pixel to pixel."""
    rng = np.random.default_rng(seed)
    phases = rng.uniform(0, 2 * np.pi, 4)
    rows, columns = (np.arange(side) * 0.4 / size for side in (height, width))
    down = np.sin(rows + phases[0])[:, None] * np.cos(columns + phases[1])
    across = np.cos(rows + phases[2])[:, None] * np.sin(columns + phases[3])
    return (size * np.stack([down, across], -1)).astype(np.float32)


@settings(max_examples=20, deadline=None)
@given(
    height=st.integers(60, 120),
    width=st.integers(60, 120),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
    size=st.floats(2.0, 9.0),
)
def test_pixels_come_from_where_tensorflow_takes_them(height, width, channels, seed, size):
    image = make_image(height, width, channels)
    displacement = make_displacement(height, width, seed, size)
    ours, reference = (one.displace(image, displacement).numpy() for one in (warp, fields))
    assert ours.shape == image.shape and ours.dtype == np.float32
    moved = np.abs(reference - image).mean()
    assert np.abs(ours - reference).mean() < 0.02 * moved


@pytest.mark.parametrize("channels", [1, 3])
def test_what_does_not_move_is_copied(channels):
    image = np.random.default_rng(0).random((33, 70, channels), np.float32)
    displacement = make_displacement(33, 70, 0, 5.0)
    displacement[10:20, 30:50] = 0.0
    moved = warp.displace(image, displacement).numpy()
    np.testing.assert_array_equal(moved[10:20, 30:50], image[10:20, 30:50])
    assert np.any(moved != image)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 3), (40, 1, 1)])
def test_images_of_one_row_or_column(shape):
    image = np.random.default_rng(0).random(shape, np.float32)
    # OpenCV before version 5 rounds places to 1/32 of a pixel, which 10/32 is already.
    displacement = np.full((*shape[:2], 2), 10 / 32, np.float32)
    np.testing.assert_allclose(
        warp.displace(image, displacement), fields.displace(image, displacement), atol=1e-5
    )
