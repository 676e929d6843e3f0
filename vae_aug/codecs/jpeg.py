"""Markers of JPEG files: where scans lie, whether all data are there, what is metadata.

libjpeg, which TensorFlow, OpenCV and Pillow share, fills what is missing in a scan with grey or
zeros, and says so only on its error stream. So a file is checked here before its pixels are
trusted, and one scan is decoded without the marker of its end: OpenCV then gives up where libjpeg
would fill.

Reference:
    ITU-T T.81 (JPEG): annex B (markers), G (progressive mode).
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import struct
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from vae_aug.errors import VAEAugError
from vae_aug.limits import MAX_JPEG_SCANS, MAX_JPEG_SEGMENTS

JPEG_SIGNATURE = b"\xff\xd8\xff"
_DAMAGED = "the JPEG data are damaged or cut short."
_ZEROED = "zeros stand in place of the JPEG's data; get the file anew."
_SCAN, _END, _RESTART_INTERVAL, _TEMPORARY = 0xDA, 0xD9, 0xDD, 0x01
_TABLES, _AC_TABLE = 0xC4, 0x10
# Within a scan FF is followed by 00, a fill byte FF, or D0 to D7, which restart (T.81 B.1.1.2).
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_FILL_BYTES = re.compile(rb"\xff*")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
# SOF0..SOF15 without DHT (C4), JPG (C8) and DAC (CC), which share the range.
START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
# libjpeg reads up to 57 bits ahead, so 7 bytes behind the last scan let it end without the marker
# of the end. They are ones, of which no code consists (T.81 C), so they hold no block.
_LOOK_AHEAD = b"\xff\x00" * 7
_ONES = b"\xff\x00" * 8  # more than a code and its bits can have: 15 ones of either at most
_ZEROS = bytes(64)
# Zeros that are no flat blocks are 63 equal coefficients of three bits or more to the block, and
# this holds a whole block of them.
_ZEROS_OF_NO_FLAT_BLOCKS = bytes(32)
_ZEROS_OF_A_PROGRESSIVE_SCAN = bytes(256)
# Bits that are neither equal nor a rhythm, and never FF.
_PAD = np.random.default_rng(0).integers(0, 255, 512, np.uint8).tobytes()


@dataclasses.dataclass(frozen=True)
class Segment:
    """A marker with its parameters, and the coded data behind it if it starts a scan.

    Attributes:
        marker: Second byte of the marker.
        start: Where the marker begins.
        stop: Where its parameters end.
        end: Where the coded data end, fill bytes aside; `stop` if it starts no scan.
    """

    marker: int
    start: int
    stop: int
    end: int


@dataclasses.dataclass(frozen=True)
class _Frame:
    """The frame header, T.81 B.2.2; `sampling` has (horizontal, vertical) by component."""

    marker: int
    height: int
    width: int
    sampling: dict[int, tuple[int, int]]


def check_jpeg(data: bytes) -> Segment | None:
    """Check that the data of a JPEG are all there, and of a kind that is read.

    What is seen: a missing end; a scan that ends early or late (a cut of less than 8 bytes may
    pass, which damages the last two blocks of 8 x 8 pixels); scans, components or restart markers
    that are missing; long runs of zeros. Not seen: changed bits, and a gap that still decodes to
    the end.

    Args:
        data: The whole file. What follows the end of the image is not looked at.

    Returns:
        The scan that holds the whole image, of which `decode_scan` sees how it ends; None if there
        are several, or one of a progression. How these end is for the caller to see: `pad_scans`
        must not change the pixels.

    Raises:
        VAEAugError: If data are missing, the process is neither baseline, extended sequential nor
            progressive Huffman coding, or the image is neither grey nor of three components.
    """
    segments = list_segments(data)
    frame = _parse_frame(data, segments)
    scans = [segment for segment in segments if segment.marker == _SCAN]
    if not scans:
        raise VAEAugError(_DAMAGED)
    if len(scans) > MAX_JPEG_SCANS:
        raise VAEAugError(f"the JPEG has {len(scans)} scans; at most {MAX_JPEG_SCANS} are read.")
    _check_progression(data, frame, scans)
    _check_scans(data, frame, segments)
    if len(scans) == 1 and frame.marker in _SEQUENTIAL:
        _check_zeros(data, segments, scans[0])
        return scans[0]
    for scan in scans:
        first, *_ = data[scan.stop - 3 : scan.stop]
        if first and data.find(_ZEROS_OF_A_PROGRESSIVE_SCAN, scan.stop, scan.end) >= 0:
            raise VAEAugError(_ZEROED)
    return None


def pad_scans(data: bytes) -> bytes:
    """Put bytes behind each scan, which a decoder passes over unless the scan ended early.

    Args:
        data: A JPEG file that `check_jpeg` accepts.

    Returns:
        A JPEG of the same pixels if every scan is whole, of others otherwise.
    """
    parts, position = [], 0
    for segment in list_segments(data):
        if segment.marker == _SCAN:
            parts += [data[position : segment.end], _PAD]
            position = segment.end
    return b"".join([*parts, data[position:]])


def decode_scan(data: bytes, scan: Segment) -> np.ndarray:
    """Decode a JPEG of one scan, and check that the scan ends where its last block does.

    OpenCV waits for more data, and gives up, where libjpeg wants more bits than there are. Its
    pixels are those of TensorFlow's `INTEGER_ACCURATE`.

    Args:
        data: A JPEG file.
        scan: What `check_jpeg` returns of it.

    Returns:
        `[H, W, C] uint8`, C = 1 (grey) or 3 (RGB).

    Raises:
        VAEAugError: If the scan ends early, or late behind zeros.
    """
    end = _trim(data, scan)
    whole = data.find(_ONES, scan.stop, end) < 0
    coded = b"".join([memoryview(data)[:end], _LOOK_AHEAD])
    colours = cv2.IMREAD_GRAYSCALE if data[scan.start + 4] == 1 else cv2.IMREAD_COLOR_RGB
    pixels = _decode(coded, colours) if whole else None
    if pixels is None:
        raise VAEAugError(_DAMAGED)
    # A gap that was filled with zeros shifts the codes, so that bytes are left over. An eighth of
    # the size is all that is decoded, as what is asked for is where the codes end.
    eighth = cv2.IMREAD_REDUCED_GRAYSCALE_8
    if data.find(_ZEROS, scan.stop, end) >= 0 and _decode(data[: end - 8], eighth) is not None:
        raise VAEAugError("the JPEG has more data than its size needs; get the file anew.")
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _decode(data: bytes, flags: int) -> np.ndarray | None:
    try:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _check_zeros(data: bytes, segments: Sequence[Segment], scan: Segment) -> None:
    """Check that zeros in the only scan are flat blocks, T.81 C.2.

    The shortest code of a table is of zeros alone. Where it ends a block (symbol 0) in the tables
    of all components, zeros may be flat blocks, as optimised tables code black corners.
    """
    symbols: dict[int, int] = {}
    for segment in segments:
        position = segment.start + 4
        while segment.marker == _TABLES and position + 17 < segment.stop:
            symbols[data[position]] = data[position + 17]
            position += 17 + sum(data[position + 1 : position + 17])
    tables = data[scan.start + 6 : scan.stop - 3 : 2]
    firsts = {symbols.get(_AC_TABLE | (table & 15)) for table in tables}
    if None in firsts:
        raise VAEAugError(_DAMAGED)
    if firsts != {0} and data.find(_ZEROS_OF_NO_FLAT_BLOCKS, scan.stop, scan.end) >= 0:
        raise VAEAugError(_ZEROED)


def _trim(data: bytes, scan: Segment) -> int:
    """Return where coded data end, without a restart marker that some encoders put there."""
    return scan.end - 2 if _RESTART.match(data, scan.end - 2, scan.end) else scan.end


def _parse_frame(data: bytes, segments: Sequence[Segment]) -> _Frame:
    frames = [segment for segment in segments if segment.marker in START_OF_FRAME]
    if len(frames) != 1 or frames[0].stop - frames[0].start < 10:
        raise VAEAugError(_DAMAGED)
    start, marker = frames[0].start, frames[0].marker
    if marker not in (*_SEQUENTIAL, _PROGRESSIVE):
        raise VAEAugError(
            f"JPEG of process SOF{marker - 0xC0} (lossless, hierarchical or arithmetic coding); "
            "expected baseline, extended sequential or progressive Huffman coding. Convert it."
        )
    _, height, width, count = struct.unpack(">BHHB", data[start + 4 : start + 10])
    table = data[start + 10 : frames[0].stop]
    if count not in (1, 3):
        kind = "CMYK or YCCK" if count == 4 else f"{count} components"
        raise VAEAugError(f"JPEG of {kind}; expected grey or colour (RGB, YCbCr). Convert it.")
    sampling = {
        table[i]: (table[i + 1] >> 4, table[i + 1] & 15) for i in range(0, len(table) - 2, 3)
    }
    if len(sampling) != count or not all(h and v for h, v in sampling.values()):
        raise VAEAugError(_DAMAGED)
    return _Frame(marker, height, width, sampling)


def _parse_scan(data: bytes, scan: Segment) -> tuple[bytes, int, int, int, int]:
    """Return (components, first and last coefficient, high and low bit), T.81 B.2.3."""
    count = data[scan.start + 4] if scan.stop - scan.start > 4 else 0
    if not count or scan.stop - scan.start != 8 + 2 * count:
        raise VAEAugError(_DAMAGED)
    first, last, bits = data[scan.stop - 3 : scan.stop]
    return data[scan.start + 5 : scan.stop - 3 : 2], first, last, bits >> 4, bits & 15


def _check_progression(data: bytes, frame: _Frame, scans: Sequence[Segment]) -> None:
    """Check that scans bring every coefficient of every component to its last bit, T.81 G.1.1."""
    low_bits: dict[tuple[int, int], int] = {}
    for scan in scans:
        components, first, last, high, low = _parse_scan(data, scan)
        if frame.marker != _PROGRESSIVE:
            first, last, high, low = 0, 0, 0, 0  # all coefficients at once
        for key in itertools.product(components, range(first, last + 1)):
            if low_bits.get(key, 0) != high or (key in low_bits and not high):
                raise VAEAugError("a scan of the JPEG is missing; get the file anew.")
            low_bits[key] = low
    coefficients = range(64 if frame.marker == _PROGRESSIVE else 1)
    if any(low_bits.get(key) != 0 for key in itertools.product(frame.sampling, coefficients)):
        raise VAEAugError("a scan of the JPEG is missing; get the file anew.")


def _check_scans(data: bytes, frame: _Frame, segments: Sequence[Segment]) -> None:
    """Check that scans have bytes, and the restart markers that the interval demands, B.2.4.4."""
    interval = 0
    for segment in segments:
        if segment.marker == _RESTART_INTERVAL and segment.stop - segment.start >= 6:
            interval = int.from_bytes(data[segment.start + 4 : segment.start + 6], "big")
        if segment.marker != _SCAN:
            continue
        components, first, *_ = _parse_scan(data, segment)
        units = _count_units(frame, components)
        # Each block has a bit at least, except where a run of empty ones is coded (T.81 G.1.2.2).
        if first == 0 and 8 * (segment.end - segment.stop) < units:
            raise VAEAugError(_DAMAGED)
        expected = -(-units // interval) - 1 if interval else 0
        found = _RESTART.finditer(data, segment.stop, _trim(data, segment))
        numbers = [data[m.start() + 1] & 7 for m in itertools.islice(found, expected + 1)]
        if numbers != [i % 8 for i in range(expected)]:
            raise VAEAugError("restart markers of the JPEG are missing; get the file anew.")
        # A block has two bits at least (T.81 F.1.2), so an interval bounds a run of zeros.
        blocks = interval * sum(h * v for h, v in frame.sampling.values())
        zeros = bytes(max(len(_ZEROS), blocks // 4 + 1))
        if interval and first == 0 and data.find(zeros, segment.stop, segment.end) >= 0:
            raise VAEAugError(_ZEROED)


def _count_units(frame: _Frame, components: bytes) -> int:
    """Count the minimum coded units of a scan, T.81 A.2."""
    most_h = max(h for h, _ in frame.sampling.values())
    most_v = max(v for _, v in frame.sampling.values())
    if len(components) > 1:
        return -(-frame.width // (8 * most_h)) * -(-frame.height // (8 * most_v))
    h, v = frame.sampling.get(components[0], (1, 1))
    return -(-frame.width * h // (8 * most_h)) * -(-frame.height * v // (8 * most_v))


def list_segments(data: bytes) -> list[Segment]:
    """List the segments of a JPEG up to the end of its image.

    Args:
        data: The whole file. Decoders pass over stray bytes before a marker, and so does this.

    Returns:
        The segments in order, without the markers of start and end.

    Raises:
        VAEAugError: If the file ends before its image, or has more than `MAX_JPEG_SEGMENTS`.
    """
    segments: list[Segment] = []
    position = _find_marker(data, 2)
    while data[position + 1 : position + 2] != bytes([_END]):
        if len(segments) == MAX_JPEG_SEGMENTS:
            raise VAEAugError(f"the JPEG has more than {MAX_JPEG_SEGMENTS} segments.")
        if position + 4 > len(data):
            raise VAEAugError(_DAMAGED)
        marker, length = struct.unpack(">BH", data[position + 1 : position + 4])
        length = 0 if marker == _TEMPORARY else length
        stop = position + 2 + length
        if (length < 2 and marker != _TEMPORARY) or stop > len(data):
            raise VAEAugError(_DAMAGED)
        following = _find_marker(data, stop)
        end = stop
        if marker == _SCAN:
            end = following
            while end > stop and data[end - 1] == 0xFF:  # fill bytes
                end -= 1
        segments.append(Segment(marker, position, stop, end))
        position = following
    return segments


def _find_marker(data: bytes, start: int) -> int:
    """Return where the next marker is, restart markers aside; the end if there is none."""
    match = _MARKER.search(data, start)
    return match.start() if match else len(data)


def iterate_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield `(marker, start, end)` of a JPEG's segments up to the first scan, end or damage."""
    position = 2
    for _ in range(MAX_JPEG_SEGMENTS):
        if data[position : position + 1] != b"\xff":
            return
        match = _FILL_BYTES.match(data, position)
        position = match.end() - 1 if match else position
        marker = data[position + 1] if position + 4 <= len(data) else _END
        if marker in (_SCAN, _END):
            return
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if end < position + 4 or end > len(data):
            return
        yield marker, position, end
        position = end


def strip_jpeg_metadata(data: bytes) -> bytes:
    """Remove EXIF, XMP, ICC, thumbnails and comments from a JPEG; pixels stay bit for bit.

    Nothing behind the end of the image stays, where some devices put a second one. The JFIF
    and Adobe segments stay, because they tell the decoder the colour space.

    Args:
        data: A JPEG file.

    Returns:
        The file without those segments.

    Raises:
        VAEAugError: As `list_segments`.
    """
    kept = [data[:2]]
    for segment in list_segments(data):
        payload = data[segment.start + 4 : segment.stop]
        if segment.marker == 0xE0 and payload.startswith(b"JFIF\0") and len(payload) >= 14:
            # The fixed part is 12 bytes; a thumbnail's width, height and pixels follow.
            kept.append(b"\xff\xe0\x00\x10" + payload[:12] + b"\0\0")
        elif segment.marker == 0xEE and payload.startswith(b"Adobe"):
            kept.append(data[segment.start : segment.stop])
        elif not (0xE0 <= segment.marker <= 0xEF or segment.marker == 0xFE):
            kept.append(data[segment.start : segment.end])
    return b"".join([*kept, b"\xff\xd9"])
