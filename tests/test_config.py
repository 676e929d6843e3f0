"""Settings are checked when made."""

from __future__ import annotations

import dataclasses
import json

import pytest

from vae_aug.config import AugmentConfig, ModelConfig, TrainConfig, VariationConfig


@pytest.mark.parametrize("config", [ModelConfig(), TrainConfig(), AugmentConfig(mode="denoise")])
def test_round_trip_through_json(config):
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_defaults_are_the_published_architecture():
    config = ModelConfig()
    assert (config.profile, config.encoder) == ("vector", "efficientnet-b1")
    assert (config.image_size, config.latent_dim) == (224, 512)


@pytest.mark.parametrize(
    ("mode", "detail"), [("sample", 1.0), ("interpolate", 1.0), ("denoise", 0.0)]
)
def test_detail_follows_the_mode(mode, detail):
    assert AugmentConfig(mode=mode).detail == detail
    assert AugmentConfig(mode=mode, detail=0.5).detail == 0.5


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (ModelConfig, {"encoder": "resnet"}, "encoder must be one of 'efficientnet-b1'.*'resnet'"),
        (ModelConfig, {"image_size": 200}, "multiple of 32; got 200"),
        (ModelConfig, {"latent_dim": 7}, "latent_dim must be even"),
        (TrainConfig, {"frozen_stages": 8}, r"frozen_stages must be in \[0, 7\]; got 8"),
        (TrainConfig, {"keep": (0.0, 0.5)}, "keep must be"),
        (TrainConfig, {"clean_share": 1.5}, r"clean_share must be in \[0, 1\]; got 1.5"),
        (TrainConfig, {"clean_share": 2.0}, r"clean_share must be in \[0, 1\]; got 2.0"),
        (TrainConfig, {"spatial_beta": -1.0}, "spatial_beta must be in"),
        (TrainConfig, {"learning_rate": 0.0}, r"learning_rate must be in \(0"),
        (TrainConfig, {"learning_rate": float("inf")}, r"learning_rate must be in \(0, inf\)"),
        (TrainConfig, {"seed": 2**31}, "seed must be in"),
        (VariationConfig, {"beta": float("inf")}, "beta must be in"),
        (AugmentConfig, {"mode": "blur"}, "mode must be one of"),
        (AugmentConfig, {"factor": -1.0}, "factor must be in"),
        (AugmentConfig, {"factor": float("nan")}, "factor must be in"),
        (AugmentConfig, {"value_range": (1.0, 0.0)}, "value_range"),
    ],
)
def test_bad_values_are_named(config, values, message):
    with pytest.raises(ValueError, match=message):
        config(**values)


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (
            TrainConfig,
            {"frozen_stages": 2.5},
            r"frozen_stages must be an integer; got 2\.5 \(float\)",
        ),
        (TrainConfig, {"steps": "100"}, "steps must be an integer; got '100'"),
        (TrainConfig, {"learning_rate": "0.1"}, "learning_rate must be a number; got '0.1'"),
        (TrainConfig, {"seed": "a"}, "seed must be an integer; got 'a'"),
        (ModelConfig, {"image_size": 64.0}, "image_size must be an integer; got 64.0"),
        (VariationConfig, {"beta": None}, "beta must be a number; got None"),
        (AugmentConfig, {"value_range": {255, 0}}, "value_range must be a pair"),
    ],
)
def test_values_of_another_type_are_named(config, values, message):
    with pytest.raises(TypeError, match=message):
        config(**values)
    with pytest.raises(ValueError, match=message):
        config.from_dict(values)


def test_unknown_settings_are_named():
    with pytest.raises(ValueError, match="TrainConfig has no setting 'epochs'; the settings are"):
        TrainConfig.from_dict({"epochs": 3})


def test_a_removed_engine_names_those_there_are_and_its_successor():
    with pytest.raises(ValueError, match=r"'openvino-bfloat16'; got 'openvino-int8'.*was removed"):
        AugmentConfig(engine="openvino-int8")


def test_variation_is_described_only_where_it_is():
    plain = ModelConfig(profile="ladder")
    varied = dataclasses.replace(plain, variation=True)
    assert "variation" not in plain.to_dict() and varied.to_dict()["variation"] is True
    for config in (plain, varied):
        assert ModelConfig.from_dict(config.to_dict()) == config
    modes = ("denoise", "sample", "interpolate")
    assert [varied.makes_fields(mode) for mode in modes] == [False, True, True]
    assert not any(plain.makes_fields(mode) for mode in modes)
    with pytest.raises(ValueError, match="variation is of the profile 'ladder'"):
        ModelConfig(variation=True)
