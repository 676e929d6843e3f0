"""Projections of a slice along rays, and its reconstruction, by the Fourier slice theorem.

The spectrum of a projection is the image's spectrum along a line through its centre. Both ways
interpolate linearly in a spectrum that is padded to twice the side.

Reference: Kak and Slaney, Principles of Computerized Tomographic Imaging (1988), chapter 3.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf


class Slices(NamedTuple):
    """Lines of several angles through the spectrum `[2 S, 2 S]` of a square of side S.

    Attributes:
        side: Scalar int32, S.
        places: `[A, S + 1, 4] int32`, four neighbours of each point, in the flattened spectrum.
        weights: `[A, S + 1, 4] float32`, by which these are interpolated.
        taper: `[2 S, 2 S] float32`, by how much that weakens places of the image, centred at S / 2.
    """

    side: tf.Tensor
    places: tf.Tensor
    weights: tf.Tensor
    taper: tf.Tensor


def find_slices(side: tf.Tensor, count: int) -> Slices:
    """Find the lines of so many angles, from 0 up to a half turn.

    Args:
        side: Scalar int32, of the square in pixels.
        count: Number of angles.

    Returns:
        The lines.
    """
    angles = tf.linspace(0.0, math.pi, count + 1)[:-1, None]
    frequency = tf.range(tf.cast(side + 1, tf.float32))
    across, down = frequency * tf.cos(angles), frequency * tf.sin(angles)
    left, top = tf.floor(across), tf.floor(down)
    places, weights = [], []
    for step_down in (0.0, 1.0):
        for step_across in (0.0, 1.0):
            row = tf.math.floormod(tf.cast(top + step_down, tf.int32), 2 * side)
            column = tf.math.floormod(tf.cast(left + step_across, tf.int32), 2 * side)
            places.append(row * 2 * side + column)
            near = 1.0 - tf.abs(down - top - step_down)
            weights.append(near * (1.0 - tf.abs(across - left - step_across)))
    length = 2.0 * tf.cast(side, tf.float32)
    away = (tf.range(length) - tf.cast(side // 2, tf.float32)) / length
    line = tf.where(tf.abs(away) < 0.5, tf.experimental.numpy.sinc(away) ** 2, 1.0)
    taper = line[:, None] * line
    return Slices(side, tf.stack(places, axis=-1), tf.stack(weights, axis=-1), taper)


def project(images: tf.Tensor, slices: Slices) -> tf.Tensor:
    """Add up images along rays.

    Args:
        images: `[N, S, S, 1] float32`.
        slices: The angles.

    Returns:
        `[N, A, 2 S] float32`, for every angle the sums along parallel rays, a pixel apart.
    """
    side = slices.side
    padded = tf.pad(images[..., 0], [[0, 0], [0, side], [0, side]]) / slices.taper
    centred = tf.roll(padded, [-(side // 2)] * 2, axis=[1, 2])
    spectrum = tf.signal.fft2d(tf.cast(centred, tf.complex64))
    flat = tf.reshape(spectrum, [-1, 4 * side * side])
    weights = tf.cast(slices.weights, tf.complex64)
    lines = tf.reduce_sum(tf.gather(flat, slices.places, axis=1) * weights, axis=-1)
    return tf.signal.irfft(lines, [2 * side])


def project_back(rays: tf.Tensor, slices: Slices) -> tf.Tensor:
    """Reconstruct images of their projections, but for a factor.

    The filter is a ramp with the window of von Hann, a smooth reconstruction kernel.

    Args:
        rays: `[N, A, 2 S] float32`, as `project` makes them.
        slices: The angles.

    Returns:
        `[N, S, S, 1] float32`.
    """
    side = slices.side
    frequency = tf.range(tf.cast(side + 1, tf.float32)) / (2.0 * tf.cast(side, tf.float32))
    ramp = frequency * (0.5 + 0.5 * tf.cos(2.0 * math.pi * frequency))
    lines = tf.signal.rfft(rays) * tf.cast(ramp, tf.complex64)
    shares = lines[..., None] * tf.cast(slices.weights, tf.complex64)
    size = [4 * side * side, tf.shape(rays)[0]]
    flat = tf.scatter_nd(slices.places[..., None], tf.transpose(shares, [1, 2, 3, 0]), size)
    spectrum = tf.reshape(tf.transpose(flat), [-1, 2 * side, 2 * side])
    # The lines are half of the spectrum; the rest is its mirrored conjugate, so the sum is real.
    image = tf.roll(tf.math.real(tf.signal.ifft2d(spectrum)), [side // 2] * 2, axis=[1, 2])
    return (image / slices.taper)[:, :side, :side, None]
