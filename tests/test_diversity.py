"""Diversity figures against values worked by hand and networks whose samples are known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from fake_vae import BrighteningVAE, FakeVAE

from vae_aug.errors import RecordError
from vae_aug.evaluate import diversity as module
from vae_aug.evaluate.diversity import measure_contrast, measure_diversity, write_interpolation
from vae_aug.evaluate.subset import Subset
from vae_aug.evaluate.sweep import Sweep
from vae_aug.figures.sheet import Panel
from vae_aug.records.records import make_example, write_records

SIZE = 32
BOX = [0.25, 0.25, 0.5, 0.5]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Three noisy discs with a bright square in the box, and one without a box."""
    folder = tmp_path_factory.mktemp("records")
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    disc = (rows**2 + columns**2) < 14**2
    examples = []
    for index in range(4):
        image = 50 + disc * (80 + np.random.default_rng(index).integers(-5, 6, (SIZE, SIZE)))
        image[8:16, 8:16] += 60
        boxed = index < 3
        examples.append(
            make_example(
                image[..., None].astype(np.uint8),
                source_id=str(index),
                boxes=np.array([BOX] if boxed else np.zeros((0, 4))),
                labels=[0] * boxed,
                label_names=("lesion",),
            )
        )
    write_records(examples, folder, "validation", 1, label_names=("lesion",))
    return folder


def test_contrast_by_hand():
    grey = np.tile([0.4, 0.6], (20, 10))
    grey[8:12, 8:12] = 0.8
    inside = np.zeros((20, 20), bool)
    inside[8:12, 8:12] = True
    box = np.array([0.4, 0.4, 0.6, 0.6])
    # Around: columns of 0.4 and 0.6 in equal numbers, mean 0.5 and deviation 0.1.
    assert measure_contrast(grey, box, inside) == pytest.approx((0.8 - 0.5) / 0.1)


def test_contrast_without_surroundings_or_noise_is_nan():
    flat = np.full((20, 20), 0.5)
    assert math.isnan(measure_contrast(flat, np.array([0.4, 0.4, 0.6, 0.6]), flat > 1))
    assert math.isnan(measure_contrast(flat, np.array([0.0, 0.0, 1.0, 1.0]), flat > 0))
    assert math.isnan(measure_contrast(flat, np.array([np.nan] * 4), flat > 1))


def test_contrast_does_not_see_other_boxes():
    grey = np.tile([0.4, 0.6], (20, 10))
    mask = np.zeros((20, 20), bool)
    mask[8:12, 8:12] = mask[8:12, 12:14] = True
    bright = grey.copy()
    bright[8:12, 12:14] = 1.0
    box = np.array([0.4, 0.4, 0.6, 0.6])
    assert measure_contrast(bright, box, mask) == measure_contrast(grey, box, mask)


def test_samples_of_known_noise(records):
    sweep = Sweep((0.5, 1.0), guard="off")
    half, one = measure_diversity(Subset(records), FakeVAE(SIZE, noise=0.05), sweep, samples=8)
    # The deviation of 8 normal draws is too small by c4(8) = 0.965 on average.
    assert one.spread_outside == pytest.approx(0.05 * 0.965, rel=0.02)
    assert one.spread_inside == pytest.approx(one.spread_outside, rel=0.1)
    assert half.spread_outside == pytest.approx(one.spread_outside / 2, rel=0.05)
    assert one.change == pytest.approx(0.05 * math.sqrt(2 / math.pi), rel=0.05)
    assert 0 < half.dissimilarity < one.dissimilarity
    assert one.guarded == 0.0


def test_grey_is_measured_on_the_value_range(records):
    """Noise of 0.05 is 5 of the 100 grey values, and would be 0.02 of 255."""
    sweep = Sweep((1.0,), guard="off", value_range=(100, 200))
    (row,) = measure_diversity(Subset(records), FakeVAE(SIZE, noise=0.05), sweep, samples=8)
    # Most of the disc, at 130 and above, is far enough from 100 and 200.
    assert row.spread_inside == pytest.approx(0.05 * 0.965, rel=0.1)


def test_interpolation_is_measured_when_asked_for(records, tmp_path):
    class MovingVAE(FakeVAE):
        """A variant is brighter by 0.1, if it is made by interpolating."""

        def vary(self, images, noise, *, mode, factor, alone=False):
            return images, images + 0.1 * float(mode == "interpolate")

    measured = Subset(records), MovingVAE(SIZE), Sweep((1.0,), guard="off")
    (row,) = measure_diversity(*measured, mode="interpolate", samples=2, out=tmp_path)
    assert row.change == pytest.approx(0.1, abs=2e-3)
    (row,) = measure_diversity(*measured, samples=2)
    assert row.change == 0.0
    report = json.loads((tmp_path / "diversity.json").read_text())
    assert report["settings"]["mode"] == "interpolate"


def test_a_brighter_image_keeps_its_contrast_and_does_not_vary(records, tmp_path):
    sweep = Sweep((0.2,), guard="off")
    (row,) = measure_diversity(
        Subset(records), BrighteningVAE(SIZE), sweep, samples=3, out=tmp_path
    )
    assert row.spread_outside == pytest.approx(0.0, abs=1e-6)
    assert row.change == pytest.approx(0.05, abs=2e-3)
    assert row.contrast_kept == row.visible_contrast_kept == 1.0
    report = json.loads((tmp_path / "diversity.json").read_text())
    assert report["settings"]["images"] == 4 and len(report["factors"]) == 1
    assert (tmp_path / "samples_0.2.png").exists()


def test_interpolation_sheet_has_a_column_for_each_step(short_vae, tmp_path, monkeypatch):
    rows = []
    monkeypatch.setattr(module, "write_sheet", lambda path, shown, *_, **__: rows.extend(shown))
    image, other = np.random.default_rng(0).random((2, 32, 32, 1)).astype(np.float32)
    start = Panel(image, boxes=np.array([BOX]), names=["lesion"])
    write_interpolation(tmp_path / "sheet.png", short_vae, [(start, other)], steps=2)
    (row,) = rows
    assert [panel.heading for panel in row] == [
        "image",
        "moved by 0.50",
        "moved by 1.00",
        "towards",
    ]
    assert [len(panel.boxes) for panel in row] == [1, 1, 1, 0] and not row[-1].compared


@pytest.mark.parametrize("name", ["tiny_ladder", "varied_ladder"])
def test_an_image_moves_further_in_every_column(name, request, tmp_path, monkeypatch):
    rows = []
    monkeypatch.setattr(module, "write_sheet", lambda path, shown, *_, **__: rows.extend(shown))
    image, other = np.random.default_rng(0).random((2, 32, 32, 1)).astype(np.float32)
    start = Panel(image, boxes=np.array([BOX]), names=["lesion"])
    network = request.getfixturevalue(name)
    write_interpolation(tmp_path / "sheet.png", network, [(start, other)], steps=2)
    half, whole = (np.abs(panel.image - image).mean() for panel in rows[0][1:3])
    assert 1e-6 < half < whole


def test_bad_arguments_are_named(records):
    with pytest.raises(ValueError, match="samples must be in"):
        measure_diversity(Subset(records), FakeVAE(SIZE), samples=1)
    with pytest.raises(RecordError):
        measure_diversity(Subset(records, "test"), FakeVAE(SIZE))
