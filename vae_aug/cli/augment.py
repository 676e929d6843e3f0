"""`augment`, `preview`, `replay` and `denoise`: what a network makes of records and of files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from vae_aug.atomic import write_atomic
from vae_aug.cli import options
from vae_aug.cli.console import (
    make_table,
    name_damage,
    publish,
    say,
    say_problems,
    show,
    show_counts,
    show_work,
)
from vae_aug.cli.entry import command, warn_of_former
from vae_aug.cli.loading import calls, page
from vae_aug.cli.paths import require_file, require_records, require_source, require_split
from vae_aug.config import DicomAs
from vae_aug.errors import VAEAugError
from vae_aug.records.shards import find_records
from vae_aug.words import plural


@command("vae-aug augment records augmented --ckpt run --factor 0.5")
def augment(
    records: options.Records,
    out: Annotated[Path, typer.Argument(help="Folder to write; must be missing or empty.")],
    ckpt: options.Checkpoint = "demo",
    mode: options.TransformMode = "sample",
    factor: options.Strength = 1.0,
    detail: options.Detail = None,
    p: options.Probability = 1.0,
    guard: options.BoxGuard = "paste",
    min_fidelity: options.MinFidelity = 0.8,
    value_range: options.ValueRange = None,
    seed: options.Seed = 0,
    hardest_of: options.HardestOf = 1,
    adaptive: options.Adaptive = False,
    weakest: options.Weakest = 1.0,
    engine: options.NetworkEngine = "tensorflow",
    split: Annotated[
        list[str],
        typer.Option(
            help="Split to augment; may be repeated. Others are copied.",
            autocompletion=options.complete_split,
        ),
    ] = ["train"],  # noqa: B006 - typer reads the default and never changes it
    augment_evaluation: Annotated[
        bool,
        typer.Option(
            "--augment-evaluation",
            help="Allow --split to name another split than train. A model measured on "
            "augmented images is not measured on real ones.",
        ),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Fail if the network was trained on patients of an evaluation split.",
        ),
    ] = False,
    allow_damaged: options.AllowDamaged = False,
    shards: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=99999,
            help="Files of an augmented split. Default: as many as the source has.",
        ),
    ] = None,
    workers: options.Workers = 1,
    runner: options.BeamRunner = None,
    runner_option: options.RunnerOptions = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images that the network sees at a time.")
    ] = 32,
) -> None:
    """Write records anew with the training images augmented and every box unchanged.

    Validation and test splits are copied byte for byte. Each augmented record says what was done
    to it, and how well each box's content was preserved (keys augment/*). croissant.json and
    card.md tell what was made and measured.
    """
    for name in split:
        require_split(records, name)
    transform = calls.VAEAugment(
        ckpt,
        mode=mode,
        factor=factor,
        detail=detail,
        p=p,
        guard=guard,
        min_fidelity=min_fidelity,
        value_range=options.parse_value_range(value_range),
        seed=seed,
        engine=engine,
        hardest_of=hardest_of,
        adaptive=adaptive,
        weakest=weakest,
        batch_size=batch_size,
    )
    if strict:
        with show_work("comparing patients"):
            known = calls.count_patients(records, transform, damaged=split if allow_damaged else ())
            calls.refuse_seen(records, known)
    with show_counts("images") as progress:
        report = calls.augment_records(
            records,
            out,
            transform,
            splits=split,
            augment_evaluation=augment_evaluation,
            allow_damaged=allow_damaged,
            shards=shards,
            workers=workers,
            runner=runner,
            runner_options=options.parse_runner_options(runner_option or ()),
            progress=progress,
        )
    publish(report)
    headings = ("images", "augmented", "boxes", "guarded", "lowest fidelity\nafter the guard")
    table = make_table(f"{records} -> {out}", ["split"], headings)
    for name, part in report.augmented.items():
        lowest = "-" if math.isnan(part.lowest_fidelity) else f"{part.lowest_fidelity:.3f}"
        counts = (part.images, part.augmented, part.boxes, part.guarded)
        table.add_row(name, *map(str, counts), lowest)
    for name, images in report.copied.items():
        table.add_row(name, str(images), "copied", "", "", "")
    show(table)
    for name, part in report.augmented.items():
        if part.lost:
            damaged = ("was damaged and is lost", "were damaged and are lost")
            say(f"warning: {plural(part.lost, f'record of the split {name!r}', *damaged)}")
        if part.is_mostly_guarded:
            say(
                f"warning: the guard acted for {part.guarded} of {part.chosen_boxes} boxes of "
                f"augmented images of the split {name!r}, so most of them hardly vary: a smaller "
                "--factor harms fewer, and so may a checkpoint that was trained on such images"
            )
    for name, count in report.seen_patients.items():
        say(f"warning: {ckpt} was trained on {plural(count, 'patient')} of the split {name!r}")


@command("vae-aug preview records --ckpt run --out sheet.png")
def preview(
    records: options.Records,
    out: Annotated[
        Path,
        typer.Option(
            help="PNG file to write, or a page for a browser if its name ends in .html: one file "
            "that needs no network."
        ),
    ] = Path("sheet.png"),
    ckpt: options.Checkpoint = "demo",
    split: options.Split = "train",
    rows: Annotated[int, typer.Option(min=1, max=50, help="Images to show.")] = 4,
    samples: Annotated[
        int, typer.Option(min=1, max=20, help="Variants of each image; of denoise there is one.")
    ] = 3,
    mode: options.TransformMode = "sample",
    factor: options.Strength = 1.0,
    detail: options.Detail = None,
    p: options.Probability = 1.0,
    guard: options.BoxGuard = "paste",
    min_fidelity: options.MinFidelity = 0.8,
    value_range: options.ValueRange = None,
    hardest_of: options.HardestOf = 1,
    adaptive: options.Adaptive = False,
    weakest: options.Weakest = 1.0,
    engine: options.NetworkEngine = "tensorflow",
    seed: options.Seed = 0,
) -> None:
    """Draw a sheet: images and their variants, boxes enlarged, differences, and figures.

    Every setting of VAEAugment that changes its output can be tried; the caption names them. The
    figures: mean change in % of the grey range, SSIM, and how well each box's content is preserved.
    """
    require_split(records, split)
    limits = options.parse_value_range(value_range)
    with name_damage(records), show_work("choosing images"):
        chosen = calls.choose_rows(calls.read_records(records, split, unannotated=True), rows)
    transform = calls.VAEAugment(
        ckpt,
        mode=mode,
        factor=factor,
        detail=detail,
        p=p,
        guard=guard,
        min_fidelity=min_fidelity,
        value_range=limits,
        seed=seed,
        engine=engine,
        hardest_of=hardest_of,
        adaptive=adaptive,
        weakest=weakest,
    )
    info = find_records(records, split, unannotated=True)[1]
    label_names = () if info is None else info.label_names
    with show_work("drawing"):
        calls.write_preview(out, chosen, transform, label_names=label_names, count=samples)
    publish({"out": out, "images": len(chosen)})
    say(f"{out}: {out.stat().st_size / 1e6:.1f} MB" if page.is_page(out) else f"{out}")


@command(
    "vae-aug replay augmented/train-00000-of-00001.tfrecord --record 0 --source records --ckpt run"
)
def replay(
    file: Annotated[
        Path,
        typer.Argument(help="A .tfrecord file that `vae-aug augment` wrote."),
        require_file,
    ],
    source: Annotated[
        Path,
        typer.Option(help="Folder of the records that the augmented ones were made of."),
        require_records,
    ],
    index: Annotated[int | None, typer.Argument(min=0, hidden=True)] = None,
    record: Annotated[
        int, typer.Option(min=0, help="Number of the record in the file, from 0.")
    ] = 0,
    ckpt: options.Checkpoint = "demo",
    out: Annotated[Path | None, typer.Option(help="Image file to write what was made to.")] = None,
) -> None:
    """Make an augmented record's image again and compare its bytes (status 1 if they differ)."""
    if index is not None:
        warn_of_former(f"{file} {index}", f"{file} --record {index}")
        record = index
    with show_work("searching for its source, and making it again"):
        replayed = calls.replay_record(file, record, source, ckpt)
    if out is not None:
        write_atomic(out, replayed.encoded)
        say(f"{out}")
    publish({"identical": replayed.identical, "bytes": len(replayed.encoded), "out": out})
    if not replayed.identical:
        raise VAEAugError(
            f"record {record} of {file} is not what the source, the checkpoint and its settings "
            "make: another source, another kind of processor, or another version of TensorFlow."
        )
    say(f"record {record} of {file}: the same {len(replayed.encoded)} bytes")


@command("vae-aug denoise scans/images denoised --ckpt run")
def denoise(
    source: Annotated[
        Path,
        typer.Argument(
            help="PNG, JPEG, TIFF or DICOM file, or a folder of them, searched through."
        ),
        require_source,
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write; a file name for a single file.")],
    ckpt: options.Checkpoint = "demo",
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail at the first image that cannot be denoised.")
    ] = False,
    dicom_as: Annotated[
        DicomAs,
        typer.Option(help="What DICOM files become: derived DICOM, or PNG of the same depth."),
    ] = "dicom",
    window: options.Window = "auto",
    strength: Annotated[
        str,
        typer.Option(
            metavar="<auto|0..1>",
            help="Share of the change that is made: auto leaves out what is not noise, place by "
            "place, so that images without noise stay as they are; 1 is all that the network does.",
        ),
    ] = "auto",
) -> None:
    """Denoise image files; names, sizes and bit depth are kept.

    An interrupted run goes on where it stopped. Of the metadata of PNG and JPEG only the
    orientation is kept, of TIFF none; derived DICOM keeps its patient and geometry. Values outside
    of the --window of PNG and TIFF stay as they are. Reconstructions are not anonymous.
    """
    share = options.parse_strength(strength)
    with show_counts("images") as progress:
        report = calls.denoise_files(
            source,
            out,
            ckpt,
            window=options.parse_window(window),
            strength=share,
            strict=strict,
            dicom_as=dicom_as,
            progress=progress,
        )
    publish(report)
    was = "was" if report.kept == 1 else "were"
    say(
        f"{plural(report.written, 'image')} denoised, {report.kept} {was} there already, "
        f"{plural(report.ignored, 'other file')} ignored, {len(report.failed)} left out"
    )
    say_problems([f"left out {file}: {reason}" for file, reason in report.failed])
    if warning := report.extent.describe("denoise"):
        say(warning)
    if report.failed and not report.written + report.kept:
        raise VAEAugError(f"none of {plural(len(report.failed), 'image')} could be denoised.")
