"""What the commands do: read their options, show progress, call the package, print the result.

Loaded by `vae_aug.cli` when a command runs. Results go to stdout, progress and errors to stderr.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import yaml  # type: ignore[import-untyped]
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from vae_aug import demo
from vae_aug.augment.files import denoise_files
from vae_aug.augment.records import RecordSummary, augment_records, summarize_records
from vae_aug.augment.replay import read_provenance, replay_record
from vae_aug.augment.transform import VAEAugment
from vae_aug.config import EXACT_ENGINES, TRAIN_RECIPES, Engine, ModelConfig, TrainConfig
from vae_aug.data.atomic import write_atomic
from vae_aug.data.check import DAMAGE, check_records
from vae_aug.data.dicom import Window
from vae_aug.data.ingest import IngestReport, find_hashed, ingest, ingest_by_patient
from vae_aug.data.records import find_records, read_info, read_records
from vae_aug.data.shards import UNANNOTATED
from vae_aug.data.splits import Leak, count_leaks, find_leaks
from vae_aug.errors import VAEAugError
from vae_aug.evaluate.audit import audit_memorisation
from vae_aug.evaluate.denoising import evaluate_denoising
from vae_aug.evaluate.diversity import measure_diversity
from vae_aug.evaluate.fidelity import measure_box_fidelity
from vae_aug.evaluate.preview import choose_rows, write_preview
from vae_aug.evaluate.report import print_denoising, print_diversity, write_report
from vae_aug.evaluate.speed import WAYS, Failure, Speed, list_engines, measure_engines
from vae_aug.model.checkpoint import (
    BEST_CHECKPOINT,
    load_checkpoint,
    name_checkpoint,
    read_card,
    read_manifest,
)
from vae_aug.model.manifest import MANIFEST_NAME
from vae_aug.model.train import train
from vae_aug.model.tune import BEST_NAME, TABLE_NAME, Trial, tune

_OUT = Console(highlight=False)
_ERR = Console(stderr=True, highlight=False)
_SHOWN_PROBLEMS = 20
_CHECKPOINT_FILES = {MANIFEST_NAME, BEST_CHECKPOINT}
"""What tells the folder of a checkpoint or of a training from one of records."""


# --- demo ------------------------------------------------------------------------------------


def run_demo(out: Path, checkpoint: str) -> None:
    """Run the demo and print its summary."""
    with (
        _quiet_tfds(),
        _show_progress(TextColumn("{task.description}"), TimeElapsedColumn()) as progress,
    ):
        task = progress.add_task("start", total=None)
        report = demo.run_demo(
            out, checkpoint=checkpoint, watch=lambda stage: progress.update(task, description=stage)
        )
    table = Table("figure", title="vae-aug demo")
    table.add_column("value", justify="right")
    for name, count in report.checks.items():
        table.add_row(f"{name}: boxes equal", str(count))
    for name, value in report.figures.items():
        table.add_row(name, f"{value:.3f}" if "SSIM" in name else f"{value:.2f}")
    for name, seconds in report.seconds.items():
        table.add_row(f"{name}, s", f"{seconds:.1f}")
    table.add_row("all, s", f"{sum(report.seconds.values()):.1f}")
    _OUT.print(table)
    _print(f"{out / 'summary.md'}, {out / 'sheet.png'}")


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Hide what TFDS warns of and is meant here: a configuration of its own, a new folder."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


# --- ingest ----------------------------------------------------------------------------------


def run_ingest(
    source: Path,
    out: Path,
    *,
    labels: str | None,
    window: str,
    salt_file: Path | None,
    split_by_patient: str | None,
    seed: int,
    runner_options: Sequence[str] | None,
    **options: Any,
) -> None:
    """Ingest one split, or share out its images, and print what was taken and left out."""
    names = None if labels is None else [name.strip() for name in labels.split(",")]
    options |= {"labels": names, "window": _parse_window(window), "salt": _read_salt(salt_file)}
    options["runner_options"] = _parse_runner_options(runner_options or ())
    with _show_counts("images") as progress:
        options["progress"] = progress
        if split_by_patient is None:
            reports: tuple[IngestReport, ...] = (ingest(source, out, **options),)
        else:
            shares = _parse_shares(split_by_patient)
            reports = ingest_by_patient(source, out, shares, seed=seed, **options)
    for report in reports:
        _print_ingest(report, out)
    if sheets := [
        path for path in (out / f"ingest_{r.split}.png" for r in reports) if path.exists()
    ]:
        _print(f"images with their boxes: {', '.join(map(str, sheets))}")
    _print_leaks_of(reports, out, strict=options["strict"])


def _print_leaks_of(reports: Sequence[IngestReport], out: Path, *, strict: bool) -> None:
    """Print what the splits of an ingest share with others, if that was searched for."""
    if all(report.leaks is None for report in reports):
        return
    leaks = tuple(dict.fromkeys(leak for report in reports for leak in report.leaks or ()))
    _print_leaks(leaks)
    if leaks and strict:
        raise VAEAugError(_describe_leaks(out, leaks))
    if leaks:
        _print(
            f"WARNING: {_describe_leaks(out, leaks)} What is measured on these splits is not what "
            "other patients would give. Write all splits anew with --split-by-patient --overwrite, "
            "or correct the source; vae-aug check lists the leaks again."
        )


def _parse_runner_options(texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.removeprefix("--").partition("=") for text in texts]
    for text, (name, equals, _) in zip(texts, pairs, strict=True):
        if not name or not equals:
            raise ValueError(f"--runner-option wants KEY=VALUE; got {text!r}.")
    return {name: value for name, _, value in pairs}


def run_which(
    source: Path, hashes: Sequence[str], *, salt_file: Path | None, **options: Any
) -> None:
    """Print what hashes stand for."""
    found = find_hashed(source, hashes, salt=_read_salt(salt_file), **options)
    for value, name in found.items():
        _print(f"{value} {name}")
    if missing := [value for value in hashes if value not in found]:
        raise VAEAugError(
            f"{source}: nothing in it has the hash {', '.join(missing)}; give the split, format "
            "and salt of the ingest."
        )


def _read_salt(path: Path | None) -> str | None:
    return None if path is None else path.read_text(encoding="utf-8").strip()


def _parse_shares(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(
            f"--split-by-patient wants shares such as 0.7,0.15,0.15; got {text!r}."
        ) from error


def run_check(records: Path, *, near_bits: int, strict: bool) -> None:
    """Check records and print what is in two splits."""
    for part in read_info(records).parts:
        _print(f"{part}: {check_records(records, part)} records, no fault")
    with _show_counts("images") as progress:
        leaks = find_leaks(records, near_bits=near_bits, progress=progress)
    _print_leaks(leaks)
    if strict and leaks:
        raise VAEAugError(_describe_leaks(records, leaks))


def _print_leaks(leaks: Sequence[Leak]) -> None:
    for leak in leaks[:_SHOWN_PROBLEMS]:
        _print(f"  {leak.kind} in {leak.splits[0]} and {leak.splits[1]}: {leak.key}")
    _print(f"in two splits: {count_leaks(leaks)}")


def _describe_leaks(records: Path, leaks: Sequence[Leak]) -> str:
    return f"{records}: {len(leaks)} leaks between splits ({count_leaks(leaks)})."


def _parse_window(text: str) -> Window:
    """Return the window that an option stands for; `ingest` checks it."""
    parts = text.split(",")
    if len(parts) != 2:
        return text
    try:
        return float(parts[0]), float(parts[1])
    except ValueError:
        return text


def _print_ingest(report: IngestReport, out: Path) -> None:
    table = Table("split", "label", title=escape(f"{report.format} -> {out}"))
    table.add_column("boxes", justify="right")
    for label, count in report.class_counts.items():
        table.add_row(report.split, escape(label), str(count))
    table.add_section()
    table.add_row(report.split, "all", str(report.boxes))
    _OUT.print(table)
    if report.resumed:
        _print(f"{report.resumed} images had been converted by a run that was cut short")
    if report.restarted:
        _print("a run that was cut short had other images or settings; started anew")
    if report.replaced:
        _print(f"replaced the former {report.split} of {report.replaced} images")
    _print(f"format {report.format}: {report.reveal(report.evidence)}")
    for note in report.notes:
        _print(note)
    patients = f", {report.patients} patients" if report.patients else ""
    _print(f"{report.images} images written{patients}")
    if report.unannotated or report.faulty:
        _print(_describe_unannotated(report))
    if report.turned:
        _print(f"{report.turned} images turned as their EXIF orientation says")
    _print(
        f"{len(report.skipped)} files skipped, {report.dropped} boxes dropped, "
        f"{report.clipped} boxes clipped to the image"
        + (f", {report.duplicates} boxes twice" if report.duplicates else "")
    )
    for side, sizes in report.box_sizes_px.items():
        least, lower, median, upper, largest = (f"{size:g}" for size in sizes)
        _print(
            f"box {side}, px: median {median}, half in {lower}-{upper}, all in {least}-{largest}"
        )
    if set(report.scanners) != {""}:
        scanners = (f"{name or 'no DICOM'} {count}" for name, count in report.scanners.items())
        _print(f"images by scanner: {', '.join(scanners)}")
    if report.neighbours:
        states = ", ".join(f"{count} {state}" for state, count in report.neighbours.items())
        _print(f"neighbours: {states}; the slice itself stands in for all but found")
    if report.burned_in:
        _print(
            f"WARNING: {report.burned_in} images say of themselves that text is burned into the "
            "pixels, (0028,0301) Burned In Annotation; it may name the patient"
        )
    # Images that are merely not annotated come last: they may be all of a folder.
    problems = sorted(report.problems, key=lambda problem: problem.effect == "unannotated")
    for problem in problems[:_SHOWN_PROBLEMS]:
        _print(f"  {problem.effect} {report.reveal(problem.file)}: {problem.reason}")
    hidden = len(report.problems) - _SHOWN_PROBLEMS
    if hidden > 0:
        _print(f"  and {hidden} more, in {out / f'ingest_{report.split}.json'}")


def _describe_unannotated(report: IngestReport) -> str:
    """Say how many images are not annotated, and what became of them."""
    became = (
        f"written to {report.split}{UNANNOTATED}-*, which vae-aug train reads and a detector must "
        "not"
        if report.unannotated_written
        else "left out"
    )
    return (
        f"{report.unannotated} images of which the source does not say whether they have boxes, "
        f"and {report.faulty} whose annotation is faulty: {became}"
    )


# --- train -----------------------------------------------------------------------------------


def run_train(
    records: Sequence[Path],
    out: Path,
    *,
    config: Path | None,
    validation: Sequence[Path],
    card: Path | None,
    allow_damaged: bool,
    model_options: Mapping[str, Any],
    train_options: Mapping[str, Any],
) -> None:
    """Train, or go on training, and print the best validation's figures."""
    settings = _read_settings(config)
    start_from = train_options["start_from"] or settings["train"].get("start_from")
    start = read_manifest(start_from)["model"] if start_from else {}
    model = ModelConfig.from_dict({**start, **settings["model"], **_drop_unset(model_options)})
    recipe = TRAIN_RECIPES[model.profile]
    training = TrainConfig.from_dict({**recipe, **settings["train"], **_drop_unset(train_options)})
    text = "" if card is None else card.read_text(encoding="utf-8")
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    bar = _show_progress(TextColumn("{task.description}"), *columns)
    try:
        with _name_damage(*records, *validation), bar as progress:
            task = progress.add_task("train", total=training.steps, figures="preparing")

            def show(step: int, figures: Mapping[str, float]) -> None:
                progress.update(task, completed=step, figures=_format_step(figures))

            best = train(
                records,
                out,
                model=model,
                config=training,
                validation=validation,
                card=text,
                allow_damaged=allow_damaged,
                progress=show,
                report=_print,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_describe_state(out)) from None
    table = Table("best validation", title=escape(str(out / BEST_CHECKPOINT)))
    table.add_column("value", justify="right")
    for name, value in best.items():
        table.add_row(name, f"{value:g}")
    _OUT.print(table)


def _read_settings(path: Path | None) -> dict[str, dict[str, Any]]:
    """Read the objects "model" and "train" of a JSON file, as a run writes it."""
    if path is None:
        return {"model": {}, "train": {}}
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise VAEAugError(f"{path}: not valid JSON ({error}).") from error
    # A run's own config.json also has its sources, which are arguments here.
    known = {"model", "train", "sources"}
    fits = isinstance(content, dict) and set(content) <= known
    parts = {name: content.get(name, {}) for name in ("model", "train")} if fits else {}
    if not fits or not all(isinstance(part, dict) for part in parts.values()):
        raise VAEAugError(f'{path}: expected an object with the objects "model" and "train".')
    return parts


def _drop_unset(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _format_step(figures: Mapping[str, float]) -> str:
    return (
        f"loss {figures['loss']:.4g}  KL {figures['kl']:.1f} nats  PSNR {figures['psnr']:.1f} dB  "
        f"{figures['images_per_second']:.1f} images/s"
    )


def _describe_state(out: Path) -> str:
    """Say from where an interrupted run can go on."""
    state = tf.train.latest_checkpoint(os.fspath(out / "state"))
    if state is None:
        return f"before the first validation; {out} holds no state yet, so a run starts anew."
    step = state.rpartition("-")[2]
    return f"{out} keeps the state of step {step}; run the same command again to go on from there."


# --- tune ------------------------------------------------------------------------------------


def run_tune(
    records: Sequence[Path],
    out: Path,
    *,
    config: Path | None,
    search: Path | None,
    trials: int,
    steps: int,
    validation: Sequence[Path],
    **options: Any,
) -> None:
    """Tune, or go on tuning, and print the trials, the best first."""
    settings = _read_settings(config)
    model = ModelConfig.from_dict(settings["model"])
    recipe = TRAIN_RECIPES[model.profile]
    columns = (BarColumn(), TextColumn("{task.fields[figures]}"), TimeRemainingColumn())
    bar = _show_progress(TextColumn("{task.description}"), *columns)
    try:
        with _name_damage(*records, *validation), bar as progress:
            task = progress.add_task("tune", total=trials * steps, figures="preparing")

            def show(
                number: int, values: Mapping[str, Any], step: int, figures: Mapping[str, float]
            ) -> None:
                progress.update(
                    task,
                    description=f"trial {number}/{trials}, step {step}/{steps}",
                    completed=(number - 1) * steps + step,
                    figures=f"PSNR {figures['psnr']:.1f} dB" if figures else _format_values(values),
                )

            done = tune(
                records,
                out,
                model=model,
                config=TrainConfig.from_dict({**recipe, **settings["train"]}),
                space=None if search is None else _read_space(search),
                trials=trials,
                steps=steps,
                validation=validation,
                progress=show,
                **options,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{out} keeps the trials so far; run the same command again to go on."
        ) from None
    _print_trials(done, out)


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
    table = Table("trial", title=escape(str(out / TABLE_NAME)))
    names = [name.partition(".")[2] for name in trials[0].values]
    for heading in (*names, "score, dB", "PSNR", "PSNR noisy", "KL, nats"):
        table.add_column(heading, justify="right")
    for trial in trials:
        values = map(str, trial.values.values())
        figures = [trial.figures.get(name, math.nan) for name in ("psnr", "psnr_noisy", "kl")]
        results = (
            trial.status if trial.score is None else f"{trial.score:.2f}",
            *("-" if math.isnan(figure) else f"{figure:.1f}" for figure in figures),
        )
        table.add_row(str(trial.number), *map(escape, values), *results)
    _OUT.print(table)
    for trial in trials:
        if trial.status == "failed":
            _print(f"  trial {trial.number} failed: {trial.message}")
    _print(f"for vae-aug train --config: {out / BEST_NAME}")


# --- augment, preview ------------------------------------------------------------------------


def run_augment(
    records: Path,
    out: Path,
    checkpoint: str,
    *,
    splits: Sequence[str],
    augment_evaluation: bool,
    strict: bool,
    allow_damaged: bool,
    shards: int | None,
    **settings: Any,
) -> None:
    """Augment records and print what was done to each split."""
    augment = VAEAugment(checkpoint, **settings)
    with _show_counts("images") as progress:
        report = augment_records(
            records,
            out,
            augment,
            splits=splits,
            augment_evaluation=augment_evaluation,
            strict=strict,
            allow_damaged=allow_damaged,
            shards=shards,
            progress=progress,
        )
    table = Table("split", title=escape(f"{records} -> {out}"))
    for heading in ("images", "augmented", "boxes", "guarded", "lowest fidelity"):
        table.add_column(heading, justify="right")
    for name, split in report.augmented.items():
        lowest = "-" if math.isnan(split.lowest_fidelity) else f"{split.lowest_fidelity:.3f}"
        counts = (split.images, split.augmented, split.boxes, split.guarded)
        table.add_row(name, *map(str, counts), lowest)
    for name, images in report.copied.items():
        table.add_row(name, str(images), "copied", "", "", "")
    _OUT.print(table)
    for name, split in report.augmented.items():
        if split.lost:
            _print(f"warning: {split.lost} records of the split {name!r} were damaged and are lost")
    for name, count in report.seen_patients.items():
        _print(f"warning: {checkpoint} was trained on {count} patients of the split {name!r}")


def run_replay(
    record: Path, index: int, source: Path, checkpoint: str, *, out: Path | None
) -> None:
    """Make an augmented record again, and fail if it is not the same."""
    replay = replay_record(record, index, source, checkpoint)
    if out is not None:
        write_atomic(out, replay.encoded)
        _print(f"{out}")
    if not replay.identical:
        raise VAEAugError(
            f"record {index} of {record} is not what the source, the checkpoint and its settings "
            "make: another source, another kind of processor, or another version of TensorFlow."
        )
    _print(f"record {index} of {record}: the same {len(replay.encoded)} bytes")


def run_preview(
    records: Path,
    out: Path,
    checkpoint: str,
    *,
    split: str | None,
    rows: int,
    samples: int,
    value_range: str | None,
    **settings: Any,
) -> None:
    """Draw a sheet of what the transform does to some of the images."""
    limits = None if value_range is None else _parse_value_range(value_range)
    with _name_damage(records):
        chosen = choose_rows(read_records(records, split, unannotated=True), rows)
    augment = VAEAugment(load_checkpoint(checkpoint), value_range=limits, **settings)
    label_names = read_info(records).label_names
    with _show_progress(SpinnerColumn(), TextColumn("drawing")) as progress:
        progress.add_task("", total=None)
        write_preview(out, chosen, augment, label_names=label_names, count=samples)
    _print(f"{out}")


def _parse_value_range(text: str) -> tuple[float, float]:
    """Return the two numbers of an option; `VAEAugment` checks them."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"--value-range wants LOW,HIGH such as 0,4095; got {text!r}.") from error
    return low, high


# --- denoise ---------------------------------------------------------------------------------


def run_denoise(source: Path, out: Path, checkpoint: str, *, window: str, **options: Any) -> None:
    """Denoise files and print what was done."""
    with _show_counts("images") as progress:
        report = denoise_files(
            source, out, checkpoint, window=_parse_window(window), progress=progress, **options
        )
    _print(
        f"{report.written} images denoised, {report.kept} were there already, "
        f"{report.ignored} other files ignored, {len(report.failed)} left out"
    )
    for file, reason in report.failed[:_SHOWN_PROBLEMS]:
        _print(f"  left out {file}: {reason}")
    if len(report.failed) > _SHOWN_PROBLEMS:
        _print(f"  and {len(report.failed) - _SHOWN_PROBLEMS} more")
    if report.failed and not report.written + report.kept:
        raise VAEAugError(f"none of {len(report.failed)} images could be denoised.")


# --- evaluate --------------------------------------------------------------------------------


def run_evaluate(
    records: Path, checkpoints: Sequence[str], *, out: Path | None, **options: Any
) -> None:
    """Measure denoising and print the table."""
    networks = {
        name_checkpoint(checkpoint): load_checkpoint(checkpoint) for checkpoint in checkpoints
    }
    if len(networks) < len(checkpoints):
        raise ValueError(f"two checkpoints have one name: {', '.join(checkpoints)}.")
    with _name_damage(records), _show_counts("images and noises") as progress:
        table = evaluate_denoising(records, networks, out=out, progress=progress, **options)
    print_denoising(table, _OUT)
    if out is not None:
        write_report(table, out / "denoising.md")
        _print(f"{out}")


def run_diversity(records: Path, checkpoint: str, *, out: Path | None, **options: Any) -> None:
    """Measure how samples vary and print the table."""
    network = load_checkpoint(checkpoint)
    with _name_damage(records), _show_counts("images") as progress:
        rows = measure_diversity(records, network, out=out, progress=progress, **options)
    print_diversity(rows, _OUT)
    if out is not None:
        _print(f"{out}")


def run_bench(
    checkpoint: str, engines: list[Engine] | None, *, rounds: int, **options: Any
) -> None:
    """Measure engines, print results as they come and a table, and say which is the fastest.

    Fails after all that if an engine failed, or one that was asked for by name cannot run here.
    """
    network = load_checkpoint(checkpoint)
    measured = engines or list_engines()
    with _show_counts("rounds") as progress:
        total, done = len(measured) * len(WAYS) * (1 + rounds), itertools.count(1)
        speeds, failures = measure_engines(
            network,
            measured,
            rounds=rounds,
            report=_print_result,
            progress=lambda: progress(next(done), total),
            **options,
        )
    _print_speeds(f"{checkpoint}, {options['mode']}", speeds, failures)
    _advise_engine(checkpoint, [speed.engine for speed in speeds if speed.way != WAYS[-1]])
    told = [failure for failure in failures if engines or not failure.missing]
    if told or not speeds:
        names = ", ".join(dict.fromkeys(failure.engine for failure in told or failures))
        raise VAEAugError(f"{names}: could not be measured; the reason stands above the table.")


def _print_result(result: Speed | Failure) -> None:
    """Print the rate of a round, or why there is none, as soon as it is known."""
    if isinstance(result, Speed):
        _print(f"{result.engine}, {result.way}: {result.median:.1f} images/s")
    elif result.missing:
        _print(f"{result.engine}: cannot run here. {result.reason}")
    else:
        _print(f"{result.engine}, {' and '.join(result.ways)}: failed. {result.reason}")


def _print_speeds(title: str, speeds: Sequence[Speed], failures: Sequence[Failure]) -> None:
    """Print the table of engines, the fastest first and those that failed last."""
    table = Table("engine", "way", title=escape(title))
    for heading in ("images/s", "slowest round", "fastest round"):
        table.add_column(heading, justify="right")
    for speed in speeds:
        figures = (speed.median, min(speed.rates), max(speed.rates))
        table.add_row(speed.engine, speed.way, *(f"{figure:.1f}" for figure in figures))
    for failure in failures:
        for way in failure.ways:
            table.add_row(failure.engine, way, "cannot run" if failure.missing else "failed")
    _OUT.print(table)


def _advise_engine(checkpoint: str, engines: Sequence[str]) -> None:
    """Say what to type for the first of these engines, and for the first in float32."""
    advised = {"Fastest": engines[0]} if engines else {}
    exact = [engine for engine in engines if engine in EXACT_ENGINES]
    if exact and exact[0] != engines[0]:
        advised["Fastest in float32"] = exact[0]
    for what, engine in advised.items():
        _print(
            f"{what} without a cache: dataset.apply(VAEAugment({checkpoint!r}, engine={engine!r}))"
        )


def run_fidelity(records: Path, checkpoint: str, *, out: Path | None, **options: Any) -> None:
    """Pass a split through the transform, print what became of its boxes, fail if one is harmed."""
    network = load_checkpoint(checkpoint)
    with _name_damage(records), _show_counts("images") as progress:
        rows = measure_box_fidelity(records, network, out=out, progress=progress, **options)
    table = Table("mode", "factor", title=escape(f"boxes of {records} through {checkpoint}"))
    for heading in ("boxes", "guarded", "lowest", "below", "contrast kept", "seconds"):
        table.add_column(heading, justify="right")
    for row in rows:
        kept = "-" if row.contrast_kept is None else f"{row.contrast_kept:.1%}"
        counts = (
            row.boxes,
            f"{row.guarded / max(row.boxes, 1):.1%}",
            f"{row.lowest:.3f}",
            row.below,
        )
        cells = (f"{row.factor:g}", *counts, kept, f"{row.seconds:.1f}")
        table.add_row(row.mode, *map(str, cells))
    _OUT.print(table)
    if out is not None:
        _print(f"{out}")
    if harmed := sum(row.below for row in rows):
        raise VAEAugError(f"{harmed} boxes left the transform below --min-fidelity.")


def run_audit(
    checkpoint: str,
    records: Sequence[Path],
    *,
    held_out: Sequence[Path],
    strict: bool,
    **options: Any,
) -> None:
    """Look for training images in what a network puts out, and print the verdict."""
    network = load_checkpoint(checkpoint)
    with _name_damage(*records, *held_out), _show_counts("images") as progress:
        audit = audit_memorisation(network, records, held_out or None, progress=progress, **options)
    headings, rows = audit.tabulate()
    table = Table(*headings, title=escape(checkpoint))
    for row in rows:
        table.add_row(*map(escape, row))
    _OUT.print(table)
    _print(audit.verdict)
    for note in audit.notes:
        _print(f"  {note}")
    if strict and audit.signs is not False:
        found = "too few images to tell" if audit.signs is None else "signs of memorisation"
        raise VAEAugError(f"{checkpoint}: {found}.")


# --- info ------------------------------------------------------------------------------------


def run_info(path: str, index: int | None) -> None:
    """Print what a checkpoint, a set of records, or a single record holds."""
    place = Path(path)
    if index is not None:
        _print_provenance(place, index)
    elif place.is_dir() and not _CHECKPOINT_FILES & {file.name for file in place.iterdir()}:
        _print_folder(place)
    elif place.is_file() and place.suffix == ".tfrecord":
        _print_summary(place.name, _summarize([place]))
    else:
        _print_checkpoint(path)


def _print_provenance(path: Path, index: int) -> None:
    table = Table("augment/", show_header=False, title=escape(f"{path}, record {index}"))
    table.add_column(overflow="fold")
    for name, value in read_provenance(path, index).items():
        listed = isinstance(value, list)
        shown = ", ".join(f"{entry:.3g}" for entry in value) if listed else str(value)
        table.add_row(name, escape(shown))
    _OUT.print(table)


def _print_checkpoint(checkpoint: str) -> None:
    manifest = read_manifest(checkpoint)
    shapes = [variable["shape"] for variable in manifest["variables"].values()]
    fingerprint = manifest.get("fingerprint", {})
    table = Table("checkpoint", show_header=False, title=escape(manifest["path"]))
    table.add_column(overflow="fold")
    table.add_row("digest", manifest["digest"])
    table.add_row("format", str(manifest["format"]))
    table.add_row("weights", f"{sum(math.prod(shape) for shape in shapes):,}")
    for name, value in manifest["model"].items():
        table.add_row(f"model {name}", escape(str(value)))
    table.add_row("trained on images", str(fingerprint.get("images", "unknown")))
    table.add_row("trained on patients", str(len(fingerprint.get("patients", ())) or "unknown"))
    for name, value in manifest["training"].get("validation", {}).items():
        table.add_row(f"validation {name}", f"{value:g}")
    for name, value in manifest["training"].get("config", {}).items():
        table.add_row(f"train {name}", escape(str(value)))
    _OUT.print(table)
    card = read_card(checkpoint)
    _OUT.print(Markdown(card) if card else "No model card.")


def _print_folder(folder: Path) -> None:
    info = read_info(folder)
    _print(f"{folder}: labels {', '.join(info.label_names)}")
    for part in info.parts:
        _print_summary(part, _summarize(find_records(folder, part)[0]))


def _summarize(files: Sequence[Path]) -> RecordSummary:
    columns = (SpinnerColumn(), TextColumn("{task.completed} records"))
    with _show_progress(*columns) as progress:
        task = progress.add_task("", total=None)
        return summarize_records(files, progress=lambda n: progress.update(task, completed=n))


def _print_summary(name: str, summary: RecordSummary) -> None:
    table = Table(name, show_header=False, title=escape(name))
    table.add_column(overflow="fold")
    table.add_row("images", str(summary.images))
    table.add_row("patients", str(summary.patients or "unknown"))
    table.add_row("boxes", str(summary.boxes))
    for label, count in sorted(summary.labels.items()):
        table.add_row(f"  {escape(label)}", str(count))
    for kind, count in summary.formats.items():
        table.add_row(kind, str(count))
    table.add_row("augmented", str(summary.augmented))
    if not math.isnan(summary.lowest_fidelity):
        table.add_row("lowest fidelity", f"{summary.lowest_fidelity:.3f}")
    for settings, count in summary.settings.items():
        table.add_row(escape(settings), str(count))
    _OUT.print(table)


# --- Output ----------------------------------------------------------------------------------


def _print(line: str) -> None:
    """Print a line as it is: no markup, no wrapping."""
    _OUT.print(line, markup=False, soft_wrap=True)


def _show_progress(*columns: ProgressColumn) -> Progress:
    """Make a progress bar that leaves nothing behind, neither on a terminal nor in a log."""
    # What is printed meanwhile goes above the bar, but never from a pipe to the terminal.
    return Progress(
        *columns,
        console=_ERR,
        transient=True,
        disable=not _ERR.is_terminal,
        redirect_stdout=_OUT.is_terminal,
    )


@contextlib.contextmanager
def _name_damage(*folders: Path) -> Iterator[None]:
    """Name the file and record where TensorFlow only says that some record is damaged."""
    try:
        yield
    except DAMAGE:
        for folder in folders:
            for part in read_info(folder).parts:
                check_records(folder, part)
        raise


@dataclasses.dataclass
class _Counts:
    """Shows "done of all" as `ingest` and `augment_records` report it."""

    progress: Progress
    task: TaskID

    def __call__(self, done: int, total: int) -> None:
        self.progress.update(self.task, completed=done, total=total)


@contextlib.contextmanager
def _show_counts(noun: str) -> Iterator[_Counts]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with _show_progress(*columns, TimeRemainingColumn()) as progress:
        yield _Counts(progress, progress.add_task(noun, total=None))
