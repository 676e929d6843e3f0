"""Pascal VOC data sets."""

from __future__ import annotations

import math
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.layout import (
    IMAGE_SUFFIXES,
    SPLIT_WORDS,
    find_split_folder,
    fold_name,
    list_split_names,
)
from vae_aug.ingest.formats.matching import (
    Claim,
    ImageMatcher,
    add_claims,
    doubt_strays,
    list_files,
)
from vae_aug.ingest.formats.outlines import contradicts
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
from vae_aug.ingest.formats.statements import may_mark, names_object, says_something
from vae_aug.ingest.formats.table_columns import denies, find_caveat
from vae_aug.ingest.formats.table_file import fold_column
from vae_aug.ingest.formats.text import parse_xml
from vae_aug.ingest.formats.voc_sets import choose_claims, list_folders, read_image_set
from vae_aug.ingest.formats.walk import walk

_Size = tuple[int | None, int | None]

# What holds a shape; outside of an <object> it belongs to nothing that is read.
_SHAPE = re.compile(
    r"objects?|(.*_)?(bnd|b|rob?nd|bounding|rotated)?_?box(es)?|rect(angle)?s?|poly(gon|line)?s?|"
    r"points?|pts?|vertices|contours?|outlines?|ellipses?|circles?|regions?|rois?|shapes?|masks?|"
    r"segments|segmentations?|[xy](min|max|[0-9])"
)
_FOLDERS = ("annotations", "jpegimages", "images", "imagesets")
_CLASSES = ("label", "labels", "class", "classes", "category", "categories")
_METADATA = ("size", "source", "owner", "folder", "filename", "path")
# What has elements in it, and is about the image or its file.
_ABOUT = re.compile(
    r"meta_?(data)?|im(g|age)(_?(size|info|data))?|info|header|patient|subject|study|series|scanner|"
    r"scan|device|camera|equipment|acquisition|protocol|dicom|dataset|license|software|tool|"
    r"annotator|author|creator|history|date|time|created|modified|properties|settings|"
    r"(pixel_?)?spacing|resolution|orientation|position|window"
)
# Fewer numbers are no box; a point or circle of fewer has a tag that says so.
_BOX_NUMBERS = 4


class Voc(NamedTuple):
    """What one VOC file says.

    Attributes:
        filename: What it calls its image, `""` if nothing.
        size: Height and width in pixels that it claims.
        entries: Its boxes, and what in it became none; None if it says that nobody has looked.
    """

    filename: str = ""
    size: _Size = (None, None)
    entries: tuple[Box | Fault, ...] | None = ()

    @property
    def names(self) -> set[str]:
        """The labels of its boxes."""
        entries = self.entries or ()
        names = {clean_label(entry.label) for entry in entries if isinstance(entry, Box)}
        return names - {""}


@reader
def read_voc(
    source: str | os.PathLike[str], split: str = "train", options: ReaderOptions = DEFAULTS
) -> Annotations:
    """Read a Pascal VOC data set.

    Layouts: `Annotations/` with `JPEGImages/` or `images/` and optionally
    `ImageSets/Main/<split>.txt`, in `source` or in a folder of it; or XML files beside their
    images, also in a folder of the split. In each they may lie in folders of their own, as
    `Annotations/p1/a.xml` with `JPEGImages/p1/a.jpg`. Labels are all names in the XML files that
    are read, sorted.

    An XML file describes the image of its own name; of several, that which its `<filename>`
    names; and where there is none, that which `<filename>` names. If `<filename>` tells of another
    format than the image's, the file must claim the image's size. An XML file without objects
    says that its image has none, unless a key of it such as `annotated` says no. An image without
    an XML file is unannotated. Faulty are an image whose XML file cannot be read, images of one
    stem between which `<filename>` does not decide, two images of which one has the XML file's name
    and the other, without a file of its own, the `<filename>`, and images named by `<filename>`
    alone if a file that cannot be read has no image of its name.

    Args:
        source: The data set's folder.
        split: Which split; `"all"` takes every image where the folder has split lists. Where
            there are neither lists nor a folder of the split, every image is taken.
        options: As in `ReaderOptions`.

    Returns:
        The annotations.

    Raises:
        AnnotationError: If there is no such folder, XML file, or split list, or all coordinates
            are relative.

    Reference:
        Everingham and Winn, "The PASCAL VOC2012 Challenge Development Kit", section 8.
    """
    source = Path(source)
    folder = _find_voc_folder(source, split)
    collector = Collector(source, options)
    parsed: dict[Path, Voc] = {}
    claims: list[Claim] = []
    for places in _list_places(folder, split, options):
        files = {path: _parse_or_fault(path) for path in list_files(places.annotations, ".xml")}
        parsed |= files
        claims += _claim_images(ImageMatcher(places.images), files)
    claims = sorted(doubt_strays(_join_claims(claims)), key=lambda claim: claim.stem)
    lines = read_image_set(folder, split)
    add_claims(collector, claims if lines is None else choose_claims(collector, claims, lines))
    refuse_relative(collector)
    return collector.finish(sorted(set().union(*(voc.names for voc in parsed.values()))))


class _Places(NamedTuple):
    """A folder of XML files, and the folders in which their images may lie, the first first."""

    annotations: Path
    images: list[Path]


def _list_places(folder: Path, split: str, options: ReaderOptions) -> list[_Places]:
    """Return the folder of XML files, and those in it, each with the image folder of its name."""
    top = next(iter(list_folders(folder, "annotations")), folder)
    image_tops = list_folders(folder, "jpegimages", "images")
    if top == folder:
        tops, image_tops = [folder], [*image_tops, folder]
    else:
        tops, image_tops = [top, *image_tops], [*image_tops, top, folder]
    image_tops = [*filter(None, [options.images]), *image_tops]
    names = {path.relative_to(place) for place in tops for path in _list_used(place)}
    others = SPLIT_WORDS - set(list_split_names(split)) if split != "all" else set()
    chosen = [name for name in names if others.isdisjoint(map(fold_name, name.parts))]
    if not any(list_files(top / name, ".xml") for name in chosen):
        find_split_folder(top, split)  # says which splits there are
    return [_pair_places(top, image_tops, name) for name in sorted({Path(), *chosen})]


def _list_used(folder: Path) -> set[Path]:
    """Return the folders below one that hold images or XML files."""
    suffixes = {*IMAGE_SUFFIXES, ".xml"}
    paths = map(Path, walk(folder, lambda name: name[0] != "." and name.lower() not in _FOLDERS))
    return {path.parent for path in paths if path.suffix.lower() in suffixes}


def _pair_places(top: Path, image_tops: Sequence[Path], name: Path) -> _Places:
    places = [place / name for place in image_tops if (place / name).is_dir()]
    if not name.parts or any(place != top / name for place in places):
        return _Places(top / name, list(dict.fromkeys(places)))
    # XML files may be in folders and images in one.
    return _Places(top / name, list(dict.fromkeys([top / name, *image_tops])))


def _parse_or_fault(path: Path) -> Voc:
    try:
        return parse_voc(path)
    except AnnotationError as error:
        return Voc(entries=(Fault(describe_fault(path, error), "unread"),))


def _claim_images(matcher: ImageMatcher, parsed: Mapping[Path, Voc]) -> list[Claim]:
    """Return what the files of a folder say of its images, and the images without a file."""
    matches = {path: matcher.match(path, voc.filename) for path, voc in parsed.items()}
    taken = {image for images in matches.values() for image in images}
    claims = []
    for path, images in matches.items():
        voc = parsed[path]
        entries, named = voc.entries, matcher.find(voc.filename)
        if len(images) > 1:
            entries = (Fault("its <filename> is none of the images of its stem", "unread"),)
        elif images and named is not None and named not in taken:
            fault = Fault("its <filename> is another image, which has no XML file", "unread")
            entries = (*(entries or ()), fault)
            claims.append(Claim(named, path, (fault,)))
        if not images:
            claims.append(Claim(None, path, entries))
        name = voc.filename
        claims += [Claim(image, path, entries, voc.size, name=name) for image in images]
    return [*claims, *map(Claim, matcher.images)]


def _join_claims(claims: Sequence[Claim]) -> list[Claim]:
    """Return claims, without those of images without a file that another claim gives one."""
    told = [claim for claim in claims if claim.file]
    bare = {claim.image: claim for claim in claims if not claim.file}
    for claim in told:
        bare.pop(claim.image, None)
    return [*told, *bare.values()]


def _find_voc_folder(source: Path, split: str) -> Path:
    if not source.is_dir():
        raise AnnotationError(f"{source}: no such folder; VOC wants the folder of the data set.")
    for folder in (find_split_folder(source, split), source):
        if folder and _has_voc(folder):
            return folder
    found = [path for path in sorted(source.iterdir()) if path.is_dir() and _has_voc(path)]
    if len(found) == 1:
        return found[0]
    if found and not any(list_folders(path, "annotations") for path in found):
        return source
    raise AnnotationError(
        f"{source}: expected one folder with Annotations/*.xml, or *.xml beside the images; "
        f"found {', '.join(folder.name for folder in found) or 'none'}"
        f"{'; give them one by one' if found else ''}."
    )


def _has_voc(folder: Path) -> bool:
    return bool(list_files(folder, ".xml")) or any(
        path.name.lower().endswith(".xml")
        for place in list_folders(folder, "annotations")
        for path in walk(place)
    )


def is_voc(root: ET.Element) -> bool:
    """Tell whether the root of an XML file is that of a VOC file."""
    children = {_get_name(child) for child in root}
    return _get_name(root) == "annotation" or (
        _get_name(root) == "annotations"
        and bool(children & {"annotation", "filename", "object", "objects"})
    )


def parse_voc(path: Path) -> Voc:
    """Parse one VOC file; tags may be in any letter case and namespace.

    Args:
        path: The file.

    Returns:
        What it says. Coordinates that are no numbers are NaN.

    Raises:
        AnnotationError: If it cannot be read, or is no VOC file of one image.
    """
    root = parse_xml(path)
    voc = is_voc(root)
    for element in root.iter():
        element.tag = _get_name(element)
    inner = root.findall("annotation")
    if not voc or len(inner) > 1:
        raise AnnotationError(
            f"{path}: no XML of Pascal VOC (one <annotation> with <object> in it); export it "
            "again, or leave it out."
        )
    outer, root = root, inner[0] if inner else root
    size = root.find("size")
    sides = [parse_size(_get_text(size, side)) for side in ("height", "width")]
    entries = tuple(_parse_objects(root, outer))
    says = [*root.attrib.items(), *((child.tag, child.text or "") for child in root)]
    unsure = not entries and any(denies(*item, is_empty=True) for item in says)
    return Voc(_get_text(root, "filename"), (sides[0], sides[1]), None if unsure else entries)


def _get_name(element: ET.Element) -> str:
    """Return a tag without its namespace, in lower case."""
    return element.tag.rpartition(":")[2].lower()


def _parse_objects(root: ET.Element, outer: ET.Element) -> Iterator[Box | Fault]:
    """Yield the boxes of an <annotation>, and faults of what in the whole file may be one."""
    groups = [root, *root.findall("objects")]
    objects = [entry for place in groups for entry in place.findall("object")]
    for index, entry in enumerate(objects):
        box = _parse_object(entry)
        yield box if isinstance(box, Box) else Fault(f"object {index}: {box}")
    if not objects and _get_text(root, "segmented") not in ("", "0"):
        yield Fault("it is <segmented>, and has no <object>", "unread")
    read = {id(entry) for entry in (root, *groups, *objects)}
    places = groups if outer is root else [outer, *groups]
    others = [child for place in places for child in place if id(child) not in read]
    reasons = [reason for element in others if (reason := _find_shape(element))]
    if not objects and not reasons:
        reasons = [reason for place in places if (reason := _find_statement(place, others))]
    yield from map(Fault, dict.fromkeys(reasons))


def _find_shape(element: ET.Element) -> str:
    """Return why an element that is not read may hold a shape, `""` if it holds none."""
    numbers = 0
    for inner in element.iter():
        names = (inner.tag, *map(str.lower, inner.attrib))
        if shape := next(filter(_SHAPE.fullmatch, names), None):
            return f"a <{shape}> lies outside of every <object>"
        texts = " ".join([inner.text or "", inner.tail or "", *inner.attrib.values()])
        words = re.split(r"[\s,;:()[\]]+", texts)
        numbers += sum(not math.isnan(parse_number(word)) for word in words)
    if element.tag in _METADATA:
        return ""
    if numbers >= _BOX_NUMBERS:
        return f"a <{element.tag}> outside of every <object> holds numbers, which may be a shape"
    if element.tag in _CLASSES and (element.text or "").strip():
        return f"a <{element.tag}> lies outside of every <object>"
    is_named = element.find("name") is not None
    return f"a <{element.tag}> has a name, as an <object> has" if is_named else ""


def _find_statement(place: ET.Element, others: Sequence[ET.Element]) -> str:
    """Return what a file without objects says all the same, `""` if nothing.

    Args:
        place: What objects lie in, where they are.
        others: The elements that are not read.
    """
    if says_something(" ".join([place.text or "", *(child.tail or "" for child in place)])):
        return f"a text in <{place.tag}>, and no <object>"
    items = [*place.attrib.items()]
    for element in (child for child in others if child.tag not in _METADATA):
        inner = list(element.iter())
        if len(inner) > 1 and not _ABOUT.fullmatch(element.tag) and says_something(_join(element)):
            return f"a <{element.tag}> with elements in it, and no <object>"
        items += [item for e in inner for item in ((e.tag, _join(e)), *e.attrib.items())]
    for name, text in items:
        key = fold_column(name)
        if (may_mark(key) and says_something(text)) or names_object(key, [text]):
            return f"something in <{name}>, and no <object>"
    return ""


def _join(element: ET.Element) -> str:
    """Return all texts and values in an element."""
    values = (value for inner in element.iter() for value in inner.attrib.values())
    return " ".join(" ".join([*element.itertext(), *values]).split())


def _parse_object(element: ET.Element) -> Box | str:
    """Return the box of an object; a string tells why it has none.

    The parts of a person (`<part>`) have boxes of their own, which are not objects.
    """
    boxes = element.findall("bndbox")
    if len(boxes) != 1:
        others = " and ".join(f"<{c.tag}>" for c in element if _SHAPE.fullmatch(c.tag))
        return f"expected one <bndbox>, got {others or 'none'}"
    within = (inner for child in element if child.tag != "part" for inner in child.iter())
    if {inner.tag for inner in within if inner is not boxes[0]} & {"object", "bndbox"}:
        return "another <object> or <bndbox> lies in it"
    if caveat := find_caveat(_list_items(element)):
        return caveat
    sides = ("xmin", "ymin", "xmax", "ymax")
    xyxy = [parse_number(_get_text(boxes[0], side)) for side in sides]
    if contradicts(xyxy, _list_points(element)):
        return "its <bndbox> and its <polygon> lie apart, so that one of them is wrong"
    return Box(
        xyxy=xyxy,
        label=_get_text(element, "name"),
        difficult=_get_text(element, "difficult") in ("1", "true"),
        truncated=_get_text(element, "truncated") in ("1", "true"),
    )


def _list_points(element: ET.Element) -> list[float]:
    """Return x and y in turn of all polygons of an object, `<x1>` and so on, or `<pt><x>`."""
    inner = [point for polygon in element.findall("polygon") for point in polygon.iter()]
    xs, ys = ([p.text for p in inner if re.fullmatch(rf"{axis}\d*", p.tag)] for axis in "xy")
    pairs = zip(xs, ys, strict=True) if len(xs) == len(ys) else ()
    return [parse_number(text) for pair in pairs for text in pair]


def _list_items(element: ET.Element) -> Iterator[tuple[str, str]]:
    """Yield what stands beside the box of an object, and CVAT's attributes of it."""
    for inner in element.iter():
        name, value = inner.find("name"), inner.find("value")
        if inner.tag == "attribute" and name is not None and value is not None:
            yield name.text or "", value.text or ""
        elif inner.tag != "part":
            yield inner.tag, inner.text or ""


def _get_text(element: ET.Element | None, tag: str) -> str:
    """Return the text of the child of a tag, `""` if there is none, or several that differ."""
    children = [] if element is None else element.findall(tag)
    texts = {(child.text or "").strip() for child in children}
    return texts.pop() if len(texts) == 1 else ""
