"""Exit status of processes that end while an iterator is alive, and how long that takes.

    .venv/bin/python benchmarks/exits.py

Every case runs in a process of its own, on every engine and on the bridge to Albumentations. Its
pipeline has no end (`repeat()`), reads ahead, and is never closed. Seconds are from the last line
of the script to the end of the process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from throughput import RESULTS, describe_machine

from vae_aug.atomic import write_atomic
from vae_aug.augment.transform import VAEAugment

ENGINES = ("tensorflow", "xla", "openvino", "openvino-bfloat16", "albumentations")
EXPECTED = {
    "end of script": 0,
    "sys.exit(0)": 0,
    "sys.exit(3)": 3,
    "exception": 1,
    "Ctrl-C": -signal.SIGINT,
    "four pipelines": 0,
    "model.fit": 0,
    "daemon thread": 0,
    "two replicas": 0,
    "pytest": 0,
    "spawned worker": 0,
    "Beam worker": 0,
}
"""Cases, and the status that each should end with."""

_SIZE = 64
_MARK = "The script ends at "
_KEPT: list[Any] = []
"""Iterators that stay alive."""


def make_pipeline(engine: str) -> tf.data.Dataset:
    """Make batches without an end, read so far ahead that calls are under way at exit."""
    images = np.random.default_rng(0).integers(0, 255, (32, _SIZE, _SIZE, 1), np.uint8)
    source = tf.data.Dataset.from_tensor_slices({"image": images})
    if engine != "albumentations":
        augment = VAEAugment("vector", engine=engine, seed=1, batch_size=8)  # type: ignore[arg-type]
        return source.apply(augment).repeat().batch(4).prefetch(256)
    # An extra, which the engines do without.
    import albumentations

    from vae_aug.extras.albumentations import albumentations_map

    compose = albumentations.Compose(
        [albumentations.HorizontalFlip(), albumentations.GaussNoise(p=1)]
    )
    mapped = source.map(albumentations_map(compose, seed=1), num_parallel_calls=4)
    return mapped.repeat().batch(4).prefetch(256)


def keep_iterator(engine: str) -> int:
    """Read some batches, and keep the iterator alive."""
    _KEPT.append(iter(make_pipeline(engine)))
    for _ in range(8):
        next(_KEPT[-1])
    return len(_KEPT)


def fit(engine: str) -> None:
    """Train a small network for two epochs, by an iterator that stays alive."""
    keep_iterator(engine)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile(loss="mse")
    pairs = make_pipeline(engine).map(lambda e: (tf.cast(e["image"], tf.float32), tf.zeros([4, 1])))
    model.fit(pairs, epochs=2, steps_per_epoch=4, verbose=0)


def read_for_ever(engine: str) -> None:
    """Read until there is no more."""
    keep_iterator(engine)
    for _ in _KEPT[-1]:
        pass


def distribute(engine: str) -> None:
    """Read what two replicas are given, by an iterator that stays alive."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    _KEPT.append(iter(strategy.experimental_distribute_dataset(make_pipeline(engine))))
    for _ in range(8):
        next(_KEPT[-1])


def run_pytest(engine: str) -> int:
    """Run a test that leaves an iterator alive."""
    import pytest  # also of the developers' extra alone

    with tempfile.TemporaryDirectory() as folder:
        test = Path(folder) / "test_exits.py"
        test.write_text(f"import exits\n\ndef test_it():\n    exits.keep_iterator({engine!r})\n")
        return pytest.main(["-q", "-p", "no:cacheprovider", f"--rootdir={folder}", str(test)])


def spawn(engine: str) -> int | None:
    """Return the status of a worker process that leaves an iterator alive."""
    worker = multiprocessing.get_context("spawn").Process(target=keep_iterator, args=(engine,))
    worker.start()
    worker.join()
    return worker.exitcode


def run_beam(engine: str) -> None:
    """Have Beam's worker processes leave iterators alive."""
    import apache_beam as beam
    import exits  # Beam finds functions by the name of their module
    from apache_beam.options.pipeline_options import PipelineOptions

    options = PipelineOptions(direct_running_mode="multi_processing", direct_num_workers=2)
    with beam.Pipeline(options=options) as pipeline:
        _ = pipeline | beam.Create([engine] * 2) | beam.Map(exits.keep_iterator)


def end(case: str, engine: str) -> None:
    """Do what a case asks for, and end this process."""
    status = None
    if case == "model.fit":
        fit(engine)
    elif case == "two replicas":
        distribute(engine)
    elif case == "daemon thread":
        threading.Thread(target=read_for_ever, args=(engine,), daemon=True).start()
        keep_iterator(engine)
    elif case in (runners := {"pytest": run_pytest, "spawned worker": spawn}):
        status = runners[case](engine)
    elif case == "Beam worker":
        run_beam(engine)
    else:
        for _ in range(4 if case == "four pipelines" else 1):
            keep_iterator(engine)
    print(_MARK, time.time(), flush=True)
    if case == "exception":
        raise RuntimeError("the training failed")
    if case == "Ctrl-C":
        # A shell has its background jobs ignore it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        for _ in _KEPT[0]:
            pass
    if case.startswith("sys.exit"):
        status = EXPECTED[case]
    sys.exit(status)


def measure(case: str, engine: str, patience_s: float) -> dict[str, Any]:
    """Run a case; return its status, None if it had to be killed, and the seconds."""
    folder = str(Path(__file__).parent)
    paths = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            [sys.executable, __file__, "--alone", case, engine],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )
        assert child.stdout is not None
        start = next(
            (float(line.split()[-1]) for line in child.stdout if line.startswith(_MARK)), None
        )
        try:
            status: int | None = child.wait(patience_s)
        except subprocess.TimeoutExpired:
            child.kill()
            status = None
        seconds = time.time() - (start or time.time())
        child.wait()
        errors.seek(0)
        written = errors.read()
    if start is None:
        raise RuntimeError(f"{case} on {engine} never came to its end:\n{written[-2000:]}")
    as_expected = status == EXPECTED[case]
    return {"status": status, "as_expected": as_expected, "seconds": round(seconds, 2)}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", nargs="*", default=ENGINES, choices=ENGINES)
    parser.add_argument("--cases", nargs="*", default=list(EXPECTED), choices=list(EXPECTED))
    parser.add_argument("--patience", type=float, default=60.0, help="seconds until it is killed")
    parser.add_argument("--out", type=Path, default=RESULTS / "exits.json")
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.alone:
        end(*arguments.alone)
    # What an earlier run measured is kept, unless it is asked for again.
    results = json.loads(arguments.out.read_text())["results"] if arguments.out.is_file() else {}
    machine = describe_machine()
    for engine in arguments.engines:
        table = results.setdefault(engine, {"environment": machine, "cases": {}})
        table["environment"] = machine
        for case in arguments.cases:
            measured = table["cases"][case] = measure(case, engine, arguments.patience)
            print(engine, case, measured, flush=True)
            result = {"benchmark": "exits", "expected": EXPECTED, "results": results}
            write_atomic(arguments.out, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
