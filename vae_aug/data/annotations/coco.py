"""COCO detection data sets."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vae_aug.data.annotations.layout import find_file, find_split_file, list_image_folders
from vae_aug.data.annotations.source import Annotations, Box, Collector, parse_number, parse_size
from vae_aug.data.boxes import convert_boxes
from vae_aug.errors import AnnotationError


def read_coco(source: str | os.PathLike[str], split: str = "train") -> Annotations:
    """Read a COCO detection data set.

    Labels follow the category ids in ascending order; categories of one name are one label. An
    image may carry a `patient`. Image files lie beside the JSON or in `images/`, each also in a
    folder of the split, or in `images/` beside the JSON's folder.

    Args:
        source: The data set's folder, holding e.g. `train.json`, `val.json` or `valid.json`,
            `annotations/instances_train2017.json`, or `train/_annotations.coco.json`; or the
            JSON file itself.
        split: Which of them.

    Returns:
        The annotations.

    Raises:
        AnnotationError: If there is no such file, or it is no COCO data set.

    Reference:
        cocodataset.org, "Data format": `bbox` is [x, y, width, height], 0-indexed.
    """
    source = Path(source)
    file = find_split_file(
        source,
        split,
        ".json",
        (
            "{0}.json",
            "instances_{0}*.json",
            "annotations/{0}.json",
            "annotations/instances_{0}*.json",
            "{0}/_annotations.coco.json",
            "{0}/*.json",
        ),
    )
    content = _load_json(file)
    collector = Collector(source if source.is_dir() else source.parent)
    categories = sorted(
        ((entry["id"], str(entry["name"])) for entry in content["categories"]),
        key=lambda pair: pair[0],
    )
    boxes = _group_coco_boxes(content, dict(categories), file, collector)
    folders = list_image_folders(file.parent, split)
    for entry in content["images"]:
        name = entry.get("file_name")
        path = find_file(folders, name)
        if path is None:
            collector.report(str(name), "the annotations name this image, the file is missing")
            continue
        collector.add(
            path,
            boxes[entry["id"]],
            size=(parse_size(entry.get("height")), parse_size(entry.get("width"))),
            patient=str(entry.get("patient") or ""),
        )
    return collector.finish(dict.fromkeys(name for _, name in categories))


def _load_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise AnnotationError(f"{file}: no valid JSON ({error}); export it again.") from error
    for key, field in (("images", "id"), ("annotations", None), ("categories", "id")):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise AnnotationError(
                f"{file}: COCO wants an object with the lists 'images', 'annotations' and "
                f"'categories'; {key!r} is missing or no list of objects."
            )
        if field and any(not isinstance(entry.get(field), int | str) for entry in entries):
            raise AnnotationError(f"{file}: an entry of {key!r} has no {field!r}.")
    if any("name" not in entry for entry in content["categories"]):
        raise AnnotationError(f"{file}: a category has no 'name'.")
    if len({type(entry["id"]) for entry in content["categories"]}) > 1:
        raise AnnotationError(f"{file}: the category ids are of mixed types.")
    return content


def _group_coco_boxes(
    content: Mapping[str, Any], categories: Mapping[Any, str], file: Path, collector: Collector
) -> dict[Any, list[Box]]:
    """Return boxes by image id."""
    boxes: dict[Any, list[Box]] = {entry["id"]: [] for entry in content["images"]}
    for index, entry in enumerate(content["annotations"]):
        image_id, category_id, bbox = (entry.get(k) for k in ("image_id", "category_id", "bbox"))
        # Ids of text may be names of patients, so the fault tells the position instead.
        if not isinstance(image_id, int | str) or image_id not in boxes:
            fault = "its image_id is not among the images"
        elif not isinstance(category_id, int | str) or category_id not in categories:
            fault = "its category_id is not among the categories"
        elif not isinstance(bbox, list) or len(bbox) != 4:
            fault = "its bbox is not [x, y, width, height]"
        else:
            xywh = np.array([parse_number(value) for value in bbox])
            xyxy = convert_boxes(xywh, "xywh", "xyxy").tolist()
            crowd = bool(entry.get("iscrowd"))
            boxes[image_id].append(Box(xyxy, categories[category_id], is_crowd=crowd))
            continue
        collector.report(file, f"annotations[{index}]: {fault}", "dropped")
    return boxes
