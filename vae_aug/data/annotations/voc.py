"""Pascal VOC data sets."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from vae_aug.data.annotations.layout import find_split_folder
from vae_aug.data.annotations.matching import (
    Claim,
    ImageMatcher,
    add_claims,
    doubt_strays,
    list_files,
)
from vae_aug.data.annotations.pixels import refuse_relative
from vae_aug.data.annotations.source import (
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
from vae_aug.data.annotations.text import parse_xml
from vae_aug.data.annotations.voc_sets import choose_claims, list_folders, read_image_set
from vae_aug.errors import AnnotationError

_Size = tuple[int | None, int | None]

# What holds a shape; outside of an <object> it belongs to nothing that is read.
_SHAPES = frozenset({"object", "bndbox", "robndbox", "polygon", "bbox", "box"})


class Voc(NamedTuple):
    """What one VOC file says.

    Attributes:
        filename: What it calls its image, `""` if nothing.
        size: Height and width in pixels that it claims.
        entries: Its boxes, and what in it became none.
    """

    filename: str = ""
    size: _Size = (None, None)
    entries: tuple[Box | Fault, ...] = ()

    @property
    def names(self) -> set[str]:
        """The labels of its boxes."""
        names = {clean_label(entry.label) for entry in self.entries if isinstance(entry, Box)}
        return names - {""}


@reader
def read_voc(
    source: str | os.PathLike[str], split: str = "train", options: ReaderOptions = DEFAULTS
) -> Annotations:
    """Read a Pascal VOC data set.

    Layouts: `Annotations/` with `JPEGImages/` or `images/` and optionally
    `ImageSets/Main/<split>.txt`, in `source` or in a folder of it; or XML files beside their
    images, also in a folder of the split. Labels are all names found in the XML files of all
    splits, sorted.

    An XML file describes the image of its own name; of several, that which its `<filename>`
    names; and where there is none, that which `<filename>` names. An XML file without objects
    says that its image has none. An image without an XML file is unannotated. Faulty are an image
    whose XML file cannot be read, images of one stem between which `<filename>` does not decide,
    two images of which one has the XML file's name and the other, without a file of its own, the
    `<filename>`, and images named by `<filename>` alone if a file that cannot be read has no image
    of its name.

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
    xml_folder = next(iter(list_folders(folder, "annotations")), folder)
    places = [*list_folders(folder, "jpegimages", "images"), xml_folder, folder]
    matcher = ImageMatcher(list(dict.fromkeys(filter(None, (options.images, *places)))))
    collector = Collector(source, options)
    parsed = {path: _parse_or_fault(path) for path in list_files(xml_folder, ".xml")}
    claims = _claim_images(matcher, parsed)
    lines = read_image_set(folder, split)
    add_claims(collector, claims if lines is None else choose_claims(collector, claims, lines))
    refuse_relative(collector)
    return collector.finish(sorted(set().union(*(voc.names for voc in parsed.values()))))


def _parse_or_fault(path: Path) -> Voc:
    try:
        return parse_voc(path)
    except AnnotationError as error:
        return Voc(entries=(Fault(describe_fault(path, error), "unread"),))


def _claim_images(matcher: ImageMatcher, parsed: Mapping[Path, Voc]) -> list[Claim]:
    """Return what is said of all images, in the order of the stems."""
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
            entries = (*entries, fault)
            claims.append(Claim(named, path, (fault,)))
        if not images:
            claims.append(Claim(None, path, entries))
        claims += [Claim(image, path, entries, voc.size) for image in images]
    taken |= {claim.image for claim in claims if claim.image}
    claims += [Claim(image) for image in matcher.images if image not in taken]
    return sorted(doubt_strays(claims), key=lambda claim: claim.stem)


def _find_voc_folder(source: Path, split: str) -> Path:
    if not source.is_dir():
        raise AnnotationError(f"{source}: no such folder; VOC wants the folder of the data set.")
    for folder in (find_split_folder(source, split), source):
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
    places = (folder, *list_folders(folder, "annotations"))
    return any(list_files(place, ".xml") for place in places)


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
    root = inner[0] if inner else root
    size = root.find("size")
    sides = [parse_size(_get_text(size, side)) for side in ("height", "width")]
    return Voc(_get_text(root, "filename"), (sides[0], sides[1]), tuple(_parse_objects(root)))


def _get_name(element: ET.Element) -> str:
    """Return a tag without its namespace, in lower case."""
    return element.tag.rpartition(":")[2].lower()


def _parse_objects(root: ET.Element) -> Iterator[Box | Fault]:
    places = [place for place in root if place.tag in ("object", "objects")]
    objects = [
        entry
        for place in places
        for entry in ([place] if place.tag == "object" else place.findall("object"))
    ]
    for index, entry in enumerate(objects):
        box = _parse_object(entry)
        yield box if isinstance(box, Box) else Fault(f"object {index}: {box}")
    read = {id(element) for entry in objects for element in entry.iter()}
    for element in root.iter():
        if element.tag in _SHAPES and id(element) not in read:
            yield Fault(f"a <{element.tag}> lies outside of every <object>")
    for element in root:
        if element.tag not in ("object", "owner", "source") and element.find("name") is not None:
            yield Fault(f"a <{element.tag}> has a name, as an <object> has")


def _parse_object(element: ET.Element) -> Box | str:
    """Return the box of an object; a string tells why it has none.

    The parts of a person (`<part>`) have boxes of their own, which are not objects.
    """
    boxes = element.findall("bndbox")
    if len(boxes) != 1:
        others = " and ".join(f"<{child.tag}>" for child in element if child.tag in _SHAPES)
        return f"expected one <bndbox>, got {others or 'none'}"
    if element.find(".//object") is not None:
        return "another <object> lies in it"
    sides = ("xmin", "ymin", "xmax", "ymax")
    return Box(
        xyxy=[parse_number(_get_text(boxes[0], side)) for side in sides],
        label=_get_text(element, "name"),
        difficult=_get_text(element, "difficult") in ("1", "true"),
        truncated=_get_text(element, "truncated") in ("1", "true"),
    )


def _get_text(element: ET.Element | None, tag: str) -> str:
    """Return the text of the child of a tag, `""` if there is none, or several that differ."""
    children = [] if element is None else element.findall(tag)
    texts = {(child.text or "").strip() for child in children}
    return texts.pop() if len(texts) == 1 else ""
