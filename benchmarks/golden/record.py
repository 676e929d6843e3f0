"""Entries of a record: how they are digested, normalised, kept and compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

DIGITS = 12
"""Hexadecimal digits of a digest. Two of 10,000 values are alike by chance once in 6 million."""

UNSTABLE = ("created", "date", "path", "seconds", "shard_bytes", "version")
"""Keys of JSON that tell of versions, times and places, which may change. Sizes of shards are among
them, as an augmented record holds the version that made it."""


class Notes:
    """Gathers the entries of one section: `case/aspect` to a digest, or to a short text.

    Attributes:
        folder: Where the section writes its files; texts are kept in `folder/texts` as well, so
            that two runs can be compared by eye.
        entries: What was noted.
        absent: Beginnings of the keys of cases that need data which is not here.
    """

    def __init__(self, folder: Path, places: Mapping[str, str]) -> None:
        """Begin a section.

        Args:
            folder: An existing folder.
            places: Paths to what stands for them in texts, e.g. `"<data>"`.
        """
        self.folder = folder
        self.entries: dict[str, str] = {}
        self.absent: list[str] = []
        self._places = dict(sorted(places.items(), key=lambda place: -len(place[0])))

    def note(self, key: str, value: str | bytes | int) -> None:
        """Note an entry: an integer as it is, else the digest of a text or of bytes."""
        if key in self.entries:
            raise ValueError(f"{key}: two cases have this name.")
        if isinstance(value, int):
            self.entries[key] = str(value)
            return
        if isinstance(value, str):
            value = self.normalise(value).encode()
            path = self.folder / "texts" / f"{key.replace('/', '.')}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(value)
        self.entries[key] = digest(value)

    def normalise(self, text: str) -> str:
        """Put names in the place of this machine's paths."""
        for path, name in self._places.items():
            text = text.replace(path, name)
        return text


def digest(data: bytes) -> str:
    """Return the first digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()[:DIGITS]


def serialize_arrays(leaves: Iterable[Any]) -> bytes:
    """Turn arrays into bytes that tell their dtypes, shapes and values apart."""
    parts = []
    for leaf in leaves:
        array = np.asarray(leaf)
        content = repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
        parts.append(f"{array.dtype.name} {array.shape} ".encode() + content)
    return b"\n".join(parts)


def serialize_files(paths: Iterable[Path], root: Path) -> bytes:
    """Turn files into bytes that tell names and contents; times in gzip headers are left out."""
    parts = []
    for path in sorted(paths):
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = data[:4] + data[8:]
        name = path.relative_to(root).as_posix()
        parts.append(f"{name} {hashlib.sha256(data).hexdigest()}".encode())
    return b"\n".join(parts)


def serialize_json(text: str) -> str:
    """Write JSON in one form, without the keys of `UNSTABLE`; leave other texts as they are."""
    try:
        content = json.loads(text)
    except ValueError:
        return text
    return json.dumps(_drop_unstable(content), indent=1, sort_keys=True, ensure_ascii=False)


def _drop_unstable(content: Any) -> Any:
    if isinstance(content, dict):
        kept = {key: value for key, value in content.items() if key not in UNSTABLE}
        return {key: _drop_unstable(value) for key, value in kept.items()}
    return [_drop_unstable(value) for value in content] if isinstance(content, list) else content


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Name what differs between two records, in the sections that both have.

    Args:
        before: A record, as `python -m benchmarks.golden` writes it.
        after: Another.

    Returns:
        A line for each entry that has changed, is gone or is new. Cases that either run left out
        because their data was not there are passed over.
    """
    absent = tuple((*before["absent"], *after["absent"]))

    def is_compared(key: str) -> bool:
        section = key.partition("/")[0]
        both = section in before["seconds"] and section in after["seconds"]
        return both and not (absent and key.startswith(absent))

    old, new = (
        {key: value for key, value in record["entries"].items() if is_compared(key)}
        for record in (before, after)
    )
    return [
        *(f"differs: {key}" for key in old if key in new and old[key] != new[key]),
        *(f"gone: {key}" for key in old if key not in new),
        *(f"new: {key}" for key in new if key not in old),
    ]


def describe_gaps(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Say what `compare` could not compare, and what may make digests differ by itself."""
    gaps = [
        f"not compared, not in both records: {section}"
        for section in sorted(set(before["seconds"]) ^ set(after["seconds"]))
    ]
    names = dict.fromkeys((*before["absent"], *after["absent"]))
    gaps += [f"not compared, its data was not there: {name}" for name in names]
    machines = before["machine"], after["machine"]
    keys = dict.fromkeys(key for machine in machines for key in machine)
    for key in (key for key in keys if key not in ("commit", "date")):
        old, new = (machine.get(key) for machine in machines)
        if old != new:
            gaps.append(f"{key} was {old}, is {new}: digests may differ by rounding alone")
    return gaps
