"""What the attack of `vae-aug evaluate membership` finds of a leak that is planted, in simulations.

    .venv/bin/python benchmarks/membership.py

Scores are Gaussian around a mean of each patient, and those of members are raised. The AUC is
compared with that of the plain likelihood ratio, whose shifts are the patients' own, and the 95%
interval, which estimates everything anew for each resample, with one that keeps the ratios.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from throughput import RESULTS, describe_machine

from vae_aug.atomic import write_atomic
from vae_aug.evaluate.lira import (
    RESAMPLES,
    attack_all,
    calibrate,
    compute_auc,
    compute_own_ratios,
    draw_halves,
)

NETWORKS, PATIENTS, SHIFT = 16, 60, 0.3


def simulate(shift: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw calibrated scores and members, `[NETWORKS, PATIENTS]` each."""
    members = draw_halves(NETWORKS, PATIENTS, rng)
    scores = rng.normal(size=PATIENTS) + rng.normal(size=members.shape) + shift * members
    return calibrate(scores, scores), members


def compute_plain_ratios(scores: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Compute likelihood ratios by each patient's own shift, without the target's pair."""
    ratios = np.empty_like(scores)
    for first in range(0, len(scores), 2):
        pair = slice(first, first + 2)
        known, rest = np.delete(members, pair, axis=0), np.delete(scores, pair, axis=0)
        mean_in = (rest * known).sum(axis=0) / known.sum(axis=0)
        mean_out = (rest * ~known).sum(axis=0) / (~known).sum(axis=0)
        ratios[pair] = (mean_in - mean_out) * (scores[pair] - (mean_in + mean_out) / 2)
    return ratios


def keep_ratios(ratios: np.ndarray, members: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the ends of an interval whose resamples of patients keep their ratios."""
    drawn = rng.integers(PATIENTS, size=(RESAMPLES, PATIENTS))
    aucs = [compute_auc(ratios[:, p], members[:, p]) for p in drawn]
    return np.quantile(aucs, [0.025, 0.975])


def measure(shift: float, trials: int, seed: int) -> dict[str, Any]:
    """Attack simulated networks."""
    rng = np.random.default_rng(seed)
    figures = []
    for trial in range(trials):
        scores, members = simulate(shift, rng)
        attack = attack_all("elbo", "networks", scores, members, trial)
        plain = compute_auc(compute_plain_ratios(scores, members), members)
        kept = keep_ratios(compute_own_ratios(scores, members), members, rng)
        figures.append((attack.auc, plain, attack.auc_low, attack.auc_high, *kept, attack.p_value))
    auc, plain, low, high, kept_low, kept_high, p_value = np.array(figures).T
    truth = auc.mean()
    return {
        "shift": shift,
        "auc": round(float(truth), 4),
        "auc_of_plain_ratio": round(float(plain.mean()), 4),
        "standard_error": round(float(auc.std(ddof=1) / np.sqrt(trials)), 4),
        "interval_holds_truth": round(float(np.mean((low <= truth) & (truth <= high))), 3),
        "kept_interval_holds_truth": round(
            float(np.mean((kept_low <= truth) & (truth <= kept_high))), 3
        ),
        "found_at_5_percent": round(float(np.mean(p_value <= 0.05)), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200, help="simulations of each shift")
    parser.add_argument("--out", type=Path, default=RESULTS / "membership-simulation.json")
    arguments = parser.parse_args()
    results = {
        "benchmark": "membership",
        "environment": describe_machine(),
        "networks": NETWORKS,
        "patients": PATIENTS,
        "trials": arguments.trials,
        "rows": [measure(shift, arguments.trials, seed) for seed, shift in enumerate((0.0, SHIFT))],
    }
    write_atomic(arguments.out, (json.dumps(results, indent=1) + "\n").encode())
    print(json.dumps(results["rows"], indent=1))


if __name__ == "__main__":
    main()
