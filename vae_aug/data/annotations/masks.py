"""Segmentation masks in files beside the images; each connected region becomes a box."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from skimage.measure import label as label_regions
from skimage.measure import regionprops

from vae_aug.data.annotations.layout import find_split_folder, list_children, list_images
from vae_aug.data.annotations.source import Annotations, Box, Collector, describe_fault
from vae_aug.data.images import read_image
from vae_aug.errors import AnnotationError, VAEAugError

MASK_SUFFIX = "_mask"
MASK_FILE_SUFFIXES = (".png", ".tif", ".tiff")
_BINARY: tuple[set[int], ...] = ({1}, {255}, set())


def read_masks(source: str | os.PathLike[str], split: str = "train") -> Annotations:
    """Read images with masks: pixel value 0 is background, any other value a class.

    Layouts: `masks/NAME.png` for `images/NAME.png`, each also in a folder of the split, or
    `NAME_mask.png` beside `NAME.png`, in any folder; masks in `.tif` and `.tiff` likewise. Each
    8-connected region of a value is a box. Line k of `classes.txt` names value k; without it, the
    class of masks that hold 1 or 255 alone is called `object`, and other values are classes
    called by their number. Images without a mask are images without boxes.

    Args:
        source: The data set's folder.
        split: Which split.

    Returns:
        The annotations.

    Raises:
        AnnotationError: If the folder is missing or holds no image with a mask.
    """
    source = Path(source)
    if not source.is_dir():
        raise AnnotationError(f"{source}: no such folder; give the folder of the data set.")
    pairs = list(pair_masks(source, split))
    if not any(mask for _, mask in pairs):
        raise AnnotationError(
            f"{source}: none of its {len(pairs)} images has a mask; expected masks/NAME.png for "
            "images/NAME.png, or NAME_mask.png beside NAME.png."
        )
    collector = Collector(source)
    regions: list[tuple[Path, tuple[int | None, int | None], list[tuple[int, list[float]]]]] = []
    for path, mask in pairs:
        if mask is None:
            regions.append((path, (None, None), []))
            continue
        try:
            values = _read_mask(mask)
        except VAEAugError as error:
            reason = describe_fault(mask, error)
            collector.report(path, f"its mask cannot be used: {reason}")
            continue
        regions.append((path, values.shape[:2], list(find_regions(values))))
    found = {value for _, _, boxes in regions for value, _ in boxes}
    names = name_values(source, found)
    for path, size, boxes in regions:
        named = [Box(xyxy, names[value]) for value, xyxy in boxes if value in names]
        for value, _ in boxes:
            if value not in names:
                reason = f"a region of value {value}, for which classes.txt has no line"
                collector.report(path, reason, "dropped")
        collector.add(path, named, size=size)
    return collector.finish(dict.fromkeys(names.values()))


def pair_masks(source: Path, split: str) -> Iterator[tuple[Path, Path | None]]:
    """Yield each image of a split with its mask, None if it has none."""
    folder = source
    if not (list_children(source, "images") and list_children(source, "masks")):
        folder = find_split_folder(source, split) or source
    images, masks = folder / "images", folder / "masks"
    if images.is_dir() and masks.is_dir():
        of_split = find_split_folder(images, split)
        if of_split is not None:
            images, masks = of_split, masks / of_split.name
        yield from _pair_folders(images, masks)
        return
    for path in list_images(folder):
        if not path.stem.endswith(MASK_SUFFIX):
            yield path, _find_mask(path.parent, f"{path.stem}{MASK_SUFFIX}")


def _pair_folders(images: Path, masks: Path) -> Iterator[tuple[Path, Path | None]]:
    for path in list_images(images):
        relative = path.relative_to(images).with_suffix("")
        yield path, _find_mask(masks, str(relative), f"{relative}{MASK_SUFFIX}")


def _find_mask(folder: Path, *names: str) -> Path | None:
    files = (folder / f"{name}{suffix}" for name in names for suffix in MASK_FILE_SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def _read_mask(path: Path) -> np.ndarray:
    """Read a mask as `[H, W]` of class values."""
    mask = read_image(path)
    if (mask != mask[..., :1]).any():
        raise VAEAugError(f"{path}: it is in colour; expected grey values that number the classes.")
    return mask[..., 0]


def find_regions(mask: np.ndarray) -> Iterator[tuple[int, list[float]]]:
    """Find the boxes of the 8-connected regions of a mask.

    Args:
        mask: `[H, W]` integers; 0 is background, regions of other values are apart.

    Yields:
        `(value, xyxy)` in pixels, the far edge exclusive, by the first pixel in reading order.
    """
    regions = label_regions(mask, background=0, connectivity=2)
    for region in regionprops(regions, intensity_image=mask):
        top, left, bottom, right = region.bbox
        yield int(region.intensity_max), [float(v) for v in (left, top, right, bottom)]


def name_values(source: Path, found: set[int]) -> dict[int, str]:
    """Name the values of masks, as `read_masks` says.

    Args:
        source: The data set's folder.
        found: The values of all regions.

    Returns:
        Names by value, in the order of the labels.
    """
    file = source / "classes.txt"
    if file.is_file():
        lines: Sequence[str] = file.read_text("utf-8", "replace").splitlines()
        return {value: line.strip() for value, line in enumerate(lines, start=1) if line.strip()}
    if found in _BINARY:
        return dict.fromkeys(found, "object")
    return {value: str(value) for value in sorted(found)}
