"""What a detector's boxes are worth: COCO's precision and sensitivity, also for other patients.

Everything at an IoU of 0.5 follows from `matches`: for every image and class, how many true boxes
there are, and the scores of detections and which of them hit. A draw of patients is a weight for
each patient, so a thousand draws of a run are one product of matrices, not a thousand evaluations.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

if TYPE_CHECKING:
    from benchmarks.detection.samples import Samples

LIMITS = (1, 4)
"""False positives per image at which sensitivity is measured."""

METRICS = ("mAP50", "mAP50:95", *(f"sensitivity at {limit}" for limit in LIMITS))
"""What `score` measures; the sensitivities are shares of all true boxes, found at IoU 0.5."""

PATIENT_METRICS = tuple(f"sensitivity per patient at {limit}" for limit in LIMITS)
"""The share of a patient's true boxes that is found, averaged over the patients who have any."""

RESAMPLED = ("mAP50", *METRICS[2:], *PATIENT_METRICS)
"""What `resample` measures: all that follows from matches at an IoU of 0.5."""

_RECALLS = np.linspace(0, 1, 101)
"""Where COCO reads precision."""

Match = Mapping[str, Any]


def score(samples: Samples, detections: Sequence[np.ndarray]) -> dict[str, Any]:
    """Compare detections with the truth by pycocotools.

    Args:
        samples: The truth.
        detections: Of `detector.detect`, an `[M, 6]` for each image: top, left, bottom, right in
            pixels, score, label.

    Returns:
        The metrics, and under `"matches"`, for every image and class that has truth or detections,
        its number, group, class, number of true boxes, and scores and hits (at IoU 0.5) of
        detections.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _make_truth(samples)
        evaluation = COCOeval(truth, _make_found(truth, detections), "bbox")
        evaluation.params.maxDets = [max(1, *(len(rows) for rows in detections))]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]
    matches = [
        {
            "image": int(entry["image_id"]),
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


def drop_tail(result: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the detections that neither a measure nor a page of pictures depends on.

    What scores below the last hit lowers no precision and raises no sensitivity. It is most of what
    a detector puts out, and of the size of a run's file.

    Args:
        result: Of `score`.

    Returns:
        The result, without detections that score below the last hit and are not among the false
        positives, one an image, that the page shows.
    """
    pairs = [pair for m in result["matches"] for pair in zip(m["scores"], m["hits"], strict=True)]
    false = sorted((score for score, hit in pairs if not hit), reverse=True)
    least = min((score for score, hit in pairs if hit), default=float("inf"))
    least = min([least, *false[result["images"] : result["images"] + 1]])
    matches = []
    for match in result["matches"]:
        kept = [place for place, score in enumerate(match["scores"]) if score >= least]
        matches.append({**match, **{k: [match[k][i] for i in kept] for k in ("scores", "hits")}})
    return {**result, "matches": matches}


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


def _make_found(truth: COCO, detections: Sequence[np.ndarray]) -> COCO:
    rows = [
        _to_coco(i, row, row[5], float(row[4])) for i, rows in enumerate(detections) for row in rows
    ]
    if rows:
        return truth.loadRes(rows)
    # `loadRes` fails on an empty list, and a detector may find nothing under heavy noise.
    found = COCO()
    found.dataset = {**truth.dataset, "annotations": []}
    found.createIndex()
    return found


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


@dataclasses.dataclass(frozen=True)
class _Pool:
    """Detections of all images, best first, as far as measures depend on them.

    Between two hits precision only falls, so of false positives it is enough to know how many of
    each patient come before each hit.

    Attributes:
        owners: `[K] int`, the patient of each hit, as an index into the patients.
        false: `[K, P] float64`, false positives of each patient with a higher score than the hit.
        truths: `[P] float64`, true boxes of each patient.
    """

    owners: np.ndarray
    false: np.ndarray
    truths: np.ndarray

    @classmethod
    def collect(cls, matches: Sequence[Match], patients: np.ndarray) -> _Pool:
        """Collect matches; `patients` are the sorted numbers `[P]` of theirs, or more."""
        places = np.searchsorted(patients, [m["group"] for m in matches])
        lengths = [len(m["scores"]) for m in matches]
        scores = np.concatenate([np.zeros(0), *(m["scores"] for m in matches)])
        hits = np.concatenate([np.zeros(0), *(m["hits"] for m in matches)]) > 0
        # Stable, so that equal scores keep the order of images, as in pycocotools.
        order = np.argsort(-scores, kind="stable")
        owners, hits = np.repeat(places, lengths).astype(int)[order], hits[order]
        false = np.zeros((int(hits.sum()) + 1, len(patients)))
        np.add.at(false, (np.cumsum(hits)[~hits], owners[~hits]), 1.0)
        truths = np.zeros(len(patients))
        np.add.at(truths, places.astype(int), [float(m["truths"]) for m in matches])
        return cls(owners[hits], np.cumsum(false[:-1], axis=0), truths)

    def measure_precision(self, weights: np.ndarray) -> np.ndarray:
        """Measure average precision for weights `[D, P]` of patients: `[D]`, NaN without truth."""
        truths = weights @ self.truths
        if not len(self.owners):
            return np.where(truths > 0, 0.0, np.nan)
        found = np.cumsum(weights[:, self.owners], axis=1)
        false = weights @ self.false.T
        precision = found / np.maximum(found + false, 1.0)
        # The best precision at this recall or a higher one.
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        # A hit answers for the recalls that are reached by it and by none before it.
        recall = found / np.maximum(truths, 1.0)[:, None]
        reached = np.searchsorted(_RECALLS, recall, side="right")
        counts = np.diff(reached, axis=1, prepend=0)
        average = np.einsum("dk,dk->d", counts, envelope) / len(_RECALLS)
        return np.where(truths > 0, average, np.nan)

    def measure_sensitivity(
        self, weights: np.ndarray, images: np.ndarray
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Measure sensitivity at the `LIMITS` over boxes, and averaged over patients, `[D]` each.

        Args:
            weights: `[D, P]`.
            images: `[D]`, number of images of the patients drawn.
        """
        false, shares = weights @ self.false.T, weights[:, self.owners]
        with np.errstate(invalid="ignore", divide="ignore"):
            truths, patients = weights @ self.truths, weights @ (self.truths > 0)
            over_boxes, over_patients = [], []
            for limit in LIMITS:
                counted = shares * (false <= limit * images[:, None])
                over_boxes.append(counted.sum(1) / truths)
                over_patients.append((counted / self.truths[self.owners]).sum(1) / patients)
        return over_boxes, over_patients


def weigh(result: Mapping[str, Any], patients: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Measure a run's test with weights of its patients.

    Args:
        result: Of `score`.
        patients: `[P]`, sorted numbers of patients, those of the result among them.
        weights: `[D, P]`, how often each patient counts.

    Returns:
        `[D, 5] float64`: the metrics of `RESAMPLED`; NaN where no patient with a true box is drawn.
    """
    weights = np.asarray(weights, np.float64)
    matches, groups = result["matches"], np.asarray(result["groups"])
    counts = np.bincount(np.searchsorted(patients, groups), minlength=len(patients))
    whole = _Pool.collect(matches, patients)
    labels = sorted({m["class"] for m in matches})
    classes = [
        _Pool.collect([m for m in matches if m["class"] == label], patients)
        if len(labels) > 1
        else whole
        for label in labels
    ]
    over_boxes, over_patients = whole.measure_sensitivity(weights, weights @ counts)
    average = _average_classes([pool.measure_precision(weights) for pool in classes], len(weights))
    return np.stack([average, *over_boxes, *over_patients], axis=1)


def _average_classes(values: Sequence[np.ndarray], draws: int) -> np.ndarray:
    """Average over the classes that have a true box in a draw."""
    table = np.asarray(values).reshape(len(values), draws)
    known = ~np.isnan(table)
    with np.errstate(invalid="ignore"):
        return np.where(known, table, 0.0).sum(0) / known.sum(0)


def compute_average_precision(matches: Sequence[Match]) -> float:
    """Compute COCO's average precision at IoU 0.5: mean over 101 recalls, then over classes.

    Returns:
        In [0, 1]; NaN if there is no true box.
    """
    return _measure_once(matches, images=1)["mAP50"]


def measure_sensitivity(matches: Sequence[Match], images: int) -> dict[str, float]:
    """Measure the share of true boxes found before 1 and 4 false positives per image are passed."""
    measured = _measure_once(matches, images)
    return {name: measured[name] for name in METRICS[2:]}


def measure_per_patient(result: Mapping[str, Any]) -> dict[str, float]:
    """Measure the `PATIENT_METRICS` of a result of `score`."""
    measured = _measure_once(result["matches"], result["images"])
    return {name: measured[name] for name in PATIENT_METRICS}


def _measure_once(matches: Sequence[Match], images: int) -> dict[str, float]:
    """Measure with every patient counted once; which patient has how many images is no matter."""
    patients = np.unique([m["group"] for m in matches])
    result = {"matches": matches, "groups": np.repeat(patients[:1], images)}
    values = weigh(result, patients, np.ones((1, len(patients))))[0]
    return dict(zip(RESAMPLED, values.tolist(), strict=True))


def list_patients(results: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """List the patients of several runs' tests, sorted: `[P] int`."""
    return np.unique(np.concatenate([np.asarray(result["groups"]) for result in results]))


def resample(results: Sequence[Mapping[str, Any]], draws: int, seed: int = 0) -> np.ndarray:
    """Measure again with patients drawn with replacement, the same for all results.

    The results may have been tested on different patients, as where every seed leaves its own
    training patients out: a draw is made of all patients, and a result has its share of it.

    Args:
        results: Of `score`, all of one test.
        draws: Number of draws.
        seed: Of the draws.

    Returns:
        `[draws, R, 5] float64`: the metrics of `RESAMPLED`.
    """
    patients = list_patients(results)
    even = np.full(len(patients), 1 / len(patients))
    weights = np.random.default_rng(seed).multinomial(len(patients), even, draws)
    return np.stack([weigh(result, patients, weights) for result in results], axis=1)
