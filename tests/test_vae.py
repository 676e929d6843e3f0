"""The network: shapes, ranges, and what each mode does to the latent vector."""

from __future__ import annotations

import fake_vae
import numpy as np
import pytest
import tensorflow as tf

from vae_aug.config import ModelConfig
from vae_aug.model.vae import VAE

SEEDS = tf.constant([[1, 2], [3, 4], [5, 6]])


@pytest.fixture
def vae(short_vae, short_stages):
    return short_vae


@pytest.fixture(scope="module")
def images():
    return tf.random.stateless_uniform([3, 32, 32, 1], [7, 7])


def test_published_architecture():
    vae = VAE(ModelConfig(encoder="efficientnet-b1"))
    assert vae.first.filters == 3
    assert vae.backbone.output_shape == (None, 1280)
    assert vae.latent.units == 512
    assert vae.decoder.input_shape == (None, 256)
    assert vae.decoder.output_shape == (None, 224, 224, 3)


def test_shapes_and_ranges(vae, images):
    z_mean, z_log_var = vae.encode(images)
    assert z_mean.shape == z_log_var.shape == (3, 8)
    decoded = vae.decode(z_mean).numpy()
    assert decoded.shape == (3, 32, 32, 3)
    assert decoded.dtype == np.float32
    assert decoded.min() >= 0 and decoded.max() <= 1
    np.testing.assert_array_equal(vae.reconstruct(images), decoded)


def test_first_convolution_starts_as_three_copies(vae, images):
    np.testing.assert_allclose(vae.first(images), np.repeat(images, 3, axis=-1), atol=1e-6)


def vary(vae, images, seeds=SEEDS, **kwargs):
    reconstruction, variant = fake_vae.vary(vae, images, seeds[: len(images)], **kwargs)
    return reconstruction.numpy(), variant.numpy()


def test_denoise_decodes_the_mean(vae, images):
    reconstruction, variant = vary(vae, images, mode="denoise", factor=1.0)
    np.testing.assert_array_equal(reconstruction, variant)
    mean = vae.reconstruct(images).numpy().mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(reconstruction, mean, atol=1e-6)


def test_decoding_to_grey_leaves_nothing_to_save(vae, images):
    before = [weight.path for weight in vae.weights], [layer.name for layer in vae.layers]
    vary(vae, images, mode="denoise", factor=1.0)
    assert ([weight.path for weight in vae.weights], [layer.name for layer in vae.layers]) == before


def test_factor_zero_changes_nothing(vae, images):
    for mode in "sample", "interpolate":
        reconstruction, variant = vary(vae, images, mode=mode, factor=0.0)
        # TensorFlow 2.18 may differ in the last bit between two calls of a network.
        np.testing.assert_allclose(reconstruction, variant, rtol=0, atol=2e-7)


def test_sample_draws_z_mean_plus_factor_sigma_eps(vae, images):
    reconstruction, weak = vary(vae, images, mode="sample", factor=0.5)
    _, strong = vary(vae, images, mode="sample", factor=2.0)
    _, again = vary(vae, images, mode="sample", factor=2.0)
    np.testing.assert_array_equal(strong, again)
    moved = [np.abs(variant - reconstruction).mean() for variant in (weak, strong)]
    assert 0 < moved[0] < moved[1]
    _, other = vary(vae, images, SEEDS + 1, mode="sample", factor=2.0)
    assert not np.array_equal(strong, other)


def test_interpolation_stays_between_the_two_images(vae, images):
    # With factor 0 to 1 the latent lies on the segment to the neighbour's.
    z_mean, _ = vae.encode(images)
    _, variant = vary(vae, images, mode="interpolate", factor=1.0)
    neighbour = np.roll(z_mean, 1, axis=0)
    shares = np.linspace(0, 1, 401)[:, None]
    for index in range(3):
        line = z_mean[index] + shares * (neighbour[index] - z_mean[index])
        decoded = vae.decode(tf.constant(line, tf.float32)).numpy().mean(axis=-1)
        distance = np.abs(decoded - variant[index, ..., 0]).mean(axis=(1, 2))
        assert distance.min() < 2e-3


def test_alone_an_image_moves_towards_the_aggregate_posterior(vae, images):
    alone = {"mode": "interpolate", "factor": 1.0, "alone": True}
    _, first = vary(vae, images[:1], SEEDS[:1], **alone)
    _, again = vary(vae, images[:1], SEEDS[:1], **alone)
    _, other = vary(vae, images[:1], SEEDS[1:2], **alone)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_moving_towards_another_latent_is_linear_in_it(vae, images):
    z_mean, _ = vae.encode(images)
    shares = tf.constant([0.0, 0.25, 1.0])
    noise = {"z": tf.zeros_like(z_mean), "share": shares}
    _, moved = vae.vary(images, noise, mode="interpolate", factor=1.0)
    z = z_mean + shares[:, None] * (tf.roll(z_mean, 1, axis=0) - z_mean)
    # In one batch, as `vary` decodes them: sums of another order differ by more than the tolerance.
    decoded = vae.decode(tf.concat([z_mean, z], axis=0))[len(z) :]
    expected = tf.reduce_mean(decoded, axis=-1, keepdims=True)
    np.testing.assert_allclose(moved, expected, atol=1e-6)


def test_config_round_trip(vae):
    again = VAE.from_config(vae.get_config())
    assert again.config == vae.config
    assert [v.path for v in again.weights] == [v.path for v in vae.weights]
