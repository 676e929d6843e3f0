"""Annotations of other formats beside those that were read, which may contradict them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from vae_aug.data.annotations.all_splits import read_splits
from vae_aug.data.annotations.detect import list_formats
from vae_aug.data.annotations.dicom_folder import read_dicom_objects
from vae_aug.data.annotations.layout import lies_in_other_split
from vae_aug.data.annotations.source import AnnotatedImage, Annotations, Problem, ReaderOptions
from vae_aug.data.dicom import is_dicom
from vae_aug.errors import AnnotationError, MissingSplitError

_BOXES_WITHIN = frozenset({"records", "tfds", "images"})
"""Formats that hold their boxes with the images, or none."""

_Frame = tuple[str, int]


def doubt_contradicted(
    annotations: Annotations,
    format: str,
    source: Path,
    split: str,
    options: ReaderOptions,
    *,
    is_told: bool,
) -> Annotations:
    """Mark images without boxes as faulty to which annotations of another format give some.

    DICOM objects, such as segmentations, are looked at beside every format. Where the other
    annotations cannot be read, all images without boxes are faulty.

    Args:
        annotations: What was read.
        format: Its format, a key of `READERS`.
        source: As `read_splits`.
        split: As `read_splits`.
        options: As `read_splits`.
        is_told: Whether the user named the format, so that there may be annotations of others.
    """
    empty = {image.path for image in annotations.images if image.annotation == "complete"}
    if not empty or not source.is_dir() or format in _BOXES_WITHIN:
        return annotations
    others: Mapping[str, Path] = list_formats(source) if is_told else {}
    files = {name: path for name, path in others.items() if name not in (format, "dicom")}
    if format != "dicom" and (picture := next(filter(is_dicom, sorted(empty)), None)):
        files["dicom"] = picture
    for name, file in sorted(files.items()):
        annotations = _contradict(annotations, name, file, source, split, options)
    return annotations


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
        if not image.labels and image.annotation != "faulty"
        if told is None or _locate(image) in told
    }
    if not doubted:
        return annotations
    if told is None:
        reason = f"holds annotations of the format {other}, which cannot be read as such"
        problems = [Problem(file.relative_to(source).as_posix(), reason, "unread")]
    else:
        reason = f"has no boxes, and the annotations of the format {other} say something else of it"
        problems = [Problem(name, reason, "unread") for name in sorted(doubted)]
    images = tuple(
        dataclasses.replace(image, annotation="faulty") if image.source_id in doubted else image
        for image in annotations.images
    )
    return annotations._replace(images=images, problems=(*problems, *annotations.problems))


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
    except AnnotationError:
        return None
    told = (image for image in read.images if image.labels or image.annotation == "faulty")
    return frozenset(map(_locate, told))


def _locate(image: AnnotatedImage) -> _Frame:
    return os.path.normpath(image.path), image.frame
