"""Memory, threads, open files and speed of `apply` over very many elements.

    .venv/bin/python benchmarks/load.py --cases 200000x64 20000x512 --engines tensorflow openvino

Each case runs in a process of its own, in several passes over the same images. At each tenth of the
elements it notes resident memory, threads, file descriptors, and the rate since the tenth before;
that of the first tenth counts from the first element.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from throughput import RESULTS, describe_machine

from vae_aug import VAEAugment
from vae_aug.atomic import write_atomic

PARTS = 10
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


def run(elements: int, side: int, engine: str) -> list[dict[str, Any]]:
    """Augment elements, and note what the process holds at each tenth."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (_IMAGES, side, side, 1), np.uint8)
    boxes = np.tile(np.float32([[[0.2, 0.2, 0.4, 0.4]]]), (_IMAGES, 1, 1))
    labels = np.zeros((_IMAGES, 1), np.int64)
    source = tf.data.Dataset.from_tensor_slices(
        {"image": images, "objects": {"bbox": boxes, "label": labels}}
    )
    augment = VAEAugment("demo", seed=1, engine=engine)  # type: ignore[arg-type]
    dataset = source.repeat().apply(augment).take(elements)
    notes: list[dict[str, Any]] = []
    seen_before, begin = 1, time.monotonic()
    for seen, _ in enumerate(dataset, start=1):
        if seen == 1:  # The network is ready by then.
            begin = time.monotonic()
        if seen % (elements // PARTS) == 0:
            seconds, begin = time.monotonic() - begin, time.monotonic()
            rate, seen_before = round((seen - seen_before) / seconds, 2), seen
            notes.append({"elements": seen, "images_per_second": rate, **look(os.getpid())})
            print(engine, side, notes[-1], file=sys.stderr, flush=True)
    return notes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="*", default=["200000x64", "20000x512"])
    parser.add_argument("--engines", nargs="*", default=["tensorflow", "openvino"])
    parser.add_argument("--out", type=Path, default=RESULTS / "load.json")
    parser.add_argument("--alone", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if any(int(case.partition("x")[0]) < PARTS for case in arguments.cases):
        parser.error(f"--cases: at least {PARTS} elements")
    if arguments.alone:
        elements, side, engine = arguments.alone
        print(json.dumps(run(int(elements), int(side), engine)))
        return
    results = json.loads(arguments.out.read_text())["results"] if arguments.out.is_file() else {}
    for case in arguments.cases:
        for engine in arguments.engines:
            line = [sys.executable, __file__, "--alone", *case.split("x"), engine]
            done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
            notes = json.loads(done.stdout.splitlines()[-1])
            results[f"{case}, {engine}"] = {"environment": describe_machine(), "notes": notes}
            told = {"benchmark": "load", "results": results}
            write_atomic(arguments.out, (json.dumps(told, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
