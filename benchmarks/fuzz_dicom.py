"""Damage DICOM files at random, and count what reading them does.

    .venv/bin/python benchmarks/fuzz_dicom.py --seconds 300 --seed 0 --keep-as fuzz-dicom

A damaged file must be read or refused with a DicomError, in bounded time and memory. The originals
are those in pydicom's wheel. Files are read in a process of its own, so that a decoder that crashes
or hangs is counted and the run goes on. A case follows from the seed and its number.
"""

from __future__ import annotations

import argparse
import collections
import functools
import json
import multiprocessing
import platform
import resource
import tempfile
import time
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from vae_aug.atomic import write_atomic
from vae_aug.errors import DicomError
from vae_aug.ingest.dicom.image import read_dicom, read_header
from vae_aug.ingest.dicom.regions import read_regions

RESULTS = Path(__file__).parent / "results"
READERS = {
    "read_header": read_header,
    "read_dicom": functools.partial(read_dicom, frame=0),
    "read_regions": read_regions,
}
HANGS_AFTER_S = 60
DECODERS = ("pydicom", "pillow", "pyjpegls", "pylibjpeg-openjpeg", "python-gdcm")

_NUMBERS = (b"\xff\xff\xff\xff", b"\xfe\xff\xff\xff", b"\x00\x00\x00\x80", b"\xff\xff\xff\x7f")
_TAGS = (0x00280002, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280103)
_SEQUENCE = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff"


def find_originals() -> list[bytes]:
    """Return the contents of pydicom's own DICOM files, without the folders behind DICOMDIRs."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    files = (path for path in sorted(folder.glob("*.dcm")) if path.is_file())
    contents = (path.read_bytes() for path in files)
    return [data for data in contents if data[128:132] == b"DICM"]


def damage(data: bytes, random: np.random.Generator) -> bytes:
    """Return a file with one to four kinds of damage."""
    for _ in range(random.integers(1, 5)):
        at = int(random.integers(128, max(len(data), 129)))
        # Headers are short: half of the damage falls into the first 2 kB.
        at = min(at, 132 + int(random.integers(2048))) if random.random() < 0.5 else at
        match random.integers(8):
            case 0:
                data = data[:at]
            case 1:
                data = data[:at] + random.bytes(int(random.integers(1, 9))) + data[at + 8 :]
            case 2:
                data = data[:at] + _NUMBERS[random.integers(4)] + data[at + 4 :]
            case 3:
                data = data[:at] + data[at + int(random.integers(1, 64)) :]
            case 4:
                data = data[:at] + data[at : at + 256] * int(random.integers(2, 9)) + data[at:]
            case 5:
                data = data[:at] + _SEQUENCE * int(random.integers(1, 4000)) + data[at:]
            case _:
                data = damage_element(data, random)
    return data


def damage_element(data: bytes, random: np.random.Generator) -> bytes:
    """Return a file whose description of the pixels is changed."""
    tag = _TAGS[random.integers(len(_TAGS))]
    at = data.find((tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little"))
    if at < 0:
        return data
    return data[: at + 8] + random.bytes(int(random.integers(1, 5))) + data[at + 12 :]


def serve(connection: Connection) -> None:
    """Read files that the other end names, and tell what became of each."""
    while True:
        name, path = connection.recv()
        started = time.perf_counter()
        try:
            READERS[name](path)
            outcome = "read"
        except DicomError:
            outcome = "refused"
        except Exception as error:
            outcome = f"other: {name}: {type(error).__name__}: {error}"[:200]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        connection.send((outcome, time.perf_counter() - started, peak))


class Reader:
    """A process that reads files, and is replaced when it dies."""

    def __init__(self) -> None:
        """Start the process."""
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def read(self, name: str, path: Path) -> tuple[str, float, float]:
        """Return the outcome, seconds, and the peak memory of the process so far in MiB."""
        try:
            self._connection.send((name, path))
            if self._connection.poll(HANGS_AFTER_S):
                return self._connection.recv()
            outcome = f"hang: {name}"
        except (EOFError, OSError):
            outcome = f"crash: {name}"
        self.close()
        self._start()
        return outcome, float(HANGS_AFTER_S) if outcome.startswith("hang") else 0.0, 0.0

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep-failures", type=Path, help="folder for files that do not pass")
    parser.add_argument("--keep-as", help="name in benchmarks/results, without .json")
    args = parser.parse_args()
    originals = find_originals()
    counts: dict[str, collections.Counter[str]] = {n: collections.Counter() for n in READERS}
    failures: collections.Counter[str] = collections.Counter()
    slowest, peak, case = (0.0, "", -1), 0.0, -1
    reader, end = Reader(), time.monotonic() + args.seconds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        base = Path(folder) / "base.dcm"
        base.write_bytes(originals[0])
        start_mib = reader.read("read_header", base)[2]
        while time.monotonic() < end:
            case += 1
            random = np.random.default_rng([args.seed, case])
            data = damage(originals[random.integers(len(originals))], random)
            path.write_bytes(data)
            for name in READERS:
                outcome, seconds, memory = reader.read(name, path)
                kind = outcome.split(":")[0]
                counts[name][kind] += 1
                peak = max(peak, memory)
                slowest = max(slowest, (seconds, name, case))
                if kind not in ("read", "refused"):
                    failures[outcome] += 1
                    print(case, outcome, flush=True)
                    if args.keep_failures:
                        (args.keep_failures / f"{args.seed}-{case}.dcm").write_bytes(data)
    reader.close()
    report: dict[str, Any] = {
        "seconds": args.seconds,
        "seed": args.seed,
        "python": platform.python_version(),
        "versions": {n: version(n) for n in DECODERS},
        "originals": len(originals),
        "cases": case + 1,
        "outcomes": {name: dict(count) for name, count in counts.items()},
        "failures": dict(failures),
        "memory_at_start_mib": round(start_mib),
        "peak_memory_mib": round(peak),
        "slowest_s": round(slowest[0], 2),
        "slowest_reader": slowest[1],
        "slowest_case": slowest[2],
    }
    text = json.dumps(report, indent=1) + "\n"
    print(text)
    if args.keep_as:
        write_atomic(RESULTS / f"{args.keep_as}.json", text.encode())


if __name__ == "__main__":
    main()
