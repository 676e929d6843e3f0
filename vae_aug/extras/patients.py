"""How many patients the splits of records have, and how many of them a checkpoint has seen.

Patients are compared by the hashes that `vae-aug ingest` writes, so those of records that were
ingested with another salt, or with names that were drawn, are not found again.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from vae_aug.augment.transform import VAEAugment
from vae_aug.errors import RecordError
from vae_aug.records.check import iterate_examples
from vae_aug.records.shards import UNANNOTATED, find_records, get_split_name, read_info
from vae_aug.records.tfrecord import get_values

TRAIN = "train"


@dataclasses.dataclass(frozen=True)
class PatientCounts:
    """The patients of a split.

    Attributes:
        patients: Distinct ones, among the records that name one.
        seen: How many of them the checkpoint was trained on; None if it does not say on whom, or
            names nobody of the records, whose hashes may then be of another salt.
    """

    patients: int
    seen: int | None


def count_patients(
    source: str | os.PathLike[str], augment: VAEAugment, *, damaged: Collection[str] = ()
) -> dict[str, PatientCounts]:
    """Count the patients of every part of records, all of which are read for it.

    Args:
        source: Folder of records.
        augment: The transform; the fingerprint of its checkpoint names patients.
        damaged: Parts that may hold records that cannot be read.

    Returns:
        The counts by part, without parts of which no record names a patient. Of `damaged` parts
        the records count that can be read.

    Raises:
        RecordError: If another part is damaged.
    """
    may_be_damaged = {get_split_name(part) for part in damaged}
    patients = {
        part: _read_patients(Path(source), part, part in may_be_damaged)
        for part in read_info(source).parts
    }
    seen = {part: len(found & augment.checkpoint.patients) for part, found in patients.items()}
    return {
        part: PatientCounts(len(found), seen[part] if any(seen.values()) else None)
        for part, found in patients.items()
        if found
    }


def list_seen(counts: Mapping[str, PatientCounts]) -> dict[str, int]:
    """List the evaluation splits with patients whom the network was trained on, and how many."""
    return {
        part: count.seen
        for part, count in counts.items()
        if count.seen and part != TRAIN and not part.endswith(UNANNOTATED)
    }


def refuse_seen(source: str | os.PathLike[str], counts: Mapping[str, PatientCounts]) -> None:
    """Refuse evaluation splits with patients whom the network was trained on.

    Args:
        source: What the records are called.
        counts: Of `count_patients`.

    Raises:
        RecordError: If there are any.
    """
    seen = list_seen(counts)
    if seen:
        told = ", ".join(f"{count} of the split {split!r}" for split, count in seen.items())
        raise RecordError(
            f"{source}: the network was trained on patients of evaluation splits ({told}), so "
            "what is measured on them is too good. Train it on the training split's patients only, "
            "or leave strict (--strict) out."
        )


def _read_patients(source: Path, part: str, damaged: bool) -> set[str]:
    """Read the hashes of a part's patients; of a damaged shard, up to the damage."""
    found: set[bytes] = set()
    for path in find_records(source, part, allow_damaged=damaged)[0]:
        try:
            for _, example in iterate_examples(path):
                found.update(get_values(example, "image/patient", "bytes_list"))
        except RecordError:
            if not damaged:
                raise
    return {name.decode("utf-8", "replace") for name in found if name}
