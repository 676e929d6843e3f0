"""Appearance: the changes of grey that scanners, coils and windows make, as a vector."""

from __future__ import annotations

import math

import tensorflow as tf

STYLE_SPREADS = {"gamma": 0.04, "level": 0.03, "gain": 0.1, "tilt_y": 0.03, "tilt_x": 0.03}
"""Values of a style, in this order, with the standard deviation of each: log exponent, window
level in parts of the grey range, log gain, and log gain of a half cosine down and across."""

STYLE_DIM = len(STYLE_SPREADS)
"""Length of a style."""

_TOE = 0.05
"""Grey below which a change of level fades out, so that air stays black."""


def apply_style(images: tf.Tensor, style: tf.Tensor) -> tf.Tensor:
    """Change the appearance of images: a smooth gain, as of a coil, a level, and a gamma curve.

    With y and x running from 0 to 1 over the image:

        g = x * exp(gain + tilt_y * cos(pi y) + tilt_x * cos(pi x))
        l = max(g + level * min(g / 0.05, 1), 0)
        out = (l / max(max over the image of l, 1)) ^ exp(gamma)

    Black stays black, neighbouring pixels keep their order, and nothing is cut off at white: what
    would pass it dims the whole image instead. Gain and level change a lesion and what lies around
    it alike, so their contrast-to-noise ratio stays; gamma and tilt are held small for its sake.
    Two styles one after the other are nearly their sum.

    Args:
        images: `[B, H, W, 1] float32 in [0, 1]`.
        style: `[B, STYLE_DIM] float32`, in standard deviations; 0 changes nothing.

    Returns:
        `[B, H, W, 1] float32 in [0, 1]`.
    """
    values = style * tf.constant(list(STYLE_SPREADS.values()))
    gamma, level, gain, tilt_y, tilt_x = tf.unstack(values[..., None, None, None], axis=1)
    rows, columns = (_half_cosine(tf.shape(images)[axis]) for axis in (1, 2))
    lit = images * tf.exp(gain + tilt_y * rows[:, None, None] + tilt_x * columns[:, None])
    levelled = tf.nn.relu(lit + level * tf.minimum(lit / _TOE, 1.0))
    peak = tf.reduce_max(levelled, axis=(1, 2, 3), keepdims=True)
    return (levelled / tf.maximum(peak, 1.0)) ** tf.exp(gamma)


def _half_cosine(length: tf.Tensor) -> tf.Tensor:
    """Sample half a period of the cosine at the pixels' centres: `[length] float32`."""
    centres = (tf.range(length, dtype=tf.float32) + 0.5) / tf.cast(length, tf.float32)
    return tf.cos(math.pi * centres)
