"""LIDC-IDRI: XML files of what four readers marked in CT series, beside the DICOM files."""

from __future__ import annotations

import collections
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vae_aug.errors import AnnotationError, DicomError
from vae_aug.ingest.dicom.elements import get_numbers
from vae_aug.ingest.dicom.file import DicomErrors, read_dataset
from vae_aug.ingest.dicom.image import DicomHeader, read_header
from vae_aug.ingest.formats.layout import find_split_folder, looks_like_dicom
from vae_aug.ingest.formats.source import (
    DEFAULTS,
    Annotations,
    Box,
    Collector,
    Fault,
    ReaderOptions,
    describe_fault,
    parse_number,
    reader,
)
from vae_aug.ingest.formats.text import parse_xml
from vae_aug.ingest.formats.walk import walk
from vae_aug.ingest.items import DicomFrame
from vae_aug.words import plural

_LABEL = "nodule"
_SAME_PLACE_MM = 0.01
_CT, _RADIOGRAPHS = "LidcReadMessage", "IdriReadMessage"


class _Reading(NamedTuple):
    """What one XML file says.

    Attributes:
        series: The Series Instance UID that it describes.
        slices: Boxes and faults by SOP Instance UID.
        places: Their z in mm, as the readers wrote them.
        faults: Faults of the whole series.
    """

    series: str
    slices: dict[str, list[Box | Fault]]
    places: dict[str, list[float]]
    faults: list[Fault]


@reader
def read_lidc(
    source: str | os.PathLike[str], split: str = "train", options: ReaderOptions = DEFAULTS
) -> Annotations:
    """Read the CT series of LIDC-IDRI, each a folder of DICOM files with an XML file.

    Every outline of every reader is a box with the label `nodule`: what one reader alone saw is
    there, and a nodule that four saw has four boxes, nearly alike. The pixels of an outline lie
    just outside the nodule, so the box leaves them out. Holes in a nodule do not count, nor do
    marks of what is no nodule.

    A series is described by the XML file of its Series Instance UID. A slice of it in which no
    reader marked a nodule has no boxes. A slice is faulty if a nodule in it is a point, which is
    how those below 3 mm are marked, or an outline without a pixel inside. All slices of a series
    are faulty if its files differ, or a nodule in it names none; so is one that lies where a slice
    with a nodule does that is missing. Slices of other series are unannotated. A file that cannot
    be read makes the images of its folder faulty; if there are none, all that are annotated.

    Args:
        source: The folder, read with all below it; where it has a folder of the split's name,
            that one.
        split: Which split.
        options: As in `ReaderOptions`.

    Returns:
        The annotations; `source_id` is the SOP Instance UID, `patient` the Patient ID.

    Raises:
        AnnotationError: If the folder is missing, holds no DICOM file, or no such XML file of CT.

    Reference:
        Armato et al., "The Lung Image Database Consortium (LIDC) and Image Database Resource
        Initiative (IDRI)", Med. Phys. 38 (2011) 915-931. TCIA, "LIDC XML file documentation":
        an `edgeMap` is in pixels from 0, and goes through the first pixels outside the nodule.
    """
    source = Path(source)
    if not source.is_dir():
        raise AnnotationError(f"{source}: no such folder; give the folder of the DICOM files.")
    folder = find_split_folder(source, split) or source
    collector = Collector(source, options)
    roots = [folder] if options.images is None else [folder, options.images]
    paths = [Path(entry.path) for root in roots for entry in walk(root)]
    files = dict.fromkeys(sorted(paths))
    # XML outside of the source is broken; whether it was meant for an image cannot be told.
    files = {
        path: None
        for path in files
        if path.is_file() and (path.suffix.lower() == ".xml" or collector.contains(path))
    }
    headers = dict(_read_headers(collector, files))
    if not headers:
        raise AnnotationError(f"{folder}: holds no DICOM image.")
    found, broken = _read_xml(collector, folder, files)
    readings = _Readings(found)
    readings.note_missing(collector, {header.sop_instance_uid for header in headers.values()})
    broken_folders = {path.parent for path in broken}
    for path, header in headers.items():
        entries = readings.list_entries(path, header)
        if path.parent in broken_folders:
            fault = Fault("an XML file of its folder cannot be read", "unread")
            entries = [*(entries or ()), fault]
        for frame in range(header.frames):
            key = header.sop_instance_uid or collector.relate(path)
            collector.add(
                DicomFrame(path, frame, is_only=header.frames == 1),
                entries,
                patient=header.patient_id,
                source_id=key if header.frames == 1 else f"{key}#{frame}",
            )
    if broken_folders - {path.parent for path in headers}:
        collector.doubt("an XML file cannot be read, and no DICOM file lies beside it")
    return collector.finish([_LABEL])


def is_lidc(root: ET.Element) -> bool:
    """Tell whether an XML file is that of LIDC-IDRI, of CT or of radiographs."""
    return _name(root) in (_CT, _RADIOGRAPHS)


def _name(element: ET.Element) -> str:
    """Return the tag of an element without its namespace."""
    return element.tag.rpartition("}")[2]


def _list(element: ET.Element, name: str) -> Iterator[ET.Element]:
    return (child for child in element if _name(child).lower() == name.lower())


def _get(element: ET.Element, *names: str) -> str:
    """Return the text of the first element at a path of names, `""` if there is none."""
    for name in names:
        found = next(_list(element, name), None)
        if found is None:
            return ""
        element = found
    return (element.text or "").strip()


def _read_headers(
    collector: Collector, files: dict[Path, None]
) -> Iterator[tuple[Path, DicomHeader]]:
    """Yield the headers of the DICOM images; report what cannot be read."""
    for path in files:
        if path.suffix.lower() == ".xml" or path.name == "DICOMDIR" or not looks_like_dicom(path):
            continue
        try:
            header = read_header(path)
        except DicomError as error:
            collector.report(path, describe_fault(path, error))
            continue
        if header.is_image:
            yield path, header


def _read_xml(
    collector: Collector, folder: Path, files: dict[Path, None]
) -> tuple[list[_Reading], list[Path]]:
    """Return what is said, one for each series, and the files that cannot be read."""
    readings: dict[str, _Reading] = {}
    broken: list[Path] = []
    for path in files:
        if path.suffix.lower() != ".xml" or path.name[:2] == "._":
            continue
        try:
            root = parse_xml(path)
        except AnnotationError as error:
            collector.report(path, describe_fault(path, error), "unread")
            broken.append(path)
            continue
        if _name(root) == _RADIOGRAPHS:
            collector.report(path, "describes radiographs (IdriReadMessage), which are not read")
        elif not is_lidc(root):
            collector.report(path, "no XML of LIDC-IDRI (LidcReadMessage)")
        else:
            reading = _parse_reading(root)
            first = readings.setdefault(reading.series, reading)
            if first != reading:
                first.faults.append(
                    Fault("several XML files describe its series differently", "unread")
                )
                first.slices.update({**reading.slices, **first.slices})
                first.places.update({**reading.places, **first.places})
    if not readings and not broken:
        raise AnnotationError(
            f"{folder}: holds no XML of LIDC-IDRI that describes CT (LidcReadMessage)."
        )
    return list(readings.values()), broken


def _parse_reading(root: ET.Element) -> _Reading:
    series = _get(root, "ResponseHeader", "SeriesInstanceUid")
    slices: dict[str, list[Box | Fault]] = collections.defaultdict(list)
    places: dict[str, list[float]] = collections.defaultdict(list)
    faults: list[Fault] = []
    sessions = list(_list(root, "readingSession"))
    if not series:
        faults.append(Fault("its XML file names no series", "unread"))
    if not sessions:
        faults.append(Fault("its XML file has no readingSession", "unread"))
    for number, session in enumerate(sessions):
        for index, nodule in enumerate(_list(session, "unblindedReadNodule")):
            place = f"readingSession {number}, nodule {index}"
            rois = list(_list(nodule, "roi"))
            if not rois or not all(_get(roi, "imageSOP_UID") for roi in rois):
                faults.append(Fault(f"{place}: names no image", "unread"))
            for uid, entry in _parse_nodule(place, rois):
                slices[uid].append(entry)
            for roi in rois:
                z = parse_number(_get(roi, "imageZposition"))
                places[_get(roi, "imageSOP_UID")].append(z)
    return _Reading(series, dict(slices), dict(places), faults)


def _parse_nodule(place: str, rois: list[ET.Element]) -> Iterator[tuple[str, Box | Fault]]:
    """Yield the boxes and faults of one reader's nodule by SOP Instance UID."""
    outlined = {_get(roi, "imageSOP_UID") for roi in rois if _is_included(roi)}
    for roi in rois:
        uid = _get(roi, "imageSOP_UID")
        if _is_included(roi):
            box = _bound(roi)
            yield uid, Fault(f"{place}: {box}") if isinstance(box, str) else box
        elif uid not in outlined:
            yield uid, Fault(f"{place}: has a hole and no outline")


def _is_included(roi: ET.Element) -> bool:
    return _get(roi, "inclusion").upper() != "FALSE"


def _bound(roi: ET.Element) -> Box | str:
    """Return the box of what an outline encloses; a string tells why it has none."""
    points = [
        [parse_number(_get(edge, "xCoord")), parse_number(_get(edge, "yCoord"))]
        for edge in _list(roi, "edgeMap")
    ]
    if not points:
        return "its outline has no points"
    if len(points) == 1:
        return "a nodule below 3 mm is marked by a point, which has no area"
    low, high = np.min(points, axis=0), np.max(points, axis=0)
    if not np.isfinite([low, high]).all():
        return "the coordinates of its outline are not all numbers"
    if (high - low < 2).any():
        return "its outline encloses no pixel"
    return Box([*(low + 1).tolist(), *high.tolist()], _LABEL)


class _Readings:
    """What the XML files say of slices."""

    def __init__(self, readings: Iterable[_Reading]) -> None:
        self._by_series = {reading.series: reading for reading in readings}
        self._by_slice: dict[str, list[_Reading]] = collections.defaultdict(list)
        for reading in self._by_series.values():
            for uid in reading.slices:
                self._by_slice[uid].append(reading)
        self._gaps: dict[str, list[float]] = {}

    def note_missing(self, collector: Collector, there: Set[str]) -> None:
        """Note slices with nodules that are missing.

        Args:
            collector: Takes the note.
            there: SOP Instance UIDs of what is there.
        """
        for series, reading in self._by_series.items():
            missing = reading.slices.keys() - there
            if missing:
                self._gaps[series] = [z for uid in missing for z in reading.places.get(uid, ())]
                collector.notes.append(
                    plural(
                        len(missing),
                        "slice of a series",
                        "that has nodules is missing",
                        "that have nodules are missing",
                    )
                )

    def list_entries(self, path: Path, header: DicomHeader) -> list[Box | Fault] | None:
        """Return what the readers say of a slice; None if no file describes it."""
        uid, series = header.sop_instance_uid, header.series_instance_uid
        own = self._by_series.get(series) if series else None
        about = self._by_slice.get(uid, []) if uid else []
        if own is None and not about:
            return None
        if header.frames > 1:
            return [Fault("has several frames, of which the XML file names none", "unread")]
        entries = [entry for reading in about for entry in reading.slices[uid]]
        if any(reading is not own for reading in about):
            entries.append(Fault("an XML file of another series names it", "unread"))
        if own is not None:
            entries += own.faults
        if series in self._gaps and _lies_at(path, self._gaps[series]):
            reason = "a slice that the XML file names is missing, and lies at the place of this one"
            entries.append(Fault(reason, "unread"))
        return entries


def _lies_at(path: Path, places: Sequence[float]) -> bool:
    """Tell whether a slice lies at one of some z, in mm, or may do so."""
    try:
        with DicomErrors(path):
            position = get_numbers(
                read_dataset(path, stop_before_pixels=True), "ImagePositionPatient"
            )
    except DicomError:
        return True
    z = position[2] if len(position) == 3 else None
    return z is None or not all(abs(z - place) > _SAME_PLACE_MM for place in places)
