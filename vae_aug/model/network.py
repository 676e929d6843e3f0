"""The base class of the networks of all profiles."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import keras
import tensorflow as tf

from vae_aug.config import ModelConfig
from vae_aug.model.latent import interpolate, sample_posterior
from vae_aug.model.noise import Noise, NoiseSpec, Side


class Decoded(NamedTuple):
    """A batch as a network decodes it, with everything that a loss needs.

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


class Network(keras.Model):
    """A variational autoencoder of grey images.

    Images are `[B, H, W, 1] float32 in [0, 1]`; H and W are `config.input_size` if that is set.

    Attributes:
        config: The `ModelConfig`.
        digest: Hex digest of the checkpoint it was loaded from, "" for a fresh network.
        checkpoint_name: Name of that checkpoint, without its folder.
        patients: Salted hashes of the patients it was trained on, from its checkpoint.
        aggregate_mean: `[d] float32`, mean of the posterior means over the training set.
        aggregate_std: `[d] float32`, standard deviation of samples over the training set.
    """

    def __init__(self, config: ModelConfig, name: str) -> None:
        """Make the variables of all networks; the profiles add their layers."""
        super().__init__(name=name)
        self.config = config
        self.digest = self.checkpoint_name = ""
        self.patients: frozenset[str] = frozenset()
        self.aggregate_mean, self.aggregate_std = (
            self.add_weight(
                shape=(config.latent_dim // 2,),
                initializer=initializer,
                trainable=False,
                name=f"aggregate_{part}",
            )
            for part, initializer in (("mean", "zeros"), ("std", "ones"))
        )

    @staticmethod
    def list_noise(
        config: ModelConfig, mode: str, height: Side = None, width: Side = None
    ) -> dict[str, NoiseSpec]:
        """List the noise that `vary`, `redraw` and, for `"sample"`, `forward` take.

        Args:
            config: The architecture.
            mode: `"denoise"`, which takes none, `"sample"` or `"interpolate"`.
            height: Of the images in pixels; None leaves it open in the shapes.
            width: Of the images, likewise.

        Returns:
            Standard normal `"z"` `[d]`, which moves the global latent; for `"interpolate"` also
            uniform `"share"` `[]`, how far it moves; and the noise that a profile adds.
        """
        specs = {"z": NoiseSpec(0, (config.latent_dim // 2,)), "share": NoiseSpec(1, (), True)}
        names = {"denoise": (), "sample": ("z",), "interpolate": ("z", "share")}[mode]
        return {name: specs[name] for name in names}

    def encode(self, images: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Describe images by the posterior over their global latent.

        Args:
            images: `[B, H, W, 1] float32 in [0, 1]`.
            training: Whether batch normalisation uses the batch's statistics.

        Returns:
            `z_mean` and `z_log_var`, each `[B, d] float32`.
        """
        raise NotImplementedError

    def forward(
        self, images: tf.Tensor, noise: Noise | None = None, *, training: bool = False
    ) -> Decoded:
        """Encode and decode images, with everything that a loss needs.

        Args:
            images: `[B, H, W, 1] float32 in [0, 1]`.
            noise: As `list_noise` says for `"sample"`; None decodes posterior means.
            training: Whether batch normalisation uses the batch's statistics.

        Returns:
            The decoded batch.
        """
        raise NotImplementedError

    def reconstruct(self, images: tf.Tensor) -> tf.Tensor:
        """Decode the posterior means: `[B, H, W, 1]` to `[B, H, W, C] float32 in [0, 1]`."""
        return self.forward(images).reconstruction

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Decode the posterior means, as Keras expects of a model."""
        return self.forward(images, training=training).reconstruction

    def vary(
        self,
        images: tf.Tensor,
        noise: Noise,
        *,
        mode: str,
        factor: float | tf.Tensor,
        alone: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Reconstruct images and make a variant of each.

        Args:
            images: `[B, H, W, 1] float32 in [0, 1]`.
            noise: As `list_noise` says, a row for each image.
            mode: `"denoise"`, `"sample"` or `"interpolate"`.
            factor: Strength from 0; 1 is the posterior's own spread, or the other image.
            alone: For `"interpolate"`: the image has no neighbours in the batch, so it moves
                towards a sample of the training set's aggregate posterior.

        Returns:
            Reconstruction and variant, each `[B, H, W, 1] float32 in [0, 1]`. For `"denoise"`
            they are the same.
        """
        raise NotImplementedError

    def describe(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Compute what is the same in every variant, for `redraw`.

        Args:
            images: `[B, H, W, 1] float32 in [0, 1]`.

        Returns:
            `"reconstruction"` `[B, H, W, 1] float32 in [0, 1]`, and what a profile adds.
        """
        raise NotImplementedError

    def redraw(
        self,
        known: dict[str, tf.Tensor],
        noise: Noise,
        *,
        mode: str,
        factor: float | tf.Tensor,
        alone: bool = False,
    ) -> tf.Tensor:
        """Make a variant of each image, as `vary` does, from what `describe` computed.

        Args:
            known: From `describe`, and `"image"` `[B, H, W, 1] float32 in [0, 1]`.
            noise: As for `vary`.
            mode: `"sample"` or `"interpolate"`.
            factor: As for `vary`.
            alone: As for `vary`.

        Returns:
            `[B, H, W, 1] float32 in [0, 1]`.
        """
        raise NotImplementedError

    def move_latent(
        self,
        z_mean: tf.Tensor,
        z_log_var: tf.Tensor,
        noise: Noise,
        mode: str,
        factor: float | tf.Tensor,
        alone: bool,
    ) -> tf.Tensor:
        """Sample global latents, or move them towards others, see `vary`: `[B, d] float32`."""
        if mode == "sample":
            return sample_posterior(z_mean, z_log_var, noise["z"], factor)
        other = self.aggregate_mean + self.aggregate_std * noise["z"]
        return interpolate(z_mean, other, factor * noise["share"], alone=alone)

    def get_config(self) -> dict[str, Any]:
        """Return the configuration from which `from_config` builds the same architecture."""
        return {"config": self.config.to_dict(), "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Build the architecture of a `get_config`, with random weights."""
        return cls(ModelConfig.from_dict(config["config"]), name=config["name"])
