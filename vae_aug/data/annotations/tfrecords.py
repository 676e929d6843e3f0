"""TFRecords in the schema of the TF Object Detection API, as other tools write them."""

from __future__ import annotations

import collections
import glob
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
)

from vae_aug.data.annotations.layout import SPLIT_WORDS, find_split_folder, list_split_names
from vae_aug.data.annotations.source import (
    Annotations,
    Box,
    Collector,
    describe_fault,
    keep_named,
    parse_size,
)
from vae_aug.data.boxes import convert_boxes
from vae_aug.data.images import parse_image_header
from vae_aug.data.tfrecord import (
    get_values,
    is_tfrecord,
    iterate_places,
    parse_record,
    parse_shard_name,
)
from vae_aug.errors import AnnotationError, RecordError, VAEAugError

IMAGE_KEY = "image/encoded"
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_FLAGS = ("is_crowd", "difficult", "truncated")


def read_tfrecords(source: str | os.PathLike[str], split: str = "train") -> Annotations:
    """Read TFRecords in the schema of the TF Object Detection API.

    A record has `image/encoded` (PNG or JPEG), `image/object/bbox/{ymin,xmin,ymax,xmax}` relative
    to the image, and `image/object/class/text` or `/label`; it may have `image/source_id`,
    `image/filename`, `image/patient`, and `image/object/{is_crowd,difficult,truncated}`. A
    `label_map.pbtxt`, or the only `.pbtxt`, beside the files or above them names the labels and
    their order. Without it the order is that of the numbers if every text has one, else the
    alphabet's; a number without a text is the label's name.

    Args:
        source: A folder, a file, or a pattern of files, e.g. `"data/train*.tfrecord"`. The files
            of a folder are those whose names hold the split as a word, all if no name holds any
            split; or those in the split's folder.
        split: Which split; `"all"` takes every file.

    Returns:
        The annotations; `source_id` is that of the record, else its file name there, else file
        and index.

    Raises:
        AnnotationError: If there are no such files, shards are missing, or the label map cannot
            be read.

    Reference:
        TF Object Detection API, "Preparing inputs"; `string_int_label_map.proto`.
    """
    source = Path(source)
    files = _find_files(source, split)
    root = source if source.is_dir() else files[0].parent
    label_map = _find_label_map(files[0].parent, root)
    collector = Collector(root)
    labels = _Labels(label_map)
    for path in files:
        _read_file(path, collector, labels)
    return collector.finish(labels.list_names())


def _find_files(source: Path, split: str) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        files = [Path(name) for name in sorted(glob.glob(os.fspath(source)))]
        if not files:
            raise AnnotationError(f"{source}: no such file, folder or pattern of files.")
        return files
    folder = source if split == "all" else find_split_folder(source, split) or source
    found = sorted(path for path in folder.rglob("*") if is_tfrecord(path) and path.is_file())
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
        raise AnnotationError(
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


def _find_label_map(*folders: Path) -> dict[int, str]:
    """Return the names of labels by their numbers; empty without a label map."""
    for folder in folders:
        files = sorted(folder.glob("*.pbtxt"))
        files = [file for file in files if file.name == "label_map.pbtxt"] or files
        if len(files) == 1:
            return _read_label_map(files[0])
        if files:
            raise AnnotationError(
                f"{folder}: holds several label maps ({', '.join(file.name for file in files)}); "
                "call the right one label_map.pbtxt."
            )
    return {}


def _read_label_map(path: Path) -> dict[int, str]:
    label_map = _make_label_map()
    try:
        text_format.Parse(path.read_text("utf-8"), label_map, allow_unknown_field=True)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise AnnotationError(
            f"{path}: no label map; expected item {{ id: 1 name: 'NAME' }} and so on."
        ) from error
    names = {item.id: item.name or item.display_name for item in label_map.item}
    if len(names) != len(label_map.item) or not all(names.values()):
        raise AnnotationError(f"{path}: every item needs an id of its own and a name.")
    return dict(sorted(names.items()))


def _make_label_map() -> Any:
    """Make an empty message of the type StringIntLabelMap, as far as it is read here."""
    file = descriptor_pb2.FileDescriptorProto(name="label_map.proto", syntax="proto2")
    item = file.message_type.add(name="Item")
    field = descriptor_pb2.FieldDescriptorProto
    for number, (name, kind) in enumerate(
        (("name", field.TYPE_STRING), ("id", field.TYPE_INT32), ("display_name", field.TYPE_STRING))
    ):
        item.field.add(name=name, number=number + 1, type=kind, label=field.LABEL_OPTIONAL)
    message = file.message_type.add(name="StringIntLabelMap")
    message.field.add(
        name="item",
        number=1,
        type=field.TYPE_MESSAGE,
        type_name=".Item",
        label=field.LABEL_REPEATED,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("StringIntLabelMap"))()


class _Labels:
    """The labels of a source: those of its label map, and those that its records use."""

    def __init__(self, label_map: Mapping[int, str]) -> None:
        self._map = label_map
        self._numbers: dict[str, int | None] = {}

    def name(self, text: str, number: int | None) -> str:
        """Return the name of a label that a record gives by text, number or both."""
        if not text and number is not None:
            text = self._map.get(number, str(number))
        if text and self._numbers.get(text) is None:
            self._numbers[text] = number
        return text

    def list_names(self) -> list[str]:
        """Return all names in their order."""
        used = sorted(self._numbers)
        numbers = [self._numbers[name] for name in used]
        if not self._map and None not in numbers:
            used = [name for _, name in sorted(zip(numbers, used, strict=True))]
        return list(dict.fromkeys([*self._map.values(), *used]))


def _read_file(path: Path, collector: Collector, labels: _Labels) -> None:
    for index, (offset, data) in enumerate(iterate_places(path)):
        try:
            record = parse_record(path, data)
            height, width = parse_image_header(_get_encoded(record))[:2]
            boxes = _read_boxes(record, height, width, labels)
        except VAEAugError as error:
            collector.report(path, f"record {index}: {describe_fault(path, error)}")
            continue
        names = (_get_text(record, f"image/{key}") for key in ("source_id", "filename"))
        claimed = (get_values(record, f"image/{key}", "int64_list") for key in ("height", "width"))
        stated = [parse_size(values[0]) if values else None for values in claimed]
        collector.add(
            path,
            keep_named(collector, path, boxes),
            size=(stated[0], stated[1]),
            patient=_get_text(record, "image/patient"),
            source_id=next(filter(None, names), f"{collector.relate(path)}#{index}"),
            frame=index,
            part=IMAGE_KEY,
            offset=offset,
        )


def _read_boxes(record: tf.train.Example, height: int, width: int, labels: _Labels) -> list[Box]:
    """Return the boxes of a record in pixels.

    Raises:
        RecordError: If features differ in length.
    """
    sides = [get_values(record, f"image/object/bbox/{side}", "float_list") for side in _SIDES]
    count = len(sides[0])
    texts = [
        text.decode("utf-8", "replace")
        for text in get_values(record, "image/object/class/text", "bytes_list")
    ]
    numbers: Sequence[int | None] = get_values(record, "image/object/class/label", "int64_list")
    flags = [get_values(record, f"image/object/{flag}", "int64_list") for flag in _FLAGS]
    names = (*_SIDES, "class/text", "class/label", *_FLAGS)
    for name, values in zip(names, (*sides, texts, numbers, *flags), strict=True):
        if len(values) != count and (values or name in _SIDES):
            raise RecordError(f"{name} has {len(values)} values for {count} boxes")
    if count and not texts and not numbers:
        raise RecordError("its boxes have neither class/text nor class/label")
    relative = np.stack([np.asarray(side, np.float64) for side in sides], axis=-1)
    boxes = convert_boxes(relative, "rel_xyxy", "xyxy", height=height, width=width)
    marks = [list(map(bool, values)) or [False] * count for values in flags]
    pairs = zip(texts or [""] * count, numbers or [None] * count, strict=True)
    named = [labels.name(text, number) for text, number in pairs]
    return [Box(box, *rest) for box, *rest in zip(boxes.tolist(), named, *marks, strict=True)]


def _get_encoded(record: tf.train.Example) -> bytes:
    values = get_values(record, IMAGE_KEY, "bytes_list")
    if not values:
        raise RecordError(f"{IMAGE_KEY} is missing or of another type")
    return values[0]


def _get_text(record: tf.train.Example, key: str) -> str:
    values = get_values(record, key, "bytes_list")
    return values[0].decode("utf-8", "replace") if values else ""
