"""Where the network is to run on a machine with a GPU: speed, memory and exactness of each way.

    .venv/bin/python benchmarks/gpu.py

Run it with nothing else on the GPU. It writes `benchmarks/results/gpu.json`, which the table of
docs/placement.md wants: rates of each way in terms of the CPU's, the most memory that each took on
the device, and how far its images are from the CPU's. With `--device /CPU:0` it runs without a GPU,
which shows that it works and nothing else.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from throughput import RESULTS, count_rate, describe, describe_machine, make_source, take_turns

from vae_aug import VAEAugment
from vae_aug.atomic import write_atomic

CPU = "apply on the CPU"
_DISTINCT = 64
_BOX = (0.4, 0.4, 0.6, 0.6)


def make_ways(
    source: tf.data.Dataset, ckpt: str, mode: str, batch_size: int, device: str
) -> dict[str, tf.data.Dataset]:
    """Make a dataset of batches for every way; `source` has no end and images of one size."""

    def make(**settings: Any) -> VAEAugment:
        return VAEAugment(ckpt, mode=mode, seed=0, batch_size=batch_size, **settings)  # type: ignore[arg-type]

    batches = functools.partial(tf.data.Dataset.batch, batch_size=batch_size, drop_remainder=True)
    ahead = tf.data.AUTOTUNE
    return {
        CPU: batches(source.apply(make())).prefetch(ahead),
        "apply on the device": batches(source.apply(make(device=device))).prefetch(ahead),
        "apply on the device, xla": batches(
            source.apply(make(device=device, engine="xla"))
        ).prefetch(ahead),
        "nothing": batches(source).prefetch(ahead),
    }


def make_step(ckpt: str, mode: str, batch_size: int) -> Callable[[Any], Any]:
    """Make the augmentation of a batch as a training step calls it."""
    augment = VAEAugment(ckpt, mode=mode, seed=0, batch_size=batch_size)  # type: ignore[arg-type]
    return tf.function(augment, autograph=False)


def count_step(
    batches: tf.data.Dataset, step: Callable[[Any], Any], device: str, images: int
) -> tuple[float, float]:
    """Rate of a step that augments batches on a device."""

    def run() -> Any:
        for batch in batches:
            with tf.device(device):
                augmented = step(batch)
            # A step returns before a GPU has computed it.
            augmented["image"][0, 0, 0, 0].numpy()
            yield augmented

    return count_rate(run(), 2 * _get_batch_size(batches), images)


def _get_batch_size(batches: tf.data.Dataset) -> int:
    return int(batches.element_spec["image"].shape[0])


def measure_memory(device: str, work: Callable[[], Any]) -> float | None:
    """Return the most MB that work takes on a device; None where TensorFlow does not count."""
    try:
        tf.config.experimental.reset_memory_stats(device)
        work()
        return float(tf.config.experimental.get_memory_info(device)["peak"]) / 1e6
    except ValueError:
        return None


def compare(ways: dict[str, tf.data.Dataset]) -> dict[str, dict[str, float]]:
    """Compare the first batch of each way with that of the CPU, in grey levels of 255."""
    first = {
        name: next(iter(way))["image"].numpy().astype(np.float64) for name, way in ways.items()
    }
    differences = {name: np.abs(images - first[CPU]) for name, images in first.items()}
    return {
        name: {"largest": float(far.max()), "share_of_pixels": float((far > 0).mean())}
        for name, far in differences.items()
    }


def measure(arguments: argparse.Namespace, side: int) -> dict[str, Any]:
    """Measure every way at one size of images."""
    box = tf.constant([_BOX])
    source = make_source(_DISTINCT, side).map(lambda element: {**element, "bbox": box})
    settings = (arguments.ckpt, arguments.mode, arguments.batch_size)
    ways = make_ways(source.repeat(), *settings, arguments.device)
    count = functools.partial(count_rate, warm_up=2 * arguments.batch_size, count=arguments.images)
    measures: dict[str, Callable[[], Any]] = {
        name: functools.partial(count, way) for name, way in ways.items()
    }
    measures["in a training step on the device"] = functools.partial(
        count_step, ways["nothing"], make_step(*settings), arguments.device, arguments.images
    )
    rates = take_turns(measures, arguments.rounds)
    base = [rate for _, rate in rates[CPU]]
    return {
        "ways": {
            name: {
                "images_per_second": describe([rate for _, rate in pairs]),
                "ratio_to_cpu": describe(
                    [rate / cpu for (_, rate), cpu in zip(pairs, base, strict=True)]
                ),
                "peak_megabytes": measure_memory(arguments.device, measures[name]),
            }
            for name, pairs in rates.items()
        },
        "differences": compare({name: way for name, way in ways.items() if name != "nothing"}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="/GPU:0")
    parser.add_argument("--ckpt", default="demo")
    parser.add_argument("--mode", default="sample", choices=["denoise", "sample"])
    parser.add_argument("--sides", type=int, nargs="*", default=[224, 512])
    parser.add_argument("--images", type=int, default=512, help="timed in a pass")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json")
    arguments = parser.parse_args()
    kind = arguments.device.strip("/").partition(":")[0]
    if not tf.config.list_logical_devices(kind):
        parser.error(f"TensorFlow sees no {kind} here; --device /CPU:0 shows that the script runs.")
    result = {
        "benchmark": "gpu",
        "environment": describe_machine(),
        "device": arguments.device,
        "devices": [
            tf.config.experimental.get_device_details(device).get("device_name", device.name)
            for device in tf.config.list_physical_devices()
        ],
        "settings": {
            name: getattr(arguments, name)
            for name in ("ckpt", "mode", "images", "batch_size", "rounds")
        },
        "sides": {str(side): measure(arguments, side) for side in arguments.sides},
    }
    write_atomic(arguments.out, (json.dumps(result, indent=1) + "\n").encode())
    print(json.dumps(result["sides"], indent=1))


if __name__ == "__main__":
    main()
