"""Whether boxes stay true over a data set: the guard's work, by mode and strength."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from vae_aug.atomic import write_atomic
from vae_aug.augment.transform import VAEAugment
from vae_aug.config import Mode
from vae_aug.errors import RecordError
from vae_aug.evaluate.diversity import CONTRAST_TOLERANCE, measure_contrast
from vae_aug.evaluate.metrics import make_box_mask
from vae_aug.evaluate.preview import describe_network
from vae_aug.evaluate.subset import Subset, take_places
from vae_aug.evaluate.sweep import Sweep
from vae_aug.figures.drawing import make_legible
from vae_aug.figures.plot import Chart, make_histogram, write_plots
from vae_aug.grey import compute_grey, find_range
from vae_aug.model.network import Network
from vae_aug.records.records import read_info, read_records
from vae_aug.words import plural

_BINS, _SHOWN_LABELS = 40, 12

MODES: tuple[Mode, ...] = ("sample", "interpolate", "denoise")


@dataclasses.dataclass(frozen=True)
class BoxFidelity:
    """What became of a split's boxes in one mode at one strength.

    Attributes:
        mode: As of `VAEAugment`.
        factor: Strength.
        boxes: Boxes whose content can be judged; the others have no area inside their image.
        guarded: Boxes that the guard acted for.
        lowest: Lowest fidelity of a box as returned.
        below: Boxes returned below `min_fidelity`.
        contrast_kept: Share of boxes whose contrast-to-noise ratio is within a tenth of the
            input's; None if none has one.
        seconds: Time of the pass, reading included, without this measurement.
    """

    mode: str
    factor: float
    boxes: int
    guarded: int
    lowest: float
    below: int
    contrast_kept: float | None
    seconds: float


def measure_box_fidelity(
    subset: Subset,
    network: Network,
    sweep: Sweep | None = None,
    *,
    modes: Sequence[Mode] = MODES,
    out: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[BoxFidelity, ...]:
    """Run images through the transform and look at every box that comes out.

    Args:
        subset: The images.
        network: The network.
        sweep: Strengths and settings of the transform; None for those of `Sweep()`.
        modes: Modes of `VAEAugment`, each with its own default of `detail`.
        out: Folder for `fidelity.json` and `fidelity.png`, histograms for each label and mode; None
            writes nothing.
        progress: Called with (images done, images in all).

    Returns:
        One for each mode and factor.

    Raises:
        ValueError: If an argument is out of its range.
        RecordError: If the records cannot be read, or the split has no box that can be judged.
    """
    sweep = sweep or Sweep()
    label_names = read_info(subset.folder).label_names
    dataset = read_records(subset.folder, subset.split)
    places = subset.choose(dataset)
    dataset, images = take_places(dataset, places), len(places)
    passes = len(modes) * len(sweep.factors)
    transforms = (augment for mode in modes for augment in sweep.make_transforms(network, mode))
    rows, fidelities = [], []
    for number, augment in enumerate(transforms):

        def report(done: int, before: int = number * images) -> None:
            if progress is not None:
                progress(before + done, passes * images)

        row, found = _measure(augment, dataset, report)
        rows.append(row)
        fidelities.append(found)
    if not any(row.boxes for row in rows):
        raise RecordError(
            f"{subset.folder}: the split {subset.split!r} has no box that can be judged."
        )
    if out is not None:
        _write(
            Path(out),
            rows,
            source=subset.folder,
            split=subset.split,
            images=images,
            **sweep.describe(),
            digest=network.digest,
        )
        varied = (
            " Of modes that change tones by a variation it is the share of the contrast-to-noise "
            "ratio that is left, or the square root of that of the contrast, if it is less."
            if network.config.variation
            else ""
        )
        caption = (
            f"Checkpoint {describe_network(network)}, guard {sweep.guard} below "
            f"{sweep.min_fidelity:g}, seed {sweep.seed}, {plural(images, 'image')} of the split "
            f"{subset.split}. Fidelity is the SSIM of a box with its margin to the input, in what "
            f"is put out; 1 keeps everything.{varied}"
        )
        charts = make_charts(rows, fidelities, label_names, sweep.min_fidelity)
        write_plots(Path(out) / "fidelity.png", charts, caption, columns=len(modes))
    return tuple(rows)


def _measure(
    augment: VAEAugment, dataset: tf.data.Dataset, report: Callable[[int], None]
) -> tuple[BoxFidelity, dict[int, list[float]]]:
    """Pass over a data set once; what is found has the fidelities by label beside it."""
    guarded, kept, seconds = 0, [], 0.0
    fidelities: dict[int, list[float]] = {}
    pairs = dataset.map(
        lambda element: (element["image"], augment.call_with_report(element)),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    began = time.perf_counter()
    for done, (image, (element, told)) in enumerate(pairs, start=1):
        seconds += time.perf_counter() - began
        fidelity = told["fidelity"].numpy()
        for label, value in zip(element["objects"]["label"].numpy(), fidelity, strict=True):
            if np.isfinite(value):
                fidelities.setdefault(int(label), []).append(float(value))
        guarded += int(np.sum(told["guarded"]))
        images = [
            compute_grey(x[None], *find_range(x[None], augment.config.value_range))
            for x in (image, element["image"])
        ]
        kept += _compare_contrast(images, element["objects"]["bbox"].numpy())
        report(done)
        began = time.perf_counter()
    judged = np.array([value for values in fidelities.values() for value in values])
    measured = BoxFidelity(
        mode=augment.config.mode,
        factor=augment.config.factor,
        boxes=len(judged),
        guarded=guarded,
        lowest=float(judged.min()) if len(judged) else float("nan"),
        below=int(np.sum(judged < augment.config.min_fidelity)),
        contrast_kept=float(np.mean(kept)) if kept else None,
        seconds=seconds,
    )
    return measured, fidelities


def make_charts(
    rows: Sequence[BoxFidelity],
    fidelities: Sequence[Mapping[int, Sequence[float]]],
    label_names: Sequence[str],
    min_fidelity: float,
) -> list[Chart]:
    """Make a histogram for each label, the most frequent first, and mode, with every factor."""
    counts = collections.Counter({k: len(v) for found in fidelities for k, v in found.items()})
    lowest = min(value for found in fidelities for values in found.values() for value in values)
    edges = np.linspace(min(lowest, min_fidelity), 1.0, _BINS + 1)
    charts = []
    for label, _ in counts.most_common(_SHOWN_LABELS):
        name = make_legible(label_names[label], f"label {label + 1}")
        for mode in dict.fromkeys(row.mode for row in rows):
            curves = [
                make_histogram(f"factor {row.factor:g}", np.array(found.get(label, ())), edges)
                for row, found in zip(rows, fidelities, strict=True)
                if row.mode == mode
            ]
            title = f"{name}, {mode}: boxes"
            marks = {"guard": min_fidelity}
            charts.append(Chart(title, "fidelity", curves, marks, whole=True))
    return charts


def _compare_contrast(images: Sequence[tf.Tensor], boxes: np.ndarray) -> list[bool]:
    """Tell of each box that has a contrast-to-noise ratio whether it kept it from first to last."""
    greys = [grey.numpy()[0, ..., 0] for grey in images]
    inside = make_box_mask(boxes, *greys[0].shape)
    ratios = [[measure_contrast(grey, box, inside) for box in boxes] for grey in greys]
    return [
        abs(new - old) <= CONTRAST_TOLERANCE * abs(old)
        for old, new in zip(*ratios, strict=True)
        if np.isfinite(old)
    ]


def _write(folder: Path, rows: Sequence[BoxFidelity], **settings: object) -> None:
    report = {"settings": settings, "rows": [dataclasses.asdict(row) for row in rows]}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "fidelity.json", (json.dumps(report, indent=1) + "\n").encode())
