"""What one network says of every patient: scores by which members may be told from others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from vae_aug.config import TrainConfig
from vae_aug.model.loss import RECONSTRUCTIONS, mean_squared_error
from vae_aug.model.network import Network
from vae_aug.train.measure import sum_kl
from vae_aug.train.references import Patients

SCORES = {
    "elbo": "evidence bound of the clean image: what training raises, with its weights of KL",
    "reconstruction": "logarithm of the squared error of the clean image, denoised",
    "restoration": "logarithm of the squared error of an image of which 40% of the pixels are left",
}
"""What networks are compared by; the first is the primary one. Errors count with a minus."""

PRIMARY = next(iter(SCORES))

_BATCH = 16
_LEAST_ERROR = 1e-8


def make_score_batch(network: Network, config: TrainConfig, size: int) -> Any:
    """Make the graph that scores a batch of images; it is traced once, at its first call.

    Args:
        network: The network. The graph reads its weights at every call.
        config: Likelihood and weights of KL.
        size: Side of the squares in pixels; of a network that is no ladder, its `image_size`.

    Returns:
        A function of `(noisy, clean)`, each `[B, S, S, 1] float32` with `size` for S, to scores by
        the names of `SCORES`, `[B] float32` each. Posterior means are decoded,
        so nothing is random.
    """
    batch = tf.TensorSpec([None, size, size, 1], tf.float32)

    @tf.function(autograph=False, input_signature=[batch, batch])
    def score_batch(noisy: tf.Tensor, clean: tf.Tensor) -> dict[str, tf.Tensor]:
        # Both at once, since to trace a network takes seconds.
        decoded = network.forward(tf.concat([clean, noisy], axis=0))
        images, restored = tf.split(decoded.reconstruction, 2)
        error = mean_squared_error(clean, images)
        pixels = int(np.prod(images.shape[1:]))
        # One by one: a likelihood whose variance is that of the batch is no image's own.
        loss = tf.map_fn(lambda one: RECONSTRUCTIONS[config.loss](one[None], pixels), error)
        for level, kl in enumerate(decoded.kls):
            weight = config.spatial_beta if level else config.beta
            loss += weight * tf.split(sum_kl(kl), 2)[0]
        return {
            "elbo": -loss,
            "reconstruction": -_log(error),
            "restoration": -_log(mean_squared_error(clean, restored)),
        }

    return score_batch


def score_patients(
    score_batch: Callable[..., dict[str, tf.Tensor]], patients: Patients, size: int
) -> dict[str, np.ndarray]:
    """Score every patient.

    Args:
        score_batch: The graph of `make_score_batch`.
        patients: The records.
        size: Side of the network's square in pixels.

    Returns:
        By name means over each patient's images, `[P] float64`.
    """
    batches = [score_batch(noisy, clean) for noisy, clean in patients.iterate(size, _BATCH)]
    places = np.concatenate(patients.places)
    count = np.bincount(places)
    return {
        name: np.bincount(places, np.concatenate([batch[name] for batch in batches])) / count
        for name in SCORES
    }


def _log(error: tf.Tensor) -> tf.Tensor:
    return tf.math.log(tf.maximum(error, _LEAST_ERROR))
