"""Which engine, and which way to use it, is the fastest on this machine."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from vae_aug.augment.transform import VAEAugment
from vae_aug.config import Engine, Mode
from vae_aug.data.phantom import KINDS, make_phantom
from vae_aug.errors import EngineError, MissingPackageError
from vae_aug.model.profiles import Network

WAYS = ("apply", "apply, seed", "cache, seed")
"""Ways to use an engine: fresh randomness, reproducible, and with descriptions on disk."""

_UNDER_WAY = 64
"""Images that `apply` works on at once: two batches."""


@dataclasses.dataclass(frozen=True)
class Speed:
    """How fast one engine is in one way.

    Attributes:
        engine: Its name.
        way: One of `WAYS`.
        rates: Images per second, a value for every round.
    """

    engine: str
    way: str
    rates: tuple[float, ...]

    @property
    def median(self) -> float:
        """Images per second in the middle round."""
        return statistics.median(self.rates)


def list_engines() -> list[Engine]:
    """Return the engines worth trying here: XLA compiles for minutes, and slowly, on a CPU."""
    accelerated: list[Engine] = ["xla"] if tf.config.list_physical_devices("GPU") else []
    return ["tensorflow", "openvino", "openvino-bfloat16", "openvino-int8", *accelerated]


def measure_engines(
    network: Network,
    engines: Sequence[Engine],
    *,
    mode: Mode = "sample",
    image_size: int = 224,
    images: int = 64,
    rounds: int = 3,
    progress: Callable[[], None] | None = None,
) -> tuple[list[Speed], dict[str, str]]:
    """Measure engines on phantoms with boxes, in turn, so that all meet the same load.

    A round before the first is not counted: it traces, converts and compiles. Nor are the first 64
    images of a pass, before which the pipeline starts: a training pass is longer.

    Args:
        network: From a checkpoint, so that it can be cached.
        engines: To compare.
        mode: As for `VAEAugment`.
        image_size: Height and width of the images, pixels.
        images: Timed in every way in every round; rounded up to a multiple of 64, since images come
            in batches.
        rounds: That are counted.
        progress: Called after every way of every round, the uncounted one included.

    Returns:
        The measurements, fastest first, and which engines cannot run here: engine to why.

    Raises:
        ValueError: If there is nothing to measure.
    """
    if min(images, rounds) < 1:
        raise ValueError(f"images and rounds must be at least 1; got {images} and {rounds}.")
    images += -images % _UNDER_WAY
    dataset = _make_phantoms(images + 2 * _UNDER_WAY, image_size)
    missing: dict[str, str] = {}
    pipelines: dict[tuple[str, str], tf.data.Dataset] = {}
    with tempfile.TemporaryDirectory() as folder:
        for engine in engines:
            try:
                fresh, seeded = (
                    VAEAugment(network, mode=mode, seed=seed, engine=engine) for seed in (None, 0)
                )
            except (MissingPackageError, EngineError) as error:
                missing[engine] = str(error)
                continue
            # Descriptions are the same for all engines.
            cached = seeded.cache(dataset, Path(folder) / "cache")
            made = (dataset.apply(fresh), dataset.apply(seeded), cached)
            pipelines.update({(engine, way): one for way, one in zip(WAYS, made, strict=True)})
        rates: dict[tuple[str, str], list[float]] = {name: [] for name in pipelines}
        for _, (name, pipeline) in itertools.product(range(1 + rounds), pipelines.items()):
            rates[name].append(_measure_rate(pipeline, images))
            if progress is not None:
                progress()
    speeds = [Speed(*name, tuple(counted)) for name, (_, *counted) in rates.items()]
    return sorted(speeds, key=lambda speed: -speed.median), missing


def _make_phantoms(count: int, size: int) -> tf.data.Dataset:
    """Make images with boxes, in memory, so that reading costs nothing."""
    phantoms = [make_phantom(KINDS[i % len(KINDS)], seed=i, size=size) for i in range(count)]
    most = max(len(phantom.boxes) for phantom in phantoms)
    boxes = np.full((count, most, 4), -1.0, np.float32)
    for row, phantom in zip(boxes, phantoms, strict=True):
        row[: len(phantom.boxes)] = phantom.boxes
    images = np.stack([phantom.image for phantom in phantoms])
    return tf.data.Dataset.from_tensor_slices({"image": images, "objects": {"bbox": boxes}})


def _measure_rate(dataset: tf.data.Dataset, images: int) -> float:
    """Iterate over a dataset: images per second.

    As many are under way when the clock stops as when it starts. What is still under way then is
    waited for, off the clock.
    """
    start = now = 0.0
    for index, _ in enumerate(dataset):
        now = time.perf_counter()
        if index == _UNDER_WAY:
            start = now
        elif index == _UNDER_WAY + images:
            break
    return images / (now - start)
