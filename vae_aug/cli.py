"""The command line: names, options and exit statuses. What commands do is in `commands.py`.

TensorFlow takes seconds to load, so nothing here imports it: `vae_aug.commands` is loaded when a
command runs, and `vae-aug --help` and wrong usage answer at once.

Exit status: 0 done; 1 failed, or problems under `--strict`; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import enum
import importlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from vae_aug.errors import VAEAugError
from vae_aug.version import __version__

_FAILED, _INTERRUPTED = 1, 130

app = typer.Typer(
    name="vae-aug",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    # A traceback with local variables could show a patient's data.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A variational autoencoder as augmentation and denoiser in a detector's input pipeline, "
    "for medical images. Start with: vae-aug demo",
    epilog="Exit status: 0 done; 1 failed, or problems under --strict; 2 wrong usage; "
    "130 interrupted.",
)


class Format(enum.StrEnum):
    """What `ingest` reads."""

    auto = "auto"
    coco = "coco"
    voc = "voc"
    yolo = "yolo"
    csv = "csv"
    labelme = "labelme"
    cvat = "cvat"
    via = "via"
    supervisely = "supervisely"
    lidc = "lidc"
    masks = "masks"
    dicom = "dicom"
    nifti = "nifti"
    records = "records"
    tfds = "tfds"
    images = "images"


class Unannotated(enum.StrEnum):
    """Values of `vae_aug.data.ingest.Unannotated`."""

    keep = "keep"
    skip = "skip"
    negative = "negative"
    error = "error"


class Exif(enum.StrEnum):
    """Values of `vae_aug.data.images.Exif`."""

    apply = "apply"
    ignore = "ignore"


class Axis(enum.StrEnum):
    """Values of `vae_aug.data.nifti.AXES`."""

    axial = "axial"
    coronal = "coronal"
    sagittal = "sagittal"


class Mode(enum.StrEnum):
    """Values of `vae_aug.config.Mode`."""

    denoise = "denoise"
    sample = "sample"
    interpolate = "interpolate"


class Guard(enum.StrEnum):
    """Values of `vae_aug.config.Guard`."""

    paste = "paste"
    keep = "keep"
    off = "off"


class Engine(enum.StrEnum):
    """Values of `vae_aug.config.Engine`."""

    tensorflow = "tensorflow"
    xla = "xla"
    openvino = "openvino"
    openvino_bfloat16 = "openvino-bfloat16"
    openvino_int8 = "openvino-int8"


class DicomAs(enum.StrEnum):
    """Values of `vae_aug.augment.files.DicomAs`."""

    dicom = "dicom"
    png = "png"


class Encoder(enum.StrEnum):
    """Values of `vae_aug.config.Encoder`."""

    b1 = "efficientnet-b1"
    lite1 = "efficientnet-lite1"


class Oracle(enum.StrEnum):
    """Values of `vae_aug.model.tune.Oracle`."""

    bayesian = "bayesian"
    random = "random"


class Loss(enum.StrEnum):
    """Values of `vae_aug.config.Likelihood`."""

    paper = "paper"
    sigma = "sigma"
    sigma_each = "sigma_each"


class Profile(enum.StrEnum):
    """Values of `vae_aug.config.Profile`."""

    vector = "vector"
    ladder = "ladder"


_Checkpoint = Annotated[
    str,
    typer.Option(
        "--ckpt",
        help="Checkpoint: a .keras file, a checkpoint folder, the folder of a training, or a "
        "packaged name.",
    ),
]
_Records = Annotated[Path, typer.Argument(help="Folder of records, as `vae-aug ingest` writes it.")]
_Format = Annotated[
    Format,
    typer.Option(
        metavar="<format>",
        help=f"How the source is annotated: {', '.join(Format)}. auto tells it from the files, and "
        "refuses where several formats fit or annotations are not understood; images takes PNG, "
        "JPEG and TIFF files alone.",
    ),
]
_Axis = Annotated[
    Axis,
    typer.Option(
        help="NIfTI only: plane of the slices. Up is anterior, or superior in coronal and sagittal "
        "ones; left is the patient's right, or anterior in sagittal ones."
    ),
]
_Images = Annotated[
    Path | None,
    typer.Option(
        help="A folder in which images may lie besides SOURCE. Images elsewhere are left out, "
        "links resolved."
    ),
]
_AllowDamaged = Annotated[
    bool,
    typer.Option(
        "--allow-damaged",
        help="Read what is there of shards that are damaged or not as dataset.json says, each up "
        "to its first damaged record.",
    ),
]
_SaltFile = Annotated[
    Path | None,
    typer.Option(
        help="File with the secret from which hashes of patients and names are made. Default: "
        "$VAE_AUG_SALT, else a key file in the user's configuration folder, made when needed."
    ),
]
_Window = Annotated[
    str,
    typer.Option(
        help="DICOM, and NIfTI and DeepLesion in ingest: auto (what the file or table says; of a "
        "volume its percentiles 0.5 to 99.5), full (lowest to highest value), lung, brain, bone, "
        "soft-tissue, or CENTER,WIDTH in modality units (CT: Hounsfield units)."
    ),
]
_Factor = Annotated[
    float, typer.Option(min=0, help="Strength, linear; 1 is the posterior's own spread.")
]
_Seed = Annotated[int, typer.Option(help="Seed; the same seed gives the same result.")]


def _print_version(asked: bool) -> None:
    if asked:
        print(f"vae-aug {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Take options that stand before a command."""


def _run(command: str, *arguments: Any, **options: Any) -> None:
    """Run a function of `vae_aug.commands` and turn what it raises into an exit status."""
    try:
        with _silence_loading():
            commands = importlib.import_module("vae_aug.commands")
        getattr(commands, command)(*arguments, **options)
    except KeyboardInterrupt as interrupt:
        _say(f"interrupted{': ' + str(interrupt) if str(interrupt) else ''}")
        raise typer.Exit(_INTERRUPTED) from None
    except Exception as error:
        if not _is_expected(error):
            raise
        _say(f"error: {_describe(error)}")
        raise typer.Exit(_FAILED) from None


def _is_expected(error: Exception) -> bool:
    """Tell what input, disk or arguments can cause from a fault of the program."""
    if isinstance(error, VAEAugError | ValueError | OSError):
        return True
    # What tf.data raises on damaged input; the class can be named only where it is loaded.
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(error, tensorflow.errors.OpError)


def _describe(error: Exception) -> str:
    """Return what an error says, in one line."""
    text = str(getattr(error, "message", None) or error) or type(error).__name__
    # TensorFlow wraps its messages in the names of nodes and operations.
    text = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", text, flags=re.DOTALL)
    return " ".join(text.split())


def _say(line: str) -> None:
    print(line, file=sys.stderr)


@contextlib.contextmanager
def _silence_loading() -> Iterator[None]:
    """Hide what TensorFlow's C++ reports as it loads, unless the user wants its log.

    A part of it is written before TensorFlow reads the variable, straight to the file descriptor.
    """
    wanted = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0"
    if wanted:
        yield
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the result; replaced if it is there.")] = (
        Path("demo_out")
    ),
    ckpt: _Checkpoint = "demo",
) -> None:
    """Show the whole path on embedded images, in under three minutes.

    Phantoms and public slices as COCO -> records -> VAEAugment -> TFDS dataset. Every box is
    compared bit for bit after each step; one that differs fails the demo (status 1). Leaves
    records, the dataset, sheet.png and summary.md.
    """
    _run("run_demo", out, ckpt)


@app.command()
def ingest(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of the data set, its annotation file, or a quoted pattern of TFRecords."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder of the records; made if missing.")],
    format: _Format = Format.auto,
    split: Annotated[
        str,
        typer.Option(
            help="Split to read and to write; val and valid are stored as validation. all reads "
            "every split of the source."
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
            "and a detector does not; skip; negative: you say that none has a box; error.",
        ),
    ] = None,
    keep_partial: Annotated[
        bool,
        typer.Option(
            "--keep-partial",
            help="Take an image of which only some boxes were understood as annotated.",
        ),
    ] = False,
    images: _Images = None,
    exif: Annotated[
        Exif,
        typer.Option(
            help="apply turns images as their EXIF orientation says, which is what annotation "
            "tools show; ignore takes pixels as stored."
        ),
    ] = Exif.apply,
    axis: _Axis = Axis.axial,
    window: _Window = "auto",
    bits: Annotated[
        int | None,
        typer.Option(
            help="DICOM, NIfTI and DeepLesion: depth of the images, 8 or 16. Default: 16 if the "
            "file stores more than 8 bits."
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
    salt_file: _SaltFile = None,
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
    seed: Annotated[int, typer.Option(help="Of --split-by-patient.")] = 0,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes; the records are the same for any number.")
    ] = 1,
    runner: Annotated[
        str | None,
        typer.Option(
            help="Runner of Apache Beam in the place of --workers, e.g. DirectRunner; its workers "
            "must share the folders SOURCE and OUT. Needs the extra beam."
        ),
    ] = None,
    runner_option: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE of Beam's pipeline options; may be given several times."),
    ] = None,
) -> None:
    """Write one split of an annotated data set as TFRecords (TF Object Detection schema).

    An image counts as one without boxes only if the source says so; what is not annotated goes to
    shards of its own, for vae-aug train alone. Unusable images and boxes are left out, counted and
    named, by hashes (see vae-aug which).
    Nothing appears before it is whole. Run the command again after Ctrl-C or a crash: it goes on
    where it stopped. A split that OUT holds already is refused. Patients and images that are in two
    splits of OUT are named; with --strict the command then fails (status 1).
    """
    _run(
        "run_ingest",
        source,
        out,
        format=format.value,
        split=split,
        shards=shards,
        labels=labels,
        strict=strict,
        unannotated=None if unannotated is None else unannotated.value,
        keep_partial=keep_partial,
        images=images,
        exif=exif.value,
        axis=axis.value,
        window=window,
        bits=bits,
        neighbours=neighbours,
        salt_file=salt_file,
        keep_ids=keep_ids,
        overwrite=overwrite,
        leak_check=not no_leak_check,
        split_by_patient=split_by_patient,
        seed=seed,
        workers=workers,
        runner=runner,
        runner_options=runner_option,
    )


@app.command()
def which(
    source: Annotated[Path, typer.Argument(help="As in `vae-aug ingest`.")],
    hashes: Annotated[list[str], typer.Argument(help="Hashes from records, reports or messages.")],
    format: _Format = Format.auto,
    split: Annotated[str, typer.Option(help="As in the ingest.")] = "train",
    images: _Images = None,
    axis: _Axis = Axis.axial,
    salt_file: _SaltFile = None,
) -> None:
    """Tell which file or patient of a source a hash stands for. Needs the salt of the ingest.

    Names of medical files and folders are often those of patients, so `vae-aug ingest` writes and
    prints hashes of them.
    """
    _run(
        "run_which",
        source,
        hashes,
        format=format.value,
        split=split,
        images=images,
        axis=axis.value,
        salt_file=salt_file,
    )


@app.command()
def check(
    records: _Records,
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
    _run("run_check", records, near_bits=near_bits, strict=strict)


@app.command()
def train(
    records: Annotated[
        list[Path], typer.Argument(help="Folders of records with a split train, mixed evenly.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="Folder of the run: checkpoint, log, TensorBoard, state to resume from."),
    ],
    config: Annotated[
        Path | None,
        typer.Option(
            help='JSON file with the objects "model" and "train", as a run writes to '
            "OUT/config.json; their keys are the fields of vae_aug.ModelConfig and TrainConfig. "
            "The options below replace its values."
        ),
    ] = None,
    validation: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of records with a split validation; may be repeated. Default: those of "
            "RECORDS that have one; if none has, a tenth of the training images is held back."
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps in all. [default: 2000]")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per step. [default: 16]")
    ] = None,
    profile: Annotated[
        Profile | None,
        typer.Option(
            help="vector: the published network; ladder: latent maps at every scale, which keep "
            "lesions. It also chooses the defaults of training. [default: vector]"
        ),
    ] = None,
    encoder: Annotated[
        Encoder | None, typer.Option(help="Backbone. [default: efficientnet-b1]")
    ] = None,
    encoder_weights: Annotated[
        str | None,
        typer.Option(
            help="imagenet (downloads), package (the extra [lite1]) or a file. "
            "[default: random weights]"
        ),
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint, or name of a packaged one, whose architecture and weights training "
            "starts from instead."
        ),
    ] = None,
    loss: Annotated[
        Loss | None,
        typer.Option(
            help="paper: original_dim * MSE + KLD; sigma: optimal decoder variance; sigma_each: "
            "one for each image, the ladder's default. [default: sigma]"
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of weights, order, noise and draws. [default: 0]")
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="Markdown file for the checkpoint's model card.")
    ] = None,
    allow_damaged: _AllowDamaged = False,
) -> None:
    """Train the network on records: noisy image in, clean image out.

    Ctrl-C stops; the same command goes on from the last validation. OUT/checkpoint.keras is the
    best network so far, by validation PSNR.
    """
    train_options = {
        "steps": steps,
        "batch_size": batch_size,
        "encoder_weights": encoder_weights,
        "start_from": start_from,
        "loss": loss and loss.value,
        "seed": seed,
    }
    _run(
        "run_train",
        records,
        out,
        config=config,
        validation=validation or [],
        card=card,
        allow_damaged=allow_damaged,
        model_options={
            "profile": profile and profile.value,
            "encoder": encoder and encoder.value,
        },
        train_options=train_options,
    )


@app.command()
def tune(
    records: Annotated[
        list[Path], typer.Argument(help="Folders of records with a split train, mixed evenly.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="Folder of the search: its table, the best settings, every training."),
    ],
    config: Annotated[
        Path | None,
        typer.Option(help="Settings that the search starts from, as for `vae-aug train`."),
    ] = None,
    search: Annotated[
        Path | None,
        typer.Option(
            help="JSON or YAML file: field names such as train.learning_rate or model.encoder to "
            "a list of choices, or to an object with low, high and sampling (linear or log). In "
            "YAML, write 3.0e-4, not 3e-4. Default: learning rate, weights of KL and SSIM, free "
            "bits."
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials in all.")] = 12,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps of every trial.")] = 300,
    oracle: Annotated[
        Oracle,
        typer.Option(
            help="What chooses the values: bayesian, a Gaussian process after a third of the "
            "trials was drawn at random; or random throughout."
        ),
    ] = Oracle.bayesian,
    validation: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of records with a split validation; may be repeated. Default: those of "
            "RECORDS that have one; if none has, a tenth of the training images is held back."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of the search; every trial trains with the seed of --config.")
    ] = 0,
) -> None:
    """Search for the settings with which a training restores images best (extra tune).

    Trials are short trainings, scored as training scores checkpoints: by the mean PSNR on clean
    and noisy input. Ctrl-C stops; the same command goes on, also with more --trials. OUT/best.json
    is for `vae-aug train --config`.
    """
    _run(
        "run_tune",
        records,
        out,
        config=config,
        search=search,
        trials=trials,
        steps=steps,
        oracle=oracle.value,
        validation=validation or [],
        seed=seed,
    )


@app.command()
def augment(
    records: _Records,
    out: Annotated[Path, typer.Argument(help="Folder to write; must be missing or empty.")],
    ckpt: _Checkpoint = "demo",
    mode: Annotated[
        Mode,
        typer.Option(
            help="denoise: decode the posterior mean; sample: draw around it; interpolate: move "
            "towards the training set's other images."
        ),
    ] = Mode.sample,
    factor: _Factor = 1.0,
    detail: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of what the network cannot represent that is put back. "
            "[default: 0 for denoise, else 1]",
        ),
    ] = None,
    p: Annotated[
        float, typer.Option(min=0, max=1, help="Probability that an image is augmented.")
    ] = 1.0,
    guard: Annotated[
        Guard,
        typer.Option(
            help="Where a box's content is not preserved: paste the original back there, keep "
            "the whole original image, or off."
        ),
    ] = Guard.paste,
    min_fidelity: Annotated[
        float,
        typer.Option(min=0, max=1, help="Similarity (SSIM) of a box below which the guard acts."),
    ] = 0.8,
    seed: _Seed = 0,
    engine: Annotated[
        Engine,
        typer.Option(
            help="What runs the network: openvino (an extra) is faster on a CPU, still faster and "
            "less exact with bfloat16 where the processor has it, or int8 (another extra); xla is "
            "for accelerators."
        ),
    ] = Engine.tensorflow,
    augment_split: Annotated[
        list[str], typer.Option(help="Split to augment; may be repeated. Others are copied.")
    ] = ["train"],  # noqa: B006 - typer reads the default and never changes it
    augment_evaluation: Annotated[
        bool,
        typer.Option(
            "--augment-evaluation",
            help="Allow --augment-split to name another split than train. A model measured on "
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
    allow_damaged: _AllowDamaged = False,
    shards: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=99999,
            help="Files of an augmented split. Default: as many as the source has.",
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images that the network sees at a time.")
    ] = 32,
) -> None:
    """Write records anew with the training images augmented and every box unchanged.

    Validation and test splits are copied byte for byte. Each augmented record says what was done
    to it, and how well each box's content was preserved (keys augment/*).
    """
    _run(
        "run_augment",
        records,
        out,
        ckpt,
        splits=augment_split,
        augment_evaluation=augment_evaluation,
        strict=strict,
        allow_damaged=allow_damaged,
        shards=shards,
        mode=mode.value,
        factor=factor,
        detail=detail,
        p=p,
        guard=guard.value,
        min_fidelity=min_fidelity,
        seed=seed,
        engine=engine.value,
        batch_size=batch_size,
    )


@app.command()
def preview(
    records: _Records,
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("sheet.png"),
    ckpt: _Checkpoint = "demo",
    split: Annotated[
        str | None, typer.Option(help="Split; not needed if there is only one.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, max=50, help="Images to show.")] = 4,
    samples: Annotated[
        int, typer.Option(min=1, max=20, help="Variants of each image; of denoise there is one.")
    ] = 3,
    mode: Annotated[Mode, typer.Option(help="As for augment.")] = Mode.sample,
    factor: _Factor = 1.0,
    detail: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="As for augment. [default: 0 for denoise, else 1]"),
    ] = None,
    p: Annotated[float, typer.Option(min=0, max=1, help="As for augment.")] = 1.0,
    guard: Annotated[Guard, typer.Option(help="As for augment.")] = Guard.paste,
    min_fidelity: Annotated[float, typer.Option(min=0, max=1, help="As for augment.")] = 0.8,
    value_range: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH",
            help="Values of black and white. Default: the range of 8 or 16 bits.",
        ),
    ] = None,
    engine: Annotated[Engine, typer.Option(help="As for augment.")] = Engine.tensorflow,
    seed: _Seed = 0,
) -> None:
    """Draw a sheet: images and their variants, boxes enlarged, differences, and figures.

    Every setting of VAEAugment that changes its output can be tried; the caption names them. The
    figures: mean change in % of the grey range, SSIM, and how well each box's content is preserved.
    """
    _run(
        "run_preview",
        records,
        out,
        ckpt,
        split=split,
        rows=rows,
        samples=samples,
        mode=mode.value,
        factor=factor,
        detail=detail,
        p=p,
        guard=guard.value,
        min_fidelity=min_fidelity,
        value_range=value_range,
        engine=engine.value,
        seed=seed,
    )


@app.command()
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
    _run("run_info", path, record)


@app.command()
def replay(
    record: Annotated[Path, typer.Argument(help="A .tfrecord file that `vae-aug augment` wrote.")],
    index: Annotated[int, typer.Argument(min=0, help="Number of the record in it, from 0.")],
    source: Annotated[
        Path, typer.Option(help="Folder of the records that the augmented ones were made of.")
    ],
    ckpt: _Checkpoint = "demo",
    out: Annotated[Path | None, typer.Option(help="Image file to write what was made to.")] = None,
) -> None:
    """Make an augmented record's image again and compare it byte for byte; 1 if it differs."""
    _run("run_replay", record, index, source, ckpt, out=out)


@app.command()
def denoise(
    source: Annotated[
        Path, typer.Argument(help="PNG, JPEG or DICOM file, or a folder of them, searched through.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write; a file name for a single file.")],
    ckpt: _Checkpoint = "demo",
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail at the first image that cannot be denoised.")
    ] = False,
    dicom_as: Annotated[
        DicomAs,
        typer.Option(help="What DICOM files become: derived DICOM, or PNG of the same depth."),
    ] = DicomAs.dicom,
    window: _Window = "auto",
) -> None:
    """Denoise image files; names, sizes and bit depth are kept.

    An interrupted run goes on where it stopped. Of the metadata of PNG and JPEG only the
    orientation is kept; derived DICOM keeps its patient and geometry. Reconstructions are not
    anonymous.
    """
    _run(
        "run_denoise",
        source,
        out,
        ckpt,
        strict=strict,
        dicom_as=dicom_as.value,
        window=window,
    )


@app.command()
def evaluate(
    records: _Records,
    ckpt: Annotated[
        list[str],
        typer.Option(
            "--ckpt", help="Checkpoint: file, folder or packaged name; repeat it to compare."
        ),
    ] = ["demo"],  # noqa: B006 - typer reads the default and never changes it
    split: Annotated[str, typer.Option(help="Split to measure on.")] = "validation",
    keep: Annotated[
        float, typer.Option(help="Share of the information that noise leaves, in (0, 1].")
    ] = 0.4,
    corruption: Annotated[
        list[str],
        typer.Option(
            help="Noise: replace, blend, gaussian, rician, poisson_gaussian, speckle or "
            "missing_lines; may be repeated."
        ),
    ] = ["replace", "blend"],  # noqa: B006
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Most images, evenly spaced over the split. Default: all."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=32,
            help="Side in pixels of the square that images are fitted into. Default: the largest "
            "that a checkpoint was trained at.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for denoising.json, denoising.md and a figure per noise."),
    ] = None,
    seed: _Seed = 0,
) -> None:
    """Measure denoising: SSIM, PSNR and R2, beside classical filters on the same images.

    On the whole image, the body and inside boxes, with 95% intervals over patients.
    """
    _run(
        "run_evaluate",
        records,
        ckpt,
        split=split,
        keep=keep,
        corruptions=corruption,
        limit=limit,
        size=size,
        out=out,
        seed=seed,
    )


@app.command()
def diversity(
    records: _Records,
    ckpt: _Checkpoint = "demo",
    split: Annotated[str, typer.Option(help="Split to measure on.")] = "validation",
    mode: Annotated[Mode, typer.Option(help="As for augment.")] = Mode.sample,
    factor: Annotated[
        list[float], typer.Option(min=0.0, help="Strength of the samples; may be repeated.")
    ] = [0.5, 1.0, 2.0],  # noqa: B006
    samples: Annotated[int, typer.Option(min=2, help="Samples of each image.")] = 16,
    limit: Annotated[
        int, typer.Option(min=1, help="Most images, evenly spaced over the split.")
    ] = 32,
    guard: Annotated[Guard, typer.Option(help="As for augment.")] = Guard.paste,
    out: Annotated[
        Path | None, typer.Option(help="Folder for diversity.json and a sheet for each factor.")
    ] = None,
    seed: _Seed = 0,
) -> None:
    """Measure how samples vary, inside and outside boxes, and whether boxes keep their contrast."""
    _run(
        "run_diversity",
        records,
        ckpt,
        split=split,
        mode=mode.value,
        factors=factor,
        samples=samples,
        limit=limit,
        guard=guard.value,
        out=out,
        seed=seed,
    )


@app.command()
def audit(
    ckpt: Annotated[str, typer.Argument(help="Checkpoint: file, folder or packaged name.")],
    train: Annotated[
        list[Path],
        typer.Option(help="Folder of records that it was trained on; repeat it for all of them."),
    ],
    held_out: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of records of which a split holds other patients; may be repeated. "
            "Default: those of --train."
        ),
    ] = None,
    held_out_split: Annotated[str, typer.Option(help="That split.")] = "validation",
    samples: Annotated[int, typer.Option(min=2, help="Samples drawn in each way.")] = 256,
    quantile: Annotated[
        float,
        typer.Option(
            help="Share of held-out images that lie nearer to a training image than the threshold."
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
    seed: _Seed = 0,
) -> None:
    """Look for training images in what a network puts out: nearest neighbours, and a verdict.

    Whatever it finds, reconstructions and samples of patients' images are not anonymous.
    """
    _run(
        "run_audit",
        ckpt,
        train,
        held_out=held_out or [],
        held_out_split=held_out_split,
        samples=samples,
        quantile=quantile,
        limit=limit,
        out=out,
        strict=strict,
        seed=seed,
    )


@app.command()
def bench(
    ckpt: _Checkpoint = "demo",
    mode: Annotated[Mode, typer.Option(help="As for augment.")] = Mode.sample,
    size: Annotated[
        int, typer.Option(min=32, max=4096, help="Height and width of the images, pixels.")
    ] = 224,
    images: Annotated[
        int,
        typer.Option(min=1, help="Images timed in a round, rounded up to a multiple of 64."),
    ] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in which all ways take turns.")] = 3,
    engine: Annotated[
        list[Engine] | None,
        typer.Option(
            help="Engine to measure; may be repeated. Default: all that can run here, xla only if "
            "there is a GPU."
        ),
    ] = None,
) -> None:
    """Measure which engine is the fastest on this machine, on drawn images with boxes.

    Results are printed as they come. Status 1 if an engine fails, or one that is named by --engine
    cannot run here; the others are measured all the same.
    """
    _run(
        "run_bench",
        ckpt,
        [one.value for one in engine] if engine else None,
        mode=mode.value,
        image_size=size,
        images=images,
        rounds=rounds,
    )


@app.command()
def fidelity(
    records: _Records,
    ckpt: _Checkpoint = "demo",
    split: Annotated[str, typer.Option(help="Split to pass through.")] = "train",
    mode: Annotated[
        list[Mode] | None, typer.Option(help="Mode; may be repeated. Default: all three.")
    ] = None,
    factor: Annotated[
        list[float], typer.Option(min=0.0, help="Strength of the variants; may be repeated.")
    ] = [0.5, 1.0, 2.0],  # noqa: B006
    guard: Annotated[Guard, typer.Option(help="As for augment.")] = Guard.paste,
    min_fidelity: Annotated[float, typer.Option(min=0, max=1, help="As for augment.")] = 0.8,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Most images, evenly spaced over the split. Default: all."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for fidelity.json and fidelity.png, histograms.")
    ] = None,
    seed: _Seed = 0,
) -> None:
    """Pass a split through the transform and count the boxes that are harmed (status 1 if any)."""
    _run(
        "run_fidelity",
        records,
        ckpt,
        split=split,
        modes=[each.value for each in mode or Mode],
        factors=factor,
        guard=guard.value,
        min_fidelity=min_fidelity,
        limit=limit,
        out=out,
        seed=seed,
    )
