"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
from pathlib import Path


def make_temporary_path(path: Path) -> Path:
    """Name a temporary file in the directory of `path`, where a rename cannot cross devices.

    The name starts with a dot and ends in `.tmp`, so that no pattern for shards matches it.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def remove_temporaries(path: Path) -> None:
    """Remove what processes that were killed left of temporary files of `path`."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
        temporary.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Wait until the contents of a file, or the entries of a directory, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: str | os.PathLike[str], data: bytes, *, mode: int = 0o666) -> None:
    """Write a file so that its name shows the old contents or the new, never a part.

    Args:
        path: The file; an existing one is replaced. Its directory must exist.
        data: The contents.
        mode: Permissions of the file before the process's umask takes its bits away.

    Raises:
        OSError: When the directory or the disk refuses; no temporary file is left behind.
    """
    path = Path(path)
    temporary = make_temporary_path(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_file(path.parent)
