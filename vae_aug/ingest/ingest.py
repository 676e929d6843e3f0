"""Annotated images of any supported format, into records."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vae_aug.ingest.dicom.image import keep_headers
from vae_aug.ingest.formats.source import AnnotatedImage
from vae_aug.ingest.reading import make_comparable, name_patients, note_sharing, read_source
from vae_aug.ingest.report import IngestReport
from vae_aug.ingest.settings import IngestSettings
from vae_aug.ingest.splits import SPLITS, check_shares, split_by_patient
from vae_aug.ingest.writing import Job, choose_labels, refuse_replacing, write_splits
from vae_aug.records.shards import get_split_name

_Share = Callable[[Sequence[AnnotatedImage]], Sequence[Sequence[AnnotatedImage]]]
"""Shares images out among splits."""


def ingest(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    split: str = "train",
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> IngestReport:
    """Write one split of a data set as records.

    Nothing appears under its final name before it is whole. A split that is there already is
    refused, unless `overwrite` says to replace it. A run that is interrupted or killed leaves what
    it has converted in a hidden folder of `out`; the same call goes on from there and writes the
    same bytes as a run at one go. A call of other images or settings starts anew. One folder is for
    one run at a time, and needs room for twice the records.

    If the folder holds other splits, it is searched afterwards for patients and images that are
    both there and in this one.

    Beside the records lie the report `ingest_<split>.json`, and `ingest_<split>.png`, a sheet of
    eight images with boxes, of different labels and patients.

    Records carry `image/source_id` and `image/patient` as pseudonyms. So does whatever else is
    written, returned or raised about an image: names of medical files and folders are often those
    of patients.

    Args:
        source: Folder of the data set, its annotation file, or a pattern, as the format's reader in
            `vae_aug.ingest.formats` takes it.
        out: Folder of the records; made if missing.
        split: Split to read, where the source has splits, and its name in the records, where
            `"val"` and `"valid"` become `"validation"`. `"all"` reads all splits.
        progress: Called with (images done, images in all) after each image; from the start
            again where other splits are searched.
        **settings: Of `vae_aug.ingest.settings.IngestSettings`.

    Returns:
        The report.

    Raises:
        ValueError: On a bad argument.
        TypeError: On a setting that there is not.
        AnnotationError: If the source cannot be read, holds no usable image, has labels that
            the folder does not know, or, under `strict`, has any problem.
        MissingPackageError: If there is a `runner` and no Apache Beam.
        RecordError: If the split is there already, the records cannot be written, or the runner
            fails.
    """
    names = [get_split_name(split)]
    job = Job(Path(out), IngestSettings(**settings), progress)
    return _ingest(Path(source), job, split, names)[0]


def ingest_by_patient(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    shares: Sequence[float],
    *,
    seed: int = 0,
    split: str = "train",
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> tuple[IngestReport, ...]:
    """Write a data set as records in splits of its own, with no patient in two of them.

    The images that `split` of the source holds are shared out by
    `vae_aug.ingest.splits.split_by_patient`; the rest is as in `ingest`.

    Args:
        source: As in `ingest`.
        out: As in `ingest`.
        shares: Shares of train and validation, or of train, validation and test; of sum 1.
        seed: Of the split.
        split: Which split of the source is shared out, or `"all"`.
        progress: As in `ingest`, for each split anew.
        **settings: As in `ingest`. Under `strict` the first split may be written when the second
            fails.

    Returns:
        The report of each split; what is wrong with the source as a whole is in the first.

    Raises:
        ValueError: As `ingest`, or on bad shares.
        TypeError: As `ingest`.
        AnnotationError: As `ingest`, or if there are too few patients.
        MissingPackageError: As `ingest`.
        RecordError: As `ingest`.
    """
    shares = check_shares(shares)
    job = Job(Path(out), IngestSettings(**settings), progress)

    def share(images: Sequence[AnnotatedImage]) -> Sequence[Sequence[AnnotatedImage]]:
        return split_by_patient(images, shares, seed=seed)

    return _ingest(Path(source), job, split, SPLITS[: len(shares)], share)


def _ingest(
    source: Path, job: Job, split: str, names: Sequence[str], share: _Share | None = None
) -> tuple[IngestReport, ...]:
    """Read a split of a source, and write it as the splits of `names`, among which it is shared."""
    settings = job.settings
    refuse_replacing(job, dict.fromkeys(names))
    with keep_headers():
        found = read_source(source, split, settings)
        if share is not None:
            found = note_sharing(name_patients(found), split, settings.reader_options)
        found = make_comparable(found, settings.conversion.view.window)
    annotations = found.annotations
    labels = choose_labels(annotations, job.out, set(names), settings.labels)
    conversion = dataclasses.replace(settings.conversion, label_names=labels)
    parts = [annotations.images] if share is None else share(annotations.images)
    return write_splits(found, job, conversion, dict(zip(names, parts, strict=True)))
