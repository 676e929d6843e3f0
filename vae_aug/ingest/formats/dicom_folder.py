"""Folders of DICOM files."""

from __future__ import annotations

import collections
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vae_aug.errors import AnnotationError, DicomError
from vae_aug.ingest.dicom.file import read_dataset
from vae_aug.ingest.formats.dicom_files import list_files, list_strays, read_headers
from vae_aug.ingest.formats.dicom_marks import Doubt, Marks, Picture
from vae_aug.ingest.formats.layout import find_split_folder
from vae_aug.ingest.formats.mask_files import is_called_mask
from vae_aug.ingest.formats.pixels import refuse_relative
from vae_aug.ingest.formats.source import (
    DEFAULTS,
    AnnotatedImage,
    Annotations,
    Box,
    Collector,
    Fault,
    ReaderOptions,
    reader,
)
from vae_aug.ingest.items import DicomFrame
from vae_aug.words import plural

_LOST = (
    "file",
    "cannot be read and may be an annotation; images without boxes count as faulty. Repair or "
    "remove this file",
    "cannot be read and may be annotations; images without boxes count as faulty. Repair or remove "
    "these files",
)
_MASKS = (
    "DICOM image",
    "is called a mask, which is not read; images without boxes count as faulty. Save masks as PNG, "
    "and name the format masks",
    "are called masks, which are not read; images without boxes count as faulty. Save masks as "
    "PNG, and name the format masks",
)
_STRAYS = (
    "DICOM or XML file",
    "lies in no folder of a split and was not read; as it may be an annotation, images without "
    "boxes count as faulty",
    "lie in no folder of a split and were not read; as they may be annotations, images without "
    "boxes count as faulty",
)


@reader
def read_dicom_folder(
    source: str | os.PathLike[str], split: str = "train", options: ReaderOptions = DEFAULTS
) -> Annotations:
    """Read a folder of DICOM files, and the boxes that objects and files among them give.

    Every file below the folder that has the DICOM prefix or the suffix `.dcm` is an image, in
    the order of their paths, or several if it has several frames. Boxes come from `.xml` files of
    Pascal VOC named by SOP Instance UID or like the image's file, and from segmentations and
    structured reports, as `vae_aug.ingest.dicom.regions.read_drawn` makes them. Labels are all
    names in these, sorted.

    An image without boxes is said to have none by an XML file without objects, or by a
    segmentation that is about it and marks nothing in it. Of any other image nothing is said. A
    segmentation, report or XML file that cannot be read, or none of whose images is there, and an
    object that marks images in another way, such as an RT structure set, make the images without
    boxes of its study faulty; an overlay its own; a segmentation or report that is damaged, all of
    its study. A file that does not even tell what it is (cut short, a pointer of Git LFS, a link to
    nothing) may be a segmentation: it makes all images without boxes faulty. So does one that lies
    in no split's folder while others do, and an image that is called a mask while others are not,
    which is left out.

    Args:
        source: The folder; where it has a folder of the split's name, that one.
        split: Which split.
        options: How it is read.

    Returns:
        The annotations; `source_id` is the SOP Instance UID, with `#` and the number of the
        frame from 0 where the file has several; `patient` is the Patient ID.

    Raises:
        AnnotationError: If the folder is missing or holds no DICOM file.
    """
    return _read_folder(Path(source), split, options)


@reader
def read_dicom_objects(source: Path, split: str, options: ReaderOptions) -> Annotations:
    """Read a folder of DICOM files as `read_dicom_folder`, but no XML files.

    Args:
        source: The folder.
        split: Which split.
        options: How it is read.

    Returns:
        The annotations.

    Raises:
        AnnotationError: If the folder is missing or holds no DICOM file.
    """
    return _read_folder(source, split, options, has_xml=False)


def _read_folder(
    source: Path, split: str, options: ReaderOptions, *, has_xml: bool = True
) -> Annotations:
    if not source.is_dir():
        raise AnnotationError(f"{source}: no such folder; give the folder of the DICOM files.")
    folder = find_split_folder(source, split) or source
    collector = Collector(source, options)
    files = list_files(collector, [folder, *filter(None, [options.images])])
    if not files.dicom:
        raise AnnotationError(f"{folder}: holds no DICOM file.")
    headers = read_headers(collector, files.dicom)
    pictures = _leave_out_masks(collector, headers.pictures)
    marks = Marks(collector, pictures)
    marks.doubt_unread(len(headers.pictures) - len(pictures), *_MASKS)
    marks.doubt_unread(files.lost + headers.lost, *_LOST)
    if folder != source:
        marks.doubt_unread(len(list_strays(source) - {*files.dicom, *files.xml}), *_STRAYS)
    for path, header in headers.objects:
        marks.read_object(path, header)
    for path in files.xml if has_xml else ():
        marks.read_xml(path)
    _add_images(collector, pictures, marks)
    refuse_relative(collector)
    return collector.finish(sorted(marks.names))


def _leave_out_masks(collector: Collector, pictures: Sequence[Picture]) -> Sequence[Picture]:
    """Return the pictures without those that are called masks while others are not."""
    masks = [one for one in pictures if is_called_mask(one.path, collector.root)]
    if len(masks) == len(pictures):
        return pictures
    for mask in masks:
        collector.report(mask.path, "is called a mask, and masks in DICOM are not read")
    left_out = {mask.path for mask in masks}
    return [picture for picture in pictures if picture.path not in left_out]


def _add_images(collector: Collector, pictures: Sequence[Picture], marks: Marks) -> None:
    """Add every frame of the pictures to the collector, with what is said of it."""
    ambiguous = _find_ambiguous(pictures)
    studies: dict[str, str] = {}
    for picture in pictures:
        header = picture.header
        key = header.sop_instance_uid or collector.relate(picture.path)
        for frame in range(header.frames):
            entries = marks.entries.get((picture.key, frame))
            if entries is not None and picture.key in ambiguous:
                reason = "files of other pixels have the same (0008,0018) SOP Instance UID"
                entries = [*entries, Fault(reason, "unread")]
            if header.has_overlay and not any(isinstance(e, Box) for e in entries or ()):
                reason = "an overlay (60xx,3000) is drawn in it, which is not read"
                entries = [*(entries or ()), Fault(reason, "unread")]
            source_id = key if header.frames == 1 else f"{key}#{frame}"
            studies[source_id] = header.study_instance_uid
            collector.add(
                DicomFrame(picture.path, frame, is_only=header.frames == 1),
                entries,
                file=marks.files.get((picture.key, frame)),
                size=marks.sizes.get(picture.key, (None, None)),
                patient=header.patient_id,
                source_id=source_id,
            )
    if marks.drawn_boxes:
        collector.notes.append(
            plural(marks.drawn_boxes, "box", "is from ", "are from ")
            + plural(
                marks.drawn_objects,
                "DICOM segmentation",
                "or structured report",
                "and structured reports",
            )
        )
    for doubt in dict.fromkeys(marks.doubts):
        _apply_doubt(collector, doubt, studies)


def _find_ambiguous(pictures: Iterable[Picture]) -> set[str]:
    """Return the UIDs that files of different pixels share."""
    files: dict[str, list[Path]] = collections.defaultdict(list)
    for picture in pictures:
        files[picture.key].append(picture.path)
    return {key for key, paths in files.items() if len(paths) > 1 and not _are_alike(paths)}


def _are_alike(paths: list[Path]) -> bool:
    """Tell whether files hold the same pixels, as far as that can be told without decoding."""
    first, *others = paths
    try:
        for path in others:
            one, other = (read_dataset(p) for p in (first, path))
            same = one.get("PixelData") == other.get("PixelData")
            if not same or (one.get("Rows"), one.get("Columns")) != (
                other.get("Rows"),
                other.get("Columns"),
            ):
                return False
    except (DicomError, OSError, ValueError, NotImplementedError):
        return False
    return True


def _apply_doubt(collector: Collector, doubt: Doubt, studies: Mapping[str, str]) -> None:
    """Mark images of the doubt's study as faulty, or all if no image is of that study."""
    everywhere = not doubt.study or doubt.study not in studies.values()

    def is_meant(image: AnnotatedImage) -> bool:
        of_study = everywhere or studies[image.source_id] == doubt.study
        return (
            of_study
            and image.annotation != "faulty"
            and not (doubt.only_annotated and image.annotation == "none")
            and not (doubt.only_without_boxes and image.labels)
        )

    if any(map(is_meant, collector.images)):
        collector.doubt(doubt.reason, is_meant)
