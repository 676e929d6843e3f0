"""Folders of images without annotations."""

from __future__ import annotations

import os
from pathlib import Path

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.layout import find_split_folder, list_images
from vae_aug.ingest.formats.source import DEFAULTS, Annotations, Collector, ReaderOptions, reader


@reader
def read_images(
    source: str | os.PathLike[str], split: str = "train", options: ReaderOptions = DEFAULTS
) -> Annotations:
    """Read a folder of PNG, JPEG and TIFF files, and all below it, as unannotated images.

    Nothing says whether these images have boxes. What lies beside them is not looked at.

    Args:
        source: The folder; where it has a folder of the split's name, that one.
        split: Which split.
        options: How it is read.

    Returns:
        The annotations, without labels.

    Raises:
        AnnotationError: If the folder is missing or holds no image.
    """
    source = Path(source)
    if not source.is_dir():
        raise AnnotationError(f"{source}: no such folder; give the folder of the images.")
    folder = find_split_folder(source, split) or source
    collector = Collector(source, options)
    for path in list_images(folder):
        collector.add(path, None)
    if not collector.images:
        raise AnnotationError(f"{folder}: holds no image.")
    return collector.finish(())
