"""Pixel values of any dtype and range to grey in [0, 1], and changes of grey back to pixels."""

from __future__ import annotations

import math

import tensorflow as tf

IMAGE_DTYPES = (tf.uint8, tf.uint16, tf.float16, tf.bfloat16, tf.float32)
"""What transforms and corruptions take in a pipeline; files hold the first two."""

_RED, _BLUE = 0.299, 0.114
"""Weights of ITU-R BT.601 luminance."""

_UNIT_MAX = 1.5
"""A floating-point image that stays below is taken to be in [0, 1], above it in [0, 255]."""

_NORMALISED_SPAN, _MOST_SPANS = 2.0, 64.0
"""Span up to which a range that the user says is that of normalised images, such as [0, 1] or
[-1, 1], and how many spans away a value may then lie."""


def find_range(
    images: tf.Tensor, value_range: tuple[float, float] | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Find which values stand for black and white, for each image by itself.

    Args:
        images: `[..., H, W, C]` uint8, uint16, float16, bfloat16 or float32.
        value_range: What the user says they are; None for the whole range of an integer dtype,
            and for [0, 1] or [0, 255] by the image's maximum in a floating-point dtype.

    Returns:
        `(low, high)`, both `[..., 1, 1, 1] float32`, or scalars where all images have the same.

    Raises:
        tf.errors.InvalidArgumentError: If an image of a floating-point dtype fits neither range, is
            not finite, or lies far outside of a range of at most 2 that the user says.
    """
    if value_range is None and images.dtype.is_integer:
        value_range = images.dtype.limits
    if value_range is not None:
        low, high = (tf.constant(value, tf.float32) for value in value_range)
        if images.dtype.is_integer:
            return low, high
        with tf.control_dependencies(_check_values(images, value_range)):
            return tf.identity(low), high
    values = tf.cast(images, tf.float32)
    brightest = tf.reduce_max(values, axis=[-3, -2, -1], keepdims=True)
    high = tf.where(brightest <= _UNIT_MAX, 1.0, 255.0)
    # A NaN fails the comparison, so this also refuses images that are not finite.
    fits = tf.reduce_all((values >= -0.5 * high) & (values <= 1.5 * high))
    checks = _check(
        fits,
        values,
        "VAEAugment takes floating-point images in [0, 1] or [0, 255]; received values from",
        ". Pass value_range=(low, high) to say what black and white are, e.g. (-1024, 3071) or "
        "a window for Hounsfield units, (0, 4095) for 12 bits. Values must be finite.",
    )
    with tf.control_dependencies(checks):
        return tf.zeros_like(high), tf.identity(high)


def _check_values(images: tf.Tensor, value_range: tuple[float, float]) -> list[tf.Operation]:
    """Refuse what no window on an image explains: a range such as [0, 1] for values up to 255."""
    low, high = value_range
    most = _MOST_SPANS * (high - low) if high - low <= _NORMALISED_SPAN else math.inf
    values = tf.cast(images, tf.float32)
    # A NaN fails the comparison.
    fits = tf.reduce_all(tf.math.is_finite(values) & (tf.abs(values - low) <= most))
    return _check(
        fits,
        values,
        f"VAEAugment was given value_range={value_range}, and received values from",
        ". Pass value_range=(low, high) with what black and white are in the images, or None "
        "for images in [0, 1] or [0, 255]. Values must be finite.",
    )


def _check(fits: tf.Tensor, values: tf.Tensor, found: str, way_out: str) -> list[tf.Operation]:
    """Check that values fit: the operation that does it in a graph, and nothing eagerly."""
    extremes = tf.reduce_min(values), tf.reduce_max(values)
    check = tf.debugging.Assert(fits, [found, extremes[0], "to", extremes[1], way_out])
    return [] if check is None else [check]


def compute_grey(images: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """Compute luminance, 0 at `low` and 1 at `high`.

    Args:
        images: `[..., H, W, 1 or 3]`.
        low: From `find_range`.
        high: From `find_range`.

    Returns:
        `[..., H, W, 1] float32`. Three equal channels give exactly what one of them gives.
    """
    values = tf.cast(images, tf.float32)
    if images.shape[-1] == 3:
        red, green, blue = tf.split(values, 3, axis=-1)
        # A difference, since graph optimisers reorder a sum of three and eager execution does not.
        values = green - (_RED * (green - red) + _BLUE * (green - blue))
    # Graph optimisers turn a division by a constant into this, and eager execution does not.
    return (values - low) * (1.0 / (high - low))


def change_luminance(
    images: tf.Tensor, change: tf.Tensor, low: tf.Tensor, high: tf.Tensor
) -> tf.Tensor:
    """Add a change of grey to every channel, in the images' own dtype and range.

    Args:
        images: `[..., H, W, C]`.
        change: `[..., H, W, 1] float32`, in units where black is 0 and white 1.
        low: From `find_range`.
        high: From `find_range`.

    Returns:
        As `images`. Where the change is 0 the pixel is the same bit for bit; elsewhere it stays
        between `low` and `high`, or where it was if it lay outside. Integers round to nearest.
    """
    values = tf.cast(images, tf.float32)
    changed = values + change * (high - low)
    if not _is_whole_range(images.dtype, low, high):
        low, high = tf.minimum(low, values), tf.maximum(high, values)
    changed = tf.clip_by_value(changed, low, high)
    if images.dtype.is_integer:  # exact in float32, so what does not change needs no care
        return tf.cast(tf.round(changed), images.dtype)
    return tf.where(tf.equal(change, 0.0), images, tf.cast(changed, images.dtype))


def _is_whole_range(dtype: tf.DType, low: tf.Tensor, high: tf.Tensor) -> bool:
    """Tell if, as is known before the graph runs, no value lies below `low` or above `high`."""
    if not dtype.is_integer:
        return False
    static = [tf.get_static_value(limit) for limit in (low, high)]
    pairs = zip(static, dtype.limits, strict=True)
    return all(value is not None and (value == limit).all() for value, limit in pairs)
