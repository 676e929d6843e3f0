"""Where the numbers of `docs/privacy.md` come from."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

from printed_numbers import ROOT, read_results
from vae_aug.config import VariationConfig

_DEMO = read_results("membership-demo.json")
_KIDNEY = read_results("membership-kidney.json")
_THIRD = read_results("membership-demo-3.json")
_VARIATION = read_results("membership-demo-variation.json")
_LONGER = read_results("variation-leak-1600.json")
_JITTERED = read_results("variation-leak-1600-jitter.json")
_STRONGER = read_results("variation-leak-1600-jitter-2.json")


def _find(report: dict[str, Any], target: str, score: str = "elbo") -> dict[str, float]:
    """Find what a score, the primary one if none is named, said of a target."""
    rows = report["attacks"] + report["controls"]
    return next(row for row in rows if (row["score"], row["target"]) == (score, target))


def _describe(row: dict[str, float]) -> list[float]:
    return [row["auc"], row["auc_low"], row["auc_high"]]


def _compare(run: dict[str, Any]) -> list[float]:
    """Tell by how many percent the quality for others is worse than without jitter."""
    return [
        100 * (run["found"][name]["others"] / _LONGER["found"][name]["others"] - 1)
        for name in ("tone", "pattern")
    ]


def _find_least_sign(row: dict[str, float], level: float) -> float:
    """Find the AUC from which Mann and Whitney's chance is below a level."""
    members, others = row["members"], row["others"]
    deviation = math.sqrt((members + others + 1) / (12 * members * others))
    return 0.5 + NormalDist().inv_cdf(1 - level) * deviation


_NETWORKS, _CHECKPOINT = _find(_DEMO, "networks"), _find(_DEMO, "checkpoint")
_OVERFITTED = _find(_DEMO, "overfitted")
_SETTINGS = _DEMO["settings"]

_VARIED, _OF_DEMO = _find(_VARIATION, "networks"), _find(_VARIATION, "checkpoint")

_STAGES = [
    json.loads((ROOT / f"docs/checkpoints/demo-{stage}.json").read_text())["variation"]["steps"]
    for stage in (3, 4)
]

MEASURED: list[tuple[str, Sequence[float]]] = [
    (
        "{} steps each on halves of {} patients",
        [_VARIATION["settings"]["variation"]["steps"], _VARIATION["settings"]["patients"]],
    ),
    (
        "above others with a chance of {} ({} to {}; p = {});",
        [*_describe(_VARIED), _VARIED["p_value"]],
    ),
    ("the attack finds {}% of them.", [100 * _VARIED["found"]]),
    (
        "So does `demo` itself: {} ({} to {}; p = {}), by {} members and {} others",
        [*_describe(_OF_DEMO), *(_OF_DEMO[key] for key in ("p_value", "members", "others"))],
    ),
    (
        "`overfitted` ({}) and `canaries` ({}) were caught; "
        "a network trained on nobody was not ({})",
        [_find(_VARIATION, name)["auc"] for name in ("overfitted", "canaries", "start")],
    ),
    (
        "`pattern` ({}) shows the leak and `tone` ({}) does not",
        [_find(_VARIATION, "checkpoint", score)["auc"] for score in ("pattern", "tone")],
    ),
    ("it was trained for {} steps", [sum(_STAGES)]),
    (
        "of six variations of {} steps on halves of the same patients it is {} ({} to {};",
        [_LONGER["settings"]["steps"], *_describe(_LONGER["found"])],
    ),
    ("`vae-aug train` takes {}", [VariationConfig().steps]),
    (
        "`demo` is at {} ({} to {}; p = {})",
        [*_describe(_LONGER["found"]["checkpoint"]), _LONGER["found"]["checkpoint"]["p_value"]],
    ),
    ("tell less, and still tell**: {} ({} to {})", _describe(_JITTERED["found"])),
    ("with `jitter` of {}.", [_JITTERED["settings"]["jitter"]]),
    ("rises by {}% (`tone`) and {}% (`pattern`)", _compare(_JITTERED)),
    (
        "with those of the next two points at {} and {},",
        [run["found"]["checkpoint"]["auc"] for run in (_JITTERED, _STRONGER)],
    ),
    ("twice as far (`jitter` of {})", [_STRONGER["settings"]["jitter"]]),
    ("they tell less again, {} ({} to {})", _describe(_STRONGER["found"])),
    ("is worse: by {}% (`tone`) and {}% (`pattern`)", _compare(_STRONGER)),
    ("On {} patients of the sets that `demo` was trained on", [_SETTINGS["patients"]]),
    (
        "{} steps at {} x {}, rank",
        [_SETTINGS["train"]["steps"], *[_SETTINGS["model"]["image_size"]] * 2],
    ),
    ("members above others with a chance of {} ({} to {})", _describe(_NETWORKS)),
    # The chance counts the halves that were trained on as a draw.
    ("which none of {} draws of other halves did", [1 / _NETWORKS["p_value"] - 1]),
    ("{}% of the members are found", [100 * _NETWORKS["found"]]),
    ("Of `demo` itself there is no sign**: {} ({} to {})", _describe(_CHECKPOINT)),
    ("with {} members and {} others", [_CHECKPOINT["members"], _CHECKPOINT["others"]]),
    ("only from about {} on", [_find_least_sign(_CHECKPOINT, _SETTINGS["level"])]),
    ("On {} patients of kidney CT", [_KIDNEY["settings"]["patients"]]),
    ("there was no sign ({}, {} to {};", _describe(_find(_KIDNEY, "networks"))),
    ("In the first run `canaries` were caught ({})", [_find(_DEMO, "canaries")["auc"]]),
    (
        "`overfitted` was not quite ({}, p = {})",
        [_OVERFITTED["auc"], _OVERFITTED["p_value"]],
    ),
    ("AUC {} ({} to {}; p =", _describe(_find(_THIRD, "networks"))),
    ("p = {}) for the networks, no sign", [_find(_THIRD, "networks")["p_value"]]),
    ("no sign of `demo` ({}, {} to {})", _describe(_find(_THIRD, "checkpoint"))),
    (
        "it missed `canaries` ({}, p = {}: {} are too few) and `overfitted` ({}, p = {})",
        [
            *(_find(_THIRD, "canaries")[key] for key in ("auc", "p_value", "members")),
            *(_find(_THIRD, "overfitted")[key] for key in ("auc", "p_value")),
        ],
    ),
]
GIVEN: list[str] = [
    "It trains 16 networks by the settings",
    "are known of 8 networks with the patient and of 8 without",
    "attack of Carlini et al. (2022)",
    "[ADR 30]",
    "of 16 decisions on each patient",
    "what `denoise` makes of 40% of the image's pixels",
    "0.5 if nothing leaks",
    "while 10% of the others are taken for members",
    "`canaries` are 16 planted patients",
    "would have found with a chance of 80%",
    "With `--strict` the status is 1",
    "It takes as long as 32 trainings of `--steps`",
    "at 10% false positives",
]
