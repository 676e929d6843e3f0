"""Pictures of a report: a forest plot of differences, and a page of detections."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    wrap_text,
    write_png,
)
from vae_aug.figures.plot import Chart, Curve, find_ticks, write_plots

if TYPE_CHECKING:
    from benchmarks.detection.samples import Samples

_MARGIN_PX, _GAP_PX = 12, 14
_TITLE_PX, _TEXT_PX = 14, 12
AREA_PX, _ROW_PX, _AXIS_PX = 460, 22, 22
_SEEDS_WIDTH_PX, _BOTH_WIDTH_PX, _DOT_PX = 5, 1, 4
_LINE, _FAINT = (120, 120, 120), (55, 55, 55)
SEEDS, BOTH = COLOURS[1], COLOURS[0]

_CELL_PX = 208
"""Least width of an image on the page of detections."""

_IMAGES = 8
"""Rows of the page of detections."""

KINDS: Mapping[str, Colour] = {
    "true box, found": WHITE,
    "true box, missed": (255, 90, 200),
    "hit": (90, 235, 90),
    "false alarm": (255, 150, 40),
}

Values = Mapping[str, Any]
Box = Sequence[float]


@dataclasses.dataclass(frozen=True)
class _Row:
    """A line of a forest plot; a heading has no interval.

    Attributes:
        name: On the left.
        values: Of `inference.compare`; None for a heading.
    """

    name: str
    values: Values | None = None


def draw_curves(runs: Sequence[Values], path: Path) -> np.ndarray:
    """Plot the loss of every arm over the steps, the mean over its seeds, as a PNG file.

    Args:
        runs: Finished runs of one plan, whose curves have the same steps.
        path: The file.

    Returns:
        The picture, `[height, width, 3] uint8`.
    """
    curves = []
    for arm in dict.fromkeys(run["arm"] for run in runs):
        steps, losses = np.mean([run["curve"] for run in runs if run["arm"] == arm], axis=0).T
        curves.append(Curve(arm, steps, losses))
    chart = Chart("training loss, mean over seeds and 25 steps", "step", curves)
    return write_plots(path, [chart], "If it still falls at the end, more steps may change ranks.")


def draw_forest(report: Values, path: Path) -> np.ndarray:
    """Draw all differences of mAP50 with their intervals, and write them as a PNG file.

    Args:
        report: As `report.json` has it.
        path: The PNG file.

    Returns:
        The picture, `[height, width, 3] uint8`.
    """
    rows = list(_list_rows(report))
    limit = _find_limit([row.values for row in rows if row.values], report["margin"])
    left = max((measure_text(row.name, _TEXT_PX) for row in rows), default=0) + 12
    right = max((measure_text(_describe(row), _TEXT_PX) for row in rows), default=0) + 12
    picture = Image.new("RGB", (left + AREA_PX + right, _ROW_PX * len(rows) + _AXIS_PX))
    draw = ImageDraw.Draw(picture)
    _draw_axis(draw, left, _ROW_PX * len(rows), limit, 100 * report["margin"])
    for number, row in enumerate(rows):
        y = _ROW_PX * number + _ROW_PX // 2
        colour = GREY if row.values is None else WHITE
        draw.text((0, y), row.name, fill=colour, font=load_font(_TEXT_PX), anchor="lm")
        if row.values is not None:
            _draw_interval(draw, row.values, left, y, limit)
            at = (left + AREA_PX + 12, y)
            draw.text(at, _describe(row), fill=WHITE, font=load_font(_TEXT_PX), anchor="lm")
    title = "Differences of mAP50 in points: right of 0 the arm is better"
    if report["interim"]:
        title += f" (interim: {report['done']} of {report['plan']['seeds']} planned seeds)"
    caption = (
        "Thick: 95% over seeds; thin: 95% over seeds and test patients; an arrow points at what "
        f"lies beyond the axis. Dotted: differences of {100 * report['margin']:g} points. "
        "n: number of seeds."
    )
    blocks = [make_text(title, picture.width, _TITLE_PX, WHITE), picture]
    return _write_page(path, [*blocks, make_text(caption, picture.width, _TEXT_PX, GREY)])


def _write_page(path: Path, blocks: Sequence[Image.Image]) -> np.ndarray:
    body = join(blocks, _GAP_PX, axis=0)
    page = Image.new("RGB", (body.width + 2 * _MARGIN_PX, body.height + 2 * _MARGIN_PX))
    page.paste(body, (_MARGIN_PX, _MARGIN_PX))
    return write_png(path, page)


def _list_rows(report: Values) -> Iterator[_Row]:
    """List the differences by test and base, each group below a heading."""
    for number, (name, test) in enumerate(report["tests"].items(), start=1):
        entries = test["differences"]
        for base in dict.fromkeys(entry["base"] for entry in entries):
            yield _Row(f"{make_legible(name, f'test {number}')}, less {base}")
            for entry in (each for each in entries if each["base"] == base):
                label = entry["arm"] + " (primary)" * entry["primary"]
                yield _Row(f"   {label}", entry["metrics"]["mAP50"])


def _describe(row: _Row) -> str:
    """Write a row's figures, in points."""
    if row.values is None:
        return ""
    mean, low, high = (row.values[key] for key in ("mean", "low", "high"))
    ends = "" if low is None else f" ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{100 * mean:+.1f}{ends}, n = {len(row.values['seeds'])}"


def _find_limit(found: Sequence[Values], margin: float) -> float:
    """Find how far the axis reaches, in points: to the ends of intervals, unless they are far."""
    means = [abs(values["mean"]) for values in found]
    ends = [abs(end) for values in found for end in _list_ends(values)]
    most = max([*means, *ends, 1.5 * margin])
    return 105 * min(most, max([2.5 * mean for mean in means] + [8 * margin]))


def _list_ends(values: Values) -> list[float]:
    ends = [values["low"], values["high"], *(values["both"] or [])]
    return [end for end in ends if end is not None]


def _place(points: float, left: int, limit: float) -> float:
    """Return where a value in points lies on the axis, clipped to it."""
    share = (min(max(points, -limit), limit) + limit) / (2 * limit)
    return left + share * (AREA_PX - 1)


def _draw_axis(
    draw: ImageDraw.ImageDraw, left: int, bottom: int, limit: float, margin: float
) -> None:
    for tick in find_ticks(-limit, limit):
        x = _place(tick, left, limit)
        draw.line([(x, 0), (x, bottom)], fill=_LINE if abs(tick) < 1e-9 else _FAINT)
        text = f"{tick:+.4g}" if abs(tick) > 1e-9 else "0"
        draw.text((x, bottom + 5), text, fill=GREY, font=load_font(_TEXT_PX), anchor="ma")
    for points in (-margin, margin):
        x = _place(points, left, limit)
        for y in range(0, bottom, 6):
            draw.line([(x, y), (x, y + 2)], fill=_LINE)
    draw.line([(left, bottom), (left + AREA_PX - 1, bottom)], fill=_LINE)


def _draw_interval(
    draw: ImageDraw.ImageDraw, values: Values, left: int, y: int, limit: float
) -> None:
    """Draw the intervals, an arrow where one is cut off, and a dot for the mean."""
    pairs = (
        (values["both"], BOTH, _BOTH_WIDTH_PX),
        ([values["low"], values["high"]], SEEDS, _SEEDS_WIDTH_PX),
    )
    for ends, colour, width in pairs:
        if ends is None or ends[0] is None:
            continue
        low, high = (_place(100 * end, left, limit) for end in ends)
        draw.line([(low, y), (high, y)], fill=colour, width=width)
        for end, x, inwards in ((ends[0], low, 7), (ends[1], high, -7)):
            if abs(100 * end) > limit:
                draw.polygon([(x, y), (x + inwards, y - 5), (x + inwards, y + 5)], fill=colour)
            elif width == _BOTH_WIDTH_PX:
                draw.line([(x, y - 4), (x, y + 4)], fill=colour)
    x = _place(100 * values["mean"], left, limit)
    dot = (x - _DOT_PX, y - _DOT_PX, x + _DOT_PX, y + _DOT_PX)
    draw.ellipse(dot, fill=WHITE, outline=(0, 0, 0))


def find_threshold(result: Values, limit: float = 1.0) -> float:
    """Find the score above which there are at most so many false positives an image.

    Args:
        result: Of `metrics.score`.
        limit: False positives per image.

    Returns:
        The highest score that is not shown; minus infinity if all detections are.
    """
    false = sorted(
        (
            value
            for match in result["matches"]
            for value, hit in zip(match["scores"], match["hits"], strict=True)
            if not hit
        ),
        reverse=True,
    )
    allowed = int(limit * result["images"])
    return false[allowed] if len(false) > allowed else float("-inf")


def match_boxes(
    truth: Sequence[Box], labels: Sequence[int], found: Sequence[Box], least: float = 0.5
) -> tuple[list[bool], list[bool]]:
    """Match detections, best first, each with the free true box of its class that it fits best.

    Args:
        truth: `[M, 4]`, `yxyx`.
        labels: `[M]`.
        found: `[N, 6]`: a box, its score and its label.
        least: Least intersection over union.

    Returns:
        For each detection whether it hits, and for each true box whether it is found.
    """
    hits, taken = [False] * len(found), [False] * len(truth)
    for place in sorted(range(len(found)), key=lambda n: -found[n][4]):
        overlaps = [
            0.0
            if used or int(found[place][5]) != int(label)
            else compute_iou(box, found[place][:4])
            for box, label, used in zip(truth, labels, taken, strict=True)
        ]
        if overlaps and max(overlaps) >= least:
            hits[place] = taken[int(np.argmax(overlaps))] = True
    return hits, taken


def compute_iou(first: Box, second: Box) -> float:
    """Compute the intersection over union of two boxes, `yxyx`."""
    top, left = max(first[0], second[0]), max(first[1], second[1])
    bottom, right = min(first[2], second[2]), min(first[3], second[3])
    common = max(bottom - top, 0.0) * max(right - left, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return float(common / (areas - common)) if areas > common else 0.0


@dataclasses.dataclass(frozen=True)
class _Cell:
    """One arm's detections in one image.

    Attributes:
        truth: True boxes with whether they are found.
        found: Detections above the arm's threshold, with whether they hit.
    """

    truth: Sequence[tuple[Box, bool]]
    found: Sequence[tuple[Box, bool]]

    def count(self) -> int:
        """Return hits less false alarms."""
        return sum(1 if hit else -1 for _, hit in self.found)


def draw_detections(
    runs: Sequence[Values], test: str, samples: Samples, path: Path, images: int = _IMAGES
) -> np.ndarray:
    """Draw what each arm finds, misses and takes for a lesion, and write it as a PNG file.

    Every arm shows what lies above the threshold at which it makes one false positive an image.
    Half of the images are those on which arms differ most, the others are spread evenly over the
    rest.

    Args:
        runs: One of each arm, of one seed.
        test: Name of the test.
        samples: Its images, as the runs were tested on them.
        path: The PNG file.
        images: Number of rows.

    Returns:
        The picture, `[height, width, 3] uint8`.
    """
    cells = {run["arm"]: _make_cells(run["tests"][test], samples) for run in runs}
    shown = sorted(set.intersection(*(set(by_image) for by_image in cells.values())))
    chosen = choose_images([[cells[arm][n].count() for arm in cells] for n in shown], images)
    numbers = [shown[place] for place in chosen]
    scale = max(1, round(_CELL_PX / samples.images.shape[1]))
    width = scale * samples.images.shape[1]
    columns = [_draw_truth(samples, numbers, scale)]
    for run in runs:
        head = _draw_head(f"{run['arm']}", find_threshold(run["tests"][test]), width)
        drawn = [_draw_cell(samples.images[n], cells[run["arm"]][n], scale) for n in numbers]
        columns.append([head, *drawn])
    height = max(column[0].height for column in columns)
    page = join([_join_column(column, height) for column in columns], 4, axis=1)
    caption = (
        f"{make_legible(test, 'The test')}, seed {runs[0]['seed']}; of each arm, detections above "
        "the score at which it makes one false positive an image. The upper half of the rows are "
        "the images on which the arms differ most, among those that runs keep; the others are "
        "spread evenly."
    )
    blocks = [_draw_legend(page.width), page, make_text(caption, page.width, _TEXT_PX, GREY)]
    return _write_page(path, blocks)


def _make_cells(result: Values, samples: Samples) -> dict[int, _Cell]:
    """Match what a run shows with the truth, by number of image."""
    if result["images"] != len(samples):
        raise ValueError(
            f"the run was tested on {result['images']} images, and {len(samples)} are at hand; "
            "give the test set of the run's own seed."
        )
    threshold, cells = find_threshold(result), {}
    for key, rows in result["shown"].items():
        boxes, labels = samples.boxes[int(key)].tolist(), samples.labels[int(key)].tolist()
        above = [row for row in rows if row[4] > threshold]
        hits, found = match_boxes(boxes, labels, above)
        cells[int(key)] = _Cell(
            list(zip(boxes, found, strict=True)), list(zip(above, hits, strict=True))
        )
    return cells


def choose_images(counts: Sequence[Sequence[int]], images: int) -> list[int]:
    """Choose rows of the page: half where arms differ most, the others evenly from the rest.

    Args:
        counts: `[N, A]`, hits less false alarms of each arm.
        images: How many.

    Returns:
        Places in `counts`, those where arms differ most first.
    """
    spread = np.ptp(np.asarray(counts).reshape(len(counts), -1), axis=1)
    order = np.argsort(-spread, kind="stable").tolist()
    first = order[: (images + 1) // 2]
    rest = sorted(order[len(first) :])
    wanted = min(images - len(first), len(rest))
    places = np.linspace(0, len(rest) - 1, wanted).round().astype(int) if wanted else []
    return [*first, *(rest[place] for place in places)]


def _draw_head(name: str, threshold: float | None, width_px: int) -> Image.Image:
    """Write an arm's name and threshold above its column, broken also where there is no space."""
    text = name.replace("+", "+ ").replace(",", ", ")
    lines = [line.replace("+ ", "+").replace(", ", ",") for line in wrap_text(text, width_px, 13)]
    if threshold is not None:
        lines.append(f"score > {threshold:.2f}" if np.isfinite(threshold) else "all scores")
    return make_text("\n".join(lines), width_px, 13, WHITE)


def _join_column(blocks: Sequence[Image.Image], head_px: int) -> Image.Image:
    head = Image.new("RGB", (blocks[0].width, head_px))
    head.paste(blocks[0], (0, head_px - blocks[0].height))
    return join([head, *blocks[1:]], 4, axis=0)


def _enlarge(image: np.ndarray, scale: int) -> Image.Image:
    picture = Image.fromarray(image[..., 0]).convert("RGB")
    return picture.resize([scale * side for side in picture.size], Image.Resampling.NEAREST)


def _draw_truth(samples: Samples, numbers: Sequence[int], scale: int) -> list[Image.Image]:
    """Draw the column of the truth."""
    width = scale * samples.images.shape[1]
    column = [_draw_head("truth", None, width)]
    for number in numbers:
        truth = [(box, True) for box in samples.boxes[number].tolist()]
        column.append(_draw_cell(samples.images[number], _Cell(truth, []), scale))
        at = (3, 1)
        ImageDraw.Draw(column[-1]).text(at, f"image {number}", fill=GREY, font=load_font(_TEXT_PX))
    return column


def _draw_cell(image: np.ndarray, cell: _Cell, scale: int) -> Image.Image:
    """Draw an image with the true boxes and the detections, and scores where there is room."""
    picture = _enlarge(image, scale)
    draw = ImageDraw.Draw(picture)
    for box, found in cell.truth:
        kind = "true box, found" if found else "true box, missed"
        draw.rectangle(_to_corners(box, scale), outline=KINDS[kind], width=1 if found else 2)
    marks = [
        (row, _to_corners(row, scale), KINDS["hit" if hit else "false alarm"])
        for row, hit in cell.found
    ]
    for _, corners, colour in marks:
        draw.rectangle(corners, outline=colour, width=2)
    placed: list[tuple[float, ...]] = []
    for row, corners, colour in marks:  # after all boxes, which would cross the figures
        others = [each for _, each, _ in marks if each != corners]
        placed.append(_write_score(draw, f"{row[4]:.2f}", corners, colour, (placed, others)))
    draw.rectangle((0, 0, picture.width - 1, picture.height - 1), outline=_FAINT)
    return picture


def _to_corners(box: Box, scale: int) -> tuple[float, float, float, float]:
    top, left, bottom, right = (scale * value for value in box[:4])
    return left, top, max(left, right), max(top, bottom)


def _write_score(
    draw: ImageDraw.ImageDraw,
    text: str,
    corners: tuple[float, float, float, float],
    colour: Colour,
    taken: tuple[Sequence[Sequence[float]], Sequence[Sequence[float]]],
) -> tuple[float, float, float, float]:
    """Write a score beside its box, where it covers no score and the fewest boxes of those taken.

    Returns:
        Where it is.
    """
    width, height = measure_text(text, _TEXT_PX) + 2, _TEXT_PX + 1
    sides = draw.im.size
    left, top, right, bottom = corners
    spots = [
        *((left, top - height - 1), (left, bottom + 2), (right - width, top - height - 1)),
        *((right - width, bottom + 2), (right + 2, top), (left - width - 2, top)),
        (left + 3, top + 3),
    ]
    inside = [
        (min(max(x, 0), sides[0] - width), min(max(y, 0), sides[1] - height)) for x, y in spots
    ]
    areas = [(x, y, x + width, y + height) for x, y in inside]
    scores, boxes = ([sum(_overlap(area, o) for o in others) for area in areas] for others in taken)
    area = areas[min(range(len(areas)), key=lambda n: (scores[n], boxes[n]))]
    draw.rectangle(area, fill=(0, 0, 0))
    draw.text((area[0] + 1, area[1] - 1), text, fill=colour, font=load_font(_TEXT_PX))
    return area


def _overlap(first: Sequence[float], second: Sequence[float]) -> bool:
    return all(first[n] < second[n + 2] and second[n] < first[n + 2] for n in (0, 1))


def _draw_legend(width_px: int) -> Image.Image:
    """Write what the colours mean, in the colours."""
    texts = [
        make_text(name, measure_text(name, _TITLE_PX) + 24, _TITLE_PX, colour)
        for name, colour in KINDS.items()
    ]
    line = join(texts, 0, axis=1)
    if line.width > width_px:
        line = join(texts, 0, axis=0)
    return line
