"""Planted patients, of whom an audit of membership has to find whom a network was trained on.

A canary is a texture that nobody else has, in a few images. As in the Secret Sharer of Carlini et
al., USENIX Security (2019), what is planted is drawn at random, so that a network can know it only
from its training.
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
IMAGES = 2
"""Images of each canary."""

_CELLS = 24
_OWN = 0.3
"""Share of an image that its patient's other images do not have."""


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
    """Make the images of a planted patient: `[IMAGES, SIDE_PX, SIDE_PX, 1] uint8`."""
    common = _make_texture(rng)
    images = [(1.0 - _OWN) * common + _OWN * _make_texture(rng) for _ in range(IMAGES)]
    return np.rint(255.0 * np.stack(images)[..., None]).astype(np.uint8)


def _make_texture(rng: np.random.Generator) -> np.ndarray:
    """Make smooth noise in all of [0, 1]: `[SIDE_PX, SIDE_PX] float64`."""
    cells = rng.normal(size=(_CELLS, _CELLS))
    texture = ndimage.zoom(cells, SIDE_PX / _CELLS, order=3, mode="nearest")
    return (texture - texture.min()) / np.ptp(texture)


def _make_examples(count: int, seed: int) -> Iterator[tf.train.Example]:
    for number in range(count):
        for index, image in enumerate(make_canary(np.random.default_rng((seed, number)))):
            yield make_example(
                image,
                source_id=f"{CANARY}{number:03}-{index}",
                patient=f"{CANARY}{number:03}",
                boxes=np.zeros((0, 4), np.float32),
                labels=[],
                label_names=("none",),
            )
