"""Palette colour of DICOM images: three lookup tables, as they are or in segments.

Reference:
    DICOM PS3.3 C.7.6.3.1.5 and C.7.6.3.1.6 (Palette Color Lookup Tables), C.7.9.2 (Segmented
    Palette Color Lookup Table Data).
"""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from vae_aug.errors import DicomError
from vae_aug.ingest.dicom.elements import get_words, name_element
from vae_aug.ingest.dicom.values import Lut, get_stored_bits, look_up, read_lut, read_sign

_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2


def apply_palette(stored: np.ndarray, dataset: Dataset) -> tuple[np.ndarray, int]:
    """Map indices to colour.

    Args:
        stored: `[H, W]`, indices.
        dataset: What has the three tables.

    Returns:
        `[H, W, 3] uint8` or `uint16`, and the bits of a channel, 8 or 16.

    Raises:
        DicomError: If a table is missing or damaged.
    """
    layout = get_stored_bits(dataset)
    luts = [_read_palette(dataset, channel) for channel in ("Red", "Green", "Blue")]
    # A descriptor may tell 8 bits of entries that fill 16, and 16 bits of data that have 8.
    bits = 8 if all(lut.bits == 8 and lut.entries.max() < 2**8 for lut in luts) else 16
    kind = np.uint8 if bits == 8 else np.uint16
    channels = [
        look_up(stored, read_sign(lut.first, layout), lut.entries.astype(kind)) for lut in luts
    ]
    return np.stack(channels, axis=-1), bits


def _read_palette(dataset: Dataset, channel: str) -> Lut:
    """Return the table of a channel."""
    prefix = f"{channel}PaletteColorLookupTable"
    descriptor = get_words(dataset, f"{prefix}Descriptor").tolist()
    name = name_element(f"{prefix}Descriptor")
    if len(descriptor) != 3 or descriptor[2] not in (8, 16):
        raise DicomError(f"{name} must have 3 values, the last of which is 8 or 16.")
    count, first, bits = descriptor[0] or 2**16, descriptor[1], descriptor[2]
    keyword = f"Segmented{prefix}Data"
    if not get_words(dataset, f"{prefix}Data").size and get_words(dataset, keyword).size:
        words = get_words(dataset, keyword)
        codes = words.astype("<u2").view(np.uint8) if bits == 8 else words
        entries = _expand_segments(codes.tolist(), count, is_wide=bits == 16)
        if len(entries) != count:
            raise DicomError(f"{name_element(keyword)} must make {count} entries.")
        return Lut(first, np.array(entries, np.uint16), bits)
    words = get_words(dataset, f"{prefix}Data")
    if bits == 16 and (count + 1) // 2 <= words.size < count:
        return Lut(first, words.astype("<u2").view(np.uint8)[:count].astype(np.uint16), 8)
    lut = read_lut(dataset, prefix)
    if lut is None:
        raise DicomError(f"{name} is missing.")
    return lut


def _expand_segments(codes: list[int], count: int, *, is_wide: bool) -> list[int]:
    """Expand a segmented table, PS3.3 C.7.9.2, to no more than one entry beyond `count`.

    Args:
        codes: The data in units of an entry, little endian.
        count: Entries that the descriptor tells.
        is_wide: Whether an entry has 16 bits.
    """
    entries: list[int] = []
    place = 0
    # A padding byte may follow the last segment, none of which is that short.
    while place + 2 < len(codes) and len(entries) <= count:
        if codes[place] != _INDIRECT:
            place = _expand_one(codes, place, entries)
            continue
        number, offset = codes[place + 1], codes[place + 2 :]
        # The offset has 32 bits, in bytes.
        parts = offset[:2] if is_wide else offset[:4]
        target = sum(part << (16 if is_wide else 8) * i for i, part in enumerate(parts))
        target //= 2 if is_wide else 1
        place += 2 + len(parts)
        for _ in range(number):
            if len(entries) > count or target + 2 >= len(codes):
                break
            target = _expand_one(codes, target, entries)
    return entries


def _expand_one(codes: list[int], place: int, entries: list[int]) -> int:
    """Append the entries of a discrete or linear segment, and return where the next begins."""
    kind, length = codes[place : place + 2]
    if kind == _DISCRETE:
        entries.extend(codes[place + 2 : place + 2 + length])
        return place + 2 + length
    if kind != _LINEAR or not entries or length == 0:
        raise DicomError("has a damaged segment in its (0028,1221) to (0028,1223) palette data.")
    start, end = entries[-1], codes[place + 2]
    steps = np.around(np.linspace(start + (end - start) / length, end, length))
    entries.extend(int(value) for value in steps)
    return place + 3
