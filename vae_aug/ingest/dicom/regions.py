"""Boxes from DICOM segmentations and structured reports.

Reference:
    DICOM PS3.3 C.8.20 (Segmentation), C.18.6 (Spatial Coordinates); PS3.16 TID 1500
    (Measurement Report), TID 1410 (Planar ROI Measurements and Qualitative Evaluations).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import (
    ConfocalMicroscopyTiledPyramidalImageStorage,
    SegmentationStorage,
    VLWholeSlideMicroscopyImageStorage,
)
from scipy import ndimage

from vae_aug.errors import DicomError
from vae_aug.ingest.dicom.elements import get_finite, get_integer, get_items, get_values, get_words
from vae_aug.ingest.dicom.file import DicomErrors, check_whole, get_frames, read_dataset
from vae_aug.ingest.dicom.frames import (
    LABEL_MAP_SEGMENTATION_STORAGE,
    check_size,
    decode_frame,
    load_pixels,
)
from vae_aug.limits import (
    MAX_DICOM_DEPTH,
    MAX_IMAGE_BYTES,
    MAX_MARKED_PIXELS,
    MAX_PARTS,
    MAX_SEGMENTED_FRAMES,
    MAX_TEXT_BYTES,
    check_regular,
)

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


class RegionFault(NamedTuple):
    """Something that an object marks in an image and that has no box.

    Attributes:
        sop_instance_uid: SOP Instance UID of the image; `""` if the object does not tell which,
            so that it may be any of `Drawn.covered`, or any at all if that is empty.
        frame: Index of the image's frame, from 0; None: it may be any.
        reason: What is wrong, with the tag, and without identifiers.
        is_legal: Whether it is a legal mark that is no box, as a point, and no damage.
    """

    sop_instance_uid: str
    frame: int | None
    reason: str
    is_legal: bool = False


class Drawn(NamedTuple):
    """What a segmentation or a structured report says about images.

    An image, or a frame of it, has no lesions if it is in `covered` of an object, and in the
    `regions` and `faults` of none.

    Attributes:
        regions: The boxes in the order of the file.
        faults: What the object marks and no box can be made of, in the order of the file.
        covered: Images as (SOP Instance UID, index of the frame from 0, or None for all its
            frames) that the object is about, marked or not. Of a segmentation those that its
            frames are derived from, and those of its (0008,1115) Referenced Series Sequence, as a
            frame without a pixel of a segment may be left out. Of a report only those that it
            draws in, since it does not say that it looked at all others.
        unframed: UIDs of images that a region or a frame is derived from without a (0008,1160)
            Referenced Frame Number. It is then the only frame, and `frame` is 0. If such an image
            has several, it is not known which of them are meant.
    """

    regions: list[Region]
    faults: list[RegionFault]
    covered: frozenset[tuple[str, int | None]]
    unframed: frozenset[str] = frozenset()


def read_drawn(
    path: str | os.PathLike[str], *, threshold: float = 0.5, whole_segments: bool = False
) -> Drawn:
    """Read what a segmentation or a structured report marks, and which images it is about.

    Args:
        path: The DICOM file.
        threshold: As `read_regions`.
        whole_segments: As `read_regions`.

    Returns:
        Boxes, faults and the images. A frame of a segmentation that cannot be decoded is a fault.

    Raises:
        ValueError: On another threshold.
        DicomError: If the file is missing, damaged, beyond the bounds of `vae_aug.limits`, or
            neither segmentation nor report.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1]; got {threshold!r}.")
    with DicomErrors(path):
        check_regular(path, MAX_IMAGE_BYTES)
        dataset = read_dataset(path)
        kind = dataset.get("SOPClassUID")
        if kind in (SegmentationStorage, LABEL_MAP_SEGMENTATION_STORAGE):
            return _SegmentationReader(path, dataset, threshold, whole_segments).read()
        if "ContentSequence" in dataset:
            check_regular(path, MAX_TEXT_BYTES)
            check_whole(path, dataset)
            return _ReportReader(dataset).read()
        raise DicomError("is neither a segmentation nor a structured report.")


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
    drawn = read_drawn(path, threshold=threshold, whole_segments=whole_segments)
    for fault in drawn.faults:
        if not fault.is_legal:
            raise DicomError(f"{os.fspath(path)}: {fault.reason}")
    return drawn.regions


class _Reference(NamedTuple):
    """An image that an object refers to; `frames` are None if it names none of them."""

    sop_instance_uid: str
    frames: tuple[int, ...] | None


class _TooMuchError(DicomError):
    """A bound of the whole file, beyond which no other frame is looked at."""


class _Collector:
    """What is found while an object is read."""

    def __init__(self) -> None:
        self.regions: list[Region] = []
        self.faults: list[RegionFault] = []
        self.covered: set[tuple[str, int | None]] = set()
        self.unframed: set[str] = set()

    def cover(self, references: list[_Reference]) -> None:
        """Note that the object is about images."""
        for uid, frames in references:
            self.covered.update([(uid, None)] if frames is None else [(uid, f) for f in frames])
            if frames is None:
                self.unframed.add(uid)

    def report(self, references: list[_Reference], reason: str, *, is_legal: bool = False) -> None:
        """Note a fault in each of the images, or in an unknown one if there are none."""
        places = [(uid, f) for uid, frames in references for f in frames or (None,)]
        for uid, frame in places or [("", None)]:
            self.faults.append(RegionFault(uid, frame, reason, is_legal))

    def finish(self) -> Drawn:
        """Return what was found."""
        covered, unframed = frozenset(self.covered), frozenset(self.unframed)
        return Drawn(self.regions, self.faults, covered, unframed)


class _Mask(NamedTuple):
    """The pixels of a segment in a frame, `[h, w] bool`, and where they begin."""

    segment: int
    pixels: np.ndarray
    top: int
    left: int


class _SegmentationReader:
    """Reads a segmentation, PS3.3 C.8.20.2."""

    def __init__(
        self, path: str | os.PathLike[str], dataset: Dataset, threshold: float, whole: bool
    ) -> None:
        self._path, self._dataset = path, dataset
        self._threshold, self._whole = threshold, whole
        self._found = _Collector()
        self._looked_at = 0
        self._is_faint = False

    def read(self) -> Drawn:
        """Return what each frame marks."""
        check_size(self._dataset)
        frames = get_frames(self._dataset)
        if frames > MAX_SEGMENTED_FRAMES:
            raise DicomError(f"has {frames} frames; at most {MAX_SEGMENTED_FRAMES} are read.")
        load_pixels(self._path, self._dataset)
        names = self._list_names()
        self._found.cover(self._list_series())
        self._found.unframed.clear()
        for index in range(frames):
            self._read_frame(index, names)
        return self._found.finish()

    def _list_names(self) -> dict[int, str]:
        """Return the (0062,0005) Segment Label of each number."""
        items = get_items(self._dataset, "SegmentSequence")
        return {
            get_integer(i, "SegmentNumber") or 0: str(i.get("SegmentLabel") or "") for i in items
        }

    def _list_series(self) -> list[_Reference]:
        """Return the images of PS3.3 C.12.4.2, Common Instance Reference."""
        studies = get_items(self._dataset, "StudiesContainingOtherReferencedInstancesSequence")
        return [
            _Reference(str(item.get("ReferencedSOPInstanceUID") or ""), None)
            for place in (self._dataset, *studies)
            for series in get_items(place, "ReferencedSeriesSequence")
            for item in get_items(series, "ReferencedInstanceSequence")
        ]

    def _read_frame(self, index: int, names: dict[int, str]) -> None:
        references, lacks = self._find_references(index)
        self._found.cover(references)
        self._is_faint = False
        try:
            masks = self._split_frame(index)
            boxes = [(mask.segment, box) for mask in masks for box in self._find_boxes(mask)]
        except _TooMuchError:
            raise
        except DicomError as error:
            self._found.report(references, str(error))
            return
        if not boxes:
            if self._is_faint:
                reason = "its frame has no value of (0062,000E) that is high enough for a box"
                self._found.report(references, reason, is_legal=True)
            return
        if lacks:
            self._found.report(references, lacks)
            return
        (uid, frame) = references[0].sop_instance_uid, (references[0].frames or (0,))[0]
        for segment, box in boxes:
            if names.get(segment):
                self._found.regions.append(Region(uid, frame, names[segment], box))
            else:
                reason = f"(0062,0002) does not describe the segment {segment}."
                self._found.faults.append(RegionFault(uid, frame, reason))

    def _find_references(self, index: int) -> tuple[list[_Reference], str]:
        """Return the images under a frame, and why a box cannot be placed in exactly one."""
        derivation = _find_group(self._dataset, index, "DerivationImageSequence")
        sources = get_items(derivation, "SourceImageSequence") if derivation is not None else []
        if not sources and get_frames(self._dataset) == 1:
            series = get_items(self._dataset, "ReferencedSeriesSequence")
            sources = [i for one in series for i in get_items(one, "ReferencedInstanceSequence")]
        references, lacks = [], ""
        for source in sources:
            try:
                references.append(_read_reference(source))
            except DicomError as error:
                uid = str(source.get("ReferencedSOPInstanceUID") or "")
                references.append(_Reference(uid, None))
                lacks = str(error)
        if len(sources) != 1:
            lacks = (
                f"names {len(sources)} images for its frame {index} in (0008,2112) Source Image "
                "Sequence; exactly one is needed to know where a box belongs."
            )
        elif sources[0].get("SpatialLocationsPreserved", "YES") != "YES":
            lacks = "has other pixels than its image, (0028,135A) is not YES."
        elif references[0].frames is not None and len(references[0].frames) != 1:
            count = len(references[0].frames)
            lacks = f"names {count} frames of the image for its frame {index}."
        return references, lacks

    def _split_frame(self, index: int) -> Iterator[_Mask]:
        """Yield the segments of a frame."""
        pixels = decode_frame(self._path, self._dataset, index)
        if pixels.ndim != 2:
            raise DicomError("(0028,0002) Samples per Pixel must be 1 for a segmentation; got 3.")
        self._count(pixels.size // 4)
        kind = self._dataset.get("SegmentationType")
        if kind == "LABELMAP":
            yield from self._split_labels(pixels)
            return
        if kind not in ("BINARY", "FRACTIONAL"):
            raise DicomError(
                "(0062,0001) Segmentation Type must be BINARY, FRACTIONAL or LABELMAP; got another."
            )
        mask = pixels > 0 if kind == "BINARY" else pixels >= self._get_threshold()
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        # What is marked a little is not unmarked.
        self._is_faint = not rows.size and bool(pixels.any())
        if not rows.size:
            return
        item = _find_group(self._dataset, index, "SegmentIdentificationSequence")
        number = get_integer(item, "ReferencedSegmentNumber") if item is not None else None
        if number is None:
            raise DicomError(f"(0062,000A) does not tell the segment of frame {index}.")
        top, left = int(rows[0]), int(columns[0])
        yield _Mask(number, mask[top : rows[-1] + 1, left : columns[-1] + 1], top, left)

    def _split_labels(self, pixels: np.ndarray) -> Iterator[_Mask]:
        """Yield the segments of a frame of a label map, all but its background."""
        if pixels.dtype.kind not in "iu" or pixels.max() >= 2**16 or pixels.min() < 0:
            raise DicomError("has a label map whose values are not 0 to 65535.")
        background = int(next(iter(get_words(self._dataset, "PixelPaddingValue")), 0))
        # `find_objects` leaves out 0, which is a segment where the background is another number.
        places = ndimage.find_objects(pixels.astype(np.int32) + 1)
        for number, place in enumerate(places):
            if place is not None and number != background:
                yield _Mask(number, pixels[place] == number, place[0].start, place[1].start)

    def _get_threshold(self) -> float:
        most = get_finite(self._dataset, "MaximumFractionalValue")
        if not most or most < 0:
            raise DicomError("(0062,000E) Maximum Fractional Value must be above 0.")
        return self._threshold * most

    def _find_boxes(self, mask: _Mask) -> list[Box]:
        """Return the boxes of a mask, or of its connected parts."""
        self._count(2 * mask.pixels.size)
        if self._whole:
            parts, count = mask.pixels.astype(np.uint8), 1
        else:
            parts, count = ndimage.label(mask.pixels, _EIGHT_NEIGHBOURS)
        if count + len(self._found.regions) > MAX_PARTS:
            raise _TooMuchError(
                f"has more than {MAX_PARTS} parts; that many are not read of one file."
            )
        top, left = mask.top, mask.left
        return [
            (
                float(left + x.start),
                float(top + y.start),
                float(left + x.stop),
                float(top + y.stop),
            )
            for y, x in ndimage.find_objects(parts)
        ]

    def _count(self, pixels: int) -> None:
        """Refuse to go on for minutes; a pixel of a segment takes 8 times as long as another."""
        self._looked_at += pixels
        if self._looked_at > MAX_MARKED_PIXELS:
            raise _TooMuchError(
                f"has more than {MAX_MARKED_PIXELS} pixels in its frames, those around segments "
                "counted several times; that many are not read of one file."
            )


def _find_group(dataset: Dataset, index: int, keyword: str) -> Dataset | None:
    """Return what a functional group says of a frame: its own, else the shared one."""
    own = get_items(dataset, "PerFrameFunctionalGroupsSequence")
    shared = get_items(dataset, "SharedFunctionalGroupsSequence")
    for groups in (*own[index : index + 1], *shared[:1]):
        for item in get_items(groups, keyword)[:1]:
            return item
    return None


def _read_reference(item: Dataset) -> _Reference:
    """Return the image that an item refers to, and its frames, from 0."""
    uid = str(item.get("ReferencedSOPInstanceUID") or "")
    if not uid:
        raise DicomError("(0008,1155) Referenced SOP Instance UID is missing.")
    values = get_values(item, "ReferencedFrameNumber")
    numbers = [int(value) for value in values if value is not None]
    if min(numbers, default=1) < 1:
        raise DicomError(
            f"(0008,1160) Referenced Frame Number must be at least 1; got {min(numbers)}."
        )
    return _Reference(uid, tuple(number - 1 for number in numbers) or None)


class _ReportReader:
    """Reads a structured report, PS3.3 C.17.3."""

    def __init__(self, dataset: Dataset) -> None:
        self._report = dataset
        self._found = _Collector()

    def read(self) -> Drawn:
        """Walk through the tree of the report, in its order."""
        waiting = [(self._report, "", 0)]
        in_space = 0
        while waiting:
            item, finding, depth = waiting.pop()
            if depth > MAX_DICOM_DEPTH:
                raise DicomError(
                    f"(0040,A730) Content Sequence is nested deeper than {MAX_DICOM_DEPTH}."
                )
            children = get_items(item, "ContentSequence")
            finding = _name_finding(children) or finding
            if item.get("ValueType") == "SCOORD":
                self._read_outline(item, children, finding)
            in_space += item.get("ValueType") == "SCOORD3D"
            waiting.extend((child, finding, depth + 1) for child in reversed(children))
        if in_space:
            reason = f"has {in_space} regions in space, SCOORD3D, which are not read."
            self._found.report(self._list_evidence(), reason, is_legal=True)
        return self._found.finish()

    def _list_evidence(self) -> list[_Reference]:
        """Return the images that the report as a whole goes by, PS3.3 C.17.2.3."""
        return [
            _Reference(str(item.get("ReferencedSOPInstanceUID") or ""), None)
            for kind in ("CurrentRequestedProcedure", "PertinentOther")
            for study in get_items(self._report, f"{kind}EvidenceSequence")
            for series in get_items(study, "ReferencedSeriesSequence")
            for item in get_items(series, "ReferencedSOPSequence")
        ]

    def _read_outline(self, item: Dataset, children: Sequence[Dataset], finding: str) -> None:
        """Read an item of spatial coordinates, once for each frame it is drawn in."""
        references: list[_Reference] = []
        try:
            images = [
                image
                for child in children
                for image in get_items(self._resolve(child), "ReferencedSOPSequence")
            ]
            if not images:
                raise DicomError("has a region that is drawn in no image.")
            references = [_read_reference(image) for image in images]
            self._found.cover(references)
            is_whole = item.get("PixelOriginInterpretation") == "VOLUME"
            if is_whole and any(i.get("ReferencedSOPClassUID") in _TILED for i in images):
                raise DicomError(
                    "(0048,0301) Pixel Origin Interpretation must be FRAME for a tiled image; got "
                    "VOLUME, coordinates in the slide as a whole."
                )
            kind = str(item.get("GraphicType") or "")
            if kind in ("POINT", "MULTIPOINT"):
                reason = f"has a {kind}, which has no area."
                self._found.report(references, reason, is_legal=True)
                return
            box = _find_outline_box(kind, _get_points(item))
            label = finding or _get_meaning(item, "ConceptNameCodeSequence")
            if not label:
                raise DicomError("has a region without a finding or a name.")
        except DicomError as error:
            self._found.report(references, str(error))
            return
        if not (box[0] < box[2] and box[1] < box[3]):
            reason = f"has a {kind}, which encloses no area."
            self._found.report(references, reason, is_legal=True)
            return
        for uid, frames in references:
            self._found.regions.extend(Region(uid, f, label, box) for f in frames or (0,))

    def _resolve(self, item: Dataset) -> Dataset:
        """Follow a reference to another content item, PS3.3 C.17.3.2.5."""
        if "ReferencedContentItemIdentifier" not in item:
            return item
        found = self._report
        positions = get_values(item, "ReferencedContentItemIdentifier")[1:]
        for position in positions[:MAX_DICOM_DEPTH]:
            children = get_items(found, "ContentSequence")
            if not isinstance(position, int) or not 1 <= position <= len(children):
                raise DicomError("(0040,DB73) Referenced Content Item Identifier leads nowhere.")
            found = children[position - 1]
        return found


def _name_finding(items: Sequence[Dataset]) -> str:
    """Return the meaning of the finding among content items, `""` if there is none."""
    for code in _FINDINGS:
        for item in items:
            for name in get_items(item, "ConceptNameCodeSequence")[:1]:
                key = (str(name.get("CodeValue")), str(name.get("CodingSchemeDesignator")))
                if key == code and (meaning := _get_meaning(item, "ConceptCodeSequence")):
                    return meaning
    return ""


def _get_meaning(item: Dataset, keyword: str) -> str:
    """Return the (0008,0104) Code Meaning of the first code, `""` if there is none."""
    codes = get_items(item, keyword)[:1]
    return str(codes[0].get("CodeMeaning") or "") if codes else ""


def _get_points(item: Dataset) -> np.ndarray:
    """Return (0070,0022) Graphic Data, `[N] float64`."""
    if "GraphicData" not in item:
        raise DicomError("(0070,0022) Graphic Data is missing.")
    element: Any = item.get_item("GraphicData")
    # As objects, a million points would take seconds.
    if isinstance(element, RawDataElement) and element.VR in (None, "FL", "UN"):
        data = element.value or b""
        kind = "<f4" if element.is_little_endian else ">f4"
        return np.frombuffer(data[: len(data) // 4 * 4], kind).astype(np.float64)
    try:
        return np.atleast_1d(np.array(get_values(item, "GraphicData"), np.float64))
    except (TypeError, ValueError):
        raise DicomError("(0070,0022) Graphic Data must be numbers; got others.") from None


def _find_outline_box(kind: str, data: np.ndarray) -> Box:
    """Return the box around graphic data, pairs of column and row."""
    if kind not in ("CIRCLE", "ELLIPSE", "POLYLINE"):
        # What a text element holds is not repeated: it may be anything, a name too.
        raise DicomError(
            "(0070,0023) Graphic Type must be POLYLINE, CIRCLE or ELLIPSE; got another."
        )
    points = data[: len(data) // 2 * 2].reshape(-1, 2)
    expected = {"CIRCLE": 2, "ELLIPSE": 4}.get(kind, len(points))
    is_odd = len(data) % 2 == 1
    if is_odd or len(points) != expected or len(points) < 2 or not np.isfinite(points).all():
        raise DicomError(
            f"(0070,0022) Graphic Data do not suit a {kind}: {len(data) / 2:g} points."
        )
    if kind == "CIRCLE":
        center, extent = points[0], math.dist(*points)
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
