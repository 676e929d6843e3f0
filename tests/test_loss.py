"""The loss and KL against values worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from vae_aug.model.loss import (
    apply_free_bits,
    kl_divergence,
    kl_weight,
    mean_squared_error,
    paper_reconstruction,
    sigma_each_reconstruction,
    sigma_reconstruction,
    structural_similarity,
)


def test_kl_by_hand():
    # (mean^2 + var - 1 - log var) / 2: (0 + 1 - 1 - 0) / 2; (4 + 1 - 1 - 0) / 2; with var = e.
    kl = kl_divergence(tf.constant([[0.0, 2.0, 0.0]]), tf.constant([[0.0, 0.0, 1.0]]))
    np.testing.assert_allclose(kl, [[0.0, 2.0, (math.e - 2.0) / 2.0]], rtol=1e-6)


def test_kl_agrees_with_sampling():
    mean, log_var = 0.7, -0.9
    draws = np.random.default_rng(0).normal(mean, math.exp(log_var / 2), 400_000)
    log_q = -0.5 * (log_var + (draws - mean) ** 2 / math.exp(log_var))
    log_p = -0.5 * draws**2
    kl = kl_divergence(tf.constant([[mean]]), tf.constant([[log_var]]))
    assert float(kl[0, 0]) == pytest.approx(np.mean(log_q - log_p), abs=5e-3)


def test_free_bits_charge_no_dimension_less():
    kl = tf.constant([[0.0, 4.0], [0.2, 2.0]])  # means over the batch: 0.1 and 3
    assert float(apply_free_bits(kl, 0.5)) == pytest.approx(3.5)
    assert float(apply_free_bits(kl, 0.0)) == pytest.approx(3.1)


def test_mean_squared_error_by_hand():
    target = tf.constant([[[[0.0], [1.0]]]])
    reconstruction = tf.constant([[[[0.5] * 3, [0.0] * 3]]])
    # Squared errors 0.25 and 1; every channel of the reconstruction has the same grey target.
    np.testing.assert_allclose(mean_squared_error(target, reconstruction), [0.625])
    weights = tf.constant([[[[3.0], [1.0]]]])
    np.testing.assert_allclose(
        mean_squared_error(target, reconstruction, weights), [(3 * 0.25 + 1) / 4]
    )


def test_paper_reconstruction_is_original_dim_times_mse():
    assert float(paper_reconstruction(tf.constant([0.1, 0.3]), 150528)) == pytest.approx(
        150528 * 0.2
    )


def test_sigma_reconstruction_is_the_best_gaussian_likelihood():
    mse = tf.constant([0.01, 0.03])
    best = float(sigma_reconstruction(mse, 1000))

    def negative_log_likelihood(variance):
        return 500 * (math.log(2 * math.pi * variance) + 0.02 / variance)

    assert best == pytest.approx(negative_log_likelihood(0.02), rel=1e-5)
    assert best < negative_log_likelihood(0.019)
    assert best < negative_log_likelihood(0.021)


def test_kl_weight_warms_up():
    weights = [float(kl_weight(tf.constant(step), 2.0, 100)) for step in (0, 25, 100, 1000)]
    assert weights == [0.0, 0.5, 2.0, 2.0]
    assert float(kl_weight(tf.constant(0), 0.3, 0)) == pytest.approx(0.3)


def test_free_bits_of_a_map_count_its_places():
    # Two channels over 2 x 2 places: means 0.1 and 3 nats a place.
    kl = tf.tile(tf.constant([[[[0.1, 3.0]]]]), [5, 2, 2, 1])
    assert float(apply_free_bits(kl, 0.0)) == pytest.approx(4 * 3.1)
    assert float(apply_free_bits(kl, 0.5)) == pytest.approx(4 * 3.5)


def test_sigma_each_averages_the_best_likelihood_of_every_image():
    mse = [0.01, 0.03]
    by_hand = np.mean([sigma_reconstruction(tf.constant([value]), 300) for value in mse])
    assert float(sigma_each_reconstruction(tf.constant(mse), 300)) == pytest.approx(by_hand)


def test_structural_similarity_is_tensorflows():
    images = tf.random.stateless_uniform([3, 24, 40, 1], [1, 1])
    others = tf.clip_by_value(images + 0.2 * tf.random.stateless_normal(images.shape, [2, 1]), 0, 1)
    expected = tf.image.ssim(images, others, 1.0)
    np.testing.assert_allclose(structural_similarity(images, others), expected, atol=1e-4)
