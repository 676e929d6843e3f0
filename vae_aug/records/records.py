"""Make, write and read TFRecords in the TF Object Detection schema.

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
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from vae_aug.atomic import (
    make_temporary_path,
    remove_temporaries,
    sync_file,
    tell_reason,
    write_atomic,
)
from vae_aug.autotune import leave_untuned
from vae_aug.codecs.images import EncodedImage, encode_image
from vae_aug.errors import RecordError
from vae_aug.records.check import (
    BOX_FLAGS,
    BOX_KEYS,
    check_boxes_if_small,
    get_feature,
    iterate_examples,
    parse_header,
)
from vae_aug.records.shards import (
    INFO_FILE,
    LABEL_FILE,
    UNANNOTATED,
    DatasetInfo,
    SplitInfo,
    count_listed,
    find_records,
    get_channels,
    get_dtype,
    get_split_name,
    list_parts,
    list_shards,
    read_info,
    write_label_map,
)
from vae_aug.records.tfrecord import get_values

READ_AT_ONCE = 64
"""Sources that are read in turn; with more, the order of reading is not that of writing."""


# --- One example -----------------------------------------------------------------------------


def make_example(
    image: np.ndarray | EncodedImage,
    *,
    source_id: str,
    boxes: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    label_names: Sequence[str],
    patient: str = "",
    flags: Mapping[str, Sequence[bool]] | None = None,
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
        flags: Names from `BOX_FLAGS` to `[N]` booleans; False for every box by default.
        extra: Further features by key, e.g. `augment/mode`: a number, string, bytes, or a
            sequence or array of them (stored flat).

    Returns:
        The record.

    Raises:
        ValueError: If shapes disagree, a label has no name, a flag is unknown, or a key of `extra`
            is taken.
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
        **dict(zip(BOX_KEYS, boxes.T, strict=True)),
        "image/object/class/text": [label_names[int(label)] for label in labels],
        "image/object/class/label": labels + 1,
        "image/object/area": (ymax - ymin) * (xmax - xmin) * image.height * image.width,
    }
    for name, values in _complete_flags(flags or {}, len(boxes)).items():
        features[f"image/object/{name}"] = values
    taken = sorted(set(features) & set(extra or {}))
    if taken:
        raise ValueError(f"extra must not replace {', '.join(taken)}.")
    features.update(extra or {})
    return tf.train.Example(
        features=tf.train.Features(feature={k: _make_feature(k, v) for k, v in features.items()})
    )


def _complete_flags(flags: Mapping[str, Sequence[bool]], count: int) -> dict[str, np.ndarray]:
    """Check the flags of `count` boxes, and add those that are not given."""
    unknown = sorted(set(flags) - set(BOX_FLAGS))
    if unknown:
        raise ValueError(f"flags must be among {', '.join(BOX_FLAGS)}; got {', '.join(unknown)}.")
    for name, values in flags.items():
        if len(values) != count:
            raise ValueError(f"{name} must have one value a box, {count}; got {len(values)}.")
    return {name: np.asarray(flags.get(name, [False] * count), np.int64) for name in BOX_FLAGS}


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
            **dict.fromkeys(BOX_KEYS, floats),
        },
    )
    sides = [features[key].values for key in BOX_KEYS]
    label = features["image/object/class/label"].values
    source_id = features["image/source_id"]
    sizes = tf.stack([tf.size(side) for side in sides])
    message = "image/object/bbox/* and image/object/class/label differ in length; image/source_id:"
    is_even = tf.debugging.Assert(
        tf.reduce_all(tf.equal(sizes, tf.size(label))), [message, source_id]
    )
    with tf.control_dependencies([is_even]):
        bbox = tf.stack(sides, axis=-1)
    message = (
        "image/object/bbox/* are not finite, or a minimum is above its maximum; image/source_id:"
    )
    is_box = tf.reduce_all(tf.math.is_finite(bbox)) & tf.reduce_all(bbox[:, :2] <= bbox[:, 2:])
    with tf.control_dependencies([tf.debugging.Assert(is_box, [message, source_id])]):
        bbox = tf.identity(bbox)
    return {
        "image": _decode(features["image/encoded"], source_id, image_dtype, channels),
        "image/source_id": source_id,
        "image/patient": features["image/patient"],
        "objects": {"bbox": tf.ensure_shape(bbox, (None, 4)), "label": label - 1},
    }


def _decode(
    encoded: tf.Tensor, source_id: tf.Tensor, image_dtype: tf.DType, channels: int
) -> tf.Tensor:
    """Decode a PNG or JPEG, which differ in their first byte."""
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
    expected: int | None = None,
) -> SplitInfo:
    """Write one split, in constant memory.

    Examples go to the shards in turn. Every shard is written under a temporary name, forced to
    disk, and renamed when all are whole; then the split's former shards are gone. Whatever
    interrupts the writing, no part of a new shard stays, and the former ones are untouched
    unless the renaming itself had begun. The next writing removes what a killed process left.

    Args:
        examples: The records; their number need not be known.
        directory: Folder of the data set; made if missing.
        name: The split, e.g. `"train"`; `"val"` and `"valid"` are stored as `"validation"`.
        num_shards: Number of files, 1 to 99999.
        label_names: If given, `dataset.json` and `label_map.pbtxt` are written too; an existing
            `dataset.json` keeps its other splits.
        expected: Number of examples that the source lists; `dataset.json` counts those that are
            missing as `lost`.

    Returns:
        What was written.

    Raises:
        ValueError: On a bad name or number of shards.
        RecordError: If there are no examples, the disk refuses (named, with the reason), or
            the folder's other splits have other labels.
    """
    name = get_split_name(name)
    named = ((name, example) for example in examples)
    return _write_parts(named, Path(directory), (name,), num_shards, label_names, expected)[name]


def write_split(
    examples: Iterable[tuple[tf.train.Example, bool]],
    directory: str | os.PathLike[str],
    name: str,
    num_shards: int = 1,
    *,
    label_names: Sequence[str],
) -> tuple[SplitInfo | None, SplitInfo | None]:
    """Write one split as `write_records`, and beside it the images that are not annotated.

    Args:
        examples: The records, each with whether its image is annotated.
        directory: As `write_records`.
        name: As `write_records`; must not end in `UNANNOTATED`.
        num_shards: As `write_records`; of either kind.
        label_names: As `write_records`.

    Returns:
        What was written of annotated and of unannotated images, None where there are none.

    Raises:
        ValueError: As `write_records`.
        RecordError: As `write_records`.
    """
    name = get_split_name(name)
    if name.endswith(UNANNOTATED):
        raise ValueError(
            f"a split must not be called {name!r}: names in {UNANNOTATED!r} are reserved."
        )
    parts = list_parts(name)
    named = ((parts[not is_annotated], example) for example, is_annotated in examples)
    written = _write_parts(named, Path(directory), parts, num_shards, label_names)
    return written.get(parts[0]), written.get(parts[1])


def _write_parts(
    examples: Iterable[tuple[str, tf.train.Example]],
    directory: Path,
    names: Sequence[str],
    num_shards: int,
    label_names: Sequence[str] | None,
    expected: int | None = None,
) -> dict[str, SplitInfo]:
    """Write the shards of some names, in place of former ones, and return what each holds."""
    if not 1 <= num_shards <= 99999:
        raise ValueError(f"num_shards must be in [1, 99999]; got {num_shards!r}.")
    refuse = functools.partial(as_record_error, directory, names[0])
    with refuse():
        directory.mkdir(parents=True, exist_ok=True)
    if label_names is not None:
        _check_labels(directory, names, label_names)
    written = _write_shards(examples, directory, names, num_shards, refuse)
    infos = {name: shards.summarize(label_names, expected or 0) for name, shards in written.items()}
    if label_names is not None:
        with refuse():
            _write_info(directory, names, infos, label_names)
    return infos


@contextlib.contextmanager
def as_record_error(directory: Path, name: str) -> Iterator[None]:
    """Turn what the disk raises into a `RecordError`."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise RecordError(
            f"{directory}: writing the split {name!r} failed ({tell_reason(error)}). Nothing "
            "partial was left behind; free space or fix permissions and run it again."
        ) from error


class _Shards:
    """The shards of one name, under temporary names until they are whole, and what they hold."""

    def __init__(self, directory: Path, name: str, count: int) -> None:
        self._examples = 0
        self._bit_depth, self._channels = 8, 1
        self._classes: collections.Counter[str] = collections.Counter()
        self._directory = directory
        self._finals = [directory / f"{name}-{i:05}-of-{count:05}.tfrecord" for i in range(count)]
        self._temporaries = [make_temporary_path(path) for path in self._finals]
        self._writers: list[tf.io.TFRecordWriter] = []

    def open(self) -> None:
        """Open the temporary files, and remove those of processes that were killed."""
        for path in self._finals:
            remove_temporaries(path)
        self._writers += (tf.io.TFRecordWriter(os.fspath(path)) for path in self._temporaries)

    def write(self, example: tf.train.Example) -> None:
        """Add an example to the shard whose turn it is."""
        writer = self._writers[self._examples % len(self._writers)]
        writer.write(example.SerializeToString(deterministic=True))
        self._examples += 1
        texts = get_values(example, "image/object/class/text", "bytes_list")
        self._classes.update(text.decode("utf-8", "replace") for text in texts)
        bit_depths = get_values(example, "image/bit_depth", "int64_list")
        self._bit_depth = max([self._bit_depth, *bit_depths])
        channels = get_values(example, "image/channels", "int64_list")
        self._channels = max([self._channels, *channels])

    def summarize(self, label_names: Sequence[str] | None, expected: int) -> SplitInfo:
        """Say what the shards hold, of as many examples as were expected."""
        names = sorted(self._classes) if label_names is None else label_names
        return SplitInfo(
            examples=self._examples,
            boxes=self._classes.total(),
            shards=len(self._finals),
            dtype="uint16" if self._bit_depth == 16 else "uint8",
            channels=self._channels,
            class_counts={label: self._classes[label] for label in names},
            shard_bytes=tuple(path.stat().st_size for path in self._finals),
            lost=max(expected - self._examples, 0),
        )

    def close(self) -> None:
        """Put the shards on disk."""
        for writer, path in zip(self._writers, self._temporaries, strict=True):
            writer.close()
            sync_file(path)

    def rename(self) -> None:
        """Give the shards their names."""
        try:
            for temporary, final in zip(self._temporaries, self._finals, strict=True):
                temporary.replace(final)
            sync_file(self._directory)
        except BaseException:
            _remove(self._finals)
            raise

    def remove(self) -> None:
        """Remove what has no final name yet."""
        for writer in self._writers:
            with contextlib.suppress(tf.errors.OpError):
                writer.close()
        _remove(self._temporaries)


def _write_shards(
    examples: Iterable[tuple[str, tf.train.Example]],
    directory: Path,
    names: Sequence[str],
    num_shards: int,
    refuse: Callable[[], contextlib.AbstractContextManager[None]],
) -> dict[str, _Shards]:
    opened: dict[str, _Shards] = {}
    try:
        # What the examples themselves raise is the caller's, and not about this disk.
        for name, example in examples:
            with refuse():
                if name not in opened:
                    opened[name] = _Shards(directory, name, num_shards)
                    opened[name].open()
                opened[name].write(example)
        if not opened:
            raise RecordError(f"{directory}: there are no examples for the split {names[0]!r}.")
        with refuse():
            for shards in opened.values():
                shards.close()
            # Former shards go first: a set with a gap is noticed by readers, a mixed one is not.
            _remove(path for name in names for path in list_shards(directory, name))
            for shards in opened.values():
                shards.rename()
    except BaseException:
        for shards in opened.values():
            shards.remove()
        raise
    return opened


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _check_labels(directory: Path, names: Sequence[str], label_names: Sequence[str]) -> None:
    if len(set(label_names)) != len(label_names) or not all(label_names):
        raise ValueError(f"label_names must be distinct and not empty; got {list(label_names)}.")
    if not (directory / INFO_FILE).exists():
        return
    former = read_info(directory)
    if set(former.splits) - set(names) and former.label_names != tuple(label_names):
        raise RecordError(
            f"{directory / INFO_FILE}: the folder's other splits have the labels "
            f"{list(former.label_names)}; got {list(label_names)}. Write to another folder, or "
            "pass the same labels."
        )


def _write_info(
    directory: Path,
    names: Sequence[str],
    written: Mapping[str, SplitInfo],
    label_names: Sequence[str],
) -> None:
    path = directory / INFO_FILE
    parts = dict(read_info(directory).parts) if path.exists() else {}
    parts = {name: part for name, part in parts.items() if name not in names} | dict(written)
    described = {name: parts[name].to_dict() for name in sorted(parts)}
    content: dict[str, Any] = {
        "schema": "vae_aug/1",
        "labels": list(label_names),
        "splits": {k: v for k, v in described.items() if not k.endswith(UNANNOTATED)},
    }
    if unannotated := {k: v for k, v in described.items() if k.endswith(UNANNOTATED)}:
        content["unannotated"] = unannotated
    write_label_map(directory / LABEL_FILE, label_names)
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())


# --- Reading ---------------------------------------------------------------------------------


def read_records(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    split: str | None = None,
    *,
    num_parallel_calls: int | None = None,
    unannotated: bool = False,
    allow_damaged: bool = False,
    counted: bool = True,
) -> tf.data.Dataset:
    """Read records as elements, in the order in which they were written.

    The dtype and channels of the images come from `dataset.json` beside the records, else from
    the first record. Above 64 shards the order is fixed, but another than that of writing.

    Shards are checked against `dataset.json` before the first element. Sets of up to 256 MiB are
    also read through once, in a second or less, so that an invalid box is named by its file; in
    larger sets it raises `tf.errors.InvalidArgumentError` when its record is reached.

    Args:
        source: Folder of a data set; a file or pattern of files; or a list of files.
        split: The split of a folder; not needed if there is only one.
        num_parallel_calls: Records decoded in parallel; None for `tf.data.AUTOTUNE`.
        unannotated: Whether to read the split's unannotated images, too, without boxes, e.g. to
            train an autoencoder. A detector would take them for negatives.
        allow_damaged: Whether to read a set with damaged shards or records; each shard is then read
            up to its first damaged record.
        counted: Whether the dataset has the number of elements that `dataset.json` tells, and
            fails if it yields another. Pass False for `"distributed_epoch"` and every other way of
            tf.data service in which a worker reads a share of the elements; then shards are read
            one after another, since each is handed to a worker as a whole.

    Returns:
        Elements as `parse_example` yields them. The number of elements is set if it is `counted`
        and `dataset.json` has it. tf.data's tuner is switched off, see `read_serialized`.

    Raises:
        RecordError: If there are no such records, a shard is missing, or, unless `allow_damaged`, a
            shard is not as `dataset.json` says, a record is damaged or no `tf.train.Example`, or
            its boxes are not finite, crossed, or of uneven length; it names file, index and key.
    """
    files, info = find_records(source, split, unannotated=unannotated, allow_damaged=allow_damaged)
    if not allow_damaged:
        check_boxes_if_small(files)
    dtype, channels, count = _describe_images(files, info)
    dataset = read_serialized(files, in_turn=counted)
    parallel = tf.data.AUTOTUNE if num_parallel_calls is None else num_parallel_calls
    dataset = dataset.map(
        lambda serialized: parse_example(serialized, dtype, channels),
        num_parallel_calls=parallel,
        deterministic=True,
    )
    if allow_damaged:
        return dataset.ignore_errors()
    if counted and count is not None:
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(count))
    return dataset


def read_serialized(
    files: Sequence[str | os.PathLike[str]], *, in_turn: bool = True
) -> tf.data.Dataset:
    """Read the serialised records of shards.

    Args:
        files: The shards, in the order of their numbers.
        in_turn: Whether to read them in the order in which they were written, which takes a record
            of each shard in turn; otherwise shard after shard.

    Returns:
        Scalar strings, one `tf.train.Example` each. tf.data's tuner is switched off for this
        dataset and all that are derived from it, see `vae_aug.autotune`.
    """
    names = [os.fspath(path) for path in files]
    if len(names) == 1 or not in_turn:
        return leave_untuned(tf.data.TFRecordDataset(names))
    return leave_untuned(read_in_turn(names, tf.data.TFRecordDataset))


def read_in_turn(sources: Any, read: Callable[[tf.Tensor], tf.data.Dataset]) -> tf.data.Dataset:
    """Read one record of each source in turn, of `READ_AT_ONCE` sources at a time.

    A further source begins where one of them ends.

    Args:
        sources: Tensor or nested list; its first axis, of known length, is that of the sources.
        read: Reads a source.

    Returns:
        The records, in the order of the sources.
    """
    sources = tf.convert_to_tensor(sources)
    return tf.data.Dataset.from_tensor_slices(sources).interleave(
        read,
        cycle_length=min(sources.shape[0], READ_AT_ONCE),
        block_length=1,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _describe_images(
    files: Sequence[Path], info: DatasetInfo | None
) -> tuple[str, int, int | None]:
    """Return dtype, channels and number of the images in shards, None if it is unknown."""
    if info is None:
        return *_peek(files), None
    names = {path.name.rpartition("-of-")[0][:-6] for path in files}
    parts = [part for name, part in info.parts.items() if name in names and name not in info.splits]
    parts += info.splits.values()
    return get_dtype(parts), get_channels(parts), count_listed(files, info)


def _peek(files: Sequence[Path]) -> tuple[str, int]:
    """Read dtype and channels from the first record."""
    for path in files:
        for index, example in iterate_examples(path):
            encoded = get_feature(example, path, index, "image/encoded", "bytes_list")[0]
            _, _, channels, bit_depth = parse_header(encoded, path, index)
            stored = get_values(example, "image/channels", "int64_list")
            channels = stored[0] if stored else (1 if channels < 3 else 3)
            return ("uint16" if bit_depth == 16 else "uint8"), channels
    raise RecordError(f"{files[0]}: holds no record.")
