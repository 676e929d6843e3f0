from __future__ import annotations

from vae_aug.cli.training import watch_steps

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
    with watch_steps(2000) as show:
        show(1, {**STEP, "seconds_left": float("nan")})
        for step in 2, 3:
            show(step, STEP)
        show(4, {**STEP, "seconds_left": float("nan")})
    output = capsys.readouterr()
    assert not output.out
    standing = "loss 2  SSIM 0.610 -> 0.684  9.0 images/s"
    assert output.err == f"step 2 of 2,000: {standing}  41 min left\nstep 4 of 2,000: {standing}\n"
