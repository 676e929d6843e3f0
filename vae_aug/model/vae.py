"""The published network: grey image, three filters, backbone, latent halves, mirrored decoder."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from vae_aug.config import ModelConfig
from vae_aug.model.decoder import lay_out, make_decoder
from vae_aug.model.encoder import make_encoder
from vae_aug.model.latent import (
    draw_normal,
    draw_uniform,
    fold_in,
    interpolate,
    sample_posterior,
    split_latent,
)
from vae_aug.model.loss import kl_divergence

_NOISE, _STEP = 0, 1
"""What a seed is folded with: the noise that is drawn, and the length of an interpolation."""


class Draw(NamedTuple):
    """What a network makes of a batch.

    Attributes:
        reconstruction: `[B, H, W, C] float32`.
        kls: KL in nats of every level from the global latent on, each `[B, ..., d] float32`.
        z_mean: `[B, d] float32`, posterior means of the global latent.
        coarse: `[B, H, W, 1] float32`, a first restoration, or None if the network makes none.
    """

    reconstruction: tf.Tensor
    kls: tuple[tf.Tensor, ...]
    z_mean: tf.Tensor
    coarse: tf.Tensor | None = None


@keras.saving.register_keras_serializable("vae_aug")
class VAE(keras.Model):
    """A variational autoencoder of grey images with one latent vector, profile `vector`.

    Grey image -> 3x3 convolution with 3 filters -> backbone's pooled features -> dense layer of
    `latent_dim` values, halved in mean and log variance -> mirrored decoder -> three channels.

    Attributes:
        config: The `ModelConfig`.
        digest: Hex digest of the checkpoint it was loaded from, "" for a fresh network.
        checkpoint_name: Name of that checkpoint, without its folder.
        patients: Salted hashes of the patients it was trained on, as far as its checkpoint knows.
        aggregate_mean: `[d] float32`, mean of the posterior means over the training set.
        aggregate_std: `[d] float32`, standard deviation of draws over the training set.
    """

    def __init__(
        self, config: ModelConfig, *, encoder_weights: str | None = None, name: str = "vae"
    ) -> None:
        """Build every layer.

        Args:
            config: The architecture.
            encoder_weights: As `make_encoder`; None for random weights.
            name: Name of the model, which begins the names of its own variables.
        """
        super().__init__(name=name)
        self.config = config
        self.digest = self.checkpoint_name = ""
        self.patients: frozenset[str] = frozenset()
        size, depth = config.image_size, config.latent_dim // 2
        # Starts as three copies of the image, which is what pretrained filters expect of grey.
        self.first = keras.layers.Conv2D(
            3, 3, padding="same", kernel_initializer=copy_centre, name="grey_to_three"
        )
        self.first.build((None, size, size, 1))
        self.backbone = make_encoder(config.encoder, size, encoder_weights)
        self.latent = keras.layers.Dense(config.latent_dim, name="latent")
        self.latent.build(self.backbone.output_shape)
        self.decoder = make_decoder(config)
        self.aggregate_mean = self.add_weight(
            shape=(depth,), initializer="zeros", trainable=False, name="aggregate_mean"
        )
        self.aggregate_std = self.add_weight(
            shape=(depth,), initializer="ones", trainable=False, name="aggregate_std"
        )
        _ = self._trunk  # made during a trace, it would leave its mark on the graph's names
        self.built = True

    def encode(self, images: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Describe images by the posterior over their latent vector.

        Args:
            images: `[B, S, S, 1] float32 in [0, 1]`.
            training: Whether batch normalisation uses the batch's statistics.

        Returns:
            `z_mean` and `z_log_var`, each `[B, latent_dim / 2] float32`.
        """
        features = self.backbone(self.first(images), training=training)
        return split_latent(tf.cast(self.latent(features), tf.float32))

    def decode(self, z: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Draw the images that latent vectors stand for.

        Args:
            z: `[B, latent_dim / 2] float32`.
            training: Whether batch normalisation uses the batch's statistics.

        Returns:
            `[B, S, S, 3] float32 in [0, 1]`.
        """
        return tf.cast(self.decoder(z, training=training), tf.float32)

    def _decode_grey(self, z: tf.Tensor) -> tf.Tensor:
        """Average the channels of `decode`: `[B, latent_dim / 2]` to `[B, S, S, 1]`.

        They are averaged before the last layer lays them out as pixels, which is a third of the
        work then.
        """
        blocks = self.decoder.get_layer("stem").compute_blocks(self._trunk(z))
        coloured = tf.sigmoid(tf.cast(blocks, tf.float32))  # three channels for each of four pixels
        height, width = blocks.shape[1:3]
        grey = tf.reduce_mean(tf.reshape(coloured, [-1, height, width, 4, 3]), axis=-1)
        return lay_out(grey)

    @functools.cached_property
    def _trunk(self) -> keras.Model:
        """The decoder up to its last layer; as a cached property, not one of the layers to save."""
        # The name is in every traced graph, and so in the digest that a converted one is kept by.
        stem = self.decoder.get_layer("stem")
        return keras.Model(self.decoder.input, stem.input, name="decoder_trunk")

    def forward(
        self, images: tf.Tensor, seed: tf.Tensor | None = None, *, training: bool = False
    ) -> Draw:
        """Encode and decode images, with everything that a loss needs.

        Args:
            images: `[B, S, S, 1] float32 in [0, 1]`.
            seed: `[2] int32` of the draw; None decodes posterior means.
            training: Whether batch normalisation uses the batch's statistics.

        Returns:
            The draw.
        """
        z_mean, z_log_var = self.encode(images, training)
        z = z_mean
        if seed is not None:
            noise = tf.random.stateless_normal(tf.shape(z_mean), seed)
            z = sample_posterior(z_mean, z_log_var, noise)
        return Draw(self.decode(z, training), (kl_divergence(z_mean, z_log_var),), z_mean)

    def reconstruct(self, images: tf.Tensor) -> tf.Tensor:
        """Decode the posterior mean: `[B, S, S, 1]` to `[B, S, S, 3]`, both float32 in [0, 1]."""
        return self.decode(self.encode(images)[0])

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Decode the posterior mean, as Keras expects of a model."""
        return self.decode(self.encode(images, training)[0], training)

    def vary(
        self,
        images: tf.Tensor,
        *,
        mode: str,
        factor: float | tf.Tensor,
        seeds: tf.Tensor,
        alone: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Reconstruct images and draw a variant of each.

        Args:
            images: `[B, S, S, 1] float32 in [0, 1]`.
            mode: `"denoise"`, `"sample"` or `"interpolate"`.
            factor: Strength from 0; 1 is the posterior's own spread, or the other image.
            seeds: `[B, 2] int32`; what is drawn for an image depends on its own seed alone.
            alone: For `"interpolate"`: the image has no neighbours in the batch, so it moves
                towards a draw from the training set's aggregate posterior.

        Returns:
            Reconstruction and variant, each `[B, S, S, 1] float32 in [0, 1]`, the mean of the
            three channels. For `"denoise"` they are the same.
        """
        z_mean, z_log_var = self.encode(images)
        if mode == "denoise":
            reconstruction = self._decode_grey(z_mean)
            return reconstruction, reconstruction
        z = self._draw(z_mean, z_log_var, mode, factor, seeds, alone)
        both = self._decode_grey(tf.concat([z_mean, z], axis=0))
        reconstruction, variant = tf.split(both, 2, axis=0)
        return reconstruction, variant

    def describe(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Compute what is the same in every draw, for `redraw`.

        Args:
            images: `[B, S, S, 1] float32 in [0, 1]`.

        Returns:
            `"reconstruction"` `[B, S, S, 1] float32 in [0, 1]`, and `"z_mean"` and `"z_log_var"`,
            each `[B, latent_dim / 2] float32`.
        """
        z_mean, z_log_var = self.encode(images)
        reconstruction = self._decode_grey(z_mean)
        return {"reconstruction": reconstruction, "z_mean": z_mean, "z_log_var": z_log_var}

    def redraw(
        self,
        known: dict[str, tf.Tensor],
        *,
        mode: str,
        factor: float | tf.Tensor,
        seeds: tf.Tensor,
        alone: bool = False,
    ) -> tf.Tensor:
        """Draw a variant of each described image, as `vary` does, without the encoder.

        Args:
            known: From `describe`.
            mode: `"sample"` or `"interpolate"`.
            factor: As for `vary`.
            seeds: As for `vary`.
            alone: As for `vary`.

        Returns:
            `[B, S, S, 1] float32 in [0, 1]`.
        """
        z = self._draw(known["z_mean"], known["z_log_var"], mode, factor, seeds, alone)
        return self._decode_grey(z)

    def _draw(
        self,
        z_mean: tf.Tensor,
        z_log_var: tf.Tensor,
        mode: str,
        factor: float | tf.Tensor,
        seeds: tf.Tensor,
        alone: bool,
    ) -> tf.Tensor:
        """Draw latent vectors, as `vary` says: `[B, latent_dim / 2] float32`."""
        noise = draw_normal(fold_in(seeds, _NOISE), tuple(z_mean.shape[1:]))
        if mode == "sample":
            return sample_posterior(z_mean, z_log_var, noise, factor)
        drawn = self.aggregate_mean + self.aggregate_std * noise
        share = factor * draw_uniform(fold_in(seeds, _STEP))
        return interpolate(z_mean, drawn, share, alone=alone)

    def move_towards(
        self, images: tf.Tensor, z_other: tf.Tensor, share: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Move the latents of images some of the way to others.

        Args:
            images: `[B, S, S, 1] float32 in [0, 1]`.
            z_other: `[B, d] float32`, e.g. the `z_mean` of other images.
            share: `[B] float32`, 0 for the image's own latent, 1 for the other.

        Returns:
            Reconstruction and moved image, each `[B, S, S, 1] float32 in [0, 1]`.
        """
        z_mean, _ = self.encode(images)
        moved = z_mean + share[:, None] * (z_other - z_mean)
        return self._decode_grey(z_mean), self._decode_grey(moved)

    def get_config(self) -> dict[str, Any]:
        """Return the configuration from which `from_config` builds the same architecture."""
        return {"config": self.config.to_dict(), "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> VAE:
        """Build the architecture of a `get_config`, with random weights."""
        return cls(ModelConfig.from_dict(config["config"]), name=config["name"])


def copy_centre(shape: tuple[int, ...], dtype: Any = None) -> np.ndarray:
    """Make a kernel whose every filter copies the pixel it stands on."""
    kernel = np.zeros(shape, np.float32)
    kernel[shape[0] // 2, shape[1] // 2] = 1.0
    return kernel
