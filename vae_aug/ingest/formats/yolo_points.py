"""Whether long rows of YOLO are polygons, or boxes with points behind them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.yolo_names import NUMBER, split_lines

_TOLERANCE = 0.02
# Boxes of annotators leave out a point now and then.
_MOST, _HALF = 0.9, 0.5
_LEAST_SPREAD = 0.25
# A row or two look like anything.
_FEW_ROWS = 3
# As many rows tell for a data set.
_ENOUGH_ROWS = 10_000


class _Row(NamedTuple):
    """What a row of a box and points, or of a polygon, looks like.

    Attributes:
        is_box: Whether its first four numbers are a box in the image, and most points lie in it.
        is_scored: The same for points with a third number each, as a score.
        is_bounds: Whether they are the bounds of these points.
        is_outline: Whether the second point is near the others, as the corner of an outline is.
        is_tight: Whether the points fill a part of the box, as far as one can tell.
        is_parallelogram: Whether it is one, as an oriented box.
        are_visibilities: Whether each third number behind the box is 0, 1 or 2.
    """

    is_box: bool
    is_scored: bool
    is_bounds: bool
    is_outline: bool
    is_tight: bool
    is_parallelogram: bool
    are_visibilities: bool


def find_boxed_lengths(root: Path, texts: Iterable[str]) -> frozenset[int]:
    """Tell which rows begin with a box, by all rows of a split.

    Key points are of one number in each row, and lie in its box; with a third number each, this is
    0, 1 or 2. Polygons differ in how many points they have, or their first four numbers are no
    box around the others. Rows whose box is the bounds of all other points begin with one, too.

    Args:
        root: The data set's folder, for the message.
        texts: The text files.

    Returns:
        How many numbers behind the class such rows have; none if long rows are polygons.

    Raises:
        AnnotationError: If both may be.
    """
    found: dict[int, list[_Row]] = {}
    for count, numbers in enumerate(_iterate_rows(texts)):
        found.setdefault(len(numbers), []).append(_describe(numbers))
        is_told = len(found) > 1 and not all(r.is_bounds for rows in found.values() for r in rows)
        if is_told or count >= _ENOUGH_ROWS:
            break
    rows = [row for of_length in found.values() for row in of_length]
    if rows and all(row.is_bounds for row in rows):
        return frozenset(found)
    if len(found) != 1:
        return frozenset()
    (length,) = found
    return frozenset({length}) if _judge(root, length, rows) else frozenset()


def _judge(root: Path, length: int, rows: Sequence[_Row]) -> bool:
    """Tell whether rows of one length begin with a box, by the share of rows of each kind."""
    shares = _Row(*np.mean(rows, axis=0).tolist())
    # A row or two of a length that no polygon has may be polygons that were cut short.
    fits_no_polygon = length % 2 and len(rows) >= _FEW_ROWS
    if shares.is_scored >= _MOST and (shares.are_visibilities == 1 or fits_no_polygon):
        return True
    is_box = max(shares.is_box, shares.is_scored)
    if length % 2 or is_box < _HALF or shares.is_parallelogram >= _MOST:
        return False
    if len(rows) >= _FEW_ROWS:
        if is_box >= _MOST and shares.is_outline < _HALF:
            return True
        is_loose = shares.is_tight <= 1 - _MOST
        if shares.is_outline >= _MOST and (is_box < _MOST or is_loose):
            return False
    several = f"[{(length - 4) // 2}, 2]"
    if shares.is_scored >= _HALF:
        several += f" or [{(length - 4) // 3}, 3]"
    raise AnnotationError(
        f"{root}: its rows of {length} numbers behind the class may be polygons, or boxes with key "
        f"points; write 'kpt_shape: {several}' into data.yaml if they are boxes with key points, "
        "and 'kpt_shape: [0, 2]' if they are polygons."
    )


def _iterate_rows(texts: Iterable[str]) -> Iterable[np.ndarray]:
    """Yield the numbers behind the class of rows that are longer than a box and a score."""
    for text in texts:
        for _, line in split_lines(text):
            _, *words = line.split()
            if len(words) > 5 and all(map(NUMBER.fullmatch, words)):
                yield np.array(words, np.float64)


def _describe(numbers: np.ndarray) -> _Row:
    center, sides, rest = numbers[:2], numbers[2:4], numbers[4:]
    triples = rest.reshape(-1, 3) if len(rest) % 3 == 0 else np.full((1, 3), np.nan)
    are_visibilities = bool(np.isin(triples[:, 2], (0, 1, 2)).all())
    points = triples[:, :2] if are_visibilities else rest[: len(rest) // 2 * 2].reshape(-1, 2)
    placed = points[(points != 0).any(axis=1)]
    low, high = center - sides / 2, center + sides / 2
    is_box = bool((sides > 0).all() and low.min() >= -_TOLERANCE and high.max() <= 1 + _TOLERANCE)
    if not len(placed):
        return _Row(is_box, is_box, False, False, True, False, are_visibilities)
    first, last = placed.min(axis=0), placed.max(axis=0)
    others = np.vstack([center, placed])
    reach = np.ptp(others, axis=0).max()
    is_near = ((sides >= others.min(axis=0) - reach) & (sides <= others.max(axis=0) + reach)).all()
    is_tight = len(placed) < 2 or bool((last - first >= _LEAST_SPREAD * sides).any())
    apart = np.abs([first - low, last - high]).max()
    is_parallelogram = len(numbers) == 8 and bool(
        np.abs(center - sides + rest[:2] - rest[2:]).max() <= _TOLERANCE / 2
    )
    return _Row(
        is_box=is_box and _lie_within(placed, low, high),
        is_scored=is_box and _lie_within(triples[triples[:, 2] != 0, :2], low, high),
        is_bounds=is_box and len(placed) > 1 and bool(apart <= _TOLERANCE),
        is_outline=bool(is_near),
        is_tight=is_tight,
        is_parallelogram=is_parallelogram,
        are_visibilities=are_visibilities,
    )


def _lie_within(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
    """Tell whether half of the points, or more, lie in a box."""
    inside = ((points >= low - _TOLERANCE) & (points <= high + _TOLERANCE)).all(axis=1)
    return not len(points) or bool(inside.mean() >= _HALF)
