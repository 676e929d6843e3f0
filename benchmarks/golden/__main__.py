"""Record what the package does, or compare it with a record, while its code moves.

    python -m benchmarks.golden  # writes benchmarks/results/golden.json
    python -m benchmarks.golden --compare benchmarks/results/golden.json
    python -m benchmarks.golden --only ingest transform --out before.json --keep before
    python -m benchmarks.golden --only ingest transform --compare before.json --keep after
    diff -r before/ingest/texts after/ingest/texts

A record holds a digest for everything that users get: shards, `dataset.json`, label maps, reports
and printed lines of `ingest` for every format; augmented images and boxes of both packaged networks
in every mode, dtype and way of use; augmented records, denoised files, a TFDS build, help and JSON.
`--compare` names each entry that differs and ends with status 1. What changed in a text, the
folders of `--keep` tell.

All goes through the command line, `VAEAugment` and `load_checkpoint`, and sources are made here or
by `tests/corpus`, so that the code behind them may move. Networks are the packaged ones, `demo` and
`vector`. It needs the extra `dev`, and about ten minutes of processor time; every section runs in a
process of its own, two at a time. Real data (`../shared/data` or `$VAE_AUG_DATA`) is optional, and
engines beside TensorFlow are noted with `--engines` alone. Not in it: training, measurements
(`evaluate` and its like), `demo`, and Beam.

Versions, times and paths are no part of a record, so it is the same in every run on one machine.
Another processor, number of cores or version of TensorFlow may move a pixel in thousands by a grey
level: a record is compared on the machine that made it, and a line tells where the machines differ.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.golden.record import Notes, compare, describe_gaps

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "benchmarks" / "results" / "golden.json"
ENGINES = "transform-engines"
SECTIONS = {
    "transform-demo": "transform:note_ladder",
    "transform-vector": "transform:note_vector",
    "ingest": "ingest:note_all_formats",
    "augment": "outputs:note_augment",
    "tfds": "outputs:note_tfds",
    "transform-settings": "transform:note_settings",
    "denoise": "outputs:note_denoise",
    "real": "ingest:note_real",
    "json": "outputs:note_json",
    "help": "outputs:note_help",
    ENGINES: "transform:note_engines",
}
"""Section to module and function, the longest first."""


def choose_sections(words: Sequence[str] | None, engines: Sequence[str]) -> list[str]:
    """Return the sections that these words name, whole or up to a hyphen; None for all."""
    known = [name for name in SECTIONS if name != ENGINES or engines]
    if words is None:
        return known
    unknown = [word for word in words if not any(_is_named(name, word) for name in known)]
    if unknown:
        raise ValueError(f"no section {', '.join(unknown)}; there are {', '.join(known)}.")
    return [name for name in known if any(_is_named(name, word) for word in words)]


def _is_named(section: str, word: str) -> bool:
    return section == word or section.startswith(f"{word}-")


def run_section(name: str, folder: Path, engines: Sequence[str] = ()) -> dict[str, Any]:
    """Run a section in this process.

    Args:
        name: Of `SECTIONS`.
        folder: Made, and left with all that the section wrote.
        engines: Of the section `transform-engines`.

    Returns:
        A record of this section alone, without a machine.
    """
    begin, used = time.perf_counter(), _count_seconds()
    module, _, function = SECTIONS[name].partition(":")
    run: Callable[..., None] = getattr(
        importlib.import_module(f"benchmarks.golden.{module}"), function
    )
    if name == ENGINES:
        run = functools.partial(run, engines=list(engines))
    data = os.environ.get("VAE_AUG_DATA") or str(ROOT.parent / "shared" / "data")
    folder.mkdir(parents=True)
    places = {str(folder.resolve()): "<work>", data: "<data>", str(ROOT): "<package>"}
    notes = Notes(folder.resolve(), places)
    with contextlib.chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(notes)
    seconds = {"clock": time.perf_counter() - begin, "processor": _count_seconds() - used}
    rounded = {key: round(value, 1) for key, value in seconds.items()}
    return {"seconds": {name: rounded}, "absent": notes.absent, "entries": notes.entries}


def _count_seconds() -> float:
    """Return the processor time of this process and of those that it waited for."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(kind)[:2]) for kind in kinds)


def start_section(name: str, folder: Path, engines: Sequence[str]) -> dict[str, Any]:
    """Run a section in a process of its own, so that none changes another's result."""
    # Rich asks for the width when the commands are loaded.
    env = {**os.environ, "COLUMNS": "200", "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    out = folder / f"{name}.json"
    words = ["--section", name, "--keep", str(folder), "--out", str(out), "--engines", *engines]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.golden", *words],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"section {name} failed:\n{done.stderr}")
    record = json.loads(out.read_text())
    seconds = record["seconds"][name]
    count = len(record["entries"])
    print(
        f"{name:20}{count:6} entries{seconds['clock']:7.0f} s{seconds['processor']:7.0f} s CPU",
        flush=True,
    )
    return record


def describe_machine() -> dict[str, Any]:
    """Return what digests depend on beside the code, and the commit."""
    call = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    packages = ("tensorflow", "keras", "numpy", "opencv-python-headless", "pydicom", "typer")
    versions = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "processor": models[0] if models else platform.processor(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        **versions,
        "commit": commit.stdout.strip() or "unknown",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def make_record(
    sections: Sequence[str], folder: Path, engines: Sequence[str], processes: int
) -> dict[str, Any]:
    """Run sections side by side and join their records."""
    record: dict[str, Any] = {
        "command": "python -m benchmarks.golden",
        "machine": describe_machine(),
        "seconds": {},
        "absent": [],
        "entries": {},
    }
    with ThreadPoolExecutor(processes) as pool:
        run = functools.partial(start_section, folder=folder, engines=engines)
        for part in pool.map(run, sections):
            record["seconds"] |= part["seconds"]
            record["absent"] += part["absent"]
            record["entries"] |= part["entries"]
    record["entries"] = dict(sorted(record["entries"].items()))
    return record


def report_differences(before: dict[str, Any], after: dict[str, Any]) -> int:
    """Print what differs between two records; return the exit status."""
    for line in describe_gaps(before, after):
        print(line)
    differences = compare(before, after)
    for line in differences:
        print(line)
    print(f"{len(differences)} differences in {len(after['entries'])} entries")
    return 1 if differences else 0


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.golden", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--only", nargs="+", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--out", type=Path, help="record to write; default: golden.json")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="record to compare with")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep all that was made there")
    parser.add_argument("--engines", nargs="*", default=[], help="beside tensorflow; extras")
    parser.add_argument("--processes", type=int, default=2, help="sections at a time (%(default)s)")
    parser.add_argument("--section", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.only and not (chosen.out or chosen.compare):
        parser.error("--only makes a part of a record: say where to with --out, or --compare it")
    if chosen.keep and not chosen.section and chosen.keep.exists() and any(chosen.keep.iterdir()):
        parser.error(f"--keep {chosen.keep}: is not empty")
    try:
        chosen.sections = choose_sections(chosen.only, chosen.engines)
    except ValueError as error:
        parser.error(str(error))
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = parse_arguments(arguments)
    if chosen.section:
        record = run_section(chosen.section, chosen.keep / chosen.section, chosen.engines)
        chosen.out.write_text(json.dumps(record))
        return 0
    before = json.loads(chosen.compare.read_text()) if chosen.compare else None
    with tempfile.TemporaryDirectory() as temporary:
        folder = (chosen.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        record = make_record(chosen.sections, folder, chosen.engines, chosen.processes)
    out = chosen.out or (None if before else RECORD)
    if out is not None:
        out.write_text(json.dumps(record, indent=0) + "\n")
        print(f"written to {out}")
    return 0 if before is None else report_differences(before, record)


if __name__ == "__main__":
    sys.exit(main())
