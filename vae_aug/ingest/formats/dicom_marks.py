"""What objects and XML files in a folder of DICOM files say of the pictures in it."""

from __future__ import annotations

import collections
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pydicom.uid import (
    EncapsulatedOBJStorage,
    EncapsulatedSTLStorage,
    KeyObjectSelectionDocumentStorage,
    MicroscopyBulkSimpleAnnotationsStorage,
    RTSegmentAnnotationStorage,
    RTStructureSetStorage,
    SegmentationStorage,
    SpatialFiducialsStorage,
    SurfaceSegmentationStorage,
)

from vae_aug.errors import AnnotationError, DicomError
from vae_aug.ingest.dicom.file import DicomErrors, read_dataset
from vae_aug.ingest.dicom.frames import LABEL_MAP_SEGMENTATION_STORAGE
from vae_aug.ingest.dicom.image import DicomHeader
from vae_aug.ingest.dicom.regions import Drawn, read_drawn
from vae_aug.ingest.formats.layout import IMAGE_SUFFIXES, fold_name
from vae_aug.ingest.formats.matching import flag_other_format
from vae_aug.ingest.formats.pixels import flag_relative
from vae_aug.ingest.formats.source import Box, Collector, Effect, Fault, describe_fault
from vae_aug.ingest.formats.voc import Voc, parse_voc
from vae_aug.words import plural

_PRESENTATION_STATES = "1.2.840.10008.5.1.4.1.1.11."
_OVERLAY = 0x60
_REPORTS = "1.2.840.10008.5.1.4.1.1.88."
_SEGMENTATIONS = (SegmentationStorage, LABEL_MAP_SEGMENTATION_STORAGE)
_NOT_READ: Mapping[str, str] = {
    RTSegmentAnnotationStorage: "an RT segment annotation",
    RTStructureSetStorage: "an RT structure set",
    SurfaceSegmentationStorage: "a surface segmentation",
    MicroscopyBulkSimpleAnnotationsStorage: "a set of microscopy annotations",
    SpatialFiducialsStorage: "a set of fiducials",
    EncapsulatedSTLStorage: "a surface in an STL file",
    EncapsulatedOBJStorage: "a surface in an OBJ file",
    KeyObjectSelectionDocumentStorage: "a selection of key images",
}
"""SOP classes that mark images in ways that are not read, PS3.4 B.5."""

_Size = tuple[int | None, int | None]
_UNKNOWN: _Size = (None, None)
_Entry = Box | Fault
_Place = tuple[str, int]


class Picture(NamedTuple):
    """A DICOM file that is a picture."""

    path: Path
    header: DicomHeader

    @property
    def key(self) -> str:
        """What annotations know it by: its SOP Instance UID, else its path."""
        return self.header.sop_instance_uid or os.fspath(self.path)


class Doubt(NamedTuple):
    """An annotation of which it cannot be told which images of a study it marks, and where."""

    reason: str
    study: str
    only_without_boxes: bool
    only_annotated: bool = False


class Marks:
    """What objects and XML files say of pictures.

    Attributes:
        names: All labels.
        entries: What is said of each frame, by the key of its picture and its index from 0;
            nothing is said of a frame that is not there.
        files: The file of the first fault of each frame that has one.
        sizes: Height and width that annotations claim, by the keys of pictures.
        doubts: Annotations whose images are not known for certain.
        drawn_boxes: How many boxes are from segmentations and reports.
        drawn_objects: From how many of these.
    """

    def __init__(self, collector: Collector, pictures: Iterable[Picture]) -> None:
        """Begin with pictures of which nothing is said; problems go to the collector."""
        self.names: set[str] = set()
        self._collector = collector
        self._frames: dict[str, int] = {}
        self._named: dict[str, list[Picture]] = collections.defaultdict(list)
        for picture in pictures:
            self._frames[picture.key] = max(picture.header.frames, self._frames.get(picture.key, 0))
            self._named[_shorten(picture.path.name)].append(picture)
        self.entries: dict[_Place, list[_Entry]] = {}
        self.files: dict[_Place, Path] = {}
        self._xml: dict[str, list[_Entry]] = {}
        self.sizes: dict[str, _Size] = {}
        self.doubts: list[Doubt] = []
        self.drawn_boxes = self.drawn_objects = 0

    def read_object(self, path: Path, header: DicomHeader) -> None:
        """Read an object that is no picture."""
        kind = header.sop_class_uid
        try:
            if kind.startswith(_PRESENTATION_STATES) and not _has_graphics(path):
                self._collector.report(path, "a presentation state without graphics: marks nothing")
            elif name := _name_unread(kind):
                self._collector.report(path, f"{name}, which is not read")
                reason = f"{name} is not read; images of its study without boxes count as faulty"
                self.doubts.append(Doubt(reason, header.study_instance_uid, True))
            else:
                self._place(path, header, read_drawn(path))
        except DicomError as error:
            self._collector.report(path, describe_fault(path, error))
            if marks_images(kind):
                self._doubt_all(header)

    def doubt_unread(self, count: int, noun: str, is_one: str, are_many: str) -> None:
        """Doubt all images without boxes if files were not read that may be annotations.

        Args:
            count: How many.
            noun: What one of them is.
            is_one: Why one was not read, and what follows.
            are_many: The same of several.
        """
        if count:
            self.doubts.append(Doubt(plural(count, noun, is_one, are_many), "", True))

    def _doubt_all(self, header: DicomHeader) -> None:
        reason = (
            "a DICOM object marks images, and it cannot be read which; images of its study count "
            "as faulty"
        )
        self.doubts.append(Doubt(reason, header.study_instance_uid, False))

    def _place(self, path: Path, header: DicomHeader, drawn: Drawn) -> None:
        """Take what a segmentation or report says to the frames of pictures."""
        self.names |= {region.label for region in drawn.regions}
        about = {uid for uid, _ in drawn.covered}
        about |= {region.sop_instance_uid for region in drawn.regions}
        about |= {wrong.sop_instance_uid for wrong in drawn.faults} - {""}
        if not about and not drawn.faults:
            self._collector.report(path, "no picture, and no region is drawn in it")
            return
        if about and not about & set(self._frames):
            reason = (
                "a segmentation or report marks images of which none is there; images of its study "
                "without boxes count as faulty"
            )
            self.doubts.append(Doubt(reason, header.study_instance_uid, True))
        if not all(wrong.sop_instance_uid for wrong in drawn.faults):
            # Those that it is about need not be all that it may mark.
            self._doubt_all(header)
        for uid, frame in drawn.covered:
            for place in self._list_places(uid, frame):
                self.entries.setdefault(place, [])
        size = (header.height or None, header.width or None)
        for index, region in enumerate(drawn.regions):
            uid = region.sop_instance_uid
            if region.frame < self._frames.get(uid, 0):
                self._say(path, [(uid, region.frame)], Box(region.box, region.label))
                self._claim_size(path, uid, size)
                self.drawn_boxes += 1
            elif uid in self._frames:
                fault = Fault(f"region {index}: its image has not that frame")
                self._say(path, self._list_places(uid, None), fault)
            else:
                self._collector.report(path, f"region {index}: its image is missing", "dropped")
        self.drawn_objects += bool(drawn.regions)
        for uid in sorted(drawn.unframed):
            if self._frames.get(uid, 0) > 1:
                fault = Fault("it names none of the frames of an image of several", "unread")
                self._say(path, self._list_places(uid, None), fault)
        self._place_faults(path, drawn)

    def _place_faults(self, path: Path, drawn: Drawn) -> None:
        for wrong in drawn.faults:
            if uid := wrong.sop_instance_uid:
                places = list(self._list_places(uid, wrong.frame))
                self._place_fault(path, places or list(self._list_places(uid, None)), wrong.reason)
        if unplaced := [wrong for wrong in drawn.faults if not wrong.sop_instance_uid]:
            reason = unplaced[0].reason.rstrip(".")
            reason += f", and {len(unplaced) - 1} faults more" if unplaced[1:] else ""
            found = {place for one in drawn.covered for place in self._list_places(*one)}
            self._place_fault(path, sorted(found), reason, "unread")

    def _place_fault(
        self, path: Path, places: list[_Place], reason: str, effect: Effect = "dropped"
    ) -> None:
        reason = reason.rstrip(".")
        self._say(path, places, Fault(reason, effect))
        if not places:
            self._collector.report(path, reason, effect)

    def _list_places(self, uid: str, frame: int | None) -> Iterator[_Place]:
        """Yield the frames that are there of an image, of which all are meant or one."""
        count = self._frames.get(uid, 0)
        wanted = range(count) if frame is None else range(frame, frame + 1)
        return ((uid, index) for index in wanted if 0 <= index < count)

    def _say(self, path: Path, places: Iterable[_Place], entry: _Entry) -> None:
        for place in places:
            self.entries.setdefault(place, []).append(entry)
            if isinstance(entry, Fault):
                self.files.setdefault(place, path)

    def _claim_size(self, path: Path, key: str, size: _Size) -> None:
        """Note what an annotation takes for the size of a picture; two must agree."""
        if size != _UNKNOWN and self.sizes.setdefault(key, size) != size:
            fault = Fault("its size is not that of another annotation of the image", "unread")
            self._say(path, self._list_places(key, None), fault)

    def read_xml(self, path: Path) -> None:
        """Read a file of Pascal VOC."""
        try:
            voc = parse_voc(path)
        except AnnotationError as error:
            voc = Voc(entries=(Fault(describe_fault(path, error), "unread"),))
        self.names |= voc.names
        key = self._find_picture(path, voc.filename)
        if voc.entries is None:
            return
        image = path.with_suffix(".dcm")
        entries = flag_other_format(image, voc.entries, voc.filename, voc.size)
        entries = flag_relative(entries, voc.size)
        if key is None:
            unread = [one.reason for one in entries if isinstance(one, Fault)][:1]
            reason = "no DICOM image has this SOP Instance UID or name"
            self._collector.report(path, "; ".join([reason, *unread]))
            reason = (
                "an XML file names no DICOM image that is there; images without boxes count as "
                "faulty"
            )
            self.doubts.append(Doubt(reason, "", True, only_annotated=not entries))
            return
        if self._frames[key] > 1:
            reason = "its image has several frames, and the annotation names none of them"
            entries = [Fault(reason, "unread")]
        if self._xml.setdefault(key, entries) is not entries:
            if self._xml[key] == entries:
                return
            entries = [Fault("another XML file says something else of its image", "unread")]
        for place in self._list_places(key, None):
            self.entries.setdefault(place, [])
            for entry in entries:
                self._say(path, [place], entry)
        self._claim_size(path, key, voc.size)

    def _find_picture(self, xml: Path, filename: str) -> str | None:
        """Find the picture of an XML file by UID, by the file's name, or by the name in it."""
        if xml.stem in self._frames:
            return xml.stem
        for name in (xml.stem, filename.replace("\\", "/").rpartition("/")[2]):
            named = self._named.get(_shorten(name), [])
            beside = [picture for picture in named if picture.path.parent == xml.parent]
            keys = {picture.key for picture in beside or named}
            if len(keys) == 1:
                return keys.pop()
        return None


def marks_images(sop_class_uid: str) -> bool:
    """Tell whether objects of a SOP class mark images, as far as they are known here."""
    return (
        sop_class_uid in _SEGMENTATIONS
        or sop_class_uid in _NOT_READ
        or sop_class_uid.startswith((_REPORTS, _PRESENTATION_STATES))
    )


def _shorten(name: str) -> str:
    """Return a name without the suffix of an image; a UID ends in numbers behind a point."""
    path = Path(fold_name(name))
    return path.stem if path.suffix in IMAGE_SUFFIXES else path.name


def _has_graphics(path: Path) -> bool:
    """Tell whether a presentation state draws in images, PS3.3 C.10.5."""
    with DicomErrors(path):
        dataset = read_dataset(path)
        # An overlay's group is any even number from 6000 to 60FF.
        tags = dataset.keys()
        has_overlay = any(tag.group >> 8 == _OVERLAY for tag in tags)
        if "GraphicAnnotationSequence" in dataset or has_overlay:
            return True
        # It is mandatory and comes behind graphics, which a file that is cut short has lost.
        if "ContentLabel" not in dataset:
            raise DicomError("(0070,0080) Content Label is missing; the file may be cut short.")
        return False


def _name_unread(sop_class_uid: str) -> str:
    """Name an object that marks images in a way that is not read; `""` for others."""
    if sop_class_uid.startswith(_PRESENTATION_STATES):
        return "a presentation state with graphics"
    return _NOT_READ.get(sop_class_uid, "")
