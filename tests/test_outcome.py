"""What a training was worth: figures on real runs, words on differences made by hand."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from conftest import shorten_stages, stand_still

from vae_aug.config import ModelConfig, TrainConfig
from vae_aug.evaluate import outcome as module
from vae_aug.evaluate.metrics import ssim
from vae_aug.evaluate.model_card import write_model_card
from vae_aug.evaluate.outcome import Difference, Outcome, judge_training
from vae_aug.model.stored import read_manifest
from vae_aug.phantoms.phantom import make_phantom
from vae_aug.records.records import make_example, write_records
from vae_aug.train.corrupt import corrupt
from vae_aug.train.recipe import Recipe
from vae_aug.train.run_files import TrainingError
from vae_aug.train.train import train

MODEL = ModelConfig(encoder="efficientnet-lite1", image_size=32, latent_dim=16)
CONFIG = TrainConfig(batch_size=4, steps=2, validate_every=2, seed=3)
PATIENTS = ("a", "a", "b", "c", "")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Five phantoms to train on, and the same to validate on, of three patients and one unknown."""
    folder = tmp_path_factory.mktemp("records")
    for split in "train", "validation":
        examples = [
            make_example(
                make_phantom("head_mr", index, size=32).image,
                source_id=str(index),
                boxes=np.zeros((0, 4)),
                labels=[],
                label_names=("lesion",),
                patient=patient,
            )
            for index, patient in enumerate(PATIENTS)
        ]
        write_records(examples, folder, split, 1, label_names=("lesion",))
    return folder


@pytest.fixture(scope="module")
def judged(records, tmp_path_factory):
    """The folder of a run whose steps changed nothing, and its outcome."""
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        shorten_stages(patch)
        stand_still(patch)
        train([records], out, Recipe(MODEL, CONFIG))
        return out, judge_training([records], out, config=CONFIG)


def test_what_is_no_better_than_its_start_is_said_to_be_so_first(judged):
    out, outcome = judged
    assert outcome.against_start.mean == pytest.approx(0, abs=1e-3)
    assert outcome.against_start.judgement != "better"
    assert outcome.verdict[0].startswith("NOT ")
    assert "what it started from, random weights" in outcome.verdict[0]
    assert (outcome.images, outcome.groups, outcome.unit) == (5, 4, "patients")
    assert "on 5 images of 4 patients" in outcome.verdict[0]
    assert outcome.verdict[-1].startswith("Few patients to judge on (4)")
    assert outcome.advice and outcome.code == f"dataset = dataset.apply(VAEAugment({str(out)!r}))"
    assert outcome.sheet == str(out / "sheet.png")
    assert json.loads((out / "outcome.json").read_bytes()) == outcome.to_dict()


def test_the_model_card_tells_what_was_measured_and_no_path(judged):
    out, outcome = judged
    card = write_model_card(out, outcome).read_text()
    assert "| went on from | random weights |\n\n## Training data\n\n5 images. " in card
    assert "included:\n3. The checkpoint" in card
    assert f"| checkpoint, SHA-256 | `{read_manifest(out)['digest']}` |" in card
    trained = outcome.figures["trained"]
    assert f"| this network | {trained['ssim_noisy']:.3f} | {trained['psnr_noisy']:.3f} |" in card
    filtered = outcome.figures["filter"]["psnr_noisy"]
    assert re.search(rf"the best classical filter \| 0\.\d+ \| {filtered:.3f} \|  \|  \|", card)
    assert '"batch_size": 4' in card and str(out.parent) not in card
    assert card.count("not measured by this command") == 4


def test_the_figures_are_those_of_the_images_that_were_validated_on(judged):
    _, outcome = judged
    values = []
    for index in range(len(PATIENTS)):
        clean = make_phantom("head_mr", index, size=32).image / np.float32(255)
        values.append(ssim(clean, corrupt(clean, "replace", 0.4, [CONFIG.seed, index]).numpy()))
    assert outcome.figures["noisy"]["ssim_noisy"] == pytest.approx(np.mean(values), abs=1e-4)
    assert set(outcome.figures["noisy"]) == set(outcome.figures["filter"])
    assert outcome.figures["filter"]["ssim_noisy"] > outcome.figures["noisy"]["ssim_noisy"] + 0.1
    gain = outcome.figures["trained"]["ssim_noisy"] - outcome.figures["filter"]["ssim_noisy"]
    assert outcome.against_filter.mean == pytest.approx(gain, abs=1e-6)
    assert outcome.filter["method"] in ("median", "tv", "nlm")


def test_a_run_that_was_validated_on_other_images_is_not_compared(judged, records, tmp_path):
    out, _ = judged
    fewer = dataclasses.replace(CONFIG, validation_images=3)
    with pytest.raises(TrainingError, match=r"began with 5 images .* and now there are 3"):
        judge_training([records], out, config=fewer)
    with pytest.raises(TrainingError, match=r"start\.json: is damaged"):
        judge_training([records], tmp_path, config=CONFIG)


def test_differences_are_paired_and_patients_are_drawn():
    # One patient of two images and another of two: means of draws are -1, 1 or 3.
    found = module.judge_differences(np.array([3.0, 3.0, -1.0, -1.0]), ["a", "a", "b", "b"])
    assert (found.mean, found.low, found.high) == (1.0, -1.0, 3.0)
    assert found.judgement == "unclear"
    assert module.judge_differences(np.array([0.1, 0.2]), ["a", "b"]).judgement == "better"
    assert module.judge_differences(np.array([-0.1, -0.2]), ["a", "b"]).judgement == "worse"
    assert module.judge_differences(np.array([0.1]), ["a"]).judgement == "unclear"


BETTER = Difference(0.07, 0.05, 0.09, "better")
UNCLEAR = Difference(0.004, -0.01, 0.02, "unclear")
WORSE = Difference(-0.02, -0.03, -0.01, "worse")
NONE = Difference(0.1, float("nan"), float("nan"), "unclear")


def make_outcome(gain, floor=BETTER, clean=BETTER, **values):
    settings = {"images": 40, "groups": 12, "unit": "patients", "step": 200, "steps": 200}
    outcome = Outcome(
        **{**settings, "start": "demo", **values},
        filter={"method": "tv", "weight": 0.4},
        figures={},
        against_start=gain,
        against_filter=floor,
        clean_against_start=clean,
        verdict=(),
        advice=(),
        sheet="run/sheet.png",
        code="",
    )
    return outcome, module.describe_outcome(outcome)


def test_a_gain_is_said_with_its_size_and_images():
    outcome, verdict = make_outcome(BETTER)
    assert verdict == [
        "Better than what it started from, demo: SSIM +0.070 (95% interval +0.050 to +0.090), on "
        "40 images of 12 patients with 40% of the pixels left.",
        "Better than the best classical filter (tv, tuned on these images): SSIM +0.070 (95% "
        "interval +0.050 to +0.090).",
    ]
    assert module.advise(outcome, True) == []
    config = TrainConfig(start_from="demo")
    assert module.write_code(outcome, config, "run") == "dataset = dataset.apply(VAEAugment('run'))"


@pytest.mark.parametrize(
    ("difference", "first"),
    [
        (UNCLEAR, "NOT certainly better (within noise) than what it started from"),
        (WORSE, "NOT better than what it started from"),
        (NONE, "NOT certainly better (within noise) than what it started from"),
    ],
)
def test_what_is_not_better_is_not_recommended(difference, first):
    outcome, verdict = make_outcome(difference)
    assert verdict[0].startswith(first)
    advice = module.advise(outcome, True)
    assert advice[0] == "Keep 'demo' for now." and "--steps 2000" in advice[1]
    config = TrainConfig(start_from="demo")
    assert "VAEAugment('demo')" in module.write_code(outcome, config, "run")
    assert ("one image" in verdict[0]) == (difference is NONE)


def test_an_early_best_asks_for_a_lower_rate():
    outcome, _ = make_outcome(UNCLEAR, step=100)
    assert "step 100 of 200: take a lower --learning-rate" in module.advise(outcome, True)[1]


def test_a_filter_that_does_better_is_said_and_demo_is_offered():
    outcome, verdict = make_outcome(BETTER, floor=WORSE, start="random weights")
    assert verdict[1].startswith("NOT better than the best classical filter (tv")
    assert module.advise(outcome, False)[0].startswith("Leave --profile out")


def test_what_clean_images_lose_is_said_if_it_matters():
    assert "On clean images it is WORSE" in make_outcome(BETTER, clean=WORSE)[1][2]
    little = Difference(-0.001, -0.002, -0.0005, "worse")
    assert len(make_outcome(BETTER, clean=little)[1]) == 2


def test_json_has_no_numbers_that_are_none():
    outcome, _ = make_outcome(NONE)
    assert outcome.to_dict()["against_start"]["low"] is None
    json.dumps(outcome.to_dict(), allow_nan=False)
