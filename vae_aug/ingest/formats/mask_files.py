"""Which files of a data set are masks, and whose."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from vae_aug.errors import MissingSplitError
from vae_aug.ingest.formats.borders import is_inside
from vae_aug.ingest.formats.layout import (
    IMAGE_SUFFIXES,
    SPLIT_NAMES,
    SPLIT_WORDS,
    fold_name,
    list_images,
    list_split_names,
)
from vae_aug.ingest.formats.walk import walk, walk_folders

MASK_FILE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp")
"""Suffixes of files that may be masks; those of the last three are named, and cannot be read."""

# What bears the first is a mask. What bears the second is one if an image of that name is there:
# labelImg's folder `annotations` and an image `patient_1_lesion.png` hold none.
_SURE = frozenset({"mask", "masks", "seg", "segmentation", "segmentations", "gt", "groundtruth"})
_UNSURE = frozenset(
    {"label", "labels", "annotation", "annotations", "lesion", "manual", "manual1", "manual2"}
)
_IMAGE = frozenset({"image", "images", "img", "imgs", "input", "inputs", "original", "originals"})
_OBJECTS = "segmentationobject"
# What says whose, of which side, or what kind of files a folder of masks holds, not what they mark.
_SIDES = frozenset({"left", "right", "od", "os", "lh", "rh"})
_KINDS = frozenset(
    {
        *("png", "tif", "tiff", "jpg", "jpeg", "bmp", "binary", "bin", "bw", "class", "all", "new"),
        *("annotator", "annotators", "reader", "rater", "observer", "expert", "final", "fixed"),
        *("corrected", "cleaned", "resized", "cropped", "extra", "old", "first", "second"),
        *("data", "dataset", "set", "batch", "part", "fold", "version", "slice", "slices"),
        *("site", "center", "centre", "hospital", "patient", "case", "study", "series", "scan"),
    }
)
_NO_SUBJECT = (
    _SURE | (_UNSURE - {"lesion"}) | _IMAGE | _SIDES | _KINDS | SPLIT_WORDS | {"ground", "truth"}
)
# What programs lay beside a mask, about it.
_SIDECARS = frozenset({".txt", ".md", ".xml", ".xmp", ".csv", ".pgw", ".tfw", ".jgw", ".md5"})
# What a network made is no annotation.
_PREDICTED = frozenset({"pred", "preds", "predicted", "prediction", "predictions", "heatmaps"})
# Folders of sets about face masks, and of images without a lesion.
_NEGATED = frozenset({"with", "without", "no", "non", "sans", "sin"})

_WORD = "|".join(sorted(_SURE | _UNSURE | {"ground[ _-]truth"}, key=len, reverse=True))
_BEHIND = re.compile(rf"^(?P<stem>.+?)[ _.-]+(?P<word>{_WORD})(?P<number>[ _.-]*\(?\d*\)?)$")
_BEFORE = re.compile(rf"^(?P<word>{_WORD})(?:[ _.-]+(?P<stem>.+)|(?P<number>\d+))$")
_IMAGE_NAME = re.compile(
    r"^(?:(?:images?|imgs?)[ _.-]*(?P<behind>.+)|(?P<before>.+?)[ _.-]+(?:image|img|original))$"
)
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


class Pairing(NamedTuple):
    """The images of a split, and their masks.

    Attributes:
        images: The images, sorted, each with its masks.
        unclear: Masks of which it cannot be told whose they are, each with the images in question.
        orphans: Masks without an image.
        objects: Masks of Pascal VOC that number objects, by their image.
        others: Files of other kinds and folders that bear the name of a mask, by their image.
        links: Links to folders of masks that lead out of the source, or nowhere.
        predictions: Files that are named as predictions, which are neither.
    """

    images: dict[Path, list[Path]]
    unclear: dict[Path, list[Path]]
    orphans: list[Path]
    objects: dict[Path, list[Path]]
    others: dict[Path, list[Path]]
    links: list[Path]
    predictions: list[Path]


class _File(NamedTuple):
    """A file that is an image or a mask.

    Attributes:
        path: The file.
        stem: Its name without suffix, folded.
        folders: The folders in which it lies, folded, but those that say what kind of file it is
            or of which split.
        splits: The folders that name a split.
        kind: `"sure"` or `"unsure"` if it lies in a folder of masks, else `""`.
    """

    path: Path
    stem: str
    folders: tuple[str, ...]
    splits: frozenset[str]
    kind: str


def is_mask_name(path: Path, root: Path) -> bool:
    """Tell whether a file is named as a mask, or lies in a folder that is.

    Args:
        path: The file.
        root: The data set's folder.
    """
    if path.suffix.lower() not in MASK_FILE_SUFFIXES:
        return False
    file = _describe(path, root)
    if _is_sure(file):
        return True
    beside = path.parent.parent.iterdir() if file.kind == "unsure" and path.parent != root else ()
    folders = [folder for folder in beside if _get_words(folder.name) & _IMAGE and folder.is_dir()]
    stems = {_shorten(stem) for _, stem in split_name(file.stem)}
    return _holds(folders, {_shorten(file.stem), *stems}) or _holds([path.parent], stems)


def is_called_mask(path: Path, root: Path) -> bool:
    """Tell whether nothing but a mask has such a name, or lies in such a folder, of any suffix.

    Args:
        path: The file.
        root: The data set's folder.
    """
    return _is_sure(_describe(path, root))


def _holds(folders: Iterable[Path], stems: set[str]) -> bool:
    """Tell whether folders hold an image of one of these stems."""
    return bool(stems) and any(
        _shorten(fold_name(path.stem)) in stems and path.suffix.lower() in MASK_FILE_SUFFIXES
        for folder in folders
        for path in folder.iterdir()
    )


def pair_masks(source: Path, split: str, images: Path | None = None) -> Pairing:
    """Find the images of a split and their masks.

    A file is a mask if a folder or its name says so (`_SURE`), or if they may say so (`_UNSURE`)
    and an image of that name is there. A mask belongs to the image of its own name, or to that of
    its name without the word (and number) of masks, in a folder that fits: below the folders for
    images, masks and splits both lie alike, or one of them lies further up. Masks of other names
    are those of the only image of their folder, if the folder bears its name.

    Args:
        source: The data set's folder.
        split: Which split, or `"all"`.
        images: A further folder of images; None for none.

    Returns:
        The images and masks.

    Raises:
        AnnotationError: If the images lie in folders of splits, and none is that of this split.
    """
    paths, alike, links = _list_files(source)
    predictions = [path for path in paths if _is_predicted(path, source)]
    left_out = set(predictions)
    files = [_describe(path, source) for path in paths if path not in left_out]
    if images is not None:
        listed = {file.path.resolve() for file in files}
        files += [_describe(p, images) for p in list_images(images) if p.resolve() not in listed]
    found, masks = _part(files)
    # They number objects; their classes are in SegmentationClass, beside it.
    objects = [mask for mask in masks if _OBJECTS in map(fold_name, mask.path.parts)]
    masks = [mask for mask in masks if mask not in objects]
    found = _select_split(source, found, split)
    others = SPLIT_WORDS - set(list_split_names(split)) if split != "all" else set()
    pairing = Pairing({file.path: [] for file in found}, {}, [], {}, {}, links, predictions)
    index = _Index(found)
    for mask in objects:
        for image in index.find(mask):
            pairing.objects.setdefault(image.path, []).append(mask.path)
    for path in alike:
        for image in index.find(_describe(path, source, _strip_suffixes(path))):
            pairing.others.setdefault(image.path, []).append(path)
    unmatched: list[_File] = []
    for mask in masks:
        if mask.splits & others:
            continue
        fitting = index.find(mask)
        if len(fitting) == 1:
            pairing.images[fitting[0].path].append(mask.path)
        elif fitting:
            pairing.unclear[mask.path] = [file.path for file in fitting]
        else:
            unmatched.append(mask)
    _pair_by_folder(found, unmatched, pairing)
    return pairing


def _list_files(source: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Return what may be images or masks, other files named as masks, and links to folders of them.

    Links to nothing and pipes are among the first: what they should be cannot be read.
    """
    # Archives packed on a Mac hold "._NAME.png" beside every image.
    paths = sorted(Path(entry.path) for entry in walk(source) if entry.name[:2] != "._")
    border = source.resolve()
    links = [
        path
        for path in paths
        if _get_words(path.name) & (_SURE | _UNSURE)
        and ((path.is_dir() and not is_inside(path, [border])) or _is_dead_folder(path))
    ]
    paths = [path for path in paths if not path.is_dir()]
    # A folder may have the name of a file, too: `a_mask.png`, `a_seg.ome.zarr`.
    folders = [path for path in sorted(walk_folders(source)) if path.suffix and path != source]
    files = [path for path in paths if path.suffix.lower() not in IMAGE_SUFFIXES | _SIDECARS]
    others = [
        path
        for path in [*files, *folders]
        if _is_sure(_describe(path, source, _strip_suffixes(path)))
    ]
    return [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES], others, links


def _is_predicted(path: Path, root: Path) -> bool:
    """Tell whether a file is a mask that a network made, or lies in a folder of those."""
    *folders, _ = path.relative_to(root).parts
    is_within = any(_get_words(name) & _PREDICTED for name in folders)
    return is_within or (bool(_get_words(path.stem) & _PREDICTED) and is_called_mask(path, root))


def _is_dead_folder(path: Path) -> bool:
    """Tell whether a link leads nowhere, and may have led to a folder."""
    return path.is_symlink() and not path.exists() and not path.suffix


def _strip_suffixes(path: Path) -> str:
    """Return the name of a file without two suffixes, as of `a_mask.nii.gz` and `a.png.part`."""
    path = path.with_name(path.stem) if path.suffix else path
    return path.stem if path.suffix.lower() in (".nii", *IMAGE_SUFFIXES) else path.name


def find_mask_folder(mask: Path) -> Path | None:
    """Return the nearest folder above a mask whose name says that it holds masks."""
    return next((path for path in mask.parents if _get_words(path.name) & (_SURE | _UNSURE)), None)


def name_subject(mask: Path, image: Path, root: Path) -> frozenset[str]:
    """Return the words that say what a mask marks: `lung` of `lung_masks/a.png`; often none.

    Args:
        mask: The mask.
        image: Its image; folders of both do not count, nor those that are called alike, as
            `site_images` and `site_masks`.
        root: The data set's folder.
    """
    own, others = (
        set((path.relative_to(root) if path.is_relative_to(root) else path).parent.parts)
        for path in (mask, image)
    )
    words, alike = (_list_subjects(folders) for folders in (own - others, others - own))
    words = set() if words == alike else words
    words |= {word for word, _ in split_name(fold_name(mask.stem))}
    return frozenset(words - _NO_SUBJECT)


def _list_subjects(folders: Iterable[str]) -> set[str]:
    """Return the words of folders that may say what a mask marks."""
    parts = [re.sub(r"\d+(?:st|nd|rd|th)?|(?<=[a-z])(?=[A-Z])", " ", folder) for folder in folders]
    words = {fold_name(word) for part in parts for word in re.findall(r"[^\W\d_]{2,}", part)}
    return words - _NO_SUBJECT


def _is_sure(file: _File) -> bool:
    return file.kind == "sure" or any(word in _SURE for word, _ in split_name(file.stem))


def _pair_by_folder(found: Sequence[_File], unmatched: Sequence[_File], pairing: Pairing) -> None:
    """Give masks to the only image of their folder, as the Data Science Bowl of 2018 has them."""
    by_folder: dict[tuple[str, ...], list[_File]] = {}
    for file in found:
        by_folder.setdefault(file.folders, []).append(file)
    named = {path for path, masks in pairing.images.items() if masks}
    for mask in unmatched:
        files = by_folder.get(mask.folders, []) if mask.folders and mask.kind else []
        if len(files) == 1 and files[0].stem == mask.folders[-1] and files[0].path not in named:
            pairing.images[files[0].path].append(mask.path)
        else:
            pairing.orphans.append(mask.path)


class _Index:
    """Finds the images that a mask may belong to."""

    def __init__(self, files: Iterable[_File]) -> None:
        self._own: dict[str, list[_File]] = {}
        self._short: dict[str, list[_File]] = {}
        for file in files:
            self._own.setdefault(file.stem, []).append(file)
            self._short.setdefault(_shorten(file.stem), []).append(file)

    def find(self, mask: _File) -> list[_File]:
        """Return the images that fit best; several if it cannot be told which."""
        stems = [stem for _, stem in split_name(mask.stem)]
        if mask.kind:
            if own := self._fit(mask, self._own.get(mask.stem, [])):
                return own
            stems.append(_shorten(mask.stem))
        for index in (self._own, self._short):
            files = [file for stem in dict.fromkeys(stems) for file in index.get(stem, [])]
            if fitting := self._fit(mask, files):
                return fitting
        return []

    def _fit(self, mask: _File, files: Sequence[_File]) -> list[_File]:
        """Return the files whose folders fit those of the mask; those that lie alike first."""
        files = [file for file in files if _name_splits(file) == _name_splits(mask)] or files
        alike = [file for file in files if file.folders == mask.folders]
        return alike or [file for file in files if _is_within(file.folders, mask.folders)]


def _name_splits(file: _File) -> list[str]:
    return [name for name in SPLIT_NAMES if file.splits.intersection(list_split_names(name))]


def _is_within(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def _part(files: Sequence[_File]) -> tuple[list[_File], list[_File]]:
    """Part images from masks."""
    plain = [file for file in files if file.kind != "sure" and not split_name(file.stem)]
    index = _Index(file for file in plain if not file.kind)
    in_folders = {file.stem for file in files if file.kind == "sure"}
    paired = {file.path for file in files if file.kind != "sure" and index.find(file)}
    words = {_get_word(file) for file in files if file.path in paired}
    images: list[_File] = []
    masks: list[_File] = []
    for file in files:
        word = _get_word(file)
        is_mask = file.kind == "sure" or (bool(word) and (file.path in paired or word in words))
        # An image `face_mask.png` has its mask in `masks/face_mask.png`.
        if word in _SURE and not file.kind and file.path not in paired:
            is_mask = file.stem not in in_folders
        (masks if is_mask else images).append(file)
    return images, masks


def _get_word(file: _File) -> str:
    """Return what may make a file a mask: the word in its name, or that its folder says so."""
    words = [word for word, _ in split_name(file.stem)]
    return words[0] if words else file.kind


def _select_split(source: Path, files: list[_File], split: str) -> list[_File]:
    """Keep the images of a split, all where there are no folders of splits."""
    names = set(list_split_names(split))
    present = frozenset().union(*(file.splits for file in files))
    if not present or split == "all":
        return files
    if not present & names:
        raise MissingSplitError(
            f"{source}: has no folder for the split {split!r}; it has "
            f"{', '.join(sorted(present))}. Name one of them."
        )
    return [file for file in files if file.splits & names]


def _describe(path: Path, root: Path, stem: str = "") -> _File:
    parts = path.parent.relative_to(root).parts if path.is_relative_to(root) else ()
    kinds, folders, splits = set(), [], set()
    for part in parts:
        words = _get_words(part)
        if fold_name(part) in SPLIT_WORDS:
            splits.add(fold_name(part))
        elif words & (_SURE | _UNSURE) and not words & _NEGATED:
            kinds.add("sure" if words & _SURE else "unsure")
        elif not words & _IMAGE:
            folders.append(fold_name(part))
    kind = min(kinds, default="")
    return _File(path, fold_name(stem or path.stem), tuple(folders), frozenset(splits), kind)


def _get_words(name: str) -> set[str]:
    """Return the words of a folder's name, and each with the next: `GroundTruth` has three."""
    words = [fold_name(word) for word in _PARTS.findall(name)]
    return {*words, *(one + other for one, other in pairwise(words))}


def _shorten(stem: str) -> str:
    """Return a name without the word `image` before or behind it."""
    match = _IMAGE_NAME.match(stem)
    return match["behind"] or match["before"] if match else stem


def split_name(stem: str) -> list[tuple[str, str]]:
    """Return the words of masks in a name, each with what is left of the name without it.

    `a_lesion_mask_1` has the stems `a_lesion`, `a_lesion_1` and `a`, in this order.

    Args:
        stem: The name without suffix, folded.
    """
    return list(dict.fromkeys(_iterate_names(stem)))


def _iterate_names(stem: str) -> Iterator[tuple[str, str]]:
    match = _BEHIND.match(stem)
    if match is None:
        match = _BEFORE.match(stem)
        if match:
            yield re.sub(r"[ _-]", "", match["word"]), match["stem"] or match["number"]
        return
    word = re.sub(r"[ _-]", "", match["word"])
    yield word, match["stem"]
    if match["number"]:
        yield word, match["stem"] + match["number"]
    if _BEHIND.match(match["stem"]):
        yield from _iterate_names(match["stem"])
