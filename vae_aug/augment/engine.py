"""The network as a pure function of images and seeds, whatever runs it."""

from __future__ import annotations

import functools
from typing import Any

import keras
import tensorflow as tf

from vae_aug.config import AugmentConfig


class TensorFlowEngine:
    """A VAE frozen into a graph: weights are constants, so that the function owns no resource.

    A graph without variables can be captured by `Dataset.map` on any device, serialised, and sent
    to tf.data service. Constant filters are also a sixth faster on a CPU than captured ones, since
    oneDNN keeps them in the layout it computes in.
    """

    def __init__(self, vae: Any, config: AugmentConfig) -> None:
        """Copy the weights; graphs are made when first needed.

        Args:
            vae: A `vae_aug.model.vae.VAE`, or anything with its `config` and `vary`.
            config: Mode, factor, detail and device.
        """
        self.image_size = vae.config.image_size
        self._vae = vae
        self._config = config
        self._weights = [(v, v.numpy()) for v in getattr(vae, "variables", ())]

    def __call__(self, squares: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Compute what the network adds to each image.

        With reconstruction r, variant v and detail d: `v - r + (1 - d) r`. Whoever applies it
        takes away `(1 - d) x` in native resolution, which the network never sees. For `"denoise"`
        v = r, and the whole is scaled by `factor`.

        Args:
            squares: `[B, S, S, 1] float32 in [0, 1]`.
            seeds: `[B, 2] int32`.

        Returns:
            `[B, S, S, 1] float32`.
        """
        with tf.device(self._config.device):
            if self._config.mode != "interpolate" or self._config.seed is not None:
                # A neighbour depends on how the data was batched, which a seed must not.
                return self._freeze(True)(squares, seeds)
            return tf.cond(
                tf.shape(squares)[0] > 1,
                lambda: self._freeze(False)(squares, seeds),
                lambda: self._freeze(True)(squares, seeds),
            )

    @functools.cache  # noqa: B019 - lives as long as the engine, which is few and long-lived
    def _freeze(self, alone: bool) -> Any:
        """Trace the network once, for any batch size, outside of whatever graph is being built."""
        size, config = self.image_size, self._config
        detail = config.detail or 0.0

        def compute(squares: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
            constants = [(v, tf.constant(value)) for v, value in self._weights]
            with keras.StatelessScope(state_mapping=constants):
                reconstruction, variant = self._vae.vary(
                    squares, mode=config.mode, factor=config.factor, seeds=seeds, alone=alone
                )
            if config.mode == "denoise":
                return config.factor * (1.0 - detail) * reconstruction
            return variant - detail * reconstruction

        with tf.init_scope():
            return tf.function(compute, autograph=False).get_concrete_function(
                tf.TensorSpec([None, size, size, 1], tf.float32),
                tf.TensorSpec([None, 2], tf.int32),
            )
