"""Nearest neighbours among images: in pixels, in pattern, and in features."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import ndimage

MEASURES = ("pixels", "correlation", "features")
"""Distances in which neighbours are sought; see `find_neighbours`."""

CHUNK = 512
"""Training images that distances are computed to at a time: 16 MB in float64."""

QUERIES = 128

_MOST_SMOOTHING = 0.25
"""Largest standard deviation of the smoothing, as a share of the grid's side."""

_BISECTIONS = 16


class Neighbours(NamedTuple):
    """The two nearest of the references, the nearest first.

    Attributes:
        indices: `[Q, 2] int64`, into the references.
        distances: `[Q, 2] float64`.
        views: `[Q] int64`, the view of the query that the nearest is near to.
    """

    indices: np.ndarray
    distances: np.ndarray
    views: np.ndarray

    @property
    def ratios(self) -> np.ndarray:
        """`[Q] float64 in [0, 1]`, nearest by second nearest; 1 where both are 0.

        Reference:
            Lowe, Distinctive Image Features from Scale-Invariant Keypoints (2004), 7.1. Carlini
            et al. (2023) divide by the mean distance to the 50 nearest instead.
        """
        near, far = self.distances.T
        return np.divide(near, far, out=np.ones_like(near), where=far > 0)


def find_neighbours(queries: np.ndarray, references: np.ndarray, measure: str) -> Neighbours:
    """Find the two nearest references of each query, by the nearest of the query's views.

    | measure | distance of x and y |
    | --- | --- |
    | `pixels` | root mean squared difference |
    | `correlation` | `sqrt(2 (1 - r))`, r their correlation; with a flat image r is 0 |
    | `features` | root of the sum of squared differences |

    Args:
        queries: `[Q, V, ...] float32`, V views of each query, e.g. an image and its mirror image.
        references: `[N, ...] float32`, N at least 2.
        measure: One of `MEASURES`.

    Returns:
        The neighbours. References are taken 512 at a time, so memory does not grow with N.

    Raises:
        ValueError: If there are fewer than two references, or shapes disagree.

    Example:
        >>> near = find_neighbours(np.float32([[[0.0, 1.0]]]), np.eye(2, dtype="f4"), "pixels")
        >>> near.indices.tolist(), near.distances.round(3).tolist()
        ([[1, 0]], [[0.0, 1.0]])
    """
    if len(references) < 2 or queries.shape[2:] != references.shape[1:]:
        raise ValueError(
            "references must be at least 2, of the queries' shape "
            f"{queries.shape[2:]}; got {references.shape}."
        )
    parts = [
        _find_neighbours(queries[start : start + QUERIES], references, _VECTORS[measure])
        for start in range(0, len(queries), QUERIES)
    ]
    return Neighbours(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def match_smoothness(images: np.ndarray, samples: np.ndarray) -> float:
    """Find the smoothing after which images are as smooth as samples.

    Smoothness is the mean squared difference of neighbouring pixels, over the whole set.

    Args:
        images: `[N, G, G] float32`.
        samples: `[M, G, G] float32`.

    Returns:
        Standard deviation of a Gaussian in pixels: 0 if the samples are not smoother than the
        images, at most a quarter of the side.
    """
    wanted = _measure_steps(samples)
    if wanted >= _measure_steps(images):
        return 0.0
    low, high = 0.0, _MOST_SMOOTHING * images.shape[1]
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        if _measure_steps(smooth(images, middle)) > wanted:
            low = middle
        else:
            high = middle
    return high


def smooth(grids: np.ndarray, sigma: float) -> np.ndarray:
    """Filter `[N, G, G]` with a Gaussian of standard deviation `sigma` pixels; 0 for none."""
    return ndimage.gaussian_filter(grids, (0.0, sigma, sigma)) if sigma > 0 else grids


def _measure_steps(grids: np.ndarray) -> float:
    """Compute the mean squared difference of neighbouring pixels."""
    steps = (np.diff(grids, axis=axis) for axis in (1, 2))
    return float(sum(np.mean(step.astype(np.float64) ** 2) for step in steps))


def _to_pixel_vectors(grids: np.ndarray) -> np.ndarray:
    flat = grids.reshape(len(grids), -1).astype(np.float64)
    return flat / math.sqrt(flat.shape[1])


def _to_pattern_vectors(grids: np.ndarray) -> np.ndarray:
    """Bring grids to mean 0 and length 1; one more dimension keeps flat ones away from others."""
    flat = grids.reshape(len(grids), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    is_flat = length <= 1e-6 * math.sqrt(flat.shape[1])
    unit = np.where(is_flat, 0.0, flat / np.where(is_flat, 1.0, length))
    return np.concatenate([unit, is_flat.astype(np.float64)], axis=1)


def _to_feature_vectors(features: np.ndarray) -> np.ndarray:
    return features.reshape(len(features), -1).astype(np.float64)


def _find_neighbours(
    queries: np.ndarray, references: np.ndarray, vectorize: Callable[[np.ndarray], np.ndarray]
) -> Neighbours:
    """Find neighbours by `|x|^2 + |y|^2 - 2 x y`, and measure the found ones by their difference.

    The former needs no difference of every pair, but leaves the rounding of the squares, which
    depends on the processor, between a vector and its copy.
    """
    count, views = queries.shape[:2]
    ours = vectorize(queries.reshape(count * views, *queries.shape[2:]))
    our_squares = np.sum(ours**2, axis=1, keepdims=True)
    best = np.full((count, 2), np.inf)
    indices, seen = np.zeros((2, count, 2), np.int64)
    for start in range(0, len(references), CHUNK):
        theirs = vectorize(references[start : start + CHUNK])
        squares = our_squares + np.sum(theirs**2, axis=1) - 2.0 * ours @ theirs.T
        squares = squares.reshape(count, views, -1)
        places = np.broadcast_to(np.arange(start, start + len(theirs)), (count, len(theirs)))
        best, indices, seen = (
            np.concatenate(pair, axis=1)
            for pair in (
                (best, squares.min(axis=1)),
                (indices, places),
                (seen, squares.argmin(axis=1)),
            )
        )
        order = np.argsort(best, axis=1, kind="stable")[:, :2]
        best, indices, seen = (np.take_along_axis(x, order, axis=1) for x in (best, indices, seen))
    found = vectorize(references[indices.ravel()]).reshape(count, 2, -1)
    nearest_views = ours.reshape(count, views, -1)[np.arange(count)[:, None], seen]
    distances = np.linalg.norm(nearest_views - found, axis=-1)
    order = np.argsort(distances, axis=1, kind="stable")
    indices, distances, seen = (
        np.take_along_axis(x, order, axis=1) for x in (indices, distances, seen)
    )
    return Neighbours(indices, distances, seen[:, 0])


_VECTORS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "pixels": _to_pixel_vectors,
    "correlation": _to_pattern_vectors,
    "features": _to_feature_vectors,
}
