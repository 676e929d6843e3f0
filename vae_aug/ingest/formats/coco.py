"""COCO detection data sets."""

from __future__ import annotations

import collections
import contextlib
import gc
import mmap
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.borders import check_inside
from vae_aug.ingest.formats.layout import FileFinder, fold_name, list_image_folders
from vae_aug.ingest.formats.lookup import find_annotation_file
from vae_aug.ingest.formats.outlines import bound_polygons, contradicts
from vae_aug.ingest.formats.pixels import flag_relative, refuse_relative
from vae_aug.ingest.formats.source import (
    DEFAULTS,
    AnnotatedImage,
    Annotations,
    Box,
    Collector,
    Fault,
    ReaderOptions,
    parse_number,
    parse_size,
    reader,
)
from vae_aug.ingest.formats.statements import may_hold_marks
from vae_aug.ingest.formats.table_columns import denies, find_caveat
from vae_aug.ingest.formats.text import load_json
from vae_aug.words import plural

_Id = int | str

_KEYS = ("images", "annotations", "categories")

LARGE_BYTES = 2**26
# Detectron2's number of [x, y, width, height] in pixels.
_XYWH = 1
# Annotation tools round to whole pixels.
_TOLERANCE_PX = 1.0
_INTEGER = re.compile(r"(-?(?:0|[1-9][0-9]{0,30}))(\.0+)?")
# Beyond this a float stands for several integers, so that an id written as one may be another's.
_LARGEST_EXACT = 2**53 - 1
# Keys of an image or annotation that tell a relative of the format, in which there is no box, or a
# lack of boxes does not mean a lack of objects.
_RELATIVES = {
    "caption": "captions have",
    "segments_info": "panoptic segmentations have",
    "neg_category_ids": "LVIS has, whose images were not searched for every class",
    "not_exhaustive_category_ids": "LVIS has, whose images were not searched for every class",
}

_UNSURE_LIST = re.compile(
    r"^(?!.*(?:categor|class)).*(?:skip|pending|(?:un|not|to|needs?)_?(?:do$|label|annot|finish"
    r"|review|check)|incomplete|in_?progress|remain|ignor|exclu|reject|fail|uncertain|unsure"
    r"|unclear|difficult|ambiguous|problem|flagged|partial)",
    re.IGNORECASE,
)
"""Words in the keys beside `images` that list images of which a lack of boxes says nothing."""


@contextlib.contextmanager
def _pause_collection() -> Iterator[None]:
    """Pause the search for reference cycles, which is half of the time to read 300,000 boxes."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@reader
@_pause_collection()
def read_coco(
    source: str | os.PathLike[str], split: str = "train", options: ReaderOptions = DEFAULTS
) -> Annotations:
    """Read a COCO detection data set.

    Labels follow the category ids in ascending order; categories of one name are one label. An
    image may carry a `patient`. Image files lie beside the JSON or in `images/`, each also in a
    folder of the split, or in `images/` beside the JSON's folder.

    An image that is listed and to which no annotation points has no boxes, unless a key of it says
    that it was not annotated (COCO Annotator's `annotated: false`), or a list of the file, such as
    `skipped_images`, has its id or name. Ids that are alike as
    numbers are one id, also where they are written as text ("1") or as pandas does (1.0); "01" is
    another. An annotation without a `bbox` gives the bounding box of its polygons. If an
    annotation points to an image that is not listed, or that has no `file_name`, all images count
    as faulty, since its box may be any one's.

    Args:
        source: The data set's folder, holding e.g. `train.json`, `val.json` or `valid.json`,
            `annotations/instances_train2017.json`, or `train/_annotations.coco.json`; or the
            JSON file itself.
        split: Which of them.
        options: As in `ReaderOptions`.

    Returns:
        The annotations.

    Raises:
        AnnotationError: If there is no such file, or it is no COCO data set; if two images or two
            categories share an id; or all coordinates are relative, or are corners.

    Reference:
        cocodataset.org, "Data format": `bbox` is [x, y, width, height], 0-indexed.
    """
    source = Path(source)
    file = find_annotation_file(source, split, (".json",), is_coco_file)
    content = _load_coco(file)
    collector = Collector(source if source.is_dir() else source.parent, options)
    images = _index_entries(file, "images", content["images"])
    categories = _read_categories(file, content["categories"])
    annotations = _drop_repeated(collector, content["annotations"])
    named = {number: entry for number, entry in images.items() if _has_name(entry)}
    for _ in range(len(images) - len(named)):
        collector.report(file, "an image has no file_name")
    entries, orphans = _group_annotations(annotations, named.keys(), categories)
    for index in orphans:
        reason = f"annotations[{index}]: its image_id is not among the images"
        collector.report(file, reason, "dropped")
    classes = frozenset(map(fold_name, categories.values()))
    finder = FileFinder(list_image_folders(file.parent, split, options.images))
    unsure_ids, unsure_names = _find_unsure(content)
    for number, entry in named.items():
        path = finder.find(entry["file_name"])
        is_listed = number in unsure_ids or (
            bool(unsure_names) and not unsure_names.isdisjoint(_list_names(entry["file_name"]))
        )
        if is_listed and not entries[number]:
            entries[number] = [Fault("a list of the file says that it was not annotated", "unread")]
        _add_image(collector, file, entry, entries[number], path, classes)
    if orphans:
        collector.doubt(
            f"{plural(len(orphans), 'annotation', 'points', 'point')} to images that the file does "
            "not list by a name, so their boxes may be those of any image"
        )
    refuse_relative(collector)
    _refuse_corners(file, collector.images)
    return collector.finish(dict.fromkeys(categories.values()))


# Differences of infinite sides are no numbers, which `clean_boxes` judges.
@np.errstate(invalid="ignore")
def _refuse_corners(file: Path, images: Sequence[AnnotatedImage]) -> None:
    """Refuse boxes that are rather [left, top, right, bottom].

    Raises:
        AnnotationError: If some leave their image, and all would lie within it as corners.
    """
    sized = [image for image in images if image.height and image.width and image.labels]
    sizes = [[image.width, image.height] for image in sized for _ in image.labels]
    boxes = np.concatenate([image.boxes for image in sized] or [np.zeros((0, 4))])
    least, most = boxes[:, :2], np.array(sizes, np.float64).reshape(-1, 2) + _TOLERANCE_PX
    leave = (boxes[:, 2:] > most).any()
    corners = boxes[:, 2:] - least
    if leave and ((corners > least) & (corners <= most)).all():
        raise AnnotationError(
            f"{file}: read as [x, y, width, height], boxes leave their image; read as [left, top, "
            "right, bottom], all lie within it. Write the width and height of each bbox."
        )


def is_coco_file(path: Path) -> bool:
    """Tell whether a JSON file is of COCO, as far as it can be read; a large one by its keys."""
    if is_large_coco(path):
        return True
    try:
        return is_coco(load_json(path))
    except AnnotationError:
        return False


def is_large_coco(path: Path) -> bool:
    """Tell whether a file has COCO's keys and is so large that parsing would take gigabytes."""
    check_inside(path)
    if path.stat().st_size <= LARGE_BYTES:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        images, *others = (
            data.find(key) >= 0 for key in (b'"images"', b'"annotations"', b'"categories"')
        )
        return images and any(others)


def is_coco(content: object) -> bool:
    """Tell whether the content of a JSON file is that of a COCO file, complete or not."""
    return (
        isinstance(content, dict)
        and isinstance(content.get("images"), list)
        and bool({"annotations", "categories"} & content.keys())
    )


def _has_name(image: Mapping[str, Any]) -> bool:
    name = image.get("file_name")
    return isinstance(name, str) and bool(name.strip())


def _add_image(
    collector: Collector,
    file: Path,
    image: Mapping[str, Any],
    entries: Iterable[Box | Fault],
    path: Path | None,
    classes: Set[str],
) -> None:
    if path is None:
        reason = "the annotations name this image, the file is missing"
        collector.report(image["file_name"], reason)
        return
    size = parse_size(image.get("height")), parse_size(image.get("width"))
    patient = _parse_id(image.get("patient"))
    entries = flag_relative(entries, size)
    if not entries and (key := _find_mark(image, classes)):
        entries = [Fault(f"an image without annotations has {key!r}, which may hold some")]
    unsure = not entries and any(denies(*item, is_empty=True) for item in image.items())
    collector.add(
        path,
        None if unsure else entries,
        file=file,
        size=size,
        patient="" if patient is None else str(patient),
    )


def _find_unsure(content: Mapping[str, Any]) -> tuple[Set[_Id | None], Set[str]]:
    """Return the ids and the names that lists such as `skipped` of a file have; names folded."""
    ids: set[_Id | None] = set()
    names: set[str] = set()
    for key, entries in content.items():
        if key in _KEYS or not _UNSURE_LIST.search(key) or not isinstance(entries, list | dict):
            continue
        for entry in entries:
            values = list(entry.values()) if isinstance(entry, dict) else [entry]
            ids |= set(map(_parse_id, values))
            names |= {name for value in values for name in _list_names(str(value))}
    return ids - {None}, names


def _list_names(name: str) -> list[str]:
    """Return a name, and it without folders and suffix, folded."""
    path = PureWindowsPath(fold_name(name))  # takes both kinds of slashes
    return [path.as_posix(), path.name, path.stem]


def _find_mark(image: Mapping[str, Any], classes: Set[str]) -> str:
    """Return a key of an image that may hold boxes of it, or tells of some; `""` if none does."""
    names = {"file_name", "license"}
    items = ((key, value) for key, value in image.items() if key not in names)
    return next((item[0] for item in items if may_hold_marks(item, classes)), "")


def _load_coco(file: Path) -> dict[str, Any]:
    content = load_json(file)
    if isinstance(content, list) and any(isinstance(e, dict) and "score" in e for e in content):
        raise AnnotationError(
            f"{file}: holds what a detector found, not a data set; give the file of its data set."
        )
    for key in _KEYS:
        entries = content.get(key) if isinstance(content, dict) else None
        if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries):
            for found in _RELATIVES.keys() & {k for entry in entries for k in entry}:
                raise AnnotationError(
                    f"{file}: an entry of {key!r} has {found!r}, as {_RELATIVES[found]}; give the "
                    "file of COCO's object detection."
                )
            continue
        raise AnnotationError(
            f"{file}: COCO wants an object with the lists 'images', 'annotations' and "
            f"'categories'; {key!r} is missing or no list of objects."
        )
    for key, entries in content.items():
        is_list = key not in _KEYS and isinstance(entries, list)
        if is_list and any(isinstance(entry, dict) and "image_id" in entry for entry in entries):
            raise AnnotationError(
                f"{file}: the entries of {key!r} point to images, as only those of 'annotations' "
                "are read; put them there, or remove them."
            )
    return content


def _parse_id(value: object) -> _Id | None:
    """Return an id, an integer where it is one in any spelling; None for what is no id."""
    if type(value) is int:
        return value
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        value = repr(value) if abs(value) <= _LARGEST_EXACT else None
    text = unicodedata.normalize("NFC", value).strip() if isinstance(value, str) else ""
    match = _INTEGER.fullmatch(text)
    if match is None:
        return None if text.lower() in ("", "nan", "null", "none") else text
    number = int(match[1])
    return None if match[2] and abs(number) > _LARGEST_EXACT else number


def _index_entries(
    file: Path, key: str, entries: Iterable[Mapping[str, Any]]
) -> dict[_Id, Mapping[str, Any]]:
    """Return entries by id.

    Raises:
        AnnotationError: If one has no id, or two have the same.
    """
    index: dict[_Id, Mapping[str, Any]] = {}
    for position, entry in enumerate(entries):
        number = _parse_id(entry.get("id"))
        if number is None:
            raise AnnotationError(f"{file}: an entry of {key!r} has no 'id' ({key}[{position}]).")
        if number in index:
            raise _make_duplicate_error(file, key, position, number)
        index[number] = entry
    return index


def _make_duplicate_error(file: Path, key: str, position: int, number: _Id) -> AnnotationError:
    # An id of text may be the name of a patient.
    shown = f"the id {number}" if isinstance(number, int) else "an id of text"
    return AnnotationError(
        f"{file}: {key}[{position}] has {shown}, which an entry before it has; number the entries "
        "anew, as files that were joined must be, or ingest the files one by one."
    )


def _read_categories(file: Path, entries: Iterable[Mapping[str, Any]]) -> dict[_Id, str]:
    """Return names by id, in ascending order of the ids."""
    index = _index_entries(file, "categories", entries)
    names = {number: entry.get("name") for number, entry in index.items()}
    if any(type(name) not in (str, int) for name in names.values()):
        raise AnnotationError(f"{file}: a category has no 'name'.")
    if len({type(number) for number in index}) > 1:
        raise AnnotationError(f"{file}: the category ids are of mixed types.")
    return {number: str(names[number]) for number in sorted(index)}


def _drop_repeated(
    collector: Collector, entries: list[dict[str, Any]]
) -> dict[int, dict[str, Any]]:
    """Return annotations by position, without those that say again what one of their id says.

    Those that share no more than the id stay: nothing goes by the ids of annotations.
    """
    ids = [_parse_id(entry.get("id")) for entry in entries]
    counts = collections.Counter(ids)
    seen: set[tuple[_Id, str]] = set()
    numbers: set[_Id] = set()
    kept: dict[int, dict[str, Any]] = {}
    shared = 0
    for position, (number, entry) in enumerate(zip(ids, entries, strict=True)):
        if number is not None and counts[number] > 1:
            key = (number, repr(_summarize(entry)))
            if key in seen:
                continue
            shared += number in numbers
            seen.add(key)
            numbers.add(number)
        kept[position] = entry
    if count := len(entries) - len(kept):
        collector.notes.append(
            plural(
                count,
                "annotation",
                "is there twice, and is taken once",
                "are there twice, and are taken once",
            )
        )
    if shared:
        collector.notes.append(
            f"{plural(shared, 'annotation', 'has', 'have')} the id of another one; all were taken, "
            "by their image_id"
        )
    return kept


def _summarize(entry: Mapping[str, Any]) -> tuple[object, ...]:
    """Return what an annotation says, in whatever spelling."""
    bbox, ids = entry.get("bbox"), (entry.get("image_id"), entry.get("category_id"))
    if not isinstance(bbox, list) or not bbox:
        return *map(_parse_id, ids), bbox, entry.get("segmentation")
    return *map(_parse_id, ids), *map(parse_number, bbox)


def _group_annotations(
    annotations: Mapping[int, Mapping[str, Any]],
    images: Iterable[_Id],
    categories: Mapping[_Id, str],
) -> tuple[dict[_Id, list[Box | Fault]], list[int]]:
    """Return boxes and faults by image id, and the positions of those of no image."""
    groups: dict[_Id, list[Box | Fault]] = {number: [] for number in images}
    orphans = []
    for position, entry in annotations.items():
        image_id = _parse_id(entry.get("image_id"))
        if image_id is None or image_id not in groups:
            orphans.append(position)
            continue
        box: Box | Fault | str = _parse_annotation(entry, categories)
        if isinstance(box, str):
            box = Fault(f"annotations[{position}]: {box}")
        groups[image_id].append(box)
    return groups, orphans


def _parse_annotation(entry: Mapping[str, Any], categories: Mapping[_Id, str]) -> Box | str:
    """Return the box of an annotation; a string tells why it has none."""
    category = _parse_id(entry.get("category_id"))
    if category is None or category not in categories:
        return "its category_id is not among the categories"
    bbox = entry.get("bbox")
    if entry.get("bbox_mode", _XYWH) not in (_XYWH, "XYWH_ABS"):
        return "its bbox_mode is another than 1, [x, y, width, height]"
    if isinstance(bbox, list) and len(bbox) == 4:
        # Plain floats: arrays of four numbers take a hundred times as long.
        left, top, width, height = map(parse_number, bbox)
        xyxy = [left, top, left + width, top + height]
        if contradicts(xyxy, entry.get("segmentation")):
            return "its bbox and its segmentation lie apart, so that one of them is wrong"
    elif bbox not in (None, []):
        return "its bbox is not [x, y, width, height]"
    elif not (xyxy := bound_polygons(entry.get("segmentation"))):
        return "it has neither a bbox nor polygons"
    attributes = entry.get("attributes")
    for place in (entry, attributes if isinstance(attributes, dict) else {}):
        if caveat := find_caveat(place.items()):
            return caveat
    # `ignore` is how converters of Pascal VOC write `difficult`.
    crowd, difficult = (entry.get(key) in (1, "1", "true") for key in ("iscrowd", "ignore"))
    return Box(xyxy, categories[category], is_crowd=crowd, difficult=difficult)
