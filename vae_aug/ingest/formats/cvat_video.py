"""Tracks of "CVAT for video 1.1": which image is which frame, and the boxes of each."""

from __future__ import annotations

import collections
import re
import xml.etree.ElementTree as ET
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.cvat_shapes import is_outside, is_rotated, parse_shape
from vae_aug.ingest.formats.layout import IMAGE_SUFFIXES
from vae_aug.ingest.formats.matching import list_files
from vae_aug.ingest.formats.source import Box, Fault, parse_number, parse_size

# As CVAT names the frames of a video that it saves as images.
_FRAME = re.compile(r"frame_(\d{1,9})", re.IGNORECASE)
_STEP = re.compile(r"(?:step\s*=\s*([1-9]\d{0,5}))?")
# Most boxes that tracks may have in frames that they do not list.
MOST_UNLISTED = 10**6


def find_task(file: Path, root: ET.Element) -> ET.Element:
    """Return the description of the only task or job in an export of a video.

    Raises:
        AnnotationError: If there is none, or several: their frames are counted from one another.
    """
    tasks = [task for tag in ("task", "job") for task in root.findall(f"meta/{tag}")]
    tasks += root.findall("meta/project/tasks/task")
    if len(tasks) != 1:
        raise AnnotationError(
            f"{file}: describes {len(tasks)} tasks or jobs in <meta>; one is expected. Export each "
            "task of the video by itself."
        )
    return tasks[0]


def list_frames(file: Path, task: ET.Element) -> range:
    """Return the numbers of the frames of a task or job, as its tracks count them.

    Raises:
        AnnotationError: If the description contradicts itself, or does not tell.

    Reference:
        CVAT documentation, "XML annotation format": `size`, `start_frame`, `stop_frame`,
        `frame_filter`.
    """
    size, start, stop = (
        _parse_count(task.findtext(tag)) for tag in ("size", "start_frame", "stop_frame")
    )
    steps = _STEP.fullmatch((task.findtext("frame_filter") or "").strip())
    if not size or steps is None:
        raise AnnotationError(f"{file}: <meta> tells no <size> or an unknown <frame_filter>.")
    step, start = int(steps[1] or 1), start or 0
    if task.tag == "job" and step > 1:
        raise AnnotationError(
            f"{file}: a job of frames {step} apart does not tell which; export its task instead."
        )
    frames = range(start, start + (size - 1) * step + 1 if stop is None else stop + 1, step)
    if len(frames) != size:
        raise AnnotationError(
            f"{file}: <size> is {size}, but there are {len(frames)} frames from <start_frame> to "
            "<stop_frame>; export the task again."
        )
    return frames


def _parse_count(text: str | None) -> int | None:
    """Return a number of frames or of a frame; None for what is none."""
    number = parse_number((text or "").strip())
    return int(number) if 0 <= number <= 2**31 and number == int(number) else None


def list_deleted(task: ET.Element, frames: range) -> set[int]:
    """Return the frames that were deleted, of which the tracks say nothing."""
    text = " ".join(word for e in task.findall("deleted_frames") for word in e.itertext())
    numbers = {int(number) for number in re.findall(r"\d{1,9}", text)}
    # They are counted within the task or as in the video; either way nothing is said of them.
    return numbers | {frames[number] for number in numbers if number < len(frames)}


def find_frames(file: Path, folders: Iterable[Path], frames: range) -> dict[int, Path]:
    """Return the image of each frame: by CVAT's name `frame_000001`, else in the order of names.

    Raises:
        AnnotationError: If the images cannot be told apart by either.
    """
    found = (list_files(folder, *IMAGE_SUFFIXES) for folder in folders)
    images: Sequence[Path] = next(filter(None, found), [])
    matches = [_FRAME.fullmatch(path.stem) for path in images]
    named = {int(match[1]): path for match, path in zip(matches, images, strict=True) if match}
    if images and len(named) == len(images) and all(number in frames for number in named):
        return named
    natural = sorted(images, key=_split_numbers)
    if not any(matches) and len(images) == len(frames) and natural == list(images):
        return dict(zip(frames, images, strict=True))
    raise AnnotationError(
        f"{file}: cannot tell which of {len(images)} images are the {len(frames)} frames "
        f"{frames[0]} to {frames[-1]} of its tracks. Expected are the names that CVAT gives them "
        f"(frame_{frames[0]:06d}.png), or one image a frame in the order of names: export with "
        "'Save images'."
    )


def _split_numbers(path: Path) -> list[int | str]:
    """Return the key of an order in which 2 comes before 10."""
    parts = re.split(r"([0-9]+)", path.name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def place_tracks(
    file: Path, root: ET.Element, frames: range, wanted: Sequence[int]
) -> tuple[dict[int, list[Box | Fault]], list[str]]:
    """Return what the tracks say of each frame.

    Between two keyframes a box moves linearly, as CVAT moves it; other shapes are faults there.
    Faults are also the frames behind the last of a track that does not tell its end.

    Args:
        file: The file.
        root: Its root.
        frames: The numbers of all frames.
        wanted: Those of the frames that have an image, in ascending order.

    Returns:
        Boxes and faults by frame, and what is wrong with shapes of which the frame is not known.

    Raises:
        AnnotationError: If tracks leave out so many frames that a small file would fill the
            memory.
    """
    entries: dict[int, list[Box | Fault]] = collections.defaultdict(list)
    unplaced, unlisted = [], 0
    for index, track in enumerate(root.findall("track")):
        shapes: dict[int, list[ET.Element]] = collections.defaultdict(list)
        for shape in track:
            frame = _parse_count(shape.get("frame"))
            if frame is not None and frame in frames:
                shapes[frame].append(shape)
            # A shape that ends a track may lie behind the last frame.
            elif shape.tag != "attribute" and not is_outside(shape):
                unplaced.append(f"track {index}: a shape is in no frame of the video")
        placed = _place_track(shapes, track.get("label", ""), wanted)
        if not placed:
            unplaced.append(f"track {index}: has no shape in any frame")
        unlisted += len(placed.keys() - shapes.keys())
        if unlisted > MOST_UNLISTED:
            raise AnnotationError(
                f"{file}: its tracks leave out more than {MOST_UNLISTED} boxes; export the task "
                "again, which lists every frame."
            )
        for frame, box in placed.items():
            if isinstance(box, str):
                entries[frame].append(Fault(f"track {index}, frame {frame}: {box}"))
            else:
                entries[frame].append(box)
    return entries, unplaced


def _place_track(
    shapes: Mapping[int, Sequence[ET.Element]], label: str, wanted: Sequence[int]
) -> dict[int, Box | str]:
    """Return the box of a track in each frame; a string tells why it has none there."""
    placed: dict[int, Box | str] = {}
    for frame, alike in shapes.items():
        if len(alike) > 1:
            placed[frame] = "the track has several shapes in this frame"
        elif not is_outside(alike[0]):
            placed[frame] = parse_shape(alike[0], label)
    numbers = sorted(shapes)
    for low, high in pairwise(numbers):
        between = wanted[bisect_right(wanted, low) : bisect_left(wanted, high)]
        for frame in between if low in placed else ():
            share = (frame - low) / (high - low)
            placed[frame] = _interpolate(shapes[low], shapes[high], label, share)
    if numbers and numbers[-1] in placed:
        for frame in wanted[bisect_right(wanted, numbers[-1]) :]:
            placed[frame] = "the track ends before it, and does not tell that it is 'outside'"
    return placed


@np.errstate(over="ignore", invalid="ignore")
def _interpolate(
    first: Sequence[ET.Element], second: Sequence[ET.Element], label: str, share: float
) -> Box | str:
    """Return the box between those of two keyframes, at a share of the way."""
    ends = [*first, *second]
    if len(ends) != 2 or any(shape.get("keyframe", "1").strip() != "1" for shape in ends):
        return "the track leaves it out, and does not go from keyframe to keyframe"
    if any(shape.tag != "box" or is_rotated(shape) for shape in ends):
        return "it lies between keyframes of a shape that is no upright box"
    low, high = (np.array(parse_shape(shape, label)[0], np.float64) for shape in ends)
    return Box((low + share * (high - low)).tolist(), label)


def parse_video_size(task: ET.Element) -> tuple[int | None, int | None]:
    """Return height and width in pixels of all frames; None if they are not told."""
    height, width = (parse_size(task.findtext(f"original_size/{k}")) for k in ("height", "width"))
    return height, width
