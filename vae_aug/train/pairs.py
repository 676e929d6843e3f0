"""Train a `TransformationVAE` on pairs of similar images of different patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import keras
import numpy as np
import tensorflow as tf

from vae_aug.config import VariationConfig
from vae_aug.model.fields import SQUARE, transform_squares
from vae_aug.model.latent import sample_posterior
from vae_aug.model.loss import kl_divergence
from vae_aug.model.transformation import LATENT_DIM, TransformationVAE
from vae_aug.train.run_files import TrainingError
from vae_aug.train.state import restore_files, save_files

_COARSE = 16
"""Side in pixels of the images in which partners are sought."""

ALIKE = 0.6
"""Correlation from which on two images are taken to show the same anatomy."""

_WINDOWS = (16, 32)
"""Sides in pixels of the windows whose means and standard deviations are compared."""

_PATTERN = 8
"""Side in pixels of the windows whose pattern is compared, at three scales of the image."""

_SCALES = 3

STRENGTHS = (0.25, 2.0)
"""Least and most by which samples are multiplied."""

_TURN, _ZOOM, _SHIFT, _GAMMA = 20.0, 0.2, 0.08, 0.35
"""What a `jitter` of 1 does at most: degrees, log of a factor, parts of a side, log of gamma."""

_CALIBRATION_PAIRS, _HALVINGS = 256, 8

_MIN_SPREAD = 1e-2
"""Standard deviation of grey values that counts as flat, in parts of the range."""


class Partners(NamedTuple):
    """Pairs of similar images.

    Attributes:
        images: `[M] int64`, the images that have partners.
        partners: `[M, K] int64`, those of each, the most similar first; where there are fewer than
            K, they are repeated.
    """

    images: np.ndarray
    partners: np.ndarray


def find_partners(squares: np.ndarray, patients: Sequence[str], count: int) -> Partners:
    """Find images of other patients that show the same anatomy.

    Similarity is the correlation of the images at 16 x 16 pixels. Partners have `ALIKE` at least;
    where half of the images have none such, what the better half has is enough.

    Args:
        squares: `[N, SQUARE, SQUARE, 1]`, of any range.
        patients: The patient of each image; one name an image where none is known.
        count: Most partners of an image.

    Returns:
        The pairs.

    Raises:
        ValueError: If all images are of one patient.
    """
    partners, similarity = rank_partners(squares, patients, count)
    alike = similarity >= min(ALIKE, float(np.median(similarity[:, 0])))
    chosen = np.flatnonzero(alike[:, 0])
    rows = [np.resize(partners[index, alike[index]], partners.shape[1]) for index in chosen]
    return Partners(chosen, np.stack(rows))


def rank_partners(
    squares: np.ndarray, patients: Sequence[str], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Find the images of other patients that are the most similar ones, however similar.

    Args:
        squares: As of `find_partners`.
        patients: As of `find_partners`.
        count: Most partners of an image; there are fewer where others have fewer images.

    Returns:
        Indices, the most similar first, and similarities: `[N, K] int64` and `[N, K] float32`.

    Raises:
        ValueError: If all images are of one patient.
    """
    side = SQUARE // _COARSE
    coarse = squares.reshape(len(squares), _COARSE, side, _COARSE, side).mean(axis=(2, 4))
    flat = coarse.reshape(len(coarse), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    names = np.unique(np.asarray(patients), return_inverse=True)[1]
    others = len(names) - np.bincount(names).max()
    if others == 0:
        raise ValueError(
            "A variation is learned between patients, and all images are of one. Add images of "
            "others, or say which patient each image is of; vae-aug train --only restoration does "
            "without."
        )
    kept = min(count, int(others))
    partners = np.empty((len(flat), kept), np.int64)
    similarity = np.empty((len(flat), kept), np.float32)
    for index, row in enumerate(flat):
        found = np.where(names == names[index], -np.inf, flat @ row)
        nearest = np.argpartition(-found, kept - 1)[:kept]
        partners[index] = nearest[np.argsort(-found[nearest], kind="stable")]
        similarity[index] = found[partners[index]]
    return partners, similarity


def train_transformation(
    squares: np.ndarray,
    pairs: Partners,
    config: VariationConfig | None = None,
    *,
    network: TransformationVAE | None = None,
    folder: Path | None = None,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> TransformationVAE:
    """Train a network on how images of a set differ from patient to patient.

    Args:
        squares: `[N, SQUARE, SQUARE, 1] uint8`, from `make_squares`, white 255.
        pairs: Of which each step chooses some, every image alike.
        config: The settings.
        network: What is trained; None for a network with random weights.
        folder: Where the state of the training is kept, from which another call goes on; None for
            nowhere.
        progress: Called after every step with its number and figures: `loss`, `tone` and
            `pattern`, its terms, `kl` in nats and `displacement`, its mean size in pixels of the
            square.

    Returns:
        The network, with its `strength` calibrated.

    Raises:
        TrainingError: If the loss stops being finite, or the state in the folder is damaged.
    """
    config = config or VariationConfig()
    if network is None:
        keras.utils.set_random_seed(config.seed)
        network = TransformationVAE()
    step, optimizer = make_step(network, config)
    done = tf.Variable(0)
    state = tf.train.Checkpoint(
        weights=[v.value for v in network.weights],
        optimizer=[v.value for v in optimizer.variables],
        step=done,
    )
    manager = folder and restore_files(state, folder, keep=1)
    for number in range(int(done) + 1, config.steps + 1):
        pair = choose_pairs(squares, pairs, config, number)
        figures = {name: float(value) for name, value in step(*pair, tf.constant(number)).items()}
        if not np.isfinite(figures["loss"]):
            raise TrainingError(
                f"The loss of the variation is {figures['loss']} at step {number}. Train again "
                "with a lower learning_rate of it."
            )
        done.assign(number)
        if number == config.steps:
            network.strength.assign(calibrate(network, squares, pairs, config.seed))
        if manager and (number % config.save_every == 0 or number == config.steps):
            save_files(manager, number)
        if progress is not None:
            progress(number, figures)
    return network


def choose_pairs(
    squares: np.ndarray, pairs: Partners, config: VariationConfig, number: int
) -> np.ndarray:
    """Choose the pairs of a step at random, and move them, by its number and the seed alone.

    Returns:
        `[2, config.batch_size, SQUARE, SQUARE, 1] float32 in [0, 1]`: images, and their partners.
    """
    rng = np.random.default_rng([config.seed, number])
    row = rng.integers(len(pairs.images), size=config.batch_size)
    column = rng.integers(pairs.partners.shape[1], size=config.batch_size)
    chosen = pairs.images[row], pairs.partners[row, column]
    pair = np.stack([squares[part] for part in chosen]).astype(np.float32) / 255.0
    mirrored = rng.random(config.batch_size) < 0.5
    pair[:, mirrored] = pair[:, mirrored, :, ::-1]
    return jitter_pairs(pair, config.jitter, rng) if config.jitter else pair


def jitter_pairs(pairs: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Turn, scale and shift every image and its partner alike, and change their gamma.

    Args:
        pairs: `[2, B, S, S, 1] float32 in [0, 1]`.
        amount: `VariationConfig.jitter`.
        rng: Where turns, factors, shifts and gammas come from.

    Returns:
        The same shape and range; black where no pixel came from, in both images alike.
    """
    side = pairs.shape[2]
    centre = ((side - 1) / 2,) * 2
    most = amount * np.array([_TURN, _ZOOM, _SHIFT * side, _SHIFT * side, _GAMMA])
    moved = np.empty_like(pairs)
    for index in range(pairs.shape[1]):
        turn, zoom, down, across, gamma = rng.uniform(-most, most)
        matrix = cv2.getRotationMatrix2D(centre, turn, np.exp(zoom))
        matrix[:, 2] += across, down
        for image, result in zip(pairs[:, index], moved[:, index], strict=True):
            turned = cv2.warpAffine(image[..., 0], matrix, (side, side))
            result[..., 0] = turned ** np.exp(gamma)
    return moved


def calibrate(network: TransformationVAE, squares: np.ndarray, pairs: Partners, seed: int) -> float:
    """Find the strength at which samples lie as far from images as other patients do.

    Distance is what `compare_tones` measures, mean over random pairs.

    Args:
        network: The trained network.
        squares: `[N, SQUARE, SQUARE, 1] uint8`, what it was trained on.
        pairs: From `find_partners`.
        seed: Of pairs and samples.

    Returns:
        The `strength`, within `STRENGTHS`.
    """
    config = VariationConfig(batch_size=_CALIBRATION_PAIRS, jitter=0.0, seed=seed)
    images, others = choose_pairs(squares, pairs, config, 0)
    wanted = float(tf.reduce_mean(compare_tones(images, others)))
    z = tf.random.stateless_normal([len(images), LATENT_DIM], [seed, 0])

    @tf.function(autograph=False)
    def measure(strength: tf.Tensor) -> tf.Tensor:
        fields = network.sample(network.describe(images), z, tf.ones([len(images)]))
        changed, _ = transform_squares(images, fields.scale(strength))
        return tf.reduce_mean(compare_tones(changed, images))

    low, high = STRENGTHS
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        below = float(measure(tf.constant(middle))) < wanted
        low, high = (middle, high) if below else (low, middle)
    return 0.5 * (low + high)


def make_step(
    network: TransformationVAE, config: VariationConfig
) -> tuple[Callable[..., dict[str, tf.Tensor]], keras.Optimizer]:
    """Make the graph of a step of training, `(images, partners, number)` to figures.

    Returns:
        The graph, and the optimiser.
    """
    variables = network.trainable_variables
    schedule = keras.optimizers.schedules.CosineDecay(config.learning_rate, config.steps, 0.02)
    optimizer = keras.optimizers.Adam(schedule, global_clipnorm=1.0)
    optimizer.build(variables)

    @tf.function(autograph=False)
    def step(images: tf.Tensor, partners: tf.Tensor, number: tf.Tensor) -> dict[str, tf.Tensor]:
        risen = tf.minimum(5.0 * tf.cast(number, tf.float32) / config.steps, 1.0)
        shape = [tf.shape(images)[0], LATENT_DIM]
        noise = tf.random.stateless_normal(shape, tf.stack([config.seed, number]))
        with tf.GradientTape() as tape:
            terms = measure_pairs(network, images, partners, noise)
            loss = tf.reduce_mean(weigh_terms(terms, config, risen))
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        told = ("tone", "pattern", "kl", "displacement")
        return {"loss": loss, **{name: tf.reduce_mean(terms[name]) for name in told}}

    return step, optimizer


def measure_pairs(
    network: TransformationVAE, images: tf.Tensor, partners: tf.Tensor, noise: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Make images similar to their partners, and measure what that costs and what it lacks.

    Args:
        network: The network.
        images: `[B, SQUARE, SQUARE, 1] float32 in [0, 1]`.
        partners: The same shape.
        noise: `[B, LATENT_DIM] float32`, standard normal, or 0 for the mean of the posterior.

    Returns:
        `[B] float32` each: `tone` and `pattern`, what the images lack to their partners; `kl` in
        nats; `roughness` of the transformation; `displacement`, its mean size in pixels of the
        square.
    """
    features, others = tf.split(network.describe(tf.concat([images, partners], axis=0)), 2)
    z_mean, z_log_var = network.encode(features, others)
    z = sample_posterior(z_mean, z_log_var, noise)
    fields = network.decode(features, z, tf.ones_like(z[:, 0]))
    changed, displacement = transform_squares(images, fields)
    roughness = _measure_roughness(fields.displacement * SQUARE) + _measure_roughness(fields.slopes)
    return {
        "tone": compare_tones(changed, partners),
        "pattern": compare_patterns(changed, partners),
        "kl": tf.reduce_sum(kl_divergence(z_mean, z_log_var), axis=-1),
        "roughness": roughness,
        "displacement": tf.reduce_mean(tf.abs(displacement), axis=(1, 2, 3)),
    }


def weigh_terms(
    terms: Mapping[str, tf.Tensor], config: VariationConfig, risen: float | tf.Tensor = 1.0
) -> tf.Tensor:
    """Add what `measure_pairs` returns to the loss of each pair.

    Args:
        terms: Of the pairs.
        config: Their weights.
        risen: Share of its weight that the KL divergence has by now.

    Returns:
        `[B] float32`.
    """
    loss = config.tone_weight * terms["tone"] + config.pattern_weight * terms["pattern"]
    loss += config.roughness_weight * terms["roughness"]
    return loss + config.beta * risen * terms["kl"]


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
    """Measure the mean squared first and second differences of each image's control points."""
    total = tf.constant(0.0)
    for part in (points, tf.transpose(points, [0, 2, 1, 3])):
        first = part[:, 1:] - part[:, :-1]
        second = first[:, 1:] - first[:, :-1]
        for differences in (first, second):
            total += tf.reduce_mean(tf.square(differences), axis=(1, 2, 3))
    return total
