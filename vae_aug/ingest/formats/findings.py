"""What the files of a data set that look like annotations turn out to be."""

from __future__ import annotations

import collections
import contextlib
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from vae_aug.errors import AnnotationError, VAEAugError
from vae_aug.ingest.formats.coco import is_coco, is_large_coco
from vae_aug.ingest.formats.cvat import is_cvat, is_cvat_video
from vae_aug.ingest.formats.labelme import is_labelme
from vae_aug.ingest.formats.layout import fold_name
from vae_aug.ingest.formats.lidc import is_lidc
from vae_aug.ingest.formats.mask_files import is_called_mask
from vae_aug.ingest.formats.mask_pixels import read_mask
from vae_aug.ingest.formats.masks import MASK_FILE_SUFFIXES, is_mask_name
from vae_aug.ingest.formats.source import describe_fault
from vae_aug.ingest.formats.supervisely import is_supervisely
from vae_aug.ingest.formats.suspects import TEXT_SUFFIXES, Files, is_paired
from vae_aug.ingest.formats.table_file import read_lines
from vae_aug.ingest.formats.tables import is_box_table
from vae_aug.ingest.formats.text import load_json, load_yaml, parse_xml
from vae_aug.ingest.formats.via import is_via, is_via_table
from vae_aug.ingest.formats.voc import is_voc
from vae_aug.ingest.formats.yolo import find_yolo_names, is_darknet, is_yolo_text
from vae_aug.limits import MAX_ANNOTATION_BYTES, MAX_TEXT_BYTES

_T = TypeVar("_T")

# Files of one kind that are looked into before the others are taken to be alike.
SAMPLES = 60
# To tell whether one is a mask may take a look at its whole folder.
_MASK_SAMPLES = 10

_COMPANIONS = {
    "yolo": r".*\.(names|data|ya?ml)|(train|val|valid|validation|test)\.txt|.*classes\.(txt|csv)|"
    r"labels\.txt|notes\.json",
    "voc": r".*/imagesets/.*\.txt|labelmap\.txt",
    "supervisely": r"meta\.json|key_id_map\.json|obj_class_to_machine_color\.json",
    "csv": r".*class(es)?.*\.(csv|txt)",
    "masks": r".*classes\.txt|labelmap\.txt",
    "nifti": r"dataset.*\.json|participants\.(json|tsv)|.*_(scans|sessions)\.tsv",
}
"""Files that belong to a format without being what its boxes are in, by their lower paths."""

_PER_IMAGE = {
    "labelme": ".json",
    "supervisely": ".json",
    "voc": ".xml",
    "lidc": ".xml",
    "dicom": ".xml",
    "yolo": ".txt",
}
"""Formats with a file for each image: one that is broken is named by their reader."""

# Without such a word in its path no file is a mask; whether it is one may need a look around it.
_MAY_BE_MASK = re.compile(r"mask|seg|gt|truth|label|annot|lesion|manual", re.IGNORECASE)


class Findings:
    """What the suspect files and masks of a data set turn out to be.

    Attributes:
        found: The first file of each format that was found.
        broken: Those of the others that cannot be read at all.
    """

    def __init__(self, root: Path, files: Files) -> None:
        """Look into the suspects of `files`, which lie below the folder `root`."""
        self.found: dict[str, Path] = {}
        self.broken: set[Path] = set()
        self._root, self._names, self._suspects = root, files.names, files.suspects
        dicom = set(files.dicom)
        self._pictures = [path for path in files.images if path not in dicom]
        self._unread: dict[Path, str] = {}
        self._yolo_text: Path | None = None
        self._yolo_empty: Path | None = None
        groups: dict[tuple[str, bool], list[Path]] = collections.defaultdict(list)
        for path, bar in files.suspects.items():
            if bar:
                self._unread[path] = bar
                self.broken.add(path)
            else:
                groups[path.suffix.lower(), is_paired(path, files.names)].append(path)
        for paths in groups.values():
            self._look_into(paths)
        self._find_yolo()
        self._find_masks(files.images)
        if files.dicom and set(self.found) == {"voc"}:
            self.found = {"dicom": files.dicom[0]}

    def _look_into(self, paths: Sequence[Path]) -> None:
        """Tell what files of one kind are; of many, only some if these are all alike."""
        told = {path: self._tell(path) for path in _spread(paths)}
        kinds = {kind for path, kind in told.items() if path not in self.broken} - {"empty"}
        # Before many are refused as unknown, each is looked into.
        if len(kinds) == 1 and None not in kinds:
            rest = dict.fromkeys(paths, next(iter(kinds)))
        else:
            rest = {path: self._tell(path) for path in paths if path not in told}
        for path in paths:
            self._sort(path, told.get(path, rest.get(path)))

    def _tell(self, path: Path) -> str | None:
        try:
            return tell_format(path)
        except AnnotationError as error:
            self.broken.add(path)
            self._unread[path] = describe_fault(path, error)
            return None

    def _sort(self, path: Path, kind: str | None) -> None:
        if kind == "yolo text":
            self._yolo_text = self._yolo_text or path
            self._unread[path] = "boxes of YOLO, whose classes have no names"
        elif kind == "yolo names":
            self._unread[path] = "names of classes, without boxes of YOLO"
        elif kind == "empty":
            # An empty text is that of an image without YOLO boxes; other empty files say nothing.
            if path.suffix.lower() in TEXT_SUFFIXES:
                self._yolo_empty = self._yolo_empty or path
                self._unread[path] = "an empty text"
        elif kind is not None:
            self.found.setdefault(kind, path)
        else:
            self._unread.setdefault(path, "of no format that is known")

    def _find_yolo(self) -> None:
        """Take text of boxes for YOLO if the names of its classes are there."""
        text = self._yolo_text or self._yolo_empty
        # A file of names that cannot be read is broken as a suspect too.
        with contextlib.suppress(AnnotationError):
            if text and (is_darknet(self._root) or find_yolo_names(self._root)):
                self.found["yolo"] = text

    def _find_masks(self, images: Iterable[Path]) -> None:
        folders: dict[Path, list[Path]] = collections.defaultdict(list)
        for path in images:
            named = _MAY_BE_MASK.search(path.relative_to(self._root).as_posix())
            if named and path.suffix.lower() in MASK_FILE_SUFFIXES:
                folders[path.parent].append(path)
        for paths in folders.values():
            for path in _spread(paths, _MASK_SAMPLES):
                if is_mask_name(path, self._root):
                    self.found["masks"] = path
                    return

    def find_two_valued(self) -> Path | None:
        """Find an image of those of two values, as masks of any name are.

        They are all images of a folder, or those that are named after others in one way, as
        `a_1stHO.png` beside `a.png`, unless annotations describe some of these. Other images must
        have more values. Of many folders and ways only some are looked into.
        """
        pictures = [path for path in self._pictures if path.suffix.lower() in MASK_FILE_SUFFIXES]
        groups = _group_by_name([path for path in pictures if not self._is_called_mask(path)])
        folders = [way for way in groups if not way.is_derived]
        derived = sorted((way for way in groups if way.is_derived), key=lambda w: -len(groups[w]))
        chosen = [*_spread(folders, _MASK_SAMPLES), *derived[:_MASK_SAMPLES]]
        plain = [way for way in chosen if not is_mask_name(groups[way][0], self._root)]
        if len(plain) < 2:
            return None
        found = [way for way in plain if _are_two_valued(groups[way])]
        if len(found) == len(plain):
            return None
        masks = (way for way in found if not (way.is_derived and self._describes(way, groups)))
        return next((groups[way][0] for way in masks), None)

    def _is_called_mask(self, path: Path) -> bool:
        may_be = _MAY_BE_MASK.search(path.relative_to(self._root).as_posix())
        return may_be is not None and is_called_mask(path, self._root)

    def _describes(self, way: _Way, groups: Mapping[_Way, Sequence[Path]]) -> bool:
        """Tell whether a file bears the name of an image of a way, or annotations hold it."""
        images = [path for other in groups if other[1:] == way[1:] for path in groups[other]]
        # Where two images have one stem, it may mean the other.
        names = {name for path in images for name in (path.name, path.stem)[: 2 - bool(way.suffix)]}
        if not {fold_name(path.stem) for path in self._suspects}.isdisjoint(map(fold_name, names)):
            return True
        encoded = {name.encode() for name in names}
        files = (path for path in self.found.values() if path.suffix.lower() in _TELLERS)
        return any(
            not encoded.isdisjoint(re.split(rb"[\"',;|\t\r\n/\\<>]+", path.read_bytes()))
            for path in files
            if path.stat().st_size <= MAX_TEXT_BYTES
        )

    def explain_yolo(self) -> str:
        """Return what is missing for YOLO."""
        if self._yolo_text is None:
            return "no text of boxes"
        return "boxes, but no classes.txt, obj.names, or data.yaml with names"

    def list_unread(self, format: str) -> dict[Path, str]:
        """Return the files that the reader of a format does not read, with the reasons."""
        companion = re.compile(_COMPANIONS.get(format, "(?!)"))
        suffix = _PER_IMAGE.get(format)

        def is_read(path: Path) -> bool:
            name = path.relative_to(self._root).as_posix().lower()
            if path in self.broken:
                return path.suffix.lower() == suffix
            return (format == "yolo" and is_paired(path, self._names)) or any(
                companion.fullmatch(part) for part in (name, f"/{name}", path.name.lower())
            )

        unread = {path: why for path, why in self._unread.items() if not is_read(path)}
        if format == "dicom":
            unread |= dict.fromkeys(self._pictures, "an image that is no DICOM")
        return dict(sorted(unread.items()))


def _spread(items: Sequence[_T], count: int = SAMPLES) -> Sequence[_T]:
    """Return some items from all over a sequence, all if it is short."""
    return items[:: max(1, len(items) // count)]


class _Way(NamedTuple):
    """How images of a folder are named after others.

    Attributes:
        folder: Theirs.
        words: What their names have more, before or behind those of the others, without numbers.
        suffix: Theirs, if it tells them from others of the same stem; else `""`.
    """

    folder: Path
    words: str
    suffix: str

    @property
    def is_derived(self) -> bool:
        """Whether they are named after others at all."""
        return bool(self.words or self.suffix)


def _group_by_name(images: Iterable[Path]) -> dict[_Way, list[Path]]:
    """Group images by folder and the way in which they are named after others."""
    suffixes: dict[tuple[Path, str], set[str]] = collections.defaultdict(set)
    for path in images:
        suffixes[path.parent, fold_name(path.stem)].add(path.suffix.lower())
    stems = {stem for _, stem in suffixes}
    groups: dict[_Way, list[Path]] = collections.defaultdict(list)
    for path in images:
        stem = fold_name(path.stem)
        is_one = len(suffixes[path.parent, stem]) == 1
        words = _find_words(stem, stems)
        groups[_Way(path.parent, words, "" if is_one else path.suffix.lower())].append(path)
    return groups


def _find_words(stem: str, stems: Set[str]) -> str:
    """Return what a name has more than the longest other that it begins or ends with, or `""`."""
    marks = [(match.start(), match.end()) for match in re.finditer(r"[\W_]+", stem)]
    behind = (stem[start:] for start, _ in reversed(marks) if stem[:start] in stems)
    before = (stem[:end] for _, end in marks if stem[end:] in stems)
    return re.sub(r"\d", "", next(itertools.chain(behind, before), ""))


def _are_two_valued(paths: Sequence[Path]) -> bool:
    """Tell whether images have two values at most, and one of them has two."""
    counts = []
    for path in _spread(paths, _MASK_SAMPLES):
        try:
            counts.append(len(np.unique(read_mask(path).values)))
        except VAEAugError:
            return False
        if counts[-1] > 2:
            return False
    return max(counts, default=0) == 2


def tell_format(path: Path) -> str | None:
    """Tell the format of a file, None if it is of none, `"empty"` if nothing is in it.

    Raises:
        AnnotationError: If it cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in TEXT_SUFFIXES:
        if not path.stat().st_size:
            return "empty"
        return "yolo text" if is_yolo_text(path) else None
    teller = _TELLERS.get(suffix)
    return teller(path) if teller else None


def _tell_json(path: Path) -> str | None:
    if is_large_coco(path):
        return "coco"
    content = load_json(path)
    if not content:
        return "empty"
    tests: dict[str, Callable[[object], bool]] = {
        "coco": is_coco,
        "supervisely": is_supervisely,
        "via": is_via,
        "labelme": is_labelme,
    }
    return next((format for format, test in tests.items() if test(content)), None)


def _tell_xml(path: Path) -> str | None:
    root = parse_xml(path, MAX_ANNOTATION_BYTES)
    if is_cvat(root) or is_cvat_video(root):
        return "cvat"
    if is_lidc(root):
        return "lidc"
    return "voc" if is_voc(root) else None


def _tell_table(path: Path) -> str | None:
    if is_via_table(path):
        return "via"
    if is_box_table(path):
        return "csv"
    next(read_lines(path), None)  # raises if nobody can tell what the table is
    return None


def _tell_yaml(path: Path) -> str | None:
    content = load_yaml(path)
    names = content.get("names") if isinstance(content, dict) else None
    return "yolo names" if isinstance(names, list | dict) else None


_TELLERS: Mapping[str, Callable[[Path], str | None]] = {
    ".json": _tell_json,
    ".xml": _tell_xml,
    ".csv": _tell_table,
    ".tsv": _tell_table,
    ".yaml": _tell_yaml,
    ".yml": _tell_yaml,
}
