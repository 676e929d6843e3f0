"""Contact sheets: images in labelled columns, boxes drawn, one row an example."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vae_aug.data.atomic import write_atomic

_HEADING_PX = 16
_GAP_PX = 2
_BOX_COLOUR = (255, 210, 0)


def write_sheet(
    path: str | Path,
    columns: Mapping[str, Sequence[np.ndarray] | np.ndarray],
    boxes: Sequence[np.ndarray] | None = None,
    *,
    cell_px: int = 192,
) -> np.ndarray:
    """Write a PNG sheet.

    Args:
        path: The file.
        columns: Heading to images, one a row: `[H, W, 1 or 3]` uint8, uint16, of which the high
            byte is shown, or floating point in [0, 1].
        boxes: A row's boxes `[N, 4]`, `rel_yxyx`, drawn into each of its images.
        cell_px: Side of the square that an image is fitted into.

    Returns:
        The sheet, `[height, width, 3] uint8`.
    """
    rows = len(next(iter(columns.values())))
    step = cell_px + _GAP_PX
    sheet = Image.new("RGB", (len(columns) * step, _HEADING_PX + rows * step))
    draw = ImageDraw.Draw(sheet)
    for column, (heading, images) in enumerate(columns.items()):
        draw.text((column * step + 4, 2), heading, fill=(255, 255, 255))
        for row in range(rows):
            cell = _fit(np.asarray(images[row]), cell_px)
            if boxes is not None:
                _draw_boxes(cell, np.asarray(boxes[row]))
            sheet.paste(cell, (column * step, _HEADING_PX + row * step))
    encoded = io.BytesIO()
    sheet.save(encoded, "PNG")
    write_atomic(path, encoded.getvalue())
    return np.asarray(sheet)


def _fit(image: np.ndarray, cell_px: int) -> Image.Image:
    """Scale an image to fit a cell, keeping its aspect ratio, in RGB."""
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    elif image.dtype != np.uint8:
        image = np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
    channels = np.broadcast_to(image, (*image.shape[:2], 3)) if image.shape[2] == 1 else image
    picture = Image.fromarray(np.ascontiguousarray(channels))
    scale = cell_px / max(picture.size)
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    return picture.resize(size, Image.Resampling.BILINEAR)


def _draw_boxes(cell: Image.Image, boxes: np.ndarray) -> None:
    draw = ImageDraw.Draw(cell)
    for top, left, bottom, right in boxes * [cell.height, cell.width, cell.height, cell.width]:
        draw.rectangle((left - 1, top - 1, right, bottom), outline=_BOX_COLOUR)
