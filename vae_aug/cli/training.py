"""What is seen of a training: a bar or lines while it runs, and at its end what it was worth."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from vae_aug.cli.console import make_table, publish, say, show_progress
from vae_aug.cli.console import show as print_table
from vae_aug.cli.loading import calls
from vae_aug.model.stored import BEST_CHECKPOINT
from vae_aug.words import plural

if TYPE_CHECKING:
    from vae_aug.evaluate.outcome import Outcome
    from vae_aug.train.recipe import Recipe

LOG_EVERY_S = 30.0
"""Seconds between two lines in a log, where a terminal would have a bar."""

_BAR_WIDTH = 12


Show = Callable[[int, Mapping[str, float]], None]


@contextlib.contextmanager
def watch_steps(recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Show a bar on a terminal, and elsewhere a line to stderr every `LOG_EVERY_S`.

    Args:
        recipe: What is trained.

    Yields:
        `progress` and `variation_progress` of a training, as far as it has these parts.
    """
    columns = (BarColumn(_BAR_WIDTH), MofNCompleteColumn(), TextColumn("{task.fields[standing]}"))
    with show_progress(TextColumn("{task.description}"), *columns) as bar:
        shown: dict[str, Any] = {}
        if recipe.trains("variation"):
            steps = recipe.variation.steps
            shown["variation_progress"] = _make_show(bar, "variation", steps, format_variation)
        if recipe.trains("restoration"):
            shown["progress"] = _make_show(bar, "train", recipe.train.steps, format_standing)
        yield shown


def _make_show(
    bar: Progress, name: str, total: int, describe: Callable[[Mapping[str, float]], str]
) -> Show:
    """Make what shows a step of one part of the training."""
    task = bar.add_task(name, total=total, standing="preparing")
    last = time.monotonic()

    def show(step: int, figures: Mapping[str, float]) -> None:
        nonlocal last
        bar.update(task, completed=step, standing=describe(figures))
        now = time.monotonic()
        if bar.disable and now - last >= LOG_EVERY_S:
            typer.echo(f"{name}, step {step:,} of {total:,}: {describe(figures)}", err=True)
            last = now

    return show


def format_variation(figures: Mapping[str, float]) -> str:
    """Say in a line how a training of the variation stands."""
    return (
        f"loss {figures['loss']:.4g}  KL {figures['kl']:.1f} nats  moves pixels by "
        f"{figures['displacement']:.1f} of 128"
    )


def format_standing(figures: Mapping[str, float]) -> str:
    """Say in a line how a training stands: loss, SSIM before and now, speed and time left."""
    left = figures["seconds_left"]
    rest = "" if math.isnan(left) else f"  {calls.format_duration(left)} left"
    before, now = figures["start_ssim"], figures["last_ssim"]
    return (
        f"loss {figures['loss']:.4g}  SSIM {before:.3f} -> {now:.3f}  "
        f"{figures['images_per_second']:.1f} images/s{rest}"
    )


def print_outcome(outcome: Outcome, out: Path) -> None:
    """Print the verdict, the figures that it rests on, and how to use the network."""
    for sentence in (*outcome.verdict, *outcome.advice):
        say(sentence)
    table = make_table(
        plural(outcome.images, "image"), ["restored by"], ["SSIM", "dB", "clean SSIM", "clean dB"]
    )
    names = {
        "noisy": "nothing (40% of pixels left)",
        "filter": f"best filter ({outcome.filter['method']})",
        "start": "what it started from",
        "trained": f"trained (step {outcome.step:,})",
    }
    for key, name in names.items():
        figures = outcome.figures[key]
        cells = [
            f"{figures[figure]:.{digits}f}" if figure in figures else ""
            for figure, digits in (("ssim_noisy", 3), ("psnr_noisy", 1), ("ssim", 3), ("psnr", 1))
        ]
        table.add_row(name, *cells)
    print_table(table)
    say(f"checkpoint: {out / BEST_CHECKPOINT}")
    say(f"pictures: {outcome.sheet}, {out / calls.CURVES_NAME}")
    say(f"figures: {out / calls.OUTCOME_NAME}, {out / calls.MODEL_CARD}")
    say(f"to use it: {outcome.code}")


def print_variation(out: Path) -> None:
    """Print what a training of the variation alone made, and how to use it."""
    checkpoint = out / BEST_CHECKPOINT
    publish({"checkpoint": checkpoint, **calls.read_manifest(checkpoint)["training"]})
    say(f"checkpoint: {checkpoint}")
    say(f"to see it: vae-aug preview RECORDS --ckpt {checkpoint}")
    say(f"to use it: dataset.map(VAEAugment({os.fspath(checkpoint)!r}))")


def describe_interruption(out: Path, recipe: Recipe) -> str:
    """Say from where an interrupted run can go on."""
    variation = _find_step(out / "variation")
    if recipe.trains("variation") and variation < recipe.variation.steps:
        return _describe_state(out, variation, recipe.variation.steps, "the variation")
    step, steps = _find_step(out / "state"), recipe.train.steps
    if recipe.trains("restoration") and step < steps:
        return _describe_state(out, step, steps, "the restoration")
    return f"{out} keeps the trained network; run the same command again to have it judged."


def _find_step(folder: Path) -> int:
    """Find the step of the last state in a folder; 0 if there is none."""
    state = calls.tf.train.latest_checkpoint(os.fspath(folder))
    return 0 if state is None else int(state.rpartition("-")[2])


def _describe_state(out: Path, step: int, steps: int, part: str) -> str:
    if not step:
        return f"before the first state of {part}; run the same command again to train it."
    return (
        f"{out} keeps the state of step {step} of {steps} of {part}; run the same command again to "
        "go on from there."
    )
