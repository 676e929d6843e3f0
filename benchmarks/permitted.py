"""Write records of the sets whose licences let trained weights ship, with the patients of each.

    python -m benchmarks.permitted --data DATA --out RECORDS [--unseen]

The packaged `demo` learned its variation from them. CT, stored as Hounsfield units + 1024, is shown
in a random one of the windows that radiologists use; MR from black to its 99.9th percentile. Where
a set names no patients they are derived from file names, see `SETS`. An eighth of the patients is
the split `validation`. With `--unseen` the images of a set's `val.json`, which no training reads,
are the split `test`: an audit of membership needs patients whom the network never saw.
"""

from __future__ import annotations

import argparse
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.misc import is_dicom

from vae_aug.ingest.privacy import hash_identifier
from vae_aug.records.records import make_example, write_split

WINDOWS = ((40, 400), (40, 80), (-600, 1500), (300, 1500))
"""Level and width in HU of soft tissue, brain, lung and bone."""

SETS: dict[str, str] = {
    # .NET's clock, of which the leading digits tell sessions a quarter of an hour long apart.
    "kidney_stone_ct": r"33-1-(\d{8})",
    "ibsi_sts": "",
    "sunnybrook_cine": "",
    "mr_vendors": "",
    "covid_ny_sbu_ct": "",
    "anatomy_ccby_mini": r"(.*)_\d+\.png",
    "lung_ct_dicom": "",
    "mr_brain_dicom": "",
}
"""Each set, and the regular expression whose first group in a file name is the patient."""

SALT = b"vae-aug-packaged"
"""The data is public, so the salt of its patients' hashes may be public too."""

LISTS = ("train.json", "annotations.coco.json", "slices.json", "images.json")
"""Where sets list their images, of COCO those that are not its test."""

_UNSEEN_LISTS = ("val.json",)

_VALIDATION_SHARE = 8
_EVERY = 4
"""Of the one volume of `mr_brain_dicom`, every so many slices are taken."""


def list_images(
    data: Path, name: str, files: tuple[str, ...] = LISTS
) -> Iterator[tuple[Path, str, bool]]:
    """List the images of a set: path, patient, and whether they are CT in HU + 1024."""
    folder = data / name
    if name in ("lung_ct_dicom", "mr_brain_dicom"):
        paths = sorted(path for path in folder.rglob("*") if path.is_file() and is_dicom(path))
        every = _EVERY if name == "mr_brain_dicom" else 1
        yield from ((path, name, name == "lung_ct_dicom") for path in paths[::every])
        return
    for entry in _read_entries(folder, files):
        file = entry.get("file_name") or entry["file"]
        path = folder / "images" / file
        pattern = SETS[name]
        found = re.search(pattern, file) if pattern else None
        patient = found[1] if found else entry.get("patient") or entry.get("subject") or file
        is_ct = entry.get("modality") == "CT" or name == "covid_ny_sbu_ct"
        yield path if path.is_file() else folder / file, patient, is_ct


def _read_entries(folder: Path, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Read what the first of these JSON files that a set has says of its images."""
    content = json.loads(next(folder / n for n in names if (folder / n).is_file()).read_text())
    entries: list[dict[str, Any]] = content["images"] if isinstance(content, dict) else content
    return entries


def read_grey(path: Path, is_ct: bool, rng: np.random.Generator) -> np.ndarray:
    """Read an image as `[H, W, 1] uint8`."""
    if path.suffix in ("", ".dcm"):
        file = pydicom.dcmread(path)
        values = file.pixel_array.astype(np.float32)
        if is_ct:
            values = values * float(file.RescaleSlope) + float(file.RescaleIntercept) + 1024.0
    else:
        values = np.asarray(Image.open(path)).astype(np.float32)
        values = values if values.ndim == 2 else values[..., :3].mean(axis=-1)
    if is_ct:
        level, width = WINDOWS[rng.integers(len(WINDOWS))]
        values = (values - (1024.0 + level - 0.5 * width)) / width
    elif values.max() > 255:
        values = values / np.quantile(values, 0.999)
    else:
        values = values / 255.0
    return np.round(255 * np.clip(values, 0.0, 1.0)).astype(np.uint8)[..., None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--out", type=Path, required=True, help="folder of the records")
    parser.add_argument("--unseen", action="store_true", help="write val.json, too, as split test")
    arguments = parser.parse_args()
    for name in SETS:
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        examples: dict[str, list[Any]] = {"train": [], "validation": [], "test": []}
        listed = list(list_images(arguments.data, name))
        patients = sorted({patient for _, patient, _ in listed})
        held = set(rng.permutation(patients)[: len(patients) // _VALIDATION_SHARE].tolist())
        unseen = []
        if arguments.unseen and (arguments.data / name / _UNSEEN_LISTS[0]).is_file():
            unseen = list(list_images(arguments.data, name, _UNSEEN_LISTS))
        if both := {patient for _, patient, _ in unseen} & set(patients):
            raise SystemExit(f"{name}: of both lists are {', '.join(sorted(both))}.")
        splits = {patient: "validation" if patient in held else "train" for patient in patients}
        splits |= {patient: "test" for _, patient, _ in unseen}
        for path, patient, is_ct in [*listed, *unseen]:
            image = read_grey(path, is_ct, rng)
            split = splits[patient]
            example = make_example(
                image,
                source_id=f"{name}/{path.name}",
                patient=hash_identifier("patient", f"{name}/{patient}", SALT),
                boxes=np.zeros([0, 4]),
                labels=[],
                label_names=(),
            )
            examples[split].append((example, False))
        out = arguments.out / name
        for split, some in examples.items():
            if some:
                write_split(some, out, split, 1, label_names=())
        print(name, {split: len(some) for split, some in examples.items()}, len(patients))


if __name__ == "__main__":
    main()
