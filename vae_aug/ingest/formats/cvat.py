"""Data sets of CVAT: one XML file for all images, or for all frames of a video."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path

from vae_aug.errors import AnnotationError, MissingSplitError
from vae_aug.ingest.formats.cvat_shapes import is_outside, parse_shape
from vae_aug.ingest.formats.cvat_video import (
    find_frames,
    find_task,
    list_deleted,
    list_frames,
    parse_video_size,
    place_tracks,
)
from vae_aug.ingest.formats.layout import (
    FileFinder,
    fold_name,
    list_image_folders,
    list_split_names,
)
from vae_aug.ingest.formats.lookup import find_annotation_file
from vae_aug.ingest.formats.pixels import flag_relative, refuse_relative
from vae_aug.ingest.formats.source import (
    DEFAULTS,
    Annotations,
    Box,
    Collector,
    Fault,
    ReaderOptions,
    clean_label,
    parse_size,
    reader,
)
from vae_aug.ingest.formats.text import parse_xml
from vae_aug.limits import MAX_ANNOTATION_BYTES
from vae_aug.words import plural


@reader
def read_cvat(
    source: str | os.PathLike[str], split: str = "train", options: ReaderOptions = DEFAULTS
) -> Annotations:
    """Read an export "CVAT for images 1.1" or "CVAT for video 1.1".

    A polygon, an ellipse, a mask and a rotated box give their bounding box; points, lines,
    cuboids, skeletons and tags are faults. Labels are those that the file declares, in its
    order. Where images have a `subset`, those of the split are read, else all.

    An image that the file lists without a shape has no boxes. A frame of a video has none where
    no track is in it. A frame is faulty if a track leaves open where in it the object is, and all
    images are if a shape is in no frame, or the file holds elements of another kind.

    Args:
        source: The folder that holds `annotations.xml`, or the file itself.
        split: Which split; `"all"` reads every subset.
        options: As in `ReaderOptions`.

    Returns:
        The annotations.

    Raises:
        AnnotationError: If there is no such file, it is no such export, has no such subset, all
            coordinates are relative, or it cannot be told which image is which frame.

    Reference:
        CVAT documentation, "XML annotation format", version 1.1.
    """
    source = Path(source)
    file = find_annotation_file(source, split, (".xml",), _is_cvat_file)
    root = parse_cvat(file)
    collector = Collector(source if source.is_dir() else file.parent, options)
    folders = list_image_folders(file.parent, split, options.images)
    names = [(e.text or "").strip() for e in root.findall("meta//label/name")]
    if is_cvat_video(root):
        used = _add_frames(collector, file, root, folders)
    else:
        used = _add_images(collector, file, *_part_subsets(file, root, split), folders)
    if any(child.tag not in ("version", "meta", "image", "track") for child in root):
        collector.doubt("the file holds elements that are not known, which may be shapes")
    refuse_relative(collector)
    return collector.finish([*filter(None, names), *sorted(used)])


def _is_cvat_file(path: Path) -> bool:
    try:
        parse_cvat(path)
    except AnnotationError:
        return False
    return True


def is_cvat(root: ET.Element) -> bool:
    """Tell whether the root of an XML file is that of an export of images."""
    return root.tag == "annotations" and root.find("image") is not None


def is_cvat_video(root: ET.Element) -> bool:
    """Tell whether the root of an XML file is that of an export of a video."""
    return root.tag == "annotations" and root.find("track") is not None


def parse_cvat(file: Path) -> ET.Element:
    """Parse an export of CVAT.

    Returns:
        The root.

    Raises:
        AnnotationError: If the file cannot be read, or is no export of images or of a video.
    """
    root = parse_xml(file, MAX_ANNOTATION_BYTES)
    if is_cvat(root) == is_cvat_video(root):
        raise AnnotationError(
            f"{file}: expected an export 'CVAT for images' (<annotations> with <image>) or 'CVAT "
            "for video' (with <track>); export the task again in one of these formats."
        )
    return root


def _part_subsets(
    file: Path, root: ET.Element, split: str
) -> tuple[list[ET.Element], list[ET.Element]]:
    """Return the images of a split, and the others."""
    entries = root.findall("image")
    _check_ids(file, entries)
    subsets = {entry.get("subset", "") for entry in entries}
    if split == "all" or subsets <= {"", "default"}:
        return entries, []
    names = {name.lower() for name in list_split_names(split)}
    parts: tuple[list[ET.Element], list[ET.Element]] = ([], [])
    for entry in entries:
        parts[entry.get("subset", "").lower() not in names].append(entry)
    if not parts[0]:
        raise MissingSplitError(
            f"{file}: has no subset {split!r}; it has {', '.join(sorted(subsets))}. 'all' reads "
            "every image."
        )
    return parts


def _check_ids(file: Path, entries: Sequence[ET.Element]) -> None:
    seen: set[tuple[str | None, ...]] = set()
    for entry in entries:
        # Each task of a project counts its images from 0.
        key = tuple(entry.get(name) for name in ("task_id", "subset", "id"))
        if key[-1] is not None and key in seen:
            raise AnnotationError(
                f"{file}: two images have the id {key[-1]}; export the tasks again, or ingest them "
                "one by one."
            )
        seen.add(key)


def _add_images(
    collector: Collector,
    file: Path,
    images: Sequence[ET.Element],
    others: Sequence[ET.Element],
    folders: Sequence[Path],
) -> set[str]:
    """Add the images of an export of images; return the labels of their boxes."""
    finder = FileFinder(folders)
    elsewhere = {fold_name(entry.get("name", "")) for entry in others}
    used: set[str] = set()
    nameless = 0
    for image in images:
        entries = list(_parse_shapes(image))
        used |= _list_labels(entries)
        name, subset = image.get("name", ""), image.get("subset", "")
        nameless += bool(entries) and not name.strip()
        # Images of a project lie in a folder of their subset, and may have one name in several.
        path = finder.find(f"{subset}/{name}") if subset else None
        if path is None:
            path = finder.find(name)
            if fold_name(name) in elsewhere:
                entries.append(Fault("another subset has an image of this name too", "unread"))
        if path is None:
            reason = "the annotations name this image, the file is missing"
            collector.report(name.strip() or file, reason)
            continue
        size = parse_size(image.get("height")), parse_size(image.get("width"))
        collector.add(path, flag_relative(entries, size), file=file, size=size)
    if nameless:
        collector.doubt(
            f"{plural(nameless, 'image with shapes', 'has', 'have')} no name, so each may "
            "be any image"
        )
    return used


def _parse_shapes(image: ET.Element) -> Iterator[Box | Fault]:
    for index, shape in enumerate(image):
        if is_outside(shape):
            continue
        box = parse_shape(shape, shape.get("label", ""))
        # The name of the image may be a patient's, so the fault tells CVAT's own number of it.
        where = f"image {image.get('id', '')}, shape {index}"
        yield box if isinstance(box, Box) else Fault(f"{where}: {box}")


def _list_labels(entries: Sequence[Box | Fault]) -> set[str]:
    labels = {clean_label(entry.label) for entry in entries if isinstance(entry, Box)}
    return labels - {""}


def _add_frames(
    collector: Collector, file: Path, root: ET.Element, folders: Sequence[Path]
) -> set[str]:
    """Add the frames of an export of a video; return the labels of their boxes."""
    task = find_task(file, root)
    frames = list_frames(file, task)
    deleted, size = list_deleted(task, frames), parse_video_size(task)
    paths = find_frames(file, folders, frames)
    entries, unplaced = place_tracks(file, root, frames, sorted(paths))
    for frame, path in sorted(paths.items()):
        said = None if frame in deleted else flag_relative(entries.get(frame, ()), size)
        collector.add(path, said, file=file, size=size)
    for frame in sorted(entries.keys() - paths.keys()):
        if _list_labels(entries[frame]):
            collector.report(file, f"frame {frame}: the image is missing")
    for reason in unplaced:
        collector.report(file, reason, "dropped")
    if unplaced:
        collector.doubt("tracks or shapes of them are in no frame, so they may be in any")
    return set().union(*map(_list_labels, entries.values()))
