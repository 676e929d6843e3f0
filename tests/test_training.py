from __future__ import annotations

from vae_aug.cli.training import format_variation, watch_steps
from vae_aug.config import ModelConfig, TrainConfig
from vae_aug.train.recipe import Recipe

# What `progress` is told after a step.
STEP = {
    "loss": 2.0,
    "images_per_second": 9.0,
    "start_ssim": 0.61,
    "last_ssim": 0.684,
    "seconds_left": 2460.0,
}


def test_train_writes_a_line_now_and_then_where_there_is_no_terminal(capsys, monkeypatch):
    times = iter((0.0, 29.0, 30.0, 59.0, 61.0))
    monkeypatch.setattr("vae_aug.cli.training.time.monotonic", lambda: next(times))
    with watch_steps(Recipe()) as shown:
        show = shown["progress"]
        show(1, {**STEP, "seconds_left": float("nan")})
        for step in 2, 3:
            show(step, STEP)
        show(4, {**STEP, "seconds_left": float("nan")})
    output = capsys.readouterr()
    assert not output.out
    standing = "loss 2  SSIM 0.610 -> 0.684  9.0 images/s"
    assert output.err == (
        f"train, step 2 of 2,000: {standing}  41 min left\ntrain, step 4 of 2,000: {standing}\n"
    )


def test_each_part_that_is_trained_has_a_bar():
    ladder = ModelConfig(profile="ladder", variation=True)
    for only, parts in (
        (None, {"variation_progress", "progress"}),
        ("restoration", {"progress"}),
        ("variation", {"variation_progress"}),
    ):
        with watch_steps(Recipe(ladder, TrainConfig(start_from="demo"), only=only)) as shown:
            assert set(shown) == parts
    text = format_variation({"loss": 2.0, "kl": 31.24, "displacement": 1.5})
    assert text == "loss 2  KL 31.2 nats  moves pixels by 1.5 of 128"
