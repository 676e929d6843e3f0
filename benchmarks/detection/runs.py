"""The runs of a plan: a detector for each arm and seed, each in a file of its own."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import json
import multiprocessing
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.detection.arms import Arm, iterate_batches
from benchmarks.detection.detector import detect, make_detector, train_detector
from benchmarks.detection.metrics import METRICS, drop_tail, score
from benchmarks.detection.plans import Plan, choose_training_groups, make_tests
from benchmarks.detection.samples import Samples, Source, read_samples
from benchmarks.detection.variants import make_variants, make_view, train_ladder
from vae_aug.atomic import write_atomic

RUNS_A_PROCESS = 12
"""After so many runs a process is replaced: traced graphs are not all given back."""


def run_plan(
    plan: Plan,
    out: Path,
    processes: int,
    seeds: Sequence[int] | None = None,
    arms: Sequence[str] | None = None,
) -> None:
    """Run what is missing of a plan; finished runs are never repeated.

    Args:
        plan: What to run.
        out: Folder of the runs.
        processes: Number of processes, each on one core; 1 for this process, on all cores.
        seeds: Some of the plan's seeds; None for all.
        arms: Some of the plan's arms; None for all.

    Raises:
        ValueError: If a finished run was made with other settings, or the plan has no such arm.
    """
    if unknown := set(arms or ()) - set(plan.arms):
        raise ValueError(f"The plan has no arm {min(unknown)!r}, but {', '.join(plan.arms)}.")
    out.mkdir(parents=True, exist_ok=True)
    settings = plan.describe_settings()
    # Seeds outermost, so that an interrupted plan has as many of every arm.
    tasks = []
    for seed in range(plan.seeds) if seeds is None else seeds:
        for name in plan.arms if arms is None else arms:
            path = out / f"run-{Arm.parse(name).file_part}-{seed}.json"
            if path.is_file():
                check_settings(path, settings)
            else:
                tasks.append((plan, name, seed, path))
    if processes == 1:
        for task in tasks:
            print(_run(*task), flush=True)
        return
    with concurrent.futures.ProcessPoolExecutor(
        processes,
        multiprocessing.get_context("spawn"),
        initializer=_use_one_core,
        max_tasks_per_child=RUNS_A_PROCESS,
    ) as pool:
        for done in concurrent.futures.as_completed([pool.submit(_run, *task) for task in tasks]):
            print(done.result(), flush=True)


def _use_one_core() -> None:
    """Take one core: two processes finish more runs than one with two threads."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def check_settings(path: Path, settings: dict[str, Any]) -> None:
    """Raise `ValueError` if a finished run was made with other settings."""
    found = json.loads(path.read_text())["settings"]
    differing = [key for key in settings if found.get(key) != settings[key]]
    if differing:
        raise ValueError(
            f"{path} was made with other settings of {', '.join(differing)}; choose another --out."
        )


@functools.lru_cache(1)
def _read(key: str) -> Samples:
    """Read the data once a process; the key is a source as JSON, since it holds lists."""
    content = json.loads(key)
    content["files"] = tuple(content["files"])
    content["site"] = content["site"] and tuple(content["site"])
    return read_samples(Source(**content))


def _run(plan: Plan, arm_name: str, seed: int, path: Path) -> str:
    """Train and test a detector, write its file, and return what there is to say."""
    arm, training = Arm.parse(arm_name), plan.training
    whole = _read(json.dumps(dataclasses.asdict(plan.source)))
    trained = choose_training_groups(whole, training, seed)
    pool = whole.at_sites(training.sites)
    samples = pool.of_groups(trained)
    variants = _collect_variants(arm, pool, samples, plan, path.parent, seed)
    begin, curve = time.monotonic(), []
    model = make_detector(plan.source.size, len(whole.classes), seed)
    train_detector(
        model,
        iterate_batches(samples, arm, variants, training.batch_size, seed),
        training.steps,
        training.learning_rate,
        training.momentum,
        lambda step, loss: curve.append([step, round(loss, 4)]),
    )
    result = {
        "arm": arm.name,
        "seed": seed,
        "settings": plan.describe_settings(),
        "training_images": len(samples),
        "training_groups": len(trained),
        "groups": trained.tolist(),
        "has_patients": whole.has_patients,
        "seconds": round(time.monotonic() - begin),
        "curve": curve,
        "tests": _test(model, plan, whole, trained, path.parent),
    }
    # The weights first: whoever sees the result may rely on them.
    model.save_weights(path.with_suffix(".weights.h5"))
    write_atomic(path, json.dumps(result).encode())
    keras.backend.clear_session()
    figures = {
        name: round(test["mAP50"], 3) for name, test in result["tests"].items() if "|" not in name
    }
    return f"{path.stem}: mAP50 {figures}, {result['seconds']} s"


def _test(
    model: keras.Model, plan: Plan, whole: Samples, trained: np.ndarray, folder: Path
) -> dict[str, Any]:
    """Score a detector on all tests; of their views the metrics are kept, not the boxes."""
    results: dict[str, Any] = {}
    for name, test in make_tests(whole, plan.tests, trained).items():
        found = detect(model, test.images)
        results[name] = drop_tail(score(test, found)) | {"shown": list_shown(found)}
    for view in plan.views:
        shown = make_view(whole, view, folder)
        for name, test in make_tests(shown, plan.tests, trained).items():
            result = score(test, detect(model, test.images))
            results[f"{name}|{view}"] = {key: result[key] for key in (*METRICS, "images", "groups")}
    return results


def _collect_variants(
    arm: Arm, pool: Samples, samples: Samples, plan: Plan, folder: Path, seed: int
) -> list[np.ndarray]:
    """Return the variants of a run's images, for each part of its arm."""
    own = np.flatnonzero(np.isin(pool.groups, samples.groups))
    found = []
    for part in arm.parts:
        count = int(part.settings.get("count", plan.training.variants))
        if part.settings.get("ckpt") == "ladder":
            ladder = train_ladder(samples, folder / f"ladder-{seed}", plan.training.ladder_steps)
            part = dataclasses.replace(part, settings={**part.settings, "ckpt": str(ladder)})
            found.append(make_variants(part, samples, count, folder))
        else:
            found.append(make_variants(part, pool, count, folder)[:, own])
    return found


def list_shown(detections: Sequence[np.ndarray], count: int = 24) -> dict[int, list[list[float]]]:
    """Keep detections of a few images, evenly spread, for the page of pictures."""
    chosen = np.unique(np.linspace(0, len(detections) - 1, count).round().astype(int))
    return {int(i): np.round(detections[i], 4).astype(float).tolist() for i in chosen}
