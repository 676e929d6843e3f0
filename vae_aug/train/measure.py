"""What a network makes of validation images: PSNR, SSIM, KL and how many latents are in use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from vae_aug.model.loss import structural_similarity
from vae_aug.model.network import Network

Values = dict[str, np.ndarray]
"""Figures by name, `[N] float32`, one value an image."""

_ACTIVE_VARIANCE = 0.01


def make_measure_batch(vae: Network) -> Any:
    """Make the graph that measures one validation batch; it is traced once, at its first call.

    Args:
        vae: The network. The graph reads its weights at every call, so one graph serves a run.

    Returns:
        A function of `(noisy, clean)`, each `[B, S, S, 1] float32` with the network's `image_size`
        for S, to figures `[B] float32` by name, as `measure` averages them, and the latent means
        `[B, N] float32`.
    """
    square = [vae.config.image_size] * 2
    batch = tf.TensorSpec([None, *square, 1], tf.float32)

    # With a signature, or the last and smaller batch would have a graph of its own.
    @tf.function(autograph=False, input_signature=[batch, batch])
    def measure_batch(noisy: tf.Tensor, clean: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        # Both at once, since to trace a network takes seconds.
        forwarded = vae.forward(tf.concat([clean, noisy], axis=0))
        decoded, restored = tf.split(forwarded.reconstruction, 2)
        levels = [tf.split(sum_kl(kl), 2)[0] for kl in forwarded.kls]
        figures = {"kl": tf.add_n(levels)}
        if len(levels) > 1:
            figures |= {f"kl_{index}": kl for index, kl in enumerate(levels)}
        figures |= compare_images(clean, decoded)
        figures |= compare_images(clean, restored, "_noisy")
        return figures, tf.split(forwarded.z_mean, 2)[0]

    return measure_batch


def compare_images(clean: tf.Tensor, images: tf.Tensor, suffix: str = "") -> dict[str, tf.Tensor]:
    """Compare images with the clean ones.

    Args:
        clean: `[B, S, S, 1] float32 in [0, 1]`.
        images: `[B, S, S, C] float32`; their channels are averaged.
        suffix: Of the figures' names.

    Returns:
        `psnr` in dB and `ssim`, `[B] float32` each.
    """
    grey = tf.reduce_mean(images, axis=-1, keepdims=True)
    return {
        "psnr" + suffix: tf.image.psnr(clean, grey, 1.0),
        "ssim" + suffix: structural_similarity(clean, grey),
    }


def measure_images(
    measure_batch: Callable[..., Any], feed: tf.data.Dataset
) -> tuple[Values, np.ndarray]:
    """Measure a network on every image of a validation feed.

    Args:
        measure_batch: The graph of `make_measure_batch`.
        feed: Batches `(noisy, clean)`, as `make_validation_feed`.

    Returns:
        Figures of each image, and the latent means `[N, M] float32`.
    """
    batches = [measure_batch(noisy, clean) for noisy, clean in feed]
    values = {
        key: np.concatenate([figures[key] for figures, _ in batches]) for key in batches[0][0]
    }
    return values, np.concatenate([z_mean for _, z_mean in batches])


def measure(measure_batch: Callable[..., Any], feed: tf.data.Dataset) -> dict[str, float]:
    """Measure a network on a validation feed.

    Args:
        measure_batch: As for `measure_images`.
        feed: As for `measure_images`.

    Returns:
        Means over images of `psnr` (dB) and `ssim` for clean input, `psnr_noisy` and
        `ssim_noisy` for noisy input, `kl` (nats), for a ladder `kl_0`, `kl_1`, ... by level from
        the global latent down, and `active_units`: how many means of the global latent have a
        variance over the images above 0.01 (Burda et al., Importance Weighted Autoencoders,
        2016).
    """
    values, means = measure_images(measure_batch, feed)
    active = float(np.sum(np.var(means, axis=0) > _ACTIVE_VARIANCE))
    return {**average(values), "active_units": active}


def average(values: Mapping[str, Any]) -> dict[str, float]:
    """Average figures over images."""
    return {name: float(np.mean(value)) for name, value in values.items()}


def sum_kl(kl: tf.Tensor) -> tf.Tensor:
    """Sum nats per image: `[B, ...]` to `[B]`."""
    return tf.reduce_sum(kl, axis=range(1, kl.shape.rank))
