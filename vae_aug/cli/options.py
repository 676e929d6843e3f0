"""Options and arguments that several commands share, and how their texts are read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from vae_aug.cli.choices import describe_choices
from vae_aug.cli.paths import (
    require_checkpoint,
    require_file,
    require_records,
)
from vae_aug.config import MAX_HARDEST, Engine, Guard, Mode, Pseudonyms
from vae_aug.errors import VAEAugError
from vae_aug.model.stored import list_packaged

Format = Literal[
    "auto",
    "coco",
    "voc",
    "yolo",
    "csv",
    "labelme",
    "cvat",
    "via",
    "supervisely",
    "lidc",
    "masks",
    "dicom",
    "nifti",
    "records",
    "tfds",
    "images",
]
"""Keys of `vae_aug.ingest.formats.READERS`, whose module loads TensorFlow; so do those of the axes
and corruptions."""
Axis = Literal["axial", "coronal", "sagittal"]
Corruption = Literal[
    "replace",
    "blend",
    "gaussian",
    "rician",
    "poisson_gaussian",
    "speckle",
    "missing_lines",
    "multi_coil",
    "low_dose",
]


def repeat(choices: Any, text: str) -> Any:
    """Make an option of these literals that may be repeated: typer takes no list of literals."""
    names = get_args(choices)

    def parse(value: str) -> str:
        if value not in names:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(map(repr, names))}.")
        return value

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    metavar, described = describe_choices(names, text)
    return typer.Option(parser=parse, metavar=metavar, help=described, autocompletion=complete)


def complete_checkpoint(incomplete: str) -> list[str]:
    """Return the packaged checkpoints that begin so; the shell adds no files to them."""
    return [name for name in list_packaged() if name.startswith(incomplete)]


def complete_command(context: typer.Context, incomplete: str) -> list[str]:
    """Return the commands of a group that begin so; if none does, the shell completes folders."""
    names: list[str] = context.command.list_commands(context)  # type: ignore[attr-defined]
    return [name for name in names if name.startswith(incomplete)]


def complete_split(incomplete: str) -> list[str]:
    """Return the usual splits that begin so."""
    return [name for name in ("train", "validation", "test") if name.startswith(incomplete)]


_CHECKPOINT = typer.Option(
    "--ckpt",
    help="Checkpoint: a .keras file, a checkpoint folder, the folder of a training, or a packaged "
    "name.",
    autocompletion=complete_checkpoint,
)
Checkpoint = Annotated[str, _CHECKPOINT, require_checkpoint]
Checkpoints = Annotated[
    list[str],
    typer.Option(
        "--ckpt",
        help="Checkpoint: file, folder or packaged name; repeat it to compare.",
        autocompletion=complete_checkpoint,
    ),
    require_checkpoint,
]
Target = Annotated[
    str | None,
    typer.Option(
        "--ckpt",
        help="Checkpoint of this recipe that is attacked besides, trained on some of the patients. "
        "Default: none.",
        autocompletion=complete_checkpoint,
    ),
    require_checkpoint,
]
StartFrom = Annotated[
    str | None,
    typer.Option(
        help="Checkpoint, or name of a packaged one, whose architecture and weights training "
        "starts from. [default: demo, unless a profile, encoder or weights are chosen]",
        autocompletion=complete_checkpoint,
    ),
    require_checkpoint,
]
_RECORDS = "Folder of records, as `vae-aug ingest` writes it."
Records = Annotated[Path, typer.Argument(help=_RECORDS), require_records]
RecordsOrCommand = Annotated[
    Path, typer.Argument(help=_RECORDS, autocompletion=complete_command), require_records
]
TrainingRecords = Annotated[
    list[Path],
    typer.Argument(help="Folders of records with a split train, mixed evenly."),
    require_records,
]
Validation = Annotated[
    list[Path] | None,
    typer.Option(
        help="Folder of records with a split validation; may be repeated. Default: those of "
        "RECORDS that have one; if none has, a tenth of the training images is held back."
    ),
    require_records,
]
Config = Annotated[
    Path | None,
    typer.Option(
        help='JSON file with the objects "model" and "train", as a run writes to '
        "OUT/config.json; their keys are the fields of vae_aug.ModelConfig and TrainConfig. "
        "Options replace its values."
    ),
    require_file,
]
SourceFormat = Annotated[
    Format,
    typer.Option(
        metavar="<format>",
        help="How the source is annotated: auto, coco, voc, yolo, csv, labelme, cvat, via, "
        "supervisely, lidc, masks, dicom, nifti, records, tfds, images. auto tells it from the "
        "files, and refuses where several formats fit or annotations are not understood; images "
        "takes PNG, JPEG and TIFF files alone.",
    ),
]
SliceAxis = Annotated[
    Axis,
    typer.Option(
        help="NIfTI only: plane of the slices. Up is anterior, or superior in coronal and sagittal "
        "ones; left is the patient's right, or anterior in sagittal ones."
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        help="A folder in which images may lie besides SOURCE. Images elsewhere are left out, "
        "links resolved."
    ),
]
AllowDamaged = Annotated[
    bool,
    typer.Option(
        "--allow-damaged",
        help="Read what is there of shards that are damaged or not as dataset.json says, each up "
        "to its first damaged record.",
    ),
]
SaltFile = Annotated[
    Path | None,
    typer.Option(
        help="File with the secret from which hashes of patients and names are made. Default: "
        "$VAE_AUG_SALT, else a key file in the user's configuration folder, made when needed."
    ),
    require_file,
]
PseudonymsOption = Annotated[
    Pseudonyms,
    typer.Option(
        "--pseudonyms",
        help="What stands for patients and names. hashes: of the identifier with a secret; random: "
        "drawn, and kept in $VAE_AUG_PSEUDONYMS, else in a table in the user's configuration "
        "folder, made when needed, which names every patient.",
    ),
]
Window = Annotated[
    str,
    typer.Option(
        help="Of DICOM, of PNG and TIFF of 16 bits, and in ingest of NIfTI. auto: what the "
        "file or table says, of a volume its percentiles 0.5 to 99.5, else values as stored; "
        "full: lowest to highest value; lung, brain, bone, soft-tissue, or CENTER,WIDTH in "
        "modality units (CT: Hounsfield units), of PNG and TIFF in their own values."
    ),
]
TransformMode = Annotated[
    Mode,
    typer.Option(
        help="denoise: decode the posterior mean; sample: sample around it; interpolate: move "
        "towards the training set's other images."
    ),
]
Detail = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Share of what the network cannot represent that is put back. "
        "[default: 0 for denoise, else 1]",
    ),
]
Probability = Annotated[
    float, typer.Option(min=0, max=1, help="Probability that an image is augmented.")
]
BoxGuard = Annotated[
    Guard,
    typer.Option(
        help="Where a box's content is not preserved: paste the original back there, keep "
        "the whole original image, or off."
    ),
]
MinFidelity = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="Fidelity of a box below which the guard acts: its SSIM, or where a variation "
        "changes tones, the share of its contrast-to-noise ratio that is left, or the square root "
        "of that of its contrast, if it is less.",
    ),
]
HardestOf = Annotated[
    int,
    typer.Option(
        min=1,
        max=MAX_HARDEST,
        help="Samples made of each image, of which the one is taken that the network finds most "
        "different; for a checkpoint with a variation.",
    ),
]
Weakest = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="Share of the factor from which each image's own strength is sampled, up to the "
        "factor; 1 for one strength. Not for denoise.",
    ),
]
Adaptive = Annotated[
    bool,
    typer.Option(
        "--adaptive",
        help="For denoise: leave out the share of the change that is not noise, place by place.",
    ),
]
NetworkEngine = Annotated[
    Engine,
    typer.Option(
        help="What runs the network: openvino (an extra) is faster on a CPU, still faster and "
        "less exact with bfloat16 where the processor has it; xla is for accelerators."
    ),
]
ValueRange = Annotated[
    str | None,
    typer.Option(
        metavar="<LOW,HIGH>",
        help="Values of black and white. Default: the range of 8 or 16 bits.",
    ),
]
Strength = Annotated[
    float, typer.Option(min=0, help="Strength, linear; 1 is the posterior's own spread.")
]
Strengths = Annotated[
    list[float], typer.Option(min=0.0, help="Strength of the variants; may be repeated.")
]
Split = Annotated[str, typer.Option(help="Split to read.", autocompletion=complete_split)]
Limit = Annotated[
    int | None,
    typer.Option(min=1, help="Most images, evenly spaced over the split. Default: all."),
]
Seed = Annotated[int, typer.Option(help="Seed; the same seed gives the same result.")]


Workers = Annotated[
    int, typer.Option(min=1, help="Processes; the records are the same for any number.")
]
BeamRunner = Annotated[
    str | None,
    typer.Option(
        "--runner",
        help="Runner of Apache Beam in the place of --workers, e.g. DirectRunner; its workers "
        "must share the folders that the command reads and writes. Needs the extra beam.",
    ),
]
RunnerOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--runner-option",
        help="KEY=VALUE of Beam's pipeline options; may be given several times.",
    ),
]


def parse_window(text: str) -> str | tuple[float, float]:
    """Return the window that an option stands for; `ingest` checks it."""
    parts = text.split(",")
    if len(parts) != 2:
        return text
    try:
        return float(parts[0]), float(parts[1])
    except ValueError:
        return text


def parse_strength(text: str) -> Literal["auto"] | float:
    """Return the share of a denoiser's change that an option stands for."""
    if text == "auto":
        return "auto"
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise ValueError(f"--strength wants auto or a number from 0 to 1; got {text!r}.")


def parse_value_range(text: str | None) -> tuple[float, float] | None:
    """Return the values of black and white that an option stands for; their user checks them."""
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"--value-range wants LOW,HIGH such as 0,4095; got {text!r}.") from error
    return low, high


def read_salt(path: Path | None) -> str | None:
    """Return the secret of a file; None without one."""
    return None if path is None else path.read_text(encoding="utf-8").strip()


def parse_runner_options(texts: Sequence[str]) -> dict[str, str]:
    """Return the options of a runner by their names."""
    pairs = [text.removeprefix("--").partition("=") for text in texts]
    for text, (name, equals, _) in zip(texts, pairs, strict=True):
        if not name or not equals:
            raise ValueError(f"--runner-option wants KEY=VALUE; got {text!r}.")
    return {name: value for name, _, value in pairs}


def read_settings(path: Path | None) -> dict[str, Any]:
    """Read the objects "model", "train" and "variation" of a JSON file, as a run writes it."""
    if path is None:
        return {"model": {}, "train": {}, "variation": {}, "only": None}
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise VAEAugError(f"{path}: not valid JSON ({error}).") from error
    # A run's own config.json also has its sources, which are arguments here.
    names = ("model", "train", "variation")
    fits = isinstance(content, dict) and set(content) <= {*names, "only", "sources"}
    parts = {name: content.get(name, {}) for name in names} if fits else {}
    if not fits or not all(isinstance(part, dict) for part in parts.values()):
        raise VAEAugError(
            f'{path}: expected an object with the objects "model", "train" and "variation".'
        )
    return {**parts, "only": content.get("only")}
