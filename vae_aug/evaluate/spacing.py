"""A limited number of images that stand for a whole split: evenly spaced over it."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


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
