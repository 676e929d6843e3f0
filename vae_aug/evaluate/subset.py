"""Which images of which records are measured: those of a split, or some that stand for them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from vae_aug.config import check_number


@dataclasses.dataclass(frozen=True)
class Subset:
    """Images that are measured.

    Attributes:
        records: Folder of records; for an audit also several, whose images count as those of one.
        split: The split.
        limit: Most images, evenly spaced over the split, at least 1; None for all.

    Raises:
        ValueError: If there is no folder, or the limit is out of its range.
    """

    records: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
    split: str = "validation"
    limit: int | None = None

    def __post_init__(self) -> None:
        if not self.folders:
            raise ValueError("records must be a folder or several; got none.")
        if self.limit is not None:
            check_number("limit", self.limit, 1, whole=True)

    @property
    def folders(self) -> list[str]:
        """The folders of records."""
        several = [self.records] if isinstance(self.records, str | os.PathLike) else self.records
        return [os.fspath(folder) for folder in several]

    @property
    def folder(self) -> str:
        """The only folder of records; `ValueError` if there are several."""
        if len(self.folders) > 1:
            raise ValueError(f"records must be one folder here; got {', '.join(self.folders)}.")
        return self.folders[0]

    def choose(self, dataset: tf.data.Dataset) -> np.ndarray:
        """Choose the places of the images in a dataset of the whole split: `[N] int64`."""
        count = int(dataset.cardinality())
        if count < 0:  # which only reading tells
            count = sum(1 for _ in dataset)
        return space_out(count, self.limit)


def space_out(count: int, limit: int | None) -> np.ndarray:
    """Choose at most `limit` of `count` places, evenly spaced.

    Args:
        count: At least 0.
        limit: At least 1; None for all.

    Returns:
        `[min(count, limit)] int64`, ascending from 0.

    Example:
        >>> space_out(10, 4).tolist()
        [0, 2, 5, 7]
    """
    chosen = count if limit is None else min(limit, count)
    return np.arange(chosen) * count // max(chosen, 1)


def take_places(dataset: tf.data.Dataset, places: np.ndarray) -> tf.data.Dataset:
    """Take the elements at some places of a dataset, in their order.

    Args:
        dataset: Of any elements.
        places: `[N]` integers from 0.

    Returns:
        A dataset of the same elements.
    """
    wanted = tf.constant(places, tf.int64)
    chosen = dataset.enumerate().filter(lambda place, _: tf.reduce_any(tf.equal(place, wanted)))
    return chosen.map(lambda _, element: element)
