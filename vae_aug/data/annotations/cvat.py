"""Data sets of CVAT, "CVAT for images 1.1": one XML file for all images."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np

from vae_aug.data.annotations.layout import find_file, list_image_folders, list_split_names
from vae_aug.data.annotations.source import (
    Annotations,
    Box,
    Collector,
    keep_named,
    parse_number,
    parse_size,
)
from vae_aug.errors import AnnotationError

_AREAS = ("box", "polygon", "ellipse", "mask")
_NO_AREAS = ("polyline", "points", "cuboid", "skeleton", "tag")


def read_cvat(source: str | os.PathLike[str], split: str = "train") -> Annotations:
    """Read an export "CVAT for images 1.1".

    A polygon, an ellipse, a mask and a rotated box give their bounding box; points, lines,
    cuboids, skeletons and tags are dropped. Labels are those that the file declares, in its
    order. Where images have a `subset`, those of the split are read, else all.

    Args:
        source: The folder that holds `annotations.xml`, or the file itself.
        split: Which split; `"all"` reads every subset.

    Returns:
        The annotations.

    Raises:
        AnnotationError: If there is no such file, it is no such export, or has no such subset.

    Reference:
        CVAT documentation, "XML annotation format", version 1.1.
    """
    source = Path(source)
    file = source / "annotations.xml" if source.is_dir() else source
    root = parse_cvat(file)
    if root is None:
        raise AnnotationError(
            f"{file}: expected an export 'CVAT for images 1.1' (<annotations> with <image>); "
            "export the task again in this format."
        )
    collector = Collector(file.parent)
    folders = list_image_folders(file.parent, split)
    entries = _choose_subset(file, root.findall("image"), split)
    names = [(e.text or "").strip() for e in root.findall("meta//label/name")]
    for entry in entries:
        boxes = list(keep_named(collector, file, _parse_shapes(collector, file, entry)))
        names += sorted({box.label for box in boxes} - set(names))
        name = entry.get("name", "")
        path = find_file(folders, name)
        if path is None:
            collector.report(name, "the annotations name this image, the file is missing")
            continue
        size = (parse_size(entry.get("height")), parse_size(entry.get("width")))
        collector.add(path, boxes, size=size)
    return collector.finish(dict.fromkeys(names))


def parse_cvat(file: Path) -> ET.Element | None:
    """Parse an XML file; None if it is no export of images."""
    try:
        root = ET.fromstring(file.read_bytes())
    except (ET.ParseError, OSError, ValueError, LookupError):
        return None
    return root if root.tag == "annotations" and root.find("image") is not None else None


def _choose_subset(file: Path, entries: list[ET.Element], split: str) -> list[ET.Element]:
    subsets = {entry.get("subset", "") for entry in entries}
    if split == "all" or subsets <= {"", "default"}:
        return entries
    known = {name.lower() for name in list_split_names(split)}
    chosen = [entry for entry in entries if entry.get("subset", "").lower() in known]
    if not chosen:
        raise AnnotationError(
            f"{file}: has no subset {split!r}; it has {', '.join(sorted(subsets))}. 'all' reads "
            "every image."
        )
    return chosen


def _parse_shapes(collector: Collector, file: Path, entry: ET.Element) -> list[Box]:
    boxes = []
    for index, shape in enumerate(entry):
        # The name of the image may be a patient's, so the fault tells CVAT's own number of it.
        where = f"image {entry.get('id', '')}, shape {index}"
        if shape.tag in _AREAS:
            boxes.append(Box(_find_corners(shape), shape.get("label", "").strip()))
        elif shape.tag in _NO_AREAS:
            collector.report(file, f"{where}: a {shape.tag} is no box", "dropped")
    return boxes


def _find_corners(shape: ET.Element) -> list[float]:
    """Return `xyxy`, not a number where an attribute is missing or none."""

    def get(*keys: str) -> np.ndarray:
        return np.array([parse_number(shape.get(key)) for key in keys])

    if shape.tag == "polygon":
        pairs = [pair.split(",") for pair in shape.get("points", "").split(";")]
        if any(len(pair) != 2 for pair in pairs):
            return [float("nan")] * 4
        points = np.array([[parse_number(value) for value in pair] for pair in pairs])
        return [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]
    if shape.tag == "mask":
        low, size = get("left", "top"), get("width", "height")
        return [*low.tolist(), *(low + size).tolist()]
    angle = np.deg2rad(parse_number(shape.get("rotation", "0")))
    cos, sin = np.cos(angle), np.sin(angle)
    if shape.tag == "ellipse":
        center, half = get("cx", "cy"), get("rx", "ry")
        spread = np.hypot(half * cos, half[::-1] * sin)
    else:
        low, high = get("xtl", "ytl"), get("xbr", "ybr")
        if "rotation" not in shape.attrib:
            # Exact, which the way over the centre is not.
            return [*low.tolist(), *high.tolist()]
        center, half = (low + high) / 2, (high - low) / 2
        spread = half * abs(cos) + half[::-1] * abs(sin)
    return [*(center - spread).tolist(), *(center + spread).tolist()]
