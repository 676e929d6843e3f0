"""Random folders of images whose annotations no reader understands, and clutter beside them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import cv2
import numpy as np

Box = tuple[str, tuple[float, float, float, float]]
Truth = dict[str, list[Box]]

HEIGHT, WIDTH = 24, 32
CLUTTER = {
    "README.md": "3 images",
    "LICENSE.txt": "CC BY 4.0",
    "SHA256SUMS": "0123  a.png",
    ".DS_Store": "\0\1",
    "notes.txt": "Taken in 2019 by two readers, who drew what they saw.",
    "__MACOSX/._a.png": "\0",
    "requirements.txt": "numpy==1.26",
}


def make(rng: random.Random, folder: Path) -> Truth:
    """Write one source; half of them are bare images."""
    names = [f"{stem}.png" for stem in rng.sample(("a", "scan 2", "Röntgen", "0004"), 3)]
    place = folder / rng.choice(("", "images", "deep/er"))
    place.mkdir(parents=True, exist_ok=True)
    truth: Truth = {}
    for index, name in enumerate(names):
        pixels = np.full((HEIGHT, WIDTH), 40 * index, np.uint8)
        (place / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        truth[(place / name).relative_to(folder).as_posix()] = []
    for name in rng.sample(sorted(CLUTTER), 2):
        _write(folder / name, CLUTTER[name].encode())
    if rng.random() < 0.5:
        for key in truth:
            truth[key] = [_make_box(rng) for _ in range(rng.randint(0, 2))]
        if not any(truth.values()):
            truth[next(iter(truth))] = [_make_box(rng)]
        rng.choice(WRITERS)(rng, folder, truth)
    return truth


def _make_box(rng: random.Random) -> Box:
    left, top = rng.randint(0, WIDTH - 9), rng.randint(0, HEIGHT - 9)
    right, bottom = left + rng.randint(3, 8), top + rng.randint(3, 8)
    return rng.choice(("nodule", "cyst")), (float(left), float(top), float(right), float(bottom))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _write_json(rng: random.Random, folder: Path, truth: Truth) -> None:
    """One file of an unknown kind, whole, cut off, in other encodings, or line by line."""
    rows = [{"file": name, "rois": boxes} for name, boxes in truth.items()]
    name = rng.choice(("train.json", "meta.json", "a.json", "annotations/x.json", "rois.jsonl"))
    if name.endswith("l"):
        text = "\n".join(json.dumps(row) for row in rows)
    else:
        text = json.dumps(rng.choice((rows, {"data": rows}, {"images": rows})))
    data = text.encode(rng.choice(("utf-8", "utf-8-sig", "utf-16")))
    _write(folder / name, data[: rng.randrange(1, len(data))] if rng.random() < 0.3 else data)


def _write_text(rng: random.Random, folder: Path, truth: Truth) -> None:
    """A text for each image, or one for all, without names of classes."""
    separator = rng.choice((" ", ",", "\t", ";"))
    lines = {
        name: [
            separator.join(f"{value:g}" for value in (index, *box))
            for index, (_, box) in enumerate(boxes)
        ]
        for name, boxes in truth.items()
    }
    if rng.random() < 0.5:
        for name in truth:
            path = Path(rng.choice(("", "labels"))) / f"{Path(name).stem}.txt"
            _write(folder / path, "\n".join(lines[name]).encode())
    else:
        text = "\n".join(f"{name}{separator}{line}" for name in truth for line in lines[name])
        _write(folder / rng.choice(("gt.txt", "train.txt", "list.dat")), text.encode())


def _write_table(rng: random.Random, folder: Path, truth: Truth) -> None:
    """A table whose columns tell nobody what they are."""
    rows = [
        f"{name},{label},{json.dumps(box)!r}"
        for name, boxes in truth.items()
        for label, box in boxes
    ]
    name = rng.choice(("labels.csv", "train.tsv", "x.csv"))
    _write(folder / name, "\n".join(["scan,what,where", *rows]).encode())


def _write_xml(rng: random.Random, folder: Path, truth: Truth) -> None:
    for name, boxes in truth.items():
        marks = "".join(f"<mark what='{label}' where='{box}'/>" for label, box in boxes)
        text = f"<scan>{marks}</scan>" if rng.random() < 0.7 else f"<annotation>{marks}"
        _write(folder / "xml" / f"{Path(name).stem}.xml", text.encode())


def _write_binary(rng: random.Random, folder: Path, truth: Truth) -> None:
    suffix = rng.choice(
        (".npy", ".npz", ".mat", ".h5", ".pkl", ".xlsx", ".parquet", ".nrrd", ".roi")
    )
    for name in truth:
        _write(folder / f"{Path(name).stem}{suffix}", bytes(rng.randrange(256) for _ in range(40)))


WRITERS = (_write_json, _write_text, _write_table, _write_xml, _write_binary)
