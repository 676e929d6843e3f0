"""What was done to a record, and the same bytes made again from the record it was made of."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from vae_aug.augment.transform import VAEAugment
from vae_aug.config import OPTIONAL_SETTINGS
from vae_aug.errors import CheckpointError, RecordError, VAEAugError
from vae_aug.extras.augment_records import PER_BOX
from vae_aug.extras.augment_split import REPLAYED, get_values, replace_image
from vae_aug.records.records import find_records, iterate_examples, parse_example, read_info


@dataclasses.dataclass(frozen=True)
class Replay:
    """What came of making a record again.

    Attributes:
        encoded: The image file that was made.
        format: `"png"` or `"jpeg"`.
        identical: Whether it is byte for byte the one in the record.
    """

    encoded: bytes
    format: str
    identical: bool


def read_provenance(path: str | os.PathLike[str], index: int) -> dict[str, Any]:
    """Read what one record says of how it was made.

    Args:
        path: A file of records.
        index: Number of the record in it, from 0.

    Returns:
        The features `augment/*` without their prefix, lists of one value as that value.

    Raises:
        RecordError: If there is no such record, it is damaged, or it was not augmented.
    """
    return _parse_provenance(_read_example(path, index), path, index)


def restore_transform(
    settings: str, digest: str, checkpoint: str | os.PathLike[str] = "demo"
) -> VAEAugment:
    """Make the transform that an augmented example tells of.

    Args:
        settings: The example's `augment/settings`.
        digest: Its `augment/checkpoint`.
        checkpoint: The network.

    Returns:
        The transform; of the element that the example was made of it makes the same bytes.

    Raises:
        RecordError: If the settings are not those of a transform.
        CheckpointError: If the checkpoint cannot be loaded or is not the one that was used.
    """
    try:
        told = json.loads(settings)
        options = {name: told[name] for name in REPLAYED}
        options |= {name: told[name] for name in OPTIONAL_SETTINGS if name in told}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise RecordError(
            f"augment/settings must be the JSON of {', '.join(REPLAYED)}; got {settings!r}. An "
            "example that was left untouched has none."
        ) from error
    augment = VAEAugment(checkpoint, **options)
    if augment.checkpoint.digest != digest:
        raise CheckpointError(
            f"made with the checkpoint {digest[:16]}...; {checkpoint} is "
            f"{augment.checkpoint.digest[:16]}.... Name the one that was used (--ckpt)."
        )
    return augment


def replay_record(
    path: str | os.PathLike[str],
    index: int,
    source: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str] = "demo",
) -> Replay:
    """Make an augmented record's image again from the record that it was made of.

    Bytes are the same on a machine with the same processor type and TensorFlow version.

    Args:
        path: A file of augmented records.
        index: Number of the record in it, from 0.
        source: Folder of the records that it was made of.
        checkpoint: The network.

    Returns:
        What was made, and whether it is the same.

    Raises:
        RecordError: If the record does not exist or was not augmented, or the source does not have
            the one it was made of.
        CheckpointError: If the checkpoint cannot be loaded or is not the one that was used.
    """
    made = _read_example(path, index)
    told = _parse_provenance(made, path, index)
    try:
        augment = restore_transform(told["settings"], told["checkpoint"], checkpoint)
    except VAEAugError as error:
        raise type(error)(f"{path}, record {index}: {error}") from error
    wanted = _get_bytes(made, "image/encoded")
    replays = [
        Replay(encoded, _get_bytes(example, "image/format").decode(), encoded == wanted)
        for example, encoded in _iterate_replays(Path(source), augment, made)
    ]
    if not replays:
        raise RecordError(
            f"{source}: no record with the source id of record {index} of {path}; give the folder "
            "that the augmented records were made of."
        )
    # Source ids need not be unique: any record that gives the same bytes is the one.
    return next((replay for replay in replays if replay.identical), replays[0])


def _iterate_replays(
    source: Path, augment: VAEAugment, made: tf.train.Example
) -> Iterator[tuple[tf.train.Example, bytes]]:
    """Yield what the transform makes of every record of the same source id."""
    info = read_info(source)
    wanted = _get_bytes(made, "image/source_id")
    files = [file for split in info.splits for file in find_records(source, split)[0]]
    examples = [
        example
        for file in files
        for _, example in iterate_examples(file)
        if _get_bytes(example, "image/source_id") == wanted
    ]
    serialized = tf.constant([example.SerializeToString() for example in examples], tf.string)
    elements = tf.data.Dataset.from_tensor_slices(serialized).map(
        lambda example: parse_example(example, info.dtype, info.channels)
    )
    for example, (element, report) in zip(
        examples, elements.map(augment.call_with_report), strict=True
    ):
        if report["augmented"]:
            replace_image(example, element["image"].numpy())
        yield example, _get_bytes(example, "image/encoded")


def _read_example(path: str | os.PathLike[str], index: int) -> tf.train.Example:
    count = 0
    for number, example in iterate_examples(path):
        if number == index:
            return example
        count = number + 1
    raise RecordError(f"{path}: no record {index}; it has {count}, numbered from 0.")


def _parse_provenance(
    example: tf.train.Example, path: str | os.PathLike[str], index: int
) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for key in sorted(example.features.feature):
        if not key.startswith("augment/"):
            continue
        values = [
            value.decode() if isinstance(value, bytes) else value
            for value in get_values(example, key)
        ]
        name = key.removeprefix("augment/")
        told[name] = values if name in PER_BOX else values[0]
    if "settings" not in told:
        raise RecordError(
            f"{path}, record {index}: was not augmented, or by a version that did not record how "
            "(no key augment/settings). Name a file that vae-aug augment wrote."
        )
    return told


def _get_bytes(example: tf.train.Example, key: str) -> bytes:
    return next(iter(get_values(example, key)), b"")
