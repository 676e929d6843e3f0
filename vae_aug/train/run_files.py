"""The files of a run: its settings, its log and the figures of its best validation."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vae_aug.atomic import remove_temporaries, write_atomic
from vae_aug.config import ModelConfig, TrainConfig, VariationConfig
from vae_aug.errors import VAEAugError
from vae_aug.limits import read_bounded
from vae_aug.model.checkpoint import BEST_CHECKPOINT, read_manifest
from vae_aug.train.recipe import Recipe

Figures = dict[str, float]

CONFIG_NAME = "config.json"
LOG_NAME = "log.jsonl"
SHEET_NAME, CURVES_NAME = "sheet.png", "curves.png"
BEST_NAME = "best.json"
START_NAME = "start.json"
STATE_NAME, LOGS_NAME = "state", "tensorboard"
IMAGE_FIGURES = ("ssim_noisy", "psnr_noisy", "ssim", "psnr")
"""Figures that are kept for each image, so that a comparison can pair them."""

_MAX_BYTES = 2**24


class TrainingError(VAEAugError):
    """Training cannot go on."""


def clean_up(out: Path) -> None:
    """Remove what a killed run left of unfinished files in a folder that is locked."""
    pictures = (SHEET_NAME, CURVES_NAME)
    for name in (CONFIG_NAME, LOG_NAME, BEST_NAME, START_NAME, BEST_CHECKPOINT, *pictures):
        remove_temporaries(out / name)


def keep_config(path: Path, recipe: Recipe, sources: Sequence[str | Path]) -> None:
    """Write the settings of a new run; refuse to go on with other ones."""
    settings = {**recipe.to_dict(), "sources": [str(source) for source in sources]}
    settings = json.loads(json.dumps(settings))
    if not path.exists():
        write_json(path, settings)
        return
    before = _read_config(path)
    changed = [
        f"{part}.{key}: {before[part][key]!r} before, {value!r} now"
        for part in ("model", "train", "variation")
        for key, value in settings.get(part, {}).items()
        if before[part].get(key) != value
    ]
    changed += [
        f"{key}: {before.get(key)} before, {settings.get(key)} now"
        for key in ("only", "sources")
        if before.get(key) != settings.get(key)
    ]
    if changed:
        raise ValueError(
            f"{path.parent} holds a run with other settings ({'; '.join(changed)}). "
            "Give another output folder, or delete this one."
        )


def _read_config(path: Path) -> dict[str, Any]:
    """Read the settings of a former run.

    What its version did not have stood at its default, and pairs of a variation were not jittered.
    """
    try:
        before = json.loads(read_bounded(path, _MAX_BYTES))
        before["model"] = ModelConfig.from_dict(before["model"]).to_dict()
        before["train"] = TrainConfig.from_dict(before["train"]).to_dict()
        pairs = {"jitter": 0.0, **before.get("variation", {})}
        before["variation"] = VariationConfig.from_dict(pairs).to_dict()
        before["sources"] = [str(source) for source in before["sources"]]
        return json.loads(json.dumps(before))
    except (VAEAugError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise TrainingError(
            f"{path}: does not hold the settings of a run, so it cannot go on "
            f"({type(error).__name__}: {error}). Give another output folder, or delete this one."
        ) from error


@dataclasses.dataclass(frozen=True)
class Start:
    """What a validation before the first step measured.

    Attributes:
        images: Values of each image, `[N] float64`, by figure: `IMAGE_FIGURES`.
        seconds: How long it took, which a run that goes on expects of the next one.
    """

    images: Mapping[str, np.ndarray]
    seconds: float


def write_start(out: Path, start: Start) -> None:
    """Write what a validation before the first step measured."""
    images = {name: start.images[name].astype(float).tolist() for name in IMAGE_FIGURES}
    write_json(out / START_NAME, {"seconds": round(start.seconds, 3), "images": images})


def read_start(out: Path) -> Start:
    """Read what `write_start` wrote.

    Raises:
        TrainingError: If it is missing or damaged.
    """
    path = out / START_NAME
    try:
        content = json.loads(read_bounded(path, _MAX_BYTES))
        images = {name: np.array(content["images"][name], np.float64) for name in IMAGE_FIGURES}
        shapes = {value.shape for value in images.values()}
        if len(shapes) != 1 or len(min(shapes)) != 1 or not images["ssim"].size:
            raise ValueError("it has not one value of each image")
        return Start(images, float(content["seconds"]))
    except (VAEAugError, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise TrainingError(
            f"{path}: is damaged ({type(error).__name__}: {error}). Delete it; `vae-aug train` "
            "then measures again what the training started from."
        ) from error


def cut_log(path: Path, step: int) -> None:
    """Cut off what a former run logged after the state that this one goes on from.

    Raises:
        TrainingError: If a line before is damaged.
    """
    if not path.exists():
        return
    kept = []
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        # A run that was killed may have left a part of its last line.
        if number == len(lines) and not line.endswith(b"\n"):
            break
        try:
            logged = int(json.loads(line)["step"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise TrainingError(
                f"{path}, line {number}: is damaged ({error}). Delete this file; the run goes on "
                "without it."
            ) from error
        if logged <= step:
            kept.append(line)
    if len(kept) < len(lines):
        write_atomic(path, b"".join(kept))


def read_best(out: Path) -> Figures:
    """Read the figures of the best validation from the checkpoint that they belong to."""
    return read_manifest(out / BEST_CHECKPOINT)["training"]["validation"]


def round_figures(figures: Figures) -> Figures:
    """Round to the six digits that are kept of a figure."""
    return {name: float(f"{value:.6g}") for name, value in figures.items()}


def write_json(path: Path, content: Any) -> None:
    """Write a file of JSON, whole or not at all."""
    write_atomic(path, (json.dumps(content, indent=1) + "\n").encode())
