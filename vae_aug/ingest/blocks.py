"""Converted images in blocks on disk, so that a run that was killed goes on where it stopped.

A block is a ZIP file of the records of some images and of what is counted of them. Each is made
from its own images alone and appears under its name when it is whole, so those that a killed run
left are what the next run would make.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import json
import zipfile
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import numpy as np
import PIL
import pydicom
import tensorflow as tf

from vae_aug.atomic import open_atomic
from vae_aug.codecs.extent import Extent
from vae_aug.errors import RecordError
from vae_aug.ingest.convert import Conversion, Converted, convert_image
from vae_aug.ingest.formats.source import AnnotatedImage
from vae_aug.ingest.pseudonyms import PseudonymTable
from vae_aug.version import __version__
from vae_aug.workers import Workers, run_tasks

BLOCK = 32
"""Images in a block: what a killed run loses at most, for each worker."""

_INDEX = "index.json"


def make_key(images: Sequence[AnnotatedImage], conversion: Conversion) -> str:
    """Make a key that changes with everything that the blocks of these images depend on.

    Args:
        images: The images; of their files and neighbours size and time of change count.
        conversion: How they become records.

    Returns:
        16 hexadecimal digits. The secret of the hash is that of the pseudonyms, so that they tell
        nothing of names and patients.
    """
    kept = conversion.pseudonyms is None
    secret = conversion.pseudonyms.secret if conversion.pseudonyms else b""
    digest = hmac.new(secret, digestmod=hashlib.sha256)
    versions = (__version__, tf.__version__, pydicom.__version__, PIL.__version__)
    settings = {key: value for key, value in vars(conversion).items() if key != "pseudonyms"}
    digest.update(json.dumps([versions, BLOCK, kept, settings]).encode())
    for image in images:
        described = vars(image) | {"item": image.item.make_absolute()}
        described["boxes"] = image.boxes.tolist()
        with contextlib.suppress(OSError):
            states = [path.stat() for path in image.item.files]
            described["files"] = [(state.st_size, state.st_mtime_ns) for state in states]
        digest.update(json.dumps(described, default=str).encode())
    return digest.hexdigest()[:16]


def list_blocks(
    images: Sequence[AnnotatedImage], folder: Path
) -> dict[Path, Sequence[AnnotatedImage]]:
    """Part images into blocks.

    Args:
        images: The images.
        folder: Where blocks are kept.

    Returns:
        The file of each block, which need not be there, to its images; in order.
    """
    starts = range(0, len(images), BLOCK)
    return {folder / f"{start:08}.zip": images[start : start + BLOCK] for start in starts}


def convert_in_blocks(
    images: Sequence[AnnotatedImage],
    conversion: Conversion,
    folder: Path,
    workers: Workers = 1,
) -> Iterator[Converted]:
    """Convert images in their order, but for those whose block is there.

    Args:
        images: The images.
        conversion: How.
        folder: Where blocks are kept; the caller removes them when they are no longer needed.
        workers: Processes; 1 works in this one. More are started anew, so a script that calls
            this needs `if __name__ == "__main__":`. Or a runner, which makes all blocks before
            the first image is yielded; its workers must find the images and the folder under the
            paths that they have here.

    Yields:
        What became of each image; the same for any number of workers.

    Raises:
        MissingPackageError: If there is a runner and no Apache Beam.
        RecordError: If a block is damaged or cannot be written, or the runner fails.
    """
    blocks = list_blocks(images, folder)
    missing = {path: part for path, part in blocks.items() if not path.is_file()}
    if isinstance(conversion.pseudonyms, PseudonymTable) and missing:
        # One by one, each would wait for the disk.
        conversion.pseudonyms.draw(
            name
            for image in images
            for name in (("source", image.source_id), ("patient", image.patient))
        )
    with contextlib.closing(_make_blocks(missing, conversion, workers)) as made:
        for path, part in blocks.items():
            if path in missing:
                next(made)
            yield from _read_block(path, len(part))


def _make_blocks(
    parts: dict[Path, Sequence[AnnotatedImage]], conversion: Conversion, workers: Workers
) -> Generator[None, None, None]:
    """Make blocks in their order, with several workers a few ahead; yields after each."""
    tasks = [
        (
            path.absolute(),
            [dataclasses.replace(image, item=image.item.make_absolute()) for image in part],
            conversion,
        )
        for path, part in parts.items()
    ]
    return run_tasks(make_block, tasks, workers)


def make_block(path: Path, images: Sequence[AnnotatedImage], conversion: Conversion) -> None:
    """Convert images and write the block of them, whole or not at all."""
    index = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_atomic(path) as file, zipfile.ZipFile(file, "w") as archive:
            for number, image in enumerate(images):
                counted = vars(convert_image(image, conversion))
                record = counted.pop("record")
                if record is not None:
                    archive.writestr(str(number), record)
                index.append(
                    {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in counted.items()}
                )
            archive.writestr(_INDEX, json.dumps(index, default=vars))
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be written ({error.strerror}). Free space or fix permissions and run "
            "it again; what is converted is kept, unless you delete the folder."
        ) from error


def _read_block(path: Path, count: int) -> Iterator[Converted]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            index = json.loads(archive.read(_INDEX))
            for number, counted in enumerate(index):
                record = archive.read(str(number)) if str(number) in names else None
                yield _restore(record, counted)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise RecordError(
            f"{path}: damaged ({type(error).__name__}); delete the folder and run again."
        ) from error
    if len(index) != count:
        raise RecordError(
            f"{path}: expected {count} images; got {len(index)}. Delete the folder and run again."
        )


def _restore(record: bytes | None, counted: dict[str, object]) -> Converted:
    """Undo what JSON made of tuples, arrays and objects."""
    result = Converted(record=record, **counted)  # type: ignore[arg-type]
    return dataclasses.replace(
        result,
        problems=tuple((reason, effect) for reason, effect in result.problems),
        neighbours=tuple(result.neighbours),
        box_sizes_px=np.reshape(result.box_sizes_px, (-1, 2)),
        histogram=np.array(result.histogram),
        extent=Extent(**counted["extent"]),  # type: ignore[arg-type]
    )
