"""Text and blocks of pixels from which sheets and plots are put together."""

from __future__ import annotations

import functools
import io
import os
import unicodedata
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vae_aug.atomic import write_atomic

Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
GREY: Colour = (190, 190, 190)
COLOURS: tuple[Colour, ...] = (
    *((255, 210, 0), (0, 220, 255), (255, 110, 220), (120, 255, 100)),
    *((255, 140, 60), (170, 160, 255), (255, 255, 255), (0, 200, 150)),
)
"""Colours that differ from each other and from grey; more than these begin again."""

_LEADING = 4


@functools.cache
def load_font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Load Pillow's own font, which is there on every machine."""
    return ImageFont.load_default(size_px)


def make_legible(text: str, otherwise: str) -> str:
    """Leave accents out of a text, or replace it where its letters are not Latin.

    Pillow's own font has the letters of ASCII alone.
    """
    decomposed = unicodedata.normalize("NFKD", text)
    bare = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    return bare if bare.isascii() else otherwise


def measure_text(text: str, size_px: int) -> int:
    """Return the width of a line of text in pixels."""
    return round(load_font(size_px).getlength(text))


def wrap_text(text: str, width_px: int, size_px: int) -> list[str]:
    """Break text at spaces into lines of at most a width; a longer word keeps a line of its own."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".lstrip()
            if line and measure_text(longer, size_px) > width_px:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines


def make_text(text: str, width_px: int, size_px: int, colour: Colour = WHITE) -> Image.Image:
    """Draw wrapped text on black, as wide as is said and as high as it needs."""
    lines = wrap_text(text, width_px, size_px)
    step = size_px + _LEADING
    block = Image.new("RGB", (width_px, step * len(lines)))
    draw = ImageDraw.Draw(block)
    for number, line in enumerate(lines):
        draw.text((0, number * step), line, fill=colour, font=load_font(size_px))
    return block


def join(blocks: Sequence[Image.Image], gap_px: int, *, axis: int) -> Image.Image:
    """Put blocks on black, one below the other (axis 0) or side by side (axis 1)."""
    along = [(block.height, block.width)[axis] for block in blocks]
    across = max((block.height, block.width)[1 - axis] for block in blocks)
    length = sum(along) + gap_px * (len(blocks) - 1)
    whole = Image.new("RGB", (across, length) if axis == 0 else (length, across))
    start = 0
    for block, extent in zip(blocks, along, strict=True):
        whole.paste(block, (0, start) if axis == 0 else (start, 0))
        start += extent + gap_px
    return whole


def write_png(path: str | os.PathLike[str], picture: Image.Image) -> np.ndarray:
    """Write a picture as a file that appears whole, and return its pixels.

    Args:
        path: The PNG file.
        picture: In RGB.

    Returns:
        `[H, W, 3] uint8`.

    Raises:
        OSError: If the file cannot be written.
    """
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    write_atomic(path, encoded.getvalue())
    return np.asarray(picture)
