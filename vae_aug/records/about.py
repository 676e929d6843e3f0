"""What the owner of records says of them in `about.json` beside them: licence, origin, caveats.

No command knows these, and whoever is handed records asks for them first. The file is optional and
written by hand; cards repeat it word by word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from vae_aug.errors import RecordError, VAEAugError
from vae_aug.limits import read_bounded

ABOUT_FILE = "about.json"

FIELDS = {
    "name": "name of the data set",
    "license": "address of the licence, or its name in the list of SPDX",
    "url": "page of the data set",
    "citation": "how the data set asks to be cited",
    "person": "who made it, if a person",
    "organization": "who made it, if an organization or a group",
    "date_published": "day of publication, as 2026-11-30",
    "modality": "what the images are, e.g. MR, T2-FLAIR, axial slices",
    "collection": "where, when, on which scanners, and of whom they were taken",
    "annotation": "who marked what, and how it became boxes",
    "caveats": "what whoever uses them has to know, e.g. who is missing",
}
"""Keys that the file may have, each with text."""

_MAX_BYTES = 2**16


def read_about(folder: Path) -> Mapping[str, str]:
    """Read what is said of records.

    Args:
        folder: Folder of the records.

    Returns:
        Some of `FIELDS` to text, in their order; none without a file.

    Raises:
        RecordError: If the file cannot be read, or holds anything else.
    """
    path = folder / ABOUT_FILE
    if not path.exists():
        return {}
    try:
        content = json.loads(read_bounded(path, _MAX_BYTES))
    except (VAEAugError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: expected an object of JSON ({error}).") from error
    if not isinstance(content, dict):
        raise RecordError(f"{path}: expected an object; got {type(content).__name__}.")
    for key, value in content.items():
        if key not in FIELDS:
            raise RecordError(f"{path}, {key}: unknown; known are {', '.join(FIELDS)}.")
        if not isinstance(value, str) or not value.strip() or not _is_utf8(value):
            raise RecordError(f"{path}, {key}: expected text; got {value!r}.")
    return {key: " ".join(content[key].split()) for key in FIELDS if key in content}


def _is_utf8(text: str) -> bool:
    """Tell whether a text can be written; JSON may name halves of characters."""
    return text == text.encode("utf-8", "replace").decode()
