"""The objective: how well an image is explained, and what its description costs.

All terms are in nats per image, so the two sides of the balance are comparable.
"""

from __future__ import annotations

import math

import tensorflow as tf


def kl_divergence(z_mean: tf.Tensor, z_log_var: tf.Tensor) -> tf.Tensor:
    """Compute KL(N(z_mean, exp(z_log_var)) || N(0, 1)) per latent dimension.

    `(z_mean^2 + exp(z_log_var) - 1 - z_log_var) / 2`, in nats.

    Args:
        z_mean: `[B, d] float32`.
        z_log_var: `[B, d] float32`.

    Returns:
        `[B, d] float32`, not below 0.

    Reference: Kingma and Welling, Auto-Encoding Variational Bayes (2014), appendix B.
    """
    return 0.5 * (tf.square(z_mean) + tf.exp(z_log_var) - 1.0 - z_log_var)


def apply_free_bits(kl: tf.Tensor, free_bits: float) -> tf.Tensor:
    """Sum the KL over dimensions, charging none of them less than `free_bits`.

    Args:
        kl: `[B, d] float32`, nats.
        free_bits: Nats per dimension, compared with the dimension's mean over the batch.

    Returns:
        Scalar float32, nats per image.

    Reference: Kingma et al., Improved Variational Inference with Inverse Autoregressive Flow
    (2016), section "free bits".
    """
    return tf.reduce_sum(tf.maximum(tf.reduce_mean(kl, axis=0), free_bits))


def mean_squared_error(
    target: tf.Tensor, reconstruction: tf.Tensor, weights: tf.Tensor | None = None
) -> tf.Tensor:
    """Compute the squared error of each image, averaged over its pixels and channels.

    Args:
        target: `[B, H, W, C] float32`.
        reconstruction: `[B, H, W, C] float32`.
        weights: `[B, H, W, 1] float32` or None for equal weights.

    Returns:
        `[B] float32`. Weights are relative: they are divided by their mean over the image.
    """
    error = tf.reduce_mean(tf.square(target - reconstruction), axis=-1, keepdims=True)
    if weights is None:
        return tf.reduce_mean(error, axis=(1, 2, 3))
    total = tf.reduce_sum(error * weights, axis=(1, 2, 3))
    return total / tf.reduce_sum(weights, axis=(1, 2, 3))


def paper_reconstruction(mse: tf.Tensor, original_dim: int) -> tf.Tensor:
    """Compute the published reconstruction loss, `mean(original_dim * MSE)`.

    It is the Gaussian likelihood with its variance held at 1/2, less a constant.

    Args:
        mse: `[B] float32`.
        original_dim: Values per image, H * W * C.

    Returns:
        Scalar float32, nats per image.
    """
    return original_dim * tf.reduce_mean(mse)


def sigma_reconstruction(mse: tf.Tensor, original_dim: int) -> tf.Tensor:
    """Compute the Gaussian negative log likelihood at its analytically best variance.

    The variance that minimises it is the batch's mean squared error, which leaves
    `original_dim / 2 * (log(2 pi MSE) + 1)`.

    Args:
        mse: `[B] float32`.
        original_dim: Values per image, H * W * C.

    Returns:
        Scalar float32, nats per image; negative once the error is below 1 / (2 pi e).

    Reference: Rybkin, Daniilidis and Levine, Simple and Effective VAE Training with Calibrated
    Decoders (2021), section 3.2.
    """
    variance = tf.maximum(tf.reduce_mean(mse), 1e-8)
    return 0.5 * original_dim * (tf.math.log(2.0 * math.pi * variance) + 1.0)


RECONSTRUCTIONS = {"paper": paper_reconstruction, "sigma": sigma_reconstruction}


def kl_weight(step: tf.Tensor, beta: float, warmup_steps: int) -> tf.Tensor:
    """Compute the weight of the KL term: linear from 0 to `beta` over `warmup_steps`."""
    if warmup_steps == 0:
        return tf.constant(beta, tf.float32)
    return beta * tf.minimum(tf.cast(step, tf.float32) / warmup_steps, 1.0)
