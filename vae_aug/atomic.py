"""Files that appear under their name only when they are whole, and locks on folders."""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import re
import secrets
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vae_aug.errors import RecordError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK_NAME = ".lock"
_BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
"""What a system answers if another has the lock: POSIX leaves the choice, Windows has its own."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
"""What a file system answers that has no locks, e.g. Lustre or NFS mounted without them."""

_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""What a system answers if a disk takes no more, or no writing at all."""

_LOCK_ATTEMPTS = 100


_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp", re.DOTALL)


def make_temporary_path(path: Path) -> Path:
    """Name a temporary file or folder beside `path`, where a rename cannot cross devices.

    The name starts with a dot and ends in `.tmp`, so that no pattern for shards matches it.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def remove_temporaries(*paths: Path) -> None:
    """Remove what processes that were killed left of temporary files and folders of `paths`.

    A folder that several processes may write at once has to be locked, see `lock_folder`: what a
    living one is writing would be removed too.
    """
    names = collections.defaultdict(set)
    for path in paths:
        names[path.parent].add(path.name)
    for folder, own in names.items():
        for temporary in folder.glob(".*.tmp"):
            # Only what `make_temporary_path` names: `.scan.original.tmp` is somebody's.
            named = _TEMPORARY.fullmatch(temporary.name)
            if named is None or named[1] not in own:
                continue
            if temporary.is_dir() and not temporary.is_symlink():
                shutil.rmtree(temporary)
            else:
                temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def name_disk_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name a path where a disk refuses to write, which the system tells without a name.

    Args:
        path: The file or folder that the block writes.

    Raises:
        OSError: As the block raises it, with a `filename`.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _REFUSED:
            error.filename = os.fspath(path)
        raise


def tell_reason(error: Exception) -> str:
    """Tell in the words of the system or of TensorFlow why a disk refused."""
    return getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)


@contextlib.contextmanager
def lock_folder(folder: Path, *, beside: bool = False) -> Iterator[bool]:
    """Keep every other process, and every other thread, from locking the same folder.

    The operating system holds the lock, on an empty hidden file. It ends with the block or with
    the process, whatever ends that; the file that a killed process leaves locks nothing.

    Args:
        folder: The folder; it is made if it is missing, or with `beside` its parent.
        beside: Whether the file is `.<name>.lock` beside the folder instead of `.lock` in it, for
            a folder that is going to be replaced as a whole.

    Yields:
        Whether the folder is locked. It is not on a file system without locks (some network file
        systems), which a `UserWarning` says: only the user knows then whether another run writes.

    Raises:
        RecordError: If it is locked already. Nothing is waited for.
        OSError: If the file of the lock cannot be made, or as the block raises it, with the folder
            as its `filename` where a disk refuses to write.
    """
    # By its real name, so that a link to the folder is the same folder.
    folder = folder.resolve()
    file = folder.with_name(f".{folder.name}.lock") if beside else folder / LOCK_NAME
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _open_locked(file, folder)
    if descriptor is None:
        yield False
        return
    try:
        with name_disk_errors(folder):
            yield True
    finally:
        # While the lock is held, so that no other run's file is removed. Windows removes no open
        # file; there an empty one stays.
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
        os.close(descriptor)


def _open_locked(file: Path, folder: Path) -> int | None:
    """Open and lock a file; None on a file system without locks."""
    for _ in range(_LOCK_ATTEMPTS):
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            lock_file(descriptor)
            # A run that ended after this process opened the file removed it: a lock on what has no
            # name any more keeps nobody out.
            if _has_name(descriptor, file):
                return descriptor
        except OSError as error:
            os.close(descriptor)
            if error.errno in _BUSY:
                break
            if error.errno not in _NO_LOCKS:
                raise
            warnings.warn(
                f"{folder}: its file system has no locks ({error.strerror}); make sure that no "
                "other run writes to it.",
                stacklevel=4,
            )
            return None
        os.close(descriptor)
    raise RecordError(
        f"{folder}: another run writes to this folder; wait until it ends, or name another folder."
    )


def lock_file(descriptor: int) -> None:
    """Lock an open file for this opening of it alone, or raise `OSError` at once."""
    if sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        # Not `lockf`, whose locks are the process's, so that a second thread would get one too.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _has_name(descriptor: int, file: Path) -> bool:
    """Tell whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def sync_file(path: Path) -> None:
    """Wait until the contents of a file, or the entries of a directory, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file by `open_atomic`."""
    with open_atomic(path) as file:
        file.write(data)


@contextlib.contextmanager
def replace_atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Name a temporary file that takes the place of `path` when the block ends well.

    Args:
        path: The file; an existing one is replaced. Its directory must exist.

    Yields:
        The temporary file, for the block to write and to put on disk.

    Raises:
        OSError: When the directory or the disk refuses; no temporary file is left behind.
    """
    path = Path(path)
    temporary = make_temporary_path(path)
    try:
        with name_disk_errors(path):
            yield temporary
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_file(path.parent)


@contextlib.contextmanager
def open_atomic(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing, whose name shows the old contents or the new, never a part.

    Args:
        path: The file; an existing one is replaced. Its directory must exist.

    Raises:
        OSError: When the directory or the disk refuses; no temporary file is left behind.
    """
    with replace_atomic(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
