"""PNG, JPEG and TIFF files of 8 and 16 bits to arrays, and arrays to PNG and JPEG.

TensorFlow's own decoders are used for PNG and JPEG, so that a pixel read here equals the pixel
that `vae_aug.data.records.parse_example` yields in the input pipeline. OpenCV encodes PNG, in less
than half of TensorFlow's time. TIFF is read only.
"""

from __future__ import annotations

import dataclasses
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf

from vae_aug.data.atomic import write_atomic
from vae_aug.data.tiff import decode_tiff, is_tiff, parse_tiff_size
from vae_aug.errors import VAEAugError

MAX_PIXELS = 2**26
"""Most pixels an image may declare (8192 x 8192); checked before memory is set aside for it."""

IMAGE_DTYPES = (tf.uint8, tf.uint16, tf.float16, tf.bfloat16, tf.float32)
"""What transforms and corruptions take in a pipeline; files hold the first two."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_START_OF_SCAN = b"\xff\xda"
# Within a scan FF is followed by 00, a fill byte FF, or D0 to D7, which restart (T.81 B.1.1.2).
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
# SOF0..SOF15 without DHT (C4), JPG (C8) and DAC (CC), which share the range.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

# Differences from the row above, of which only runs and frequencies are coded: on CT and MR slices
# a third of the time of TensorFlow's level 3 to write, and two thirds to nine tenths to read, for
# files 5% smaller to 13% larger. The level comes first: OpenCV takes back the strategy with it.
_PNG_OPTIONS = (
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
)


@dataclasses.dataclass(frozen=True)
class EncodedImage:
    """An image as a record stores it.

    Attributes:
        encoded: The whole file, without text, EXIF or other metadata.
        format: `"png"` or `"jpeg"`.
        height: Height in pixels.
        width: Width in pixels.
        channels: 1 or 3. A JPEG whose three channels are equal counts as 1.
        bit_depth: 8 or 16 bits per channel.
    """

    encoded: bytes = dataclasses.field(repr=False)
    format: str
    height: int
    width: int
    channels: int
    bit_depth: int


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a PNG, JPEG or TIFF file.

    A palette is resolved, alpha is dropped, and bit depths below 8 are widened to 8. EXIF
    orientation is not applied: boxes count pixels as they are stored. A TIFF is read as
    `vae_aug.data.tiff.decode_tiff` says.

    Args:
        path: The file. What it is, is told from its first bytes, not from its name.

    Returns:
        `[H, W, C] uint8` or `uint16` (16 bits), C = 1 (grey) or 3 (RGB).

    Raises:
        VAEAugError: If the file is missing, no PNG, JPEG or TIFF, damaged, or has more than
            `MAX_PIXELS` pixels.
    """
    data = _read_bytes(path)
    try:
        return decode_tiff(data, MAX_PIXELS) if is_tiff(data) else decode_image(data)
    except VAEAugError as error:
        raise VAEAugError(f"{os.fspath(path)}: {error}") from error


def read_image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Read the size of a PNG, JPEG or TIFF file from its header.

    Args:
        path: The file.

    Returns:
        `(height, width)` in pixels.

    Raises:
        VAEAugError: If the file is missing, or has no header of a PNG, JPEG or TIFF.
    """
    data = _read_bytes(path)
    try:
        return parse_tiff_size(data, MAX_PIXELS) if is_tiff(data) else parse_image_header(data)[:2]
    except VAEAugError as error:
        raise VAEAugError(f"{os.fspath(path)}: {error}") from error


def read_encoded(path: str | os.PathLike[str]) -> tuple[EncodedImage, np.ndarray]:
    """Read a PNG, JPEG or TIFF file as a record stores it.

    A JPEG keeps its compressed pixels, as another encoding would lose or bloat them, and loses
    its metadata segments (EXIF, XMP, comments), which may name a patient. A PNG or TIFF is
    decoded and encoded as PNG, which keeps the pixels and nothing else.

    Args:
        path: The file.

    Returns:
        The encoded image, and its pixels as `read_image` returns them.

    Raises:
        VAEAugError: As `read_image`.
    """
    data = _read_bytes(path)
    try:
        if is_tiff(data):
            pixels = decode_tiff(data, MAX_PIXELS)
            return encode_image(pixels), pixels
        return clean_encoded(data)
    except VAEAugError as error:
        raise VAEAugError(f"{os.fspath(path)}: {error}") from error


def clean_encoded(data: bytes) -> tuple[EncodedImage, np.ndarray]:
    """Make of the bytes of a PNG or JPEG file what a record stores, as `read_encoded`.

    Args:
        data: The whole file.

    Returns:
        As `read_encoded`.

    Raises:
        VAEAugError: As `read_image`, without naming a file.
    """
    pixels = decode_image(data)
    if not data.startswith(_JPEG_SIGNATURE):
        return encode_image(pixels), pixels
    is_grey = pixels.shape[2] == 1 or bool((pixels == pixels[..., :1]).all())
    stripped = strip_jpeg_metadata(data)
    height, width = pixels.shape[:2]
    return EncodedImage(stripped, "jpeg", height, width, 1 if is_grey else 3, 8), pixels


def decode_image(data: bytes) -> np.ndarray:
    """Decode the bytes of a PNG or JPEG file.

    Args:
        data: The whole file.

    Returns:
        As `read_image`.

    Raises:
        VAEAugError: As `read_image`, without naming a file.
    """
    height, width, _, bit_depth = parse_image_header(data)
    if height * width > MAX_PIXELS:
        raise VAEAugError(
            f"the image declares {height} x {width} pixels; at most {MAX_PIXELS} are read."
        )
    try:
        if data.startswith(_PNG_SIGNATURE):
            dtype = tf.uint16 if bit_depth == 16 else tf.uint8
            array = tf.io.decode_png(data, dtype=dtype).numpy()
        else:
            array = tf.io.decode_jpeg(data, dct_method="INTEGER_ACCURATE").numpy()
    except tf.errors.InvalidArgumentError as error:
        kind = "PNG" if data.startswith(_PNG_SIGNATURE) else "JPEG"
        raise VAEAugError(f"the {kind} data are damaged or cut short.") from error
    return array[..., :1] if array.shape[2] < 3 else array[..., :3]


def parse_image_header(data: bytes) -> tuple[int, int, int, int]:
    """Read size and depth from the header of a PNG or JPEG, without decoding it.

    Args:
        data: The file, or at least its beginning up to the header.

    Returns:
        `(height, width, channels, bit_depth)`; bit_depth is 8 or 16, channels as stored
        (1 for a palette).

    Raises:
        VAEAugError: If `data` is no PNG or JPEG, or ends within its header.

    Reference:
        PNG (ISO/IEC 15948) 11.2.2 IHDR; JPEG (ITU-T T.81) B.2.2 frame header.
    """
    if data.startswith(_PNG_SIGNATURE):
        if len(data) < 26 or data[12:16] != b"IHDR":
            raise VAEAugError("the PNG header is damaged or cut short.")
        width, height, depth, colour_type = struct.unpack(">IIBB", data[16:26])
        channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour_type)
        if channels is None or not height or not width:
            raise VAEAugError("the PNG header is damaged.")
        return height, width, channels, 16 if depth == 16 else 8
    if not data.startswith(_JPEG_SIGNATURE):
        raise VAEAugError("neither PNG nor JPEG; convert the image to one of them.")
    for marker, start, end in iterate_segments(data):
        if marker in _START_OF_FRAME and end - start >= 10:
            precision, height, width, channels = struct.unpack(
                ">BHHB", data[start + 4 : start + 10]
            )
            if precision != 8 or not height or not width:
                raise VAEAugError(
                    f"JPEG with {precision} bits and {height} x {width} pixels is not supported."
                )
            return height, width, channels, 8
    raise VAEAugError("the JPEG header is damaged or cut short.")


def strip_jpeg_metadata(data: bytes) -> bytes:
    """Remove EXIF, XMP, ICC, thumbnails and comments from a JPEG; pixels stay bit for bit.

    Nothing behind the end of the image stays, where some devices put a second one. The JFIF
    and Adobe segments stay, because they tell the decoder the colour space.

    Args:
        data: A JPEG file.

    Returns:
        The file without those segments.
    """
    kept, end = [data[:2]], 2
    while data[end : end + 2] != _JPEG_END:
        for marker, start, stop in iterate_segments(data, end):
            payload = data[start + 4 : stop]
            # The fixed part of JFIF is 14 bytes long; what follows it is a thumbnail.
            colour = (marker == 0xE0 and payload.startswith(b"JFIF\0") and len(payload) == 14) or (
                marker == 0xEE and payload.startswith(b"Adobe")
            )
            if colour or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
                kept.append(data[start:stop])
            end = stop
        # Decoders pass over fill bytes and stray ones before a marker.
        start = _find_marker(data, end)
        if data[start : start + 2] == _START_OF_SCAN:
            end = _find_marker(data, start + 2 + int.from_bytes(data[start + 2 : start + 4], "big"))
            kept.append(data[start:end])
        elif start == end or start == len(data):  # cut short
            break
        else:
            end = start
    return b"".join([*kept, _JPEG_END])


def _find_marker(data: bytes, start: int) -> int:
    """Return where the next marker is, restart markers aside; the end if there is none."""
    match = _MARKER.search(data, start)
    return match.start() if match else len(data)


def iterate_segments(data: bytes, position: int = 2) -> Iterator[tuple[int, int, int]]:
    """Yield `(marker, start, end)` of a JPEG's segments up to the next scan, end or damage."""
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in (0xDA, 0xD9):
            return
        (length,) = struct.unpack(">H", data[position + 2 : position + 4])
        end = position + 2 + length
        if length < 2 or end > len(data):
            return
        yield marker, position, end
        position = end


def encode_png(array: np.ndarray) -> bytes:
    """Encode an image as PNG, without loss and with the same bytes every time.

    Args:
        array: `[H, W, C] uint8` or `uint16`, C = 1 or 3; `[H, W]` is taken as one channel.

    Returns:
        The PNG file.

    Raises:
        ValueError: On another shape.
        TypeError: On another dtype.
    """
    array = _check_image(array)
    stored = array[..., ::-1] if array.shape[-1] == 3 else array  # OpenCV's order is BGR
    _, data = cv2.imencode(".png", stored, _PNG_OPTIONS)
    return data.tobytes()


def encode_image(array: np.ndarray) -> EncodedImage:
    """Encode an image as a record stores it, as PNG.

    Args:
        array: As `encode_png`.

    Returns:
        The encoded image.
    """
    array = _check_image(array)
    height, width, channels = array.shape
    return EncodedImage(encode_png(array), "png", height, width, channels, 8 * array.itemsize)


def write_image(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write an image file; the name appears only when the file is whole.

    Args:
        path: `.png` (lossless), or `.jpg` / `.jpeg` (quality 95, 8 bits only).
        array: As `encode_png`.

    Raises:
        ValueError: On another suffix, or 16 bits in a JPEG.
        OSError: If the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    array = _check_image(array)
    if suffix == ".png":
        data = encode_png(array)
    elif suffix in (".jpg", ".jpeg"):
        if array.dtype != np.uint8:
            raise ValueError(f"{os.fspath(path)}: a JPEG holds 8 bits; write uint16 as .png.")
        data = tf.io.encode_jpeg(array, quality=95).numpy()
    else:
        raise ValueError(f"{os.fspath(path)}: expected .png, .jpg or .jpeg; got {suffix!r}.")
    write_atomic(path, data)


def _check_image(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"an image must be uint8 or uint16; got {array.dtype}.")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3) or not array.size:
        raise ValueError(f"an image must have shape [H, W, 1 or 3]; got {array.shape}.")
    return array


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise VAEAugError(f"{os.fspath(path)}: cannot be read ({error.strerror}).") from error
