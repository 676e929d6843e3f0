"""DICOM slices of a volume: which belong together, in what order, and between which values.

Reference:
    DICOM PS3.3 C.7.6.2 (Image Plane): Image Position (Patient) is the center of the first pixel
    in mm, Image Orientation (Patient) the directions of a row and of a column.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vae_aug.errors import DicomError
from vae_aug.ingest.dicom.file import DicomErrors, read_dataset, read_elements
from vae_aug.ingest.dicom.frames import PLACE_GROUPS, FunctionalGroups, check_header
from vae_aug.ingest.dicom.image import DicomHeader, check_window, find_frame_range, read_header
from vae_aug.ingest.dicom.values import Window

SAME_DIRECTION = 1e-3
"""Largest difference of a direction cosine within a group; 0.06 degrees."""

SAME_PLACE_MM = 1e-2
"""Slices nearer to each other than this are duplicates."""

_QUANTITIES = ("PT", "NM")
"""Modalities whose values are activity or counts: each slice has a range, and no usual window."""

_UNEVEN = 0.1
"""Share of the spacing by which a step between slices may differ from it."""


class Slice(NamedTuple):
    """A frame of a file, as `read_dicom(path, frame=frame)` reads it.

    Attributes:
        path: The file.
        frame: Index of the frame, from 0.
        position_mm: Distance along the normal of the slice.
    """

    path: Path
    frame: int
    position_mm: float


class Fault(NamedTuple):
    """Something to know about a series before its neighbours are trusted.

    Attributes:
        kind: `"gap"`, `"duplicate"`, `"tilt"` or `"unusable"`.
        path: The file.
        frame: Index of the frame, from 0.
        reason: What is wrong, with numbers.
    """

    kind: str
    path: Path
    frame: int
    reason: str


@dataclasses.dataclass(frozen=True)
class Series:
    """Slices of one series and one orientation, sorted along their normal.

    Attributes:
        series_instance_uid: (0020,000E), `""` if the files have none. Not in the repr.
        slices: The slices from the lowest position to the highest, without duplicates.
        spacing_mm: Median distance of neighbours, None for a single slice.
        faults: What was found wrong, in the order of the slices.
    """

    series_instance_uid: str = dataclasses.field(repr=False)
    slices: tuple[Slice, ...] = dataclasses.field(repr=False)
    spacing_mm: float | None
    faults: tuple[Fault, ...] = dataclasses.field(repr=False)


class _Plane(NamedTuple):
    path: Path
    frame: int
    position: np.ndarray
    orientation: np.ndarray

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.orientation[:3], self.orientation[3:])


def iterate_series(paths: Iterable[str | os.PathLike[str]], stride: int = 1) -> Iterator[Series]:
    """Group the frames of files by series and orientation, and sort them along their normal.

    A series whose orientation changes, such as three localizers at right angles, becomes a group
    for each orientation.

    Args:
        paths: DICOM files in any order.
        stride: Keep every `stride`-th slice of a group, from the first. Faults are those of the
            whole group.

    Yields:
        The groups, in the order of their first files. A group without slices holds the faults
        `"unusable"` of files that are no image or have no place in space.

    Raises:
        ValueError: If the stride is below 1.
    """
    if stride < 1:
        raise ValueError(f"stride must be at least 1; got {stride}.")
    groups: dict[tuple[str, int], list[_Plane]] = {}
    directions: dict[str, list[np.ndarray]] = {}
    unusable = []
    for path in map(Path, paths):
        try:
            uid, planes = _read_planes(path)
        except DicomError as error:
            unusable.append(Fault("unusable", path, 0, str(error).removeprefix(f"{path}: ")))
            continue
        orientations = directions.setdefault(uid, [])
        for plane in planes:
            groups.setdefault((uid, _find_direction(orientations, plane)), []).append(plane)
    for (uid, _), planes in groups.items():
        yield _sort(uid, planes, stride, is_tilted=len(directions[uid]) > 1)
    if unusable:
        yield Series("", (), None, tuple(unusable))


def _read_planes(path: Path) -> tuple[str, list[_Plane]]:
    """Return the series of a file, and where its frames are."""
    with DicomErrors(path):
        dataset, frames = read_elements(path)
        check_header(dataset)
        groups = FunctionalGroups(dataset, PLACE_GROUPS)
        planes = [_read_plane(path, groups, frame) for frame in range(frames)]
        return str(dataset.get("SeriesInstanceUID") or ""), planes


def _read_plane(path: Path, groups: FunctionalGroups, frame: int) -> _Plane:
    described = groups.describe(frame)
    position = np.array(described.get("ImagePositionPatient") or [], float)
    orientation = np.array(described.get("ImageOrientationPatient") or [], float)
    if position.shape != (3,) or orientation.shape != (6,):
        raise DicomError(
            f"frame {frame} has no (0020,0032) Image Position (Patient) or (0020,0037) Image "
            "Orientation (Patient)."
        )
    plane = _Plane(path, frame, position, orientation)
    if not np.isfinite(position).all() or not abs(np.linalg.norm(plane.normal) - 1) < 1e-2:
        raise DicomError(
            "(0020,0037) Image Orientation (Patient) must be two unit vectors at right angles."
        )
    return plane


def _find_direction(orientations: list[np.ndarray], plane: _Plane) -> int:
    """Return the index of the orientation of a plane; a new one is appended."""
    for index, orientation in enumerate(orientations):
        if np.abs(orientation - plane.orientation).max() <= SAME_DIRECTION:
            return index
    orientations.append(plane.orientation)
    return len(orientations) - 1


def _sort(uid: str, planes: list[_Plane], stride: int, *, is_tilted: bool) -> Series:
    normal = planes[0].normal
    planes = sorted(planes, key=lambda plane: float(plane.position @ normal))
    faults = []
    if is_tilted:
        reason = "the orientation changes within the series; this group has one of several"
        faults.append(Fault("tilt", planes[0].path, planes[0].frame, reason))
    slices: list[Slice] = []
    kept: list[_Plane] = []
    for plane in planes:
        place = float(plane.position @ normal)
        if slices and place - slices[-1].position_mm < SAME_PLACE_MM:
            reason = f"is where {slices[-1].path.name} frame {slices[-1].frame} is, {place:g} mm"
            faults.append(Fault("duplicate", plane.path, plane.frame, reason))
            continue
        slices.append(Slice(plane.path, plane.frame, place))
        kept.append(plane)
    steps = np.diff([item.position_mm for item in slices])
    spacing = float(np.median(steps)) if len(steps) else None
    for after, step in zip(slices[1:], steps, strict=True):
        if spacing is not None and abs(step - spacing) > _UNEVEN * spacing:
            reason = f"is {step:g} mm behind its neighbour; the others are {spacing:g} mm apart"
            faults.append(Fault("gap", after.path, after.frame, reason))
    faults.extend(_find_tilt(kept, normal))
    return Series(uid, tuple(slices[::stride]), spacing, tuple(faults))


def _find_tilt(planes: list[_Plane], normal: np.ndarray) -> list[Fault]:
    """Tell of a stack that leans, as behind a tilted gantry: neighbours are shifted aside."""
    if len(planes) < 2:
        return []
    way = planes[-1].position - planes[0].position
    cosine = abs(float(way @ normal)) / float(np.linalg.norm(way))
    degrees = float(np.degrees(np.arccos(min(cosine, 1.0))))
    if degrees < 0.5:
        return []
    reason = f"the stack leans by {degrees:.1f} degrees against the normal of its slices"
    return [Fault("tilt", planes[0].path, planes[0].frame, reason)]


def find_series_ranges(
    paths: Iterable[str | os.PathLike[str]], window: Window = "auto"
) -> dict[str, tuple[float, float]]:
    """Find the range of values of each series whose images would not compare otherwise.

    Without a window `read_dicom` stretches each frame between its own lowest and highest value.
    That is wrong for PET and nuclear medicine, where the same grey would be another activity in
    each slice, and wherever the rescale differs from slice to slice, since stored values then mean
    different things. All frames of such a series are to be shown between the same two values:
    `read_dicom(path, window, value_range=ranges.get(str(path)))`.

    Headers are those of `read_header`. Pixels are decoded, once, only of series that a range is
    found for. (0028,0107) Largest Image Pixel Value and its like are not used: tools that change
    pixels leave them as they were.

    Args:
        paths: Grey DICOM images, also of several series; others are passed over, and so are files
            that cannot be read.
        window: As `read_dicom`. `"auto"`: ranges of series of which a frame has no window.
            `"full"`: whether it has one or not. Others need no range.

    Returns:
        `str(Path(path))` to lowest and highest modality value of its series, padding left out. A
        path that is missing needs no range: its modality is neither PT nor NM, and its series has
        one rescale.

    Raises:
        ValueError: On another window.
    """
    window = check_window(window)
    is_auto = window == "auto"
    groups: dict[tuple[str, str, str], dict[Path, DicomHeader]] = {}
    for path in map(Path, paths if isinstance(window, str) else ()):
        try:
            header = read_header(path)
        except DicomError:  # which `read_dicom` will say
            continue
        key = (header.series_instance_uid, header.modality, header.units)
        if key[0] and header.rescales and not (is_auto and header.has_windows is None):
            groups.setdefault(key, {})[path] = header
    ranges: dict[str, tuple[float, float]] = {}
    for (_, modality, _), group in groups.items():
        is_mixed = len(frozenset().union(*(header.rescales for header in group.values()))) > 1
        is_shown = is_auto and all(header.has_windows for header in group.values())
        if (is_mixed or modality in _QUANTITIES) and not is_shown:
            found = _find_group_range(group)
            ranges.update({str(path): found for path in group if found})
    return ranges


def _find_group_range(group: Mapping[Path, DicomHeader]) -> tuple[float, float] | None:
    """Return the range of all frames of files, None if all is padding or nothing can be read."""
    found = []
    for path, header in group.items():
        with contextlib.suppress(DicomError), DicomErrors(path):
            dataset = read_dataset(path)
            check_header(dataset)
            for frame in range(header.frames):
                found.append(find_frame_range(path, dataset, frame))
    bounds = [one for one in found if one is not None]
    return (min(low for low, _ in bounds), max(high for _, high in bounds)) if bounds else None
