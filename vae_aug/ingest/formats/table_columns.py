"""What the columns of a table of boxes mean, under the names that are in use."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.layout import IMAGE_SUFFIXES
from vae_aug.ingest.formats.source import Box, Effect, Fault, parse_number, parse_size
from vae_aug.ingest.formats.statements import (
    LABELS,
    NO_FINDING,
    may_mark,
    names_object,
    says_something,
)
from vae_aug.ingest.formats.table_file import Line, Record, fold_column
from vae_aug.ingest.hounsfield import Hounsfield

# Paths before names, for these tell images of one name in several folders apart.
_IMAGE = (
    *("imagepath", "filepath", "imgpath", "path", "filename", "imagename", "imgname"),
    *("imagefilename", "imagefile", "image", "img", "file", "imageid", "imgid", "imageindex"),
)
_PATIENT = ("patient", "patientid", "subject", "subjectid")
_SPLIT = ("split", "set", "subset", "fold", "partition", "traintest", "trainvaltest", "mluse")
_ANNOTATED = re.compile(
    r"(?:is|was|has|been|hasbeen)?(un|not)?(?:fully)?"
    r"(?:annotated|labell?ed|reviewed|checked|verified|completed?|finished|done)"
    r"|(?:annotation|label|labell?ing|review)(?:status|state|done|completed?|finished)"
)
"""Columns that say whether somebody has looked for boxes; with the first group, whether not."""

_UNDONE = re.compile(
    r"(?:is|was)?(?:skip(?:ped)?|cancell?ed|excluded?|deleted|removed|todo|draft)"
    r"|(?:needs?|to|tobe|awaits?)(?:review|annotat(?:e|ion)|label(?:s|ling|ing)?)(?:ed|led)?"
)
"""Columns that say that nobody has looked for boxes if they say yes."""

_STATE = re.compile(r"(?:workflow|task|image|item|job|current)?(?:status|state|stage|phase)")
_UNDONE_STATES = frozenset(
    {
        *("unlabeled", "unlabelled", "unannotated", "unassigned", "unreviewed", "assigned", "todo"),
        *("pending", "new", "open", "queued", "notstarted", "inprogress", "ongoing", "incomplete"),
        *("annotating", "labeling", "labelling", "annotation", "labelneeded", "needsreview"),
        *("skipped", "skip", "rejected", "draft", "excluded", "deleted"),
    }
)
"""What says so in a column of states."""

_YES = (
    *("1", "true", "t", "yes", "y", "x", "ok", "done", "finished", "complete", "completed"),
    *("annotated", "labelled", "labeled", "reviewed", "checked", "verified"),
)
_NO = ("0", "false", "f", "no", "n")
_SIZES = (
    *(("imagewidth", "imageheight"), ("imgwidth", "imgheight"), ("imwidth", "imheight")),
    ("width", "height"),
)
_CORNERS = (
    *(("xmin", "ymin", "xmax", "ymax"), ("minx", "miny", "maxx", "maxy")),
    *(("x1", "y1", "x2", "y2"), ("x0", "y0", "x1", "y1"), ("xtl", "ytl", "xbr", "ybr")),
    ("left", "top", "right", "bottom"),
)
_STARTS = (("x", "y"), ("xmin", "ymin"), ("x1", "y1"), ("left", "top"))
_CENTERS = (("xcenter", "ycenter"), ("centerx", "centery"), ("cx", "cy"), ("xc", "yc"))
_SIDES = (("w", "h"), ("width", "height"))
_SYSTEMS = (
    *(("xyxy", names) for names in _CORNERS),
    *(("xywh", (*start, *sides)) for sides in _SIDES for start in _STARTS),
    *(("center_xywh", (*center, *sides)) for sides in _SIDES for center in _CENTERS),
)
"""Four columns that are a box, the first that is complete before those it shares columns with."""

HEADERLESS = ("filename", "xmin", "ymin", "xmax", "ymax", "label")
"""The columns of keras-retinanet's tables, which have no header."""

_BODY_MASS = re.compile(r"(?:patient|subject)?mass")
_MOST_GRADE = 5
_BODY_KG = 30

_ONE_CELL = re.compile(
    r"(?:bbox|boxes|box|boundingbox|bboxes)?(xywh|xyxy|xminyminxmaxymax|x1y1x2y2|xminyminwidthheight)"
)
_BARE_CELL = ("bbox", "bboxes", "box", "boxes", "boundingbox", "boundingboxes")
_RELATIVE = re.compile(r"(rel|relative|norm|normali[sz]ed)?(.+?)(rel|relative|norm|normali[sz]ed)?")
_PREFIX = re.compile(r"(bbox|boundingbox|box|bb)(?=.)")
_NUMBER = re.compile(r"[^\s,;]+")
_TURNS = ("rotation", "angle", "theta")
_DELETED = ("deleted", "isdeleted", "removed")
_COORDINATES = {c for names in (*_CORNERS, *_STARTS, *_CENTERS) for c in names}
# Rounding may lead a little beyond the edge.
_LARGEST_RELATIVE = 1.01


class Row(NamedTuple):
    """What one row of a table says.

    Attributes:
        line: Its number in the file, from 1.
        names: What it calls its image, the most telling first; empty if it names none.
        entries: Boxes and faults; empty if it says that the image has none.
        relative: Whether its boxes are in parts of the image's sides.
        broken: The text of all its cells if these do not fit the columns, else `""`.
        split: What it calls its split, `""` if nothing.
        size: Height and width in pixels that it claims.
        patient: The patient, `""` if it names none.
        hounsfield: What the pixels stand for, where they are no grey.
        unannotated: Whether a column says that the image is not annotated; of a row without a box
            also whether it does not say that it is.
        flags: The folded names of unread columns that say yes, which may be those of classes.
    """

    line: int
    names: tuple[str, ...]
    entries: tuple[Box | Fault, ...]
    relative: bool = False
    broken: str = ""
    split: str = ""
    size: tuple[int | None, int | None] = (None, None)
    patient: str = ""
    hounsfield: Hounsfield | None = None
    unannotated: bool = False
    flags: frozenset[str] = frozenset()


class Dialect(NamedTuple):
    """How the rows of a table are understood.

    Attributes:
        numbers: The columns that hold coordinates, by which the decimal separator is told.
        convert: Makes a row of a record.
    """

    numbers: Sequence[str]
    convert: Callable[[Record], Row]


class _System(NamedTuple):
    """Columns that are a box together: four, or one with four numbers in each cell."""

    format: str
    columns: tuple[str, ...]
    relative: bool


def find_caveat(items: Iterable[tuple[str, object]]) -> str:
    """Return why four numbers are not the box of an object, by what stands beside them.

    Args:
        items: The other columns or keys, and what they say.

    Returns:
        The reason, `""` if nothing tells of one.
    """
    for key, value in items:
        name = _name_caveat(key)
        if name in _TURNS and abs(parse_number(str(value).replace(",", "."))) > 0:
            return f"its {name} is not 0, so that its box is another one; write its bounding box"
        if name in _DELETED and is_yes(value):
            return f"it is marked as {name}; remove it"
    return ""


@functools.lru_cache(1024)  # a file names the same keys for each of its boxes
def _name_caveat(key: str) -> str:
    """Return a key that tells that a box is another one, folded; `""` for other keys."""
    name = _PREFIX.sub("", fold_column(key), count=1)
    return name if name in (*_TURNS, *_DELETED) else ""


def is_headerless(line: Line) -> bool:
    """Tell whether a row is `path,x1,y1,x2,y2,class`, or `path,,,,,` for an image without boxes.

    Reference:
        keras-retinanet, README, "CSV datasets".
    """
    if len(line.cells) < len(HEADERLESS) or any(line.cells[len(HEADERLESS) :]):
        return False
    cells = dict(zip(HEADERLESS, line.cells, strict=False))
    record = Record(line.number, cells, decimal=",")
    filled = [bool(record.get(name)) for name in HEADERLESS[1:]]
    numbers = [record.get_number(name) for name in HEADERLESS[:5]]
    if any(filled):
        # A name that is a number would be a frame or a class, and the table another one.
        return all(filled) and np.isnan(numbers).tolist() == [True] + [False] * 4
    return line.cells[0].lower().endswith(tuple(IMAGE_SUFFIXES))


def find_columns(file: Path, header: Sequence[str]) -> Dialect:
    """Find the columns of a plain table by their folded names.

    Args:
        file: The table, for messages.
        header: The names, as `fold_column` makes them.

    Raises:
        AnnotationError: If a column is missing or there twice, or what the coordinates mean
            cannot be told.
    """
    images, label, system = _locate(file, header)
    if not images or not label or not system:
        missing = list_missing(file, header)
        advice = "add a column 'label', the same name in every row if all boxes are of one class"
        raise AnnotationError(
            f"{file}: expected the columns filename, xmin, ymin, xmax, ymax, label (or common "
            f"other names); {', '.join(missing)} missing from {_show(header)}"
            f"{'; ' + advice if missing == ['label'] else ''}."
        )
    _refuse_twice(file, header, (*images, label, *system.columns))
    used = {*system.columns, *images, label}
    sizes = next((pair for pair in _SIZES if used.isdisjoint(pair) and {*pair} <= {*header}), None)
    patient, split = (next((n for n in names if n in header), "") for names in (_PATIENT, _SPLIT))
    states = (_ANNOTATED, _UNDONE, _STATE)
    marks = [n for n in header if n not in used and any(s.fullmatch(n) for s in states)]
    unread = [name for name in header if name and name not in used and name not in marks]
    others = {n for n in unread if may_mark(n) or _name_coordinate(n)[1] in _COORDINATES}
    caveats = [name for name in header if name not in used and _name_caveat(name)]

    def convert(record: Record) -> Row:
        names = tuple(filter(None, map(record.get_name, images)))
        if record.fault:
            return make_broken(record, names)
        width, height = (parse_size(record.get_number(side)) for side in sizes or ("", ""))
        entries = _parse_box(record, system, record.get_name(label))
        if not entries:
            said = {name: record.get(name) for name in unread}
            filled = (
                name
                for name, text in said.items()
                if (name in others and says_something(text)) or names_object(name, [text])
            )
            reason = "has no box, and says something in the column "
            entries = tuple(make_fault(record, f"{reason}{name!r}") for name in filled)
        elif reason := find_caveat((name, record.get(name)) for name in caveats):
            entries = (make_fault(record, reason),)
        return Row(
            record.line,
            names,
            entries,
            relative=system.relative,
            split=record.get(split),
            size=(height, width),
            patient=record.get_name(patient),
            flags=frozenset(name for name in unread if is_yes(record.get(name))),
            unannotated=any(
                denies(name, record.get_name(name), is_empty=not entries) for name in marks
            ),
        )

    return Dialect(system.columns if len(system.columns) == 4 else (), convert)


def drop_body_mass(records: Sequence[Record], header: Sequence[str]) -> Sequence[Record]:
    """Leave out a column `mass` that has numbers as the mass of a body in kg has.

    Every row must have one, which no flag, count or grade of a finding reaches; the size of a
    finding is missing where there is none. Nothing else in the table may speak of a mass.

    Args:
        records: All rows.
        header: Folded names of the columns.
    """
    names = {name for name in header if _BODY_MASS.fullmatch(name)}
    numbers = [parse_number(r.cells.get(n, "").replace(",", ".")) for r in records for n in names]
    is_body = bool(numbers) and min(numbers) > _MOST_GRADE and np.median(numbers) >= _BODY_KG
    cells = (text for record in records if is_body for text in record.cells.values())
    if not is_body or any("mass" in text.casefold() for text in cells):
        return records
    return [
        record._replace(cells={n: text for n, text in record.cells.items() if n not in names})
        for record in records
    ]


def denies(name: str, value: object, *, is_empty: bool) -> bool:
    """Tell whether a column, key or flag says that the image is not annotated.

    Args:
        name: Its name, as `annotated`, `Not_Reviewed` or `label_status`.
        value: What it says; anything else than a yes or no is silence.
        is_empty: Whether the image has no box, so that silence counts as a no.
    """
    folded = fold_column(name)
    match = _ANNOTATED.fullmatch(folded)
    if match is None:
        is_undone = _UNDONE.fullmatch(folded) is not None and is_yes(value)
        is_state = _STATE.fullmatch(folded) is not None
        return is_empty and (is_undone or (is_state and fold_column(str(value)) in _UNDONE_STATES))
    yes, no = (_NO, _YES) if match[1] else (_YES, _NO)
    word = str(value).strip().casefold()
    return word in no or (is_empty and word not in yes)


def is_yes(value: object) -> bool:
    """Tell whether a cell or a value of JSON says yes."""
    return str(value).strip().casefold() in _YES


def list_missing(file: Path, header: Sequence[str]) -> list[str]:
    """Return the columns that a plain table lacks, by their first names.

    Raises:
        AnnotationError: As `find_columns` raises it.
    """
    images, label, system = _locate(file, header)
    corners = [] if system else [name for name in _CORNERS[0] if name not in header]
    return [*([] if images else ["filename"]), *corners, *([] if label else ["label"])]


def _show(header: Sequence[str]) -> str:
    """Return the names of columns, unless they are data, which may be those of a patient."""
    suffixes = tuple(suffix[1:] for suffix in IMAGE_SUFFIXES)
    if any(name.isdigit() or name.endswith(suffixes) for name in header):
        return "the first row, which is no header"
    return str(sorted(filter(None, header)))


def _locate(
    file: Path, header: Sequence[str]
) -> tuple[tuple[str, ...], str | None, _System | None]:
    """Find the columns of the image's names, the label and the box."""
    images = tuple(name for name in _IMAGE if name in header)
    label = next((name for name in LABELS if name in header), None)
    return images, label, _find_system(file, header)


def _find_system(file: Path, header: Sequence[str]) -> _System | None:
    """Find the columns that hold the box; None if some are missing."""
    if {"x1", "x2", "x3", "y3"} <= {*header}:
        raise AnnotationError(
            f"{file}: has the corners of polygons (x1, x2, x3, ...); write boxes as xmin, ymin, "
            "xmax, ymax."
        )
    coordinates = {name: _name_coordinate(name) for name in header}
    systems: list[_System] = []
    for relative in (False, True):
        for prefix in ("bbox", ""):
            names = {
                coordinate: name
                for name, (before, coordinate, is_relative) in coordinates.items()
                if is_relative == relative and before in (prefix, "bbox")
            }
            for format, wanted in _SYSTEMS:
                columns = tuple(names.get(coordinate, "") for coordinate in wanted)
                if all(columns) and not any({*columns} & {*s.columns} for s in systems):
                    systems.append(_System(format, columns, relative))
    for name in header:
        if match := _ONE_CELL.fullmatch(name):
            is_sized = match[1].endswith(("wh", "height"))
            systems.append(_System("xywh" if is_sized else "xyxy", (name,), relative=False))
    if len(systems) > 1:
        several = " and ".join(", ".join(system.columns) for system in systems)
        raise AnnotationError(f"{file}: has several sets of coordinates ({several}); keep one.")
    if not systems and (bare := [name for name in _BARE_CELL if name in header]):
        raise AnnotationError(
            f"{file}: the column {bare[0]!r} does not say what its four numbers are; name it "
            "bbox_xywh (left, top, width, height) or bbox_xyxy (left, top, right, bottom)."
        )
    return systems[0] if systems else None


def _name_coordinate(column: str) -> tuple[str, str, bool]:
    """Part the name of a column: `"bbox"` or `""`, the coordinate, and whether it is relative."""
    name = re.sub("(px|pixels?)$", "", column)
    match = _RELATIVE.fullmatch(name)
    marks, name = (match[1] or match[3], match[2]) if match else (None, name)
    bare = _PREFIX.sub("", name, count=1)
    return "bbox" if bare != name else "", bare, bool(marks)


def _refuse_twice(file: Path, header: Sequence[str], used: Sequence[str]) -> None:
    for name in used:
        if list(header).count(name) > 1:
            raise AnnotationError(f"{file}: has the column {name!r} twice; keep one of them.")


def _parse_box(record: Record, system: _System, label: str) -> tuple[Box | Fault, ...]:
    if len(system.columns) == 1:
        values = _parse_cell(record.get(system.columns[0]))
        texts = ["x"] * 4 if values else [""] * 4
    else:
        texts = [record.get(column) for column in system.columns]
        values = [record.get_number(column) for column in system.columns]
    if not any(texts):
        values = []
    elif not all(texts):
        return (make_fault(record, "some of its coordinates are empty"),)
    elif len(values) != 4:
        return (make_fault(record, f"its box has {len(values)} numbers where 4 are expected"),)
    else:
        values = to_corners(values, system.format)
    return judge(record, values, label)


def to_corners(values: Sequence[float], format: str) -> list[float]:
    """Return four numbers, `"xyxy"`, `"xywh"` or `"center_xywh"`, as `xyxy`."""
    left, top, right, bottom = values
    if format == "xyxy":
        return [left, top, right, bottom]
    width, height = right, bottom
    if format == "center_xywh":
        left, top = left - width / 2, top - height / 2
    return [left, top, left + width, top + height]


def judge(
    record: Record, xyxy: Sequence[float], label: str, **marks: bool
) -> tuple[Box | Fault, ...]:
    """Return what a row says by its coordinates, empty if it has none, and its label.

    Args:
        record: The row.
        xyxy: The box, NaN for what is no number.
        label: The class; that there is no finding is one way to say that the image has no box.
        marks: As in `Box`.
    """
    healthy = label.casefold() in NO_FINDING
    if not len(xyxy):
        if not label or healthy:
            return ()
        return (make_fault(record, "has a class and no coordinates"),)
    if healthy:
        return (make_fault(record, "says that there is no finding, and has coordinates"),)
    if not label:
        return (make_fault(record, "has coordinates and no class"),)
    return (Box(xyxy, label, **marks),)


def make_broken(record: Record, names: tuple[str, ...]) -> Row:
    """Return a row whose cells do not fit the columns."""
    fault = make_fault(record, record.fault, "unread")
    return Row(record.line, names, (fault,), broken=record.text)


def make_fault(record: Record, reason: str, effect: Effect = "dropped") -> Fault:
    """Return a fault of a row."""
    return Fault(f"line {record.line}: {reason}", effect)


def _parse_cell(cell: str) -> list[float]:
    """Return the numbers of a cell as `[10, 12, 20, 8]`."""
    record = Record(0, dict(enumerate(_NUMBER.findall(cell.strip("[](){}")))))  # type: ignore[arg-type]
    return [record.get_number(key) for key in record.cells]


def scale_boxes(entries: Sequence[Box | Fault], size: tuple[int, int]) -> Iterator[Box | Fault]:
    """Yield entries whose boxes are relative with boxes in pixels.

    Args:
        entries: Boxes in parts of the image's sides, and faults.
        size: Height and width in pixels.
    """
    height, width = size
    for entry in entries:
        if isinstance(entry, Fault):
            yield entry
        elif exceeds(entry):
            yield Fault("a box has relative coordinates beyond 1")
        else:
            xyxy = np.asarray(entry.xyxy) * (width, height, width, height)
            yield entry._replace(xyxy=xyxy.tolist())


def exceeds(entry: Box | Fault) -> bool:
    """Tell whether a relative box reaches beyond the image, as one in pixels does."""
    return isinstance(entry, Box) and bool((np.abs(entry.xyxy) > _LARGEST_RELATIVE).any())


def name_header(cells: Sequence[str]) -> tuple[str, ...]:
    """Return the folded names of columns; those at the end without a name are left out."""
    names = [fold_column(cell) for cell in cells]
    while names and not names[-1]:
        names.pop()
    return tuple(names)
