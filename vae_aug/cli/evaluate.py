"""`evaluate` and its commands: what is measured of a network."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.markup import escape

from vae_aug.cli import options
from vae_aug.cli.console import get_out, make_table, name_damage, publish, say, show, show_counts
from vae_aug.cli.entry import command, command_group, warn_of_former
from vae_aug.cli.loading import calls
from vae_aug.cli.paths import require_checkpoint, require_records, require_split
from vae_aug.config import EXACT_ENGINES, Engine, Mode, TrainedPart
from vae_aug.errors import VAEAugError
from vae_aug.model.stored import name_checkpoint
from vae_aug.train.recipe import make_recipe
from vae_aug.words import plural

if TYPE_CHECKING:
    from vae_aug.evaluate.audit import Audit
    from vae_aug.evaluate.fidelity import BoxFidelity
    from vae_aug.evaluate.membership_report import Membership
    from vae_aug.evaluate.speed import Failure, Speed


@command_group("vae-aug evaluate records --ckpt run --ckpt demo --limit 48")
def evaluate(
    records: options.RecordsOrCommand,
    ckpt: options.Checkpoints = ["demo"],  # noqa: B006 - typer reads the default and never changes it
    split: options.Split = "validation",
    keep: Annotated[
        float, typer.Option(help="Share of the information that noise leaves, in (0, 1].")
    ] = 0.4,
    corruption: Annotated[
        list[Any], options.repeat(options.Corruption, "Noise; may be repeated.")
    ] = ["replace", "blend"],  # noqa: B006
    limit: options.Limit = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=32,
            help="Side in pixels of the square that images are fitted into. Default: the largest "
            "that a checkpoint was trained at.",
        ),
    ] = None,
    value_range: options.ValueRange = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for denoising.json, denoising.md and a figure per noise."),
    ] = None,
    seed: options.Seed = 0,
) -> None:
    """Measure denoising; by a further command diversity, memorisation, membership, speed, boxes.

    Without a further command: SSIM, PSNR and R2 of networks and classical filters on the same
    images; on the whole image, the body and inside boxes, with 95% intervals over patients, or over
    images if fewer than two patients are known.

    A further command stands first, and has a help of its own: vae-aug evaluate diversity --help.
    Records in a folder of its name are written ./diversity.
    """
    require_split(records, split)
    limits = options.parse_value_range(value_range)
    if len({name_checkpoint(one) for one in ckpt}) < len(ckpt):
        raise ValueError(f"two checkpoints have one name: {', '.join(ckpt)}.")
    networks = {name_checkpoint(one): calls.load_checkpoint(one) for one in ckpt}
    with name_damage(records), show_counts("images and noises") as progress:
        table = calls.evaluate_denoising(
            calls.Subset(records, split, limit),
            networks,
            calls.Corruptions(corruption, keep),
            size=size,
            value_range=limits,
            seed=seed,
            out=out,
            progress=progress,
        )
    publish(table.to_dict())
    calls.print_denoising(table, get_out())
    if warning := table.extent.describe("evaluate"):
        say(warning)
    if out is not None:
        calls.write_report(table, out / "denoising.md")
        say(f"{out}")


@command("vae-aug evaluate diversity records --ckpt run --limit 16", of=evaluate)
def diversity(
    records: options.Records,
    ckpt: options.Checkpoint = "demo",
    split: options.Split = "validation",
    mode: options.TransformMode = "sample",
    factor: options.Strengths = [0.5, 1.0, 2.0],  # noqa: B006
    samples: Annotated[int, typer.Option(min=2, help="Samples of each image.")] = 16,
    limit: options.Limit = None,
    guard: options.BoxGuard = "paste",
    value_range: options.ValueRange = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for diversity.json and a sheet for each factor.")
    ] = None,
    seed: options.Seed = 0,
) -> None:
    """Measure how samples vary, inside and outside boxes, and whether boxes keep their contrast."""
    require_split(records, split)
    limits = options.parse_value_range(value_range)
    network = calls.load_checkpoint(ckpt)
    with name_damage(records), show_counts("images") as progress:
        rows = calls.measure_diversity(
            calls.Subset(records, split, limit),
            network,
            calls.Sweep(factor, guard, value_range=limits, seed=seed),
            mode=mode,
            samples=samples,
            out=out,
            progress=progress,
        )
    publish(rows)
    calls.print_diversity(rows, get_out())
    if out is not None:
        say(f"{out}")


@command("vae-aug evaluate audit records --ckpt run --limit 256", of=evaluate)
def audit(
    records: Annotated[
        list[Path], typer.Argument(help="Folders of the records that it was trained on.")
    ],
    ckpt: options.Checkpoint = "demo",
    train: Annotated[list[Path] | None, typer.Option(hidden=True)] = None,
    held_out: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of records of which a split holds other patients; may be repeated. "
            "Default: RECORDS."
        ),
        require_records,
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            help="The split that holds other patients.", autocompletion=options.complete_split
        ),
    ] = "validation",
    samples: Annotated[int, typer.Option(min=2, help="Samples of each way.")] = 256,
    quantile: Annotated[
        float,
        typer.Option(
            help="Sets the threshold of distance: this share of the held-out images lies nearer to "
            "a training image."
        ),
    ] = 0.01,
    limit: Annotated[
        int | None, typer.Option(min=2, help="Most training images. Default: all.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for audit.json and audit.png, which shows patients' images."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail unless there is no sign of memorisation.")
    ] = False,
    seed: options.Seed = 0,
) -> None:
    """Look for training images in what a network puts out: nearest neighbours, and a verdict.

    Whatever it finds, reconstructions and samples of patients' images are not anonymous.
    """
    if train:
        ckpt, records = str(records[0]), train
        folders = " ".join(map(str, records))
        warn_of_former(f"{ckpt} --train {folders}", f"{folders} --ckpt {ckpt}")
        require_checkpoint(ckpt)
    for folder in records:
        require_records(folder)
    for folder in held_out or records:
        require_split(folder, split)
    network = calls.load_checkpoint(ckpt)
    with name_damage(*records, *held_out or []), show_counts("images") as progress:
        found = calls.audit_memorisation(
            network,
            calls.Subset(records, "train", limit),
            calls.Subset(held_out or records, split, limit),
            samples=samples,
            quantile=quantile,
            seed=seed,
            out=out,
            progress=progress,
        )
    publish(found)
    _print_audit(ckpt, found)
    _say_verdict(found)
    if strict and found.signs is not False:
        signs = "too few images to tell" if found.signs is None else "signs of memorisation"
        raise VAEAugError(f"{ckpt}: {signs}.")


def _print_audit(title: str, audit: Audit) -> None:
    """Print suspects and their distances in a table each, which fit 80 columns."""
    for columns in (slice(2, 7), slice(7, None)):
        _print_groups(title, "samples", audit, columns)


def _print_groups(title: str, first: str, found: Audit | Membership, columns: slice) -> None:
    """Print some columns of a report, its rows in groups of what their first cell has in common."""
    headings, rows = found.tabulate()
    table = make_table(title, [first], headings[columns])
    for name, group in itertools.groupby(rows, key=lambda row: row[0]):
        table.add_row(escape(name))
        for row in group:
            table.add_row(f"  {escape(row[1])}", *map(escape, row[columns]))
    show(table)


def _say_verdict(found: Audit | Membership) -> None:
    say(found.verdict)
    for note in found.notes:
        say(f"  {note}")


@command("vae-aug evaluate membership records --config run/config.json --out leaks", of=evaluate)
def membership(
    records: Annotated[
        list[Path],
        typer.Argument(help="Folders of records, of which all splits are read."),
        require_records,
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for membership.json and what a stopped run goes on from.")
    ],
    config: options.Config = None,
    ckpt: options.Target = None,
    only: Annotated[
        TrainedPart | None,
        typer.Option(
            help="The part that is trained on halves and attacked. [default: that of --config, or "
            "restoration]"
        ),
    ] = None,
    networks: Annotated[
        int, typer.Option(min=6, help="Networks of the recipe, an even number.")
    ] = 16,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Optimiser steps of each. [default: those of --config, or 2000]"),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=32,
            help="Side in pixels of the restoration's squares. [default: that of --config or of "
            "demo]",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Most images of each patient, evenly spaced. Default: all."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail unless there is no sign of a leak.")
    ] = False,
    seed: options.Seed = 0,
) -> None:
    """Infer who was trained on: networks of a recipe on random halves of the patients attack it.

    Takes as long as --networks trainings and eight more, each by a third longer than --steps: these
    show what the attack can see. Ctrl-C stops; the same command goes on with the networks that are
    missing, and reports the same.
    """
    settings = options.read_settings(config)
    only = only or settings["only"] or "restoration"
    if size and only == "variation":
        raise VAEAugError("--size: a variation has squares of 128 pixels; leave the option out.")
    parts = {name: settings[name] for name in ("model", "train", "variation")}
    trained = "variation" if only == "variation" else "train"
    parts[trained] = parts[trained] | ({"steps": steps} if steps else {})
    parts["model"] = parts["model"] | ({"image_size": size} if size else {})
    recipe = make_recipe(*parts.values(), only=None if only == "variation" else only)
    target = None if ckpt is None else calls.load_checkpoint(ckpt)
    try:
        with name_damage(*records), show_counts("steps") as progress:
            found = calls.audit_membership(
                records,
                out,
                recipe,
                only=only,
                networks=networks,
                target=target,
                limit=limit,
                seed=seed,
                progress=progress,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{out} keeps the networks so far; run the same command again to go on."
        ) from None
    publish(found)
    _print_groups(str(out / calls.REPORT_NAME), "score", found, slice(2, None))
    _say_verdict(found)
    if strict and found.leaks is not False:
        signs = "the attack could not tell" if found.leaks is None else "membership leaks"
        raise VAEAugError(f"{out}: {signs}.")


@command("vae-aug evaluate bench --ckpt run --size 256", of=evaluate)
def bench(
    ckpt: options.Checkpoint = "demo",
    mode: options.TransformMode = "sample",
    size: Annotated[
        int, typer.Option(min=32, max=4096, help="Height and width of the images, pixels.")
    ] = 224,
    images: Annotated[
        int,
        typer.Option(min=1, help="Images timed in a round, rounded up to a multiple of 64."),
    ] = 64,
    rounds: Annotated[
        int, typer.Option(min=1, help="Rounds; each measures every engine in turn.")
    ] = 3,
    engine: Annotated[
        list[Any] | None,
        options.repeat(
            Engine,
            "Engine to measure; may be repeated. Default: all that can run here, xla only if "
            "there is a GPU.",
        ),
    ] = None,
) -> None:
    """Measure which engine is the fastest on this machine, on phantoms with boxes.

    Results are printed as they come. Status 1 if an engine fails, or one that is named by --engine
    cannot run here; the others are measured all the same.
    """
    network = calls.load_checkpoint(ckpt)
    measured = engine or calls.list_engines()
    with show_counts("rounds") as progress:
        total, done = len(measured) * len(calls.WAYS) * (1 + rounds), itertools.count(1)
        speeds, failures = calls.measure_engines(
            network,
            measured,
            mode=mode,
            image_size=size,
            images=images,
            rounds=rounds,
            report=_print_result,
            progress=lambda: progress(next(done), total),
        )
    publish({"speeds": speeds, "failures": failures})
    _print_speeds(f"{ckpt}, {mode}", speeds, failures)
    _advise_engine(ckpt, [speed.engine for speed in speeds if speed.way != calls.WAYS[-1]])
    told = [failure for failure in failures if engine or not failure.missing]
    if told or not speeds:
        names = ", ".join(dict.fromkeys(failure.engine for failure in told or failures))
        raise VAEAugError(f"{names}: could not be measured; the reason stands above the table.")


@command("vae-aug evaluate fidelity records --ckpt run --split train", of=evaluate)
def fidelity(
    records: options.Records,
    ckpt: options.Checkpoint = "demo",
    split: options.Split = "train",
    mode: Annotated[
        list[Any] | None, options.repeat(Mode, "Mode; may be repeated. Default: all three.")
    ] = None,
    factor: options.Strengths = [0.5, 1.0, 2.0],  # noqa: B006
    guard: options.BoxGuard = "paste",
    min_fidelity: options.MinFidelity = 0.8,
    value_range: options.ValueRange = None,
    limit: options.Limit = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for fidelity.json and fidelity.png, histograms.")
    ] = None,
    seed: options.Seed = 0,
) -> None:
    """Pass a split through the transform and count the boxes that are harmed (status 1 if any)."""
    require_split(records, split)
    limits = options.parse_value_range(value_range)
    network = calls.load_checkpoint(ckpt)
    with name_damage(records), show_counts("images") as progress:
        rows = calls.measure_box_fidelity(
            calls.Subset(records, split, limit),
            network,
            calls.Sweep(factor, guard, min_fidelity, limits, seed),
            modes=mode or get_args(Mode),
            out=out,
            progress=progress,
        )
    publish(rows)
    _print_fidelity(f"boxes of {records} through {ckpt}", rows)
    if out is not None:
        say(f"{out}")
    if harmed := sum(row.below for row in rows):
        raise VAEAugError(f"{plural(harmed, 'box')} left the transform below --min-fidelity.")


def _print_fidelity(title: str, rows: Sequence[BoxFidelity]) -> None:
    headings = ("boxes", "guarded", "lowest", "below", "contrast\nkept", "s")
    table = make_table(title, ["mode", "factor"], headings)
    for row in rows:
        kept = "-" if row.contrast_kept is None else f"{row.contrast_kept:.1%}"
        guarded = f"{row.guarded / max(row.boxes, 1):.1%}"
        cells = (f"{row.factor:g}", row.boxes, guarded, f"{row.lowest:.3f}", row.below, kept)
        table.add_row(row.mode, *map(str, cells), f"{row.seconds:.1f}")
    show(table)


def _print_result(result: Speed | Failure) -> None:
    """Print the rate of a round, or why there is none, as soon as it is known."""
    if isinstance(result, calls.Speed):
        say(f"{result.engine}, {result.way}: {result.median:.1f} images/s")
    elif result.missing:
        say(f"{result.engine}: cannot run here. {result.reason}")
    else:
        say(f"{result.engine}, {' and '.join(result.ways)}: failed. {result.reason}")


def _print_speeds(title: str, speeds: Sequence[Speed], failures: Sequence[Failure]) -> None:
    """Print the table of engines, the fastest first and those that failed last."""
    headings = ("images/s", "slowest round", "fastest round")
    table = make_table(title, ["engine", "way"], headings)
    for speed in speeds:
        figures = (speed.median, min(speed.rates), max(speed.rates))
        table.add_row(speed.engine, speed.way, *(f"{figure:.1f}" for figure in figures))
    for failure in failures:
        for way in failure.ways:
            table.add_row(failure.engine, way, "cannot run" if failure.missing else "failed")
    show(table)


def _advise_engine(checkpoint: str, engines: Sequence[str]) -> None:
    """Say what to type for the first of these engines, and for the first in float32."""
    advised = {"Fastest": engines[0]} if engines else {}
    exact = [engine for engine in engines if engine in EXACT_ENGINES]
    if exact and exact[0] != engines[0]:
        advised["Fastest in float32"] = exact[0]
    for what, engine in advised.items():
        say(f"{what} without a cache: dataset.apply(VAEAugment({checkpoint!r}, engine={engine!r}))")
