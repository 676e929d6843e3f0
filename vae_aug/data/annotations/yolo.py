"""YOLO data sets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]

from vae_aug.data.annotations.layout import (
    find_split_folder,
    list_images,
    list_split_names,
    read_size,
)
from vae_aug.data.annotations.source import (
    Annotations,
    Box,
    Collector,
    describe_fault,
    parse_number,
)
from vae_aug.data.boxes import convert_boxes
from vae_aug.errors import AnnotationError, VAEAugError


def read_yolo(source: str | os.PathLike[str], split: str = "train") -> Annotations:
    """Read a YOLO data set: one text file an image, `class x_center y_center width height`.

    Layouts: `images/<split>` with `labels/<split>`, `<split>/images` with `<split>/labels`,
    `images` with `labels`, or text files beside the images; folders or lists of images that the
    YAML file names for the split (`train`, `val`, `test`, below `path`) come first. Names
    come from `data.yaml` (or another YAML file with `names`) or `classes.txt`. Lines with a
    polygon instead of a box give its bounding box. Images without a text file are images
    without boxes.

    Args:
        source: The data set's folder, or its YAML file.
        split: Which split. Where the folder has no splits, every image is taken.

    Returns:
        The annotations; coordinates in pixels of the image's size, which is read from its
        header.

    Raises:
        AnnotationError: If there are no names, or no images of the split.
    """
    source = Path(source)
    yaml_file = source if source.is_file() else None
    root = source.parent if yaml_file else source
    if not root.is_dir():
        raise AnnotationError(f"{source}: no such folder.")
    content = _read_yolo_yaml(root, yaml_file)
    names = _read_yolo_names(root, content)
    collector = Collector(root)
    for path in _list_yolo_images(root, content, split):
        _add_yolo_image(collector, path, _get_yolo_label_path(path, root), names)
    return collector.finish(dict.fromkeys(names))


def _add_yolo_image(
    collector: Collector, path: Path, labels_file: Path, names: Sequence[str]
) -> None:
    try:
        lines = labels_file.read_text("utf-8").splitlines() if labels_file.exists() else []
    except (OSError, UnicodeDecodeError):
        collector.report(labels_file, "no readable text; its image is left out")
        return
    try:
        height, width = read_size(path)
    except VAEAugError as error:
        collector.report(path, describe_fault(path, error))
        return
    boxes = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        box = _parse_yolo_line(line, names, height, width)
        if isinstance(box, str):
            collector.report(labels_file, f"line {number}: {box}", "dropped")
        else:
            boxes.append(box)
    collector.add(path, boxes)


def _parse_yolo_line(line: str, names: Sequence[str], height: int, width: int) -> Box | str:
    """Parse one line; a string tells what is wrong with it."""
    label, *values = line.split()
    if not label.isdecimal() or len(label) > 9 or int(label) >= len(names):
        return f"class {label!r} is not one of the {len(names)} names"
    numbers = np.array([parse_number(value) for value in values])
    if len(numbers) == 4:
        sizes = np.array([width, height, width, height], np.float64)
        xyxy = convert_boxes(numbers * sizes, "center_xywh", "xyxy")
    elif len(numbers) >= 6 and len(numbers) % 2 == 0:
        points = numbers.reshape(-1, 2) * (width, height)
        xyxy = np.concatenate([points.min(axis=0), points.max(axis=0)])
    else:
        return f"expected 4 numbers or a polygon behind the class; got {len(numbers)}"
    return Box(xyxy.tolist(), names[int(label)])


def _read_yolo_yaml(root: Path, yaml_file: Path | None) -> dict[str, Any]:
    """Read the YAML file that has `names`; an empty dict if there is none."""
    candidates = [yaml_file] if yaml_file else sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    for path in candidates:
        try:
            content = yaml.safe_load(path.read_bytes())
        except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
            raise AnnotationError(f"{path}: no valid YAML; correct it.") from error
        if isinstance(content, dict) and isinstance(content.get("names"), list | dict):
            return content
    return {}


def _read_yolo_names(root: Path, content: Mapping[str, Any]) -> list[str]:
    names = content.get("names")
    if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
        return [str(names[index]) for index in range(len(names))]
    if isinstance(names, list):
        return [str(name) for name in names]
    for folder in (root, root / "labels"):
        if (folder / "classes.txt").is_file():
            lines = (folder / "classes.txt").read_text("utf-8", "replace").splitlines()
            return [line.strip() for line in lines if line.strip()]
    raise AnnotationError(
        f"{root}: expected the names of the classes in data.yaml ('names': a list, or numbers "
        "from 0 to names) or classes.txt."
    )


def _find_yolo_entries(root: Path, content: Mapping[str, Any], split: str) -> list[Path]:
    """Return the folders and lists that the YAML file names for the split, if they exist."""
    entries: Any = next((content[n] for n in list_split_names(split) if content.get(n)), [])
    found = []
    for entry in entries if isinstance(entries, list) else [entries]:
        # Exports name their author's folders, or `../train/images` for what lies beside them.
        bases = (root / str(content.get("path") or ""), root)
        places = [base / name for base in bases for name in (str(entry), _strip_dots(str(entry)))]
        found += [place for place in places if place.exists()][:1]
    return found


def _strip_dots(name: str) -> str:
    while name.startswith("../"):
        name = name[3:]
    return name


def _read_image_list(file: Path) -> list[Path]:
    """Read the images that a text file lists, one a line, relative to its folder."""
    lines = file.read_text("utf-8", "replace").splitlines()
    return [file.parent / line.strip() for line in lines if line.strip()]


def _list_yolo_images(root: Path, content: Mapping[str, Any], split: str) -> list[Path]:
    entries = _find_yolo_entries(root, content, split)
    if entries:
        nested = [_read_image_list(e) if e.is_file() else list_images(e) for e in entries]
        images = [path for paths in nested for path in paths]
        folder = entries[0]
    else:
        folder = _find_yolo_folder(root, split)
        images = list_images(folder)
    if not any(_get_yolo_label_path(path, root).exists() for path in images):
        raise AnnotationError(
            f"{folder}: none of its {len(images)} images has a text file of boxes; expected "
            "labels/NAME.txt for images/NAME.png (also with folders of splits), or NAME.txt "
            "beside NAME.png."
        )
    return images


def _find_yolo_folder(root: Path, split: str) -> Path:
    top = root / "images"
    folder = (find_split_folder(top, split) if top.is_dir() else None) or top
    if folder.is_dir():
        return folder
    folder = find_split_folder(root, split) or root
    return folder / "images" if (folder / "images").is_dir() else folder


def _get_yolo_label_path(image: Path, root: Path) -> Path:
    parts = list(Path(os.path.relpath(image, root)).parts)
    if "images" in parts[:-1]:
        parts[parts.index("images")] = "labels"
    return root.joinpath(*parts).with_suffix(".txt")
