"""Sheets of images: display windows, boxes with class names, enlarged boxes, differences."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from vae_aug.figures.drawing import (
    COLOURS,
    GREY,
    WHITE,
    Colour,
    join,
    load_font,
    make_legible,
    make_text,
    measure_text,
    write_png,
)

CELL_PX = 224
MARGIN_PX, GAP_PX, ROW_GAP_PX = 8, 4, 14
"""Height of the line of headings over the images of a row."""

_TEXT_PX, _NOTE_PX, _NAME_PX = 12, 11, 11
_MIN_WIDTH_PX = 640
_WINDOW = (0.5, 99.5)
_MIN_CROP_PX = 40
_BAR_PX = 12
_SCALES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_SHOWN_SHARE = 99.0
"""Percentile of an image's absolute differences. The full colour stands for the median of all
images, rounded up."""

_BRIGHTER, _DARKER = np.array([255.0, 90.0, 50.0]), np.array([70.0, 150.0, 255.0])


@dataclasses.dataclass(frozen=True)
class Panel:
    """One image of a sheet.

    Attributes:
        image: `[H, W, 1 or 3]` of an integer dtype, or floating point from 0 (black) to 1.
        heading: What stands above it.
        note: What stands below it, such as its figures.
        boxes: `[N, 4]`, `rel_yxyx`; those that are not finite are left out.
        names: `[N]`, their classes.
        compared: Whether it is a state of its row's first image, with the same boxes. It is then
            shown in the window of that image, with its difference from it; else in its own window.
        measures: What was measured of the boxes, `[N]` each, by its name. A sheet does not show it;
            see `vae_aug.figures.page`.
    """

    image: np.ndarray
    heading: str = ""
    note: str = ""
    boxes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 4)))
    names: Sequence[str] = ()
    compared: bool = True
    measures: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def make_panels(
    images: Mapping[str, np.ndarray],
    boxes: np.ndarray | None = None,
    names: Sequence[str] = (),
    notes: Mapping[str, str] | None = None,
) -> list[Panel]:
    """Make a row of images that have the same boxes.

    Args:
        images: Headings to images.
        boxes: `[N, 4]`, `rel_yxyx`; None for none.
        names: `[N]`, their classes.
        notes: What stands below the images of these headings.

    Returns:
        The panels.
    """
    boxes = np.zeros((0, 4)) if boxes is None else boxes
    notes = notes or {}
    return [
        Panel(np.asarray(image), heading, notes.get(heading, ""), boxes, names)
        for heading, image in images.items()
    ]


def write_sheet(
    path: str | os.PathLike[str],
    rows: Sequence[Sequence[Panel]],
    caption: str,
    *,
    label_names: Sequence[str] = (),
    value_range: tuple[float, float] | None = None,
    cell_px: int = CELL_PX,
) -> np.ndarray:
    """Write a PNG sheet.

    A row has up to three lines: the images; the surroundings of their largest box, enlarged; and
    their differences from the first image. Below all rows stand the classes in their colours,
    the caption, and how the sheet is to be read.

    Args:
        path: The file.
        rows: At least one, each with at least one panel.
        caption: What the sheet shows and how it was made. It must name no patient.
        label_names: Classes in their order, which decides on their colours; others follow.
        value_range: Values of black and white; None for the range of an integer dtype, and for
            [0, 1] of a floating-point one.
        cell_px: Side of the square that an image is fitted into.

    Returns:
        The sheet, `[height, width, 3] uint8`.

    Raises:
        OSError: If the file cannot be written.
    """
    shares = [[to_shares(panel.image, value_range) for panel in row] for row in rows]
    used = dict.fromkeys(name for row in rows for panel in row for name in panel.names)
    names = list(dict.fromkeys([*label_names, *used]))
    style = _Style(
        cell_px=cell_px,
        scale=find_scale(rows, shares),
        colours={name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)},
        legible={
            name: make_legible(name, f"label {place + 1}") for place, name in enumerate(names)
        },
    )
    drawn = [
        _draw_row(number, row, planes, style)
        for number, (row, planes) in enumerate(zip(rows, shares, strict=True))
    ]
    width = max(_MIN_WIDTH_PX, *(block.width for block in drawn))
    footer = [
        make_text(caption, width, _TEXT_PX),
        make_text(_explain(rows, style), width, _NOTE_PX, GREY),
    ]
    if used:
        footer.insert(0, _draw_legend([name for name in names if name in used], width, style))
    body = join([*drawn, join(footer, GAP_PX, axis=0)], ROW_GAP_PX, axis=0)
    sheet = Image.new("RGB", (body.width + 2 * MARGIN_PX, body.height + 2 * MARGIN_PX))
    sheet.paste(body, (MARGIN_PX, MARGIN_PX))
    return write_png(path, sheet)


@dataclasses.dataclass(frozen=True)
class _Style:
    """What all rows of a sheet have in common.

    Attributes:
        cell_px: Side of a cell.
        scale: Difference, as a share of the grey range, that has the full colour.
        colours: Of the classes.
        legible: Names of the classes as the font can show them.
    """

    cell_px: int
    scale: float
    colours: Mapping[str, Colour]
    legible: Mapping[str, str]


# --- Grey values -----------------------------------------------------------------------------


def find_window(shares: np.ndarray) -> tuple[float, float]:
    """Find the values of an image to show as black and white.

    Args:
        shares: `[H, W, C]`, 0 for black and 1 for white.

    Returns:
        Percentiles 0.5 and 99.5, so that a few bright pixels do not make the rest dark; the lowest
        and highest value if those are equal; 0 and 1 if these are equal too.
    """
    for percentiles in (_WINDOW, (0.0, 100.0)):
        low, high = (float(value) for value in np.percentile(shares, percentiles))
        if low < high:
            return low, high
    return 0.0, 1.0


def to_shares(image: np.ndarray, value_range: tuple[float, float] | None) -> np.ndarray:
    """Turn values into shares of the grey range.

    Args:
        image: `[H, W, C]`.
        value_range: Values of black and white, as of `write_sheet`.

    Returns:
        `[H, W, C] float32`, 0 for black and 1 for white.
    """
    if value_range is None:
        limit = np.iinfo(image.dtype).max if np.issubdtype(image.dtype, np.integer) else 1.0
        value_range = (0.0, float(limit))
    low, high = value_range
    return (np.asarray(image, np.float32) - low) / (high - low)


def _show(shares: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Map a window to 0 to 255: `[H, W, 3] uint8`."""
    low, high = window
    levels = np.rint(np.clip((shares - low) / (high - low), 0.0, 1.0) * 255.0).astype(np.uint8)
    return np.broadcast_to(levels, (*levels.shape[:2], 3))


def find_scale(rows: Sequence[Sequence[Panel]], shares: Sequence[Sequence[np.ndarray]]) -> float:
    """Find one scale for the differences of all rows: of 0.1%, 0.2%, 0.5%, 1% ... .

    Args:
        rows: The images.
        shares: Their pixels, from `to_shares`.

    Returns:
        The difference that has the full colour, as a share of the grey range.
    """
    largest = [
        np.percentile(np.abs(_subtract(plane, planes[0])), _SHOWN_SHARE)
        for row, planes in zip(rows, shares, strict=True)
        for panel, plane in zip(row[1:], planes[1:], strict=True)
        if panel.compared
    ]
    # A restoration from noise must not hide what is weak in other images. Rounding must not move
    # 5% to the next step.
    wanted = np.median(largest or [0.0]) * (1 - 1e-6)
    return next((scale for scale in _SCALES if scale >= wanted), _SCALES[-1])


def _subtract(image: np.ndarray, first: np.ndarray) -> np.ndarray:
    return image.mean(axis=-1) - first.mean(axis=-1)


def _colour_difference(difference: np.ndarray, scale: float) -> np.ndarray:
    """Turn `[H, W]` into `[H, W, 3] uint8`: red for brighter, blue for darker, black for equal."""
    strength = np.clip(difference / scale, -1.0, 1.0)[..., None]
    colours = np.where(strength > 0, strength * _BRIGHTER, -strength * _DARKER)
    return np.rint(colours).astype(np.uint8)


# --- Lines of a row --------------------------------------------------------------------------


def _draw_row(
    number: int, row: Sequence[Panel], planes: Sequence[np.ndarray], style: _Style
) -> Image.Image:
    """Draw the lines of a row below each other."""
    windows = [find_window(plane) for plane in planes]
    notes = [f"{row[0].note}\n{_describe_window(windows[0])}"]
    for place, panel in enumerate(row[1:], start=1):
        if panel.compared:
            windows[place] = windows[0]
            notes.append(panel.note)
        else:
            notes.append(f"{panel.note}\n{_describe_window(windows[place])}")
    shown = [_show(plane, window) for plane, window in zip(planes, windows, strict=True)]
    lines = [_draw_texts(_head(number, row), _TEXT_PX, WHITE, style)]
    lines.append(_draw_images(row, shown, style))
    lines.append(_draw_texts([note.strip() for note in notes], _NOTE_PX, GREY, style))
    if any(len(_list_boxes(panel)) for panel in row):
        lines.append(_draw_crops(row, shown, style))
    if _list_compared(row):
        lines.append(_draw_differences(row, planes, style))
    return join(lines, GAP_PX, axis=0)


def _list_compared(row: Sequence[Panel]) -> list[Panel]:
    """List the images that are compared with the first."""
    return [panel for panel in row[1:] if panel.compared]


def _head(number: int, row: Sequence[Panel]) -> list[str]:
    """Return the headings; rows are numbered, so that a reader can name one."""
    headings = [panel.heading for panel in row]
    return [f"{number + 1}: {headings[0]}", *headings[1:]] if _list_compared(row) else headings


def _describe_window(window: tuple[float, float]) -> str:
    low, high = (f"{100 * value:.2f}".rstrip("0").rstrip(".") for value in window)
    return f"window {low} to {high}% of the range"


def _draw_texts(texts: Sequence[str], size_px: int, colour: Colour, style: _Style) -> Image.Image:
    return join([make_text(text, style.cell_px, size_px, colour) for text in texts], GAP_PX, axis=1)


def _draw_images(row: Sequence[Panel], shown: Sequence[np.ndarray], style: _Style) -> Image.Image:
    cells = []
    for number, (panel, pixels) in enumerate(zip(row, shown, strict=True)):
        cell = _fit(pixels, style.cell_px)
        boxes = _list_boxes(panel)
        _draw_outlines(cell, boxes, style)
        if not (panel.compared and number):  # the boxes of the others are the same
            _draw_names(cell, boxes, style)
        cells.append(_place(cell, style.cell_px))
    return join(cells, GAP_PX, axis=1)


def _draw_crops(row: Sequence[Panel], shown: Sequence[np.ndarray], style: _Style) -> Image.Image:
    cells = []
    for panel, pixels in zip(row, shown, strict=True):
        boxes = _list_boxes(panel)
        cell = Image.new("RGB", (1, 1))
        if boxes:
            window = find_crop(np.array([box for box, _ in boxes]), *pixels.shape[:2])
            cell = _fit(pixels[window], style.cell_px)
            _draw_outlines(cell, _move_boxes(boxes, window, *pixels.shape[:2]), style)
        cells.append(_place(cell, style.cell_px))
    return join(cells, GAP_PX, axis=1)


def _draw_differences(
    row: Sequence[Panel], planes: Sequence[np.ndarray], style: _Style
) -> Image.Image:
    cells = [_place(_draw_scale(style), style.cell_px)]
    for panel, plane in zip(row[1:], planes[1:], strict=True):
        cell = Image.new("RGB", (1, 1))
        if panel.compared:
            cell = _fit(_colour_difference(_subtract(plane, planes[0]), style.scale), style.cell_px)
            _draw_outlines(cell, _list_boxes(panel), style)
        cells.append(_place(cell, style.cell_px))
    return join(cells, GAP_PX, axis=1)


def _draw_scale(style: _Style) -> Image.Image:
    """Draw the colours of differences with their values."""
    width, scale = style.cell_px, style.scale
    line = np.tile(np.linspace(-scale, scale, width), (_BAR_PX, 1))
    bar = Image.fromarray(_colour_difference(line, scale))
    ends = Image.new("RGB", (width, _NOTE_PX + 4))
    draw = ImageDraw.Draw(ends)
    for text, anchor, x in (
        (f"-{100 * scale:g}%", "la", 0),
        ("0", "ma", width // 2),
        (f"+{100 * scale:g}%", "ra", width - 1),
    ):
        draw.text((x, 0), text, fill=GREY, font=load_font(_NOTE_PX), anchor=anchor)
    title = make_text("difference, % of the grey range", width, _NOTE_PX, GREY)
    return join([title, bar, ends], 2, axis=0)


def _fit(pixels: np.ndarray, cell_px: int) -> Image.Image:
    """Scale an image to fit a cell, keeping its aspect ratio."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    scale = cell_px / max(picture.size)
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    # Enlarged pixels stay pixels: nothing is shown that is not in the image.
    method = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BILINEAR
    return picture.resize(size, method)


def _place(picture: Image.Image, cell_px: int) -> Image.Image:
    """Put a picture into the top left of a block as wide as a cell."""
    block = Image.new("RGB", (cell_px, picture.height))
    block.paste(picture, (0, 0))
    return block


# --- Boxes -----------------------------------------------------------------------------------

_Boxes = Sequence[tuple[np.ndarray, str]]


def find_crop(boxes: np.ndarray, height: int, width: int) -> tuple[slice, slice]:
    """Find the surroundings of the largest box: twice its longer side, at least 40 pixels.

    Args:
        boxes: `[N, 4]`, `rel_yxyx`, at least one, finite.
        height: Of the image, in pixels.
        width: Of the image, in pixels.

    Returns:
        Rows and columns of the image; a square unless the image is too small for that.
    """
    largest = boxes[np.argmax(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))]
    shape = np.array([height, width])
    low, high = largest[:2] * shape, largest[2:] * shape
    side = np.minimum(math.ceil(max(2 * (high - low).max(), _MIN_CROP_PX)), shape)
    start = np.clip(np.rint((low + high) / 2 - side / 2), 0, shape - side).astype(int)
    return slice(start[0], start[0] + side[0]), slice(start[1], start[1] + side[1])


def _list_boxes(panel: Panel) -> list[tuple[np.ndarray, str]]:
    """List the finite boxes with their classes, the largest first."""
    names = panel.names or [""] * len(panel.boxes)
    pairs = list(zip(np.asarray(panel.boxes, np.float64), names, strict=True))
    finite = [(box, name) for box, name in pairs if np.isfinite(box).all()]
    return sorted(finite, key=lambda pair: -float(np.prod(pair[0][2:] - pair[0][:2])))


def _move_boxes(
    boxes: _Boxes, window: tuple[slice, slice], height: int, width: int
) -> list[tuple[np.ndarray, str]]:
    """Move boxes of an image into the coordinates of a part of it."""
    rows, columns = window
    scale = np.array([height, width, height, width])
    start = np.array([rows.start, columns.start] * 2)
    extent = np.array([rows.stop - rows.start, columns.stop - columns.start] * 2)
    return [((box * scale - start) / extent, name) for box, name in boxes]


def find_outline(box: np.ndarray, height: int, width: int) -> tuple[int, int, int, int]:
    """Find the lines around a box: the pixels just outside of it.

    Args:
        box: `[4]`, `rel_yxyx`.
        height: Of the picture that is drawn into, in pixels.
        width: Of that picture, in pixels.

    Returns:
        `(left, top, right, bottom)` in pixels. A side on the border of the picture is drawn inside;
        one further out, as in the enlarged part of an image, is not seen.
    """
    sides = np.asarray(box, np.float64) * [height, width, height, width]
    # A corner on the border of two pixels must not move by rounding.
    top, left = (math.floor(side + 1e-6) - 1 for side in sides[:2])
    bottom, right = (math.ceil(side - 1e-6) for side in sides[2:])
    return (
        left + (left == -1),
        top + (top == -1),
        right - (right == width),
        bottom - (bottom == height),
    )


def _draw_outlines(cell: Image.Image, boxes: _Boxes, style: _Style) -> None:
    draw = ImageDraw.Draw(cell)
    for box, name in boxes:
        left, top, right, bottom = find_outline(box, cell.height, cell.width)
        corners = (left, top, max(right, left), max(bottom, top))
        draw.rectangle(corners, outline=style.colours.get(name, COLOURS[0]))


def _draw_names(cell: Image.Image, boxes: _Boxes, style: _Style) -> None:
    """Name the largest box of each class, where the name covers no other name."""
    draw = ImageDraw.Draw(cell)
    height = _NAME_PX + 3
    taken: list[tuple[int, int]] = []
    for name in dict.fromkeys(name for _, name in boxes if name):
        box = next(box for box, other in boxes if other == name)
        left, top, _, bottom = find_outline(box, cell.height, cell.width)
        text = style.legible[name]
        width = measure_text(text, _NAME_PX) + 4
        x = min(max(left, 0), max(cell.width - width, 0))
        for y in (top - height, bottom + 1, top + 1):
            free = all(abs(y - b) >= height or abs(x - a) >= cell.width / 2 for a, b in taken)
            if 0 <= y <= cell.height - height and free:
                draw.rectangle((x, y, x + width - 1, y + height - 1), fill=(0, 0, 0))
                colour = style.colours[name]
                draw.text((x + 2, y), text, fill=colour, font=load_font(_NAME_PX))
                taken.append((x, y))
                break


# --- Below the rows --------------------------------------------------------------------------


def _draw_legend(names: Sequence[str], width_px: int, style: _Style) -> Image.Image:
    """Write the classes in their colours, as many a line as there is room for."""
    lines: list[list[Image.Image]] = [[]]
    room = width_px
    for name in names:
        text = style.legible[name]
        needed = measure_text(text, _TEXT_PX) + 16
        if needed > room and lines[-1]:
            lines.append([])
            room = width_px
        room -= needed
        lines[-1].append(make_text(text, needed, _TEXT_PX, style.colours[name]))
    return join([join(line, 0, axis=1) for line in lines], 0, axis=0)


def _explain(rows: Sequence[Sequence[Panel]], style: _Style) -> str:
    """Say how the sheet is to be read."""
    compared = any(_list_compared(row) for row in rows)
    whose = "the first image of its row" if compared else "each image"
    sentences = [f"Display window: percentiles {_WINDOW[0]:g} and {_WINDOW[1]:g} of {whose}."]
    if any(_list_boxes(panel) for row in rows for panel in row):
        sentences.append(
            "Below the images: the surroundings of the largest box, enlarged. Lines are drawn "
            "just outside of a box."
        )
    if compared:
        sentences.append(
            "Last line of a row: difference from its first image, red brighter, blue darker, full "
            f"colour at {100 * style.scale:g}% of the grey range and more."
        )
    return " ".join(sentences)
