"""What a denoiser changes is told apart: noise, and anatomy that it loses."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vae_aug.augment import adaptive
from vae_aug.augment.adaptive import find_noise_share, fit_terms

RNG = np.random.default_rng(0)


def make_anatomy(size=96):
    """Make a disc of grey 0.6 with a grid of thin bright lines in its left half."""
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    disc = 0.6 * (rows**2 + columns**2 < 0.16)
    lines = 0.2 * ((np.arange(size) % 8 == 0)[:, None] & (columns < 0) & (disc > 0))
    return (disc + lines)[..., None].astype(np.float32)


def find_share(grey, change):
    return find_noise_share(*(tf.constant(each, tf.float32) for each in (grey, change))).numpy()


@pytest.mark.parametrize("level", ["constant", "by signal"])
def test_noise_is_taken_away(level):
    clean = make_anatomy()
    size = 0.01 if level == "constant" else 0.015 * clean
    noise = size * RNG.standard_normal(clean.shape)
    share = find_share(clean + noise, -noise)
    kept = noise - share * noise
    assert np.sum(kept**2) < 0.1 * np.sum(noise**2)


def test_lost_anatomy_is_put_back():
    clean = make_anatomy()
    blurred = tf.nn.avg_pool2d(clean[None], 3, 1, "SAME")[0].numpy()
    change = blurred - clean
    share = find_share(clean, change)
    assert np.sum((share * change) ** 2) < 0.02 * np.sum(change**2)


def test_both_are_told_apart_by_their_place():
    clean = make_anatomy()
    blurred = tf.nn.avg_pool2d(clean[None], 3, 1, "SAME")[0].numpy()
    noise = 0.01 * RNG.standard_normal(clean.shape)
    change = blurred - clean - noise
    share = find_share(clean + noise, change)
    error = {
        name: np.mean((clean + noise + part * change - clean) ** 2)
        for name, part in (("none", 0.0), ("all", 1.0), ("share", share))
    }
    assert error["share"] < min(error["none"], error["all"])


def test_of_plain_noise_all_is_taken():
    clean = make_anatomy()
    noise = 2.5 * adaptive.STRONG_NOISE * RNG.standard_normal(clean.shape)
    np.testing.assert_array_equal(find_share(clean + noise, -noise), 1.0)


@settings(max_examples=20, deadline=None)
@given(
    image=arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(1)),
        elements=st.floats(0, 1, width=32),
    ),
    size=st.floats(-1, 1, width=32),
)
def test_a_share_is_a_share_of_any_image(image, size):
    for change in (size * image, np.full_like(image, size), np.zeros_like(image)):
        share = find_share(image, change)
        assert share.shape == image.shape
        assert np.all((share >= 0) & (share <= 1))


def test_terms_are_fitted_as_scipy_does():
    optimize = pytest.importorskip("scipy.optimize")
    for _ in range(10):
        energies = RNG.random((9, 11, 5)) ** 2
        energy = np.maximum(energies @ RNG.normal(0.3, 1.0, 5), 0)[..., None] + 0.01
        found = fit_terms(*(tf.constant(each, tf.float32) for each in (energies, energy)))
        weights = 1 / (energy + energy.mean())
        known, wanted = (weights * energies).reshape(-1, 5), (weights * energy).ravel()
        expected, _ = optimize.nnls(known, wanted)
        np.testing.assert_allclose(found, expected, atol=2e-3)
