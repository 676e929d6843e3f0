"""Networks with the interface of those in `vae_aug.model` whose values can be worked by hand."""

from __future__ import annotations

import types

import tensorflow as tf


class FakeVAE:
    """Reconstructs half the grey value; a variant is that plus noise of 0.1 per pixel.

    With the profile `"ladder"` it is given images in their own size.
    """

    digest = "fake"

    def __init__(self, image_size: int = 32, noise: float = 0.1, profile: str = "vector"):
        self.config = types.SimpleNamespace(image_size=image_size, profile=profile)
        self.noise = noise

    def vary(self, images, *, mode, factor, seeds, alone=False):
        reconstruction = 0.5 * images
        if mode == "denoise":
            return reconstruction, reconstruction
        if mode == "interpolate" and not alone:
            neighbour = tf.roll(reconstruction, 1, axis=0)
            return reconstruction, reconstruction + factor * (neighbour - reconstruction)
        noise = tf.map_fn(
            lambda seed: tf.random.stateless_normal(tf.shape(images)[1:], seed),
            seeds,
            fn_output_signature=tf.TensorSpec(images.shape[1:], tf.float32),
        )
        return reconstruction, reconstruction + self.noise * factor * noise

    def describe(self, images):
        mean, log_var = self.encode(images)
        return {"reconstruction": 0.5 * images, "z_mean": mean, "z_log_var": log_var}

    def redraw(self, known, *, mode, factor, seeds, alone=False):
        images = 2.0 * known["reconstruction"]
        return self.vary(images, mode=mode, factor=factor, seeds=seeds, alone=alone)[1]

    def encode(self, images):
        mean = tf.reduce_mean(images, axis=(1, 2))
        return mean, tf.zeros_like(mean)

    def move_towards(self, images, z_other, share):
        moved = share[:, None] * (z_other - self.encode(images)[0])
        return images, images + moved[:, None, None]


class BrighteningVAE(FakeVAE):
    """Reconstructs exactly; a variant is 0.25 brighter everywhere."""

    def vary(self, images, *, mode, factor, seeds, alone=False):
        return images, images + 0.25 * factor


class ErasingVAE(FakeVAE):
    """Reconstructs exactly; a variant is empty, so that no box survives."""

    def vary(self, images, *, mode, factor, seeds, alone=False):
        return (images, tf.zeros_like(images)) if mode != "denoise" else (images * 0, images * 0)


class CountingVAE(FakeVAE):
    """Reconstructs exactly; a variant is 0.01 brighter for each image that is seen with it."""

    def vary(self, images, *, mode, factor, seeds, alone=False):
        return images, images + 0.01 * tf.cast(tf.shape(images)[0], tf.float32)
