"""Projects of Supervisely: a JSON file for each image, in folders `ann` beside folders `img`."""

from __future__ import annotations

import base64
import binascii
import os
import struct
import zlib
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_aug.errors import AnnotationError, MissingSplitError
from vae_aug.ingest.formats.layout import (
    find_split_folder,
    fold_name,
    list_images,
    list_split_names,
)
from vae_aug.ingest.formats.pixels import flag_relative, refuse_relative
from vae_aug.ingest.formats.source import (
    DEFAULTS,
    Annotations,
    Box,
    Collector,
    Fault,
    ReaderOptions,
    describe_fault,
    parse_number,
    parse_size,
    reader,
)
from vae_aug.ingest.formats.statements import may_hold_marks, tells_of_object
from vae_aug.ingest.formats.table_columns import denies
from vae_aug.ingest.formats.text import load_json
from vae_aug.ingest.formats.walk import walk_folders
from vae_aug.limits import MAX_TEXT_BYTES

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NO_AREAS = ("point", "line", "graph", "cuboid", "cuboid_3d", "point_3d")
_SPLITS = ("train", "validation", "test")
_Size = tuple[int | None, int | None]


class _Annotation(NamedTuple):
    """What one file says: its size, boxes and faults, its tags, and the splits that these name.

    Entries are None if a tag says that nobody has looked.
    """

    size: _Size
    entries: tuple[Box | Fault, ...] | None
    splits: frozenset[str] = frozenset()
    is_read: bool = True
    tags: frozenset[str] = frozenset()


_Claims = dict[str, tuple[Path, list[tuple[Path, _Annotation]]]]
_TAGGED = Fault("a tag of the image tells of an object, and it has none", "unread")


@reader
def read_supervisely(
    source: str | os.PathLike[str], split: str = "train", options: ReaderOptions = DEFAULTS
) -> Annotations:
    """Read a project of Supervisely, or one of its data sets.

    A rectangle is a box, as it is written; a polygon and a bitmap give their bounding box; points,
    lines, graphs and cuboids are faults. Labels are those of `meta.json`, in its order, then those
    that only files of annotations have, sorted.

    `ann/NAME.json` describes the image `img/NAME`, or, as older projects have it, the image of
    that stem. A file without objects says that its image has none; an image without a file is
    unannotated. Faulty are an image whose file cannot be read, one that two files describe
    differently, and those of one stem between which the file does not decide.

    Args:
        source: The folder of the project, or of a data set with `ann` and `img`; where it has a
            folder of the split's name, that one.
        split: Which split. Where no folder tells it, tags of images that are called like splits
            do; an image without such a tag is then in none.
        options: As in `ReaderOptions`.

    Returns:
        The annotations.

    Raises:
        AnnotationError: If the folder is missing or holds no annotations of Supervisely,
            `meta.json` cannot be read, or all coordinates are relative.

    Reference:
        Supervisely, "Annotation JSON format": points are [x, y]; a bitmap is a PNG file, deflated,
        in base64, cut to what is set in it.
    """
    source = Path(source)
    if not source.is_dir():
        raise AnnotationError(f"{source}: no such folder; give the folder of the project.")
    folder = find_split_folder(source, split) or source
    collector = Collector(source, options)
    shapes = _read_meta(collector, source)
    folders = sorted(filter(_is_ann, walk_folders(folder)))
    parsed = {
        ann: {file: _parse_or_fault(file, shapes) for file in _list_json(ann)} for ann in folders
    }
    annotations = [annotation for files in parsed.values() for annotation in files.values()]
    entries = [entry for annotation in annotations for entry in annotation.entries or ()]
    labels = sorted({entry.label for entry in entries if isinstance(entry, Box) and entry.label})
    classes = set(map(fold_name, (*shapes, *labels)))
    parsed = {
        ann: {file: _doubt_tagged(annotation, classes) for file, annotation in files.items()}
        for ann, files in parsed.items()
    }
    if not any(annotation.is_read for annotation in annotations):
        raise AnnotationError(
            f"{folder}: holds no annotations of Supervisely (ann/NAME.json with 'objects')."
        )
    claims: _Claims = {}
    lost = 0
    for ann, files in parsed.items():
        images = _list_dataset(ann.parent, source, options)
        lost += _claim_images(collector, claims, files, images)
    by_tags = folder == source and any(annotation.splits for annotation in annotations)
    for path, describing in claims.values():
        _add_image(collector, path, describing, split if by_tags else None)
    collector.doubt_unannotated(lost)
    if not collector.images:
        raise MissingSplitError(
            f"{folder}: holds no image of the split {split!r}; images lie in 'img' beside 'ann', "
            "or in a folder that --images names, and may be tagged as splits."
        )
    refuse_relative(collector)
    return collector.finish([*shapes, *labels])


def is_supervisely(content: object) -> bool:
    """Tell whether the content of a JSON file is that of one annotation of Supervisely."""
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
        return False
    size = content.get("size")
    return (isinstance(size, dict) and {"height", "width"} <= size.keys()) or any(
        isinstance(entry, dict) and {"classTitle", "geometryType"} <= entry.keys()
        for entry in content["objects"]
    )


def _is_ann(path: Path) -> bool:
    return path.name.lower() == "ann" and path.is_dir()


def _read_meta(collector: Collector, source: Path) -> dict[str, str]:
    """Return the shapes of the classes by their names, in the order of `meta.json`."""
    for file in (source / "meta.json", source.parent / "meta.json"):
        if file.is_file() and (file.parent == source or collector.contains(file)):
            content = load_json(file, MAX_TEXT_BYTES)
            classes = content.get("classes") if isinstance(content, dict) else None
            if not isinstance(classes, list):
                raise AnnotationError(f"{file}: expected an object with a list of 'classes'.")
            return {
                entry["title"]: str(entry.get("shape", ""))
                for entry in classes
                if isinstance(entry, dict) and isinstance(entry.get("title"), str)
            }
    return {}


def _list_json(ann: Path) -> list[Path]:
    files = (path for path in sorted(ann.iterdir()) if path.suffix.lower() == ".json")
    return [path for path in files if path.name[0] != "."]


def _parse_or_fault(file: Path, shapes: Mapping[str, str]) -> _Annotation:
    try:
        return _parse_file(file, shapes)
    except AnnotationError as error:
        fault = Fault(describe_fault(file, error), "unread")
        return _Annotation((None, None), (fault,), is_read=False)


def _parse_file(file: Path, shapes: Mapping[str, str]) -> _Annotation:
    content = load_json(file, MAX_TEXT_BYTES)
    if not is_supervisely(content):
        raise AnnotationError(f"{file}: no JSON of Supervisely (with 'size' and 'objects').")
    if "framesCount" in content or "frames" in content:
        raise AnnotationError(f"{file}: is the annotation of a video; export its frames as images.")
    size = content["size"] if isinstance(content.get("size"), dict) else {}
    entries = []
    for index, entry in enumerate(content["objects"]):
        box = _parse_object(entry, shapes) if isinstance(entry, dict) else "is no object"
        entries.append(Fault(f"objects[{index}]: {box}") if isinstance(box, str) else box)
    tags = content.get("tags")
    tags = [
        (str(tag.get("name")), tag.get("value")) if isinstance(tag, dict) else (str(tag), None)
        for tag in (tags if isinstance(tags, list) else [])
    ]
    names = {fold_name(name.strip()) for name, _ in tags}
    if not entries and any(map(may_hold_marks, tags)):
        entries.append(_TAGGED)
    splits = frozenset(split for split in _SPLITS if names & {*list_split_names(split)})
    claimed = parse_size(size.get("height")), parse_size(size.get("width"))
    entries = flag_relative(entries, claimed)
    says = ((name, True if value is None else value) for name, value in tags)
    unsure = not entries and any(denies(*item, is_empty=True) for item in says)
    said = None if unsure else tuple(entries)
    return _Annotation(claimed, said, splits, tags=frozenset(names))


def _doubt_tagged(annotation: _Annotation, classes: Set[str]) -> _Annotation:
    """Add a fault if a file has no objects, and a tag of the image tells of one."""
    if annotation.entries or not any(tells_of_object(tag, classes) for tag in annotation.tags):
        return annotation
    return annotation._replace(entries=(_TAGGED,))


def _parse_object(entry: Mapping[str, Any], shapes: Mapping[str, str]) -> Box | str:
    """Return the box of an object; a string tells why it has none."""
    label = entry.get("classTitle")
    label = str(label) if type(label) is int else label if isinstance(label, str) else ""
    # Projects of 2018 name the shape in meta.json alone.
    geometry = entry.get("geometryType") or shapes.get(label, "")
    if geometry in ("bitmap", "alpha_mask"):
        box = _bound_bitmap(entry.get("bitmap") or entry.get("alpha_mask"))
    elif geometry in ("rectangle", "polygon"):
        points = entry.get("points")
        exterior = points.get("exterior") if isinstance(points, dict) else None
        box = _bound_points(exterior, geometry)
    elif geometry in _NO_AREAS:
        return f"a {geometry} has no area"
    else:
        return "its geometryType is not known"
    return box if isinstance(box, str) else Box(box, label)


def _bound_points(points: object, geometry: str) -> list[float] | str:
    least = 2 if geometry == "rectangle" else 3
    if not isinstance(points, list) or not all(
        isinstance(point, list) and len(point) == 2 for point in points
    ):
        return "its points.exterior is not a list of [x, y]"
    if len(points) < least or (geometry == "rectangle" and len(points) != least):
        return f"a {geometry} wants {least} points; got {len(points)}"
    corners = np.array([[parse_number(value) for value in point] for point in points])
    return [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()]


def _bound_bitmap(bitmap: object) -> list[float] | str:
    """Return `xyxy` of a bitmap, by the sizes in the header of its PNG."""
    origin = bitmap.get("origin") if isinstance(bitmap, dict) else None
    data = bitmap.get("data") if isinstance(bitmap, dict) else None
    if not isinstance(data, str) or not isinstance(origin, list) or len(origin) != 2:
        return "its bitmap has no origin or no data"
    try:
        packed = base64.b64decode(data, validate=True)
        # No more is inflated than the signature and the two sizes, PNG 11.2.1.
        head = packed if packed.startswith(_PNG_SIGNATURE) else _inflate(packed)
    except (binascii.Error, zlib.error, ValueError):
        return "the data of its bitmap are damaged"
    if not head.startswith(_PNG_SIGNATURE) or len(head) < 24 or head[12:16] != b"IHDR":
        return "the data of its bitmap are no PNG"
    width, height = struct.unpack(">II", head[16:24])
    left, top = map(parse_number, origin)
    return [left, top, left + width, top + height]


def _inflate(packed: bytes) -> bytes:
    return zlib.decompressobj().decompress(packed, 24)


def _claim_images(
    collector: Collector,
    claims: _Claims,
    files: Mapping[Path, _Annotation],
    images: Sequence[Path],
) -> int:
    """Note which files of a data set describe which of its images.

    Returns:
        How many files have boxes or faults, and no image.
    """
    index: dict[str, list[Path]] = {}
    for path in images:
        claims.setdefault(os.path.normpath(path), (path, []))
        for name in dict.fromkeys(map(fold_name, (path.name, path.stem))):
            index.setdefault(name, []).append(path)
    lost = 0
    for file, annotation in files.items():
        alike = index.get(fold_name(file.stem), [])
        matches = [path for path in alike if path.name == file.stem] or alike
        if not matches:
            collector.report(file, "the image that it describes is missing")
            lost += bool(annotation.entries)
        if len(matches) > 1:
            fault = Fault("several images fit the name of this file", "unread")
            annotation = annotation._replace(entries=(fault,))
        for path in matches:
            claims[os.path.normpath(path)][1].append((file, annotation))
    return lost


def _add_image(
    collector: Collector,
    path: Path,
    files: Sequence[tuple[Path, _Annotation]],
    split: str | None,
) -> None:
    """Add an image with what its files say, unless tags tell that it is not of the split."""
    if split is not None:
        splits = frozenset[str]().union(*(annotation.splits for _, annotation in files))
        if not any(split in list_split_names(name) for name in splits):
            return
        if len(splits) > 1:
            files = [(file, _add_fault(annotation)) for file, annotation in files]
    if not files:
        collector.add(path, None)
    for file, annotation in files:
        collector.add(path, annotation.entries, file=file, size=annotation.size)


def _add_fault(annotation: _Annotation) -> _Annotation:
    fault = Fault("its tags name several splits", "unread")
    return annotation._replace(entries=(*(annotation.entries or ()), fault))


def _list_dataset(dataset: Path, root: Path, options: ReaderOptions) -> list[Path]:
    """Return the images of a data set, in `img`, or where the user says that images lie."""
    folders = [path for path in sorted(dataset.iterdir()) if path.name.lower() in ("img", "images")]
    if options.images is not None:
        inside = options.images / os.path.relpath(dataset, root)
        folders += [inside / "img", inside, options.images / dataset.name, options.images]
    for folder in folders:
        if folder.is_dir() and (images := list_images(folder)):
            return images
    return []
