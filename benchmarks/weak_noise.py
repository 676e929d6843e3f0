"""What denoising does to images that have little noise, or none: the whole change, and adaptive.

    .venv/bin/python -m benchmarks.weak_noise --data DATA

Repeats are single acquisitions, judged against the mean of the other acquisitions of the same
slice. Simulated noise is added to images of sets that `demo` was never trained on. Filters are the
best of a grid for every single image, by the very reference that judges them, which nobody has.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from benchmarks.detection.samples import Source, read_samples
from benchmarks.throughput import RESULTS, describe_machine
from vae_aug.atomic import write_atomic
from vae_aug.augment.transform import VAEAugment
from vae_aug.codecs.images import read_image
from vae_aug.evaluate.classical import Filter
from vae_aug.evaluate.metrics import psnr, ssim
from vae_aug.train.corrupt import corrupt

REPEATS = ("repeat_epi_pddl", "repeat_philips_bsd")
SETS = {"lgg_flair/val.json": None, "ibsi_sts/val.json": 4095.0, "cheng_brain_t1c": None}
"""COCO files, or folders that hold one, with the value of white where that is not the dtype's."""

SIZE = 224
IMAGES = 8
ACQUISITIONS = (0, 8, 16)
NOISES = (
    ("clean", 1.0),
    ("gaussian", 0.99), ("gaussian", 0.97), ("gaussian", 0.95), ("gaussian", 0.9),
    ("gaussian", 0.8), ("rician", 0.97), ("rician", 0.9), ("rician", 0.8),
    ("poisson_gaussian", 0.95), ("poisson_gaussian", 0.9), ("poisson_gaussian", 0.8),
    ("multi_coil", 0.97), ("multi_coil", 0.9), ("low_dose", 0.95), ("low_dose", 0.9),
    ("low_dose", 0.8), ("speckle", 0.9), ("replace", 0.4), ("blend", 0.4),
)  # fmt: skip
FILTERS = (
    *(Filter("median", window) for window in (3, 5)),
    *(Filter("tv", weight) for weight in (0.003, 0.01, 0.02, 0.05, 0.1, 0.2)),
    *(Filter("nlm", h) for h in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)),
)
HIGHEST_DB = 60.0
"""PSNR from which an image counts as equal to its reference: a quarter of a grey level."""


class Pair(NamedTuple):
    """An image and what it should be, both `[H, W] float32 in [0, 1]`."""

    noisy: np.ndarray
    clean: np.ndarray


def read_stacks(folder: Path) -> list[np.ndarray]:
    """Read the acquisitions of every slice: `[repeats, H, W] float32`, white 1."""
    stacks = []
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        images = [read_image(file)[..., 0] for file in sorted(part.glob("rep_*.png"))]
        stack = np.stack(images).astype(np.float32)
        stacks.append(stack / np.percentile(stack.mean(axis=0), 99.9))
    return stacks


def read_repeats(folder: Path) -> Iterator[Pair]:
    """Take acquisitions of every slice, each with the mean of the others."""
    for stack in read_stacks(folder):
        stack = np.clip(stack, 0, 1)
        for index in ACQUISITIONS:
            yield Pair(stack[index], np.delete(stack, index, axis=0).mean(axis=0))


def read_some(path: Path, white: float | None) -> np.ndarray:
    """Read some images of a set: `[IMAGES, SIZE, SIZE, 1] float32 in [0, 1]`."""
    file = next(path.glob("*.json")) if path.is_dir() else path
    samples = read_samples(Source((str(file),), SIZE, white))
    chosen = np.random.default_rng(0).permutation(len(samples))[:IMAGES]
    return samples.images[chosen].astype(np.float32) / 255


def make_pairs(images: np.ndarray, name: str, keep: float) -> Iterator[Pair]:
    """Add noise to images."""
    for number, clean in enumerate(images):
        noisy = clean if name == "clean" else corrupt(clean, name, keep, [number, 1]).numpy()
        yield Pair(noisy[..., 0], clean[..., 0])


def measure(
    pairs: list[Pair], ways: dict[str, Callable[[np.ndarray], np.ndarray]], filtered: bool
) -> dict[str, Any]:
    """Measure what is left of images by all ways: means, and harm in comparison with the input."""
    scores: dict[str, list[tuple[float, float]]] = {}
    for noisy, clean in pairs:

        def judge(image: np.ndarray, clean: np.ndarray = clean) -> tuple[float, float]:
            return min(psnr(clean, image), HIGHEST_DB), ssim(clean, image)

        for name, way in ways.items():
            scores.setdefault(name, []).append(judge(way(noisy)))
        if filtered:
            tried = [judge(each(noisy)) for each in FILTERS]
            best = tuple(max(column) for column in zip(*tried, strict=True))
            scores.setdefault("best filter", []).append(best)
    inputs = np.array(scores["input"])[:, 0]
    return {
        name: {
            "psnr": float(np.mean([each[0] for each in values])),
            "ssim": float(np.mean([each[1] for each in values])),
            "worst_loss_db": float(np.max(inputs - np.array(values)[:, 0])),
        }
        for name, values in scores.items()
    }


def make_way(checkpoint: str, **options: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Denoise an image by a checkpoint."""
    augment = VAEAugment(checkpoint, mode="denoise", guard="off", value_range=(0, 1), **options)
    run = tf.function(augment, input_signature=[tf.TensorSpec([None, None, 1])], autograph=False)
    return lambda noisy: run(noisy[..., None]).numpy()[..., 0]


def read_filters(path: Path) -> dict[tuple[str, str, float], dict[str, Any]]:
    """Read the rows of a former report that have a filter, by source, noise and share left."""
    rows = json.loads(path.read_text())["rows"]
    return {(r["source"], r["noise"], r["keep"]): r for r in rows if "best filter" in r}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--ckpt", default="demo")
    parser.add_argument("--no-filters", action="store_true", help="they take most of the time")
    parser.add_argument(
        "--filters-from",
        type=Path,
        help="report whose filters are taken, if its inputs are equal",
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "weak-noise.json")
    arguments = parser.parse_args()
    ways = {
        "input": lambda noisy: noisy,
        "denoised": make_way(arguments.ckpt),
        "adaptive": make_way(arguments.ckpt, adaptive=True),
    }
    filtered = {} if arguments.filters_from is None else read_filters(arguments.filters_from)
    report: dict[str, Any] = {
        "checkpoint": arguments.ckpt,
        "images": IMAGES,
        "rows": [],
        "environment": describe_machine(),
    }

    def add(source: str, noise: str, keep: float, pairs: list[Pair]) -> None:
        former = filtered.get((source, noise, keep))
        anew = former is None and not arguments.no_filters and noise != "clean"
        row = measure(pairs, ways, anew)
        if former is not None:
            if former["input"] != row["input"]:
                raise SystemExit(f"{arguments.filters_from}: its inputs are others; leave it out.")
            row["best filter"] = former["best filter"]
        report["rows"].append({"source": source, "noise": noise, "keep": keep, **row})
        figures = {name: (round(v["psnr"], 2), round(v["ssim"], 3)) for name, v in row.items()}
        print(source, noise, keep, len(pairs), figures, flush=True)
        write_atomic(arguments.out, (json.dumps(report, indent=1) + "\n").encode())

    for name in REPEATS:
        add(name, "acquired", 1.0, list(read_repeats(arguments.data / name)))
    for name, white in SETS.items():
        images = read_some(arguments.data / name, white)
        for noise, keep in NOISES:
            add(name, noise, keep, list(make_pairs(images, noise, keep)))


if __name__ == "__main__":
    main()
