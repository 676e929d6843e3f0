"""The corruption benchmark: what each corruption does, how strong it is, and what removes it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest
from conftest import ROOT
from fake_vae import FakeVAE

from vae_aug.evaluate.metrics import find_body, ssim, ssim_map
from vae_aug.phantoms.embedded import read_embedded
from vae_aug.train.corrupt import CORRUPTIONS

sys.path.insert(0, str(ROOT))

import benchmarks.detection.corruptions as corruptions

SEEN, UNSEEN = corruptions.list_corruptions(), corruptions.list_corruptions(unseen=True)
BOXES, LABELS = np.array([[4, 4, 20, 20]], np.float32), np.array([1], np.int32)


def make_phantoms(count: int, size: int) -> np.ndarray:
    items = read_embedded("train", count=count, size=size, real=False)
    return np.stack([item.image for item in items])


@pytest.fixture(scope="module")
def phantoms() -> np.ndarray:
    """The images that the dials were found on, `[12, 192, 192, 1] uint8`."""
    return make_phantoms(12, 192)


@pytest.fixture(scope="module")
def small() -> np.ndarray:
    return make_phantoms(4, 64)


class Drawn:
    """A generator that returns what a test gave it."""

    def __init__(self, randoms: list[float], uniforms: list[float]):
        self.randoms: Iterator[float] = iter(randoms)
        self.uniforms: Iterator[float] = iter(uniforms)

    def random(self) -> float:
        return next(self.randoms)

    def uniform(self, low: float, high: float) -> float:
        return next(self.uniforms)


def test_seven_corruptions_are_known_and_the_artefacts_are_not():
    assert set(SEEN) <= set(CORRUPTIONS) and len(SEEN) == 7
    assert not set(SEEN) & set(UNSEEN)
    assert set(corruptions.DIALS) == {*SEEN, *UNSEEN}
    for dials in corruptions.DIALS.values():
        assert len(dials) == 5
        assert dials[0] < 1 and np.all(np.diff(dials) < 0) and dials[-1] > 0


@pytest.mark.parametrize("name", SEEN + UNSEEN)
def test_strengths_have_the_similarity_that_they_are_set_to(name, phantoms):
    for strength, target in ((1, 0.9), (3, 0.7), (5, 0.5)):
        noisy = corruptions.corrupt_samples(phantoms, name, strength)
        assert (noisy.shape, noisy.dtype) == (phantoms.shape, np.uint8)
        found = [
            ssim_map(clean / 255, changed / 255)[find_body(clean / 255)].mean()
            for clean, changed in zip(phantoms[..., 0], noisy[..., 0], strict=True)
        ]
        assert np.mean(found) == pytest.approx(target, abs=0.005)


@pytest.mark.parametrize("name", SEEN + UNSEEN)
def test_noise_depends_on_the_seed_and_the_place_alone(name, small):
    noisy = corruptions.corrupt_samples(small, name, 3, seed=5)
    np.testing.assert_array_equal(corruptions.corrupt_samples(small, name, 3, seed=5), noisy)
    np.testing.assert_array_equal(corruptions.corrupt_samples(small[:1], name, 3, 5), noisy[:1])
    other = corruptions.corrupt_samples(small, name, 3, seed=6)
    # Ringing has nothing to draw.
    assert np.array_equal(other, noisy) == (name == "ringing")
    twice = corruptions.corrupt_samples(small[[0, 0]], name, 3)
    assert np.array_equal(*twice) == (name == "ringing")


def test_no_images_stay_no_images(small):
    assert corruptions.corrupt_samples(small[:0], "rician", 1).shape == (0, 64, 64, 1)
    assert corruptions.draw_noisy(small[:0], 0).shape == (0, 64, 64, 1)
    assert corruptions.make_denoiser(FakeVAE())(small[:0]).shape == (0, 64, 64, 1)


@pytest.mark.parametrize(("name", "strength"), [("fog", 1), ("rician", 0), ("rician", 6)])
def test_an_unknown_corruption_or_strength_is_refused(name, strength, small):
    with pytest.raises(ValueError, match=r"a corruption is one of replace, .*, at a strength"):
        corruptions.corrupt_samples(small, name, strength)


@pytest.mark.parametrize("name", UNSEEN)
def test_artefacts_leave_an_image_alone_that_keeps_all(name, small):
    grey = small[0, ..., 0] / 255
    changed = corruptions.ARTEFACTS[name](grey, 1.0, np.random.default_rng(0))
    np.testing.assert_allclose(changed, grey, atol=1e-12)


def test_ringing_takes_high_frequencies_and_leaves_low_ones():
    places = np.arange(64) / 64
    waves = {n: 0.5 + 0.2 * np.cos(2 * np.pi * n * places)[:, None] * np.ones(64) for n in (7, 9)}
    # A quarter of 33 frequencies from 0 to 32 is 8.25: 7 stays whole, 9 is lost.
    kept, lost = (corruptions.add_ringing(wave, 0.25, None) for wave in waves.values())
    np.testing.assert_allclose(kept, waves[7], atol=1e-12)
    np.testing.assert_allclose(lost, 0.5, atol=1e-12)
    half = 0.5 + 0.2 * np.cos(2 * np.pi * 8 * places)[:, None] * np.ones(64)
    expected = 0.5 + 0.25 * (half - 0.5)
    np.testing.assert_allclose(corruptions.add_ringing(half, 0.25, None), expected, atol=1e-12)


@pytest.mark.parametrize("turned", [False, True])
def test_a_ghost_of_an_endless_period_is_the_image_moved(turned):
    # The sine of pi / 2 is 1, and a third of the information moves by (1 - 1/3) / (1/3) = 2 px.
    rng = Drawn([0.1 if turned else 0.9], [1e12, np.pi / 2])
    y, x = np.indices((32, 32)) * 2 * np.pi / 32
    grey = 0.5 + 0.2 * np.sin(3 * y + 1) * np.cos(2 * x)
    moved = corruptions.add_ghosts(grey, 1 / 3, rng)
    np.testing.assert_allclose(moved, np.roll(grey, 2, axis=1 if turned else 0), atol=1e-9)


def test_ghosts_lie_along_one_axis_only():
    grey = np.zeros((32, 32))
    grey[10:14, 20:24] = 1.0
    ghosts = corruptions.add_ghosts(grey, 0.2, Drawn([0.9], [8.0, 0.0]))
    assert np.abs(ghosts[:, :20]).max() < 1e-9 and np.abs(ghosts[:, 24:]).max() < 1e-9
    assert ghosts[16:, 20:24].max() > 0.05


def test_a_spike_is_one_wave_of_the_noise_ratio():
    # No angle from the top: waves run along x, 8 periods across 64 pixels.
    waves = corruptions.add_spike(np.full((64, 64), 0.5), 0.9, Drawn([], [0.0, 8 / 64, 0.0]))
    ratio = 0.1 / (0.9 * np.sqrt(12))
    phase = 2 * np.pi * 8 / 64 * np.arange(64)
    expected = np.hypot(
        0.5 + np.sqrt(2) * ratio * np.cos(phase), np.sqrt(2) * ratio * np.sin(phase)
    )
    np.testing.assert_allclose(waves, np.tile(expected, [64, 1]), atol=1e-12)
    assert waves.std() == pytest.approx(ratio, rel=0.02)


def test_streaks_are_lines_through_one_point_of_the_body():
    grey = np.zeros((65, 65))
    grey[32, 32] = 1.0
    streaks = corruptions.add_streaks(grey, 0.8, np.random.default_rng(0)) - grey
    np.testing.assert_allclose(streaks[:32, :32], streaks[:32:-1, :32:-1], atol=1e-9)
    # A line keeps its value from the point to the edge.
    np.testing.assert_allclose(np.diagonal(streaks)[33:], streaks[64, 64], atol=1e-9)
    assert streaks.std() == pytest.approx(0.2 / (0.8 * np.sqrt(12)), rel=0.25)


def test_a_dial_is_where_the_function_has_the_value():
    assert corruptions.bisect(lambda keep: keep**2, 0.25) == pytest.approx(0.5, abs=1e-4)
    with pytest.raises(ValueError, match=r"an SSIM of 0\.5 is not reached"):
        corruptions.bisect(lambda keep: 0.6 + 0.4 * keep, 0.5)


def test_calibration_of_other_images_reaches_its_targets(small):
    dials = corruptions.calibrate(small, ["gaussian"], targets=(0.8, 0.4), seed=3)["gaussian"]
    for keep, target in zip(dials, (0.8, 0.4), strict=True):
        noisy = corruptions.corrupt_by_dial(small, "gaussian", keep, 3)
        found = [
            ssim_map(clean / 255, changed / 255)[find_body(clean / 255)].mean()
            for clean, changed in zip(small[..., 0], noisy[..., 0], strict=True)
        ]
        assert np.mean(found) == pytest.approx(target, abs=0.01)


def test_the_summary_by_hand():
    table = {"rician": {1: 0.6, 5: 0.2}, "ringing": {1: 0.7, 5: 0.5}}
    summary = corruptions.summarize(0.8, table)
    assert summary == {"P": 0.8, "mPC": pytest.approx(0.5), "rPC": pytest.approx(0.625)}
    assert corruptions.summarize(0.0, {"rician": {1: 0.0}})["rPC"] is None
    for wrong in ({}, {"rician": {}}, {"rician": {1: 0.6, 2: 0.5}, "ringing": {1: 0.7}}):
        with pytest.raises(ValueError, match="all corruptions need the same strengths"):
            corruptions.summarize(0.8, wrong)


def test_all_corruptions_and_strengths_are_drawn(small, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        corruptions,
        "corrupt_one",
        lambda image, name, keep, seed: drawn.append((name, keep)) or image,
    )
    corruptions.draw_noisy(np.repeat(small[:1], 400, axis=0), 0)
    assert set(drawn) == {(name, keep) for name in SEEN for keep in corruptions.DIALS[name]}


def test_noisy_variants_depend_on_the_seed_and_the_place(small):
    noisy = corruptions.draw_noisy(small, 1)
    assert (noisy.shape, noisy.dtype) == (small.shape, np.uint8)
    assert all(not np.array_equal(a, b) for a, b in zip(noisy, small, strict=True))
    np.testing.assert_array_equal(corruptions.draw_noisy(small[:2], 1), noisy[:2])
    assert not np.array_equal(corruptions.draw_noisy(small, 2), noisy)


def measure_similarity(clean: np.ndarray, images: np.ndarray) -> float:
    pairs = zip(clean[..., 0] / 255, images[..., 0] / 255, strict=True)
    return float(np.mean([ssim(a, b) for a, b in pairs]))


def test_restorers_bring_images_back(small):
    restorers = corruptions.make_restorers(small, "gaussian", 5)
    assert {"none", "median", "tv", "nlm"} <= set(restorers)
    noisy = corruptions.corrupt_samples(small, "gaussian", 5)
    np.testing.assert_array_equal(restorers["none"](noisy), noisy)
    before = measure_similarity(small, noisy)
    for method in ("median", "tv", "nlm"):
        restored = restorers[method](noisy)
        assert (restored.shape, restored.dtype) == (small.shape, np.uint8)
        assert measure_similarity(small, restored) > before + 0.02, method
        assert restorers[method](noisy[:0]).shape == (0, 64, 64, 1)


def test_the_blind_filter_is_the_best_on_all_corruptions_together(small, monkeypatch):
    # Single wrong pixels are what a median removes and total variation smears.
    monkeypatch.setattr(corruptions, "list_corruptions", lambda: ["replace"])
    chosen, restore = corruptions.make_blind_filter(small)
    assert (chosen.method, chosen.strength) == ("median", 3)
    # Contrast shrinks by `replace`, but nobody told.
    assert chosen.stretch == 1.0
    noisy = corruptions.corrupt_samples(small, "replace", 5)
    assert measure_similarity(small, restore(noisy)) > measure_similarity(small, noisy) + 0.1
    np.testing.assert_array_equal(corruptions.make_restorer("filter", small)(noisy), restore(noisy))


def test_a_vae_is_a_restorer(small):
    # The fake network returns half the grey value.
    restored = corruptions.make_restorer(FakeVAE(image_size=64), small)(small)
    assert (restored.shape, restored.dtype) == (small.shape, np.uint8)
    np.testing.assert_allclose(restored, small / 2, atol=1)
