"""Elements that are likely mistaken: an error where that is certain, else one warning.

Boxes pass bit for bit whatever they hold, so what they hold is no reason to stop; but boxes that
are read in another format than they have are boxes that the guard does not protect. Keys, dtypes
and shapes are checked when a dataset is traced. Values are checked as they come: eagerly, and in
the functions of `tf.data`, where an operation prints to stderr, so that the graph stays
serialisable. A training step checks no values, since XLA compiles no printing.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from vae_aug.augment.elements import Layout, Path, find_shape, get_at, iterate_leaves
from vae_aug.config import AugmentConfig

_FAR_OUTSIDE = 1.5
"""End of a box, in sides of the image, beyond which its format is doubted: annotations that reach
a few pixels over the edge are common."""

_SMALLEST_SIDE_PX = 8
"""Side of an image below which a box in pixels may well be of one pixel."""

_MOST_ABOVE_WHITE = 0.3
"""Share of an image's pixels above white from which its range is doubted. Of a head CT in a brain
window bone is some 15%."""

_WIDE_RANGE = 100.0
"""Span of a range in which an image whose values all lie in [0, 1] is doubted."""

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Notices:
    """The warnings of a transform, each of which is logged once.

    Attributes:
        said: Keys of the warnings so far.
    """

    said: set[str] = dataclasses.field(default_factory=set)

    def say(self, key: str, text: str) -> None:
        """Log a warning unless one with this key was logged."""
        if key not in self.said:
            self.said.add(key)
            _logger.warning("%s (This is said once.)", text)


def check_element(element: Any, layout: Layout, config: AugmentConfig, notices: Notices) -> None:
    """Check keys, dtypes and shapes of an element.

    Args:
        element: An element, or its `element_spec`.
        layout: Where things are in it.
        config: Settings of the transform.
        notices: Of the transform.

    Raises:
        ValueError: If there are boxes under a key that the guard does not read, or
            the value range leaves an integer dtype nothing between black and white.
    """
    if config.value_range is not None:
        _check_value_range(get_at(element, layout.image).dtype, config.value_range, notices)
    if config.guard == "off":
        return
    if layout.boxes is None:
        _check_missing_boxes(element, layout, notices)
        return
    boxes = get_at(element, layout.boxes)
    dtype = getattr(boxes, "dtype", None)
    if layout.box_format.startswith("rel_") and dtype is not None and tf.as_dtype(dtype).is_integer:
        notices.say(
            "integers",
            f"VAEAugment: boxes at {list(layout.boxes)} are {tf.as_dtype(dtype).name}, and read as "
            f"{layout.box_format!r}, which are fractions of the image. If they are pixels, pass "
            "bounding_box_format, e.g. 'xyxy'.",
        )


def tell_marks(marks: Path, notices: Notices) -> None:
    """Warn that pixels stay where they are, since what marks places would no longer fit."""
    notices.say(
        "marks",
        f"VAEAugment: {_name(marks)} marks places of the image, and pixels that moved would no "
        "longer be where it says. So tones are varied and shapes are not. Leave it out of the "
        "element if it does not matter.",
    )


def _check_value_range(dtype: Any, value_range: tuple[float, float], notices: Notices) -> None:
    """Check a range against what an integer dtype can hold."""
    dtype = tf.as_dtype(dtype)
    if not dtype.is_integer:
        return
    low, high = value_range
    if high - low <= 1 or high <= dtype.min or low >= dtype.max:
        raise ValueError(
            f"value_range={value_range} leaves nothing between black and white in {dtype.name} "
            f"images. Pass the values that black and white have in them, e.g. (0, {dtype.max}), or "
            "None for that."
        )
    if high > 2 * dtype.max:
        notices.say(
            "range of dtype",
            f"VAEAugment: value_range={value_range}, but images are {dtype.name}, whose highest "
            f"value is {dtype.max}: the network sees them dark. Pass the values that black and "
            "white have in these images, or None.",
        )


def _check_missing_boxes(element: Any, layout: Layout, notices: Notices) -> None:
    """Refuse boxes under a key that the guard does not read; warn if no key holds boxes."""
    known = (
        "'bbox' (rel_yxyx) or 'boxes' (xyxy), beside the image, in the dict that follows it, or in "
        "'objects' or 'bounding_boxes' there"
    )
    leaves = [leaf for leaf in iterate_leaves(element) if leaf[0] != layout.image]
    alike = [path for path, part in leaves if _has_shape_of_boxes(part, layout.batched)]
    named = [path for path in alike if "box" in str(path[-1]).lower()]
    if named:
        raise ValueError(
            f"the boxes at {list(named[0])} would not be guarded: boxes are looked for under "
            f"{known}. Rename the key, with bounding_box_format if their format is another, or "
            "pass guard='off'."
        )
    unnamed = [path for path in alike if isinstance(element, tuple | list) and len(path) == 1]
    if unnamed:
        notices.say(
            "no boxes",
            f"VAEAugment: {list(unnamed[0])} of the element has the shape of boxes and no key, so "
            f"it is not guarded. Boxes are looked for under {known}. Put them there, or pass "
            "guard='off'.",
        )
    elif any(isinstance(part, Mapping) for part in (element, *_list_parts(element))):
        found = ", ".join(f"{_name(path)} {_describe(part)}" for path, part in leaves)
        notices.say(
            "no boxes",
            "VAEAugment: the guard has nothing to guard, since there are no boxes in the first "
            f"element, which has beside its image: {found or 'nothing'}. Boxes are looked for "
            f"under {known}. Put them there, or pass guard='off'.",
        )


def _list_parts(element: Any) -> tuple[Any, ...]:
    return tuple(element) if isinstance(element, tuple | list) else ()


def _has_shape_of_boxes(part: Any, batched: bool) -> bool:
    """Tell if a value is `[N, 4]`, or `[B, N, 4]` in a batch."""
    shape = find_shape(part)
    return shape is not None and shape.rank == 2 + batched and shape[-1] == 4


def _name(path: Path) -> str:
    return repr("/".join(map(str, path)))


def _describe(part: Any) -> str:
    """Name the dtype and shape of a value."""
    shape = find_shape(part)
    if shape is None or not hasattr(part, "dtype"):
        return type(part).__name__
    dtype = part.dtype.name if isinstance(part.dtype, tf.DType) else str(part.dtype)
    return f"{dtype} {shape}"


def watch_boxes(
    boxes: tf.Tensor,
    relative: tf.Tensor,
    layout: Layout,
    height: Any,
    width: Any,
    notices: Notices,
) -> None:
    """Warn once of a box that cannot be in the format that it is read in.

    A box with a negative value or one that is not finite is padding, and passed over.

    Args:
        boxes: `[N, 4] float32` in the layout's format.
        relative: The same in `rel_yxyx`.
        layout: Where the boxes are, and their format.
        height: Of the image, pixels.
        width: Likewise.
        notices: Of the transform.
    """
    start, end = relative[..., :2], relative[..., 2:]
    given = tf.reduce_all(tf.math.is_finite(boxes) & (boxes >= 0.0), axis=-1)
    wrong = tf.reduce_any((end < start) | (end > _FAR_OUTSIDE), axis=-1)
    if not layout.box_format.startswith("rel_"):
        large = tf.maximum(height, width) > _SMALLEST_SIDE_PX
        has_area = tf.reduce_all(end > start, axis=-1)
        wrong |= tf.reduce_all(boxes <= 1.0, axis=-1) & has_area & large
    wrong &= given
    _say_if(
        tf.reduce_any(wrong),
        f"VAEAugment: boxes at {list(layout.boxes or ())} are read as {layout.box_format!r}, which "
        "cannot be: one has no area, lies far outside of its image, or is all within its first "
        "pixel, and the guard protects another place than is meant. Pass bounding_box_format "
        "with the format that they have. The box, and the height and width of the image: ",
        lambda: [tf.boolean_mask(boxes, wrong)[0], tf.stack([height, width])],
        notices,
    )


def watch_values(
    image: tf.Tensor, value_range: tuple[float, float] | None, notices: Notices
) -> None:
    """Warn once of an image whose values hardly fit the range that the user gave.

    Args:
        image: `[H, W, C]`.
        value_range: Values of black and white; None for nothing to say.
        notices: Of the transform.
    """
    if value_range is None:
        return
    low, high = value_range
    values = tf.cast(image, tf.float32)
    least, most = tf.reduce_min(values), tf.reduce_max(values)
    wrong = tf.reduce_mean(tf.cast(values > high, tf.float32)) > _MOST_ABOVE_WHITE
    if image.dtype.is_floating and high - low >= _WIDE_RANGE:
        wrong |= (least >= 0.0) & (most > 0.0) & (most <= 1.0)
    _say_if(
        wrong,
        f"VAEAugment: value_range={value_range} says what black and white are, and the values of "
        "an image do not look like it: much of it lies above white, or all of it within [0, 1]. "
        "Pass the range that they have. Lowest and highest value: ",
        lambda: [tf.stack([least, most])],
        notices,
    )


def _say_if(
    wrong: tf.Tensor, text: str, make_figures: Callable[[], list[tf.Tensor]], notices: Notices
) -> None:
    """Log a text and figures once where a condition holds; in a graph of `tf.data`, print them.

    There it is once for each pass over a dataset: TensorFlow's kernel counts.
    """
    if tf.executing_eagerly():
        if text not in notices.said and bool(wrong):
            notices.say(text, text + ", ".join(str(np.asarray(x).tolist()) for x in make_figures()))
        return
    if not _is_traced_by_tf_data():
        return

    def say() -> tf.Tensor:
        return tf.raw_ops.Print(
            input=wrong, data=make_figures(), message=text, first_n=1, summarize=4
        )

    tf.cond(wrong, say, lambda: tf.identity(wrong))


def _is_traced_by_tf_data() -> bool:
    """Tell if the graph that is being built is that of a function of a dataset."""
    graph = tf.compat.v1.get_default_graph()
    while graph is not None and not getattr(graph, "name", "").startswith("Dataset_"):
        graph = getattr(graph, "outer_graph", None)
    return graph is not None
