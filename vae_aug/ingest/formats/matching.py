"""Which image an annotation file describes, where each image has a file of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from vae_aug.ingest.formats.layout import IMAGE_SUFFIXES, FileFinder, fold_name
from vae_aug.ingest.formats.pixels import flag_relative
from vae_aug.ingest.formats.source import Box, Collector, Fault

_FORMATS = {".jpeg": ".jpg", ".tiff": ".tif", ".dicom": ".dcm"}


class Claim(NamedTuple):
    """What an annotation file says of an image; one of the two may be missing.

    Attributes:
        image: The image; None if it is missing.
        file: The annotation file; None if the image has none.
        entries: Boxes and faults, as in `Collector.add`.
        size: Height and width in pixels that the file claims.
        missing: What to report if there is no image.
        name: What the file calls its image; anything that is no name counts as none.
    """

    image: Path | None
    file: Path | None = None
    entries: tuple[Box | Fault, ...] | None = None
    size: tuple[int | None, int | None] = (None, None)
    missing: str = "the image that it describes is missing"
    name: object = None

    @property
    def stem(self) -> str:
        """The stem of the annotation file, or of an image without one."""
        return (self.file or self.image or Path()).stem

    @property
    def unread(self) -> str | None:
        """Why the file could not be read; None if it could."""
        faults = (entry for entry in self.entries or () if isinstance(entry, Fault))
        return next((fault.reason for fault in faults if fault.effect == "unread"), None)

    @property
    def is_by_name(self) -> bool:
        """Whether the file has the name of its image."""
        return self.image is None or fold_name(self.image.stem) == fold_name(self.stem)


def add_claims(collector: Collector, claims: Iterable[Claim]) -> None:
    """Add the images of claims in pixels, and report files whose image is missing."""
    lost = 0
    for claim in claims:
        if claim.image is not None:
            entries = None
            if claim.entries is not None:
                entries = flag_other_format(claim.image, claim.entries, claim.name, claim.size)
                entries = flag_relative(entries, claim.size)
            collector.add(claim.image, entries, file=claim.file, size=claim.size)
        elif claim.file is not None:
            collector.report(claim.file, claim.unread or claim.missing)
            lost += bool(claim.entries)
    collector.doubt_unannotated(lost)


def flag_other_format(
    image: Path,
    entries: Sequence[Box | Fault],
    name: object,
    size: tuple[int | None, int | None],
) -> list[Box | Fault]:
    """Add a fault if an annotation was made in an image of another format, maybe another size.

    Where it claims a size, an image of another one is left out later.

    Args:
        image: The image that was found for the annotation.
        entries: Its boxes and faults.
        name: What it calls its image; anything that is no name counts as none.
        size: Height and width in pixels that it claims.

    Returns:
        The entries, with a fault if the name tells of another format and a side is not claimed.
    """
    named, stem = _get_last(name), fold_name(image.stem)
    told, own = (_FORMATS.get(p.suffix.lower(), p.suffix.lower()) for p in (named, image))
    own = own if own in IMAGE_SUFFIXES else ".dcm"
    # A suffix that no image has may be the end of a name with points.
    tells = told in IMAGE_SUFFIXES or fold_name(named.stem) == stem
    if None not in size or told in ("", own) or fold_name(named.name) == stem or not tells:
        return list(entries)
    reason = "it names an image of another format and no size, so that it may be another image"
    return [*entries, Fault(reason, "unread")]


def doubt_strays(claims: Sequence[Claim]) -> list[Claim]:
    """Add faults where a file that could not be read may describe an image too.

    It may describe any but those whose own file has their name.
    """
    if not any(claim.image is None and claim.unread for claim in claims):
        return list(claims)
    fault = Fault("a file that could not be read may describe this image too", "unread")
    return [
        claim if claim.is_by_name else claim._replace(entries=(*(claim.entries or ()), fault))
        for claim in claims
    ]


class ImageMatcher:
    """Finds the image of an annotation file, by the file's own name first.

    Image and annotation are renamed and copied together, and the name inside the annotation stays
    behind. So an image of the annotation's stem comes first. Where several have this stem, the
    name inside decides. Where none has it, the name inside counts.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        """Search these folders; of images of one name, that of the first folder counts."""
        self._finder = FileFinder(folders)
        self._index: dict[str, dict[str, Path]] = {}
        for folder in folders:
            for path in list_files(folder, *IMAGE_SUFFIXES):
                self._index.setdefault(fold_name(path.stem), {}).setdefault(path.name, path)
        self._by_path = {os.path.normpath(path): path for path in self.images}

    @property
    def images(self) -> list[Path]:
        """All images of the folders."""
        return [path for paths in self._index.values() for path in paths.values()]

    def find(self, name: object) -> Path | None:
        """Return the image of a name, else the only one of its stem; None if there is none."""
        found = self._finder.find(name)
        if found is not None and found.suffix.lower() in IMAGE_SUFFIXES:
            return self._by_path.get(os.path.normpath(found), found)
        alike = self.list_alike(_get_last(name).stem)
        return alike[0] if len(alike) == 1 else None

    def list_alike(self, stem: str) -> list[Path]:
        """Return the images of a stem as it is written, else in other letter case or form."""
        paths = list(self._index.get(fold_name(stem), {}).values())
        return [path for path in paths if path.stem == stem] or paths

    def match(self, file: Path, name: object) -> list[Path]:
        """Return the image of an annotation file; several if it cannot be told which.

        Args:
            file: The annotation file.
            name: What it calls its image; anything that is no name counts as none.
        """
        paths = self.list_alike(file.stem)
        if not paths:
            return list(filter(None, [self.find(name)]))
        last = fold_name(_get_last(name).name)
        named = [path for path in paths if fold_name(path.name) == last]
        return named if len(named) == 1 else paths


def _get_last(name: object) -> PurePosixPath:
    """Return the last part of a path that an annotation names."""
    text = name.strip().replace("\\", "/") if isinstance(name, str) else ""
    return PurePosixPath(PurePosixPath(text).name)


def list_files(folder: Path, *suffixes: str) -> list[Path]:
    """Return the files of a folder of these suffixes, in any letter case, sorted."""
    # Archives packed on a Mac hold "._NAME.png" beside every image.
    return sorted(
        path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.suffix.lower() in suffixes and path.name[:2] != "._" and path.is_file()
    )
