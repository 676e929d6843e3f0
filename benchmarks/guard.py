"""What the guard costs: the same pipeline with `guard="paste"` and with `guard="off"`, in turn.

    .venv/bin/python benchmarks/guard.py

Batches of phantoms of one size, with boxes drawn at random, go through `Dataset.apply`. A pass goes
over all images and is timed from the second batch on, so that making the pipeline does not count.
On and off take turns, one pass each, and which goes first alternates; a ratio belongs to two
neighbouring passes, so that a change in the machine's load meets both. Beside it stands the ratio
of processor time, which other programs on the machine disturb less. The median is what to compare.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from cost import describe
from throughput import describe_machine

from vae_aug.augment.transform import VAEAugment
from vae_aug.data.atomic import write_atomic
from vae_aug.data.phantom import KINDS, make_phantom
from vae_aug.model.checkpoint import load_checkpoint
from vae_aug.model.profiles import Network

RESULTS = Path(__file__).parent / "results"
GUARDS = ("off", "paste")
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


def time_pass(pipeline: tf.data.Dataset) -> tuple[float, float]:
    """Iterate once; return seconds and processor seconds from the second batch to the last."""
    batches = iter(pipeline)
    next(batches)
    wall, processor = time.perf_counter(), time.process_time()
    for _ in batches:
        pass
    return time.perf_counter() - wall, time.process_time() - processor


def measure(augments: dict[str, VAEAugment], batches: tf.data.Dataset, repeats: int) -> Any:
    """Time both pipelines in turn; return ratios and times, and what the guard acted for."""
    pipelines = {guard: batches.apply(augment) for guard, augment in augments.items()}
    for pipeline in pipelines.values():
        time_pass(pipeline)
    passes: dict[str, list[tuple[float, float]]] = {guard: [] for guard in GUARDS}
    for repeat in range(repeats):
        for guard in GUARDS[:: 1 if repeat % 2 else -1]:
            passes[guard].append(time_pass(pipelines[guard]))
    shapes = [batch["image"].shape[0] for batch in batches]
    told = [augments["paste"].call_with_report(batch)[1]["guarded"] for batch in batches]
    off, on = np.array(passes["off"]).T, np.array(passes["paste"]).T
    return {
        "share_of_boxes_guarded": round(float(np.mean(np.concatenate(told))), 4),
        "time_ratio": describe(list(on[0] / off[0])),
        "processor_time_ratio": describe(list(on[1] / off[1])),
        "milliseconds_an_image": {
            guard: describe([1e3 * seconds / sum(shapes[1:]) for seconds, _ in passes[guard]])
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
    parser.add_argument("--boxes", nargs="+", type=int, default=[1, 3, 30, 300], help="an image")
    parser.add_argument("--size", type=int, default=256, help="side of the images")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULTS / "guard.json")
    arguments = parser.parse_args()
    if arguments.repeats < 5:
        parser.error("--repeats must be at least 5, or the spread means nothing")
    if arguments.images < 2 * arguments.batch_size:
        parser.error("--images must be at least two batches; the first does not count")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    machine = describe_machine()
    sources = {
        boxes: make_batches(arguments.images, arguments.size, boxes, arguments.batch_size)
        for boxes in arguments.boxes
    }
    rows, digests = [], {}
    for name in arguments.ckpt:
        network = load_checkpoint(name)
        digests[name] = network.digest
        for mode in arguments.modes:
            augments = make_augments(network, mode, arguments.batch_size)
            for boxes, batches in sources.items():
                row = measure(augments, batches, arguments.repeats)
                rows.append({"checkpoint": name, "mode": mode, "boxes": boxes, **row})
                wall, processor = row["time_ratio"], row["processor_time_ratio"]
                print(
                    f"{name:8} {mode:8} {boxes:4} boxes, {row['share_of_boxes_guarded']:5.1%} "
                    f"guarded   time x{wall['median']:.3f} ({wall['lowest']:.3f} to "
                    f"{wall['highest']:.3f})   processor time x{processor['median']:.3f} "
                    f"({processor['lowest']:.3f} to {processor['highest']:.3f})",
                    flush=True,
                )
    settings = {key: value for key, value in vars(arguments).items() if key != "out"}
    report = {
        "benchmark": "guard",
        "settings": {**settings, "digests": digests},
        "results": rows,
        "environment": machine,
    }
    write_atomic(arguments.out, (json.dumps(report, indent=1) + "\n").encode())
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
