"""Data sets of LabelMe and X-AnyLabeling: one JSON file beside each image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.layout import (
    find_split_folder,
    fold_name,
    list_image_folders,
    list_images,
)
from vae_aug.ingest.formats.matching import Claim, ImageMatcher, add_claims, doubt_strays
from vae_aug.ingest.formats.pixels import refuse_relative
from vae_aug.ingest.formats.source import (
    DEFAULTS,
    Annotations,
    Box,
    Collector,
    Fault,
    ReaderOptions,
    clean_label,
    describe_fault,
    parse_number,
    parse_size,
    reader,
)
from vae_aug.ingest.formats.statements import may_hold_marks, tells_of_object
from vae_aug.ingest.formats.table_columns import denies, find_caveat
from vae_aug.ingest.formats.text import load_json
from vae_aug.ingest.formats.walk import walk
from vae_aug.limits import MAX_TEXT_BYTES

# How many points a shape has. LabelMe writes two opposite corners of a rectangle, X-AnyLabeling all
# four; its rotations are rectangles that lie askew.
_POINTS = {
    "rectangle": (2, 4),
    "rotation": (4,),
    "oriented_rectangle": (4,),
    "circle": (2,),
    "mask": (2,),
}
_NO_AREAS = ("point", "points", "line", "linestrip")


@reader
def read_labelme(
    source: str | os.PathLike[str], split: str = "train", options: ReaderOptions = DEFAULTS
) -> Annotations:
    """Read a folder of LabelMe files.

    A rectangle is a box; a polygon, a circle or a mask gives its bounding box; points and lines
    have no area and are faults. Labels are those of the files, sorted.

    A JSON file describes the image of its own name, beside it or in a folder of images; of
    several, that which `imagePath` names; and where there is none, that which `imagePath` names.
    A file without shapes says that its image has none, unless a flag that is set has the name of a
    class or tells of a lesion, or a flag or key (X-AnyLabeling's `checked`) says that nobody has
    looked. An image without a file is unannotated. Faulty are an image whose file cannot be read or
    is none of LabelMe, an image that two files describe differently, images of one stem between
    which `imagePath` does not decide, and images named by `imagePath` alone if a file that cannot
    be read has no image of its name.

    Args:
        source: The folder, read with all below it; where it has a folder of the split's name,
            that one.
        split: Which split.
        options: As in `ReaderOptions`.

    Returns:
        The annotations.

    Raises:
        AnnotationError: If the folder is missing or holds no LabelMe file, or all coordinates are
            relative.

    Reference:
        LabelMe 5, `labelme/label_file.py`: keys `imagePath`, `imageHeight`, `shapes`.
    """
    source = Path(source)
    if not source.is_dir():
        raise AnnotationError(f"{source}: no such folder; LabelMe wants the folder of its files.")
    folder = find_split_folder(source, split) or source
    collector = Collector(source, options)
    parsed = {file: _parse_or_fault(file) for file in _list_json(folder)}
    if not any(content.is_read for content in parsed.values()):
        faults = (entry for content in parsed.values() for entry in content.entries)
        reason = next((entry.reason for entry in faults if isinstance(entry, Fault)), None)
        found = f"; the first JSON file {reason}" if reason else ""
        raise AnnotationError(f"{folder}: holds no JSON file of LabelMe (with 'shapes'){found}.")
    entries = [entry for image in parsed.values() for entry in image.entries]
    names = {clean_label(entry.label) for entry in entries if isinstance(entry, Box)}
    classes = set(map(fold_name, names))
    parsed = {file: _doubt_flagged(content, classes) for file, content in parsed.items()}
    claims = _claim_images(parsed, split, options)
    images = {os.path.normpath(claim.image) for claim in claims if claim.image}
    others = (path for path in list_images(folder) if os.path.normpath(path) not in images)
    claims += [Claim(path) for path in others]
    add_claims(collector, sorted(doubt_strays(claims), key=lambda c: c.image or c.file or folder))
    refuse_relative(collector)
    return collector.finish(sorted(names - {""}))


class LabelMe(NamedTuple):
    """What one LabelMe file says.

    Attributes:
        image_path: What it calls its image, as it is written.
        size: Height and width in pixels that it claims.
        entries: Its boxes, and what in it became none.
        missing: What to report if there is no such image.
        is_read: Whether it could be read as a file of LabelMe.
        flags: The names of the flags that are set for the whole image, folded.
        is_unannotated: Whether a flag or key says that the image was not annotated.
    """

    image_path: object = None
    size: tuple[int | None, int | None] = (None, None)
    entries: tuple[Box | Fault, ...] = ()
    missing: str = "the image that it describes is missing"
    is_read: bool = True
    flags: frozenset[str] = frozenset()
    is_unannotated: bool = False


def _list_json(folder: Path) -> list[Path]:
    paths = (Path(entry.path) for entry in walk(folder))
    files = (path for path in paths if path.suffix.lower() == ".json")
    return sorted(path for path in files if path.is_file() and path.name[:2] != "._")


def _parse_or_fault(file: Path) -> LabelMe:
    try:
        return parse_labelme(file)
    except AnnotationError as error:
        return LabelMe(entries=(Fault(describe_fault(file, error), "unread"),), is_read=False)


def _claim_images(
    parsed: Mapping[Path, LabelMe], split: str, options: ReaderOptions
) -> list[Claim]:
    matchers: dict[Path, _Matcher] = {}
    claims = []
    for file, content in parsed.items():
        if file.parent not in matchers:
            matchers[file.parent] = _Matcher(file.parent, split, options)
        images = matchers[file.parent].match(file, content.image_path)
        entries = None if content.is_unannotated else content.entries
        if len(images) > 1:
            entries = (Fault("its imagePath is none of the images of its stem", "unread"),)
        found: list[Path | None] = [*images] or [None]
        size, missing = content.size, content.missing
        name = content.image_path
        claims += [Claim(image, file, entries, size, missing, name) for image in found]
    return claims


class _Matcher:
    """Finds the images of the LabelMe files of one folder."""

    def __init__(self, folder: Path, split: str, options: ReaderOptions) -> None:
        others = list_image_folders(folder, split, options.images)
        self._beside = ImageMatcher([folder])
        self._anywhere = ImageMatcher(list(dict.fromkeys([folder, *others])))

    def match(self, file: Path, name: object) -> list[Path]:
        """Return the image of a file; several if it cannot be told which.

        An image beside the file comes first. Elsewhere an image may have the file's stem and
        still be another patient's, so there one that `imagePath` names by this stem comes first.
        """
        if self._beside.list_alike(file.stem):
            return self._beside.match(file, name)
        named = self._anywhere.find(name)
        if named is not None and fold_name(named.stem) == fold_name(file.stem):
            return [named]
        return self._anywhere.match(file, name)


def is_labelme(content: object) -> bool:
    """Tell whether the content of a JSON file is that of a LabelMe file."""
    return isinstance(content, dict) and (
        isinstance(content.get("shapes"), list) or {"shapes", "imagePath"} <= content.keys()
    )


def parse_labelme(file: Path) -> LabelMe:
    """Parse one LabelMe file.

    Args:
        file: The file.

    Returns:
        What it says. Coordinates that are no numbers are NaN.

    Raises:
        AnnotationError: If it cannot be read, or is no LabelMe file.
    """
    content = load_json(file, MAX_TEXT_BYTES)
    if not is_labelme(content):
        raise AnnotationError(f"{file}: no JSON of LabelMe (with 'shapes'); leave it out.")
    shapes = content["shapes"]
    if isinstance(shapes, list):
        entries = tuple(_parse_entry(index, shape) for index, shape in enumerate(shapes))
    else:
        entries = (Fault("its 'shapes' are no list", "unread"),)
    flags = content.get("flags")
    flags = flags if isinstance(flags, dict) else {}
    says = {**content, **flags}
    others = {name: value for name, value in says.items() if name != "shapes"}
    if not entries and (key := next(filter(may_hold_marks, others.items()), None)):
        entries = (Fault(f"has no shapes, and {key[0]!r}, which may hold some"),)
    missing = LabelMe().missing
    if content.get("imageData"):
        missing += "; save the copy in its 'imageData' as a file beside it"
    size = parse_size(content.get("imageHeight")), parse_size(content.get("imageWidth"))
    return LabelMe(
        content.get("imagePath"),
        size,
        entries,
        missing,
        flags=frozenset(fold_name(clean_label(name)) for name, is_set in flags.items() if is_set),
        is_unannotated=not entries and any(denies(*pair, is_empty=True) for pair in says.items()),
    )


def _doubt_flagged(content: LabelMe, classes: Set[str]) -> LabelMe:
    """Add a fault if a file has no shapes, and a flag that is set tells of an object."""
    if content.entries or not any(tells_of_object(flag, classes) for flag in content.flags):
        return content
    fault = Fault("a flag that is set tells of an object, and there are no shapes", "unread")
    return content._replace(entries=(fault,), is_unannotated=False)


def _parse_entry(index: int, shape: object) -> Box | Fault:
    box = _parse_shape(shape) if isinstance(shape, dict) else "it is no object"
    return box if isinstance(box, Box) else Fault(f"shapes[{index}]: {box}")


# Sums of what overflows are infinite or no numbers, which `clean_boxes` judges.
@np.errstate(over="ignore", invalid="ignore")
def _parse_shape(shape: Mapping[str, Any]) -> Box | str:
    """Return the box of a shape; a string tells why it has none."""
    # Files of LabelMe before version 3 have polygons only, and no type.
    kind, points, label = (shape.get(key) for key in ("shape_type", "points", "label"))
    kind = "polygon" if kind is None else kind
    flags = shape.get("flags")
    if isinstance(flags, dict) and (caveat := find_caveat(flags.items())):
        return caveat
    if isinstance(kind, str) and kind in _NO_AREAS:
        return "a point or line has no area"
    if not isinstance(kind, str) or kind not in ("polygon", *_POINTS):
        return "its shape_type is not known"
    if not isinstance(points, list) or not all(
        isinstance(point, list) and len(point) == 2 for point in points
    ):
        return "its points are not a list of [x, y]"
    if kind == "polygon" and len(points) < 3:
        return f"a polygon wants at least 3 points; got {len(points)}"
    if kind in _POINTS and len(points) not in _POINTS[kind]:
        return f"a {kind} wants {' or '.join(map(str, _POINTS[kind]))} points; got {len(points)}"
    corners = np.array([[parse_number(value) for value in point] for point in points])
    low, high = corners.min(axis=0), corners.max(axis=0)
    if kind == "circle":
        radius = np.hypot(*(corners[1] - corners[0]))
        low, high = corners[0] - radius, corners[0] + radius
    elif kind == "mask":
        # The corners of a mask are its first and last pixel, both inside.
        high = high + 1
    text = str(label) if type(label) is int else label
    return Box([*low.tolist(), *high.tolist()], text if isinstance(text, str) else "")
