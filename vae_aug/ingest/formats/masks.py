"""Segmentation masks in files beside the images; each connected region becomes a box."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, islice
from pathlib import Path

import numpy as np
from scipy.ndimage import find_objects
from skimage.measure import label as label_regions

from vae_aug.errors import AnnotationError, VAEAugError
from vae_aug.ingest.formats.layout import fold_name, list_beginnings, read_size
from vae_aug.ingest.formats.mask_files import MASK_FILE_SUFFIXES as MASK_FILE_SUFFIXES
from vae_aug.ingest.formats.mask_files import (
    Pairing,
    find_mask_folder,
    name_subject,
    pair_masks,
    split_name,
)
from vae_aug.ingest.formats.mask_files import is_mask_name as is_mask_name
from vae_aug.ingest.formats.mask_pixels import Mask, read_mask
from vae_aug.ingest.formats.mask_scheme import Scheme, Survey, name_found
from vae_aug.ingest.formats.source import (
    DEFAULTS,
    AnnotatedImage,
    Annotations,
    Box,
    Collector,
    Fault,
    ReaderOptions,
    clean_label,
    describe_fault,
    reader,
)
from vae_aug.ingest.formats.text import read_text
from vae_aug.limits import MAX_MASK_REGIONS
from vae_aug.words import plural

_BACKGROUND = frozenset({"background", "_background_", "__background__", "bg"})
_COLOUR = re.compile(r"\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*", re.ASCII)
_FRAME_SHARE, _AREA_SHARE = 0.9, 0.5
_NO_MASK = "it bears the name of a mask and is of a kind that is not read; save it as PNG"


@reader
def read_masks(
    source: str | os.PathLike[str], split: str = "train", options: ReaderOptions = DEFAULTS
) -> Annotations:
    """Read images with masks: pixel value 0 is background, any other value a class.

    Layouts: `masks/NAME.png` for `images/NAME.png`, each also in a folder of the split, or
    `NAME_mask.png` beside `NAME.png`, in any folder, and the other words and layouts of
    `vae_aug.ingest.formats.mask_files.pair_masks`; several masks of an image, as
    `NAME_mask_1.png`, count all. Each 8-connected region of a value is a box.

    Line k of `classes.txt` names value k (a first line `background` names 0); without it, the class
    of masks that hold one value alone, 1 or above 20, is called `object`, and values from 1 to 20
    are classes called by their number; others are refused. Soft edges of one mask are told from
    classes as `vae_aug.ingest.formats.mask_levels.LevelCounter.decide` says, over all masks, and
    cut at half. Of a palette in colour the numbers of its entries count (without Pascal VOC's entry
    255, `void`); colours are named by CVAT's `labelmap.txt`, or are one besides black, `object`.

    An image is a negative if its masks are empty, and lie in as many folders, and mark as many
    things, as those of other images. Images without a mask are unannotated, and those whose mask is
    of another size or cannot be read, or whose it is not certain, are faulty.

    Args:
        source: The data set's folder.
        split: Which split; `"all"` compares the masks of all.
        options: How it is read.

    Returns:
        The annotations.

    Raises:
        AnnotationError: If the folder is missing or holds no image with a mask; if values or
            colours cannot be told; if all masks are white at their borders, as inverted ones, or
            each is that of a field of view; if masks mark different things with one value, as
            `lung_masks/a.png` and `lesion_masks/b.png` do.
    """
    source = Path(source)
    if not source.is_dir():
        raise AnnotationError(f"{source}: no such folder; give the folder of the data set.")
    pairing = pair_masks(source, split, options.images)
    if not any(pairing.images.values()) and not pairing.unclear:
        raise AnnotationError(
            f"{source}: none of its {plural(len(pairing.images), 'image')} has a mask; expected "
            "masks/NAME.png for images/NAME.png, or NAME_mask.png beside NAME.png."
        )
    collector = Collector(source, options)
    reader = _Reader(collector, options, pairing)
    scheme = reader.survey(source)
    for path in pairing.images:
        reader.add_image(path, scheme)
    reader.check_inverted(scheme)
    reader.check_fields_of_view(are_named=_find(source, "classes.txt") is not None)
    reader.check_subjects()
    for mask in pairing.orphans:
        collector.report(mask, "a mask whose image is missing")
    for path in pairing.predictions:
        collector.report(path, "is named as a prediction, which is no annotation")
    collector.doubt_unannotated(len(pairing.orphans))
    _doubt_named(collector, pairing.orphans)
    _doubt_negatives(collector, pairing.links)
    return collector.finish(dict.fromkeys(scheme.names.values()))


class _Reader:
    """Reads masks twice: first all, to learn what values mean, then for their regions."""

    def __init__(self, collector: Collector, options: ReaderOptions, pairing: Pairing) -> None:
        self._collector = collector
        self._options = options
        self._pairing = pairing
        self._faults: dict[Path, str] = {}
        self._folders = _find_needed_folders(pairing)
        self._subjects = {
            mask: name_subject(mask, image, collector.root)
            for image, masks in pairing.images.items()
            for mask in masks
        }
        self._needed = {*self._subjects.values()}
        self._framing: list[set[int]] = []
        self._fields: dict[tuple[str, str], list[bool]] = {}
        self._boxes: dict[Path, list[tuple[int, list[float]]]] = {}

    def survey(self, source: Path) -> Scheme:
        """Learn from all masks what their values mean."""
        survey = Survey()
        for masks in self._pairing.images.values():
            for path in masks:
                try:
                    survey.add(self._read(path))
                except VAEAugError as error:
                    self._faults[path] = describe_fault(path, error)
        return survey.decide(source, _read_classes(source), _read_labelmap(source))

    def _read(self, path: Path) -> Mask:
        if not self._collector.contains(path):
            raise VAEAugError(f"{path}: the mask lies outside the source")
        return read_mask(path, self._options.exif)

    def add_image(self, path: Path, scheme: Scheme) -> None:
        """Add an image with the regions of its masks."""
        masks = self._pairing.images[path]
        unclear = [mask for mask, paths in self._pairing.unclear.items() if path in paths]
        others = self._pairing.others.get(path, [])
        objects = self._pairing.objects.get(path, [])
        if not self._collector.contains(path) or not (masks or unclear or others or objects):
            self._collector.add(path, None)  # refuses by name what lies outside
            return
        try:
            size = read_size(path, self._options.exif)
        except VAEAugError as error:
            self._collector.report(path, describe_fault(path, error))
            return
        found = {mask: self._find_boxes(mask, size, scheme) for mask in masks}
        reason = "it may be the mask of several images, which differ in suffix or folder"
        found |= {mask: [Fault(reason, "unread")] for mask in unclear}
        # Where there are boxes, what else bears a mask's name is rather about it.
        if not any(found.values()):
            found |= {other: [Fault(_NO_MASK, "unread")] for other in others}
            found |= {mask: faults for mask in objects if (faults := self._find_objects(mask))}
        faulty = (mask for mask, entries in found.items() if not _are_boxes(entries))
        entries = dict.fromkeys(entry for entries in found.values() for entry in entries)
        missing = self._list_missing(masks)
        if missing and not entries:
            reason = f"has no mask {', '.join(missing)}, as other images have"
            self._collector.report(path, reason, "unannotated")
        file = next(faulty, next(iter(found), None))
        is_unannotated = (missing or not found) and not entries
        self._collector.add(path, None if is_unannotated else entries, file=file, size=size)

    def _list_missing(self, masks: Sequence[Path]) -> list[str]:
        """Return the folders and things of which other images have a mask, and one has not."""
        folders = self._folders - {fold_name(n) for mask in masks for n in mask.parent.parts}
        subjects = self._needed - {self._subjects[mask] for mask in masks} if masks else set()
        named = sorted(" ".join(sorted(subject)) or "another name" for subject in subjects)
        return [f"in {name}" for name in sorted(folders)] or [f"of {name}" for name in named]

    def _find_boxes(self, path: Path, size: tuple[int, int], scheme: Scheme) -> list[Box | Fault]:
        if path in self._faults:
            return [Fault(self._faults[path], "unread")]
        values = self._read(path)
        try:
            classes = scheme.classify(values)
        except VAEAugError as error:
            return [Fault(str(error), "unread")]
        if classes.shape != size:
            height, width = classes.shape
            reason = f"the mask is {height} x {width}, the image {size[0]} x {size[1]}"
            return [Fault(f"{reason} pixels (rows x columns)", "unread")]
        if not classes.any() and scheme.has_void(values):
            return [Fault("it marks pixels as void, and none as a class", "unread")]
        self._framing.append(_find_framing(classes))
        self._fields.setdefault(_name_kind(path), []).append(_is_field_of_view(classes))
        regions = list(islice(find_regions(classes), MAX_MASK_REGIONS + 1))
        if len(regions) > MAX_MASK_REGIONS:
            return [Fault(f"it has more than {MAX_MASK_REGIONS} regions, as noise has", "unread")]
        self._boxes[path] = regions
        return [
            Box(tuple(xyxy), scheme.names[value])
            if value in scheme.names
            else Fault(f"a region of value {value}, for which classes.txt has no line")
            for value, xyxy in regions
        ]

    def _find_objects(self, path: Path) -> list[Box | Fault]:
        """Return a fault if a mask numbers objects, for an image of which no mask has a class."""
        try:
            if not self._read(path).values.any():
                return []
        except VAEAugError as error:
            return [Fault(describe_fault(path, error), "unread")]
        return [Fault("it numbers objects, and no mask tells their class", "unread")]

    def check_inverted(self, scheme: Scheme) -> None:
        """Refuse masks of which each has one value all around: that is the background.

        Raises:
            AnnotationError: If so.
        """
        framing = set.intersection(*self._framing) if self._framing else set()
        if framing:
            what = f"value {min(framing)}" if len(scheme.names) > 1 else "what is not 0"
            raise AnnotationError(
                f"{self._collector.root}: in every mask {what} runs along the border and covers "
                "more than half, as background does; save masks whose background is 0."
            )

    def check_subjects(self) -> None:
        """Refuse masks that mark different things, as their names say, with one value.

        They may be those of different images. Masks of two names are copies if they are equal
        wherever an image has both.

        Raises:
            AnnotationError: If there are such.
        """
        subjects: dict[frozenset[str], dict[Path, list[Path]]] = {}
        for image, masks in self._pairing.images.items():
            for mask in filter(self._boxes.get, masks):
                parts = subjects.setdefault(self._subjects[mask], {})
                parts.setdefault(image, []).append(mask)
        for one, other in combinations(subjects.values(), 2):
            both = one.keys() & other.keys()
            first, second = self._find_values(one), self._find_values(other)
            shared = first.keys() & second.keys()
            is_copy = both and all(self._are_alike(one[image], other[image]) for image in both)
            if shared and not is_copy:
                names = (self._collector.relate(found[min(shared)]) for found in (first, second))
                raise AnnotationError(
                    f"{self._collector.root}: {' and '.join(map(repr, names))} are masks named as "
                    "of different things, and use the same value; give each thing a value of its "
                    "own and name these in classes.txt, move the masks that are not meant "
                    "elsewhere, or call the folders of masks of one thing alike."
                )

    def _find_values(self, masks: Mapping[Path, Iterable[Path]]) -> dict[int, Path]:
        """Return the class values of masks, those of each image, each with a mask of it."""
        paths = (path for of_image in masks.values() for path in of_image)
        return {value: path for path in paths for value, _ in self._boxes[path]}

    def _are_alike(self, one: Iterable[Path], other: Iterable[Path]) -> bool:
        return [self._boxes[path] for path in one] == [self._boxes[path] for path in other]

    def check_fields_of_view(self, *, are_named: bool) -> None:
        """Refuse masks of one kind of which each is that of nearly the whole image.

        Args:
            are_named: Whether a file names the classes, so that masks of a single kind are meant.

        Raises:
            AnnotationError: If there are several such masks, and not one of their kind differs.
        """
        for (folder, word), are_fields in self._fields.items():
            is_meant = are_named and len(self._fields) == 1
            if len(are_fields) > 1 and all(are_fields) and not is_meant:
                named = f"named {word!r} " if word else ""
                advice = "" if len(self._fields) > 1 else ", or name the object in classes.txt"
                raise AnnotationError(
                    f"{self._collector.root}: each mask {named}in {folder!r} is one region of more "
                    "than half of the image, as a field of view is and no lesion; move these masks "
                    f"elsewhere{advice}."
                )


def _name_kind(mask: Path) -> tuple[str, str]:
    """Return what masks that mean the same share: their folder's name, and the word in theirs."""
    words = [word for word, _ in split_name(fold_name(mask.stem))]
    return fold_name(mask.parent.name), words[0] if words else ""


def _is_field_of_view(classes: np.ndarray) -> bool:
    """Tell whether a mask is one region of one class, and more than half of the image."""
    found, counts = np.unique(classes[classes != 0], return_counts=True)
    if len(found) != 1 or counts[0] <= _AREA_SHARE * classes.size:
        return False
    sizes = np.bincount(label_regions(classes, background=0, connectivity=2).ravel())[1:]
    return bool(sizes.max() >= _FRAME_SHARE * counts[0])


def _doubt_named(collector: Collector, orphans: Iterable[Path]) -> None:
    """Mark images without boxes as faulty whose name the name of a mask without an image begins."""
    beginnings = {
        beginning for path in orphans for beginning in list_beginnings(fold_name(path.stem))
    }

    def is_meant(image: AnnotatedImage) -> bool:
        return not image.labels and fold_name(image.path.stem) in beginnings

    if any(map(is_meant, collector.images)):
        reason = (
            "masks without an image begin with the name of images without boxes, and may be theirs"
        )
        collector.doubt(reason, is_meant)


def _doubt_negatives(collector: Collector, links: Sequence[Path]) -> None:
    """Mark images without boxes as faulty if there are links to masks that are not followed."""
    for link in links:
        collector.report(link, "is a link to a folder elsewhere, or to nothing; it is not followed")
    if links:
        collector.doubt(
            "folders of masks are links that are not followed; images without boxes count as "
            "faulty",
            lambda image: not image.labels,
        )


def _find_needed_folders(pairing: Pairing) -> set[str]:
    """Return the names of folders of masks in each of which an image needs one to be without boxes.

    They are those in which some image has a mask each, or that lie beside each other, as `leftMask`
    and `rightMask`.
    """
    needed: set[str] = set()
    beside: dict[Path, set[str]] = {}
    for image, masks in pairing.images.items():
        masks = [mask for mask in masks if mask.parent != image.parent]
        names = {fold_name(mask.parent.name) for mask in masks}
        needed |= names if len(names) > 1 else set()
        for folder in filter(None, map(find_mask_folder, masks)):
            beside.setdefault(folder.parent, set()).add(fold_name(folder.name))
    return needed.union(*(names for names in beside.values() if len(names) > 1))


def _are_boxes(entries: Sequence[Box | Fault]) -> bool:
    return all(isinstance(entry, Box) for entry in entries)


def _find_framing(classes: np.ndarray) -> set[int]:
    """Return the value, if any but 0, of nearly all border pixels and most of the others."""
    border = np.concatenate([classes[0], classes[-1], classes[:, 0], classes[:, -1]])
    values, counts = np.unique(border, return_counts=True)
    value = int(values[counts.argmax()])
    is_frame = value and counts.max() >= _FRAME_SHARE * len(border)
    return {value} if is_frame and (classes == value).mean() > _AREA_SHARE else set()


def find_regions(mask: np.ndarray) -> Iterator[tuple[int, list[float]]]:
    """Find the boxes of the 8-connected regions of a mask.

    Args:
        mask: `[H, W]` integers; 0 is background, regions of other values are apart.

    Yields:
        `(value, xyxy)` in pixels, the far edge exclusive, by the first pixel in reading order.
    """
    marked = [np.flatnonzero(mask.any(axis)) for axis in (0, 1)]
    if not len(marked[0]):
        return
    # The background around them takes most of the time.
    left, top = (int(places[0]) for places in marked)
    mask = mask[top : marked[1][-1] + 1, left : marked[0][-1] + 1]
    regions = label_regions(mask, background=0, connectivity=2)
    values = np.zeros(regions.max() + 1, np.int64)
    values[regions] = mask
    for value, (rows, columns) in zip(values[1:], find_objects(regions), strict=True):
        xyxy = (left + columns.start, top + rows.start, left + columns.stop, top + rows.stop)
        yield int(value), [float(side) for side in xyxy]


def name_values(source: Path, found: set[int]) -> dict[int, str]:
    """Name the values of masks, as `read_masks` says.

    Args:
        source: The data set's folder.
        found: The values of all regions.

    Returns:
        Names by value, in the order of the labels.

    Raises:
        AnnotationError: If classes.txt cannot be read.
    """
    return name_found(found, _read_classes(source))


def _read_classes(source: Path) -> dict[int, str] | None:
    """Read classes.txt, whose line k names value k, behind a line for the background if any."""
    file = _find(source, "classes.txt")
    if file is None:
        return None
    lines = [clean_label(line) for line in read_text(file).replace("\ufeff", "").splitlines()]
    first = 0 if lines and fold_name(lines[0]) in _BACKGROUND else 1
    return {value: line for value, line in enumerate(lines, first) if value and line}


def _read_labelmap(source: Path) -> dict[int, str] | None:
    """Read CVAT's labelmap.txt: `name:red,green,blue:parts:actions`; `""` names background.

    Raises:
        AnnotationError: If a line is none of these, or two name one colour.
    """
    file = _find(source, "labelmap.txt")
    if file is None:
        return None
    colours: dict[int, str] = {}
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip() or line.lstrip()[0] == "#":
            continue
        name, _, rest = line.partition(":")
        match = _COLOUR.fullmatch(rest.split(":")[0])
        if match is None or any(int(part) > 255 for part in match.groups()):
            raise AnnotationError(f"{file}: line {number} is not `name:red,green,blue::`.")
        red, green, blue = map(int, match.groups())
        colour = red << 16 | green << 8 | blue
        if colour in colours:
            raise AnnotationError(f"{file}: line {number} names a colour again; give each its own.")
        label = clean_label(name)
        colours[colour] = "" if fold_name(label) in _BACKGROUND else label
    return colours


def _find(source: Path, name: str) -> Path | None:
    paths: Sequence[Path] = sorted(source.iterdir())
    return next((path for path in paths if fold_name(path.name) == name and path.is_file()), None)
