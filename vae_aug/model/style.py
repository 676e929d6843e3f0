"""Appearance: the smooth changes of grey that scanners, coils and windows make, as a vector."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

_ORDERS = [(i, j) for i in range(3) for j in range(3)]
_GAMMA_SPREAD = 0.08
_GAIN_SPREAD = {0: 0.06, 1: 0.05, 2: 0.04, 3: 0.03, 4: 0.03}
"""Spread of the log gain by the order i + j of its cosine."""

STYLE_DIM = 1 + len(_ORDERS)
"""Length of a style: one log exponent, then the log gain's cosines, all in standard deviations."""


def apply_style(images: tf.Tensor, style: tf.Tensor) -> tf.Tensor:
    """Change the appearance of images: a smooth gain, as of a coil, then a gamma curve.

    `(x * exp(sum_ij g_ij cos(pi i y) cos(pi j x))) ^ exp(g)`, clipped to [0, 1] before the power,
    with y and x running from 0 to 1 over the image. Black stays black, edges stay where they are,
    and neighbouring pixels keep their order. Two styles one after the other are, to first order,
    their sum.

    Args:
        images: `[B, H, W, 1] float32 in [0, 1]`.
        style: `[B, STYLE_DIM] float32`, in standard deviations; 0 changes nothing.

    Returns:
        `[B, H, W, 1] float32 in [0, 1]`.
    """
    spreads = np.array([_GAIN_SPREAD[i + j] for i, j in _ORDERS], np.float32)
    gains = tf.reshape(style[:, 1:] * spreads, [-1, 3, 3])
    rows, columns = (_cosines(tf.shape(images)[axis]) for axis in (1, 2))
    field = tf.einsum("bij,yi,xj->byx", gains, rows, columns)[..., None]
    exponent = tf.exp(_GAMMA_SPREAD * style[:, 0])[:, None, None, None]
    return tf.clip_by_value(images * tf.exp(field), 0.0, 1.0) ** exponent


def _cosines(length: tf.Tensor) -> tf.Tensor:
    """Sample the first three cosines at the pixels' centres: `[length, 3] float32`."""
    centres = (tf.range(length, dtype=tf.float32) + 0.5) / tf.cast(length, tf.float32)
    return tf.cos(math.pi * centres[:, None] * tf.range(3, dtype=tf.float32))
