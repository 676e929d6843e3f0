"""The devices and workers of a training: TensorFlow's strategies, and who writes files."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf

from vae_aug.atomic import lock_folder
from vae_aug.model.checkpoint import BEST_CHECKPOINT
from vae_aug.train.cluster import Cluster, read_cluster
from vae_aug.train.recipe import Recipe
from vae_aug.train.run_files import (
    START_NAME,
    STATE_NAME,
    TrainingError,
    clean_up,
)
from vae_aug.words import plural

_NAME = re.compile(r"/?(?:device:)?(CPU|GPU):(\d+)", re.IGNORECASE)
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)
"""What an operation that all workers take part in raises where one of them is gone."""


@dataclasses.dataclass(frozen=True)
class Devices:
    """Where a training computes.

    Attributes:
        strategy: How a batch is split over replicas; TensorFlow's default for one device.
        cluster: The workers, of which this process is one.
    """

    strategy: tf.distribute.Strategy
    cluster: Cluster

    def describe(self, batch_size: int) -> str:
        """Say how a batch is split; `""` where it is not."""
        replicas, cluster = self.strategy.num_replicas_in_sync, self.cluster
        if replicas == 1:
            return ""
        line = f"devices: {replicas} replicas, {plural(batch_size // replicas, 'image')} each"
        if cluster.workers == 1:
            return line
        return (
            f"{line}, on {cluster.workers} workers; this is worker {cluster.worker}, and worker 0 "
            "writes the files"
        )

    @contextlib.contextmanager
    def open_folder(self, out: Path) -> Iterator[Path]:
        """Lock the folder of a run for the one worker that writes to it.

        Yields:
            The folder that this worker writes to: for the chief that of the run, for any other a
            temporary copy of what the training goes on from.
        """
        if self.cluster.worker == 0:
            with lock_folder(out) as locked:
                if locked:
                    clean_up(out)
                yield out
            return
        with tempfile.TemporaryDirectory(prefix="vae-aug-worker-") as name:
            for part in (START_NAME, BEST_CHECKPOINT):
                if (out / part).exists():
                    shutil.copy(out / part, name)
            if (out / STATE_NAME).exists():
                shutil.copytree(out / STATE_NAME, Path(name, STATE_NAME))
            yield Path(name)

    @contextlib.contextmanager
    def explain_loss(self, out: Path) -> Iterator[None]:
        """Turn what TensorFlow raises where another worker is gone into a `TrainingError`."""
        try:
            yield
        except _LOST as error:
            if self.cluster.workers == 1:
                raise
            # Before what happened, TensorFlow lists lines of Python.
            reason = error.message.rpartition("aborted by: ")[2].partition("\n")[0]
            raise TrainingError(
                f"Another worker has ended or cannot be reached ({reason}). {out} keeps the last "
                "state; start all workers again with the same command to go on from there."
            ) from error


def open_devices(recipe: Recipe, report: Callable[[str], None]) -> Devices:
    """Make the strategy that a training runs under, from its recipe and TF_CONFIG.

    Args:
        recipe: `devices`, the batch size, and the parts that are trained.
        report: Called with a sentence where other workers are waited for.

    Raises:
        ValueError: If there is no such device, TF_CONFIG is not understood or not the only one to
            name devices, the batch cannot be split evenly, or a part that is trained on one device
            was to be trained on several.
    """
    if tf.distribute.has_strategy():
        raise ValueError(
            "train makes its own strategy: call it outside of a strategy's scope, and name the "
            "devices in Recipe.devices, or the workers in TF_CONFIG."
        )
    cluster = read_cluster()
    _check_parts(recipe, cluster)
    if cluster is not None:
        _check_split(recipe.train.batch_size, cluster.workers)
        report(f"devices: worker {cluster.worker} of {cluster.workers} waits for the others")
        strategy = _join_cluster(os.environ["TF_CONFIG"])
    elif recipe.devices is not None:
        strategy = _mirror(tuple(_name_devices(recipe.devices)))
    else:
        strategy = tf.distribute.get_strategy()
    _check_split(recipe.train.batch_size, strategy.num_replicas_in_sync)
    return Devices(strategy, cluster or Cluster())


def average_workers(strategy: tf.distribute.Strategy, value: float) -> float:
    """Average a value over the replicas of all workers, so that all workers decide alike."""
    if strategy.num_replicas_in_sync == 1:
        return value

    @tf.function(autograph=False)
    def reduce() -> tf.Tensor:
        values = strategy.run(lambda: tf.constant(value, tf.float64))
        return strategy.reduce(tf.distribute.ReduceOp.MEAN, values, axis=None)

    return float(reduce())


def check_settings(strategy: tf.distribute.Strategy, recipe: Recipe, out: Path) -> None:
    """Raise `TrainingError` unless all workers train by the same settings."""
    number = zlib.crc32(json.dumps(recipe.to_dict(), sort_keys=True).encode())
    if average_workers(strategy, number) != number:
        raise TrainingError(
            f"{out}: this worker was given other settings than another. Start all workers with the "
            "same command."
        )


def check_step(strategy: tf.distribute.Strategy, step: int) -> None:
    """Raise `TrainingError` unless all workers go on from the same step."""
    if average_workers(strategy, step) != step:
        raise TrainingError(
            f"This worker goes on from step {step}, and another does not. All need the same output "
            "folder, on storage that they share."
        )


def _check_parts(recipe: Recipe, cluster: Cluster | None) -> None:
    """Refuse what one device alone can do."""
    if cluster is not None and recipe.devices is not None:
        raise ValueError(
            f"devices={recipe.devices!r}: with TF_CONFIG every worker uses all its GPUs; "
            "CUDA_VISIBLE_DEVICES names them. Leave devices out, or unset TF_CONFIG."
        )
    variation = "A variation is trained on one device alone. Train it without"
    then = "; then, from its network, train the restoration with it, --only restoration."
    if cluster is not None and recipe.trains("variation"):
        raise ValueError(f"TF_CONFIG: {variation} TF_CONFIG, --only variation{then}")
    if recipe.devices is not None and recipe.only == "variation":
        raise ValueError(f"devices={recipe.devices!r}: {variation}{then}")


def _check_split(batch_size: int, parts: int) -> None:
    if batch_size % parts:
        raise ValueError(
            f"batch_size={batch_size} cannot be split evenly over {parts} replicas; choose a "
            f"multiple of {parts}."
        )


@functools.cache
def _mirror(names: tuple[str, ...]) -> tf.distribute.Strategy:
    """Make a strategy once: TensorFlow lets a process have one for the same devices."""
    return tf.distribute.MirroredStrategy(names)


@functools.cache
def _join_cluster(_: str) -> tf.distribute.Strategy:
    """Start this process's server, and wait for the other workers; once for a TF_CONFIG."""
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise ValueError(
            "TF_CONFIG is set, and TensorFlow has begun to compute before its workers could be "
            f"joined ({error}). Call train before anything else of TensorFlow."
        ) from error


def _name_devices(devices: str) -> list[str]:
    """Check names of devices, and make as many logical CPUs as they need."""
    text = devices.strip()
    names = [f"GPU:{index}" for index in range(int(text))] if text.isdecimal() else text.split(",")
    found = [_NAME.fullmatch(name.strip()) for name in names]
    named = [(match[1].upper(), int(match[2])) for match in found if match]
    if not named or len({kind for kind, _ in named}) > 1 or len({*named}) < len(found):
        raise ValueError(
            f"devices={devices!r}: expected a number of GPUs, or different devices of one kind, "
            "such as GPU:0,GPU:1."
        )
    kind, needed = named[0][0], 1 + max(index for _, index in named)
    if kind == "CPU":
        _divide_processor(needed)
    present = tf.config.list_logical_devices(kind)
    if needed > len(present):
        hint = {
            "CPU": "The processor can be divided before TensorFlow first computes, and no more.",
            "GPU": "For a trial without GPUs, CPU:0,CPU:1 divides the processor.",
        }[kind]
        raise ValueError(
            f"devices={devices!r}: TensorFlow sees {plural(len(present), kind)}. {hint}"
        )
    return [f"{kind}:{index}" for _, index in named]


def _divide_processor(count: int) -> None:
    """Make logical CPUs, unless there are so many or it is too late."""
    (processor, *_) = tf.config.list_physical_devices("CPU")
    if len(tf.config.get_logical_device_configuration(processor) or [None]) < count:
        parts = [tf.config.LogicalDeviceConfiguration()] * count
        with contextlib.suppress(RuntimeError):
            tf.config.set_logical_device_configuration(processor, parts)
