"""The files below a folder, however deep they lie."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path


def walk(
    folder: Path, enter: Callable[[str], bool] = lambda name: True
) -> Iterator[os.DirEntry[str]]:
    """Iterate over all that lies below a folder and is no folder itself, in no order.

    `Path.rglob` and `os.walk` call themselves for each level, and end in a RecursionError in a
    folder of a thousand levels.

    Args:
        folder: The folder.
        enter: Tells by its name whether a folder is looked into.

    Yields:
        Files, pipes, devices and links, also those to folders, which are not followed. Folders
        that cannot be read are passed over.
    """
    for place in walk_folders(folder, enter):
        with contextlib.suppress(OSError), os.scandir(place) as entries:
            yield from (entry for entry in entries if not entry.is_dir(follow_symlinks=False))


def walk_folders(folder: Path, enter: Callable[[str], bool] = lambda name: True) -> Iterator[Path]:
    """Iterate over a folder and all folders below it, in no order; links are not followed.

    Args:
        folder: As `walk`.
        enter: As `walk`.

    Yields:
        The folders, those that cannot be read among them.
    """
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        yield place
        with contextlib.suppress(OSError), os.scandir(place) as entries:
            waiting += [
                Path(entry.path)
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and enter(entry.name)
            ]
