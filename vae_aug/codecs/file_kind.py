"""Names of kinds of files that are no PNG, JPEG or TIFF, so that a message can say what one is."""

from __future__ import annotations

import re

_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    b"jxl ": "JPEG XL",
}
_KINDS = (
    (re.compile(rb"BM"), "BMP"),
    (re.compile(rb"GIF8"), "GIF"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "WebP"),
    (re.compile(rb"\0\0\0\x0cjP {2}|\xff\x4f\xff\x51"), "JPEG 2000"),
    (re.compile(rb"\0\0\0\x0cJXL |\xff\x0a"), "JPEG XL"),
    (re.compile(rb"%PDF"), "PDF"),
    (re.compile(rb"\x1f\x8b"), "gzip file"),
    (re.compile(rb"PK\x03\x04"), "ZIP archive"),
    (re.compile(rb"version https://git-lfs"), "pointer of Git LFS instead of the file itself"),
    (re.compile(rb"(\xef\xbb\xbf)?\s*<[?!a-zA-Z]"), "text file (XML, HTML or SVG)"),
    (re.compile(rb"\xff\xd8|\x89PNG"), "JPEG or PNG without its header"),
    (re.compile(rb"\0+\Z"), "file of zeros"),
    (re.compile(rb"\Z"), "empty file"),
)
_BRAND_AT, _DICOM_AT = 4, 128


def describe_kind(data: bytes) -> str:
    """Describe a file that is neither PNG nor JPEG (nor TIFF), and what to do about it.

    Args:
        data: The file, or its beginning.

    Returns:
        One sentence.
    """
    if data[_DICOM_AT : _DICOM_AT + 4] == b"DICM":
        return (
            "a DICOM file, where PNG, JPEG or TIFF is expected; convert it, or ingest the folder "
            "that it came from as DICOM."
        )
    kind: str | None
    if data[_BRAND_AT : _BRAND_AT + 4] == b"ftyp":
        kind = _BRANDS.get(data[_BRAND_AT + 4 : _BRAND_AT + 8], "file of ISO media (video)")
    else:
        kind = next((name for pattern, name in _KINDS if pattern.match(data)), None)
    found = f" but {'an' if kind[0] in 'aeiouA' else 'a'} {kind}" if kind else ""
    return f"neither PNG nor JPEG{found}; convert the image to one of them."
