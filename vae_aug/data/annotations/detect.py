"""Tell the format of a data set from its files."""

from __future__ import annotations

import glob
import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import yaml  # type: ignore[import-untyped]

from vae_aug.data.annotations.layout import list_images, looks_like_dicom
from vae_aug.data.annotations.masks import MASK_FILE_SUFFIXES, MASK_SUFFIX
from vae_aug.data.annotations.tables import is_box_table
from vae_aug.data.annotations.tfds_folder import is_tfds
from vae_aug.data.nifti import is_nifti
from vae_aug.data.tfrecord import is_tfrecord
from vae_aug.errors import AnnotationError

# As deep as any layout keeps its annotations: `annotations/train/NAME.json`.
_DEPTH = 3
# Files of one suffix looked into; a data set has one file for all images, or all alike.
_SAMPLES = 20


class Detected(NamedTuple):
    """A format and what told it.

    Attributes:
        format: The format.
        evidence: What told it, without the name of a file, which may be that of a patient.
        file: The file that it was told from, relative to the source; `""` if it was several.
    """

    format: str
    evidence: str
    file: str


def detect_format(source: str | os.PathLike[str]) -> Detected:
    """Tell the format of a data set.

    Annotations decide: the keys of JSON files, the root of XML files, `names` in YAML or
    `classes.txt` with text files of boxes, the columns of tables, and masks. VOC files among
    DICOM files belong to these. Where there are none, DICOM files are `dicom`, NIfTI files
    `nifti`, other images `images`, and TFRecords without images elsewhere `records`,
    or `tfds` beside the files that TFDS writes.

    Args:
        source: Folder of the data set, its annotation file, or a pattern of TFRecords.

    Returns:
        The format, and what told it.

    Raises:
        AnnotationError: If nothing is found, or annotations of several formats.
    """
    source = Path(source)
    if not source.exists():
        if any(is_tfrecord(Path(name)) for name in glob.glob(os.fspath(source))):
            return Detected("records", "found TFRecords", "")
        raise AnnotationError(f"{source}: no such file or folder.")
    root = source if source.is_dir() else source.parent
    files = sorted(_walk(source, _DEPTH)) if source.is_dir() else [source]
    found: dict[str, Path] = {}
    for format, path in _find_annotations(root, files):
        found.setdefault(format, path)
    volumes = [path for path in files if is_nifti(path)]
    records = [path for path in files if is_tfrecord(path)]
    # Beside records lies at most a sheet of their images, as an ingest leaves it.
    folders = {path.parent for path in records}
    if source.is_dir():
        images = [path for path in list_images(source) if path.parent not in folders]
        candidates = [*islice(_list_others(files), _SAMPLES), *images]
        dicom = next((path for path in candidates if looks_like_dicom(path)), None)
        if dicom is not None and set(found) <= {"voc"}:
            found = {"dicom": dicom}
        elif not found and images and not volumes:
            return Detected("images", "the source holds images and no annotations", "")
    if volumes and not found:
        return Detected("nifti", "found NIfTI", "")
    if records and not found and any(is_tfds(folder) for folder in folders):
        return Detected("tfds", "found a dataset that TFDS prepared", "")
    if records and not found:
        return Detected("records", "found TFRecords", "")
    if len(found) == 1:
        ((format, path),) = found.items()
        return Detected(format, f"found {_KINDS[format]}", path.relative_to(root).as_posix())
    if not found:
        raise AnnotationError(
            f"{source}: holds neither annotations of a known format nor images; name the format."
        )
    several = "; ".join(f"{format}: {_KINDS[format]}" for format in found)
    raise AnnotationError(f"{source}: holds annotations of several formats ({several}); name one.")


_KINDS = {
    "coco": "JSON with 'images', 'annotations' and 'categories'",
    "labelme": "JSON with 'shapes'",
    "voc": "XML of Pascal VOC",
    "cvat": "XML of CVAT",
    "yolo": "text of YOLO boxes",
    "csv": "a table of boxes",
    "masks": "a mask",
    "dicom": "DICOM",
}


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir() and depth > 0 and not path.name.startswith("."):
            yield from _walk(path, depth - 1)
        elif path.is_file():
            yield path


def _list_others(files: Iterable[Path]) -> Iterator[Path]:
    known = {".json", ".xml", ".yaml", ".yml", ".csv", ".txt", ".md"}
    known |= {".png", ".jpg", ".jpeg", ".tif", ".tiff"}
    return (path for path in files if path.suffix.lower() not in known)


def _find_annotations(root: Path, files: list[Path]) -> Iterator[tuple[str, Path]]:
    """Yield formats with the file that speaks for each; files of no format are passed over."""

    def sample(*suffixes: str) -> Iterator[Path]:
        return islice((p for p in files if p.suffix.lower() in suffixes), _SAMPLES)

    for path in sample(".json"):
        if (format := _tell_json(path)) is not None:
            yield format, path
    for path in sample(".xml"):
        if (format := _tell_xml(path)) is not None:
            yield format, path
    for path in sample(".csv", ".tsv"):
        if is_box_table(path):
            yield "csv", path
    names = [path for path in files if path.name == "classes.txt" or _has_names(path)]
    for path in sample(".txt"):
        if names and _is_yolo_text(path):
            yield "yolo", path
    yield from (("yolo", path) for path in names if path == files[0] and len(files) == 1)
    for path in files:
        is_mask = path.stem.endswith(MASK_SUFFIX) or "masks" in path.relative_to(root).parts[:-1]
        if is_mask and path.suffix.lower() in MASK_FILE_SUFFIXES:
            yield "masks", path
            return


def _tell_json(path: Path) -> str | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    if {"images", "annotations", "categories"} <= set(content):
        return "coco"
    return "labelme" if isinstance(content.get("shapes"), list) else None


def _tell_xml(path: Path) -> str | None:
    try:
        for _, element in ET.iterparse(path, events=("start",)):
            return {"annotation": "voc", "annotations": "cvat"}.get(element.tag)
    except (ET.ParseError, OSError, ValueError, LookupError):
        return None
    return None


def _has_names(path: Path) -> bool:
    if path.suffix.lower() not in (".yaml", ".yml"):
        return False
    try:
        content = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and isinstance(content.get("names"), list | dict)


def _is_yolo_text(path: Path) -> bool:
    """Tell whether the first line is a class and at least four numbers."""
    try:
        with path.open(encoding="utf-8") as stream:
            label, *numbers = stream.readline().split() or [""]
            return label.isdecimal() and len([float(value) for value in numbers]) >= 4
    except (OSError, ValueError):
        return False
