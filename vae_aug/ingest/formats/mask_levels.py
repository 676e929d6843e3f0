"""What the grey levels of a data set's masks are: classes, or one mask with soft edges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np

from vae_aug.errors import VAEAugError

MAX_CLASSES = 20
"""Most values that count as classes without names; more are rather the numbers of objects."""

_LEVELS = 2**16
_WHITE = 248 / 255
# JPEG of quality 50 leaves specks of a quarter of white beside edges.
_DARK, _BRIGHT = 0.3, 0.85
# JPEG leaves plains of 253 where the mask had 255.
_PLAIN = 8 / 255
# Two blocks of JPEG, or an edge that was made eleven times as large.
_REACH_PX = 16
_FEWEST_GREYS = 3
_LEAST_ISOLATED_PX = 4
_BLOCK = np.ones((3, 3), np.uint8)


class Levels(NamedTuple):
    """How to read the grey levels of all masks of a data set.

    Attributes:
        values: Those that are classes; of one soft mask, only 1.
        white: The level of the soft mask's inside, None if levels are classes.
        blurred: Values that are neither, so that masks which hold them cannot be read.
    """

    values: frozenset[int]
    white: int | None = None
    blurred: frozenset[int] = frozenset()

    def classify(self, values: np.ndarray) -> np.ndarray:
        """Return a mask as class values, `[H, W]`, 0 for background.

        Args:
            values: `[H, W] int32` grey levels.

        Raises:
            VAEAugError: If the mask does not fit the others; the message names no file.
        """
        if self.white is not None:
            return _cut(values, self.white)
        blurred = self.blurred & set(np.unique(values).tolist())
        if blurred:
            raise VAEAugError(
                f"{len(blurred)} of its grey values lie in specks and at edges, between classes; "
                "save masks without smoothing or JPEG, or name every value in classes.txt"
            )
        return values


class LevelCounter:
    """Counts the pixels of each level over masks, and those that tell a class.

    The pixels that tell a class are those in a block of 3x3 of one level, and those in a region
    of one level, of four pixels or more, with nothing but 0 around it. Pixels with two neighbours
    of their level may be those of a line.
    """

    def __init__(self) -> None:
        """Begin with no mask."""
        self._all = np.zeros(_LEVELS, np.int64)
        self._solid = np.zeros(_LEVELS, np.int64)
        self._isolated = np.zeros(_LEVELS, np.int64)
        self._linked = np.zeros(_LEVELS, np.int64)

    @property
    def values(self) -> list[int]:
        """All levels but 0, sorted."""
        return [int(value) for value in np.flatnonzero(self._all) if value]

    def add(self, values: np.ndarray) -> None:
        """Count a mask, `[H, W] int32`."""
        counts = _count(values)
        self._all += counts
        if np.count_nonzero(counts[1:]) < 2:
            self._solid += counts
            self._linked += counts
            return
        solid = _find_solid(values)
        self._solid += _count(values[solid])
        self._isolated += _count(values[~solid & _find_isolated(values)])
        self._linked += _count(values[_find_linked(values)])

    def decide(self, named: Iterable[int]) -> Levels:
        """Decide what the levels are.

        Classes are levels of which at least half of the pixels tell so. (A region of a class that
        is only one or two pixels wide and touches other classes tells nothing; of more than 20
        levels, only blocks of 3x3 do. Of masks that were smoothed or went through JPEG, no level
        but the inside's has a fifth of its pixels in blocks.) Levels are one soft mask if the
        highest is white (248 of 255, or more), no other class lies more than 8 of 255 below it,
        and at least three levels, if any, lie below 85% of it. Else they are classes. One or two
        levels more may be lines between these, if half of their pixels have two neighbours of
        their level; others, or three and more, make a mask unreadable.

        Args:
            named: Levels that have names: if they all have, they are classes.

        Raises:
            VAEAugError: If a class cannot be told from an edge; the message names no file.
        """
        values = self.values
        if len(values) < 2 or set(values) <= set(named):
            return Levels(frozenset(values))
        telling = self._solid + (self._isolated if len(values) <= MAX_CLASSES else 0)
        classes = {value for value in values if 2 * telling[value] >= self._all[value]}
        top, scale = values[-1], 255 if values[-1] < 256 else _LEVELS - 1
        plain = top - _PLAIN * scale
        is_white = top >= _WHITE * scale
        is_single = is_white and not any(value < plain for value in classes)
        if is_single:
            greys = sum(value < _BRIGHT * top for value in values)
            if 0 < greys < _FEWEST_GREYS:
                raise VAEAugError(
                    f"beside {top} the masks hold {greys} grey values, in thin regions alone, "
                    "which may be classes or soft edges; name each value in classes.txt, or save "
                    "masks of 0 and 255"
                )
            return Levels(frozenset({1}), white=top)
        blurred = frozenset(values) - classes
        are_lines = all(2 * self._linked[value] >= self._all[value] for value in blurred)
        if len(blurred) < _FEWEST_GREYS and are_lines:
            return Levels(frozenset(values))
        return Levels(frozenset(classes), blurred=blurred)


def _count(values: np.ndarray) -> np.ndarray:
    return np.bincount(values.ravel(), minlength=_LEVELS)


def _find_solid(values: np.ndarray) -> np.ndarray:
    """Mark the pixels that lie in a block of 3x3 of one level."""
    levels = values.astype(np.uint16)
    flat = cv2.erode(levels, _BLOCK) == cv2.dilate(levels, _BLOCK)
    flat[[0, -1]] = False
    flat[:, [0, -1]] = False
    solid: np.ndarray = cv2.dilate(flat.astype(np.uint8), _BLOCK) > 0
    return solid


def _find_isolated(values: np.ndarray) -> np.ndarray:
    """Mark the pixels in regions of one level with nothing but 0 around."""
    count, regions = cv2.connectedComponents((values > 0).astype(np.uint8))
    one = np.zeros(count, np.int32)
    one[regions] = values  # that of some pixel of each region
    sizes = np.bincount(regions.ravel(), minlength=count)
    others = np.bincount(regions[one[regions] != values], minlength=count)
    is_isolated = (others == 0) & (sizes >= _LEAST_ISOLATED_PX)
    is_isolated[0] = False
    marked: np.ndarray = is_isolated[regions]
    return marked


def _find_linked(values: np.ndarray) -> np.ndarray:
    """Mark the pixels with at least two of eight neighbours of their level."""
    height, width = values.shape
    padded = np.pad(values, 1, constant_values=-1)
    rows, columns = np.mgrid[:3, :3].reshape(2, -1)
    same = sum(
        (padded[row : row + height, column : column + width] == values).astype(np.uint8)
        for row, column in zip(rows, columns, strict=True)
    )
    linked: np.ndarray = np.asarray(same) > 2  # of nine, with the pixel itself
    return linked


def _is_far(marked: np.ndarray) -> np.ndarray:
    """Mark the pixels that lie more than 16 pixels from those marked; all, if there are none."""
    if not marked.any():
        return np.ones_like(marked)
    far: np.ndarray = cv2.distanceTransform((~marked).astype(np.uint8), cv2.DIST_L2, 5) > _REACH_PX
    return far


def _cut(values: np.ndarray, white: int) -> np.ndarray:
    """Cut a soft mask at half of its white.

    Raises:
        VAEAugError: If a region above 30% of white is lost by that, if what is not 0 lies more than
            16 pixels from what is left, or grey within it so far from what is not: that is no edge.
    """
    inside = 2 * values >= white
    count, regions = cv2.connectedComponents((values > _DARK * white).astype(np.uint8))
    if count > 1 and not np.bincount(regions[inside], minlength=count)[1:].all():
        raise VAEAugError(
            "a grey region of it is nowhere half as bright as white, so it is no soft edge; save "
            "masks of 0 and 255"
        )
    outer, inner = _is_far(inside) & (values > 0), _is_far(~inside) & (values < _BRIGHT * white)
    if outer.any() or inner.any():
        raise VAEAugError(
            f"it is grey more than {_REACH_PX} pixels from where it would be cut, so that is no "
            "soft edge; save masks of 0 and 255, and keep photographs out of their names"
        )
    return inside.astype(np.int32)
