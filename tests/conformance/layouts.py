"""Elements of every layout, and what any transform of images must leave alone in them.

Usable on any callable that goes into `Dataset.map`: make `CASES`, call, `check_untouched`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

DTYPES = ("uint8", "uint16", "float16", "float32")
COUNTS = (0, 1, 300)
SIZES = ((32, 32), (21, 40))
LAYOUTS = ("tfds", "keras", "pair", "labels", "bare")
BATCHES = ("single", "batched", "padded", "ragged boxes", "ragged images")

_BATCH = 3


@dataclasses.dataclass(frozen=True)
class Case:
    """One kind of element.

    Attributes:
        layout: One of `LAYOUTS`.
        batch: One of `BATCHES`.
        dtype: Of the image.
        channels: Of the image.
        count: Boxes of an example; in a padded or ragged batch the most.
        size: Height and width.
    """

    layout: str
    batch: str
    dtype: str = "uint8"
    channels: int = 1
    count: int = 1
    size: tuple[int, int] = SIZES[1]

    def __str__(self) -> str:
        height, width = self.size
        parts = (self.layout, self.batch, self.dtype, self.channels, self.count)
        return "-".join(map(str, (*parts, f"{height}x{width}")))


def iterate_cases() -> Iterator[Case]:
    """Yield every layout with every kind of batch, then vary one other property at a time."""
    for layout in LAYOUTS:
        for batch in BATCHES:
            if layout in ("labels", "bare") and batch in ("padded", "ragged boxes"):
                continue
            yield Case(layout, batch)
    for dtype in DTYPES:
        for channels in (1, 3):
            yield Case("tfds", "single", dtype, channels)
    for layout, batch in (("tfds", "single"), ("keras", "padded"), ("tfds", "ragged images")):
        for count in COUNTS:
            yield Case(layout, batch, count=count, size=SIZES[0])


def make_element(case: Case) -> Any:
    """Make an element of tensors."""
    rng = np.random.default_rng(0)
    if case.batch == "single":
        image, boxes, labels = _make_image(case, rng, 0), *_make_boxes(case, rng, case.count)
        return _arrange(case.layout, image, boxes, labels, tf.constant("a"))
    counts = [case.count] * _BATCH
    if case.batch != "batched":
        counts = [case.count, 0, min(case.count, 2)]
    images = [_make_image(case, rng, i) for i in range(_BATCH)]
    rows = [_make_boxes(case, rng, count) for count in counts]
    if case.batch == "ragged images":
        image = tf.ragged.stack([tf.RaggedTensor.from_tensor(image) for image in images])
    else:
        image = tf.stack(images)
    flat = tf.concat([row[0] for row in rows], axis=0)
    boxes = tf.RaggedTensor.from_row_lengths(flat, counts)
    labels = tf.RaggedTensor.from_row_lengths(tf.concat([row[1] for row in rows], 0), counts)
    if case.batch in ("batched", "padded"):
        boxes, labels = boxes.to_tensor(-1.0), labels.to_tensor(-1)
    return _arrange(case.layout, image, boxes, labels, tf.constant(["a", "b", "c"]))


def get_image(element: Any) -> tf.Tensor | tf.RaggedTensor:
    """Return the image of an element of `make_element`."""
    if isinstance(element, dict):
        return element["image" if "image" in element else "images"]
    return element[0] if isinstance(element, tuple) else element


def check_untouched(before: Any, after: Any) -> None:
    """Check that two elements differ in nothing but the values of their images.

    Raises:
        AssertionError: Naming what differs.
    """
    tf.nest.assert_same_structure(before, after, expand_composites=True)
    image_before, image_after = get_image(before), get_image(after)
    assert image_after.dtype == image_before.dtype, "dtype of the image"
    assert image_after.shape == image_before.shape, "shape of the image"
    if isinstance(image_before, tf.RaggedTensor):
        for one, other in zip(
            image_before.nested_row_splits, image_after.nested_row_splits, strict=True
        ):
            np.testing.assert_array_equal(one, other, "sizes of the images")
    parts_before = tf.nest.flatten(before, expand_composites=True)
    parts_after = tf.nest.flatten(after, expand_composites=True)
    pixels = tf.nest.flatten(image_before, expand_composites=True)[0]
    for one, other in zip(parts_before, parts_after, strict=True):
        if one is not pixels:
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            # As bytes, which tell NaN from NaN and -0.0 from 0.0.
            assert np.array(one.numpy()).tobytes() == np.array(other.numpy()).tobytes()


def _make_image(case: Case, rng: np.random.Generator, index: int) -> tf.Tensor:
    height, width = case.size
    if case.batch == "ragged images":
        height, width = height + 3 * index, width - 2 * index
    values = rng.random((height, width, case.channels))
    dtype = tf.as_dtype(case.dtype)
    if dtype.is_integer:
        values *= dtype.max
    return tf.constant(values.astype(dtype.as_numpy_dtype))


def _make_boxes(case: Case, rng: np.random.Generator, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return boxes, of which some are not in order or not a number, and labels."""
    boxes = rng.random((count, 4)).astype(np.float32)
    boxes[2::7] = np.nan
    return tf.constant(boxes), tf.range(count)


def _arrange(layout: str, image: Any, boxes: Any, labels: Any, name: tf.Tensor) -> Any:
    match layout:
        case "tfds":
            objects = {"bbox": boxes, "label": labels}
            return {"image": image, "image/source_id": name, "objects": objects}
        case "keras":
            return {"images": image, "bounding_boxes": {"boxes": boxes, "labels": labels}}
        case "pair":
            return image, {"boxes": boxes, "labels": labels, "image_id": name}
        case "labels":
            return image, name
        case _:
            return image
