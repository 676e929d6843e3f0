"""YOLO data sets."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from vae_aug.boxes import convert_boxes
from vae_aug.errors import AnnotationError, VAEAugError
from vae_aug.ingest.formats.layout import read_size
from vae_aug.ingest.formats.source import (
    DEFAULTS,
    Annotations,
    Box,
    Collector,
    Fault,
    ReaderOptions,
    describe_fault,
    reader,
)
from vae_aug.ingest.formats.text import read_text
from vae_aug.ingest.formats.yolo_layout import ImageLister, LabelFinder
from vae_aug.ingest.formats.yolo_names import (
    CLASS,
    NUMBER,
    Description,
    is_yolo_text,
    read_description,
    read_names,
    split_lines,
)
from vae_aug.ingest.formats.yolo_names import find_yolo_names as find_yolo_names
from vae_aug.ingest.formats.yolo_names import is_darknet as is_darknet
from vae_aug.ingest.formats.yolo_points import find_boxed_lengths
from vae_aug.limits import MAX_BOXES
from vae_aug.words import plural

# Ultralytics refuses more than this beyond the image, which is no rounding.
_TOLERANCE = 0.01
_BEYOND = "a number lies beyond [0, 1]; coordinates relative to the image are expected"
_LAYOUTS = (
    "expected labels/NAME.txt for images/NAME.png (also with folders of splits), or NAME.txt "
    "beside NAME.png."
)


@reader
def read_yolo(
    source: str | os.PathLike[str], split: str = "train", options: ReaderOptions = DEFAULTS
) -> Annotations:
    """Read a YOLO data set: one text file an image, `class x_center y_center width height`.

    Layouts: `images/<split>` with `labels/<split>`, `<split>/images` with `<split>/labels`,
    `images` with `labels`, or text files beside the images; folders or lists of images that the
    YAML file names for the split (`train`, `val`, `test`, below `path`) come first, or the lists
    that Darknet's `obj.data` names, as CVAT exports them ("YOLO 1.1"). Names come from
    `data.yaml` (or another YAML file with `names`), `obj.names` or `classes.txt`, which must not
    contradict each other. Lines with a polygon (or an oriented box) instead of a box give its
    bounding box. Points behind a box are left out: if the YAML file has `kpt_shape`, or if the rows
    of the split can be nothing else, as `find_boxed_lengths` says. Lines that are there twice count
    once.

    An image is a negative if its text file is empty, or if it has none, other images of its folder
    have one, and no text file is left over: else it counts as faulty, since those boxes may be
    its own. In a folder without text files images are unannotated. Faulty are, too, images beside
    whose text file's place lies something else of their name (`b.json`, a broken link), that
    share a text file, or have two that differ; and a line of four numbers among polygons, which is
    a box for some tools and two corners for Ultralytics.

    Args:
        source: The data set's folder, its YAML file, or its `obj.data`.
        split: Which split. Where the folder has no splits, every image is taken.
        options: How it is read.

    Returns:
        The annotations; coordinates in pixels of the image's size, which is read from its
        header.

    Raises:
        AnnotationError: If there are no names, or no images of the split; if the YAML file cannot
            be read or contradicts itself; if the coordinates are pixels or corners; if long lines
            may be polygons as well as boxes with key points.

    Reference:
        Ultralytics, `img2label_paths` and `verify_image_label` (ultralytics/data/utils.py).
    """
    source = Path(source)
    file = source if source.is_file() else None
    root = source.parent if file else source
    if not root.is_dir():
        raise AnnotationError(f"{source}: no such folder.")
    description = read_description(root, file)
    names = read_names(root, description, is_told=file is not None)
    collector = Collector(root, options)
    listed = ImageLister(collector, description, split, options.images).list_images()
    finder = LabelFinder(root, split, options.images)
    files = {path: finder.find(path, name) for path, name in listed.items()}
    if not any(files.values()):
        raise AnnotationError(
            f"{root}: none of its {plural(len(listed), 'image')} has a text file of boxes; "
            f"{_LAYOUTS}"
        )
    unread = {
        path: found
        for path, name in listed.items()
        if not files[path] and (found := finder.find_unread(path, name))
    }
    boxed = _get_boxed_lengths(description)
    if boxed is None:
        boxed = find_boxed_lengths(root, _iterate_texts(files.values()))
    reader = _Reader(collector, options, _Lines(names, boxed), files, unread)
    reader.add_images(finder.find_leftovers(files, split))
    reader.check_units()
    _note_names(collector, names)
    return collector.finish(names[number] for number in sorted(names))


def _get_boxed_lengths(description: Description) -> frozenset[int] | None:
    """Return how many numbers a box with its points has, as the YAML file says; else None."""
    shape = description.content.get("kpt_shape")
    if shape is None:
        return None
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(n) is int for n in shape)):
        raise AnnotationError(f"{description.file}: 'kpt_shape' is not two numbers; correct it.")
    return frozenset({4 + int(shape[0] * shape[1])})


def _iterate_texts(files: Iterable[Sequence[Path]]) -> Iterator[str]:
    """Yield the first text file of each image that can be read."""
    for found in files:
        with contextlib.suppress(AnnotationError):
            yield from map(read_text, found[:1])


def _note_names(collector: Collector, names: Mapping[int, str]) -> None:
    twice = len(names) - len(set(names.values()))
    if twice:
        collector.notes.append(
            f"{plural(twice, 'class', 'bears', 'bear')} the name of another; they became one label"
        )


class _Reader:
    """Adds the images of a split with what their text files say."""

    def __init__(
        self,
        collector: Collector,
        options: ReaderOptions,
        lines: _Lines,
        files: Mapping[Path, Sequence[Path]],
        unread: Mapping[Path, Path],
    ) -> None:
        self._collector = collector
        self._options = options
        self._lines = lines
        self._files = files
        self._unread = unread
        self._owners: dict[Path, int] = {}
        for found in files.values():
            for file in found[:1]:
                self._owners[file] = self._owners.get(file, 0) + 1
        self._annotated = {
            path.parent for path, found in files.items() if found and collector.contains(found[0])
        }

    def add_images(self, leftovers: Sequence[Path]) -> None:
        """Add all images; those without a text file are in doubt if any is left over."""
        paths = list(self._files)
        for file in leftovers:
            self._collector.report(file, "a text file of boxes without an image")
        if leftovers:
            for path in paths:
                if not self._files[path]:
                    self._add(path)
            self._collector.doubt(
                f"{len(leftovers)} text files of boxes have no image, so it is not certain that "
                "images without a text file have no boxes"
            )
            paths = [path for path in paths if self._files[path]]
        for path in paths:
            self._add(path)
        if self._lines.repeated:
            self._collector.notes.append(
                plural(
                    self._lines.repeated,
                    "box",
                    "is there twice in a text file; it counts once",
                    "are there twice in a text file; each counts once",
                )
            )

    def _add(self, path: Path) -> None:
        files = self._files[path]
        if not self._collector.contains(path):
            self._collector.add(path, None)  # refuses it by name
        elif path in self._unread:
            fault = Fault("it bears the name of an image, and is no text file of YOLO", "unread")
            self._collector.add(path, [fault], file=self._unread[path])
        elif not files:
            self._collector.add(path, [] if path.parent in self._annotated else None)
        else:
            try:
                size = read_size(path, self._options.exif)
            except VAEAugError as error:
                self._collector.report(path, describe_fault(path, error))
                return
            self._collector.add(path, self._read(files, size), file=files[0])

    def _read(self, files: Sequence[Path], size: tuple[int, int]) -> list[Box | Fault]:
        file = files[0]
        if self._owners[file] > 1:
            return [Fault("several images, which differ in suffix, share it", "unread")]
        try:
            text = read_text(file)
        except VAEAugError as error:
            return [Fault(describe_fault(file, error), "unread")]
        for other in files[1:]:
            if is_yolo_text(other) and read_text(other) != text:
                return [Fault("the image has a second text file, which differs", "unread")]
        return self._lines.parse(text, size)

    def check_units(self) -> None:
        """Refuse coordinates that are pixels, or corners.

        Raises:
            AnnotationError: If every line has a number beyond 1; or if some boxes leave the image,
                and all would lie within it if the numbers were those of corners.
        """
        beyond = any(problem.reason.endswith(_BEYOND) for problem in self._collector.problems)
        if beyond and not any(image.labels for image in self._collector.images):
            raise AnnotationError(
                f"{self._collector.root}: every box has numbers beyond 1, so the coordinates are "
                "no relative ones; divide x and width by the image's width, y and height by its "
                "height."
            )
        boxes = np.array(self._lines.boxes).reshape(-1, 4)
        centers, halves = boxes[:, :2], boxes[:, 2:] / 2
        leave = (np.abs(centers - 0.5) + halves > 0.5 + _TOLERANCE).any()
        if leave and (boxes[:, 2:] > boxes[:, :2]).all():
            raise AnnotationError(
                f"{self._collector.root}: read as centre and size, boxes leave the image; read as "
                "two corners, all lie within it. Write the centre and the size of each box."
            )


class _Lines:
    """Parses text files, and remembers what tells the units of their numbers.

    Attributes:
        boxes: The numbers of each line of four.
        repeated: How many lines were there before.
    """

    def __init__(self, names: Mapping[int, str], boxed: frozenset[int]) -> None:
        self.boxes: list[list[float]] = []
        self.repeated = 0
        self._names = names
        self._boxed = boxed

    def parse(self, text: str, size: tuple[int, int]) -> list[Box | Fault]:
        """Parse the lines of a text file of an image of `size`, height and width."""
        lines = [(number, line.split()) for number, line in split_lines(text)]
        if len(lines) > MAX_BOXES:
            return [Fault(f"it has more than {MAX_BOXES} lines", "unread")]
        # So Ultralytics tells polygons, which it then takes every line of the file for.
        long = (words for _, words in lines if len(words) > 6)
        are_polygons = any(len(words) - 1 not in self._boxed for words in long)
        entries: list[Box | Fault] = []
        for number, words in lines:
            entry = self._parse(words, size, are_polygons)
            entries.append(Fault(f"line {number}: {entry}") if isinstance(entry, str) else entry)
        distinct = list(dict.fromkeys(entries))
        self.repeated += len(entries) - len(distinct)
        return distinct

    def _parse(self, words: Sequence[str], size: tuple[int, int], are_polygons: bool) -> Box | str:
        """Parse one line; a string tells what is wrong with it."""
        if not CLASS.fullmatch(words[0]):
            return "does not begin with the number of a class, parted by blanks"
        label = self._names.get(int(float(words[0])))
        if label is None:
            return f"class {words[0]!r} is not one of the {len(self._names)} names"
        numbers = np.array([float(w) if NUMBER.fullmatch(w) else np.nan for w in words[1:]])
        if len(numbers) in self._boxed:
            numbers = numbers[:4]
        fault = _check_numbers(numbers, are_polygons)
        if fault:
            return fault
        height, width = size
        if len(numbers) == 4:
            self.boxes.append(numbers.tolist())
            sizes = np.array([width, height, width, height], np.float64)
            xyxy = convert_boxes(numbers * sizes, "center_xywh", "xyxy")
        else:
            points = numbers.reshape(-1, 2) * (width, height)
            xyxy = np.concatenate([points.min(axis=0), points.max(axis=0)])
        return Box(tuple(xyxy.tolist()), label)


def _check_numbers(numbers: np.ndarray, are_polygons: bool) -> str:
    """Return what is wrong with the numbers of a line, `""` if nothing is."""
    count = len(numbers)
    if count == 5:
        return "has six columns, as predictions with a score have; remove the score"
    if count < 4 or count % 2:
        return f"expected 4 numbers or a polygon behind the class; got {count}"
    if np.isnan(numbers).any():
        return "a coordinate is no number (with a decimal point, parted by blanks)"
    if numbers.min() < -_TOLERANCE or numbers.max() > 1 + _TOLERANCE:
        return _BEYOND
    if count == 4 and are_polygons:
        return "four numbers among polygons, which may be a box or two corners"
    return ""
