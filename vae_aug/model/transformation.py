"""A conditional VAE of transformations: how images of one patient become those of another."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from vae_aug.letterbox import letterbox
from vae_aug.model.fields import GRID, SQUARE, TONES, Fields, transform_squares
from vae_aug.model.latent import split_latent
from vae_aug.model.noise import Noise, NoiseSpec

LATENT_DIM = 32
"""Length of the latent vector of a transformation."""

MAX_DISPLACEMENT = 8.0 / SQUARE
"""Most by which a control point displaces, in parts of the square's side."""

MAX_LOG_SLOPE = 1.2
"""Most by which the logarithm of a tone curve's slope differs from 0: slopes from 0.3 to 3.3."""

WHITE_SHARE = 0.005
"""Share of an image's pixels that may be brighter than what counts as its white."""

_HALVINGS = 16
"""Number of times that the range in which an image's white lies is halved."""

_CHANNELS = (24, 48, 64, 96)
"""Of the feature maps at strides 2, 4, 8 and 16."""


def find_white(squares: tf.Tensor) -> tf.Tensor:
    """Find the grey value that only the brightest pixels of an image exceed.

    The range in which it lies is halved again and again, since `tf.math.top_k` takes OpenVINO
    four times as long as the rest of the network.

    Args:
        squares: `[B, S, S, 1] float32`, black 0.

    Returns:
        `[B] float32`, more than 0; at most 2^-16 of the image's highest value too much.
    """
    pixels = tf.reshape(squares, [tf.shape(squares)[0], -1])
    count = max(round(WHITE_SHARE * squares.shape[1] * squares.shape[2]), 1)
    high = tf.reduce_max(pixels, axis=1)
    low = tf.minimum(high, 0.0)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        brighter = tf.reduce_sum(tf.cast(pixels > middle[:, None], tf.float32), axis=1)
        enough = brighter >= float(count)
        low, high = tf.where(enough, middle, low), tf.where(enough, high, middle)
    return tf.maximum(high, 1e-3)


def make_squares(grey: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Make what the network reads of images: squares whose white is 1.

    Args:
        grey: `[B, H, W, 1] float32`, black 0.

    Returns:
        `[B, SQUARE, SQUARE, 1] float32` in [0, 1], and `[B] float32`, the grey value of white.
    """
    squares = letterbox(grey, SQUARE)
    white = find_white(squares)
    return tf.clip_by_value(squares / white[:, None, None, None], 0.0, 1.0), white


def list_noise(mode: str, hardest_of: int = 1) -> dict[str, NoiseSpec]:
    """List the noise that `TransformationVAE.vary` takes.

    Args:
        mode: `"sample"` or `"interpolate"`.
        hardest_of: Samples among which one is chosen.

    Returns:
        Standard normal `"z"` `[LATENT_DIM]`, the latent vector of a transformation, or
        `[hardest_of, LATENT_DIM]` where there are several; for `"interpolate"` also uniform
        `"share"` `[]`, how much of the transformation is applied.
    """
    several = () if hardest_of == 1 else (hardest_of,)
    specs = {"z": NoiseSpec(0, (*several, LATENT_DIM)), "share": NoiseSpec(1, (), True)}
    return {name: specs[name] for name in ("z", "share")[: 1 if mode == "sample" else 2]}


class TransformationVAE(keras.Model):
    """A variational autoencoder p(T | x, z) of transformations, with the prior z ~ N(0, I).

    `encode` reads an image x and one of another patient, y, and describes by a posterior over z
    what makes x similar to y. `decode` turns x and z into `Fields`, which move pixels and change
    tones. A transformation that is sampled from the prior is one that the training set's patients
    and scanners may differ by; its image keeps the detail of x.

    Attributes:
        strength: Scalar float32, by which transformations that are sampled have to be multiplied
            to be as large as those between the patients of the training set.

    Reference: Kingma and Welling, Auto-Encoding Variational Bayes (2014); Sohn, Lee and Yan,
    Learning Structured Output Representation (2015); Krebs et al., Learning a Probabilistic Model
    for Diffeomorphic Registration (2019); Zhao et al., Data Augmentation Using Learned
    Transformations (2019).
    """

    def __init__(self, name: str = "transformation") -> None:
        """Build every layer, with random weights.

        Args:
            name: Name of the model, which begins the names of its variables: a ladder that has it
                as a part has layers of its own.
        """
        super().__init__(name=name)
        self.strength = self.add_weight(
            shape=(), initializer="ones", trainable=False, name="strength"
        )
        at2, at4, at8, at16 = _CHANNELS
        small = keras.initializers.RandomNormal(stddev=1e-3)

        def conv(part: str, channels: int, size: int, strides: int = 1) -> keras.layers.Conv2D:
            return keras.layers.Conv2D(
                channels, size, strides, "same", activation="relu", name=f"{name}_{part}"
            )

        def dense(part: str, length: int, **options: Any) -> keras.layers.Dense:
            return keras.layers.Dense(length, name=f"{name}_{part}", **options)

        def end(part: str, channels: int) -> keras.layers.Conv2D:
            return keras.layers.Conv2D(
                channels, 3, padding="same", kernel_initializer=small, name=f"{name}_{part}"
            )

        self.read = [
            conv(f"read{channels}", channels, size, strides=2)
            for channels, size in ((at2, 5), (at4, 3), (at8, 3))
        ]
        self.compare = [conv(f"compare{index}", at16, 3, strides=2) for index in range(2)]
        self.summarise = dense("summarise", 128, activation="relu")
        self.latent = dense("latent", 2 * LATENT_DIM, kernel_initializer=small)
        self.look = conv("look", at16, 3, strides=2)
        self.place = dense("place", (GRID // 2) ** 2 * 32, activation="relu")
        self.join = conv("join", at16, 3)
        self.narrow = keras.layers.Conv2D(at8, 1, name=f"{name}_narrow")
        self.modulate = dense("modulate", 2 * at8)
        self.refine = [conv(f"refine{index}", at8, 3) for index in range(2)]
        self.displacement, self.slopes = end("displacement", 2), end("slopes", TONES)
        self.tone = dense("tone", TONES, kernel_initializer=small)
        features = self.describe(tf.zeros([1, SQUARE, SQUARE, 1]))
        self.encode(features, features)
        self.decode(features, tf.zeros([1, LATENT_DIM]), tf.ones([1]))
        self.built = True

    def describe(self, squares: tf.Tensor) -> tf.Tensor:
        """Compute the features of images that `encode` and `decode` read.

        Args:
            squares: `[B, SQUARE, SQUARE, 1] float32 in [0, 1]`, from `make_squares`.

        Returns:
            `[B, GRID, GRID, 64] float32`.
        """
        features = squares - 0.5
        for layer in self.read:
            features = layer(features)
        return features

    def encode(self, features: tf.Tensor, others: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Describe what makes images similar to others, by a posterior over its latent vector.

        Args:
            features: Of the images, from `describe`.
            others: Of as many other images, likewise.

        Returns:
            `z_mean` and `z_log_var`, each `[B, LATENT_DIM] float32`.
        """
        pair = tf.concat([features, others], axis=-1)
        for layer in self.compare:
            pair = layer(pair)
        flat = tf.reshape(pair, [-1, (GRID // 4) ** 2 * _CHANNELS[-1]])
        return split_latent(self.latent(self.summarise(flat)))

    def vary(
        self,
        squares: tf.Tensor,
        noise: Noise,
        *,
        mode: str,
        factor: float | tf.Tensor,
        alone: bool = False,
    ) -> tf.Tensor:
        """Make a transformation of each image.

        `"sample"` decodes z from the prior, see `sample`, and where the noise has several for each
        image takes the sample of `find_hardest`. `"interpolate"` reads the transformation between
        an image and the one before it in the batch, no further than samples go, and applies a
        random share of it.

        Args:
            squares: `[B, SQUARE, SQUARE, 1] float32 in [0, 1]`, letterboxed.
            noise: As `list_noise` says, a row for each image.
            mode: `"sample"` or `"interpolate"`.
            factor: Strength from 0; at 1 a transformation is as large as those between patients
                of the training set.
            alone: For `"interpolate"`: the image has no neighbours in the batch, so a sample
                takes the place of the transformation that would be read.

        Returns:
            `[B, PACKED] float32`, see `Fields.pack`.
        """
        scaled, white = make_squares(squares)
        features = self.describe(scaled)
        share = noise["share"] if mode == "interpolate" else 1.0
        if mode == "interpolate" and not alone:
            z, _ = self.encode(features, tf.roll(features, 1, axis=0))
            fields = self.decode(features, _bound_length(z), white)
        else:
            z = noise["z"]
            if z.shape.rank == 3:
                z = self.find_hardest(scaled, features, z, factor)
            fields = self.sample(features, z, white).scale(self.strength)
        return fields.scale(factor * share).pack()

    def find_hardest(
        self, squares: tf.Tensor, features: tf.Tensor, z: tf.Tensor, factor: float | tf.Tensor
    ) -> tf.Tensor:
        """Find the sample of each image whose features lie furthest from the image's own.

        Args:
            squares: `[B, SQUARE, SQUARE, 1] float32 in [0, 1]`, from `make_squares`.
            features: Theirs, from `describe`.
            z: `[B, K, LATENT_DIM] float32`, from the prior.
            factor: Strength, as of `vary`.

        Returns:
            `[B, LATENT_DIM] float32`, some of z.

        Reference: Chen et al., MaxStyle: Adversarial Style Composition (2022), which looks for the
        hardest style by gradients instead.
        """
        count = z.shape[1]
        repeated = tf.repeat(squares, count, axis=0)
        own = tf.repeat(features, count, axis=0)
        flat = tf.reshape(z, [-1, LATENT_DIM])
        fields = self.sample(own, flat, tf.ones_like(flat[:, 0]))
        changed, _ = transform_squares(repeated, fields.scale(self.strength * factor))
        away = tf.reduce_mean(tf.square(self.describe(changed) - own), axis=(1, 2, 3))
        hardest = tf.argmax(tf.reshape(away, [-1, count]), axis=1)
        return tf.gather(z, hardest, batch_dims=1)

    def sample(self, features: tf.Tensor, z: tf.Tensor, white: tf.Tensor) -> Fields:
        """Make the transformations that differ from the most common one as `decode`'s of z do.

        What all transformations of an image have in common makes it more like the others of the
        training set: less contrast than it has, if it has much. That is taken off, so that samples
        lie around the image itself.

        Args:
            features: Of the images, from `describe`.
            z: `[B, LATENT_DIM] float32`, from the prior.
            white: `[B] float32`, from `make_squares`.

        Returns:
            The transformations, a batch of them.
        """
        sampled = self.decode(features, z, white)
        common = self.decode(features, tf.zeros_like(z), white)
        return Fields(
            sampled.displacement - common.displacement, sampled.slopes - common.slopes, white
        )

    def decode(self, features: tf.Tensor, z: tf.Tensor, white: tf.Tensor) -> Fields:
        """Turn latent vectors into transformations of images.

        Args:
            features: Of the images, from `describe`.
            z: `[B, LATENT_DIM] float32`.
            white: `[B] float32`, from `make_squares`.

        Returns:
            The transformations, a batch of them.
        """
        half = GRID // 2
        placed = tf.reshape(self.place(z), [-1, half, half, 32])
        joined = self.narrow(self.join(tf.concat([self.look(features), placed], axis=-1)))
        scale, offset = tf.split(self.modulate(z)[:, None, None], 2, axis=-1)
        doubled = tf.repeat(tf.repeat(joined, 2, axis=1), 2, axis=2)
        refined = self.refine[0](tf.nn.relu(features + doubled))
        refined = self.refine[1](refined * (1.0 + scale) + offset)
        slopes = self.slopes(refined) + self.tone(z)[:, None, None]
        displacement = self.displacement(refined) / SQUARE
        return Fields(_bound(displacement, MAX_DISPLACEMENT), _bound(slopes, MAX_LOG_SLOPE), white)


def _bound_length(z: tf.Tensor) -> tf.Tensor:
    """Shorten latent vectors that are longer than the prior's, as those of unlike images."""
    length = tf.norm(z, axis=-1, keepdims=True)
    return z * tf.minimum(LATENT_DIM**0.5 / tf.maximum(length, 1e-6), 1.0)


def _bound(x: tf.Tensor, most: float) -> tf.Tensor:
    """Bound values smoothly, those near 0 hardly at all."""
    return most * tf.tanh(x / most)
