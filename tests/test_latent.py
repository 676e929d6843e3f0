"""The latent vector."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from vae_aug.model.latent import sample_posterior, split_latent


def test_split_is_in_halves_and_bounded():
    z_mean, z_log_var = split_latent(tf.constant([[1.0, -2.0, 0.5, -100.0]]))
    np.testing.assert_array_equal(z_mean, [[1.0, -2.0]])
    np.testing.assert_array_equal(z_log_var, [[0.5, -12.0]])


def test_sample_posterior_by_hand():
    z = sample_posterior(tf.constant([[1.0]]), tf.math.log([[9.0]]), tf.constant([[0.5]]), 2.0)
    np.testing.assert_allclose(z, [[1.0 + 2.0 * 3.0 * 0.5]], rtol=1e-6)
