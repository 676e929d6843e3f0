"""Tell how much of what a denoiser changes is noise, and how much is anatomy that it loses.

Noise is everywhere, or grows with the signal. What a network does to an image that has none, or to
one of fewer pixels than it has learned from, is at edges and in texture. So the energy of the
change is explained by both, place by place, and the share that the first explains is noise.

Reference: Lawson and Hanson, Solving Least Squares Problems (1974), for factors that are not
negative; Foi et al., Practical Poissonian-Gaussian Noise Modeling and Fitting (2008), for noise
whose variance is a polynomial of the signal.
"""

from __future__ import annotations

import itertools

import numpy as np
import tensorflow as tf

from vae_aug.augment.smoothing import smooth

SIGMA_PX = 2.5
"""Standard deviation of the window in which energies are averaged."""

CERTAIN = 0.02
"""Standard deviation of noise, in parts of the grey range, from which it is so plain that the share
of it grows, to all of the change at twice this. `replace` leaves so few pixels that the rest of the
change follows edges."""

_NOISES, _ENERGIES = 3, 5
"""How many of the energies are those of noise, and how many there are in all."""

_RIDGE = 1e-6

_SUBSETS = np.array(list(itertools.product((0.0, 1.0), repeat=_ENERGIES)))


def find_noise_share(grey: tf.Tensor, change: tf.Tensor) -> tf.Tensor:
    """Find the share of a denoiser's change that takes noise away, at every place.

    Args:
        grey: `[H, W, 1] float32`, the image, black 0, white 1.
        change: `[H, W, 1] float32`, what the denoiser adds to it.

    Returns:
        `[H, W, 1] float32` in [0, 1].
    """
    denoised = grey + change
    smoothed = smooth(tf.concat([_measure_anatomy(denoised), denoised, change**2], -1), SIGMA_PX)
    anatomy, signal, energy = tf.split(smoothed, [_ENERGIES - _NOISES, 1, 1], axis=-1)
    signal = tf.nn.relu(signal)
    energies = tf.concat([tf.ones_like(signal), signal, signal**2, anatomy], axis=-1)
    parts = energies * fit_energies(energies, energy)
    noise = tf.reduce_sum(parts[..., :_NOISES], axis=-1, keepdims=True)
    share = noise / tf.maximum(tf.reduce_sum(parts, axis=-1, keepdims=True), 1e-12)
    plain = tf.sqrt(tf.reduce_mean(noise)) / CERTAIN - 1.0
    return tf.clip_by_value(tf.maximum(share, plain), 0.0, 1.0)


def fit_energies(energies: tf.Tensor, energy: tf.Tensor) -> tf.Tensor:
    """Explain an energy by others: the best factors that are not negative.

    A place counts by the inverse of its energy and the mean, so that few bright edges do not
    decide. All subsets of the energies are tried; the best that takes no negative factor is it.

    Args:
        energies: `[H, W, _ENERGIES] float32`, not negative.
        energy: `[H, W, 1] float32`, not negative.

    Returns:
        `[_ENERGIES] float32`.
    """
    scale = tf.reduce_mean(energies, axis=(0, 1)) + 1e-12
    mean = tf.reduce_mean(energy) + 1e-12
    weights = mean / (energy + mean)
    known = tf.reshape(weights * energies / scale, [-1, _ENERGIES])
    wanted = tf.reshape(weights * energy / mean, [-1, 1])
    count = tf.cast(tf.shape(known)[0], tf.float64)
    products = tf.cast(tf.matmul(known, known, transpose_a=True), tf.float64) / count
    targets = tf.cast(tf.matmul(known, wanted, transpose_a=True), tf.float64) / count
    chosen = tf.constant(_SUBSETS[:, :, None])
    identity = tf.eye(_ENERGIES, dtype=tf.float64)
    systems = products * chosen * tf.linalg.matrix_transpose(chosen)
    systems += identity * (1.0 - chosen) + identity * _RIDGE
    factors = tf.linalg.solve(systems, chosen * targets)[..., 0]
    gains = tf.linalg.matvec(factors, targets[:, 0])
    fits = tf.reduce_all(factors >= 0.0, axis=-1)
    best = factors[tf.argmax(tf.where(fits, gains, -1.0))]
    return tf.cast(best, tf.float32) * mean / scale


def _measure_anatomy(grey: tf.Tensor) -> tf.Tensor:
    """Measure edges and texture: `[H, W, 2]`, the squares of gradient and Laplacian."""
    padded = tf.pad(grey, [[1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    above, below = padded[:-2, 1:-1], padded[2:, 1:-1]
    left, right = padded[1:-1, :-2], padded[1:-1, 2:]
    gradient = 0.25 * ((below - above) ** 2 + (right - left) ** 2)
    return tf.concat([gradient, (above + below + left + right - 4.0 * grey) ** 2], axis=-1)
