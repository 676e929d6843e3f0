"""Check records, and name a fault by file, index and key.

`check_records` checks everything; `check_boxes` checks boxes alone, fast enough to run before every
reading.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from vae_aug.codecs.images import parse_image_header
from vae_aug.errors import RecordError, VAEAugError
from vae_aug.records.shards import (
    INFO_FILE,
    LABEL_FILE,
    DatasetInfo,
    find_records,
    make_label_map,
)
from vae_aug.records.tfrecord import get_values

DAMAGE = (tf.errors.OpError, UnicodeDecodeError)
"""Exceptions of TensorFlow at a damaged record; the second if its message quotes bytes."""

BOX_KEYS = tuple(f"image/object/bbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax"))
BOX_FLAGS = ("is_crowd", "difficult", "truncated")
"""Yes or no for each box, under `image/object/`: the first from COCO, the others from VOC."""

CHECKED_BYTES = 2**28
"""Most bytes of a set whose boxes are checked before its first element, in about a second."""

_CHECKED_AT_ONCE = 256


def iterate_examples(path: str | os.PathLike[str]) -> Iterator[tuple[int, tf.train.Example]]:
    """Iterate over the records of one file, outside of a graph.

    Args:
        path: The TFRecord file.

    Yields:
        `(index, example)`, the index counting from 0.

    Raises:
        RecordError: If the file is missing or cut short, a checksum is wrong, or a record is no
            `tf.train.Example`; it names file and index.
    """
    index = 0
    try:
        for serialized in tf.data.TFRecordDataset(os.fspath(path)).as_numpy_iterator():
            try:
                yield index, tf.train.Example.FromString(serialized)
            except DecodeError as error:
                raise RecordError(
                    f"{path}, record {index}: no tf.train.Example; write it again."
                ) from error
            index += 1
    except tf.errors.DataLossError as error:
        raise RecordError(
            f"{path}, record {index}: damaged (wrong checksum or cut short); write it again."
        ) from error
    except tf.errors.OpError as error:
        raise RecordError(f"{path}: cannot be read ({error.message}).") from error


def check_records(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    split: str | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Check every record: checksums, keys, image header, boxes, labels and their texts.

    Args:
        paths: As `source` of `read_records`.
        split: As `read_records`.
        progress: Called with the number of records checked so far.

    Returns:
        The number of records.

    Raises:
        RecordError: On the first fault, naming file, index and key.
    """
    files, info = find_records(paths, split, allow_damaged=True)
    if info is not None:
        _check_label_map(files[0].parent, info)
    label_names = None if info is None else info.label_names
    checked = 0
    for path in files:
        for index, example in iterate_examples(path):
            _check_example(example, path, index, label_names)
            checked += 1
            if progress is not None:
                progress(checked)
    find_records(paths, split)  # sizes and counts, after what is wrong with single records
    return checked


def _check_label_map(folder: Path, info: DatasetInfo) -> None:
    """Refuse a label map that names other labels than `dataset.json`."""
    path = folder / LABEL_FILE
    expected = make_label_map(info.label_names)
    found = path.read_text("utf-8", "replace") if path.is_file() else None
    if found is not None and found != expected:
        raise RecordError(
            f"{path}: names other labels than {INFO_FILE} beside it, {list(info.label_names)}; "
            "write the split again."
        )


def _check_example(
    example: tf.train.Example, path: Path, index: int, label_names: Sequence[str] | None
) -> None:
    def refuse(key: str, fault: str) -> None:
        raise RecordError(f"{path}, record {index}, {key}: {fault}")

    encoded = get_feature(example, path, index, "image/encoded", "bytes_list")[0]
    height, width, _, _ = parse_header(encoded, path, index)
    for key, actual in (("image/height", height), ("image/width", width)):
        stored = get_feature(example, path, index, key, "int64_list")[0]
        if stored != actual:
            refuse(key, f"expected {actual} as in the encoded image; got {stored}.")
    get_feature(example, path, index, "image/source_id", "bytes_list")
    digest = get_values(example, "image/key/sha256", "bytes_list")
    if digest and digest[0].decode("ascii", "replace") != hashlib.sha256(encoded).hexdigest():
        refuse("image/key/sha256", "does not match image/encoded; the image was altered.")
    _check_objects(example, refuse, label_names)


def _check_objects(
    example: tf.train.Example,
    refuse: Callable[[str, str], None],
    label_names: Sequence[str] | None,
) -> None:
    labels = list(get_values(example, "image/object/class/label", "int64_list"))
    encoded_texts = get_values(example, "image/object/class/text", "bytes_list")
    texts = [text.decode("utf-8", "replace") for text in encoded_texts]
    sides = {
        key: np.asarray(get_values(example, key, "float_list"), np.float32) for key in BOX_KEYS
    }
    for key, values in sides.items():
        if len(values) != len(labels):
            refuse(key, f"expected one value a label, {len(labels)}; got {len(values)}.")
        bad = ~((values >= 0) & (values <= 1))
        if bad.any():
            refuse(key, f"expected values in [0, 1]; got {values[bad][0]}.")
    for axis in ("y", "x"):
        low, high = (f"image/object/bbox/{axis}{end}" for end in ("min", "max"))
        bad = sides[low] >= sides[high]
        if bad.any():
            refuse(low, f"must be below {high}; got {sides[low][bad][0]} >= {sides[high][bad][0]}.")
    if len(texts) != len(labels) or not all(texts):
        refuse(
            "image/object/class/text", f"expected a text for each label of {labels}; got {texts}."
        )
    for label, text in zip(labels, texts, strict=True):
        if label < 1:
            refuse("image/object/class/label", f"labels count from 1; got {label}.")
        if label_names is not None and (label > len(label_names) or label_names[label - 1] != text):
            refuse(
                "image/object/class/label",
                f"{label} ({text!r}) is not in {INFO_FILE}'s labels {list(label_names)}.",
            )


def get_feature(
    example: tf.train.Example, path: Path, index: int, key: str, kind: str
) -> Sequence[Any]:
    """Return the values of a feature that must be there.

    Args:
        example: The record.
        path: Its file, for the message.
        index: Its index in the file, likewise.
        key: Of the feature.
        kind: As `vae_aug.records.tfrecord.get_values`.

    Raises:
        RecordError: If it is missing, empty, or of another type.
    """
    values = get_values(example, key, kind)
    if not values:
        raise RecordError(
            f"{path}, record {index}, {key}: missing or of another type; expected a {kind}. Write "
            "the records again."
        )
    return values


def parse_header(encoded: bytes, path: Path, index: int) -> tuple[int, int, int, int]:
    """Parse the header of a record's image as `parse_image_header`; faults name the record."""
    try:
        return parse_image_header(encoded)
    except VAEAugError as error:
        raise RecordError(f"{path}, record {index}, image/encoded: {error}") from error


def check_boxes_if_small(files: Sequence[Path]) -> None:
    """Check boxes by `check_boxes` where the shards have `CHECKED_BYTES` or less.

    Args:
        files: The shards.

    Raises:
        RecordError: As of `check_boxes`.
    """
    if sum(path.stat().st_size for path in files) <= CHECKED_BYTES:
        check_boxes(files)


def check_boxes(files: Sequence[Path]) -> None:
    """Check boxes, by TensorFlow's fast parser as long as it finds no fault.

    Args:
        files: The shards.

    Raises:
        RecordError: At the first record that is damaged or no `tf.train.Example`, or whose boxes
            are not finite, crossed, or of uneven length.
    """
    for path in files:
        for index, example in _iterate_doubtful(path):
            _check_values(example, path, index)


def _iterate_doubtful(path: Path) -> Iterator[tuple[int, tf.train.Example]]:
    """Yield all records of a file in which the fast parser finds a fault, else none."""
    serialized = tf.data.TFRecordDataset(os.fspath(path)).batch(_CHECKED_AT_ONCE)
    try:
        if all(_are_plausible(batch) for batch in serialized):
            return
    except DAMAGE:
        pass  # The slow parser names the record.
    yield from iterate_examples(path)


def _are_plausible(serialized: tf.Tensor) -> bool:
    features = {key: tf.io.RaggedFeature(tf.float32) for key in BOX_KEYS}
    features |= {"image/object/class/label": tf.io.RaggedFeature(tf.int64)}
    parsed = tf.io.parse_example(serialized, features)
    sides = [parsed[key] for key in BOX_KEYS]
    lengths = [column.row_lengths() for column in parsed.values()]
    if any(tf.reduce_any(length != lengths[0]) for length in lengths):
        return False
    ymin, xmin, ymax, xmax = (side.flat_values.numpy() for side in sides)
    is_finite = all(np.isfinite(side.flat_values).all() for side in sides)
    return bool(is_finite and (ymin <= ymax).all() and (xmin <= xmax).all())


def _check_values(example: tf.train.Example, path: Path, index: int) -> None:
    """Refuse boxes that are not finite, crossed, or of uneven length."""
    labels = get_values(example, "image/object/class/label", "int64_list")
    columns = [np.asarray(get_values(example, key, "float_list")) for key in BOX_KEYS]
    for key, values in zip(BOX_KEYS, columns, strict=True):
        where = f"{path}, record {index}, {key}"
        if len(values) != len(labels):
            raise RecordError(
                f"{where}: expected one value a label, {len(labels)}; got {len(values)}."
            )
        if not np.isfinite(values).all():
            raise RecordError(f"{where}: must be finite; got {values[~np.isfinite(values)][0]}.")
    for low, high, key in ((0, 2, BOX_KEYS[0]), (1, 3, BOX_KEYS[1])):
        crossed = columns[low] > columns[high]
        if crossed.any():
            box = int(np.argmax(crossed))
            raise RecordError(
                f"{path}, record {index}, {key}: must not exceed {BOX_KEYS[high]}; box {box} has "
                f"{columns[low][box]} > {columns[high][box]}."
            )
