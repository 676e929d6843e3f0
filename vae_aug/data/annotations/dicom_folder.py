"""Folders of DICOM files."""

from __future__ import annotations

import os
from pathlib import Path

from vae_aug.data.annotations.layout import find_split_folder, looks_like_dicom
from vae_aug.data.annotations.source import Annotations, Collector, describe_fault, keep_named
from vae_aug.data.annotations.voc import parse_voc
from vae_aug.data.dicom import read_header
from vae_aug.errors import AnnotationError, DicomError


def read_dicom_folder(source: str | os.PathLike[str], split: str = "train") -> Annotations:
    """Read a folder of DICOM files, with Pascal VOC files named by SOP Instance UID, if any.

    Every file below the folder that has the DICOM prefix or the suffix `.dcm` is an image, in
    the order of their paths, or several if it has several frames; every `.xml` file is an
    annotation. Labels are all names in the XML files, sorted.

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
    seen = set()
    for path in dicom_files:
        try:
            header = read_header(path)
        except DicomError as error:
            collector.report(path, describe_fault(path, error))
            continue
        uid = header.sop_instance_uid
        seen.add(uid)
        if uid in parsed and parsed[uid] is None:
            collector.report(path, "its annotation is no valid XML of Pascal VOC")
            continue
        if not header.is_image:
            collector.report(path, "no picture, but a segmentation, report or other object")
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
                boxes,
                size=voc.size if voc else (None, None),
                patient=header.patient_id,
                source_id=key if header.frames == 1 else f"{key}#{frame}",
                frame=frame,
            )
    for uid, path in xml_files.items():
        if uid not in seen:
            collector.report(path, "no DICOM file has this SOP Instance UID")
    names = {box.label for voc in parsed.values() if voc for box in voc.boxes if box.label}
    return collector.finish(sorted(names))
