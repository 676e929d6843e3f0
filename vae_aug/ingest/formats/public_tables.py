"""Tables of public data sets whose columns mean more, or something else, than their names say."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.layout import SPLIT_WORDS
from vae_aug.ingest.formats.source import Box, Fault
from vae_aug.ingest.formats.table_columns import (
    Dialect,
    Row,
    find_columns,
    judge,
    make_broken,
    make_fault,
    to_corners,
)
from vae_aug.ingest.formats.table_file import Line, Record
from vae_aug.ingest.hounsfield import Hounsfield

_DEEPLESION_OFFSET = 2**15
_DEEPLESION_SPLITS = {"1": "train", "2": "validation", "3": "test"}
_DEEPLESION_TYPES = {
    "1": "bone",
    "2": "abdomen",
    "3": "mediastinum",
    "4": "liver",
    "5": "lung",
    "6": "kidney",
    "7": "soft tissue",
    "8": "pelvis",
}
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_NIH_NAME = re.compile(r"(\d{8})_\d{3}\.png", re.IGNORECASE)
_WINDOW = re.compile(r"\s*([-+.\d]+)\s*,\s*([-+.\d]+)\s*")

AUTOML = (
    *("set", "path", "label", "xminrel", "yminrel"),
    *("", "", "xmaxrel", "ymaxrel", "", ""),
)
"""The columns of AutoML's and Vertex AI's tables, which have no header."""

_AUTOML_SETS = SPLIT_WORDS | {"unassigned"}


class _PublicTable(NamedTuple):
    """A public table: the columns that tell it, and how its dialect is made of all columns."""

    columns: frozenset[str]
    make: Callable[[Path, Sequence[str]], Dialect]


def is_automl(line: Line) -> bool:
    """Tell whether a row is one of AutoML: set, address, label, and four relative corners.

    Reference:
        Vertex AI, "Prepare image training data for object detection".
    """
    return len(line.cells) == len(AUTOML) and line.cells[0].casefold() in _AUTOML_SETS


def find_dialect(file: Path, header: Sequence[str]) -> Dialect:
    """Return how the rows of a table are understood.

    Args:
        file: The table, for messages.
        header: Folded names of its columns.

    Raises:
        AnnotationError: If it is no table of boxes in images.
    """
    make = next((table.make for table in _TABLES if table.columns <= {*header}), find_columns)
    return make(file, header)


def _make_rsna(file: Path, header: Sequence[str]) -> Dialect:
    """RSNA pneumonia: x, y, width, height where Target is 1; the patient names the file."""
    columns = ("x", "y", "width", "height")

    def convert(record: Record) -> Row:
        patient, target = record.get_name("patientid"), record.get_name("target")
        names = tuple(filter(None, [patient]))
        if record.fault:
            return make_broken(record, names)
        filled = [bool(record.get(column)) for column in columns]
        entries: tuple[Box | Fault, ...] = ()
        if target == "1" and all(filled):
            xyxy = to_corners([record.get_number(column) for column in columns], "xywh")
            entries = judge(record, xyxy, "opacity")
        elif target != "0" or any(filled):
            entries = (make_fault(record, "its Target and its box contradict each other"),)
        return Row(record.line, names, entries, patient=patient)

    return Dialect(columns, convert)


def _make_deeplesion(file: Path, header: Sequence[str]) -> Dialect:
    """DeepLesion: `a_b_c_109.png` lies at `a_b_c/109.png`; one row a lesion, of all splits."""

    def convert(record: Record) -> Row:
        series, _, slice_name = record.get("filename").rpartition("_")
        names = (f"{series}/{slice_name}",) if series else ()
        if record.fault:
            return make_broken(record, names)
        label = _DEEPLESION_TYPES.get(record.get_name("coarselesiontype"), "lesion")
        cells = dict(zip("abcd", record.get("boundingboxes").split(","), strict=False))
        corners = Record(record.line, {key: cell.strip() for key, cell in cells.items()})
        entries = judge(record, [corners.get_number(key) for key in "abcd"], label)
        if record.get_name("possiblynoisy") == "1":
            entries = (make_fault(record, "its box is marked as possibly noisy"),)
        return Row(
            record.line,
            names,
            entries,
            split=_DEEPLESION_SPLITS.get(record.get_name("trainvaltest"), ""),
            patient=record.get_name("patientindex"),
            hounsfield=_parse_window(record),
        )

    return Dialect((), convert)


def _parse_window(record: Record) -> Hounsfield:
    """Return what DeepLesion's pixels stand for."""
    match = _WINDOW.fullmatch(record.get("dicomwindows"))
    bounds = Record(0, dict(zip("ab", match.groups(), strict=True))) if match else Record(0, {})
    low, high = bounds.get_number("a"), bounds.get_number("b")
    return Hounsfield(_DEEPLESION_OFFSET, (low, high) if low < high else None)


def _make_open_images(file: Path, header: Sequence[str]) -> Dialect:
    """Open Images: corners in parts of the sides; a box may be around a group."""
    plain = find_columns(file, header)

    def convert(record: Record) -> Row:
        row = plain.convert(record)
        crowd, truncated = (record.get_name(n) == "1" for n in ("isgroupof", "istruncated"))
        entries = tuple(
            entry._replace(is_crowd=crowd, truncated=truncated) if isinstance(entry, Box) else entry
            for entry in row.entries
        )
        return row._replace(entries=entries, relative=True)

    return Dialect(plain.numbers, convert)


def _make_mammo(file: Path, header: Sequence[str]) -> Dialect:
    """VinDr-Mammo: several categories in a cell, `['Mass', 'Asymmetry']`, are a box each."""
    plain = find_columns(file, [*header, "label"])

    def convert(record: Record) -> Row:
        found = _QUOTED.findall(record.get("findingcategories"))
        categories = [one or other for one, other in found] or [""]
        rows = [
            plain.convert(record._replace(cells={**record.cells, "label": category}))
            for category in categories
        ]
        entries = tuple(entry for row in rows for entry in row.entries)
        return rows[0]._replace(entries=entries, patient=record.get_name("studyid"))

    return Dialect(plain.numbers, convert)


def _make_nih(file: Path, header: Sequence[str]) -> Dialect:
    """NIH ChestX-ray14: the name of an image begins with the number of the patient."""
    plain = find_columns(file, header)

    def convert(record: Record) -> Row:
        match = _NIH_NAME.fullmatch(record.get("imageindex"))
        return plain.convert(record)._replace(patient=match[1] if match else "")

    return Dialect(plain.numbers, convert)


def _refuse_luna(file: Path, header: Sequence[str]) -> Dialect:
    raise AnnotationError(
        f"{file}: this is a table of LUNA16, of points in the space of volumes; make label volumes "
        "or boxes of slices of it, or take LIDC-IDRI, whose XML files are read."
    )


_TABLES = (
    _PublicTable(frozenset(["patientid", "x", "y", "width", "height", "target"]), _make_rsna),
    _PublicTable(
        frozenset(
            ["filename", "patientindex", "boundingboxes", "coarselesiontype", "trainvaltest"]
        ),
        _make_deeplesion,
    ),
    _PublicTable(
        frozenset(["imageid", "labelname", "confidence", "xmin", "xmax", "ymin", "ymax"]),
        _make_open_images,
    ),
    _PublicTable(frozenset(["imageid", "findingcategories", "xmin", "ymin"]), _make_mammo),
    _PublicTable(frozenset(["imageindex", "findinglabel", "bboxx"]), _make_nih),
    _PublicTable(frozenset(["seriesuid", "coordx", "coordy", "coordz"]), _refuse_luna),
)


def is_public(header: Sequence[str]) -> bool:
    """Tell whether columns are those of a public table."""
    return any(table.columns <= {*header} for table in _TABLES)
