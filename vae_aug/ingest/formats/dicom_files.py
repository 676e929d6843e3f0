"""Which files of a folder are DICOM, and which may be although they cannot be read."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info

from vae_aug.errors import DicomError
from vae_aug.ingest.dicom.file import DicomErrors, read_start
from vae_aug.ingest.dicom.image import DicomHeader, read_header
from vae_aug.ingest.formats.dicom_marks import Picture, marks_images
from vae_aug.ingest.formats.layout import SPLIT_WORDS, list_children, looks_like_dicom
from vae_aug.ingest.formats.source import Collector, describe_fault
from vae_aug.ingest.formats.walk import walk

_SUFFIXES = frozenset({"", ".dcm", ".dicom", ".ima", ".xml"})
_HEAD_BYTES = 256
_LFS = b"version https://git-lfs"


class Listing(NamedTuple):
    """The files of a folder.

    Attributes:
        dicom: Those with the suffix or the prefix of DICOM.
        xml: XML files.
        lost: How many others may be annotations, and could not be read.
    """

    dicom: list[Path]
    xml: list[Path]
    lost: int


class Headers(NamedTuple):
    """What DICOM files are.

    Attributes:
        pictures: Images.
        objects: Other objects.
        lost: How many files could not be read, and may be annotations.
    """

    pictures: list[Picture]
    objects: list[tuple[Path, DicomHeader]]
    lost: int


def list_files(collector: Collector, folders: Iterable[Path]) -> Listing:
    """Return the regular files that may be opened, and report the others."""
    listing = Listing([], [], 0)
    lost = 0
    paths = [path for folder in folders for path in sorted(map(Path, walk(folder)))]
    for path in dict.fromkeys(paths):
        if path.is_file() and path.suffix.lower() == ".xml":
            # One outside is a fault of its image, which `Marks.read_xml` reports.
            listing.xml.append(path)
        elif reason := _find_bar(collector, path):
            collector.report(path, reason)
            lost += _may_be_dicom(path)
        elif path.is_file() and path.name.upper() != "DICOMDIR" and looks_like_dicom(path):
            listing.dicom.append(path)
    return listing._replace(lost=lost)


def list_strays(source: Path) -> set[Path]:
    """Return the DICOM and XML files that lie in no folder of a split."""
    splits = list_children(source, *SPLIT_WORDS)
    return {
        path
        for path in map(Path, walk(source))
        if not any(map(path.is_relative_to, splits))
        and path.name.upper() != "DICOMDIR"
        and (path.suffix.lower() == ".xml" or looks_like_dicom(path))
    }


def _find_bar(collector: Collector, path: Path) -> str:
    """Return why a file is not read, `""` if it is, or is no matter of DICOM."""
    if not path.exists() or not (path.is_file() or path.is_dir()):
        return "is no regular file"
    if not collector.contains(path):
        return "lies outside the source; name its folder with --images"
    return "" if path.is_dir() or looks_like_dicom(path) else _find_damage(path)


def _find_damage(path: Path) -> str:
    """Return why a file without the prefix may be DICOM nevertheless; `""` of others."""
    if not _may_be_dicom(path) or path.name.upper() == "DICOMDIR":
        return ""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if head.startswith(_LFS):
        return "is a pointer of Git LFS instead of the file itself; fetch it with `git lfs pull`"
    return "" if head and 0 not in head else "no DICOM file (no DICM prefix), or cut short"


def _may_be_dicom(path: Path) -> bool:
    """Tell whether a file may be DICOM or XML by its name, which may be a UID."""
    suffix, inner = path.suffix.lower(), Path(path.stem).suffix.lower()
    is_named = suffix in _SUFFIXES or suffix[1:].isdigit()
    # A file that is packed, or was still being written: `a.dcm.gz`, `a.dcm.part`.
    return path.name[0] != "." and (is_named or inner in _SUFFIXES - {"", ".xml"})


def read_headers(collector: Collector, paths: Iterable[Path]) -> Headers:
    """Return what files are; report what cannot be read."""
    headers = Headers([], [], 0)
    lost = 0
    for path in paths:
        try:
            header = _read_header(path)
        except DicomError as error:
            collector.report(path, describe_fault(path, error))
            lost += _may_be_dicom(path) and not _identify(path)[0]
            continue
        kind = header.sop_class_uid
        if header.is_image:
            headers.pictures.append(Picture(path, header))
        elif marks_images(kind) or (kind and header.sop_instance_uid):
            headers.objects.append((path, header))
        else:
            # Where the second is missing, the first may be cut short.
            reason = "(0008,0016) SOP Class UID or (0008,0018) SOP Instance UID is missing"
            collector.report(path, f"cannot be told what it is: {reason}")
            lost += 1
    return headers._replace(lost=lost)


def _read_header(path: Path) -> DicomHeader:
    """Read a header; of an object that marks images, also where its pixel data are damaged.

    Raises:
        DicomError: If the file cannot be read.
    """
    try:
        return read_header(path)
    except DicomError:
        kind, study = _identify(path)
        if not marks_images(kind):
            raise
        return DicomHeader("", "", 0, 0, 1, "", study, kind, is_image=False)


def _identify(path: Path) -> tuple[str, str]:
    """Return the SOP class and the study of a damaged file, each `""` if it does not tell."""
    dataset = meta = Dataset()
    with contextlib.suppress(DicomError), DicomErrors(path):
        meta = read_file_meta_info(path)
    for keyword in ("StudyInstanceUID", "SOPInstanceUID"):
        with contextlib.suppress(DicomError), DicomErrors(path):
            dataset = read_start(path, keyword)
            break
    kinds = [str(dataset.get("SOPClassUID") or ""), str(meta.get("MediaStorageSOPClassUID") or "")]
    # Elements are sorted: a UID that another element follows is not cut short.
    is_whole = ["SOPInstanceUID" in dataset, "TransferSyntaxUID" in meta]
    told = [*filter(marks_images, kinds), *itertools.compress(kinds, is_whole)]
    return next(iter(told), ""), str(dataset.get("StudyInstanceUID") or "")
