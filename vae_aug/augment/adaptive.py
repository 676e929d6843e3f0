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
"""Standard deviation of the window in which squares are averaged."""

STRONG_NOISE = 0.02
"""Standard deviation of the noise that is found, in parts of the grey range. The share returned is
at least this standard deviation over `STRONG_NOISE`, less 1, so that from twice of it on the whole
change is made: of what noise as strong as that of `replace` leaves, the network has to complete
the edges, and the completion would be taken for lost anatomy."""

_NOISES, _TERMS = 3, 5
"""How many terms of the model are noise, and how many there are."""

_RIDGE = 1e-6
"""Added to the diagonal of the systems of equations, whose terms may be multiples of each other."""

_SUBSETS = np.array(list(itertools.product((0.0, 1.0), repeat=_TERMS)))
"""`[2 ** _TERMS, _TERMS]`, 1 for a term that is used."""


def find_noise_share(grey: tf.Tensor, change: tf.Tensor) -> tf.Tensor:
    """Find the share of a denoiser's change that takes noise away, at every place.

    With the denoised image s, averages over a window are fitted by

        change^2 = a + b s + c s^2 + d |gradient of s|^2 + e (Laplacian of s)^2

    with factors that are not negative; the share is that of the first three terms.

    Args:
        grey: `[H, W, 1] float32` in [0, 1], the image as the denoiser sees it.
        change: `[H, W, 1] float32`, what the denoiser adds to it.

    Returns:
        `[H, W, 1] float32` in [0, 1].
    """
    denoised = grey + change
    smoothed = smooth(tf.concat([_measure_anatomy(denoised), denoised, change**2], -1), SIGMA_PX)
    anatomy, signal, energy = tf.split(smoothed, [_TERMS - _NOISES, 1, 1], axis=-1)
    signal = tf.nn.relu(signal)
    terms = tf.concat([tf.ones_like(signal), signal, signal**2, anatomy], axis=-1)
    parts = terms * fit_terms(terms, energy)
    noise = tf.reduce_sum(parts[..., :_NOISES], axis=-1, keepdims=True)
    share = noise / tf.maximum(tf.reduce_sum(parts, axis=-1, keepdims=True), 1e-12)
    certainty = tf.sqrt(tf.reduce_mean(noise)) / STRONG_NOISE - 1.0
    return tf.clip_by_value(tf.maximum(share, certainty), 0.0, 1.0)


def fit_terms(terms: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Fit an image by a sum of others with factors that are not negative, by least squares.

    A place is weighted by the inverse of its target and the mean, so that few bright edges do not
    decide. Every subset of the terms is solved; of the solutions without a negative factor the
    best is returned.

    Args:
        terms: `[H, W, _TERMS] float32`, not negative.
        target: `[H, W, 1] float32`, not negative.

    Returns:
        The factors, `[_TERMS] float32`.
    """
    scale = tf.reduce_mean(terms, axis=(0, 1)) + 1e-12
    mean = tf.reduce_mean(target) + 1e-12
    weights = mean / (target + mean)
    regressors = tf.cast(tf.reshape(weights * terms / scale, [-1, _TERMS]), tf.float64)
    wanted = tf.cast(tf.reshape(weights * target / mean, [-1, 1]), tf.float64)
    count = tf.cast(tf.shape(wanted)[0], tf.float64)
    products = tf.matmul(regressors, regressors, transpose_a=True) / count
    targets = tf.matmul(regressors, wanted, transpose_a=True) / count
    used = tf.constant(_SUBSETS[:, :, None])
    identity = tf.eye(_TERMS, dtype=tf.float64)
    systems = products * used * tf.linalg.matrix_transpose(used)
    systems += identity * (1.0 - used) + identity * _RIDGE
    solutions = tf.linalg.solve(systems, used * targets)[..., 0]
    gains = tf.linalg.matvec(solutions, targets[:, 0])
    feasible = tf.reduce_all(solutions >= 0.0, axis=-1)
    best = solutions[tf.argmax(tf.where(feasible, gains, -1.0))]
    return tf.cast(best, tf.float32) * mean / scale


def _measure_anatomy(grey: tf.Tensor) -> tf.Tensor:
    """Measure edges and texture: `[H, W, 2]`, the squares of gradient and Laplacian."""
    padded = tf.pad(grey, [[1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    above, below = padded[:-2, 1:-1], padded[2:, 1:-1]
    left, right = padded[1:-1, :-2], padded[1:-1, 2:]
    gradient = 0.25 * ((below - above) ** 2 + (right - left) ** 2)
    return tf.concat([gradient, (above + below + left + right - 4.0 * grey) ** 2], axis=-1)
