"""PNG, JPEG and TIFF files of 8 and 16 bits to arrays, and arrays to PNG and JPEG.

A pixel read here equals the pixel that `vae_aug.records.records.parse_example` yields in the input
pipeline: TensorFlow decodes PNG and JPEG of several scans, and OpenCV other JPEG, with the same
libjpeg-turbo and the settings that TensorFlow has. OpenCV encodes PNG, in less than half of
TensorFlow's time. TIFF is read only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf

from vae_aug.atomic import write_atomic
from vae_aug.codecs.exif import find_orientation, turn_image, turn_size
from vae_aug.codecs.file_kind import describe_kind
from vae_aug.codecs.jpeg import (
    JPEG_SIGNATURE,
    START_OF_FRAME,
    check_jpeg,
    decode_scan,
    iterate_segments,
    pad_scans,
    strip_jpeg_metadata,
)
from vae_aug.codecs.png import PNG_SIGNATURE, strip_png_metadata
from vae_aug.codecs.tiff import decode_tiff, is_tiff, parse_tiff_size
from vae_aug.config import Exif
from vae_aug.errors import VAEAugError
from vae_aug.limits import MAX_IMAGE_BYTES, check_decoded_size, read_bounded

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


def read_image(path: str | os.PathLike[str], *, exif: Exif = "apply") -> np.ndarray:
    """Read a PNG, JPEG or TIFF file.

    A palette is resolved, alpha is dropped, and bit depths below 8 are widened to 8. A TIFF is read
    as `vae_aug.codecs.tiff.decode_tiff` says.

    Args:
        path: The file. What it is, is told from its first bytes, not from its name.
        exif: `"apply"` turns the pixels as EXIF (JPEG, PNG) or the tag Orientation (TIFF) says,
            which is how annotation tools show them; `"ignore"` leaves them as stored.

    Returns:
        `[H, W, C] uint8` or `uint16` (16 bits), C = 1 (grey) or 3 (RGB).

    Raises:
        VAEAugError: If the file is missing, no PNG, JPEG or TIFF, damaged, cut short, of several
            frames or pages, or has more than `MAX_PIXELS` or `MAX_DECODED_BYTES`.
    """
    with _open(path) as data:
        return _turn(_decode_file(data), data, exif)


def read_image_size(path: str | os.PathLike[str], *, exif: Exif = "apply") -> tuple[int, int]:
    """Read the size of a PNG, JPEG or TIFF file from its header.

    Args:
        path: The file.
        exif: As `read_image`.

    Returns:
        `(height, width)` in pixels, of the image as `read_image` returns it.

    Raises:
        VAEAugError: If the file is missing, or has no header of a PNG, JPEG or TIFF.
    """
    with _open(path) as data:
        if is_tiff(data):
            height, width = parse_tiff_size(data)
        else:
            height, width, _, _ = parse_image_header(data)
        return turn_size(height, width, find_orientation(data) if exif == "apply" else 1)


def read_orientation(path: str | os.PathLike[str]) -> int:
    """Read how the pixels of a PNG, JPEG or TIFF file are to be turned before they are shown.

    Args:
        path: The file.

    Returns:
        1 to 8, as EXIF numbers them; 1, as stored, where nothing valid is said, and for other
        kinds of files.

    Raises:
        VAEAugError: If the file cannot be read, or has more bytes or chunks than are read.
    """
    with _open(path) as data:
        return find_orientation(data)


def read_encoded(
    path: str | os.PathLike[str], *, exif: Exif = "apply"
) -> tuple[EncodedImage, np.ndarray]:
    """Read a PNG, JPEG or TIFF file as a record stores it.

    A JPEG keeps its compressed pixels, as another encoding would lose or bloat them, and loses
    its metadata segments (EXIF, XMP, comments), which may name a patient. A PNG or TIFF, and a
    JPEG that EXIF turns, is decoded and encoded as PNG, which keeps the pixels and nothing else.

    Args:
        path: The file.
        exif: As `read_image`.

    Returns:
        The encoded image, and its pixels as `read_image` returns them.

    Raises:
        VAEAugError: As `read_image`.
    """
    with _open(path) as data:
        return clean_encoded(data, exif=exif)


def clean_encoded(data: bytes, *, exif: Exif = "apply") -> tuple[EncodedImage, np.ndarray]:
    """Make of the bytes of a PNG, JPEG or TIFF file what a record stores, as `read_encoded`.

    Args:
        data: The whole file.
        exif: As `read_image`.

    Returns:
        As `read_encoded`.

    Raises:
        VAEAugError: As `read_image`, without naming a file.
    """
    stored = _decode_file(data)
    pixels = _turn(stored, data, exif)
    if not data.startswith(JPEG_SIGNATURE):
        return encode_image(pixels), pixels
    is_grey = all(np.array_equal(pixels[..., 0], other) for other in np.moveaxis(pixels, 2, 0)[1:])
    if pixels is not stored:
        return encode_image(pixels[..., :1] if is_grey else pixels), pixels
    height, width = pixels.shape[:2]
    stripped = strip_jpeg_metadata(data)
    return EncodedImage(stripped, "jpeg", height, width, 1 if is_grey else 3, 8), pixels


@contextlib.contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """Read an image file, and name it in what the block refuses."""
    data = read_bounded(path, MAX_IMAGE_BYTES)
    try:
        yield data
    except VAEAugError as error:
        raise VAEAugError(f"{os.fspath(path)}: {error}") from error


def _turn(pixels: np.ndarray, data: bytes, exif: Exif) -> np.ndarray:
    """Turn pixels as the file says; the same array if they stay as stored."""
    if exif not in ("apply", "ignore"):
        raise ValueError(f"exif must be 'apply' or 'ignore'; got {exif!r}.")
    orientation = find_orientation(data) if exif == "apply" else 1
    return pixels if orientation == 1 else turn_image(pixels, orientation)


def _decode_file(data: bytes) -> np.ndarray:
    """Decode a file whose source is not known, as stored, and check that it is whole."""
    if is_tiff(data):
        return decode_tiff(data)
    if data.startswith(PNG_SIGNATURE):
        return decode_image(strip_png_metadata(data))
    if not data.startswith(JPEG_SIGNATURE):
        return decode_image(data)
    _check_header(data)
    scan = check_jpeg(data)
    if scan is not None:
        return decode_scan(data, scan)
    pixels = decode_image(data)
    if not np.array_equal(decode_image(pad_scans(data)), pixels):
        raise VAEAugError("a scan of the JPEG is cut short; get the file anew.")
    return pixels


def decode_image(data: bytes) -> np.ndarray:
    """Decode the bytes of a PNG or JPEG file, as they are stored.

    This is for images of records, which EXIF does not turn. A JPEG whose data end early may come
    out grey from there on; `read_image` and `clean_encoded` refuse it.

    Args:
        data: The whole file.

    Returns:
        As `read_image`.

    Raises:
        VAEAugError: As `read_image`, without naming a file.
    """
    channels, bit_depth = _check_header(data)
    try:
        if data.startswith(PNG_SIGNATURE):
            dtype = tf.uint16 if bit_depth == 16 else tf.uint8
            # libpng drops alpha as it decodes.
            array = tf.io.decode_png(data, channels=channels, dtype=dtype)
        else:
            array = tf.io.decode_jpeg(data, dct_method="INTEGER_ACCURATE")
    except tf.errors.InvalidArgumentError as error:
        kind = "PNG" if data.startswith(PNG_SIGNATURE) else "JPEG"
        raise VAEAugError(f"the {kind} data are damaged or cut short.") from error
    pixels = np.asarray(array)  # shares memory with the tensor, of which `numpy` makes a copy
    return pixels[..., :1] if pixels.shape[2] < 3 else pixels[..., :3]


def _check_header(data: bytes) -> tuple[int, int]:
    """Check how large the image is; return the channels and bits of a sample, as decoded."""
    height, width, channels, bit_depth = parse_image_header(data)
    # Grey PNG, with alpha or without (11.2.2), stays grey; a palette becomes RGB.
    is_grey = data[25] in (0, 4) if data.startswith(PNG_SIGNATURE) else channels == 1
    channels = 1 if is_grey else 3
    check_decoded_size(height, width, channels * bit_depth // 8)
    return channels, bit_depth


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
    if data.startswith(PNG_SIGNATURE):
        if len(data) < 26 or data[12:16] != b"IHDR":
            raise VAEAugError("the PNG header is damaged or cut short.")
        width, height, depth, colour_type = struct.unpack(">IIBB", data[16:26])
        channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour_type)
        if channels is None or not height or not width:
            raise VAEAugError("the PNG header is damaged.")
        return height, width, channels, 16 if depth == 16 else 8
    if not data.startswith(JPEG_SIGNATURE):
        raise VAEAugError(describe_kind(data))
    for marker, start, end in iterate_segments(data):
        if marker in START_OF_FRAME and end - start >= 10:
            precision, height, width, channels = struct.unpack(
                ">BHHB", data[start + 4 : start + 10]
            )
            if precision != 8 or not height or not width:
                raise VAEAugError(
                    f"JPEG with {precision} bits and {height} x {width} pixels is not supported."
                )
            return height, width, channels, 8
    raise VAEAugError("the JPEG header is damaged or cut short.")


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
    stored = cv2.cvtColor(array, cv2.COLOR_RGB2BGR) if array.shape[-1] == 3 else array
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
