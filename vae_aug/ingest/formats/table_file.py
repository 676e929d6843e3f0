"""Tables as text: separators, quotes, empty cells, and numbers with a decimal comma."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.text import read_text
from vae_aug.limits import MAX_ANNOTATION_BYTES

Decimal = Literal[".", ","]

_SEPARATORS = ",;\t|"
# What pandas, Excel, R and databases write for nothing.
_EMPTY = frozenset(
    {"", "nan", "null", "none", "na", "n/a", "#n/a", "<na>", "nil", "-", "--", "[]", "{}"}
)
_POINT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_COMMA = re.compile(r"[+-]?(\d+,\d*|,\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_WHOLE = re.compile(r"([+-]?\d+)\.0+", re.ASCII)
_HEAD_CHARS = 2**16
# One to three digits, and three behind the comma: 1.234 or 1234.
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)


class Line(NamedTuple):
    """The cells of one row, without white space around them.

    Attributes:
        number: That of its last line in the file, from 1.
        cells: The cells.
        unpaired: Whether it has an odd number of quotation marks, so that one is missing.
    """

    number: int
    cells: tuple[str, ...]
    unpaired: bool = False


class Record(NamedTuple):
    """One row of a table.

    Attributes:
        line: Its number in the file, from 1.
        cells: Its cells by the folded names of their columns.
        decimal: What parts the digits before the point from those behind it.
        fault: Why its cells do not fit the columns, `""` if they do.
        text: All of them, if so.
    """

    line: int
    cells: Mapping[str, str]
    decimal: Decimal = "."
    fault: str = ""
    text: str = ""

    def get(self, column: str) -> str:
        """Return a cell, `""` for what tools write for nothing and for a missing column."""
        cell = self.cells.get(column, "")
        return "" if cell.casefold() in _EMPTY else cell

    def get_name(self, column: str) -> str:
        """Return a name or label; one that is a whole number, without the `.0` of pandas."""
        cell = self.get(column)
        match = _WHOLE.fullmatch(cell)
        return match[1] if match else cell

    def get_number(self, column: str) -> float:
        """Return a number, NaN for what is none."""
        cell = self.get(column)
        if self.decimal == "," and _COMMA.fullmatch(cell):
            cell = cell.replace(",", ".")
        return float(cell) if _POINT.fullmatch(cell) else float("nan")


def read_lines(file: Path) -> Iterator[Line]:
    """Yield the rows of a table that are not empty.

    The cells are parted by that of comma, semicolon, tab and `|` which the first row has most
    often, or by what a first row `sep=;`, as Excel knows it, names.

    Args:
        file: The table: UTF-8, or behind a byte order mark UTF-16 or UTF-32.

    Yields:
        Rows; one in which every cell is empty says nothing and is left out.

    Raises:
        AnnotationError: If the file cannot be read, or its quotation marks do not pair.
    """
    text = read_text(file, MAX_ANNOTATION_BYTES)
    separator, skipped = _find_separator(text)
    marks = [0]
    stream = _count_marks(io.StringIO(text, newline=""), marks)
    reader = csv.reader(stream, delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            line = Line(reader.line_num, tuple(map(_strip, cells)), marks[0] % 2 == 1)
            marks[0] = 0
            if any(line.cells) and line.number > skipped:
                yield line
    except csv.Error as error:
        raise AnnotationError(
            f"{file}: no readable table (line {reader.line_num}: {error}); export it again."
        ) from error


def _count_marks(stream: Iterable[str], marks: list[int]) -> Iterator[str]:
    """Yield lines, and add how many quotation marks they have."""
    for text in stream:
        marks[0] += text.count('"')
        yield text


def _find_separator(text: str) -> tuple[str, int]:
    """Return the separator, and the number of the line that names it, 0 if none does."""
    lines = re.finditer(r"[^\r\n]*", text[:_HEAD_CHARS])
    first = next((match[0] for match in lines if match[0].strip(f"{_SEPARATORS} ")), "")
    named = re.fullmatch(r'"?sep=([,;\t|])"?\s*', first, re.IGNORECASE)
    if named and text.startswith(first):
        return named[1], 1
    plain = re.sub(r'"[^"]*"|\[[^\]]*\]', "", first)
    return max(_SEPARATORS, key=plain.count), 0


def _strip(cell: str) -> str:
    # Files that are joined leave a byte order mark in the middle.
    return cell.strip().strip("\ufeff").strip()


def fold_column(name: str) -> str:
    """Return what spellings of the name of a column have in common: small letters and digits."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())


def make_records(
    file: Path, lines: Sequence[Line], header: tuple[str, ...], width: int
) -> list[Record]:
    """Return rows by the names of their columns.

    Args:
        file: The table, for messages.
        lines: The rows below the header.
        header: Folded names of the columns, `""` for one without a name.
        width: How many cells the header has, with those at its end that have no name.

    Returns:
        The rows, without those that repeat the header. Rows may end with separators that the
        header lacks if all do.

    Raises:
        AnnotationError: If a row is a header of another order, as in files that were joined.
    """
    widths = {len(line.cells) for line in lines}
    width = max(width, *widths) if len(widths) == 1 else width
    records = []
    for line in lines:
        if _is_header(file, line, header):
            continue
        pairs = zip(header, line.cells, strict=False)
        fault = _find_fault(line, len(header), width)
        text = " ".join(line.cells) if fault else ""
        records.append(Record(line.number, {k: v for k, v in pairs if k and v}, ".", fault, text))
    return records


def _is_header(file: Path, line: Line, header: tuple[str, ...]) -> bool:
    """Tell whether a row repeats the header; refuse one of another order."""
    named = frozenset(header) - {""}
    if fold_column(next(filter(None, line.cells))) not in named:
        return False
    folded = tuple(map(fold_column, line.cells))
    if folded[: len(header)] == header:
        return True
    if frozenset(folded) - {""} == named:
        raise AnnotationError(
            f"{file}: line {line.number} is a header of another order; part the tables that were "
            "joined here."
        )
    return False


def _find_fault(line: Line, count: int, width: int) -> str:
    """Return why a row may be several, or a part of one."""
    if not count <= len(line.cells) <= width or any(line.cells[count:]):
        return f"has {len(line.cells)} cells where the header has {count}"
    if line.unpaired:
        return "has a quotation mark without its pair"
    if any("\n" in cell or "\r" in cell for cell in line.cells):
        return "has a cell of several lines, as where a quotation mark is missing"
    return ""


def settle_decimal(file: Path, records: Iterable[Record], columns: Iterable[str]) -> list[Record]:
    """Tell by the numbers of a whole table whether it has decimal points or decimal commas.

    Args:
        file: The table, for messages.
        records: Its rows.
        columns: The columns that hold numbers.

    Returns:
        The rows, with the separator that they use.

    Raises:
        AnnotationError: If numbers of both kinds are there, or the commas may be those between
            thousands.
    """
    records, columns = list(records), tuple(columns)
    cells = [(record.line, record.get(column)) for record in records for column in columns]
    commas = [(line, cell) for line, cell in cells if "," in cell]
    if not commas:
        return records
    points = [line for line, cell in cells if "." in cell]
    if points:
        raise AnnotationError(
            f"{file}: has numbers with a comma (line {commas[0][0]}) and with a point (line "
            f"{points[0]}); write all with a decimal point and none between thousands."
        )
    if all(_THOUSANDS.fullmatch(cell) for _, cell in commas):
        raise AnnotationError(
            f"{file}: the comma in {commas[0][1]!r} (line {commas[0][0]}) may be a decimal comma "
            "or part thousands; write the numbers with a decimal point."
        )
    return [record._replace(decimal=",") for record in records]
