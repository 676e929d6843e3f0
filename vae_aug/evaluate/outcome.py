"""What a training was worth: its best network beside its start and the best classical filter.

All of them restore the images that the training was validated on, from the same noise.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from vae_aug.config import TrainConfig
from vae_aug.evaluate.classical import Filter, tune_filters
from vae_aug.evaluate.metrics import Unit, bootstrap_interval, choose_groups
from vae_aug.json_values import make_json
from vae_aug.model.checkpoint import BEST_CHECKPOINT, load_checkpoint
from vae_aug.train.feed import VALIDATION_KEEP, list_validation_patients, make_validation_feed
from vae_aug.train.holdout import open_sources
from vae_aug.train.measure import average, compare_images, make_measure_batch, measure_images
from vae_aug.train.run_files import (
    IMAGE_FIGURES,
    SHEET_NAME,
    TrainingError,
    read_best,
    read_start,
    write_json,
)
from vae_aug.words import plural

OUTCOME_NAME = "outcome.json"

Judgement = Literal["better", "unclear", "worse"]

_TUNING_IMAGES = 6
_FEW = 10
"""Patients or images below which an interval says little."""

_NOTABLE = 0.005
"""SSIM that clean images may lose unsaid: less is soon certain, and matters to nobody."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """How much higher the SSIM of the trained network is, image by image.

    Attributes:
        mean: Mean over the images.
        low: Lower end of the 95% interval (percentile bootstrap); NaN for a single image.
        high: Upper end.
        judgement: `"better"` or `"worse"` if the interval is above or below 0, else `"unclear"`.
    """

    mean: float
    low: float
    high: float
    judgement: Judgement


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What `judge_training` found.

    Attributes:
        images: Images that were judged on.
        groups: Patients or images that the intervals resample.
        unit: Which of the two. Patients, unless fewer than two are known.
        step: Step of the best validation, whose network is kept.
        steps: Steps of the training.
        start: What it began with: a checkpoint or `"random weights"`.
        filter: The best classical filter: `method` and its parameters.
        figures: Means of `ssim_noisy`, `psnr_noisy` (dB) for `"noisy"` (the input), `"filter"`,
            `"start"` and `"trained"`; of the latter two `ssim` and `psnr` on clean input too.
        against_start: SSIM of noisy input, trained less start.
        against_filter: The same, less the filter.
        clean_against_start: SSIM of clean input, trained less start.
        verdict: Sentences on the differences, the one that matters most first.
        advice: What to do, sentences; empty where the training did what it should.
        sheet: Path of the sheet.
        code: A line of Python that uses the network.
    """

    images: int
    groups: int
    unit: Unit
    step: int
    steps: int
    start: str
    filter: Mapping[str, Any]
    figures: Mapping[str, Mapping[str, float]]
    against_start: Difference
    against_filter: Difference
    clean_against_start: Difference
    verdict: tuple[str, ...]
    advice: tuple[str, ...]
    sheet: str
    code: str

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as JSON takes it; what is not finite becomes None."""
        content: dict[str, Any] = make_json(self)
        return content


def judge_training(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    config: TrainConfig,
    validation: Sequence[str | Path] = (),
    allow_damaged: bool = False,
) -> Outcome:
    """Compare what a training made with what it began with, and write `out/outcome.json`.

    Images, noise and measures are those of the training's validations: `replace` with 40% of the
    pixels left. The filters are at their best, see `vae_aug.evaluate.classical`, tuned on six of
    the images. Differences are paired by image; their intervals resample whole patients.

    Args:
        sources: As `vae_aug.train.train.train` was given them.
        out: The folder of the run.
        config: As for `train`.
        validation: As for `train`.
        allow_damaged: As for `train`.

    Returns:
        The outcome.

    Raises:
        RecordError: As `train`.
        CheckpointError: If the run has no checkpoint that can be loaded.
        TrainingError: If what was measured at the start is missing, damaged or of other images.
    """
    out = Path(out)
    start = read_start(out).images
    held_out = open_sources(sources, validation, allow_damaged=allow_damaged).validation
    limit = config.validation_images
    patients = list_validation_patients(held_out, limit)
    if len(patients) != len(start["ssim"]):
        raise TrainingError(
            f"{out}: began with {plural(len(start['ssim']), 'image')} to validate on, and now "
            f"there are {len(patients)}; train on the records as they are in another folder."
        )
    network = load_checkpoint(out / BEST_CHECKPOINT)
    feed = make_validation_feed(held_out, network.config.image_size, config, limit).cache()
    trained, _ = measure_images(make_measure_batch(network), feed)
    noisy, best_filter, filtered = _measure_classical(feed)
    groups, unit = choose_groups(patients)
    against_start, against_filter, clean_against_start = (
        judge_differences(trained[name] - other[name], groups)
        for name, other in (("ssim_noisy", start), ("ssim_noisy", filtered), ("ssim", start))
    )
    begun = config.start_from or "random weights"
    figures = {"noisy": noisy, "filter": filtered, "start": start, "trained": trained}
    outcome = Outcome(
        images=len(patients),
        groups=len(set(groups)),
        unit=unit,
        step=int(read_best(out)["step"]),
        steps=config.steps,
        start=begun,
        filter={"method": best_filter.method, **best_filter.to_dict()},
        figures={name: _summarize(values) for name, values in figures.items()},
        against_start=against_start,
        against_filter=against_filter,
        clean_against_start=clean_against_start,
        verdict=(),
        advice=(),
        sheet=os.fspath(out / SHEET_NAME),
        code="",
    )
    outcome = dataclasses.replace(
        outcome,
        verdict=tuple(describe_outcome(outcome)),
        advice=tuple(advise(outcome, bool(config.start_from))),
        code=write_code(outcome, config, out),
    )
    write_json(out / OUTCOME_NAME, outcome.to_dict())
    return outcome


# --- Figures ---------------------------------------------------------------------------------


def _measure_classical(
    feed: tf.data.Dataset,
) -> tuple[dict[str, np.ndarray], Filter, dict[str, np.ndarray]]:
    """Measure the noisy images, and what the best filter of all makes of them."""
    noisy, clean = (np.concatenate(parts) for parts in zip(*feed.as_numpy_iterator(), strict=True))
    spread = np.unique(np.linspace(0, len(clean) - 1, _TUNING_IMAGES).round().astype(int))
    pairs = [(clean[index, ..., 0], noisy[index, ..., 0]) for index in spread]
    found = []
    for candidate in tune_filters(pairs, "replace", VALIDATION_KEEP).values():
        planes = np.stack([candidate(plane[..., 0]) for plane in noisy]).astype(np.float32)
        found.append((candidate, _compare_noisy(clean, planes[..., None])))
    best = max(found, key=lambda pair: pair[1]["ssim_noisy"].mean())
    return _compare_noisy(clean, noisy), *best


def _compare_noisy(clean: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
    values = compare_images(tf.constant(clean), tf.constant(images), "_noisy")
    return {name: value.numpy() for name, value in values.items()}


def _summarize(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Average what is shown of a method."""
    return average({name: values[name] for name in IMAGE_FIGURES if name in values})


def judge_differences(differences: np.ndarray, groups: Sequence[str]) -> Difference:
    """Average differences `[N]`, with an interval that resamples `groups`, and judge the mean."""
    low, high = bootstrap_interval(differences, groups)
    judgement: Judgement = "better" if low > 0 else "worse" if high < 0 else "unclear"
    return Difference(float(np.mean(differences)), low, high, judgement)


# --- Words -----------------------------------------------------------------------------------


def describe_outcome(outcome: Outcome) -> list[str]:
    """Say how the network compares, with what it started from first."""
    over = plural(outcome.images, "image")
    if outcome.unit == "patients":
        over += f" of {outcome.groups} patients"
    start, floor = outcome.against_start, outcome.against_filter
    method = outcome.filter["method"]
    sentences = [
        f"{_say_how(start)} what it started from, {outcome.start}: SSIM {_say_figures(start)}, "
        f"on {over} with {VALIDATION_KEEP:.0%} of the pixels left.",
        f"{_say_how(floor)} the best classical filter ({method}, tuned on these images): SSIM "
        f"{_say_figures(floor)}.",
    ]
    clean = outcome.clean_against_start
    if clean.judgement == "worse" and clean.mean < -_NOTABLE:
        sentences.append(f"On clean images it is WORSE than its start: SSIM {_say_figures(clean)}.")
    if outcome.groups < _FEW:
        kept = "images" if outcome.unit == "images" else "patients"
        sentences.append(
            f"Few {kept} to judge on ({outcome.groups}): other ones may give another answer."
        )
    return sentences


def _say_how(difference: Difference) -> str:
    if difference.judgement == "better":
        return "Better than"
    if difference.judgement == "worse" or difference.mean <= 0:
        return "NOT better than"
    return "NOT certainly better (within noise) than"


def _say_figures(difference: Difference) -> str:
    if math.isnan(difference.low):
        return f"{difference.mean:+.3f} (of one image, so no interval can be given)"
    return f"{difference.mean:+.3f} (95% interval {difference.low:+.3f} to {difference.high:+.3f})"


def advise(outcome: Outcome, is_begun: bool) -> list[str]:
    """Say what to do if the training did not bring what it could."""
    gain = outcome.against_start.judgement == "better"
    if gain and outcome.against_filter.judgement == "better":
        return []
    advice = []
    if is_begun and not gain:
        advice.append(f"Keep {outcome.start!r} for now.")
    if not is_begun:
        advice.append("Leave --profile out, and training goes on from 'demo'.")
    if outcome.step < outcome.steps:
        advice.append(
            f"The best validation was at step {outcome.step:,} of {outcome.steps:,}: take a lower "
            "--learning-rate, or more images to train on, into another --out."
        )
    else:
        more = max(2 * outcome.steps, TrainConfig().steps)
        advice.append(
            f"The best validation was the last one, after {plural(outcome.steps, 'step')}: take "
            f"more, e.g. --steps {more}, into another --out; if that does not help, more images to "
            "train on or a lower --learning-rate."
        )
    if outcome.against_start.judgement == "unclear":
        advice.append("More images to validate on would tell smaller differences from noise.")
    return advice


def write_code(outcome: Outcome, config: TrainConfig, out: Path) -> str:
    """Write the line that uses the network, or its start if that is to be kept."""
    keep_start = config.start_from and outcome.against_start.judgement != "better"
    checkpoint = str(config.start_from) if keep_start else os.fspath(out)
    return f"dataset = dataset.apply(VAEAugment({checkpoint!r}))"
