"""Which DICOM files are read, which are refused and why, and whether grey levels equal pydicom's.

    .venv/bin/python benchmarks/dicom_files.py FOLDER FOLDER --summary FOLDER

The files in pydicom's wheel are always among them. The first and the last frame of what is read
are compared with what pydicom itself makes of them: its modality LUT, its VOI LUT or window, its
palette and its colour conversion, brought to the same range and number of bits. Pixels that a file
declares as padding are left out of the comparison, as pydicom does not know of padding.
"""

from __future__ import annotations

import argparse
import collections
import json
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

from vae_aug.atomic import write_atomic
from vae_aug.errors import DicomError
from vae_aug.ingest.dicom.image import read_dicom, read_header
from vae_aug.ingest.dicom.values import find_padding

RESULTS = Path(__file__).parent / "results"
DECODERS = ("pydicom", "pillow", "pyjpegls", "pylibjpeg", "pylibjpeg-openjpeg", "python-gdcm")


def show_with_pydicom(dataset: pydicom.Dataset, frame: int) -> np.ndarray:
    """Return a frame as pydicom shows it, `[H, W] or [H, W, 3]` in [0, 1]."""
    stored = dataset.pixel_array
    stored = stored[frame] if int(dataset.get("NumberOfFrames") or 1) > 1 else stored
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        colour = apply_color_lut(stored, dataset)
        return colour / (2.0 ** (8 * colour.itemsize) - 1)
    if stored.ndim == 3:
        return stored / (2.0**dataset.BitsStored - 1)
    values = apply_modality_lut(stored, dataset)
    if dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        shown = apply_voi_lut(values, dataset) / (2.0**bits - 1)
    elif dataset.get("WindowWidth") and dataset.get("WindowCenter") is not None:
        # pydicom maps a window to the range of the modality values.
        signed = 2 ** (dataset.BitsStored - 1) if dataset.PixelRepresentation else 0
        slope = float(dataset.get("RescaleSlope", 1))
        black = -signed * slope + float(dataset.get("RescaleIntercept", 0))
        span = (2.0**dataset.BitsStored - 1) * slope
        shown = (apply_voi_lut(values, dataset) - black) / span
    else:
        values = values.astype(np.float64)
        kept = values[~find_padding(stored, dataset)]
        shown = np.clip((values - kept.min()) / max(np.ptp(kept), 1e-300), 0, 1)
    inverse = dataset.get("PresentationLUTShape") == "INVERSE"
    return 1 - shown if inverse or dataset.PhotometricInterpretation == "MONOCHROME1" else shown


def compare(path: Path, frame: int) -> tuple[dict[str, Any], int]:
    """Read a frame and return what it is, and its largest difference to pydicom's in steps."""
    pixels = read_dicom(path, frame=frame).pixels
    dataset = pydicom.dcmread(path)
    peer = show_with_pydicom(dataset, frame)
    peer = np.floor(peer * np.iinfo(pixels.dtype).max + 0.5)
    kept = np.ones(pixels.shape[:2], bool)
    if peer.ndim == 2:
        stored = dataset.pixel_array
        stored = stored[frame] if int(dataset.get("NumberOfFrames") or 1) > 1 else stored
        kept = ~find_padding(stored, dataset)
        peer = peer[..., None]
    steps = np.abs(pixels.astype(np.int64) - peer)[kept].max(initial=0)
    return {"shape": list(pixels.shape), "dtype": pixels.dtype.name}, int(steps)


def describe(path: Path, name: str) -> dict[str, Any]:
    """Return the row of a file."""
    try:
        frames = read_header(path).frames
        row, first = compare(path, 0)
        steps = max(first, compare(path, frames - 1)[1]) if frames > 1 else first
    except DicomError as error:
        reason = str(error).removeprefix(f"{path}: ")
        return {"file": name, "result": "refused", "reason": reason}
    equal = {"equal_to_pydicom": steps == 0, "largest_difference_steps": steps}
    return {"file": name, "result": "read", "frames": frames, **row, **equal}


def count(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many files of each kind there are."""
    refused = collections.Counter(row["reason"] for row in rows if row["result"] == "refused")
    read = [row for row in rows if row["result"] == "read"]
    return {
        "files": len(rows),
        "read": len(read),
        "equal_to_pydicom": sum(row["equal_to_pydicom"] for row in read),
        "largest_difference_steps": max((r["largest_difference_steps"] for r in read), default=0),
        "refused": dict(refused.most_common()),
    }


def find_version(package: str) -> str:
    """Return the version of a package, or that it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--summary", type=Path, nargs="*", default=[], help="counts only")
    parser.add_argument("--keep-as", help="name in benchmarks/results, without .json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    wheel = Path(pydicom.__file__).parent / "data" / "test_files"
    report: dict[str, Any] = {"versions": {name: find_version(name) for name in DECODERS}}
    for folder in (wheel, *args.folders, *args.summary):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        rows = [describe(path, path.relative_to(folder).as_posix()) for path in files]
        title = "pydicom/data/test_files" if folder == wheel else folder.name
        listed = {} if folder in args.summary else {"files": rows}
        report[title] = {"count": count(rows), **listed}
        print(title, json.dumps(report[title]["count"], indent=1))
    if args.keep_as:
        text = json.dumps(report, indent=1) + "\n"
        write_atomic(RESULTS / f"{args.keep_as}.json", text.encode())


if __name__ == "__main__":
    main()
