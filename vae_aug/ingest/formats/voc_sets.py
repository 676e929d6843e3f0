"""Split lists of Pascal VOC, `ImageSets/Main/<split>.txt`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath, PurePosixPath

from vae_aug.errors import MissingSplitError
from vae_aug.ingest.formats.layout import IMAGE_SUFFIXES, fold_name, list_split_names
from vae_aug.ingest.formats.matching import Claim
from vae_aug.ingest.formats.source import Collector, Fault
from vae_aug.ingest.formats.text import read_text


def list_folders(folder: Path, *names: str) -> list[Path]:
    """Return the folders in `folder` of these names in any letter case, the first name first."""
    found = [path for path in sorted(folder.iterdir()) if path.name.lower() in names]
    found = [path for path in found if path.is_dir()]
    return sorted(found, key=lambda path: names.index(path.name.lower()))


def read_image_set(folder: Path, split: str) -> list[str] | None:
    """Return the lines in the list of a split; None if there are no lists, or all are wanted."""
    sets = list_folders(folder, "imagesets")
    lists = next((main for place in sets for main in list_folders(place, "main")), None)
    if lists is None or split == "all":
        return None
    for name in list_split_names(split):
        if (lists / f"{name}.txt").is_file():
            lines = map(str.strip, read_text(lists / f"{name}.txt").splitlines())
            return [line for line in dict.fromkeys(lines) if line]
    names = ", ".join(sorted(path.stem for path in lists.glob("*.txt")))
    raise MissingSplitError(
        f"{lists}: has no {split}.txt; it has {names}. 'all' takes every image."
    )


def choose_claims(
    collector: Collector, claims: Iterable[Claim], lines: Iterable[str]
) -> Iterator[Claim]:
    """Yield the claims that the lines of a split list mean."""
    index: dict[tuple[int, str], list[Claim]] = {}
    for claim in claims:
        for key in dict.fromkeys(_list_keys(claim)):
            index.setdefault(key, []).append(claim)
    seen: set[int] = set()
    for line in lines:
        names = _parse_line(line)
        keys = ((rank, form) for n in names for rank in range(3) for form in (n, fold_name(n)))
        found = next((key for key in keys if key in index), None)
        if found is None:
            reason = "the split list names it, there is no image and no XML file"
            collector.report(names[-1], reason)
            continue
        for claim in _narrow(index[found], line):
            if id(claim) not in seen:
                seen.add(id(claim))
                yield claim


def _narrow(claims: Sequence[Claim], line: str) -> list[Claim]:
    """Return those of some claims that a line means; where it does not tell which, with faults."""
    if len({claim.image.parent for claim in claims if claim.image}) < 2:
        return list(claims)
    folders = [_fold((claim.image or claim.file or Path()).parent) for claim in claims]
    parts = _fold(PurePosixPath(line.replace("\\", "/")).parent)
    for start in range(len(parts)):
        end = parts[start:]
        pairs = zip(claims, folders, strict=True)
        if found := [claim for claim, folder in pairs if folder[-len(end) :] == end]:
            return found
    fault = Fault("the split list does not tell which of the images of its name it means", "unread")
    return [claim._replace(entries=(*(claim.entries or ()), fault)) for claim in claims]


def _fold(folder: PurePath) -> tuple[str, ...]:
    return tuple(map(fold_name, folder.parts))


def _list_keys(claim: Claim) -> list[tuple[int, str]]:
    """Return the names by which a line may mean a claim, the most exact first."""
    image = claim.image or Path()
    names = enumerate((image.name, image.stem, claim.stem))
    return [key for rank, name in names for key in ((rank, name), (rank, fold_name(name)))]


def _parse_line(line: str) -> list[str]:
    """Return what a line of a split list may name, the likeliest first.

    It is the stem of an image, its name, or its path; lists of one class carry -1, 0 or 1 behind.
    """
    head, _, tail = line.rpartition(" ")
    texts = [line, head.strip() if tail in ("-1", "0", "1") else "", line.split()[0]]
    names = [PurePosixPath(text.replace("\\", "/")) for text in dict.fromkeys(texts) if text]
    stems = [n.stem for n in names if n.suffix.lower() in {*IMAGE_SUFFIXES, ".xml"}]
    return list(dict.fromkeys([*(name.name for name in names if name.name), *stems])) or [line]
