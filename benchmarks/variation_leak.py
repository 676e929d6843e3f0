"""How much variations of some settings tell of whom they were trained on, and how good they are.

    .venv/bin/python -m benchmarks.permitted --data DATA --out RECORDS --unseen
    .venv/bin/python -m benchmarks.variation_leak RECORDS/ibsi_sts ... --out JSON \
        --settings '{"steps": 1600, "jitter": 1.0}' [--networks 6] [--ckpt demo]

Networks are trained on halves of the patients, without canaries and other controls, which
`vae-aug evaluate membership` has: this is for choosing settings, not for judging a checkpoint.
Called again, it trains the networks that are missing in the file. ADR 30 has the plan.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from vae_aug.atomic import write_atomic
from vae_aug.config import VariationConfig
from vae_aug.evaluate.attacked import Variation
from vae_aug.evaluate.lira import (
    Attack,
    attack_all,
    attack_one,
    calibrate,
    compute_ratios,
    draw_halves,
    estimate,
)
from vae_aug.model.checkpoint import load_checkpoint
from vae_aug.train.pairs import train_transformation
from vae_aug.train.recipe import Recipe
from vae_aug.train.references import open_patients

LEAST = 6
"""Networks from which on they can be attacked."""

DIGITS = 6
"""Of the scores in the file."""


def score_network(
    variation: Variation, config: VariationConfig, members: np.ndarray, seed: int
) -> dict[str, list[float]]:
    """Train a network on some patients, and score all of them.

    Args:
        variation: The images of all patients.
        config: The settings.
        members: `[P] bool`, whom it is trained on.
        seed: Of weights, pairs and noise.

    Returns:
        A score of each patient, by the names of `Variation.scores`.
    """
    variation.start(seed)
    train_transformation(
        variation.squares,
        variation.pair_members(members),
        dataclasses.replace(config, seed=seed),
        network=variation.network,
    )
    scores = variation.score()
    return {name: np.round(values, DIGITS).tolist() for name, values in scores.items()}


def summarize(scores: dict[str, np.ndarray], members: np.ndarray) -> dict[str, Any]:
    """Attack the networks by `elbo`, and average what transformed images lack to their partners.

    Args:
        scores: `[N, P]` each.
        members: `[N, P] bool`.

    Returns:
        `auc` with its interval and p, if there are networks enough; `tone` and `pattern`, each of
        `members` and `others`, lower if better.
    """
    found: dict[str, Any] = {}
    if len(members) >= LEAST:
        elbo = calibrate(scores["elbo"], scores["elbo"])
        found = describe(attack_all("elbo", "networks", elbo, members, seed=0))
    for name in ("tone", "pattern"):
        lacking = {"members": -scores[name][members], "others": -scores[name][~members]}
        found[name] = {whose: float(values.mean()) for whose, values in lacking.items()}
    return found


def attack_checkpoint(
    name: str, variation: Variation, keys: list[str], elbo: np.ndarray, members: np.ndarray
) -> dict[str, Any]:
    """Attack the variation of a checkpoint with the help of all networks.

    Args:
        name: The checkpoint.
        variation: The images of all patients.
        keys: `P` names of patients, of `open_patients`.
        elbo: `[N, P]`, the networks' scores.
        members: `[N, P] bool`, whom they were trained on.

    Returns:
        `auc` with its interval and p; `members` and `others`, numbers of patients.
    """
    network = load_checkpoint(name)
    own = np.array([key.removeprefix("patient ") in network.patients for key in keys])
    reference = estimate(calibrate(elbo, elbo), members)
    scores = calibrate(variation.score_target(network)["elbo"], elbo)
    ratios = compute_ratios(scores, reference)
    attack = attack_one("elbo", "checkpoint", ratios, own, np.ones_like(own))
    return {**describe(attack), "members": attack.members, "others": attack.others}


def describe(attack: Attack) -> dict[str, float]:
    return {name: getattr(attack, name) for name in ("auc", "auc_low", "auc_high", "p_value")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", nargs="+", help="folders of records, all splits of which count")
    parser.add_argument("--out", type=Path, required=True, help="JSON file, which is continued")
    parser.add_argument("--settings", type=json.loads, default={}, help="of VariationConfig, JSON")
    parser.add_argument("--networks", type=int, default=8, help="even number")
    parser.add_argument("--limit", type=int, default=3, help="images of a patient at most")
    parser.add_argument("--seed", type=int, default=0, help="of the halves")
    parser.add_argument(
        "--ckpt", help="a checkpoint that is attacked with the help of the networks"
    )
    arguments = parser.parse_args()
    config = VariationConfig.from_dict(arguments.settings)
    patients = open_patients(arguments.records, arguments.limit)
    count = len(patients.keys)
    halves = draw_halves(arguments.networks, count, np.random.default_rng(arguments.seed))
    head = {
        "benchmark": "variation leak",
        "settings": config.to_dict(),
        "patients": count,
        **{name: getattr(arguments, name) for name in ("networks", "limit", "seed")},
    }
    rows: list[dict[str, list[float]]] = []
    if arguments.out.is_file():
        former = json.loads(arguments.out.read_text())
        if {key: former[key] for key in head} != head:
            parser.error(f"{arguments.out} is of other settings")
        rows = former["scores"]
    variation = Variation(Recipe(variation=config), patients, np.zeros(count, bool))

    def write(**found: Any) -> None:
        text = json.dumps({**head, "found": found, "scores": rows}) + "\n"
        write_atomic(arguments.out, text.encode())
        print(len(rows), json.dumps(found), flush=True)

    for number in range(len(rows), arguments.networks):
        rows.append(score_network(variation, config, halves[number], seed=1000 + number))
        write()
    scores = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    found = summarize(scores, halves)
    if arguments.ckpt:
        found["checkpoint"] = attack_checkpoint(
            arguments.ckpt, variation, patients.keys, scores["elbo"], halves
        )
    write(**found)


if __name__ == "__main__":
    main()
