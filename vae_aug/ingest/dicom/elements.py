"""Single elements of a DICOM dataset: whatever is wrong with one is said by tag and keyword.

An empty element counts as a missing one. No message repeats a text value, which may be anything,
a name too.

Reference:
    DICOM PS3.5 6.2 (Value Representation), PS3.6 (Data Dictionary).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_deferred_data_element
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence

from vae_aug.errors import DicomError
from vae_aug.limits import MAX_DICOM_ITEMS, MAX_TEXT_BYTES

ITEM_TAGS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
"""The tag of an item, (FFFE,E000), in little and in big endian."""


def name_element(keyword: str) -> str:
    """Name an element as messages do.

    Example:
        >>> name_element("WindowWidth")
        '(0028,1051) Window Width'
    """
    tag = tag_for_keyword(keyword) or 0
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X}) {dictionary_description(tag)}"


def get_values(dataset: Dataset, keyword: str) -> list[Any]:
    """Return the values of an element, empty ones as None; an empty list if it is missing.

    Raises:
        DicomError: If they do not suit the element.
    """
    try:
        value = dataset.get(keyword)
    except MemoryError:
        raise
    except Exception as error:
        raise DicomError(f"{name_element(keyword)} is damaged ({type(error).__name__}).") from error
    values = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
    values = [None if one is None or one == "" or one == b"" else one for one in values]
    return values if any(one is not None for one in values) else []


def get_numbers(dataset: Dataset, keyword: str) -> list[float | None]:
    """Return the numbers of an element, which may be NaN; empty ones are None.

    Raises:
        DicomError: If one is no number.
    """
    try:
        return [None if one is None else float(one) for one in get_values(dataset, keyword)]
    except (TypeError, ValueError):
        raise DicomError(f"{name_element(keyword)} must be a number; got another value.") from None


def get_first(dataset: Dataset, keyword: str) -> float | None:
    """Return the first value of an element of one or more numbers, None if it is empty."""
    return next(iter(get_numbers(dataset, keyword)), None)


def get_finite(dataset: Dataset, keyword: str) -> float | None:
    """Return what `get_first` does, and refuse NaN and infinity."""
    number = get_first(dataset, keyword)
    if number is not None and not np.isfinite(number):
        raise DicomError(f"{name_element(keyword)} must be a finite number; got {number:g}.")
    return number


def get_integer(dataset: Dataset, keyword: str) -> int | None:
    """Return the one whole number of an element, None if it is empty.

    Raises:
        DicomError: If it is no whole number, or has several.
    """
    numbers = get_numbers(dataset, keyword)
    if not numbers:
        return None
    if len(numbers) != 1 or numbers[0] is None or not float(numbers[0]).is_integer():
        raise DicomError(f"{name_element(keyword)} must be one whole number; got another value.")
    return int(numbers[0])


def require_integer(dataset: Dataset, keyword: str, least: int = 1, most: int = 2**16 - 1) -> int:
    """Return a number that an image must have.

    Raises:
        DicomError: If it is missing or out of bounds.
    """
    number = get_integer(dataset, keyword)
    if number is None or (number == 0 and least > 0):
        raise DicomError(f"{name_element(keyword)} is missing or 0.")
    if not least <= number <= most:
        raise DicomError(f"{name_element(keyword)} must be {least} to {most}; got {number}.")
    return number


def get_words(dataset: Dataset, keyword: str) -> np.ndarray:
    """Return the 16-bit words of an element, whatever VR it was written in.

    Elements whose VR depends on another, as US or SS does on (0028,0103) Pixel Representation, are
    often written in the wrong one. Their bytes are right all the same.

    Args:
        dataset: Dataset or item of a sequence.
        keyword: An element of VR US, SS or OW.

    Returns:
        `[N] uint16`; empty if it is missing.

    Raises:
        DicomError: If a value has more than 16 bits.
    """
    if keyword not in dataset:
        return np.zeros(0, np.uint16)
    # pydicom takes an empty element in implicit VR for one that is still to be read.
    element: Any = dataset.get_item(keyword, keep_deferred=True)
    if isinstance(element, RawDataElement) and element.value is None and element.length:
        element = dataset.get_item(keyword)
    value, little = element.value, True
    if isinstance(element, RawDataElement):
        little = element.is_little_endian
        if element.VR not in (None, "US", "SS", "OW", "OB", "UN"):
            value = get_values(dataset, keyword)
    elif isinstance(value, bytes):
        little = dataset.original_encoding[1] is not False
    if isinstance(value, bytes):
        return np.frombuffer(value[: len(value) // 2 * 2], "<u2" if little else ">u2")
    if value is None or value == "":
        return np.zeros(0, np.uint16)
    try:
        words = np.atleast_1d(np.array(value, np.int64))
    except (TypeError, ValueError, OverflowError):
        words = np.array([2**16])
    if words.size and not -(2**15) <= words.min() <= words.max() < 2**16:
        raise DicomError(f"{name_element(keyword)} must hold numbers of 16 bits; got others.")
    return (words & 0xFFFF).astype(np.uint16)


def get_items(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    """Return the items of a sequence, not copied; none if it is missing, empty or no sequence.

    Raises:
        DicomError: If it is damaged, or has more than `MAX_DICOM_ITEMS` items, those of sequences
            within counted too.
    """
    if keyword not in dataset:
        return []
    # A sequence of stated length is still bytes here, and not yet that many objects.
    raw: Any = dataset.get_item(keyword, keep_deferred=True)
    if isinstance(raw, RawDataElement):
        if raw.length > MAX_TEXT_BYTES:
            raise DicomError(f"{name_element(keyword)} has more than {MAX_TEXT_BYTES} bytes.")
        if raw.value is None and raw.length and isinstance(dataset, FileDataset):
            name: Any = dataset.filename
            raw = read_deferred_data_element(dataset.fileobj_type, name, dataset.timestamp, raw)
        check_items(max((raw.value or b"").count(tag) for tag in ITEM_TAGS))
    try:
        value = dataset.get(keyword)
    except MemoryError:
        raise
    except Exception as error:
        raise DicomError(f"{name_element(keyword)} is damaged ({type(error).__name__}).") from error
    return value if isinstance(value, DicomSequence) else []


def check_items(count: int) -> None:
    """Refuse more items of sequences than are read in a few seconds."""
    if count > MAX_DICOM_ITEMS:
        raise DicomError(
            f"has {count} items of sequences; at most {MAX_DICOM_ITEMS} are read of one file."
        )
