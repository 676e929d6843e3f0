"""Read members of a checkpoint from its folder or its ZIP archive, within stated bounds."""

from __future__ import annotations

import io
import os
import reprlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from vae_aug.errors import CheckpointError, VAEAugError
from vae_aug.limits import read_bounded

_CHUNK_BYTES = 2**20
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Compression methods that Python inflates piece by piece; a piece of another may be gigabytes."""

_ENCRYPTED = 0x1
"""General purpose bit 0, see PKWARE's APPNOTE.TXT, section 4.4.4."""

_DAMAGE = (
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What `zipfile` raises on archives that are damaged or of a kind that it does not read."""


class _BoundedFile(io.FileIO):
    """A file that refuses to read more than a megabyte at once, whatever size a field states.

    `zipfile` reads the directory of an archive at once, in the length that the archive states.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _CHUNK_BYTES:
            raise zipfile.BadZipFile(f"a field wants {size} bytes read at once")
        return super().read(-1 if size is None else size) or b""


def read_member(path: Path, name: str, max_bytes: int, members: Sequence[str]) -> bytes:
    """Read one member of a checkpoint.

    Args:
        path: A ZIP archive, or a folder.
        name: The member.
        max_bytes: Most bytes that it may have, inflated.
        members: All that an archive may hold. A folder may hold other files too.

    Returns:
        Its contents; those from an archive match its CRC.

    Raises:
        CheckpointError: If the path or the member is missing, damaged, no regular file or too
            large, or the archive has members that are none of `members`, two of a name, encrypted
            or compressed in another way than by deflate. The message begins with the path.
    """
    try:
        kind = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: is no checkpoint; it cannot be read ({error}).") from error
    if stat.S_ISDIR(kind):
        return _read_from_folder(path, name, max_bytes)
    # Opening a named pipe would wait for its other end.
    if not stat.S_ISREG(kind):
        raise CheckpointError(f"{path}: is no checkpoint, but neither a file nor a folder.")
    try:
        with _BoundedFile(path) as file, zipfile.ZipFile(file) as archive:
            member = _find_member(path, archive, name, max_bytes, members)
            with archive.open(member) as stream:
                chunks = list(iter(lambda: stream.read(_CHUNK_BYTES), b""))
    except _DAMAGE as error:
        raise CheckpointError(
            f"{path}: is no checkpoint of vae_aug, or a damaged one: {name} cannot be read "
            f"({error}). Copy it again from its source."
        ) from error
    content = b"".join(chunks)
    if len(content) != member.file_size:
        raise CheckpointError(
            f"{path}: {name} ends after {len(content)} of {member.file_size} bytes. Copy the file "
            "again from its source."
        )
    return content


def _find_member(
    path: Path,
    archive: zipfile.ZipFile,
    name: str,
    max_bytes: int,
    members: Sequence[str],
) -> zipfile.ZipInfo:
    """Find a member in an archive that holds nothing but members of a checkpoint, each once."""
    names = [member.filename for member in archive.infolist()]
    if foreign := sorted(set(names) - set(members)):
        raise CheckpointError(
            f"{path}: is no checkpoint of vae_aug: it holds {reprlib.repr(foreign)} too. One has "
            f"the members {', '.join(members)}."
        )
    if name not in names:
        hint = " It is a Keras model of other code; train a network with vae-aug train."
        raise CheckpointError(
            f"{path}: is no checkpoint of vae_aug: it has no {name}, only "
            f"{', '.join(sorted(set(names))) or 'nothing at all'}."
            + (hint if {"config.json", "metadata.json"} <= set(names) else "")
        )
    if len(names) > len(set(names)):
        raise CheckpointError(
            f"{path}: a member is there twice; {', '.join(names)}. Copy the file again from its "
            "source."
        )
    member = archive.getinfo(name)
    if member.flag_bits & _ENCRYPTED:
        raise CheckpointError(f"{path}: {name} is encrypted; store it without a password.")
    if member.compress_type not in _COMPRESSIONS:
        raise CheckpointError(
            f"{path}: {name} is compressed by method {member.compress_type}; store it, or use "
            "deflate."
        )
    if member.file_size > max_bytes:
        raise CheckpointError(
            f"{path}: {name} has {member.file_size} bytes; at most {max_bytes} are read."
        )
    return member


def _read_from_folder(folder: Path, name: str, max_bytes: int) -> bytes:
    """Read a file of a checkpoint's folder."""
    # A missing file gets a message with its likely cause; `read_bounded` names all other faults.
    if not os.path.lexists(folder / name):
        raise CheckpointError(
            f"{folder}: is no checkpoint of vae_aug: it has no {name}{_say_what_it_is(folder)}."
        )
    try:
        return read_bounded(folder / name, max_bytes)
    except VAEAugError as error:
        raise CheckpointError(str(error)) from error


def _say_what_it_is(folder: Path) -> str:
    """Name the kind of folder that this package writes, if it is one of another kind."""
    if (folder / "state").exists():
        return ". It is the folder of a training without a validation yet; run the training again"
    if (folder / "tuning.json").exists():
        return ". It is the folder of a search; name trials/<number>/checkpoint.keras in it"
    if (folder / "dataset.json").exists():
        return ". It is a folder of records; to train a network on them: vae-aug train"
    if not any(folder.iterdir()):
        return ". The folder is empty"
    return ""
