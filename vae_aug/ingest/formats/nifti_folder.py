"""Folders of NIfTI volumes, with volumes of labels beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from skimage.measure import label as label_regions

from vae_aug.errors import AnnotationError, VAEAugError
from vae_aug.ingest.formats.layout import fold_name
from vae_aug.ingest.formats.masks import find_regions, name_values
from vae_aug.ingest.formats.nifti_names import Volume
from vae_aug.ingest.formats.nifti_pairs import Pair, pair_volumes
from vae_aug.ingest.formats.source import (
    DEFAULTS,
    Annotations,
    Box,
    Collector,
    Fault,
    ReaderOptions,
    describe_fault,
    parse_number,
    reader,
)
from vae_aug.ingest.formats.text import load_json
from vae_aug.ingest.items import VolumeSlice
from vae_aug.ingest.nifti import (
    Grid,
    LabelSlice,
    check_axis,
    describe_mismatch,
    load_nibabel,
    read_grid,
    read_labels,
)
from vae_aug.limits import MAX_TEXT_BYTES, MAX_VOLUME_REGIONS
from vae_aug.words import plural

_IGNORED = "ignore"
"""nnU-Net's name of what is not annotated."""


class _Regions(NamedTuple):
    """What a slice of labels holds.

    Attributes:
        values: `[N] int64`, of the regions.
        boxes: `[N, 4] float64` `xyxy` in pixels.
        is_finite: Whether every voxel is a number.
    """

    values: np.ndarray
    boxes: np.ndarray
    is_finite: bool


class _Labels(NamedTuple):
    """A volume of labels, or why it cannot be read."""

    grid: Grid | None
    slices: tuple[_Regions, ...]
    reason: str


@reader
def read_nifti(
    source: str | os.PathLike[str], split: str = "train", options: ReaderOptions = DEFAULTS
) -> Annotations:
    """Read the slices of NIfTI volumes, with a box around each region of a label.

    Labels are told from images, and paired with them, by names: `docs/sources.md` has the layouts.
    A volume that only its values show to be labels is refused. Names of the classes are those of
    `dataset.json`, else as for masks; of several volumes of labels of one image, each is a class,
    called after its file. Every slice is an image; each 8-connected region of a value in it is a
    box. Of a fourth axis the first volume is read.

    A slice has no box if the labels of its volume were read and have none there. Nothing is said of
    a volume without labels, nor, where each volume of labels is a class, of slices without a box if
    a class that others have is missing. What labels say that cannot be used makes their images
    faulty.

    Args:
        source: The data set's folder, or one volume.
        split: Which split.
        options: `axis` says how slices are laid out; `images` is a further folder of volumes.

    Returns:
        The annotations; `source_id` is the path with `#` and the number of the slice from 0,
        `patient` the subject of a BIDS name, else the name of the volume without its channel,
        contrast or point in time, or the folder of a name like `imaging`; with its folder where
        another folder has a patient of that name.

    Raises:
        ValueError: On another axis.
        MissingPackageError: Without nibabel.
        AnnotationError: If the folder is missing or holds no image, if volumes seem to be labels
            but are not named so, or `dataset.json` cannot be read.

    Reference:
        Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13 (2022);
        Gorgolewski et al., The Brain Imaging Data Structure, Scientific Data 3 (2016).
    """
    check_axis(options.axis)
    load_nibabel()
    source = Path(source)
    collector = Collector(source if source.is_dir() else source.parent, options)
    described = _read_description(collector.root)
    channels = described.get("channel_names") or described.get("modality")
    count = len(channels) if isinstance(channels, dict) else 1
    pairs = pair_volumes(source, split, collector, count, options.images)
    grids = {pair.image.path: _read_image(pair.image, options.axis, collector) for pair in pairs}
    pairs = [pair for pair in pairs if grids[pair.image.path] is not None]
    labels = {
        volume.path: _read_labels(volume, options.axis, collector)
        for pair in pairs
        for volume in pair.labels
    }
    namer = _Namer(described, pairs, labels, collector.root)
    for pair, patient in zip(pairs, _name_patients(pairs), strict=True):
        grid = grids[pair.image.path]
        if grid is not None:
            of_pair = [labels[volume.path] for volume in pair.labels]
            entries = _list_entries(pair, of_pair, grid, namer, collector)
            entries = _doubt_missing(pair, entries, namer, collector)
            _add_slices(pair, grid, entries, options.axis, patient, collector)
    _note_grids([grid for grid in grids.values() if grid is not None], collector)
    if namer.missing:
        missing = ", ".join(sorted(namer.missing))
        collector.notes.append(
            f"volumes of labels are missing that other images have: {missing}; slices without a "
            "box of their images count as unannotated"
        )
    # What is wrong with a volume was said of each of its slices.
    collector.problems = list(dict.fromkeys(collector.problems))
    return collector.finish(namer.names)


def _read_description(root: Path) -> Mapping[str, Any]:
    """Read the `dataset.json` of the Decathlon or of nnU-Net; empty without one."""
    paths = [path for path in (root / "dataset.json", *sorted(root.glob("*/dataset.json")))]
    paths = [path for path in paths if path.is_file()]
    if not paths or (len(paths) > 1 and paths[0].parent != root):
        return {}
    content = load_json(paths[0], MAX_TEXT_BYTES)
    return content if isinstance(content, dict) else {}


def _name_values(described: Mapping[str, Any]) -> dict[int, str]:
    """Return names by value: the Decathlon maps values to names, nnU-Net names to values."""
    labels = described.get("labels")
    names: dict[int, str] = {}
    for key, value in labels.items() if isinstance(labels, dict) else ():
        is_value = np.isfinite(parse_number(key)) and isinstance(value, str)
        stated, name = (key, value) if is_value else (value, key)
        number = float("nan") if isinstance(stated, bool) else parse_number(stated)
        # Regions of nnU-Net, which are lists of values, have no class of their own in a volume.
        if not number.is_integer():
            continue
        if names.setdefault(int(number), name) != name:
            raise AnnotationError(
                f"dataset.json: labels has the value {int(number)} twice; give each class its own."
            )
    return {value: names[value] for value in sorted(names) if value > 0}


def _read_image(image: Volume, axis: str, collector: Collector) -> Grid | None:
    try:
        return read_grid(image.path, axis)
    except VAEAugError as error:
        collector.report(image.path, describe_fault(image.path, error))
        return None


def _read_labels(volume: Volume, axis: str, collector: Collector) -> _Labels:
    path = volume.path
    if not collector.contains(path):
        return _Labels(None, (), "they lie outside the source; name their folder with --images")
    try:
        grid, slices = read_labels(path, axis)
        return _Labels(grid, tuple(_list_regions(slices)), "")
    except VAEAugError as error:
        return _Labels(None, (), describe_fault(path, error))


def _list_regions(slices: Iterable[LabelSlice]) -> Iterator[_Regions]:
    """Yield what each slice holds; refuse a volume of noise, which would take minutes."""
    total = 0
    for labels in slices:
        values = labels.values
        has_any = bool(values.any())
        # Regions begin where values change, which is counted faster.
        if (
            has_any
            and np.count_nonzero(values[:, 1:] != values[:, :-1]) > MAX_VOLUME_REGIONS - total
        ):
            total += int(label_regions(values, background=0, connectivity=2, return_num=True)[1])
        if total > MAX_VOLUME_REGIONS:
            raise VAEAugError(f"has more than {MAX_VOLUME_REGIONS} regions, as noise has")
        found = list(find_regions(values)) if has_any else []
        total += len(found)
        yield _Regions(
            np.array([value for value, _ in found], np.int64),
            np.array([xyxy for _, xyxy in found], np.float64).reshape(-1, 4),
            labels.is_finite,
        )


def _name_patients(pairs: Sequence[Pair]) -> list[str]:
    """Return the patient of each image, apart from those of the same name in other folders."""
    names: dict[str, str] = {}
    homes: dict[str, set[tuple[str, ...]]] = {}
    for pair in pairs:
        key = fold_name(pair.patient)
        names.setdefault(key, pair.patient)
        homes.setdefault(key, set()).add(tuple(map(fold_name, pair.image.home)))
    return [
        names[key] if len(homes[key]) == 1 else "/".join((*pair.image.home, names[key]))
        for pair in pairs
        for key in [fold_name(pair.patient)]
    ]


class _Namer:
    """Names the classes of labels: by their values, or by files that are a class each."""

    def __init__(
        self,
        described: Mapping[str, Any],
        pairs: Sequence[Pair],
        labels: Mapping[Path, _Labels],
        root: Path,
    ) -> None:
        classes = {path: name for pair in pairs for path, name in _list_classes(pair).items()}
        several = (pair for pair in pairs if len(pair.labels) > 1)
        are_classes = any(map(_list_classes, several)) or _differ_by_class(pairs, classes)
        self._classes: dict[Path, str] = classes if are_classes else {}
        found = {
            int(value)
            for path, volume in labels.items()
            for regions in volume.slices
            for value in regions.values
            if value > 0 and path not in self._classes
        }
        self._values = _name_values(described) or name_values(root, found)
        self.missing: set[str] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """All classes in their order."""
        values = [] if self._classes and not self._values else self._values.values()
        names = dict.fromkeys((*values, *sorted(self._classes.values())))
        return tuple(name for name in names if name != _IGNORED)

    def has_classes(self, pair: Pair) -> bool:
        """Tell whether each volume of labels of an image is a class of its own."""
        return all(volume.path in self._classes for volume in pair.labels)

    def list_missing(self, pair: Pair) -> list[str]:
        """Return the classes that other images have a volume of labels for."""
        if not self._classes or not self.has_classes(pair):
            return []
        return sorted({*self._classes.values()} - {self._classes[v.path] for v in pair.labels})

    def list_entries(self, volume: Volume, regions: _Regions, index: int) -> Iterator[Box | Fault]:
        """Yield the boxes of a slice, and what is wrong in it."""
        if not regions.is_finite:
            yield Fault(f"slice {index}: labels that are no number")
        name = self._classes.get(volume.path)
        for value, xyxy in zip(regions.values.tolist(), regions.boxes.tolist(), strict=True):
            label = self._values.get(value) if name is None else name
            if value < 0 or label is None:
                yield Fault(f"slice {index}: a region of value {value}, which has no name")
            elif label == _IGNORED:
                yield Fault(f"slice {index}: a region that is not annotated (ignore)")
            else:
                yield Box(xyxy, label)


def _differ_by_class(pairs: Sequence[Pair], classes: Mapping[Path, str]) -> bool:
    """Tell whether images have one volume of labels each, of classes that differ.

    A name with a number, or that of a folder above, is rather that of a case.
    """
    folders = {fold_name(part) for pair in pairs for part in pair.image.path.parts}
    names = {name for pair in pairs for volume in pair.labels if (name := classes.get(volume.path))}
    is_case = any(re.search(r"\d", name) or fold_name(name) in folders for name in names)
    return len(names) > 1 and not is_case


def _list_classes(pair: Pair) -> dict[Path, str]:
    """Return the class of each volume of labels of an image, if each has one of its own."""
    classes = {
        volume.path: volume.class_name
        for volume in pair.labels
        if volume.class_name and not volume.is_of_a_rater
    }
    is_one_each = len(set(classes.values())) == len(pair.labels)
    return classes if is_one_each else {}


def _list_entries(
    pair: Pair, labels: Sequence[_Labels], grid: Grid, namer: _Namer, collector: Collector
) -> list[list[Box | Fault] | None]:
    """Return what the labels of an image say of each of its slices."""
    if not pair.labels and not pair.is_doubtful:
        return [None] * grid.slices
    faults: list[Box | Fault] = [
        Fault(f"its labels cannot be used: {reason}", "unread")
        for reason in _find_faults(pair, labels, grid, namer)
    ]
    if faults:
        return [faults] * grid.slices
    volumes = list(zip(pair.labels, labels, strict=True))
    if not namer.has_classes(pair):
        for volume in pair.labels[1:]:
            collector.report(volume.path, "has labels that another volume has, too")
        volumes = volumes[:1]
    return [
        [
            entry
            for volume, read in volumes
            for entry in namer.list_entries(volume, read.slices[index], index)
        ]
        for index in range(grid.slices)
    ]


def _doubt_missing(
    pair: Pair, slices: list[list[Box | Fault] | None], namer: _Namer, collector: Collector
) -> list[list[Box | Fault] | None]:
    """Take back that slices have no box where the labels of a class are missing."""
    missing = namer.list_missing(pair)
    if not missing or all(slices):
        return slices
    reason = (
        f"has no labels of {', '.join(missing)}, as other images have; its slices without a box "
        "count as unannotated"
    )
    collector.report(pair.image.path, reason, "unannotated")
    namer.missing |= {*missing}
    return [entries or None for entries in slices]


def _find_faults(pair: Pair, labels: Sequence[_Labels], grid: Grid, namer: _Namer) -> Iterator[str]:
    """Yield why nothing that labels say of an image is certain."""
    for volume in labels:
        if volume.grid is None:
            yield volume.reason
        elif mismatch := describe_mismatch(volume.grid, grid):
            yield f"{mismatch}; resample them"
        elif namer.has_classes(pair):
            if len({int(value) for regions in volume.slices for value in regions.values}) > 1:
                yield "one of several volumes, each of which is a class, has several values"
        elif not _is_equal(volume, labels[0]):
            yield f"{len(labels)} volumes of labels of the image differ; keep one"
    if pair.is_doubtful:
        yield "there are labels that were not read or have no image, which may be of this one"


def _is_equal(first: _Labels, second: _Labels) -> bool:
    return all(
        np.array_equal(one.values, other.values) and np.array_equal(one.boxes, other.boxes)
        for one, other in zip(first.slices, second.slices, strict=False)
    )


def _add_slices(
    pair: Pair,
    grid: Grid,
    slices: Sequence[list[Box | Fault] | None],
    axis: str,
    patient: str,
    collector: Collector,
) -> None:
    path = pair.image.path
    for index, entries in enumerate(slices):
        collector.add(
            VolumeSlice(path, index, axis=axis),
            entries,
            size=(grid.height, grid.width),
            patient=patient,
            source_id=f"{collector.relate(path)}#{index}",
        )


def _note_grids(grids: Sequence[Grid], collector: Collector) -> None:
    deep = sum(grid.volumes > 1 for grid in grids)
    lost = sum(not grid.is_oriented for grid in grids)
    all_of = plural(len(grids), "volume")
    if deep:
        has = "has" if deep == 1 else "have"
        collector.notes.append(f"{deep} of {all_of} {has} a fourth axis; its first was read")
    if lost:
        tell = "does not tell how it lies" if lost == 1 else "do not tell how they lie"
        collector.notes.append(f"{lost} of {all_of} {tell} in the patient")
