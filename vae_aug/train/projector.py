"""The latents of validation images for the projector of TensorBoard, by label, set and scanner.

https://github.com/tensorflow/tensorboard/blob/master/docs/tensorboard_projector_plugin.ipynb
describes the files.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorboard.plugins import projector

from vae_aug.atomic import write_atomic
from vae_aug.codecs.images import write_image
from vae_aug.ingest.convert import ANNOTATION_KEY, SCANNER_KEY, SCANNERS
from vae_aug.records.tfrecord import get_values
from vae_aug.train.feed import Source, choose_in_turn, fit

_LATENTS, _ROWS, _SPRITE = "latents.tsv", "latents_rows.tsv", "latents.png"
_THUMBNAIL = 32
"""Side of an image in the sprite, in pixels."""

_BATCH = 16


class _Image(NamedTuple):
    """A validation image as the projector shows it.

    Attributes:
        square: `[S, S, 1] float32`.
        label: Labels of its boxes, `"no box"`, or `"not annotated"`.
        source: Number of its data set, from 1.
        patient: Pseudonym, or `b""`.
        scanner: Manufacturer and modality, or `"unknown"`.
    """

    square: tf.Tensor
    label: str
    source: int
    patient: bytes
    scanner: str


def write_projector(
    folder: Path,
    encode: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    sources: Sequence[Source],
    size: int,
    limit: int,
) -> None:
    """Write the latents of validation images, with their labels and small pictures of them.

    Patients are told by numbers, which mean nothing outside of these files.

    Args:
        folder: What TensorBoard reads.
        encode: Encodes `[B, S, S, 1] float32` to mean and log variance of the latent.
        sources: What is validated on.
        size: S, the side of the network's square in pixels.
        limit: Most images, from all sources alike.

    Raises:
        OSError: If a file cannot be written.
    """
    images = [
        _read(sources, int(number), serialized, size)
        for number, serialized in choose_in_turn(sources).take(limit)
    ]
    squares = [image.square for image in images]
    batches = [tf.stack(squares[at : at + _BATCH]) for at in range(0, len(squares), _BATCH)]
    latents = np.concatenate([encode(batch)[0].numpy() for batch in batches])
    text = io.StringIO()
    np.savetxt(text, latents, fmt="%.5g", delimiter="\t")
    numbers: dict[bytes, int] = {}
    rows = ["label\tdata set\tpatient\tscanner"]
    for image in images:
        patient = numbers.setdefault(image.patient, len(numbers) + 1) if image.patient else ""
        rows.append(f"{image.label}\t{image.source}\t{patient}\t{image.scanner}")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / _LATENTS, text.getvalue().encode())
    write_atomic(folder / _ROWS, ("\n".join(rows) + "\n").encode())
    write_image(folder / _SPRITE, _make_sprite(squares))
    config = projector.ProjectorConfig()
    embedding = config.embeddings.add(
        tensor_name="latents", tensor_path=_LATENTS, metadata_path=_ROWS
    )
    embedding.sprite.image_path = _SPRITE
    embedding.sprite.single_image_dim.extend([_THUMBNAIL, _THUMBNAIL])
    projector.visualize_embeddings(str(folder), config)


def _read(sources: Sequence[Source], number: int, serialized: tf.Tensor, size: int) -> _Image:
    """Read an image of a source."""
    square, _ = fit(sources[number].parse(serialized), size, 1.0)
    example = tf.train.Example.FromString(serialized.numpy())
    texts = get_values(example, "image/object/class/text", "bytes_list")
    names = {text.decode("utf-8", "replace") for text in texts}
    label = ", ".join(" ".join(name.split()) for name in sorted(names)) or "no box"
    if ANNOTATION_KEY in example.features.feature:
        label = "not annotated"
    patient = b"".join(get_values(example, "image/patient", "bytes_list"))
    scanner = b"".join(get_values(example, SCANNER_KEY, "bytes_list")).decode("utf-8", "replace")
    # Records of others may hold anything there.
    return _Image(square, label, number + 1, patient, scanner if scanner in SCANNERS else "unknown")


def _make_sprite(squares: Sequence[tf.Tensor]) -> np.ndarray:
    """Lay out small pictures row by row in a square sheet, `[H, W, 1] uint8`."""
    side = math.ceil(math.sqrt(len(squares)))
    small = tf.image.resize(tf.stack(squares), [_THUMBNAIL] * 2, antialias=True).numpy()
    sheet = np.zeros([side * side, _THUMBNAIL, _THUMBNAIL], np.uint8)
    sheet[: len(small)] = np.round(255 * np.clip(small[..., 0], 0.0, 1.0))
    rows = sheet.reshape(side, side, _THUMBNAIL, _THUMBNAIL).swapaxes(1, 2)
    return rows.reshape(side * _THUMBNAIL, side * _THUMBNAIL, 1)
