"""Mask files to arrays of values: grey levels, numbers of a palette, or colours."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from PIL import Image

from vae_aug.codecs.images import read_image, read_orientation
from vae_aug.config import Exif
from vae_aug.errors import VAEAugError
from vae_aug.limits import MAX_IMAGE_BYTES, read_bounded

_PNG_BIT_DEPTH = 24
_BITS_PER_SAMPLE = 258
_JPEG_SIGNATURE = b"\xff\xd8"


class Mask(NamedTuple):
    """The pixels of a mask.

    Attributes:
        values: `[H, W] int32`: grey levels; numbers of palette entries if there is a palette; or
            colours as `0xRRGGBB`.
        is_colour: Whether these are colours.
        palette: The colour, as `0xRRGGBB`, of each number that occurs; None without a palette.
        is_jpeg: Whether values went through JPEG, which changes them.
        stored: The colours other than black of all numbers, used or not, if there is a palette.
    """

    values: np.ndarray
    is_colour: bool
    palette: dict[int, int] | None
    is_jpeg: bool
    stored: Mapping[int, int] = MappingProxyType({})

    @property
    def colours(self) -> np.ndarray:
        """The pixels as `[H, W] int32` colours, `0xRRGGBB`."""
        if self.palette is not None:
            numbers = np.array(sorted(self.palette))
            colours = np.array([self.palette[number] for number in numbers], np.int32)
            return colours[np.searchsorted(numbers, self.values)]
        return self.values if self.is_colour else self.values * 0x010101


def read_mask(path: Path, exif: Exif = "apply") -> Mask:
    """Read a mask.

    Grey levels of fewer than 8 bits count as stored, 65535 alone as 255, and a palette of greys as
    these greys: programs that make files smaller write one.

    Args:
        path: The file.
        exif: As `vae_aug.codecs.images.read_image`.

    Returns:
        The mask.

    Raises:
        VAEAugError: As `read_image`; or if the file is partly transparent, in colours of 16 bits,
            or in colour and a JPEG. The message begins with the path.
    """
    pixels = read_image(path, exif=exif)  # also checks what Pillow then opens
    data = read_bounded(path, MAX_IMAGE_BYTES)
    is_jpeg = data.startswith(_JPEG_SIGNATURE)
    if not is_jpeg:
        numbers, palette, levels = _open(path, data)
        if palette is not None:
            if exif == "apply" and read_orientation(path) != 1:
                raise VAEAugError(f"{path}: has a palette, and is turned; save it as it is shown.")
            used = {int(number): palette[int(number)] for number in np.unique(numbers)}
            if len(set(used.values())) < len(used):
                raise VAEAugError(f"{path}: several entries of its palette have one colour.")
            if any(colour % 0x010101 for colour in palette.values()):
                stored = {number: colour for number, colour in palette.items() if colour}
                return Mask(numbers, False, used, False, stored)
            pixels = pixels[..., :1]
        elif levels < 256:
            pixels = pixels // (255 // (levels - 1))
    if not (pixels != pixels[..., :1]).any():
        values = pixels[..., 0].astype(np.int32)
        if values.max() == 65535 and np.isin(values, (0, 65535)).all():
            values //= 257
        return Mask(values, False, None, is_jpeg)
    if is_jpeg or pixels.dtype != np.uint8:
        kind = "a JPEG in colour, whose colours are blurred" if is_jpeg else "in colours of 16 bits"
        raise VAEAugError(f"{path}: is {kind}; save it as PNG of 8 bits.")
    return Mask(_pack(pixels), True, None, False)


def _pack(colours: np.ndarray) -> np.ndarray:
    """Pack `[..., 3]` red, green and blue into one number."""
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    packed: np.ndarray = red << 16 | green << 8 | blue
    return packed


def _open(path: Path, data: bytes) -> tuple[np.ndarray, dict[int, int] | None, int]:
    """Return what TensorFlow's decoder hides: a palette, transparency, and bits of grey.

    Returns:
        Numbers of palette entries and their colours (None without a palette), and how many levels
        a grey sample has, at most 256.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("PNG", "TIFF")) as image:
                if image.mode == "P":
                    return _read_palette(image)
                bands = image.getbands()
                is_clear = bands[-1] == "A" and np.asarray(image)[..., -1].min() < 255
                tags = getattr(image, "tag_v2", {})
    except Exception as error:  # Pillow raises almost anything for damaged files.
        raise VAEAugError(f"{path}: is damaged; save it anew.") from error
    if is_clear:
        raise VAEAugError(f"{path}: is partly transparent; save it without transparency.")
    # A TIFF without the tag has one bit a sample (TIFF 6.0, section 8).
    bits = int(tags.get(_BITS_PER_SAMPLE, (1,))[0]) if tags else data[_PNG_BIT_DEPTH]
    is_grey = len(bands) == 1
    return np.zeros(0), None, 2**bits if is_grey and 1 < bits < 8 else 256


def _read_palette(image: Image.Image) -> tuple[np.ndarray, dict[int, int], int]:
    numbers = np.asarray(image).astype(np.int32)
    entries = np.zeros((256, 3), np.uint8)
    colours = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    entries[: len(colours)] = colours
    packed = _pack(entries)
    return numbers, dict(enumerate(packed.tolist())), 256
