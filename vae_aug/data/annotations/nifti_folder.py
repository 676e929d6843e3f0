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

_LABEL_SUFFIXES = ("_mask", "_seg", "_label")
_CHANNEL = re.compile(r"_(\d{4})$")
_DECATHLON = {"train": "Tr", "test": "Ts"}
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
    labels `NAME.nii.gz`; or `NAME_mask`, `NAME_seg` or `NAME_label` beside `NAME.nii.gz`, in any
    folder. Names of the labels are those of `dataset.json`, else as for masks. Every slice is an
    image, also one without boxes; each 8-connected region of a value in it is a box. Of a fourth
    axis the first volume is read.

    Args:
        source: The data set's folder, or one volume.
        split: Which split.
        axis: Of `vae_aug.data.nifti.AXES`, which says how slices are laid out.

    Returns:
        The annotations; `source_id` is the path with `#` and the number of the slice from 0,
        `patient` the name of the volume without its channel, and with its folder where another
        folder has a volume of that name.

    Raises:
        ValueError: On another axis.
        MissingPackageError: Without nibabel.
        AnnotationError: If the folder is missing or holds no volume.

    Reference:
        Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13 (2022).
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
        yield _Pair(source, _get_stem(source), _find_beside(source))
        return
    if not source.is_dir():
        raise AnnotationError(f"{source}: no such file or folder.")
    if (source / "imagesTr").is_dir():
        yield from _pair_decathlon(source, split, described)
        return
    folder = find_split_folder(source, split) or source
    for path in _list_volumes(folder.rglob("*")):
        stem = _get_stem(path)
        suffix = next((suffix for suffix in _LABEL_SUFFIXES if stem.endswith(suffix)), None)
        if suffix is None:
            yield _Pair(path, stem, _find_beside(path))
        elif _find(path.parent, stem.removesuffix(suffix)) is None:
            collector.report(path, f"a volume called {suffix}, without the one that it is of")


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


def _find_beside(path: Path) -> Path | None:
    found = (_find(path.parent, _get_stem(path) + suffix) for suffix in _LABEL_SUFFIXES)
    return next(filter(None, found), None)


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
    folders: dict[str, set[Path]] = {}
    for pair in pairs:
        folders.setdefault(pair.name, set()).add(pair.path.parent)
    return {
        pair: pair.name
        if len(folders[pair.name]) == 1
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
