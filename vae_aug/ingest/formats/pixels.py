"""Relative coordinates in formats that want pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.source import Box, Collector, Fault

# Relative corners end at 1, and a little beyond it by carelessness.
_LARGEST_RELATIVE = 1.5
# In an image of so few pixels a box may be one pixel.
_SMALL_IMAGE_PX = 8
_REASON = "lies within [0, 1], as relative coordinates do; pixels are expected"


def flag_relative(
    entries: Iterable[Box | Fault], size: tuple[int | None, int | None] = (None, None)
) -> list[Box | Fault]:
    """Make faults of boxes that must be relative, because they would not fill two pixels.

    Args:
        entries: The boxes and faults of one image.
        size: Height and width in pixels that the annotation claims.

    Returns:
        The entries, with a fault in the place of such a box.
    """
    if any(side is not None and side <= _SMALL_IMAGE_PX for side in size):
        return list(entries)
    return [
        Fault(f"box {index}: {_REASON}")
        if isinstance(entry, Box) and _is_relative(entry.xyxy)
        else entry
        for index, entry in enumerate(entries)
    ]


def _is_relative(xyxy: Sequence[float]) -> bool:
    left, top, right, bottom = xyxy
    # A box of no size is a placeholder, and gets a reason of its own later.
    has_area = left < right and top < bottom
    return has_area and all(abs(value) <= _LARGEST_RELATIVE for value in xyxy)


def refuse_relative(collector: Collector) -> None:
    """Refuse a source in which `flag_relative` left no box.

    Raises:
        AnnotationError: If so: its coordinates are relative, and the sizes that make pixels of
            them may be those of other images.
    """
    flagged = any(problem.reason.endswith(_REASON) for problem in collector.problems)
    if flagged and not any(image.labels for image in collector.images):
        raise AnnotationError(
            f"{collector.root}: every box lies within [0, 1], so the coordinates are relative "
            "where this format wants pixels; export them again in pixels."
        )
