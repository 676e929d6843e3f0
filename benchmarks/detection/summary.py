"""What finished runs say, as `report.json` has it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.detection.inference import (
    MixedModel,
    Scores,
    adjust_holm,
    compare,
    decide,
    estimate,
    select_planned,
)
from benchmarks.detection.metrics import (
    METRICS,
    PATIENT_METRICS,
    RESAMPLED,
    list_patients,
    measure_per_patient,
    resample,
)
from benchmarks.detection.tables import write_headline
from vae_aug.json_values import make_json

if TYPE_CHECKING:
    from benchmarks.detection.plans import Plan

DRAWS = 500
"""Bootstrap draws of patients."""

BASES = ("real", "classical", "strong")
"""What every arm after them is compared with."""

Run = Mapping[str, Any]

_METHOD = (
    "Arms are paired by seed; all arms of a seed share training patients, initial weights and "
    "order of images. Interval over seeds: Student's t. Interval over seeds and patients: "
    f"bootstrap of both, {DRAWS} draws, the same patients in all arms and seeds, widened for few "
    "of either; it is the one that carries over to other patients. p: two-sided paired t-test of "
    "mAP50 over seeds; Holm: adjusted over all comparisons of a test but the primary one. Mixed "
    "model: arm fixed, seed random, REML."
)
_PLANNED = (
    "Seeds beyond the plan do not enter its primary comparison; if it stays unknown, further seeds "
    "need a new plan, which does not count these."
)
_UNPLANNED = (
    "No plan fixed the number of seeds before the runs: whoever adds seeds until a verdict "
    "pleases will find one."
)


def summarize(runs: Sequence[Run], plan: Plan | None, margin: float) -> dict[str, Any]:
    """Summarise runs as `report.json` has it.

    Raises:
        ValueError: If a test has no true box.
    """
    names = [name for name in dict.fromkeys(n for run in runs for n in run["tests"])]
    plain = [name for name in names if "|" not in name]
    interim = plan is not None and _count_primary(runs, plan) < plan.seeds
    report: dict[str, Any] = {
        "benchmark": "detection",
        "settings": runs[0]["settings"],
        "has_patients": all(run["has_patients"] for run in runs),
        "plan": plan and {**dataclasses.asdict(plan.primary), "seeds": plan.seeds},
        "done": _count_primary(runs, plan) if plan else None,
        "interim": interim,
        "margin": margin,
        "method": f"{_METHOD} {_PLANNED if plan else _UNPLANNED}",
        "seconds": float(np.mean([run["seconds"] for run in runs])),
        "tests": {name: _summarize_test(runs, name, plan, margin, interim) for name in plain},
        "corruptions": {
            name: _summarize_corruptions(runs, name, names, interim)
            for name in plain
            if any(other.startswith(f"{name}|") for other in names)
        },
    }
    report["headline"] = write_headline(report)
    return make_json(report)


def _count_primary(runs: Sequence[Run], plan: Plan) -> int:
    """Count the planned seeds that the primary comparison has."""
    primary = plan.primary
    have = {
        (run["arm"], run["seed"])
        for run in runs
        if primary.test in run["tests"] and run["seed"] < plan.seeds
    }
    both = [{seed for arm, seed in have if arm == name} for name in (primary.arm, primary.against)]
    return len(both[0] & both[1])


def _summarize_test(
    runs: Sequence[Run], test: str, plan: Plan | None, margin: float, interim: bool
) -> dict[str, Any]:
    """Summarise one test: arms, differences, mixed model."""
    tested = [run for run in runs if test in run["tests"]]
    results = [run["tests"][test] for run in tested]
    if not any(match["truths"] for result in results for match in result["matches"]):
        raise ValueError(f"the test {test!r} has no true box, so nothing can be found in it.")
    scores = _collect_scores(tested, test)
    arms = {}
    for name, seeds in {arm: each.seeds for arm, each in scores["mAP50"].items()}.items():
        own = [run for run in tested if run["arm"] == name]
        arms[name] = {
            "seeds": seeds,
            "training_images": float(np.mean([run["training_images"] for run in own])),
            "training_groups": float(np.mean([run["training_groups"] for run in own])),
            "metrics": {metric: estimate(by[name].values) for metric, by in scores.items()},
        }
    primary = (plan.primary.arm, plan.primary.against) if plan else None
    differences = []
    for pair in list_pairs(list(arms), primary):
        decides = plan is not None and pair == primary and test == plan.primary.test
        differences.append(_summarize_pair(scores, pair, plan.seeds if decides else None))
    differences = [entry for entry in differences if entry["metrics"]]
    _judge(differences, margin, interim)
    return {
        "images": float(np.mean([result["images"] for result in results])),
        "patients": len(list_patients(results)),
        "arms": arms,
        "differences": differences,
        "mixed_model": _summarize_mixed(scores["mAP50"], differences, interim),
    }


def _collect_scores(runs: Sequence[Run], test: str) -> dict[str, dict[str, Scores]]:
    """Collect the scores of each metric and arm, with patients drawn anew."""
    results = [run["tests"][test] for run in runs]
    drawn, patients = resample(results, DRAWS), len(list_patients(results))
    measured = [{**result, **measure_per_patient(result)} for result in results]
    scores: dict[str, dict[str, Scores]] = {}
    for metric in (*METRICS, *PATIENT_METRICS):
        scores[metric] = {}
        for arm in dict.fromkeys(run["arm"] for run in runs):
            places = [n for n, run in enumerate(runs) if run["arm"] == arm]
            scores[metric][arm] = Scores(
                seeds=tuple(runs[n]["seed"] for n in places),
                values=np.array([measured[n][metric] for n in places], np.float64),
                drawn=drawn[:, places, RESAMPLED.index(metric)] if metric in RESAMPLED else None,
                patients=patients,
            )
    return scores


def _summarize_pair(
    scores: Mapping[str, Mapping[str, Scores]], pair: tuple[str, str], planned: int | None
) -> dict[str, Any]:
    """Compare two arms in all metrics; no metrics if no seed is common."""
    arm, base = pair
    metrics = {}
    for metric, by_arm in scores.items():
        first, second = by_arm[base], by_arm[arm]
        if planned is not None:
            first, second = select_planned(first, planned), select_planned(second, planned)
        if set(first.seeds) & set(second.seeds):
            metrics[metric] = compare(first, second)
    return {
        "arm": arm,
        "base": base,
        "primary": planned is not None,
        "rivalry": needs_vae(arm) and not needs_vae(base) and base != "real",
        "metrics": metrics,
    }


def _judge(differences: Sequence[dict[str, Any]], margin: float, interim: bool) -> None:
    """Add the adjusted p and the verdict of mAP50; in an interim report there is no p at all."""
    secondary = [entry for entry in differences if not entry["primary"]]
    adjusted = adjust_holm([entry["metrics"]["mAP50"]["p"] for entry in secondary])
    for entry in differences:
        entry |= {"holm": None, "verdict": None}
    for entry, p in zip(secondary, adjusted, strict=True):
        entry["holm"] = p
    for entry in differences:
        found = entry["metrics"]["mAP50"]
        if not interim:
            verdict = decide(
                found,
                margin,
                adjusted=entry["holm"],
                tests=1 if entry["primary"] else len(secondary),
            )
            entry["verdict"] = dataclasses.asdict(verdict)
        for metric, values in entry["metrics"].items():
            # One metric is tested; the others have intervals, and no p to choose among.
            if interim or metric != "mAP50":
                values["p"] = None
        if interim:
            entry["holm"] = None


def _summarize_mixed(
    scores: Mapping[str, Scores], differences: Sequence[Mapping[str, Any]], interim: bool
) -> dict[str, Any] | None:
    """Fit the mixed model, and read the listed differences from it."""
    model = MixedModel.fit(scores)
    if model is None:
        return None
    rows = []
    for entry in differences:
        found = model.compare(entry["base"], entry["arm"])
        rows.append({"arm": entry["arm"], "base": entry["base"], **found})
        if interim:
            rows[-1]["p"] = None
    return {**dataclasses.asdict(model), "differences": rows}


def split_arm(arm: str) -> frozenset[str]:
    """Split an arm's name into its parts; `real` has none."""
    return frozenset(() if arm == "real" else arm.split("+"))


def is_learned(part: str) -> bool:
    """Tell whether a part of an arm needs a VAE."""
    kind, _, options = part.partition(":")
    return kind in ("sample", "interpolate") or (kind == "restored" and "by=filter" not in options)


def needs_vae(arm: str) -> bool:
    """Tell whether any part of an arm needs a VAE."""
    return any(map(is_learned, split_arm(arm)))


def rank_arm(arm: str) -> tuple:
    """Order arms: the bases, others without a VAE, those with one."""
    place = BASES.index(arm) if arm in BASES else len(BASES)
    return place, needs_vae(arm), arm


def list_pairs(arms: Sequence[str], primary: tuple[str, str] | None) -> list[tuple[str, str]]:
    """List the differences of a report, as pairs of arm and base.

    Every arm is compared with the bases before it; an arm with a VAE also with what is left of it
    without the VAE, and with what could stand in the VAE's place: the hand-written style, or noise
    without restoring, or a filter.
    """
    by_parts = {split_arm(arm): arm for arm in arms}
    ordered, pairs = sorted(arms, key=rank_arm), dict.fromkeys([primary] if primary else [])
    for place, arm in enumerate(ordered):
        bases = [base for base in BASES if base in ordered[:place]]
        parts = split_arm(arm)
        rest = frozenset(part for part in parts if not is_learned(part))
        if rest != parts:
            rivals = ((), ("style",), ("noisy",), ("restored:by=filter",))
            bases += [by_parts[rest | set(r)] for r in rivals if rest | set(r) in by_parts]
        pairs |= dict.fromkeys((arm, base) for base in bases)
    return [pair for pair in pairs if set(pair) <= set(arms)]


def _summarize_corruptions(
    runs: Sequence[Run], test: str, names: Sequence[str], interim: bool
) -> dict[str, Any]:
    """Summarise the views of a test: clean score P, mean under corruption mPC, rPC = mPC / P.

    A view is `corruption:strength`, with the restorer before the detector behind `>`. mPC is the
    mean over corruptions of the mean over strengths.
    """
    views: dict[str, dict[str, list[str]]] = {}
    for name in names:
        if name.startswith(f"{test}|"):
            corruption, _, restorer = name.removeprefix(f"{test}|").partition(">")
            if corruption:
                views.setdefault(restorer, {}).setdefault(corruption.split(":")[0], []).append(name)
    rows: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for run in runs:
        for restorer, kinds in views.items():
            clean = f"{test}|>{restorer}" if restorer else test
            if all(name in run["tests"] for of in ([clean], *kinds.values()) for name in of):
                measured = _measure_robustness(run["tests"], clean, kinds)
                rows.setdefault((run["arm"], restorer), {})[run["seed"]] = measured
    return _compare_corruptions(rows, interim)


def _measure_robustness(
    tests: Mapping[str, Mapping[str, Any]], clean: str, kinds: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Measure P, mPC and rPC of a run; rPC is NaN where nothing is found in clean images."""
    by = {kind: float(np.mean([tests[name]["mAP50"] for name in of])) for kind, of in kinds.items()}
    score, mean = tests[clean]["mAP50"], float(np.mean(list(by.values())))
    return {"P": score, "mPC": mean, "rPC": mean / score if score else float("nan"), "by": by}


def _compare_corruptions(
    rows: Mapping[tuple[str, str], Mapping[int, Mapping[str, Any]]], interim: bool
) -> dict[str, Any]:
    """Estimate each row, and its mPC less that of the plainest arm without a restorer."""
    plain = [arm for arm, restorer in rows if not restorer]
    base = next((arm for arm in ("classical", "real", *plain) if arm in plain), None)
    listed = []
    for (arm, restorer), seeds in rows.items():
        found = list(seeds.values())
        row = {"arm": arm, "restorer": restorer, "seeds": sorted(seeds), "difference": None}
        row |= {key: estimate([each[key] for each in found]) for key in ("P", "mPC", "rPC")}
        row["by"] = {
            key: float(np.mean([each["by"][key] for each in found])) for key in found[0]["by"]
        }
        if base is not None and (arm, restorer) != (base, ""):
            first, second = (
                Scores(tuple(each), np.array([each[seed]["mPC"] for seed in each]))
                for each in (rows[base, ""], seeds)
            )
            if set(first.seeds) & set(second.seeds):
                row["difference"] = compare(first, second)
        listed.append(row)
    compared = [row["difference"] for row in listed if row["difference"]]
    for entry, p in zip(compared, adjust_holm([e["p"] for e in compared]), strict=True):
        entry["p"], entry["holm"] = (None, None) if interim else (entry["p"], p)
    return {"base": base, "rows": listed}
