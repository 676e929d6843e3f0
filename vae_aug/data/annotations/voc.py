"""Pascal VOC data sets."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from vae_aug.data.annotations.layout import (
    find_split_folder,
    index_images,
    list_children,
    list_split_names,
)
from vae_aug.data.annotations.source import (
    Annotations,
    Box,
    Collector,
    keep_named,
    parse_number,
    parse_size,
)
from vae_aug.errors import AnnotationError


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
    xml_folder = next((f for f in list_children(folder, "Annotations", "annotations")), folder)
    image_folders = [*list_children(folder, "JPEGImages", "images", "Images"), xml_folder, folder]
    xml_files = {path.stem: path for path in sorted(xml_folder.glob("*.xml"))}
    image_files = index_images(dict.fromkeys(image_folders))
    collector = Collector(source)
    parsed = {stem: parse_voc(path) for stem, path in xml_files.items()}
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
    boxes: tuple[Box, ...]


def _add_voc_image(
    collector: Collector,
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
        collector.add(image, keep_named(collector, xml, voc.boxes), size=voc.size)


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
    places = (folder, *list_children(folder, "Annotations", "annotations"))
    return any(any(place.glob("*.xml")) for place in places)


def _read_image_set(folder: Path, split: str) -> list[str] | None:
    lists = folder / "ImageSets" / "Main"
    if not lists.is_dir() or split == "all":
        return None
    for name in list_split_names(split):
        if (lists / f"{name}.txt").is_file():
            lines = (lists / f"{name}.txt").read_text("utf-8", "replace").splitlines()
            # Lists of one class carry -1, 0 or 1 behind the image.
            return [line.split()[0] for line in lines if line.strip()]
    known = ", ".join(sorted(path.stem for path in lists.glob("*.txt")))
    raise AnnotationError(f"{lists}: has no {split}.txt; it has {known}. 'all' takes every image.")


def parse_voc(path: Path) -> _Voc | None:
    """Parse one VOC file; None if it is none."""
    try:
        root = ET.fromstring(path.read_bytes())
    except (ET.ParseError, OSError, ValueError, LookupError):
        return None
    if root.tag != "annotation":
        return None
    size = tuple(parse_size(root.findtext(f"size/{side}")) for side in ("height", "width"))
    return _Voc(
        filename=(root.findtext("filename") or "").strip(),
        size=(size[0], size[1]),
        boxes=tuple(_parse_voc_object(element) for element in root.findall("object")),
    )


def _parse_voc_object(element: ET.Element) -> Box:
    texts = {child.tag.lower(): (child.text or "").strip() for child in element}
    sides = ("xmin", "ymin", "xmax", "ymax")
    return Box(
        xyxy=[parse_number(element.findtext(f"bndbox/{side}")) for side in sides],
        label=texts.get("name", ""),
        difficult=texts.get("difficult") == "1",
        truncated=texts.get("truncated") == "1",
    )


def _match_voc_image(stem: str, voc: _Voc | None, images: Mapping[str, Path]) -> Path | None:
    """Find the image of an XML file, by the file's own name first: it outlives renaming."""
    if stem in images:
        return images[stem]
    return images.get(Path(voc.filename.replace("\\", "/")).stem) if voc else None
