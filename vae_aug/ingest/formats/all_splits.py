"""Every split of a data set at once, and the splits of it that were left unread."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vae_aug.errors import AnnotationError, MissingSplitError
from vae_aug.ingest.formats import READERS
from vae_aug.ingest.formats.layout import SPLIT_NAMES, SPLIT_WORDS, fold_name
from vae_aug.ingest.formats.source import AnnotatedImage, Annotations, ReaderOptions
from vae_aug.ingest.formats.walk import walk
from vae_aug.records.records import get_split_name
from vae_aug.words import plural

ALL = "all"
"""What stands for every split in the place of a split's name."""

_NATIVE = frozenset({"cvat", "masks", "records", "tfds", "voc"})
"""Formats whose readers know `ALL` themselves, where the source names its splits."""

_BY_NAMES = frozenset(
    {"coco", "dicom", "images", "labelme", "lidc", "masks", "nifti", "via", "voc"}
)
"""Formats that tell splits by the names of files and folders, and by nothing else."""

_BY_IMAGE = frozenset({"dicom", "nifti", "records", "tfds"})
"""Formats that are told by files which hold images."""

# nnU-Net's imagesTr and labelsTs.
_ENDING = re.compile(r"[a-z](Tr|Ts|Va)$")


class SplitsRead(NamedTuple):
    """What was read of a data set.

    Attributes:
        annotations: Of the split, or of all splits.
        files: A file that was read and is of the format, for each split; none for bare images.
    """

    annotations: Annotations
    files: tuple[Path, ...]


def read_splits(format: str, source: Path, split: str, options: ReaderOptions) -> SplitsRead:
    """Read one split of a data set, or all.

    Args:
        format: A key of `READERS`.
        source: As its reader takes it.
        split: The split, or `ALL`. Of an image that is in several splits the first counts; if
            they differ in its boxes, it is faulty.
        options: How the source is read.

    Raises:
        AnnotationError: As the format's reader; under `ALL`, also if one of the splits cannot be
            read.
    """
    if split != ALL:
        parts = [READERS[format](source, split, options)]
    else:
        parts = list(_read_all(format, source, options).values())
    files = dict.fromkeys(file for part in parts if (file := _get_file(format, part)) is not None)
    return SplitsRead(_merge(parts), tuple(files))


def count_unread(
    format: str, source: Path, split: str, options: ReaderOptions, read: Annotations
) -> dict[str, int | None]:
    """Count the images of a data set's other splits.

    Args:
        format: As `read_splits`.
        source: As `read_splits`.
        split: The split that was read.
        options: As `read_splits`.
        read: What was read of it.

    Returns:
        Names of the splits that hold images which were not read, to how many these are; None
        where a split is there and cannot be read.
    """
    if split == ALL or not _may_have_splits(format, source):
        return {}
    seen = {image.item for image in read.images}
    unread: dict[str, int | None] = {}
    for name in SPLIT_NAMES:
        if name == get_split_name(split):
            continue
        try:
            places = {image.item for image in READERS[format](source, name, options).images}
        except MissingSplitError:
            continue
        except AnnotationError:
            unread[name] = None
            continue
        if places - seen:
            unread[name] = len(places - seen)
        seen |= places
    return unread


def _read_all(format: str, source: Path, options: ReaderOptions) -> dict[str, Annotations]:
    """Read each split that there is; what has no splits is read once."""
    read = READERS[format]
    if format in _NATIVE:
        try:
            return {ALL: read(source, ALL, options)}
        except MissingSplitError:
            pass  # Folders of splits are no matter of these readers.
    if not _may_have_splits(format, source):
        return {ALL: read(source, SPLIT_NAMES[0], options)}
    parts: dict[str, Annotations] = {}
    missing: list[MissingSplitError] = []
    for name in SPLIT_NAMES:
        try:
            parts[name] = read(source, name, options)
        except MissingSplitError as error:
            missing.append(error)
    if not parts:
        raise missing[0]
    return parts


def _may_have_splits(format: str, source: Path) -> bool:
    """Tell by the names of files and folders whether reading other splits is worth its time."""
    if format not in _BY_NAMES:
        return True
    if not source.is_dir():
        return False
    return any(
        SPLIT_WORDS & set(re.findall(r"[a-z]+", fold_name(part))) or _ENDING.search(part)
        for entry in walk(source, lambda name: name[0] != ".")
        for part in Path(entry.path).relative_to(source).parts
    )


def _merge(parts: list[Annotations]) -> Annotations:
    """Join what was read of several splits."""
    if len(parts) == 1:
        return parts[0]
    images: dict[str, AnnotatedImage] = {}
    differing = set()
    for image in (image for part in parts for image in part.images):
        first = images.setdefault(image.source_id, image)
        if not _are_alike(first, image):
            differing.add(image.source_id)
            images[image.source_id] = dataclasses.replace(first, annotation="faulty")
    labels = dict.fromkeys(label for part in parts for label in part.label_names)
    problems = dict.fromkeys(problem for part in parts for problem in part.problems)
    notes = dict.fromkeys(note for part in parts for note in part.notes)
    if differing:
        text = (
            f"{plural(len(differing), 'image', 'is', 'are')} in several splits of the "
            "source, with different boxes"
        )
        notes[text] = None
    return Annotations(tuple(labels), tuple(images.values()), tuple(problems), tuple(notes))


def _are_alike(one: AnnotatedImage, other: AnnotatedImage) -> bool:
    """Tell whether two splits say the same of an image."""
    return (one.annotation, one.labels) == (other.annotation, other.labels) and np.array_equal(
        one.boxes, other.boxes, equal_nan=True
    )


def _get_file(format: str, part: Annotations) -> Path | None:
    """Return a file that was read, which tells the format; None for bare images."""
    if format == "images":
        return None
    if format in _BY_IMAGE:
        return part.images[0].path if part.images else None
    return part.file
