"""Find the shards of a data set, and check them against its `dataset.json`.

A split is `<split>-00000-of-00004.tfrecord` and so on. Images of which the source does not say
whether they have boxes lie beside it in `<split>_unannotated-*`: an autoencoder learns from them, a
detector would take them for negatives, so they are read on request only.
"""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vae_aug.atomic import write_atomic
from vae_aug.errors import RecordError

INFO_FILE, LABEL_FILE = "dataset.json", "label_map.pbtxt"
UNANNOTATED = "_unannotated"
"""Suffix of the names of a split's unannotated shards."""

SHARD_NAME = re.compile(r"^(?P<name>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.tfrecord$")
_SPLIT_SYNONYMS = {"val": "validation", "valid": "validation"}
# A record is its length (uint64), a checksum of 4 bytes, the data, and another checksum.
_LENGTH_BYTES, _FRAME_BYTES = 8, 16


@dataclasses.dataclass(frozen=True)
class SplitInfo:
    """What one split holds.

    Attributes:
        examples: Images.
        boxes: Boxes.
        shards: Files.
        dtype: `"uint8"` or `"uint16"`; the latter if any image has 16 bits.
        channels: 1, or 3 if any image is in colour.
        class_counts: Boxes per label name, in the order of the labels.
        shard_bytes: Size of each file; empty in sets of earlier versions.
        lost: Images of the source that could not be read, since they were damaged.
    """

    examples: int
    boxes: int
    shards: int
    dtype: str
    channels: int
    class_counts: Mapping[str, int]
    shard_bytes: tuple[int, ...] = ()
    lost: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return what `dataset.json` holds of it."""
        content = dataclasses.asdict(self)
        return content if self.lost else {k: v for k, v in content.items() if k != "lost"}


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What `dataset.json` holds.

    Attributes:
        label_names: Names of the labels; label i of an element is `label_names[i]`.
        splits: Split names to what they hold.
        unannotated: Names of unannotated shards, e.g. `"train_unannotated"`, to what they hold.
    """

    label_names: tuple[str, ...]
    splits: Mapping[str, SplitInfo]
    unannotated: Mapping[str, SplitInfo] = dataclasses.field(default_factory=dict)

    @property
    def parts(self) -> dict[str, SplitInfo]:
        """Splits and unannotated shards."""
        return {**self.splits, **self.unannotated}

    @property
    def image_splits(self) -> tuple[str, ...]:
        """Names of the splits that have images, annotated or not."""
        return tuple(dict.fromkeys(name.removesuffix(UNANNOTATED) for name in self.parts))

    @property
    def dtype(self) -> str:
        """`"uint16"` if any split holds 16-bit images, so that all splits read alike."""
        return get_dtype((self.splits or self.unannotated).values())

    @property
    def channels(self) -> int:
        """3 if any split holds colour images, so that all splits read alike."""
        return get_channels((self.splits or self.unannotated).values())


def get_dtype(parts: Iterator[SplitInfo] | Any) -> str:
    """Return the dtype that holds the images of all parts."""
    return "uint16" if any(part.dtype == "uint16" for part in parts) else "uint8"


def get_channels(parts: Iterator[SplitInfo] | Any) -> int:
    """Return the number of channels that holds the images of all parts."""
    return max((part.channels for part in parts), default=1)


def get_split_name(split: str) -> str:
    """Return the name under which a split is stored: `"val"` and `"valid"` are `"validation"`.

    Raises:
        ValueError: If the name cannot be part of a file name.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.]+(-[A-Za-z0-9_.]+)*", split) or split.startswith("."):
        raise ValueError(f"a split is named with letters, digits, '_', '.', '-'; got {split!r}.")
    return _SPLIT_SYNONYMS.get(split, split)


def list_parts(split: str) -> tuple[str, str]:
    """Return the names of the shards of a split: annotated, and unannotated."""
    return split, f"{split}{UNANNOTATED}"


# --- dataset.json ----------------------------------------------------------------------------


def read_info(directory: str | os.PathLike[str]) -> DatasetInfo:
    """Read `dataset.json`.

    Args:
        directory: Folder of the data set.

    Returns:
        Its contents.

    Raises:
        RecordError: If the file is missing or not what `write_records` writes.
    """
    path = Path(directory) / INFO_FILE
    try:
        content = json.loads(path.read_bytes())
        splits = _parse_parts(content["splits"])
        labels = content["labels"]
        if not isinstance(labels, list) or not all(isinstance(name, str) for name in labels):
            raise TypeError("'labels' must be a list of names")
        return DatasetInfo(tuple(labels), splits, _parse_parts(content.get("unannotated", {})))
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be read ({error.strerror}); give a folder that vae-aug ingest wrote."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecordError(
            f"{path}: not the description of a data set ({error}); write the records again."
        ) from error


def _parse_parts(content: Mapping[str, Any]) -> dict[str, SplitInfo]:
    return {get_split_name(name): _parse_part(name, part) for name, part in content.items()}


def _parse_part(name: str, content: Mapping[str, Any]) -> SplitInfo:
    part = SplitInfo(**content)
    counts = (part.examples, part.boxes, part.shards, part.lost, *part.shard_bytes)
    counts += tuple(part.class_counts.values())
    if not all(type(count) is int and count >= 0 for count in counts):
        raise TypeError(f"a count of {name!r} is no whole number from 0")
    if part.dtype not in ("uint8", "uint16") or part.channels not in (1, 3):
        raise TypeError(f"{name!r} has images of {part.dtype!r} with {part.channels!r} channels")
    if len(part.shard_bytes) not in (0, part.shards):
        sizes = len(part.shard_bytes)
        raise TypeError(f"{name!r} has {sizes} 'shard_bytes' for {part.shards} shards")
    return dataclasses.replace(part, shard_bytes=tuple(part.shard_bytes))


def write_label_map(path: str | os.PathLike[str], label_names: Sequence[str]) -> None:
    """Write a `label_map.pbtxt` of the TF Object Detection API, ids from 1.

    Args:
        path: The file, replaced atomically.
        label_names: Names in the order of the labels.
    """
    write_atomic(path, make_label_map(label_names).encode())


def make_label_map(label_names: Sequence[str]) -> str:
    """Make the text of a label map, ids from 1."""
    # JSON and protobuf's text format escape quotes and control characters alike.
    return "".join(
        f"item {{\n  id: {index}\n  name: {json.dumps(label, ensure_ascii=False)}\n}}\n"
        for index, label in enumerate(label_names, start=1)
    )


# --- Finding ---------------------------------------------------------------------------------


def find_records(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    split: str | None = None,
    *,
    unannotated: bool = False,
    allow_damaged: bool = False,
) -> tuple[list[Path], DatasetInfo | None]:
    """Find the shards that a source stands for, and check that all are there and whole.

    Args:
        source: Folder of a data set; a file or pattern of files; or a list of files.
        split: The split of a folder; not needed if there is only one.
        unannotated: Whether to find the split's unannotated images, too.
        allow_damaged: Whether to accept shards that are damaged, short, long or unlisted.

    Returns:
        The shards in order, and the contents of `dataset.json` if there is one beside them.

    Raises:
        RecordError: If there are no such records, a shard is missing, or, unless `allow_damaged`,
            a shard does not hold what `dataset.json` says.
    """
    if not isinstance(source, str | os.PathLike):
        files = [Path(path) for path in source]
    elif Path(source).is_dir():
        files = _find_split(Path(source), split, unannotated)
    else:
        files = [Path(path) for path in sorted(glob.glob(os.fspath(source)))]
    if not files:
        raise RecordError(f"{source}: no such records; give a folder, a pattern or a file.")
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise RecordError(f"{missing[0]}: no such file.")
    folder = files[0].parent
    info = read_info(folder) if (folder / INFO_FILE).is_file() else None
    if info is not None and not allow_damaged:
        _verify(files, info)
    return files, info


def _find_split(directory: Path, split: str | None, unannotated: bool) -> list[Path]:
    shards = [match for match in (SHARD_NAME.match(p.name) for p in directory.iterdir()) if match]
    present = {match["name"] for match in shards}
    names = sorted({name.removesuffix(UNANNOTATED) if unannotated else name for name in present})
    splits = [name for name in names if not name.endswith(UNANNOTATED)]
    if not names:
        raise RecordError(f"{directory}: holds no records (NAME-00000-of-00001.tfrecord).")
    if split is None and len(splits) > 1:
        raise RecordError(f"{directory}: holds {', '.join(splits)}; say which with split=.")
    wanted = get_split_name(split) if split is not None else splits[0] if splits else ""
    if wanted not in names:
        _refuse_split(directory, wanted, splits, sorted(present - set(splits)))
    parts = list_parts(wanted) if unannotated else (wanted,)
    return [path for name in parts if name in present for path in _list_complete(directory, name)]


def _refuse_split(
    directory: Path, wanted: str, splits: Sequence[str], unannotated: Sequence[str]
) -> None:
    hidden = f"{wanted}{UNANNOTATED}" if wanted else "".join(unannotated[:1])
    if hidden in unannotated:
        raise RecordError(
            f"{directory}: has no annotated images in {hidden.removesuffix(UNANNOTATED)!r}, only "
            f"those in {hidden}-*, of which the source does not say whether they have boxes. "
            "vae-aug train reads them; a detector must not. If none of them has a box, ingest with "
            "--unannotated negative."
        )
    raise RecordError(f"{directory}: has no split {wanted!r}; it has {', '.join(splits)}.")


def list_shards(directory: Path, name: str) -> list[Path]:
    """Return the shards of a name in a folder, by their numbers."""
    matches = ((path, SHARD_NAME.match(path.name)) for path in directory.iterdir())
    return sorted(path for path, match in matches if match and match["name"] == name)


def _list_complete(directory: Path, name: str) -> list[Path]:
    files = list_shards(directory, name)
    shards = [match for match in (SHARD_NAME.match(path.name) for path in files) if match]
    counts, numbers = ({int(match[key]) for match in shards} for key in ("count", "index"))
    wanted = set(range(max(counts)))
    if len(counts) != 1 or numbers != wanted:
        raise RecordError(
            f"{directory}: the split {name!r} has {len(numbers & wanted)} of {len(wanted)} shards; "
            "an earlier run was cut short. Write the split again."
        )
    return files


# --- Counting --------------------------------------------------------------------------------


def count_listed(files: Sequence[Path], info: DatasetInfo) -> int | None:
    """Return the number of examples that `dataset.json` has for shards; None unless it has all."""
    counts = [_count_listed(path, info) for path in files]
    return None if None in counts else sum(count or 0 for count in counts)


def _count_listed(path: Path, info: DatasetInfo) -> int | None:
    """Return the number of examples in a shard, to which the split's were dealt in turn."""
    match = SHARD_NAME.match(path.name)
    part = info.parts.get(match["name"]) if match else None
    if match is None or part is None or part.shards != int(match["count"]):
        return None
    index = int(match["index"])
    return (part.examples - index + part.shards - 1) // part.shards if index < part.shards else None


def _verify(files: Sequence[Path], info: DatasetInfo) -> None:
    """Check sizes and counts of shards against `dataset.json`."""
    for path in files:
        match = SHARD_NAME.match(path.name)
        if match is None:  # a file that the user named, which `dataset.json` does not list
            continue
        expected = _count_listed(path, info)
        way_out = (
            "Write the split again, or pass allow_damaged=True (--allow-damaged) to read what is "
            "there."
        )
        if expected is None:
            raise RecordError(
                f"{path}: {INFO_FILE} beside it lists no such shard; it is of another data set or "
                f"version. {way_out}"
            )
        found = count_records(path)
        sizes = info.parts[match["name"]].shard_bytes
        size, listed = path.stat().st_size, sizes[int(match["index"])] if sizes else None
        if found != expected or (listed is not None and size != listed):
            raise RecordError(
                f"{path}: {INFO_FILE} lists {expected} records"
                + (f" in {listed} bytes" if listed is not None else "")
                + f"; the file holds {found} in {size}. {way_out}"
            )


def count_records(path: str | os.PathLike[str]) -> int:
    """Count the records of a file by their lengths, without reading their data.

    Args:
        path: The TFRecord file.

    Returns:
        The number of records.

    Raises:
        RecordError: If the file cannot be read or does not end where a record does.
    """
    size, offset, count = os.path.getsize(path), 0, 0
    with open(path, "rb") as file:
        while offset < size:
            head = os.pread(file.fileno(), _LENGTH_BYTES, offset)
            length = struct.unpack("<Q", head)[0] if len(head) == _LENGTH_BYTES else size
            offset += _FRAME_BYTES + length
            if offset > size:
                raise RecordError(
                    f"{path}, record {count}: damaged or cut short; write the split again, or pass "
                    "allow_damaged=True (--allow-damaged) to read what is there."
                )
            count += 1
    return count
