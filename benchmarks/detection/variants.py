"""Variants of training images that are made beforehand: they cost more than a training step.

A few are made of each image, from which training picks. All runs share them, unless they come from
a ladder that was trained on a run's own patients.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.detection.arms import Part
from benchmarks.detection.corruptions import corrupt_samples, draw_noisy, make_restorer
from benchmarks.detection.samples import Samples, write_coco
from vae_aug.atomic import write_atomic
from vae_aug.augment.transform import VAEAugment
from vae_aug.config import ModelConfig, TrainConfig
from vae_aug.ingest.ingest import ingest
from vae_aug.train.recipe import Recipe
from vae_aug.train.train import train

RECIPE = Path(__file__).parents[1] / "lgg_ladder.json"
"""Settings of a ladder that is trained on a run's own images."""


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Let one process at a time in; the lock ends with its process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_variants(part: Part, samples: Samples, count: int, folder: Path) -> np.ndarray:
    """Make variants of every image, once for all processes that ask for them.

    Args:
        part: What is made.
        samples: The images.
        count: Number K of variants of an image.
        folder: Where they are kept, as `variants-<digest>.npy`.

    Returns:
        `[K, N, S, S, 1] uint8`, mapped from the file.
    """
    settings = {key: value for key, value in part.settings.items() if key not in ("p", "count")}
    return _keep(
        "variants",
        [part.kind, settings, count],
        samples,
        folder,
        lambda: draw_variants(part.kind, settings, samples, count),
    )


def make_view(samples: Samples, view: str, folder: Path) -> Samples:
    """Show images corrupted and restored, once for all processes that ask for it.

    Args:
        samples: All images.
        view: `"<corruption>:<strength>"`, `">" + restorer` (see `corruptions.make_restorer`), or
            the one and then the other.
        folder: Where the images are kept, as `view-<digest>.npy`.

    Raises:
        ValueError: On an unknown corruption or strength.
    """
    corruption, _, by = view.partition(">")

    def change() -> np.ndarray:
        images = samples.images
        if corruption:
            name, _, strength = corruption.partition(":")
            images = corrupt_samples(images, name, int(strength))
        return make_restorer(by, samples.images)(images) if by else images

    return dataclasses.replace(samples, images=_keep("view", [view], samples, folder, change))


def _keep(
    kind: str, key: list[Any], samples: Samples, folder: Path, make: Callable[[], np.ndarray]
) -> np.ndarray:
    """Map an array from its file, which one process makes while the others wait."""
    images = hashlib.sha256(samples.images.tobytes()).hexdigest()
    digest = hashlib.sha256(json.dumps([*key, images], sort_keys=True).encode()).hexdigest()
    path = folder / f"{kind}-{digest[:12]}.npy"
    with hold_lock(path.with_suffix(".lock")):
        if not path.is_file():
            buffer = io.BytesIO()
            np.save(buffer, make())
            write_atomic(path, buffer.getvalue())
    return np.load(path, mmap_mode="r")


def draw_variants(kind: str, settings: dict[str, Any], samples: Samples, count: int) -> np.ndarray:
    if kind in ("noisy", "restored"):
        noisy = [draw_noisy(samples.images, seed) for seed in range(count)]
        if kind == "restored":
            restore = make_restorer(settings["by"], samples.images)
            noisy = [restore(images) for images in noisy]
        return np.stack(noisy)
    options = {key: value for key, value in settings.items() if key != "ckpt"}
    passes = []
    for seed in range(count):
        augment = VAEAugment(
            settings["ckpt"],
            mode=kind,
            seed=seed,
            bounding_box_format="yxyx",
            batch_size=16,
            **options,
        )
        dataset = _make_dataset(samples).apply(augment)
        passes.append([element["image"] for element in dataset.as_numpy_iterator()])
        print(f"{kind} {settings}: {seed + 1} of {count} variants of every image", flush=True)
    return np.asarray(passes, np.uint8)


def _make_dataset(samples: Samples) -> tf.data.Dataset:
    rows = list(zip(samples.images, samples.boxes, strict=True))
    return tf.data.Dataset.from_generator(
        lambda: ({"image": image, "boxes": boxes} for image, boxes in rows),
        output_signature={
            "image": tf.TensorSpec(samples.images.shape[1:], tf.uint8),
            "boxes": tf.TensorSpec([None, 4], tf.float32),
        },
    )


def train_ladder(samples: Samples, folder: Path, steps: int) -> Path:
    """Go on from the packaged `demo` on these images; return the checkpoint, made once."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "run" / "checkpoint.keras"
    with hold_lock(folder / "lock"):
        if not (folder / "done").is_file():
            _train_ladder(samples, folder, steps)
            (folder / "done").touch()
    return checkpoint


def _train_ladder(samples: Samples, folder: Path, steps: int) -> None:
    records = folder / "records"
    write_coco(samples, folder / "coco")
    # It also picks the checkpoint by the detector's training images: nothing held out is looked at.
    for split in ("train", "validation"):
        ingest(
            folder / "coco" / "all.json",
            records,
            format="coco",
            split=split,
            keep_ids=True,
            overwrite=True,
            leak_check=False,
        )
    recipe = json.loads(RECIPE.read_text())
    size = samples.images.shape[1]
    few = {"steps": steps, "validate_every": steps, "validation_images": 16}
    train(
        [records],
        folder / "run",
        Recipe(
            ModelConfig.from_dict({**recipe["model"], "image_size": size}),
            TrainConfig.from_dict({**recipe["train"], **few}),
        ),
        card="Made by benchmarks/detection.",
        progress=lambda step, figures: step % 50 or print(f"ladder: step {step} of {steps}"),
    )
