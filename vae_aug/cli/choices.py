"""Options that are one of several words, in a help of 80 columns."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from typer.models import OptionInfo

_WIDEST = 18
"""Characters that the column of an option's kind has at 80 columns; rich breaks longer words."""


def describe_choices(names: Sequence[str], text: str) -> tuple[str, str]:
    """Name the kind of an option, and see to it that its choices stand somewhere, unbroken.

    Args:
        names: The choices.
        text: The help, which may say what each of them does.

    Returns:
        What stands in the place of the value, and the help.
    """
    listed = f"<{'|'.join(names)}>"
    if len(listed) <= _WIDEST:
        return listed, text
    if set(names) <= set(re.findall(r"[\w-]+", text)):
        return "<choice>", text
    said, default, rest = text.partition(" [default:")
    return "<choice>", f"{said} One of {', '.join(names)}.{default}{rest}"


def shorten_choices(parameter: inspect.Parameter) -> inspect.Parameter:
    """Describe the choices of a parameter that takes literals; others stay as they are."""
    kind, *notes = get_args(parameter.annotation) or (parameter.annotation,)
    names = list_literals(kind)
    if get_origin(parameter.annotation) is not Annotated or not names:
        return parameter
    return parameter.replace(annotation=Annotated[(kind, *(_describe(n, names) for n in notes))])


def _describe(note: Any, names: Sequence[str]) -> Any:
    if not isinstance(note, OptionInfo) or note.metavar is not None:
        return note
    described = copy.copy(note)
    described.metavar, described.help = describe_choices(names, note.help or "")
    return described


def list_literals(kind: Any) -> tuple[str, ...]:
    """Return the words of a literal, also of one that may be None."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return next(filter(None, map(list_literals, get_args(kind))), ())
