"""Plots of curves and histograms, in the style of the sheets."""

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

PLOT_PX = (420, 220)
"""Width and height of the area of a chart in which its curves lie."""

_LEFT_PX, _TOP_PX, _BOTTOM_PX, _RIGHT_PX = 56, 6, 36, 16
_MARGIN_PX, _GAP_PX = 12, 16
_TITLE_PX, _TEXT_PX = 13, 11
_SHARPNESS = 2
_MOST_TICKS = 6
_OUTLIERS, _MIN_POINTS = (1.0, 99.0), 50
"""Percentiles of the values that a chart shows, from so many points on: a loss begins high."""

_GRID, _FRAME = (50, 50, 50), (120, 120, 120)


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Attributes:
        name: What its colour means.
        x: `[N]`, in their order.
        y: `[N]`, finite.
    """

    name: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Chart:
    """One chart of a plot.

    Attributes:
        title: What is above it: the quantity and its unit.
        x_name: What is below it.
        curves: At least one, with at least one point in all.
        marks: Names of places on the horizontal axis that get a vertical line.
        whole: Whether the lowest and highest value are shown even of many points.
    """

    title: str
    x_name: str
    curves: Sequence[Curve]
    marks: Mapping[str, float] = dataclasses.field(default_factory=dict)
    whole: bool = False


def make_histogram(name: str, values: np.ndarray, edges: np.ndarray) -> Curve:
    """Make the outline of a histogram.

    Args:
        name: Of the curve.
        values: `[N]`; those outside of the edges are counted in the outermost bins.
        edges: `[M + 1]`, ascending.

    Returns:
        A curve of `2 M + 2` points, from 0 and back to 0.
    """
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return Curve(name, np.repeat(edges, 2), np.concatenate([[0], np.repeat(counts, 2), [0]]))


def write_plots(
    path: str | os.PathLike[str], charts: Sequence[Chart], caption: str, *, columns: int = 2
) -> np.ndarray:
    """Write charts as a PNG file.

    Args:
        path: The file.
        charts: At least one.
        caption: What is to be said of all of them.
        columns: Charts side by side.

    Returns:
        The picture, `[height, width, 3] uint8`.

    Raises:
        OSError: If the file cannot be written.
    """
    names = dict.fromkeys(curve.name for chart in charts for curve in chart.curves)
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
    drawn = [_draw_chart(chart, colours) for chart in charts]
    lines = [
        join(drawn[start : start + columns], _GAP_PX, axis=1)
        for start in range(0, len(drawn), columns)
    ]
    width = max(line.width for line in lines)
    body = join([*lines, make_text(caption, width, _TITLE_PX)], _GAP_PX, axis=0)
    picture = Image.new("RGB", (body.width + 2 * _MARGIN_PX, body.height + 2 * _MARGIN_PX))
    picture.paste(body, (_MARGIN_PX, _MARGIN_PX))
    return write_png(path, picture)


def find_ticks(low: float, high: float) -> list[float]:
    """Find round numbers in a range: multiples of 1, 2 or 5 times a power of ten, at most six.

    Args:
        low: Lower end.
        high: Upper end, above it.

    Returns:
        The numbers, ascending.
    """
    power = 10.0 ** math.floor(math.log10((high - low) / _MOST_TICKS))
    for step in (power, 2 * power, 5 * power, 10 * power):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < _MOST_TICKS:
            break
    return [step * number for number in range(first, last + 1)]


def find_limits(values: np.ndarray, *, whole: bool) -> tuple[float, float]:
    """Find the range of an axis: that of the values, with a little room, but not of outliers."""
    all_of_them = whole or len(values) < _MIN_POINTS
    low, high = np.percentile(values, (0.0, 100.0) if all_of_them else _OUTLIERS)
    room = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    return float(low - room), float(high + room)


def _draw_chart(chart: Chart, colours: Mapping[str, Colour]) -> Image.Image:
    """Draw title, legend, axes and curves."""
    xs = np.concatenate([np.asarray(curve.x, float) for curve in chart.curves])
    ys = np.concatenate([np.asarray(curve.y, float) for curve in chart.curves])
    x_limits = find_limits(np.concatenate([xs, list(chart.marks.values())]), whole=True)
    y_limits = find_limits(ys, whole=chart.whole)
    area = _draw_area(chart, colours, x_limits, y_limits)
    width, height = PLOT_PX
    bottom = _TOP_PX + height
    framed = Image.new("RGB", (_LEFT_PX + width + _RIGHT_PX, bottom + _BOTTOM_PX))
    framed.paste(area, (_LEFT_PX, _TOP_PX))
    draw, font = ImageDraw.Draw(framed), load_font(_TEXT_PX)
    for tick in find_ticks(*y_limits):
        y = _TOP_PX + _scale(tick, y_limits, height, upwards=True)
        draw.text((_LEFT_PX - 5, y), f"{tick:.6g}", fill=GREY, font=font, anchor="rm")
    for tick in find_ticks(*x_limits):
        x = _LEFT_PX + _scale(tick, x_limits, width)
        draw.text((x, bottom + 4), f"{tick:.6g}", fill=GREY, font=font, anchor="ma")
    middle = (_LEFT_PX + width / 2, bottom + 19)
    draw.text(middle, chart.x_name, fill=GREY, font=font, anchor="ma")
    title = make_text(chart.title, framed.width, _TITLE_PX, WHITE)
    return join([title, _draw_legend(chart, colours, framed.width), framed], 2, axis=0)


def _draw_area(
    chart: Chart,
    colours: Mapping[str, Colour],
    x_limits: tuple[float, float],
    y_limits: tuple[float, float],
) -> Image.Image:
    """Draw grid, marks and curves, larger than they are shown, which makes lines smooth."""
    width, height = (side * _SHARPNESS for side in PLOT_PX)
    area = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(area)
    for tick in find_ticks(*y_limits):
        y = _scale(tick, y_limits, height, upwards=True)
        draw.line([(0, y), (width, y)], fill=_GRID, width=1)
    for place in chart.marks.values():
        x = _scale(place, x_limits, width)
        draw.line([(x, 0), (x, height)], fill=_FRAME, width=_SHARPNESS)
    for curve in chart.curves:
        colour = colours[curve.name]
        xs = [_scale(x, x_limits, width) for x in np.asarray(curve.x, float)]
        ys = [_scale(y, y_limits, height, upwards=True) for y in np.asarray(curve.y, float)]
        points = list(zip(xs, ys, strict=True))
        draw.line(points, fill=colour, width=_SHARPNESS + 1)
        if len(points) == 1:  # a line needs two
            (x, y) = points[0]
            draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=colour)
    draw.rectangle((0, 0, width - 1, height - 1), outline=_FRAME, width=_SHARPNESS)
    for name, place in chart.marks.items():
        x = _scale(place, x_limits, width) + 4 * _SHARPNESS
        font = load_font(_TEXT_PX * _SHARPNESS)
        draw.text((x, 4 * _SHARPNESS), name, fill=GREY, font=font)
    return area.resize(PLOT_PX, Image.Resampling.BOX)


def _draw_legend(chart: Chart, colours: Mapping[str, Colour], width_px: int) -> Image.Image:
    """Write the names of the curves in their colours."""
    texts = []
    for place, curve in enumerate(chart.curves):
        name = make_legible(curve.name, f"curve {place + 1}")
        needed = measure_text(name, _TEXT_PX) + 16
        texts.append(make_text(name, needed, _TEXT_PX, colours[curve.name]))
    legend = Image.new("RGB", (width_px, texts[0].height))
    legend.paste(join(texts, 0, axis=1), (0, 0))
    return legend


def _scale(
    value: float, limits: tuple[float, float], length: int, *, upwards: bool = False
) -> float:
    """Return where on an axis of some pixels a value lies."""
    share = (value - limits[0]) / (limits[1] - limits[0])
    return length * (1.0 - share if upwards else share)
