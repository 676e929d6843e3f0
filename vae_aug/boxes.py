"""Bounding boxes between the formats that detectors and annotation tools use."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import tensorflow as tf

from vae_aug.config import BoxFormat

Boxes = Any
"""`np.ndarray` or `tf.Tensor`; TensorFlow has no types that a checker could tell apart."""


def convert_boxes(
    boxes: Boxes,
    source: str,
    target: str,
    *,
    height: Any = None,
    width: Any = None,
) -> Boxes:
    """Convert boxes from one format to another.

    The names are those of Keras's `bounding_box_format`. Pixel coordinates are continuous: a
    box over the whole image is `(0, 0, width, height)` in `"xyxy"`, so a width is
    `xmax - xmin`. Between formats that differ in nothing, the boxes come back as they are.

    Args:
        boxes: `[..., N, 4]` floating point, NumPy array or tensor. Integer arrays are taken as
            float64; integer tensors as float32.
        source: Format of `boxes`.
        target: Format of the result.
        height: Height of the image in pixels; needed between `rel_*` and pixel formats. A
            number, or an array or tensor that broadcasts with `[..., N]`.
        width: Width of the image in pixels, likewise.

    Returns:
        Boxes of the same shape and kind; dtype as `boxes` where that is floating point.

    Raises:
        ValueError: On an unknown format, a last axis that is not 4, or a missing size.

    Example:
        >>> convert_boxes(np.array([[10.0, 20.0, 30.0, 60.0]]), "xyxy", "xywh").tolist()
        [[10.0, 20.0, 20.0, 40.0]]
    """
    for name, value in (("source", source), ("target", target)):
        if value not in get_args(BoxFormat):
            formats = ", ".join(map(repr, get_args(BoxFormat)))
            raise ValueError(f"{name} must be one of {formats}; got {value!r}.")
    boxes = _as_floating(boxes)
    if len(boxes.shape) == 0 or boxes.shape[-1] not in (4, None):
        raise ValueError(f"boxes must have shape [..., 4]; got {tuple(boxes.shape)}.")
    if source == target:
        return boxes
    relative_source, relative_target = source.startswith("rel_"), target.startswith("rel_")
    corners = _to_corners(boxes, source.removeprefix("rel_"))
    if relative_source != relative_target:
        if height is None or width is None:
            raise ValueError(f"{source!r} to {target!r} needs height and width of the image.")
        corners = _scale(corners, height, width, divide=relative_target)
    return _from_corners(corners, target.removeprefix("rel_"))


def _as_floating(boxes: Boxes) -> Boxes:
    if tf.is_tensor(boxes):
        return boxes if boxes.dtype.is_floating else tf.cast(boxes, tf.float32)
    boxes = np.asarray(boxes)
    return boxes if np.issubdtype(boxes.dtype, np.floating) else boxes.astype(np.float64)


def _stack(columns: tuple[Boxes, ...]) -> Boxes:
    stack = tf.stack if tf.is_tensor(columns[0]) else np.stack
    return stack(columns, axis=-1)


def _to_corners(boxes: Boxes, source: str) -> tuple[Boxes, ...]:
    """Return columns `(xmin, ymin, xmax, ymax)`."""
    a, b, c, d = (boxes[..., i] for i in range(4))
    match source:
        case "xyxy":
            return a, b, c, d
        case "yxyx":
            return b, a, d, c
        case "xywh":
            return a, b, a + c, b + d
        case "center_xywh":
            return a - c / 2, b - d / 2, a + c / 2, b + d / 2
        case _:  # center_yxhw
            return b - d / 2, a - c / 2, b + d / 2, a + c / 2


def _from_corners(corners: tuple[Boxes, ...], target: str) -> Boxes:
    xmin, ymin, xmax, ymax = corners
    match target:
        case "xyxy":
            return _stack((xmin, ymin, xmax, ymax))
        case "yxyx":
            return _stack((ymin, xmin, ymax, xmax))
        case "xywh":
            return _stack((xmin, ymin, xmax - xmin, ymax - ymin))
        case "center_xywh":
            return _stack(((xmin + xmax) / 2, (ymin + ymax) / 2, xmax - xmin, ymax - ymin))
        case _:  # center_yxhw
            return _stack(((ymin + ymax) / 2, (xmin + xmax) / 2, ymax - ymin, xmax - xmin))


def _scale(
    corners: tuple[Boxes, ...], height: Any, width: Any, *, divide: bool
) -> tuple[Boxes, ...]:
    like = corners[0]
    if tf.is_tensor(like):
        height, width = (tf.cast(size, like.dtype) for size in (height, width))
    else:
        height, width = (np.asarray(size, like.dtype) for size in (height, width))
    sizes = (width, height, width, height)
    if divide:
        return tuple(column / size for column, size in zip(corners, sizes, strict=True))
    return tuple(column * size for column, size in zip(corners, sizes, strict=True))
