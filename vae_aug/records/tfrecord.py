"""Read TFRecord files by the offset of a record, so that it can be read again without the others.

Reference:
    TensorFlow, "TFRecord and tf.train.Example", TFRecords format details: a record is its length
    (uint64, little-endian), a checksum of that, the data, and a checksum of these.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

# The public readers stop for good at a damaged record and cannot begin at a later one.
from tensorflow.python.lib.io.tf_record import tf_record_random_reader

from vae_aug.errors import RecordError
from vae_aug.limits import MAX_IMAGE_BYTES

_LENGTH_BYTES, _FRAME_BYTES = 8, 16
_NAME = re.compile(
    r"(?P<stem>.+?)(-(?P<first>\d{5})-of-(?P<first_count>\d{5}))?"
    r"\.(tfrecords?|tfrec|records?)(-(?P<last>\d{5})-of-(?P<last_count>\d{5}))?",
    re.IGNORECASE,
)
# The second byte of zlib is the level of compression.
_GZIP, _ZLIB = b"\x1f\x8b\x08", (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


def is_tfrecord(path: Path) -> bool:
    """Tell whether a file is named as TFRecord files are, e.g. `train.record-00000-of-00010`."""
    return _NAME.fullmatch(path.name) is not None


def parse_shard_name(path: Path) -> tuple[str, int]:
    """Return the stem of a shard's name and the number of shards that it states, else 1.

    Example:
        >>> parse_shard_name(Path("a/train-00002-of-00004.tfrecord"))
        ('train', 4)
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        return path.stem, 1
    return match["stem"], int(match["first_count"] or match["last_count"] or 1)


def iterate_places(path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes | RecordError]]:
    """Iterate over the records of a file, also after damaged ones whose length fits the file.

    Args:
        path: The file, not compressed.

    Yields:
        `(offset, data)`: the byte at which the record begins, and its data; where these are
        damaged, the error.

    Raises:
        RecordError: If the file cannot be read, is no regular file, or is compressed.
    """
    reader = _open(path)
    size = os.stat(path).st_size
    offset = 0
    with open(path, "rb") as file:
        while offset < size:
            end = _find_end(file, offset)
            data: bytes | RecordError
            try:
                data = _read(reader, offset, end, size)
            except RecordError as error:
                if offset == 0 and _is_compressed(file):
                    raise RecordError(f"{path}: is compressed; unpack it.") from None
                lost = "" if end <= size else ", and any behind it are lost"
                data = RecordError(f"{path}: {error}{lost}.")
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
    reader = _open(path)
    try:
        with open(path, "rb") as file:
            data = _read(reader, offset, _find_end(file, offset), os.stat(path).st_size)
    except RecordError as error:
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
        bare = ", but a bare image" if data.startswith((_PNG, _JPEG)) else ""
        raise RecordError(f"{path}: no tf.train.Example{bare}.") from error


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


def has_values(record: tf.train.Example, key: str) -> bool:
    """Tell whether a record has a feature with values of any type."""
    feature = record.features.feature
    kind = feature[key].WhichOneof("kind") if key in feature else None
    return kind is not None and len(getattr(feature[key], kind).value) > 0


def _open(path: str | os.PathLike[str]) -> tf_record_random_reader:
    try:
        # Opening a named pipe would wait for its other end.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise RecordError(f"{path}: cannot be read (it is no regular file).")
        return tf_record_random_reader(os.fspath(path))
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror}).") from error
    except tf.errors.OpError as error:
        raise RecordError(f"{path}: cannot be read ({error.message}).") from error


def _read(reader: tf_record_random_reader, offset: int, end: int, size: int) -> bytes:
    """Read a record that is said to end at `end`; the reader trusts the length that it states."""
    damaged = "damaged (wrong checksum or cut short)"
    if end > size:
        raise RecordError(damaged)
    if end - offset > MAX_IMAGE_BYTES:
        raise RecordError(f"has {end - offset} bytes; at most {MAX_IMAGE_BYTES} are read")
    try:
        data: bytes = reader.read(offset)[0]
    except (tf.errors.DataLossError, IndexError) as error:
        raise RecordError(damaged) from error
    return data


def _is_compressed(file: BinaryIO) -> bool:
    file.seek(0)
    return file.read(3).startswith((_GZIP, *_ZLIB))


def _find_end(file: BinaryIO, offset: int) -> int:
    """Return where the next record begins, by the length that the record at `offset` states."""
    file.seek(offset)
    head = file.read(_LENGTH_BYTES).ljust(_LENGTH_BYTES, b"\xff")
    return offset + _FRAME_BYTES + int(struct.unpack("<Q", head)[0])
