"""What commands print: results on stdout, progress on stderr."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from vae_aug.cli.loading import calls
from vae_aug.data.shards import read_info

SHOWN_PROBLEMS = 20
OUT = Console(highlight=False)
_ERR = Console(stderr=True, highlight=False)


def show(what: RenderableType) -> None:
    """Print a table or Markdown, as wide as the terminal at most."""
    OUT.print(what)


def say(line: str) -> None:
    """Print a line as it is: no markup, no wrapping."""
    OUT.print(line, markup=False, soft_wrap=True)


def make_table(title: str, texts: Sequence[str], figures: Sequence[str] = ()) -> Table:
    """Make a table of columns of texts, then of figures, which are set to the right.

    Args:
        title: Above the table; not markup.
        texts: Headings of the first columns.
        figures: Headings of the others.

    Returns:
        The table, without rows.
    """
    table = Table(*texts, title=escape(title))
    for heading in figures:
        table.add_column(heading, justify="right")
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
    # What is printed meanwhile goes above the bar, but never from a pipe to the terminal.
    return Progress(
        *columns,
        console=_ERR,
        transient=True,
        disable=not _ERR.is_terminal,
        redirect_stdout=OUT.is_terminal,
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
def name_damage(*folders: Path) -> Iterator[None]:
    """Name the file and record where TensorFlow only says that some record is damaged."""
    try:
        yield
    except calls.DAMAGE:
        for folder in folders:
            for part in read_info(folder).parts:
                calls.check_records(folder, part)
        raise
