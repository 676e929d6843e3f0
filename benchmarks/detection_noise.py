"""What noise costs a detector that was trained without it, and what denoising wins back.

    .venv/bin/python benchmarks/detection_noise.py --runs runs/detection \
        --train T.json --test H.json --ckpt demo vector --out noise.json

Detectors are those that `detection.py` left in the folder, of one arm and one share of patients.
Test images lose information (`vae_aug.corrupt`), and are restored by classical filters, tuned on
clean training images, and by checkpoints (`VAEAugment(mode="denoise")`, which no box can guide).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from detection_metrics import METRICS, estimate_over_seeds, score
from detector import Samples, detect, make_detector, read_coco

from vae_aug.augment.transform import VAEAugment
from vae_aug.corrupt import corrupt_image
from vae_aug.data.atomic import write_atomic
from vae_aug.evaluate.classical import tune_filters

TUNED_ON = 8
"""Training images on which classical filters are tuned."""

Restorer = Callable[[np.ndarray], np.ndarray]
Detector = Callable[[np.ndarray], list[np.ndarray]]


def corrupt_all(images: np.ndarray, name: str, keep: float) -> np.ndarray:
    """Take information from images `[N, S, S, 1] uint8`, each with a seed of its own."""
    return np.stack(
        [corrupt_image(image, name, keep, [index, 0]).numpy() for index, image in enumerate(images)]
    )


def make_restorers(
    train: Samples, name: str, keep: float, checkpoints: list[str]
) -> dict[str, Restorer]:
    """Name what restores images of one corruption: nothing, classical filters, checkpoints."""
    chosen = np.linspace(0, len(train) - 1, TUNED_ON).round().astype(int)
    clean = train.images[chosen]
    noisy = corrupt_all(clean, name, keep)
    pairs = [(c[..., 0] / 255.0, n[..., 0] / 255.0) for c, n in zip(clean, noisy, strict=True)]
    restorers: dict[str, Restorer] = {"none": lambda images: images}
    for method, chosen_filter in tune_filters(pairs, name, keep).items():
        restorers[method] = lambda images, chosen_filter=chosen_filter: _filter(
            images, chosen_filter
        )
    for checkpoint in checkpoints:
        augment = VAEAugment(checkpoint, mode="denoise", guard="off", seed=0, batch_size=16)
        restorers[Path(checkpoint).stem] = lambda images, augment=augment: _denoise(images, augment)
    return restorers


def _filter(images: np.ndarray, chosen: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    restored = np.stack([chosen(image[..., 0] / 255.0) for image in images])
    return np.rint(255 * restored[..., None]).astype(np.uint8)


def _denoise(images: np.ndarray, augment: VAEAugment) -> np.ndarray:
    dataset = tf.data.Dataset.from_tensor_slices(images).apply(augment)
    return np.stack(list(dataset.as_numpy_iterator()))


def load_detectors(runs: Path, arm: str, fraction: float, test: Samples) -> dict[int, Detector]:
    """Load the detectors of an arm: seed to a function of images.

    Raises:
        ValueError: If there is none.
    """
    detectors: dict[int, Detector] = {}
    for path in sorted(runs.glob("run-*.json")):
        run = json.loads(path.read_text())
        if (run["arm"], run["fraction"]) == (arm, fraction):
            model = make_detector(test.images.shape[1], len(test.classes), run["seed"])
            model.load_weights(path.with_suffix(".weights.h5"))
            detectors[run["seed"]] = lambda images, model=model: detect(model, images)
    if not detectors:
        raise ValueError(f"{runs} has no run of the arm {arm!r} and the share {fraction:g}.")
    return detectors


def measure(detectors: dict[int, Detector], test: Samples, images: np.ndarray) -> dict[str, Any]:
    """Measure every detector on images that show the test set: metric to a value for each seed."""
    scores = [score(test, find(images)) for find in detectors.values()]
    return {metric: [result[metric] for result in scores] for metric in METRICS}


def compare(clean: dict[str, Any], noisy: dict[str, Any], restored: dict[str, Any]) -> Any:
    """Tell which share of the lost mAP50 was won back, detector by detector; None if none was."""
    lost = np.subtract(clean["mAP50"], noisy["mAP50"])
    if (lost <= 0).any():
        return None
    return estimate_over_seeds(np.subtract(restored["mAP50"], noisy["mAP50"]) / lost)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="folder of detection.py")
    parser.add_argument("--train", type=Path, required=True, help="COCO file, to tune filters on")
    parser.add_argument("--test", type=Path, required=True, help="COCO file")
    parser.add_argument("--arm", default="real")
    parser.add_argument("--fraction", type=float, default=0.25)
    parser.add_argument(
        "--corruptions", nargs="+", default=["replace:0.4", "blend:0.4", "rician:0.8"]
    )
    parser.add_argument("--ckpt", nargs="+", default=["demo", "vector"])
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    runs = sorted(arguments.runs.glob("run-*.json"))
    size = json.loads(runs[0].read_text())["settings"]["size"] if runs else 224
    train, test = (read_coco(path, size) for path in (arguments.train, arguments.test))
    detectors = load_detectors(arguments.runs, arguments.arm, arguments.fraction, test)
    clean = measure(detectors, test, test.images)
    rows = [{"corruption": "clean", "restored by": "none", **clean, "won back": None}]
    for corruption in arguments.corruptions:
        name, keep = corruption.split(":")
        noisy = corrupt_all(test.images, name, float(keep))
        measured = {}
        for method, restore in make_restorers(train, name, float(keep), arguments.ckpt).items():
            measured[method] = measure(detectors, test, restore(noisy))
            won = compare(clean, measured["none"], measured[method])
            rows.append(
                {"corruption": corruption, "restored by": method, **measured[method]}
                | {"won back": won if method != "none" else None}
            )
            print(format_row(rows[-1]), flush=True)
    settings = {key: str(value) for key, value in vars(arguments).items() if key == "arm"}
    report = {
        "benchmark": "detection_noise",
        "settings": {
            **settings,
            "fraction": arguments.fraction,
            "size": size,
            "seeds": list(detectors),
            "images": len(test),
            "keras": keras.__version__,
        },
        "rows": rows,
    }
    write_atomic(arguments.out, (json.dumps(report, indent=1) + "\n").encode())
    print("\n".join(format_row(row) for row in rows))


def format_row(row: dict[str, Any]) -> str:
    """Write a line of the Markdown table: mean mAP50 over detectors, and the share won back."""
    won = row["won back"]
    share = "" if won is None else f"{won['mean']:.0%}"
    if won is not None and won["low"] is not None:
        share += f" ({won['low']:.0%} to {won['high']:.0%})"
    mean = np.mean(row["mAP50"])
    return f"| {row['corruption']} | {row['restored by']} | {mean:.3f} | {share} |"


if __name__ == "__main__":
    main()
