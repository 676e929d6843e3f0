"""Which engine, and which way to use it, is the fastest on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from vae_aug.augment.transform import VAEAugment
from vae_aug.config import Engine, Mode, check_choice, check_engine
from vae_aug.errors import EngineError, MissingPackageError
from vae_aug.model.network import Network
from vae_aug.phantoms.phantom import KINDS, make_phantom

WAYS = ("apply", "apply, seed", "cache, seed")
"""Ways to use an engine: fresh randomness, reproducible, and with descriptions on disk."""

UNDER_WAY = 64
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


@dataclasses.dataclass(frozen=True)
class Failure:
    """An engine that could not be measured.

    Attributes:
        engine: Its name.
        ways: Those of `WAYS` that failed.
        reason: What it raised, in a line.
        missing: Whether this machine lacks a package or an instruction that the engine needs; else
            the engine itself failed.
    """

    engine: str
    ways: tuple[str, ...]
    reason: str
    missing: bool = False


def list_engines() -> list[Engine]:
    """Return the engines worth trying here: XLA compiles for minutes, and slowly, on a CPU."""
    accelerated: list[Engine] = ["xla"] if tf.config.list_physical_devices("GPU") else []
    return ["tensorflow", "openvino", "openvino-bfloat16", *accelerated]


def measure_engines(
    network: Network,
    engines: Sequence[Engine],
    *,
    mode: Mode = "sample",
    image_size: int = 224,
    images: int = 64,
    rounds: int = 3,
    report: Callable[[Speed | Failure], None] | None = None,
    progress: Callable[[], None] | None = None,
) -> tuple[list[Speed], list[Failure]]:
    """Measure engines on phantoms with boxes, in turn, so that all meet the same load.

    A round before the first is not counted: it traces, converts and compiles. Nor are the first 64
    images of a pass, before which the pipeline starts: a training pass is longer. A way of an
    engine that fails is left out of the rounds that follow, and all others go on.

    Args:
        network: From a checkpoint, so that it can be cached.
        engines: To compare.
        mode: As for `VAEAugment`.
        image_size: Height and width of the images, pixels.
        images: Timed in every way in every round; rounded up to a multiple of 64, since images come
            in batches.
        rounds: That are counted.
        report: Called with every result as it comes: a `Speed` of one round, or a `Failure`.
        progress: Called after every way of every round, the uncounted one included.

    Returns:
        The measurements, fastest first, and what failed.

    Raises:
        ValueError: If there is nothing to measure, or no such mode or engine.
    """
    if min(images, rounds) < 1:
        raise ValueError(f"images and rounds must be at least 1; got {images} and {rounds}.")
    check_choice("mode", mode, Mode)
    for engine in engines:
        check_engine(engine)
    images += -images % UNDER_WAY
    dataset = _make_phantoms(images + 2 * UNDER_WAY, image_size)
    results = _Results(report)
    with tempfile.TemporaryDirectory() as folder:
        pipelines: dict[tuple[str, str], tf.data.Dataset] = {}
        for engine in engines:
            pipelines |= _make_pipelines(network, engine, mode, dataset, Path(folder), results)
        for index, (name, pipeline) in itertools.product(range(1 + rounds), pipelines.items()):
            engine, way = name
            if not results.has_failed(engine, way):
                rate = 0.0
                with results.catch(engine, way):
                    rate = measure_rate(pipeline, images)
                if rate and index:  # the round before the first is not counted
                    results.add(engine, way, rate)
            if progress is not None:
                progress()
    return results.list_speeds(), results.failures


class _Results:
    """What was measured, and what failed, reported as it comes."""

    def __init__(self, report: Callable[[Speed | Failure], None] | None) -> None:
        self.failures: list[Failure] = []
        self._report = report or (lambda result: None)
        self._rates: dict[tuple[str, str], list[float]] = {}

    def add(self, engine: str, way: str, rate: float) -> None:
        """Keep the rate of a round."""
        self._rates.setdefault((engine, way), []).append(rate)
        self._report(Speed(engine, way, (rate,)))

    @contextlib.contextmanager
    def catch(self, engine: str, *ways: str) -> Iterator[None]:
        """Keep whatever is raised as a failure of these ways."""
        try:
            yield
        except Exception as error:  # an engine is the code of others, who raise what they like
            missing = isinstance(error, MissingPackageError | EngineError)
            failure = Failure(engine, ways, _explain(error), missing)
            self.failures.append(failure)
            self._report(failure)

    def has_failed(self, engine: str, way: str) -> bool:
        """Tell whether a way of an engine has failed."""
        return any(f.engine == engine and way in f.ways for f in self.failures)

    def list_speeds(self) -> list[Speed]:
        """Return what went through all rounds, fastest first."""
        speeds = [
            Speed(*name, tuple(rates))
            for name, rates in self._rates.items()
            if not self.has_failed(*name)
        ]
        return sorted(speeds, key=lambda speed: -speed.median)


def _make_pipelines(
    network: Network,
    engine: Engine,
    mode: Mode,
    dataset: tf.data.Dataset,
    folder: Path,
    results: _Results,
) -> dict[tuple[str, str], tf.data.Dataset]:
    """Make the ways to use an engine, by engine and way, but those that fail."""
    pipelines: dict[tuple[str, str], tf.data.Dataset] = {}
    with results.catch(engine, *WAYS):
        fresh, seeded = (
            VAEAugment(network, mode=mode, seed=seed, engine=engine) for seed in (None, 0)
        )
        # Descriptions are the same for all engines.
        makers = (fresh, seeded, functools.partial(seeded.cache, path=folder / "cache"))
        for way, make in zip(WAYS, makers, strict=True):
            with results.catch(engine, way):
                pipelines[engine, way] = dataset.apply(make)
    return pipelines


def _explain(error: Exception) -> str:
    """Return what an error says in a line, without what TensorFlow wraps around it."""
    text = str(getattr(error, "message", None) or error).partition("Traceback (most recent")[0]
    text = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", text, flags=re.DOTALL)
    return " ".join(text.split()) or type(error).__name__


def _make_phantoms(count: int, size: int) -> tf.data.Dataset:
    """Make images with boxes, in memory, so that reading costs nothing."""
    phantoms = [make_phantom(KINDS[i % len(KINDS)], seed=i, size=size) for i in range(count)]
    most = max(len(phantom.boxes) for phantom in phantoms)
    boxes = np.full((count, most, 4), -1.0, np.float32)
    for row, phantom in zip(boxes, phantoms, strict=True):
        row[: len(phantom.boxes)] = phantom.boxes
    images = np.stack([phantom.image for phantom in phantoms])
    return tf.data.Dataset.from_tensor_slices({"image": images, "objects": {"bbox": boxes}})


def measure_rate(dataset: tf.data.Dataset, images: int) -> float:
    """Iterate over a dataset: images per second.

    As many are under way when the clock stops as when it starts. What is still under way then is
    waited for, off the clock.
    """
    start = now = 0.0
    for index, _ in enumerate(dataset):
        now = time.perf_counter()
        if index == UNDER_WAY:
            start = now
        elif index == UNDER_WAY + images:
            break
    return images / (now - start)
