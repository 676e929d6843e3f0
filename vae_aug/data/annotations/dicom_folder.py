"""Folders of DICOM files."""

from __future__ import annotations

import collections
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from vae_aug.data.annotations.layout import find_split_folder, looks_like_dicom
from vae_aug.data.annotations.source import (
    Annotations,
    Box,
    Collector,
    describe_fault,
    keep_named,
)
from vae_aug.data.annotations.voc import parse_voc
from vae_aug.data.dicom import DicomHeader, read_header
from vae_aug.data.dicom_regions import Region, read_regions
from vae_aug.errors import AnnotationError, DicomError

_Size = tuple[int | None, int | None]


class _Drawn(NamedTuple):
    """The regions of one segmentation or report, and the size of its frames if it has any."""

    path: Path
    size: _Size
    regions: list[Region]


def read_dicom_folder(source: str | os.PathLike[str], split: str = "train") -> Annotations:
    """Read a folder of DICOM files, and the boxes that objects and files among them give.

    Every file below the folder that has the DICOM prefix or the suffix `.dcm` is an image, in
    the order of their paths, or several if it has several frames. Boxes come from `.xml` files of
    Pascal VOC named by SOP Instance UID, and from segmentations and structured reports, as
    `vae_aug.data.dicom_regions.read_regions` makes them. Labels are all names in these, sorted.

    Args:
        source: The folder; where it has a folder of the split's name, that one.
        split: Which split.

    Returns:
        The annotations; `source_id` is the SOP Instance UID, with `#` and the number of the
        frame from 0 where the file has several; `patient` is the Patient ID.

    Raises:
        AnnotationError: If the folder is missing or holds no DICOM file.
    """
    source = Path(source)
    if not source.is_dir():
        raise AnnotationError(f"{source}: no such folder; give the folder of the DICOM files.")
    folder = find_split_folder(source, split) or source
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    xml_files = {path.stem: path for path in files if path.suffix.lower() == ".xml"}
    dicom_files = [p for p in files if p.name != "DICOMDIR" and looks_like_dicom(p)]
    if not dicom_files:
        raise AnnotationError(f"{folder}: holds no DICOM file.")
    parsed = {uid: parse_voc(path) for uid, path in xml_files.items()}
    collector = Collector(source)
    pictures, objects = _read_objects(collector, dicom_files)
    drawn, sizes = _place(collector, pictures, objects)
    for path, header in pictures:
        uid = header.sop_instance_uid
        if uid in parsed and parsed[uid] is None:
            collector.report(path, "its annotation is no valid XML of Pascal VOC")
            continue
        voc = parsed.get(uid)
        if voc and header.frames > 1:
            reason = "its image has several frames, and the annotation names none of them"
            collector.report(xml_files[uid], reason)
            voc = None
        boxes = tuple(keep_named(collector, xml_files[uid], voc.boxes)) if voc else ()
        for frame in range(header.frames):
            key = uid or collector.relate(path)
            collector.add(
                path,
                (*boxes, *drawn.get((uid, frame), ())),
                size=voc.size if voc else sizes.get(uid, (None, None)),
                patient=header.patient_id,
                source_id=key if header.frames == 1 else f"{key}#{frame}",
                frame=frame,
            )
    known = {header.sop_instance_uid for _, header in pictures}
    for uid, path in xml_files.items():
        if uid not in known:
            collector.report(path, "no DICOM image has this SOP Instance UID")
    names = {box.label for voc in parsed.values() if voc for box in voc.boxes if box.label}
    names |= {box.label for boxes in drawn.values() for box in boxes}
    if count := sum(map(len, drawn.values())):
        collector.notes.append(
            f"{count} boxes are from {len(objects)} DICOM segmentations and structured reports"
        )
    return collector.finish(sorted(names))


def _read_objects(
    collector: Collector, paths: Iterable[Path]
) -> tuple[list[tuple[Path, DicomHeader]], list[_Drawn]]:
    """Return the pictures, and the objects that draw regions in them; report the others."""
    pictures, objects = [], []
    for path in paths:
        try:
            header = read_header(path)
            if header.is_image:
                pictures.append((path, header))
                continue
            regions = read_regions(path)
        except DicomError as error:
            collector.report(path, describe_fault(path, error))
            continue
        if not regions:
            collector.report(path, "no picture, and no region is drawn in it")
            continue
        size = (header.height or None, header.width or None)
        objects.append(_Drawn(path, size, regions))
    return pictures, objects


def _place(
    collector: Collector, pictures: Iterable[tuple[Path, DicomHeader]], objects: Iterable[_Drawn]
) -> tuple[dict[tuple[str, int], list[Box]], dict[str, _Size]]:
    """Return the boxes of each frame, and the sizes that segmentations claim for images."""
    frames = {header.sop_instance_uid: header.frames for _, header in pictures}
    drawn: dict[tuple[str, int], list[Box]] = collections.defaultdict(list)
    sizes: dict[str, _Size] = {}
    for path, size, regions in objects:
        for index, region in enumerate(regions):
            uid = region.sop_instance_uid
            if region.frame >= frames.get(uid, 0):
                lacking = (
                    "its image has not that frame" if uid in frames else "its image is missing"
                )
                collector.report(path, f"region {index}: {lacking}", "dropped")
                continue
            drawn[uid, region.frame].append(Box(region.box, region.label))
            if size[0]:
                sizes[uid] = size
    return drawn, sizes
