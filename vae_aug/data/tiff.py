"""TIFF files of 8 and 16 bits, with or without compression, to arrays.

Reference:
    TIFF 6.0 (Adobe, 1992): sections 4 to 8 (bilevel, grey, palette and RGB images).
"""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from vae_aug.errors import VAEAugError

# Little and big endian; version 42, and 43 of BigTIFF.
_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION, _PLANAR, _SAMPLE_FORMAT = 258, 262, 274, 284, 339
_TO_GREY, _TO_RGB = ("1", "LA"), ("P", "RGBA", "RGBX", "YCbCr")
_MODES = (*_TO_GREY, *_TO_RGB, "L", "I;16", "I;16L", "I;16B", "RGB")
# Of a sample of two bytes Pillow's unpackers of RGB keep the high one; told the other order of
# bytes, they keep the low one. N is the machine's own order.
_OTHER_BYTE = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


def is_tiff(data: bytes) -> bool:
    """Tell whether a file begins as a TIFF does.

    Args:
        data: The file, or at least its first four bytes.
    """
    return data.startswith(_SIGNATURES)


def parse_tiff_size(data: bytes, max_pixels: int) -> tuple[int, int]:
    """Read the size of a TIFF from its tags, without decoding it.

    Args:
        data: The whole file.
        max_pixels: As `decode_tiff`.

    Returns:
        `(height, width)` in pixels.

    Raises:
        VAEAugError: As `decode_tiff`, but for damaged pixels.
    """
    with _open(data, max_pixels) as image:
        return image.height, image.width


def decode_tiff(data: bytes, max_pixels: int) -> np.ndarray:
    """Decode a TIFF of one page.

    A palette is resolved, alpha is dropped, white-is-zero is turned into black-is-zero, and bit
    depths below 8 are widened to 8. Samples are as stored: colour profiles are not applied.

    Args:
        data: The whole file.
        max_pixels: Most pixels that it may declare; checked before memory is set aside.

    Returns:
        `[H, W, C] uint8` or `uint16` (16 bits), C = 1 (grey) or 3 (RGB).

    Raises:
        VAEAugError: If the file is damaged, declares more pixels, has several pages, is turned by
            the tag Orientation, or has other samples: floating point, signed, 12 or 32 bits, CMYK.
    """
    with _open(data, max_pixels) as image:
        if _is_deep_colour(image):
            return _decode_deep_colour(data, max_pixels)
        if image.mode in _TO_RGB:
            image = image.convert("RGB")
        elif image.mode in _TO_GREY:
            image = image.convert("L")
        array = np.asarray(image)
        if array.dtype.itemsize == 2:
            array = array.astype(np.uint16)
            # Pillow turns white-is-zero around for 8 bits only.
            if image.tag_v2.get(_PHOTOMETRIC) == 0:
                array = np.uint16(0xFFFF) - array
        return array.reshape(*array.shape[:2], -1)


def _is_deep_colour(image: Any) -> bool:
    return len(image.getbands()) > 2 and image.tag_v2[_BITS_PER_SAMPLE][0] == 16


def _decode_deep_colour(data: bytes, max_pixels: int) -> np.ndarray:
    """Decode RGB of 16 bits, for which Pillow has no mode: the high bytes, then the low ones."""
    with _open(data, max_pixels) as image:
        high = np.asarray(image)[..., :3].astype(np.uint16)
    with _open(data, max_pixels) as image:
        image.tile = [_take_other_byte(tile) for tile in image.tile]
        return high << 8 | np.asarray(image)[..., :3]


def _take_other_byte(tile: Any) -> Any:
    first, *others = tile.args if isinstance(tile.args, tuple) else (tile.args,)
    return tile._replace(args=(first[:-1] + _OTHER_BYTE[first[-1]], *others))


@contextlib.contextmanager
def _open(data: bytes, max_pixels: int) -> Iterator[Any]:
    """Open a TIFF that can be decoded; what Pillow raises becomes a `VAEAugError`.

    Damaged tags make Pillow raise almost anything, and its messages may quote a tag's value.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
                _check(image, max_pixels)
                yield image
    except VAEAugError:
        raise
    except Image.DecompressionBombError as error:
        raise VAEAugError(f"the image declares more than {max_pixels} pixels.") from error
    except Exception as error:
        raise VAEAugError("the TIFF data are damaged, cut short or of an unknown kind.") from error


def _check(image: Any, max_pixels: int) -> None:
    tags = image.tag_v2
    if image.height * image.width > max_pixels:
        raise VAEAugError(
            f"the image declares {image.height} x {image.width} pixels; at most {max_pixels} are "
            "read."
        )
    if image.n_frames > 1:
        raise VAEAugError(
            f"the TIFF has {image.n_frames} pages, and annotations name none of them; write each "
            "page as a file of its own."
        )
    bits = {int(value) for value in tags.get(_BITS_PER_SAMPLE, (1,))}
    formats = {int(value) for value in tags.get(_SAMPLE_FORMAT, (1,))}
    if image.mode not in _MODES or not bits <= {1, 2, 4, 8, 16} or formats != {1}:
        raise VAEAugError(
            f"TIFF with samples of {'/'.join(map(str, sorted(bits)))} bits (Pillow's mode "
            f"{image.mode}, SampleFormat {'/'.join(map(str, sorted(formats)))}); expected grey, "
            "palette or RGB of 8 or 16 unsigned bits. Convert it."
        )
    if tags.get(_ORIENTATION, 1) != 1:
        raise VAEAugError(
            f"the tag Orientation of the TIFF is {tags[_ORIENTATION]}, so boxes may count turned "
            "pixels; turn the pixels themselves and annotate these."
        )
    if _is_deep_colour(image) and tags.get(_PLANAR, 1) != 1:
        raise VAEAugError(
            "RGB of 16 bits is stored plane by plane in the TIFF; convert it to PNG, or store it "
            "pixel by pixel (PlanarConfiguration 1)."
        )
