"""The network that learns transformations: what it reads, encodes and decodes."""

import numpy as np
import pytest
import tensorflow as tf

from vae_aug.model import transformation
from vae_aug.model.fields import GRID, SQUARE, TONES, Fields
from vae_aug.model.transformation import LATENT_DIM, TransformationVAE

FIELDS = Fields(tf.zeros([2, GRID, GRID, 2]), tf.zeros([2, GRID, GRID, TONES]), tf.ones([2]))


@pytest.fixture(scope="module")
def network():
    tf.keras.utils.set_random_seed(0)
    return TransformationVAE()


@pytest.fixture(scope="module")
def features(network):
    squares = np.random.default_rng(0).random((3, SQUARE, SQUARE, 1), np.float32)
    return network.describe(squares)


def test_squares_reach_white_whatever_the_range():
    grey = np.random.default_rng(0).random((1, 60, 100, 1), np.float32)
    squares, white = transformation.make_squares(grey)
    dim, less = transformation.make_squares(0.1 * grey)
    np.testing.assert_allclose(squares, dim, atol=1e-5)
    np.testing.assert_allclose(0.1 * white, less, rtol=1e-5)
    assert squares.shape == (1, SQUARE, SQUARE, 1) and np.max(squares) == 1


def test_white_is_what_few_pixels_exceed():
    squares = np.zeros((2, SQUARE, SQUARE, 1), np.float32)
    squares[0].flat[: SQUARE**2 // 2] = 0.5
    squares[0].flat[:10] = 1.0
    white = transformation.find_white(squares).numpy()
    np.testing.assert_allclose(white, [0.5, 1e-3])  # a black image has a white all the same


def test_a_transformation_is_on_the_grid_and_bounded(network, features):
    noise = 100 * np.random.default_rng(1).standard_normal((3, LATENT_DIM), np.float32)
    fields = network.decode(features, noise, np.full(3, 0.7, np.float32))
    assert fields.displacement.shape == (3, GRID, GRID, 2)
    assert fields.slopes.shape == (3, GRID, GRID, TONES)
    assert np.max(np.abs(fields.displacement)) <= transformation.MAX_DISPLACEMENT
    assert np.max(np.abs(fields.slopes)) <= transformation.MAX_LOG_SLOPE


def test_a_posterior_depends_on_both_images(network, features):
    z_mean, z_log_var = network.encode(features, features[::-1])
    assert z_mean.shape == z_log_var.shape == (3, LATENT_DIM)
    other, _ = network.encode(features, features)
    assert np.any(z_mean[0] != other[0])
    np.testing.assert_allclose(z_mean[1], other[1], rtol=1e-5)


def test_an_untrained_network_hardly_changes_anything(network, features):
    fields = network.decode(features, tf.zeros([3, LATENT_DIM]), tf.ones(3))
    assert np.max(np.abs(fields.displacement)) * SQUARE < 0.1
    assert np.max(np.abs(fields.slopes)) < 0.1


def test_samples_lie_around_the_image_itself(network, features):
    white = tf.ones(3)
    still = network.sample(features, tf.zeros([3, LATENT_DIM]), white)
    assert not np.any(still.displacement) and not np.any(still.slopes)
    z = np.random.default_rng(0).standard_normal((3, LATENT_DIM), np.float32)
    sampled, common = (network.decode(features, noise, white) for noise in (z, 0 * z))
    np.testing.assert_allclose(
        network.sample(features, z, white).slopes, sampled.slopes - common.slopes, atol=1e-6
    )


@pytest.mark.parametrize("mode", ["sample", "interpolate"])
def test_a_transformation_is_linear_in_the_factor(network, mode):
    squares = np.random.default_rng(0).random((2, SQUARE, SQUARE, 1), np.float32)
    noise = {
        name: spec.sample(tf.constant([1, 2]), 2)
        for name, spec in transformation.list_noise(mode).items()
    }
    once, twice = (
        Fields.unpack(network.vary(squares, noise, mode=mode, factor=factor)) for factor in (1, 2)
    )
    np.testing.assert_allclose(2 * once.slopes, twice.slopes, rtol=1e-5)
    assert np.any(once.slopes) and ("share" in noise) == (mode == "interpolate")


def test_weights_are_saved_and_loaded(network, features, tmp_path):
    network.save_weights(tmp_path / "a.weights.h5")
    loaded = TransformationVAE()
    loaded.load_weights(tmp_path / "a.weights.h5")
    z = np.ones((3, LATENT_DIM), np.float32)
    np.testing.assert_array_equal(
        loaded.decode(features, z, tf.ones(3)).slopes,
        network.decode(features, z, tf.ones(3)).slopes,
    )


def test_a_transformation_that_is_read_goes_no_further_than_samples(network, monkeypatch):
    squares = np.random.default_rng(0).random((2, SQUARE, SQUARE, 1), np.float32)
    short, far = (
        np.full((2, LATENT_DIM), 0.5, np.float32),
        np.full((2, LATENT_DIM), 5.0, np.float32),
    )
    read = []
    monkeypatch.setattr(network, "decode", lambda features, z, white: read.append(z) or FIELDS)
    for z in (short, far):
        monkeypatch.setattr(network, "encode", lambda features, others, z=z: (z, z))
        network.vary(squares, {"share": tf.ones(2)}, mode="interpolate", factor=1.0)
    np.testing.assert_allclose(read[0], short)
    np.testing.assert_allclose(read[1], far / 5.0, rtol=1e-6)


def test_the_hardest_sample_lies_furthest(network):
    rng = np.random.default_rng(2)
    squares = tf.constant(rng.random((2, SQUARE, SQUARE, 1), np.float32))
    features = network.describe(squares)
    z = rng.standard_normal((2, 4, LATENT_DIM)).astype(np.float32)
    z[0, 2] *= 30.0
    z[1, 1] *= 30.0
    chosen = network.find_hardest(squares, features, tf.constant(z), 1.0)
    np.testing.assert_array_equal(chosen, np.stack([z[0, 2], z[1, 1]]))
    noise = {"z": tf.constant(z)}
    hardest = network.vary(squares, noise, mode="sample", factor=1.0)
    alone = network.vary(squares, {"z": chosen}, mode="sample", factor=1.0)
    np.testing.assert_allclose(hardest, alone, atol=1e-6)


def test_noise_has_every_sample():
    assert transformation.list_noise("sample")["z"].shape == (LATENT_DIM,)
    assert transformation.list_noise("sample", 4)["z"].shape == (4, LATENT_DIM)
