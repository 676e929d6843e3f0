"""Prepared datasets of TensorFlow Datasets (TFDS)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from vae_aug.boxes import convert_boxes
from vae_aug.codecs.images import parse_image_header
from vae_aug.errors import AnnotationError, MissingSplitError, RecordError, VAEAugError
from vae_aug.ingest.formats.layout import list_split_names
from vae_aug.ingest.formats.source import (
    DEFAULTS,
    Annotations,
    Box,
    Collector,
    Fault,
    ReaderOptions,
    describe_fault,
    reader,
)
from vae_aug.ingest.items import Record
from vae_aug.records.tfrecord import get_values, has_values, iterate_places, parse_record
from vae_aug.words import plural

FILES = ("dataset_info.json", "features.json")
"""What TFDS writes beside the records of a prepared dataset."""

_MARKS = ("is_crowd", "is_difficult", "is_truncated")
# DATA_DIR / NAME / CONFIG / VERSION / features.json
_DEPTH = 4


class _Keys(NamedTuple):
    """Keys of the features in a record; `""` for a label or mark that there is none of."""

    image: str
    boxes: str
    label: str
    marks: tuple[str, ...]
    label_names: tuple[str, ...]


@reader
def read_tfds(
    source: str | os.PathLike[str], split: str = "train", options: ReaderOptions = DEFAULTS
) -> Annotations:
    """Read a prepared dataset of TFDS. Nothing is downloaded, and none of its code is run.

    The features are told by their kinds: an `Image`, and a `BBoxFeature` in a `Sequence`, in which
    a `ClassLabel` gives labels (`object` for all without one) and `is_crowd`, `is_difficult` and
    `is_truncated` the marks. Where there are several of a kind, the ones called `image`, `bbox` and
    `label` are taken.

    Args:
        source: The folder of a version, which holds `dataset_info.json` and `features.json`; or one
            above it that has only one version below.
        split: Which split; `"all"` takes all.
        options: How it is read.

    Returns:
        The annotations, in the order of the files; `source_id` is the file and the index in it, as
        `tfds_id` of `tfds.ReadConfig`.

    Raises:
        AnnotationError: If there is no such dataset or split, it is not kept as TFRecords, its
            features are others, or a file is missing.
    """
    source = Path(source)
    folder = _find_version(source)
    builder = _load_builder(folder)
    keys = _find_keys(folder, builder.info.features)
    collector = Collector(folder, options)
    for path, count in _list_files(folder, builder.info.splits, split):
        _read_file(path, count, keys, collector)
    return collector.finish(keys.label_names)


def is_tfds(folder: Path) -> bool:
    """Tell whether a folder is that of a version of a prepared dataset."""
    return all((folder / name).is_file() for name in FILES)


def _find_version(source: Path) -> Path:
    if not source.is_dir():
        raise AnnotationError(f"{source}: no such folder; give that of a version of the dataset.")
    found = [source] if is_tfds(source) else []
    for depth in range(1, _DEPTH):
        found += [path for path in sorted(source.glob("/".join("*" * depth))) if is_tfds(path)]
    if len(found) != 1:
        names = ", ".join(path.relative_to(source).as_posix() for path in found[:10])
        raise AnnotationError(
            f"{source}: expected one folder with {' and '.join(FILES)}; found {names or 'none'}. "
            "Give the folder of one version."
        )
    return found[0]


def _load_builder(folder: Path) -> Any:
    try:
        builder = tfds.builder_from_directory(os.fspath(folder))
    except Exception as error:
        # TFDS raises whatever the reading of its two files does.
        raise AnnotationError(
            f"{folder}: TFDS cannot read its {' and '.join(FILES)} ({type(error).__name__}); "
            "prepare the dataset again."
        ) from error
    kind = builder.info.file_format
    if kind is not tfds.core.FileFormat.TFRECORD:
        raise AnnotationError(
            f"{folder}: is kept as {getattr(kind, 'value', kind)}; expected tfrecord. Prepare it "
            "with file_format='tfrecord'."
        )
    return builder


def _list_files(folder: Path, splits: Mapping[str, Any], split: str) -> list[tuple[Path, int]]:
    """Return the files of a split, and how many records each should hold."""
    names = tuple(splits) if split == "all" else list_split_names(split)
    chosen = [name for name in names if name in splits]
    if not chosen:
        raise MissingSplitError(
            f"{folder}: has no split {split!r}; it has {', '.join(splits)}. Name one of them."
        )
    chosen = chosen if split == "all" else chosen[:1]
    files = [
        (Path(os.fspath(path)), int(count))
        for name in chosen
        for path, count in zip(splits[name].filepaths, splits[name].shard_lengths, strict=True)
    ]
    for path, _ in files:
        if not path.is_file():
            raise AnnotationError(f"{path}: is missing; prepare the dataset again.")
    return files


def _walk(feature: Any, path: str = "", sequences: int = 0) -> Iterator[tuple[str, Any, int]]:
    """Yield the features below one, with their keys and in how many sequences they are."""
    if isinstance(feature, tfds.features.FeaturesDict):
        for name, child in feature.items():
            yield from _walk(child, f"{path}/{name}" if path else name, sequences)
    elif isinstance(feature, tfds.features.Sequence):
        yield from _walk(feature.feature, path, sequences + 1)
    else:
        yield path, feature, sequences


def _find_keys(folder: Path, features: Any) -> _Keys:
    found = list(_walk(features))
    kinds = {key: feature for key, feature, _ in found}

    def choose(usual: str, kind: type, sequences: int, parent: str | None = None) -> str:
        keys = [
            key
            for key, feature, depth in found
            if isinstance(feature, kind) and depth == sequences
            if parent is None or key.rpartition("/")[0] == parent
        ]
        keys = [key for key in keys if key.rpartition("/")[2] == usual] or keys
        if len(keys) > 1:
            raise AnnotationError(
                f"{folder}: has several features that may be the {usual}: "
                f"{', '.join(sorted(keys))}. "
                f"Prepare the dataset with one, or call the right one {usual!r}."
            )
        return keys[0] if keys else ""

    image = choose("image", tfds.features.Image, 0)
    boxes = choose("bbox", tfds.features.BBoxFeature, 1)
    if not image or not boxes:
        raise AnnotationError(
            f"{folder}: expected an Image and a BBoxFeature in a Sequence among the features; got "
            f"{', '.join(f'{key} ({type(kind).__name__})' for key, kind in kinds.items())}."
        )
    _check_kinds(folder, image, kinds[image], boxes, kinds[boxes])
    parent, slash, _ = boxes.rpartition("/")
    label = choose("label", tfds.features.ClassLabel, 1, parent)
    marks = (f"{parent}{slash}{mark}" for mark in _MARKS)
    names = tuple(kinds[label].names) if label else ("object",)
    return _Keys(image, boxes, label, tuple(key if key in kinds else "" for key in marks), names)


def _check_kinds(folder: Path, image: str, image_kind: Any, boxes: str, boxes_kind: Any) -> None:
    dtype = np.dtype(image_kind.np_dtype)
    if dtype not in (np.uint8, np.uint16):
        raise AnnotationError(f"{folder}: {image} is {dtype}; expected uint8 or uint16.")
    layout = getattr(boxes_kind.bbox_format, "value", boxes_kind.bbox_format)
    if layout != "REL_YXYX":
        raise AnnotationError(f"{folder}: {boxes} is {layout}; expected the format REL_YXYX.")


def _read_file(path: Path, expected: int, keys: _Keys, collector: Collector) -> None:
    if not collector.contains(path):
        collector.report(path, "the file lies outside the folder of the dataset")
        return
    index = -1
    try:
        for index, (offset, data) in enumerate(iterate_places(path)):
            try:
                record = parse_record(path, data)
                size = _read_size(record, keys.image)
            except VAEAugError as error:
                collector.report(path, f"record {index}: {describe_fault(path, error)}")
                continue
            collector.add(
                Record(path, index, offset=offset, key=keys.image),
                _read_entries(record, size, keys, f"record {index}"),
                source_id=f"{path.name}__{index}",
            )
    except RecordError as error:
        collector.report(path, describe_fault(path, error))
        return
    if index + 1 != expected:
        collector.report(path, f"holds {plural(index + 1, 'record')}; {FILES[0]} says {expected}")


def _read_size(record: tf.train.Example, key: str) -> tuple[int, int]:
    encoded = get_values(record, key, "bytes_list")
    if not encoded:
        raise RecordError(f"{key} is missing or of another type")
    height, width, *_ = parse_image_header(encoded[0])
    return height, width


def _read_entries(
    record: tf.train.Example, size: tuple[int, int], keys: _Keys, place: str
) -> list[Box | Fault]:
    """Return the boxes of a record in pixels, and what is wrong with its features."""
    relative = np.asarray(get_values(record, keys.boxes, "float_list"), np.float64)
    count = len(relative) // 4
    columns = {
        key: get_values(record, key, "int64_list") for key in (keys.label, *keys.marks) if key
    }
    lengths = {key: len(values) for key, values in columns.items()}
    wrong = [key for key, length in lengths.items() if length != count or len(relative) % 4]
    if wrong:
        reason = f"{wrong[0]} has {lengths[wrong[0]]} values for {len(relative) / 4:g} boxes"
        return [Fault(f"{place}: {reason}", "unread")]
    if len(relative) % 4:
        reason = f"{keys.boxes} has {len(relative)} numbers; expected four a box"
        return [Fault(f"{place}: {reason}", "unread")]
    if not count and has_values(record, keys.boxes):
        return [Fault(f"{place}: {keys.boxes} is no float_list", "unread")]
    boxes = convert_boxes(
        relative.reshape(-1, 4), "rel_yxyx", "xyxy", height=size[0], width=size[1]
    ).tolist()
    numbers = columns.get(keys.label, [0] * count)
    marks = [list(map(bool, columns.get(key, [0] * count))) for key in keys.marks]
    classes = range(len(keys.label_names))
    return [
        Box(box, keys.label_names[number], *rest)
        if number in classes
        else Fault(f"{place}, box {index}: {keys.label} is not in [0, {len(classes)})")
        for index, (box, number, *rest) in enumerate(zip(boxes, numbers, *marks, strict=True))
    ]
