"""The published network: grey image, three filters, backbone, latent halves, mirrored decoder."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vae_aug.config import ModelConfig
from vae_aug.model.decoder import lay_out, make_decoder
from vae_aug.model.encoder import make_encoder
from vae_aug.model.latent import sample_posterior, split_latent
from vae_aug.model.loss import kl_divergence
from vae_aug.model.network import Decoded, Network
from vae_aug.model.noise import Noise


@keras.saving.register_keras_serializable("vae_aug")
class VAE(Network):
    """A variational autoencoder of grey images with one latent vector, profile `vector`.

    Grey image -> 3x3 convolution with 3 filters -> backbone's pooled features -> dense layer of
    `latent_dim` values, halved in mean and log variance -> mirrored decoder -> three channels.
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
        super().__init__(config, name)
        size = config.image_size
        # Starts as three copies of the image, which is what pretrained filters expect of grey.
        self.first = keras.layers.Conv2D(
            3, 3, padding="same", kernel_initializer=copy_centre, name="grey_to_three"
        )
        self.first.build((None, size, size, 1))
        self.backbone = make_encoder(config.encoder, size, encoder_weights)
        self.latent = keras.layers.Dense(config.latent_dim, name="latent")
        self.latent.build(self.backbone.output_shape)
        self.decoder = make_decoder(config)
        _ = self._trunk  # built during a trace, it would change the names in the graph
        self.built = True

    def encode(self, images: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Describe images by the posterior over their latent vector; see `Network`."""
        features = self.backbone(self.first(images), training=training)
        return split_latent(tf.cast(self.latent(features), tf.float32))

    def decode(self, z: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Decode latent vectors to images.

        Args:
            z: `[B, latent_dim / 2] float32`.
            training: Whether batch normalisation uses the batch's statistics.

        Returns:
            `[B, S, S, 3] float32 in [0, 1]`.
        """
        return tf.cast(self.decoder(z, training=training), tf.float32)

    def _decode_grey(self, z: tf.Tensor) -> tf.Tensor:
        """Average the channels of `decode`: `[B, latent_dim / 2]` to `[B, S, S, 1]`.

        They are averaged before they are laid out as pixels, which then costs a third.
        """
        blocks = self.decoder.get_layer("stem").compute_blocks(self._trunk(z))
        coloured = tf.sigmoid(tf.cast(blocks, tf.float32))  # three channels for each of four pixels
        height, width = blocks.shape[1:3]
        grey = tf.reduce_mean(tf.reshape(coloured, [-1, height, width, 4, 3]), axis=-1)
        return lay_out(grey)

    @functools.cached_property
    def _trunk(self) -> keras.Model:
        """The decoder up to its last layer; a cached property, so that Keras does not save it."""
        # The name is part of every traced graph, whose digest names the converted one in the cache.
        stem = self.decoder.get_layer("stem")
        return keras.Model(self.decoder.input, stem.input, name="decoder_trunk")

    def forward(
        self, images: tf.Tensor, noise: Noise | None = None, *, training: bool = False
    ) -> Decoded:
        """Encode and decode images to three channels; see `Network`."""
        z_mean, z_log_var = self.encode(images, training)
        z = z_mean
        if noise is not None:
            z = sample_posterior(z_mean, z_log_var, noise["z"])
        return Decoded(self.decode(z, training), (kl_divergence(z_mean, z_log_var),), z_mean)

    def vary(
        self,
        images: tf.Tensor,
        noise: Noise,
        *,
        mode: str,
        factor: float | tf.Tensor,
        alone: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Reconstruct images and make a variant of each, averaged over channels; see `Network`."""
        z_mean, z_log_var = self.encode(images)
        if mode == "denoise":
            reconstruction = self._decode_grey(z_mean)
            return reconstruction, reconstruction
        z = self.move_latent(z_mean, z_log_var, noise, mode, factor, alone)
        both = self._decode_grey(tf.concat([z_mean, z], axis=0))
        reconstruction, variant = tf.split(both, 2, axis=0)
        return reconstruction, variant

    def describe(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Compute what is the same in every variant; see `Network`.

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
        noise: Noise,
        *,
        mode: str,
        factor: float | tf.Tensor,
        alone: bool = False,
    ) -> tf.Tensor:
        """Make a variant of each described image without the encoder; see `Network`."""
        z = self.move_latent(known["z_mean"], known["z_log_var"], noise, mode, factor, alone)
        return self._decode_grey(z)


def copy_centre(shape: tuple[int, ...], dtype: Any = None) -> np.ndarray:
    """Make a kernel whose every filter copies the pixel it stands on."""
    kernel = np.zeros(shape, np.float32)
    kernel[shape[0] // 2, shape[1] // 2] = 1.0
    return kernel
