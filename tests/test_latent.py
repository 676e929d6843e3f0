"""The latent vector."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from vae_aug.model.latent import draw_normal, draw_uniform, fold_in, sample_posterior, split_latent

SEEDS = tf.constant([[1, 2], [3, 4], [1, 2]])


def test_split_is_in_halves_and_bounded():
    z_mean, z_log_var = split_latent(tf.constant([[1.0, -2.0, 0.5, -100.0]]))
    np.testing.assert_array_equal(z_mean, [[1.0, -2.0]])
    np.testing.assert_array_equal(z_log_var, [[0.5, -12.0]])


def test_noise_depends_on_its_own_seed_alone():
    batch = draw_normal(SEEDS, (5,)).numpy()
    np.testing.assert_array_equal(batch[0], batch[2])
    np.testing.assert_array_equal(batch[1], draw_normal(SEEDS[1:2], (5,)).numpy()[0])
    assert not np.array_equal(batch[0], batch[1])


def test_noise_is_standard_normal_and_uniform():
    seeds = tf.stack([tf.range(100), tf.range(100)], axis=1)
    normal = draw_normal(seeds, (200,)).numpy()
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1) < 0.03
    uniform = draw_uniform(seeds).numpy()
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.1


def test_fold_in_separates_purposes():
    first, second = fold_in(SEEDS, 0).numpy(), fold_in(SEEDS, 1).numpy()
    np.testing.assert_array_equal(first[0], first[2])
    assert not np.array_equal(first[0], second[0])


def test_sample_posterior_by_hand():
    z = sample_posterior(tf.constant([[1.0]]), tf.math.log([[9.0]]), tf.constant([[0.5]]), 2.0)
    np.testing.assert_allclose(z, [[1.0 + 2.0 * 3.0 * 0.5]], rtol=1e-6)
