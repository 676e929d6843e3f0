"""`demo`, `info` and `report`: what the package does, what a file holds, and results as a page."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markdown import Markdown
from rich.markup import escape
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from vae_aug.cli import options
from vae_aug.cli.console import make_listing, make_table, publish, say, show, show_progress
from vae_aug.cli.entry import command
from vae_aug.cli.loading import calls, page
from vae_aug.cli.paths import is_folder_of_records, require_file
from vae_aug.errors import VAEAugError
from vae_aug.model.stored import read_card, read_manifest
from vae_aug.records.shards import find_records, read_info

if TYPE_CHECKING:
    from vae_aug.extras.augment_records import RecordSummary


@command("vae-aug demo --out demo_out")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the result; replaced if it is there.")] = (
        Path("demo_out")
    ),
    ckpt: options.Checkpoint = "demo",
) -> None:
    """Show the whole path on embedded images, in under three minutes.

    Phantoms and public slices as COCO -> records -> VAEAugment -> TFDS dataset. Every box is
    compared bit for bit after each step; one that differs fails the demo (status 1). Leaves
    records, the dataset, sheet.png and summary.md.
    """
    columns = (TextColumn("{task.description}"), TimeElapsedColumn())
    with _quiet_tfds(), show_progress(*columns) as progress:
        task = progress.add_task("start", total=None)
        report = calls.run_demo(
            out, checkpoint=ckpt, watch=lambda stage: progress.update(task, description=stage)
        )
    publish({"boxes": report.checks, "figures": report.figures, "seconds": report.seconds})
    table = make_table("vae-aug demo", ["figure"], ["value"])
    for name, count in report.checks.items():
        table.add_row(f"{name}: boxes equal", str(count))
    for name, value in report.figures.items():
        table.add_row(name, f"{value:.3f}" if "SSIM" in name else f"{value:.2f}")
    for name, seconds in report.seconds.items():
        table.add_row(f"{name}, s", f"{seconds:.1f}")
    table.add_row("all, s", f"{sum(report.seconds.values()):.1f}")
    show(table)
    say(f"{out / 'summary.md'}, {out / 'sheet.png'}")


@command("vae-aug info run")
def info(
    path: Annotated[
        str,
        typer.Argument(
            help="A checkpoint (file, folder or packaged name), or a folder or file of records."
        ),
    ],
    record: Annotated[
        int | None,
        typer.Option(
            min=0, help="Of a file of augmented records: print how this one, from 0, was made."
        ),
    ] = None,
) -> None:
    """Print what a checkpoint or a set of records holds; names no image and no patient."""
    place = Path(path)
    if record is not None:
        require_file(place)
        _print_provenance(place, record)
    elif is_folder_of_records(place):
        _print_folder(place)
    elif place.is_file() and place.suffix == ".tfrecord":
        summary = _summarize([place])
        publish(summary)
        _print_summary(place.name, summary)
    else:
        _print_checkpoint(path)


@command("vae-aug report run/log.jsonl run/best.json --out run.html")
def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="Files of results, .json or .jsonl: of evaluate, train, ingest, a benchmark, or "
            "what any command prints with --json."
        ),
        require_file,
    ],
    out: Annotated[Path, typer.Option(help="The page, a file that needs no network.")] = Path(
        "report.html"
    ),
) -> None:
    """Write results as a page for a browser: plots, and tables to sort, filter and copy.

    The page holds all that is in the files: names, folders and settings, too.
    """
    if not page.is_page(out) or not out.parent.is_dir():
        raise VAEAugError(f"{out}: a page is a file whose name ends in .html, in a folder.")
    page.write_report_page(out, results)
    publish({"out": out, "files": len(results)})
    say(f"{out}: {out.stat().st_size / 1e3:.0f} kB")


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


def _print_provenance(path: Path, index: int) -> None:
    table = make_listing(f"{path}, record {index}")
    provenance = calls.read_provenance(path, index)
    publish(provenance)
    for name, value in provenance.items():
        listed = isinstance(value, list)
        shown = ", ".join(f"{entry:.3g}" for entry in value) if listed else str(value)
        table.add_row(name, escape(shown))
    show(table)


def _print_checkpoint(checkpoint: str) -> None:
    manifest, card = read_manifest(checkpoint), read_card(checkpoint)
    shapes = [variable["shape"] for variable in manifest["variables"].values()]
    fingerprint, training = manifest["fingerprint"], manifest["training"]
    facts: dict[str, Any] = {
        "digest": manifest["digest"],
        "format": manifest["format"],
        "weights": sum(math.prod(shape) for shape in shapes),
        "trained on images": fingerprint.get("images"),
        "trained on patients": len(fingerprint.get("patients", ())) or None,
    }
    groups = {
        "model": manifest["model"],
        "validation": training.get("validation", {}),
        "train": training.get("config", {}),
    }
    publish({"path": manifest["path"], **facts, **groups, "card": card})
    table = make_listing(manifest["path"])
    for name, value in facts.items():
        table.add_row(name, "unknown" if value is None else str(value))
    for group, values in groups.items():
        for name, value in values.items():
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            table.add_row(f"{group} {name}", escape(shown))
    show(table)
    show(Markdown(card) if card else "No model card.")


def _print_folder(folder: Path) -> None:
    info = read_info(folder)
    summaries = {part: _summarize(find_records(folder, part)[0]) for part in info.parts}
    publish({"labels": info.label_names, "parts": summaries})
    say(f"{folder}: labels {', '.join(info.label_names)}")
    for part, summary in summaries.items():
        _print_summary(part, summary)


def _summarize(files: Sequence[Path]) -> RecordSummary:
    columns = (SpinnerColumn(), TextColumn("{task.completed} records"))
    with show_progress(*columns) as progress:
        task = progress.add_task("", total=None)
        return calls.summarize_records(files, progress=lambda n: progress.update(task, completed=n))


def _print_summary(name: str, summary: RecordSummary) -> None:
    table = make_listing(name)
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
    show(table)
