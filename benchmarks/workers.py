"""What a second worker gains: `augment` in processes and on Beam, and tf.data service.

    .venv/bin/python benchmarks/workers.py --rounds 3

Every worker has one core; those of Beam are told to use one thread each, as `--workers` does by
itself. `augment` is timed as a whole command on two numbers of images, whose
difference gives the rate without the start. The service is timed from the 64th image on. Ways take
turns within a round; ratios are per round, and their median is what to compare. What the file of
results holds of other ways stays.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam
import numpy as np
import tensorflow as tf
from tensorflow.data.experimental import service
from throughput import RESULTS, describe_machine

from vae_aug import VAEAugment, read_records
from vae_aug.atomic import write_atomic
from vae_aug.extras.augment_split import SplitSource, augment_part
from vae_aug.records.records import make_example, read_serialized, write_records
from vae_aug.workers import THREAD_VARIABLES

SIZES = (256, 2048)
SIDE = 224
SHARDS = 16
SERVICE = {"service": 1, "service, batches of 16": 16}
"""Images in an element that workers of the service send."""

_WARM_UP = 64
_SERVER = """
from tensorflow.data.experimental import service
config = service.{config}
server = service.{server}(config)
print("up", flush=True)
server.join()
"""
_OFFLINE = f"update_compatibility_version={apache_beam.__version__}"


def write_sources(folder: Path) -> None:
    """Write noise with a box, which costs what a scan costs."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (SIDE, SIDE, 1), np.uint8) for _ in range(32)]
    for size in SIZES:
        examples = (
            make_example(
                images[index % len(images)],
                source_id=str(index),
                boxes=[[0.2, 0.2, 0.3, 0.3]],
                labels=[0],
                label_names=("lesion",),
            )
            for index in range(size)
        )
        write_records(examples, folder / str(size), "train", SHARDS, label_names=("lesion",))


def time_augment(folder: Path, size: int, workers: int, *, on_beam: bool) -> float:
    """Return the seconds that `vae-aug augment` takes, with a core for each worker."""
    line = [str(folder / str(size)), "", "--ckpt", "demo", "--seed", "1"]
    if on_beam:
        options = [
            "direct_running_mode=multi_processing",
            f"direct_num_workers={workers}",
            _OFFLINE,
        ]
        line += ["--runner", "DirectRunner"]
        line += [part for option in options for part in ("--runner-option", option)]
    else:
        line += ["--workers", str(workers)]
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")}
    with tempfile.TemporaryDirectory() as out:
        line[1] = f"{out}/out"
        begin = time.monotonic()
        subprocess.run(
            [*_pin(range(workers)), sys.executable, "-m", "vae_aug.cli", "augment", *line],
            env=environment if on_beam else None,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return time.monotonic() - begin


def _pin(cores: Any) -> list[str]:
    return ["taskset", "-c", ",".join(str(core) for core in cores)]


@contextlib.contextmanager
def serve(workers: int) -> Iterator[str]:
    """Start a dispatcher and workers, each of them on a core of its own; yield the address."""
    with contextlib.ExitStack() as stack:

        def start(server: str, config: str, core: int) -> None:
            script = _SERVER.format(server=server, config=config)
            process = subprocess.Popen(
                [*_pin([core]), sys.executable, "-c", script],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            assert process.stdout is not None and process.stdout.readline() == b"up\n"

        start("DispatchServer", "DispatcherConfig(port=5050)", 0)
        for core in range(workers):
            port = 5051 + core
            address = f"worker_address='localhost:{port}', dispatcher_address='localhost:5050'"
            start("WorkerServer", f"WorkerConfig(port={port}, {address})", core)
        yield "grpc://localhost:5050"


def time_service(folder: Path, workers: int, batch_size: int) -> float:
    """Return the seconds an image takes that workers of the service augment and put into batches.

    The trainer, which receives them, shares the cores with the workers.
    """
    source = read_records(folder / str(SIZES[-1]), "train", counted=False).repeat(4)
    # With two workers the first images may all come of the one that was ready before.
    unseen = _WARM_UP * workers
    with serve(workers) as address:
        dataset = source.map(
            VAEAugment("demo", seed=1), num_parallel_calls=tf.data.AUTOTUNE, deterministic=False
        ).batch(batch_size)
        received = dataset.apply(service.distribute("distributed_epoch", address))
        begin, seen = 0.0, 0
        for _ in received.take((SIZES[-1] + unseen) // batch_size):
            seen += batch_size
            if seen == unseen:
                begin = time.monotonic()
        return (time.monotonic() - begin) / (seen - unseen)


def time_copy(folder: Path) -> float:
    """Return the seconds an image takes that one process puts together from what workers wrote."""
    files = sorted((folder / str(SIZES[-1])).glob("*.tfrecord"))
    with tempfile.TemporaryDirectory() as out:
        begin = time.monotonic()
        serialized = read_serialized(files).as_numpy_iterator()
        examples = map(tf.train.Example.FromString, serialized)
        write_records(examples, out, "train", SHARDS, label_names=("lesion",))
        return (time.monotonic() - begin) / SIZES[-1]


def time_begin(folder: Path) -> float:
    """Return the seconds that a part of one record takes in a process that has done one before."""
    files = sorted((folder / str(SIZES[0])).glob("*.tfrecord"))
    source = SplitSource(folder / str(SIZES[0]), "train", tuple(files), "uint8", 1)
    pickled = pickle.dumps(VAEAugment("demo", seed=1))
    with tempfile.TemporaryDirectory() as out:

        def augment_one() -> float:
            begin = time.monotonic()
            augment_part(Path(out) / "part", source, 0, 0, SIZES[0] // SHARDS, pickled)
            return time.monotonic() - begin

        augment_one()
        return statistics.median(augment_one() for _ in range(5))


def measure(folder: Path, way: str, workers: int) -> dict[str, float]:
    """Return seconds an image and, for a command, those of its start."""
    if way in SERVICE:
        return {"an_image": time_service(folder, workers, SERVICE[way])}
    few, many = (time_augment(folder, size, workers, on_beam=way == "Beam") for size in SIZES)
    an_image = (many - few) / (SIZES[1] - SIZES[0])
    return {"an_image": an_image, "start": few - SIZES[0] * an_image, f"{SIZES[1]}_images": many}


def summarize(rounds: dict[str, dict[str, list[dict[str, float]]]]) -> dict[str, Any]:
    """Return medians, and what two workers gain in terms of one."""
    summary: dict[str, Any] = {}
    for way, by_workers in rounds.items():
        summary[way] = {
            workers: {
                name: round(statistics.median(one[name] for one in measured), 4)
                for name in measured[0]
            }
            for workers, measured in by_workers.items()
        }
        gains = [
            one["an_image"] / two["an_image"]
            for one, two in zip(by_workers["1"], by_workers["2"], strict=True)
        ]
        summary[way]["gain"] = {
            "median": round(statistics.median(gains), 2),
            "lowest": round(min(gains), 2),
            "highest": round(max(gains), 2),
        }
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="*", default=["processes", "Beam", *SERVICE])
    parser.add_argument("--out", type=Path, default=RESULTS / "workers.json")
    arguments = parser.parse_args()
    machine = describe_machine()  # its load, before anything is run
    rounds: dict[str, dict[str, list[dict[str, float]]]] = {
        way: {"1": [], "2": []} for way in arguments.ways
    }
    with tempfile.TemporaryDirectory() as folder:
        write_sources(Path(folder))
        copied = statistics.median(time_copy(Path(folder)) for _ in range(5))
        begun = time_begin(Path(folder))
        for _ in range(arguments.rounds):
            for way in arguments.ways:
                for workers in ("1", "2"):
                    rounds[way][workers].append(measure(Path(folder), way, int(workers)))
                    print(way, workers, rounds[way][workers][-1], flush=True)
    former = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    machines = dict.fromkeys(arguments.ways, machine)
    result = {
        "benchmark": "workers",
        "environments": {**former.get("environments", {}), **machines},
        "settings": {"sizes": SIZES, "side": SIDE, "shards": SHARDS, "rounds": arguments.rounds},
        "seconds": {**former.get("seconds", {}), **summarize(rounds)},
        "seconds_to_begin_a_part": round(begun, 3),
        "seconds_to_put_an_image_together": round(copied, 6),
    }
    write_atomic(arguments.out, (json.dumps(result, indent=1) + "\n").encode())
    print(json.dumps(result["seconds"], indent=1))


if __name__ == "__main__":
    main()
