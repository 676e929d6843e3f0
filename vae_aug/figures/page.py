"""Pages of HTML that hold all they show: one file, which needs no network and sends nothing.

A page is a template of the folder `pages` with its styles and its script, and data as JSON. What
comes from records is in the data alone, and the script writes it as text. The page's policy lets
no other script run, and nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
import os
import string
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vae_aug.atomic import write_atomic
from vae_aug.errors import VAEAugError
from vae_aug.figures.drawing import COLOURS
from vae_aug.figures.sheet import Panel, find_scale, find_window, to_shares
from vae_aug.json_values import make_json

PAGE_SUFFIXES = (".html", ".htm")
"""Ends of the names of files that are pages, in lower case."""

MAX_PIXEL_BYTES = 2**28
"""Most bytes of a page's images, packed. Browsers hold no text of 2**29 letters."""

_SHARED = {"css": ("page.css",), "js": ("page.js", "pixels.js")}


def write_page(
    path: str | os.PathLike[str],
    rows: Sequence[Sequence[Panel]],
    explanation: str,
    *,
    settings: Mapping[str, str],
    label_names: Sequence[str] = (),
    value_range: tuple[float, float] | None = None,
) -> None:
    """Write a page that compares images with their variants.

    Args:
        path: The file.
        rows: At least one, each an image and at least one variant of it, uint8 or uint16, as for a
            sheet. All rows have the same variants, with the measures fidelity, contrast and
            guarded.
        explanation: What the figures mean. It must name no patient.
        settings: How the variants were made: names to values.
        label_names: Classes in their order, which decides on their colours; others follow.
        value_range: Values of black and white; None for the range of each image's dtype.

    Raises:
        VAEAugError: If the images are too large for a page, or have another dtype.
        OSError: If the file cannot be written.
    """
    used = [name for row in rows for panel in row for name in panel.names]
    names = list(dict.fromkeys([*label_names, *used]))
    shares = [[to_shares(panel.image, value_range) for panel in row] for row in rows]
    cases, room = [], MAX_PIXEL_BYTES
    for row, planes in zip(rows, shares, strict=True):
        case = _describe_row(row, find_window(planes[0]), value_range, names)
        cases.append(case)
        room -= sum(len(state["pixels"]) for state in case["states"])
        if room < 0:
            raise VAEAugError(
                f"{os.fspath(path)}: its images would take more than {MAX_PIXEL_BYTES >> 20} MiB, "
                f"of which {len(cases)} of {len(rows)} have room. Show fewer images or variants."
            )
    data = {
        "cases": cases,
        "classes": [
            {"name": name, "colour": "#{:02x}{:02x}{:02x}".format(*COLOURS[place % len(COLOURS)])}
            for place, name in enumerate(names)
        ],
        "scale": find_scale(rows, shares),
        "settings": settings,
        "explanation": explanation,
    }
    write_atomic(path, fill_page("preview", data))


def fill_page(name: str, data: Mapping[str, Any]) -> bytes:
    """Put styles, script and data into a template.

    Args:
        name: Of a template, a style and a script in the folder `pages`. Style and script follow
            those that all pages share.
        data: What the script reads, as `make_json` takes it.

    Returns:
        The page, in UTF-8. Equal data make equal bytes.
    """
    style, script = (
        "".join(map(read_part, (*shared, f"{name}.{kind}"))) for kind, shared in _SHARED.items()
    )
    policy = (
        f"default-src 'none'; script-src {_hash_source(script)}; style-src {_hash_source(style)}; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    page = string.Template(read_part(f"{name}.html"))
    return page.substitute(
        policy=policy, style=style, script=script, data=escape_json(data)
    ).encode()


def read_part(name: str) -> str:
    """Read a file of the folder `pages`; line ends become those that browsers hash."""
    folder = importlib.resources.files("vae_aug.figures") / "pages"
    return (folder / name).read_text(encoding="utf-8")


def escape_json(data: Any) -> str:
    r"""Write JSON that HTML takes for text, whatever it holds.

    Args:
        data: As `make_json` takes it; numbers that are not finite become null.

    Returns:
        ASCII without `<`, `>` and `&`.

    Example:
        >>> escape_json({"name": "</script>"})
        '{"name":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(make_json(data), allow_nan=False, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def pack_pixels(image: np.ndarray) -> str:
    """Pack pixels so that a browser unpacks them without loss: its own PNGs end at 8 bits.

    Each value becomes its difference from the one on its left, modulo the dtype's range; all high
    bytes stand before all low bytes. Phantoms of 16 bits take an eighth less than without.

    Args:
        image: `[H, W, C]` uint8 or uint16.

    Returns:
        Base64 of the zlib stream.
    """
    left = np.zeros_like(image)
    left[:, 1:] = image[:, :-1]
    steps = (image - left).astype(image.dtype.newbyteorder(">"))
    planes = steps.reshape(-1, 1).view(np.uint8).T
    return base64.b64encode(zlib.compress(planes.tobytes())).decode()


def _hash_source(text: str) -> str:
    """Name an inline script or style in a Content-Security-Policy, Level 3, 2.3.1."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _describe_row(
    row: Sequence[Panel],
    window: tuple[float, float],
    value_range: tuple[float, float] | None,
    names: Sequence[str],
) -> dict[str, Any]:
    """Describe an image and its variants for the script; windows are in the image's own values."""
    image = row[0].image
    if image.dtype not in (np.uint8, np.uint16):
        raise VAEAugError(f"a page shows images of uint8 or uint16; got {image.dtype}.")
    low, high = value_range or (0.0, float(np.iinfo(image.dtype).max))
    return {
        "height": image.shape[0],
        "width": image.shape[1],
        "channels": image.shape[2],
        "bits": 8 * image.dtype.itemsize,
        "range": [low, high],
        "window": [low + share * (high - low) for share in window],
        "boxes": np.asarray(row[0].boxes).tolist(),
        "labels": [names.index(name) for name in row[0].names],
        "states": [
            {
                "heading": panel.heading,
                "note": panel.note,
                "pixels": pack_pixels(panel.image),
                **{name: values.tolist() for name, values in panel.measures.items()},
            }
            for panel in row
        ],
    }
