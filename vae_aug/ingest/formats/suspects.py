"""The files of a data set by their kind, and those that look like annotations among them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Set
from pathlib import Path
from typing import NamedTuple

from vae_aug.ingest.formats.borders import is_inside
from vae_aug.ingest.formats.layout import IMAGE_SUFFIXES, fold_name, looks_like_dicom
from vae_aug.ingest.formats.nifti_names import get_stem
from vae_aug.ingest.formats.walk import walk
from vae_aug.ingest.nifti import is_nifti
from vae_aug.records.tfrecord import is_tfrecord

TEXT_SUFFIXES = frozenset(
    {"", ".txt", ".dat", ".lst", ".list", ".tab", ".pts", ".gt", ".ann", ".anno", ".box", ".lbl"}
)
"""Text that may hold anything, so that it is looked into."""

_SUSPECT_SUFFIXES = frozenset(
    {
        *(".json", ".jsonl", ".ndjson", ".geojson", ".xml", ".csv", ".tsv", ".yaml", ".yml"),
        *(".names", ".data", ".pbtxt", ".npy", ".npz", ".mat", ".h5", ".hdf5", ".pkl", ".pickle"),
        *(".xlsx", ".xls", ".ods", ".parquet", ".feather", ".arrow", ".sqlite", ".db"),
        *(".mhd", ".mha", ".nrrd", ".nhdr", ".roi", ".manifest"),
    }
)
"""Structured data, which beside images are most often about them."""

_PACKED_SUFFIXES = frozenset({".gz", ".bz2", ".xz", ".zip", ".tar", ".tgz", ".7z", ".rar"})

_ABOUT_IMAGES = frozenset(
    {
        *(".xmp", ".exif", ".icc", ".thm", ".pgw", ".jgw", ".tfw", ".wld", ".prj", ".cache"),
        *(".pt", ".pth", ".onnx", ".weights", ".mp4", ".avi", ".mov", ".bval", ".bvec"),
    }
)
"""Files that may bear the name of an image and hold no boxes of it."""

_PROSE = re.compile(
    r"(readme|licen[cs]e|notice|citation|copyright|copying|changelog|contributing|authors|"
    r"disclaimer|terms|requirements|constraints|(sha|md5)(\d*)(sum)?s?\b|checksums?)\W?.*|"
    r"log\.txt|cmakelists\.txt|.*\.(md|rst|md5|sha\d+|log|py|sh|bat|ps1|ipynb|html?|pdf|docx?)",
    re.IGNORECASE,
)
"""Names of texts that every data set may have and that hold no annotations."""

_NO_ANNOTATION = re.compile(
    r"thumbs\.db|desktop\.ini|package(-lock)?\.json|dataset-metadata\.json|environment\.ya?ml|"
    r"(dataset_infos?|features)\.json",
    re.IGNORECASE,
)
"""Names of structured files that hold no annotations."""

_OF_RECORDS = re.compile(
    r"(dataset|croissant|ingest_.+|check)\.json|ingest_.+\.png|.+\.pbtxt|.+\.labels\.txt",
    re.IGNORECASE,
)
"""What lies beside records and belongs to them."""

_TELLING = re.compile(
    r"(^|[^a-z])(annot\w*|labels?|bbox(es)?|box(es)?|gt|ground|truth|masks?|seg\w*|class(es)?|"
    r"categor\w*|lesions?|nodules?|findings?|rois?(sets?)?|objects?|contours?|outlines?|"
    r"delineations?|markups?|rtstruct|rtss)($|[^a-z])",
    re.IGNORECASE,
)
"""Words in the names of files and folders that hold annotations."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_HEAD_BYTES = 2**16
_SKIPPED_FOLDERS = frozenset({"__MACOSX", "__pycache__", "node_modules"})


class Files(NamedTuple):
    """The files of a data set by their kind, each in a fixed order.

    Attributes:
        images: Files with the suffix of an image, and those that are DICOM without one.
        dicom: Those of the images that are DICOM.
        volumes: NIfTI.
        records: TFRecords.
        suspects: What looks like annotations, with the reason why it cannot be opened, `""` if it
            can.
        names: What names in annotations may say of an image or volume: names and stems, as
            `fold_name` makes them.
    """

    images: list[Path]
    dicom: list[Path]
    volumes: list[Path]
    records: list[Path]
    suspects: dict[Path, str]
    names: Set[str]


def survey(root: Path) -> Files:
    """Sort the files below a folder. Links to folders are not followed.

    Args:
        root: The folder.

    Returns:
        Its files; hidden ones, and what lies in hidden folders, are left out.
    """
    paths = _list_files(root)
    records = [path for path in paths if is_tfrecord(path)]
    beside_records = {path.parent for path in records}
    paths = [
        path
        for path in paths
        if not is_tfrecord(path)
        and not _is_harmless(path)
        and not (path.parent in beside_records and _OF_RECORDS.fullmatch(path.name))
    ]
    border = root.resolve()
    closed = {path: reason for path in paths if (reason := _find_bar(path, border))}
    volumes = [path for path in paths if is_nifti(path)]
    images, dicom, others = [], [], []
    for path in paths:
        if is_nifti(path):
            continue
        suffix = path.suffix.lower()
        may_be_dicom = suffix not in _SUSPECT_SUFFIXES | _PACKED_SUFFIXES | {".txt"}
        if may_be_dicom and path not in closed and looks_like_dicom(path):
            dicom.append(path)
            images.append(path)
        elif suffix in IMAGE_SUFFIXES and path.parent not in beside_records:
            images.append(path)
        else:
            others.append(path)
    names = frozenset(fold_name(n) for path in images for n in (path.stem, path.name))
    names |= {fold_name(get_stem(path)) for path in volumes}
    suspects = {
        path: closed.get(path, "") for path in others if _is_suspect(path, root, names, closed)
    }
    return Files(images, dicom, volumes, records, suspects, names)


def _list_files(root: Path) -> list[Path]:
    """Return all files, and links to folders elsewhere whose names tell of annotations."""
    border = root.resolve()
    found = walk(root, lambda name: name[0] != "." and name not in _SKIPPED_FOLDERS)
    paths = sorted(
        entry.path
        for entry in found
        if entry.name[0] != "."
        and (
            not _leads_to_folder(entry)
            or (is_telling(entry.name) and not is_inside(Path(entry.path), [border]))
        )
    )
    return list(map(Path, paths))


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links that lead to each other
        return False


def _is_harmless(path: Path) -> bool:
    """Tell whether a file is by its name none that holds annotations."""
    if path.suffix.lower() in _SUSPECT_SUFFIXES:
        return _NO_ANNOTATION.fullmatch(path.name) is not None
    return (_PROSE.fullmatch(path.name) or _NO_ANNOTATION.fullmatch(path.name)) is not None


def _find_bar(path: Path, border: Path) -> str:
    """Return why a file must not be opened, `""` if it may be."""
    if path.is_dir():
        return "a link to a folder, which is not followed"
    if not path.is_file():
        return "no regular file"
    if path.is_symlink() and not is_inside(path, [border]):
        return "a link that leads out of the source"
    return ""


def _is_suspect(path: Path, root: Path, names: Set[str], closed: Iterable[Path]) -> bool:
    """Tell whether a file that is no image looks like annotations."""
    suffix = path.suffix.lower()
    if path in closed or suffix in _SUSPECT_SUFFIXES:
        return suffix in _SUSPECT_SUFFIXES | TEXT_SUFFIXES or is_telling(path.name)
    if suffix in _PACKED_SUFFIXES:
        inner = Path(path.stem).suffix.lower()
        is_in_folder = path.parent != root and is_telling(path.parent.name)
        is_telling_name = is_telling(path.stem) or is_in_folder
        is_inner = inner in _SUSPECT_SUFFIXES or inner in TEXT_SUFFIXES - {""}
        return is_inner or is_telling_name or is_paired(path, names)
    if suffix in TEXT_SUFFIXES:
        return is_paired(path, names) or is_telling(path.stem) or _holds_numbers(path, names)
    # Whatever the program that wrote it, it bears the name of an image, or of annotations.
    is_known = suffix in IMAGE_SUFFIXES | _ABOUT_IMAGES
    return not is_known and (is_paired(path, names) or is_telling(path.stem))


def is_packed(path: Path) -> bool:
    """Tell by its suffix whether a file is an archive, or is compressed."""
    return path.suffix.lower() in _PACKED_SUFFIXES


def is_telling(name: str) -> bool:
    """Tell whether a name has a word in it that is used for annotations."""
    return _TELLING.search(name) is not None


def is_paired(path: Path, names: Set[str]) -> bool:
    """Tell whether a file is called like an image: `a.txt`, `a.png.json` for `a.png`.

    Args:
        path: The file.
        names: As in `Files`.
    """
    return fold_name(path.stem) in names


def _holds_numbers(path: Path, names: Set[str]) -> bool:
    """Tell whether a text is more of numbers than prose: a third of its words or more.

    Names of images do not count, so that the list of a split is none.
    """
    with path.open("rb") as file:
        text = file.read(_HEAD_BYTES).replace(b"\0", b"").decode("utf-8", "replace")
    words = [word for word in re.split(r"[\s,;:|()\[\]{}]+", text) if word]
    words = [word for word in words if fold_name(re.split(r"[/\\]", word)[-1]) not in names]
    return 3 * sum(bool(_NUMBER.fullmatch(word)) for word in words) >= max(1, len(words))
