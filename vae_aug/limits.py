"""How much of a source is read: every bound of the file side, in one place.

A file beyond one of these is skipped, or refused, with its reason, before memory is set aside for
what it declares.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from vae_aug.errors import VAEAugError

MAX_PIXELS = 2**26
"""Most pixels an image or a frame may declare (8192 x 8192)."""

MAX_DECODED_BYTES = 2**27
"""Most bytes of the pixels of an image file, 44 million pixels of RGB of 8 bits.

To decode and encode them takes up to 4 s, and six times their size in memory.
"""

MAX_IMAGE_BYTES = 2**28
"""Most bytes of a file that holds one image, PNG, JPEG or TIFF; alpha, which is dropped, doubles
those of grey."""

MAX_JPEG_SEGMENTS = 2**14
"""Most segments of a JPEG; profiles and thermal images of cameras have some hundreds."""

MAX_JPEG_SCANS = 64
"""Most scans of a JPEG. Encoders write some ten; each passes over the whole image."""

MAX_PNG_CHUNKS = 2**17
"""Most chunks of a PNG; those of `MAX_IMAGE_BYTES` are a quarter as libpng writes them, 8 KiB."""

MAX_TIFF_TAGS = 2**12
"""Most tags of a directory of a TIFF; writers use some thirty."""

MAX_TIFF_PAGES = 2**10
"""Most pages of a TIFF that are counted for the message that refuses them."""

MAX_TIFF_PIECES = 2**17
"""Most values of a tag of a TIFF, such as its strips or tiles; `MAX_PIXELS` in tiles of 32 x 32 are
half."""

MAX_VOXELS = 2**29
"""Most voxels that a volume may declare."""

MAX_VOLUME_BYTES = 2**30
"""Most bytes of the stored values of a volume, which are in memory."""

MAX_CHECKED_BYTES = 2**28
"""Most bytes of a volume that are read to check it before its slices are, some 1 s of inflating; of
larger ones only the end is looked at, so that they are inflated once."""

MAX_VOLUME_REGIONS = 2**17
"""Most regions, each a box, in one volume of labels."""

MAX_MASK_REGIONS = 10_000
"""Most regions, each a box, in one mask; noise has more."""

MAX_INFLATED_BYTES = 2**28
"""Most bytes that a deflated DICOM file may grow to; it is in memory three times."""

MAX_FRAMES = 2**20
"""Most frames that a DICOM file may declare."""

MAX_FRAME_BYTES = 2**28
"""Most bytes of the stored values of one DICOM frame; they are in memory twice."""

MAX_DICOM_ITEMS = 2**17
"""Most items in the sequences of a DICOM file; 2**17 take 2 s and 85 MB."""

MAX_DICOM_DEPTH = 64
"""Deepest nesting of the content of a DICOM structured report."""

MAX_SEGMENTED_FRAMES = 2**15
"""Most frames of a DICOM segmentation, each of which takes some 0.1 ms however small it is."""

MAX_MARKED_PIXELS = 3 * 2**28
"""Most pixels of one DICOM segmentation, those of a frame counted a quarter, and those of the box
around a segment twice; some 5 s."""

MAX_PARTS = 2**18
"""Most connected parts, each a box, in one DICOM segmentation."""

MAX_BOXES = 2**16
"""Most boxes of one image."""

MAX_ANNOTATION_BYTES = 2**30
"""Most bytes of one JSON or table that describes a whole data set; COCO's own has 448 MB."""

MAX_TEXT_BYTES = 2**27
"""Most bytes of a file that describes one image, or of a list of images or names.

LabelMe's may hold the image itself.
"""

MAX_YAML_BYTES = 2**18
"""Most bytes of a YAML file, whose reader takes seconds for a million."""

MAX_DEPTH = 64
"""Deepest nesting of XML."""


def read_bounded(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Read a whole file, unless it is none that ends, or too large.

    Args:
        path: The file.
        max_bytes: Most bytes that it may have.

    Returns:
        Its contents.

    Raises:
        VAEAugError: If it is missing or not readable, a named pipe, a device or a folder, or has
            more bytes. The message begins with the path.
    """
    check_regular(path, max_bytes)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise VAEAugError(f"{os.fspath(path)}: cannot be read ({error.strerror}).") from error


def check_regular(path: str | os.PathLike[str], max_bytes: int | None = None) -> None:
    """Refuse a file before it is opened, if it is none that ends, or too large.

    Args:
        path: The file.
        max_bytes: Most bytes that it may have; None for any number.

    Raises:
        VAEAugError: If it is missing, a named pipe, a device or a folder, or has more bytes. The
            message begins with the path.
    """
    try:
        # Opening a named pipe would wait for its other end, so its kind is looked at first.
        state = os.stat(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no name that a file can have"
        raise VAEAugError(f"{os.fspath(path)}: cannot be read ({reason}).") from error
    if not stat.S_ISREG(state.st_mode):
        raise VAEAugError(f"{os.fspath(path)}: is no regular file; leave it out.")
    if max_bytes is not None and state.st_size > max_bytes:
        raise VAEAugError(
            f"{os.fspath(path)}: has {state.st_size} bytes; at most {max_bytes} are read."
        )


def check_decoded_size(height: int, width: int, pixel_bytes: int) -> None:
    """Refuse an image before it is decoded, if it is too large.

    Args:
        height: Height in pixels.
        width: Width in pixels.
        pixel_bytes: Bytes of a decoded pixel.

    Raises:
        VAEAugError: If it has more than `MAX_PIXELS` pixels or `MAX_DECODED_BYTES`.
    """
    max_pixels = min(MAX_PIXELS, MAX_DECODED_BYTES // pixel_bytes)
    if height * width > max_pixels:
        raise VAEAugError(
            f"the image declares {height} x {width} pixels; at most {max_pixels} of {pixel_bytes} "
            f"{'byte' if pixel_bytes == 1 else 'bytes'} are read. Scale it down, or cut it into "
            "tiles, and its boxes too."
        )
