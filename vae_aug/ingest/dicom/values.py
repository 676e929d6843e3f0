"""Values of DICOM pixels: stored values, modality values, grey levels.

The order of the steps is that of the standard: stored values, modality transformation (e.g. to
Hounsfield units), value of interest (window or table), then the polarity of the presentation.

Reference:
    DICOM PS3.3 C.11.1 (Modality LUT), C.11.2 (VOI LUT), C.11.6 (Presentation LUT Shape),
    C.7.6.3.1.2 (Photometric Interpretation), C.7.5.1.1.2 (Pixel Padding); PS3.5 8.1.1 (Pixel
    Data Encoding).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from pydicom.dataset import Dataset

from vae_aug.errors import DicomError
from vae_aug.ingest.dicom.elements import (
    get_finite,
    get_first,
    get_integer,
    get_items,
    get_numbers,
    get_values,
    get_words,
    name_element,
    require_integer,
)

Window = str | tuple[float, float]

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclasses.dataclass(frozen=True)
class Voi:
    """What is black, white and between in one image, to show another by the same.

    Attributes:
        apply: Maps modality values `[...]` to float64 in [0, 1].
        window: (center, width) in modality units, or None where a VOI LUT or the range of the
            values was taken.
    """

    apply: Callable[[np.ndarray], np.ndarray]
    window: tuple[float, float] | None


class StoredBits(NamedTuple):
    """Where a stored value lies in its cell, PS3.5 8.1.1.

    Attributes:
        stored: (0028,0101) Bits Stored, the value.
        high: (0028,0102) High Bit, the value's highest bit, from 0.
        is_signed: (0028,0103) Pixel Representation, whether that bit is a sign.
    """

    stored: int
    high: int
    is_signed: bool


class Lut(NamedTuple):
    """A lookup table.

    Attributes:
        first: The 16 bits of the first value mapped, signed or not.
        entries: `[N] uint16`.
        bits: Bits of an entry, 1 to 16.
    """

    first: int
    entries: np.ndarray
    bits: int


def get_stored_bits(dataset: Dataset) -> StoredBits:
    """Return where stored integers lie in their cells.

    Raises:
        DicomError: If an element is missing, or they contradict each other.
    """
    allocated = require_integer(dataset, "BitsAllocated", most=64)
    stored = require_integer(dataset, "BitsStored", most=allocated)
    high = get_integer(dataset, "HighBit")
    high = stored - 1 if high is None else high
    # Since 2014 the high bit is one less than the bits stored; older files have it higher.
    if not stored - 1 <= high < allocated:
        raise DicomError(
            f"{name_element('HighBit')} must be {stored - 1} to {allocated - 1} for {stored} of "
            f"{allocated} bits; got {high}."
        )
    if get_integer(dataset, "PixelRepresentation") is None:
        raise DicomError(f"{name_element('PixelRepresentation')} is missing.")
    is_signed = require_integer(dataset, "PixelRepresentation", least=0, most=1) == 1
    return StoredBits(stored, high, is_signed)


def place_bits(cells: np.ndarray, bits: StoredBits) -> np.ndarray:
    """Return the values in cells, without what lies above the high bit or below the value.

    Old files keep overlays there. Shifting a signed type to the right repeats the sign.

    Args:
        cells: `[...]`, integers of the type that the values have.
        bits: Where the values lie.

    Returns:
        As `cells`.
    """
    width = 8 * cells.itemsize
    left, right = width - 1 - bits.high, width - bits.stored
    return cells if right == 0 else (cells << left) >> right


def read_sign(word: int, bits: StoredBits) -> int:
    """Return a 16-bit word that stands for a stored value.

    In a signed image it is signed, also where it was written as US; and where fewer bits are
    stored, the sign may not have been repeated in the bits above them.
    """
    if not bits.is_signed:
        return word
    value = word - 2**16 if word >= 2**15 else word
    return value - 2**bits.stored if 2 ** (bits.stored - 1) <= value < 2**bits.stored else value


def find_padding(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Mark pixels outside of the imaged area, PS3.3 C.7.5.1.1.2, and what is no number.

    Args:
        stored: `[...]`, the stored values.
        dataset: What holds for the frame. The padding's VR may be US or SS, whichever the pixels
            have; a value that the pixels cannot have marks none.

    Returns:
        bool, shape as `stored`.

    Raises:
        DicomError: If the padding is no number.
    """
    if stored.dtype.kind == "f":
        prefix = "DoubleFloat" if stored.itemsize == 8 else "Float"
        low = get_first(dataset, f"{prefix}PixelPaddingValue")
        limit = get_first(dataset, f"{prefix}PixelPaddingRangeLimit")
    else:
        low, limit = _get_padding(dataset)
    if low is None:
        return ~np.isfinite(stored)
    low, high = sorted((low, low if limit is None else limit))
    return ((stored >= low) & (stored <= high)) | ~np.isfinite(stored)


def _get_padding(dataset: Dataset) -> tuple[float | None, float | None]:
    keywords = ("PixelPaddingValue", "PixelPaddingRangeLimit")
    words = [get_words(dataset, keyword)[:1].tolist() for keyword in keywords]
    if not words[0]:
        return None, None
    bits = get_stored_bits(dataset)
    low, limit = (float(read_sign(word[0], bits)) if word else None for word in words)
    return low, limit


def apply_modality(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Map stored values to modality units, PS3.3 C.11.1.1.

    Where one of slope and intercept is missing, the other holds.

    Args:
        stored: `[...]`.
        dataset: What holds for the frame.

    Returns:
        float64, shape as `stored`.

    Raises:
        DicomError: If slope or intercept is no number, the slope is 0, or a table is damaged.
    """
    lut = _get_modality_lut(dataset)
    if lut is not None:
        first = read_sign(lut.first, get_stored_bits(dataset))
        return look_up(stored, first, lut.entries).astype(np.float64)
    slope, intercept = get_rescale(dataset)
    with np.errstate(over="ignore", invalid="ignore"):
        values = stored.astype(np.float64) * slope + intercept
    if not np.isfinite(values[np.isfinite(stored)]).all():
        raise DicomError(
            f"{name_element('RescaleSlope')} {slope:g} and {name_element('RescaleIntercept')} "
            f"{intercept:g} lead beyond all numbers."
        )
    return values


def get_rescale(dataset: Dataset) -> tuple[float, float]:
    """Return slope and intercept of the modality transformation, 1 and 0 where missing.

    Raises:
        DicomError: If one is no finite number, or the slope is 0.
    """
    slope, intercept = (get_finite(dataset, k) for k in ("RescaleSlope", "RescaleIntercept"))
    if slope == 0:
        raise DicomError(f"{name_element('RescaleSlope')} must be a number other than 0; got 0.")
    return 1.0 if slope is None else slope, 0.0 if intercept is None else intercept


def _get_modality_lut(dataset: Dataset) -> Lut | None:
    for item in get_items(dataset, "ModalityLUTSequence")[:1]:
        return read_lut(item)
    return None


def read_lut(item: Dataset, prefix: str = "LUT") -> Lut | None:
    """Read a lookup table, PS3.3 C.11.1.1.1, C.11.2.1.1 and C.7.6.3.1.5.

    Args:
        item: What has its descriptor and its data.
        prefix: What their keywords begin with.

    Returns:
        The table, None if descriptor and data are both empty.

    Raises:
        DicomError: If the table is shorter than its descriptor says, or has other than 1 to 16
            bits.
    """
    descriptor = get_words(item, f"{prefix}Descriptor")
    words = get_words(item, f"{prefix}Data")
    if not descriptor.size and not words.size:
        return None
    name = name_element(f"{prefix}Descriptor")
    if descriptor.size != 3:
        raise DicomError(f"{name} must have 3 values; got {descriptor.size}.")
    count, first, bits = (int(word) for word in descriptor)
    count = count or 2**16
    if not 1 <= bits <= 16:
        raise DicomError(f"{name} must tell 8 to 16 bits an entry; got {bits}.")
    if words.size < count and bits <= 8:
        # Two entries a word, the first in its lower byte.
        words = words.astype("<u2").view(np.uint8)
    if words.size < count:
        raise DicomError(
            f"{name_element(f'{prefix}Data')} must have {count} entries; got {words.size}."
        )
    return Lut(first, words[:count].astype(np.uint16), bits)


def look_up(values: np.ndarray, first: int, entries: np.ndarray) -> np.ndarray:
    """Map whole numbers through a table; beyond it the first and the last entry hold."""
    places = np.clip(np.rint(values.astype(np.float64)) - first, 0, len(entries) - 1)
    return np.asarray(entries[np.nan_to_num(places).astype(np.intp)])


def choose_voi(dataset: Dataset, window: Window, value_range: tuple[float, float]) -> Voi:
    """Tell what is black and white in an image.

    Args:
        dataset: What holds for the frame.
        window: As `check_window` returns it.
        value_range: Lowest and highest modality value, black and white where there is no window.

    Returns:
        The value of interest transformation.

    Raises:
        DicomError: Under `"auto"`, if the file has a window or a table, and none can be applied.
    """
    if isinstance(window, tuple):
        return Voi(lambda values: apply_window(values, *window), window)
    voi = choose_own_voi(dataset) if window == "auto" else None
    if voi is not None:
        return voi
    low, high = value_range
    span = max(high - low, np.finfo(np.float64).tiny)
    if not np.isfinite(span):
        raise DicomError(f"has modality values from {low:g} to {high:g}, too far apart.")
    return Voi(lambda values: np.clip((values - low) / span, 0, 1), None)


def choose_own_voi(dataset: Dataset) -> Voi | None:
    """Return the first table of a file, else its first window, that can be applied.

    Args:
        dataset: What holds for the frame.

    Returns:
        The value of interest transformation, None if the file has neither.

    Raises:
        DicomError: If the file has one, and none can be applied.
    """
    faults: list[DicomError] = []
    for find in (_find_voi_lut, _find_window):
        try:
            voi = find(dataset)
        except DicomError as error:
            faults.append(error)
            continue
        if voi is not None:
            return voi
    if faults:
        raise DicomError(
            f"{str(faults[0]).removesuffix('.')}; pass window='full' or (center, width)."
        ) from faults[0]
    return None


def _find_voi_lut(dataset: Dataset) -> Voi | None:
    faults: list[DicomError] = []
    for item in get_items(dataset, "VOILUTSequence"):
        try:
            lut = read_lut(item)
        except DicomError as error:
            faults.append(error)
            continue
        if lut is not None:
            return _make_lut_voi(lut, dataset)
    if faults:
        raise faults[0]
    return None


def _make_lut_voi(lut: Lut, dataset: Dataset) -> Voi:
    is_negative = lut.first >= 2**15 and _has_negative_values(dataset)
    first = lut.first - 2**16 if is_negative else lut.first
    greys = np.clip(lut.entries / (2.0**lut.bits - 1), 0, 1)
    return Voi(lambda values: look_up(values, first, greys), None)


def _has_negative_values(dataset: Dataset) -> bool:
    """Tell whether modality values can be negative.

    The first value that a VOI LUT maps is then signed, whatever Pixel Representation and the VR
    of its descriptor say, PS3.3 C.11.2.1.1.
    """
    if _get_modality_lut(dataset) is not None:
        return False
    if get_values(dataset, "BitsStored") == []:  # floating point
        return True
    bits, (slope, intercept) = get_stored_bits(dataset), get_rescale(dataset)
    low = -(2 ** (bits.stored - 1)) if bits.is_signed else 0
    return min(slope * low, slope * (low + 2**bits.stored - 1)) + intercept < 0


def _find_window(dataset: Dataset) -> Voi | None:
    centers, widths = (get_numbers(dataset, k) for k in ("WindowCenter", "WindowWidth"))
    # What lacks its partner, in a list of one length less or by an empty value, is no window.
    pairs = [
        (center, width)
        for center, width in zip(centers, widths, strict=False)
        if center is not None and width is not None
    ]
    function = get_voi_function(dataset)
    if not pairs:
        return None
    usable = [pair for pair in pairs if _find_window_fault(*pair, function) is None]
    if not usable:
        raise DicomError(f"{_find_window_fault(*pairs[0], function)}.")
    pair = usable[0]
    return Voi(lambda values: apply_window(values, *pair, function), pair)


def get_voi_function(dataset: Dataset) -> str:
    """Return (0028,1056) VOI LUT Function, LINEAR if it is missing."""
    return str(next(iter(get_values(dataset, "VOILUTFunction")), "LINEAR")).strip().upper()


def _find_window_fault(center: float, width: float, function: str) -> str | None:
    """Return what is wrong with a window, PS3.3 C.11.2.1.2 and C.11.2.1.3, None if nothing is."""
    if function not in _FUNCTIONS:
        return f"{name_element('VOILUTFunction')} must be {' or '.join(_FUNCTIONS)}; got another"
    if not np.isfinite(center):
        return f"{name_element('WindowCenter')} must be a finite number; got {center:g}"
    if not np.isfinite(width):
        return f"{name_element('WindowWidth')} must be a finite number; got {width:g}"
    if function == "LINEAR" and width < 1:
        return f"{name_element('WindowWidth')} must be at least 1; got {width:g}"
    if width <= 0:
        return f"{name_element('WindowWidth')} must be above 0; got {width:g}"
    return None


def apply_window(
    values: np.ndarray, center: float, width: float, function: str = "LINEAR"
) -> np.ndarray:
    """Map values to [0, 1] through a window.

    `"LINEAR"`: (x - (c - 0.5)) / (w - 1) + 0.5, cut to [0, 1]; `"LINEAR_EXACT"`:
    (x - c) / w + 0.5, cut; `"SIGMOID"`: 1 / (1 + exp(-4 (x - c) / w)).

    Args:
        values: Floating point, in modality units.
        center: (0028,1050) Window Center c.
        width: (0028,1051) Window Width w.
        function: (0028,1056) VOI LUT Function.

    Returns:
        float64 in [0, 1], shape as `values`.

    Raises:
        ValueError: If the width does not suit the function, or the function is unknown.

    Reference:
        DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3.

    Example:
        >>> apply_window(np.array([-160.5, 39.5, 239.5]), 40, 401).tolist()
        [0.0, 0.5, 1.0]
    """
    if fault := _find_window_fault(center, width, function):
        raise ValueError(fault)
    if function == "SIGMOID":
        # exp overflows to inf beyond 709, and 1 / (1 + inf) is the 0 that is meant.
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0, 1)


def get_window_limits(center: float, width: float) -> tuple[float, float]:
    """Return where the linear function of PS3.3 C.11.2.1.2.1 reaches black and white."""
    return center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2


def quantize(greys: np.ndarray, bits: int) -> np.ndarray:
    """Turn grey values in [0, 1] into uint8 (8 bits) or uint16 (16), rounding half up."""
    return np.floor(greys * (2**bits - 1) + 0.5).astype(np.uint8 if bits == 8 else np.uint16)


def is_inverted(dataset: Dataset) -> bool:
    """Tell whether high values are dark.

    MONOCHROME1 and a Presentation LUT Shape INVERSE say the same thing, PS3.3 C.8.11.3.1.2, so
    one of them is enough and both together invert once.
    """
    return (
        dataset.PhotometricInterpretation == "MONOCHROME1"
        or dataset.get("PresentationLUTShape") == "INVERSE"
    )
