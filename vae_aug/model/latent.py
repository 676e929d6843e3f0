"""The latent vector: halves, noise per example, and moves towards other images."""

from __future__ import annotations

import tensorflow as tf

DRAW_NAME = "draw"
"""Name of the operations that give what was drawn, for engines that cannot draw themselves."""


def split_latent(latent: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Split the latent layer of length n into mean and log variance.

    Args:
        latent: `[B, n] float32`.

    Returns:
        `z_mean` and `z_log_var`, each `[B, n / 2] float32`. The log variance is held in
        [-12, 6] so that its exponential neither vanishes nor overflows in half precision.
    """
    z_mean, z_log_var = tf.split(latent, 2, axis=-1)
    return z_mean, tf.clip_by_value(z_log_var, -12.0, 6.0)


def draw_normal(seeds: tf.Tensor, shape: tuple[int, ...] | tf.Tensor) -> tf.Tensor:
    """Draw standard normal noise whose rows depend on their own seed alone.

    Args:
        seeds: `[B, 2] int32`.
        shape: Shape of one row; a tensor, if only the running graph knows it.

    Returns:
        `[B, *shape] float32`; a row is the same whatever batch it is drawn in.
    """
    static = shape if isinstance(shape, tuple) else None
    drawn = tf.map_fn(
        lambda seed: tf.random.stateless_normal(shape, seed),
        seeds,
        fn_output_signature=tf.TensorSpec(static, tf.float32),
    )
    return tf.identity(drawn, name=DRAW_NAME)


def draw_uniform(seeds: tf.Tensor) -> tf.Tensor:
    """Draw one uniform number in [0, 1) per seed: `[B, 2] int32` to `[B] float32`."""
    drawn = tf.map_fn(
        lambda seed: tf.random.stateless_uniform([], seed),
        seeds,
        fn_output_signature=tf.TensorSpec([], tf.float32),
    )
    return tf.identity(drawn, name=DRAW_NAME)


def fold_in(seeds: tf.Tensor, data: int) -> tf.Tensor:
    """Derive independent seeds for another purpose: `[B, 2] int32` to `[B, 2] int32`."""
    return tf.map_fn(lambda seed: tf.random.fold_in(seed, data), seeds)


def sample_posterior(
    z_mean: tf.Tensor, z_log_var: tf.Tensor, noise: tf.Tensor, factor: float | tf.Tensor = 1.0
) -> tf.Tensor:
    """Draw `z_mean + factor * exp(z_log_var / 2) * noise`; all `[B, d] float32`."""
    return z_mean + factor * tf.exp(0.5 * z_log_var) * noise


def interpolate(z_mean: tf.Tensor, drawn: tf.Tensor, share: tf.Tensor, *, alone: bool) -> tf.Tensor:
    """Move latents towards others: of the images beside them, or drawn ones.

    Args:
        z_mean: `[B, d] float32`.
        drawn: `[B, d] float32`, e.g. from the training set's aggregate posterior.
        share: `[B] float32`, 0 for the image's own latent, 1 for the other.
        alone: Whether to move towards what was drawn; else towards the neighbour, which one place
            on is somebody else's image in any batch of two or more.

    Returns:
        `[B, d] float32`.
    """
    other = drawn if alone else tf.roll(z_mean, 1, axis=0)
    return z_mean + share[:, None] * (other - z_mean)
