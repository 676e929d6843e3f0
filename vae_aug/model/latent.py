"""Split latents in mean and log variance, sample their posterior, interpolate between them."""

from __future__ import annotations

import tensorflow as tf


def split_latent(latent: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Split the latent layer of length n into mean and log variance.

    Args:
        latent: `[B, n] float32`.

    Returns:
        `z_mean` and `z_log_var`, each `[B, n / 2] float32`. The log variance is clipped
        to [-12, 6] so that its exponential neither vanishes nor overflows in half precision.
    """
    z_mean, z_log_var = tf.split(latent, 2, axis=-1)
    return z_mean, tf.clip_by_value(z_log_var, -12.0, 6.0)


def sample_posterior(
    z_mean: tf.Tensor, z_log_var: tf.Tensor, noise: tf.Tensor, factor: float | tf.Tensor = 1.0
) -> tf.Tensor:
    """Compute `z_mean + factor * exp(z_log_var / 2) * noise`; all `[B, d] float32`."""
    return z_mean + factor * tf.exp(0.5 * z_log_var) * noise


def interpolate(z_mean: tf.Tensor, given: tf.Tensor, share: tf.Tensor, *, alone: bool) -> tf.Tensor:
    """Move latents towards those of their neighbours in the batch, or towards given ones.

    Args:
        z_mean: `[B, d] float32`.
        given: `[B, d] float32`, e.g. from the training set's aggregate posterior.
        share: `[B] float32`, 0 for the image's own latent, 1 for the other.
        alone: Whether to move towards the given ones; else each image moves towards the one before
            it in the batch, which is another in any batch of two or more.

    Returns:
        `[B, d] float32`.
    """
    other = given if alone else tf.roll(z_mean, 1, axis=0)
    return z_mean + share[:, None] * (other - z_mean)
