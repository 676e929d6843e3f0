"""What training minimises: the negative evidence bound, with what a configuration adds to it."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from vae_aug.config import TrainConfig
from vae_aug.model.loss import (
    RECONSTRUCTIONS,
    apply_free_bits,
    kl_weight,
    mean_squared_error,
    structural_similarity,
)
from vae_aug.model.network import Decoded


def compute_loss(
    decoded: Decoded,
    clean: tf.Tensor,
    weights: tf.Tensor,
    step: tf.Tensor,
    config: TrainConfig,
) -> tf.Tensor:
    """Compute the objective in nats per image.

    Args:
        decoded: What the network made of the noisy images.
        clean: `[B, S, S, 1] float32`, what it should have made.
        weights: `[B, S, S, 1] float32`, of the pixels.
        step: Scalar int32, for the KL warm-up.
        config: Loss and weights.

    Returns:
        Scalar float32.
    """
    reconstruct = RECONSTRUCTIONS[config.loss]
    pixels = int(np.prod(clean.shape[1:]))
    mse = mean_squared_error(clean, decoded.reconstruction, weights)
    loss = reconstruct(mse, int(np.prod(decoded.reconstruction.shape[1:])))
    if config.ssim_weight:
        grey = tf.reduce_mean(decoded.reconstruction, axis=-1, keepdims=True)
        similarity = tf.reduce_mean(structural_similarity(clean, grey))
        loss += config.ssim_weight * pixels * (1.0 - similarity)
    if decoded.coarse is not None and config.coarse_weight:
        coarse = reconstruct(mean_squared_error(clean, decoded.coarse, weights), pixels)
        loss += config.coarse_weight * coarse
    for index, kl in enumerate(decoded.kls):
        beta = config.spatial_beta if index else config.beta
        weight = kl_weight(step, beta, config.kl_warmup_steps)
        loss += weight * apply_free_bits(kl, config.free_bits)
    return loss


def compute_psnr(mse: tf.Tensor) -> tf.Tensor:
    """Compute the peak signal-to-noise ratio in dB for a range of 1."""
    return -10.0 * tf.math.log(tf.maximum(mse, 1e-10)) / np.log(10.0)
