"""Images per second through `VAEAugment`, in the ways to put it into a pipeline, on every engine.

    .venv/bin/python benchmarks/throughput.py --ckpt vector
    .venv/bin/python benchmarks/throughput.py --image-size 96 --images 32  # a fresh VAE

The ways run in turn within every repeat, so that a change in the machine's load meets all of them.
The first round is thrown away, and so are the first two batches of every pass, in which the
pipeline starts (reported by itself). The dataset has no end: what was under way when the clock
started is made up for by what is under way when it stops. Ratios are per repeat, against the naive
way, and their median is what to compare; images per second belong to the machine.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import vae_aug
from vae_aug.augment.transform import VAEAugment
from vae_aug.config import ModelConfig
from vae_aug.errors import EngineError, MissingPackageError
from vae_aug.model.checkpoint import load_checkpoint
from vae_aug.model.noise import sample_noise
from vae_aug.model.vae import VAE
from vae_aug.phantoms.phantom import KINDS, make_phantom

RESULTS = Path(__file__).parent / "results"
NAIVE = "plain network, map an image at a time"

_DISTINCT = 64
"""Images in the dataset, which is repeated."""

Way = Callable[[tf.data.Dataset], tf.data.Dataset]


def make_source(count: int, size: int) -> tf.data.Dataset:
    """Make a dataset of phantoms, in memory, so that reading costs nothing."""
    slices = [make_phantom(KINDS[i % len(KINDS)], seed=i, size=size) for i in range(count)]
    boxes = tf.ragged.constant([s.boxes.tolist() for s in slices], ragged_rank=1, inner_shape=(4,))
    dataset = tf.data.Dataset.from_tensor_slices(
        {"image": np.stack([s.image for s in slices]), "bbox": tf.cast(boxes, tf.float32)}
    )
    dense = dataset.map(lambda e: {**e, "bbox": tf.convert_to_tensor(e["bbox"])})
    return dense.cache()


def make_plain(vae: Any, mode: str) -> Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]:
    """Do what a user would write: the Keras network in `map`, without a guard or a seed's care."""

    def change(element: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        image = tf.cast(element["image"], tf.float32)[None] / 255.0
        size = (vae.config.image_size,) * 2
        small = tf.image.resize(image, size)
        seeds = tf.random.uniform([1, 2], maxval=2**31 - 1, dtype=tf.int32)
        noise = sample_noise(seeds, vae.list_noise(vae.config, mode, *size))
        reconstruction, variant = vae.vary(small, noise, mode=mode, factor=1.0, alone=True)
        changed = image + tf.image.resize(variant - reconstruction, tf.shape(image)[1:3])
        return {**element, "image": tf.cast(tf.clip_by_value(255 * changed, 0, 255), tf.uint8)[0]}

    return change


def make_ways(
    seeded: dict[str, VAEAugment], fresh: dict[str, VAEAugment], batch_size: int
) -> dict[str, Way]:
    """Name the ways; each gives single elements, as a detector's own batching wants them.

    Args:
        seeded: A transform with a seed for every engine, TensorFlow first.
        fresh: Likewise without a seed.
        batch_size: Of the way that batches before it augments.
    """
    augment = seeded["tensorflow"]
    applied = {
        **{f"apply, {engine}": augment for engine, augment in seeded.items()},
        **{f"apply, {engine}, without a seed": augment for engine, augment in fresh.items()},
    }
    return {
        NAIVE: lambda dataset: dataset.map(make_plain(augment.vae, augment.config.mode)),
        "map, an image at a time": lambda dataset: dataset.map(augment),
        "map, images in parallel": lambda dataset: dataset.map(
            augment, num_parallel_calls=tf.data.AUTOTUNE
        ),
        "map, batched": lambda dataset: dataset.padded_batch(
            batch_size, padding_values={"image": np.uint8(0), "bbox": -1.0}
        ).map(augment),
        **{
            name: functools.partial(tf.data.Dataset.apply, transformation_func=augment)
            for name, augment in applied.items()
        },
    }


def make_augments(
    vae: Any, engines: list[str], **settings: Any
) -> tuple[dict[str, VAEAugment], dict[str, str]]:
    """Make a transform for every engine; return them, and why others cannot run here."""
    augments, missing = {}, {}
    for engine in engines:
        try:
            augments[engine] = VAEAugment(vae, engine=engine, **settings)  # type: ignore[arg-type]
        except (MissingPackageError, EngineError) as error:
            missing[engine] = str(error)
    return augments, missing


def count_rate(dataset: tf.data.Dataset, warm_up: int, count: int) -> tuple[float, float]:
    """Iterate once.

    Args:
        dataset: Without an end, of elements or batches with the key `image`.
        warm_up: Images before the clock starts, whole batches of whatever is inside.
        count: Images that are timed; a pipeline that computes several batches at once needs a
            multiple of that many.

    Returns:
        Seconds to the first image, and images per second after `warm_up`.
    """
    seen, begin = 0, time.perf_counter()
    first = start = 0.0
    for element in dataset:
        now = time.perf_counter()
        first = first or now - begin
        if seen == warm_up:
            start = now
        elif seen >= warm_up + count:
            break
        seen += element["image"].shape[0] if element["image"].shape.rank == 4 else 1
    return first, (seen - warm_up) / (now - start)


def spend_pass(dataset: tf.data.Dataset) -> tuple[float, float]:
    """Iterate over a dataset once: seconds of all processors, and on the clock."""
    processors, begin = time.process_time(), time.perf_counter()
    iterator = iter(dataset)
    for _ in iterator:
        pass
    # The iterator is dropped afterwards, which may take long and no computing (ADR 0011).
    return time.process_time() - processors, time.perf_counter() - begin


def take_turns(measures: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """Measure everything `rounds` times, in turn, after one round that does not count."""
    for measure in measures.values():
        measure()
    measured: dict[str, list[Any]] = {name: [] for name in measures}
    for turn in range(rounds):
        # Each goes first in turn, so that none always follows the same neighbour.
        first = turn % len(measures)
        for name in [*list(measures)[first:], *list(measures)[:first]]:
            measured[name].append(measures[name]())
    return measured


def describe(values: list[float]) -> dict[str, float]:
    """Return median, lowest and highest."""
    return {
        "median": round(statistics.median(values), 3),
        "lowest": round(min(values), 3),
        "highest": round(max(values), 3),
    }


def summarize(measured: dict[str, list[tuple[float, float]]]) -> dict[str, dict[str, Any]]:
    """Return median and spread (lowest, highest) of ratios, rates and starts."""
    naive = [rate for _, rate in measured[NAIVE]]
    return {
        name: {
            "ratio_to_naive": describe(
                [rate / base for (_, rate), base in zip(pairs, naive, strict=True)]
            ),
            "images_per_second": describe([rate for _, rate in pairs]),
            "seconds_to_first_image": describe([first for first, _ in pairs]),
        }
        for name, pairs in measured.items()
    }


def describe_machine() -> dict[str, Any]:
    """Return what the figures depend on beside the code."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    model = [
        line.split(":")[1].strip()
        for line in (Path("/proc/cpuinfo").read_text().splitlines() if os.name == "posix" else [])
        if line.startswith("model name")
    ]
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit.stdout.strip() or "unknown",
        "vae_aug": vae_aug.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": model[0] if model else platform.processor(),
        "cpus": os.cpu_count(),
        "load_before": [round(value, 2) for value in os.getloadavg()],
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads() or "default",
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads() or "default",
        "devices": [device.name for device in tf.config.list_physical_devices()],
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ckpt", help="checkpoint; a fresh VAE of random weights without one")
    parser.add_argument("--image-size", type=int, default=224, help="of a fresh VAE")
    parser.add_argument("--source-size", type=int, default=256, help="side of the phantoms")
    parser.add_argument("--images", type=int, default=128, help="timed in a pass")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--mode", default="sample", choices=["denoise", "sample", "interpolate"])
    parser.add_argument(
        "--engines",
        nargs="*",
        default=["openvino", "openvino-bfloat16"],
        help='beside "tensorflow"; what cannot run here is left out',
        metavar="ENGINE",
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "throughput.json")
    arguments = parser.parse_args()
    if arguments.images % (2 * arguments.batch_size):
        parser.error("--images must be a multiple of two batches, which `apply` has under way")
    if arguments.repeats < 5:
        parser.error("--repeats must be at least 5, or the spread means nothing")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    machine = describe_machine()
    vae = load_checkpoint(arguments.ckpt) if arguments.ckpt else None
    vae = vae or VAE(ModelConfig(image_size=arguments.image_size))
    engines = ["tensorflow", *arguments.engines]
    settings = {"mode": arguments.mode, "batch_size": arguments.batch_size}
    seeded, missing = make_augments(vae, engines, seed=0, **settings)
    fresh, _ = make_augments(vae, engines, **settings)
    ways = make_ways(seeded, fresh, arguments.batch_size)
    source = make_source(_DISTINCT, arguments.source_size).repeat()
    pipelines = {name: way(source) for name, way in ways.items()}
    measured = take_turns(
        {
            name: functools.partial(
                count_rate, pipeline, 2 * arguments.batch_size, arguments.images
            )
            for name, pipeline in pipelines.items()
        },
        arguments.repeats,
    )
    result = {
        "benchmark": "throughput",
        "settings": {
            **{k: v for k, v in vars(arguments).items() if k != "out"},
            "network": vae.config.to_dict(),
            "digest": vae.digest,
        },
        "results": summarize(measured),
        "missing": missing,
        "environment": machine,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    for name, figures in result["results"].items():
        ratio, rate = figures["ratio_to_naive"], figures["images_per_second"]
        start = figures["seconds_to_first_image"]
        print(
            f"{name:38} x{ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})"
            f"   {rate['median']:.1f} images/s ({rate['lowest']:.1f} to {rate['highest']:.1f})"
            f"   first image after {start['median']:.1f} s"
        )
    for engine, reason in missing.items():
        print(f"{engine:38} left out: {reason}")
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
