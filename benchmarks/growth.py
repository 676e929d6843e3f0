"""How time and memory grow: with the batch, the image, the dataset, the calls, and the start.

    .venv/bin/python benchmarks/growth.py

Rates are images per second through `apply` (`map` for parallel calls), the rows of a table in turn
within every round. Memory and starts are those of processes of their own.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
from throughput import (
    RESULTS,
    count_rate,
    describe,
    describe_machine,
    make_source,
    spend_pass,
    take_turns,
)

from vae_aug.atomic import write_atomic
from vae_aug.augment.transform import VAEAugment
from vae_aug.config import ModelConfig
from vae_aug.model.checkpoint import load_checkpoint
from vae_aug.model.vae import VAE

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
PARALLEL_CALLS = (1, 2, 4, 8)
LENGTHS = (64, 256, 1024)
IMAGE_SIZES = (224, 512)
CHECKPOINTS = ("vector", "demo")
TABLES = (
    "batch_size",
    "image_size",
    "dataset_length",
    "parallel_calls",
    "peak",
    "growth",
    "start",
)
PASSES = 8
ALLOCATORS = {"": {}, ", one arena": {"MALLOC_ARENA_MAX": "1"}}
"""What glibc is told: nothing, or not to keep freed memory for each thread apart."""
_DISTINCT = 32


def measure_rates(
    pipelines: dict[str, tf.data.Dataset], warm_up: int, images: int, rounds: int
) -> dict[str, Any]:
    """Return images per second of endless pipelines, and ratios to the first of them."""
    measured = take_turns(
        {
            name: functools.partial(count_rate, pipeline, warm_up, images)
            for name, pipeline in pipelines.items()
        },
        rounds,
    )
    rates = {name: [rate for _, rate in pairs] for name, pairs in measured.items()}
    first = next(iter(rates.values()))
    return {
        name: {
            "images_per_second": describe(values),
            "ratio_to_first": describe([v / b for v, b in zip(values, first, strict=True)]),
        }
        for name, values in rates.items()
    }


def measure_batch_size(engines: list[str], images: int, rounds: int) -> dict[str, Any]:
    """`batch_size` from 1 to 32 on `vector` at 224 pixels, without a seed."""
    vae, source = load_checkpoint("vector"), make_source(_DISTINCT, 224).repeat()
    pipelines = {
        f"{engine}, {size}": source.apply(VAEAugment(vae, engine=engine, batch_size=size))
        for engine in engines
        for size in BATCH_SIZES
    }
    return measure_rates(pipelines, 2 * max(BATCH_SIZES), images, rounds)


def measure_image_size(engines: list[str], rounds: int) -> dict[str, Any]:
    """224 and 512 pixels: `vector` sees a square of 224 in both cases, `demo` the whole image.

    In batches of 8, so that a round of 512 pixels ends.
    """
    pipelines = {}
    for engine in engines:
        for ckpt in CHECKPOINTS:
            vae = load_checkpoint(ckpt)
            for size in IMAGE_SIZES:
                source = make_source(_DISTINCT, size).map(_fix_shape(size)).repeat()
                augment = VAEAugment(vae, engine=engine, batch_size=8)
                pipelines[f"{engine}, {ckpt}, {size}"] = source.apply(augment)
    return measure_rates(pipelines, 16, 16, rounds)


def _fix_shape(size: int) -> Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]:
    return lambda e: {**e, "image": tf.ensure_shape(e["image"], [size, size, 1])}


def measure_dataset_length(engines: list[str], rounds: int) -> dict[str, Any]:
    """Milliseconds an element of whole passes over datasets of several lengths, start included."""
    vae = load_checkpoint("vector")
    measures = {}
    for engine in engines:
        for length in LENGTHS:
            source = make_source(_DISTINCT, 224).repeat().take(length)
            measures[f"{engine}, {length}"] = functools.partial(
                _time_pass, source.apply(VAEAugment(vae, engine=engine)), length
            )
    return {name: describe(times) for name, times in take_turns(measures, rounds).items()}


def _time_pass(dataset: tf.data.Dataset, length: int) -> float:
    return 1e3 * spend_pass(dataset)[1] / length


def measure_parallel_calls(engines: list[str], images: int, rounds: int) -> dict[str, Any]:
    """`map` with 1 to 8 parallel calls, an image at a time."""
    vae, source = load_checkpoint("vector"), make_source(_DISTINCT, 224).repeat()
    pipelines = {
        f"{engine}, {calls}": source.map(VAEAugment(vae, engine=engine), num_parallel_calls=calls)
        for engine in engines
        for calls in PARALLEL_CALLS
    }
    return measure_rates(pipelines, 2 * max(PARALLEL_CALLS), images, rounds)


def measure_peak(engines: list[str]) -> dict[str, Any]:
    """Peaks of one and of several passes of 96 images."""
    return {
        f"{engine}, {ckpt}{allocator}": _run_alone("peak", engine, ckpt, **environment)
        for engine in engines
        for ckpt in CHECKPOINTS
        for allocator, environment in ALLOCATORS.items()
    }


def measure_growth(engines: list[str], elements: int) -> dict[str, Any]:
    """How memory goes on over many elements."""
    return {engine: _run_alone("growth", engine, str(elements)) for engine in engines}


def measure_start(engines: list[str], repeats: int) -> dict[str, Any]:
    """Seconds from `VAEAugment(...)` to the first image out of `apply`, on every checkpoint."""
    starts: dict[str, list[dict[str, float]]] = {}
    for _ in range(repeats):
        for ckpt in CHECKPOINTS:
            for engine in engines:
                with tempfile.TemporaryDirectory() as cache:
                    runs = ("not cached", "cached") if engine.startswith("openvino") else ("",)
                    for run in runs:
                        name = ", ".join(filter(None, (engine, ckpt, run)))
                        measured = _run_alone("start", engine, ckpt, XDG_CACHE_HOME=cache)
                        starts.setdefault(name, []).append(measured)
    return {
        name: {part: describe([run[part] for run in runs]) for part in runs[0]}
        for name, runs in starts.items()
    }


def _run_alone(*command: str, **environment: str) -> dict[str, Any]:
    """Run `--alone` in a process of its own, and read the JSON that it prints last."""
    run = subprocess.run(
        [sys.executable, __file__, "--alone", *command],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{run.stderr[-2000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def peak(engine: str, ckpt: str) -> dict[str, float]:
    """Peak memory of this process in MiB: loaded, after a pass of 96 images, after several.

    And the seconds that a pass takes, the first left out.
    """
    augment = VAEAugment(ckpt, engine=engine)  # type: ignore[arg-type]
    dataset = make_source(_DISTINCT, 224).map(_fix_shape(224)).repeat(3).apply(augment)
    loaded = _read_memory("VmHWM")
    spend_pass(dataset)
    first = _read_memory("VmHWM")
    times = [spend_pass(dataset)[1] for _ in range(PASSES - 1)]
    return {
        "loaded_mib": loaded,
        "one_pass_mib": first,
        "all_passes_mib": _read_memory("VmHWM"),
        "pass_s": round(statistics.median(times), 3),
    }


def growth(engine: str, elements: str) -> dict[str, Any]:
    """Memory of this process in MiB, a tenth of the elements apart.

    The network is EfficientNet-B1 of random weights for a square of 32 pixels, so that every
    element goes through it within minutes; images have 224 as elsewhere. The source is one pass:
    each that it repeats leaves tens of KB with tf.data, whose iterators are to be checkpointed.
    """
    vae = VAE(ModelConfig(image_size=32))
    augment = VAEAugment(vae, engine=engine, seed=0)  # type: ignore[arg-type]
    count = int(elements)
    element = next(iter(make_source(1, 224)))
    source = tf.data.Dataset.range(count).map(lambda _: {**element})
    samples = {}
    for index, _ in enumerate(source.apply(augment), start=1):
        if index % (count // 10) == 0:
            samples[index] = _read_memory("VmRSS")
    first, *_, last = samples.values()
    return {"rss_mib": samples, "growth": round(last / first - 1, 4)}


def start(engine: str, ckpt: str) -> dict[str, float]:
    """Seconds of construction, and from there to the first image out of `apply`."""
    source = make_source(_DISTINCT, 224).map(_fix_shape(224))
    for _ in source:
        pass
    begin = time.perf_counter()
    augment = VAEAugment(ckpt, engine=engine)  # type: ignore[arg-type]
    made = time.perf_counter()
    next(iter(source.apply(augment)))
    return {
        "construction_s": round(made - begin, 2),
        "first_image_s": round(time.perf_counter() - made, 2),
    }


def _read_memory(field: str) -> float:
    """Read `VmRSS` or `VmHWM`, its peak, in MiB (Linux)."""
    status = Path("/proc/self/status").read_text()
    return round(float(re.search(rf"{field}:\s+(\d+) kB", status)[1]) / 1024, 1)  # type: ignore[index]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="*", default=TABLES, choices=TABLES)
    parser.add_argument("--engines", nargs="*", default=["tensorflow", "openvino"])
    parser.add_argument("--images", type=int, default=64, help="timed in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--elements", type=int, default=20_000, help="over which memory is watched")
    parser.add_argument("--out", type=Path, default=RESULTS / "growth.json")
    parser.add_argument("--alone", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.images % (2 * max(BATCH_SIZES)):
        parser.error(f"--images must be a multiple of {2 * max(BATCH_SIZES)}")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    if arguments.alone:
        name, *values = arguments.alone
        print(json.dumps({"peak": peak, "growth": growth, "start": start}[name](*values)))
        return
    engines, images, rounds = arguments.engines, arguments.images, arguments.rounds
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "batch_size": lambda: measure_batch_size(engines, images, rounds),
        "image_size": lambda: measure_image_size(engines, rounds),
        "dataset_length": lambda: measure_dataset_length(engines, rounds),
        "parallel_calls": lambda: measure_parallel_calls(engines, images, rounds),
        "peak": lambda: measure_peak(engines),
        "growth": lambda: measure_growth(engines, arguments.elements),
        "start": lambda: measure_start(engines, rounds),
    }
    # Tables of an earlier run that are not asked for again are kept, each with its machine.
    tables = json.loads(arguments.out.read_text())["tables"] if arguments.out.is_file() else {}
    for name in arguments.tables:
        machine = describe_machine()
        begin = time.perf_counter()
        results = measures[name]()
        tables[name] = {
            "results": results,
            "settings": {k: v for k, v in vars(arguments).items() if k not in ("out", "tables")},
            "seconds": round(time.perf_counter() - begin),
            "environment": machine,
        }
        text = json.dumps({"benchmark": "growth", "tables": tables}, indent=1) + "\n"
        write_atomic(arguments.out, text.encode())
        print(json.dumps({name: results}, indent=1))


if __name__ == "__main__":
    main()
