"""Which volumes of labels belong to which images of a folder of NIfTI volumes.

What is not paired with certainty is reported by its name, or refused where it would be taken for an
image.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vae_aug.errors import AnnotationError, MissingSplitError, VAEAugError
from vae_aug.ingest.formats.layout import fold_name, list_split_names
from vae_aug.ingest.formats.nifti_names import (
    Volume,
    get_stem,
    names_mark,
    parse_volumes,
    tell_folder,
)
from vae_aug.ingest.formats.source import Collector
from vae_aug.ingest.formats.walk import walk
from vae_aug.ingest.nifti import FEW_VALUES, count_values, has_unit_range, is_nifti, read_shape
from vae_aug.words import plural

UNREAD_SUFFIXES = (
    *(".mha", ".mhd", ".nrrd", ".nhdr", ".hdr", ".img", ".mgh", ".mgz", ".mnc"),
    *(".img.gz", ".nii.bz2", ".nii.xz", ".nii.zst"),
)
"""Suffixes of volumes that are named and not read."""

_PARTIAL_SUFFIXES = (".part", ".tmp", ".crdownload", ".nii.zip")
_HOW = (
    "name labels NAME_seg.nii.gz beside NAME.nii.gz, or keep them under the names of the images in "
    "labels/ beside images/"
)
_NAMES_TOLD = 10


@dataclasses.dataclass
class Pair:
    """An image and what is known of its labels.

    Attributes:
        image: The image.
        labels: All volumes of labels that are of it.
        is_channel: Whether its name ends in the number of a channel.
        is_doubtful: Whether there are labels that may be of it.
    """

    image: Volume
    labels: list[Volume] = dataclasses.field(default_factory=list)
    is_channel: bool = False
    is_doubtful: bool = False

    @property
    def patient(self) -> str:
        """The patient of the image, without the number of the channel."""
        name = self.image.patient
        return re.sub(r"[\W_][0-9]{4}$", "", name) if self.is_channel else name


def pair_volumes(
    source: Path, split: str, collector: Collector, channels: int, images: Path | None = None
) -> list[Pair]:
    """Pair the images of a split with their labels.

    Args:
        source: The data set's folder, or one image.
        split: Which split.
        collector: Is told what is left out.
        channels: How many channels nnU-Net's names may number.
        images: A further folder of images.

    Returns:
        The images in the order of their paths.

    Raises:
        AnnotationError: If there is no image in the split, or if labels would be taken for images.
    """
    volumes = _list_volumes(source, collector, images)
    one = [volume for volume in volumes if volume.path == source]
    if source.is_file() and not one:
        raise AnnotationError(f"{source}: is no NIfTI volume (NAME.nii, NAME.nii.gz) to be read.")
    if one and one[0].kind != "image":
        raise AnnotationError(f"{source}: is named as labels are; give the image, or its folder.")
    if one:
        # What else lies in the folder of one image is no part of the source.
        collector = Collector(collector.root)
    else:
        volumes = _choose_split(volumes, source, split, collector)
    pairs = [Pair(volume) for volume in volumes if volume.kind == "image"]
    _pair(pairs, [volume for volume in volumes if volume.kind == "labels"], collector)
    _doubt_unread(pairs, source)
    _mark_channels(pairs, channels)
    _report_others(volumes, collector)
    wanted = [pair for pair in pairs if not one or pair.image in one]
    pairs = _refuse_labels(source, wanted, pairs, collector)
    if not pairs:
        found = "only labels" if volumes else "no NIfTI volume (NAME.nii, NAME.nii.gz)"
        raise AnnotationError(f"{source}: holds {found}; give the folder of the images, too.")
    return pairs


def _list_volumes(source: Path, collector: Collector, images: Path | None) -> list[Volume]:
    """Return the volumes of a folder, or of the folder of a file, in the order of their paths."""
    if not source.exists():
        raise AnnotationError(f"{source}: no such file or folder.")
    folders = [source.parent if source.is_file() else source]
    if images is not None and not images.resolve().is_relative_to(folders[0].resolve()):
        folders.append(images)

    def has_labels(path: Path) -> bool:
        return not collector.contains(path) or _has_label_values(path)

    volumes = []
    for folder in folders:
        paths = sorted(_walk(folder, is_deep=source.is_dir()))
        for path in paths if source.is_dir() else ():
            if path.name.lower().endswith(UNREAD_SUFFIXES):
                collector.report(path, "is no NIfTI in one file; convert it to .nii.gz")
        # The name of the source itself may say that all in it are labels.
        root = folder.parent if tell_folder(fold_name(folder.name)) == "labels" else folder
        volumes += parse_volumes([path for path in paths if is_nifti(path)], root, has_labels)
    return [volume for volume in volumes if _is_taken(volume, collector)]


def _doubt_unread(pairs: Sequence[Pair], source: Path) -> None:
    """Mark images without labels, or with one in a folder beside a volume that is not read."""
    unread = {
        path.parent
        for path in _walk(source, is_deep=True)
        if path.name.lower().endswith((*UNREAD_SUFFIXES, *_PARTIAL_SUFFIXES))
        and tell_folder(fold_name(path.parent.name)) == "labels"
    }
    for pair in pairs:
        if unread and (not pair.labels or any(v.path.parent in unread for v in pair.labels)):
            pair.is_doubtful = True


def _is_taken(volume: Volume, collector: Collector) -> bool:
    """Report an image outside the source, which is not even looked into."""
    if volume.kind != "image" or collector.contains(volume.path):
        return True
    collector.report(
        volume.path, "the image lies outside the source; name its folder with --images"
    )
    return False


def _walk(folder: Path, *, is_deep: bool) -> Iterator[Path]:
    """Yield all files but hidden ones: archives packed on a Mac hold "._NAME.nii.gz"."""
    found = walk(folder, lambda name: is_deep and name[0] != ".")
    yield from (Path(entry.path) for entry in found if entry.name[0] != ".")


def _has_label_values(path: Path) -> bool:
    """Tell whether values are few, as those of labels, or may be their probabilities."""
    try:
        return count_values(path) is not None or has_unit_range(path)
    except VAEAugError:
        return True


def _choose_split(
    volumes: list[Volume], source: Path, split: str, collector: Collector
) -> list[Volume]:
    """Return the volumes of a split; labels that lie in no split's folder may be of any."""
    names = {fold_name(name) for name in list_split_names(split)}

    def is_in(volume: Volume) -> bool:
        return volume.split in names if volume.split else bool(names & set(volume.place))

    images = [volume for volume in volumes if volume.kind == "image"]
    if not any(volume.split or is_in(volume) for volume in images):
        return volumes
    if not any(map(is_in, images)):
        others = sorted({volume.split for volume in images if volume.split})
        raise MissingSplitError(
            f"{source}: has no images for the split {split!r}; it has {', '.join(others)}. "
            "imagesTr is train, imagesTs test."
        )
    for volume in images:
        if not volume.split and not is_in(volume):
            collector.report(volume.path, "lies in no folder of a split, though others do")
    return [
        volume
        for volume in volumes
        if is_in(volume) or (volume.kind != "image" and not volume.split)
    ]


def _pair(pairs: Sequence[Pair], labels: Sequence[Volume], collector: Collector) -> None:
    """Give each image its labels; report labels of which it cannot be told whose they are."""
    matcher = _Matcher(pairs, labels)
    lost, guessed = 0, []
    for volume in labels:
        found = matcher.find(volume)
        if not found:
            found = matcher.find_elsewhere(volume)
            guessed += found
        # Names that differ in letter case alone may be those of two images.
        spelled = [p for p in found if get_stem(volume.path).startswith(get_stem(p.image.path))]
        for pair in spelled or found:
            pair.labels.append(_name_class(volume, pair.image))
            if len(volume.exact) < len(pair.image.exact) and pair.image.channel is not None:
                pair.is_channel = pair.image.exact[:-1] == volume.exact
        if not found:
            collector.report(
                volume.path, f"a volume of labels, without the one that it is of; {_HOW}"
            )
            lost += 1
            for pair in matcher.list_alike(volume):
                pair.is_doubtful = True
    # What was lost may be of any image without labels, and shows that folders were misread.
    for pair in [*guessed, *(pair for pair in pairs if not pair.labels)] if lost else ():
        pair.is_doubtful = True
    left_out = 0
    for pair in pairs:
        others = [volume for volume in pair.labels if not volume.is_of_a_rater]
        if others and len(others) < len(pair.labels):
            left_out += len(pair.labels) - len(others)
            pair.labels = others
    if left_out:
        collector.notes.append(
            plural(
                left_out,
                "volume of labels",
                "is of one rater and was left out",
                "are of one rater each and were left out",
            )
            + "; those of all together were read"
        )


def _name_class(labels: Volume, image: Volume) -> Volume:
    """Return labels with the name of their class, if it is not the name of the image."""
    is_named = labels.scan or names_mark(labels.class_name)
    is_class = is_named and (not image.scan or image.scan[0].startswith("sub-"))
    return labels if is_class else labels._replace(class_name="")


def _mark_channels(pairs: Sequence[Pair], channels: int) -> None:
    """Mark the images without labels whose names end as those of channels do."""
    proven = {pair.image.channel for pair in pairs if pair.is_channel}
    for pair in pairs:
        number = pair.image.channel
        if number is not None and not pair.labels and pair.image.has_role:
            pair.is_channel = number < channels or number in proven


class _Matcher:
    """Finds the images that labels are of."""

    def __init__(self, pairs: Sequence[Pair], labels: Sequence[Volume]) -> None:
        self._places: dict[tuple[str, ...], list[Pair]] = {}
        self._index: dict[tuple[Any, ...], list[Pair]] = {}
        self._scans: dict[tuple[str, ...], list[Pair]] = {}
        self._labels: dict[tuple[str, ...], int] = {}
        for pair in pairs:
            image = pair.image
            self._places.setdefault(image.place, []).append(pair)
            self._scans.setdefault(image.scan, []).append(pair)
            keys = [("exact", image.exact), ("scan", image.scan), ("case", image.case)]
            if image.channel is not None:
                keys.append(("channel", image.exact[:-1]))
            for key in keys:
                self._index.setdefault((image.place, *key), []).append(pair)
        for volume in labels:
            self._labels[volume.scan] = self._labels.get(volume.scan, 0) + 1

    def find(self, labels: Volume) -> list[Pair]:
        """Return the images of labels: those of the name that has most in common with theirs."""
        for key in (
            ("exact", labels.exact),
            ("scan", labels.exact),
            ("channel", labels.exact),
            ("scan", labels.scan),
            ("case", labels.case),
        ):
            if found := self._index.get((labels.place, *key)):
                return found
        return self._find_of_folder(labels)

    def _find_of_folder(self, labels: Volume) -> list[Pair]:
        """Find images by labels that are called after the kind of labels, or of an organ."""
        here = self._places.get(labels.place, [])
        general = [pair for pair in here if not pair.image.scan]
        if not labels.scan or all(len(w) < 3 and w.isdigit() for w in labels.scan):
            return general or (here if len(here) == 1 and not labels.scan else [])
        above = labels.path.parent.parent
        beside = [pair for pair in general if pair.image.path.parent == above]
        return beside if labels.has_role and len(general) == len(beside) == len(here) else []

    def find_elsewhere(self, labels: Volume) -> list[Pair]:
        """Find images in other folders, where names are there but once."""
        found = self._scans.get(labels.scan, [])
        is_one = len({pair.image.place for pair in found}) == 1 == self._labels[labels.scan]
        return found if labels.scan and is_one else []

    def list_alike(self, labels: Volume) -> list[Pair]:
        """Return the images whose name the name of labels begins with."""
        here = self._places.get(labels.place, [])
        return [
            pair
            for pair in here
            if not labels.scan or labels.exact[: len(pair.image.scan)] == pair.image.scan
        ]


def _refuse_labels(
    source: Path, wanted: Sequence[Pair], pairs: Sequence[Pair], collector: Collector
) -> list[Pair]:
    """Refuse images that can only be labels: of few values, and with a scan that they may be of.

    Returns:
        The pairs that are wanted, without volumes of one value, which may be labels of nothing.
    """
    values, shapes = _cached(count_values), _cached(read_shape)

    def is_scan_of(image: Volume, other: Volume) -> bool:
        same_size = shapes(image.path) == shapes(other.path) != ()
        same_name = other.scan and image.exact[: len(other.scan)] == other.scan
        same_place = image.place == other.place and (image.place or not other.scan)
        return bool(same_size or same_name or same_place) and values(other.path) is None

    sharing = collections.Counter(tuple(pair.labels) for pair in pairs)
    kept, refused = [], []
    for pair in wanted:
        # An image with labels of its own is one; of several channels, one may be a mask.
        is_certain = len(pairs) == 1 or (pair.labels and sharing[tuple(pair.labels)] == 1)
        count = None if is_certain else values(pair.image.path)
        if count in (None, ()) or not any(
            is_scan_of(pair.image, other.image)
            for other in pairs
            if other is not pair and (not pair.labels or pair.labels == other.labels)
        ):
            kept.append(pair)
        elif count == 1:
            collector.report(pair.image.path, "all its voxels have one value")
        else:
            refused.append(collector.relate(pair.image.path))
    if refused:
        told = ", ".join(refused[:_NAMES_TOLD]) + (", ..." if len(refused) > _NAMES_TOLD else "")
        raise AnnotationError(
            f"{source}: {plural(len(refused), 'volume', 'has', 'have')} at most {FEW_VALUES} "
            "different values and the size, name or folder of others, as labels have, but their "
            f"names do not tell which they are of: {told}. If they are labels, {_HOW}; if they are "
            "images, ingest them from a folder of their own."
        )
    return kept


def _cached(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Read each file once; one that cannot be read gives `()`."""
    found: dict[Path, Any] = {}

    def get(path: Path) -> Any:
        if path not in found:
            try:
                found[path] = read(path)
            except VAEAugError:
                # What is wrong is reported when the volume itself is read.
                found[path] = ()
        return found[path]

    return get


def _report_others(volumes: Iterable[Volume], collector: Collector) -> None:
    brains = 0
    for volume in volumes:
        brains += volume.kind == "brain"
        if volume.kind == "map":
            reason = "named as probabilities or a prediction, which are no labels"
            collector.report(volume.path, reason)
    if brains:
        collector.notes.append(
            plural(
                brains,
                "mask of the brain",
                "marks no lesion and was left out",
                "mark no lesion and were left out",
            )
        )
