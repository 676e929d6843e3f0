"""How much of the range of 16 bits the values of images fill.

Files of 16 bits often hold values of 10 or 12, such as Hounsfield units + 1024. Whatever takes
65,535 for white shows them nearly black.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal

import numpy as np

from vae_aug.words import plural

NARROW = 1 / 8
"""Share of the range, that of 13 bits, below which an image is nearly black."""

_WHITE = 65535
_BLOCK = 2**22
_AGAIN = {
    "ingest": "with --overwrite and",
    "denoise": "into another folder with",
    "evaluate": "with",
}
_OUTLIERS = 0.001
"""Share of pixels at either end that may be markers or hot, and do not count if others are near."""


@dataclasses.dataclass(frozen=True)
class Extent:
    """What images of 16 bits fill of their range.

    Attributes:
        images: How many there are.
        narrow: Of these, how many fill less than `NARROW`.
        low: Lowest value of those, padding with 0 left out; 0 if there are none.
        high: Highest value of those, markers with 65,535 left out.
        windowed: Of those, how many went through a window, as DICOM does, so that these values
            are not those of their files.
    """

    images: int = 0
    narrow: int = 0
    low: int = 0
    high: int = 0
    windowed: int = 0

    @property
    def is_narrow(self) -> bool:
        """Whether more than half of the images are narrow; single ones may be all but empty."""
        return 2 * self.narrow > self.images

    def describe(self, command: Literal["ingest", "denoise", "evaluate"] = "ingest") -> str:
        """Say how little of their range most images fill, and what to do; `""` if they do not.

        Args:
            command: The command of `vae-aug` that is to be run again.
        """
        if not self.is_narrow:
            return ""
        share = (self.high - self.low) / _WHITE
        ends = f"makes {self.low} black and {self.high} white"
        if command == "evaluate":
            way_out = f"--value-range {self.low},{self.high}, which {ends}"
        elif self.windowed:
            way_out = "another --window (full shows the lowest to the highest value)"
        else:
            way_out = (
                f"--window {_format(*self.window)}, the same for every split: its CENTER,WIDTH "
                f"{ends}"
            )
        return (
            f"WARNING: {self.narrow:,} of {plural(self.images, 'image')} of 16 bits fill little of "
            f"their range ({self.low} to {self.high} of 0 to {_WHITE}, {share:.1%}), which "
            "networks "
            f"see nearly black. Run the same command again {_AGAIN[command]} {way_out}"
        )

    @property
    def window(self) -> tuple[float, float]:
        """Center and width that make `low` black and `high` white (DICOM PS3.3 C.11.2.1.2)."""
        return (self.low + self.high + 1) / 2, float(self.high - self.low + 1)


def _format(center: float, width: float) -> str:
    return f"{center:.1f}".removesuffix(".0") + f",{width:.0f}"


def measure_extent(pixels: np.ndarray, *, windowed: bool) -> Extent:
    """Measure an image.

    Args:
        pixels: `[H, W, C]`, of any dtype.
        windowed: Whether it went through a window.

    Returns:
        What it fills; nothing if it is not uint16.
    """
    if pixels.dtype != np.uint16:
        return Extent()
    values = pixels.reshape(-1)
    counts = np.zeros(_WHITE + 1, np.int64)
    # NumPy counts copies of eight bytes a pixel.
    for start in range(0, values.size, _BLOCK):
        counts += np.bincount(values[start : start + _BLOCK], minlength=_WHITE + 1)
    low, high = _find_ends(counts)
    if (high - low) / _WHITE >= NARROW:
        return Extent(images=1)
    # Zero is what black means, unless values lie far from it as signed ones with an offset do.
    return Extent(1, 1, 0 if low <= high / 8 else low, high, int(windowed))


def _find_ends(counts: np.ndarray) -> tuple[int, int]:
    """Return the lowest and the highest value of an image, by how often it has each."""
    inner = counts.copy()
    inner[[0, _WHITE]] = 0
    total = int(inner.sum())
    if not total:
        values = np.flatnonzero(counts)
        return int(values[0]), int(values[-1])
    values = np.flatnonzero(inner)
    low, high = int(values[0]), int(values[-1])
    if (high - low) / _WHITE < NARROW:
        return low, high
    sums = np.cumsum(inner)
    outliers = int(total * _OUTLIERS)
    ends = np.searchsorted(sums, [outliers + 1, total - outliers])
    return int(ends[0]), int(ends[1])


def join_extents(extents: Iterable[Extent]) -> Extent:
    """Join what several images or splits fill."""
    found = list(extents)
    narrow = [extent for extent in found if extent.narrow]
    return Extent(
        images=sum(extent.images for extent in found),
        narrow=sum(extent.narrow for extent in found),
        low=min((extent.low for extent in narrow), default=0),
        high=max((extent.high for extent in narrow), default=0),
        windowed=sum(extent.windowed for extent in found),
    )
