"""How long a process takes until the first image: imports, construction, first and later passes.

    .venv/bin/python benchmarks/startup.py --rounds 5

Every round starts each case in a process of its own, in turn. "First start" has an empty cache of
graphs; a later one finds what an earlier one kept there (`vae_aug.engines.graphs`). Seconds are by
the clock, medians with the fastest and the slowest of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from throughput import RESULTS, describe_machine

from vae_aug.atomic import write_atomic

IMPORTS = {
    "import tensorflow, keras": "import tensorflow, keras",
    "from vae_aug import VAEAugment": "from vae_aug import VAEAugment",
}
_TIMED = "import json, time\nbegan = time.perf_counter()\n{code}\n"
_TELL = "print(json.dumps({{{name!r}: time.perf_counter() - began}}))"
_START = """
import json, sys, time
import numpy as np
import tensorflow as tf
from vae_aug import VAEAugment

images = np.random.default_rng(0).integers(0, 255, (4, 224, 224, 1), np.uint8)
boxes = np.tile(np.float32([[0.4, 0.4, 0.5, 0.5]]), (4, 1, 1))
labels = np.zeros((4, 1), np.int64)
source = tf.data.Dataset.from_tensor_slices(
    {"image": images, "objects": {"bbox": boxes, "label": labels}}
)
told, began = {}, time.perf_counter()

def tell(name):
    global began
    told[name] = time.perf_counter() - began
    began = time.perf_counter()

augment = VAEAugment(sys.argv[1], seed=1)
tell("construction")
augmented = getattr(source, sys.argv[2])(augment)
next(iter(augmented))
tell("to the first image")
next(iter(augmented))
tell("to the first image of a second pass")
print(json.dumps(told))
"""


def run(code: str, *arguments: str, cache: str) -> dict[str, float]:
    """Run Python code in a process of its own; return the JSON that it prints last."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "XDG_CACHE_HOME": cache}
    finished = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    told: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    return told


def measure_round(ways: list[str], checkpoints: list[str], cache: str) -> dict[str, float]:
    """Time every case once; returns seconds by its name."""
    found: dict[str, float] = {}
    for name, code in IMPORTS.items():
        found |= run(_TIMED.format(code=code) + _TELL.format(name=name), cache=cache)
    for checkpoint in checkpoints:
        for way in ways:
            with tempfile.TemporaryDirectory() as empty:
                for start, folder in (("first start", empty), ("later start", empty)):
                    told = run(_START, checkpoint, way, cache=folder)
                    case = f"{checkpoint}, {way}, {start}"
                    found |= {f"{case}: {name}": seconds for name, seconds in told.items()}
    return found


def main() -> None:
    """Measure, print a table, and write `startup.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", default=["map", "apply"], choices=["map", "apply"])
    parser.add_argument("--checkpoints", nargs="+", default=["vector", "demo"])
    parser.add_argument("--out", type=Path, default=RESULTS / "startup.json")
    arguments = parser.parse_args()
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as cache:
        rounds = [
            measure_round(arguments.ways, arguments.checkpoints, cache)
            for _ in range(arguments.rounds)
        ]
    table = {name: sorted(one[name] for one in rounds) for name in rounds[0]}
    for name, seconds in table.items():
        middle = statistics.median(seconds)
        print(f"{middle:7.2f} s ({seconds[0]:.2f} to {seconds[-1]:.2f})  {name}")
    content = {"machine": machine, "rounds": arguments.rounds, "seconds": table}
    write_atomic(arguments.out, (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
