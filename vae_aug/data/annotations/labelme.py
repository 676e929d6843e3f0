"""Data sets of LabelMe: one JSON file beside each image."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vae_aug.data.annotations.layout import find_file, find_split_folder, list_images
from vae_aug.data.annotations.source import (
    Annotations,
    Box,
    Collector,
    keep_named,
    parse_number,
    parse_size,
)
from vae_aug.errors import AnnotationError


def read_labelme(source: str | os.PathLike[str], split: str = "train") -> Annotations:
    """Read a folder of LabelMe files.

    A rectangle is a box; a polygon, a circle or a mask gives its bounding box; points and lines
    have no area and are dropped. Labels are those of the files, sorted. Images without a JSON
    file are images without boxes.

    Args:
        source: The folder, read with all below it; where it has a folder of the split's name,
            that one.
        split: Which split.

    Returns:
        The annotations.

    Raises:
        AnnotationError: If the folder is missing or holds no LabelMe file.

    Reference:
        LabelMe 5, `labelme/label_file.py`: keys `imagePath`, `imageHeight`, `shapes`.
    """
    source = Path(source)
    if not source.is_dir():
        raise AnnotationError(f"{source}: no such folder; LabelMe wants the folder of its files.")
    folder = find_split_folder(source, split) or source
    collector = Collector(source)
    described: dict[Path, tuple[Path, dict[str, Any]]] = {}
    unreadable: set[Path] = set()
    count = 0
    for file in sorted(folder.rglob("*.json")):
        content = parse_labelme(file)
        if content is None:
            collector.report(file, "no valid JSON of LabelMe; the image of its name is left out")
            unreadable.add(file.with_suffix(""))
            continue
        count += 1
        image = find_file([file.parent], content.get("imagePath"))
        if image is None:
            collector.report(file, "the image that it describes is missing")
        else:
            described.setdefault(image.resolve(), (file, content))
    if not count:
        raise AnnotationError(f"{folder}: holds no JSON file of LabelMe (with 'shapes').")
    names: set[str] = set()
    for path in list_images(folder):
        if path.with_suffix("") in unreadable:
            continue
        file, content = described.get(path.resolve(), (path, {}))
        boxes = list(keep_named(collector, file, _parse_shapes(collector, file, content)))
        names.update(box.label for box in boxes)
        size = (parse_size(content.get("imageHeight")), parse_size(content.get("imageWidth")))
        collector.add(path, boxes, size=size)
    return collector.finish(sorted(names))


def parse_labelme(file: Path) -> dict[str, Any] | None:
    """Parse one LabelMe file; None if it is none."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    is_labelme = isinstance(content, dict) and isinstance(content.get("shapes"), list)
    return content if is_labelme else None


def _parse_shapes(collector: Collector, file: Path, content: Mapping[str, Any]) -> list[Box]:
    boxes = []
    for index, shape in enumerate(content.get("shapes", ())):
        box = _parse_shape(shape) if isinstance(shape, dict) else "it is no object"
        if isinstance(box, str):
            collector.report(file, f"shapes[{index}]: {box}", "dropped")
        else:
            boxes.append(box)
    return boxes


def _parse_shape(shape: Mapping[str, Any]) -> Box | str:
    """Return the box of a shape; a string tells why it has none."""
    kind = shape.get("shape_type") or "polygon"
    points = shape.get("points")
    if not isinstance(points, list) or not all(
        isinstance(point, list) and len(point) == 2 for point in points
    ):
        return "its points are not a list of [x, y]"
    corners = np.array([[parse_number(value) for value in point] for point in points])
    least = {"rectangle": 2, "polygon": 3, "circle": 2, "mask": 2}.get(kind)
    if least is None:
        return "a point or line has no area"
    if len(corners) < least:
        return f"a {kind} wants at least {least} points; got {len(corners)}"
    low, high = corners.min(axis=0), corners.max(axis=0)
    if kind == "circle":
        radius = np.hypot(*(corners[1] - corners[0]))
        low, high = corners[0] - radius, corners[0] + radius
    elif kind == "mask":
        # The corners of a mask are its first and last pixel, both inside.
        high = high + 1
    label = shape.get("label")
    return Box([*low.tolist(), *high.tolist()], label if isinstance(label, str) else "")
