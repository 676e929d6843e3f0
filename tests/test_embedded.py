"""The embedded source: splits without a common patient, real slices as pydicom reads them."""

from __future__ import annotations

import hashlib
import json
import socket
import urllib.request
from pathlib import Path

import numpy as np
import pydicom
import pytest

from vae_aug.codecs.images import read_image
from vae_aug.phantoms.embedded import (
    DEFAULT_COUNTS,
    LABELS,
    SPLITS,
    EmbeddedItem,
    read_embedded,
    write_embedded,
)

REAL = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Fail on any connection, and on pydicom's way to a download."""

    def refuse(*_args, **_kwargs):
        raise RuntimeError("the embedded source must not use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr("pydicom.data.data_manager.data_path_with_download", refuse)


@pytest.fixture(scope="module")
def splits() -> dict[str, list[EmbeddedItem]]:
    """Every split with its default counts, phantoms small."""
    return {split: list(read_embedded(split, size=64)) for split in SPLITS}


def test_default_counts(splits):
    phantoms = {
        split: sum(not item.source_id.startswith("pydicom") for item in items)
        for split, items in splits.items()
    }
    assert phantoms == {"train": 48, "validation": 12, "test": 12} == DEFAULT_COUNTS


def test_no_patient_and_no_image_is_in_two_splits(splits):
    patients = [{item.patient for item in items} for items in splits.values()]
    assert len(set.union(*patients)) == sum(map(len, patients))
    sources = [item.source_id for items in splits.values() for item in items]
    assert len(set(sources)) == len(sources)
    images = {hashlib.sha256(i.image.tobytes()).digest() for s in splits.values() for i in s}
    assert len(images) == len(sources)


def test_splits_have_both_modalities_and_items_with_and_without_boxes(splits):
    for items in splits.values():
        counts = [len(item.boxes) for item in items]
        assert min(counts) == 0
        assert max(counts) >= 1
        assert {item.source_id.split("-")[0] for item in items} >= {"head_mr", "abdomen_ct"}
        for item in items:
            assert item.boxes.shape == (len(item.labels), 4)
            assert item.boxes.dtype == np.float32
            assert set(item.labels) <= set(LABELS)


def test_every_label_is_trained_on(splits):
    assert {label for item in splits["train"] for label in item.labels} == set(LABELS)


def test_reading_again_gives_the_same_bytes(splits):
    again = list(read_embedded("validation", size=64))
    for a, b in zip(again, splits["validation"], strict=True):
        assert (a.source_id, a.patient, a.labels) == (b.source_id, b.patient, b.labels)
        assert a.image.tobytes() == b.image.tobytes()
        assert a.boxes.tobytes() == b.boxes.tobytes()


def test_a_larger_count_only_adds(splits):
    few = list(read_embedded("train", count=5, size=64, real=False))
    assert [item.source_id for item in few] == [item.source_id for item in splits["train"][:5]]


def _apply_window(name: str, slope: float, intercept: float, center: float, width: float):
    """PS3.3 C.11.2.1.2, worked independently of the package."""
    stored = pydicom.dcmread(REAL / f"{name}.dcm").pixel_array.astype(np.float64)
    values = stored * slope + intercept
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)[..., np.newaxis]


@pytest.mark.parametrize(
    ("split", "name", "shape", "mapping"),
    [
        ("train", "CT_small", (128, 128, 1), (1, -1024, 40, 400)),
        ("train", "J2K_pixelrep_mismatch", (512, 512, 1), (1, 0, 400, 1800)),
        ("validation", "examples_overlay", (300, 484, 1), (1, 0, 450, 790)),
        ("test", "MR_small", (64, 64, 1), (1, 0, 600, 1600)),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_real_slices_are_pydicoms_through_the_window(split, name, shape, mapping, dtype):
    items = {i.source_id: i for i in read_embedded(split, count=0, dtype=dtype)}
    item = items[f"pydicom-{name}"]
    assert item.image.shape == shape
    assert item.image.dtype == dtype
    assert item.boxes.shape == (0, 4)
    assert item.labels == ()
    top = np.iinfo(dtype).max
    expected = _apply_window(name, *mapping) * top
    assert np.abs(item.image - expected).max() <= 0.5 + 1e-6


def test_patient_data_of_the_files_do_not_leak(splits):
    for name in ("CT_small", "MR_small"):
        patient = str(pydicom.dcmread(REAL / f"{name}.dcm").PatientID)
        for items in splits.values():
            assert patient not in {item.patient for item in items}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "val"}, "split must be one of 'train', 'validation', 'test'; got 'val'"),
        ({"count": -1}, "count must be in"),
    ],
)
def test_arguments_are_checked_before_the_first_item(arguments, message):
    with pytest.raises(ValueError, match=message):
        read_embedded(**{"split": "train", **arguments})


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_written_coco_holds_what_was_read(tmp_path, dtype):
    counts = {"train": 6, "test": 2}
    paths = write_embedded(tmp_path, counts=counts, size=96, dtype=dtype)
    assert list(paths) == ["train", "test"]
    for split, path in paths.items():
        coco = json.loads(path.read_text())
        assert [c["name"] for c in coco["categories"]] == list(LABELS)
        items = list(read_embedded(split, count=counts[split], size=96, dtype=dtype))
        for item, image in zip(items, coco["images"], strict=True):
            stored = read_image(tmp_path / "images" / image["file_name"])
            np.testing.assert_array_equal(stored, item.image)
            assert stored.dtype == dtype
            assert (image["height"], image["width"]) == item.image.shape[:2]
            assert image["patient"] == item.patient
            own = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
            assert [LABELS[a["category_id"] - 1] for a in own] == list(item.labels)
            for annotation, box in zip(own, item.boxes, strict=True):
                x, y, width, height = annotation["bbox"]
                assert all(value == int(value) for value in annotation["bbox"])
                assert np.float32(
                    [y / 96, x / 96, (y + height) / 96, (x + width) / 96]
                ).tolist() == (box.tolist())
        identifiers = [a["id"] for a in coco["annotations"]]
        assert len(set(identifiers)) == len(identifiers)
    assert sum(len(json.loads(p.read_text())["annotations"]) for p in paths.values()) > 0
