"""Random tables of boxes, in the dialects, separators, encodings and habits that are in use."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from pathlib import Path

from corpus.sources import HEIGHT, WIDTH, XYXY, Truth, write_image

Entry = tuple[str, XYXY]
Row = tuple[str, list[str], Entry | None]

LABELS = ("nodule", "Läsion", "kyste rénal", "7")
NAMES = ("a.png", "Béta.png", "c 3.png", "1.2.840.5.png", "p1/001.png", "p2/001.png")
BLANKS = ("", "", "NaN", "NA", "null", "-")

_CORNERS = (
    *(("xmin", "ymin", "xmax", "ymax"), ("x_min", "y_min", "x_max", "y_max")),
    *(
        ("x1", "y1", "x2", "y2"),
        ("X Min", "Y Min", "X Max", "Y Max"),
        ("xMin", "yMin", "xMax", "yMax"),
    ),
)


class _Style:
    """How one table is written."""

    def __init__(self, rng: random.Random) -> None:
        self.dialect = rng.choice(
            (
                "plain",
                "plain",
                "plain",
                "headerless",
                "sides",
                "center",
                "relative",
                "cell",
                "nih",
                "vindr",
                "mammo",
                "openimages",
                "automl",
            )
        )
        self.separator = rng.choice(",,,;;\t|")
        self.comma = self.separator != "," and rng.random() < 0.4
        self.blank = rng.choice(BLANKS)
        self.spell: Callable[[str], str] = rng.choice(_SPELLINGS)
        self.quote_all = rng.random() < 0.2


def make(rng: random.Random, folder: Path) -> Truth:
    """Write one table `train.csv` with its images; see the package for what is returned."""
    style = _Style(rng)
    names = rng.sample(NAMES, rng.randint(1, 4))
    truth: Truth = {name: [] for name in names}
    rows: list[Row] = []
    for name in names:
        write_image(folder / name)
        for _ in range(rng.randint(0, 3)):
            label, box = rng.choice(LABELS), _make_box(rng)
            truth[name].append((label, box))
            rows.append((name, _write_row(rng, style, name, label, box), (label, box)))
        if not truth[name]:
            rows.append((name, _write_row(rng, style, name, "", None), None))
    rng.shuffle(rows)
    header, rows = _dress(rng, style, rows)
    if rng.random() < 0.6:
        rng.choice(_DAMAGES)(rng, rows, truth)
    cells = [*header, *(cells for _, cells, _ in rows)]
    text = rng.choice(("\n", "\r\n", "\r")).join(_join(style, row) for row in cells)
    if rng.random() < 0.1 and '"' in text:
        spot = rng.choice([i for i, letter in enumerate(text) if letter == '"'])
        text = text[:spot] + text[spot + 1 :]
    encoding = rng.choice(("utf-8", "utf-8-sig", "utf-16", "utf-32"))
    end = rng.choice(("", "\n", "\r\n", f"\n{style.separator * 5}\n"))
    (folder / "train.csv").write_bytes((text + end).encode(encoding))
    return truth


def _make_box(rng: random.Random) -> XYXY:
    """Make `xyxy` on a grid of quarters, larger than two pixels."""
    left, top = rng.randrange(4 * (WIDTH - 12)) / 4, rng.randrange(4 * (HEIGHT - 12)) / 4
    return left, top, left + rng.randint(9, 40) / 4, top + rng.randint(9, 40) / 4


def _number(style: _Style, value: float) -> str:
    text = f"{value:g}"
    return text.replace(".", ",") if style.comma else text


def _write_row(
    rng: random.Random, style: _Style, name: str, label: str, box: XYXY | None
) -> list[str]:
    spelled = style.spell(name) if rng.random() < 0.8 else name
    blank = style.blank if style.dialect != "headerless" else ""
    if style.dialect in ("vindr", "mammo"):
        label = label or "No finding"
    if style.dialect == "mammo":
        label = f"['{label}']"
    label = label or blank
    if box is None:
        numbers = [blank] * (1 if style.dialect == "cell" else 4)
    else:
        numbers = _write_numbers(style, box)
    if style.dialect == "automl":
        first, second = numbers[:2], numbers[2:]
        return ["TRAIN", f"gs://bucket/{name}", label, *first, "", "", *second, "", ""]
    if style.dialect == "nih":
        return [spelled, label, *numbers]
    return [spelled, *numbers, label]


def _write_numbers(style: _Style, box: XYXY) -> list[str]:
    left, top, right, bottom = box
    sides = right - left, bottom - top
    match style.dialect:
        case "sides" | "nih":
            values = [left, top, *sides]
        case "center":
            values = [left + sides[0] / 2, top + sides[1] / 2, *sides]
        case "relative" | "openimages" | "automl":
            # Sides that are powers of two keep the values exact.
            values = [left / WIDTH, top / HEIGHT, right / WIDTH, bottom / HEIGHT]
            text = [f"{value:.9f}" for value in values]
            return [t.replace(".", ",") for t in text] if style.comma else text
        case "cell":
            return [f"[{left:g}, {top:g}, {sides[0]:g}, {sides[1]:g}]"]
        case _:
            values = [left, top, right, bottom]
    return [_number(style, value) for value in values]


def _dress(rng: random.Random, style: _Style, rows: list[Row]) -> tuple[list[list[str]], list[Row]]:
    """Return the header, if any, and the rows; columns in any order, with others among them."""
    corners = list(rng.choice(_CORNERS))
    name = rng.choice(("filename", "Image", "image_path", "file name", "image_id"))
    label = rng.choice(("label", "class", "Class Name", "category"))
    headers = {
        "plain": [name, *corners, label],
        "sides": [name, "x", "y", *rng.choice((("w", "h"), ("width", "height"))), label],
        "center": [name, "x_center", "y_center", "width", "height", label],
        "relative": [name, "xmin_rel", "ymin_rel", "xmax_rel", "ymax_rel", label],
        "cell": [name, "bbox_xywh", label],
        "nih": ["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]"],
        "vindr": ["image_id", "x_min", "y_min", "x_max", "y_max", "class_name"],
        "mammo": ["image_id", "xmin", "ymin", "xmax", "ymax", "finding_categories"],
        "openimages": ["ImageID", "XMin", "YMin", "XMax", "YMax", "LabelName"],
    }
    if style.dialect not in headers:
        return [], rows
    header = headers[style.dialect]
    extra = {"openimages": [("Confidence", "1")], "mammo": [("study_id", "s1")]}
    for title, value in [*extra.get(style.dialect, []), *rng.sample(_EXTRA, rng.randint(0, 2))]:
        header = [*header, title]
        rows = [(name, [*cells, value], entry) for name, cells, entry in rows]
    if style.dialect != "nih":
        order = rng.sample(range(len(header)), len(header))
        header = [header[i] for i in order]
        rows = [(name, [cells[i] for i in order], entry) for name, cells, entry in rows]
    if rng.random() < 0.3:
        header = [rng.choice((str.upper, str.lower, lambda t: f" {t} "))(title) for title in header]
    if rng.random() < 0.2:
        header = ["", *header]
        rows = [(name, [str(i), *cells], entry) for i, (name, cells, entry) in enumerate(rows)]
    return [header], rows


_EXTRA = [("radiologist", "R1"), ("notes", "x; y, z"), ("score", "0.5"), ("area", "12")]


def _join(style: _Style, cells: list[str]) -> str:
    quoted = [
        '"{}"'.format(cell.replace('"', '""'))
        if style.quote_all or any(mark in cell for mark in f'{style.separator}"\n')
        else cell
        for cell in cells
    ]
    return style.separator.join(quoted)


_SPELLINGS: tuple[Callable[[str], str], ...] = (
    lambda name: name,
    lambda name: unicodedata.normalize("NFD", name),
    str.upper,
    lambda name: f"images/train/{name}",
    lambda name: f"C:\\data\\{name}".replace("/", "\\"),
    lambda name: f"/home/me/set/{name}",
    lambda name: name.removesuffix(".png"),
    lambda name: name.replace(".png", ".jpg"),
    lambda name: f"  {name} ",
    lambda name: name.rpartition("/")[2],
)


# --- Damages


def _cut_end(rng: random.Random, rows: list[Row], truth: Truth) -> None:
    """Cut the table in the middle of a row; what stood below is no more stated."""
    at = rng.randrange(len(rows))
    for name, _, entry in rows[at + 1 :]:
        if entry is not None:
            truth[name].remove(entry)
    name, cells, entry = rows[at]
    rows[at:] = [(name, cells[: rng.randint(1, len(cells) - 1)], entry)]


def _break_cell(rng: random.Random, rows: list[Row], truth: Truth) -> None:
    """Put what is no number and no name in the place of a cell that is one."""
    cells = rng.choice(rows)[1]
    plain = [cell.replace(",", "").replace(".", "") for cell in cells]
    # Names may be of digits and points too, and labels of digits.
    spots = [
        i
        for i, cell in enumerate(cells)
        if plain[i].isdigit() and len(cell) <= len(plain[i]) + 1 and cell not in LABELS
    ]
    if spots:
        cells[rng.choice(spots)] = rng.choice(("x", "", "10.May", "1.234.567", "1 2", "12px"))


def _lose_cell(rng: random.Random, rows: list[Row], truth: Truth) -> None:
    del (cells := rng.choice(rows)[1])[rng.randrange(len(cells))]


def _add_cell(rng: random.Random, rows: list[Row], truth: Truth) -> None:
    cells = rng.choice(rows)[1]
    cells.insert(rng.randrange(len(cells) + 1), rng.choice(("z", "5", "a.png")))


def _join_rows(rng: random.Random, rows: list[Row], truth: Truth) -> None:
    """Lose the end of a line."""
    if len(rows) > 1:
        at = rng.randrange(len(rows) - 1)
        rows[at][1].extend(rows.pop(at + 1)[1])


def _lose_label(rng: random.Random, rows: list[Row], truth: Truth) -> None:
    cells = rng.choice(rows)[1]
    spots = [i for i, cell in enumerate(cells) if cell.strip("[']") in LABELS]
    if spots:
        cells[rng.choice(spots)] = ""


def _add_blank_row(rng: random.Random, rows: list[Row], truth: Truth) -> None:
    rows.insert(rng.randrange(len(rows) + 1), ("", [" "] * len(rows[0][1]), None))


def _name_missing(rng: random.Random, rows: list[Row], truth: Truth) -> None:
    """Name an image that is not there, beside those that are."""
    name, cells, _ = rng.choice(rows)
    changed = [cell.replace(name.rpartition("/")[2], "gone.png") for cell in cells]
    rows.append(("", changed if changed != cells else [""] * len(cells), None))


_DAMAGES = (
    *(
        _cut_end,
        _break_cell,
        _lose_cell,
        _add_cell,
        _join_rows,
        _lose_label,
        _add_blank_row,
        _name_missing,
    ),
)
