"""The records of a split with their images augmented, made here or by several workers.

Workers each augment parts of the shards into files of their own, which are then read in the order
of the source. So the records are the same however they are parted.
"""

from __future__ import annotations

import array
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from vae_aug.atomic import replace_atomic, sync_file
from vae_aug.augment.transform import VAEAugment
from vae_aug.autotune import leave_untuned
from vae_aug.codecs.images import encode_image, parse_image_header
from vae_aug.errors import RecordError
from vae_aug.records.check import DAMAGE, check_records
from vae_aug.records.records import (
    READ_AT_ONCE,
    as_record_error,
    parse_example,
    read_in_turn,
    read_serialized,
)
from vae_aug.version import __version__
from vae_aug.workers import Workers, run_tasks

SETTINGS = ("mode", "factor", "detail", "guard", "min_fidelity", "seed")
"""Settings of a transform that have a feature of their own."""

REPLAYED = (*SETTINGS, "p", "value_range", "engine")
"""Settings of a transform in `augment/settings`, from which a record can be made again."""

PARTS_FOR_RUNNER = 32
"""Parts of a split at least, since the number of a runner's workers is not known."""

PARTS_PER_WORKER = 4
"""Parts of a split at least for each process, so that none waits long for another."""

_Example = TypeVar("_Example")

_MOST_CONTRAST = 1e6
"""Maximum contrast ratio that is stored in thousandths."""


@dataclasses.dataclass(frozen=True)
class SplitSource:
    """The records of a split.

    Attributes:
        folder: The data set.
        name: The split.
        files: Its shards, in the order of their numbers.
        dtype: Dtype of the images, as `parse_example` takes it.
        channels: Channels of the images, 1 or 3.
        allow_damaged: Whether records that cannot be parsed are left out.
    """

    folder: Path
    name: str
    files: tuple[Path, ...]
    dtype: str
    channels: int
    allow_damaged: bool = False


@dataclasses.dataclass
class SplitReport:
    """What became of one split.

    Attributes:
        images: Records written.
        augmented: Records that the transform chose; the rest kept their image.
        boxes: Boxes, all of them carried through unchanged.
        judged: Boxes whose content could be judged.
        chosen_boxes: Those in images that the transform chose.
        guarded: Of these, boxes that the guard acted for.
        lost: Records of the source that were damaged.
        lowest_fidelity: Of all judged boxes, as written; NaN if there is none.
        median_fidelity: Of the same boxes, once all records have passed.
    """

    images: int = 0
    augmented: int = 0
    boxes: int = 0
    judged: int = 0
    chosen_boxes: int = 0
    guarded: int = 0
    lost: int = 0
    lowest_fidelity: float = float("nan")
    median_fidelity: float = float("nan")

    @property
    def is_mostly_guarded(self) -> bool:
        """Whether the guard acted for most boxes of chosen images, which then hardly vary."""
        return 2 * self.guarded > self.chosen_boxes

    def count(
        self, examples: Iterable[_Example], read: Callable[[_Example, str], Any]
    ) -> Iterator[_Example]:
        """Count augmented records as they pass.

        Args:
            examples: The records.
            read: Reads from a record what it tells under a name.

        Yields:
            The records.
        """
        told = array.array("f")  # 4 bytes a box
        for example in examples:
            fidelity = np.array(read(example, "augment/fidelity"), np.float32)
            judged = fidelity[np.isfinite(fidelity)]
            self.images += 1
            chosen = int(np.sum(read(example, "augment/augmented")))
            self.augmented += chosen
            self.chosen_boxes += chosen * len(fidelity)
            self.boxes += len(fidelity)
            self.judged += len(judged)
            self.guarded += int(np.sum(read(example, "augment/guarded")))
            told.extend(judged)
            yield example
        if told:
            self.lowest_fidelity, self.median_fidelity = float(np.min(told)), float(np.median(told))


def augment_split(source: SplitSource, augment: VAEAugment) -> Iterator[tf.train.Example]:
    """Augment the records of a split in this process.

    Args:
        source: The records.
        augment: The transform, with a seed.

    Yields:
        The augmented records in their order.

    Raises:
        RecordError: If a record is damaged or was augmented before.
    """

    def locate(index: int) -> str:
        return f"{source.folder}: record {index} of the split {source.name!r}"

    return _augment(read_serialized(source.files), source, augment, locate)


def augment_split_in_parts(
    source: SplitSource,
    pickled: bytes,
    workers: Workers,
    folder: Path,
    progress: Callable[[float], None],
) -> Iterator[tf.train.Example]:
    """Augment the records of a split by several workers.

    Args:
        source: The records, all of which can be read.
        pickled: The transform, with a seed.
        workers: Processes or a runner.
        folder: Where workers put their files, which the caller removes; made if it is missing.
        progress: Called with the share of the parts that are done.

    Yields:
        What `augment_split` yields, once all parts are done.

    Raises:
        MissingPackageError: If there is a runner and no Apache Beam.
        RecordError: If a record is damaged or was augmented before, a worker or the runner fails,
            or the disk refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(path.absolute() for path in source.files)
    source = dataclasses.replace(source, folder=source.folder.absolute(), files=paths)
    wanted = PARTS_PER_WORKER * workers if isinstance(workers, int) else PARTS_FOR_RUNNER
    step = choose_step(len(source.files), wanted)
    files = [
        [folder.absolute() / f"{shard:05}-{first:05}.tfrecord" for first in range(step)]
        for shard in range(len(source.files))
    ]
    tasks = [
        (path, source, shard, first, step, pickled)
        for shard, parts in enumerate(files)
        for first, path in enumerate(parts)
    ]
    with contextlib.closing(run_tasks(augment_part, tasks, workers)) as done:
        for number, _ in enumerate(done, start=1):
            progress(number / len(tasks))
    names = [[os.fspath(path) for path in parts] for parts in files]
    merged = read_in_turn(names, lambda parts: read_in_turn(parts, tf.data.TFRecordDataset))
    for serialized in leave_untuned(merged).as_numpy_iterator():
        yield tf.train.Example.FromString(serialized)


def augment_part(
    path: Path, source: SplitSource, shard: int, first: int, step: int, pickled: bytes
) -> None:
    """Augment every `step`-th record of a shard, and write them, all or none.

    Args:
        path: TFRecord file to write.
        source: The split.
        shard: Index of the shard.
        first: Index of its first record that is taken.
        step: How far the next one is.
        pickled: The transform.
    """
    file = source.files[shard]
    records = read_serialized([file]).shard(step, first)
    augment, function = load_transform(pickled)

    def locate(index: int) -> str:
        return f"{file}, record {first + step * index}"

    examples = _augment(records, source, augment, locate, function)
    with as_record_error(path.parent, source.name), replace_atomic(path) as temporary:
        with tf.io.TFRecordWriter(os.fspath(temporary)) as writer:
            for example in examples:
                writer.write(example.SerializeToString(deterministic=True))
        sync_file(temporary)


def choose_step(shards: int, wanted: int) -> int:
    """Choose into how many parts each shard is divided.

    Args:
        shards: Number of shards.
        wanted: Number of parts in all, at least.

    Returns:
        Number of parts of a shard, at most `READ_AT_ONCE`.
    """
    return min(-(-wanted // shards), READ_AT_ONCE)


def trace_on_cpu(function: Any, spec: Any) -> Callable[..., Any]:
    """Trace a `tf.function` once, to run on the CPU, as functions in tf.data do.

    Args:
        function: Of elements of a dataset.
        spec: Its `element_spec`.

    Returns:
        The function, which may be called outside of tf.data.
    """
    call = function.get_concrete_function(spec)

    def run(*elements: Any) -> Any:
        with tf.device("/CPU:0"):
            return call(*elements)

    return run


@functools.lru_cache(maxsize=1)
def load_transform(pickled: bytes) -> tuple[VAEAugment, Any]:
    """Load a transform once a worker.

    Args:
        pickled: The transform.

    Returns:
        The transform, and its `call_with_report` as a `tf.function` that is traced once.
    """
    augment: VAEAugment = pickle.loads(pickled)
    return augment, tf.function(augment.call_with_report, autograph=False)


def make_provenance(augment: VAEAugment) -> dict[str, Any]:
    """Tell what the `augment/*` features of all examples of a transform share.

    Args:
        augment: The transform.

    Returns:
        Names without the prefix to text and numbers; `"settings"` is what
        `vae_aug.extras.replay.restore_transform` takes.
    """
    config = augment.config.to_dict()
    shared = {name: config[name] for name in SETTINGS}
    told = augment.config.list_optional() | {name: config[name] for name in REPLAYED}
    settings = json.dumps(told, sort_keys=True)
    digest = {"checkpoint": augment.checkpoint.digest, "version": __version__}
    return {**shared, **digest, "settings": settings}


def _augment(
    serialized: tf.data.Dataset,
    source: SplitSource,
    augment: VAEAugment,
    locate: Callable[[int], str],
    function: Any = None,
) -> Iterator[tf.train.Example]:
    """Yield records with their images augmented, in their order.

    Args:
        serialized: The records.
        source: The split that they are of.
        augment: The transform.
        locate: Names a record by its index among those, for messages.
        function: Its `call_with_report` as a `tf.function`, for one of many parts.
    """

    def parse(record: tf.Tensor) -> dict[str, Any]:
        return {**parse_example(record, source.dtype, source.channels), "serialized": record}

    elements = serialized.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if source.allow_damaged:
        elements = elements.ignore_errors()
    # Batches are ragged, because records keep their own size.
    batches = elements.ragged_batch(augment.config.batch_size)
    if function is None:
        results: Iterable[Any] = batches.map(augment.call_with_report).prefetch(1)
    else:  # outside of tf.data, which would make the network ready for each part anew
        results = map(trace_on_cpu(function, batches.element_spec), batches)
    shared = make_provenance(augment)
    index = 0
    try:
        for batch, details in results:
            # Not by `unbatch`: TensorFlow 2.21 crashes in it on a batch without any box.
            for row, record in enumerate(batch["serialized"].numpy()):
                example = tf.train.Example.FromString(record)
                if "augment/checkpoint" in example.features.feature:
                    raise RecordError(
                        f"{locate(index)} was augmented before; start from the records it was "
                        "made from."
                    )
                report = _read_report(details, row, len(batch["objects"]["label"][row]))
                if report["augmented"]:
                    replace_image(example, batch["image"][row].to_tensor().numpy())
                for name, value in {**shared, **report}.items():
                    _set(example, f"augment/{name}", value)
                for name, value in _make_attributes(report).items():
                    _set(example, f"image/object/attribute/{name}", value)
                index += 1
                yield example
    except DAMAGE as error:
        check_records(source.folder, source.name)  # Names the file, the record and the key.
        raise RecordError(f"{source.folder}, split {source.name!r}: damaged ({error}).") from error


def _read_report(details: Mapping[str, tf.Tensor], row: int, boxes: int) -> dict[str, np.ndarray]:
    """Return what a batch's report says of one record, which may have fewer boxes than others."""
    return {
        "augmented": details["augmented"][row].numpy(),
        "fidelity": details["fidelity"][row, :boxes].numpy(),
        "contrast": details["contrast"][row, :boxes].numpy(),
        "guarded": details["guarded"][row, :boxes].numpy(),
    }


def _make_attributes(told: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what is told of boxes as integers, one a box."""
    contrast = np.clip(told["contrast"], 0.0, _MOST_CONTRAST)  # NaN stays
    return {
        "fidelity_permille": _to_permille(told["fidelity"]),
        "contrast_permille": _to_permille(contrast),
        "guarded": told["guarded"],
    }


def _to_permille(values: np.ndarray) -> np.ndarray:
    """Turn shares into thousandths, NaN into -1."""
    return np.rint(1000 * np.nan_to_num(values.astype(np.float64), nan=-1e-3)).astype(np.int64)


def replace_image(example: tf.train.Example, image: np.ndarray) -> None:
    """Store another image of the same size in a record."""
    _, _, channels, bit_depth = parse_image_header(get_values(example, "image/encoded")[0])
    if image.dtype == np.uint16 and bit_depth == 8:
        # The folder holds 16-bit images too, so this one was widened (times 257) for the batch.
        image = np.rint(image / 257).astype(np.uint8)
    if channels < 3:
        image = image[..., :1]
    encoded = encode_image(image)
    _set(example, "image/encoded", encoded.encoded)
    _set(example, "image/format", encoded.format)
    _set(example, "image/channels", encoded.channels)
    _set(example, "image/bit_depth", encoded.bit_depth)
    _set(example, "image/key/sha256", hashlib.sha256(encoded.encoded).hexdigest())
    for name in get_values(example, "image/filename"):
        _set(example, "image/filename", str(PurePosixPath(name.decode()).with_suffix(".png")))


def get_values(example: tf.train.Example, key: str) -> Sequence[Any]:
    """Return the values of a feature of any kind, none if it is missing."""
    features = example.features.feature
    # Indexing a missing key of a protobuf map would add it.
    if key not in features:
        return ()
    kind = features[key].WhichOneof("kind")
    return getattr(features[key], kind).value if kind else ()


def _set(example: tf.train.Example, key: str, value: Any) -> None:
    """Set a feature to a string, bytes, a number or an array of numbers."""
    feature = example.features.feature[key]
    feature.Clear()
    if isinstance(value, str | bytes):
        feature.bytes_list.value.append(value.encode() if isinstance(value, str) else value)
        return
    array = np.ravel(value)
    # SetInParent: a list of no boxes is still a list.
    if array.dtype.kind == "f":
        feature.float_list.SetInParent()
        feature.float_list.value.extend(array.astype(np.float32))
    else:
        feature.int64_list.SetInParent()
        feature.int64_list.value.extend(array.astype(np.int64))
