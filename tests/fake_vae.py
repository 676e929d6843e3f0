"""Networks with the interface of those in `vae_aug.model` whose values can be worked by hand."""

from __future__ import annotations

import tensorflow as tf

from vae_aug.config import ModelConfig
from vae_aug.model.noise import NoiseSpec, sample_noise


def vary(network, images, seeds, *, mode, **settings):
    """Vary images by noise that is sampled from seeds, as the transform does."""
    specs = network.list_noise(network.config, mode, *images.shape[1:3])
    return network.vary(images, sample_noise(seeds, specs), mode=mode, **settings)


class FakeVAE:
    """Reconstructs half the grey value; a variant is that plus noise of 0.1 per pixel.

    With the profile `"ladder"` it is given images in their own size.
    """

    digest = "fake"
    patients: frozenset[str] = frozenset()
    variables = ()

    def __init__(self, image_size: int = 32, noise: float = 0.1, profile: str = "vector"):
        self.config = ModelConfig(image_size=image_size, profile=profile)
        self.noise = noise

    @staticmethod
    def list_noise(config, mode, height=None, width=None):
        return {"z": NoiseSpec(0, (1,)), "pixels": NoiseSpec(1, (height, width, 1))}

    def vary(self, images, noise, *, mode, factor, alone=False):
        reconstruction = 0.5 * images
        if mode == "denoise":
            return reconstruction, reconstruction
        if mode == "interpolate" and not alone:
            neighbour = tf.roll(reconstruction, 1, axis=0)
            return reconstruction, reconstruction + factor * (neighbour - reconstruction)
        return reconstruction, reconstruction + self.noise * factor * noise["pixels"]

    def describe(self, images):
        mean, log_var = self.encode(images)
        return {"reconstruction": 0.5 * images, "z_mean": mean, "z_log_var": log_var}

    def redraw(self, known, noise, *, mode, factor, alone=False):
        images = 2.0 * known["reconstruction"]
        return self.vary(images, noise, mode=mode, factor=factor, alone=alone)[1]

    def encode(self, images):
        mean = tf.reduce_mean(images, axis=(1, 2))
        return mean, tf.zeros_like(mean)


class BrighteningVAE(FakeVAE):
    """Reconstructs exactly; a variant is 0.25 brighter everywhere."""

    def vary(self, images, noise, *, mode, factor, alone=False):
        return images, images + 0.25 * factor


class ErasingVAE(FakeVAE):
    """Reconstructs exactly; a variant is empty, so that no box survives."""

    def vary(self, images, noise, *, mode, factor, alone=False):
        return (images, tf.zeros_like(images)) if mode != "denoise" else (images * 0, images * 0)


class CountingVAE(FakeVAE):
    """Reconstructs exactly; a variant is 0.01 brighter for each image that is seen with it."""

    def vary(self, images, noise, *, mode, factor, alone=False):
        return images, images + 0.01 * tf.cast(tf.shape(images)[0], tf.float32)
