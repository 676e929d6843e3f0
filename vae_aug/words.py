"""Counts in sentences, and rows of Markdown tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

_AFTER_NOUN = re.compile(r"(.+?)( (?:of|with) .*|)$")
_IRREGULAR = {"box": "boxes", "class": "classes"}


def plural(number: int, noun: str, is_one: str = "", are_many: str = "") -> str:
    """Write a number with its noun, in the singular if it is 1, and what follows it.

    Args:
        number: How many.
        noun: Of one. The words from "of" or "with" on stay as they are.
        is_one: What follows one, from its verb on.
        are_many: What follows several, or none.

    Returns:
        The words, the number with commas between thousands.

    Example:
        >>> plural(1, "file"), plural(1200, "box"), plural(0, "mask of the brain")
        ('1 file', '1,200 boxes', '0 masks of the brain')
        >>> plural(1, "image", "is", "are"), plural(2, "image", "is", "are")
        ('1 image is', '2 images are')
    """
    head, rest = _AFTER_NOUN.match(noun).groups()  # type: ignore[union-attr]
    if number != 1:
        before, space, last = head.rpartition(" ")
        head = f"{before}{space}{_IRREGULAR.get(last, last + 's')}"
    verb = is_one if number == 1 else are_many
    return f"{number:,} {head}{rest}{' ' if verb else ''}{verb}"


def make_markdown_row(cells: Iterable[Any]) -> str:
    """Make a row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def make_markdown_table(headings: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """Make a Markdown table."""
    return "\n".join(map(make_markdown_row, (headings, ["---"] * len(headings), *rows)))
