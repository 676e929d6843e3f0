"""What `vae-aug train` trains, by what was chosen and what was not."""

from __future__ import annotations

import dataclasses

import pytest

from vae_aug.config import TRAIN_RECIPES, ModelConfig, TrainConfig, VariationConfig
from vae_aug.model.checkpoint import read_manifest
from vae_aug.train.recipe import make_recipe

DEMO = ModelConfig.from_dict(read_manifest("demo")["model"])
LADDER = TRAIN_RECIPES["ladder"]


@pytest.mark.parametrize("train", [{}, {"steps": 7, "keep": [0.4, 0.5]}])
def test_by_default_a_ladder_goes_on_from_demo_and_says_so(train):
    recipe = make_recipe({}, train)
    assert recipe.model == dataclasses.replace(DEMO, variation=True) and DEMO.profile == "ladder"
    assert recipe.trains("variation") and recipe.trains("restoration")
    assert recipe.train == TrainConfig.from_dict({**LADDER, "start_from": "demo", **train})
    assert "goes on from the packaged 'demo'" in recipe.reason


def test_a_ladder_goes_on_at_another_size():
    recipe = make_recipe({"image_size": 64}, {})
    assert recipe.train.start_from == "demo" and recipe.model.image_size == 64


@pytest.mark.parametrize("profile", ["vector", "ladder"])
def test_a_profile_that_was_chosen_begins_with_random_weights(profile):
    recipe = make_recipe({"profile": profile}, {"seed": 3})
    varies = profile == "ladder"
    assert recipe.model == ModelConfig(profile=profile, variation=varies) and not recipe.reason
    assert recipe.trains("variation") == varies
    assert recipe.train == TrainConfig.from_dict({**TRAIN_RECIPES[profile], "seed": 3})


@pytest.mark.parametrize(
    ("model", "train"),
    [
        ({"encoder": "efficientnet-lite1"}, {}),
        ({"latent_dim": 64}, {}),
        ({}, {"encoder_weights": "package"}),
        # A run's own config.json names all fields.
        ({}, {"start_from": None}),
    ],
)
def test_what_names_architecture_or_weights_begins_as_named(model, train):
    recipe = make_recipe(model, train)
    assert recipe.model == ModelConfig.from_dict({"profile": "ladder", "variation": True, **model})
    assert recipe.train == TrainConfig.from_dict({**LADDER, **train}) and not recipe.reason


def test_a_start_that_was_chosen_brings_its_architecture():
    recipe = make_recipe({}, {"start_from": "vector"})
    assert recipe.model.profile == "vector" and recipe.train == TrainConfig(start_from="vector")
    assert not recipe.reason


@pytest.mark.parametrize("name", ["model.encoder", "train.encoder_weights"])
def test_what_a_search_varies_counts_as_chosen(name):
    assert make_recipe({}, {}, varied=[name]).train.start_from is None
    assert make_recipe({}, {}, varied=["train.beta"]).train.start_from == "demo"


def test_a_variation_can_be_declined():
    chosen = make_recipe({"profile": "ladder", "variation": False}, {})
    assert not chosen.model.variation and not chosen.trains("variation")
    restoration = make_recipe({"profile": "ladder"}, {}, only="restoration")
    assert not restoration.model.variation and restoration.trains("restoration")
    assert "variation" not in restoration.to_dict() and restoration.to_dict()["only"]


def test_the_variation_alone_goes_on_from_demo():
    recipe = make_recipe({}, {}, {"steps": 9}, only="variation")
    assert recipe.train.start_from == "demo" and recipe.model.variation
    assert recipe.variation == VariationConfig(steps=9) and not recipe.trains("restoration")
    assert recipe.to_dict()["variation"]["steps"] == 9


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"profile": "ladder"}, "there has to be one: name its checkpoint"),
        ({"profile": "vector"}, "it is one of the profile 'ladder'"),
        ({"profile": "ladder", "variation": False}, "has no such part"),
    ],
)
def test_a_variation_that_cannot_be_trained_alone_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        make_recipe(model, {}, only="variation")


@pytest.mark.parametrize("name", ["steps", "batch_size", "partners", "save_every"])
def test_settings_of_the_variation_are_checked(name):
    with pytest.raises(ValueError, match=name):
        VariationConfig(**{name: 0})
