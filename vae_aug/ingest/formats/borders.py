"""Which files a reader may open: those of the source, links resolved."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path

from vae_aug.errors import AnnotationError

_Borders = tuple[Path, ...]
# Of the reader that runs. Text is opened in forty places, of which none may forget to ask.
_borders: ContextVar[_Borders | None] = ContextVar("borders", default=None)
_opened: ContextVar[set[Path] | None] = ContextVar("opened", default=None)


def list_borders(source: Path, images: Path | None = None) -> _Borders:
    """Return, links resolved, the folders and files that the user named.

    Args:
        source: Folder of the data set, its annotation file, or a pattern of files. Of a folder
            called `annotations` the one above it is part.
        images: A further folder, None for none.
    """
    if source.is_dir():
        folders = [source]
    elif source.exists():
        folders = [source.parent, source]
    else:
        folders = [Path(name).parent for name in glob.glob(os.fspath(source))]
    named = [path.parent if path.name.lower() == "annotations" else path for path in folders]
    return tuple(path.resolve() for path in (*named, *filter(None, [images])))


def is_inside(path: Path, borders: Sequence[Path]) -> bool:
    """Tell whether a path, links resolved, is one of the borders or lies below one."""
    # `Path.resolve` raises for links that lead to each other.
    resolved = Path(os.path.realpath(path))
    return any(resolved.is_relative_to(border) for border in borders)


@contextlib.contextmanager
def keep_inside(borders: _Borders) -> Iterator[None]:
    """Let `check_inside` refuse what lies outside of borders, within a `with` block."""
    token = _borders.set(borders)
    try:
        yield
    finally:
        _borders.reset(token)


@contextlib.contextmanager
def note_opened() -> Iterator[set[Path]]:
    """Note the text files that readers open within a `with` block.

    Yields:
        These files, which become more.
    """
    opened: set[Path] = set()
    token = _opened.set(opened)
    try:
        yield opened
    finally:
        _opened.reset(token)


def check_inside(path: Path) -> None:
    """Check that a file may be opened by the reader that runs, and note that it is.

    Raises:
        AnnotationError: If it is there and lies outside of the source.
    """
    borders, opened = _borders.get(), _opened.get()
    if opened is not None:
        opened.add(path)
    if borders is not None and not is_inside(path, borders) and path.exists():
        raise AnnotationError(
            f"{path}: is reached by a link that leads out of the source; put the file itself there."
        )
