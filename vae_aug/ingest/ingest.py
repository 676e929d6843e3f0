"""Annotated images of any supported format, into records."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf

from vae_aug.atomic import lock_folder, remove_temporaries, write_atomic
from vae_aug.codecs.extent import Extent, join_extents
from vae_aug.codecs.images import Exif
from vae_aug.config import check_choice
from vae_aug.errors import AnnotationError, RecordError, VAEAugError
from vae_aug.ingest.blocks import BLOCK, Runner, convert_in_blocks, list_blocks, make_key
from vae_aug.ingest.convert import HISTOGRAM_BINS, Conversion, Converted
from vae_aug.ingest.dicom.image import WINDOWS, Window, check_window, is_dicom, read_header
from vae_aug.ingest.formats import READERS
from vae_aug.ingest.formats.all_splits import count_unread
from vae_aug.ingest.formats.detect import detect_format
from vae_aug.ingest.formats.source import (
    AnnotatedImage,
    Annotations,
    AnnotationState,
    Effect,
    Problem,
    ReaderOptions,
)
from vae_aug.ingest.formats.unread import read_with_doubts
from vae_aug.ingest.nifti import check_axis
from vae_aug.ingest.picture import SheetImages, write_ingest_sheet
from vae_aug.ingest.privacy import hash_identifier, read_salt
from vae_aug.ingest.series import find_series_ranges
from vae_aug.ingest.splits import (
    SPLITS,
    Leak,
    check_shares,
    describe_patients,
    find_leaks,
    split_by_patient,
)
from vae_aug.ingest.stacks import Distance, add_neighbours, parse_neighbours
from vae_aug.records.records import write_split
from vae_aug.records.shards import INFO_FILE, get_split_name, list_parts, read_info
from vae_aug.words import plural

Unannotated = Literal["keep", "skip", "negative", "error"]
"""What becomes of images of which the source does not say whether they have boxes."""

_UNANNOTATED_REASONS = {
    "none": "the source does not say whether the image has boxes",
    "faulty": "the image's annotation was not understood as a whole",
}
_IGNORED = "looks like an annotation and is not of the format that was found; it was not read"
_HASH = re.compile(r"[0-9a-f]{16}")
"""Of `hash_identifier`."""

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclasses.dataclass(frozen=True)
class IngestReport:
    """What an ingest took and what it left out.

    Attributes:
        split: Name of the split in the records.
        format: Format of the source.
        evidence: What told the format, or that it was given, and a file of it that was read.
        images: Images written for detectors: those with boxes, and those of which the source says
            that they have none.
        boxes: Boxes written.
        unannotated: Images of which the source says nothing.
        faulty: Images of which the source says something that was not understood.
        unannotated_written: Of both, those written to shards of their own.
        turned: Images that were turned as their EXIF orientation says.
        class_counts: Boxes written per label name, in the order of the labels.
        patients: Distinct patients among the images, 0 if the source names none.
        duplicates: Boxes written that equal an earlier one of their image and label. They are
            kept, because the source has them; a large number calls for a look at it.
        box_sizes_px: `"width"` and `"height"` to least, lower quartile, median, upper quartile
            and largest of the boxes written; empty without boxes.
        scanners: Images written by manufacturer and modality, `""` for no DICOM file.
        intensities: The same keys to the mean share of pixels in each of 16 equal ranges of
            grey, from black to white.
        burned_in: Images whose file says that the pixels may identify the patient
            ((0028,0301) Burned In Annotation).
        extent: What the images written that have 16 bits fill of their range.
        neighbours: Slices before and behind the images written, by state of
            `vae_aug.ingest.formats.source.Neighbour`; empty where none are channels.
        problems: What was skipped, not understood, dropped or clipped, and which images are
            unannotated. Files are named by the hash of their path
            relative to the source; under `keep_ids` by that path.
        notes: What else to know of the source.
        resumed: Images that a run of the same command had converted before it was cut short.
            All other counts are those of the whole split.
        restarted: Whether a run that was cut short had other images or settings, so that what it
            left was removed.
        replaced: Images of a former split of this name, which are gone.
        leaks: What this split shares with the folder's others; None if it was not searched for,
            since there are none or `leak_check` was off. Not written: it changes with them.
        files: Those hashes to the paths. Not written: files and folders are often called after
            patients. `find_hashed` finds them again.
    """

    split: str
    format: str
    evidence: str
    images: int
    boxes: int
    unannotated: int
    faulty: int
    unannotated_written: int
    turned: int
    class_counts: Mapping[str, int]
    patients: int
    duplicates: int
    box_sizes_px: Mapping[str, tuple[float, ...]]
    scanners: Mapping[str, int]
    intensities: Mapping[str, tuple[float, ...]]
    extent: Extent
    burned_in: int
    neighbours: Mapping[str, int]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    resumed: int = dataclasses.field(default=0, compare=False)
    restarted: bool = dataclasses.field(default=False, compare=False)
    replaced: int = dataclasses.field(default=0, compare=False)
    leaks: tuple[Leak, ...] | None = dataclasses.field(default=None, compare=False)
    files: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def reveal(self, text: str) -> str:
        """Put the paths of files in the place of their hashes, for the eyes of whoever has them."""
        return _HASH.sub(lambda match: self.files.get(match[0], match[0]), text)

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """Files left out, as (path relative to the source, reason)."""
        return tuple(
            (self.reveal(p.file), p.reason) for p in self.problems if p.effect == "skipped"
        )

    @property
    def dropped(self) -> int:
        """Boxes left out."""
        return sum(problem.effect == "dropped" for problem in self.problems)

    @property
    def clipped(self) -> int:
        """Boxes cut to the image."""
        return sum(problem.effect == "clipped" for problem in self.problems)

    def to_dict(self) -> dict[str, object]:
        """Return the report as JSON takes it: what depends on the source and the settings alone."""
        content = dataclasses.asdict(self)
        for name in ("resumed", "restarted", "replaced", "leaks", "files"):
            del content[name]
        return {
            **content,
            "class_counts": dict(self.class_counts),
            "neighbours": dict(self.neighbours),
            "skipped": len(self.skipped),
            "dropped": self.dropped,
            "clipped": self.clipped,
            "problems": [dataclasses.asdict(problem) for problem in self.problems],
        }


def ingest(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    format: str = "auto",
    split: str = "train",
    shards: int = 1,
    labels: Sequence[str] | None = None,
    strict: bool = False,
    unannotated: Unannotated | None = None,
    keep_partial: bool = False,
    images: str | os.PathLike[str] | None = None,
    exif: Exif = "apply",
    axis: str = "axial",
    window: Window | None = None,
    bits: int | None = None,
    neighbours: int | str | None = None,
    salt: str | None = None,
    keep_ids: bool = False,
    overwrite: bool = False,
    leak_check: bool = True,
    workers: int = 1,
    runner: str | None = None,
    runner_options: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
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

    Records carry `image/source_id` and `image/patient` as salted hashes. So does whatever else is
    written, returned or raised about an image: names of medical files and folders are often those
    of patients.

    Args:
        source: Folder of the data set, its annotation file, or a pattern, as the format's reader in
            `vae_aug.ingest.formats` takes it.
        out: Folder of the records; made if missing.
        format: `"coco"`, `"voc"`, `"yolo"`, `"csv"`, `"labelme"`, `"cvat"`, `"masks"`,
            `"via"`, `"supervisely"`, `"lidc"`, `"dicom"`, `"nifti"`, `"records"`, `"tfds"`,
            `"images"` (without annotations), or `"auto"`, which tells it from the files as
            `vae_aug.ingest.formats.detect.detect_format`.
        split: Split to read, where the source has splits, and its name in the records, where
            `"val"` and `"valid"` become `"validation"`. `"all"` reads all splits.
        shards: Number of files.
        labels: Names of the labels in their order; boxes of other labels are dropped. None
            takes those of the folder `out` if they cover the source's, else the source's.
        strict: Raise at the first problem instead of leaving the file or box out, at an image
            whose annotation is faulty, and, unless `unannotated` says otherwise, at one of which
            the source says nothing.
        unannotated: What becomes of images of which the source does not say whether they have
            boxes (`docs/sources.md` tells what counts as saying so). `"keep"` (also None): they go
            to shards of their own, `<split>_unannotated-*`, which `vae-aug train` reads and a
            detector does not. `"skip"`: they are left out. `"negative"`: you say that none has a
            box. `"error"`: they are refused. Images with a faulty annotation are kept or left out
            likewise, and never become negatives.
        keep_partial: Take an image of which some boxes were understood and others not as
            annotated, with the boxes that were.
        images: A folder in which images may lie besides `source`. Images elsewhere are left out.
        exif: `"apply"` turns images as their EXIF orientation says, as annotation tools show them;
            `"ignore"` takes pixels as they are stored.
        axis: For NIfTI volumes, along which slices are taken: of `vae_aug.ingest.nifti.AXES`.
        window: For DICOM images, as `read_dicom`; for DeepLesion's PNG files the same, but
            `"auto"` is what the table says of the image; for volumes, as
            `vae_aug.ingest.nifti.read_slice`; for other PNG and TIFF files and records of 16 bits,
            as `vae_aug.ingest.hounsfield.show_stored`, but `"auto"` leaves their values as stored.
        bits: Likewise.
        neighbours: For DICOM images: how far the slices before and behind are that become the
            first and third channel, in slices, or in millimetres as `"5mm"`. Boxes stay those of
            the image, which is the second channel and stands in where a slice is missing. None
            takes the image alone. See `vae_aug.ingest.stacks`.
        salt: For the hashes, as `vae_aug.ingest.privacy.read_salt`.
        keep_ids: Keep the source's own names and patients, for public data.
        overwrite: Replace a split that is there already.
        leak_check: Search the folder's other splits for patients and images of this one. That
            decodes every image of the folder once more.
        workers: Processes that read images; the records are the same for any number. More
            than one are started anew, so a script needs `if __name__ == "__main__":`.
        runner: Runner of Apache Beam that reads images in the place of `workers`, e.g.
            `"DirectRunner"`; the records are the same. Its workers must share the folders `source`
            and `out` with this process, under the same paths.
        runner_options: Names and values of Beam's `PipelineOptions`.
        progress: Called with (images done, images in all) after each image; from the start
            again where other splits are searched.

    Returns:
        The report.

    Raises:
        ValueError: On a bad argument.
        AnnotationError: If the source cannot be read, holds no usable image, has labels that
            the folder does not know, or, under `strict`, has any problem.
        MissingPackageError: If there is a `runner` and no Apache Beam.
        RecordError: If the split is there already, the records cannot be written, or the runner
            fails.
    """
    name = get_split_name(split)
    check_format(format)
    workers_or_runner = _choose_workers(workers, runner, runner_options)
    unannotated = _choose_unannotated(unannotated, strict)
    settings = _Settings(
        Path(out),
        shards,
        strict,
        unannotated,
        workers_or_runner,
        progress,
        overwrite=overwrite,
        leak_check=leak_check,
    )
    conversion = dataclasses.replace(
        _make_conversion(window, bits, salt, keep_ids),
        exif=exif,
        keep_partial=keep_partial,
        negatives=unannotated == "negative",
    )
    options = _make_options(images, exif, axis)
    _refuse_replacing(settings, {name: None})
    found = _read_source(Path(source), format, split, options, parse_neighbours(neighbours))
    found = _make_comparable(found, conversion.window)
    label_names = _choose_labels(found.annotations, settings.out, {name}, labels)
    conversion = dataclasses.replace(conversion, label_names=label_names)
    return _write_splits(found, settings, conversion, {name: found.annotations.images})[0]


def ingest_by_patient(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    shares: Sequence[float],
    *,
    seed: int = 0,
    format: str = "auto",
    split: str = "train",
    shards: int = 1,
    labels: Sequence[str] | None = None,
    strict: bool = False,
    unannotated: Unannotated | None = None,
    keep_partial: bool = False,
    images: str | os.PathLike[str] | None = None,
    exif: Exif = "apply",
    axis: str = "axial",
    window: Window | None = None,
    bits: int | None = None,
    neighbours: int | str | None = None,
    salt: str | None = None,
    keep_ids: bool = False,
    overwrite: bool = False,
    leak_check: bool = True,
    workers: int = 1,
    runner: str | None = None,
    runner_options: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[IngestReport, ...]:
    """Write a data set as records in splits of its own, with no patient in two of them.

    As `ingest`, but the images that `split` of the source holds are shared out by
    `vae_aug.ingest.splits.split_by_patient`.

    Args:
        source: As `ingest`.
        out: As `ingest`.
        shares: Shares of train and validation, or of train, validation and test; of sum 1.
        seed: Of the split.
        format: As `ingest`.
        split: Which split of the source is shared out, or `"all"`.
        shards: Number of files of each split.
        labels: As `ingest`.
        strict: As `ingest`; the first split may be written when the second fails.
        unannotated: As `ingest`.
        keep_partial: As `ingest`.
        images: As `ingest`.
        exif: As `ingest`.
        axis: As `ingest`.
        window: As `ingest`.
        bits: As `ingest`.
        neighbours: As `ingest`.
        salt: As `ingest`.
        keep_ids: As `ingest`.
        overwrite: As `ingest`.
        leak_check: As `ingest`.
        workers: As `ingest`.
        runner: As `ingest`.
        runner_options: As `ingest`.
        progress: As `ingest`, for each split anew.

    Returns:
        The report of each split; what is wrong with the source as a whole is in the first.

    Raises:
        ValueError: As `ingest`, or on bad shares.
        AnnotationError: As `ingest`, or if there are too few patients.
        RecordError: As `ingest`.
    """
    check_format(format)
    shares = check_shares(shares)
    workers_or_runner = _choose_workers(workers, runner, runner_options)
    unannotated = _choose_unannotated(unannotated, strict)
    settings = _Settings(
        Path(out),
        shards,
        strict,
        unannotated,
        workers_or_runner,
        progress,
        overwrite=overwrite,
        leak_check=leak_check,
    )
    conversion = dataclasses.replace(
        _make_conversion(window, bits, salt, keep_ids),
        exif=exif,
        keep_partial=keep_partial,
        negatives=unannotated == "negative",
    )
    options = _make_options(images, exif, axis)
    names = SPLITS[: len(shares)]
    _refuse_replacing(settings, dict.fromkeys(names))
    found = _read_source(Path(source), format, split, options, parse_neighbours(neighbours))
    found = _note_sharing(_name_patients(found), split, options)
    found = _make_comparable(found, conversion.window)
    label_names = _choose_labels(found.annotations, settings.out, set(names), labels)
    conversion = dataclasses.replace(conversion, label_names=label_names)
    parts = split_by_patient(found.annotations.images, shares, seed=seed)
    return _write_splits(found, settings, conversion, dict(zip(names, parts, strict=True)))


def find_hashed(
    source: str | os.PathLike[str],
    hashes: Iterable[str],
    *,
    format: str = "auto",
    split: str = "train",
    images: str | os.PathLike[str] | None = None,
    axis: str = "axial",
    salt: str | None = None,
) -> dict[str, str]:
    """Find what the hashes in records and reports of `ingest` stand for.

    Args:
        source: As `ingest`.
        hashes: Of files, source ids or patients.
        format: As `ingest`.
        split: As `ingest`.
        images: As `ingest`.
        axis: As `ingest`.
        salt: That of the ingest.

    Returns:
        Hash to the file relative to the source, source id or patient; without those that are of
        nothing in the source.

    Raises:
        ValueError: On a bad argument.
        AnnotationError: If the source cannot be read.
    """
    check_format(format)
    key = read_salt(salt)
    found = _read_source(Path(source), format, split, _make_options(images, "apply", axis))
    root = found.path if found.path.is_dir() else found.path.parent
    annotated = found.annotations.images
    files = [problem.file for problem in found.annotations.problems]
    files += [*found.evidence_files, *(_relate(image.path, root) for image in annotated)]
    names = {hash_identifier("source", name, key): name for name in files}
    for image in annotated:
        # The file is worth more than the SOP Instance UID of an image in it.
        name = _relate(image.path, root)
        name = f"{name}, {image.place}" if image.place else name
        names[hash_identifier("source", image.source_id, key)] = name
        names[hash_identifier("patient", image.patient, key)] = image.patient
    return {value: names[value] for value in hashes if value in names}


def _relate(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def check_format(format: str) -> None:
    """Check the name of a format.

    Raises:
        ValueError: If it is neither `"auto"` nor a key of `READERS`.
    """
    if format not in (*READERS, "auto"):
        raise ValueError(f"format must be auto or one of {', '.join(READERS)}; got {format!r}.")


@dataclasses.dataclass(frozen=True)
class _Settings:
    """Where and how records are written."""

    out: Path
    shards: int
    strict: bool
    unannotated: Unannotated
    workers: int | Runner
    progress: Callable[[int, int], None] | None
    overwrite: bool
    leak_check: bool

    def __post_init__(self) -> None:
        if not 1 <= self.shards <= 99999:
            raise ValueError(f"shards must be in [1, 99999]; got {self.shards!r}.")


def _choose_unannotated(unannotated: Unannotated | None, strict: bool) -> Unannotated:
    if unannotated is None:
        return "error" if strict else "keep"
    check_choice("unannotated", unannotated, Unannotated)
    return unannotated


def _make_options(images: str | os.PathLike[str] | None, exif: Exif, axis: str) -> ReaderOptions:
    check_choice("exif", exif, Exif)
    folder = None if images is None else Path(images)
    if folder is not None and not folder.is_dir():
        raise AnnotationError(f"{folder}: no such folder; images wants one that holds images.")
    return ReaderOptions(folder, exif, check_axis(axis))


def _choose_workers(
    workers: int, runner: str | None, options: Mapping[str, str] | None
) -> int | Runner:
    if workers < 1:
        raise ValueError(f"workers must be at least 1; got {workers!r}.")
    if runner is None:
        if options:
            raise ValueError(f"runner_options need a runner; got {sorted(options)} and none.")
        return workers
    if workers != 1:
        raise ValueError(
            f"a runner has workers of its own, told by runner_options; got workers={workers!r}."
        )
    return Runner(runner, dict(options or {}))


@dataclasses.dataclass(frozen=True)
class _Source:
    """A data set that was read; `evidence_files` are relative to it."""

    path: Path
    format: str
    evidence: str
    evidence_files: tuple[str, ...]
    annotations: Annotations


def _read_source(
    path: Path,
    format: str,
    split: str,
    options: ReaderOptions,
    distance: Distance | None = None,
) -> _Source:
    evidence, link, file = "as told", ", reading", ""
    ignored: tuple[Problem, ...] = ()
    if format == "auto":
        detected = detect_format(path)
        format, evidence, file = detected[:3]
        link = " in" if file else ""
        ignored = tuple(Problem(name, _IGNORED, "skipped") for name in detected.ignored)
    names = [problem.file for problem in ignored]
    is_told = evidence == "as told"
    annotations, read = read_with_doubts(format, path, split, options, names, is_told=is_told)
    root = path if path.is_dir() else path.parent
    files = tuple(_relate(name, root) for name in read) or (file,) * bool(file)
    annotations = annotations._replace(problems=(*ignored, *annotations.problems))
    if distance is not None:
        images = tuple(add_neighbours(annotations.images, distance))
        annotations = annotations._replace(images=images)
    evidence = f"{evidence}{link}" if files else evidence
    return _Source(path, format, evidence, files, annotations)


def _name_patients(source: _Source) -> _Source:
    """Name the patients of DICOM files of which the annotations name none: records name them."""

    @functools.cache  # a file may hold hundreds of frames, each an image
    def find_patient(path: Path) -> str:
        if is_dicom(path):
            with contextlib.suppress(VAEAugError):  # Converting the image tells what is wrong.
                return read_header(path).patient_id
        return ""

    images = tuple(
        image
        if image.patient or image.part
        else dataclasses.replace(image, patient=find_patient(image.path))
        for image in source.annotations.images
    )
    return dataclasses.replace(source, annotations=source.annotations._replace(images=images))


def _note_sharing(source: _Source, split: str, options: ReaderOptions) -> _Source:
    """Note of images that are to be shared out whether others were left, and who has no patient."""
    notes = [describe_patients(source.annotations.images)]
    notes.append(
        _describe_unread(
            count_unread(source.format, source.path, split, options, source.annotations)
        )
    )
    notes = [*source.annotations.notes, *filter(None, notes)]
    annotations = source.annotations._replace(notes=tuple(notes))
    return dataclasses.replace(source, annotations=annotations)


def _describe_unread(unread: Mapping[str, int | None]) -> str:
    """Name the splits that were left unread, and how to read them too; `""` if there are none."""
    if not unread:
        return ""
    counts = (
        f"{name} ({'cannot be read' if count is None else plural(count, 'image')})"
        for name, count in unread.items()
    )
    way_out = "--split all shares out all of its images"
    if None in unread.values():
        way_out = "correct or remove what cannot be read, then " + way_out
    return f"the source also has {' and '.join(counts)}, left unread; {way_out}"


def _make_comparable(source: _Source, window: Window) -> _Source:
    """Give DICOM images the range of their series, where they would not compare otherwise."""
    images = source.annotations.images
    paths = dict.fromkeys(image.path for image in images if not image.part)
    ranges = find_series_ranges(filter(is_dicom, paths), window)
    if not ranges:
        return source
    images = tuple(
        dataclasses.replace(image, value_range=ranges.get(str(image.path))) for image in images
    )
    return dataclasses.replace(source, annotations=source.annotations._replace(images=images))


def _make_conversion(
    window: Window | None, bits: int | None, salt: str | None, keep_ids: bool
) -> Conversion:
    checked = check_window("auto" if window is None else window)
    if bits not in (None, 8, 16):
        raise ValueError(f"bits must be 8, 16 or None; got {bits!r}.")
    is_preset = isinstance(window, str) and window in WINDOWS
    return Conversion(
        (),
        None if keep_ids else read_salt(salt),
        checked,
        bits,
        stored_window=window if is_preset else checked,  # type: ignore[arg-type]
    )


def _write_splits(
    source: _Source,
    settings: _Settings,
    conversion: Conversion,
    splits: Mapping[str, Sequence[AnnotatedImage]],
) -> tuple[IngestReport, ...]:
    """Write the splits; what is wrong with the source as a whole is told of the first."""
    try:
        settings.out.mkdir(parents=True, exist_ok=True)
        with lock_folder(settings.out):
            reports = _write_locked(source, settings, conversion, splits)
            return _search_leaks(reports, settings) if settings.leak_check else reports
    except OSError as error:
        raise RecordError(
            f"{settings.out}: cannot be written ({error.strerror}); free space or fix permissions."
        ) from error


def _refuse_replacing(settings: _Settings, works: Mapping[str, _Work | None]) -> None:
    """Refuse to replace splits, but those that a run which was cut short had written before.

    Args:
        settings: Where records are written, and whether splits may be replaced.
        works: The names of the splits to what is known of them; None before the source was read,
            when any unfinished run of that name may be the one that goes on.

    Raises:
        RecordError: If a split is there.
    """
    out = settings.out
    if settings.overwrite:
        return
    there = {
        name: _count_images(out, name)
        for name, work in works.items()
        if not (work.folder.is_dir() if work else any(out.glob(f".ingest_{name}.*")))
    }
    if counts := [f"{name} ({plural(count, 'image')})" for name, count in there.items() if count]:
        raise RecordError(
            f"{out}: has {', '.join(counts)} already; nothing was changed. If this is "
            "the same command again, its work is done. To write anew what is there, add "
            "--overwrite (overwrite=True); to keep it, name another folder or --split."
        )


def _count_images(out: Path, name: str) -> int:
    """Count the images of a split in a folder of records, annotated or not."""
    if not (out / INFO_FILE).is_file():
        return 0
    parts = read_info(out).parts
    return sum(parts[part].examples for part in list_parts(name) if part in parts)


def _search_leaks(
    reports: tuple[IngestReport, ...], settings: _Settings
) -> tuple[IngestReport, ...]:
    """Put into the reports what their splits share with others of the folder."""
    written = [report.split for report in reports]
    if len(read_info(settings.out).image_splits) < 2:
        return reports
    try:
        leaks = find_leaks(settings.out, among=written, progress=settings.progress)
    except RecordError as error:
        raise RecordError(
            f"{', '.join(written)} is written; the search for patients and images that are in two "
            f"splits failed: {error}"
        ) from error
    return tuple(
        dataclasses.replace(
            report, leaks=tuple(leak for leak in leaks if report.split in leak.splits)
        )
        for report in reports
    )


def _write_locked(
    source: _Source,
    settings: _Settings,
    conversion: Conversion,
    splits: Mapping[str, Sequence[AnnotatedImage]],
) -> tuple[IngestReport, ...]:
    works = [_Work(settings.out, name, images, conversion) for name, images in splits.items()]
    _refuse_replacing(settings, {work.name: work for work in works})
    restarted = [work.remove_others() for work in works]
    problems = [source.annotations.problems, *[()] * len(works)]
    try:
        reports = tuple(
            dataclasses.replace(
                _write_split(source, settings, conversion, work, wrong), restarted=r
            )
            for work, wrong, r in zip(works, problems, restarted, strict=False)
        )
    except AnnotationError:
        # The source is at fault; corrected, it would not fit what was converted of it.
        for work in works:
            work.remove()
        raise
    # Only now, so that a run killed in the last split need not convert the first again.
    for work in works:
        work.remove()
    return reports


class _Work:
    """A split to be written, and the folder that keeps its converted images until then."""

    def __init__(
        self, out: Path, name: str, images: Sequence[AnnotatedImage], conversion: Conversion
    ) -> None:
        self.name, self.images = name, images
        self.folder = out / f".ingest_{name}.{make_key(images, conversion)}"
        self.resumed = sum(
            min(BLOCK, len(images) - BLOCK * index)
            for index, is_there in enumerate(list_blocks(images, self.folder).values())
            if is_there
        )

    def remove_others(self) -> bool:
        """Remove what runs of other images or settings left of this split."""
        pattern = re.compile(rf"\.ingest_{re.escape(self.name)}\.[0-9a-f]{{16}}")
        out = self.folder.parent
        found = (
            [path for path in out.iterdir() if pattern.fullmatch(path.name)] if out.is_dir() else []
        )
        others = [path for path in found if path != self.folder]
        for path in others:
            shutil.rmtree(path)
        return bool(others)

    def remove(self) -> None:
        """Remove the folder."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder)


def _write_split(
    source: _Source,
    settings: _Settings,
    conversion: Conversion,
    work: _Work,
    problems: Sequence[Problem],
) -> IngestReport:
    run = _Run(source.path, work, problems, settings, conversion)
    name = work.name
    replaced = _count_images(settings.out, name) if settings.overwrite else 0
    annotated, unannotated = write_split(
        run.iterate_examples(),
        settings.out,
        name,
        settings.shards,
        label_names=conversion.label_names,
    )
    report = IngestReport(
        split=name,
        format=source.format,
        evidence=_describe_evidence(source, conversion),
        images=annotated.examples if annotated else 0,
        boxes=annotated.boxes if annotated else 0,
        unannotated=run.states["none"],
        faulty=run.states["faulty"],
        unannotated_written=unannotated.examples if unannotated else 0,
        turned=run.turned,
        class_counts=annotated.class_counts if annotated else {},
        patients=len(run.patients),
        duplicates=run.duplicates,
        box_sizes_px=run.summarize_sizes(),
        scanners=dict(sorted(run.scanners.items())),
        intensities=run.summarize_intensities(),
        extent=run.extent,
        burned_in=run.burned_in,
        neighbours=dict(sorted(run.neighbours.items())),
        problems=tuple(run.problems),
        notes=source.annotations.notes,
        resumed=work.resumed,
        replaced=replaced,
        files=run.files | _name_evidence(source, conversion),
    )
    content = json.dumps(report.to_dict(), indent=2).encode() + b"\n"
    write_atomic(settings.out / f"ingest_{name}.json", content)
    source_line = (
        f"{plural(report.images, 'image')} and {plural(report.boxes, 'box')}, "
        f"read as {report.format}"
    )
    write_ingest_sheet(settings.out, name, run.shown, source_line)
    for file in ("dataset.json", "label_map.pbtxt", f"ingest_{name}.json", f"ingest_{name}.png"):
        remove_temporaries(settings.out / file)
    return report


def _describe_evidence(source: _Source, conversion: Conversion) -> str:
    files = (conversion.hide("source", file) for file in source.evidence_files)
    return " ".join(filter(None, (source.evidence, ", ".join(files))))


def _name_evidence(source: _Source, conversion: Conversion) -> dict[str, str]:
    return {conversion.hide("source", file): file for file in source.evidence_files}


def _choose_labels(
    annotations: Annotations, out: Path, splits: set[str], labels: Sequence[str] | None
) -> tuple[str, ...]:
    """Decide on the labels and their order."""
    if labels is not None:
        if annotations.label_names and not set(labels) & set(annotations.label_names):
            raise AnnotationError(
                f"labels: none of {list(labels)} is a label of the source, which has "
                f"{list(annotations.label_names)}."
            )
        return tuple(labels)
    if not (out / "dataset.json").is_file():
        return annotations.label_names
    former = read_info(out)
    if not set(former.splits) - splits:
        return annotations.label_names
    unknown = [label for label in annotations.label_names if label not in former.label_names]
    if unknown:
        raise AnnotationError(
            f"{out}: its labels are {list(former.label_names)}, the source has also {unknown}. "
            "Write to another folder, or pass labels= to drop or to declare them."
        )
    return former.label_names


class _Run:
    """One pass over the images of a split, and what it counts."""

    def __init__(
        self,
        source: Path,
        work: _Work,
        problems: Sequence[Problem],
        settings: _Settings,
        conversion: Conversion,
    ) -> None:
        self._root = source if source.is_dir() else source.parent
        self._work = work
        self._settings = settings
        self._conversion = conversion
        self._sizes: list[np.ndarray] = []
        self._levels: dict[str, np.ndarray] = {}
        self.problems: list[Problem] = []
        self.files: dict[str, str] = {}
        self.patients: set[str] = set()
        self.scanners: collections.Counter[str] = collections.Counter()
        self.neighbours: collections.Counter[str] = collections.Counter()
        self.states: collections.Counter[AnnotationState] = collections.Counter()
        self.duplicates = self.burned_in = self.turned = 0
        self.extent = Extent()
        self.shown = SheetImages()
        for problem in problems:
            self._report(problem.file, problem.reason, problem.effect)

    def iterate_examples(self) -> Iterator[tuple[tf.train.Example, bool]]:
        """Yield a record for each usable image, and whether it is annotated."""
        images = self._work.images
        converted = convert_in_blocks(
            images, self._conversion, self._work.folder, self._settings.workers
        )
        for done, (item, result) in enumerate(zip(images, converted, strict=True), start=1):
            file = _relate(item.path, self._root)
            for reason, effect in result.problems:
                self._report(file, reason, effect)
            if result.record is not None and self._keeps(item, result):
                example = tf.train.Example.FromString(result.record)
                self.shown.offer(example, result.patient)
                yield example, result.annotation == "complete"
            if self._settings.progress is not None:
                self._settings.progress(done, len(images))
        if not self.scanners and self.states:
            raise AnnotationError(
                f"none of the {plural(self.states.total(), 'image')} is annotated; nothing was "
                "written. Leave out --unannotated skip to keep them for the training of an "
                "autoencoder."
            )
        if not self.scanners:
            reasons = "; ".join(f"{self.files[p.file]}: {p.reason}" for p in self.problems[:3])
            raise AnnotationError(f"the source holds no usable image. {reasons}".rstrip())

    def _keeps(self, item: AnnotatedImage, result: Converted) -> bool:
        """Count a converted image and tell whether it is written."""
        self.states[result.annotation] += 1
        self.turned += result.turned
        if result.annotation != "complete":
            self._report_unannotated(item, result.annotation)
            if self._settings.unannotated == "skip":
                return False
        self._count(result)
        return True

    def _report_unannotated(self, item: AnnotatedImage, annotation: AnnotationState) -> None:
        file = _relate(item.path, self._root)
        place = f"{item.place}: " if item.place else ""
        reason = f"{place}{_UNANNOTATED_REASONS[annotation]}"
        if self._settings.strict and annotation == "faulty":
            self._report(file, reason, "unannotated")
        if self._settings.unannotated == "error":
            raise AnnotationError(
                f"{file}: {reason}. Correct the source, or pass --unannotated keep, skip, or "
                "negative if no such image has a box."
            )
        hidden = self._conversion.hide("source", file)
        self.files[hidden] = file
        self.problems.append(Problem(hidden, reason, "unannotated"))

    def _report(self, file: str, reason: str, effect: Effect) -> None:
        if self._settings.strict:
            raise AnnotationError(
                f"{file}: {reason}. Correct it, or run without strict to have it {effect}."
            )
        hidden = self._conversion.hide("source", file)
        self.files[hidden] = file
        self.problems.append(Problem(hidden, reason, effect))

    def _count(self, result: Converted) -> None:
        self.patients |= {result.patient} - {""}
        self.duplicates += result.duplicates
        self.burned_in += result.burned_in
        self.extent = join_extents((self.extent, result.extent))
        self.scanners[result.scanner] += 1
        self.neighbours.update(result.neighbours)
        self._sizes.append(result.box_sizes_px)
        levels = self._levels.setdefault(result.scanner, np.zeros(HISTOGRAM_BINS))
        levels += result.histogram

    def summarize_sizes(self) -> dict[str, tuple[float, ...]]:
        """Return the quantiles of the widths and heights of the boxes."""
        sizes = np.concatenate([np.zeros((0, 2)), *self._sizes])
        if not len(sizes):
            return {}
        widths, heights = np.quantile(sizes, _QUANTILES, axis=0).T.round(3).tolist()
        return {"width": tuple(widths), "height": tuple(heights)}

    def summarize_intensities(self) -> dict[str, tuple[float, ...]]:
        """Return the mean histogram of each scanner."""
        return {
            scanner: tuple((self._levels[scanner] / count).round(5).tolist())
            for scanner, count in sorted(self.scanners.items())
        }
