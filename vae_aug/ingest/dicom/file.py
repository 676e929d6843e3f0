"""DICOM files: their elements, read within bounds, and how many frames they hold.

Reference:
    DICOM PS3.10 7 (File Format); PS3.5 7.1 (Data Elements), A.4 (Encapsulated Pixel Data).
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from typing import Any, BinaryIO

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from vae_aug.errors import DicomError, VAEAugError
from vae_aug.ingest.dicom.elements import ITEM_TAGS, check_items, get_integer, name_element
from vae_aug.limits import MAX_DICOM_ITEMS, MAX_FRAMES, MAX_INFLATED_BYTES, check_regular

PIXEL_DATA = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

_PIXEL_TAGS = (0x7FE00010, 0x7FE00008, 0x7FE00009)
_ITEM = 0xFFFEE000
_UNDEFINED = 0xFFFFFFFF
_ELEMENT_HEADER_BYTES = 8

_DEFERRED = 2**20
"""Bytes above which a value is not read with the file: pixels of many frames."""

_READS_PER_ITEM = 4
"""Reads that an item of a sequence and the element in it take together."""


class DicomErrors:
    """Turn whatever reading a file raises into a `DicomError`, and silence its warnings.

    A damaged element can make pydicom raise almost anything, and its messages may quote the
    element's value, so of a foreign error only the kind is told.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Remember which file the messages are about."""
        self._path = os.fspath(path)
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> None:
        self._warnings.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._warnings.__exit__(kind, error, trace)
        match error:
            case None:
                return
            case DicomError():
                raise DicomError(f"{self._path}: {error}") from error
            case VAEAugError():  # of `vae_aug.limits`, which names the path itself
                raise DicomError(str(error)) from error
            case InvalidDicomError():
                reason = "not a DICOM file (no DICM prefix)"
            case RecursionError():
                reason = "its sequences are nested too deeply"
            case OSError() if error.strerror:
                reason = f"cannot be read ({error.strerror})"
            case MemoryError():
                reason = "its pixels do not fit into memory"
            case Exception():
                reason = f"damaged or not readable ({kind.__name__})"
            case _:
                return
        raise DicomError(f"{self._path}: {reason}.") from None


class _BoundedFile(io.BufferedReader):
    """A file that refuses to be read in more pieces than a DICOM header has, or to fill the memory.

    Sequences of undefined length become objects while the file is read, and pydicom asks for each
    item and element separately, so the number of reads bounds their number. All that is left of a
    file is read at once only where it is deflated.

    Attributes:
        inflated: Bytes of the dataset when inflated; None of a file that is not deflated.
    """

    inflated: int | None = None
    _reads = 0

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> _BoundedFile:
        """Open a file."""
        return cls(io.FileIO(os.fspath(path)))

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > _READS_PER_ITEM * MAX_DICOM_ITEMS:
            raise _make_items_error()
        return self._read_deflated() if size is None or size < 0 else super().read(size)

    def _read_deflated(self) -> bytes:
        inflater, parts, items = zlib.decompressobj(-zlib.MAX_WBITS), [b""], 0
        self.inflated = 0
        while not inflater.eof:
            if not (data := inflater.unconsumed_tail):
                parts.append(data := super().read(2**16))
            if not data:
                break
            inflated = inflater.decompress(data, 2**20)
            self.inflated += len(inflated)
            items += inflated.count(ITEM_TAGS[0])
            if self.inflated > MAX_INFLATED_BYTES:
                raise DicomError(f"is longer than {MAX_INFLATED_BYTES} bytes when inflated.")
            check_items(items)
        return b"".join(parts)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        super().__exit__(kind, error, trace)
        # pydicom makes an error of its own of one within a sequence.
        if isinstance(error, OSError) and self._reads > _READS_PER_ITEM * MAX_DICOM_ITEMS:
            raise _make_items_error() from error


def _make_items_error() -> DicomError:
    return DicomError(
        f"has more than {MAX_DICOM_ITEMS} items of sequences, or more than "
        f"{_READS_PER_ITEM * MAX_DICOM_ITEMS} elements or fragments; that many are not read."
    )


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file has the DICOM prefix (PS3.10 7.1); False if it cannot be read."""
    try:
        check_regular(path)
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except (OSError, VAEAugError):
        return False


def read_dataset(path: str | os.PathLike[str], *, stop_before_pixels: bool = False) -> FileDataset:
    """Read the elements of a file; use it within `DicomErrors`.

    Args:
        path: The DICOM file.
        stop_before_pixels: Leave out the pixel data.

    Returns:
        The dataset. Values of more than 1 MiB are read when they are asked for.

    Raises:
        DicomError: If the file is no regular one, is deflated and more than `MAX_INFLATED_BYTES`
            long when inflated, or has more than `MAX_DICOM_ITEMS` items.
    """
    check_regular(path)
    with _BoundedFile.open(path) as file:
        return _read(file, stop_before_pixels)


def _read(file: _BoundedFile, stop_before_pixels: bool) -> FileDataset:
    dataset = pydicom.dcmread(file, _DEFERRED, stop_before_pixels=stop_before_pixels)
    if file.inflated is not None and file.inflated > _DEFERRED:
        # What is put off would be looked for in the file as it is, deflated.
        file.seek(0)
        dataset = pydicom.dcmread(file, stop_before_pixels=stop_before_pixels)
    return dataset


def read_start(path: str | os.PathLike[str], last: str) -> Dataset:
    """Read the first elements of a file, whatever is wrong with others; use it in `DicomErrors`.

    Args:
        path: The DICOM file.
        last: Keyword of the last element to be read.

    Returns:
        The dataset.

    Raises:
        DicomError: As `read_dataset`, or if the file is deflated.
    """
    check_regular(path)
    tag = pydicom.tag.Tag(last)
    with _BoundedFile.open(path) as file:
        dataset = read_partial(file, lambda found, _vr, _length: found > tag)
    if file.inflated is not None:
        raise DicomError("is deflated; its first elements cannot be read alone.")
    return dataset


def check_whole(path: str | os.PathLike[str], dataset: FileDataset) -> None:
    """Refuse a file that ends within an element, where pydicom takes it for complete.

    Args:
        path: The DICOM file.
        dataset: All its elements, as `read_dataset` returns them.

    Raises:
        DicomError: If its last element is cut short.
    """
    last = dataset.get_item(max(dataset.keys())) if len(dataset) else None
    if isinstance(last, RawDataElement) and last.value is not None:
        end = last.value_tell + last.length
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        is_deflated = syntax == DeflatedExplicitVRLittleEndian
        rest = 0 if is_deflated else os.path.getsize(path) - end
        if len(last.value) < last.length or 0 < rest < _ELEMENT_HEADER_BYTES:
            raise DicomError("is cut short, within its last element.")


def read_elements(path: str | os.PathLike[str]) -> tuple[Dataset, int]:
    """Read the elements of a file without its pixels; use it within `DicomErrors`.

    Args:
        path: The DICOM file.

    Returns:
        The dataset, and its number of frames, which the pixel data are long enough for if there
        are several.

    Raises:
        DicomError: As `read_dataset`, and if (0028,0008) Number of Frames is no number from 1 to
            `MAX_FRAMES`, or more than the pixel data hold.
    """
    check_regular(path)
    with _BoundedFile.open(path) as file:
        dataset = _read(file, stop_before_pixels=True)
        frames = get_frames(dataset)
        if frames > 1 and file.inflated is not None:
            check_frames(dataset, frames, file.inflated)
        elif frames > 1:
            _check_pixel_element(file, dataset, frames)
        return dataset, frames


def get_frames(dataset: Dataset) -> int:
    """Return (0028,0008) Number of Frames, 1 if it is missing.

    Raises:
        DicomError: If it is no number from 1 to `MAX_FRAMES`.
    """
    frames = get_integer(dataset, "NumberOfFrames")
    frames = 1 if frames in (None, 0) else int(frames or 1)
    name = name_element("NumberOfFrames")
    if frames < 1:
        raise DicomError(f"{name} must be at least 1; got {frames}.")
    if frames > MAX_FRAMES:
        raise DicomError(f"{name} is {frames}; at most {MAX_FRAMES} are read of one file.")
    return frames


def measure_frame_bits(dataset: Dataset) -> int:
    """Return the length of an uncompressed frame in bits, 0 if the header does not tell.

    YBR_FULL_422 stores two of three samples, PS3.3 C.7.6.3.1.2.
    """
    numbers = [get_integer(dataset, k) or 0 for k in ("Rows", "Columns", "BitsAllocated")]
    samples = get_integer(dataset, "SamplesPerPixel") or 1
    if dataset.get("PhotometricInterpretation") == "YBR_FULL_422":
        samples = 2
    return numbers[0] * numbers[1] * numbers[2] * samples


def check_frames(dataset: Dataset, frames: int, available: int) -> None:
    """Refuse uncompressed pixel data of fewer bytes than the frames take."""
    bits = measure_frame_bits(dataset)
    held = 8 * available // bits if bits else 0
    if frames > held:
        raise DicomError(
            f"{name_element('NumberOfFrames')} is {frames}, but the pixel data have room for "
            f"{held}."
        )


def _check_pixel_element(file: BinaryIO, dataset: Dataset, frames: int) -> None:
    """Refuse more frames than there are pixels for; the file is at the pixel data."""
    implicit, little = dataset.original_encoding
    order = "<" if little else ">"
    head = file.read(8 if implicit else 12)
    name = f"{name_element('NumberOfFrames')} is {frames}, but"
    if len(head) < 8 or _unpack_tag(head, order) not in _PIXEL_TAGS:
        raise DicomError(f"{name} there is no pixel data (7FE0,0010).")
    (length,) = struct.unpack(f"{order}L", head[-4:])
    if length != _UNDEFINED:
        rest = os.fstat(file.fileno()).st_size - file.tell()
        check_frames(dataset, frames, min(length, rest))
    elif (held := _count_fragments(file, frames)) < frames:
        raise DicomError(f"{name} the pixel data have only {held} fragments.")


def _unpack_tag(head: bytes, order: str) -> int:
    group, element = struct.unpack(f"{order}HH", head[:4])
    return int(group) << 16 | int(element)


def _count_fragments(file: BinaryIO, most: int) -> int:
    """Count the fragments of encapsulated pixel data that are not empty, up to a number."""
    size = os.fstat(file.fileno()).st_size
    count, is_table = 0, True
    while count < most and len(head := file.read(8)) == 8:
        (length,) = struct.unpack("<L", head[4:])
        if _unpack_tag(head, "<") != _ITEM or file.tell() + length > size:
            break
        count += bool(length) and not is_table
        is_table = False  # the first item is the Basic Offset Table
        file.seek(length, os.SEEK_CUR)
    return count


def name_uid(uid: UID) -> str:
    """Name a UID of the standard; another is not repeated, since it may identify anything."""
    return uid.name if uid.type or not uid else "a private UID"
