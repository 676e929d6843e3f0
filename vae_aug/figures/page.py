"""Pages of HTML that hold all they show: one file, which needs no network and sends nothing.

A page is put together from the folder `pages`, body, styles and script, and has data as JSON. What
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
from pathlib import Path
from typing import Any

import numpy as np

from vae_aug.atomic import write_atomic
from vae_aug.errors import VAEAugError
from vae_aug.figures.drawing import COLOURS
from vae_aug.figures.sheet import Panel, find_scale, find_window, to_shares
from vae_aug.json_values import make_json
from vae_aug.limits import read_bounded

MAX_RESULT_BYTES = 2**24
"""Most bytes of all files of a page of results; a night of training logs a tenth."""

MAX_PIXEL_BYTES = 2**28
"""Most bytes of a page's images, packed. Browsers hold no text of 2**29 letters."""

_SUFFIXES = (".html", ".htm")
_SCRIPTS = {"preview": ("page.js", "pixels.js", "preview.js"), "report": ("page.js", "report.js")}


def is_page(path: str | os.PathLike[str]) -> bool:
    """Tell a page from a sheet by the end of its name."""
    return Path(path).suffix.lower() in _SUFFIXES


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


def write_report_page(
    path: str | os.PathLike[str], files: Sequence[str | os.PathLike[str]]
) -> None:
    """Write a page that shows results: their figures, tables and plots.

    Args:
        path: The page.
        files: At least one file of results, as commands and benchmarks write them: `.json`, or
            `.jsonl` with a value on each line. The page holds all that is in them.

    Raises:
        VAEAugError: If a file cannot be read, has another suffix or is no JSON, or all are too
            large for a page.
        OSError: If the page cannot be written.
    """
    contents, room = [], MAX_RESULT_BYTES
    for file in map(Path, files):
        content = read_bounded(file, room)
        room -= len(content)
        contents.append({"name": file.name, "content": _read_result(file, content)})
    write_atomic(path, fill_page("report", {"files": contents}))


def fill_page(name: str, data: Mapping[str, Any]) -> bytes:
    """Put styles, script and data into a template.

    Args:
        name: Of a body and a style in the folder `pages`: preview or report. They stand within
            `page.html` and behind `page.css`, which all pages share.
        data: What the script reads, as `make_json` takes it.

    Returns:
        The page, in UTF-8. Equal data make equal bytes.
    """
    style = "".join(map(read_part, ("page.css", f"{name}.css")))
    script = "".join(map(read_part, _SCRIPTS[name]))
    policy = (
        f"default-src 'none'; script-src {_hash_source(script)}; style-src {_hash_source(style)}; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    page = string.Template(read_part("page.html"))
    body = read_part(f"{name}.html")
    return page.substitute(
        name=name, policy=policy, style=style, body=body, script=script, data=escape_json(data)
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


def _read_result(path: Path, content: bytes) -> Any:
    """Read JSON, or the list of the values on each line."""
    place = ""
    try:
        match path.suffix.lower():
            case ".json":
                return _parse(content)
            case ".jsonl":
                values = []
                for number, line in enumerate(content.splitlines(), 1):
                    place = f", line {number}"
                    if line.strip():
                        values.append(_parse(line))
                return values
            case suffix:
                raise VAEAugError(f"{path}: expected .json or .jsonl; got {suffix!r}.")
    except (ValueError, RecursionError) as error:
        raise VAEAugError(f"{path}{place}: is no valid JSON: {error}.") from error


def _parse(text: bytes) -> Any:
    """Parse JSON; whole numbers that JavaScript would round become text."""
    return make_json(json.loads(text, parse_int=_parse_int))


def _parse_int(digits: str) -> int | str:
    return int(digits) if abs(int(digits)) <= 2**53 else digits


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
