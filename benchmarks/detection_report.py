"""Tables and pictures of the runs of `detection.py`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detection_metrics import METRICS, RESAMPLED, compare, estimate_over_seeds, resample
from detector import Samples
from PIL import Image, ImageDraw

from vae_aug.data.atomic import write_atomic

DRAWS = 300
"""Bootstrap draws of patients."""

_INK, _TRUE, _FOUND = (20, 20, 20), (0, 200, 0), (255, 120, 0)

Run = Mapping[str, Any]


def write(folder: Path, tests: Mapping[str, Samples]) -> str:
    """Write `report.json`, `report.md`, `plot.png` and `detections.png`; return the Markdown.

    Raises:
        ValueError: If there is no run, or their settings differ.
    """
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("run-*.json"))]
    if not runs:
        raise ValueError(f"{folder} holds no run-*.json; run detection.py without --report-only.")
    if any(run["settings"] != runs[0]["settings"] for run in runs):
        raise ValueError(f"the runs in {folder} differ in their settings; keep them in folders.")
    rows = [
        row
        for test in tests
        for fraction in sorted({run["fraction"] for run in runs})
        for row in _summarize([run for run in runs if run["fraction"] == fraction], test)
    ]
    text = format_markdown(rows)
    report = {
        "benchmark": "detection",
        "settings": runs[0]["settings"],
        "has_patients": all(run["has_patients"] for run in runs),
        "method": "interval over seeds: Student's t; over patients: bootstrap of groups of the "
        f"test set, {DRAWS} draws, of the mean over seeds; p: two-sided paired t-test over seeds",
        "rows": rows,
    }
    write_atomic(folder / "report.json", (json.dumps(report, indent=1) + "\n").encode())
    write_atomic(folder / "report.md", text.encode())
    draw_plot(rows, folder / "plot.png")
    name, samples = next(iter(tests.items()))
    draw_detections(runs, name, samples, folder / "detections.png")
    return text


def _summarize(runs: Sequence[Run], test: str) -> list[dict[str, Any]]:
    """Make a row for each arm of one fraction and one test set."""
    arms: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for run in runs:
        arms[run["arm"]][run["seed"]] = run["tests"][test]
    flat = [(arm, seed) for arm, by_seed in arms.items() for seed in by_seed]
    drawn = resample([arms[arm][seed] for arm, seed in flat], DRAWS)
    place = {pair: index for index, pair in enumerate(flat)}
    rows = []
    for arm in sorted(arms, key=lambda name: (name != "real", name)):
        row: dict[str, Any] = {
            "test": test,
            "fraction": runs[0]["fraction"],
            "training_images": runs[0]["training_images"],
            "training_groups": runs[0]["training_groups"],
            "arm": arm,
            "seeds": sorted(arms[arm]),
            "metrics": {},
            "against": {},
        }
        for metric in METRICS:
            estimate = estimate_over_seeds([result[metric] for result in arms[arm].values()])
            columns = [place[arm, seed] for seed in arms[arm]]
            over = _interval(drawn, columns, metric)
            row["metrics"][metric] = {**estimate, "patients": over}
        for base in _list_bases(arm, arms):
            seeds = sorted(set(arms[base]) & set(arms[arm]))
            row["against"][base] = {
                metric: {
                    **compare(*([arms[a][s][metric] for s in seeds] for a in (base, arm))),
                    "seeds": len(seeds),
                    "patients": _interval(
                        drawn,
                        [place[arm, s] for s in seeds],
                        metric,
                        [place[base, s] for s in seeds],
                    ),
                }
                for metric in METRICS
            }
        rows.append(row)
    return rows


def _list_bases(arm: str, arms: Mapping[str, Mapping[int, Any]]) -> list[str]:
    """List what an arm is compared with: `real`, and its own classical part."""
    bases = ["real", "classical"] if arm.startswith("classical+") else ["real"]
    return [
        base for base in bases if base in arms and base != arm and arms[base].keys() & arms[arm]
    ]


def _interval(
    drawn: np.ndarray, columns: list[int], metric: str, minus: list[int] | None = None
) -> list[float] | None:
    """Return the central 95% of a metric's mean over runs, or of its difference to others'."""
    if metric not in RESAMPLED:
        return None
    values = drawn[:, :, RESAMPLED.index(metric)]
    means = values[:, columns].mean(1) - (values[:, minus].mean(1) if minus else 0.0)
    return [float(value) for value in np.nanquantile(means, [0.025, 0.975])]


def format_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the table: a line for each arm, mean and 95% interval over seeds."""
    lines = [
        "| test, share of training patients | arm | seeds | "
        + " | ".join(METRICS)
        + " | mAP50 against `real`: over seeds; over patients; p | against `classical` |",
        "| --- " * (len(METRICS) + 5) + "|",
    ]
    for row in rows:
        cells = [
            f"{row['test']}, {row['fraction']:.0%} ({row['training_images']} images)",
            f"`{row['arm']}`",
            str(len(row["seeds"])),
            *(_format_estimate(row["metrics"][metric]) for metric in METRICS),
            *(_format_difference(row["against"].get(base)) for base in ("real", "classical")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _format_estimate(value: Mapping[str, Any]) -> str:
    if value["low"] is None:
        return f"{value['mean']:.3f}"
    return f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


def _format_difference(values: Mapping[str, Mapping[str, Any]] | None) -> str:
    if values is None:
        return ""
    value = values["mAP50"]
    text = f"{value['mean']:+.3f}"
    if value["low"] is not None:
        text += f" ({value['low']:+.3f} to {value['high']:+.3f})"
    low, high = value["patients"]
    text += f"; ({low:+.3f} to {high:+.3f})"
    return text if value["p"] is None else f"{text}; p = {value['p']:.2g}"


def draw_plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw mAP50 of every row: a dot for the mean, a bar for the interval over seeds."""
    left, right, step = 330, 470, 26
    picture = Image.new("RGB", (left + right + 30, step * (len(rows) + 2)), "white")
    pen = ImageDraw.Draw(picture)
    for tick in np.linspace(0, 1, 6):
        x = left + tick * right
        pen.line([x, step, x, step * (len(rows) + 1)], fill=(220, 220, 220))
        pen.text((x - 8, step * (len(rows) + 1) + 4), f"{tick:.1f}", fill=_INK)
    pen.text((left, 4), "mAP50, mean and 95% interval over seeds", fill=_INK)
    for number, row in enumerate(rows, start=1):
        y, value = step * number + step / 2, row["metrics"]["mAP50"]
        name = f"{row['test']} {row['fraction']:.0%} {row['arm']} (n = {len(row['seeds'])})"
        pen.text((6, y - 6), name, fill=_INK)
        if value["low"] is not None:
            low, high = (left + right * min(max(value[key], 0), 1) for key in ("low", "high"))
            pen.line([low, y, high, y], fill=_FOUND, width=3)
        x = left + right * value["mean"]
        pen.ellipse([x - 4, y - 4, x + 4, y + 4], fill=_INK)
    picture.save(path)


def draw_detections(runs: Sequence[Run], test: str, samples: Samples, path: Path) -> None:
    """Draw the truth (green) and every arm's best boxes (orange), of its lowest seed.

    Of an image with M true boxes, the M best detections are drawn, or one if there is none.
    """
    fraction = min(run["fraction"] for run in runs)
    chosen: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: (run["seed"], run["arm"] != "real")):
        if run["fraction"] == fraction:
            chosen.setdefault(run["arm"], run)
    numbers = [int(key) for key in next(iter(chosen.values()))["tests"][test]["shown"]]
    side, head = samples.images.shape[1], 18
    page = Image.new("RGB", (side * len(chosen), (side + 2) * len(numbers) + head), "white")
    for column, (arm, run) in enumerate(chosen.items()):
        ImageDraw.Draw(page).text((column * side + 4, 3), arm, fill=_INK)
        for line, number in enumerate(numbers):
            picture = Image.fromarray(samples.images[number][..., 0]).convert("RGB")
            pen = ImageDraw.Draw(picture)
            truth = samples.boxes[number]
            for box in truth:
                pen.rectangle([*box[[1, 0, 3, 2]]], outline=_TRUE)
            found = run["tests"][test]["shown"][str(number)][: max(len(truth), 1)]
            for top, left, bottom, right, score, _ in found:
                pen.rectangle([left, top, right, bottom], outline=_FOUND)
                pen.text((left + 2, top + 1), f"{score:.2f}", fill=_FOUND)
            page.paste(picture, (column * side, head + line * (side + 2)))
    page.save(path)
