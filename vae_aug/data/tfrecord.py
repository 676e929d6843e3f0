"""TFRecord files read by the place of a record, so that one can be found again without the others.

Reference:
    TensorFlow, "TFRecord and tf.train.Example", TFRecords format details: a record is its length
    (uint64, little-endian), a checksum of that, the data, and a checksum of these.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

# The public readers stop for good at a damaged record and cannot begin at a later one.
from tensorflow.python.lib.io.tf_record import tf_record_random_reader

from vae_aug.errors import RecordError

_LENGTH_BYTES, _FRAME_BYTES = 8, 16
_NAME = re.compile(
    r"(?P<stem>.+?)(-(?P<first>\d{5})-of-(?P<first_count>\d{5}))?"
    r"\.(tfrecords?|tfrec|records?)(-(?P<last>\d{5})-of-(?P<last_count>\d{5}))?",
    re.IGNORECASE,
)


def is_tfrecord(path: Path) -> bool:
    """Tell whether a file is named as TFRecord files are, e.g. `train.record-00000-of-00010`."""
    return _NAME.fullmatch(path.name) is not None


def parse_shard_name(path: Path) -> tuple[str, int]:
    """Return what the shards of a file have in common, and how many there should be; 1 if unsaid.

    Example:
        >>> parse_shard_name(Path("a/train-00002-of-00004.tfrecord"))
        ('train', 4)
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        return path.stem, 1
    return match["stem"], int(match["first_count"] or match["last_count"] or 1)


def iterate_places(path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes | RecordError]]:
    """Iterate over the records of a file, beyond damaged ones where their length is to be trusted.

    Args:
        path: The file, not compressed.

    Yields:
        `(offset, data)`: the byte at which the record begins, and its data; where these are
        damaged, the error that says so.

    Raises:
        RecordError: If the file cannot be read or is compressed.
    """
    reader = _open(path)
    size = Path(path).stat().st_size
    offset = 0
    while offset < size:
        try:
            data, end = reader.read(offset)
        except (tf.errors.DataLossError, IndexError):
            end = _find_end(Path(path), offset)
            lost = "" if end <= size else ", and any behind it are lost"
            data = RecordError(f"{path}: damaged (wrong checksum or cut short){lost}.")
            if offset == 0 and _is_gzip(Path(path)):
                raise RecordError(f"{path}: is compressed; unpack it with gunzip.") from None
        yield offset, data
        offset = end


def read_feature(path: str | os.PathLike[str], offset: int, key: str) -> bytes:
    """Read a feature of bytes of one record.

    Args:
        path: The TFRecord file.
        offset: The byte at which the record begins.
        key: The feature's key.

    Returns:
        The first value of the feature.

    Raises:
        RecordError: If the file or the record cannot be read, or the feature is missing.
    """
    try:
        data, _ = _open(path).read(offset)
    except (tf.errors.DataLossError, IndexError) as error:
        raise RecordError(f"{path}: damaged since it was first read.") from error
    values = get_values(parse_record(path, data), key, "bytes_list")
    if not values:
        raise RecordError(f"{path}: {key} is missing or of another type.")
    return values[0]


def parse_record(path: str | os.PathLike[str], data: bytes | RecordError) -> tf.train.Example:
    """Parse the data of a record as `iterate_places` yields them.

    Raises:
        RecordError: If they are damaged or no `tf.train.Example`.
    """
    if isinstance(data, RecordError):
        raise data
    try:
        return tf.train.Example.FromString(data)
    except DecodeError as error:
        raise RecordError(f"{path}: no tf.train.Example.") from error


def get_values(record: tf.train.Example, key: str, kind: str) -> Sequence[Any]:
    """Return the values of a feature, none if it is missing or of another type.

    Args:
        record: The record.
        key: The feature's key.
        kind: `"bytes_list"`, `"float_list"` or `"int64_list"`.
    """
    feature = record.features.feature
    # Indexing a missing key of a protobuf map would add it to the caller's example.
    return getattr(feature[key], kind).value if key in feature else ()


def _open(path: str | os.PathLike[str]) -> tf_record_random_reader:
    try:
        return tf_record_random_reader(os.fspath(path))
    except tf.errors.OpError as error:
        raise RecordError(f"{path}: cannot be read ({error.message}).") from error


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(3) == b"\x1f\x8b\x08"


def _find_end(path: Path, offset: int) -> int:
    """Return where the next record would begin, by the length that a damaged record states."""
    with path.open("rb") as file:
        file.seek(offset)
        head = file.read(_LENGTH_BYTES).ljust(_LENGTH_BYTES, b"\xff")
    return offset + _FRAME_BYTES + struct.unpack("<Q", head)[0]
