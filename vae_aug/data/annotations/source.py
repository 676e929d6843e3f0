"""Images with boxes as a source has them, what is wrong with it, and rules for boxes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from vae_aug.data.nifti import is_nifti
from vae_aug.errors import AnnotationError, VAEAugError

_LEAST_SIDE_PX = 1e-3
# YOLO files of six decimals miss the edge of an image of 4000 pixels by up to 0.004.
_EDGE_TOLERANCE_PX = 1e-2


Effect = Literal["skipped", "dropped", "clipped"]
NeighbourState = Literal["found", "end", "gap", "thick", "duplicate", "unplaced", "unfit"]


class Hounsfield(NamedTuple):
    """What the pixels of a PNG of 16 bits stand for, where they are no grey.

    Attributes:
        offset: What was added to Hounsfield units.
        window: The units that are black and white, None if the source names none.
    """

    offset: int
    window: tuple[float, float] | None


class Neighbour(NamedTuple):
    """A slice before or behind an image, or why there is none.

    Attributes:
        state: `"found"`; `"end"` (the series ends), `"gap"` (a slice is missing between), `"thick"`
            (no other slice is as near), `"duplicate"` (another slice lies where the image does),
            `"unplaced"` (the image has no place in space), or `"unfit"` (cannot be read, or
            differs in size or colour).
        path: The DICOM file, None if there is none.
        frame: Index of its frame, from 0.
    """

    state: NeighbourState
    path: Path | None = None
    frame: int = 0


@dataclasses.dataclass(frozen=True)
class AnnotatedImage:
    """One image with its boxes.

    Attributes:
        path: The file that holds the image: PNG, JPEG, TIFF, DICOM, TFRecord or NIfTI.
        source_id: Key of the image: its path relative to the source, or SOP Instance UID.
        patient: Identifier of the patient as the source has it, `""` if unknown.
        height: Height in pixels that the annotation claims; None if it does not.
        width: Width in pixels that the annotation claims; None if it does not.
        boxes: `[N, 4] float64` `xyxy` in pixels, as in the source.
        labels: `[N]` label names.
        is_crowd: `[N]` COCO's mark of a box around many objects.
        difficult: `[N]` Pascal VOC's mark.
        truncated: `[N]` Pascal VOC's mark.
        frame: Which frame of a DICOM file, record of a TFRecord file or slice of a volume, from 0.
        part: Key of the feature that holds the image in a record, or axis of the slices of a
            volume; `""` of other files.
        offset: Byte at which the record begins.
        neighbours: Slices before and behind that become channels; empty for none.
        hounsfield: What the pixels stand for if the file is a PNG of 16 bits; None for grey.
    """

    path: Path
    source_id: str
    patient: str
    height: int | None
    width: int | None
    boxes: np.ndarray
    labels: tuple[str, ...]
    is_crowd: tuple[bool, ...]
    difficult: tuple[bool, ...]
    truncated: tuple[bool, ...]
    frame: int = 0
    part: str = ""
    offset: int = 0
    neighbours: tuple[Neighbour, ...] = ()
    hounsfield: Hounsfield | None = None

    @property
    def place(self) -> str:
        """Where in a file of many images this one is, for messages; `""` of other files."""
        kind = "slice" if is_nifti(self.path) else "record"
        return f"{kind} {self.frame}" if self.part else ""


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something wrong in a source.

    Attributes:
        file: The file, relative to the source.
        reason: What is wrong with it; names no file and no patient.
        effect: `"skipped"` (a whole file), `"dropped"` (a box), or `"clipped"` (a box).
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
    """

    label_names: tuple[str, ...]
    images: tuple[AnnotatedImage, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()


class Box(NamedTuple):
    """One box as a source has it, `xyxy` in pixels, with its label and marks."""

    xyxy: Sequence[float]
    label: str
    is_crowd: bool = False
    difficult: bool = False
    truncated: bool = False


class Collector:
    """Gathers the images and problems of one source."""

    def __init__(self, root: Path) -> None:
        """Gather what lies in the folder `root`, to which problems name their files."""
        self.root = root
        self.images: list[AnnotatedImage] = []
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self._source_ids: set[str] = set()

    def relate(self, path: Path | str) -> str:
        """Return a path relative to the source, with forward slashes."""
        return Path(os.path.relpath(path, self.root)).as_posix()

    def report(self, path: Path | str, reason: str, effect: Effect = "skipped") -> None:
        """Note a problem of a file."""
        name = self.relate(path) if isinstance(path, Path) else path
        self.problems.append(Problem(name, reason, effect))

    def add(
        self,
        path: Path,
        boxes: Iterable[Box] = (),
        *,
        size: tuple[int | None, int | None] = (None, None),
        patient: str = "",
        source_id: str | None = None,
        frame: int = 0,
        part: str = "",
        offset: int = 0,
        hounsfield: Hounsfield | None = None,
    ) -> None:
        """Add an image, unless one of the same key is there."""
        boxes = tuple(boxes)
        image = AnnotatedImage(
            path=path,
            source_id=self.relate(path) if source_id is None else source_id,
            patient=patient,
            height=size[0],
            width=size[1],
            boxes=np.asarray([box.xyxy for box in boxes], np.float64).reshape(-1, 4),
            labels=tuple(box.label for box in boxes),
            is_crowd=tuple(box.is_crowd for box in boxes),
            difficult=tuple(box.difficult for box in boxes),
            truncated=tuple(box.truncated for box in boxes),
            frame=frame,
            part=part,
            offset=offset,
            hounsfield=hounsfield,
        )
        if image.source_id in self._source_ids:
            reason = "the source holds this image twice; only the first is taken"
            self.report(path, f"{image.place}: {reason}" if image.place else reason)
            return
        self._source_ids.add(image.source_id)
        self.images.append(image)

    def finish(self, label_names: Iterable[str]) -> Annotations:
        """Return what was gathered."""
        names = tuple(label_names)
        if not all(name.strip() for name in names):
            raise AnnotationError(f"{self.root}: a class has an empty name; name it.")
        return Annotations(names, tuple(self.images), tuple(self.problems), tuple(self.notes))


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
    limits = np.array([width, height, width, height], np.float64)
    clipped = np.clip(boxes, 0, limits)
    usable = np.ones(len(boxes), bool)
    faults = [""] * len(boxes)
    for index, (box, inside) in enumerate(zip(boxes, clipped, strict=True)):
        sides, sides_inside = box[2:] - box[:2], inside[2:] - inside[:2]
        if not np.isfinite(box).all():
            fault = "its coordinates are not all numbers"
        elif (sides < 0).any():
            fault = "inverted (a minimum above its maximum)"
        elif (sides < _LEAST_SIDE_PX).any():
            fault = "zero area"
        elif (sides_inside < _LEAST_SIDE_PX).any():
            fault = "outside the image"
        else:
            if np.abs(box - inside).max() > _EDGE_TOLERANCE_PX:
                faults[index] = "partly outside the image"
            continue
        usable[index], faults[index] = False, fault
    return clipped, usable, faults


def keep_named(collector: Collector, file: Path, boxes: Iterable[Box]) -> Iterator[Box]:
    """Yield the boxes that have a label, and report the others."""
    for index, box in enumerate(boxes):
        if box.label:
            yield box
        else:
            collector.report(file, f"box {index}: has no label", "dropped")


def describe_fault(path: Path, error: VAEAugError) -> str:
    """Return the reason in an error about a file, without the file's name.

    Args:
        path: The file.
        error: Raised by a reader of `vae_aug.data`, whose messages begin with the file.

    Returns:
        The reason.
    """
    return str(error).removeprefix(f"{path}: ").rstrip(".")


def parse_number(value: object) -> float:
    """Return a number, NaN for what is none: such a box is dropped and counted later."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def parse_size(value: object) -> int | None:
    """Return a size in pixels, None for what is none; some tools write 0 for "unknown"."""
    number = parse_number(value)
    return int(number) if np.isfinite(number) and number >= 1 else None
