"""The files of a run: settings, log and figures come back, or are named where they are damaged."""

from __future__ import annotations

import json

import pytest

from vae_aug.config import ModelConfig, VariationConfig
from vae_aug.train.recipe import Recipe
from vae_aug.train.run_files import TrainingError, cut_log, keep_config, read_start

RECIPE = Recipe()
SETTINGS = {**RECIPE.to_dict(), "sources": ["records"]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 10**5,
        json.dumps({**SETTINGS, "model": None}).encode(),
        json.dumps({**SETTINGS, "sources": 1}).encode(),
        json.dumps({**SETTINGS, "train": {"loss": "l1"}}).encode(),
        json.dumps({**SETTINGS, "train": {"steps": "4"}}).encode(),
    ],
)
def test_damaged_settings_are_named(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(TrainingError, match=r"config\.json: does not hold .* delete this one"):
        keep_config(tmp_path / "config.json", RECIPE, ["records"])


def test_a_run_without_jitter_in_its_settings_was_trained_without(tmp_path):
    varied = ModelConfig(profile="ladder", variation=True)
    recipe = Recipe(varied)
    settings = {**recipe.to_dict(), "sources": ["records"]}
    del settings["variation"]["jitter"]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"variation\.jitter: 0\.0 before, 1\.0 now"):
        keep_config(path, recipe, ["records"])
    keep_config(path, Recipe(varied, variation=VariationConfig(jitter=0.0)), ["records"])


def test_the_log_is_cut_to_the_state_that_a_run_goes_on_from(tmp_path):
    path = tmp_path / "log.jsonl"
    cut_log(path, 3)
    assert not path.exists()
    lines = [b'{"kind": "train", "step": %d}\n' % step for step in (1, 2, 3, 4, 5)]
    path.write_bytes(b"".join(lines) + b'{"kind": "tra')
    cut_log(path, 3)
    assert path.read_bytes() == b"".join(lines[:3])
    path.write_bytes(lines[0] + b"{\n" + lines[1])
    with pytest.raises(TrainingError, match=r"log\.jsonl, line 2: is damaged .* Delete this file"):
        cut_log(path, 3)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"images": {}}', b'{"images": {"ssim": [1], "psnr": []}}', b"{}"],
)
def test_a_damaged_start_is_named(tmp_path, content):
    (tmp_path / "start.json").write_bytes(content)
    with pytest.raises(TrainingError, match=r"start\.json: is damaged .* Delete it"):
        read_start(tmp_path)
