"""Transforms of a sweep differ in their strength alone."""

from __future__ import annotations

import pytest
from fake_vae import FakeVAE

from vae_aug.config import AugmentConfig
from vae_aug.evaluate.sweep import Sweep


def test_every_strength_has_a_transform_with_the_default_detail_of_its_mode():
    shared = {"guard": "keep", "min_fidelity": 0.5, "value_range": (0, 40), "seed": 3}
    sweep = Sweep((0.1, 2), **shared)
    assert sweep.describe() == shared
    for mode, detail in ("sample", 1.0), ("denoise", 0.0):
        found = [augment.config for augment in sweep.make_transforms(FakeVAE(), mode)]
        assert found == [
            AugmentConfig(mode=mode, factor=factor, detail=detail, **shared) for factor in (0.1, 2)
        ]


def test_a_strength_out_of_range_is_refused():
    with pytest.raises(ValueError, match="factor must be"):
        list(Sweep((-1.0,)).make_transforms(FakeVAE(), "sample"))
