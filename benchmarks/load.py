"""Memory, threads, open files and speed of `apply` over very many elements.

    .venv/bin/python benchmarks/load.py --cases 200000x64 20000x512 --engines tensorflow openvino

Each case runs in a process of its own, in several passes over the same images. At each tenth of the
elements it notes resident memory, threads, file descriptors, and the rate since the tenth before;
that of the first tenth counts from the first element. A machine's own speed varies by more than
what is looked for. So at the end the process and a fresh one take turns of a hundredth each, and
the ratio of their rates tells whether the first one has become slower.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from scipy import stats
from throughput import RESULTS, describe_machine

from vae_aug import VAEAugment
from vae_aug.atomic import write_atomic
from vae_aug.words import make_markdown_table

PARTS = 10
_TURNS, _LENGTH = 20, 1
"""How often both processes take turns, and of how many hundredths of the elements."""

_IMAGES = 250
"""Distinct images, so that a pass makes an epoch and memory holds no more."""


def look(pid: int) -> dict[str, int]:
    """Return resident memory in MB, threads and descriptors of a process."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in status)}
    return {
        "megabytes": int(fields["VmRSS"][0]) // 1024,
        "threads": int(fields["Threads"][0]),
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
    }


def iterate(side: int, engine: str) -> Iterator[Any]:
    """Augment elements without end."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (_IMAGES, side, side, 1), np.uint8)
    boxes = np.tile(np.float32([[[0.2, 0.2, 0.4, 0.4]]]), (_IMAGES, 1, 1))
    labels = np.zeros((_IMAGES, 1), np.int64)
    source = tf.data.Dataset.from_tensor_slices(
        {"image": images, "objects": {"bbox": boxes, "label": labels}}
    )
    augment = VAEAugment("demo", seed=1, engine=engine)  # type: ignore[arg-type]
    return iter(source.repeat().apply(augment))


def take(elements: Iterator[Any], count: int) -> float:
    """Take so many elements; return how many a second."""
    begin = time.monotonic()
    for _ in range(count):
        next(elements)
    return count / (time.monotonic() - begin)


def serve(side: int, engine: str) -> None:
    """Take as many elements as each line of the input says, and print the rate."""
    elements = iterate(side, engine)
    next(elements)
    for line in sys.stdin:
        print(take(elements, int(line)), flush=True)


def ask(process: subprocess.Popen[str], count: int) -> float:
    """Let a process that serves take so many elements; return how many a second."""
    print(count, file=process.stdin, flush=True)
    return float(process.stdout.readline())


def run(count: int, side: int, engine: str) -> dict[str, Any]:
    """Augment elements, note what the process holds at each tenth, and race a fresh process."""
    elements = iterate(side, engine)
    next(elements)  # The network is ready by then.
    notes: list[dict[str, Any]] = []
    for part in range(1, PARTS + 1):
        rate = round(take(elements, count // PARTS - (part == 1)), 2)
        held = look(os.getpid())
        notes.append({"elements": part * count // PARTS, "images_per_second": rate, **held})
        print(engine, side, notes[-1], file=sys.stderr, flush=True)
    line = [sys.executable, __file__, "--fresh", str(side), engine]
    turns = []
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as fresh:
        length = _LENGTH * count // 100
        for turn in range(_TURNS + 1):
            rates = {}
            for is_fresh in (turn % 2 == 0, turn % 2 == 1):  # the first one finds elements ready
                rates[is_fresh] = ask(fresh, length) if is_fresh else take(elements, length)
            if turn:  # A fresh process gets faster in its first elements.
                turns.append(round(rates[False] / rates[True], 4))
        fresh.terminate()
    print(engine, side, turns, file=sys.stderr, flush=True)
    low, high = stats.t.interval(0.95, _TURNS - 1, np.mean(turns), stats.sem(turns))
    ratio = [round(float(value), 4) for value in (np.mean(turns), low, high)]
    return {"notes": notes, "rate_to_fresh": ratio, "turns": turns}


def make_table(results: Mapping[str, Any]) -> str:
    """Make the table of docs/performance.md."""
    headings = ("", "MB", "threads", "open files", "images/s", "rate over that of a fresh process")
    rows = []
    for case, found in results.items():
        spans = []
        for name in ("megabytes", "threads", "descriptors"):
            held = [note[name] for note in found["notes"]]
            spans.append(" to ".join(dict.fromkeys(map(str, (min(held), max(held))))))
        rate = statistics.mean(note["images_per_second"] for note in found["notes"])
        ratio, low, high = found["rate_to_fresh"]
        rows.append((case, *spans, f"{rate:.0f}", f"{ratio:.3f} ({low:.3f} to {high:.3f})"))
    return make_markdown_table(headings, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="*", default=["200000x64", "20000x512"])
    parser.add_argument("--engines", nargs="*", default=["tensorflow", "openvino"])
    parser.add_argument("--out", type=Path, default=RESULTS / "load.json")
    parser.add_argument("--alone", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--fresh", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if any(int(case.partition("x")[0]) < 100 for case in arguments.cases):
        parser.error("--cases: at least 100 elements")
    if arguments.fresh:
        side, engine = arguments.fresh
        serve(int(side), engine)
        return
    if arguments.alone:
        elements, side, engine = arguments.alone
        print(json.dumps(run(int(elements), int(side), engine)))
        return
    results = json.loads(arguments.out.read_text())["results"] if arguments.out.is_file() else {}
    for case in arguments.cases:
        for engine in arguments.engines:
            machine = describe_machine()  # its load, before this case adds to it
            line = [sys.executable, __file__, "--alone", *case.split("x"), engine]
            done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            results[f"{case}, {engine}"] = {"environment": machine, **found}
            told = {"benchmark": "load", "results": results}
            write_atomic(arguments.out, (json.dumps(told, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
