"""The examples of the TFDS dataset, made in one process or by the workers of Apache Beam.

TFDS orders examples by their keys. A key depends on the place of a record in its data set alone, so
the files that are built are the same however the work is parted.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import tensorflow as tf

from vae_aug.augment.transform import VAEAugment
from vae_aug.autotune import leave_untuned
from vae_aug.extras.augment_split import (
    choose_step,
    load_transform,
    make_provenance,
    trace_on_cpu,
)
from vae_aug.phantoms import embedded
from vae_aug.records.check import DAMAGE, check_boxes_if_small, check_records
from vae_aug.records.records import find_records, parse_example, read_in_turn, read_info
from vae_aug.version import __version__

EMBEDDED = "embedded"
"""Name of the source that the package embeds."""

EMBEDDED_ABOUT = {
    "name": "Phantoms of vae_aug and two slices of the pydicom wheel",
    "license": "Apache-2.0 AND MIT",
}
"""What `vae_aug.records.about` would say of it."""

# Factor 0 and detail 1 are the settings under which VAEAugment is the identity.
_NO_PROVENANCE = {
    "checkpoint": "",
    "mode": "none",
    "factor": 0.0,
    "detail": 1.0,
    "guard": "off",
    "min_fidelity": 0.0,
    "seed": 0,
    "settings": "",
    "version": __version__,
}


@dataclasses.dataclass(frozen=True)
class ExampleSource:
    """Where images come from.

    Attributes:
        folder: Folder of records, or `EMBEDDED`.
        label_names: Texts of the labels, which count from 0.
        dtype: `"uint8"` or `"uint16"`.
        channels: 1 or 3.
        splits: Names of its splits.
        allow_damaged: Whether damaged records are left out.
    """

    folder: str
    label_names: tuple[str, ...]
    dtype: str
    channels: int
    splits: tuple[str, ...]
    allow_damaged: bool = False


@dataclasses.dataclass(frozen=True)
class ExamplePart:
    """Images of a split which one worker turns into examples.

    Attributes:
        source: Where they come from.
        split: The split.
        files: The part's shards, with their numbers; none if the source is embedded.
        shards: Number of shards of the whole split.
        first: Index of the first record that is taken of each shard.
        step: How far the next one is.
    """

    source: ExampleSource
    split: str
    files: tuple[tuple[int, str], ...] = ()
    shards: int = 1
    first: int = 0
    step: int = 1


def open_source(source: str, *, allow_damaged: bool = False) -> ExampleSource:
    """Read what a source holds.

    Args:
        source: Folder of records, or `EMBEDDED`.
        allow_damaged: Whether damaged records are left out.

    Returns:
        The source.

    Raises:
        RecordError: If the folder holds no records.
    """
    if source == EMBEDDED:
        return ExampleSource(source, embedded.LABELS, "uint8", 1, embedded.SPLITS)
    info = read_info(source)
    return ExampleSource(
        os.path.abspath(source),
        info.label_names,
        info.dtype,
        info.channels,
        tuple(info.splits),
        allow_damaged,
    )


def list_parts(source: ExampleSource, split: str, wanted: int = 1) -> list[ExamplePart]:
    """Part a split.

    Args:
        source: The source.
        split: The split.
        wanted: Number of parts that are wanted; 1 for one part that is the whole split. Otherwise
            a part is of one shard. An embedded split is one part.

    Returns:
        The parts.

    Raises:
        RecordError: As of `read_records`.
    """
    if source.folder == EMBEDDED:
        return [ExamplePart(source, split)]
    found, _ = find_records(source.folder, split, allow_damaged=source.allow_damaged)
    if not source.allow_damaged:
        check_boxes_if_small(found)
    files = tuple(enumerate(os.fspath(path) for path in found))
    if wanted == 1:
        return [ExamplePart(source, split, files, len(files))]
    step = choose_step(len(files), wanted)
    return [
        ExamplePart(source, split, (file,), len(files), first, step)
        for file in files
        for first in range(step)
    ]


def count_lost(parts: Sequence[ExamplePart]) -> int:
    """Count the records of a split that are damaged, by reading all of them.

    Args:
        parts: All parts of a split, of a folder of records.

    Returns:
        How many fewer can be read than the source says it has.
    """
    examples = read_info(parts[0].source.folder).splits[parts[0].split].examples
    return examples - sum(1 for part in parts for _ in _read_part(part))


def make_examples(
    part: ExamplePart, augment: VAEAugment | bytes | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Make the examples of a part.

    Args:
        part: The part.
        augment: The transform, with a seed; pickled, for workers; or None to leave images as they
            are.

    Yields:
        Keys, which are unique in the split, and examples with the features of the dataset.

    Raises:
        RecordError: If a record is damaged; it names the file, the record and the key.
    """
    elements = _read_part(part)
    provenance = _NO_PROVENANCE
    rows: Iterable[tuple[Any, ...]] = elements.prefetch(1)
    if isinstance(augment, bytes):
        transform, function = load_transform(augment)
        provenance = make_provenance(transform)
        # Outside of tf.data, which would make the network ready for each part anew.
        call = trace_on_cpu(function, elements.element_spec[1])
        rows = ((key, *call(element)) for key, element in elements.prefetch(1))
    elif augment is not None:
        call, provenance = augment.call_with_report, make_provenance(augment)
        # One by one, as in `Dataset.map`: a few images at a time are held in memory.
        rows = elements.map(
            lambda key, element: (key, *call(element)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        ).prefetch(1)
    try:
        for row in rows:
            key, element, *reports = tf.nest.map_structure(lambda tensor: tensor.numpy(), row)
            report = reports[0] if reports else _make_report(len(element["objects"]["label"]))
            told = {f"augment/{name}": value for name, value in (provenance | report).items()}
            yield (
                int(key),
                {
                    "image": element["image"],
                    "image/id": element["image/source_id"],
                    "objects": element["objects"],
                    **told,
                },
            )
    except DAMAGE:
        if part.source.folder != EMBEDDED:
            check_records(part.source.folder, part.split)  # names the file, the record and the key
        raise


def _read_part(part: ExamplePart) -> tf.data.Dataset:
    """Read keys and elements as `read_records` yields them."""
    source = part.source
    if source.folder == EMBEDDED:
        return leave_untuned(_read_embedded(part.split).enumerate())
    numbers, names = zip(*part.files, strict=True)

    def read_shard(place: tf.Tensor) -> tf.data.Dataset:
        number = tf.gather(tf.constant(numbers, tf.int64), place)
        records = tf.data.TFRecordDataset(tf.gather(tf.constant(names), place)).enumerate()
        # Where a data set was written record by record in turn, this is its order.
        return records.shard(part.step, part.first).map(
            lambda index, record: (number + part.shards * index, record)
        )

    elements = leave_untuned(read_in_turn(range(len(names)), read_shard)).map(
        lambda key, record: (key, parse_example(record, source.dtype, source.channels)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    return elements.ignore_errors() if source.allow_damaged else elements


def _read_embedded(split: str) -> tf.data.Dataset:
    def generate() -> Iterator[dict[str, Any]]:
        for item in embedded.read_embedded(cast(embedded.Split, split)):
            label = [embedded.LABELS.index(name) for name in item.labels]
            yield {
                "image": item.image,
                "image/source_id": item.source_id,
                "objects": {"bbox": item.boxes, "label": np.array(label, np.int64)},
            }

    signature = {
        "image": tf.TensorSpec((None, None, 1), tf.uint8),
        "image/source_id": tf.TensorSpec((), tf.string),
        "objects": {
            "bbox": tf.TensorSpec((None, 4), tf.float32),
            "label": tf.TensorSpec((None,), tf.int64),
        },
    }
    return tf.data.Dataset.from_generator(generate, output_signature=signature)


def _make_report(boxes: int) -> dict[str, Any]:
    """Report that an image was left as it was."""
    return {
        "augmented": False,
        "fidelity": np.ones(boxes, np.float32),
        "contrast": np.ones(boxes, np.float32),
        "guarded": np.zeros(boxes, np.bool_),
    }
