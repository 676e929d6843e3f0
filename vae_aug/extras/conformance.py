"""What any transform of images must leave alone in a detector's elements, checked on all of them.

Detectors are fed with elements of many layouts. A transform that works on one often drops a key of
another, rounds its boxes, or gives other pixels in a batch than alone. `check_transform` runs a
transform on elements of every layout, as `Dataset.map` would call it, and compares values.

Example:
    >>> def invert(element):
    ...     return {**element, "image": element["image"].dtype.max - element["image"]}
    >>> check_transform(invert, [Case("tfds", "single"), Case("tfds", "padded")])
    >>> def shift(element):
    ...     objects = {**element["objects"], "bbox": element["objects"]["bbox"] + 1e-6}
    ...     return {**element, "objects": objects}
    >>> try:
    ...     check_transform(shift, [Case("tfds", "single")])
    ... except ConformanceError as error:
    ...     print(error)
    values: ['objects', 'bbox'] must stay bit for bit; ...
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vae_aug.errors import ConformanceError
from vae_aug.grey import IMAGE_DTYPES

OPTIONS: Mapping[str, Sequence[Any]] = {
    "layout": ("tfds", "keras", "pair", "labels", "bare"),
    "batch": ("single", "batched", "padded", "ragged boxes", "ragged images"),
    "dtype": tuple(dtype.name for dtype in IMAGE_DTYPES),
    "channels": (1, 3),
    "count": (1, 0, 2, 300),
    "size": ((32, 32), (21, 40), (1, 1), (3, 2), (70, 45)),
}
"""Values of each field of `Case`."""

_BATCH = 3
_ODD_VALUES = np.array([np.nan, np.inf, -np.inf, -1.0, -0.0, 1e30], np.float32)
"""What stands in the rows of some boxes: padding, and what a broken annotation holds."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One kind of element.

    Attributes:
        layout: `"tfds"`, `"keras"`, `"pair"` (image, target), `"labels"` (image, string) or
            `"bare"` image.
        batch: `"single"`, `"batched"`, `"padded"` with -1 or 0 to the most boxes, `"ragged boxes"`,
            or `"ragged images"` of different sizes.
        dtype: Of the image.
        channels: Of the image, 1 or 3.
        count: Boxes of an example; unless every example has as many, the most.
        size: Height and width in pixels.
    """

    layout: str
    batch: str
    dtype: str = "uint8"
    channels: int = 1
    count: int = 1
    size: tuple[int, int] = (21, 40)

    def __str__(self) -> str:
        """Return the fields in a line."""
        height, width = self.size
        parts = (self.layout, self.batch, self.dtype, self.channels, self.count)
        return "-".join(map(str, (*parts, f"{height}x{width}")))


def cover_pairs(options: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Choose few combinations in which every two values of different options meet.

    Most faults need two values to show, e.g. a dtype in a kind of batch; all combinations of many
    options are too many to run.

    Args:
        options: Names to values, hashable.

    Returns:
        Combinations, each with a value for every name; the same for the same options.

    Reference:
        Cohen et al., The AETG System: An Approach to Testing Based on Combinatorial Design, IEEE
        Transactions on Software Engineering 23 (1997) 437-444, for the greedy choice.

    Example:
        >>> len(cover_pairs({"a": (0, 1), "b": (0, 1), "c": (0, 1)}))
        4
    """
    wanted = {
        frozenset({(one, x), (other, y)}): None
        for one, other in itertools.combinations(options, 2)
        for x in options[one]
        for y in options[other]
    }
    rows = []
    while wanted:
        row: dict[str, Any] = dict(next(iter(wanted)))
        for name in options:
            if name not in row:
                row[name] = max(options[name], key=lambda v: _count_new(row, (name, v), wanted))
        for pair in itertools.combinations(row.items(), 2):
            wanted.pop(frozenset(pair), None)
        rows.append({name: row[name] for name in options})
    return rows


def _count_new(
    row: Mapping[str, Any], entry: tuple[str, Any], wanted: Mapping[frozenset[Any], None]
) -> int:
    """Count the pairs that are still wanted and that an entry would make with a row."""
    return sum(frozenset({entry, other}) in wanted for other in row.items())


CASES: tuple[Case, ...] = tuple(Case(**row) for row in cover_pairs(OPTIONS))
"""Cases in which every two values of `OPTIONS` meet."""


def check_transform(
    transform: Callable[..., Any],
    cases: Iterable[Case] = CASES,
    *,
    seeded: bool = True,
    takes_datasets: bool = False,
) -> None:
    """Run a transform on elements of every kind, and check what it leaves alone.

    It is called eagerly, in `Dataset.map` and, if it takes whole datasets, by `Dataset.apply`.
    A message begins with the name of what failed:

    - `structure`: keys, tuples or kinds of tensors of an element differ;
    - `dtype`, `shape`: of the image, its size in a ragged batch included;
    - `values`: anything but the image differs by a bit;
    - `spec`: the static dtype or shape in a dataset differs from the element's;
    - `input`: the transform changed the element that it was given;
    - `ways`: pixels depend on whether it runs eagerly, in `map` or in `apply`;
    - `batch`: pixels of an example depend on the batch around it.

    Args:
        transform: Takes an element, a tuple as several arguments, as `Dataset.map` calls it.
        cases: What to run it on.
        seeded: Whether equal elements must give equal bytes; without, the last two are left out.
        takes_datasets: Whether to try `Dataset.apply`.

    Raises:
        ConformanceError: If it does not conform; its notes name the case.
        Exception: Whatever the transform raises, with the case as a note.
    """
    for case in cases:
        try:
            _check_case(transform, case, seeded, takes_datasets)
        except Exception as error:
            error.add_note(f"on an element {case}")
            raise


def check_element(before: Any, after: Any) -> None:
    """Check that two elements differ in nothing but the values of their images.

    Args:
        before: An element of `make_element`.
        after: What a transform made of it.

    Raises:
        ConformanceError: Naming what differs.
    """
    try:
        tf.nest.assert_same_structure(before, after, expand_composites=True)
    except (TypeError, ValueError) as error:
        told = str(error).splitlines()[0]
        raise ConformanceError(
            f"structure: expected {_describe(before)}, received {_describe(after)} ({told})"
        ) from error
    for (path, one), (_, other) in _pair_leaves(before, after):
        if path == _find_image(before):
            _check_image(one, other)
        elif _to_bytes(one) != _to_bytes(other):
            raise ConformanceError(
                f"values: {list(path)} must stay bit for bit; expected {one}, received {other}."
            )


def make_element(case: Case) -> Any:
    """Make an element of tensors, always the same for a case."""
    rng = np.random.default_rng(0)
    if case.batch == "single":
        image, (boxes, labels) = _make_image(case, rng, 0), _make_boxes(rng, case.count)
        return _arrange(case.layout, image, boxes, labels, tf.constant("a"))
    counts = [case.count] * _BATCH
    if case.batch != "batched":
        counts = [case.count, 0, min(case.count, 2)]
    images = [_make_image(case, rng, index) for index in range(_BATCH)]
    rows = [_make_boxes(rng, count) for count in counts]
    if case.batch == "ragged images":
        image = tf.ragged.stack([tf.RaggedTensor.from_tensor(image) for image in images])
    else:
        image = tf.stack(images)
    boxes, labels = (
        tf.RaggedTensor.from_row_lengths(tf.concat(parts, axis=0), counts)
        for parts in zip(*rows, strict=True)
    )
    if case.batch in ("batched", "padded"):
        boxes, labels = boxes.to_tensor(-1.0), labels.to_tensor(-1)
    return _arrange(case.layout, image, boxes, labels, tf.constant(["a", "b", "c"]))


def get_image(element: Any) -> Any:
    """Return the image of an element of `make_element`."""
    for key in _find_image(element):
        element = element[key]
    return element


def get_pixels(element: Any) -> np.ndarray:
    """Return the values of the image of an element; those of a ragged batch in a row."""
    image = get_image(element)
    flat = image.flat_values if isinstance(image, tf.RaggedTensor) else image
    return np.asarray(flat)


def _check_case(
    transform: Callable[..., Any], case: Case, seeded: bool, takes_datasets: bool
) -> None:
    """Run one case in every way."""
    element, given = make_element(case), make_element(case)
    eager = _call(transform, given)
    check_element(element, eager)
    try:
        check_element(element, given)
        same = get_pixels(element).tobytes() == get_pixels(given).tobytes()
    except ConformanceError as error:
        raise ConformanceError(f"input: was changed in place: {error}") from error
    if not same:
        raise ConformanceError("input: the image that was given was changed in place.")
    dataset = tf.data.Dataset.from_tensors(element)
    ways = {"map": dataset.map(transform)}
    if takes_datasets:
        ways["apply"] = dataset.apply(transform)
    for name, way in ways.items():
        _check_spec(dataset.element_spec, way.element_spec, name)
        (processed,) = list(way)
        check_element(element, processed)
        if seeded:
            _check_pixels(f"ways: run eagerly and in `{name}`", eager, processed)
    if seeded and case.batch != "single":
        for index in range(_BATCH):
            single = _call(transform, _take(element, index))
            _check_pixels(
                f"batch: example {index} alone and in its batch", single, _take(eager, index)
            )


def _call(transform: Callable[..., Any], element: Any) -> Any:
    """Call as `Dataset.map` does."""
    return transform(*element) if isinstance(element, tuple) else transform(element)


def _take(element: Any, index: int) -> Any:
    """Take one example, without padding's rows cut off, out of a batch."""

    def take(part: Any) -> Any:
        row = part[index]
        # Ragged heights and widths of one image are one height and one width.
        return row.to_tensor() if isinstance(row, tf.RaggedTensor) else row

    return tf.nest.map_structure(take, element)


def _check_pixels(what: str, one: Any, other: Any) -> None:
    if (x := get_pixels(one)).tobytes() != (y := get_pixels(other)).tobytes():
        differing = int(np.sum(x != y)) if x.shape == y.shape else x.size
        raise ConformanceError(f"{what}, {differing} of {x.size} values differ.")


def _check_spec(before: Any, after: Any, way: str) -> None:
    """Check that a dataset still says of its elements what is known of them."""
    for (path, one), (_, other) in _pair_leaves(before, after):
        if other.dtype != one.dtype or not other.shape.is_subtype_of(one.shape):
            raise ConformanceError(
                f"spec: in `{way}`, {list(path) or 'the image'} must stay {one}; received {other}."
            )


def _check_image(before: Any, after: Any) -> None:
    """Check all but the values of an image."""
    if after.dtype != before.dtype:
        raise ConformanceError(f"dtype: expected {before.dtype}, received {after.dtype}.")
    sizes = [[before.shape], [after.shape]]
    for image, size in zip((before, after), sizes, strict=True):
        if isinstance(image, tf.RaggedTensor):
            size += [splits.numpy().tolist() for splits in image.nested_row_splits]
    if sizes[0] != sizes[1]:
        raise ConformanceError(f"shape: expected {sizes[0]}, received {sizes[1]}.")


def _find_image(element: Any) -> tuple[Any, ...]:
    if isinstance(element, Mapping):
        return ("image" if "image" in element else "images",)
    return (0,) if isinstance(element, tuple) else ()


def _iterate_leaves(element: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """Yield the path and the value of everything in an element, in the order of its keys."""
    if isinstance(element, Mapping):
        parts: Iterable[tuple[Any, Any]] = sorted(element.items())
    elif isinstance(element, tuple):
        parts = enumerate(element)
    else:
        yield path, element
        return
    for key, part in parts:
        yield from _iterate_leaves(part, (*path, key))


def _pair_leaves(before: Any, after: Any) -> Iterator[tuple[tuple[Any, Any], tuple[Any, Any]]]:
    """Yield what stands at the same place of two elements of one structure."""
    return zip(_iterate_leaves(before), _iterate_leaves(after), strict=True)


def _describe(element: Any) -> str:
    """Name what is in an element."""
    return ", ".join(str(list(path)) for path, _ in _iterate_leaves(element))


def _to_bytes(value: Any) -> list[tuple[str, tuple[int, ...], bytes]]:
    """Return what tells NaN from NaN and -0.0 from 0.0."""
    parts = [np.asarray(part) for part in tf.nest.flatten(value, expand_composites=True)]
    # Objects are strings, whose own bytes are what counts.
    return [
        (p.dtype.str, p.shape, repr(p.tolist()).encode() if p.dtype == object else p.tobytes())
        for p in parts
    ]


def _make_image(case: Case, rng: np.random.Generator, index: int) -> tf.Tensor:
    height, width = case.size
    if case.batch == "ragged images":
        height, width = height + 3 * index, max(width - 2 * index, 1)
    values = rng.random((height, width, case.channels))
    dtype = tf.as_dtype(case.dtype)
    if dtype.is_integer:
        values *= dtype.max
    return tf.constant(values.astype(dtype.as_numpy_dtype))


def _make_boxes(rng: np.random.Generator, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return boxes, of which many are not in order or not a number, and labels."""
    boxes = rng.random((count, 4)).astype(np.float32)
    odd = boxes[1::2].reshape(-1)
    odd[::3] = np.resize(_ODD_VALUES, len(odd[::3]))
    boxes[1::2] = odd.reshape(-1, 4)
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
        case "bare":
            return image
    raise ValueError(f"layout must be one of {', '.join(OPTIONS['layout'])}; got {layout!r}.")
