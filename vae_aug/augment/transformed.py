"""Apply a transformation between patients to an image, as far as every box keeps its contrast.

Pixels in boxes stay where they are, and tone curves rise, so brighter tissue stays brighter. What a
transformation can take from a lesion is its contrast: where a curve is flat, little is left. Then
the curves of the whole image are weakened, towards one gain for all of it, which leaves the ratio
of contrast to noise as it was. The gain has a floor, since a lesion that grows faint together with
all around it is lost to the eye and to 8 bits. To put back the box alone would leave its outline in
the image, from which a detector learns more than from the lesion.
"""

from __future__ import annotations

import math

import tensorflow as tf

from vae_aug.augment.guard import make_windows, measure_contrasts
from vae_aug.config import Guard
from vae_aug.grey import change_luminance, compute_grey
from vae_aug.letterbox import letterbox, unletterbox
from vae_aug.model.fields import SQUARE, Displace, Fields, change_tones, displace, move_pixels

MIN_CONTRAST = 0.1
"""Contrast-to-noise ratio below which a box does not stand out at all, and has nothing to lose."""

_GAIN_POWER = 1.9
"""A gain is at least `min_fidelity` to this power. A box fails where its contrast falls below the
square of `min_fidelity`; the rest is room for rounding."""

_LEAST_FIDELITY = 1e-3
"""Least `min_fidelity` for which a gain has a floor, since 0 has no logarithm."""

_WEAKER = (0.5, 0.25, 0.0)
"""Shares of the tone curves' logarithmic slopes that are tried one after the other; the rest is a
gain."""


def transform_guarded(
    image: tf.Tensor,
    fields: Fields,
    boxes: tf.Tensor,
    low: tf.Tensor,
    high: tf.Tensor,
    *,
    guard: Guard,
    min_fidelity: float,
    replaced: float = 0.0,
    move: Displace | None = displace,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Apply a transformation to an image, as far as no box is harmed.

    Args:
        image: `[H, W, C]` of any dtype that `change_luminance` takes.
        fields: The transformation.
        boxes: `[N, 4] float32`, `rel_yxyx`.
        low: From `find_range`, the value of black.
        high: Likewise of white.
        guard: Where a box has failed, `"paste"`: tone curves are weakened as far as it takes, and
            if a box fails even so, nothing changes; `"keep"`: nothing changes; `"off"`.
        min_fidelity: Fidelity below which a box has failed.
        replaced: Share of the image's detail, what a square of `SQUARE` pixels does not show, that
            is left out.
        move: Moves pixels; None if tones alone may change.

    Returns:
        The image; `[N] float32`, the fidelity of every box in it: the share that is
        left of its contrast-to-noise ratio, or the square root of the share of its contrast, if
        that is less; at most 1, and 1 for one that did not stand out before, NaN for one that is
        no box; and `[N] bool`, the boxes that the guard acted for.
    """
    values, original = tf.cast(image, tf.float32), compute_grey(image, low, high)
    if replaced:
        values = change_luminance(values, replaced * _leave_out(original), low, high)
    moved = values if move is None else move_pixels(values, fields, boxes, move)
    grey = (moved - low) * (1.0 / (high - low))
    height, width = tf.unstack(tf.shape(image)[:2])
    valid = make_windows(boxes, height, width).valid
    (before,) = measure_contrasts(boxes, original)
    stands_out = tf.abs(before.to_noise) >= MIN_CONTRAST  # not if it is NaN

    def apply(slopes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        change = change_tones(grey, fields._replace(slopes=slopes)) - grey
        changed = change_luminance(moved, change, low, high)
        (after,) = measure_contrasts(boxes, compute_grey(changed, low, high))
        fainter = tf.sqrt(tf.nn.relu(after.difference / before.difference))
        kept = tf.minimum(tf.minimum(after.to_noise / before.to_noise, fainter), 1.0)
        # A box around which nothing varies any more has lost its ratio, and so all of it.
        kept = tf.where(tf.math.is_finite(kept), kept, 0.0)
        kept = tf.cast(tf.where(stands_out, kept, 1.0), tf.float32)
        return changed, tf.where(valid, kept, float("nan"))

    changed, fidelity = apply(fields.slopes)
    failed = fidelity < min_fidelity if guard != "off" else tf.zeros_like(valid)
    if guard == "paste":
        gain = tf.math.log(_add(changed - low) / _add(moved - low))
        gain = tf.maximum(gain, _GAIN_POWER * math.log(max(min_fidelity, _LEAST_FIDELITY)))
        shares = tf.constant(_WEAKER)

        def weaken(tried: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, ...]:
            share = shares[tried]
            return tried + 1, *apply(share * fields.slopes + (1.0 - share) * gain)

        _, changed, fidelity = tf.while_loop(
            lambda tried, _, kept: (tried < len(_WEAKER)) & tf.reduce_any(kept < min_fidelity),
            weaken,
            (0, changed, fidelity),
        )
    if guard != "off":
        lost = tf.reduce_any(fidelity < min_fidelity)
        failed |= lost & valid
        untouched = leave_unchanged(tf.cast(image, tf.float32), boxes)[:2]
        changed, fidelity = tf.cond(lost, lambda: untouched, lambda: (changed, fidelity))
    if image.dtype.is_integer:
        changed = tf.round(changed)
    return tf.cast(changed, image.dtype), fidelity, failed


def leave_unchanged(image: tf.Tensor, boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return what `transform_guarded` returns for an image that stays as it is."""
    valid = make_windows(boxes, *tf.unstack(tf.shape(image)[:2])).valid
    return image, tf.where(valid, 1.0, float("nan")), tf.zeros_like(valid)


def _add(values: tf.Tensor) -> tf.Tensor:
    """Add up what is above black, and a little."""
    return tf.reduce_sum(tf.nn.relu(values)) + 1e-6


def _leave_out(grey: tf.Tensor) -> tf.Tensor:
    """Compute the change that takes an image's detail away: `[H, W, 1] float32`."""
    height, width = tf.unstack(tf.shape(grey)[:2])
    return unletterbox(letterbox(grey, SQUARE), height, width) - grey
