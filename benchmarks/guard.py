"""What the guard costs: the same pipeline with `guard="paste"` and with `guard="off"`, in turn.

    .venv/bin/python benchmarks/guard.py

Batches of phantoms of one size, with boxes drawn at random, go through `Dataset.apply`, without
end. On and off take turns, a few batches each, and which goes first alternates; a ratio belongs to
two neighbours, so that a change in the machine's load meets both. The first batches of a turn do
not count: they were read ahead, or are computed beside what the other pipeline reads ahead. Beside
the ratio of time stands that of processor time, which other programs on the machine disturb less.
The median is what to compare.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from cost import describe
from throughput import describe_machine

from vae_aug.atomic import write_atomic
from vae_aug.augment.transform import VAEAugment
from vae_aug.model.checkpoint import load_checkpoint
from vae_aug.model.network import Network
from vae_aug.phantoms.phantom import KINDS, make_phantom

RESULTS = Path(__file__).parent / "results"
GUARDS = ("off", "paste")
_READ_AHEAD = 3
"""Batches that do not count in a turn: those under way in the network, and one."""

_SIDES = (0.03, 0.25)
"""Smallest and largest side of a box, as a share of the image's."""


def make_batches(images: int, size: int, boxes: int, batch_size: int) -> tf.data.Dataset:
    """Make batches of `[B, S, S, 1] uint8` images, and as many boxes for each, in memory."""
    rng = np.random.default_rng(0)
    pixels = [make_phantom(KINDS[i % len(KINDS)], seed=i, size=size).image for i in range(images)]
    sides = np.exp(rng.uniform(*np.log(_SIDES), (images, boxes, 2)))
    corners = rng.uniform(0.0, 1.0 - sides)
    bbox = np.concatenate([corners, corners + sides], axis=-1).astype(np.float32)
    elements = {"image": np.stack(pixels), "image/id": np.arange(images), "bbox": bbox}
    return tf.data.Dataset.from_tensor_slices(elements).batch(batch_size).cache()


def time_turn(batches: Iterator[Any], count: int) -> tuple[float, float]:
    """Take batches; return seconds and processor seconds of the last `count`."""
    for _ in range(_READ_AHEAD):
        next(batches)
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(count):
        next(batches)
    return time.perf_counter() - wall, time.process_time() - processor


def measure(
    augments: dict[str, VAEAugment], batches: tf.data.Dataset, count: int, repeats: int
) -> dict[str, Any]:
    """Time both pipelines in turn; return ratios and times, and what the guard acted for."""
    pipelines = {guard: iter(batches.repeat().apply(a)) for guard, a in augments.items()}
    turns: dict[str, list[tuple[float, float]]] = {guard: [] for guard in GUARDS}
    for repeat in range(repeats + 1):
        for guard in GUARDS[:: 1 if repeat % 2 else -1]:
            turn = time_turn(pipelines[guard], count)
            if repeat:  # in the first, the pipelines start
                turns[guard].append(turn)
    told = [augments["paste"].call_with_report(batch)[1]["guarded"] for batch in batches]
    off, on = np.array(turns["off"]).T, np.array(turns["paste"]).T
    images = count * next(iter(batches))["image"].shape[0]
    return {
        "share_of_boxes_guarded": round(float(np.mean(np.concatenate(told))), 4),
        "time_ratio": describe(list(on[0] / off[0])),
        "processor_time_ratio": describe(list(on[1] / off[1])),
        "milliseconds_an_image": {
            guard: describe([1e3 * seconds / images for seconds, _ in turns[guard]])
            for guard in GUARDS
        },
    }


def make_augments(network: Network, mode: str, batch_size: int) -> dict[str, VAEAugment]:
    return {
        guard: VAEAugment(network, mode=mode, guard=guard, seed=0, batch_size=batch_size)  # type: ignore[arg-type]
        for guard in GUARDS
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ckpt", nargs="+", default=["vector", "demo"], help="checkpoints")
    parser.add_argument("--modes", nargs="+", default=["denoise", "sample"])
    parser.add_argument(
        "--boxes", nargs="+", type=int, default=[1, 3, 10, 30, 300], help="an image"
    )
    parser.add_argument("--size", type=int, default=256, help="side of the images")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--batches", type=int, default=4, help="that count in a turn")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULTS / "guard.json")
    arguments = parser.parse_args()
    if arguments.repeats < 5:
        parser.error("--repeats must be at least 5, or the spread means nothing")
    if arguments.images % arguments.batch_size:
        parser.error("--images must be a multiple of --batch-size")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    rows, digests = [], {}
    settings = {key: value for key, value in vars(arguments).items() if key != "out"}
    head = {
        "benchmark": "guard",
        "settings": {**settings, "digests": digests},
        "environment": describe_machine(),
    }
    sources = {
        boxes: make_batches(arguments.images, arguments.size, boxes, arguments.batch_size)
        for boxes in arguments.boxes
    }
    for name in arguments.ckpt:
        network = load_checkpoint(name)
        digests[name] = network.digest
        for mode in arguments.modes:
            augments = make_augments(network, mode, arguments.batch_size)
            for boxes, batches in sources.items():
                row = measure(augments, batches, arguments.batches, arguments.repeats)
                rows.append({"checkpoint": name, "mode": mode, "boxes": boxes, **row})
                report = {**head, "results": rows}  # kept now, lest a long run be lost
                write_atomic(arguments.out, (json.dumps(report, indent=1) + "\n").encode())
                wall, processor = row["time_ratio"], row["processor_time_ratio"]
                print(
                    f"{name:8} {mode:8} {boxes:4} boxes, {row['share_of_boxes_guarded']:5.1%} "
                    f"guarded   time x{wall['median']:.3f} ({wall['lowest']:.3f} to "
                    f"{wall['highest']:.3f})   processor time x{processor['median']:.3f} "
                    f"({processor['lowest']:.3f} to {processor['highest']:.3f})",
                    flush=True,
                )
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
