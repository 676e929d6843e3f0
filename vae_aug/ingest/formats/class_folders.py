"""Folders that sort images by what they show, which may contradict an empty annotation."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from vae_aug.ingest.formats.layout import SPLIT_WORDS, fold_name
from vae_aug.ingest.formats.source import Annotations, Problem
from vae_aug.ingest.formats.statements import is_free_of_findings

_REASON = "has no boxes, and lies beside the folder {!r} in one that says something else"


def doubt_class_folders(annotations: Annotations, roots: Sequence[Path]) -> Annotations:
    """Mark images without boxes as faulty that lie beside a folder such as `normal`, and not in it.

    Args:
        annotations: What was read.
        roots: The source, and a further folder of images, links resolved. They lie beside each
            other, and so do the folders in them.

    Returns:
        The same, with a problem for each image that was marked.
    """
    places = {
        folder: _locate(folder, roots)
        for folder in dict.fromkeys(image.path.parent for image in annotations.images)
    }
    top = Path(os.path.commonpath([place for _, place in places.values()] or [Path()]))
    has_one_root = len({root for root, _ in places.values()}) == 1
    folders = {
        folder: [*_list_folders(place, top), *([] if has_one_root else [Path("..", root)])]
        for folder, (root, place) in places.items()
    }
    beside = {
        folder.parent: folder.name
        for found in folders.values()
        for folder in found
        if is_free_of_findings(folder.name)
    }
    contradictions = {
        parent: name
        for parent, found in folders.items()
        if (name := _find_contradiction(found, beside))
    }
    doubted = {
        image.source_id: contradictions[image.path.parent]
        for image in annotations.images
        if not image.labels and image.annotation == "complete"
        if image.path.parent in contradictions
    }
    problems = [Problem(key, _REASON.format(name), "unread") for key, name in doubted.items()]
    return annotations.doubt(doubted, problems)


def _locate(folder: Path, roots: Sequence[Path]) -> tuple[str, Path]:
    """Return the name of the root that a folder lies in, and its path from there."""
    paths = (Path(os.path.abspath(folder)), Path(os.path.realpath(folder)))
    inside = ((path, root) for path in paths for root in roots if path.is_relative_to(root))
    path, root = next(inside, (paths[0], Path(paths[0].anchor)))
    return root.name, path.relative_to(root)


def _find_contradiction(folders: Iterable[Path], beside: Mapping[Path, str]) -> str:
    """Return a folder of images without findings that one of an image's folders lies beside.

    Args:
        folders: Those of the image.
        beside: Names of such folders, by the folder that they lie in.

    Returns:
        Its name; `""` if there is none, or the image lies in such a folder itself.
    """
    found = ""
    for folder in folders:
        if is_free_of_findings(folder.name):
            return ""
        has_letters = any(character.isalpha() for character in folder.name)
        is_class = has_letters and fold_name(folder.name) not in SPLIT_WORDS
        found = beside.get(folder.parent, found) if is_class else found
    return found


def _list_folders(folder: Path, top: Path) -> Iterator[Path]:
    """Yield a folder and those above it, up to one that all images have in common."""
    while folder != top:
        yield folder
        folder = folder.parent
