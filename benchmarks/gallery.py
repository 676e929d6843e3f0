"""Make the pictures of `docs/gallery.md` by the lines that the page prints.

    .venv/bin/python -m benchmarks.gallery

The blocks of the page run in order. The last line of a block is `RESULT = ...(SOURCE)`, and
`docs/images/gallery/RESULT.png` shows both images side by side, with the boxes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from vae_aug.atomic import write_atomic
from vae_aug.figures.sheet import find_outline

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"```python\n(.+?)```", re.DOTALL)
RESULT = re.compile(r"^(\w+) = .*\((\w+)\)\n\Z", re.MULTILINE)
"""Result and source in the last line of a block."""
GAP_PX, WHITE = 4, 255


def list_blocks(page: str) -> list[tuple[str, tuple[str, str] | None]]:
    """List the blocks of a page, each with the names of result and source if it has a picture."""
    found = [(block, RESULT.search(block)) for block in BLOCK.findall(page)]
    return [(block, (names[1], names[2]) if names else None) for block, names in found]


def draw(element: Mapping[str, Any]) -> Image.Image:
    """Draw an image of one channel and 8 bits with lines around its boxes."""
    picture = Image.fromarray(np.asarray(element["image"])[..., 0])
    pen = ImageDraw.Draw(picture)
    for box in np.asarray(element["objects"]["bbox"]):
        pen.rectangle(find_outline(box, picture.height, picture.width), outline=WHITE)
    return picture


def write_pair(path: Path, source: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Write two images of one size side by side, as a grey PNG."""
    left, right = draw(source), draw(result)
    pair = Image.new("L", (2 * left.width + GAP_PX, left.height), WHITE)
    pair.paste(left, (0, 0))
    pair.paste(right, (left.width + GAP_PX, 0))
    encoded = io.BytesIO()
    pair.save(encoded, "PNG", optimize=True)
    write_atomic(path, encoded.getvalue())


def main() -> None:
    folder = DOCS / "images" / "gallery"
    folder.mkdir(exist_ok=True)
    names: dict[str, Any] = {}
    for block, shown in list_blocks((DOCS / "gallery.md").read_text(encoding="utf-8")):
        exec(block, names)
        if shown:
            result, source = shown
            write_pair(folder / f"{result}.png", names[source], names[result])


if __name__ == "__main__":
    main()
