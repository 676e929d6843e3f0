"""`train` and `tune`: from records to a network."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml  # type: ignore[import-untyped]
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from vae_aug.cli import options
from vae_aug.cli.console import (
    make_table,
    name_damage,
    publish,
    say,
    show_progress,
    show_work,
)
from vae_aug.cli.console import show as print_table
from vae_aug.cli.entry import command
from vae_aug.cli.loading import calls
from vae_aug.cli.paths import require_file
from vae_aug.cli.training import (
    describe_interruption,
    print_outcome,
    print_variation,
    watch_steps,
)
from vae_aug.config import Encoder, Likelihood, Oracle, Profile, TrainedPart
from vae_aug.errors import VAEAugError
from vae_aug.model.stored import BEST_CHECKPOINT
from vae_aug.train.cluster import read_cluster
from vae_aug.train.recipe import make_recipe

if TYPE_CHECKING:
    from vae_aug.train.tune import Trial


@command("vae-aug train records --start-from demo --out run")
def train(
    records: options.TrainingRecords,
    out: Annotated[
        Path,
        typer.Option(help="Folder of the run: checkpoint, log, TensorBoard, state to resume from."),
    ],
    config: options.Config = None,
    validation: options.Validation = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps of each part. [default: 2000]")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per step. [default: 16]")
    ] = None,
    profile: Annotated[
        Profile | None,
        typer.Option(
            help="vector: the published network; ladder: latent maps at every scale, which keep "
            "lesions. Either begins with random weights, and chooses the defaults of training. "
            "[default: a ladder that goes on from demo]"
        ),
    ] = None,
    encoder: Annotated[
        Encoder | None,
        typer.Option(
            help="Backbone. [default: that of --start-from, or efficientnet-b1 without it]"
        ),
    ] = None,
    encoder_weights: Annotated[
        str | None,
        typer.Option(
            help="imagenet (downloads), package (the extra [lite1]) or a file. "
            "[default: those of --start-from, or random weights without it]"
        ),
    ] = None,
    start_from: options.StartFrom = None,
    only: Annotated[
        TrainedPart | None,
        typer.Option(
            help="The part that is trained, while the other stays as it is. restoration: what "
            "denoises; variation: how patients and scanners differ, which takes minutes and needs "
            "images of two patients at least. [default: both, if a ladder is trained]"
        ),
    ] = None,
    loss: Annotated[
        Likelihood | None,
        typer.Option(
            help="paper: original_dim * MSE + KLD; sigma: optimal decoder variance; sigma_each: "
            "one for each image. [default: sigma; of a ladder sigma_each]"
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(min=0.0, help="Its highest value. [default: 0.001; of a ladder 0.002]"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of weights, order, noise and samples. [default: 0]")
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="<devices>",
            help="Over what each batch of the restoration is split: 2, the first two GPUs; or "
            "names, GPU:0,GPU:2. Several machines: a TF_CONFIG in the environment of each "
            "worker, without this option. [default: one device, TensorFlow's choice]",
        ),
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option(help="Markdown file for the checkpoint's model card."),
        require_file,
    ] = None,
    allow_damaged: options.AllowDamaged = False,
) -> None:
    """Train a network on records: how patients differ, and to restore noisy images.

    Without options a ladder goes on from the packaged demo. First comes its variation, which learns
    from pairs of similar images of different patients and which augmentation samples from; then the
    restoration, noisy image in, clean image out. What is going to be done and how long it takes is
    said first; at the end, whether the network is better than what it started from and than the
    best classical filter (OUT/outcome.json). OUT/card.md is a model card that tells the same.

    Ctrl-C stops; the same command goes on from the last state. OUT/checkpoint.keras is the best
    network so far, by validation PSNR.
    """
    settings = options.read_settings(config)
    chosen = _drop_unset(
        steps=steps,
        batch_size=batch_size,
        encoder_weights=encoder_weights,
        start_from=start_from,
        loss=loss,
        learning_rate=learning_rate,
        seed=seed,
    )
    recipe = make_recipe(
        {**settings["model"], **_drop_unset(profile=profile, encoder=encoder)},
        {**settings["train"], **chosen},
        {**settings["variation"], **_drop_unset(steps=steps, seed=seed)},
        only=only or settings["only"],
        devices=devices,
    )
    cluster = read_cluster()
    text = "" if card is None else card.read_text(encoding="utf-8")
    # Not before it begins: what is wrong with the records is said alone.
    say_reason = _say_once(recipe.reason)

    def report(line: str) -> None:
        say_reason()
        say(line)

    shared: dict[str, Any] = {"validation": validation or [], "allow_damaged": allow_damaged}
    try:
        with name_damage(*records, *validation or []):
            with watch_steps(recipe) as shown:
                calls.train(records, out, recipe, card=text, report=report, **shown, **shared)
            if cluster and cluster.worker:
                say(f"worker {cluster.worker} is done; worker 0 has the network and judges it.")
                return
            if not recipe.trains("restoration"):
                print_variation(out)
                return
            say("comparing it with what it started from and with classical filters ...")
            with show_work("comparing"):
                outcome = calls.judge_training(records, out, config=recipe.train, **shared)
                calls.write_model_card(out, outcome)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(describe_interruption(out, recipe)) from None
    publish({"checkpoint": out / BEST_CHECKPOINT, **outcome.to_dict()})
    print_outcome(outcome, out)


@command("vae-aug tune records --config run/config.json --out search")
def tune(
    records: options.TrainingRecords,
    out: Annotated[
        Path,
        typer.Option(help="Folder of the search: its table, the best settings, every training."),
    ],
    config: options.Config = None,
    search: Annotated[
        Path | None,
        typer.Option(
            help="JSON or YAML file: field names such as train.learning_rate or model.encoder to "
            "a list of choices, or to an object with low, high and sampling (linear or log). In "
            "YAML, write 3.0e-4, not 3e-4. Default: learning rate, weights of KL and SSIM, free "
            "bits."
        ),
        require_file,
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials in all.")] = 12,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps of every trial.")] = 300,
    oracle: Annotated[
        Oracle,
        typer.Option(
            help="What chooses the values: bayesian, Parzen estimators after a third of the "
            "trials was chosen at random; or random throughout."
        ),
    ] = "bayesian",
    validation: options.Validation = None,
    seed: Annotated[
        int, typer.Option(help="Of the search; every trial trains with the seed of --config.")
    ] = 0,
) -> None:
    """Search for the settings with which a training restores images best (extra tune).

    Trials are short trainings, scored as training scores checkpoints: by the mean PSNR on clean
    and noisy input. Ctrl-C stops; the same command goes on, also with more --trials. OUT/best.json
    is for `vae-aug train --config`.
    """
    settings = options.read_settings(config)
    space = None if search is None else _read_space(search)
    recipe = make_recipe(
        settings["model"], settings["train"], only="restoration", varied=space or ()
    )
    say_reason = _say_once(recipe.reason)
    try:
        with (
            name_damage(*records, *validation or []),
            _show_steps("tune", trials * steps) as show,
        ):

            def show_trial(
                number: int, values: Mapping[str, Any], step: int, figures: Mapping[str, float]
            ) -> None:
                say_reason()
                show(
                    (number - 1) * steps + step,
                    f"PSNR {figures['psnr']:.1f} dB" if figures else _format_values(values),
                    f"trial {number}/{trials}, step {step}/{steps}",
                )

            done = calls.tune(
                records,
                out,
                recipe,
                calls.SearchConfig(space, trials, steps, oracle, seed),
                validation=validation or [],
                progress=show_trial,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{out} keeps the trials so far; run the same command again to go on."
        ) from None
    publish({"trials": done, "best": out / calls.BEST_NAME})
    _print_trials(done, out)


@contextlib.contextmanager
def _show_steps(description: str, total: int) -> Iterator[Callable[..., None]]:
    """Show a bar of steps, and yield what takes their number, a text and a new description."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"))
    text = TextColumn("{task.description}")
    with show_progress(text, *columns, TimeRemainingColumn()) as progress:
        task = progress.add_task(description, total=total, figures="preparing")

        def show(step: int, figures: str, description: str | None = None) -> None:
            progress.update(task, completed=step, figures=figures, description=description)

        yield show


def _say_once(line: str) -> Callable[[], None]:
    """Make a function that says a line, if there is one, at its first call alone."""
    left = [line] if line else []

    def say_it() -> None:
        while left:
            say(left.pop())

    return say_it


def _drop_unset(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _read_space(path: Path) -> Mapping[str, Any]:
    """Read a search space from JSON or YAML; `tune` checks what it says."""
    parse = yaml.safe_load if path.suffix in (".yaml", ".yml") else json.loads
    try:
        content = parse(path.read_bytes())
    except (ValueError, yaml.YAMLError) as error:
        raise VAEAugError(f"{path}: not valid JSON or YAML ({error}).") from error
    if not isinstance(content, dict):
        raise VAEAugError(f"{path}: expected an object of field names; got {content!r}.")
    return content


def _format_values(values: Mapping[str, Any]) -> str:
    return "  ".join(f"{name.partition('.')[2]} {value}" for name, value in values.items())


def _print_trials(trials: Sequence[Trial], out: Path) -> None:
    headings = ("score, dB", "PSNR", "PSNR noisy", "KL, nats")
    table = make_table(str(out / calls.TABLE_NAME), ["trial", "settings"], headings)
    for trial in trials:
        results = [trial.figures.get(name, math.nan) for name in ("psnr", "psnr_noisy", "kl")]
        table.add_row(
            str(trial.number),
            escape(_format_values(trial.values)),
            trial.status if trial.score is None else f"{trial.score:.2f}",
            *("-" if math.isnan(result) else f"{result:.1f}" for result in results),
        )
    print_table(table)
    for trial in trials:
        if trial.status == "failed":
            say(f"  trial {trial.number} failed: {trial.message}")
    say(f"for vae-aug train --config: {out / calls.BEST_NAME}")
