"""Records in, augmented records out, with what was done to each written beside it.

The training split passes through the transform; the other splits are copied byte for byte, because
a detector measured on augmented images is not measured on real ones.

| key | value |
| --- | --- |
| `augment/augmented` | 1 if the transform chose this record, else 0 |
| `augment/checkpoint` | digest of the checkpoint |
| `augment/mode`, `factor`, `detail`, `guard`, `min_fidelity`, `seed` | settings of the transform |
| `augment/settings` | all settings of the transform as JSON, from which `vae_aug.extras.replay` \
makes the same bytes again |
| `augment/version` | version of vae_aug |
| `augment/fidelity` | one value a box, NaN where it cannot be judged |
| `augment/contrast` | one value a box: its contrast-to-noise ratio, divided by that in the source |
| `augment/guarded` | one value a box: 1 if the guard acted for it |
| `image/object/attribute/fidelity_permille` | the same in thousandths, -1 where it cannot be \
judged: Model Garden's decoder reads integer attributes |
| `image/object/attribute/contrast_permille` | the same of the contrast, 0 if it is inverted |
| `image/object/attribute/guarded` | as `augment/guarded` |

Every other feature of a record is kept, boxes bit for bit. Randomness is keyed by
`image/source_id`, or by the content of an image without one, at epoch 0.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from vae_aug.atomic import (
    lock_folder,
    make_temporary_path,
    remove_temporaries,
    sync_file,
    write_atomic,
)
from vae_aug.augment.transform import VAEAugment
from vae_aug.codecs.images import parse_image_header
from vae_aug.config import OPTIONAL_SETTINGS
from vae_aug.errors import RecordError
from vae_aug.extras.augment_split import (
    SETTINGS,
    SplitReport,
    SplitSource,
    augment_split,
    augment_split_in_parts,
    get_values,
)
from vae_aug.extras.cards import make_cards
from vae_aug.extras.croissant import RECORDS
from vae_aug.extras.patients import TRAIN, PatientCounts, count_patients, list_seen
from vae_aug.records.about import ABOUT_FILE, read_about
from vae_aug.records.records import (
    DatasetInfo,
    find_records,
    get_split_name,
    iterate_examples,
    read_info,
    write_records,
)
from vae_aug.records.shards import INFO_FILE
from vae_aug.workers import Runner, Workers, choose_workers

Progress = Callable[[int, int], None]

PER_BOX = ("fidelity", "contrast", "guarded")
"""What is told of every box."""

_PARTS = ".parts"
"""Folder of what workers wrote, in that of the result until it is whole."""


@dataclasses.dataclass(frozen=True)
class AugmentReport:
    """What `augment_records` did.

    Attributes:
        augmented: Splits that passed through the transform.
        copied: Splits that were copied byte for byte, with their number of images.
        seen_patients: Evaluation splits with patients whom the network was trained on, and how
            many: what is measured on them is too good.
    """

    augmented: Mapping[str, SplitReport]
    copied: Mapping[str, int]
    seen_patients: Mapping[str, int]


@dataclasses.dataclass
class RecordSummary:
    """What a set of records holds, without naming an image or a patient.

    Attributes:
        images: Records.
        boxes: Boxes.
        labels: Boxes per label text.
        patients: Distinct patients among the records that name one.
        formats: Records per kind of image, e.g. `"png, 16 bits, 1 channel"`.
        augmented: Records that a transform changed.
        settings: Records per settings of a transform, e.g. `"mode sample, factor 1, ..."`.
        lowest_fidelity: Of all judged boxes of augmented records; NaN if there is none.
    """

    images: int = 0
    boxes: int = 0
    labels: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    patients: int = 0
    formats: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    augmented: int = 0
    settings: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    lowest_fidelity: float = float("nan")


def augment_records(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    augment: VAEAugment,
    *,
    splits: Sequence[str] = (TRAIN,),
    augment_evaluation: bool = False,
    allow_damaged: bool = False,
    shards: int | None = None,
    workers: int = 1,
    runner: str | None = None,
    runner_options: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> AugmentReport:
    """Write a folder of records anew with the images of some splits augmented.

    The result appears as a whole: it is written to a hidden folder beside `out` and renamed at the
    end, so an interrupt or a full disk leaves nothing behind. Bit depth and channels of each
    record are kept; the images of augmented records are stored as PNG, without loss.

    Images that are not annotated are copied, as they are. `croissant.json` and `card.md` tell what
    was made and measured, see `vae_aug.extras.cards`, and repeat what the source's `about.json`
    says of licence and origin, see `vae_aug.records.about`.

    Args:
        source: Folder of records, as `vae-aug ingest` writes it.
        out: Folder to write; must be missing or empty.
        augment: The transform; must have a `seed`, so that the result can be made again.
        splits: Splits to augment; all others are copied byte for byte.
        augment_evaluation: Must be true for `splits` to name another split than `"train"`.
        allow_damaged: Whether a split to augment is read of which shards are damaged or not as
            `dataset.json` says; what is lost stands in the new `dataset.json`.
        shards: Files of each augmented split; None for as many as the source has.
        workers: Processes; the records are the same for any number. More than one are started
            anew, so a script needs `if __name__ == "__main__":`.
        runner: Runner of Apache Beam that augments in the place of `workers`, e.g.
            `"DirectRunner"`; the records are the same. Its workers must share the folders of
            source, result and checkpoint with this process, under the same paths.
        runner_options: Names and values of Beam's `PipelineOptions`.
        progress: Called with (images done, images in all) after each image, with several workers
            after each part of a split, and with a runner when all parts are done.

    Returns:
        What was done.

    Raises:
        ValueError: If the transform has no seed, a split is not in the source, an evaluation
            split is named without `augment_evaluation`, `workers` and `runner` contradict each
            other, or several workers are to read damaged records or to use a `device`.
        TypeError: If there are several workers and the transform was made of a network in memory.
        MissingPackageError: If there is a runner and no Apache Beam.
        RecordError: If the source is damaged or was augmented before, `out` is not empty, or the
            runner fails.
        OSError: If the result cannot be written.
    """
    source, out = Path(source), Path(out)
    info = read_info(source)
    names = _check_splits(source, info, splits, augment_evaluation)
    if augment.config.seed is None:
        raise ValueError("augment_records needs a VAEAugment with a seed, to be repeatable.")
    chosen = choose_workers(workers, runner, runner_options)
    pickled = b"" if chosen == 1 else _prepare_for_workers(augment, chosen)
    if chosen != 1 and allow_damaged:
        raise ValueError(
            "allow_damaged needs workers=1 and no runner, since parts of a shard are put together "
            "by the numbers of their records."
        )
    files = {
        part: find_records(source, part, allow_damaged=allow_damaged and part in names)[0]
        for part in info.parts
    }
    patients = count_patients(source, augment, damaged=names if allow_damaged else ())
    about = read_about(source)
    copied = [path for part in info.parts if part not in names for path in files[part]]
    reports = {split: SplitReport() for split in names}
    total = sum(info.splits[split].examples for split in names)
    with _make_folder(out) as folder:
        _copy_files([source / INFO_FILE, *copied, *source.glob(ABOUT_FILE)], folder)
        done = 0
        for split, report in reports.items():
            part = SplitSource(
                source, split, tuple(files[split]), info.dtype, info.channels, allow_damaged
            )
            size = info.splits[split].examples
            advance = functools.partial(_advance, progress, done, total, size)
            examples = (
                _report_each(augment_split(part, augment), size, advance)
                if chosen == 1
                else augment_split_in_parts(part, pickled, chosen, folder / _PARTS / split, advance)
            )
            written = write_records(
                report.count(examples, get_values),
                folder,
                split,
                len(files[split]) if shards is None else shards,
                label_names=info.label_names,
                expected=size,
            )
            report.lost = written.lost
            done += report.images
        if chosen != 1:
            shutil.rmtree(folder / _PARTS)
        _write_cards(folder, reports, patients, augment, about)
    untouched = {name: info.splits[name].examples for name in info.splits if name not in names}
    return AugmentReport(reports, untouched, list_seen(patients))


def _prepare_for_workers(augment: VAEAugment, workers: Workers) -> bytes:
    """Pickle a transform, and refuse what workers could not do, before anything is written."""
    if augment.config.device is not None:
        raise ValueError(
            f"device={augment.config.device!r} needs workers=1 and no runner: on a device bytes "
            "may depend on the batch, and with it on how records are parted."
        )
    if isinstance(workers, Runner):
        import vae_aug.beam  # noqa: F401 - needs an extra
    return pickle.dumps(augment)


@contextlib.contextmanager
def _make_folder(out: Path) -> Iterator[Path]:
    """Make a hidden folder beside `out` that takes its place when the block ends well.

    What killed runs left of such folders goes; a run that lives holds the lock.
    """
    with lock_folder(out, beside=True) as locked:
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise RecordError(
                f"{out}: exists and is not empty; name a new folder, or delete this one."
            )
        if locked:
            remove_temporaries(out)
        temporary = make_temporary_path(out)
        try:
            temporary.mkdir()
            yield temporary
            if out.exists():
                out.rmdir()
            temporary.replace(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def summarize_records(
    files: Iterable[str | os.PathLike[str]], *, progress: Callable[[int], None] | None = None
) -> RecordSummary:
    """Count what records hold and how they were augmented.

    Args:
        files: The shards.
        progress: Called with the number of records read so far.

    Returns:
        The counts.

    Raises:
        RecordError: If a file or record is damaged.
    """
    summary = RecordSummary()
    patients: set[bytes] = set()
    for path in files:
        for index, example in iterate_examples(path):
            patients.update(get_values(example, "image/patient"))
            _summarize(example, path, index, summary)
            if progress is not None:
                progress(summary.images)
    summary.patients = len(patients - {b""})
    return summary


def _check_splits(
    source: Path, info: DatasetInfo, splits: Sequence[str], augment_evaluation: bool
) -> list[str]:
    """Return the stored names of the splits to augment."""
    names = list(dict.fromkeys(get_split_name(split) for split in splits))
    unknown = [name for name in names if name not in info.splits]
    if unknown or not names:
        raise ValueError(
            f"splits must name some of {', '.join(info.splits)}, which {source} has; "
            f"got {', '.join(names) or 'none'}."
        )
    evaluation = [name for name in names if name != TRAIN]
    if evaluation and not augment_evaluation:
        raise ValueError(
            f"splits names {', '.join(evaluation)}: a model measured on augmented images is not "
            "measured on real ones. Leave them out, or force it with augment_evaluation=True "
            "(--augment-evaluation)."
        )
    return names


def _copy_files(paths: Iterable[Path], folder: Path) -> None:
    for path in paths:
        shutil.copyfile(path, folder / path.name)
        sync_file(folder / path.name)


def _write_cards(
    folder: Path,
    reports: Mapping[str, SplitReport],
    patients: Mapping[str, PatientCounts],
    augment: VAEAugment,
    about: Mapping[str, str],
) -> None:
    """Write the cards of a folder that is whole but for them."""
    copied = {
        name: SplitReport(part.examples, boxes=part.boxes, lost=part.lost)
        for name, part in read_info(folder).parts.items()
    }
    splits = {**copied, **reports}
    cards = make_cards(folder, RECORDS, splits, list(reports), patients, augment, about)
    for name, text in cards.items():
        write_atomic(folder / name, text.encode())


def _report_each(
    examples: Iterator[tf.train.Example], size: int, advance: Callable[[float], None]
) -> Iterator[tf.train.Example]:
    """Report progress as the examples of a split pass."""
    for number, example in enumerate(examples, start=1):
        yield example
        advance(number / size)


def _advance(progress: Progress | None, done: int, total: int, size: int, share: float) -> None:
    """Report which share of a split is done, in images."""
    if progress is not None:
        progress(done + round(share * size), total)


def _summarize(
    example: tf.train.Example, path: str | os.PathLike[str], index: int, summary: RecordSummary
) -> None:
    """Add one record to a summary."""
    texts = get_values(example, "image/object/class/text")
    encoded = get_values(example, "image/encoded")
    if not encoded:
        raise RecordError(f"{path}, record {index}, image/encoded: missing.")
    _, _, channels, bit_depth = parse_image_header(encoded[0])
    kind = (
        get_values(example, "image/format")[0].decode()
        if get_values(example, "image/format")
        else "image"
    )
    summary.images += 1
    summary.boxes += len(get_values(example, "image/object/class/label"))
    summary.labels.update(text.decode("utf-8", "replace") for text in texts)
    summary.formats[f"{kind}, {bit_depth} bits, {channels} channel{'s'[: channels > 1]}"] += 1
    if "augment/checkpoint" not in example.features.feature:
        return
    summary.augmented += int(next(iter(get_values(example, "augment/augmented")), 0))
    names = (*SETTINGS, "version", "checkpoint")
    values = {name: next(iter(get_values(example, f"augment/{name}")), "?") for name in names}
    values |= _find_optional(next(iter(get_values(example, "augment/settings")), b""))
    summary.settings[", ".join(f"{k} {_show(v)}" for k, v in values.items())] += 1
    fidelity = np.asarray(get_values(example, "augment/fidelity"), np.float32)
    if np.isfinite(fidelity).any():
        summary.lowest_fidelity = float(np.fmin(summary.lowest_fidelity, np.nanmin(fidelity)))


def _find_optional(settings: bytes) -> dict[str, Any]:
    """Find which of `OPTIONAL_SETTINGS` an example was made with, if they can be read."""
    try:
        told = json.loads(settings or b"{}")
    except ValueError:
        return {}
    return {name: told[name] for name in OPTIONAL_SETTINGS if name in told}


def _show(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")[:16]
    return f"{value:g}" if isinstance(value, float) else str(value)
