"""The orientation of JPEG, PNG and TIFF files, and pixels turned by it.

XMP has an orientation too (`tiff:Orientation`). It is not looked at: browsers, OpenCV and Qt, on
which annotation tools are built, turn an image by EXIF alone.

Reference:
    Exif 3.0 (CIPA DC-008): 4.5.4 (JPEG APP1), 4.6.5.1.6 (Orientation); PNG (W3C, third edition)
    11.3.4.5 (eXIf); TIFF 6.0, section 8 (Orientation).
"""

from __future__ import annotations

import cv2
import numpy as np

from vae_aug.codecs.jpeg import JPEG_SIGNATURE, iterate_segments
from vae_aug.codecs.png import PNG_SIGNATURE, iterate_chunks
from vae_aug.codecs.tiff import is_tiff, parse_orientation

_APP1, _EXIF = 0xE1, b"Exif\0\0"


def find_orientation(data: bytes) -> int:
    """Find how the pixels of an image file are to be turned before they are shown.

    Args:
        data: The whole file.

    Returns:
        1 to 8, as EXIF numbers them; 1 (as stored) if the file does not say, or what says it is
        damaged, of another type than one SHORT, or no such number.
    """
    if is_tiff(data):
        return parse_orientation(data)
    if data.startswith(JPEG_SIGNATURE):
        for marker, start, end in iterate_segments(data):
            if marker == _APP1 and data.startswith(_EXIF, start + 4):
                return parse_orientation(data[start + 4 + len(_EXIF) : end])
    if data.startswith(PNG_SIGNATURE):
        for kind, start, end in iterate_chunks(data):
            if kind == b"eXIf":
                return parse_orientation(data[start + 8 : end - 4])
    return 1


def turn_image(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels as they are shown.

    Args:
        pixels: `[H, W, C]`, as stored.
        orientation: 1 to 8. It names the side that the first row and the first column are:
            1 top left, 2 top right, 3 bottom right, 4 bottom left, 5 left top, 6 right top,
            7 right bottom, 8 left bottom.

    Returns:
        `[H, W, C]`, or `[W, H, C]` for 5 to 8.
    """
    height, width, channels = pixels.shape
    turned = cv2.transpose(pixels) if orientation >= 5 else pixels
    # OpenCV's code: 0 turns top and bottom around, 1 left and right, -1 both.
    code = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    turned = turned if code is None else cv2.flip(turned, code)
    return turned.reshape(*turn_size(height, width, orientation), channels)


def turn_size(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Return `(height, width)` as shown, of `(height, width)` as stored."""
    return (width, height) if orientation >= 5 else (height, width)
