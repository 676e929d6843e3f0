"""Where data sets keep their splits, annotation files and images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from vae_aug.data.dicom import is_dicom, read_header
from vae_aug.data.images import read_image_size
from vae_aug.data.records import get_split_name
from vae_aug.errors import AnnotationError

# The last three cannot be read; they are listed so that they are named, not passed over.
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom", ".bmp", ".gif", ".webp"}
)
_SPLIT_FILE_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
SPLIT_WORDS = {name for names in _SPLIT_FILE_NAMES.values() for name in names}


def read_size(path: Path) -> tuple[int, int]:
    """Return (height, width) in pixels of a PNG, JPEG, TIFF or DICOM file, from its header."""
    if is_dicom(path):
        header = read_header(path)
        return header.height, header.width
    return read_image_size(path)


def list_split_names(split: str) -> tuple[str, ...]:
    """Return the names under which data sets keep a split, the given one first."""
    return tuple(dict.fromkeys((split, *_SPLIT_FILE_NAMES.get(get_split_name(split), ()))))


def find_split_folder(folder: Path, split: str) -> Path | None:
    """Find the folder of a split in a folder that has one for each; None if it has none.

    Raises:
        AnnotationError: If the folder has other splits only: taking all would mix them.
    """
    found = next(iter(list_children(folder, *list_split_names(split))), None)
    others = list_children(folder, *sorted(SPLIT_WORDS))
    if found is None and others:
        raise AnnotationError(
            f"{folder}: has no folder for the split {split!r}; it has "
            f"{', '.join(other.name for other in others)}. Name one of them."
        )
    return found


def find_split_file(source: Path, split: str, suffix: str, patterns: Sequence[str]) -> Path:
    """Find the annotation file of a split: the source itself, or one in the source folder."""
    if source.is_file():
        return source
    if not source.is_dir():
        raise AnnotationError(f"{source}: no such file or folder.")
    for name in list_split_names(split):
        for pattern in patterns:
            matches = sorted(source.glob(pattern.format(name)))
            if len(matches) == 1:
                return matches[0]
            if matches:
                raise AnnotationError(
                    f"{source}: several files fit the split {split!r}: "
                    f"{', '.join(path.name for path in matches)}. Give the file itself."
                )
    found = sorted(path.name for path in source.glob(f"*{suffix}"))
    if len(found) == 1 and not SPLIT_WORDS & set(Path(found[0]).stem.lower().split("_")):
        return source / found[0]
    raise AnnotationError(
        f"{source}: has no {split}{suffix} for the split {split!r}; found "
        f"{', '.join(found[:10]) or f'no {suffix} file'}. Name another split, or give the file."
    )


def list_image_folders(folder: Path, split: str) -> list[Path]:
    """Return the folders in which images may lie of an annotation file in `folder`."""
    names = list_split_names(split)
    folders = [folder, folder / "images", folder / "JPEGImages"]
    folders += [root / name for name in names for root in (folder / "images", folder)]
    above = folder.parent
    folders += [above / "images" / name for name in names] + [above / "images"]
    folders += [above / name for name in names]
    return [path for path in folders if path.is_dir()]


def find_file(folders: Sequence[Path], name: object) -> Path | None:
    """Return the first file of a relative name in the folders; None if there is none."""
    if not isinstance(name, str) or not name or "\0" in name:
        return None
    for candidate in dict.fromkeys((name, name.replace("\\", "/"))):
        for folder in folders:
            # Raises for a name that no file can have, e.g. of 300 letters.
            with contextlib.suppress(OSError):
                if (folder / candidate).is_file():
                    return folder / candidate
    return None


def list_images(folder: Path) -> list[Path]:
    """Return all files below a folder that have the suffix of an image, sorted."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)


def index_images(folders: Iterable[Path]) -> dict[str, Path]:
    """Return image files by stem; the first folder wins."""
    index: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                index.setdefault(path.stem, path)
    return index


def list_children(folder: Path, *names: str) -> list[Path]:
    """Return those of the names that are folders in `folder`."""
    return [folder / name for name in names if (folder / name).is_dir()]


def make_finder(root: Path) -> Callable[[str], Path | None]:
    """Make a function that finds an image below `root` by the end of its path.

    It returns the only image of that name, with or without suffix; None if there are more.
    """
    index: dict[str, list[Path]] | None = None

    def find(name: str) -> Path | None:
        nonlocal index
        if index is None:
            index = {}
            for path in list_images(root):
                for key in (path.name, path.stem):
                    index.setdefault(key, []).append(path)
        wanted = Path(name.replace("\\", "/"))
        matches = index.get(wanted.name, [])
        if len(matches) > 1:
            matches = [p for p in matches if p.parts[-len(wanted.parts) :] == wanted.parts]
        return matches[0] if len(matches) == 1 else None

    return find


def looks_like_dicom(path: Path) -> bool:
    """Tell whether a file has the suffix or the prefix of DICOM."""
    return path.suffix.lower() in (".dcm", ".dicom") or is_dicom(path)
