"""`ingest`, `which` and `check`: from files to records, and what is wrong with either."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from vae_aug.cli import options
from vae_aug.cli.console import (
    SHOWN_PROBLEMS,
    make_table,
    publish,
    say,
    say_problems,
    show,
    show_counts,
    show_work,
)
from vae_aug.cli.entry import command
from vae_aug.cli.loading import calls
from vae_aug.cli.paths import require_source
from vae_aug.config import Exif, Unannotated
from vae_aug.errors import VAEAugError
from vae_aug.records.shards import UNANNOTATED, read_info
from vae_aug.words import plural

if TYPE_CHECKING:
    from vae_aug.ingest.report import IngestReport
    from vae_aug.ingest.splits import Leak


@command("vae-aug ingest scans records --split-by-patient 0.7,0.15,0.15")
def ingest(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of the data set, its annotation file, or a quoted pattern of TFRecords."
        ),
        require_source,
    ],
    out: Annotated[Path, typer.Argument(help="Folder of the records; made if missing.")],
    format: options.SourceFormat = "auto",
    split: Annotated[
        str,
        typer.Option(
            help="Split to read and to write; val and valid are stored as validation. all reads "
            "every split of the source.",
            autocompletion=options.complete_split,
        ),
    ] = "train",
    shards: Annotated[int, typer.Option(min=1, max=99999, help="Number of files.")] = 1,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Label names in their order, with commas between; boxes of others are dropped. "
            "Default: those of OUT if they cover the source's, else the source's."
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Fail at the first unusable, unannotated or faulty image or box."
        ),
    ] = False,
    unannotated: Annotated[
        Unannotated | None,
        typer.Option(
            help="What becomes of images of which the source does not say whether they have "
            "boxes. keep (the default): they go to shards of their own, which vae-aug train reads "
            "and a detector does not; skip; negative: you say that none has a box; error (the "
            "default with --strict).",
        ),
    ] = None,
    keep_partial: Annotated[
        bool,
        typer.Option(
            "--keep-partial",
            help="Take an image of which only some boxes were understood as annotated.",
        ),
    ] = False,
    images: options.Images = None,
    exif: Annotated[
        Exif,
        typer.Option(
            help="apply turns images as their EXIF orientation says, which is what annotation "
            "tools show; ignore takes pixels as stored."
        ),
    ] = "apply",
    axis: options.SliceAxis = "axial",
    window: options.Window = "auto",
    bits: Annotated[
        int | None,
        typer.Option(
            help="Depth of the images to which --window applies, 8 or 16. Default: 16 if the file "
            "stores more than 8 bits."
        ),
    ] = None,
    neighbours: Annotated[
        str | None,
        typer.Option(
            help="DICOM series only: the slices so far before and behind become the first and "
            "third channel; a number of slices, or millimetres as 5mm. At an end or gap the slice "
            "itself stands in."
        ),
    ] = None,
    salt_file: options.SaltFile = None,
    pseudonyms: options.PseudonymsOption = "hashes",
    keep_ids: Annotated[
        bool,
        typer.Option("--keep-ids", help="Keep names and patients as they are: public data only."),
    ] = False,
    split_by_patient: Annotated[
        str | None,
        typer.Option(
            help="Share the images of --split (or of --split all) out to train, validation and "
            "test, e.g. 0.7,0.15,0.15 (or 0.8,0.2 without test), with no patient in two of them.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a split that OUT holds already.")
    ] = False,
    no_leak_check: Annotated[
        bool,
        typer.Option(
            "--no-leak-check",
            help="Do not search the other splits of OUT for patients and images of this one, "
            "which decodes every image of OUT once more.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of --split-by-patient.")] = 0,
    workers: options.Workers = 1,
    runner: options.BeamRunner = None,
    runner_option: options.RunnerOptions = None,
) -> None:
    """Write one split of an annotated data set as TFRecords (TF Object Detection schema).

    An image counts as one without boxes only if the source says so; what is not annotated goes to
    shards of its own, for vae-aug train alone. Unusable images and boxes are left out, counted and
    named, by hashes (see vae-aug which).
    Nothing appears before it is whole. Run the command again after Ctrl-C or a crash: it goes on
    where it stopped. A split that OUT holds already is refused. Patients and images that are in two
    splits of OUT are named; with --strict the command then fails (status 1).
    """
    chosen: dict[str, Any] = {
        "format": format,
        "split": split,
        "shards": shards,
        "labels": None if labels is None else [name.strip() for name in labels.split(",")],
        "strict": strict,
        "unannotated": unannotated,
        "keep_partial": keep_partial,
        "images": images,
        "exif": exif,
        "axis": axis,
        "window": options.parse_window(window),
        "bits": bits,
        "neighbours": neighbours,
        "salt": options.read_salt(salt_file),
        "pseudonyms": pseudonyms,
        "keep_ids": keep_ids,
        "overwrite": overwrite,
        "leak_check": not no_leak_check,
        "workers": workers,
        "runner": runner,
        "runner_options": options.parse_runner_options(runner_option or ()),
    }
    with show_counts("images") as progress:
        chosen["progress"] = progress
        if split_by_patient is None:
            reports: tuple[IngestReport, ...] = (calls.ingest(source, out, **chosen),)
        else:
            shares = _parse_shares(split_by_patient)
            reports = calls.ingest_by_patient(source, out, shares, seed=seed, **chosen)
    leaks = tuple(dict.fromkeys(leak for report in reports for leak in report.leaks or ()))
    publish({"splits": [report.to_dict() for report in reports], "leaks": leaks})
    _print_ingest(reports, out)
    sheets = [out / f"ingest_{report.split}.png" for report in reports]
    if shown := [str(sheet) for sheet in sheets if sheet.exists()]:
        say(f"images with their boxes: {', '.join(shown)}")
    if any(report.leaks is not None for report in reports):
        _print_leaks_of(leaks, out, strict=strict, shared_out=split_by_patient is not None)


@command("vae-aug which scans 3ffbf95b5c48e891")
def which(
    source: Annotated[Path, typer.Argument(help="As in `vae-aug ingest`."), require_source],
    hashes: Annotated[list[str], typer.Argument(help="Hashes from records, reports or messages.")],
    format: options.SourceFormat = "auto",
    split: options.Split = "train",
    images: options.Images = None,
    axis: options.SliceAxis = "axial",
    salt_file: options.SaltFile = None,
    pseudonyms: options.PseudonymsOption = "hashes",
) -> None:
    """Tell which file or patient of a source a pseudonym stands for.

    Names of medical files and folders are often those of patients, so `vae-aug ingest` writes and
    prints pseudonyms. To find what they stand for, this command needs the ingest's salt or table.
    """
    salt = options.read_salt(salt_file)
    with show_work("reading the source"):
        found = calls.find_hashed(
            source,
            hashes,
            format=format,
            split=split,
            images=images,
            axis=axis,
            salt=salt,
            pseudonyms=pseudonyms,
        )
    publish(found)
    for value, name in found.items():
        say(f"{value} {name}")
    if missing := [value for value in hashes if value not in found]:
        raise VAEAugError(
            f"{source}: nothing in it has the hash {', '.join(missing)}; give --split, --format, "
            "--salt-file and --pseudonyms as in the ingest."
        )


@command("vae-aug check records --strict")
def check(
    records: options.Records,
    near_bits: Annotated[
        int,
        typer.Option(
            min=0, max=256, help="Bits of 256 in which the hashes of near duplicates may differ."
        ),
    ] = 8,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail if anything is in two splits.")
    ] = False,
) -> None:
    """Check every record, and search for patients and images that are in two splits."""
    parts = read_info(records).parts
    total, checked = sum(part.examples for part in parts.values()), itertools.count(1)
    with show_counts("records") as progress:
        counts = {
            part: calls.check_records(
                records, part, progress=lambda _: progress(next(checked), total)
            )
            for part in parts
        }
    for part, count in counts.items():
        say(f"{part}: {plural(count, 'record')}, no fault")
    with show_counts("images") as progress:
        leaks = calls.find_leaks(records, near_bits=near_bits, progress=progress)
    publish({"records": counts, "leaks": leaks})
    _print_leaks(leaks)
    if strict and leaks:
        raise VAEAugError(_describe_leaks(records, leaks))


def _print_leaks_of(leaks: Sequence[Leak], out: Path, *, strict: bool, shared_out: bool) -> None:
    """Print what the splits of an ingest share with others."""
    _print_leaks(leaks)
    if leaks and strict:
        raise VAEAugError(_describe_leaks(out, leaks))
    if leaks:
        way_out = (
            "Correct the source"
            if shared_out
            else "Run the same command with --split all --split-by-patient 0.7,0.15,0.15 "
            "--overwrite at its end, which writes all splits anew, or correct the source"
        )
        say(
            f"WARNING: {_describe_leaks(out, leaks)} What is measured on these splits is not what "
            f"other patients would give. {way_out}; vae-aug check {out} lists the leaks again."
        )


def _parse_shares(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(
            f"--split-by-patient wants shares such as 0.7,0.15,0.15; got {text!r}."
        ) from error


def _print_leaks(leaks: Sequence[Leak]) -> None:
    for leak in leaks[:SHOWN_PROBLEMS]:
        say(f"  {leak.kind} in {leak.splits[0]} and {leak.splits[1]}: {leak.key}")
    say(f"in two splits: {calls.count_leaks(leaks)}")


def _describe_leaks(records: Path, leaks: Sequence[Leak]) -> str:
    return f"{records}: {plural(len(leaks), 'leak')} between splits ({calls.count_leaks(leaks)})."


def _print_ingest(reports: Sequence[IngestReport], out: Path) -> None:
    """Print what was written, split by split, and what is to be known of the source once."""
    for report in reports:
        _print_written(report, out)
    for report in reports:
        _print_problems(report, out)
    evidence = (f"format {report.format}: {report.reveal(report.evidence)}" for report in reports)
    notes = (note for report in reports for note in report.notes)
    extent = calls.join_extents(report.extent for report in reports)
    for line in dict.fromkeys([*evidence, *notes, extent.describe()]):
        if line:
            say(line)


def _print_written(report: IngestReport, out: Path) -> None:
    table = make_table(f"{report.format} -> {out}", ["split", "label"], ["boxes"])
    for label, count in report.class_counts.items():
        table.add_row(report.split, escape(label), str(count))
    if len(report.class_counts) != 1:
        table.add_section()
        table.add_row(report.split, "all", str(report.boxes))
    show(table)
    if report.resumed:
        had_been = "had been converted by a run that was cut short"
        say(plural(report.resumed, "image", had_been, had_been))
    if report.restarted:
        say("a run that was cut short had other images or settings; started anew")
    if report.replaced:
        say(f"replaced the former {report.split} of {plural(report.replaced, 'image')}")
    patients = f", {plural(report.patients, 'patient')}" if report.patients else ""
    say(f"{plural(report.images, 'image')} written{patients}")
    if report.unannotated or report.faulty:
        say(_describe_unannotated(report))
    if report.turned:
        turned = ("turned as its EXIF orientation says", "turned as their EXIF orientation says")
        say(plural(report.turned, "image", *turned))
    for side, sizes in report.box_sizes_px.items():
        least, lower, median, upper, largest = (f"{size:g}" for size in sizes)
        say(f"box {side}, px: median {median}, half in {lower}-{upper}, all in {least}-{largest}")
    if set(report.scanners) != {""}:
        scanners = (f"{name or 'no DICOM'} {count}" for name, count in report.scanners.items())
        say(f"images by scanner: {', '.join(scanners)}")
    if report.neighbours:
        states = ", ".join(f"{count} {state}" for state, count in report.neighbours.items())
        say(f"neighbours: {states}; the slice itself stands in for all but found")


def _print_problems(report: IngestReport, out: Path) -> None:
    say(
        f"{report.split}: {plural(len(report.skipped), 'file')} skipped, "
        f"{plural(report.dropped, 'box')} dropped, "
        f"{plural(report.clipped, 'box')} clipped to the image"
        + (f", {plural(report.duplicates, 'box')} twice" if report.duplicates else "")
    )
    if report.burned_in:
        says = "says of itself" if report.burned_in == 1 else "say of themselves"
        say(
            f"WARNING: {plural(report.burned_in, 'image')} {says} that text is burned into the "
            "pixels, (0028,0301) Burned In Annotation; it may name the patient"
        )
    # Images that are merely not annotated come last: they may be all of a folder.
    problems = sorted(report.problems, key=lambda problem: problem.effect == "unannotated")
    say_problems(
        [f"{each.effect} {report.reveal(each.file)}: {each.reason}" for each in problems],
        f", in {out / f'ingest_{report.split}.json'}",
    )


def _describe_unannotated(report: IngestReport) -> str:
    """Say how many images are not annotated, and what became of them."""
    became = (
        f"written to {report.split}{UNANNOTATED}-*, which vae-aug train reads and a detector must "
        "not"
        if report.unannotated_written
        else "left out"
    )
    has = ("whether it has boxes", "whether they have boxes")
    unannotated = plural(report.unannotated, "image of which the source does not say", *has)
    return f"{unannotated}, and {report.faulty} whose annotation is faulty: {became}"
