"""A report of finished runs: tables, forest plot, page of detections; and figures for `docs`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.detection.inference import MARGIN
from benchmarks.detection.pictures import draw_curves, draw_detections, draw_forest
from benchmarks.detection.summary import Run, rank_arm, summarize
from benchmarks.detection.tables import format_markdown, list_figures
from vae_aug.atomic import write_atomic

if TYPE_CHECKING:
    from benchmarks.detection.plans import Plan
    from benchmarks.detection.samples import Samples

FindTests = Callable[[Run], Mapping[str, "Samples"]]

_FIELDS = (
    *("arm", "seed", "settings", "tests", "groups", "has_patients", "seconds"),
    *("training_images", "training_groups", "curve"),
)
"""What is read of a run."""


def write(
    folders: Path | Sequence[Path],
    tests: Mapping[str, Samples] | FindTests | None = None,
    plan: Plan | None = None,
    out: Path | None = None,
    *,
    margin: float = MARGIN,
) -> str:
    """Write `report.json`, `report.md`, `forest.png`, `curves.png` and `detections.png`.

    Args:
        folders: One or several folders of `run-*.json`, put together.
        tests: Test sets by name, or what finds them for a run, where they differ by seed; None
            for no page of detections.
        plan: The comparison as it was written down beforehand: its `primary` and its `seeds`.
        out: Folder of the report; None for the first folder.
        margin: Differences of mAP50 up to it do not matter.

    Returns:
        The Markdown, whose first line is the result in words.

    Raises:
        ValueError: If there is no run, or runs cannot be put together.
    """
    folders = [folders] if isinstance(folders, Path) else list(folders)
    out = out or folders[0]
    runs = read_runs(folders)
    report = summarize(runs, plan, margin)
    text = format_markdown(report)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "report.json", (json.dumps(report, indent=1) + "\n").encode())
    write_atomic(out / "report.md", text.encode())
    draw_forest(report, out / "forest.png")
    draw_curves(runs, out / "curves.png")
    if tests is not None:
        primary = plan and plan.primary.test
        test = primary if primary in report["tests"] else next(iter(report["tests"]))
        chosen = _choose_shown(runs, test)
        found = tests(chosen[0]) if callable(tests) else tests
        if test in found:
            draw_detections(chosen, test, found[test], out / "detections.png")
    return text


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read the runs of several folders, or machines, by arm and seed.

    Raises:
        ValueError: If there is none, a file cannot be read, settings or test sets differ, or an
            arm and seed was run twice with different results.
    """
    found: dict[tuple[str, int], tuple[Path, str, Run]] = {}
    first: tuple[Path, Run] | None = None
    for path in (path for folder in folders for path in sorted(folder.glob("run-*.json"))):
        run, digest = _read_run(path)
        first = first or (path, run)
        for name, mine, theirs in _list_differences(run["settings"], first[1]["settings"]):
            raise ValueError(
                f"{path} was made with {name} = {mine}, and {first[0]} with {name} = {theirs}; "
                "runs of different settings cannot be put together."
            )
        key = run["arm"], run["seed"]
        other, expected, _ = found.setdefault(key, (path, digest, run))
        if digest != expected:
            raise ValueError(
                f"{path} and {other} are both arm {key[0]!r}, seed {key[1]}, with different "
                "results; remove one of them."
            )
    if not found:
        raise ValueError(f"no run-*.json in {', '.join(map(str, folders))}; run the arms first.")
    _check_seeds([(path, run) for path, _, run in found.values()])
    order = sorted(found, key=lambda key: (rank_arm(key[0]), key[1]))
    return [found[key][2] for key in order]


def _read_run(path: Path) -> tuple[Run, str]:
    """Read a run, and a digest of its results; what nobody looks at is not kept in memory."""
    try:
        run = json.loads(path.read_text())
        digest = hashlib.sha256(json.dumps(run["tests"], sort_keys=True).encode()).hexdigest()
        for name, result in run["tests"].items():
            if "|" in name:  # under a corruption the score is all that counts
                for key in ("matches", "shown"):
                    result.pop(key, None)
            for match in result.get("matches", ()):
                match |= {key: np.asarray(match[key], np.float64) for key in ("scores", "hits")}
        run = {key: run[key] for key in _FIELDS}
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no finished run ({error!r}); remove it.") from error
    return run, digest


def _list_differences(mine: Any, theirs: Any, name: str = "settings") -> Iterator[tuple]:
    """List values that differ, each with its dotted name."""
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
        for key in dict.fromkeys([*mine, *theirs]):
            yield from _list_differences(
                mine.get(key, "(nothing)"), theirs.get(key, "(nothing)"), f"{name}.{key}"
            )
    elif mine != theirs:
        yield name.removeprefix("settings."), mine, theirs


def _check_seeds(read: Sequence[tuple[Path, Run]]) -> None:
    """Raise `ValueError` unless the arms of a seed share training patients and test images."""
    seen: dict[tuple, tuple[Path, Any]] = {}
    for path, run in read:
        parts = {"training patients": run["groups"]}
        parts |= {f"images of the test {name!r}": t["groups"] for name, t in run["tests"].items()}
        for what, value in parts.items():
            other, expected = seen.setdefault((run["seed"], what), (path, value))
            if value != expected:
                raise ValueError(f"{path} and {other} have one seed, but differ in the {what}.")


def _choose_shown(runs: Sequence[Run], test: str) -> list[Run]:
    """Choose a run of each arm for the page: of the lowest seed that most arms have."""
    tested = [run for run in runs if test in run["tests"]]
    counts: dict[int, int] = {}
    for run in tested:
        counts[run["seed"]] = counts.get(run["seed"], 0) + 1
    seed = min(counts, key=lambda number: (-counts[number], number))
    return [run for run in tested if run["seed"] == seed]


def write_when_to_use(reports: Mapping[str, Path], template: Path, out: Path) -> str:
    """Fill a page from reports, so that no figure in it is typed by hand.

    A placeholder is `{{ name.figure }}`: the name of a report, and a figure of
    `tables.list_figures`. Tables and results in words must all be used, so that no unfavourable
    one is left out; the page may do without single values.

    Args:
        reports: Names and their `report.json`.
        template: Markdown with placeholders.
        out: The page.

    Returns:
        The page.

    Raises:
        ValueError: If a placeholder has no figure, or a figure no placeholder.
    """
    figures: dict[str, str] = {}
    needed: set[str] = set()
    for name, path in reports.items():
        required, optional = list_figures(json.loads(path.read_text()))
        figures |= {f"{name}.{key}": text for key, text in {**required, **optional}.items()}
        needed |= {f"{name}.{key}" for key in required}
    text = template.read_text()
    placeholders = re.findall(r"\{\{\s*(.*?)\s*\}\}", text)
    if unknown := sorted(set(placeholders) - set(figures)):
        raise ValueError(
            f"{template} asks for {', '.join(unknown)}, which no report has; there are "
            f"{', '.join(sorted(figures))}."
        )
    if unused := sorted(needed - set(placeholders)):
        raise ValueError(f"{template} leaves out {', '.join(unused)}; every result is printed.")
    page = re.sub(r"\{\{\s*(.*?)\s*\}\}", lambda match: figures[match[1]], text)
    write_atomic(out, page.encode())
    return page
