"""NIfTI data sets in many layouts, with what people and tools do to them."""

from __future__ import annotations

import gzip
import json
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np

Boxes = dict[str, list[tuple[str, tuple[float, float, float, float]]]]

WIDTH, HEIGHT = 16, 12
NAMES = {1: "tumour", 2: "cyst"}

# Images and labels of the case {0}, of which {1} is a number.
LAYOUTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("case_{1}/imaging.nii.gz",), "case_{1}/segmentation.nii.gz"),
    (("volume-{1}.nii",), "segmentation-{1}.nii"),
    (("volume_pt1/volume-{1}.nii",), "segmentations/segmentation-{1}.nii"),
    (("{0}/{0}_frame01.nii.gz",), "{0}/{0}_frame01_gt.nii.gz"),
    (("img/img{1}.nii.gz",), "label/label{1}.nii.gz"),
    (("imagesTr/{0}.nii.gz",), "labelsTr/{0}.nii.gz"),
    (("imagesTr/{0}_0000.nii.gz", "imagesTr/{0}_0001.nii.gz"), "labelsTr/{0}.nii.gz"),
    (("{0}/{0}-t1n.nii.gz", "{0}/{0}-t2f.nii.gz"), "{0}/{0}-seg.nii.gz"),
    (("{0}_flair.nii", "{0}_t1ce.nii"), "{0}_seg.nii"),
    (
        ("sub-{1}/anat/sub-{1}_T1w.nii.gz", "sub-{1}/anat/sub-{1}_FLAIR.nii.gz"),
        "derivatives/x/sub-{1}/anat/sub-{1}_label-lesion_mask.nii.gz",
    ),
    (("images/{0}.nii.gz",), "labels/{0}.nii.gz"),
    (("Images/{0}.nii.gz",), "GroundTruth/{0}_mask.nii.gz"),
    (("images/{0}/ct.nii.gz",), "masks/{0}/seg.nii.gz"),
    (("{0}.nii.gz",), "{0}_lesion.nii.gz"),
    (("{0}/FLAIR.nii.gz",), "{0}/Consensus.nii.gz"),
    (("{0}/orig/FLAIR.nii.gz",), "{0}/wmh.nii.gz"),
    # Nothing says whose these are.
    (("{0}.nii.gz",), "{0}_organs.nii.gz"),
    (("scans/{0}.nii.gz",), "results/{0}.nii.gz"),
    (("{0}/a.nii.gz",), "{0}/b.nii.gz"),
)


def make(rng: random.Random, folder: Path) -> Boxes:
    """Write a data set of one to three cases with one slice each.

    Args:
        rng: Chooses what is written.
        folder: An empty folder.

    Returns:
        By image, relative to `folder`, all boxes `xyxy` in pixels that its labels mark.
    """
    images, labels = rng.choice(LAYOUTS)
    stated: Boxes = {}
    named = _write_names(rng, folder)
    for number in rng.sample(range(1, 40), rng.randint(1, 3)):
        case = rng.choice(("case_{}", "P{}", "p.{}", "M\u00fcller-{}", "lesion_{}")).format(number)
        affine = _make_affine(rng)
        array, boxes = _draw(rng, named)
        for name in images:
            path = _write(rng, folder / name.format(case, number), _make_scan(rng), affine)
            stated[path.relative_to(folder).as_posix()] = boxes
        name = _rename(rng, labels.format(case, number))
        if rng.random() < 0.9:
            path = _write_labels(rng, folder / name, array, affine)
            _add_others(rng, path, affine)
    return stated


def _write_names(rng: random.Random, folder: Path) -> bool:
    """Write dataset.json in one of its forms; without it there is one class."""
    forms: tuple[dict[str, object], ...] = (
        {"0": "background", **{str(value): name for value, name in NAMES.items()}},
        {"background": 0, **{name: value for value, name in NAMES.items()}},
        {name: str(value) for value, name in NAMES.items()},
        {name: float(value) for value, name in NAMES.items()},
    )
    if rng.random() < 0.5:
        return False
    text = json.dumps({"labels": rng.choice(forms), "channel_names": {"0": "a", "1": "b"}})
    encoding = rng.choice(("utf-8", "utf-8-sig", "utf-16"))
    (folder / "dataset.json").write_text(text, encoding)
    return True


def _make_affine(rng: random.Random) -> np.ndarray:
    """Return an affine by which the image is stored upside down or mirrored, or not."""
    return np.diag([rng.choice((-1.0, 1.0)), rng.choice((-1.0, 1.0)), 2, 1])


def _make_scan(rng: random.Random) -> np.ndarray:
    values = np.random.default_rng(rng.randrange(2**32)).integers(-1000, 2000, (HEIGHT, WIDTH))
    return values.astype(rng.choice((np.int16, np.float32)))


def _draw(
    rng: random.Random, named: bool
) -> tuple[np.ndarray, list[tuple[str, tuple[float, float, float, float]]]]:
    """Return labels as they are shown, `[H, W]`, and their boxes."""
    array, boxes = np.zeros((HEIGHT, WIDTH), np.uint8), []
    for column in range(rng.randint(0, 3)):
        value = rng.choice((1, 2)) if named else 1
        left, top = 5 * column + rng.randint(0, 1), rng.randint(0, 6)
        right, bottom = left + rng.randint(1, 3), top + rng.randint(1, 5)
        array[top:bottom, left:right] = value
        label = NAMES[value] if named else "object"
        boxes.append((label, (float(left), float(top), float(right), float(bottom))))
    return array, boxes


def _store(shown: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return a slice as it is stored: up is anterior, and left the patient's right."""
    stored = shown.T
    if affine[0, 0] > 0:
        stored = stored[::-1]
    if affine[1, 1] > 0:
        stored = stored[:, ::-1]
    return stored[:, :, None]


def _write(rng: random.Random, path: Path, shown: np.ndarray, affine: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = rng.choice((nibabel.Nifti1Image, nibabel.Nifti2Image))
    nibabel.save(kind(_store(shown, affine), affine), path)
    return path


def _rename(rng: random.Random, name: str) -> str:
    """Change the letter case, Unicode form or separators of labels' names, as systems do."""
    changes: tuple[Callable[[str], str], ...] = (
        *(lambda text: text,) * 5,
        str.upper,
        lambda text: unicodedata.normalize("NFD", text),
        lambda text: text.replace("_", "-") if "sub-" not in text else text,
        lambda text: text.replace(".nii", "_final.nii"),
        lambda text: text.replace(".nii", "_1.nii"),
        lambda text: text.replace(".nii", "_v2.nii"),
    )
    parent, _, stem = name.rpartition("/")
    stem = rng.choice(changes)(stem)
    return f"{parent}/{stem}" if parent else stem


def _write_labels(rng: random.Random, path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    """Write labels in a type that keeps them, or so that they cannot be used."""
    noise = 1 + rng.choice((0, 0, 1e-6, 4e-4))
    changes: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
        *(lambda labels: labels,) * 4,
        lambda labels: labels.astype(np.float64) * noise,
        lambda labels: labels.astype(np.int16),
        lambda labels: labels[1:],
        lambda labels: labels * np.float32(0.3),
        lambda labels: np.where(labels == 0, np.nan, labels).astype(np.float32),
    )
    _write(rng, path, rng.choice(changes)(array), affine)
    if rng.random() < 0.1:
        moved = affine.copy()
        moved[2, 3] = 7
        _write(rng, path, array, moved)
    if rng.random() < 0.1:
        path.write_bytes(path.read_bytes()[: rng.randrange(400)])
    elif rng.random() < 0.1:
        content = path.read_bytes()
        is_gzip = content[:2] == b"\x1f\x8b"
        path.write_bytes(gzip.decompress(content) if is_gzip else gzip.compress(content, mtime=0))
    return path


def _add_others(rng: random.Random, path: Path, affine: np.ndarray) -> None:
    """Write beside labels what tools leave there: other labels, maps, files of a Mac."""
    if rng.random() < 0.7 or path.suffix.lower() not in (".gz", ".nii"):
        return
    stem = path.name[: path.name.lower().index(".nii")]
    other = np.zeros((HEIGHT, WIDTH), np.uint8)
    other[0, :2] = 1
    name = rng.choice(("brain_mask", "prob", "._", "2", "liver_mask", "pred"))
    name = f"._{path.name}" if name == "._" else f"{stem}_{name}.nii.gz"
    _write(rng, path.with_name(name), other, affine)
