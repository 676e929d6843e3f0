"""Terms of the objective: likelihood of images, KL divergence of latents, SSIM.

All terms are in nats per image, so the two sides of the balance are comparable.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2


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


def average_replicas(mean: tf.Tensor) -> tf.Tensor:
    """Average a mean over a part of a batch with those of the other replicas' equal parts.

    What is not linear in a batch's mean needs the mean of the whole batch.

    Args:
        mean: `[...] float32`, of this replica's part.

    Returns:
        The mean of the whole batch, through which gradients pass.
    """
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return mean
    return replica.all_reduce(tf.distribute.ReduceOp.MEAN, mean)


def apply_free_bits(kl: tf.Tensor, free_bits: float) -> tf.Tensor:
    """Sum the KL over dimensions, charging none of them less than `free_bits`.

    Args:
        kl: `[B, d]` or `[B, h, w, d] float32`, nats.
        free_bits: Nats per dimension, compared with the dimension's mean over the batch (and
            over the places of a map).

    Returns:
        Scalar float32, nats per image.

    Reference: Kingma et al., Improved Variational Inference with Inverse Autoregressive Flow
    (2016), section "free bits".
    """
    places = tf.cast(tf.size(kl[0, ..., 0]), tf.float32)
    means = average_replicas(tf.reduce_mean(kl, axis=range(kl.shape.rank - 1)))
    return places * tf.reduce_sum(tf.maximum(means, free_bits))


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
    variance = tf.maximum(average_replicas(tf.reduce_mean(mse)), 1e-8)
    return 0.5 * original_dim * (tf.math.log(2.0 * math.pi * variance) + 1.0)


def sigma_each_reconstruction(mse: tf.Tensor, original_dim: int) -> tf.Tensor:
    """Compute `sigma_reconstruction` with the best variance of each image, not of the batch.

    Up to a constant it is the mean PSNR over images, so a clean image, whose error is small, weighs
    as much as a noisy one; with one variance for the batch the noisiest image decides.

    Args:
        mse: `[B] float32`.
        original_dim: Values per image, H * W * C.

    Returns:
        Scalar float32, nats per image.
    """
    variance = tf.maximum(mse, 1e-6)
    return 0.5 * original_dim * tf.reduce_mean(tf.math.log(2.0 * math.pi * variance) + 1.0)


RECONSTRUCTIONS = {
    "paper": paper_reconstruction,
    "sigma": sigma_reconstruction,
    "sigma_each": sigma_each_reconstruction,
}


def structural_similarity(images: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Compute the mean SSIM of each image, fast with gradients on a CPU.

    The Gaussian window (standard deviation 1.5, 11 pixels, cut off at the border) is applied as
    two products with a banded matrix, several times faster than a convolution of one channel.

    Args:
        images: `[B, H, W, 1] float32 in [0, 1]`, H and W static and at least 11.
        others: The same shape.

    Returns:
        `[B] float32`, at most 1.

    Reference: Wang et al., Image Quality Assessment: From Error Visibility to Structural
    Similarity (2004).
    """
    rows, columns = (tf.constant(_gaussian_band(images.shape[axis])) for axis in (1, 2))

    def blur(maps: tf.Tensor) -> tf.Tensor:
        return tf.matmul(tf.matmul(rows, maps), columns, transpose_b=True)

    a, b = images[..., 0], others[..., 0]
    mean_a, mean_b, square_a, square_b, product = (blur(x) for x in (a, b, a * a, b * b, a * b))
    means = mean_a * mean_b
    squares = mean_a * mean_a + mean_b * mean_b
    similarity = (2.0 * means + _SSIM_C1) * (2.0 * (product - means) + _SSIM_C2)
    similarity /= (squares + _SSIM_C1) * (square_a + square_b - squares + _SSIM_C2)
    return tf.reduce_mean(similarity, axis=(1, 2))


def _gaussian_band(length: int) -> np.ndarray:
    """Make the matrix that filters a line where the whole window fits: `[length - 10, length]`."""
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    band = np.zeros((length - 10, length), np.float32)
    for index in range(length - 10):
        band[index, index : index + 11] = taps / taps.sum()
    return band


def kl_weight(step: tf.Tensor, beta: float, warmup_steps: int) -> tf.Tensor:
    """Compute the weight of the KL term: linear from 0 to `beta` over `warmup_steps`."""
    if warmup_steps == 0:
        return tf.constant(beta, tf.float32)
    return beta * tf.minimum(tf.cast(step, tf.float32) / warmup_steps, 1.0)
