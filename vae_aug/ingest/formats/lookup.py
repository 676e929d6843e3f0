"""Annotation files that describe many images, and the images by the names that these give them."""

from __future__ import annotations

import functools
import itertools
import os
import re
from collections.abc import Callable, Iterable, Sequence, Set
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from vae_aug.errors import AnnotationError, MissingSplitError
from vae_aug.ingest.formats.layout import (
    IMAGE_SUFFIXES,
    SPLIT_WORDS,
    FileFinder,
    fold_name,
    list_image_folders,
    list_images,
    list_split_names,
)
from vae_aug.ingest.formats.source import ReaderOptions
from vae_aug.ingest.formats.text import load_json, parse_xml, read_text
from vae_aug.ingest.formats.walk import walk

_Parts = tuple[str, ...]

_SHOWN = 5
_OTHER_TASKS = {"captions", "keypoints", "panoptic", "stuff", "predictions", "results"}


def find_annotation_file(
    source: Path, split: str, suffixes: tuple[str, ...], is_kind: Callable[[Path], bool]
) -> Path:
    """Find the only file that may describe the images of a split.

    It is the source itself, or lies anywhere below it. Files that are named after another split, in
    their folders or their own name, or after another task of COCO, do not count; neither do those
    whose content is of another kind, such as a table of scanners beside the annotations.

    Args:
        source: The file, or the folder of the data set.
        split: The split.
        suffixes: Those that the file may have, in small letters.
        is_kind: Tells whether a file is one of the kind that is sought.

    Raises:
        MissingSplitError: If there is no such file.
        AnnotationError: If there is no such source; or several files, since the boxes in those
            that are not read would be lost.
    """
    if source.is_file():
        return source
    if not source.is_dir():
        raise AnnotationError(f"{source}: no such file or folder.")
    names = {fold_name(name) for name in list_split_names(split)}
    files = _list_files(source, suffixes)
    shown = {path: path.relative_to(source).as_posix() for path in files}
    choice = [path for path in files if not _is_of_other_split(shown[path], names)]
    choice = [path for path in choice if not _OTHER_TASKS & _list_words(shown[path])] or choice
    named = [path for path in choice if fold_name(path.stem) in names]
    if len(choice) == 1 and (len(files) == 1 or named):
        return choice[0]
    # What is wrong with a file of the split's name is for its reader to say.
    matches = [path for path in choice if is_kind(path)] or named
    if not matches and len(choice) == 1 and not _can_be_read(choice[0]):
        matches = choice
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise AnnotationError(
            f"{source}: {len(matches)} files may describe the images of the split {split!r}, and "
            f"only one would be read: {_join(shown[path] for path in matches)}. Join them, or give "
            "the file itself."
        )
    found = _join(shown.values()) or f"no {suffixes[0]} file"
    raise MissingSplitError(
        f"{source}: has no {split}{suffixes[0]} for the split {split!r}; found {found}. Name "
        "another split, or give the file."
    )


def _can_be_read(path: Path) -> bool:
    """Tell whether a file is sound, so that it may be judged by its content."""
    read = {".json": load_json, ".xml": parse_xml}.get(path.suffix.lower(), read_text)
    try:
        read(path)
    except AnnotationError:
        return False
    return True


def _is_of_other_split(name: str, names: Set[str]) -> bool:
    """Tell by a relative path whether a file is of a split of none of some names."""
    for words in (_list_words(PurePosixPath(name).stem), _list_words(name)):
        if SPLIT_WORDS & words or names & words:
            return not names & words
    return False


def _list_words(name: str) -> set[str]:
    return set(re.findall(r"[a-z]+", fold_name(name)))


def _join(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _list_files(source: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files below a folder that have one of some suffixes, but for hidden ones."""
    entries = walk(source, lambda name: name[0] != ".")
    paths = (Path(entry.path) for entry in entries if entry.name[0] != ".")
    return sorted(path for path in paths if path.suffix.lower() in suffixes and path.is_file())


class Found(NamedTuple):
    """Which entries of a file are of which image.

    Attributes:
        entries: Positions of the entries of each image, in the order of their first.
        doubtful: Positions of entries whose image is missing, and may be this one: their names
            differ in folders before them, or in the suffix.
        missing: Positions of all entries whose image is missing, or of which several images fit.
    """

    entries: dict[Path, list[int]]
    doubtful: dict[Path, list[int]]
    missing: list[int]


class ImageLookup:
    """Finds images by name, without taking one for another of the same last part.

    A folder in a name counts, for `p1/001.png` and `p2/001.png` are two images of which one may be
    missing. Only leading folders that all names of the file share may be others on this disk.
    """

    def __init__(
        self, file: Path, split: str, options: ReaderOptions, names: Iterable[str]
    ) -> None:
        """Search the folders of images of an annotation file, then all below them.

        Args:
            file: The annotation file.
            split: The split that it describes.
            options: Of which `images` is a further folder.
            names: All names that the file gives to images.
        """
        self._folders = list_image_folders(file.parent, split, options.images)
        self._finder = FileFinder(self._folders)
        self._shared = _count_shared(names)
        self._index: dict[str, list[Path]] | None = None
        self._found: dict[str, Path | None] = {}
        # Tables name an image in each of its rows.
        self._fold = functools.cache(_fold_parts)

    def find(self, name: str) -> Path | None:
        """Return the image of a name; None if there is none, or several fit.

        The name may be without a suffix, in another letter case or Unicode form, and with the
        separators of Windows. Where no file has its suffix, the only one of its stem counts.
        """
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def _find(self, name: str) -> Path | None:
        parts = _split_name(name)
        if not parts or "\0" in name:
            return None
        if not name.startswith(("/", "\\")) and (path := self._finder.find(name)) is not None:
            return path
        for start in range(min(self._shared, len(parts) - 1) + 1):
            path = self._finder.find("/".join(parts[start:]))
            paths = [path] if path is not None else self._find_below(parts[start:])
            if paths:
                return paths[0] if len(paths) == 1 else None
        return None

    def _find_below(self, parts: Sequence[str]) -> list[Path]:
        """Return the images whose paths end with a name or else its stem, the nearest if any is."""
        last = PurePosixPath(parts[-1])
        keys = [last.name, last.stem] if last.suffix.lower() in IMAGE_SUFFIXES else [last.name]
        above = tuple(map(fold_name, parts[:-1]))
        for key in map(fold_name, keys):
            matches = [
                path
                for path in self._list(key)
                if tuple(map(fold_name, path.parts[-len(parts) : -1])) == above
            ]
            for folder in self._folders:
                near = [path for path in matches if path.parents[len(parts) - 1] == folder]
                if near:
                    return near
            if matches:
                return matches
        return []

    def _list(self, key: str) -> list[Path]:
        if self._index is None:
            self._index = {}
            images = itertools.chain.from_iterable(map(list_images, self._folders))
            for path in {os.path.normpath(path): path for path in images}.values():
                for name in dict.fromkeys(map(fold_name, (path.name, path.stem))):
                    self._index.setdefault(name, []).append(path)
        return self._index.get(key, [])

    def group(self, names: Iterable[Sequence[str]]) -> Found:
        """Find the images of the entries of a file.

        Args:
            names: The names that each entry gives its image; the first that is found counts.
        """
        found: dict[str, tuple[Path, dict[_Parts, list[int]]]] = {}
        missing: dict[int, tuple[_Parts, ...]] = {}
        for position, candidates in enumerate(names):
            paths = ((name, self.find(name)) for name in candidates)
            name, path = next((pair for pair in paths if pair[1] is not None), ("", None))
            if path is None:
                missing[position] = tuple(map(self._fold, candidates))
            else:
                _, by_name = found.setdefault(os.path.normpath(path), (path, {}))
                by_name.setdefault(self._fold(name), []).append(position)
        entries: dict[Path, list[int]] = {}
        named: dict[str, list[tuple[_Parts, Path]]] = {}
        for path, by_name in found.values():
            kept = [parts for parts in by_name if _is_own(path, parts)] or list(by_name)[:1]
            entries[path] = sorted(position for parts in kept for position in by_name[parts])
            for parts in kept:
                named.setdefault(_cut_suffix(parts)[-1], []).append((parts, path))
            others = {parts: group for parts, group in by_name.items() if parts not in kept}
            missing |= {p: (parts,) for parts, group in others.items() for p in group}
        doubtful: dict[Path, list[int]] = {}
        for position, (parts, path) in _pair(missing, named):
            if _may_be_one(parts, missing[position]):
                doubtful.setdefault(path, []).append(position)
        return Found(entries, doubtful, sorted(missing))


def _pair(
    missing: dict[int, tuple[_Parts, ...]], named: dict[str, list[tuple[_Parts, Path]]]
) -> Iterable[tuple[int, tuple[_Parts, Path]]]:
    """Yield each missing entry with the images that share the last part of its name."""
    for position, candidates in missing.items():
        keys = {_cut_suffix(parts)[-1] for parts in candidates if parts}
        for key in sorted(keys):
            for image in named.get(key, ()):
                yield position, image


def _may_be_one(parts: _Parts, others: Iterable[_Parts]) -> bool:
    """Tell whether one of two names is the end of the other, but for the suffix."""
    pairs = ((_cut_suffix(parts), _cut_suffix(other)) for other in others if other)
    return any(a[-len(b) :] == b or b[-len(a) :] == a for a, b in pairs)


def _is_own(path: Path, parts: _Parts) -> bool:
    """Tell whether a path ends with a whole name, folders and all, with or without its suffix."""
    ends = (path.parts[-len(parts) :], path.with_suffix("").parts[-len(parts) :])
    return any(tuple(map(fold_name, end)) == parts for end in ends)


def _cut_suffix(parts: _Parts) -> _Parts:
    last = PurePosixPath(parts[-1])
    return (*parts[:-1], last.stem if last.suffix in IMAGE_SUFFIXES else last.name)


def _fold_parts(name: str) -> _Parts:
    return tuple(map(fold_name, _split_name(name)))


def _split_name(name: str) -> _Parts:
    """Return the parts of a name, without drive, root, address, `.` and `..`."""
    text = name.strip().replace("\\", "/")
    parts = PurePosixPath(text.partition("://")[2] or text).parts
    return tuple(part for part in parts if part not in ("/", "//", "..", ".") and part[-1] != ":")


def _count_shared(names: Iterable[str]) -> int:
    """Return how many leading folders all names share."""
    folders = (_fold_parts(name)[:-1] for name in dict.fromkeys(names))
    shared = next(folders, ())
    for other in folders:
        pairs = zip(shared, other, strict=False)
        shared = tuple(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    return len(shared)
