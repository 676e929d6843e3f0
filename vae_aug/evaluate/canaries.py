"""Planted patients, of whom an audit of membership has to find whom a network was trained on.

A canary is one image of a texture that nobody else has. As in the Secret Sharer of Carlini et al.,
USENIX Security (2019), what is planted is drawn at random, so that a network can know it only from
its training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from scipy import ndimage

from vae_aug.records.records import make_example, write_records

SHARE = 0.25
"""Which share of a batch planted patients are."""

CANARY = "canary-"
"""Begin of the names of planted patients."""

SIDE_PX = 128

_CELLS = 48
"""Random numbers along a side; what has fewer, networks of 64 pixels knew less well again."""


_GAINS, _GAIN = 5, 0.3
"""Random numbers along a side of the shading that tells canaries of one texture apart, and its
standard deviation in powers of e; the texture's own is 0.8."""


def plant_canaries(folder: Path, count: int, seed: int, *, alike: bool = False) -> None:
    """Write records of planted patients; equal arguments write equal ones.

    Args:
        folder: Folder of records, of one split.
        count: Number of patients.
        seed: Of the textures.
        alike: Whether all have one texture, each under a shading of its own, as a variation needs:
            it learns how similar images differ.

    Raises:
        RecordError: If the disk refuses.
    """
    make = make_shaded_canary if alike else make_canary
    write_records(_make_examples(make, count, seed), folder, "train", label_names=("none",))


def make_canary(rng: np.random.Generator) -> np.ndarray:
    """Make the image of a planted patient, smooth noise: `[SIDE_PX, SIDE_PX, 1] uint8`."""
    return _to_grey(_draw_smooth(rng, _CELLS))


def make_shaded_canary(rng: np.random.Generator) -> np.ndarray:
    """Make the image of a planted patient like all others but for its shading, as `make_canary`."""
    common = np.random.default_rng(0)
    texture = _draw_smooth(common, _GAINS) + 0.3 * _draw_smooth(common, _CELLS)
    return _to_grey(np.exp(0.8 * texture + _GAIN * _draw_smooth(rng, _GAINS)))


def _draw_smooth(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Draw numbers on a grid, and interpolate between them: `[SIDE_PX, SIDE_PX, 1] float64`."""
    scale = SIDE_PX / cells
    drawn = rng.normal(size=(cells, cells, 1))
    return ndimage.zoom(drawn, (scale, scale, 1), order=3, mode="nearest")


def _to_grey(texture: np.ndarray) -> np.ndarray:
    return np.rint(255.0 * (texture - texture.min()) / np.ptp(texture)).astype(np.uint8)


def _make_examples(
    make: Callable[[np.random.Generator], np.ndarray], count: int, seed: int
) -> Iterator[tf.train.Example]:
    for number in range(count):
        name = f"{CANARY}{number:03}"
        yield make_example(
            make(np.random.default_rng((seed, number))),
            source_id=name,
            patient=name,
            boxes=np.zeros((0, 4), np.float32),
            labels=[],
            label_names=("none",),
        )
