"""What the ladder costs beside the published network: time, memory, and training.

    .venv/bin/python benchmarks/cost.py --keep-as cost

Networks have random weights, which cost what trained ones cost. The profiles run in turn within
every repeat, on one batch; ratios are per repeat, and their median is what to compare. Memory is
the peak of a process of its own that denoises one image through `VAEAugment`. Training is timed
over steps that come after the graph is made, its feed included.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from vae_aug.atomic import write_atomic
from vae_aug.augment.transform import VAEAugment
from vae_aug.config import AugmentConfig, Encoder, ModelConfig, Profile, TrainConfig
from vae_aug.engines.engine import TensorFlowEngine
from vae_aug.ingest.ingest import ingest
from vae_aug.model.profiles import make_vae
from vae_aug.phantoms.embedded import write_embedded
from vae_aug.train.recipe import Recipe
from vae_aug.train.train import train
from vae_aug.version import __version__

RESULTS = Path(__file__).parent / "results"
PROFILES: tuple[Profile, ...] = ("vector", "ladder")
_TRAINING_WARM_UP = 4


def measure_time(encoder: Encoder, mode: str, batch: int, repeats: int) -> dict[str, Any]:
    """Time both profiles in turn on one batch of 224 pixels."""
    images = tf.random.stateless_uniform([batch, 224, 224, 1], [1, 2])
    seeds = tf.ones([batch, 2], tf.int32)
    config = AugmentConfig(mode=mode)  # type: ignore[arg-type]
    engines = {
        profile: TensorFlowEngine(make_vae(ModelConfig(profile=profile, encoder=encoder)), config)
        for profile in PROFILES
    }
    milliseconds: dict[str, list[float]] = {profile: [] for profile in PROFILES}
    for repeat in range(repeats + 1):
        for profile in PROFILES[:: 1 if repeat % 2 else -1]:
            begin = time.perf_counter()
            engines[profile](images, seeds).numpy()
            if repeat:  # the first makes the graph
                milliseconds[profile].append(1e3 * (time.perf_counter() - begin) / batch)
    ratios = [b / a for a, b in zip(*milliseconds.values(), strict=True)]
    return {
        "encoder": encoder,
        "mode": mode,
        "ratio": describe(ratios),
        "milliseconds_an_image": {name: describe(v) for name, v in milliseconds.items()},
    }


def describe(values: list[float]) -> dict[str, float]:
    """Return median, lowest and highest."""
    return {
        "median": round(statistics.median(values), 3),
        "lowest": round(min(values), 3),
        "highest": round(max(values), 3),
    }


def print_peak(profile: Profile, size: int) -> None:
    """Denoise one image and print the peak memory of this process in MB."""
    augment = VAEAugment(
        make_vae(ModelConfig(profile=profile, encoder="efficientnet-lite1")), mode="denoise"
    )
    augment(np.zeros([size, size, 1], np.uint8))
    # Not getrusage, whose peak a child inherits from its parent.
    status = Path("/proc/self/status").read_text()
    print(float(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024)  # type: ignore[index]


def measure_peak(profile: Profile, size: int) -> float:
    """Return the peak memory in MB of a process that denoises one image."""
    command = [sys.executable, __file__, "--peak", profile, str(size)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return round(float(run.stdout.split()[-1]))


def measure_training(profile: Profile, steps: int) -> dict[str, float]:
    """Train on phantoms in batches of 16 and return images per second."""
    rates = []
    with tempfile.TemporaryDirectory() as folder:
        source, records = Path(folder) / "source", Path(folder) / "records"
        write_embedded(source, counts={"train": 32, "validation": 8, "test": 8})
        for split in ("train", "validation"):
            ingest(source, records, format="coco", split=split, leak_check=False)
        train(
            [records],
            Path(folder) / "run",
            Recipe(
                ModelConfig(profile=profile, encoder="efficientnet-lite1"),
                TrainConfig(
                    steps=steps,
                    validate_every=steps,
                    validation_images=8,
                    frozen_stages=4 if profile == "ladder" else 2,
                ),
            ),
            progress=lambda step, figures: rates.append(figures["images_per_second"]),
        )
    return describe(rates[_TRAINING_WARM_UP:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--steps", type=int, default=24, help="optimiser steps of a training")
    parser.add_argument("--keep-as", help="name in benchmarks/results, without .json")
    parser.add_argument("--peak", nargs=2, metavar=("PROFILE", "SIZE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        print_peak(args.peak[0], int(args.peak[1]))
        return
    encoders: tuple[Encoder, ...] = ("efficientnet-lite1", "efficientnet-b1")
    report = {
        "time": [
            measure_time(encoder, mode, args.batch, args.repeats)
            for encoder in encoders
            for mode in ("denoise", "sample")
        ],
        "peak_megabytes": {
            profile: {str(size): measure_peak(profile, size) for size in (224, 512, 1024)}
            for profile in PROFILES
        },
        "training_images_per_second": {
            profile: measure_training(profile, args.steps) for profile in PROFILES
        },
        "version": __version__,
        "tensorflow": tf.__version__,
        "machine": platform.machine(),
        "settings": vars(args),
    }
    text = json.dumps(report, indent=1) + "\n"
    print(text)
    if args.keep_as:
        write_atomic(RESULTS / f"{args.keep_as}.json", text.encode())


if __name__ == "__main__":
    main()
