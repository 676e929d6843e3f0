"""A network's descriptions of images, on disk, so that later passes only sample and decode.

| file | content |
| --- | --- |
| `cache.json` | settings of the descriptions, and their number once all are written |
| `00000.tfrecord`, ... | `ELEMENTS_PER_FILE` descriptions each, in the order of the dataset |

A description is a `tf.train.Example` of serialised tensors: `fingerprint`, of the image's pixels;
`reconstruction`, in steps of 1/65535, half a grey level of 16 bits; whatever else the network's
`describe` returns, float32. Files appear whole, so an interrupted call goes on with the next file.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from vae_aug.atomic import make_temporary_path, tell_reason, write_atomic
from vae_aug.augment.elements import Layout, read_example
from vae_aug.augment.steps import Steps
from vae_aug.autotune import leave_untuned
from vae_aug.engines.engine import Known
from vae_aug.errors import CacheError

ELEMENTS_PER_FILE = 256
"""Elements that are described again, at most, after an interruption."""

_MANIFEST = "cache.json"
_FILE = "{:05}.tfrecord"
_FORMAT = 1
_WHITE = 65535.0
_do_not_convert = tf.autograph.experimental.do_not_convert


def open_cache(
    dataset: tf.data.Dataset,
    steps: Steps,
    layout: Layout,
    path: str | os.PathLike[str],
    checkpoint: str,
) -> tf.data.Dataset:
    """Describe the elements of a dataset that the cache does not have yet, and read it.

    Args:
        dataset: Of single elements, finite, in an order that every pass repeats.
        steps: The transform.
        layout: Where things are in an element.
        path: Folder of the cache; made if missing.
        checkpoint: Digest of the network.

    Returns:
        A dataset of `(fingerprint, known)`: `[] string`, and float32 tensors by name, without a
        batch axis. After the last element it goes on with empty fingerprints.

    Raises:
        CacheError: If the folder holds something else, or descriptions made with another network,
            value range or version of this format, or cannot be written.
        ValueError: If the elements are batches, the dataset is infinite, or the network has no
            digest.
    """
    _check_dataset(dataset, layout, checkpoint)
    folder = Path(path)
    wanted = {
        "format": _FORMAT,
        "checkpoint": checkpoint,
        "value_range": steps.config.value_range and list(steps.config.value_range),
    }
    manifest = _read_manifest(folder, wanted)
    if manifest is None or manifest["elements"] is None:
        manifest = _describe_missing(dataset, steps, layout, folder, wanted)
    return _read(folder, manifest)


def _check_dataset(dataset: tf.data.Dataset, layout: Layout, checkpoint: str) -> None:
    """Refuse what cannot be cached."""
    if layout.batched:
        raise ValueError("cache() wants single elements; received batches. Call it before batch().")
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            "cache() wants a finite dataset; received one that repeats. Call it before repeat()."
        )
    if not checkpoint:
        raise ValueError(
            "cache() wants a network with a digest, which marks its descriptions; received one "
            "that was never saved. Save it first: vae_aug.model.checkpoint.save_checkpoint."
        )


def _read_manifest(folder: Path, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """Read the settings of a cache, None if there is none yet; refuse another transform's."""
    path = folder / _MANIFEST
    if not path.is_file():
        if folder.exists() and any(folder.iterdir()):
            raise CacheError(
                f"{folder}: holds files but no {_MANIFEST}, so it is not a cache of descriptions. "
                "Name an empty folder or one that does not exist."
            )
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = {name: manifest[name] for name in (*wanted, "tensors", "elements")}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise CacheError(
            f"{path}: damaged ({error!r}). Delete the folder and try again."
        ) from error
    differing = [name for name in wanted if found[name] != wanted[name]]
    if differing:
        name = differing[0]
        raise CacheError(
            f"{folder}: made with {name} {found[name]!r}, and this transform has {wanted[name]!r}. "
            "Name another folder, or delete this one to have it made again."
        )
    for file in _name_files(folder, manifest["elements"] or 0):
        if not file.is_file():
            raise CacheError(f"{file}: missing. Delete the folder and try again.")
    return manifest


def _name_files(folder: Path, elements: int) -> list[Path]:
    """Name the files that hold so many elements."""
    count = -(-elements // ELEMENTS_PER_FILE)
    return [folder / _FILE.format(index) for index in range(count)]


def _describe_missing(
    dataset: tf.data.Dataset, steps: Steps, layout: Layout, folder: Path, wanted: dict[str, Any]
) -> dict[str, Any]:
    """Write the files that are not there, and then the number of elements; return the manifest."""

    @_do_not_convert
    def describe(element: Any) -> tuple[tf.Tensor, Known]:
        return steps.describe(read_example(element, layout))

    whole = next(
        index for index in itertools.count() if not (folder / _FILE.format(index)).is_file()
    )
    rest = tf.data.Dataset.zip((dataset,)).skip(whole * ELEMENTS_PER_FILE)
    described = leave_untuned(rest.map(describe, num_parallel_calls=2, deterministic=True))
    shapes = {name: spec.shape.as_list() for name, spec in described.element_spec[1].items()}
    manifest = {**wanted, "tensors": shapes, "elements": None}
    with _name_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    _write_manifest(folder, manifest)
    examples = described.map(_do_not_convert(_serialize)).as_numpy_iterator()
    elements = whole * ELEMENTS_PER_FILE
    for index in itertools.count(whole):
        some = itertools.islice(examples, ELEMENTS_PER_FILE)
        written = _write_file(folder / _FILE.format(index), some)
        elements += written
        if written < ELEMENTS_PER_FILE:
            break
    manifest["elements"] = elements
    _write_manifest(folder, manifest)
    return manifest


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    with _name_disk(folder):
        write_atomic(folder / _MANIFEST, json.dumps(manifest, indent=1).encode())


@contextlib.contextmanager
def _name_disk(folder: Path) -> Iterator[None]:
    """Turn what the disk raises into a `CacheError`."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise CacheError(
            f"{folder}: the cache cannot be written ({tell_reason(error)}). Free space or fix "
            "permissions and run it again; it goes on from the last whole file."
        ) from error


def _serialize(fingerprint: tf.Tensor, known: Known) -> dict[str, tf.Tensor]:
    """Turn a description into strings."""
    grey = tf.clip_by_value(known["reconstruction"], 0.0, 1.0)
    stored = {**known, "reconstruction": tf.cast(tf.round(grey * _WHITE), tf.uint16)}
    return {
        "fingerprint": fingerprint,
        **{name: tf.io.serialize_tensor(part) for name, part in stored.items()},
    }


def _write_file(path: Path, examples: Iterator[dict[str, bytes]]) -> int:
    """Write one file, whole or not at all, and return how many examples it holds; no empty file."""
    temporary = make_temporary_path(path)
    written = 0
    try:
        with _name_disk(path.parent):
            writer = tf.io.TFRecordWriter(str(temporary))
        for example in examples:  # whose errors are those of the dataset
            record = tf.train.Example()
            for name, string in example.items():
                record.features.feature[name].bytes_list.value.append(string)
            data = record.SerializeToString(deterministic=True)
            with _name_disk(path.parent):
                writer.write(data)
            written += 1
        with _name_disk(path.parent):
            writer.close()
            if written:
                temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return written


def _read(folder: Path, manifest: dict[str, Any]) -> tf.data.Dataset:
    """Read a whole cache; see `open_cache`."""
    shapes = manifest["tensors"]
    features = {
        name: tf.io.FixedLenFeature([], tf.string) for name in ("fingerprint", *sorted(shapes))
    }

    @_do_not_convert
    def parse(record: tf.Tensor) -> tuple[tf.Tensor, Known]:
        example = tf.io.parse_single_example(record, features)
        known = {}
        for name, shape in shapes.items():
            fixed_point = name == "reconstruction"
            part = tf.io.parse_tensor(example[name], tf.uint16 if fixed_point else tf.float32)
            part = tf.cast(part, tf.float32) / _WHITE if fixed_point else part
            known[name] = tf.ensure_shape(part, shape)
        return example["fingerprint"], known

    files = [str(file) for file in _name_files(folder, manifest["elements"])]
    records = tf.data.TFRecordDataset(files).map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    nothing = {name: tf.zeros([length or 0 for length in shape]) for name, shape in shapes.items()}
    return records.concatenate(tf.data.Dataset.from_tensors(("", nothing)).repeat())
