"""Where a YOLO data set keeps the images of a split, and the text file of each."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations_with_replacement, islice
from pathlib import Path, PurePosixPath

from vae_aug.errors import AnnotationError, MissingSplitError
from vae_aug.ingest.formats.borders import check_inside
from vae_aug.ingest.formats.layout import (
    IMAGE_SUFFIXES,
    SPLIT_WORDS,
    FileFinder,
    fold_name,
    list_image_folders,
    list_images,
    list_split_names,
)
from vae_aug.ingest.formats.source import Collector
from vae_aug.ingest.formats.text import read_text
from vae_aug.ingest.formats.walk import walk
from vae_aug.ingest.formats.yolo_names import (
    LIST_NAMES,
    Description,
    holds_numbers,
    is_blank,
    is_yolo_text,
)
from vae_aug.words import plural

# Ultralytics knows the first, Darknet the last too.
_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages")
_LABEL_FOLDERS = ("labels", "label", "annotations")
_MOST_WORDS = 12
"""Words of a name that are looked at."""


class ImageLister:
    """Lists the images of a split, as the YAML file or the folders say."""

    def __init__(
        self, collector: Collector, description: Description, split: str, images: Path | None
    ) -> None:
        """Look in the source of `collector`, and in the folder `images` that the user named."""
        self._collector = collector
        self._description = description
        self._split = split
        self._images = images
        root = collector.root
        file, path = description.file, description.content.get("path")
        bases = [file.parent if file else root, root]
        told = [base / path for base in bases if isinstance(path, str) and path.strip()]
        self._bases = list(dict.fromkeys([*told, *bases, *filter(None, [images])]))
        folders = list_image_folders(root, split, images)
        self._finder = FileFinder([*self._bases, *folders])

    def list_images(self) -> dict[Path, str]:
        """Return the images, each with the name in a list of images, `""` for those of folders.

        Raises:
            AnnotationError: If the split, or what the YAML file names for it, is not there.
        """
        content, names = self._description.content, list_split_names(self._split)
        entry: object = next((content[name] for name in names if content.get(name)), [])
        found, missing = self._list_entries(entry if isinstance(entry, list) else [entry])
        if found:
            for name, reason in missing.items():
                self._collector.report(name, reason)
            return found
        folder = self._find_folder()
        others = {str(key) for key in content if content[key]} & SPLIT_WORDS - set(names)
        if others and set(names).isdisjoint(map(fold_name, folder.parts[-2:])):
            raise AnnotationError(
                f"{self._description.file}: names images for {', '.join(sorted(others))}, and for "
                f"the split {self._split!r} none that are there; correct it, or name their folder "
                "with --images."
            )
        if missing:
            self._collector.notes.append(
                "what the YAML file names for the split is not there; the folder of the split, or "
                "of all images, was read instead"
            )
        return dict.fromkeys(list_images(folder), "")

    def _list_entries(self, entries: Sequence[object]) -> tuple[dict[Path, str], dict[str, str]]:
        """List what the YAML file names for the split: folders, images, or lists of images.

        Returns:
            The images, and what is not there, each with the reason.
        """
        found: dict[Path, str] = {}
        missing: dict[str, str] = {}
        for entry in entries:
            if not isinstance(entry, str):
                raise AnnotationError(
                    f"{self._description.file}: expected a folder, a list of images or several "
                    f"of them for the split {self._split!r}; correct it."
                )
            places, reason = self._find_places(entry)
            for place in places:
                found |= self._list_place(place)
            if not places:
                missing[entry] = f"the YAML file names it for the split, and it {reason}"
        return found, missing

    def _list_place(self, place: Path) -> dict[Path, str]:
        if place.is_dir():
            return dict.fromkeys(list_images(place), "")
        if place.suffix.lower() in IMAGE_SUFFIXES:
            return {place: ""}
        return self._read_list(place)

    def _find_places(self, entry: str) -> tuple[list[Path], str]:
        """Find what an entry means; nothing and why if it is not there."""
        outside = False
        for tail in _list_tails(entry.strip().replace("\\", "/")):
            for base in self._bases:
                places = [place for place in _find_paths(base, tail) if place.exists()]
                for place in places:
                    if Path(os.path.normpath(place)).is_relative_to(self._collector.root):
                        check_inside(place)
                inside = [place for place in places if self._collector.contains(place)]
                if inside:
                    return inside, ""
                outside |= bool(places)
        return [], "lies outside the source; name it with --images" if outside else "is not there"

    def _read_list(self, file: Path) -> dict[Path, str]:
        """Read the images that a text file lists, one a line."""
        names = [line.strip() for line in read_text(file).splitlines() if line.strip()]
        finders = (FileFinder([file.parent]), self._finder)
        found: dict[Path, str] = {}
        for name in names:
            path = self._find_image(finders, name.replace("\\", "/"))
            if path is None:
                self._collector.report(name, f"listed in {file.name}, and not there")
            else:
                found[path] = name
        if names and not found:
            raise AnnotationError(
                f"{file}: none of the {plural(len(names), 'image')} that it lists is there; export "
                "the data set with its images, or name their folder with --images."
            )
        return found

    def _find_image(self, finders: Sequence[FileFinder], name: str) -> Path | None:
        """Find a listed image: where the list says, else by ever shorter ends of its name."""
        found = (finder.find(n) for n in (name, f"/{name}") for finder in finders)
        paths = [Path(os.path.normpath(path)) for path in found if path is not None]
        return next(filter(self._collector.contains, paths), paths[0] if paths else None)

    def _find_folder(self) -> Path:
        """Find the folder of the split: `images/train`, `train/images`, `train`, or all."""
        root = self._collector.root
        top = _find_child(root, _IMAGE_FOLDERS)
        folder = self._find_split(top or root)
        folder = _find_child(folder, _IMAGE_FOLDERS) or folder
        if self._images is not None and not list_images(folder):
            return self._find_split(self._images)
        return folder

    def _find_split(self, folder: Path) -> Path:
        children = {fold_name(path.name): path for path in folder.iterdir() if path.is_dir()}
        names = [name for name in list_split_names(self._split) if name in children]
        others = [children[name].name for name in sorted(SPLIT_WORDS & children.keys())]
        if not names and others:
            raise MissingSplitError(
                f"{folder}: has no folder for the split {self._split!r}; it has "
                f"{', '.join(others)}. Name one of them."
            )
        return children[names[0]] if names else folder


def _find_child(folder: Path, names: Sequence[str]) -> Path | None:
    found = (path for path in sorted(folder.iterdir()) if fold_name(path.name) in names)
    return next((path for path in found if path.is_dir()), None)


def _list_tails(name: str) -> Iterator[str]:
    """Yield a name, and its ever shorter ends: it may begin with a folder of its author's."""
    yield name
    parts = [part for part in PurePosixPath(name).parts if part != ".." and part != "/"]
    yield from ("/".join(parts[start:]) for start in range(len(parts)))


def _find_paths(base: Path, name: str) -> list[Path]:
    """Return the path of a name in any letter case, or those of a pattern."""
    # Raises for names that no file can have, and for patterns that are absolute.
    with contextlib.suppress(OSError, ValueError, NotImplementedError):
        if re.search(r"[*?\[]", name) and not (base / name).exists():
            return sorted(base.glob(name))
        path = base
        for part in PurePosixPath(name).parts:
            path = (path / part) if (path / part).exists() else _find_alike(path, part)
        return [path]
    return []


def _find_alike(folder: Path, part: str) -> Path:
    children = folder.iterdir() if folder.is_dir() else ()
    alike = [path for path in children if fold_name(path.name) == fold_name(part)]
    return alike[0] if len(alike) == 1 else folder / part


class LabelFinder:
    """Finds the text files of images, where Ultralytics looks, and in folders of other names.

    Of the last folder `images` in a path Ultralytics makes `labels`; other images have their text
    file beside them. Letter case and Unicode form may differ.
    """

    def __init__(self, root: Path, split: str, images: Path | None) -> None:
        """Find those of images below `root`, or below `images`, a folder elsewhere."""
        self._root = root
        self._images = images
        self._finder = FileFinder([root])
        self._folders: dict[Path, list[str]] = {}
        names = list_split_names(split)
        self._bases = [f"{label}/{name}" for label in _LABEL_FOLDERS for name in names]
        self._bases += [f"{name}/{label}" for label in _LABEL_FOLDERS for name in names]
        self._bases += [*_LABEL_FOLDERS, *names, "."]

    def find(self, image: Path, listed: str = "") -> list[Path]:
        """Return the text files of an image, the one that counts first.

        Args:
            image: The image.
            listed: Its name in a list of images.
        """
        found = (self._finder.find(name) for name in self._list_names(image, listed))
        return list(dict.fromkeys(path for path in found if path is not None))

    def find_unread(self, image: Path, listed: str = "") -> Path | None:
        """Return what bears the name of an image where its text file would lie, and is none.

        It may be a link that leads nowhere, a folder, or what another tool wrote of the image.
        """
        stem = fold_name(image.stem)
        for place in dict.fromkeys(Path(name).parent for name in self._list_names(image, listed)):
            folder = self._root / str(place).lstrip("/")
            for name in self._list_folder(folder):
                folded = fold_name(name)
                is_named = folded == stem or folded.startswith(f"{stem}.")
                suffix = Path(name).suffix.lower()
                is_text = suffix == ".txt" and (folder / name).is_file()
                if is_named and suffix not in IMAGE_SUFFIXES and not is_text:
                    return folder / name
        return None

    def _list_folder(self, folder: Path) -> list[str]:
        if folder not in self._folders:
            self._folders[folder] = sorted(os.listdir(folder)) if folder.is_dir() else []
        return self._folders[folder]

    def _list_names(self, image: Path, listed: str) -> list[str]:
        if image.is_relative_to(self._root):
            return _list_label_names(image.relative_to(self._root).as_posix())
        names = [f"/{name}" for name in _list_label_names(listed)] if listed else []
        if self._images is not None and image.is_relative_to(self._images):
            nested = _list_label_names(image.relative_to(self._images).as_posix())
            names += [f"{base}/{name}" for base in self._bases for name in nested]
        return names

    def find_leftovers(self, files: Mapping[Path, Sequence[Path]], split: str) -> list[Path]:
        """Find the text files of boxes that are of no image, unless they are of another split.

        Args:
            files: The images of the split, with the text files of each.
            split: The split.
        """
        others = SPLIT_WORDS - set(list_split_names(split))
        used = {file.resolve() for found in files.values() for file in found}
        stems = {fold_name(path.stem) for path, found in files.items() if not found}
        texts = [
            path
            for path in sorted(Path(entry.path) for entry in walk(self._root))
            if path.suffix.lower() == ".txt" and path.name[:2] != "._"
            if path.resolve() not in used
            # A text in the folder of another split counts if an image without one has its name.
            if fold_name(path.stem) in stems or not others & self._get_words(path)
            if self._may_hold_boxes(path, stems)
        ]
        if texts:
            rest = [path for path in list_images(self._root) if path not in files]
            used = {file.resolve() for path in rest for file in self.find(path)}
        return [path for path in texts if path.resolve() not in used]

    def _may_hold_boxes(self, path: Path, stems: set[str]) -> bool:
        """Tell whether a text may be that of an image: by its lines, its name or its folder."""
        if fold_name(path.name) in LIST_NAMES or fold_name(path.stem) in SPLIT_WORDS:
            return is_yolo_text(path)
        folders = map(fold_name, path.parent.relative_to(self._root).parts)
        if fold_name(path.stem) in stems or set(folders) & set(_LABEL_FOLDERS):
            return path.is_file() and not is_blank(path)
        is_near = not stems.isdisjoint(_list_parts(path)) and holds_numbers(path)
        return is_near or is_yolo_text(path, least=2)

    def _get_words(self, path: Path) -> set[str]:
        """Return the words of the folders of a file: CVAT's `obj_valid_data` is of a split."""
        folder = path.parent.relative_to(self._root).as_posix()
        return set(re.split(r"[\W_\d]+", fold_name(folder)))


def _list_parts(path: Path) -> Iterator[str]:
    """Yield the parts of a name, of one word or several: `a_b` of `gt_a_b_2`."""
    stem = fold_name(path.stem)
    words = list(islice(re.finditer(r"[^\W_]+", stem), _MOST_WORDS))
    for first, last in combinations_with_replacement(words, 2):
        yield stem[first.start() : last.end()]


def _list_label_names(image: str) -> list[str]:
    """Return the names that the text file of an image may have, Ultralytics' first."""
    parts = PurePosixPath(image.replace("\\", "/")).with_suffix(".txt").parts
    places = [i for i, part in enumerate(parts[:-1]) if fold_name(part) in _IMAGE_FOLDERS]
    places.sort(key=lambda place: (parts[place] != "images", -place))
    swapped = [(*parts[:i], label, *parts[i + 1 :]) for i in places for label in _LABEL_FOLDERS]
    return ["/".join(names) for names in (*swapped, parts)]
