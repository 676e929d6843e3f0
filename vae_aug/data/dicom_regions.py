"""Boxes from DICOM segmentations and structured reports.

Reference:
    DICOM PS3.3 C.8.20 (Segmentation), C.18.6 (Spatial Coordinates); PS3.16 TID 1500
    (Measurement Report), TID 1410 (Planar ROI Measurements and Qualitative Evaluations).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import iter_pixels
from pydicom.uid import (
    ConfocalMicroscopyTiledPyramidalImageStorage,
    SegmentationStorage,
    VLWholeSlideMicroscopyImageStorage,
)
from scipy import ndimage

from vae_aug.data.dicom import LABEL_MAP_SEGMENTATION_STORAGE, DicomErrors, read_dataset
from vae_aug.data.images import MAX_PIXELS
from vae_aug.errors import DicomError

Box = tuple[float, float, float, float]

_FINDINGS = (("121071", "DCM"), ("276214006", "SCT"))
"""Concepts that name what a region shows: Finding, Finding category."""

_TILED = (VLWholeSlideMicroscopyImageStorage, ConfocalMicroscopyTiledPyramidalImageStorage)

_EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


class Region(NamedTuple):
    """A box in a frame of an image.

    Attributes:
        sop_instance_uid: SOP Instance UID of the image.
        frame: Index of the image's frame, from 0.
        label: What the region shows.
        box: (x1, y1, x2, y2) in pixels; (0, 0) is the upper left corner of the first pixel.
    """

    sop_instance_uid: str
    frame: int
    label: str
    box: Box


def read_regions(
    path: str | os.PathLike[str], *, threshold: float = 0.5, whole_segments: bool = False
) -> list[Region]:
    """Read the boxes that a segmentation or a structured report gives to images.

    A segment is most often a class, such as every nodule, so each of its connected parts in a
    frame (8 neighbours) gets a box; where a segment is one object, `whole_segments` gives one box
    a frame. Its label is the (0062,0005) Segment Label. A label map's background, which is its
    (0028,0120) Pixel Padding Value, else 0, has no box.

    In a report, each closed or open outline, circle and ellipse gets a box, and points none. Its
    label is the Finding next to it, or around it, else the Finding category, else the name of the
    outline itself.

    Args:
        path: The DICOM file.
        threshold: Least share of the (0062,000E) Maximum Fractional Value that belongs to a
            segment, in (0, 1].
        whole_segments: One box for a segment in a frame instead of one for each of its parts.

    Returns:
        The boxes in the order of the file; empty if it has none.

    Raises:
        ValueError: On another threshold.
        DicomError: If the file is missing, damaged, neither segmentation nor report, does not
            tell which image a box belongs to, or has other pixels than the image.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1]; got {threshold!r}.")
    with DicomErrors(path):
        dataset = read_dataset(path)
        kind = dataset.get("SOPClassUID")
        if kind in (SegmentationStorage, LABEL_MAP_SEGMENTATION_STORAGE):
            return list(_iterate_segmentation(dataset, threshold, whole_segments))
        if "ContentSequence" in dataset:
            return list(_iterate_report(dataset))
        raise DicomError("is neither a segmentation nor a structured report.")


def _iterate_segmentation(
    dataset: Dataset, threshold: float, whole_segments: bool
) -> Iterator[Region]:
    if not 0 < int(dataset.Rows) * int(dataset.Columns) <= MAX_PIXELS:
        raise DicomError(
            f"declares {dataset.Rows} x {dataset.Columns} pixels; 1 to {MAX_PIXELS} are read."
        )
    names = {int(item.SegmentNumber): str(item.SegmentLabel) for item in dataset.SegmentSequence}
    for index, pixels in enumerate(iter_pixels(dataset)):
        masks = _split_frame(dataset, index, pixels, threshold)
        for segment, mask in masks:
            boxes = _find_boxes(mask, whole_segments)
            if not boxes:
                continue
            if segment not in names:
                raise DicomError(f"(0062,0002) does not describe the segment {segment}.")
            uid, frame = _find_source(dataset, index)
            yield from (Region(uid, frame, names[segment], box) for box in boxes)


def _split_frame(
    dataset: Dataset, index: int, pixels: np.ndarray, threshold: float
) -> list[tuple[int, np.ndarray]]:
    """Return the segments of a frame as (number, mask `[H, W] bool`)."""
    kind = dataset.SegmentationType
    if kind == "LABELMAP":
        background = int(dataset.get("PixelPaddingValue", 0))
        numbers = np.unique(pixels)
        return [(int(n), pixels == n) for n in numbers[numbers != background]]
    item = _find_group(dataset, index, "SegmentIdentificationSequence")
    if item is None:
        raise DicomError(f"(0062,000A) does not tell the segment of frame {index}.")
    number = int(item.ReferencedSegmentNumber)
    if kind == "BINARY":
        return [(number, pixels > 0)]
    if kind == "FRACTIONAL":
        return [(number, pixels >= threshold * int(dataset.MaximumFractionalValue))]
    raise DicomError(
        "(0062,0001) Segmentation Type must be BINARY, FRACTIONAL or LABELMAP; got another."
    )


def _find_boxes(mask: np.ndarray, whole: bool) -> list[Box]:
    """Return the boxes of a mask, or of its connected parts."""
    parts = mask.astype(np.uint8) if whole else ndimage.label(mask, _EIGHT_NEIGHBOURS)[0]
    return [
        (float(x.start), float(y.start), float(x.stop), float(y.stop))
        for y, x in ndimage.find_objects(parts)
    ]


def _find_group(dataset: Dataset, index: int, keyword: str) -> Dataset | None:
    """Return what a functional group says of a frame: its own, else the shared one."""
    own = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    shared = dataset.get("SharedFunctionalGroupsSequence") or ()
    for groups in (*own[index : index + 1], *shared[:1]):
        for item in (groups.get(keyword) or ())[:1]:
            return item
    return None


def _find_source(dataset: Dataset, index: int) -> tuple[str, int]:
    """Return SOP Instance UID and frame, from 0, of the image under a frame of a segmentation."""
    derivation = _find_group(dataset, index, "DerivationImageSequence")
    sources = list((derivation or Dataset()).get("SourceImageSequence") or ())
    if not sources and int(dataset.get("NumberOfFrames") or 1) == 1:
        series = dataset.get("ReferencedSeriesSequence") or ()
        sources = [item for one in series for item in one.get("ReferencedInstanceSequence") or ()]
    if len(sources) != 1:
        raise DicomError(
            f"names {len(sources)} images for its frame {index} in (0008,2112) Source Image "
            "Sequence; exactly one is needed to know where a box belongs."
        )
    (source,) = sources
    if source.get("SpatialLocationsPreserved", "YES") != "YES":
        raise DicomError("has other pixels than its image, (0028,135A) is not YES.")
    frames = _get_frames(source)
    if len(frames) != 1:
        raise DicomError(f"names {len(frames)} frames of the image for its frame {index}.")
    return str(source.ReferencedSOPInstanceUID), frames[0]


def _get_frames(reference: Dataset) -> list[int]:
    """Return the frames, from 0, that a reference to an image names; its first if none."""
    value = reference.get("ReferencedFrameNumber")
    if value is None or value == "":
        return [0]
    numbers = [int(number) for number in np.atleast_1d(value)]
    if min(numbers, default=1) < 1:
        raise DicomError(f"(0008,1160) Referenced Frame Number must be at least 1; got {value}.")
    return [number - 1 for number in numbers]


def _iterate_report(dataset: Dataset) -> Iterator[Region]:
    """Walk through the tree of a report, in its order."""
    waiting = [(dataset, "")]
    while waiting:
        item, finding = waiting.pop()
        children = list(item.get("ContentSequence") or ())
        finding = _name_finding(children) or finding
        if item.get("ValueType") == "SCOORD":
            yield from _read_outline(dataset, item, finding)
        waiting.extend((child, finding) for child in reversed(children))


def _name_finding(items: list[Dataset]) -> str:
    """Return the meaning of the finding among content items, `""` if there is none."""
    for code in _FINDINGS:
        for item in items:
            for name in (item.get("ConceptNameCodeSequence") or ())[:1]:
                key = (str(name.get("CodeValue")), str(name.get("CodingSchemeDesignator")))
                if key == code and item.get("ConceptCodeSequence"):
                    return str(item.ConceptCodeSequence[0].CodeMeaning)
    return ""


def _read_outline(report: Dataset, item: Dataset, finding: str) -> Iterator[Region]:
    """Yield the box of an item of spatial coordinates, once for each frame it is drawn in."""
    if item.GraphicType in ("POINT", "MULTIPOINT"):
        return
    box = _find_outline_box(str(item.GraphicType), item.GraphicData)
    label = finding or str(item.ConceptNameCodeSequence[0].CodeMeaning)
    references = [
        reference
        for child in item.get("ContentSequence") or ()
        for reference in _resolve(report, child).get("ReferencedSOPSequence") or ()
    ]
    if not references:
        raise DicomError("has a region that is drawn in no image.")
    is_whole = item.get("PixelOriginInterpretation") == "VOLUME"
    for reference in references:
        if is_whole and reference.get("ReferencedSOPClassUID") in _TILED:
            raise DicomError(
                "(0048,0301) Pixel Origin Interpretation must be FRAME for a tiled image; got "
                "VOLUME, coordinates in the slide as a whole."
            )
        for frame in _get_frames(reference):
            yield Region(str(reference.ReferencedSOPInstanceUID), frame, label, box)


def _resolve(report: Dataset, item: Dataset) -> Dataset:
    """Follow a reference to another content item, PS3.3 C.17.3.2.5."""
    for position in list(item.get("ReferencedContentItemIdentifier") or ())[1:]:
        report = report.ContentSequence[int(position) - 1]
    return report if "ReferencedContentItemIdentifier" in item else item


def _find_outline_box(kind: str, data: object) -> Box:
    """Return the box around graphic data, pairs of column and row."""
    if kind not in ("CIRCLE", "ELLIPSE", "POLYLINE"):
        # What a text element holds is not repeated: it may be anything, a name too.
        raise DicomError(
            "(0070,0023) Graphic Type must be POLYLINE, CIRCLE or ELLIPSE; got another."
        )
    points = np.asarray(data, np.float64).reshape(-1, 2)
    expected = {"CIRCLE": 2, "ELLIPSE": 4}.get(kind, len(points))
    if len(points) != expected or len(points) < 2 or not np.isfinite(points).all():
        raise DicomError(f"(0070,0022) Graphic Data do not suit a {kind}: {len(points)} points.")
    if kind == "CIRCLE":
        center, extent = points[0], np.hypot(*(points[1] - points[0]))
    elif kind == "ELLIPSE":
        # Ends of the two axes. A rotated ellipse reaches as far as both half axes together, at
        # right angles, along each coordinate.
        center = points.mean(axis=0)
        extent = np.hypot(*((points[1::2] - points[::2]) / 2))
    else:
        center = (points.min(axis=0) + points.max(axis=0)) / 2
        extent = np.ptp(points, axis=0) / 2
    x1, y1, x2, y2 = (float(v) for v in (*(center - extent), *(center + extent)))
    return x1, y1, x2, y2
