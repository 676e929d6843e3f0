"""Whether boxes stay true over a data set: the guard's work, by mode and strength."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from vae_aug.augment.intensity import compute_grey, find_range
from vae_aug.augment.transform import VAEAugment
from vae_aug.config import Mode
from vae_aug.data.atomic import write_atomic
from vae_aug.data.records import get_split_name, read_info, read_records
from vae_aug.errors import RecordError
from vae_aug.evaluate.diversity import CONTRAST_TOLERANCE, measure_contrast
from vae_aug.evaluate.metrics import make_box_mask
from vae_aug.evaluate.spacing import space_out, take_places
from vae_aug.model.profiles import Network

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
    source_records: str | os.PathLike[str],
    network: Network,
    *,
    split: str = "train",
    modes: Sequence[Mode] = MODES,
    factors: Sequence[float] = (0.5, 1.0, 2.0),
    guard: str = "paste",
    min_fidelity: float = 0.8,
    limit: int | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[BoxFidelity, ...]:
    """Run a split through the transform and look at every box that comes out.

    Args:
        source_records: Folder of records.
        network: The network.
        split: The split.
        modes: Modes of `VAEAugment`, each with its own default of `detail`.
        factors: Strengths, at least 0.
        guard: As of `VAEAugment`.
        min_fidelity: As of `VAEAugment`.
        limit: Most images, evenly spaced over the split; None for all.
        seed: Of the transform.
        out: Folder for `fidelity.json`; None writes nothing.
        progress: Called with (images done, images in all).

    Returns:
        One for each mode and factor.

    Raises:
        ValueError: If an argument is out of its range.
        RecordError: If the records cannot be read, or the split has no box that can be judged.
    """
    info = read_info(source_records)
    dataset = read_records(source_records, split)
    places = space_out(info.splits[get_split_name(split)].examples, limit)
    dataset, images = take_places(dataset, places), len(places)
    settings = [(mode, factor) for mode in modes for factor in factors]
    rows = []
    for number, (mode, factor) in enumerate(settings):
        augment = VAEAugment(
            network,
            mode=mode,
            factor=factor,
            guard=guard,  # type: ignore[arg-type]
            min_fidelity=min_fidelity,
            seed=seed,
        )

        def report(done: int, before: int = number * images) -> None:
            if progress is not None:
                progress(before + done, len(settings) * images)

        rows.append(_measure(augment, dataset, report))
    if not any(row.boxes for row in rows):
        raise RecordError(f"{source_records}: the split {split!r} has no box that can be judged.")
    if out is not None:
        _write(
            Path(out),
            rows,
            source=os.fspath(source_records),
            split=split,
            images=images,
            guard=guard,
            min_fidelity=min_fidelity,
            seed=seed,
            digest=getattr(network, "digest", ""),
        )
    return tuple(rows)


def _measure(
    augment: VAEAugment, dataset: tf.data.Dataset, report: Callable[[int], None]
) -> BoxFidelity:
    """Pass over a data set once."""
    fidelities, guarded, kept, seconds = [], 0, [], 0.0
    pairs = dataset.map(
        lambda element: (element["image"], augment.call_with_report(element)),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    began = time.perf_counter()
    for done, (image, (element, told)) in enumerate(pairs, start=1):
        seconds += time.perf_counter() - began
        fidelity = told["fidelity"].numpy()
        fidelities.append(fidelity[np.isfinite(fidelity)])
        guarded += int(np.sum(told["guarded"]))
        kept += _compare_contrast(image, element["image"], element["objects"]["bbox"].numpy())
        report(done)
        began = time.perf_counter()
    judged = np.concatenate([*fidelities, np.zeros(0)])
    return BoxFidelity(
        mode=augment.config.mode,
        factor=augment.config.factor,
        boxes=len(judged),
        guarded=guarded,
        lowest=float(judged.min()) if len(judged) else float("nan"),
        below=int(np.sum(judged < augment.config.min_fidelity)),
        contrast_kept=float(np.mean(kept)) if kept else None,
        seconds=seconds,
    )


def _compare_contrast(before: tf.Tensor, after: tf.Tensor, boxes: np.ndarray) -> list[bool]:
    """Tell of each box that has a contrast-to-noise ratio whether it kept it."""
    greys = [
        compute_grey(x[None], *find_range(x[None])).numpy()[0, ..., 0] for x in (before, after)
    ]
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
