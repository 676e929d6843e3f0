"""What is seen of a training: a bar or lines while it runs, and at its end what it was worth."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from vae_aug.cli.console import make_table, say, show_progress
from vae_aug.cli.console import show as print_table
from vae_aug.cli.loading import calls
from vae_aug.model.stored import BEST_CHECKPOINT
from vae_aug.words import plural

if TYPE_CHECKING:
    from vae_aug.evaluate.outcome import Outcome

LOG_EVERY_S = 30.0
"""Seconds between two lines in a log, where a terminal would have a bar."""

_BAR_WIDTH = 12


@contextlib.contextmanager
def watch_steps(total: int) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """Show a bar on a terminal, and elsewhere a line to stderr every `LOG_EVERY_S`.

    Args:
        total: Steps in all.

    Yields:
        The `progress` of a training.
    """
    columns = (BarColumn(_BAR_WIDTH), MofNCompleteColumn(), TextColumn("{task.fields[standing]}"))
    with show_progress(TextColumn("train"), *columns) as bar:
        task = bar.add_task("train", total=total, standing="preparing")
        last = time.monotonic()

        def show(step: int, figures: Mapping[str, float]) -> None:
            nonlocal last
            bar.update(task, completed=step, standing=format_standing(figures))
            now = time.monotonic()
            if bar.disable and now - last >= LOG_EVERY_S:
                typer.echo(f"step {step:,} of {total:,}: {format_standing(figures)}", err=True)
                last = now

        yield show


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
    say(f"figures: {out / calls.OUTCOME_NAME}")
    say(f"to use it: {outcome.code}")


def describe_interruption(out: Path, steps: int) -> str:
    """Say from where an interrupted run can go on."""
    state = calls.tf.train.latest_checkpoint(os.fspath(out / "state"))
    if state is None:
        return f"before the first validation; {out} holds no state yet, so a run starts anew."
    step = int(state.rpartition("-")[2])
    done = f"step {step} of {steps}"
    if step >= steps:
        return f"{out} keeps the network of {done}; run the same command again to have it judged."
    return f"{out} keeps the state of {done}; run the same command again to go on from there."
