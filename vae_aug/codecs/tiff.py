"""TIFF files of 8 and 16 bits, with or without compression, to arrays.

Reference:
    TIFF 6.0 (Adobe, 1992): sections 2 (directories), 4 to 8 (bilevel, grey, palette and RGB
    images). BigTIFF (libtiff.gitlab.io/libtiff/specification/bigtiff.html).
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import struct
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from vae_aug.errors import VAEAugError
from vae_aug.limits import (
    MAX_PIXELS,
    MAX_TIFF_PAGES,
    MAX_TIFF_PIECES,
    MAX_TIFF_TAGS,
    check_decoded_size,
)

# Little and big endian; version 42, and 43 of BigTIFF.
_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION, _PLANAR, _SAMPLE_FORMAT = 258, 262, 274, 284, 339
# What tells how pixels are stored: sections 4 to 8, FillOrder, T4Options and T6Options, Predictor,
# tiles, ExtraSamples, JPEGTables and the older JPEG tags, and YCbCr.
_PIXEL_TAGS = frozenset(
    {
        *(256, 257, 258, 259, 262, 266, 277, 278, 284, 292, 293, 317, 320, 322, 323, 338, 339, 347),
        *(273, 279, 324, 325, *range(512, 522), 529, 530, 531, 532),
    }
)
_SHORT = 3
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_TYPE_BYTES |= {16: 8, 17: 8, 18: 8}  # BigTIFF
_TO_GREY, _TO_RGB = ("1", "LA"), ("P", "RGBA", "RGBX", "YCbCr")
_GREY = ("L", "I;16", "I;16L", "I;16B")
_MODES = (*_TO_GREY, *_TO_RGB, *_GREY, "RGB")
# Of a sample of two bytes Pillow's unpackers of RGB keep the high one; told the other order of
# bytes, they keep the low one. N is the machine's own order.
_OTHER_BYTE = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


def is_tiff(data: bytes) -> bool:
    """Tell whether a file begins as a TIFF does.

    Args:
        data: The file, or at least its first four bytes.
    """
    return data.startswith(_SIGNATURES)


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How a TIFF writes numbers: byte order, and formats of a classic or a big one."""

    order: str
    count: str
    entry: str
    offset: str

    def unpack(self, form: str, data: bytes, position: int) -> int:
        (number,) = struct.unpack_from(self.order + form, data, position)
        return int(number)


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A tag of a directory; `position` is where its value lies, `raw` the whole entry."""

    type: int
    count: int
    position: int
    raw: bytes = dataclasses.field(repr=False)


def _parse_layout(data: bytes) -> tuple[_Layout, int]:
    """Return the layout, and where the first directory begins."""
    order = "<" if data.startswith(b"II") else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    layout = _Layout(order, "Q", "HHQ", "Q") if big else _Layout(order, "H", "HHI", "I")
    return layout, layout.unpack(layout.offset, data, 8 if big else 4)


def _parse_directory(data: bytes, layout: _Layout, start: int) -> tuple[dict[int, _Entry], int]:
    """Return the tags of a directory, and where the next one begins (0 if there is none).

    Raises:
        VAEAugError: If it has more than `MAX_TIFF_TAGS`.
        struct.error: If it does not lie within the file, behind the header.
    """
    if start < 8:
        raise struct.error("a directory within the header")
    count = layout.unpack(layout.count, data, start)
    if count > MAX_TIFF_TAGS:
        raise VAEAugError(f"the TIFF declares {count} tags; at most {MAX_TIFF_TAGS} are read.")
    form, width = layout.order + layout.entry, struct.calcsize("=" + layout.offset)
    head = struct.calcsize(form)
    position = start + struct.calcsize("=" + layout.count)
    entries: dict[int, _Entry] = {}
    for _ in range(count):
        tag, kind, number = struct.unpack_from(form, data, position)
        size = _TYPE_BYTES.get(kind, 1) * number
        value = position + head
        if size > width:
            value = layout.unpack(layout.offset, data, value)
        raw = data[position : position + head + width]
        entries.setdefault(tag, _Entry(kind, number, value, raw))
        position += head + width
    return entries, layout.unpack(layout.offset, data, position)


def parse_orientation(data: bytes) -> int:
    """Read the tag Orientation of a TIFF file, or of an EXIF block, which is laid out as one.

    Only the first directory counts; the second of an EXIF block is its thumbnail's.

    Args:
        data: The file or the block, from its byte order on.

    Returns:
        1 to 8; 1 if the tag is missing or has another value or type, or the data are damaged.
    """
    try:
        layout, start = _parse_layout(data)
        entry = (
            _parse_directory(data, layout, start)[0].get(_ORIENTATION) if is_tiff(data) else None
        )
        if entry is None or (entry.type, entry.count) != (_SHORT, 1):
            return 1
        value = layout.unpack("H", data, entry.position)
    except (struct.error, VAEAugError):
        return 1
    return value if 1 <= value <= 8 else 1


def _keep_pixel_tags(data: bytes) -> bytes:
    """Return a TIFF of the same pixels without other tags and pages.

    Pillow reads the value of every tag, walks every page, turns pixels by tag 274 or XMP, and
    follows directories of EXIF and GPS: all to no use here, and without bound.

    Raises:
        VAEAugError: If it has several pages, or tags or pieces beyond bounds.
        struct.error: If a directory does not lie within the file.
    """
    layout, start = _parse_layout(data)
    entries, following = _parse_directory(data, layout, start)
    _check_pages(data, layout, start, following)
    kept = {tag: entry for tag, entry in sorted(entries.items()) if tag in _PIXEL_TAGS}
    for tag, entry in kept.items():
        size = _TYPE_BYTES.get(entry.type, 1) * entry.count
        if entry.position + size > len(data):
            raise VAEAugError(f"the value of tag {tag} of the TIFF is cut short.")
        if entry.count > MAX_TIFF_PIECES:
            raise VAEAugError(
                f"tag {tag} of the TIFF has {entry.count} values (strips, tiles or others); at "
                f"most {MAX_TIFF_PIECES} are read."
            )
    directory = struct.pack(layout.order + layout.count, len(kept))
    directory += b"".join(entry.raw for entry in kept.values())
    directory += struct.pack(layout.order + layout.offset, 0)
    gap = bytes(-len(data) % 8)  # a directory begins on a word boundary
    pointer = struct.pack(layout.order + layout.offset, len(data) + len(gap))
    head = 8 if len(pointer) == 8 else 4
    view = memoryview(data)
    return b"".join([view[:head], pointer, view[head + len(pointer) :], gap, directory])


def _check_pages(data: bytes, layout: _Layout, start: int, following: int) -> None:
    """Check that no directory follows the first; one that is the first again is not another."""
    seen = {0, start}
    while following not in seen and len(seen) <= MAX_TIFF_PAGES:
        seen.add(following)
        _, following = _parse_directory(data, layout, following)
    pages = len(seen) - 1
    if pages > 1:
        shown = f"more than {MAX_TIFF_PAGES}" if pages >= MAX_TIFF_PAGES else f"{pages}"
        raise VAEAugError(
            f"the TIFF has {shown} pages, and annotations name none of them; write each page as a "
            "file of its own."
        )


def parse_tiff_size(data: bytes) -> tuple[int, int]:
    """Read the size of a TIFF from its tags, without decoding it.

    Args:
        data: The whole file.

    Returns:
        `(height, width)` in pixels, as stored.

    Raises:
        VAEAugError: As `decode_tiff`, but for damaged pixels.
    """
    with _open(data) as image:
        return image.height, image.width


def decode_tiff(data: bytes) -> np.ndarray:
    """Decode a TIFF of one page.

    A palette is resolved, alpha is dropped, white-is-zero is turned into black-is-zero, and bit
    depths below 8 are widened to 8. Pixels are as stored: neither the tag Orientation nor colour
    profiles are applied.

    Args:
        data: The whole file.

    Returns:
        `[H, W, C] uint8` or `uint16` (16 bits), C = 1 (grey) or 3 (RGB).

    Raises:
        VAEAugError: If the file is damaged, declares more pixels, tags or pieces than are read, has
            several pages, or other samples: floating point, signed, 12 or 32 bits, CMYK.
    """
    with _open(data) as image:
        if _is_deep_colour(image):
            return _decode_deep_colour(data)
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


def _decode_deep_colour(data: bytes) -> np.ndarray:
    """Decode RGB of 16 bits, for which Pillow has no mode: the high bytes, then the low ones."""
    with _open(data) as image:
        array = np.asarray(image)[..., :3].astype(np.uint16)
    array <<= 8  # in place, as is the next: a large image takes gigabytes otherwise
    with _open(data) as image:
        image.tile = [_take_other_byte(tile) for tile in image.tile]
        array |= np.asarray(image)[..., :3]
    return array


def _take_other_byte(tile: Any) -> Any:
    first, *others = tile.args if isinstance(tile.args, tuple) else (tile.args,)
    return tile._replace(args=(first[:-1] + _OTHER_BYTE[first[-1]], *others))


@contextlib.contextmanager
def _open(data: bytes) -> Iterator[Any]:
    """Open a TIFF that can be decoded; what Pillow raises becomes a `VAEAugError`.

    Damaged tags make Pillow raise almost anything, and its messages may quote a tag's value.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = io.BytesIO(_keep_pixel_tags(data))
            with Image.open(file, formats=("TIFF",)) as image:
                _check(image)
                yield image
    except VAEAugError:
        raise
    except Image.DecompressionBombError as error:
        raise VAEAugError(f"the image declares more than {MAX_PIXELS} pixels.") from error
    except Exception as error:
        raise VAEAugError("the TIFF data are damaged, cut short or of an unknown kind.") from error


def _check(image: Any) -> None:
    tags = image.tag_v2
    bits = {int(value) for value in tags.get(_BITS_PER_SAMPLE, (1,))}
    formats = {int(value) for value in tags.get(_SAMPLE_FORMAT, (1,))}
    if image.mode not in _MODES or not bits <= {1, 2, 4, 8, 16} or formats != {1}:
        raise VAEAugError(
            f"TIFF with samples of {'/'.join(map(str, sorted(bits)))} bits (Pillow's mode "
            f"{image.mode}, SampleFormat {'/'.join(map(str, sorted(formats)))}); expected grey, "
            "palette or RGB of 8 or 16 unsigned bits. Convert it."
        )
    channels = 1 if image.mode in (*_TO_GREY, *_GREY) else 3
    check_decoded_size(image.height, image.width, channels * (2 if bits == {16} else 1))
    if _is_deep_colour(image) and tags.get(_PLANAR, 1) != 1:
        raise VAEAugError(
            "RGB of 16 bits is stored plane by plane in the TIFF; convert it to PNG, or store it "
            "pixel by pixel (PlanarConfiguration 1)."
        )
