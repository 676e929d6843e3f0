"""Planted patients, of whom an audit of membership has to find whom a network was trained on.

A canary is one image of a texture that nobody else has. As in the Secret Sharer of Carlini et al.,
USENIX Security (2019), what is planted is drawn at random, so that a network can know it only from
its training.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from scipy import ndimage

from vae_aug.records.records import make_example, write_records

CANARY = "canary-"
"""Begin of the names of planted patients."""

SIDE_PX = 128

_CELLS = 48
"""Random numbers along a side; what has fewer, networks of 64 pixels knew less well again."""


def plant_canaries(folder: Path, count: int, seed: int) -> None:
    """Write records of planted patients; equal arguments write equal ones.

    Args:
        folder: Folder of records, of one split.
        count: Number of patients.
        seed: Of the textures.

    Raises:
        RecordError: If the disk refuses.
    """
    write_records(_make_examples(count, seed), folder, "train", label_names=("none",))


def make_canary(rng: np.random.Generator) -> np.ndarray:
    """Make the image of a planted patient, smooth noise: `[SIDE_PX, SIDE_PX, 1] uint8`."""
    cells = rng.normal(size=(_CELLS, _CELLS, 1))
    scale = SIDE_PX / _CELLS
    texture = ndimage.zoom(cells, (scale, scale, 1), order=3, mode="nearest")
    return np.rint(255.0 * (texture - texture.min()) / np.ptp(texture)).astype(np.uint8)


def _make_examples(count: int, seed: int) -> Iterator[tf.train.Example]:
    for number in range(count):
        name = f"{CANARY}{number:03}"
        yield make_example(
            make_canary(np.random.default_rng((seed, number))),
            source_id=name,
            patient=name,
            boxes=np.zeros((0, 4), np.float32),
            labels=[],
            label_names=("none",),
        )
