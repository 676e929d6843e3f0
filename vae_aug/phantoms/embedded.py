"""The embedded source: phantoms, and the real slices that the pydicom wheel ships.

It needs no download and no files of the user's, so that the demo, the TFDS builder and the tests
run anywhere. Splits share no patient.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from vae_aug.atomic import write_atomic
from vae_aug.boxes import convert_boxes
from vae_aug.codecs.images import write_image
from vae_aug.config import check_choice, check_number
from vae_aug.ingest.dicom.image import read_dicom
from vae_aug.ingest.dicom.values import Window
from vae_aug.phantoms.phantom import LABELS, Kind, make_phantom

__all__ = [
    "DEFAULT_COUNTS",
    "LABELS",
    "SPLITS",
    "EmbeddedItem",
    "Split",
    "read_embedded",
    "write_embedded",
]

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
DEFAULT_COUNTS: dict[Split, int] = {"train": 48, "validation": 12, "test": 12}
"""Phantoms of each split, unless another count is asked for."""

_SLICES_PER_PATIENT = 2
# Patients of a split are numbered from its index times this, so no count makes splits overlap.
_MOST_PATIENTS = 1_000_000
_KINDS: tuple[Kind, ...] = ("head_mr", "abdomen_ct")


@dataclasses.dataclass(frozen=True)
class EmbeddedItem:
    """One image with its boxes.

    Attributes:
        image: `[H, W, 1] uint8` or `uint16`.
        source_id: Key of the image, unique over all splits, fit for a file name.
        patient: Key of the patient, of one split.
        boxes: `[N, 4] float32`, `rel_yxyx`.
        labels: N names out of `LABELS`.
    """

    image: np.ndarray = dataclasses.field(repr=False)
    source_id: str
    patient: str
    boxes: np.ndarray
    labels: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _RealSlice:
    """A file in `pydicom/data/test_files` that shows anatomy."""

    name: str
    split: Split
    window: Window


_REAL_SLICES = (
    _RealSlice("J2K_pixelrep_mismatch", "train", "bone"),  # CT of a head, 512 x 512
    _RealSlice("CT_small", "train", "soft-tissue"),  # CT of a spine, 128 x 128
    _RealSlice("examples_overlay", "validation", "auto"),  # MR of an abdomen, 300 x 484
    _RealSlice("MR_small", "test", "auto"),  # MR, 64 x 64
)


def read_embedded(
    split: Split,
    *,
    count: int | None = None,
    size: int = 224,
    dtype: type[np.unsignedinteger] = np.uint8,
    real: bool = True,
) -> Iterator[EmbeddedItem]:
    """Read one split of the embedded source; every reading gives the same bytes.

    Args:
        split: `"train"`, `"validation"` or `"test"`.
        count: Phantoms, two slices a patient; None for `DEFAULT_COUNTS[split]`. The real slices
            come on top, after them.
        size: Side of the phantoms in pixels. Real slices keep their own size.
        dtype: `np.uint8` or `np.uint16`.
        real: Whether to read the real slices, which carry no boxes.

    Returns:
        Iterator over the items.

    Raises:
        ValueError: On an argument outside these ranges.
        DicomError: If pydicom is installed without its test files.

    Example:
        >>> item = next(read_embedded("train", size=64))
        >>> item.source_id, item.image.shape
        ('head_mr-0000000-0', (64, 64, 1))
    """
    check_choice("split", split, Split)
    count = DEFAULT_COUNTS[split] if count is None else count
    check_number("count", count, 0, _SLICES_PER_PATIENT * _MOST_PATIENTS, whole=True)
    return _generate(split, count, size, dtype, real)


def _generate(
    split: Split,
    count: int,
    size: int,
    dtype: type[np.unsignedinteger],
    real: bool,
) -> Iterator[EmbeddedItem]:
    """Do what `read_embedded` says, whose arguments are checked before the first item."""
    first = SPLITS.index(split) * _MOST_PATIENTS
    for index in range(count):
        patient, level = divmod(index, _SLICES_PER_PATIENT)
        kind, seed = _KINDS[patient % len(_KINDS)], first + patient
        position = (level + 0.5) / _SLICES_PER_PATIENT
        phantom = make_phantom(kind, seed, position=position, size=size, dtype=dtype)
        name = f"{kind}-{seed:07d}"
        yield EmbeddedItem(phantom.image, f"{name}-{level}", name, phantom.boxes, phantom.labels)
    for entry in _REAL_SLICES if real else ():
        if entry.split == split:
            yield _read_real(entry, dtype)


def _read_real(entry: _RealSlice, dtype: type[np.unsignedinteger]) -> EmbeddedItem:
    """Read a slice of the installed pydicom.

    Not by `pydicom.data.get_testdata_file`, which downloads what it does not find.
    """
    file = importlib.resources.files("pydicom.data") / "test_files" / f"{entry.name}.dcm"
    with importlib.resources.as_file(file) as path:
        image = read_dicom(path, entry.window, bits=8 * np.dtype(dtype).itemsize).pixels
    name = f"pydicom-{entry.name}"
    return EmbeddedItem(image, name, name, np.zeros((0, 4), np.float32), ())


def write_embedded(
    directory: str | os.PathLike[str],
    *,
    counts: dict[Split, int] | None = None,
    size: int = 224,
    dtype: type[np.unsignedinteger] = np.uint8,
    real: bool = True,
) -> dict[Split, Path]:
    """Write the embedded source as a COCO data set, the way a clinic's own data might come.

    The images are `images/*.png`; each split has an annotation file, `train.json`,
    `validation.json` and `test.json`, whose images carry a `patient`.

    Args:
        directory: Where to; made if missing. Files of the same name are replaced.
        counts: Phantoms of each split to write; None for `DEFAULT_COUNTS`.
        size: As `read_embedded`.
        dtype: As `read_embedded`; `np.uint16` writes PNG of 16 bits.
        real: As `read_embedded`.

    Returns:
        Split to annotation file.

    Raises:
        ValueError: As `read_embedded`.
        OSError: If a file cannot be written.
    """
    directory = Path(directory)
    (directory / "images").mkdir(parents=True, exist_ok=True)
    paths = {}
    for split, count in (DEFAULT_COUNTS if counts is None else counts).items():
        items = read_embedded(split, count=count, size=size, dtype=dtype, real=real)
        annotations = _make_coco(items, directory / "images")
        paths[split] = directory / f"{split}.json"
        write_atomic(paths[split], json.dumps(annotations, indent=1).encode())
    return paths


def _make_coco(items: Iterator[EmbeddedItem], folder: Path) -> dict[str, list[dict]]:
    """Write the images of a split into `folder` and return its annotations."""
    categories = [{"id": i, "name": name} for i, name in enumerate(LABELS, start=1)]
    images: list[dict] = []
    annotations: list[dict] = []
    for image_id, item in enumerate(items, start=1):
        height, width, _ = item.image.shape
        file_name = f"{item.source_id}.png"
        write_image(folder / file_name, item.image)
        images.append(
            {
                "id": image_id,
                "file_name": file_name,
                "width": width,
                "height": height,
                "patient": item.patient,
            }
        )
        boxes = item.boxes.astype(np.float64)
        # Phantoms' boxes run along pixel edges; rounding takes float32's error out again.
        pixels = np.rint(convert_boxes(boxes, "rel_yxyx", "xywh", height=height, width=width))
        for label, box in zip(item.labels, pixels.tolist(), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": LABELS.index(label) + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    return {"images": images, "annotations": annotations, "categories": categories}
