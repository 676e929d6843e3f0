"""Copies of an image that a source describes differently."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path

from vae_aug.ingest.formats.layout import fold_name
from vae_aug.ingest.formats.source import AnnotatedImage, Annotations, Problem

_HEAD_BYTES = 2**12
_REASON = (
    "a copy of it lies in another folder, with other boxes; remove the one that is wrong, or both"
)


def doubt_copies(annotations: Annotations) -> Annotations:
    """Mark images as faulty of which a copy in another folder has other boxes, or none.

    Copies are files of one name and the same bytes. Images of which the source says nothing
    contradict nothing.

    Args:
        annotations: What was read.

    Returns:
        The same, with a problem for each image that was marked.
    """
    told = [image for image in annotations.images if image.annotation != "none"]
    groups = [told]
    for key in (_get_name, _read_size, _read_head, _hash):
        groups = [part for group in groups for part in _part(group, key) if _differ(part)]
    doubted = {image.source_id for group in groups for image in group}
    problems = [
        Problem(image.source_id, image.item.locate(_REASON), "unread")
        for image in told
        if image.source_id in doubted and image.annotation == "complete"
    ]
    return annotations.doubt(doubted, problems)


def _part(
    images: Iterable[AnnotatedImage], key: Callable[[AnnotatedImage], Hashable]
) -> Iterator[list[AnnotatedImage]]:
    groups: dict[Hashable, list[AnnotatedImage]] = {}
    for image in images:
        groups.setdefault(key(image), []).append(image)
    yield from groups.values()


def _differ(images: Iterable[AnnotatedImage]) -> bool:
    return len({_describe(image) for image in images}) > 1


def _describe(image: AnnotatedImage) -> Hashable:
    """Return what the source says of an image, in whatever order."""
    boxes = sorted(zip(image.labels, map(tuple, image.boxes.tolist()), strict=True))
    return image.annotation, repr(boxes)


def _get_name(image: AnnotatedImage) -> Hashable:
    return dataclasses.replace(image.item, path=Path(fold_name(image.path.name)))


def _read_size(image: AnnotatedImage) -> Hashable:
    """Return the size of the file; what is no file is like no other."""
    return image.path.stat().st_size if image.path.is_file() else image.source_id


def _read_head(image: AnnotatedImage) -> bytes:
    """Return the first bytes, which tell DICOM files of one name and size apart."""
    try:
        with image.path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:  # said of the image when it is converted
        return image.source_id.encode()


def _hash(image: AnnotatedImage) -> bytes:
    with image.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
