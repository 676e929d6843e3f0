"""What a detector's boxes are worth, and how sure that is."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detector import Samples
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import stats

METRICS = ("mAP50", "mAP50:95", "sensitivity at 1", "sensitivity at 4")
"""The last two: share of the boxes found (IoU 0.5) at so many false positives per image."""

RESAMPLED = tuple(name for name in METRICS if name != "mAP50:95")
"""What `resample` knows: all that follows from matches at an IoU of 0.5."""

Match = Mapping[str, Any]


def score(samples: Samples, detections: Sequence[np.ndarray]) -> dict[str, Any]:
    """Compare detections with the truth by pycocotools.

    Args:
        samples: The truth.
        detections: Of `detector.detect`, an `[M, 6]` for each image.

    Returns:
        The metrics, and under `"matches"`, for every image and class that has truth or detections,
        its group, class, number of true boxes, and scores and hits (at IoU 0.5) of detections.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _make_truth(samples)
        rows = [(i, row) for i, rows in enumerate(detections) for row in rows]
        found = truth.loadRes([_to_coco(i, row, row[5], float(row[4])) for i, row in rows])
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.maxDets = [max(len(rows) for rows in detections)]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]
    matches = [
        {
            "group": int(samples.groups[entry["image_id"]]),
            "class": int(entry["category_id"]),
            "truths": len(entry["gtIds"]),
            "scores": [round(float(value), 5) for value in entry["dtScores"]],
            "hits": [int(value > 0) for value in entry["dtMatches"][0]],
        }
        for entry in evaluation.evalImgs
        if entry is not None
    ]
    return {
        "mAP50": _mean_valid(precision[0]),
        "mAP50:95": _mean_valid(precision),
        **measure_sensitivity(matches, len(samples)),
        "images": len(samples),
        "groups": samples.groups.tolist(),
        "matches": matches,
    }


def _mean_valid(precision: np.ndarray) -> float:
    return float(precision[precision > -1].mean()) if (precision > -1).any() else float("nan")


def _make_truth(samples: Samples) -> COCO:
    pairs = [
        (i, box, label)
        for i, (boxes, labels) in enumerate(zip(samples.boxes, samples.labels, strict=True))
        for box, label in zip(boxes, labels, strict=True)
    ]
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": i} for i in range(len(samples))],
        "categories": [{"id": i, "name": name} for i, name in enumerate(samples.classes)],
        # Numbers from 1: COCOeval takes a match with number 0 for none.
        "annotations": [{**_to_coco(*pair), "id": n} for n, pair in enumerate(pairs, start=1)],
    }
    truth.createIndex()
    return truth


def _to_coco(image: int, box: np.ndarray, label: float, score: float = 1.0) -> dict[str, Any]:
    top, left, bottom, right = (float(value) for value in box[:4])
    return {
        "image_id": image,
        "category_id": int(label),
        "bbox": [left, top, right - left, bottom - top],
        "area": (right - left) * (bottom - top),
        "iscrowd": 0,
        "score": score,
    }


def _pool(matches: Sequence[Match]) -> tuple[np.ndarray, int]:
    """Return hits of all detections, best first, and the number of true boxes."""
    scores = np.concatenate([np.asarray(m["scores"], np.float64) for m in matches])
    hits = np.concatenate([np.asarray(m["hits"], np.int64) for m in matches])
    return hits[np.argsort(-scores, kind="stable")], sum(m["truths"] for m in matches)


def compute_average_precision(matches: Sequence[Match]) -> float:
    """Compute COCO's average precision at IoU 0.5: mean over 101 recalls, then over classes.

    Returns:
        In [0, 1]; NaN if there is no true box.
    """
    values = []
    for label in {m["class"] for m in matches}:
        hits, truths = _pool([m for m in matches if m["class"] == label])
        if not truths:
            continue
        found = np.cumsum(hits)
        precision = found / np.arange(1, len(hits) + 1)
        # The best precision at this recall or a higher one.
        envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        places = np.searchsorted(found / truths, np.linspace(0, 1, 101), side="left")
        values.append(envelope[places].mean())
    return float(np.mean(values)) if values else float("nan")


def measure_sensitivity(matches: Sequence[Match], images: int) -> dict[str, float]:
    """Measure the share of true boxes found before 1 and 4 false positives per image are passed."""
    if not sum(m["truths"] for m in matches):
        return {f"sensitivity at {limit}": float("nan") for limit in (1, 4)}
    hits, truths = _pool(matches)
    false = np.cumsum(1 - hits)
    return {
        f"sensitivity at {limit}": float(hits[false <= limit * images].sum() / truths)
        for limit in (1, 4)
    }


def resample(results: Sequence[Mapping[str, Any]], draws: int, seed: int = 0) -> np.ndarray:
    """Measure again with patients drawn with replacement, the same for all results.

    Args:
        results: Of `score`, all of one split.
        draws: Number of draws.
        seed: Of the draws.

    Returns:
        `[draws, R, 3] float64`: the metrics of `RESAMPLED`.
    """
    groups = np.asarray(results[0]["groups"])
    names, counts = np.unique(groups, return_counts=True)
    sorted_matches = [
        {name: [m for m in result["matches"] if m["group"] == name] for name in names}
        for result in results
    ]
    generator, values = np.random.default_rng(seed), []
    for _ in range(draws):
        drawn = generator.integers(0, len(names), len(names))
        images = int(counts[drawn].sum())
        values.append(
            [_measure_drawn(by_group, names[drawn], images) for by_group in sorted_matches]
        )
    return np.asarray(values)


def _measure_drawn(
    by_group: Mapping[int, list[Match]], drawn: np.ndarray, images: int
) -> list[float]:
    matches = [m for name in drawn for m in by_group[name]]
    sensitivity = measure_sensitivity(matches, images)
    return [compute_average_precision(matches), *sensitivity.values()]


def estimate_over_seeds(values: Sequence[float]) -> dict[str, float | None]:
    """Estimate a mean and its 95% interval by Student's t; no interval of a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return {"mean": mean, "low": None, "high": None}
    half = float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def compare(first: Sequence[float], second: Sequence[float]) -> dict[str, float | None]:
    """Compare two arms seed by seed: `second - first`, with Student's paired t-test, two-sided."""
    differences = np.subtract(second, first)
    p = None
    if len(differences) > 1 and np.ptp(differences) > 0:
        p = float(stats.ttest_rel(second, first).pvalue)
    return {**estimate_over_seeds(differences), "p": p}
