"""What commands print: results on stdout, progress on stderr."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from vae_aug.cli.loading import calls
from vae_aug.json_values import make_json
from vae_aug.records.shards import read_info

SHOWN_PROBLEMS = 20


class _Output:
    """Where things go: results to stdout, progress to stderr; with JSON, all but it to stderr."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self.out = Console(highlight=False, quiet=as_json)
        self.err = Console(stderr=True, highlight=False)


_output = _Output()


@contextlib.contextmanager
def answer(as_json: bool) -> Iterator[None]:
    """Let a command print its tables and lines, or its result as JSON."""
    global _output
    _output, former = _Output(as_json), _output
    try:
        yield
    finally:
        _output = former


def publish(result: Any) -> None:
    """Print the result of a command if JSON is wanted; what is no number there becomes null."""
    if _output.as_json:
        print(json.dumps(make_json(result), indent=1, allow_nan=False, ensure_ascii=False))


def show(what: RenderableType) -> None:
    """Print a table or Markdown, as wide as the terminal at most."""
    _output.out.print(what)


def get_out() -> Console:
    """Return where tables go; silent if JSON is wanted."""
    return _output.out


def say(line: str) -> None:
    """Print a line as it is: no markup, no wrapping."""
    console = _output.err if _output.as_json else _output.out
    console.print(line, markup=False, soft_wrap=True)


def warn(line: str) -> None:
    """Print a line to standard error, as it is."""
    _output.err.print(line, markup=False, soft_wrap=True)


def make_table(title: str, texts: Sequence[str], figures: Sequence[str] = ()) -> Table:
    """Make a table of columns of texts, then of figures, which are set to the right.

    Args:
        title: Above the table; not markup.
        texts: Headings of the first columns.
        figures: Headings of the others.

    Returns:
        The table, without rows.
    """
    table = Table(title=escape(title))
    for heading in texts:
        table.add_column(heading, overflow="fold")
    for heading in figures:
        table.add_column(heading, justify="right", overflow="fold")
    return table


def make_listing(title: str) -> Table:
    """Make a table of names and values without headings; long values are folded."""
    table = Table("", show_header=False, title=escape(title))
    table.add_column(overflow="fold")
    return table


def say_problems(lines: Sequence[str], where: str = "") -> None:
    """Print the first of these lines, indented, and how many there are besides and `where`."""
    for line in lines[:SHOWN_PROBLEMS]:
        say(f"  {line}")
    if len(lines) > SHOWN_PROBLEMS:
        say(f"  and {len(lines) - SHOWN_PROBLEMS} more{where}")


def show_progress(*columns: ProgressColumn) -> Progress:
    """Make a progress bar that leaves nothing behind, neither on a terminal nor in a log."""
    # What is printed meanwhile goes above the bar, but never from a pipe to the terminal. In rich
    # before 15 a bar that is not shown ends with an empty line.
    is_shown = _output.err.is_terminal
    return Progress(
        *columns,
        console=_output.err if is_shown else Console(quiet=True),
        transient=True,
        disable=not is_shown,
        redirect_stdout=_output.out.is_terminal,
    )


@dataclasses.dataclass
class _Counts:
    """Shows "done of all" as `ingest` and `augment_records` report it."""

    progress: Progress
    task: TaskID

    def __call__(self, done: int, total: int) -> None:
        self.progress.update(self.task, completed=done, total=total)


@contextlib.contextmanager
def show_counts(noun: str) -> Iterator[_Counts]:
    """Show a bar of how many of something are done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with show_progress(*columns, TimeRemainingColumn()) as progress:
        yield _Counts(progress, progress.add_task(noun, total=None))


@contextlib.contextmanager
def show_work(what: str) -> Iterator[None]:
    """Show for how long something has been done that cannot be counted."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with show_progress(*columns) as progress:
        progress.add_task(what, total=None)
        yield


@contextlib.contextmanager
def name_damage(*folders: Path) -> Iterator[None]:
    """Name the file and record where TensorFlow only says that some record is damaged."""
    try:
        yield
    except calls.DAMAGE:
        for folder in folders:
            for part in read_info(folder).parts:
                calls.check_records(folder, part)
        raise
