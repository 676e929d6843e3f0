"""A sheet that shows what the transform does to one's own images before a detector sees them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vae_aug.augment.transform import VAEAugment
from vae_aug.corrupt import corrupt_image
from vae_aug.data.sheet import write_sheet

_LOOKED_AT = 1000


def draw_variants(augment: VAEAugment, element: dict[str, Any], count: int) -> np.ndarray:
    """Draw several variants of one image, in one batch.

    Args:
        augment: A transform with a seed.
        element: As `vae_aug.data.records.read_records` yields it.
        count: How many.

    Returns:
        `[count, H, W, C]`, the image's dtype.
    """
    batch = tf.nest.map_structure(lambda part: tf.stack([part] * count), element)
    # Only the epoch tells the copies apart, and the seed makes each epoch draw anew.
    return augment({**batch, "epoch": tf.range(count)})["image"].numpy()


def write_preview(
    path: str | os.PathLike[str],
    elements: Sequence[dict[str, Any]],
    denoise: VAEAugment,
    variants: Sequence[np.ndarray],
    *,
    keep: float | None = None,
) -> None:
    """Write a PNG sheet: input, denoised, and variants, boxes drawn; one row an image.

    Args:
        path: The PNG file.
        elements: The rows, as `vae_aug.data.records.read_records` yields them.
        denoise: The transform of the column "denoised".
        variants: Of each row, what the columns "sample 1" and so on show, `[count, H, W, C]`.
        keep: If given, a column shows the image with this share of its information left, and
            that is what is denoised.

    Raises:
        OSError: If the sheet cannot be written.
    """
    columns: dict[str, list[Any]] = {"input": [element["image"] for element in elements]}
    before = list(elements)
    if keep is not None:
        before = [
            {**element, "image": corrupt_image(element["image"], "replace", keep, [row, 0])}
            for row, element in enumerate(elements)
        ]
        columns[f"{keep:.0%} left"] = [element["image"] for element in before]
    columns["denoised"] = [denoise(element)["image"] for element in before]
    for number in range(min(map(len, variants))):
        columns[f"sample {number + 1}"] = [drawn[number] for drawn in variants]
    arrays = {name: [np.asarray(image) for image in column] for name, column in columns.items()}
    write_sheet(os.fspath(path), arrays, [element["objects"]["bbox"] for element in elements])


def choose_rows(dataset: tf.data.Dataset, count: int) -> list[dict[str, Any]]:
    """Choose images to show, spread evenly; images without a box only if none has one.

    Args:
        dataset: Elements, as `vae_aug.data.records.read_records` yields them; of a long one the
            first thousand are looked at.
        count: Most images.

    Returns:
        The elements, in their order.
    """
    dataset = dataset.take(_LOOKED_AT)
    # Images are decoded twice, so that no more than the chosen ones are held.
    filled = [len(element["objects"]["label"]) > 0 for element in dataset]
    indices = np.flatnonzero(filled) if any(filled) else np.arange(len(filled))
    places = np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int)
    chosen = set(indices[places].tolist())
    return [element for index, element in enumerate(dataset) if index in chosen]
