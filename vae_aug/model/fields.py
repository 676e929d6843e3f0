"""A smooth change of an image: where its pixels are taken from, and a tone curve for each place.

A change is described on a coarse grid over the square into which `vae_aug.letterbox` fits an image,
so it applies to an image of any size, whose pixels keep their detail. Where pixels come from may be
held at the identity around boxes; the tone curves rise everywhere, so neighbouring grey values keep
their order.

Reference: Rueckert et al., Nonrigid Registration Using Free-Form Deformations (1999), for
displacements by cubic B-splines; Chen, Paris and Durand, Real-Time Edge-Aware Image Processing with
the Bilateral Grid (2007), for curves that depend on place and grey value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from vae_aug.letterbox import compute_content, letterbox_boxes, unletterbox

Displace = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""A function as `displace`."""

GRID = 16
"""Control points along a side of the square."""

TONES = 6
"""Parts of the grey range, of equal width, each with a slope of its own in a tone curve."""

_LENGTHS = (GRID * GRID * 2, GRID * GRID * TONES, 1)
"""Numbers in each part of a change."""

PACKED = sum(_LENGTHS)
"""Length of a vector that holds a change; see `Fields.pack`."""

SQUARE = 128
"""Pixels along a side of the square on which displacements are held back around boxes."""

MAX_STRETCH = 0.45
"""Most by which a displacement, and again what holds it back around boxes, may differ from pixel to
pixel along the axis it goes along, in pixels. Together they stay below 1, so pixels keep their
order along rows and columns, and nothing folds."""

MARGIN_PX, MIN_RAMP_PX = 2.0, 8.0
"""Pixels of `SQUARE` around a box in which nothing is displaced, beside one of the image, and the
least width of the ramp behind them, over which displacements come back."""

CUBIC = -0.75
"""Parameter a of cubic interpolation (Keys, 1981), as OpenCV has it. Half-way between pixels it
leaves 72% of the variance of noise, and the usual -0.5 leaves 64%; where nothing moves, as in
boxes, all is left."""

_STEEPEST = 1.5
"""Slope of the ramp t^2 (3 - 2 t) in its middle."""


class Fields(NamedTuple):
    """A change of an image, or of each image of a batch, on the control points of the grid.

    Attributes:
        displacement: `[..., GRID, GRID, 2] float32`, how far down and across of its place a pixel
            is taken from, in parts of the square's side.
        slopes: `[..., GRID, GRID, TONES] float32`, logarithm of the tone curve's slope in each part
            of the grey range, from black on.
        white: `[...] float32`, end of the grey range; what is brighter goes on with the last slope.
    """

    displacement: tf.Tensor
    slopes: tf.Tensor
    white: tf.Tensor

    def scale(self, factor: float | tf.Tensor) -> Fields:
        """Make a weaker or stronger change; 0 changes nothing.

        Args:
            factor: For all images, or one for each, `[...] float32`.
        """
        factor = tf.convert_to_tensor(factor, tf.float32)
        # Not by [..., None], of which OpenVINO makes infinity where it is a scalar.
        factor = tf.reshape(factor, tf.concat([tf.shape(factor), [1, 1, 1]], axis=0))
        return self._replace(displacement=self.displacement * factor, slopes=self.slopes * factor)

    def pack(self) -> tf.Tensor:
        """Put everything into one vector an image, `[..., PACKED] float32`."""
        batch = tf.shape(self.white)
        parts = zip((self.displacement, self.slopes, self.white), _LENGTHS, strict=True)
        flat = [tf.reshape(part, tf.concat([batch, [n]], axis=0)) for part, n in parts]
        return tf.ensure_shape(tf.concat(flat, axis=-1), [*self.white.shape, PACKED])

    @classmethod
    def unpack(cls, packed: tf.Tensor) -> Fields:
        """Undo `pack`."""
        displacement, slopes, white = tf.split(packed, _LENGTHS, axis=-1)
        batch = tf.shape(packed)[:-1]
        return cls(
            tf.reshape(displacement, tf.concat([batch, [GRID, GRID, 2]], axis=0)),
            tf.reshape(slopes, tf.concat([batch, [GRID, GRID, TONES]], axis=0)),
            white[..., 0],
        )


def displace(image: tf.Tensor, displacement: tf.Tensor) -> tf.Tensor:
    """Take every pixel from elsewhere: along columns first, then along rows.

    Each pass moves pixels along one axis and keeps their order, so both together fold nothing.

    Args:
        image: `[H, W, C] float32`.
        displacement: `[H, W, 2] float32`, pixels down and across; beyond the border are the
            border's pixels.

    Returns:
        `[H, W, C] float32`.
    """
    down, across = (part[None] for part in tf.unstack(displacement, axis=-1))
    planes = tf.transpose(image, [2, 1, 0])
    planes = move_along_rows(planes, tf.transpose(down, [0, 2, 1]))
    moved = move_along_rows(tf.transpose(planes, [0, 2, 1]), across)
    return tf.transpose(moved, [1, 2, 0])


def move_along_rows(planes: tf.Tensor, across: tf.Tensor) -> tf.Tensor:
    """Take every pixel from elsewhere in its row, by cubic interpolation.

    Args:
        planes: `[B, H, W] float32`.
        across: `[1 or B, H, W] float32`, pixels to the right.

    Returns:
        `[B, H, W] float32`; a pixel that moves by a whole number is copied bit for bit.

    Reference: Keys, Cubic Convolution Interpolation for Digital Image Processing (1981).
    """
    count, height, width = tf.unstack(tf.shape(planes))
    last = tf.cast(width - 1, tf.float32)
    place = tf.clip_by_value(tf.range(tf.cast(width, tf.float32)) + across, 0.0, last)
    whole = tf.floor(place)
    t = place - whole
    padded = tf.concat([planes[..., :1], planes, planes[..., -1:], planes[..., -1:]], axis=-1)
    rows = tf.reshape(tf.range(count * height) * (width + 3), [count, height, 1])
    first = tf.cast(whole, tf.int32) + rows
    flat = tf.reshape(padded, [-1])
    a, b, c, d = (tf.gather(flat, first + offset) for offset in range(4))
    outer, inner = CUBIC * (a - d), (CUBIC + 2) * (b - c)
    rest = CUBIC * (d - 2 * a) - (CUBIC + 3) * b + (2 * CUBIC + 3) * c
    return b + t * (CUBIC * (a - c) + t * (rest + t * (outer + inner)))


def move_pixels(
    image: tf.Tensor, fields: Fields, boxes: tf.Tensor, move: Displace = displace
) -> tf.Tensor:
    """Displace an image as its change says, everywhere but in boxes.

    Args:
        image: `[H, W, C] float32`.
        fields: The change, of one image.
        boxes: `[N, 4] float32`, `rel_yxyx`, in which no pixel is displaced; NaN and empty ones
            count for nothing.
        move: Takes every pixel from elsewhere.

    Returns:
        `[H, W, C] float32`, within the image's own range; where nothing is displaced a pixel is
        the image's own bit for bit.
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    moved = move(image, compute_displacement(fields.displacement, boxes, height, width))
    # A cubic overshoots beside edges.
    return tf.clip_by_value(moved, tf.reduce_min(image), tf.reduce_max(image))


def change_tones(image: tf.Tensor, fields: Fields) -> tf.Tensor:
    """Change the tones of an image as its change says.

    Args:
        image: `[H, W, C] float32`, black 0, white 1, all channels of one range.
        fields: The change, of one image.

    Returns:
        `[H, W, C] float32`. What would exceed the image's own highest value, or 1, dims the whole
        image instead.
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    rows, columns = (
        make_weights(side, *place)
        for side, place in zip((height, width), _find_places(height, width), strict=True)
    )
    planes = tf.transpose(image / fields.white, [2, 0, 1])
    changed = apply_tones(planes, rows, columns, fields.slopes[None]) * fields.white
    highest = tf.maximum(tf.reduce_max(image), 1.0)
    dimmed = tf.nn.relu(changed) * (highest / tf.maximum(tf.reduce_max(changed), highest))
    return tf.transpose(dimmed + tf.minimum(changed, 0.0), [1, 2, 0])


def transform_squares(squares: tf.Tensor, fields: Fields) -> tuple[tf.Tensor, tf.Tensor]:
    """Apply changes to squares by linear interpolation, for a network that is trained or looks.

    Args:
        squares: `[B, SQUARE, SQUARE, 1] float32 in [0, 1]`, without gradients.
        fields: The changes, of which no box holds anything, for a white of 1.

    Returns:
        `[B, SQUARE, SQUARE, 1] float32`, and the displacement in pixels
        `[B, SQUARE, SQUARE, 2] float32`.
    """
    weights = make_weights(SQUARE)
    points = limit_stretch(fields.displacement) * SQUARE
    displacement = tf.einsum("yi,xj,bijc->byxc", weights, weights, points)
    moved = _sample_linearly(squares, displacement)
    return apply_tones(moved, weights, weights, fields.slopes)[..., None], displacement


def _sample_linearly(squares: tf.Tensor, displacement: tf.Tensor) -> tf.Tensor:
    """Interpolate linearly where pixels are taken from: `[B, SQUARE, SQUARE]`."""
    places = tf.range(SQUARE, dtype=tf.float32)
    down, across = tf.unstack(displacement, axis=-1)
    last = SQUARE - 1.001
    rows = tf.clip_by_value(places[:, None] + down, 0.0, last)
    columns = tf.clip_by_value(places + across, 0.0, last)
    top, left = tf.floor(rows), tf.floor(columns)
    below, right = rows - top, columns - left
    images = tf.range(tf.shape(squares)[0])[:, None, None] * SQUARE**2
    first = images + tf.cast(top, tf.int32) * SQUARE + tf.cast(left, tf.int32)
    flat = tf.reshape(squares, [-1])
    a, b, c, d = (tf.gather(flat, first + offset) for offset in (0, 1, SQUARE, SQUARE + 1))
    upper, lower = a + right * (b - a), c + right * (d - c)
    return upper + below * (lower - upper)


def compute_displacement(
    displacement: tf.Tensor, boxes: tf.Tensor, height: tf.Tensor, width: tf.Tensor
) -> tf.Tensor:
    """Compute where the pixels of an image are taken from.

    Args:
        displacement: `[GRID, GRID, 2] float32`, of `Fields`.
        boxes: `[N, 4] float32`, `rel_yxyx` of the image.
        height: Of the image in pixels.
        width: Of the image in pixels.

    Returns:
        `[height, width, 2] float32`, pixels down and across, exactly 0 in every pixel that a box
        touches.
    """
    weights = make_weights(SQUARE)
    planes = tf.transpose(limit_stretch(displacement), [2, 0, 1]) * SQUARE
    planes = _spread(weights, weights, planes)
    top, left, bottom, right = tf.unstack(boxes, axis=-1)
    # In the square, rounding may leave nothing of a narrow box, or something of an empty one.
    valid = (bottom > top) & (right > left)  # what is compared with NaN is not
    boxes = tf.where(valid[:, None], boxes, float("nan"))
    in_square = letterbox_boxes(boxes, height, width, SQUARE)
    scale = tf.cast(tf.maximum(height, width), tf.float32) / SQUARE
    held = hold_boxes(in_square, MARGIN_PX + 1.0 / scale, tf.reduce_max(tf.abs(planes)))
    return unletterbox(tf.transpose(planes * held, [1, 2, 0]), height, width) * scale


def limit_stretch(displacement: tf.Tensor) -> tf.Tensor:
    """Weaken displacements whose control points would bring pixels out of their order.

    Args:
        displacement: `[..., GRID, GRID, 2] float32`, of `Fields`.

    Returns:
        The same shape. Down and across, neighbours along that axis differ by `MAX_STRETCH` of their
        distance at most.
    """
    down, across = tf.unstack(displacement, axis=-1)
    steps = (down[..., 1:, :] - down[..., :-1, :], across[..., 1:] - across[..., :-1])
    limited = []
    for part, step in zip((down, across), steps, strict=True):
        steepest = tf.reduce_max(tf.abs(step), axis=(-2, -1), keepdims=True) * GRID
        limited.append(part * (MAX_STRETCH / tf.maximum(steepest, MAX_STRETCH)))
    return tf.stack(limited, axis=-1)


def hold_boxes(boxes: tf.Tensor, margin_px: tf.Tensor, largest: tf.Tensor) -> tf.Tensor:
    """Compute how much of a displacement is left around boxes.

    Args:
        boxes: `[N, 4] float32`, `rel_yxyx` of the square; NaN count for nothing.
        margin_px: Scalar float32, pixels of `SQUARE` around a box in which nothing is left.
        largest: Scalar float32, largest displacement in pixels of `SQUARE`, which the ramp has to
            be wide enough for.

    Returns:
        `[SQUARE, SQUARE] float32`, from 0 in a box and its margin to 1.
    """
    pixels = tf.range(SQUARE, dtype=tf.float32) + 0.5
    top, left, bottom, right = tf.unstack(boxes[..., None] * SQUARE, axis=-2)
    down = tf.maximum(top - pixels, pixels - bottom)
    across = tf.maximum(left - pixels, pixels - right)
    away = tf.maximum(down[:, :, None], across[:, None])
    away = tf.where(tf.math.is_nan(away), float(2 * SQUARE), away)
    distance = tf.reduce_min(away, axis=0)
    width = tf.maximum(largest * (_STEEPEST / MAX_STRETCH), MIN_RAMP_PX)
    share = tf.clip_by_value((distance - margin_px) / width, 0.0, 1.0)
    return share * share * (3.0 - 2.0 * share)


def apply_tones(
    planes: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor, slopes: tf.Tensor
) -> tf.Tensor:
    """Apply a tone curve to every pixel, that of its place.

    Args:
        planes: `[B, H, W] float32`, black 0, white 1.
        rows: `[H, GRID] float32`, from `make_weights`.
        columns: `[W, GRID] float32`, likewise.
        slopes: `[1 or B, GRID, GRID, TONES] float32`, of `Fields`.

    Returns:
        `[B, H, W] float32`; 0 stays 0, and what is below stays as it is.
    """
    changed = tf.minimum(planes, 0.0)
    for index, part in enumerate(tf.unstack(tf.exp(slopes), axis=-1)):
        above = tf.nn.relu(planes - index / TONES)
        if index < TONES - 1:
            above = tf.minimum(above, 1.0 / TONES)
        changed += _spread(rows, columns, part) * above
    return changed


def make_weights(
    length: tf.Tensor | int, start: tf.Tensor | float = 0.0, extent: tf.Tensor | float = 1.0
) -> tf.Tensor:
    """Make the weights of control points in each pixel along a side: a cubic B-spline.

    Args:
        length: Pixels along the side.
        start: Where the image begins in the square, in parts of the square's side.
        extent: How much of the square it takes.

    Returns:
        `[length, GRID] float32`, not negative, with sum 1: no value is beyond the control points'.
    """
    pixels = tf.range(tf.cast(length, tf.float32)) + 0.5
    place = (start + extent * pixels / tf.cast(length, tf.float32)) * GRID - 0.5
    # Two points beyond each end, which repeat the last.
    away = tf.abs(place[:, None] - tf.range(-2.0, GRID + 2.0))
    near = 2.0 / 3.0 - away * away * (1.0 - 0.5 * away)
    weights = tf.where(away < 1.0, near, tf.nn.relu(2.0 - away) ** 3 / 6.0)
    first, inner, last = tf.split(weights, [3, GRID - 2, 3], axis=-1)
    first, last = (tf.reduce_sum(end, axis=-1, keepdims=True) for end in (first, last))
    return tf.concat([first, inner, last], axis=-1)


def _spread(rows: tf.Tensor, columns: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
    """Spread control points `[..., GRID, GRID]` over pixels: `[..., H, W]`."""
    return tf.matmul(tf.matmul(rows, points), columns, transpose_b=True)


def _find_places(height: tf.Tensor, width: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Find where rows and columns begin in the square, and how much of it they take."""
    top, left, rows, columns = (
        tf.cast(part, tf.float32) / SQUARE for part in compute_content(height, width, SQUARE)
    )
    return [(top, rows), (left, columns)]
