"""Choose how a VAE varies a detector's training images, by patients that stay out of both.

    .venv/bin/python benchmarks/detection_search.py --train T.json --out runs/search --trials 8

Detectors are trained as `detection.py` does, on a share of the training set's patients, and judged
on the next ones, as many again. No test set is opened. What wins is an arm for `detection.py`.
Finished trials are kept: the same command goes on, also with more --trials.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from detection import Arm, Bench, add_run_arguments
from detection_metrics import estimate_over_seeds
from detector import Samples, read_coco

from vae_aug.data.atomic import write_atomic

CHOICES = {
    "mode": ("sample", "interpolate"),
    "factor": (0.5, 1.0, 2.0),
    "detail": (0.6, 0.8, 1.0),
    "p": (0.25, 0.5, 0.75),
}
"""What is drawn for every trial."""


def draw_arms(count: int, seed: int, prefix: str) -> list[Arm]:
    """Draw different settings; the first arms stay the same when more are asked for.

    Args:
        count: How many.
        seed: Of the draws.
        prefix: `"classical+"`, or `""`.
    """
    generator = np.random.default_rng(seed)
    names: dict[str, None] = {}
    while len(names) < count:
        drawn = {key: generator.choice(np.array(values)) for key, values in CHOICES.items()}
        settings = ",".join(f"{key}={value:g}" for key, value in drawn.items() if key != "mode")
        names.setdefault(f"{prefix}{drawn['mode']}:{settings}")
    return [Arm.parse(name) for name in names]


def choose_next(samples: Samples, fraction: float) -> Samples:
    """Take the groups that follow those of `detection.choose_fraction`, as many again."""
    groups = np.random.default_rng(0).permutation(np.unique(samples.groups))
    count = max(round(fraction * len(groups)), 1)
    return samples.take(np.flatnonzero(np.isin(samples.groups, groups[count : 2 * count])))


def rank(folder: Path, fraction: float) -> list[dict[str, object]]:
    """List the arms of a folder's runs, best mean mAP50 first."""
    values: dict[str, list[float]] = {}
    for path in sorted(folder.glob("run-*.json")):
        run = json.loads(path.read_text())
        if run["fraction"] == fraction:
            values.setdefault(run["arm"], []).append(run["tests"]["validation"]["mAP50"])
    rows = [{"arm": arm, **estimate_over_seeds(each)} for arm, each in values.items()]
    return sorted(rows, key=lambda row: -row["mean"])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_run_arguments(parser)
    parser.add_argument("--train", type=Path, required=True, help="COCO file")
    parser.add_argument("--fraction", type=float, default=0.25, help="up to 0.5")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="of each trial")
    parser.add_argument("--with-classical", action="store_true")
    arguments = parser.parse_args()
    if not 0 < arguments.fraction <= 0.5:
        parser.error("--fraction must be in (0, 0.5], since as many patients again are needed")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    whole = read_coco(arguments.train, arguments.size)
    bench = Bench(arguments, whole, {"validation": choose_next(whole, arguments.fraction)})
    prefix = "classical+" if arguments.with_classical else ""
    arms = [Arm.parse(prefix.rstrip("+") or "real"), *draw_arms(arguments.trials, 0, prefix)]
    for seed in arguments.seeds:
        for arm in arms:
            bench.run(arm, arguments.fraction, seed)
    rows = rank(arguments.out, arguments.fraction)
    write_atomic(arguments.out / "search.json", (json.dumps(rows, indent=1) + "\n").encode())
    for row in rows:
        print(f"{row['mean']:.3f} {row['arm']}")


if __name__ == "__main__":
    main()
