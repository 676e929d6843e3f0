"""Annotations of other formats beside those that were read, which may contradict them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from vae_aug.errors import MissingSplitError, VAEAugError
from vae_aug.ingest.formats.all_splits import SplitsRead, read_splits
from vae_aug.ingest.formats.detect import list_formats
from vae_aug.ingest.formats.dicom_folder import read_dicom_objects
from vae_aug.ingest.formats.layout import lies_in_other_split
from vae_aug.ingest.formats.source import AnnotatedImage, Annotations, Problem, ReaderOptions
from vae_aug.ingest.items import DicomFrame

_BOXES_WITHIN = frozenset({"records", "tfds", "images"})
"""Formats that hold their boxes with the images, or none."""

_Frame = tuple[str, int]


def doubt_contradicted(
    read: SplitsRead,
    format: str,
    source: Path,
    split: str,
    options: ReaderOptions,
    *,
    is_told: bool,
) -> SplitsRead:
    """Mark images without boxes as faulty to which annotations of another format give some.

    DICOM objects, such as segmentations, are looked at beside every format. Where the other
    annotations cannot be read, all images without boxes are faulty.

    Args:
        read: What was read.
        format: Its format, a key of `READERS`.
        source: As `read_splits`.
        split: As `read_splits`.
        options: As `read_splits`.
        is_told: Whether the user named the format, so that there may be annotations of others.
    """
    annotations = read.annotations
    empty = {image.path: image.item for image in annotations.images if _is_empty(image)}
    if not empty or not source.is_dir() or format in _BOXES_WITHIN:
        return read
    others: Mapping[str, Path] = list_formats(source, read.files) if is_told else {}
    # Its reader takes Pascal VOC itself, also where files are called by UIDs.
    own = {format, "dicom", *(["voc"] if format == "dicom" else [])}
    files = {name: path for name, path in others.items() if name not in own}
    pictures = [path for path, item in empty.items() if isinstance(item, DicomFrame)]
    if format != "dicom" and pictures:
        files["dicom"] = min(pictures)
    for name, file in sorted(files.items()):
        annotations = _contradict(annotations, name, file, source, split, options)
    return read._replace(annotations=annotations)


def _contradict(
    annotations: Annotations,
    other: str,
    file: Path,
    source: Path,
    split: str,
    options: ReaderOptions,
) -> Annotations:
    told = _list_told(other, source, split, options)
    if told is None and lies_in_other_split(file.relative_to(source), split):
        return annotations
    doubted = {
        image.source_id
        for image in annotations.images
        if _is_empty(image) and (told is None or _locate(image) in told)
    }
    if not doubted:
        return annotations
    if told is None:
        reason = f"holds annotations of the format {other}, which cannot be read as such"
        problems = [Problem(file.relative_to(source).as_posix(), reason, "unread")]
    else:
        reason = f"has no boxes, and the annotations of the format {other} say something else of it"
        problems = [Problem(name, reason, "unread") for name in sorted(doubted)]
    return annotations.doubt(doubted, problems)


def _list_told(
    other: str, source: Path, split: str, options: ReaderOptions
) -> frozenset[_Frame] | None:
    """Return the images of which another format says more than nothing; None if it is unclear."""
    try:
        if other == "dicom":
            read = read_dicom_objects(source, split, options)
        else:
            read = read_splits(other, source, split, options).annotations
    except MissingSplitError:
        return frozenset()
    except VAEAugError:
        # A folder without DICOM has no objects, wherever the images lie.
        return frozenset() if other == "dicom" else None
    told = (image for image in read.images if image.labels or image.annotation == "faulty")
    return frozenset(map(_locate, told))


def _is_empty(image: AnnotatedImage) -> bool:
    return not image.labels and image.annotation != "faulty"


def _locate(image: AnnotatedImage) -> _Frame:
    return os.path.normpath(image.path), image.item.index
