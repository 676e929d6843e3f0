"""Images with boxes as a source has them, what is wrong with it, and rules for boxes."""

from __future__ import annotations

import dataclasses
import functools
import os
import unicodedata
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar, cast

import numpy as np

from vae_aug.config import Exif
from vae_aug.errors import AnnotationError, VAEAugError
from vae_aug.ingest.formats.borders import is_inside, keep_inside, list_borders
from vae_aug.ingest.hounsfield import Hounsfield
from vae_aug.ingest.items import Item, find_item
from vae_aug.limits import MAX_BOXES

_LEAST_SIDE_PX = 1e-3
# YOLO files of six decimals miss the edge of an image of 4000 pixels by up to 0.004.
_EDGE_TOLERANCE_PX = 1e-2
# A box of the whole image in pixels that are counted from 1 leaves it by one.
_COUNTED_FROM_1_PX = 1.5


Effect = Literal["skipped", "unread", "dropped", "clipped", "unannotated"]
AnnotationState = Literal["complete", "faulty", "none"]


@dataclasses.dataclass(frozen=True)
class AnnotatedImage:
    """One image with its boxes.

    Attributes:
        item: Where its pixels are.
        source_id: Key of the image: its path relative to the source, or SOP Instance UID.
        patient: Identifier of the patient as the source has it, `""` if unknown.
        height: Height in pixels that the annotation claims; None if it does not.
        width: Width in pixels that the annotation claims; None if it does not.
        annotation: What the source says of boxes: `"complete"` (all that it says is in `boxes`; the
            image is a negative if there are none), `"faulty"` (it says something that is not in
            `boxes`), or `"none"` (it says nothing).
        boxes: `[N, 4] float64` `xyxy` in pixels, as in the source.
        labels: `[N]` label names.
        is_crowd: `[N]` COCO's mark of a box around many objects.
        difficult: `[N]` Pascal VOC's mark.
        truncated: `[N]` Pascal VOC's mark.
    """

    item: Item
    source_id: str
    patient: str
    height: int | None
    width: int | None
    annotation: AnnotationState
    boxes: np.ndarray
    labels: tuple[str, ...]
    is_crowd: tuple[bool, ...]
    difficult: tuple[bool, ...]
    truncated: tuple[bool, ...]

    @property
    def path(self) -> Path:
        """The file that holds the image."""
        return self.item.path


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something wrong in a source.

    Attributes:
        file: The file, relative to the source.
        reason: What is wrong with it; names no file and no patient.
        effect: `"skipped"` (a whole file is left out), `"unread"` (an annotation was not
            understood, so that its image counts as faulty), `"dropped"` (a box is left out, so
            that its image counts as faulty), `"clipped"` (a box), or `"unannotated"` (an image of
            which it cannot be said whether it has boxes).
    """

    file: str
    reason: str
    effect: Effect


class Annotations(NamedTuple):
    """What a reader returns.

    Attributes:
        label_names: All labels of the source, also of its other splits where they are known.
        images: The images of the split, in a fixed order.
        problems: What was left out.
        notes: What else to know of the source, in sentences that name no file and no patient.
        file: The annotation file of the first image that has one; None if none has.
    """

    label_names: tuple[str, ...]
    images: tuple[AnnotatedImage, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    file: Path | None = None

    def doubt(self, source_ids: Container[str], problems: Iterable[Problem]) -> Annotations:
        """Return the same with some images marked as faulty, and why in front of the problems."""
        images = tuple(
            dataclasses.replace(image, annotation="faulty")
            if image.source_id in source_ids
            else image
            for image in self.images
        )
        return self._replace(images=images, problems=(*problems, *self.problems))


class Box(NamedTuple):
    """One box as a source has it, `xyxy` in pixels, with its label and marks."""

    xyxy: Sequence[float]
    label: str
    is_crowd: bool = False
    difficult: bool = False
    truncated: bool = False


class ReaderOptions(NamedTuple):
    """How a source is read.

    Attributes:
        images: A folder in which images may lie besides the source's; None for none.
        exif: Whether sizes are those of the image as its EXIF orientation shows it (`"apply"`) or
            as it is stored (`"ignore"`).
        axis: Of `vae_aug.ingest.nifti.AXES`, along which volumes become slices.
    """

    images: Path | None = None
    exif: Exif = "apply"
    axis: str = "axial"


DEFAULTS = ReaderOptions()

_Reader = TypeVar("_Reader", bound=Callable[..., Annotations])


def reader(read: _Reader) -> _Reader:
    """Decorate the reader of a format: of text files it opens those of its source alone."""

    @functools.wraps(read)
    def read_inside(
        source: str | os.PathLike[str], split: str = "train", options: ReaderOptions = DEFAULTS
    ) -> Annotations:
        with keep_inside(list_borders(Path(source), options.images)):
            return read(source, split, options)

    return cast(_Reader, read_inside)


class Fault(NamedTuple):
    """Something that a source says of an image's boxes and that became no box.

    Attributes:
        reason: What is wrong, with the place in the annotation file; names no file and no patient.
        effect: `"dropped"` (one box), or `"unread"` (a whole annotation).
    """

    reason: str
    effect: Effect = "dropped"


class Collector:
    """Gathers the images and problems of one source.

    Images must lie in the source or in a folder that the user named, links resolved. One that lies
    elsewhere is reported and not taken: a data set must not be able to name the files of others.
    """

    def __init__(self, root: Path, options: ReaderOptions = DEFAULTS) -> None:
        """Gather what lies in the folder `root`, to which problems name their files."""
        self.root = root
        self.images: list[AnnotatedImage] = []
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self._file: Path | None = None
        self._borders = list_borders(root, options.images)
        self._positions: dict[str, int] = {}

    def relate(self, path: Path | str) -> str:
        """Return a path relative to the source, with forward slashes."""
        return Path(os.path.relpath(path, self.root)).as_posix()

    def report(self, path: Path | str, reason: str, effect: Effect = "skipped") -> None:
        """Note a problem of a file."""
        name = self.relate(path) if isinstance(path, Path) else path
        self.problems.append(Problem(name, reason, effect))

    def contains(self, path: Path) -> bool:
        """Tell whether a file lies in the source or in the folder that the user named."""
        return is_inside(path, self._borders)

    def add(
        self,
        image: Path | Item,
        entries: Iterable[Box | Fault] | None,
        *,
        file: Path | None = None,
        size: tuple[int | None, int | None] = (None, None),
        patient: str = "",
        source_id: str | None = None,
        hounsfield: Hounsfield | None = None,
    ) -> None:
        """Add an image, unless it lies outside the source.

        An image that is there already is not taken again. If what is said of it now differs, it
        cannot be told which is right, and it counts as faulty.

        Args:
            image: Where it is; a file that holds one image by its path.
            entries: What the source says of its boxes: boxes, and faults where it says something
                that is none; each fault is reported. Nothing to iterate over if the source says
                that there are no boxes; None if it says nothing of the image.
            file: The annotation file, to which faults are reported; None for the image itself.
            size: Height and width in pixels that the annotation claims.
            patient: As in `AnnotatedImage`.
            source_id: As in `AnnotatedImage`; None for the path relative to the source.
            hounsfield: As in `ImageFile`, of a path.
        """
        path = image if isinstance(image, Path) else image.path
        if not self.contains(path):
            reason = "the image lies outside the source; name its folder with --images"
            self.report(path, reason)
            return
        self._file = self._file or file
        boxes, faults = _check_labels(entries or ())
        for fault in faults:
            self.report(file or path, fault.reason, fault.effect)
        annotated = AnnotatedImage(
            item=find_item(image, hounsfield) if isinstance(image, Path) else image,
            source_id=self.relate(path) if source_id is None else source_id,
            patient=patient,
            height=size[0],
            width=size[1],
            annotation="none" if entries is None else "faulty" if faults else "complete",
            boxes=np.asarray([box.xyxy for box in boxes], np.float64).reshape(-1, 4),
            labels=tuple(box.label for box in boxes),
            is_crowd=tuple(box.is_crowd for box in boxes),
            difficult=tuple(box.difficult for box in boxes),
            truncated=tuple(box.truncated for box in boxes),
        )
        position = self._positions.setdefault(annotated.source_id, len(self.images))
        if position == len(self.images):
            self.images.append(annotated)
        else:
            self._merge(position, annotated)

    def _merge(self, position: int, image: AnnotatedImage) -> None:
        """Report an image that is there twice, and mark it where the two differ."""
        first = self.images[position]
        same = (first.annotation, first.labels) == (image.annotation, image.labels)
        if same and np.array_equal(first.boxes, image.boxes, equal_nan=True):
            reason = "the source holds this image twice; only the first is taken"
            self.report(image.path, image.item.locate(reason))
            return
        reason = "the source holds this image twice, with different boxes"
        self.report(image.path, image.item.locate(reason), "unread")
        self.images[position] = dataclasses.replace(first, annotation="faulty")

    def doubt(
        self, reason: str, is_meant: Callable[[AnnotatedImage], bool] = lambda image: True
    ) -> None:
        """Mark images as faulty, because the source has boxes of which it cannot be told whose.

        They may be those of images of which it says nothing, too.

        Args:
            reason: Why, as a note of the report.
            is_meant: Tells which images to mark; by default all.
        """
        self.notes.append(reason)
        self.images = [
            dataclasses.replace(image, annotation="faulty") if is_meant(image) else image
            for image in self.images
        ]

    def doubt_unannotated(self, lost: int) -> None:
        """Mark images without a file as faulty if files of boxes have lost their image.

        Args:
            lost: How many files say something of boxes, and no image was found for them.
        """
        if lost:
            reason = (
                f"{lost} annotation files have no image, so each may describe any image that has "
                "no file of its own"
            )
            self.doubt(reason, lambda image: image.annotation == "none")

    def finish(self, label_names: Iterable[str]) -> Annotations:
        """Return what was gathered."""
        names = tuple(dict.fromkeys(map(clean_label, label_names)))
        if not all(names):
            raise AnnotationError(f"{self.root}: a class has an empty name; name it.")
        return Annotations(
            names, tuple(self.images), tuple(self.problems), tuple(self.notes), self._file
        )


def _check_labels(entries: Iterable[Box | Fault]) -> tuple[list[Box], list[Fault]]:
    """Part boxes from faults, of which a box without a label is one."""
    boxes: list[Box] = []
    faults: list[Fault] = []
    for index, entry in enumerate(entries):
        if index == MAX_BOXES:
            return [], [*faults, Fault(f"it has more than {MAX_BOXES} boxes", "unread")]
        if isinstance(entry, Fault):
            faults.append(entry)
        elif label := clean_label(entry.label):
            boxes.append(entry if label == entry.label else entry._replace(label=label))
        else:
            faults.append(Fault(f"box {index}: has no label"))
    return boxes, faults


@functools.lru_cache(2**10)
def clean_label(text: str) -> str:
    """Return a label without white space around it, and with letters composed (Unicode NFC)."""
    return unicodedata.normalize("NFC", text).strip()


def clean_boxes(
    boxes: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Clip boxes to the image and find those that cannot be used.

    Args:
        boxes: `[N, 4]` `xyxy` in pixels.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        `(clipped, usable, faults)`: boxes `[N, 4] float64` within the image, `[N] bool`, and
        for each box what is wrong with it, `""` if nothing is. Overshoots of up to 0.01 px
        (rounding of relative coordinates) are clipped without a fault.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    clipped = np.clip(boxes, 0, np.array([width, height, width, height], np.float64))
    with np.errstate(invalid="ignore"):  # infinity less itself
        sides, sides_inside = (some[:, 2:] - some[:, :2] for some in (boxes, clipped))
        overshoots = np.abs(boxes - clipped).max(axis=1)
    faults = {
        "its coordinates are not all numbers": ~np.isfinite(boxes).all(axis=1),
        "inverted (a minimum above its maximum)": (sides < 0).any(axis=1),
        "zero area": (sides < _LEAST_SIDE_PX).any(axis=1),
        "outside the image": (sides_inside < _LEAST_SIDE_PX).any(axis=1),
        "of the size of the image, but shifted; its size may be the image's": (
            (np.abs(sides - (width, height)) < _LEAST_SIDE_PX).all(axis=1)
            & (overshoots > _COUNTED_FROM_1_PX)
        ),
    }
    usable = ~np.any(list(faults.values()), axis=0)
    faults["partly outside the image"] = overshoots > _EDGE_TOLERANCE_PX
    return clipped, usable, np.select(list(faults.values()), list(faults), "").tolist()


def describe_fault(path: Path, error: VAEAugError) -> str:
    """Return the reason in an error about a file, without the file's name.

    Args:
        path: The file.
        error: Raised by a reader of files, whose messages begin with the file.

    Returns:
        The reason.
    """
    return str(error).removeprefix(f"{path}: ").rstrip(".")


def parse_number(value: object) -> float:
    """Return a number, NaN for what is none: such a box is dropped and counted later."""
    # Python takes True for 1 and "1_0" for 10.
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        return float("nan")
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def parse_size(value: object) -> int | None:
    """Return a size in pixels, None for what is none; some tools write 0 for "unknown"."""
    number = parse_number(value)
    return int(number) if np.isfinite(number) and number >= 1 else None
