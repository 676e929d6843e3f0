"""Tell the format of a data set from its files."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.borders import keep_inside, list_borders
from vae_aug.ingest.formats.findings import Findings, tell_format
from vae_aug.ingest.formats.suspects import Files, survey
from vae_aug.ingest.formats.tfds_folder import is_tfds
from vae_aug.ingest.nifti import is_nifti
from vae_aug.records.tfrecord import is_tfrecord

_SHOWN = 5

_KINDS = {
    "coco": "JSON with 'images', 'annotations' and 'categories'",
    "voc": "XML of Pascal VOC",
    "yolo": "text of YOLO boxes with the names of their classes",
    "csv": "a table of boxes",
    "labelme": "JSON with 'shapes'",
    "cvat": "XML of CVAT",
    "via": "JSON or a table of the VGG Image Annotator",
    "supervisely": "JSON of Supervisely",
    "lidc": "XML of LIDC-IDRI",
    "masks": "a mask",
    "dicom": "DICOM",
    "nifti": "NIfTI",
    "records": "TFRecords",
    "tfds": "a dataset that TFDS prepared",
    "images": "images",
}
"""What tells a format. Each has a reader of its name."""


class Detected(NamedTuple):
    """A format and what told it.

    Attributes:
        format: The format.
        evidence: What told it, without the name of a file, which may be that of a patient.
        file: The file that it was told from, relative to the source; `""` if it was several.
        ignored: Files that look like annotations and that the format's reader does not read,
            relative to the source.
    """

    format: str
    evidence: str
    file: str
    ignored: tuple[str, ...] = ()


def detect_format(source: str | os.PathLike[str]) -> Detected:
    """Tell the format of a data set.

    Annotations decide: the keys of JSON files, the root of XML files, `names` in YAML or
    `classes.txt` with text files of boxes, the columns of tables, and masks. VOC files among
    DICOM files belong to these. Where there are none, DICOM files are `dicom`, NIfTI files
    `nifti`, other images `images`, and TFRecords without images elsewhere `records`,
    or `tfds` beside the files that TFDS writes.

    Files that look like annotations, beside images, and that no reader understands are refused:
    images must not become unannotated without a word.

    Args:
        source: Folder of the data set, its annotation file, or a pattern of TFRecords.

    Returns:
        The format, and what told it.

    Raises:
        AnnotationError: If nothing is found, or annotations of several formats, or some that no
            reader understands.
    """
    source = Path(source)
    with keep_inside(list_borders(source)):
        return _detect_source(source)


def list_formats(source: Path, read: Collection[Path]) -> Mapping[str, Path]:
    """Return the formats of which a folder holds annotations, each with a file of it.

    Args:
        source: The folder.
        read: Files that are not looked into again, which may take seconds.
    """
    with keep_inside(list_borders(source)):
        files = survey(source)
        suspects = {path: bar for path, bar in files.suspects.items() if path not in read}
        return Findings(source, files._replace(suspects=suspects)).found


def _detect_source(source: Path) -> Detected:
    if not source.exists():
        if any(is_tfrecord(Path(name)) for name in glob.glob(os.fspath(source))):
            return Detected("records", "found TFRecords", "")
        raise AnnotationError(f"{source}: no such file or folder.")
    if not source.is_dir():
        return _detect_file(source)
    files = survey(source)
    findings = Findings(source, files)
    if image := findings.find_two_valued():
        raise AnnotationError(
            f"{source}: the images like {image.relative_to(source).as_posix()!r} have two values "
            "each, as masks have, and other images more. If they are masks, move them to a folder "
            "called masks, each called as its image; else name the format with --format."
        )
    if not findings.found:
        return _detect_bare(source, files, findings)
    if len(findings.found) > 1:
        several = "; ".join(f"{f}: {_KINDS[f]}" for f in _KINDS if f in findings.found)
        raise AnnotationError(
            f"{source}: holds annotations of several formats ({several}); name one with --format."
        )
    ((format, path),) = findings.found.items()
    unread = findings.list_unread(format)
    # YAML describes many things; annotations only for YOLO.
    harmless = () if format == "yolo" else (".yaml", ".yml")
    broken = {
        path: reason
        for path, reason in unread.items()
        if path in findings.broken and path.suffix.lower() not in harmless
    }
    _refuse_broken(source, format, broken)
    ignored = tuple(p.relative_to(source).as_posix() for p in unread)
    name = path.relative_to(source).as_posix()
    return Detected(format, f"found {_KINDS[format]}", name, ignored)


def _detect_file(path: Path) -> Detected:
    """Tell the format of one file."""
    if is_tfrecord(path):
        return Detected("records", "found TFRecords", path.name)
    if is_nifti(path):
        return Detected("nifti", "found NIfTI", path.name)
    if not path.is_file():
        raise AnnotationError(f"{path}: is no regular file; give the folder of the data set.")
    try:
        format = tell_format(path)
    except AnnotationError as error:
        raise AnnotationError(f"{error} To read it as a format, name it with --format.") from error
    if format == "yolo names":
        format = "yolo"
    if format is None or format not in _KINDS:
        raise AnnotationError(
            f"{path}: holds annotations of no format that is known ({', '.join(_KINDS)}); name the "
            "format with --format, or give the folder of the data set."
        )
    return Detected(format, f"found {_KINDS[format]}", path.name)


def _detect_bare(source: Path, files: Files, findings: Findings) -> Detected:
    """Tell the format of a data set in which no reader understands annotations."""
    folders = {path.parent for path in files.records}
    kinds = {
        "dicom": files.dicom,
        "images": [] if files.dicom else files.images,
        "nifti": files.volumes,
        "tfds" if any(map(is_tfds, folders)) else "records": files.records,
    }
    kinds = {kind: paths for kind, paths in kinds.items() if paths}
    unread = findings.list_unread(next(iter(kinds), ""))
    if not kinds:
        shown = f": {_show(source, unread)}" if unread else ""
        raise AnnotationError(
            f"{source}: holds neither annotations of a known format nor images{shown}; name the "
            "format with --format."
        )
    if len(kinds) > 1:
        several = " and ".join(_KINDS[kind] for kind in kinds)
        raise AnnotationError(
            f"{source}: holds {several}, of which one may annotate the other and no reader knows "
            f"how; read one alone with --format {' or --format '.join(kinds)}."
        )
    (format,) = kinds
    suspects = {path: reason for path, reason in unread.items() if path in files.suspects}
    if suspects and format in ("images", "dicom"):
        broken = {path: why for path, why in suspects.items() if path in findings.broken}
        _refuse_broken(source, format, broken)
        raise AnnotationError(_explain_unread(source, format, suspects, findings))
    if format == "images":
        return Detected("images", "the source holds images and no annotations", "")
    file = files.dicom[0].relative_to(source).as_posix() if files.dicom else ""
    ignored = tuple(path.relative_to(source).as_posix() for path in unread)
    return Detected(format, f"found {_KINDS[format]}", file, ignored)


def _refuse_broken(source: Path, format: str, broken: Mapping[Path, str]) -> None:
    if broken:
        raise AnnotationError(
            f"{source}: holds {_KINDS[format]}, and files that look like annotations and cannot be "
            f"read: {_show(source, broken)}. Correct or remove them, or read without them with "
            f"--format {format}."
        )


def _explain_unread(
    source: Path, format: str, unread: Mapping[Path, str], findings: Findings
) -> str:
    lacks = {name: f"no {kind.removeprefix('a ')}" for name, kind in _KINDS.items()}
    lacks["yolo"] = findings.explain_yolo()
    tried = "\n".join(f"  {name}: {lack}" for name, lack in lacks.items() if name != format)
    return (
        f"{source}: beside its {_KINDS[format]} lie files that look like annotations and that no "
        f"reader understands: {_show(source, unread)}.\n"
        f"What each reader misses:\n{tried}\n"
        f"Name the right one with --format NAME, or take the images as unannotated with "
        f"--format {format}."
    )


def _show(source: Path, files: Mapping[Path, str]) -> str:
    """Name the first of some files, each with what is wrong with it."""
    shown = [
        f"{path.relative_to(source).as_posix()} ({reason})"
        for path, reason in list(files.items())[:_SHOWN]
    ]
    rest = len(files) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
