"""TFRecords in the TF Object Detection schema: made, written, read, checked.

Labels count from 1 on disk (0 is the background there) and from 0 in elements and arguments.
A data set is a folder: `<split>-00000-of-00004.tfrecord` and so on, `label_map.pbtxt`, and
`dataset.json`, which holds what a reader must know before the first record.

Reference:
    TensorFlow Model Garden, official/vision/dataloaders/tf_example_decoder.py, and
    TF Object Detection API, "Preparing inputs", for the names of the features.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import glob
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from vae_aug.data.atomic import (
    make_temporary_path,
    remove_temporaries,
    sync_file,
    write_atomic,
)
from vae_aug.data.autotune import leave_untuned
from vae_aug.data.images import EncodedImage, encode_image, parse_image_header
from vae_aug.data.tfrecord import get_values
from vae_aug.errors import RecordError, VAEAugError

_SHARD = re.compile(r"^(?P<name>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.tfrecord$")
_SPLIT_SYNONYMS = {"val": "validation", "valid": "validation"}
_INFO_FILE, _LABEL_FILE = "dataset.json", "label_map.pbtxt"
_BOX_KEYS = tuple(f"image/object/bbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax"))
# Above this many shards the order of reading is no longer the order of writing.
_CYCLE = 64


@dataclasses.dataclass(frozen=True)
class SplitInfo:
    """What one split holds.

    Attributes:
        examples: Images.
        boxes: Boxes.
        shards: Files.
        dtype: `"uint8"` or `"uint16"`; the latter if any image has 16 bits.
        channels: 1, or 3 if any image is in colour.
        class_counts: Boxes per label name, in the order of the labels.
    """

    examples: int
    boxes: int
    shards: int
    dtype: str
    channels: int
    class_counts: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What `dataset.json` holds.

    Attributes:
        label_names: Names of the labels; label i of an element is `label_names[i]`.
        splits: Split names to what they hold.
    """

    label_names: tuple[str, ...]
    splits: Mapping[str, SplitInfo]

    @property
    def dtype(self) -> str:
        """`"uint16"` if any split holds 16-bit images, so that all splits read alike."""
        return "uint16" if any(s.dtype == "uint16" for s in self.splits.values()) else "uint8"

    @property
    def channels(self) -> int:
        """3 if any split holds colour images, so that all splits read alike."""
        return max((split.channels for split in self.splits.values()), default=1)


def get_split_name(split: str) -> str:
    """Return the name under which a split is stored: `"val"` and `"valid"` are `"validation"`.

    Raises:
        ValueError: If the name cannot be part of a file name.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.]+(-[A-Za-z0-9_.]+)*", split) or split.startswith("."):
        raise ValueError(f"a split is named with letters, digits, '_', '.', '-'; got {split!r}.")
    return _SPLIT_SYNONYMS.get(split, split)


# --- One example -----------------------------------------------------------------------------


def make_example(
    image: np.ndarray | EncodedImage,
    *,
    source_id: str,
    boxes: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    label_names: Sequence[str],
    patient: str = "",
    is_crowd: Sequence[bool] | None = None,
    difficult: Sequence[bool] | None = None,
    truncated: Sequence[bool] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> tf.train.Example:
    """Make one record.

    Args:
        image: `[H, W, C] uint8` or `uint16`, stored as PNG; or an encoded image, stored as is.
        source_id: Key of the image, unique in the data set. No patient identifier in it.
        boxes: `[N, 4]` `rel_yxyx` in [0, 1]; stored as float32 without any change of value.
        labels: `[N]` integers from 0, indices into `label_names`.
        label_names: Names of all labels.
        patient: Hash of the patient's identifier; `""` if unknown.
        is_crowd: `[N]`, COCO's mark of a box around many objects; default none.
        difficult: `[N]`, Pascal VOC's mark; default none.
        truncated: `[N]`, Pascal VOC's mark; default none.
        extra: Further features by key, e.g. `augment/mode`: a number, string, bytes, or a
            sequence or array of them (stored flat).

    Returns:
        The record.

    Raises:
        ValueError: If shapes disagree, a label has no name, or a key of `extra` is taken.
        TypeError: On an image of another dtype or an extra value of another type.
    """
    if not isinstance(image, EncodedImage):
        image = encode_image(image)
    boxes = np.asarray(boxes, np.float32)
    boxes = boxes if boxes.size else boxes.reshape(0, 4)
    labels = np.asarray(labels, np.int64).reshape(-1)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) != len(labels):
        raise ValueError(
            f"boxes must be [N, 4] and labels [N]; got {boxes.shape} and {labels.shape} "
            f"for {source_id!r}."
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < len(label_names):
        raise ValueError(
            f"labels must be in [0, {len(label_names)}); got {labels.tolist()} for {source_id!r}."
        )
    suffixes = {"png": (".png",), "jpeg": (".jpg", ".jpeg")}[image.format]
    named = source_id.lower().endswith(suffixes)
    ymin, xmin, ymax, xmax = boxes.T.astype(np.float64)
    features: dict[str, Any] = {
        "image/encoded": image.encoded,
        "image/format": image.format,
        "image/height": image.height,
        "image/width": image.width,
        "image/channels": image.channels,
        "image/bit_depth": image.bit_depth,
        "image/filename": source_id if named else source_id + suffixes[0],
        "image/source_id": source_id,
        "image/patient": patient,
        "image/key/sha256": hashlib.sha256(image.encoded).hexdigest(),
        **dict(zip(_BOX_KEYS, boxes.T, strict=True)),
        "image/object/class/text": [label_names[int(label)] for label in labels],
        "image/object/class/label": labels + 1,
        "image/object/area": (ymax - ymin) * (xmax - xmin) * image.height * image.width,
    }
    for name, flags in (
        ("is_crowd", is_crowd),
        ("difficult", difficult),
        ("truncated", truncated),
    ):
        flags = [False] * len(boxes) if flags is None else list(flags)
        if len(flags) != len(boxes):
            raise ValueError(f"{name} must have one value a box; got {len(flags)}.")
        features[f"image/object/{name}"] = np.asarray(flags, np.int64)
    taken = sorted(set(features) & set(extra or {}))
    if taken:
        raise ValueError(f"extra must not replace {', '.join(taken)}.")
    features.update(extra or {})
    return tf.train.Example(
        features=tf.train.Features(feature={k: _make_feature(k, v) for k, v in features.items()})
    )


def _make_feature(key: str, value: Any) -> tf.train.Feature:
    if isinstance(value, str | bytes):
        value = [value]
    if isinstance(value, Sequence) and all(isinstance(item, str | bytes) for item in value):
        encoded = [item.encode() if isinstance(item, str) else item for item in value]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))
    array = np.asarray(value).reshape(-1)
    if array.dtype.kind in "bui":
        return tf.train.Feature(int64_list=tf.train.Int64List(value=array.astype(np.int64)))
    if array.dtype.kind == "f":
        return tf.train.Feature(float_list=tf.train.FloatList(value=array.astype(np.float32)))
    if array.dtype.kind in "SU":
        return _make_feature(
            key, [str(item) if array.dtype.kind == "U" else bytes(item) for item in array]
        )
    raise TypeError(f"{key} must hold numbers, strings or bytes; got {type(value).__name__}.")


def parse_example(
    serialized: tf.Tensor, image_dtype: str | tf.DType = "uint8", channels: int = 1
) -> dict[str, Any]:
    """Parse one record, e.g. in `dataset.map(parse_example)`.

    Args:
        serialized: Scalar string, one `tf.train.Example`.
        image_dtype: `"uint8"`, or `"uint16"` for images of 16 bits. 8-bit images read as
            uint16 are widened to its whole range (times 257).
        channels: 1 or 3. Colour read as 1 channel becomes grey; grey read as 3 is repeated.

    Returns:
        `{"image": [H, W, channels] image_dtype, "image/source_id": string,
        "image/patient": string, "objects": {"bbox": [N, 4] float32 rel_yxyx,
        "label": [N] int64 from 0}}`.

    Raises:
        ValueError: On another dtype or number of channels.
        tf.errors.InvalidArgumentError: In the graph, if an image has 16 bits and `image_dtype`
            has 8, the image cannot be decoded, or a feature is missing or of uneven length.
    """
    image_dtype = tf.as_dtype(image_dtype)
    if image_dtype not in (tf.uint8, tf.uint16):
        raise ValueError(f"image_dtype must be 'uint8' or 'uint16'; got {image_dtype.name!r}.")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3; got {channels!r}.")
    text = tf.io.FixedLenFeature((), tf.string, default_value="")
    floats, integers = tf.io.VarLenFeature(tf.float32), tf.io.VarLenFeature(tf.int64)
    features = tf.io.parse_single_example(
        serialized,
        {
            "image/encoded": tf.io.FixedLenFeature((), tf.string),
            "image/source_id": text,
            "image/patient": text,
            "image/object/class/label": integers,
            **dict.fromkeys(_BOX_KEYS, floats),
        },
    )
    sides = [features[key].values for key in _BOX_KEYS]
    label = features["image/object/class/label"].values
    source_id = features["image/source_id"]
    with tf.control_dependencies(
        [
            tf.debugging.Assert(
                tf.reduce_all(
                    tf.equal(tf.stack([tf.size(side) for side in sides]), tf.size(label))
                ),
                [
                    "image/object/bbox/* and image/object/class/label differ in length; "
                    "image/source_id:",
                    source_id,
                ],
            )
        ]
    ):
        bbox = tf.stack(sides, axis=-1)
    return {
        "image": _decode(features["image/encoded"], source_id, image_dtype, channels),
        "image/source_id": source_id,
        "image/patient": features["image/patient"],
        "objects": {"bbox": tf.ensure_shape(bbox, (None, 4)), "label": label - 1},
    }


def _decode(
    encoded: tf.Tensor, source_id: tf.Tensor, image_dtype: tf.DType, channels: int
) -> tf.Tensor:
    """Decode a PNG or JPEG, told apart by their first byte."""
    is_jpeg = tf.equal(tf.strings.substr(encoded, 0, 1), b"\xff")

    def decode_jpeg() -> tf.Tensor:
        image = tf.io.decode_jpeg(encoded, channels, dct_method="INTEGER_ACCURATE")
        # The factor by which the PNG decoder widens 8 bits to 16.
        return image if image_dtype == tf.uint8 else tf.cast(image, tf.uint16) * 257

    def decode_png() -> tf.Tensor:
        return tf.io.decode_png(encoded, channels, dtype=image_dtype)

    checks = []
    if image_dtype == tf.uint8:
        # Byte 24 of a PNG is its bit depth. Without the check the decoder drops the low byte.
        is_deep = ~is_jpeg & tf.equal(tf.strings.substr(encoded, 24, 1), b"\x10")
        message = (
            "the image has 16 bits per channel, image_dtype is 'uint8'; pass "
            "image_dtype='uint16' to parse_example. image/source_id:"
        )
        checks = [tf.debugging.Assert(~is_deep, [message, source_id])]
    with tf.control_dependencies(checks):
        image = tf.cond(is_jpeg, decode_jpeg, decode_png)
    return tf.ensure_shape(image, (None, None, channels))


# --- Writing ---------------------------------------------------------------------------------


def write_records(
    examples: Iterable[tf.train.Example],
    directory: str | os.PathLike[str],
    name: str,
    num_shards: int = 1,
    *,
    label_names: Sequence[str] | None = None,
) -> SplitInfo:
    """Write one split, in constant memory.

    Examples go to the shards in turn. Every shard is written under a temporary name, forced to
    disk, and renamed when all are whole; then the split's former shards are gone. Whatever
    interrupts the writing, no part of a new shard stays, and the former ones are untouched
    unless the renaming itself had begun. What a killed process left goes with the next writing.

    Args:
        examples: The records; their number need not be known.
        directory: Folder of the data set; made if missing.
        name: The split, e.g. `"train"`; `"val"` and `"valid"` are stored as `"validation"`.
        num_shards: Number of files, 1 to 99999.
        label_names: If given, `dataset.json` and `label_map.pbtxt` are written too; an existing
            `dataset.json` keeps its other splits.

    Returns:
        What was written.

    Raises:
        ValueError: On a bad name or number of shards.
        RecordError: If there are no examples, the disk refuses (named, with the reason), or
            the folder's other splits have other labels.
    """
    name = get_split_name(name)
    if not 1 <= num_shards <= 99999:
        raise ValueError(f"num_shards must be in [1, 99999]; got {num_shards!r}.")
    directory = Path(directory)
    refuse = functools.partial(_as_record_error, directory, name)
    with refuse():
        directory.mkdir(parents=True, exist_ok=True)
    if label_names is not None:
        _check_labels(directory, name, label_names)
    info = _write_shards(examples, directory, name, num_shards, refuse).summarize(
        num_shards, label_names
    )
    if label_names is not None:
        with refuse():
            _write_info(directory, name, info, label_names)
    return info


@contextlib.contextmanager
def _as_record_error(directory: Path, name: str) -> Iterator[None]:
    """Turn what the disk raises into a `RecordError`."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
        raise RecordError(
            f"{directory}: writing the split {name!r} failed ({reason}). Nothing partial was "
            "left behind; free space or fix permissions and run it again."
        ) from error


class _Tally:
    """Counts what passes through to the shards."""

    def __init__(self) -> None:
        self.examples = self.boxes = 0
        self.bit_depth, self.channels = 8, 1
        self.classes: collections.Counter[str] = collections.Counter()

    def add(self, example: tf.train.Example) -> None:
        texts = get_values(example, "image/object/class/text", "bytes_list")
        self.examples += 1
        self.boxes += len(texts)
        self.classes.update(text.decode("utf-8", "replace") for text in texts)
        self.bit_depth = max(
            [self.bit_depth, *get_values(example, "image/bit_depth", "int64_list")]
        )
        self.channels = max([self.channels, *get_values(example, "image/channels", "int64_list")])

    def summarize(self, shards: int, label_names: Sequence[str] | None) -> SplitInfo:
        names = sorted(self.classes) if label_names is None else label_names
        return SplitInfo(
            examples=self.examples,
            boxes=self.boxes,
            shards=shards,
            dtype="uint16" if self.bit_depth == 16 else "uint8",
            channels=self.channels,
            class_counts={label: self.classes[label] for label in names},
        )


def _write_shards(
    examples: Iterable[tf.train.Example],
    directory: Path,
    name: str,
    num_shards: int,
    refuse: Callable[[], contextlib.AbstractContextManager[None]],
) -> _Tally:
    finals = [directory / f"{name}-{i:05}-of-{num_shards:05}.tfrecord" for i in range(num_shards)]
    temporaries = [make_temporary_path(path) for path in finals]
    writers: list[tf.io.TFRecordWriter] = []
    tally = _Tally()
    try:
        with refuse():
            for path in finals:
                remove_temporaries(path)
            writers.extend(tf.io.TFRecordWriter(os.fspath(path)) for path in temporaries)
        # What the examples themselves raise is the caller's, and not about this disk.
        for index, example in enumerate(examples):
            with refuse():
                writers[index % num_shards].write(example.SerializeToString(deterministic=True))
            tally.add(example)
        if not tally.examples:
            raise RecordError(f"{directory}: there are no examples for the split {name!r}.")
        with refuse():
            for writer, path in zip(writers, temporaries, strict=True):
                writer.close()
                sync_file(path)
            _rename_shards(temporaries, finals, directory, name)
    except BaseException:
        for writer in writers:
            with contextlib.suppress(tf.errors.OpError):
                writer.close()
        _remove(temporaries)
        raise
    return tally


def _rename_shards(
    temporaries: Sequence[Path], finals: Sequence[Path], directory: Path, name: str
) -> None:
    # Former shards go first: a set with a gap is noticed by readers, a mixed one is not.
    _remove(_find_shards(directory, name))
    try:
        for temporary, final in zip(temporaries, finals, strict=True):
            temporary.replace(final)
        sync_file(directory)
    except BaseException:
        _remove(finals)
        raise


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _find_shards(directory: Path, name: str) -> list[Path]:
    matches = ((path, _SHARD.match(path.name)) for path in directory.iterdir())
    return sorted(path for path, match in matches if match and match["name"] == name)


def _check_labels(directory: Path, name: str, label_names: Sequence[str]) -> None:
    if len(set(label_names)) != len(label_names) or not all(label_names):
        raise ValueError(f"label_names must be distinct and not empty; got {list(label_names)}.")
    if not (directory / _INFO_FILE).exists():
        return
    former = read_info(directory)
    if set(former.splits) - {name} and former.label_names != tuple(label_names):
        raise RecordError(
            f"{directory / _INFO_FILE}: the folder's other splits have the labels "
            f"{list(former.label_names)}; got {list(label_names)}. Write to another folder, or "
            "pass the same labels."
        )


def _write_info(directory: Path, name: str, split: SplitInfo, label_names: Sequence[str]) -> None:
    path = directory / _INFO_FILE
    splits = dict(read_info(directory).splits) if path.exists() else {}
    splits[name] = split
    content = {
        "schema": "vae_aug/1",
        "labels": list(label_names),
        "splits": {key: dataclasses.asdict(splits[key]) for key in sorted(splits)},
    }
    write_label_map(directory / _LABEL_FILE, label_names)
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())


def write_label_map(path: str | os.PathLike[str], label_names: Sequence[str]) -> None:
    """Write a `label_map.pbtxt` of the TF Object Detection API, ids from 1.

    Args:
        path: The file, replaced atomically.
        label_names: Names in the order of the labels.
    """
    # JSON and protobuf's text format escape quotes and control characters alike.
    items = (
        f"item {{\n  id: {index}\n  name: {json.dumps(label, ensure_ascii=False)}\n}}\n"
        for index, label in enumerate(label_names, start=1)
    )
    write_atomic(path, "".join(items).encode())


# --- Reading ---------------------------------------------------------------------------------


def read_info(directory: str | os.PathLike[str]) -> DatasetInfo:
    """Read `dataset.json`.

    Args:
        directory: Folder of the data set.

    Returns:
        Its contents.

    Raises:
        RecordError: If the file is missing or not what `write_records` writes.
    """
    path = Path(directory) / _INFO_FILE
    try:
        content = json.loads(path.read_bytes())
        splits = {name: SplitInfo(**split) for name, split in content["splits"].items()}
        return DatasetInfo(tuple(content["labels"]), splits)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(
            f"{path}: not the description of a data set ({error}); write the records again."
        ) from error


def read_records(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    split: str | None = None,
    *,
    num_parallel_calls: int | None = None,
) -> tf.data.Dataset:
    """Read records as elements, in the order in which they were written.

    The dtype and channels of the images come from `dataset.json` beside the records, else from
    the first record. Above 64 shards the order is fixed, but another than that of writing.

    Args:
        source: Folder of a data set; a file or pattern of files; or a list of files.
        split: The split of a folder; not needed if there is only one.
        num_parallel_calls: Records decoded in parallel; None for `tf.data.AUTOTUNE`.

    Returns:
        Elements as `parse_example` yields them. The number of elements is set where
        `dataset.json` tells it. tf.data's tuner is switched off, see `read_serialized`.

    Raises:
        RecordError: If there are no such records, a shard is missing, or the first record
            cannot be read.
    """
    files, info = find_records(source, split)
    if info is None:
        dtype, channels, count = *_peek(files), None
    else:
        dtype, channels = info.dtype, info.channels
        count = _count_examples(files, info)
    dataset = read_serialized(files)
    parallel = tf.data.AUTOTUNE if num_parallel_calls is None else num_parallel_calls
    dataset = dataset.map(
        lambda serialized: parse_example(serialized, dtype, channels),
        num_parallel_calls=parallel,
        deterministic=True,
    )
    if count is not None:
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(count))
    return dataset


def read_serialized(files: Sequence[str | os.PathLike[str]]) -> tf.data.Dataset:
    """Read the serialised records of shards in the order in which they were written.

    Args:
        files: The shards, in the order of their numbers.

    Returns:
        Scalar strings, one `tf.train.Example` each. tf.data's tuner is switched off for them and
        for all that is made of them, see `vae_aug.data.autotune`.
    """
    names = [os.fspath(path) for path in files]
    if len(names) == 1:
        dataset = tf.data.TFRecordDataset(names)
    else:
        dataset = tf.data.Dataset.from_tensor_slices(names).interleave(
            tf.data.TFRecordDataset,
            cycle_length=min(len(names), _CYCLE),
            block_length=1,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
    return leave_untuned(dataset)


def find_records(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], split: str | None = None
) -> tuple[list[Path], DatasetInfo | None]:
    """Find the shards that a source stands for, and check that none is missing.

    Args:
        source: As `read_records`.
        split: As `read_records`.

    Returns:
        The shards in order, and the contents of `dataset.json` if there is one beside them.

    Raises:
        RecordError: As `read_records`.
    """
    if not isinstance(source, str | os.PathLike):
        files = [Path(path) for path in source]
    elif Path(source).is_dir():
        return _find_split(Path(source), split)
    else:
        files = [Path(path) for path in sorted(glob.glob(os.fspath(source)))]
    if not files:
        raise RecordError(f"{source}: no such records; give a folder, a pattern or a file.")
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise RecordError(f"{missing[0]}: no such file.")
    folder = files[0].parent
    return files, read_info(folder) if (folder / _INFO_FILE).is_file() else None


def _find_split(directory: Path, split: str | None) -> tuple[list[Path], DatasetInfo | None]:
    info = read_info(directory) if (directory / _INFO_FILE).is_file() else None
    shards = [match for match in (_SHARD.match(p.name) for p in directory.iterdir()) if match]
    names = sorted({match["name"] for match in shards})
    if not names:
        raise RecordError(f"{directory}: holds no records (NAME-00000-of-00001.tfrecord).")
    if split is None and len(names) > 1:
        raise RecordError(f"{directory}: holds {', '.join(names)}; say which with split=.")
    name = names[0] if split is None else get_split_name(split)
    if name not in names:
        raise RecordError(f"{directory}: has no split {name!r}; it has {', '.join(names)}.")
    counts = {int(match["count"]) for match in shards if match["name"] == name}
    files = _find_shards(directory, name)
    if len(counts) != 1 or len(files) != max(counts):
        raise RecordError(
            f"{directory}: the split {name!r} has {len(files)} of {max(counts)} shards; an "
            "earlier run was cut short. Write the split again."
        )
    return files, info


def _count_examples(files: Sequence[Path], info: DatasetInfo) -> int | None:
    """Return the number of examples if the files are exactly one split of the folder."""
    names = {match["name"] if match else "" for match in (_SHARD.match(p.name) for p in files)}
    split = info.splits.get(names.pop()) if len(names) == 1 else None
    return split.examples if split and split.shards == len(files) else None


def _peek(files: Sequence[Path]) -> tuple[str, int]:
    """Tell dtype and channels from the first record."""
    for path in files:
        for index, example in iterate_examples(path):
            encoded = _get(example, path, index, "image/encoded", "bytes_list")[0]
            _, _, channels, bit_depth = _parse_header(encoded, path, index)
            stored = get_values(example, "image/channels", "int64_list")
            channels = stored[0] if stored else (1 if channels < 3 else 3)
            return ("uint16" if bit_depth == 16 else "uint8"), channels
    raise RecordError(f"{files[0]}: holds no record.")


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
                raise RecordError(f"{path}, record {index}: no tf.train.Example.") from error
            index += 1
    except tf.errors.DataLossError as error:
        raise RecordError(
            f"{path}, record {index}: damaged (wrong checksum or cut short); write it again."
        ) from error
    except tf.errors.OpError as error:
        raise RecordError(f"{path}: cannot be read ({error.message}).") from error


# --- Checking --------------------------------------------------------------------------------


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
    files, info = find_records(paths, split)
    label_names = None if info is None else info.label_names
    checked = 0
    for path in files:
        for index, example in iterate_examples(path):
            _check_example(example, path, index, label_names)
            checked += 1
            if progress is not None:
                progress(checked)
    expected = None if info is None else _count_examples(files, info)
    if expected is not None and checked != expected:
        raise RecordError(
            f"{files[0].parent}: {_INFO_FILE} tells of {expected} records, the shards hold "
            f"{checked}; write the split again."
        )
    return checked


def _check_example(
    example: tf.train.Example, path: Path, index: int, label_names: Sequence[str] | None
) -> None:
    def refuse(key: str, fault: str) -> None:
        raise RecordError(f"{path}, record {index}, {key}: {fault}")

    encoded = _get(example, path, index, "image/encoded", "bytes_list")[0]
    height, width, _, _ = _parse_header(encoded, path, index)
    for key, actual in (("image/height", height), ("image/width", width)):
        stored = _get(example, path, index, key, "int64_list")[0]
        if stored != actual:
            refuse(key, f"expected {actual} as in the encoded image; got {stored}.")
    _get(example, path, index, "image/source_id", "bytes_list")
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
        key: np.asarray(get_values(example, key, "float_list"), np.float32) for key in _BOX_KEYS
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
        refuse("image/object/class/text", f"label without text: {labels} and {texts}.")
    for label, text in zip(labels, texts, strict=True):
        if label < 1:
            refuse("image/object/class/label", f"labels count from 1; got {label}.")
        if label_names is not None and (label > len(label_names) or label_names[label - 1] != text):
            refuse(
                "image/object/class/label",
                f"{label} ({text!r}) is not in {_INFO_FILE}'s labels {list(label_names)}.",
            )


def _get(example: tf.train.Example, path: Path, index: int, key: str, kind: str) -> Sequence[Any]:
    values = get_values(example, key, kind)
    if not values:
        raise RecordError(f"{path}, record {index}, {key}: missing or of another type.")
    return values


def _parse_header(encoded: bytes, path: Path, index: int) -> tuple[int, int, int, int]:
    try:
        return parse_image_header(encoded)
    except VAEAugError as error:
        raise RecordError(f"{path}, record {index}, image/encoded: {error}") from error
