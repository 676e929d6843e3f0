"""Slices before and behind a DICOM image as its channels, often called 2.5-D."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from vae_aug.errors import DicomError
from vae_aug.ingest.dicom.image import DicomImage, read_dicom

NeighbourState = Literal["found", "end", "gap", "thick", "duplicate", "unplaced", "unfit"]


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


def stack_neighbours(
    image: DicomImage, neighbours: Iterable[Neighbour]
) -> tuple[np.ndarray, tuple[NeighbourState, ...]]:
    """Read the neighbours of an image and make them its channels.

    Args:
        image: The image.
        neighbours: Before and behind.

    Returns:
        Pixels `[H, W, 3]` in the image's dtype: before, the image, behind, all through the
        image's own window, so that the same value is the same grey. The image itself stands in
        for a neighbour that is missing, cannot be read, or has another size or colour. And the
        `state` of each neighbour, `"unfit"` for the last three. An image in colour stays as it is.
    """
    if image.voi is None:
        return image.pixels, ("unfit", "unfit")
    channels: list[np.ndarray] = []
    states: list[NeighbourState] = []
    for neighbour in neighbours:
        pixels, state = image.pixels, neighbour.state
        if neighbour.path is not None:
            other = _read_like(image, neighbour.path, neighbour.frame)
            pixels, state = (pixels, "unfit") if other is None else (other, state)
        channels.append(pixels)
        states.append(state)
    before, behind = channels
    return np.concatenate([before, image.pixels, behind], axis=-1), tuple(states)


def _read_like(image: DicomImage, path: Path, frame: int) -> np.ndarray | None:
    """Read a frame as another image is shown; None if it does not go with it."""
    try:
        # Its own record, if it has one, is left out for the same reason, which is reported there.
        pixels = read_dicom(path, image.voi, bits=8 * image.pixels.itemsize, frame=frame).pixels
    except DicomError:
        return None
    return pixels if pixels.shape == image.pixels.shape else None
