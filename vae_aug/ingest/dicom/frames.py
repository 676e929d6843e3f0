"""Frames of DICOM images: what the header says of one, and its stored values.

Nothing is decoded before the header, the length of the pixel data and the size that a compressed
frame tells of itself agree.

Reference:
    DICOM PS3.3 C.7.6.3 (Image Pixel), C.7.6.16 (Functional Groups); PS3.5 8.2 (Native and
    Encapsulated Pixel Data), A.4 (Transfer Syntaxes), G (RLE).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Container, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder, pixel_array
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    MRSpectroscopyStorage,
    RLELossless,
    RTDoseStorage,
    SegmentationStorage,
)

from vae_aug.codecs.images import iterate_segments
from vae_aug.errors import DicomError
from vae_aug.ingest.dicom.elements import (
    ITEM_TAGS,
    get_integer,
    get_items,
    name_element,
    require_integer,
)
from vae_aug.ingest.dicom.file import (
    PIXEL_DATA,
    check_frames,
    get_frames,
    measure_frame_bits,
    name_uid,
)
from vae_aug.ingest.dicom.values import StoredBits, get_stored_bits, place_bits
from vae_aug.limits import MAX_FRAME_BYTES, MAX_IMAGE_BYTES, MAX_PIXELS

LABEL_MAP_SEGMENTATION_STORAGE = UID("1.2.840.10008.5.1.4.1.1.66.7")
"""Label Map Segmentation Storage, which pydicom 3.0 does not name."""

NO_PICTURES = {
    SegmentationStorage,
    LABEL_MAP_SEGMENTATION_STORAGE,
    RTDoseStorage,
    MRSpectroscopyStorage,
}
"""SOP classes with rows and columns whose values are labels, doses or spectra."""

GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")

VALUE_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
"""What enhanced objects say of a frame's values, PS3.3 C.7.6.16.2.9 and C.7.6.16.2.10."""

PLACE_GROUPS = ("PlanePositionSequence", "PlaneOrientationSequence")
"""What they say of its place, PS3.3 C.7.6.16.2.3 and C.7.6.16.2.4."""

_FUNCTIONAL_GROUPS = ("PixelMeasuresSequence", *VALUE_GROUPS, *PLACE_GROUPS)

_GROUPS_OF_FRAMES = (0x52009229, 0x52009230)
"""Shared and Per-Frame Functional Groups Sequence."""

_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Markers of the header of a frame: SOF of ITU-T T.81, and SOF55 of T.87, JPEG-LS."""

_LOSSLESS_FRAME = 0xC3
"""Marker of the frame header of a lossless JPEG, SOF3 of ITU-T T.81."""

_MOST_TILES = 2**12
"""Most tiles of a JPEG 2000 frame, each of which costs memory whatever its size."""

_SAFE_RLE_BYTES = 2**22
"""Two bytes of RLE become at most 128, so that this many stay below `MAX_FRAME_BYTES`."""

_MOST_RLE_RUNS = 2**23
"""Most runs of bytes in a frame of RLE; pydicom makes an object of each."""


class _CodedSize(NamedTuple):
    """What a compressed frame tells of itself."""

    rows: int
    columns: int
    samples: int
    precision: int


def _name_kind(dataset: Dataset) -> str:
    """Name what has no rows or is no picture, e.g. "Segmentation Storage"; `""` else."""
    uid = UID(str(dataset.get("SOPClassUID") or ""))
    if uid == LABEL_MAP_SEGMENTATION_STORAGE:
        return "Label Map Segmentation Storage"
    if uid not in NO_PICTURES and dataset.get("Rows"):
        return ""
    meta = getattr(dataset, "file_meta", {})
    uid = uid or UID(str(meta.get("MediaStorageSOPClassUID") or ""))
    return name_uid(uid)


def check_header(dataset: Dataset) -> None:
    """Refuse what is no image, before its pixels are touched.

    Raises:
        DicomError: If it is another object, an element is missing or contradicts another, or the
            frames are larger than `MAX_PIXELS` or `MAX_FRAME_BYTES`.
    """
    kind = _name_kind(dataset)
    if dataset.get("SOPClassUID") in NO_PICTURES or (kind and "Image" not in kind):
        raise DicomError(f"is no image but an object of {kind}; leave it out.")
    check_size(dataset)
    get_frames(dataset)
    name = name_element("PhotometricInterpretation")
    photometric = str(dataset.get("PhotometricInterpretation") or "")
    if not photometric:
        raise DicomError(f"{name} is missing or 0.")
    if photometric not in GREY + COLOUR:
        # What a text element holds is not repeated: it may be anything, a name too.
        raise DicomError(f"{name} must be one of {', '.join(GREY + COLOUR)}; got another.")
    _check_samples(dataset, photometric)


def check_size(dataset: Dataset) -> None:
    """Refuse frames whose size or depth is missing, or beyond the bounds."""
    rows, columns = (require_integer(dataset, keyword) for keyword in ("Rows", "Columns"))
    allocated = require_integer(dataset, "BitsAllocated", most=64)
    if allocated not in (1, 8, 16, 32, 64):
        raise DicomError(
            f"{name_element('BitsAllocated')} must be 1, 8, 16, 32 or 64; got {allocated}."
        )
    if rows * columns > MAX_PIXELS:
        raise DicomError(f"declares {rows} x {columns} pixels; at most {MAX_PIXELS} are read.")
    if measure_frame_bits(dataset) > 8 * MAX_FRAME_BYTES:
        raise DicomError(
            f"declares {measure_frame_bits(dataset) // 8} bytes a frame; at most "
            f"{MAX_FRAME_BYTES} are read."
        )
    if "PixelData" in dataset:
        get_stored_bits(dataset)


def _check_samples(dataset: Dataset, photometric: str) -> None:
    """Refuse samples that do not suit the colour space."""
    samples = require_integer(dataset, "SamplesPerPixel")
    expected = 1 if photometric in (*GREY, "PALETTE COLOR") else 3
    if samples != expected:
        raise DicomError(
            f"{name_element('SamplesPerPixel')} must be {expected} for {photometric}; got "
            f"{samples}."
        )
    if photometric in GREY:
        return
    size = (get_integer(dataset, "Rows") or 0) * (get_integer(dataset, "Columns") or 0)
    if photometric.startswith("YBR_FULL") and size > MAX_PIXELS // 2:
        # pydicom converts a frame to RGB at once, in 8 bytes a sample.
        raise DicomError(f"has {size} pixels of {photometric}; at most {MAX_PIXELS // 2} are read.")
    if "PixelData" not in dataset and any(keyword in dataset for keyword in PIXEL_DATA):
        raise DicomError("has colour in floating point pixel data, which the standard does not.")
    if expected == 3:
        if get_integer(dataset, "PlanarConfiguration") is None:
            raise DicomError(f"{name_element('PlanarConfiguration')} is missing.")
        require_integer(dataset, "PlanarConfiguration", least=0, most=1)
        if get_integer(dataset, "PixelRepresentation") == 1:
            raise DicomError(f"{name_element('PixelRepresentation')} must be 0 for colour; got 1.")
        allocated = get_integer(dataset, "BitsAllocated") or 0
        if allocated == 1 or (photometric.startswith("YBR_FULL") and allocated != 8):
            raise DicomError(
                f"{name_element('BitsAllocated')} is {allocated} for {photometric}, which is not "
                "supported; convert the file."
            )


def decode_frame(path: str | os.PathLike[str], dataset: Dataset, frame: int) -> np.ndarray:
    """Decode one frame; use it within `DicomErrors`, after `check_header`.

    Args:
        path: The DICOM file.
        dataset: Its elements, pixel data included.
        frame: Index of the frame, from 0.

    Returns:
        Stored values `[H, W]`, or `[H, W, 3]` (RGB).

    Raises:
        DicomError: If there is no such frame, or it cannot be decoded.
    """
    frames = get_frames(dataset)
    if frame >= frames:
        raise DicomError(f"has {frames} frames (0028,0008); got frame {frame}, counted from 0.")
    syntax = _get_syntax(dataset)
    _check_decoder(syntax)
    keywords = [keyword for keyword in PIXEL_DATA if keyword in dataset]
    if not keywords:
        raise DicomError("has no pixel data (7FE0,0010); leave it out.")
    if len(keywords) > 1:
        raise DicomError("has pixel data of several kinds, (7FE0,0008) to (7FE0,0010).")
    if syntax.is_encapsulated:
        stored = _decode_encapsulated(path, dataset, syntax, frame)
    else:
        stored = _decode_native(path, dataset, syntax, keywords[0], frame)
    shape = (int(dataset.Rows), int(dataset.Columns))
    if stored.shape[:2] != shape or stored.shape[2:] not in ((), (3,)):
        raise DicomError(f"expected pixels of shape {shape} or {(*shape, 3)}; got {stored.shape}.")
    return stored


def _get_syntax(dataset: Dataset) -> UID:
    syntax = getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID")
    if not syntax:
        raise DicomError("(0002,0010) Transfer Syntax UID is missing.")
    return UID(syntax)


def _decode_native(
    path: str | os.PathLike[str], dataset: Dataset, syntax: UID, keyword: str, frame: int
) -> np.ndarray:
    """Decode a frame of uncompressed pixel data, after a look at how long they are."""
    length = _check_native_length(path, dataset, keyword)
    if get_integer(dataset, "BitsAllocated") == 1:
        return _unpack_bits(path, dataset, frame)
    _check_subsampling(dataset, length)
    source = path if _is_deferred(dataset, keyword) else dataset
    if keyword != "PixelData":
        return _decode(source, syntax, frame)
    return _decode_bits(source, syntax, frame, get_stored_bits(dataset))


def _is_deferred(dataset: Dataset, keyword: str) -> bool:
    """Tell whether pixel data are still to be read from the file."""
    return dataset.get_item(keyword, keep_deferred=True).value is None


def _check_native_length(path: str | os.PathLike[str], dataset: Dataset, keyword: str) -> int:
    """Return the length of uncompressed pixel data in bytes; refuse too few for the frames."""
    element: Any = dataset.get_item(keyword, keep_deferred=True)
    if element.value is None:
        rest = os.path.getsize(path) - element.value_tell if element.length else 0
        length = int(min(element.length, rest))
    else:
        length = len(element.value)
    frames = get_frames(dataset)
    if frames > 1:
        check_frames(dataset, frames, length)
    elif 8 * length < measure_frame_bits(dataset):
        raise DicomError(
            f"the pixel data (7FE0,0010) are damaged or do not fit the header: {length} bytes, "
            f"where {-(-measure_frame_bits(dataset) // 8)} are expected."
        )
    return length


def load_pixels(path: str | os.PathLike[str], dataset: Dataset) -> None:
    """Read the pixel data of all frames, of which `decode_frame` then reads none again.

    Args:
        path: The DICOM file; use this within `DicomErrors`.
        dataset: Its elements, whose pixel data may still be to be read.

    Raises:
        DicomError: If they are missing, or too short for the frames.
    """
    if "PixelData" not in dataset:
        raise DicomError("has no pixel data (7FE0,0010); leave it out.")
    if not _get_syntax(dataset).is_encapsulated:
        _check_native_length(path, dataset, "PixelData")
        _ = dataset.PixelData
        return
    frames, fragments = get_frames(dataset), dataset.PixelData.count(ITEM_TAGS[0]) - 1
    if fragments < frames:
        raise DicomError(
            f"{name_element('NumberOfFrames')} is {frames}, but the pixel data have only "
            f"{fragments} fragments."
        )


def _check_subsampling(dataset: Dataset, length: int) -> None:
    """Refuse YBR_FULL_422 whose pixel data have the length of three whole samples."""
    bits = measure_frame_bits(dataset) * get_frames(dataset)
    if dataset.get("PhotometricInterpretation") == "YBR_FULL_422" and 8 * length >= bits * 3 // 2:
        raise DicomError(
            f"{name_element('PhotometricInterpretation')} is YBR_FULL_422, but the pixel data "
            "have the length of YBR_FULL or RGB."
        )


def _unpack_bits(path: str | os.PathLike[str], dataset: Dataset, frame: int) -> np.ndarray:
    """Return a frame `[H, W] uint8` of one bit a pixel, the first in the lowest bit, PS3.5 8.1.1.

    Frames follow each other without a gap, so one may begin within a byte.
    """
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    first = frame * rows * columns
    start, stop = first // 8, -(-(first + rows * columns) // 8)
    element: Any = dataset.get_item("PixelData", keep_deferred=True)
    is_swapped = dataset.original_encoding[1] is False and element.VR == "OW"
    # Whole words, since in big endian the two bytes of one are the other way round.
    start, stop = start // 2 * 2, -(-stop // 2) * 2
    if element.value is None:
        with open(path, "rb") as file:
            file.seek(element.value_tell + start)
            data = file.read(stop - start)
    else:
        data = element.value[start:stop]
    cells = np.frombuffer(data, np.uint8)
    if is_swapped:
        cells = cells.view(">u2").astype("<u2").view(np.uint8)
    skipped = first - 8 * start
    bits = np.unpackbits(cells, bitorder="little")[skipped : skipped + rows * columns]
    return bits.reshape(rows, columns)


def _decode_encapsulated(
    path: str | os.PathLike[str], dataset: Dataset, syntax: UID, frame: int
) -> np.ndarray:
    """Decode a compressed frame, after a look at the size that it tells of itself."""
    frames = get_frames(dataset)
    if frames == 1 and os.path.getsize(path) > MAX_IMAGE_BYTES:
        raise DicomError(f"is longer than {MAX_IMAGE_BYTES} bytes for one compressed frame.")
    if "PixelData" not in dataset:
        raise DicomError(f"has no (7FE0,0010) Pixel Data, as {syntax.name} needs.")
    bits = get_stored_bits(dataset)
    try:
        data = _get_coded(path, dataset, frame, frames)
    except (ValueError, struct.error) as error:
        raise DicomError(
            f"the pixel data (7FE0,0010), {syntax.name}, are damaged or do not fit the header: "
            f"frame {frame} of {frames} is not there."
        ) from error
    if syntax in (JPEGLossless, JPEGLosslessSV1):
        _check_lossless_jpeg(dataset, data, frame)
    if syntax == RLELossless:
        _check_rle(dataset, data)
    size = read_coded_size(data, syntax)
    expected = tuple(int(dataset[k].value) for k in ("Rows", "Columns", "SamplesPerPixel"))
    if size is not None and size[:3] != expected:
        raise DicomError(
            f"the compressed frame {frame} does not fit the header: it has {size.rows} x "
            f"{size.columns} pixels of {size.samples} samples, where (0028,0010) Rows, (0028,0011) "
            f"Columns and (0028,0002) Samples per Pixel tell {expected}."
        )
    element: Any = dataset.get_item("PixelData", keep_deferred=True)
    source = path if frames > 1 and element.value is None else dataset
    if syntax == RLELossless or (size is not None and size.precision > bits.stored):
        return _decode_bits(source, syntax, frame, bits)
    return _decode(source, syntax, frame)


def _get_coded(path: str | os.PathLike[str], dataset: Dataset, frame: int, frames: int) -> bytes:
    """Return a compressed frame as it is in the file."""
    element: Any = dataset.get_item("PixelData", keep_deferred=True)
    tables = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
    offsets: Any = tuple(dataset.get(table) for table in tables)
    options: Any = {
        "number_of_frames": frames,
        "extended_offsets": offsets if all(offsets) else None,
    }
    if element.value is not None:
        return get_frame(element.value, frame, **options)
    with open(path, "rb") as file:
        file.seek(element.value_tell)
        return get_frame(file, frame, **options)


def _decode_bits(
    source: str | os.PathLike[str] | Dataset, syntax: UID, frame: int, bits: StoredBits
) -> np.ndarray:
    """Decode a frame whose cells may hold more than the values."""
    stored = _decode(source, syntax, frame, correct_unused_bits=False)
    return place_bits(stored, bits)


def _decode(
    source: str | os.PathLike[str] | Dataset, syntax: UID, frame: int, **options: Any
) -> np.ndarray:
    """Decode a frame of a dataset, or straight from a file without reading the other frames."""
    failure = None
    for plugin in _list_plugins(syntax):
        try:
            return pixel_array(source, index=frame, decoding_plugin=plugin, **options)
        except MemoryError:
            raise
        except Exception as error:
            failure = failure or error
    if syntax == JPEGExtended12Bit and isinstance(failure, RuntimeError):
        raise DicomError(
            f"compressed as {syntax.name}, whose 12 bits only decoders under the GPL read; "
            "convert it, or install pylibjpeg and pylibjpeg-libjpeg if that licence suits you."
        ) from failure
    raise DicomError(
        f"the pixel data (7FE0,0010), {syntax.name}, are damaged or do not fit the header "
        f"({type(failure).__name__})."
    ) from failure


def _list_plugins(syntax: UID) -> list[str]:
    """Return the decoders to ask in their order, without GDCM where there is another.

    GDCM, which pydicom would ask first, ends the whole process on some damaged images.
    """
    available = get_decoder(syntax).available_plugins
    order = ("pillow",) if syntax == JPEGBaseline8Bit else ("pyjpegls", "pylibjpeg", "pillow")
    # "" is pydicom's own choice.
    return [plugin for plugin in order if plugin in available] or [""]


def read_coded_size(data: bytes, syntax: UID) -> _CodedSize | None:
    """Return the size that a compressed frame tells of itself, None if it does not.

    Args:
        data: The frame.
        syntax: How it is compressed.

    Raises:
        DicomError: If a JPEG 2000 frame has more than 4,096 tiles.
    """
    if syntax == RLELossless:
        return None
    if syntax in JPEG2000TransferSyntaxes or data[:4] == b"\xff\x4f\xff\x51":
        return _read_jpeg2000_size(data)
    for marker, start, _ in iterate_segments(data):
        if marker in _FRAME_HEADERS and len(data) >= start + 10:
            precision, rows, columns, samples = struct.unpack(">BHHB", data[start + 4 : start + 10])
            # 0 rows mean that a DNL segment behind the first scan tells them.
            return _CodedSize(rows, columns, samples, precision) if rows else None
    return None


def _read_jpeg2000_size(data: bytes) -> _CodedSize | None:
    """Read the SIZ segment, ITU-T T.800 A.5.1; it may be within the boxes of a JP2 file."""
    start = data.find(b"\xff\x4f\xff\x51", 0, 2**16)
    if start < 0 or len(data) < start + 43:
        return None
    fields = struct.unpack(">8LHB", data[start + 8 : start + 43])
    x, y, x0, y0, tile_width, tile_height, tile_x0, tile_y0, samples, depth = fields
    if 0 in (tile_width, tile_height):
        return None
    tiles = -(-(x - tile_x0) // tile_width) * -(-(y - tile_y0) // tile_height)
    if tiles > _MOST_TILES:
        raise DicomError(f"has {tiles} tiles in one frame; at most {_MOST_TILES} are read.")
    return _CodedSize(y - y0, x - x0, samples, (depth & 0x7F) + 1)


def _check_lossless_jpeg(dataset: Dataset, data: bytes, frame: int) -> None:
    """Refuse a damaged lossless JPEG, on some of which its only decoder ends the process."""
    sizes = [
        struct.unpack(">BHHB", data[start + 4 : start + 10])
        for marker, start, _ in iterate_segments(data)
        if marker == _LOSSLESS_FRAME
    ]
    expected = (int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel))
    if [size[1:] for size in sizes] != [expected] or b"\xff\xd9" not in data[-16:]:
        raise DicomError(
            f"the JPEG of frame {frame} is damaged or does not fit the header: it must have "
            f"{expected} rows, columns and samples, and an end."
        )


def _check_rle(dataset: Dataset, data: bytes) -> None:
    """Refuse RLE segments that would grow beyond a frame, or consist of too many runs."""
    expected, size, runs, place = measure_frame_bits(dataset) // 8, 0, 0, 64
    if len(data) <= min(_SAFE_RLE_BYTES, 2 * expected + 1024):
        return
    while place < len(data) and size <= 2 * expected and runs <= _MOST_RLE_RUNS:
        code = data[place]
        size += code + 1 if code < 128 else 257 - code
        place += code + 2 if code < 128 else 2
        runs += 1
    if place < len(data):
        raise DicomError(
            f"the pixel data (7FE0,0010), {RLELossless.name}, do not fit the header: they grow to "
            f"more than twice the {expected} bytes of a frame, or have more than {_MOST_RLE_RUNS} "
            "runs."
        )


def _check_decoder(syntax: UID) -> None:
    """Refuse a transfer syntax that nothing installed decodes."""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise DicomError(
            f"(0002,0010) Transfer Syntax UID, {name_uid(syntax)}, is not supported; convert the "
            "file."
        ) from None
    if not decoder.is_available:
        raise DicomError(
            f"compressed as {syntax.name}, which no installed package decodes; run: "
            "pip install 'vae-aug[dicom]'."
        )


def describe_frame(dataset: Dataset, frame: int) -> Dataset:
    """Return the elements that hold for a frame, without sequences of functional groups.

    Args:
        dataset: An object, enhanced or not.
        frame: Index of the frame, from 0.

    Returns:
        As `FunctionalGroups.describe`.

    Raises:
        DicomError: Likewise.
    """
    return FunctionalGroups(dataset).describe(frame)


class FunctionalGroups:
    """What an enhanced object says of its frames, prepared once for all of them."""

    def __init__(self, dataset: Dataset, keywords: Sequence[str] = _FUNCTIONAL_GROUPS) -> None:
        """Prepare what all frames share.

        Args:
            dataset: An object, enhanced or not.
            keywords: The groups that are looked at, each a sequence.

        Raises:
            DicomError: If its groups are damaged, or too many.
        """
        shared = get_items(dataset, "SharedFunctionalGroupsSequence")[:1]
        self._own = get_items(dataset, "PerFrameFunctionalGroupsSequence")
        self._plain = None if shared or self._own else dataset
        self._keywords = keywords
        self._tags = {tag_for_keyword(keyword) for keyword in keywords}
        # Setting an element takes as long as all items in it, so that of each frame all would be.
        self._common = {k: v for k, v in dataset.items() if k not in _GROUPS_OF_FRAMES}
        for groups in shared:
            self._common |= self._collect(groups)

    def describe(self, frame: int) -> Dataset:
        """Return the elements that hold for a frame.

        Args:
            frame: Index of the frame, from 0.

        Returns:
            A dataset, the object itself if it has no such groups; what the frame's own groups say
            goes before what all frames share, and that before what the object says.

        Raises:
            DicomError: If the object has groups for some frames, but none for this one, or they
                are damaged.
        """
        if self._plain is not None:
            return self._plain
        if self._own and frame >= len(self._own):
            raise DicomError(
                f"(5200,9230) describes {len(self._own)} frames; frame {frame} is missing."
            )
        own = self._collect(self._own[frame]) if self._own else {}
        return Dataset({**self._common, **own})

    def describe_distinct(self, frames: int) -> Iterator[Dataset]:
        """Describe frames as `describe`, those whose groups are the same in the file only once.

        Args:
            frames: How many frames there are.

        Yields:
            The elements that hold for one or more frames.

        Raises:
            DicomError: As `describe`, of any of the frames.
        """
        seen = set()
        for frame in range(frames if self._own else 1):
            has_own = frame < len(self._own)
            stored = _freeze(self._own[frame], self._tags) if has_own else None
            if stored is None or stored not in seen:
                seen.add(stored)
                yield self.describe(frame)

    def _collect(self, groups: Dataset) -> dict[Any, Any]:
        """Return the elements of the first item of each group."""
        found: dict[Any, Any] = {}
        for keyword in self._keywords:
            for item in get_items(groups, keyword)[:1]:
                found.update(item.items())
        return found


def _freeze(dataset: Dataset, tags: Container[int | None] | None = None) -> Hashable:
    """Return elements as they are in the file, None if they are no longer.

    Args:
        dataset: An item of a sequence.
        tags: Which elements; None for all.

    Returns:
        Tag, VR and bytes of each; of a sequence that was parsed, those of its items.
    """
    found = []
    for tag, element in dataset.items():
        if tags is not None and tag not in tags:
            continue
        value = element.value
        if isinstance(value, DicomSequence):
            value = tuple(map(_freeze, value))
            if None in value:
                return None
        elif not isinstance(element, RawDataElement):
            return None
        found.append((tag, element.VR, value))
    return tuple(found)
