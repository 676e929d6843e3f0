"""Chunks of PNG files.

Reference:
    PNG (W3C, third edition): 5.3 (chunks), 11.2 (critical ones), 11.3.4.3 (acTL).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from vae_aug.errors import VAEAugError
from vae_aug.limits import MAX_PNG_CHUNKS

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")


def iterate_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield `(type, start, end)` of a PNG's chunks up to its end or damage.

    Args:
        data: The file.

    Yields:
        The chunk's type, and where it begins and ends, its length and checksum included.

    Raises:
        VAEAugError: If it has more than `MAX_PNG_CHUNKS`.
    """
    position = len(PNG_SIGNATURE)
    for _ in range(MAX_PNG_CHUNKS):
        if position + 12 > len(data):
            return
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        end = position + 12 + length
        if end > len(data):
            return
        yield kind, position, end
        if kind == b"IEND":
            return
        position = end
    raise VAEAugError(f"the PNG has more than {MAX_PNG_CHUNKS} chunks.")


def strip_png_metadata(data: bytes) -> bytes:
    """Keep of a PNG of one image what its pixels need.

    libpng inflates texts and colour profiles, and each of many may grow to megabytes. Alpha, which
    tRNS adds, is dropped anyway.

    Args:
        data: The whole file.

    Returns:
        The file without ancillary chunks; `data` itself if a chunk is cut short.

    Raises:
        VAEAugError: If the PNG has several frames, or too many chunks.
    """
    view = memoryview(data)
    kept, kind, ancillary = [view[: len(PNG_SIGNATURE)]], b"", False
    for kind, start, end in iterate_chunks(data):
        if kind == b"acTL":
            frames = int.from_bytes(data[start + 8 : end - 4][:4], "big")
            if frames > 1:
                raise VAEAugError(
                    f"the PNG has {frames} frames (APNG), and annotations name none of them; write "
                    "each frame as a file of its own."
                )
        # A lower-case first letter marks what a decoder may leave out (5.4).
        if kind in _CRITICAL or not kind[0] & 0x20:
            kept.append(view[start:end])
        else:
            ancillary = True
    return b"".join(kept) if ancillary and kind == b"IEND" else data
