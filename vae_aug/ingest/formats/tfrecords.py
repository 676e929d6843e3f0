"""TFRecords in the schema of the TF Object Detection API, as other tools write them."""

from __future__ import annotations

import collections
import glob
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-untyped]

from vae_aug.boxes import convert_boxes
from vae_aug.codecs.images import parse_image_header
from vae_aug.errors import AnnotationError, MissingSplitError, RecordError, VAEAugError
from vae_aug.ingest.formats.label_map import Labels, find_label_map
from vae_aug.ingest.formats.layout import SPLIT_WORDS, find_split_folder, list_split_names
from vae_aug.ingest.formats.source import (
    DEFAULTS,
    Annotations,
    Box,
    Collector,
    Fault,
    ReaderOptions,
    describe_fault,
    parse_size,
    reader,
)
from vae_aug.ingest.formats.walk import walk
from vae_aug.ingest.items import Record
from vae_aug.records.check import BOX_FLAGS
from vae_aug.records.tfrecord import (
    get_values,
    has_values,
    is_tfrecord,
    iterate_places,
    parse_record,
    parse_shard_name,
)
from vae_aug.words import plural

IMAGE_KEY = "image/encoded"
_SIDES = ("bbox/xmin", "bbox/ymin", "bbox/xmax", "bbox/ymax")
_KINDS = (
    dict.fromkeys(_SIDES, "float_list")
    | {"class/text": "bytes_list", "class/label": "int64_list"}
    | dict.fromkeys(BOX_FLAGS, "int64_list")
)
"""What is read of `image/object/`, and as which list a feature holds it."""

_OTHER_BOXES = re.compile(
    r"(^|[/_.])(bbox(es)?|bndbox|box(es)?|rects?|[xy]_?(min|max|[12])|objects?|annotations?)($|[/_.])",
    re.IGNORECASE,
)
"""Features that may well hold boxes, under names that are not those of the schema."""

_COUNTS = re.compile(r"(^|[/_.])(num|n|count)($|[/_.])", re.IGNORECASE)

# Beyond any overshoot of a box, and within the second pixel.
_NOT_RELATIVE = 1.5


@reader
def read_tfrecords(
    source: str | os.PathLike[str], split: str = "train", options: ReaderOptions = DEFAULTS
) -> Annotations:
    """Read TFRecords in the schema of the TF Object Detection API.

    A record has `image/encoded` (PNG or JPEG), `image/object/bbox/{ymin,xmin,ymax,xmax}` relative
    to the image, and `image/object/class/text` or `/label`; it may have `image/source_id`,
    `image/filename`, `image/patient`, and `image/object/{is_crowd,difficult,truncated}`. A
    `label_map.pbtxt`, or the only `.pbtxt`, beside the files or above them names the labels and
    their order. Without it the order is that of the numbers if every text has one, else the
    alphabet's; a number without a text is the label's name.

    A record says that its image has no boxes if the features of boxes or classes are there, and
    empty. Without any of them it says nothing, as does one of a data set of this package whose
    `image/annotation` is `none`. One whose features do not fit each other is faulty.

    Args:
        source: A folder, a file, or a pattern of files, e.g. `"data/train*.tfrecord"`. The files
            of a folder are those whose names hold the split as a word, all if no name holds any
            split; or those in the split's folder.
        split: Which split; `"all"` takes every file.
        options: How it is read.

    Returns:
        The annotations; `source_id` is that of the record, else its file name there, else file
        and index, also where another image has the same.

    Raises:
        AnnotationError: If there are no such files or none can be read, shards are missing, the
            label map cannot be read, or boxes are in pixels.

    Reference:
        TF Object Detection API, "Preparing inputs"; `string_int_label_map.proto`.
    """
    source = Path(source)
    files = _find_files(source, split)
    folders = dict.fromkeys(file.parent for file in files)
    root = source if source.is_dir() else Path(os.path.commonpath(folders))
    reader = _Reader(Collector(root, options), Labels(find_label_map(folders, root)))
    for path in files:
        reader.read_file(path)
    return reader.finish(source)


def _find_files(source: Path, split: str) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        files = [Path(name) for name in sorted(glob.glob(os.fspath(source)))]
        if not files:
            raise AnnotationError(f"{source}: no such file, folder or pattern of files.")
        return files
    folder = source if split == "all" else find_split_folder(source, split) or source
    paths = sorted(map(Path, walk(folder)))
    found = [path for path in paths if is_tfrecord(path) and path.is_file()]
    files = found if folder != source else _choose_files(source, found, split)
    if not files:
        raise AnnotationError(f"{source}: holds no TFRecords (NAME.tfrecord, NAME.record).")
    _check_shards(files)
    return files


def _choose_files(source: Path, files: Sequence[Path], split: str) -> list[Path]:
    """Return the files whose names hold the split; all if none holds any."""
    words = {path: set(re.split(r"[^a-z0-9]+", path.name.lower())) for path in files}
    names = {name.lower() for name in list_split_names(split)}
    chosen = [path for path in files if words[path] & names]
    if chosen or split == "all":
        return chosen or list(files)
    others = [path.name for path in files if words[path] & SPLIT_WORDS]
    if others:
        raise MissingSplitError(
            f"{source}: no file is named after the split {split!r}; found {', '.join(others[:10])}."
            " Name another split, or give the files."
        )
    return list(files)


def _check_shards(files: Iterable[Path]) -> None:
    found = collections.Counter((path.parent, *parse_shard_name(path)) for path in files)
    for (folder, name, expected), count in found.items():
        if count != expected and expected > 1:
            raise AnnotationError(
                f"{folder}: {name} has {count} of {expected} shards; complete the data set, or "
                "give the files that are there by a pattern."
            )


class _Reader:
    """Reads the records of files."""

    def __init__(self, collector: Collector, labels: Labels) -> None:
        self._collector, self._labels = collector, labels
        self._contents: dict[str, int] = {}
        self._renamed = 0
        self._boxes, self._not_relative = 0, 0

    def read_file(self, path: Path) -> None:
        """Read all records of a file."""
        if not self._collector.contains(path):
            self._collector.report(path, "the file lies outside the source; give it by its name")
            return
        try:
            for index, (offset, data) in enumerate(iterate_places(path)):
                self._read_record(path, index, offset, data)
        except RecordError as error:
            self._collector.report(path, describe_fault(path, error))

    def _read_record(self, path: Path, index: int, offset: int, data: bytes | RecordError) -> None:
        collector = self._collector
        try:
            record = parse_record(path, data)
            encoded = _get_encoded(record)
            size = parse_image_header(encoded)[:2]
        except VAEAugError as error:
            collector.report(path, f"record {index}: {describe_fault(path, error)}")
            return
        claimed = (get_values(record, f"image/{key}", "int64_list") for key in ("height", "width"))
        stated = [parse_size(values[0]) if values else None for values in claimed]
        entries = self._read_entries(record, size)
        if entries is not None:
            entries = [
                entry._replace(reason=f"record {index}: {entry.reason}")
                if isinstance(entry, Fault)
                else entry
                for entry in entries
            ]
        collector.add(
            Record(path, index, offset=offset, key=IMAGE_KEY),
            entries,
            size=(stated[0], stated[1]),
            patient=_get_text(record, "image/patient"),
            source_id=self._choose_id(record, encoded, f"{collector.relate(path)}#{index}"),
        )

    def _choose_id(self, record: tf.train.Example, encoded: bytes, place: str) -> str:
        """Return the key of a record, its place if another image has the one that it states."""
        stated = (_get_text(record, f"image/{key}") for key in ("source_id", "filename"))
        source_id = next(filter(None, stated), place)
        content = hash(encoded)
        if self._contents.setdefault(source_id, content) == content:
            return source_id
        self._renamed += 1
        return place

    def _read_entries(
        self, record: tf.train.Example, size: tuple[int, int]
    ) -> list[Box | Fault] | None:
        """Return what a record says of its boxes, in pixels; None if it says nothing."""
        try:
            entries = self._read_objects(record, size)
            return _apply_state(_get_text(record, "image/annotation"), entries)
        except RecordError as error:
            return [Fault(str(error), "unread")]

    def _read_objects(
        self, record: tf.train.Example, size: tuple[int, int]
    ) -> list[Box | Fault] | None:
        columns = _read_columns(record)
        count = len(columns[_SIDES[0]])
        if not count:
            _check_no_others(record)
            keys = [f"image/object/{name}" for name in (*_SIDES, "class/text", "class/label")]
            return [] if any(key in record.features.feature for key in keys) else None
        relative = np.stack([np.asarray(columns[side], np.float64) for side in _SIDES], axis=-1)
        self._boxes += count
        self._not_relative += int((relative > _NOT_RELATIVE).any(axis=1).sum())
        height, width = size
        boxes = convert_boxes(relative, "rel_xyxy", "xyxy", height=height, width=width)
        texts = columns["class/text"] or [b""] * count
        numbers = columns["class/label"] or [None] * count
        marks = [list(map(bool, columns[flag])) or [False] * count for flag in BOX_FLAGS]
        entries: list[Box | Fault] = []
        for index, (box, text, number, *rest) in enumerate(
            zip(boxes.tolist(), texts, numbers, *marks, strict=True)
        ):
            label = self._name(text, number)
            if isinstance(label, Fault):
                entries.append(label._replace(reason=f"box {index}: {label.reason}"))
            elif (np.abs(relative[index] - 0.5) > _NOT_RELATIVE + 0.5).any():
                entries.append(Fault(f"box {index}: is not relative to the image"))
            else:
                entries.append(Box(box, label, *rest))
        return entries

    def _name(self, text: bytes, number: int | None) -> str | Fault:
        try:
            return self._labels.name(text.decode(), number)
        except UnicodeDecodeError:
            return Fault("its class/text is no UTF-8")

    def finish(self, source: Path) -> Annotations:
        """Return what was read."""
        collector = self._collector
        if not collector.images and collector.problems:
            problem = collector.problems[0]
            raise AnnotationError(
                f"{source}: holds no record that can be read; {problem.file}: {problem.reason}."
            )
        if 2 * self._not_relative > self._boxes:
            raise AnnotationError(
                f"{source}: its boxes are not relative to the image ({self._not_relative} of "
                f"{self._boxes} reach above {_NOT_RELATIVE}); divide image/object/bbox/* by the "
                "image's height and width."
            )
        if self._renamed:
            collector.notes.append(
                f"{plural(self._renamed, 'record', 'shares its', 'share their')} image/source_id "
                "with another image; they are called by file and number"
            )
        return collector.finish(self._labels.list_names(source))


def _read_columns(record: tf.train.Example) -> dict[str, Sequence[Any]]:
    """Return the features of boxes by name.

    Raises:
        RecordError: If they are of other types or differ in length.
    """
    if len(UnknownFieldSet(record)):
        raise RecordError("has lists of features (tf.train.SequenceExample), which are not read")
    columns: dict[str, Sequence[Any]] = {}
    for name, kind in _KINDS.items():
        columns[name] = get_values(record, f"image/object/{name}", kind)
        if not columns[name] and has_values(record, f"image/object/{name}"):
            raise RecordError(f"{name} is no {kind}")
    count = len(columns[_SIDES[0]])
    for name, values in columns.items():
        if len(values) != count and (values or name in _SIDES):
            raise RecordError(f"{name} has {len(values)} values for {plural(count, 'box')}")
    if count and not columns["class/text"] and not columns["class/label"]:
        raise RecordError("its boxes have neither class/text nor class/label")
    return columns


def _check_no_others(record: tf.train.Example) -> None:
    """Refuse a record without boxes that may have some under other names."""
    others = [
        key
        for key in sorted(record.features.feature)
        if _OTHER_BOXES.search(key) and not key.startswith("augment/") and key != "image/annotation"
        if not _COUNTS.search(key) and has_values(record, key)
    ]
    if others:
        raise RecordError(
            f"may have boxes in {', '.join(others[:5])}; expected image/object/bbox/ymin and so on"
        )


def _apply_state(state: str, entries: list[Box | Fault] | None) -> list[Box | Fault] | None:
    """Hold what a record says of boxes against its `image/annotation`, as this package writes it.

    Raises:
        RecordError: If they contradict each other.
    """
    if state in ("", "complete"):
        return entries
    if state == "none" and not entries:
        return None
    if state == "faulty":
        return [*(entries or ()), Fault("image/annotation says that it is faulty", "unread")]
    raise RecordError("its image/annotation is neither none nor faulty, or contradicts its boxes")


def _get_encoded(record: tf.train.Example) -> bytes:
    values = get_values(record, IMAGE_KEY, "bytes_list")
    if len(values) != 1:
        raise RecordError(f"{IMAGE_KEY} is missing, of another type, or holds several images")
    return bytes(values[0])


def _get_text(record: tf.train.Example, key: str) -> str:
    values = get_values(record, key, "bytes_list")
    return values[0].decode("utf-8", "replace") if values else ""
