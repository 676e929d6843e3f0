"""Where data sets keep their splits, annotation files and images."""

from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath, PurePosixPath

from vae_aug.codecs.images import read_image_size
from vae_aug.config import Exif
from vae_aug.errors import MissingSplitError
from vae_aug.ingest.dicom.file import is_dicom
from vae_aug.ingest.dicom.image import read_header
from vae_aug.ingest.formats.walk import walk
from vae_aug.records.records import get_split_name

# The last three cannot be read; they are listed so that they are named, not passed over.
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom", ".bmp", ".gif", ".webp"}
)
_SPLIT_FILE_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "validate"),
    "test": ("test", "testing"),
}
SPLIT_NAMES = tuple(_SPLIT_FILE_NAMES)
SPLIT_WORDS = {name for names in _SPLIT_FILE_NAMES.values() for name in names}


def read_size(path: Path, exif: Exif = "apply") -> tuple[int, int]:
    """Return (height, width) in pixels of a PNG, JPEG, TIFF or DICOM file, from its header.

    Args:
        path: The file.
        exif: As `vae_aug.codecs.images.read_image_size`.
    """
    if is_dicom(path):
        header = read_header(path)
        return header.height, header.width
    return read_image_size(path, exif=exif)


def list_split_names(split: str) -> tuple[str, ...]:
    """Return the names under which data sets keep a split, the given one first."""
    return tuple(dict.fromkeys((split, *_SPLIT_FILE_NAMES.get(get_split_name(split), ()))))


def lies_in_other_split(path: PurePath, split: str) -> bool:
    """Tell whether a folder of a relative path is named after another split."""
    others = SPLIT_WORDS - set(list_split_names(split)) if split != "all" else set()
    return not others.isdisjoint(map(fold_name, path.parts[:-1]))


def find_split_folder(folder: Path, split: str) -> Path | None:
    """Find the folder of a split in a folder that has one for each; None if it has none.

    Raises:
        MissingSplitError: If the folder has other splits only: taking all would mix them.
    """
    found = next(iter(list_children(folder, *list_split_names(split))), None)
    others = list_children(folder, *sorted(SPLIT_WORDS))
    if found is None and others:
        raise MissingSplitError(
            f"{folder}: has no folder for the split {split!r}; it has "
            f"{', '.join(other.name for other in others)}. Name one of them."
        )
    return found


def list_image_folders(folder: Path, split: str, images: Path | None = None) -> list[Path]:
    """Return the folders in which images may lie of an annotation file in `folder`.

    Args:
        folder: That of the annotation file.
        split: The split that it describes.
        images: A further folder, which comes first.
    """
    names = list_split_names(split)
    folders = [] if images is None else [images, *(images / name for name in names)]
    folders += [folder, folder / "images", folder / "JPEGImages"]
    folders += [root / name for name in names for root in (folder / "images", folder)]
    above = folder.parent
    folders += [above / "images" / name for name in names] + [above / "images"]
    # COCO's own folders bear a year, `train2017`.
    folders += [
        path
        for root in (folder, folder / "images", above, above / "images")
        for name in names
        for path in sorted(root.glob(f"{name}[0-9]*"))
    ]
    # Last, since the folder above a data set is none of it.
    if folder.name.lower() == "annotations":
        folders.append(above)
    folders += [above / name for name in names]
    return [path for path in folders if path.is_dir()]


class FileFinder:
    """Finds files by the names that annotations give them.

    A name counts as it is written, then with the separators of Windows, then in another letter
    case or Unicode form (a Mac decomposes letters), where only one file of the folder has it. Of
    an absolute name, which is that of the author's machine, ever shorter ends are sought.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        """Search these folders, the first first."""
        self._folders = folders
        self._entries: dict[Path, dict[str, list[str]]] = {}

    def find(self, name: object) -> Path | None:
        """Return the file of a name; None if there is none, or several fit equally well."""
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            return None
        names = dict.fromkeys((name, name.strip().replace("\\", "/")))
        return next(filter(None, (self._find(n) for n in names)), None)

    def _find(self, name: str) -> Path | None:
        for search in (self._find_exact, self._find_alike):
            for tail in _list_tails(name):
                for folder in self._folders:
                    # Raises for a name that no file can have, e.g. of 300 letters.
                    with contextlib.suppress(OSError):
                        if not self._may_have(folder, tail):
                            continue
                        if (path := search(folder, tail)) is not None:
                            return path
        return None

    def _may_have(self, folder: Path, name: str) -> bool:
        """Look the beginning of a name up: of a million missing ones, none is asked of the disk."""
        parts = PurePosixPath(name).parts
        return not parts or parts[0] == ".." or fold_name(parts[0]) in self._list(folder)

    def _find_exact(self, folder: Path, name: str) -> Path | None:
        path = folder / name
        return path if path.is_file() else None

    def _find_alike(self, folder: Path, name: str) -> Path | None:
        path = folder
        for part in PurePosixPath(name).parts:
            if part == "..":
                path = path.parent
                continue
            matches = self._list(path).get(fold_name(part), [])
            if len(matches) != 1:
                return None
            path = path / matches[0]
        return path if path.is_file() else None

    def _list(self, folder: Path) -> dict[str, list[str]]:
        """Return the names in a folder by what they have in common with names alike."""
        if folder not in self._entries:
            entries: dict[str, list[str]] = {}
            for name in os.listdir(folder) if folder.is_dir() else ():
                entries.setdefault(fold_name(name), []).append(name)
            self._entries[folder] = entries
        return self._entries[folder]


def _list_tails(name: str) -> Iterator[str]:
    """Yield a name, and the ends of an absolute one, the longest first."""
    if not re.match(r"[A-Za-z]:|/|[a-z]+://", name):
        yield name
        return
    parts = [part for part in PurePosixPath(name).parts[1:] if part != ".."]
    yield from ("/".join(parts[start:]) for start in range(len(parts)))


def fold_name(name: str) -> str:
    """Return what names have in common that differ in letter case or Unicode form alone."""
    return unicodedata.normalize("NFC", name).casefold()


def list_beginnings(stem: str) -> list[str]:
    """Return what is in front of each blank or mark in a name: `a` and `a_1` of `a_1_x`."""
    return [stem[: match.start()] for match in re.finditer(r"[\W_]+", stem)]


def list_images(folder: Path) -> list[Path]:
    """Return all files below a folder that have the suffix of an image, sorted."""
    # Archives packed on a Mac hold "._NAME.png" beside every image.
    paths = (Path(entry.path) for entry in walk(folder) if entry.name[:2] != "._")
    return sorted(p for p in paths if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())


def list_children(folder: Path, *names: str) -> list[Path]:
    """Return those of the names that are folders in `folder`."""
    return [folder / name for name in names if (folder / name).is_dir()]


def looks_like_dicom(path: Path) -> bool:
    """Tell whether a file has the suffix or the prefix of DICOM."""
    return path.suffix.lower() in (".dcm", ".dicom") or is_dicom(path)
