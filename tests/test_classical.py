from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from vae_aug.evaluate import classical
from vae_aug.evaluate.classical import Filter, list_methods, make_grid, tune_filters
from vae_aug.evaluate.metrics import psnr, ssim
from vae_aug.phantoms.phantom import make_phantom
from vae_aug.train.corrupt import corrupt

CLEAN = make_phantom("head_mr", 3, size=64).image[..., 0] / np.float32(255)


def make_noisy(name, keep=0.6):
    return corrupt(CLEAN[..., None], name, keep, [1, 2]).numpy()[..., 0]


@pytest.mark.parametrize(
    "chosen", [Filter("median", 3), Filter("tv", 0.2), Filter("nlm", 0.3)], ids=lambda f: f.method
)
def test_filters_remove_noise_and_stay_in_range(chosen):
    noisy = make_noisy("gaussian")
    before = noisy.copy()
    restored = chosen(noisy)
    assert psnr(CLEAN, restored) > psnr(CLEAN, noisy) + 3
    assert restored.min() >= 0 and restored.max() <= 1
    np.testing.assert_array_equal(noisy, before)


def test_median_by_hand():
    plane = np.full((5, 5), 0.5)
    plane[2, 2] = 1.0
    np.testing.assert_array_equal(Filter("median", 3)(plane), np.full((5, 5), 0.5))


def test_contrast_is_undone_around_mid_grey():
    """0.4 * 0.75 + 0.6 * 0.5 = 0.6, which comes back as 0.75."""
    plane = np.full((5, 5), 0.6)
    np.testing.assert_allclose(Filter("median", 3, stretch=0.4)(plane), 0.75)


def test_contrast_is_only_undone_where_it_shrank():
    assert {f.stretch for f in make_grid("tv", "blend", 0.4)} == {1.0, 0.4}
    assert {f.stretch for f in make_grid("tv", "gaussian", 0.4)} == {1.0}
    assert {f.stretch for f in make_grid("tv", "blend", 1.0)} == {1.0}


def test_parameters_are_named():
    assert Filter("nlm", 0.4, 0.5).to_dict() == {"h": 0.4, "contrast_undone": 2.0}


def test_the_best_of_the_grid_is_chosen():
    noisy = make_noisy("blend")
    steps = []
    filters = tune_filters([(CLEAN, noisy)], "blend", 0.6, lambda: steps.append(1))
    assert list(filters) == list_methods() and steps == [1]
    for method, chosen in filters.items():
        scores = [ssim(CLEAN, candidate(noisy)) for candidate in make_grid(method, "blend", 0.6)]
        assert ssim(CLEAN, chosen(noisy)) == max(scores)
        assert chosen.stretch == 0.6


def test_bm3d_is_used_where_the_user_has_it(monkeypatch):
    calls = []

    def bm3d(plane, sigma_psd):
        calls.append(sigma_psd)
        return plane

    monkeypatch.setitem(sys.modules, "bm3d", types.SimpleNamespace(bm3d=bm3d))
    monkeypatch.setattr(classical.importlib.util, "find_spec", lambda name: name == "bm3d")
    assert "bm3d" in list_methods()
    np.testing.assert_allclose(Filter("bm3d", 0.3)(CLEAN), CLEAN)
    assert calls == [0.3]


def test_bm3d_is_not_needed(monkeypatch):
    monkeypatch.setattr(classical.importlib.util, "find_spec", lambda name: None)
    assert list_methods() == ["median", "tv", "nlm"]
