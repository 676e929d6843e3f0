"""Styles change appearance and nothing else."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from vae_aug.model.style import STYLE_DIM, apply_style

RAMP = tf.tile(tf.linspace(0.0, 0.7, 32)[None, None, :, None], [1, 24, 1, 1])


def make_style(**values: float) -> tf.Tensor:
    """Make `[1, STYLE_DIM]` with some values set, by the name `v<index>`."""
    style = np.zeros((1, STYLE_DIM), np.float32)
    for name, value in values.items():
        style[0, int(name[1:])] = value
    return tf.constant(style)


def test_no_style_is_the_identity():
    np.testing.assert_allclose(apply_style(RAMP, make_style()), RAMP, atol=1e-7)


def test_constant_gain_and_gamma_by_hand():
    brighter = apply_style(RAMP, make_style(v1=2.0))
    np.testing.assert_allclose(brighter, np.minimum(RAMP * np.exp(0.12), 1.0), rtol=1e-6)
    curved = apply_style(RAMP, make_style(v0=-1.0))
    np.testing.assert_allclose(curved, RAMP ** np.exp(-0.08), rtol=1e-5)


def test_the_field_is_a_cosine_over_the_image():
    field = tf.math.log(apply_style(tf.fill([1, 8, 4, 1], 0.5), make_style(v4=1.0)) / 0.5)
    # Index 4 is order (1, 0): half a period from the top to the bottom row.
    expected = 0.05 * np.cos(np.pi * (np.arange(8) + 0.5) / 8)
    np.testing.assert_allclose(field[0, :, :, 0], np.tile(expected[:, None], 4), atol=1e-6)


def test_black_stays_black_and_order_stays():
    style = tf.random.stateless_normal([16, STYLE_DIM], [1, 2]) * [[2.0] + [0.0] * 9]
    changed = apply_style(tf.repeat(RAMP, 16, axis=0), style).numpy()
    assert np.all(changed[:, :, 0] == 0.0)
    assert np.all(np.diff(changed[..., 0], axis=2) >= 0.0)
    assert changed.max() <= 1.0


def test_two_styles_are_nearly_their_sum():
    first = tf.random.stateless_normal([1, STYLE_DIM], [3, 1])
    second = tf.random.stateless_normal([1, STYLE_DIM], [3, 2])
    in_turn = apply_style(apply_style(RAMP, first), second)
    at_once = apply_style(RAMP, first + second)
    change = np.abs(at_once - RAMP).mean()
    assert np.abs(in_turn - at_once).mean() < 0.15 * change
