"""Folders of NIfTI volumes, with volumes of labels beside them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vae_aug.data.annotations.layout import find_split_folder
from vae_aug.data.annotations.masks import find_regions, name_values
from vae_aug.data.annotations.source import Annotations, Box, Collector, describe_fault
from vae_aug.data.nifti import Grid, check_axis, is_nifti, load_nibabel, read_grid, read_labels
from vae_aug.data.records import get_split_name
from vae_aug.errors import AnnotationError, VAEAugError

_LABELS = re.compile(r"[_-](?:mask|seg|dseg|label)$", re.IGNORECASE)
_CHANNEL = re.compile(r"_(\d{4})$")
_DECATHLON = {"train": "Tr", "test": "Ts"}

_CONTRAST = re.compile(
    r"[_-](?:t1|t2|pd|t1w|t2w|pdw|t1n|t1c|t1ce|t1gd|t2f|flair|dwi|adc|swi|ct|pet)$", re.IGNORECASE
)
"""How names tell the images of one examination apart: BIDS' suffixes and those of BraTS."""

_DESCRIPTION = re.compile(r"_(?:label|desc)-[A-Za-z0-9]+")
"""What BIDS calls labels by, beyond the image that they lie on."""

_BRAIN = re.compile(r"[_-]brain[_-](?:mask|seg|dseg|label)$", re.IGNORECASE)
_SUBJECT = re.compile(r"sub-[A-Za-z0-9]+(?![A-Za-z0-9])")
_Regions = list[tuple[int, list[float]]]


class _Pair(NamedTuple):
    """A volume, what it is called, and its labels if it has any."""

    path: Path
    name: str
    labels: Path | None


def read_nifti(
    source: str | os.PathLike[str], split: str = "train", axis: str = "axial"
) -> Annotations:
    """Read the slices of NIfTI volumes, with a box around each region of a label.

    Layouts: `imagesTr/` and `labelsTr/` (`imagesTs/` for the split test) as in the Medical
    Segmentation Decathlon, also with nnU-Net's numbers of channels, `NAME_0000.nii.gz` for the
    labels `NAME.nii.gz`; or, in any folder, `NAME_mask`, `NAME_seg`, `NAME_dseg` or `NAME_label`
    beside `NAME.nii.gz` or beside the contrasts of an examination, `NAME_flair.nii.gz` or
    `NAME-t2f.nii.gz`, as in BraTS and BIDS, whose `label-` and `desc-` are not part of the name.
    Names of the labels are those of `dataset.json`, else as for masks. Every slice is an
    image, also one without boxes; each 8-connected region of a value in it is a box. Of a fourth
    axis the first volume is read.

    Args:
        source: The data set's folder, or one volume.
        split: Which split.
        axis: Of `vae_aug.data.nifti.AXES`, which says how slices are laid out.

    Returns:
        The annotations; `source_id` is the path with `#` and the number of the slice from 0,
        `patient` the subject of a BIDS name, else the name of the volume without its channel or
        contrast, and with its folder where another folder has a volume of that name.

    Raises:
        ValueError: On another axis.
        MissingPackageError: Without nibabel.
        AnnotationError: If the folder is missing or holds no volume.

    Reference:
        Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13 (2022);
        Gorgolewski et al., The Brain Imaging Data Structure, Scientific Data 3 (2016).
    """
    check_axis(axis)
    load_nibabel()
    source = Path(source)
    collector = Collector(source if source.is_dir() else source.parent)
    described = _read_description(collector.root)
    pairs = list(_pair_volumes(source, split, collector, described))
    if not pairs:
        raise AnnotationError(f"{source}: holds no NIfTI volume (NAME.nii, NAME.nii.gz).")
    volumes = [(pair, *read) for pair in pairs if (read := _read_pair(pair, axis, collector))]
    found = {value for _, _, slices in volumes for boxes in slices for value, _ in boxes}
    names = _name_labels(described) or name_values(collector.root, found)
    patients = _name_patients(pairs, collector)
    for pair, grid, slices in volumes:
        _add_slices(pair, grid, slices, axis, names, patients[pair], collector)
    for count, fault in (
        (sum(g.volumes > 1 for _, g, _ in volumes), "have a fourth axis; its first was read"),
        (sum(not g.is_oriented for _, g, _ in volumes), "do not tell how they lie in the patient"),
    ):
        if count:
            collector.notes.append(f"{count} of {len(volumes)} volumes {fault}")
    return collector.finish(dict.fromkeys(names.values()))


def _read_description(root: Path) -> Mapping[str, Any]:
    """Read the `dataset.json` of the Decathlon or of nnU-Net; empty without one."""
    path = root / "dataset.json"
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise AnnotationError(f"{path}: no valid JSON; correct or remove it.") from error
    return content if isinstance(content, dict) else {}


def _name_labels(described: Mapping[str, Any]) -> dict[int, str]:
    """Return names by value: the Decathlon maps values to names, nnU-Net names to values."""
    labels = described.get("labels")
    names: dict[int, str] = {}
    for key, value in labels.items() if isinstance(labels, dict) else ():
        if isinstance(value, int):
            names[value] = key
        elif key.isdecimal() and isinstance(value, str):
            names[int(key)] = value
    return {value: names[value] for value in sorted(names) if value != 0}


def _pair_volumes(
    source: Path, split: str, collector: Collector, described: Mapping[str, Any]
) -> Iterator[_Pair]:
    """Yield the volumes of a split in the order of their paths; report labels without one."""
    if source.is_file():
        labels = dict(_find_labels(_list_volumes(source.parent.iterdir())))
        yield _Pair(source, _get_name(source), _find_beside(source, labels))
        return
    if not source.is_dir():
        raise AnnotationError(f"{source}: no such file or folder.")
    if (source / "imagesTr").is_dir():
        yield from _pair_decathlon(source, split, described)
        return
    volumes = _list_volumes((find_split_folder(source, split) or source).rglob("*"))
    labels = {}
    for volume, path in _find_labels(volumes):
        if labels.setdefault(volume, path) != path:
            collector.report(path, f"{labels[volume].name} has labels of the same volume")
    pairs = [
        _Pair(path, _get_name(path), _find_beside(path, labels))
        for path in volumes
        if not _LABELS.search(_get_stem(path))
    ]
    yield from pairs
    used = {pair.labels for pair in pairs}
    for path in labels.values():
        if path not in used:
            collector.report(path, "a volume of labels, without the one that it is of")
    brains = sum(_is_brain(path) for path in volumes)
    if brains:
        collector.notes.append(f"{brains} masks of the brain mark no lesion and were left out")


def _find_labels(volumes: Iterable[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield the volume that labels are of, without its ending, and the labels."""
    for path in volumes:
        stem = _get_stem(path)
        name = _LABELS.sub("", stem)
        if name != stem and not _is_brain(path):
            yield path.parent / _DESCRIPTION.sub("", name), path


def _is_brain(path: Path) -> bool:
    """Tell whether labels are a mask of the brain, which preprocessing leaves beside an image."""
    return bool(_BRAIN.search(_get_stem(path)))


def _pair_decathlon(source: Path, split: str, described: Mapping[str, Any]) -> Iterator[_Pair]:
    ending = _DECATHLON.get(get_split_name(split))
    if ending is None or not (source / f"images{ending}").is_dir():
        raise AnnotationError(
            f"{source}: has no images for the split {split!r}; imagesTr is train, imagesTs test."
        )
    channels = described.get("channel_names") or described.get("modality")
    count = len(channels) if isinstance(channels, dict) else 1
    for path in _list_volumes((source / f"images{ending}").iterdir()):
        stem = _get_stem(path)
        labels = _find(source / f"labels{ending}", stem)
        channel = _CHANNEL.search(stem)
        if labels is None and channel and int(channel[1]) < count:
            stem = stem[: channel.start()]
            labels = _find(source / f"labels{ending}", stem)
        yield _Pair(path, stem, labels)


def _list_volumes(paths: Iterable[Path]) -> list[Path]:
    # Archives packed on a Mac hold "._NAME.nii.gz" beside every volume.
    return sorted(p for p in paths if is_nifti(p) and p.is_file() and not p.name.startswith("._"))


def _get_stem(path: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def _get_name(path: Path) -> str:
    """Return what the volumes of one examination have in common; of BIDS names, the subject."""
    stem = _get_stem(path)
    subject = _SUBJECT.match(stem)
    return subject[0] if subject else _CONTRAST.sub("", stem)


def _find_beside(path: Path, labels: Mapping[Path, Path]) -> Path | None:
    """Return the labels of a volume, which are its own or those of its examination."""
    stem = _get_stem(path)
    return labels.get(path.parent / stem) or labels.get(path.parent / _CONTRAST.sub("", stem))


def _find(folder: Path, stem: str) -> Path | None:
    files = (folder / f"{stem}{suffix}" for suffix in (".nii.gz", ".nii"))
    return next((file for file in files if file.is_file()), None)


def _read_pair(pair: _Pair, axis: str, collector: Collector) -> tuple[Grid, list[_Regions]] | None:
    """Return the grid of a volume and the regions in each slice; None if it cannot be used."""
    try:
        grid = read_grid(pair.path, axis)
    except VAEAugError as error:
        collector.report(pair.path, describe_fault(pair.path, error))
        return None
    if pair.labels is None:
        return grid, [[]] * grid.slices
    try:
        read_grid(pair.labels, axis)
        labels = read_labels(pair.labels, axis, grid)
    except VAEAugError as error:
        reason = describe_fault(pair.labels, error)
        collector.report(pair.path, f"its labels cannot be used: {reason}")
        return None
    return grid, [list(find_regions(labels[:, :, index])) for index in range(grid.slices)]


def _name_patients(pairs: Sequence[_Pair], collector: Collector) -> dict[_Pair, str]:
    """Return the name of each patient, apart from those of the same name in other folders."""
    folders: dict[str, set[Path]] = {}
    for pair in pairs:
        folders.setdefault(pair.name, set()).add(pair.path.parent)
    # A BIDS subject has a folder for each session and kind of image.
    return {
        pair: pair.name
        if len(folders[pair.name]) == 1 or _SUBJECT.fullmatch(pair.name)
        else collector.relate(pair.path.parent / pair.name)
        for pair in pairs
    }


def _add_slices(
    pair: _Pair,
    grid: Grid,
    slices: list[_Regions],
    axis: str,
    names: Mapping[int, str],
    patient: str,
    collector: Collector,
) -> None:
    for index, regions in enumerate(slices):
        unknown = [value for value, _ in regions if value not in names]
        for value in unknown:
            reason = f"slice {index}: a region of value {value}, which has no name"
            collector.report(pair.path, reason, "dropped")
        collector.add(
            pair.path,
            [Box(xyxy, names[value]) for value, xyxy in regions if value in names],
            size=(grid.height, grid.width),
            patient=patient,
            source_id=f"{collector.relate(pair.path)}#{index}",
            frame=index,
            part=axis,
        )
