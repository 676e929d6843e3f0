"""Which parts of the training recipe matter: one short run for each change, in one table.

    python benchmarks/ablation.py --records RECORDS --out DIR

Every run has the same images, steps and seed, at a reduced image size; what is compared is the
direction of a change, not the quality that a long run reaches. Runs that are done are not
repeated, and one that was interrupted goes on. The table is `DIR/ablation.json` and
`DIR/ablation.md`; `--keep-as NAME` copies the JSON to `benchmarks/results/NAME.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from vae_aug.atomic import write_atomic
from vae_aug.config import ModelConfig, TrainConfig
from vae_aug.evaluate.diversity import measure_diversity
from vae_aug.evaluate.subset import Subset
from vae_aug.evaluate.sweep import Sweep
from vae_aug.model.checkpoint import BEST_CHECKPOINT, load_checkpoint
from vae_aug.train.recipe import Recipe
from vae_aug.train.train import train
from vae_aug.version import __version__
from vae_aug.words import make_markdown_row

RESULTS = Path(__file__).parent / "results"

MODEL = ModelConfig(profile="ladder", encoder="efficientnet-lite1", image_size=96)
TRAIN = TrainConfig(
    encoder_weights="package",
    frozen_stages=4,
    loss="sigma_each",
    ssim_weight=1.0,
    restyle=True,
    corruptions=("replace", "blend", "rician"),
    keep=(0.3, 0.8),
    clean_share=0.15,
    kl_warmup_steps=50,
)
"""The recipe from which every run departs in one thing."""

CHANGES: dict[str, dict[str, Any]] = {
    "recipe": {},
    "loss: paper": {"loss": "paper", "ssim_weight": 0.0},
    "loss: sigma, one variance a batch": {"loss": "sigma"},
    "no SSIM term": {"ssim_weight": 0.0},
    "encoder: b1 from scratch": {
        "encoder": "efficientnet-b1",
        "encoder_weights": None,
        "frozen_stages": 0,
    },
    "encoder: lite1, all stages trained": {"frozen_stages": 0},
    "profile: vector": {"profile": "vector", "restyle": False, "loss": "sigma", "frozen_stages": 2},
    "skips nearly deterministic (spatial_beta 0.001)": {"spatial_beta": 0.001},
    "skips at full price (spatial_beta 1)": {"spatial_beta": 1.0},
    "box_weight 10": {"box_weight": 10.0},
    "no known styles": {"restyle": False},
    "no first restoration": {"coarse_weight": 0.0},
    "corruptions: all seven": {
        "corruptions": (
            "replace",
            "blend",
            "gaussian",
            "rician",
            "poisson_gaussian",
            "speckle",
            "missing_lines",
        )
    },
}


def run_change(name: str, change: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Train with one change and return its row of the table."""
    recipe = apply_change(change, args)
    folder = args.out / "".join(c if c.isalnum() else "_" for c in name)
    print(f"{name} ...", flush=True)
    figures = train([args.records], folder, recipe)
    vae = load_checkpoint(folder / BEST_CHECKPOINT)
    validation = Subset(args.records, limit=args.images)
    (samples,) = measure_diversity(validation, vae, Sweep((1.0,), guard="off"), samples=4)
    row = {"change": name, "settings": change, **figures, "samples": dataclasses.asdict(samples)}
    print(format_row(row), flush=True)
    return row


def apply_change(change: dict[str, Any], args: argparse.Namespace) -> Recipe:
    """Make the settings of a run."""
    of_model = {field.name for field in dataclasses.fields(ModelConfig)}
    model = dataclasses.replace(MODEL, **{k: v for k, v in change.items() if k in of_model})
    config = dataclasses.replace(
        TRAIN,
        steps=args.steps,
        validate_every=args.steps,
        validation_images=args.images,
        seed=args.seed,
        **{k: v for k, v in change.items() if k not in of_model},
    )
    return Recipe(model, config)


def format_row(row: dict[str, Any]) -> str:
    """Format a row of the Markdown table."""
    levels = [row[f"kl_{index}"] for index in range(5) if f"kl_{index}" in row] or [row["kl"]]
    samples = row["samples"]
    cells = [
        row["change"],
        f"{row['psnr']:.2f} / {row['ssim']:.3f}",
        f"{row['psnr_noisy']:.2f} / {row['ssim_noisy']:.3f}",
        ", ".join(f"{level:.0f}" for level in levels),
        f"{100 * samples['spread_outside']:.2f}",
        "" if samples["contrast_kept"] is None else f"{100 * samples['contrast_kept']:.0f}",
    ]
    return make_markdown_row(cells)


HEADING = """| change | clean, dB / SSIM | keep-40 `replace`, dB / SSIM | KL by level, nats | spread, % | contrast kept, % |
| --- | --- | --- | --- | --- | --- |"""  # noqa: E501


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--records", type=Path, required=True, help="folder of records")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--steps", type=int, default=300, help="optimiser steps of a run")
    parser.add_argument("--images", type=int, default=64, help="validation images")
    parser.add_argument("--only", nargs="*", help="names of changes; default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep-as", help="name in benchmarks/results, without .json")
    args = parser.parse_args()
    unknown = sorted(set(args.only or []) - set(CHANGES))
    if unknown:
        parser.error(f"no change {unknown[0]!r}; there are {', '.join(CHANGES)}")
    rows = [run_change(name, CHANGES[name], args) for name in args.only or CHANGES]
    report = {
        "command": shlex.join(["python", *sys.argv]),
        "version": __version__,
        "model": MODEL.to_dict(),
        "train": TRAIN.to_dict(),
        "steps": args.steps,
        "validation_images": args.images,
        "rows": rows,
    }
    write_atomic(args.out / "ablation.json", (json.dumps(report, indent=1) + "\n").encode())
    table = "\n".join([HEADING, *map(format_row, rows)]) + "\n"
    write_atomic(args.out / "ablation.md", table.encode())
    if args.keep_as:
        shutil.copy(args.out / "ablation.json", RESULTS / f"{args.keep_as}.json")


if __name__ == "__main__":
    main()
