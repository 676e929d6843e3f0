"""The lines that a training prints before it begins."""

from __future__ import annotations

import numpy as np
import pytest

from vae_aug.config import ModelConfig, TrainConfig
from vae_aug.train.plan import (
    describe_darkness,
    describe_plan,
    describe_position,
    describe_scores,
)


def describe(**settings):
    model = ModelConfig(profile="ladder", image_size=64)
    lines = describe_plan(model, TrainConfig(**settings), 1000, 50)
    return dict(line.split(": ", 1) for line in lines)


def test_a_plan_has_everything_that_was_decided():
    lines = describe(corruptions=("replace", "replace", "rician"), keep=(0.25, 0.8), steps=2500)
    assert lines == {
        "network": "ladder on efficientnet-b1, squares of 64 px; begins with random weights",
        "noise": "replace, rician, which leave 25% to 80% of the information; 30% of the images "
        "stay clean",
        "images": "1,000 to train on, 50 to validate on",
        "plan": "2,500 steps of 16 images, 40 times through the images; a validation every 200 "
        "steps",
    }


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"start_from": "demo"}, "begins with the weights of 'demo'"),
        ({"encoder_weights": "package"}, "begins with random weights, but for the encoder's from"),
    ],
)
def test_a_plan_names_the_start(settings, expected):
    assert expected in describe(**settings)["network"]


def test_a_plan_says_what_ends_a_run():
    assert describe(steps=100)["plan"].endswith("a validation at the end")
    assert describe(patience=3)["plan"].endswith(
        "every 200 steps, until 3 in a row bring nothing better"
    )


def make_feed(*highest):
    """Make batches of two of images `[8, 8, 1]` from black to some grey."""
    grey = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8, 1)
    images = [grey * high for high in highest]
    return [(None, np.stack(images[i : i + 2])) for i in range(0, len(images), 2)]


def test_a_plan_warns_of_images_that_fill_little_of_their_range():
    dark = describe_darkness(make_feed(0.0625, 0.0625, 1.0, 0.02, 0.03))
    assert dark.startswith(
        "WARNING: values: 4 of the 5 images to validate on fill 0.0% to 6.2% of the range of 16 "
    )
    assert "--overwrite and the --window that vae-aug ingest names" in dark
    lines = list(describe_plan(ModelConfig(), TrainConfig(), 5, 5, dark))
    assert lines.count(dark) == 1 and len(lines) == 5
    assert describe_darkness(make_feed(0.0625, 1.0)) == describe_darkness(make_feed(0.2)) == ""


def test_figures_are_said_with_what_they_are_of():
    figures = {"ssim_noisy": 0.6134, "psnr_noisy": 21.34, "ssim": 0.98, "psnr": 40.0}
    assert describe_scores("start", figures) == (
        "start: SSIM 0.613, 21.3 dB with 40% of the pixels left; 0.980, 40.0 dB on clean images"
    )
    best = {"step": 200.0, "ssim_noisy": 0.7}
    assert describe_position(400, TrainConfig(), best, False) == (
        "run: goes on after step 400 of 2,000; its best, of step 200, restores to SSIM 0.700"
    )
