"""What a kill leaves behind: commands are killed at random moments, run again, and compared.

    .venv/bin/python benchmarks/faults.py --kills 40

A command is killed by SIGKILL between the moment at which its first file appears and its end, in
turn with all of its workers and alone. It is then run again until it ends well, and everything in
the folder around its output, hidden files included, is compared with what a run without a fault
leaves. Results are kept after each kill, and a later call goes on from there.

    .venv/bin/python benchmarks/faults.py --kills 5 --faketime LIBRARY

does the same with the clock set back by a day before the command is run again. The library is
`libfaketime.so.1` of Debian's package `libfaketime`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from throughput import RESULTS, describe_machine

from vae_aug.atomic import write_atomic
from vae_aug.codecs.images import write_image
from vae_aug.phantoms.embedded import write_embedded
from vae_aug.words import make_markdown_table

IMAGES = 96
_CACHE = """
from vae_aug import VAEAugment, read_records
for _ in VAEAugment("demo", seed=1).cache(read_records("records", "train"), "{out}"): pass
"""
_TRAINING = {
    "model": {"profile": "ladder", "image_size": 64, "variation": False},
    "train": {"steps": 30, "validate_every": 10, "batch_size": 2, "frozen_stages": 4},
}
_BUILD = {"name": "own", "source": "records", "seed": 1}
# What waits for some time must not wait a day longer.
_CLOCK = {"FAKETIME": "-1d", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
_STATUS_OF_A_KILL = -signal.SIGKILL
_PATIENCE_S = 600.0
_GLANCE_S = 0.02


class Command(NamedTuple):
    """A command under test, and the environment of what runs it again.

    Attributes:
        line: Its arguments after those of Python, with `{out}` for its output.
        records: Whether TFRecord files are compared as sets of examples, since their bytes differ
            between two processes; their digests in the card are not compared then.
        skipped: Begins of names of files and folders that are not compared, since hours and speeds
            stand in them.
        again: Variables of the environment in which it is run again.
    """

    line: tuple[str, ...]
    records: bool = False
    skipped: tuple[str, ...] = ()
    again: Mapping[str, str] = {}


def list_commands() -> dict[str, Command]:
    """List the commands; they run in a folder with `source`, `images` and `records`."""
    cli = ("-m", "vae_aug.cli")
    ingest = (*cli, "ingest", "source", "{out}", "--split", "train")
    augment = (*cli, "augment", "records", "{out}", "--ckpt", "demo", "--seed", "1")
    train = (*cli, "train", "records", "--config", "training.json", "--out", "{out}")
    tfds = (
        *("-c", "from tensorflow_datasets.scripts.cli.main import launch_cli; launch_cli()"),
        *("build", "med_vae_augmented", "--imports", "vae_aug_tfds.med_vae_augmented"),
        *(
            "--data_dir",
            "{out}",
            "--config",
            json.dumps(_BUILD).replace("{", "{{").replace("}", "}}"),
        ),
    )
    return {
        "ingest": Command(ingest),
        "ingest, 2 workers": Command((*ingest, "--workers", "2")),
        "augment": Command(augment),
        "augment, 2 workers": Command((*augment, "--workers", "2")),
        "augment, Beam": Command((*augment, "--runner", "FnApiRunner")),
        "denoise": Command((*cli, "denoise", "images", "{out}", "--ckpt", "demo")),
        "cache": Command(("-c", _CACHE)),
        "train": Command(train, skipped=("log.jsonl", "tensorboard", "curves.png", "start.json")),
        "tfds build": Command(tfds, records=True, skipped=("downloads",)),
    }


def make_sources(folder: Path) -> None:
    """Write what the commands read."""
    write_embedded(folder / "source", counts={"train": IMAGES}, size=64, real=False)
    line = ["ingest", "source", "records", "--split", "train"]
    subprocess.run([sys.executable, "-m", "vae_aug.cli", *line], cwd=folder, check=True)
    (folder / "images").mkdir()
    for index in range(IMAGES):
        image = np.random.default_rng(index).integers(0, 256, (64, 64, 1), np.uint8)
        write_image(folder / "images" / f"{index}.png", image)
    (folder / "training.json").write_text(json.dumps(_TRAINING))


@contextlib.contextmanager
def run(
    command: Command, folder: Path, out: Path, variables: Mapping[str, str] = {}
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command in a process group of its own, of which nothing is left after the block."""
    line = [argument.format(out=out) for argument in command.line]
    process = subprocess.Popen(
        [sys.executable, *line],
        cwd=folder,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def describe(command: Command, around: Path) -> dict[str, Any]:
    """Return the content of all files around an output, by their paths in it; a folder has none."""
    return {
        str(path.relative_to(around)): _read(path, command.records, around)
        for path in sorted(around.rglob("*"))
        if not any(part.startswith(command.skipped) for part in path.relative_to(around).parts)
    }


def _read(path: Path, records: bool, around: Path) -> Any:
    """Read a file, but for the hours and the path of the folder that stand in it."""
    if path.is_dir():
        return None
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            return {n: archive.read(n) for n in archive.namelist() if n != "metadata.json"}
    if not (records and "tfrecord" in path.name):
        lines = path.read_bytes().replace(os.fsencode(around), b"").split(b"\n")
        if records and path.name == "croissant.json":
            return [line for line in lines if b'"sha256"' not in line]
        # TensorFlow lists the checkpoints of a training in a file of this name.
        return [line for line in lines if path.name != "checkpoint" or b"timestamp" not in line]
    return [
        tf.train.Example.FromString(record).SerializeToString(deterministic=True)
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    ]


def run_whole(command: Command, folder: Path) -> tuple[dict[str, Any], float, float]:
    """Run a command; return its files, and the seconds to the first of them and to the end."""
    with tempfile.TemporaryDirectory() as around:
        begin = time.monotonic()
        first = 0.0
        with run(command, folder, Path(around) / "out") as process:
            while process.poll() is None:
                if not first and any(Path(around).iterdir()):
                    first = time.monotonic() - begin
                time.sleep(_GLANCE_S)
        if process.returncode:
            raise RuntimeError(f"{command.line}: status {process.returncode} without a fault.")
        return describe(command, Path(around)), first, time.monotonic() - begin


def try_once(
    command: Command,
    folder: Path,
    expected: dict[str, Any],
    kill_after_s: float,
    group: bool,
) -> dict[str, Any] | None:
    """Kill a command, some time after its first file, and run it again.

    Returns:
        What was found; None if the command ended before it could be killed.
    """
    with tempfile.TemporaryDirectory() as around:
        out = Path(around) / "out"
        with run(command, folder, out) as process:
            while process.poll() is None and not any(Path(around).iterdir()):
                time.sleep(_GLANCE_S)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(kill_after_s)
            if process.poll() is not None:
                return None
            (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
            if process.wait() != _STATUS_OF_A_KILL:
                return None
            statuses: list[int] = []
            # A second run refuses an output that the first had finished before it was killed.
            while not statuses or (
                statuses[-1] and len(statuses) < 3 and describe(command, Path(around)) != expected
            ):
                with run(command, folder, out, command.again) as again:
                    statuses.append(again.wait(_PATIENCE_S))
            if not group:
                time.sleep(2.0)  # for workers without a parent to end
            found = describe(command, Path(around))
    common = set(found) & set(expected)
    return {
        "after_first_file_s": round(kill_after_s, 2),
        "with_workers": group,
        "statuses": statuses,
        "lost": len(set(expected) - common),
        "wrong": sum(found[path] != expected[path] for path in common),
        "left_over": sorted(set(found) - common),
    }


def measure(
    name: str,
    command: Command,
    folder: Path,
    kills: int,
    keep: Callable[[list[Any]], None],
    done: list[Any],
) -> None:
    """Kill a command until it was killed `kills` times."""
    if len(done) >= kills:
        return
    expected, first, whole = run_whole(command, folder)
    again, *_ = run_whole(command, folder)
    if again != expected:
        differing = sorted(path for path in expected if again.get(path) != expected[path])
        raise RuntimeError(f"{name}: two runs without a fault differ in {differing}.")
    print(f"{name}: first file after {first:.1f} s, end after {whole:.1f} s", flush=True)
    numbers = random.Random(len(done))
    while len(done) < kills:
        # Counted from the first file on, since the time before it depends on what else is running.
        moment = numbers.uniform(0.0, whole - first)
        trial = try_once(command, folder, expected, moment, len(done) % 2 == 0)
        if trial is not None:
            done.append(trial)
            keep(done)
            print(name, len(done), trial, flush=True)


def check_clock(variables: Mapping[str, str]) -> None:
    """Raise `RuntimeError` unless these variables set back the clock of a process by a day."""
    line = [sys.executable, "-c", "import time; print(time.time())"]
    told = subprocess.check_output(line, env={**os.environ, **variables}, text=True)
    if not 86_000 < time.time() - float(told) < 87_000:
        raise RuntimeError(f"{variables['LD_PRELOAD']} does not set back the clock.")


def summarize(trials: list[dict[str, Any]]) -> dict[str, int]:
    """Count what went wrong in the trials of a command."""
    return {
        "kills": len(trials),
        "lost": sum(trial["lost"] for trial in trials),
        "wrong": sum(trial["wrong"] for trial in trials),
        "left_over": sum(bool(trial["left_over"]) for trial in trials),
        "whole_when_killed": sum(trial["statuses"][0] != 0 for trial in trials),
    }


def make_table(summary: Mapping[str, Mapping[str, int]]) -> str:
    """Make the table of docs/large-sets.md."""
    names = ("kills", "lost", "wrong", "left_over")
    headings = ("command", "kills", "files lost", "files that differ", "runs that left something")
    rows = [(command, *(found[name] for name in names)) for command, found in summary.items()]
    return make_markdown_table(headings, rows)


def main() -> None:
    commands = list_commands()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commands", nargs="*", default=list(commands), choices=list(commands))
    parser.add_argument("--kills", type=int, default=40, help="of each command")
    parser.add_argument("--faketime", type=Path, help="library that sets back the clock")
    parser.add_argument("--out", type=Path, default=RESULTS / "faults.json")
    arguments = parser.parse_args()
    clock = {}
    if arguments.faketime:
        clock = _CLOCK | {"LD_PRELOAD": str(arguments.faketime.resolve(strict=True))}
        check_clock(clock)
    machine = describe_machine()  # its load, before commands add to it
    former = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    results, machines = former.get("trials", {}), former.get("environments", {})

    def keep(name: str, trials: list[Any]) -> None:
        results[name], machines[name] = trials, machine
        told = {
            "benchmark": "faults",
            "environments": machines,
            "summary": {name: summarize(trials) for name, trials in results.items()},
            "trials": results,
        }
        write_atomic(arguments.out, (json.dumps(told, indent=1) + "\n").encode())

    with tempfile.TemporaryDirectory() as folder:
        make_sources(Path(folder))
        for chosen in arguments.commands:
            name, command = chosen, commands[chosen]
            if clock:
                name, command = f"{chosen}, clock set back", command._replace(again=clock)
            done = results.get(name, [])
            measure(
                name,
                command,
                Path(folder),
                arguments.kills,
                functools.partial(keep, name),
                done,
            )
    print(json.dumps({name: summarize(trials) for name, trials in results.items()}, indent=1))


if __name__ == "__main__":
    main()
