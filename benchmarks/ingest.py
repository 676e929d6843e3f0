"""How fast `vae-aug ingest` makes records of DICOM files, beside pydicom decoding them only.

    .venv/bin/python benchmarks/ingest.py CT=FOLDER MR=FOLDER --compress J2K=FOLDER

Folders are measured as they are or, behind `--compress`, as JPEG 2000 Lossless, which archives
often hold. Within every repeat these run in turn on the same files:

- `decode`: `pydicom.dcmread(path).pixel_array`, which leaves nothing on disk;
- `decode_and_encode`: the same, and the stored values encoded as records hold them, as PNG;
- `ingest_1` and `ingest_2`: `ingest` with one and with two workers, to the last byte on disk.

Files are copied until there are `--images`, each with a UID of its own. Workers need seconds to
load TensorFlow, which many images outweigh; `steady` leaves out the time up to the first block.
Ratios are per repeat, and their median is what to compare. `processor_ms_an_image` adds up the time
on all cores of this process, which other work on the machine changes less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import tensorflow as tf
from pydicom.uid import JPEG2000Lossless, generate_uid

from vae_aug.atomic import write_atomic
from vae_aug.codecs.images import encode_png
from vae_aug.ingest.blocks import BLOCK
from vae_aug.ingest.dicom.file import is_dicom
from vae_aug.ingest.ingest import ingest
from vae_aug.version import __version__

RESULTS = Path(__file__).parent / "results"


def copy_files(source: Path, out: Path, count: int, compress: bool) -> list[Path]:
    """Copy the DICOM files of a folder in turn until there are `count`."""
    found = sorted(path for path in source.rglob("*") if path.is_file() and is_dicom(path))
    datasets = [pydicom.dcmread(path) for path in found[:count]]
    if compress:
        for dataset in datasets:
            dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    out.mkdir()
    files = [out / f"{index:05}.dcm" for index in range(count)]
    for index, path in enumerate(files):
        dataset = datasets[index % len(datasets)]
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.save_as(path)
    return files


def decode(files: list[Path]) -> float:
    """Decode the files and return the seconds."""
    begin = time.perf_counter()
    for path in files:
        _ = pydicom.dcmread(path).pixel_array
    return time.perf_counter() - begin


def decode_and_encode(files: list[Path]) -> float:
    """Decode the files, encode what they store as PNG, and return the seconds."""
    begin = time.perf_counter()
    for path in files:
        encode_png(pydicom.dcmread(path).pixel_array.astype(np.uint16))
    return time.perf_counter() - begin


def run_ingest(files: list[Path], workers: int) -> tuple[float, float]:
    """Ingest the files; return the seconds, and those an image took after the first block."""
    stamps: dict[int, float] = {}
    with tempfile.TemporaryDirectory(dir=files[0].parent.parent) as out:
        begin = time.perf_counter()
        report = ingest(
            files[0].parent,
            out,
            format="dicom",
            salt="benchmark",
            workers=workers,
            progress=lambda done, total: stamps.setdefault(done, time.perf_counter()),
        )
        seconds = time.perf_counter() - begin
    if report.images != len(files):
        raise SystemExit(f"{report.images} of {len(files)} images were ingested.")
    # Until the first block is there, each worker makes one.
    ahead = BLOCK * workers
    return seconds, (begin + seconds - stamps[1]) / (len(files) - ahead)


def measure(files: list[Path], repeats: int) -> dict[str, Any]:
    """Run all in turn, in another order each time."""
    seconds: dict[str, list[float]] = {}
    processor_ms: dict[str, list[float]] = {}
    steady: dict[str, list[float]] = {"ingest_1": [], "ingest_2": []}

    def note_ingest(workers: int) -> float:
        all_in_all, each = run_ingest(files, workers)
        steady[f"ingest_{workers}"].append(each)
        return all_in_all

    runs: dict[str, Callable[[], float]] = {
        "decode": lambda: decode(files),
        "decode_and_encode": lambda: decode_and_encode(files),
        "ingest_1": lambda: note_ingest(1),
        "ingest_2": lambda: note_ingest(2),
    }
    decode_and_encode(files[:8])  # warm up
    for repeat in range(repeats):
        for name in list(runs)[:: 1 if repeat % 2 else -1]:
            begin = time.process_time()
            seconds.setdefault(name, []).append(runs[name]())
            spent = 1000 * (time.process_time() - begin) / len(files)
            processor_ms.setdefault(name, []).append(spent)
    del processor_ms["ingest_2"]
    speeds = {name: [len(files) / s for s in values] for name, values in seconds.items()}
    return {
        "images": len(files),
        "ingest_1_by_decode": divide(speeds["ingest_1"], speeds["decode"]),
        "ingest_1_by_decode_and_encode": divide(speeds["ingest_1"], speeds["decode_and_encode"]),
        "ingest_2_by_ingest_1": divide(speeds["ingest_2"], speeds["ingest_1"]),
        "ingest_2_by_ingest_1_steady": divide(steady["ingest_1"], steady["ingest_2"]),
        "images_a_second": {name: describe(values) for name, values in speeds.items()},
        "processor_ms_an_image": {n: describe(values) for n, values in processor_ms.items()},
    }


def divide(above: list[float], below: list[float]) -> dict[str, float]:
    return describe([a / b for a, b in zip(above, below, strict=True)])


def describe(values: list[float]) -> dict[str, float]:
    """Return median, lowest and highest."""
    return {
        "median": round(statistics.median(values), 3),
        "lowest": round(min(values), 3),
        "highest": round(max(values), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", help="NAME=FOLDER")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--compress", nargs="*", default=[], metavar="NAME=FOLDER", help="as JPEG 2000 Lossless"
    )
    parser.add_argument("--scratch", type=Path, help="where files are written; default: temporary")
    parser.add_argument("--keep-as", help="name of a file in results/")
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(dir=arguments.scratch))
    measured = {}
    try:
        for text in (*arguments.folders, *arguments.compress):
            name, folder = text.split("=", 1)
            compress = text in arguments.compress
            files = copy_files(Path(folder), scratch / "source", arguments.images, compress)
            measured[name] = measure(files, arguments.repeats)
            shutil.rmtree(scratch / "source")
            print(name, json.dumps(measured[name], indent=1), flush=True)
    finally:
        shutil.rmtree(scratch)
    result = {
        "measured": measured,
        "repeats": arguments.repeats,
        "cores": os.cpu_count(),
        "load_average_1_min_at_the_end": round(os.getloadavg()[0], 1),
        "machine": platform.machine(),
        "versions": {
            "vae_aug": __version__,
            "tensorflow": tf.__version__,
            "pydicom": pydicom.__version__,
            "numpy": np.__version__,
        },
    }
    if arguments.keep_as:
        write_atomic(
            RESULTS / f"{arguments.keep_as}.json", (json.dumps(result, indent=1) + "\n").encode()
        )


if __name__ == "__main__":
    main()
