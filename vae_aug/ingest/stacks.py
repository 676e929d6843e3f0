"""Slices of DICOM series with their neighbours as channels, often called 2.5-D."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vae_aug.errors import AnnotationError
from vae_aug.ingest.dicom.stack import Neighbour
from vae_aug.ingest.formats.layout import looks_like_dicom
from vae_aug.ingest.formats.source import AnnotatedImage
from vae_aug.ingest.items import DicomFrame
from vae_aug.ingest.series import Series, iterate_series

_MAX_NEIGHBOURS = 100
_TEXT = re.compile(r"([0-9.]+) *(mm)?")


class Distance(NamedTuple):
    """How far the slices before and behind an image are from it."""

    value: float
    is_mm: bool


def parse_neighbours(neighbours: int | str | None) -> Distance | None:
    """Check a `neighbours` argument.

    Args:
        neighbours: Number of slices, also as text, or millimetres, `"5mm"`; None for none.

    Returns:
        The distance, or None.

    Raises:
        ValueError: If it is neither, or the number is not above 0.

    Example:
        >>> parse_neighbours(1), parse_neighbours("2.5mm")
        (Distance(value=1.0, is_mm=False), Distance(value=2.5, is_mm=True))
    """
    if neighbours is None:
        return None
    match = _TEXT.fullmatch(str(neighbours).strip())
    try:
        distance = Distance(float(match[1]), bool(match[2])) if match else None
    except ValueError:
        distance = None
    if distance is not None and distance.value > 0:
        if distance.is_mm:
            return distance
        if distance.value in range(1, _MAX_NEIGHBOURS + 1):
            return distance
    raise ValueError(
        f"neighbours must be 1 to {_MAX_NEIGHBOURS} slices or millimetres such as '5mm'; got "
        f"{neighbours!r}."
    )


def add_neighbours(images: Sequence[AnnotatedImage], distance: Distance) -> list[AnnotatedImage]:
    """Tell for each image which slices lie before and behind it.

    Slices are those of all DICOM files in the folders of the images, annotated or not, sorted by
    `vae_aug.ingest.series.iterate_series`: before is against the normal of the slice, behind along
    it. Between two slices no step may differ by more than a tenth from the spacing of the series.
    In millimetres the nearest slice is taken, if it is not more than half the spacing off.

    Args:
        images: DICOM images.
        distance: Of the neighbours.

    Returns:
        The images, whose items know their neighbours.

    Raises:
        AnnotationError: If an image is no DICOM file.
    """
    frames = [_get_frame(image) for image in images]
    folders = dict.fromkeys(image.path.parent for image in images)
    files = [p for folder in folders for p in sorted(folder.iterdir()) if _is_candidate(p)]
    found: dict[tuple[Path, int], tuple[Neighbour, Neighbour]] = {}
    for series in iterate_series(files):
        found.update(_find_in_series(series, distance))
    nowhere = (Neighbour("unplaced"),) * 2
    return [
        dataclasses.replace(image, item=dataclasses.replace(frame, neighbours=neighbours))
        for image, frame in zip(images, frames, strict=True)
        for neighbours in [found.get((frame.path, frame.index), nowhere)]
    ]


def _get_frame(image: AnnotatedImage) -> DicomFrame:
    if isinstance(image.item, DicomFrame):
        return image.item
    raise AnnotationError(
        f"{image.path}: no DICOM file, so it has no neighbours; run without neighbours."
    )


def _is_candidate(path: Path) -> bool:
    return path.is_file() and path.name != "DICOMDIR" and looks_like_dicom(path)


def _find_in_series(
    series: Series, distance: Distance
) -> Iterator[tuple[tuple[Path, int], tuple[Neighbour, Neighbour]]]:
    """Yield each frame of a series with what is before and behind it."""
    for fault in series.faults:
        if fault.kind == "duplicate":
            yield (fault.path, fault.frame), (Neighbour("duplicate"),) * 2
    uneven = {(fault.path, fault.frame) for fault in series.faults if fault.kind == "gap"}
    # Slices on both sides of an uneven step have different numbers here.
    runs = np.cumsum([(item.path, item.frame) in uneven for item in series.slices])
    places = np.array([item.position_mm for item in series.slices])
    for index, item in enumerate(series.slices):
        before, behind = (_choose(index, sign, distance, series, places, runs) for sign in (-1, 1))
        yield (item.path, item.frame), (before, behind)


def _choose(
    index: int,
    sign: int,
    distance: Distance,
    series: Series,
    places: np.ndarray,
    runs: np.ndarray,
) -> Neighbour:
    """Choose a slice of a series before (sign -1) or behind (1) another."""
    if series.spacing_mm is None:
        return Neighbour("end")
    if distance.is_mm:
        if distance.value < series.spacing_mm / 2:
            return Neighbour("thick")
        wanted = places[index] + sign * distance.value
        chosen = int(np.abs(places - wanted).argmin())
        # A tenth of a micrometre for the rounding of positions.
        is_off = abs(places[chosen] - wanted) > series.spacing_mm / 2 + 1e-4
        if is_off or chosen == index:
            return Neighbour("gap" if places[0] < wanted < places[-1] else "end")
    else:
        chosen = index + sign * int(distance.value)
        if not 0 <= chosen < len(places):
            return Neighbour("end")
    if runs[chosen] != runs[index]:
        return Neighbour("gap")
    return Neighbour("found", series.slices[chosen].path, series.slices[chosen].frame)
