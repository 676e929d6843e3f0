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
    waiting: list[str | os.PathLike[str]] = [folder]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    yield entry
                elif enter(entry.name):
                    waiting.append(entry.path)
