"""Where each number that a page prints comes from; `test_printed_numbers.py` compares them.

A page has a module with two lists. `MEASURED` has pairs of a piece of the page's text, in which
`{}` stands for a number, and the values of these numbers, read from `benchmarks/results` or counted
in the code. `GIVEN` has pieces of text whose numbers nobody measured: settings, sizes, versions,
dates, aims, and parts of standards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

_NUMBER = r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?"
# Not the digits of a name, such as B1, mAP50 or ResNet-18; but those of x5.7 are of a ratio.
_PRINTED = re.compile(rf"(?<![A-Za-wyz\d_.,])(?<![A-Za-z]-){_NUMBER}(?![\w])")
# What is no prose: blocks of code, addresses of links, comments.
_OUTSIDE = re.compile(
    r"^```.*?^```|<!--.*?-->|(?<=\])\([^)\s]*\)|(?<=src=)\"[^\"]*\"", re.DOTALL | re.MULTILINE
)
# Text whose numbers are no figures: code, and tags of DICOM.
_CODE = re.compile(r"`[^`]+`|\([0-9A-F]{4},[0-9A-F]{4}\)")


def read_results(name: str) -> Any:
    """Read a file of `benchmarks/results`: a `.json`, or a `.jsonl` as the list of its lines."""
    text = (ROOT / "benchmarks" / "results" / name).read_text(encoding="utf-8")
    return list(map(json.loads, text.splitlines())) if name.endswith(".jsonl") else json.loads(text)


def read_prose(page: str) -> str:
    """Read a page without what is no prose; every run of white space becomes one space."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return " ".join(_OUTSIDE.sub(" ", text).split())


def find_pieces(prose: str, piece: str) -> list[re.Match[str]]:
    """Find a piece of text in which `{}` stands for a number."""
    words = " ".join(piece.split()).split("{}")
    return list(re.finditer(f"({_NUMBER})".join(map(re.escape, words)), prose))


def is_rounded(printed: str, value: float) -> bool:
    """Tell whether a number is a value, rounded to as many decimals as are printed."""
    decimals = len(printed.partition(".")[2])
    return abs(float(printed.replace(",", "")) - value) <= 0.5000001 * 10**-decimals


def list_faults(
    prose: str, measured: Sequence[tuple[str, Sequence[float]]], given: Sequence[str]
) -> Iterator[str]:
    """Yield what is wrong with the numbers of a page, or of its module."""
    known = [match.span() for match in _CODE.finditer(prose)]
    for piece, values in measured:
        found = find_pieces(prose, piece)
        if len(found) != 1 or piece.count("{}") != len(values):
            yield f"is there {len(found)} times, with {len(values)} values: {piece}"
            continue
        known.append(found[0].span())
        for printed, value in zip(found[0].groups(), values, strict=True):
            if not is_rounded(printed, value):
                yield f"{printed} should be {value:.6g}: {piece}"
    for piece in given:
        found = find_pieces(prose, piece)
        known += [match.span() for match in found]
        if not found:
            yield f"is not there: {piece}"
    for match in _PRINTED.finditer(prose):
        if not any(start <= match.start() and match.end() <= end for start, end in known):
            around = prose[max(0, match.start() - 40) : match.end() + 40]
            yield f"{match.group()} comes from nowhere: {around}"
