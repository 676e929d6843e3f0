"""Train a network's variation on the records of a run: how their patients differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from vae_aug.config import VariationConfig
from vae_aug.grey import compute_grey, find_range
from vae_aug.model.transformation import TransformationVAE, make_squares
from vae_aug.records.tfrecord import get_values
from vae_aug.train.feed import Source
from vae_aug.train.pairs import find_partners, train_transformation
from vae_aug.words import plural

STATE_NAME = "variation"
"""Folder of a run in which the state of this training is kept."""

MAX_IMAGES = 20_000
"""Images that are trained on at most, 330 MB of squares; of more, a random part is."""


@dataclasses.dataclass(frozen=True)
class Patients:
    """Images of patients, as `train_transformation` takes them.

    Attributes:
        squares: `[N, SQUARE, SQUARE, 1] uint8`, white 255.
        names: The patient of each image, a name of its own where none is known.
        unnamed: Images of which no patient is known.
    """

    squares: np.ndarray
    names: list[str]
    unnamed: int


def read_patients(sources: Sequence[Source], seed: int, limit: int = MAX_IMAGES) -> Patients:
    """Read the images of records as squares, each with its patient.

    Args:
        sources: The records. Patients of one name are one, whatever source they are in.
        seed: Of the choice, where there are more images than `limit`.
        limit: Most images.

    Returns:
        The images, in the order of the records.
    """
    counts = [sum(1 for _ in source.examples) for source in sources]
    total = sum(counts)
    kept = np.zeros(total, bool)
    kept[np.random.default_rng(seed).permutation(total)[:limit]] = True
    squares, names, start = [], [], 0
    for source, count in zip(sources, counts, strict=True):
        own = tf.data.Dataset.from_tensor_slices(kept[start : start + count])
        chosen = tf.data.Dataset.zip(source.examples, own).filter(lambda _, wanted: wanted)
        images = chosen.map(_make_reader(source), num_parallel_calls=tf.data.AUTOTUNE)
        for square, patient in images.as_numpy_iterator():
            squares.append(square)
            names.append(patient.decode("utf-8", "replace"))
        start += count
    unnamed = names.count("")
    # No hash of a patient has a space.
    names = [name or f"image {index}" for index, name in enumerate(names)]
    return Patients(np.stack(squares), names, unnamed)


def hold_one_patient(sources: Sequence[Source]) -> bool:
    """Tell whether all images of records are of one patient, from whom no variation is learned."""
    seen: set[str] = set()
    for source in sources:
        for serialized in source.examples.as_numpy_iterator():
            example = tf.train.Example.FromString(serialized)
            (name,) = get_values(example, "image/patient", "bytes_list") or [b""]
            seen.add(name.decode("utf-8", "replace") or f"image {len(seen)}")
            if len(seen) > 1:
                return False
    return True


def _make_reader(source: Source) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Make the function from a record to its image's square and its patient."""

    def read(serialized: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        element = source.parse(serialized)
        image = element["image"]
        squares, _ = make_squares(compute_grey(image, *find_range(image))[None])
        square = tf.cast(tf.round(255.0 * squares[0]), tf.uint8)
        return square, element["image/patient"]

    return tf.autograph.experimental.do_not_convert(read)


def train_variation(
    variation: TransformationVAE,
    sources: Sequence[Source],
    out: Path,
    config: VariationConfig,
    *,
    progress: Callable[[int, dict[str, float]], None] | None,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Train the variation of a network, or go on from what a former run left.

    Args:
        variation: What is trained.
        sources: The records that are trained on.
        out: Folder of the run.
        config: The settings.
        progress: As of `train_transformation`.
        report: Called with sentences on what is trained and what came of it.

    Returns:
        What a checkpoint keeps of it, JSON values: settings, images, patients and strength.

    Raises:
        ValueError: If all images are of one patient.
        TrainingError: If the loss stops being finite.
    """
    patients = read_patients(sources, config.seed)
    images, count = len(patients.names), len(set(patients.names))
    report(_describe(patients, config))
    pairs = find_partners(patients.squares, patients.names, config.partners)
    # By itself, so that its variables are trainable whatever the network's are.
    alone = TransformationVAE(name=variation.name)
    alone.set_weights(variation.get_weights())
    train_transformation(
        patients.squares,
        pairs,
        config,
        network=alone,
        folder=out / STATE_NAME,
        progress=progress,
    )
    variation.set_weights(alone.get_weights())
    strength = float(alone.strength)
    report(
        f"variation: trained; samples are applied {strength:.2f} times as strongly as they were "
        "learned, so that they lie as far from an image as another patient's image does"
    )
    return {
        "config": config.to_dict(),
        "images": images,
        "patients": count,
        "strength": round(strength, 6),
    }


def _describe(patients: Patients, config: VariationConfig) -> str:
    """Say what the variation is trained on, and for how long."""
    images, count = len(patients.names), len(set(patients.names))
    if not patients.unnamed:
        who = plural(count, "patient")
    else:
        known = count - patients.unnamed
        who = (
            f"{plural(known, 'patient')}, and {patients.unnamed:,} that name none: each counts as "
            "a patient of its own, so slices of one scan may be taken for two patients"
        )
    return (
        f"variation: {plural(config.steps, 'step')} of {plural(config.batch_size, 'pair')}, from "
        f"{plural(images, 'image')} of {who}"
    )
