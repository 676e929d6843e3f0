"""What is trained on and what validated on; a share is held back where no split was made."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from vae_aug.errors import RecordError
from vae_aug.records.shards import read_info
from vae_aug.records.tfrecord import get_values
from vae_aug.train.feed import Source, open_source
from vae_aug.words import plural

SHARE = 0.1
"""Share of the images that is aimed at."""

_LARGEST_SHARE = 0.2
"""Share beyond which patients are not held back as a whole: too much would be lost to training."""


@dataclasses.dataclass(frozen=True)
class Holdout:
    """What is trained on and what is held back.

    Attributes:
        training: The sources without the images that are held back.
        validation: The images that are held back.
        description: How many they are and how they were chosen, a sentence; empty if a split was
            made for them.
    """

    training: list[Source]
    validation: list[Source]
    description: str


def open_sources(
    sources: Sequence[str | Path],
    validation: Sequence[str | Path] = (),
    *,
    allow_damaged: bool = False,
) -> Holdout:
    """Open what a training reads, as `vae_aug.train.train.train` describes its arguments.

    Args:
        sources: Folders of records with a split `train`.
        validation: Folders whose split `validation` is validated on; by default those of `sources`
            that have one. If none has, images are held back as `hold_back` says.
        allow_damaged: As `read_records`.

    Returns:
        The parts.

    Raises:
        RecordError: If a split is missing or damaged, or there is nothing to hold back.
    """
    training = [open_source(s, "train", allow_damaged=allow_damaged) for s in sources]
    # A split that is there and damaged is refused, not passed over; so is one asked for by name.
    folders = validation or [s for s in sources if "validation" in read_info(s).image_splits]
    held_out = [open_source(f, "validation", allow_damaged=allow_damaged) for f in folders]
    return Holdout(training, held_out, "") if held_out else hold_back(training)


def hold_back(sources: Sequence[Source]) -> Holdout:
    """Hold a tenth of the images back, whole patients where there are enough of them.

    The choice depends on the patients and images alone, so a run that goes on makes it again.
    Patients are chosen in an order of their hashes, as long as they are at most a fifth of the
    images. Where none is, as with few patients, images are chosen in the same way. No source loses
    all its images.

    Args:
        sources: What is trained on.

    Returns:
        The parts.

    Raises:
        RecordError: If there is but one image in every source.
    """
    named = [list(name_images(source)) for source in sources]
    patients = [[patient or image for patient, image in names] for names in named]
    chosen = _choose(patients)
    by_patient = bool(chosen) and any(patient for names in named for patient, _ in names)
    groups = patients if chosen else [[image for _, image in names] for names in named]
    chosen = chosen or _choose(groups)
    if not chosen:
        raise RecordError(
            "No split 'validation', and too few images to hold one back; ingest more images, or "
            "name a folder of records with --validation."
        )
    held = [np.array([group in chosen for group in names]) for names in groups]
    return Holdout(
        [select(source, ~mask) for source, mask in zip(sources, held, strict=True)],
        [select(source, mask) for source, mask in zip(sources, held, strict=True) if mask.any()],
        _describe(held, len(chosen), len({p for n in patients for p in n}), by_patient),
    )


def name_images(source: Source) -> Iterator[tuple[str, str]]:
    """Yield keys of the patient, `""` where none is known, and of the image, of every record.

    Args:
        source: The records.

    Yields:
        `"patient HASH"` or `""`, and `"image NAME"`.
    """
    for position, serialized in enumerate(source.examples.as_numpy_iterator()):
        example = tf.train.Example.FromString(serialized)
        patient, image = (
            b"".join(get_values(example, key, "bytes_list")).decode("utf-8", "replace")
            for key in ("image/patient", "image/source_id")
        )
        yield patient and f"patient {patient}", f"image {image or position}"


def _choose(groups: Sequence[Sequence[str]]) -> set[str]:
    """Choose groups of images, each named by the key of its group, by source."""
    left = [collections.Counter(names) for names in groups]
    sizes = sum(left, collections.Counter[str]())
    rest = [len(names) for names in groups]
    total, held = sum(rest), 0
    limit = max(_LARGEST_SHARE * total, 1)
    chosen: set[str] = set()
    for key in sorted(sizes, key=lambda key: hashlib.sha256(key.encode()).digest()):
        after = [count - counter[key] for count, counter in zip(rest, left, strict=True)]
        if held < SHARE * total and held + sizes[key] <= limit and min(after) > 0:
            chosen.add(key)
            held, rest = held + sizes[key], after
    return chosen


def select(source: Source, mask: np.ndarray) -> Source:
    """Keep the records at which a mask is true.

    Args:
        source: The records.
        mask: `[N] bool`, one value a record.

    Returns:
        The source of these records, in their order.
    """
    kept = tf.constant(mask)
    chosen = source.examples.enumerate().filter(lambda index, _: kept[index])
    return dataclasses.replace(source, examples=chosen.map(lambda _, serialized: serialized))


def _describe(held: Sequence[np.ndarray], chosen: int, groups: int, by_patient: bool) -> str:
    count, total = sum(int(mask.sum()) for mask in held), sum(mask.size for mask in held)
    how = (
        f"those of {chosen} of {groups} patients"
        if by_patient
        else "chosen one by one, since too few patients are known: they resemble those that are "
        "trained on, so the figures flatter"
    )
    held_back = "is held back" if count == 1 else "are held back"
    return (
        f"No split 'validation': {count} of {plural(total, 'image')} {held_back} to validate on, "
        f"{how}. Ingest a split validation, or name its folder with --validation, to choose "
        "yourself."
    )
