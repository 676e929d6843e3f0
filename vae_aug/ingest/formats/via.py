"""Data sets of the VGG Image Annotator (VIA): one JSON file or table for all images."""

from __future__ import annotations

import collections
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Set
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.layout import IMAGE_SUFFIXES, fold_name
from vae_aug.ingest.formats.lookup import ImageLookup, find_annotation_file
from vae_aug.ingest.formats.pixels import flag_relative, refuse_relative
from vae_aug.ingest.formats.source import (
    DEFAULTS,
    Annotations,
    Box,
    Collector,
    Fault,
    ReaderOptions,
    parse_number,
    reader,
)
from vae_aug.ingest.formats.statements import may_hold_marks, tells_of_object
from vae_aug.ingest.formats.table_columns import denies, is_yes, name_header
from vae_aug.ingest.formats.table_file import Record, make_records, read_lines
from vae_aug.ingest.formats.text import load_json

_COLUMNS = frozenset({"filename", "regionshapeattributes", "regionattributes"})
_VIA_3_KEYS = frozenset({"project", "config", "file", "metadata"})
_LABEL_NAMES = ("label", "class", "name", "type", "category", "object")


class _Region(NamedTuple):
    """One region: its shape and its attributes as they are, and its place in the file."""

    place: str
    shape: object
    attributes: object


class _Entry(NamedTuple):
    """What a file says of one image.

    Attributes:
        names: What it calls the image: the name, and the key if this is another one's name.
        regions: Its regions.
        fault: Why it is no whole entry, `""` if it is one.
        attributes: Those of the image, as they are.
    """

    names: tuple[str, ...]
    regions: tuple[_Region, ...]
    fault: str = ""
    attributes: object = None


@reader
def read_via(
    source: str | os.PathLike[str], split: str = "train", options: ReaderOptions = DEFAULTS
) -> Annotations:
    """Read a data set of VIA 1 or 2: a project, its annotations as JSON, or as a table.

    A rectangle is a box; a circle, an ellipse and a polygon give their bounding box; points and
    polylines have no area and are faults. The label is the only attribute that regions have; of
    several, the one that is called `label`, `class`, `name`, `type`, `category` or `object`. Of an
    attribute of checkboxes exactly one must be true. Labels are those of the file, sorted.

    An image that is listed without regions has no boxes, unless one of its `file_attributes` says
    that nobody has looked (`annotated`: no); one that is not listed is not taken. An image is
    faulty if it has no regions and such an attribute tells of an object, if a region has no label
    or no shape, if the count of its regions in a table is another one, or if the key of its entry
    is the name of another image; then that one is faulty too. All images are, if regions belong to
    an entry without a name.

    Args:
        source: The data set's folder, holding e.g. `train.json`, `train/via_region_data.json`, or
            one file of VIA; or the file itself.
        split: Which of them.
        options: As in `ReaderOptions`.

    Returns:
        The annotations.

    Raises:
        AnnotationError: If there is no such file, it is one of VIA 3, or it cannot be told which
            attribute is the label.

    Reference:
        VIA 2.0.12, `_via_load_submodules.js`: `region_shape_attributes`; an ellipse is turned by
        `theta`, in radians.
    """
    source = Path(source)
    file = find_annotation_file(source, split, (".json", ".csv"), _is_via_file)
    entries = _read_table(file) if file.suffix.lower() == ".csv" else _read_json(file)
    attribute = _choose_attribute(file, entries)
    collector = Collector(source if source.is_dir() else source.parent, options)
    lookup = ImageLookup(file, split, options, (n for entry in entries for n in entry.names))
    found = lookup.group(entry.names[:1] for entry in entries)
    aliens = {lookup.find(name) for entry in entries for name in entry.names[1:]} - {None}
    classes = {*map(fold_name, _list_labels(entries, attribute))}
    for path, positions in found.entries.items():
        for position in positions:
            boxes = flag_relative(_parse_entry(entries[position], attribute))
            if not boxes and _tells_of_object(entries[position], classes):
                boxes.append(Fault("its file_attributes tell of an object, and it has no regions"))
            if path in aliens:
                boxes.append(Fault("the key of another entry is the name of this image", "unread"))
            if path in found.doubtful:
                boxes.append(Fault("an entry whose image is missing may mean this one", "unread"))
            is_sure = boxes or not _is_unannotated(entries[position])
            collector.add(path, boxes if is_sure else None, file=file)
    for position in found.missing:
        if names := entries[position].names:
            collector.report(names[0], "the file names this image, it is missing or not unique")
    _doubt_nameless(collector, [entries[position] for position in found.missing])
    refuse_relative(collector)
    return collector.finish(sorted(_list_labels(entries, attribute)))


def is_via(content: object) -> bool:
    """Tell whether the content of a JSON file is that of VIA, of any version."""
    if isinstance(content, dict) and (
        "_via_img_metadata" in content or content.keys() >= _VIA_3_KEYS
    ):
        return True
    return any(
        isinstance(entry, dict) and {"filename", "regions"} <= entry.keys()
        for entry in _list_values(content)
    )


def is_via_table(file: Path) -> bool:
    """Tell whether a table is one of VIA, of any version."""
    try:
        lines = list(itertools.islice(read_lines(file), 12))
    except AnnotationError:
        return False
    return bool(lines) and (
        {*name_header(lines[0].cells)} >= _COLUMNS or "VGG Image Annotator" in str(lines)
    )


def _is_via_file(file: Path) -> bool:
    if file.suffix.lower() == ".csv":
        return is_via_table(file)
    try:
        return is_via(load_json(file))
    except AnnotationError:
        return False


def _list_values(content: object) -> list[object]:
    return (
        list(content.values() if isinstance(content, dict) else content or ())
        if isinstance(content, dict | list)
        else []
    )


def _make_version_error(file: Path) -> AnnotationError:
    return AnnotationError(
        f"{file}: is of VIA 3, which is not read; export it as COCO, or annotate with VIA 2."
    )


def _read_json(file: Path) -> list[_Entry]:
    content = load_json(file)
    if not is_via(content):
        raise AnnotationError(
            f"{file}: no JSON of VIA (entries with 'filename' and 'regions'); give the file that "
            "VIA exported."
        )
    if isinstance(content, dict) and "_via_img_metadata" in content:
        content = content["_via_img_metadata"]
    elif isinstance(content, dict) and content.keys() >= _VIA_3_KEYS:
        raise _make_version_error(file)
    pairs = content.items() if isinstance(content, dict) else enumerate(_list_values(content))
    return [_make_entry(index, key, entry) for index, (key, entry) in enumerate(pairs)]


def _make_entry(index: int, key: object, entry: object) -> _Entry:
    place = f"entry {index}"
    if not isinstance(entry, dict):
        return _Entry((), (), f"{place}: is no object")
    name, regions = entry.get("filename"), entry.get("regions")
    names = (name,) if isinstance(name, str) and name.strip() else ()
    # The key is the name and the size in bytes, or a number of other tools.
    keyed = str(key).rstrip("0123456789").removesuffix("-")
    fault = ""
    if PurePosixPath(keyed).suffix.lower() in IMAGE_SUFFIXES and _differ(keyed, names):
        names, fault = (*names, keyed), f"{place}: its key is the name of another image"
    if not isinstance(regions, dict | list):
        return _Entry(names, (), fault or f"{place}: its regions are neither a list nor an object")
    pairs = regions.items() if isinstance(regions, dict) else enumerate(regions)
    return _Entry(
        names,
        tuple(
            _Region(
                f"{place}, region {number}",
                region.get("shape_attributes") if isinstance(region, dict) else None,
                region.get("region_attributes") if isinstance(region, dict) else None,
            )
            for number, (_, region) in enumerate(pairs)
        ),
        fault,
        entry.get("file_attributes"),
    )


def _differ(keyed: str, names: Iterable[str]) -> bool:
    last = {fold_name(PurePosixPath(n.strip().replace("\\", "/")).name) for n in (keyed, *names)}
    return len(last) > 1


def _read_table(file: Path) -> list[_Entry]:
    lines = list(read_lines(file))
    header = name_header(lines[0].cells) if lines else ()
    if not {*header} >= _COLUMNS:
        if "VGG Image Annotator" in str(lines[:12]):
            raise _make_version_error(file)
        raise AnnotationError(
            f"{file}: no table of VIA, which has the columns filename, region_count, "
            "region_shape_attributes and region_attributes; give the table that VIA exported."
        )
    groups: dict[tuple[str, str], list[Record]] = collections.defaultdict(list)
    for record in make_records(file, lines[1:], header, len(lines[0].cells)):
        groups[record.get("filename"), record.get("filesize")].append(record)
    return [_join_rows(name, records) for (name, _), records in groups.items()]


def _join_rows(name: str, records: list[Record]) -> _Entry:
    """Make one entry of the rows of an image, of which one may say that it has no region."""
    fault = next((f"line {r.line}: {r.fault}" for r in records if r.fault), "")
    regions = tuple(
        _Region(
            f"line {record.line}",
            _parse_cell(record.get("regionshapeattributes")),
            _parse_cell(record.get("regionattributes")),
        )
        for record in records
        if record.get("regionshapeattributes") or record.get("regionattributes")
    )
    counts = {
        record.get_number("regioncount") for record in records if "regioncount" in record.cells
    }
    if counts - {len(regions)} and not fault:
        fault = f"line {records[0].line}: its region_count is not its {len(regions)} regions"
    attributes = _parse_cell(records[0].get("fileattributes"))
    return _Entry((name,) if name else (), regions, fault, attributes)


def _parse_cell(cell: str) -> object:
    """Return the JSON in a cell, None for what is none."""
    try:
        return json.loads(cell or "{}", object_pairs_hook=_make_object)
    except (ValueError, RecursionError):
        return None


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("an object has a key twice")
    return content


def _choose_attribute(file: Path, entries: Iterable[_Entry]) -> str:
    """Return the attribute that is the label, `""` if the file has no regions."""
    regions = [region for entry in entries for region in entry.regions]
    names = {
        name: None
        for region in regions
        if isinstance(region.attributes, dict)
        for name, value in region.attributes.items()
        if _parse_label(value)
    }
    usual = [name for name in names if name.strip().casefold() in _LABEL_NAMES]
    for choice in (list(names), usual):
        if len(choice) == 1:
            return choice[0]
    if not regions:
        return ""
    raise AnnotationError(
        f"{file}: expected one attribute of regions that is the label, or one called "
        f"{', '.join(_LABEL_NAMES)}; got {', '.join(names) or 'none with a value'}. Rename it."
    )


def _parse_label(value: object) -> str:
    """Return the value of an attribute, of checkboxes the only one that is true."""
    if isinstance(value, dict):
        chosen = [name for name, mark in value.items() if mark in (True, "true")]
        return chosen[0] if len(chosen) == 1 else ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip() if isinstance(value, str | int) and value is not True else ""
    return "" if text.casefold() in ("undefined", "none", "nan", "false") else text


def _parse_entry(entry: _Entry, attribute: str) -> list[Box | Fault]:
    faults = [Fault(entry.fault, "unread")] if entry.fault else []
    return [*(_parse_region(region, attribute) for region in entry.regions), *faults]


def _parse_region(region: _Region, attribute: str) -> Box | Fault:
    attributes = region.attributes if isinstance(region.attributes, dict) else {}
    label = _parse_label(attributes.get(attribute))
    shape = _bound(region.shape) if isinstance(region.shape, dict) else "has no shape"
    if isinstance(shape, str):
        return Fault(f"{region.place}: {shape}")
    if not label:
        return Fault(f"{region.place}: has no one value of the attribute {attribute!r}")
    return Box(shape, label)


def _bound(shape: Mapping[str, Any]) -> list[float] | str:
    """Return `xyxy` around a shape; a string tells why it has none."""

    def get(*keys: str) -> list[float]:
        return [parse_number(shape.get(key)) for key in keys]

    match shape.get("name"):
        case "rect":
            left, top, width, height = get("x", "y", "width", "height")
            return [left, top, left + width, top + height]
        case "circle":
            x, y, radius = get("cx", "cy", "r")
            return [x - radius, y - radius, x + radius, y + radius]
        case "ellipse":
            x, y, a, b = get("cx", "cy", "rx", "ry")
            theta = parse_number(shape.get("theta", 0))
            half_width = np.hypot(a * np.cos(theta), b * np.sin(theta))
            half_height = np.hypot(a * np.sin(theta), b * np.cos(theta))
            return [x - half_width, y - half_height, x + half_width, y + half_height]
        case "polygon":
            return _bound_polygon(shape.get("all_points_x"), shape.get("all_points_y"))
        case "point" | "polyline":
            return "a point or line has no area"
    return "its shape is not known"


def _bound_polygon(xs: object, ys: object) -> list[float] | str:
    if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys) or len(xs) < 3:
        return "a polygon wants all_points_x and all_points_y, at least 3 of each"
    points = np.array([[parse_number(x), parse_number(y)] for x, y in zip(xs, ys, strict=True)])
    return [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]


def _list_labels(entries: Iterable[_Entry], attribute: str) -> set[str]:
    parsed = (_parse_region(region, attribute) for entry in entries for region in entry.regions)
    return {entry.label for entry in parsed if isinstance(entry, Box)}


def _is_unannotated(entry: _Entry) -> bool:
    says = entry.attributes.items() if isinstance(entry.attributes, dict) else ()
    return any(denies(name, value, is_empty=True) for name, value in says)


def _tells_of_object(entry: _Entry, classes: Set[str]) -> bool:
    """Tell whether an attribute of the image tells of a finding, or of a class."""
    says = entry.attributes.items() if isinstance(entry.attributes, dict) else ()
    if any(map(may_hold_marks, says)):
        return True
    texts = (name if is_yes(value) else _parse_label(value) for name, value in says)
    return any(tells_of_object(text, classes) for text in texts if text)


def _doubt_nameless(collector: Collector, entries: Iterable[_Entry]) -> None:
    """Doubt all images if entries that name no image that is there are broken, or have regions."""
    lost = [entry for entry in entries if entry.fault or (entry.regions and not entry.names)]
    if lost:
        collector.doubt(
            f"{len(lost)} entries of the file name no image that can be told, so their regions may "
            "be those of any image"
        )
