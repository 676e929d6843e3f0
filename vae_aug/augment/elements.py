"""Find image, boxes and identity in an element, for every layout that detectors are fed with.

| layout | image | boxes |
| --- | --- | --- |
| TFDS | `element["image"]` | `element["objects"]["bbox"]`, `rel_yxyx` |
| Keras | `element["images"]` | `element["bounding_boxes"]["boxes"]`, `xyxy` |
| pair | `element[0]` | the same keys in `element[1]`, if that is a dict |
| bare | the element itself | none |

`bbox` and `boxes` may also stand beside the image. Everything is found once, from dtypes and
shapes, so a wrong element is refused when a `Dataset.map` is traced and not in its first batch.
Boxes under other keys are a matter of `vae_aug.augment.mistakes`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from vae_aug.grey import IMAGE_DTYPES

ID_KEYS = ("image/source_id", "source_id", "image/id", "image_id", "id")
EPOCH_KEY = "epoch"

_IMAGE_KEYS = ("image", "images")
_BOX_GROUPS = ("objects", "bounding_boxes")
_BOX_FORMATS = {"bbox": "rel_yxyx", "boxes": "xyxy"}

_MARKS = ("mask", "segment", "keypoint", "key_point", "landmark", "polygon", "contour")
"""Words in the keys of what marks places of an image."""

Path = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where things are in an element.

    Attributes:
        image: Keys and indices that lead to the image.
        boxes: Likewise to the boxes; None if there are none.
        source_id: Likewise to the id of the example; None if it has none.
        epoch: Likewise to the epoch; None if the element has none.
        box_format: Format of the boxes, one of `vae_aug.config.BoxFormat`.
        batched: Whether the element is a batch of examples.
        marks: Likewise to a mask, to key points or the like, which would no longer fit if pixels
            moved; None if there are none.
    """

    image: Path
    boxes: Path | None
    source_id: Path | None
    epoch: Path | None
    box_format: str
    batched: bool
    marks: Path | None


class Example(NamedTuple):
    """The parts of an element that the transform reads.

    Attributes:
        image: `[H, W, C]`.
        boxes: `[N, 4] float32` in the layout's format; NaN where the row of a ragged batch ended.
        source_id: `[] string`, the id; empty if it has none.
        epoch: `[] int64`.
    """

    image: Any
    boxes: tf.Tensor
    source_id: tf.Tensor
    epoch: tf.Tensor


def find_layout(element: Any, bounding_box_format: str | None = None) -> Layout:
    """Find the image, the boxes and the identity in an element.

    Args:
        element: An element, or its `element_spec`.
        bounding_box_format: Format of the boxes; None for the one that goes with their key,
            `"rel_yxyx"` for `bbox` and `"xyxy"` for `boxes`.

    Returns:
        The layout.

    Raises:
        ValueError: If there is no image, or its shape or the boxes' is not supported.
        TypeError: If the image's dtype is not supported.
    """
    image = _find_image(element)
    batched = _check_image(get_at(element, image), image)
    groups = _find_groups(element)
    boxes = next(
        (
            (*path, key)
            for path, group in groups
            for key in _BOX_FORMATS
            if key in group and not isinstance(group[key], Mapping)
        ),
        None,
    )
    if boxes is not None:
        _check_boxes(get_at(element, boxes), boxes, batched)
    by_key = _BOX_FORMATS[boxes[-1]] if boxes else "rel_yxyx"
    return Layout(
        image=image,
        boxes=boxes,
        source_id=_find_key(groups, ID_KEYS),
        epoch=_find_key(groups, (EPOCH_KEY,)),
        box_format=bounding_box_format or by_key,
        batched=batched,
        marks=_find_marks(element, image, batched),
    )


def iterate_leaves(element: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the path and the value of everything in dicts, and in the tuple around them."""
    if isinstance(element, Mapping):
        parts: Any = element.items()
    elif isinstance(element, tuple | list) and not path:
        parts = enumerate(element)
    else:
        yield path, element
        return
    for key, part in parts:
        yield from iterate_leaves(part, (*path, key))


def _find_marks(element: Any, image: Path, batched: bool) -> Path | None:
    """Find what marks places of the image beside boxes: by its key, or by having its sides."""
    height, width = tf.TensorShape(get_at(element, image).shape)[-3:-1]
    for path, part in iterate_leaves(element):
        if path == image or part is None or isinstance(part, str | bytes):
            continue
        if path and any(word in str(path[-1]).lower() for word in _MARKS):
            return path
        sides = find_shape(part)
        if sides is None:
            continue
        sides = sides[1:] if batched and sides.rank else sides
        known = sides.rank in (2, 3) and None not in (height, width)
        if known and tuple(sides[:2]) == (height, width):
            return path
    return None


def find_shape(part: Any) -> tf.TensorShape | None:
    """Return the shape of an array or a tensor, None for anything else that an element may hold."""
    try:
        return tf.TensorShape(part.shape)
    except (AttributeError, TypeError, ValueError):
        return None


def get_at(element: Any, path: Path) -> Any:
    """Follow keys and indices into an element."""
    for key in path:
        element = element[key]
    return element


def replace_at(element: Any, path: Path, value: Any) -> Any:
    """Copy an element with one value replaced; every other value is the very same object."""
    if not path:
        return value
    key, *rest = path
    changed = replace_at(element[key], tuple(rest), value)
    if isinstance(element, Mapping):
        copy = dict(element) if type(element) is dict else element.copy()  # type: ignore[attr-defined]
        copy[key] = changed
        return copy
    values = [changed if index == key else old for index, old in enumerate(element)]
    if hasattr(element, "_fields"):
        return type(element)(*values)
    return type(element)(values)


def read_example(element: Any, layout: Layout, epoch: int | tf.Tensor = 0) -> Example:
    """Read the parts of an element that the transform needs.

    Args:
        element: An element.
        layout: Where things are in it.
        epoch: Scalar, for elements that have none of their own.

    Returns:
        The example; of a batch all examples, with a batch axis in front of each tensor.
    """

    def read(path: Path | None, default: Any) -> Any:
        value = default if path is None else get_at(element, path)
        return value if isinstance(value, tf.RaggedTensor) else tf.convert_to_tensor(value)

    image = read(layout.image, None)
    ragged = isinstance(image, tf.RaggedTensor)
    count = image.nrows(tf.int32) if ragged else tf.shape(image)[0]
    rows = [count] if layout.batched else []
    boxes = tf.cast(read(layout.boxes, tf.zeros([*rows, 0, 4])), tf.float32)
    if isinstance(boxes, tf.RaggedTensor):
        boxes = boxes.to_tensor(float("nan"))
    # A batch without any box may have lost its last axis, e.g. as an empty list.
    each = tf.maximum(count, 1) if layout.batched else 1
    boxes = tf.reshape(boxes, [*rows, tf.size(boxes) // (4 * each), 4])
    source_id = read(layout.source_id, tf.fill(rows, ""))
    if source_id.dtype != tf.string:
        source_id = tf.strings.as_string(source_id)
    epochs = tf.broadcast_to(tf.cast(read(layout.epoch, epoch), tf.int64), rows)
    return Example(image, boxes, tf.reshape(source_id, rows), epochs)


def _find_image(element: Any) -> Path:
    """Return where the image is."""
    if isinstance(element, Mapping):
        keys = [key for key in _IMAGE_KEYS if key in element]
        if len(keys) == 1:
            return (keys[0],)
        found = f"keys {', '.join(map(repr, element))}"
    elif isinstance(element, tuple | list):
        if element and _is_array(element[0]):
            return (0,)
        first = type(element[0]).__name__ if element else "nothing"
        found = f"a {type(element).__name__} of {len(element)} that begins with {first}"
    elif _is_array(element):
        return ()
    else:
        found = f"{type(element).__name__}"
    raise ValueError(
        "VAEAugment takes a dict with exactly one of the keys 'image' and 'images', a tuple that "
        f"begins with the image, or an image; received {found}."
    )


def _check_image(image: Any, path: Path) -> bool:
    """Check shape and dtype; return whether it is a batch."""
    name = f"the image at {list(path)}" if path else "the image"
    if not _is_array(image):
        raise TypeError(f"{name} must be a tensor or array; received {type(image).__name__}.")
    dtype, shape = tf.as_dtype(image.dtype), tf.TensorShape(image.shape)
    received = f"received {dtype.name} {shape}"
    if dtype not in IMAGE_DTYPES:
        names = ", ".join(known.name for known in IMAGE_DTYPES)
        raise TypeError(f"{name} must be one of {names}; {received}. Cast it before VAEAugment.")
    if shape.rank not in (3, 4):
        raise ValueError(
            f"{name} must be [H, W, C] or a batch [B, H, W, C]; {received}. If the rank is "
            "unknown, set it with tf.ensure_shape."
        )
    if shape[-1] not in (1, 3):
        raise ValueError(
            f"{name} must have 1 or 3 channels, last; {received}. If the number is unknown, set "
            "it with tf.ensure_shape."
        )
    ragged = isinstance(image, tf.RaggedTensor | tf.RaggedTensorSpec)
    if ragged and (shape.rank != 4 or image.ragged_rank != 2):
        raise ValueError(
            f"ragged images must be a batch [B, (H), (W), C] of ragged rank 2; {received}, "
            f"ragged rank {image.ragged_rank}."
        )
    return shape.rank == 4


def make_dense(tensor: tf.Tensor | tf.RaggedTensor) -> tf.Tensor:
    """Make a dense tensor of a ragged one whose rows have one length, as an image's do."""
    return tensor.to_tensor() if isinstance(tensor, tf.RaggedTensor) else tensor


def _check_boxes(boxes: Any, path: Path, batched: bool) -> None:
    """Check that boxes are `[N, 4]`, or `[B, N, 4]` in a batch."""
    shape = tf.TensorShape(boxes.shape if _is_array(boxes) else np.shape(boxes))
    expected = "[B, N, 4]" if batched else "[N, 4]"
    known = shape.rank is not None
    if known and (shape.rank != 2 + batched or shape[-1] not in (4, None)):
        raise ValueError(f"boxes at {list(path)} must be {expected}; received shape {shape}.")


def _find_groups(element: Any) -> list[tuple[Path, Mapping[str, Any]]]:
    """Return the dicts, with their paths, that may hold boxes or identity."""
    roots: list[tuple[Path, Any]] = [((), element)]
    if isinstance(element, tuple | list):
        roots = [((index,), part) for index, part in enumerate(element)]
    dicts = [(path, part) for path, part in roots if isinstance(part, Mapping)]
    nested = [
        ((*path, key), part[key])
        for path, part in dicts
        for key in _BOX_GROUPS
        if isinstance(part.get(key), Mapping)
    ]
    return nested + dicts


def _find_key(groups: list[tuple[Path, Mapping[str, Any]]], keys: tuple[str, ...]) -> Path | None:
    """Return the path of the first of `keys` that is there, outside of the groups of boxes."""
    for path, group in groups:
        if path and path[-1] in _BOX_GROUPS:
            continue
        for key in keys:
            if key in group:
                return (*path, key)
    return None


def _is_array(value: Any) -> bool:
    return isinstance(
        value, tf.Tensor | tf.RaggedTensor | tf.TensorSpec | tf.RaggedTensorSpec | np.ndarray
    )
