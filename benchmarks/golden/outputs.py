"""Sections of what is written and printed: augmented records, denoised files, TFDS, help, JSON."""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow as tf
import typer

from benchmarks.golden.command import note_command, note_records, run_command
from benchmarks.golden.record import Notes, serialize_arrays, serialize_json
from benchmarks.golden.sources import (
    make_image,
    to_integers,
    write_coco,
    write_pictures,
    write_series,
)
from vae_aug.cli import app
from vae_aug.extras.cards import CARD_FILE, CROISSANT_FILE

ROOT = Path(__file__).resolve().parents[2]
AUGMENTED: dict[str, tuple[str, ...]] = {
    "demo sample": ("--ckpt", "demo", "--seed", "3"),
    "demo denoise": ("--ckpt", "demo", "--mode", "denoise", "--guard", "keep", "--shards", "2"),
    "vector interpolate": ("--ckpt", "vector", "--mode", "interpolate", "--p", "0.5"),
    "validation refused": ("--ckpt", "vector", "--split", "validation"),
    "validation forced": (
        *("--ckpt", "vector", "--split", "validation", "--augment-evaluation"),
        *("--factor", "2", "--detail", "0.5", "--min-fidelity", "0.95"),
    ),
}
BUILDS: dict[str, dict[str, Any]] = {
    "embedded": {"source": "embedded", "checkpoint": "vector", "mode": "sample", "seed": 2},
    "records": {"source": "records", "checkpoint": "demo", "mode": "denoise", "factor": 0.5},
}
"""Configurations of the TFDS builder."""

PYDICOM_FILES = ("CT_small", "MR_small", "MR_small_bigendian", "SC_rgb_jpeg_dcmtk")
_VERSION = "augment/version"


def write_records() -> Path:
    """Ingest the COCO source by patient, without faults; return the folder."""
    write_coco(Path("coco"), faults=False)
    shares = ("--split-by-patient", "0.4,0.3,0.3", "--keep-ids")
    outcome = run_command("ingest", "coco", "records", *shares)
    if outcome.status:
        raise RuntimeError(f"ingest failed: {outcome.err}")
    return Path("records")


def note_augment(notes: Notes) -> None:
    """Section `augment`: records written by `vae-aug augment`; how one was made, and again."""
    records = write_records()
    for name, options in AUGMENTED.items():
        case, out = f"augment/{name}", Path("augmented", name)
        note_command(notes, case, "augment", records, out, *options)
        if not out.is_dir():
            continue
        for path in sorted(out.iterdir()):
            if path.name in (CROISSANT_FILE, CARD_FILE):
                continue  # they hold the version, and digests of shards that hold it
            if path.suffix == ".tfrecord":
                notes.note(f"{case}/{path.name}", _serialize_examples(path))
            else:
                notes.note(f"{case}/{path.name}", serialize_json(path.read_text()))
        note_command(notes, f"{case}, checked", "check", out)
        first = min(out.glob("train-*.tfrecord"))
        note_command(notes, f"{case}, first", "info", first, "--record", "0", "--json")
    first = min(Path("augmented/demo sample").glob("train-*.tfrecord"))
    note_command(notes, "augment/replayed", "replay", first, "--source", records, "--ckpt", "demo")


def _serialize_examples(path: Path) -> bytes:
    """Turn the examples of a shard into bytes, without the version that made them."""
    parts = []
    for serialized in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        example = tf.train.Example.FromString(serialized)
        example.features.feature.pop(_VERSION, None)
        parts.append(example.SerializeToString(deterministic=True))
    return b"\n".join(parts)


def note_denoise(notes: Notes) -> None:
    """Section `denoise`: PNG, JPEG and DICOM files, and a second run over the same ones."""
    source = Path("scans")
    write_pictures(source)
    write_series(source / "series", count=2)
    alpha = to_integers(make_image(9, 40, 40, 4), np.uint8)
    cv2.imwrite(str(source / "alpha.png"), alpha)
    with importlib.resources.as_file(importlib.resources.files("pydicom.data")) as data:
        for name in PYDICOM_FILES:
            shutil.copyfile(data / "test_files" / f"{name}.dcm", source / f"{name}.dcm")
    runs = {
        "demo": ("--ckpt", "demo"),
        "vector": ("--ckpt", "vector", "--dicom-as", "png", "--window", "soft-tissue"),
    }
    for name, options in runs.items():
        # Not by the name alone, which would stand for the packaged checkpoint no longer.
        out = Path("denoised", name)
        note_command(notes, f"denoise/{name}", "denoise", source, out, *options)
        for path in sorted(path for path in out.rglob("*") if path.is_file()):
            notes.note(f"denoise/{name}/{path.relative_to(out).as_posix()}", path.read_bytes())
    note_command(notes, "denoise/again", "denoise", source, out, *runs["vector"])


def note_tfds(notes: Notes) -> None:
    """Section `tfds`: the examples of `tfds build med_vae_augmented`."""
    # An extra, which the other sections do without.
    import tensorflow_datasets as tfds

    records, built = write_records().resolve(), Path("built").resolve()
    for name, settings in BUILDS.items():
        source = records if settings["source"] == "records" else settings["source"]
        config = json.dumps({**settings, "source": str(source), "name": name})
        module = "tensorflow_datasets.scripts.cli.main"
        subprocess.run(
            [
                *(sys.executable, "-m", module, "build", "med_vae_augmented"),
                *("--config", config, "--data_dir", str(built)),
            ],
            cwd=ROOT / "tfds_builders",
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
            capture_output=True,
        )
        (folder,) = (built / "med_vae_augmented" / name).iterdir()
        builder = tfds.builder_from_directory(folder)
        notes.note(f"tfds/{name}/features", (folder / "features.json").read_text())
        for split in sorted(builder.info.splits):
            leaves = []
            for example in tfds.as_numpy(builder.as_dataset(split=split)):
                example.pop(_VERSION, None)
                leaves += [key for key in sorted(example)]
                leaves += tf.nest.flatten([example[key] for key in sorted(example)])
            notes.note(f"tfds/{name}/{split}", serialize_arrays(leaves))


def note_help(notes: Notes) -> None:
    """Section `help`: what `--help` prints for every command."""
    _note_help(notes, typer.main.get_command(app), ())


def _note_help(notes: Notes, command: Any, names: tuple[str, ...]) -> None:
    outcome = run_command(*names, "--help")
    notes.note(f"help/{' '.join(('vae-aug', *names))}", outcome.out + outcome.err)
    for name, below in getattr(command, "commands", {}).items():
        _note_help(notes, below, (*names, name))


def note_json(notes: Notes) -> None:
    """Section `json`: `ingest`, `info`, `check` and `which`, as JSON and as text."""
    records = write_records()
    note_records(notes, "json/records", records)
    first = min(records.glob("train-*.tfrecord"))
    for checkpoint in ("demo", "vector"):
        note_command(notes, f"json/info {checkpoint}", "info", checkpoint, "--json")
    calls: dict[str, tuple[str | Path, ...]] = {
        "info records": ("info", records),
        "info file": ("info", first),
        "check": ("check", records),
        "check strict": ("check", records, "--strict", "--near-bits", "40"),
        "ingest hidden": ("ingest", "coco", "hidden", "--salt-file", "salt"),
        "info nothing": ("info", "nothing"),
    }
    Path("salt").write_text("grains")
    for name, call in calls.items():
        note_command(notes, f"json/{name} --json", *call, "--json")
        if name.startswith("ingest"):
            shutil.rmtree("hidden")
        note_command(notes, f"json/{name}", *call)
    report = Path("hidden/ingest_train.json").read_text()
    hashes = re.findall(r"\b[0-9a-f]{16}\b", report)[:2]
    salted = ("which", "coco", *hashes, "--salt-file", "salt")
    note_command(notes, "json/which --json", *salted, "--json")
    note_command(notes, "json/which", *salted)
