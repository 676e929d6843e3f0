"""Train a `TransformationVAE` on pairs of similar images of different patients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from vae_aug.config import check_range
from vae_aug.model.fields import SQUARE, Fields, apply_tones, limit_stretch, make_weights
from vae_aug.model.latent import sample_posterior
from vae_aug.model.loss import kl_divergence
from vae_aug.model.transformation import TransformationVAE

_COARSE = 16
"""Side in pixels of the images in which partners are sought."""

_WINDOWS = (16, 32)
"""Sides in pixels of the windows whose means and standard deviations are compared."""

_PATTERN = 8
"""Side in pixels of the windows whose pattern is compared, at three scales of the image."""

_SCALES = 3

_MIN_SPREAD = 1e-2
"""Standard deviation of grey values that counts as flat, in parts of the range."""


@dataclasses.dataclass(frozen=True)
class TransformationConfig:
    """How a `TransformationVAE` is trained.

    Attributes:
        steps: Steps of the optimiser.
        batch_size: Pairs of a step.
        partners: Images of other patients, the most similar ones, of which each image's partner is
            chosen.
        beta: Weight of the KL divergence, after a linear rise over a fifth of the steps.
        tone_weight: Weight of the difference of windows' means and standard deviations.
        pattern_weight: Weight of what windows' correlation lacks to 1.
        roughness_weight: Weight of the roughness of displacements in pixels and of log slopes.
        learning_rate: Of Adam, which falls to nearly zero as a cosine.
        seed: Of weights, pairs and noise.
    """

    steps: int = 2000
    batch_size: int = 16
    partners: int = 12
    beta: float = 0.003
    tone_weight: float = 10.0
    pattern_weight: float = 2.0
    roughness_weight: float = 0.01
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("steps", "batch_size", "partners"):
            check_range(name, getattr(self, name), 1)


def find_partners(squares: np.ndarray, patients: Sequence[str], count: int) -> np.ndarray:
    """Find images of other patients that show the same anatomy.

    Similarity is the correlation of the images at 16 x 16 pixels.

    Args:
        squares: `[N, SQUARE, SQUARE, 1] float32`.
        patients: The patient of each image; one name an image where none is known.
        count: How many partners are wanted.

    Returns:
        `[N, min(count, ...)] int64`, the most similar first; as many as every image has at least.

    Raises:
        ValueError: If all images are of one patient.
    """
    side = SQUARE // _COARSE
    coarse = squares.reshape(len(squares), _COARSE, side, _COARSE, side).mean(axis=(2, 4))
    flat = coarse.reshape(len(coarse), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    names = np.unique(np.asarray(patients), return_inverse=True)[1]
    others = len(names) - np.bincount(names).max()
    if others == 0:
        raise ValueError(
            "Transformations are learned between patients, and all images are of one. Add images "
            "of others, or say which patient each image is of."
        )
    kept = min(count, int(others))
    partners = np.empty((len(flat), kept), np.int64)
    for index, row in enumerate(flat):
        similarity = np.where(names == names[index], -np.inf, flat @ row)
        partners[index] = np.argsort(-similarity, kind="stable")[:kept]
    return partners


def train_transformation(
    squares: np.ndarray,
    patients: Sequence[str],
    config: TransformationConfig | None = None,
    *,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> TransformationVAE:
    """Train a network on how images of a set differ from patient to patient.

    Args:
        squares: `[N, SQUARE, SQUARE, 1] float32 in [0, 1]`, from `make_squares`.
        patients: The patient of each image.
        config: The settings.
        progress: Called after every step with its number and figures: `tone` and `pattern`, the
            terms of the loss, `kl` in nats and `displacement`, its mean size in pixels of the
            square.

    Returns:
        The network.

    Raises:
        ValueError: If all images are of one patient.
    """
    config = config or TransformationConfig()
    keras.utils.set_random_seed(config.seed)
    partners = find_partners(squares, patients, config.partners)
    network = TransformationVAE()
    step = make_step(network, config)
    rng = np.random.default_rng(config.seed)
    for number in range(1, config.steps + 1):
        chosen = rng.integers(len(squares), size=config.batch_size)
        partner = partners[chosen, rng.integers(partners.shape[1], size=config.batch_size)]
        pair = np.stack([squares[chosen], squares[partner]])
        mirrored = rng.random(config.batch_size) < 0.5
        pair[:, mirrored] = pair[:, mirrored, :, ::-1]
        figures = step(*pair, tf.constant(number))
        if progress is not None:
            progress(number, {name: float(figure) for name, figure in figures.items()})
    return network


def make_step(
    network: TransformationVAE, config: TransformationConfig
) -> Callable[..., dict[str, tf.Tensor]]:
    """Make the graph of a step of training: `(images, partners, number)` to figures."""
    variables = network.trainable_variables
    schedule = keras.optimizers.schedules.CosineDecay(config.learning_rate, config.steps, 0.02)
    optimizer = keras.optimizers.Adam(schedule, global_clipnorm=1.0)
    optimizer.build(variables)

    @tf.function(autograph=False)
    def step(images: tf.Tensor, partners: tf.Tensor, number: tf.Tensor) -> dict[str, tf.Tensor]:
        risen = tf.minimum(5.0 * tf.cast(number, tf.float32) / config.steps, 1.0)
        with tf.GradientTape() as tape:
            described = network.describe(tf.concat([images, partners], axis=0))
            features, others = tf.split(described, 2)
            z_mean, z_log_var = network.encode(features, others)
            noise = tf.random.stateless_normal(tf.shape(z_mean), tf.stack([config.seed, number]))
            z = sample_posterior(z_mean, z_log_var, noise)
            fields = network.decode(features, z, tf.ones_like(z[:, 0]))
            changed, displacement = transform_squares(images, fields)
            tone = tf.reduce_mean(compare_tones(changed, partners))
            pattern = tf.reduce_mean(compare_patterns(changed, partners))
            kl = tf.reduce_mean(tf.reduce_sum(kl_divergence(z_mean, z_log_var), axis=-1))
            roughness = _measure_roughness(fields.displacement * SQUARE)
            roughness += _measure_roughness(fields.slopes)
            loss = config.tone_weight * tone + config.pattern_weight * pattern
            loss += config.roughness_weight * roughness + config.beta * risen * kl
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        size = tf.reduce_mean(tf.abs(displacement))
        return {"loss": loss, "tone": tone, "pattern": pattern, "kl": kl, "displacement": size}

    return step


def transform_squares(squares: tf.Tensor, fields: Fields) -> tuple[tf.Tensor, tf.Tensor]:
    """Apply transformations to squares by linear interpolation, which is fast with gradients.

    Args:
        squares: `[B, SQUARE, SQUARE, 1] float32 in [0, 1]`, without gradients.
        fields: The transformations, of which no box holds anything.

    Returns:
        `[B, SQUARE, SQUARE, 1] float32`, and the displacement in pixels
        `[B, SQUARE, SQUARE, 2] float32`.
    """
    weights = make_weights(SQUARE)
    points = limit_stretch(fields.displacement) * SQUARE
    displacement = tf.einsum("yi,xj,bijc->byxc", weights, weights, points)
    moved = _sample(squares, displacement)
    return apply_tones(moved, weights, weights, fields.slopes)[..., None], displacement


def _sample(squares: tf.Tensor, displacement: tf.Tensor) -> tf.Tensor:
    """Interpolate linearly where pixels are taken from: `[B, SQUARE, SQUARE]`."""
    places = tf.range(SQUARE, dtype=tf.float32)
    down, across = tf.unstack(displacement, axis=-1)
    last = SQUARE - 1.001
    rows = tf.clip_by_value(places[:, None] + down, 0.0, last)
    columns = tf.clip_by_value(places + across, 0.0, last)
    top, left = tf.floor(rows), tf.floor(columns)
    below, right = rows - top, columns - left
    images = tf.range(tf.shape(squares)[0])[:, None, None] * SQUARE**2
    first = images + tf.cast(top, tf.int32) * SQUARE + tf.cast(left, tf.int32)
    flat = tf.reshape(squares, [-1])
    a, b, c, d = (tf.gather(flat, first + offset) for offset in (0, 1, SQUARE, SQUARE + 1))
    upper, lower = a + right * (b - a), c + right * (d - c)
    return upper + below * (lower - upper)


def compare_tones(images: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Compare grey values and contrast window by window, whatever the pattern in them.

    A difference of pixels would be least for an image without contrast wherever the anatomy of two
    patients does not agree; the standard deviation of a window does not gain by that.

    Args:
        images: `[B, S, S, 1] float32`.
        others: The same shape.

    Returns:
        `[B] float32`, 0 where all windows agree.
    """
    differences = []
    for side in _WINDOWS:
        mean, variance = _measure_windows(images, side)
        other_mean, other_variance = _measure_windows(others, side)
        spread, other_spread = (
            tf.sqrt(part + _MIN_SPREAD**2) for part in (variance, other_variance)
        )
        difference = tf.abs(mean - other_mean) + tf.abs(spread - other_spread)
        differences.append(tf.reduce_mean(difference, axis=(1, 2, 3)))
    return tf.add_n(differences) / len(_WINDOWS)


def compare_patterns(images: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Compare the pattern of windows by their correlation, whatever their grey and contrast.

    Args:
        images: `[B, S, S, 1] float32`.
        others: The same shape; windows that are flat in them count little.

    Returns:
        `[B] float32`, 1 minus the correlation, mean over windows and scales.

    Reference: Avants et al., Symmetric diffeomorphic image registration with cross-correlation
    (2008).
    """
    lacking = []
    for _ in range(_SCALES):
        mean, variance = _measure_windows(images, _PATTERN)
        other_mean, other_variance = _measure_windows(others, _PATTERN)
        product = tf.nn.avg_pool2d(images * others, _PATTERN, _PATTERN // 2, "VALID")
        least = _MIN_SPREAD**2
        correlation = (product - mean * other_mean) * tf.math.rsqrt(
            (variance + least) * (other_variance + least)
        )
        weight = other_variance / (other_variance + 10.0 * least)
        total = tf.reduce_sum(weight, axis=(1, 2, 3)) + 1.0
        lacking.append(1.0 - tf.reduce_sum(weight * correlation, axis=(1, 2, 3)) / total)
        images, others = (tf.nn.avg_pool2d(x, 2, 2, "VALID") for x in (images, others))
    return tf.add_n(lacking) / _SCALES


def _measure_windows(images: tf.Tensor, side: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Measure mean and variance in windows that overlap by half."""
    mean = tf.nn.avg_pool2d(images, side, side // 2, "VALID")
    square = tf.nn.avg_pool2d(images * images, side, side // 2, "VALID")
    return mean, tf.maximum(square - mean * mean, 0.0)


def _measure_roughness(points: tf.Tensor) -> tf.Tensor:
    """Measure the mean squared first and second differences of control points."""
    total = tf.constant(0.0)
    for part in (points, tf.transpose(points, [0, 2, 1, 3])):
        first = part[:, 1:] - part[:, :-1]
        second = first[:, 1:] - first[:, :-1]
        total += tf.reduce_mean(tf.square(first)) + tf.reduce_mean(tf.square(second))
    return total
