"""Images per second of learned variation, beside the published network and what it would replace.

    .venv/bin/python benchmarks/variation_speed.py

All ways take the same grey phantoms of 8 bits with their boxes, computed in float32, and run in
turn within every round (see `throughput.py`). Two are rivals: the published network, `vector`, in
`map` an image at a time, as a user would write it; and Albumentations' elastic transform with shot
noise, in parallel calls. Growth is that of `apply` with the side of images and the number of boxes.
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from rivals import use_albumentations
from throughput import (
    RESULTS,
    count_rate,
    describe,
    describe_machine,
    make_augments,
    make_plain,
    make_source,
    take_turns,
)

from vae_aug.atomic import write_atomic
from vae_aug.augment.transform import VAEAugment
from vae_aug.model.checkpoint import load_checkpoint

SIZES = (224, 512)
GROWTH_SIZES = (128, 256, 512, 1024)
BOXES = (0, 1, 10, 100, 300)
NAIVE, RIVAL = "vector, map an image at a time", "Albumentations: elastic, shot noise"
_DISTINCT = 64


def put_boxes(dataset: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """Give every image so many small boxes."""
    corners = np.random.default_rng(0).random((count, 2)).astype(np.float32) * 0.9
    boxes = np.concatenate([corners, corners + 0.08], axis=1)
    return dataset.map(lambda element: {**element, "bbox": boxes})


def make_ways(checkpoint: Any, engines: list[str], batch_size: int) -> tuple[dict, dict]:
    """Name the functions from a dataset to an augmented one, and what is missing."""
    seeded, missing = make_augments(checkpoint, engines, seed=0, batch_size=batch_size)
    fresh, _ = make_augments(checkpoint, engines[:1], batch_size=batch_size)
    plain = make_plain(load_checkpoint("vector"), "sample")
    apply: Callable[..., Any] = tf.data.Dataset.apply
    ways = {
        NAIVE: lambda dataset: dataset.map(plain),
        RIVAL: use_albumentations,
        **{
            f"apply, {engine}": functools.partial(apply, transformation_func=augment)
            for engine, augment in seeded.items()
        },
        "apply, tensorflow, without a seed": functools.partial(
            apply, transformation_func=fresh[engines[0]]
        ),
        "map, images in parallel": lambda dataset: dataset.map(
            seeded[engines[0]], num_parallel_calls=tf.data.AUTOTUNE
        ),
    }
    return ways, missing


def measure(
    pipelines: dict[str, tf.data.Dataset], arguments: argparse.Namespace
) -> dict[str, list[float]]:
    """Measure the rates of pipelines in turn: images per second of each round."""
    measures = {
        name: functools.partial(count_rate, pipeline, 2 * arguments.batch_size, arguments.images)
        for name, pipeline in pipelines.items()
    }
    measured = take_turns(measures, arguments.rounds)
    return {name: [rate for _, rate in pairs] for name, pairs in measured.items()}


def compare(rates: dict[str, list[float]]) -> dict[str, Any]:
    """Describe rates, and their ratios to both rivals within each round."""
    rows: dict[str, Any] = {}
    for name, values in rates.items():
        ratios = {
            f"ratio_to_{key}": describe([a / b for a, b in zip(values, rates[of], strict=True)])
            for key, of in (("naive", NAIVE), ("albumentations", RIVAL))
            if of in rates
        }
        rows[name] = {"images_per_second": describe(values), **ratios}
    return rows


def measure_growth(augment: VAEAugment, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure `apply` on images of several sides, and with several numbers of boxes."""
    sides = {
        str(side): put_boxes(make_source(_DISTINCT, side), 2).repeat().apply(augment)
        for side in GROWTH_SIZES
    }
    source = make_source(_DISTINCT, SIZES[0])
    boxes = {str(n): put_boxes(source, n).repeat().apply(augment) for n in BOXES}
    return {
        "side": compare(measure(sides, arguments)),
        "boxes": compare(measure(boxes, arguments)),
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ckpt", default="demo", help="a checkpoint with a variation")
    parser.add_argument("--engines", nargs="*", default=["openvino"], help='beside "tensorflow"')
    parser.add_argument("--images", type=int, default=128, help="timed in a round")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--no-growth", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "variation-speed.json")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    machine = describe_machine()
    result: dict[str, Any] = {"benchmark": "variation_speed", "sizes": {}}
    ways, missing = make_ways(
        arguments.ckpt, ["tensorflow", *arguments.engines], arguments.batch_size
    )
    for size in arguments.sizes:
        source = make_source(_DISTINCT, size).repeat()
        rows = compare(measure({name: way(source) for name, way in ways.items()}, arguments))
        result["sizes"][str(size)] = rows
        for name, row in rows.items():
            figures = {key: value["median"] for key, value in row.items()}
            print(size, name, figures, flush=True)
    if not arguments.no_growth:
        augment = VAEAugment(arguments.ckpt, seed=0, batch_size=arguments.batch_size)
        result["growth"] = measure_growth(augment, arguments)
        for kind, rows in result["growth"].items():
            print(kind, {name: row["images_per_second"]["median"] for name, row in rows.items()})
    result["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    result["settings"] = {k: v for k, v in vars(arguments).items() if k != "out"}
    result |= {"missing": missing, "environment": machine}
    write_atomic(arguments.out, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
