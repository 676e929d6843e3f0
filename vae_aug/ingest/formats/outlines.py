"""The bounds of polygons and run lengths as COCO has them, and whether a box fits them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vae_aug.ingest.formats.source import parse_number

_LEAST_IOU = 0.5
# Polygons through the centres of pixels, and rounding, move each side by up to a pixel.
_TOLERANCE_PX = 2.0
_MAX_DIGITS, _MAX_BITS = 2**22, 60


def bound_polygons(segmentation: object) -> list[float]:
    """Return `xyxy` around polygons [[x, y, x, y, ...], ...]; nothing if they are none."""
    if not isinstance(segmentation, list) or not segmentation:
        return []
    # VIA writes the one polygon of a region without the outer list.
    nested = any(isinstance(part, list) for part in segmentation)
    polygons = segmentation if nested else [segmentation]
    if not all(isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 for p in polygons):
        return []
    # Plain floats: arrays of a few numbers take many times as long.
    xs = [parse_number(value) for polygon in polygons for value in polygon[::2]]
    ys = [parse_number(value) for polygon in polygons for value in polygon[1::2]]
    if any(number != number for number in (*xs, *ys)):
        return [float("nan")] * 4
    return [min(xs), min(ys), max(xs), max(ys)]


def bound_runs(segmentation: object) -> list[float]:
    """Return `xyxy` around what run lengths mark; nothing if they are none, or mark nothing.

    Args:
        segmentation: `{"size": [height, width], "counts": ...}`: lengths of runs of background and
            object in turn, column by column, as a list or as pycocotools packs them.

    Reference:
        pycocotools, `rleFrString` (common/maskApi.c): digits of 5 bits from "0" on, the lowest
        first, with a bit for "more follow"; from the fourth run on, the difference to the last but
        one.
    """
    size, counts = (
        (segmentation.get("size"), segmentation.get("counts"))
        if isinstance(segmentation, dict)
        else (None, None)
    )
    runs = _unpack(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not isinstance(size, list) or len(size) != 2:
        return []
    if not all(type(number) is int and number >= 0 for number in (*size, *runs)):
        return []
    height, width = size
    if sum(runs) != height * width:
        return []
    ends = np.cumsum(np.array(runs, np.int64))[1::2]
    lengths = np.array(runs, np.int64)[1::2]
    ends, lengths = ends[lengths > 0], lengths[lengths > 0]
    if not len(ends):
        return []
    first, last = ends - lengths, ends - 1
    is_long = bool((first // height < last // height).any())
    top = 0 if is_long else int((first % height).min())
    bottom = height if is_long else int((last % height).max()) + 1
    return [float(first[0] // height), float(top), float(last[-1] // height + 1), float(bottom)]


def _unpack(text: str) -> list[int]:
    """Return run lengths; nothing if there are too many, or digits of numbers without end."""
    if len(text) > _MAX_DIGITS:
        return []
    runs: list[int] = []
    number, shift = 0, 0
    for byte in text.encode("latin-1", "replace"):
        digit = byte - 48
        number |= (digit & 31) << shift
        shift += 5
        if shift > _MAX_BITS:
            return []
        if not digit & 32:
            number -= (digit & 16) and 1 << shift
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number, shift = 0, 0
    return runs


def contradicts(xyxy: Sequence[float], segmentation: object) -> bool:
    """Tell whether a box is another one than that around its own outline.

    Args:
        xyxy: The box.
        segmentation: Polygons or run lengths; what is neither contradicts nothing.

    Returns:
        Whether both are boxes, a side differs by more than 2 pixels, and less than half of what
        they cover together is in both.
    """
    bounds = bound_polygons(segmentation) or bound_runs(segmentation)
    apart = [abs(one - other) for one, other in zip(xyxy, bounds, strict=False)]
    if not apart or not max(apart) > _TOLERANCE_PX or not all(np.isfinite((*xyxy, *bounds))):
        return False
    shared = 1.0
    for low in (0, 1):
        start, end = max(xyxy[low], bounds[low]), min(xyxy[low + 2], bounds[low + 2])
        shared *= max(0.0, end - start)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (xyxy, bounds)]
    return shared < _LEAST_IOU * (sum(areas) - shared)
