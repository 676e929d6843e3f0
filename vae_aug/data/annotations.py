"""Annotated images as COCO, Pascal VOC, YOLO, CSV and DICOM folders describe them.

Every reader resolves the layout of its format and yields the same thing: images with boxes in
pixels, as written in the file. Coordinates are taken as continuous and never shifted: Pascal
VOC's habit of counting pixels from 1 is not undone, because most tools that write VOC files do
not follow it. A box over a whole image of 640 x 480 is `(0, 0, 640, 480)` in every format.

What is wrong with one image or box is a `Problem` beside the result; only what leaves nothing
to read (no such split, malformed JSON) is an `AnnotationError`.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import yaml  # type: ignore[import-untyped]

from vae_aug.data.boxes import convert_boxes
from vae_aug.data.dicom import is_dicom, read_header
from vae_aug.data.images import read_image_size
from vae_aug.data.records import get_split_name
from vae_aug.errors import AnnotationError, DicomError, VAEAugError

# The last five cannot be read; they are listed so that they are named, not passed over.
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".dcm", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
)
_SPLIT_FILE_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
_SPLIT_WORDS = {name for names in _SPLIT_FILE_NAMES.values() for name in names}
_LEAST_SIDE_PX = 1e-3
# YOLO files of six decimals miss the edge of an image of 4000 pixels by up to 0.004.
_EDGE_TOLERANCE_PX = 1e-2


Effect = Literal["skipped", "dropped", "clipped"]


@dataclasses.dataclass(frozen=True)
class AnnotatedImage:
    """One image with its boxes.

    Attributes:
        path: The image file: PNG, JPEG or DICOM.
        source_id: Key of the image: its path relative to the source, or SOP Instance UID.
        patient: Identifier of the patient as the source has it, `""` if unknown.
        height: Height in pixels that the annotation claims; None if it does not.
        width: Width in pixels that the annotation claims; None if it does not.
        boxes: `[N, 4] float64` `xyxy` in pixels, as in the source.
        labels: `[N]` label names.
        is_crowd: `[N]` COCO's mark of a box around many objects.
        difficult: `[N]` Pascal VOC's mark.
        truncated: `[N]` Pascal VOC's mark.
    """

    path: Path
    source_id: str
    patient: str
    height: int | None
    width: int | None
    boxes: np.ndarray
    labels: tuple[str, ...]
    is_crowd: tuple[bool, ...]
    difficult: tuple[bool, ...]
    truncated: tuple[bool, ...]


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something wrong in a source.

    Attributes:
        file: The file, relative to the source.
        reason: What is wrong with it; names no file and no patient.
        effect: `"skipped"` (a whole file), `"dropped"` (a box), or `"clipped"` (a box).
    """

    file: str
    reason: str
    effect: Effect


class Annotations(NamedTuple):
    """What a reader returns.

    Attributes:
        label_names: All labels of the source, also of its other splits where they are known.
        images: The images of the split, in a fixed order.
        problems: What was left out.
    """

    label_names: tuple[str, ...]
    images: tuple[AnnotatedImage, ...]
    problems: tuple[Problem, ...]


class _Box(NamedTuple):
    xyxy: Sequence[float]
    label: str
    is_crowd: bool = False
    difficult: bool = False
    truncated: bool = False


class _Collector:
    """Gathers the images and problems of one source."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images: list[AnnotatedImage] = []
        self.problems: list[Problem] = []
        self._source_ids: set[str] = set()

    def relate(self, path: Path | str) -> str:
        """Return a path relative to the source, with forward slashes."""
        return Path(os.path.relpath(path, self.root)).as_posix()

    def report(self, path: Path | str, reason: str, effect: Effect = "skipped") -> None:
        name = self.relate(path) if isinstance(path, Path) else path
        self.problems.append(Problem(name, reason, effect))

    def add(
        self,
        path: Path,
        boxes: Iterable[_Box] = (),
        *,
        size: tuple[int | None, int | None] = (None, None),
        patient: str = "",
        source_id: str | None = None,
    ) -> None:
        """Add an image, unless one of the same key is there."""
        source_id = self.relate(path) if source_id is None else source_id
        if source_id in self._source_ids:
            self.report(path, "the source holds this image twice; only the first is taken")
            return
        self._source_ids.add(source_id)
        boxes = tuple(boxes)
        self.images.append(
            AnnotatedImage(
                path=path,
                source_id=source_id,
                patient=patient,
                height=size[0],
                width=size[1],
                boxes=np.asarray([box.xyxy for box in boxes], np.float64).reshape(-1, 4),
                labels=tuple(box.label for box in boxes),
                is_crowd=tuple(box.is_crowd for box in boxes),
                difficult=tuple(box.difficult for box in boxes),
                truncated=tuple(box.truncated for box in boxes),
            )
        )

    def finish(self, label_names: Iterable[str]) -> Annotations:
        names = tuple(label_names)
        if not all(name.strip() for name in names):
            raise AnnotationError(f"{self.root}: a class has an empty name; name it.")
        return Annotations(names, tuple(self.images), tuple(self.problems))


def clean_boxes(
    boxes: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Clip boxes to the image and find those that cannot be used.

    Args:
        boxes: `[N, 4]` `xyxy` in pixels.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        `(clipped, usable, faults)`: boxes `[N, 4] float64` within the image, `[N] bool`, and
        for each box what is wrong with it, `""` if nothing is. Overshoots of up to 0.01 px
        (rounding of relative coordinates) are clipped without a fault.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    limits = np.array([width, height, width, height], np.float64)
    clipped = np.clip(boxes, 0, limits)
    usable = np.ones(len(boxes), bool)
    faults = [""] * len(boxes)
    for index, (box, inside) in enumerate(zip(boxes, clipped, strict=True)):
        sides, sides_inside = box[2:] - box[:2], inside[2:] - inside[:2]
        if not np.isfinite(box).all():
            fault = "its coordinates are not all numbers"
        elif (sides < 0).any():
            fault = "inverted (a minimum above its maximum)"
        elif (sides < _LEAST_SIDE_PX).any():
            fault = "zero area"
        elif (sides_inside < _LEAST_SIDE_PX).any():
            fault = "outside the image"
        else:
            if np.abs(box - inside).max() > _EDGE_TOLERANCE_PX:
                faults[index] = "partly outside the image"
            continue
        usable[index], faults[index] = False, fault
    return clipped, usable, faults


# --- COCO ------------------------------------------------------------------------------------


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
    file = _find_split_file(
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
    collector = _Collector(source if source.is_dir() else source.parent)
    categories = sorted(
        ((entry["id"], str(entry["name"])) for entry in content["categories"]),
        key=lambda pair: pair[0],
    )
    boxes = _group_coco_boxes(content, dict(categories), file, collector)
    folders = _list_image_folders(file.parent, split)
    for entry in content["images"]:
        name = entry.get("file_name")
        path = _find_file(folders, name)
        if path is None:
            collector.report(str(name), "the annotations name this image, the file is missing")
            continue
        collector.add(
            path,
            boxes[entry["id"]],
            size=(_parse_size(entry.get("height")), _parse_size(entry.get("width"))),
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
    content: Mapping[str, Any], categories: Mapping[Any, str], file: Path, collector: _Collector
) -> dict[Any, list[_Box]]:
    """Return boxes by image id."""
    boxes: dict[Any, list[_Box]] = {entry["id"]: [] for entry in content["images"]}
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
            xywh = np.array([_parse_number(value) for value in bbox])
            xyxy = convert_boxes(xywh, "xywh", "xyxy").tolist()
            crowd = bool(entry.get("iscrowd"))
            boxes[image_id].append(_Box(xyxy, categories[category_id], is_crowd=crowd))
            continue
        collector.report(file, f"annotations[{index}]: {fault}", "dropped")
    return boxes


# --- Pascal VOC ------------------------------------------------------------------------------


def read_voc(source: str | os.PathLike[str], split: str = "train") -> Annotations:
    """Read a Pascal VOC data set.

    Layouts: `Annotations/` with `JPEGImages/` or `images/` and optionally
    `ImageSets/Main/<split>.txt`, in `source` or in a folder of it; or XML files beside their
    images, also in a folder of the split. Labels are all names found in the XML files of all
    splits, sorted. Images without an XML file are images without boxes; an image whose XML file
    cannot be read is skipped.

    Args:
        source: The data set's folder.
        split: Which split; `"all"` takes every image where the folder has split lists. Where
            there are neither lists nor a folder of the split, every image is taken.

    Returns:
        The annotations.

    Raises:
        AnnotationError: If there is no such folder, XML file, or split list.
    """
    source = Path(source)
    folder = _find_voc_folder(source, split)
    xml_folder = next((f for f in _children(folder, "Annotations", "annotations")), folder)
    image_folders = [*_children(folder, "JPEGImages", "images", "Images"), xml_folder, folder]
    xml_files = {path.stem: path for path in sorted(xml_folder.glob("*.xml"))}
    image_files = _index_images(dict.fromkeys(image_folders))
    collector = _Collector(source)
    parsed = {stem: _parse_voc(path) for stem, path in xml_files.items()}
    used = {stem: _match_voc_image(stem, parsed[stem], image_files) for stem in xml_files}
    stems = _read_image_set(folder, split)
    if stems is None:
        unmentioned = set(image_files) - {path.stem for path in used.values() if path}
        stems = sorted({*xml_files, *unmentioned})
    for stem in stems:
        _add_voc_image(collector, stem, xml_files, parsed, used.get(stem), image_files)
    names = {box.label for voc in parsed.values() if voc for box in voc.boxes if box.label}
    return collector.finish(sorted(names))


class _Voc(NamedTuple):
    filename: str
    size: tuple[int | None, int | None]
    boxes: tuple[_Box, ...]


def _add_voc_image(
    collector: _Collector,
    stem: str,
    xml_files: Mapping[str, Path],
    parsed: Mapping[str, _Voc | None],
    image: Path | None,
    image_files: Mapping[str, Path],
) -> None:
    xml = xml_files.get(stem)
    if xml is None:
        if stem not in image_files:
            collector.report(stem, "the split list names it, there is no image and no XML file")
        else:
            collector.add(image_files[stem])
        return
    voc = parsed[stem]
    if voc is None:
        collector.report(xml, "no valid XML of Pascal VOC; its image is left out")
    elif image is None:
        collector.report(xml, "the image that it describes is missing")
    else:
        collector.add(image, _keep_named(collector, xml, voc.boxes), size=voc.size)


def _keep_named(collector: _Collector, file: Path, boxes: Iterable[_Box]) -> Iterator[_Box]:
    for index, box in enumerate(boxes):
        if box.label:
            yield box
        else:
            collector.report(file, f"box {index}: has no label", "dropped")


def _find_voc_folder(source: Path, split: str) -> Path:
    if not source.is_dir():
        raise AnnotationError(f"{source}: no such folder; VOC wants the folder of the data set.")
    for folder in (_find_split_folder(source, split), source):
        if folder and _has_voc(folder):
            return folder
    found = [path for path in sorted(source.iterdir()) if path.is_dir() and _has_voc(path)]
    if len(found) != 1:
        raise AnnotationError(
            f"{source}: expected one folder with Annotations/*.xml, or *.xml beside the images; "
            f"found {', '.join(folder.name for folder in found) or 'none'}."
        )
    return found[0]


def _has_voc(folder: Path) -> bool:
    places = (folder, *_children(folder, "Annotations", "annotations"))
    return any(any(place.glob("*.xml")) for place in places)


def _read_image_set(folder: Path, split: str) -> list[str] | None:
    lists = folder / "ImageSets" / "Main"
    if not lists.is_dir() or split == "all":
        return None
    for name in _list_split_names(split):
        if (lists / f"{name}.txt").is_file():
            lines = (lists / f"{name}.txt").read_text("utf-8", "replace").splitlines()
            # Lists of one class carry -1, 0 or 1 behind the image.
            return [line.split()[0] for line in lines if line.strip()]
    known = ", ".join(sorted(path.stem for path in lists.glob("*.txt")))
    raise AnnotationError(f"{lists}: has no {split}.txt; it has {known}. 'all' takes every image.")


def _parse_voc(path: Path) -> _Voc | None:
    """Parse one VOC file; None if it is none."""
    try:
        root = ET.fromstring(path.read_bytes())
    except (ET.ParseError, OSError, ValueError, LookupError):
        return None
    if root.tag != "annotation":
        return None
    size = tuple(_parse_size(root.findtext(f"size/{side}")) for side in ("height", "width"))
    return _Voc(
        filename=(root.findtext("filename") or "").strip(),
        size=(size[0], size[1]),
        boxes=tuple(_parse_voc_object(element) for element in root.findall("object")),
    )


def _parse_voc_object(element: ET.Element) -> _Box:
    texts = {child.tag.lower(): (child.text or "").strip() for child in element}
    sides = ("xmin", "ymin", "xmax", "ymax")
    return _Box(
        xyxy=[_parse_number(element.findtext(f"bndbox/{side}")) for side in sides],
        label=texts.get("name", ""),
        difficult=texts.get("difficult") == "1",
        truncated=texts.get("truncated") == "1",
    )


def _match_voc_image(stem: str, voc: _Voc | None, images: Mapping[str, Path]) -> Path | None:
    """Find the image of an XML file, by the file's own name first: it outlives renaming."""
    if stem in images:
        return images[stem]
    return images.get(Path(voc.filename.replace("\\", "/")).stem) if voc else None


# --- YOLO ------------------------------------------------------------------------------------


def read_yolo(source: str | os.PathLike[str], split: str = "train") -> Annotations:
    """Read a YOLO data set: one text file an image, `class x_center y_center width height`.

    Layouts: `images/<split>` with `labels/<split>`, `<split>/images` with `<split>/labels`,
    `images` with `labels`, or text files beside the images. Names come from `data.yaml` (or
    another YAML file with `names`) or `classes.txt`. Lines with a polygon instead of a box give
    its bounding box. Images without a text file are images without boxes.

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
    names = _read_yolo_names(root, yaml_file)
    collector = _Collector(root)
    for path in _list_yolo_images(root, split):
        _add_yolo_image(collector, path, _get_yolo_label_path(path, root), names)
    return collector.finish(dict.fromkeys(names))


def _add_yolo_image(
    collector: _Collector, path: Path, labels_file: Path, names: Sequence[str]
) -> None:
    try:
        lines = labels_file.read_text("utf-8").splitlines() if labels_file.exists() else []
    except (OSError, UnicodeDecodeError):
        collector.report(labels_file, "no readable text; its image is left out")
        return
    try:
        height, width = _read_size(path)
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


def _parse_yolo_line(line: str, names: Sequence[str], height: int, width: int) -> _Box | str:
    """Parse one line; a string tells what is wrong with it."""
    label, *values = line.split()
    if not label.isdecimal() or len(label) > 9 or int(label) >= len(names):
        return f"class {label!r} is not one of the {len(names)} names"
    numbers = np.array([_parse_number(value) for value in values])
    if len(numbers) == 4:
        sizes = np.array([width, height, width, height], np.float64)
        xyxy = convert_boxes(numbers * sizes, "center_xywh", "xyxy")
    elif len(numbers) >= 6 and len(numbers) % 2 == 0:
        points = numbers.reshape(-1, 2) * (width, height)
        xyxy = np.concatenate([points.min(axis=0), points.max(axis=0)])
    else:
        return f"expected 4 numbers or a polygon behind the class; got {len(numbers)}"
    return _Box(xyxy.tolist(), names[int(label)])


def _read_yolo_names(root: Path, yaml_file: Path | None) -> list[str]:
    candidates = [yaml_file] if yaml_file else sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    for path in candidates:
        try:
            content = yaml.safe_load(path.read_bytes())
        except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
            raise AnnotationError(f"{path}: no valid YAML; correct it.") from error
        names = content.get("names") if isinstance(content, dict) else None
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


def _list_yolo_images(root: Path, split: str) -> list[Path]:
    top = root / "images"
    folder = (_find_split_folder(top, split) if top.is_dir() else None) or top
    if not folder.is_dir():
        folder = _find_split_folder(root, split) or root
        folder = folder / "images" if (folder / "images").is_dir() else folder
    images = _list_images(folder)
    if not any(_get_yolo_label_path(path, root).exists() for path in images):
        raise AnnotationError(
            f"{folder}: none of its {len(images)} images has a text file of boxes; expected "
            "labels/NAME.txt for images/NAME.png (also with folders of splits), or NAME.txt "
            "beside NAME.png."
        )
    return images


def _get_yolo_label_path(image: Path, root: Path) -> Path:
    parts = list(image.relative_to(root).parts)
    if "images" in parts[:-1]:
        parts[parts.index("images")] = "labels"
    return root.joinpath(*parts).with_suffix(".txt")


# --- CSV -------------------------------------------------------------------------------------

_CSV_COLUMNS: dict[str, tuple[str, ...]] = {
    "filename": ("filename", "file_name", "file", "image", "image_name", "image_path", "path"),
    "xmin": ("xmin", "x_min", "x1", "left"),
    "ymin": ("ymin", "y_min", "y1", "top"),
    "xmax": ("xmax", "x_max", "x2", "right"),
    "ymax": ("ymax", "y_max", "y2", "bottom"),
    "label": ("label", "class", "class_name", "cell_type", "category", "name"),
    "width": ("width", "image_width"),
    "height": ("height", "image_height"),
    "patient": ("patient", "patient_id", "patientid"),
}
_CSV_OPTIONAL = frozenset({"width", "height", "patient"})


def read_csv(source: str | os.PathLike[str], split: str = "train") -> Annotations:
    """Read a table of one box a row, as `filename,xmin,ymin,xmax,ymax,label`.

    The columns may be in any order and under their common other names (`class`, `cell_type`,
    `x1`, ...); `width` and `height` of the image and `patient` may be among them. A row with
    neither coordinates nor label is an image without boxes. Labels are those of the table,
    sorted. Image files are sought beside the table, in `images/`, in a folder of the split, and
    last anywhere below, where only one has the name.

    Args:
        source: The data set's folder, holding `<split>.csv`; or the table itself.
        split: Which split.

    Returns:
        The annotations.

    Raises:
        AnnotationError: If there is no such table, or a column is missing.
    """
    source = Path(source)
    file = _find_split_file(source, split, ".csv", ("{0}.csv", "{0}/*.csv", "*_{0}.csv"))
    collector = _Collector(source if source.is_dir() else source.parent)
    rows: dict[str, list[dict[str, str]]] = {}
    for row in _load_csv(file):
        rows.setdefault(row["filename"], []).append(row)
    folders = _list_image_folders(file.parent, split)
    find_anywhere = _make_finder(collector.root)
    for name, entries in rows.items():
        path = _find_file(folders, name) or find_anywhere(name)
        if path is None:
            collector.report(name, "the table names this image, the file is missing or not unique")
            continue
        boxes = [_parse_csv_row(row) for row in entries if _has_box(row)]
        collector.add(
            path,
            _keep_named(collector, path, boxes),
            size=(_parse_size(entries[0].get("height")), _parse_size(entries[0].get("width"))),
            patient=entries[0].get("patient") or "",
        )
    names = {row["label"] for entries in rows.values() for row in entries if row["label"]}
    return collector.finish(sorted(names))


def _load_csv(file: Path) -> list[dict[str, str]]:
    """Return the rows under the names of `_CSV_COLUMNS`."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            delimiter = max(",;\t", key=stream.readline().count)
            stream.seek(0)
            reader = csv.DictReader(stream, delimiter=delimiter)
            rows = list(reader)
            # Of an empty file the reader looks for the header only now.
            header = reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AnnotationError(f"{file}: no readable table in UTF-8; export it again.") from error
    found = {str(name).strip().lower(): name for name in header}
    columns = {
        column: next((found[name] for name in names if name in found), None)
        for column, names in _CSV_COLUMNS.items()
    }
    missing = [c for c, name in columns.items() if name is None and c not in _CSV_OPTIONAL]
    if missing:
        raise AnnotationError(
            f"{file}: expected the columns filename, xmin, ymin, xmax, ymax, label (or common "
            f"other names); {', '.join(missing)} missing from {list(found)}."
        )
    return [
        {column: (row[name] or "").strip() for column, name in columns.items() if name is not None}
        for row in rows
    ]


def _has_box(row: Mapping[str, str]) -> bool:
    return any(row[column] for column in ("xmin", "ymin", "xmax", "ymax", "label"))


def _parse_csv_row(row: Mapping[str, str]) -> _Box:
    return _Box([_parse_number(row[s]) for s in ("xmin", "ymin", "xmax", "ymax")], row["label"])


def _make_finder(root: Path) -> Callable[[str], Path | None]:
    """Make a function that finds a file below `root` by its bare name, if only one has it."""
    index: dict[str, list[Path]] | None = None

    def find(name: str) -> Path | None:
        nonlocal index
        if index is None:
            index = {}
            for path in sorted(root.rglob("*")):
                if path.suffix.lower() in IMAGE_SUFFIXES:
                    index.setdefault(path.name, []).append(path)
        matches = index.get(Path(name.replace("\\", "/")).name, [])
        return matches[0] if len(matches) == 1 else None

    return find


# --- DICOM -----------------------------------------------------------------------------------


def read_dicom_folder(source: str | os.PathLike[str], split: str = "train") -> Annotations:
    """Read a folder of DICOM files, with Pascal VOC files named by SOP Instance UID, if any.

    Every file below the folder that has the DICOM prefix or the suffix `.dcm` is an image, in
    the order of their paths; every `.xml` file is an annotation. Labels are all names in the
    XML files, sorted.

    Args:
        source: The folder; where it has a folder of the split's name, that one.
        split: Which split.

    Returns:
        The annotations; `source_id` is the SOP Instance UID, `patient` the Patient ID.

    Raises:
        AnnotationError: If the folder is missing or holds no DICOM file.
    """
    source = Path(source)
    if not source.is_dir():
        raise AnnotationError(f"{source}: no such folder; give the folder of the DICOM files.")
    folder = _find_split_folder(source, split) or source
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    xml_files = {path.stem: path for path in files if path.suffix.lower() == ".xml"}
    dicom_files = [p for p in files if p.name != "DICOMDIR" and _looks_like_dicom(p)]
    if not dicom_files:
        raise AnnotationError(f"{folder}: holds no DICOM file.")
    parsed = {uid: _parse_voc(path) for uid, path in xml_files.items()}
    collector = _Collector(source)
    seen = set()
    for path in dicom_files:
        try:
            header = read_header(path)
        except DicomError as error:
            collector.report(path, describe_fault(path, error))
            continue
        uid = header.sop_instance_uid
        seen.add(uid)
        if uid in parsed and parsed[uid] is None:
            collector.report(path, "its annotation is no valid XML of Pascal VOC")
            continue
        voc = parsed.get(uid)
        boxes = _keep_named(collector, xml_files[uid], voc.boxes) if voc else ()
        collector.add(
            path,
            boxes,
            size=voc.size if voc else (None, None),
            patient=header.patient_id,
            source_id=uid or None,
        )
    for uid, path in xml_files.items():
        if uid not in seen:
            collector.report(path, "no DICOM file has this SOP Instance UID")
    names = {box.label for voc in parsed.values() if voc for box in voc.boxes if box.label}
    return collector.finish(sorted(names))


def _looks_like_dicom(path: Path) -> bool:
    return path.suffix.lower() in (".dcm", ".dicom") or is_dicom(path)


# --- What the formats share ------------------------------------------------------------------


def describe_fault(path: Path, error: VAEAugError) -> str:
    """Return the reason in an error about a file, without the file's name.

    Args:
        path: The file.
        error: Raised by a reader of `vae_aug.data`, whose messages begin with the file.

    Returns:
        The reason.
    """
    return str(error).removeprefix(f"{path}: ").rstrip(".")


def _read_size(path: Path) -> tuple[int, int]:
    if is_dicom(path):
        header = read_header(path)
        return header.height, header.width
    return read_image_size(path)


def _list_split_names(split: str) -> tuple[str, ...]:
    """Return the names under which data sets keep a split, the given one first."""
    return tuple(dict.fromkeys((split, *_SPLIT_FILE_NAMES.get(get_split_name(split), ()))))


def _find_split_folder(folder: Path, split: str) -> Path | None:
    """Find the folder of a split in a folder that has one for each; None if it has none.

    Raises:
        AnnotationError: If the folder has other splits only: taking all would mix them.
    """
    found = next(iter(_children(folder, *_list_split_names(split))), None)
    others = _children(folder, *sorted(_SPLIT_WORDS))
    if found is None and others:
        raise AnnotationError(
            f"{folder}: has no folder for the split {split!r}; it has "
            f"{', '.join(other.name for other in others)}. Name one of them."
        )
    return found


def _find_split_file(source: Path, split: str, suffix: str, patterns: Sequence[str]) -> Path:
    """Find the annotation file of a split: the source itself, or one in the source folder."""
    if source.is_file():
        return source
    if not source.is_dir():
        raise AnnotationError(f"{source}: no such file or folder.")
    for name in _list_split_names(split):
        for pattern in patterns:
            matches = sorted(source.glob(pattern.format(name)))
            if len(matches) == 1:
                return matches[0]
            if matches:
                raise AnnotationError(
                    f"{source}: several files fit the split {split!r}: "
                    f"{', '.join(path.name for path in matches)}. Give the file itself."
                )
    found = sorted(path.name for path in source.glob(f"*{suffix}"))
    if len(found) == 1 and not _SPLIT_WORDS & set(Path(found[0]).stem.lower().split("_")):
        return source / found[0]
    raise AnnotationError(
        f"{source}: has no {split}{suffix} for the split {split!r}; found "
        f"{', '.join(found[:10]) or f'no {suffix} file'}. Name another split, or give the file."
    )


def _list_image_folders(folder: Path, split: str) -> list[Path]:
    names = _list_split_names(split)
    folders = [folder, folder / "images", folder / "JPEGImages"]
    folders += [root / name for name in names for root in (folder / "images", folder)]
    above = folder.parent
    folders += [above / "images" / name for name in names] + [above / "images"]
    folders += [above / name for name in names]
    return [path for path in folders if path.is_dir()]


def _find_file(folders: Sequence[Path], name: object) -> Path | None:
    if not isinstance(name, str) or not name or "\0" in name:
        return None
    for candidate in dict.fromkeys((name, name.replace("\\", "/"))):
        for folder in folders:
            # Raises for a name that no file can have, e.g. of 300 letters.
            with contextlib.suppress(OSError):
                if (folder / candidate).is_file():
                    return folder / candidate
    return None


def _list_images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)


def _index_images(folders: Iterable[Path]) -> dict[str, Path]:
    """Return image files by stem; the first folder wins."""
    index: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                index.setdefault(path.stem, path)
    return index


def _children(folder: Path, *names: str) -> list[Path]:
    return [folder / name for name in names if (folder / name).is_dir()]


def _parse_number(value: object) -> float:
    """Return a number, NaN for what is none: such a box is dropped and counted later."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _parse_size(value: object) -> int | None:
    """Return a size in pixels, None for what is none; some tools write 0 for "unknown"."""
    number = _parse_number(value)
    return int(number) if np.isfinite(number) and number >= 1 else None


READERS: Mapping[str, Callable[[Path, str], Annotations]] = {
    "coco": read_coco,
    "voc": read_voc,
    "yolo": read_yolo,
    "csv": read_csv,
    "dicom": read_dicom_folder,
}
