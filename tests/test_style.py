"""Styles change appearance and nothing else."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from vae_aug.train.style import STYLE_DIM, STYLE_SPREADS, apply_style

RAMP = tf.tile(tf.linspace(0.0, 0.7, 32)[None, None, :, None], [1, 24, 1, 1])


def make_style(**values: float) -> tf.Tensor:
    """Make `[1, STYLE_DIM]` with some values set."""
    return tf.constant([[values.get(name, 0.0) for name in STYLE_SPREADS]])


def test_no_style_is_the_identity():
    np.testing.assert_allclose(apply_style(RAMP, make_style()), RAMP, atol=1e-7)


def test_gain_level_and_gamma_by_hand():
    brighter = apply_style(RAMP, make_style(gain=2.0))
    np.testing.assert_allclose(brighter, RAMP * np.exp(0.2), rtol=1e-6)
    raised = apply_style(RAMP, make_style(level=1.0))
    np.testing.assert_allclose(raised, RAMP + 0.03 * np.minimum(RAMP / 0.05, 1.0), rtol=1e-5)
    curved = apply_style(RAMP, make_style(gamma=-1.0))
    np.testing.assert_allclose(curved, RAMP ** np.exp(-0.04), rtol=1e-5)


def test_the_tilts_are_half_cosines_over_the_image():
    flat = tf.fill([1, 8, 4, 1], 0.5)
    down, across = (
        tf.math.log(apply_style(flat, style) / 0.5)[0, :, :, 0]
        for style in (make_style(tilt_y=1.0), make_style(tilt_x=1.0))
    )
    expected = 0.03 * np.cos(np.pi * (np.arange(8) + 0.5) / 8)
    np.testing.assert_allclose(down, np.tile(expected[:, None], 4), atol=1e-6)
    expected = 0.03 * np.cos(np.pi * (np.arange(4) + 0.5) / 4)
    np.testing.assert_allclose(across, np.tile(expected, [8, 1]), atol=1e-6)


def test_black_stays_black_and_order_stays():
    style = 3.0 * tf.random.stateless_normal([64, STYLE_DIM], [1, 2]) * [[1, 1, 1, 1, 0]]
    changed = apply_style(tf.repeat(RAMP, 64, axis=0), style).numpy()
    assert np.all(changed[:, :, 0] == 0.0)
    assert np.all(np.diff(changed[..., 0], axis=2) >= 0.0)
    assert changed.max() <= 1.0


def test_what_would_pass_white_dims_the_image():
    changed = apply_style(RAMP / 0.7, make_style(gain=3.0))
    np.testing.assert_allclose(changed, RAMP / 0.7, rtol=1e-6)


def test_two_styles_are_nearly_their_sum():
    first, second = (tf.random.stateless_normal([16, STYLE_DIM], [3, i]) for i in (1, 2))
    ramps = tf.repeat(RAMP, 16, axis=0)
    in_turn = apply_style(apply_style(ramps, first), second)
    at_once = apply_style(ramps, first + second)
    change = np.abs(at_once - ramps).mean()
    assert np.abs(in_turn - at_once).mean() < 0.15 * change
