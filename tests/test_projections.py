"""Projections by the Fourier slice theorem, and reconstructions of them."""

import numpy as np
import pytest
import tensorflow as tf

from vae_aug.train.projections import find_slices, project, project_back


def make_discs(side):
    """Make two discs of different grey."""
    rows, columns = np.mgrid[:side, :side] / side
    large = (rows - 0.4) ** 2 + (columns - 0.6) ** 2 < 0.02
    small = (rows - 0.7) ** 2 + (columns - 0.3) ** 2 < 0.006
    return (large + 0.5 * small)[None, ..., None].astype(np.float32)


@pytest.mark.parametrize("side", [64, 101])
def test_rays_add_up_the_image(side):
    image, slices = make_discs(side), find_slices(tf.constant(side), 90)
    rays = project(image, slices).numpy()[0]
    assert rays.shape == (90, 2 * side)
    np.testing.assert_allclose(rays.sum(axis=1), image.sum(), rtol=0.05)
    # Along columns, and with the angles' half along rows; places are relative to the centre.
    for angle, axis in ((0, 0), (45, 1)):
        sums = np.roll(np.pad(image[0, ..., 0].sum(axis=axis), (0, side)), -(side // 2))
        assert np.abs(rays[angle] - sums).mean() < 0.03 * sums.max()


@pytest.mark.parametrize("side", [64, 101])
def test_an_image_comes_back(side):
    image, slices = make_discs(side), find_slices(tf.constant(side), 180)
    back = project_back(project(image, slices), slices).numpy()
    assert back.shape == image.shape
    assert np.corrcoef(back.ravel(), image.ravel())[0, 1] > 0.97


@pytest.mark.parametrize("side", [1, 2, 3])
def test_the_smallest_images_have_projections(side):
    slices = find_slices(tf.constant(side), 12)
    rays = project(np.ones((2, side, side, 1), np.float32), slices)
    assert rays.shape == (2, 12, 2 * side)
    assert np.isfinite(project_back(rays, slices)).all()
