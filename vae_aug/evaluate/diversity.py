"""How much samples vary, where, and whether the lesions keep their contrast."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from vae_aug.atomic import write_atomic
from vae_aug.augment.guard import MIN_NOISE, MIN_RING_PX, RING
from vae_aug.augment.transform import VAEAugment
from vae_aug.augment.transformed import transform_guarded
from vae_aug.config import Mode, check_number
from vae_aug.errors import RecordError
from vae_aug.evaluate.metrics import find_body, make_box_mask, ssim_map
from vae_aug.evaluate.preview import describe_network, make_variants, write_preview
from vae_aug.evaluate.subset import Subset, take_places
from vae_aug.evaluate.sweep import Sweep
from vae_aug.figures.sheet import Panel, make_panels, write_sheet
from vae_aug.grey import compute_grey, find_range
from vae_aug.letterbox import letterbox, letterbox_boxes
from vae_aug.model.fields import SQUARE, Fields
from vae_aug.model.network import Network
from vae_aug.records.records import read_info, read_records
from vae_aug.train.feed import fit
from vae_aug.words import plural

CONTRAST_TOLERANCE = 0.1
"""Largest relative change of a box's contrast-to-noise ratio that counts as kept."""

_SHEET_IMAGES, _SHEET_SAMPLES = 4, 5
_MIN_CONTRAST = 0.5
"""Contrast-to-noise ratio below which a box does not stand out from its surroundings."""


@dataclasses.dataclass(frozen=True)
class Diversity:
    """What samples at one `factor` are like; means over images.

    Attributes:
        factor: Strength.
        spread_outside: Standard deviation over the samples of a pixel's grey, as a share of the
            grey range; mean over the body outside of boxes.
        spread_inside: The same inside of boxes; None without boxes.
        change: Mean absolute difference of a sample from the input, over the body.
        dissimilarity: 1 - SSIM, mean over pairs of samples and the body.
        contrast_kept: Share of boxes and samples whose contrast-to-noise ratio is within
            `CONTRAST_TOLERANCE` of the input's; None without boxes.
        visible_contrast_kept: The same of the boxes whose ratio is at least 0.5 in the input.
        guarded: Share of boxes and samples for which the guard acted; None without boxes.
    """

    factor: float
    spread_outside: float
    spread_inside: float | None
    change: float
    dissimilarity: float
    contrast_kept: float | None
    visible_contrast_kept: float | None
    guarded: float | None


def measure_diversity(
    subset: Subset,
    network: Network,
    sweep: Sweep | None = None,
    *,
    mode: Mode = "sample",
    samples: int = 16,
    out: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Diversity, ...]:
    """Make samples of every image with `detail=1` and measure them.

    Args:
        subset: The images.
        network: The network.
        sweep: Strengths and settings of the transform; None for those of `Sweep()`.
        mode: `"sample"` or `"interpolate"`, as `VAEAugment`.
        samples: Samples of each image, at least 2.
        out: Folder for `diversity.json`, for each factor `samples_<factor>.png`, and
            `interpolation.png`. None writes nothing.
        progress: Called with (images done, images in all).

    Returns:
        One for each factor.

    Raises:
        ValueError: If an argument is out of its range.
        RecordError: If the records cannot be read or the split is empty.
    """
    check_number("samples", samples, 2, whole=True)
    sweep = sweep or Sweep()
    label_names = read_info(subset.folder).label_names
    augments = {augment.config.factor: augment for augment in sweep.make_transforms(network, mode)}
    dataset = read_records(subset.folder, subset.split)
    elements = list(take_places(dataset, subset.choose(dataset)))
    if not elements:
        raise RecordError(f"{subset.folder}: the split {subset.split!r} is empty.")
    measured: dict[float, list[dict[str, list[float]]]] = {factor: [] for factor in augments}
    for number, element in enumerate(elements, start=1):
        for factor, augment in augments.items():
            measured[factor].append(_measure_image(augment, element, samples))
        if progress is not None:
            progress(number, len(elements))
    table = tuple(_summarize(factor, values) for factor, values in measured.items())
    if out is not None:
        settings = {
            "source": subset.folder,
            "split": subset.split,
            "images": len(elements),
            "mode": mode,
            "samples": samples,
            **sweep.describe(),
            "digest": network.digest,
        }
        _write(Path(out), table, settings, augments, elements, label_names)
        _write_pairs(Path(out) / "interpolation.png", network, elements, label_names)
    return table


def measure_contrast(grey: np.ndarray, box: np.ndarray, others: np.ndarray) -> float:
    """Compute the contrast-to-noise ratio of a box against its surroundings.

    `(mean inside - mean around) / standard deviation around`, where the surroundings are a ring
    of half the box's sides, at least 4 pixels, without the pixels of other boxes.

    Args:
        grey: `[H, W]`.
        box: `[4]`, `rel_yxyx`.
        others: `[H, W] bool`, pixels of any box.

    Returns:
        The ratio; NaN where there is nothing inside or around, or no noise around.

    Reference:
        Welvaert and Rosseel, On the Definition of Signal-To-Noise Ratio and Contrast-To-Noise
        Ratio for fMRI Data, PLoS ONE 8 (2013) e77089.
    """
    inside = make_box_mask(box[None], *grey.shape)
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return float("nan")
    reach = [max(round(RING * len(line)), MIN_RING_PX) for line in (rows, columns)]
    around = tuple(
        slice(max(line[0] - far, 0), line[-1] + far + 1)
        for line, far in zip((rows, columns), reach, strict=True)
    )
    ring = np.zeros_like(inside)
    ring[around] = ~others[around]
    noise = grey[ring].std() if ring.any() else 0.0
    return (
        float((grey[inside].mean() - grey[ring].mean()) / noise)
        if noise > MIN_NOISE
        else float("nan")
    )


def write_interpolation(
    path: str | os.PathLike[str],
    network: Network,
    pairs: Sequence[tuple[Panel, np.ndarray]],
    *,
    steps: int = 5,
    label_names: Sequence[str] = (),
) -> None:
    """Write a sheet on which images move towards others; one row a pair.

    Columns: the image; what `VAEAugment(mode="interpolate", guard="off")` makes of it where it
    moves by equal shares up to 1; the other.

    Args:
        path: The PNG file.
        network: The network.
        pairs: Images and others, each `[H, W, 1] float32 in [0, 1]`, those of a pair of one size;
            of the network's image size for the profile `vector`.
        steps: Images on the way, its end included; at least 1.
        label_names: Names of the labels.
    """
    check_number("steps", steps, 1, whole=True)
    shares = np.linspace(0.0, 1.0, steps + 1, dtype=np.float32)[1:]
    rows = []
    for start, other in pairs:
        states = {f"moved by {share:.2f}": _move(network, start, other, share) for share in shares}
        images = {"image": start.image, **states}
        # What it moves towards is another image: a difference or the boxes would mean nothing.
        rows.append(
            [
                *make_panels(images, start.boxes, start.names),
                Panel(other, "towards", compared=False),
            ]
        )
    caption = (
        f"Checkpoint {describe_network(network)}: images moved towards others, as by mode "
        "interpolate without a guard, whose factor is the most that an image moves by."
    )
    write_sheet(path, rows, caption, label_names=label_names)


def _move(network: Network, start: Panel, other: np.ndarray, share: float) -> np.ndarray:
    """Move an image, as mode `interpolate` does, a share of the way to another."""
    # In a batch each image moves towards the one before it.
    images = tf.constant(np.stack([other, start.image]))
    specs = network.list_noise(network.config, "interpolate", *start.image.shape[:2])
    noise = {name: tf.fill([2, *spec.shape], np.float32(share)) for name, spec in specs.items()}
    if network.config.makes_fields("interpolate"):
        packed = network.variation.vary(
            letterbox(images, SQUARE), noise, mode="interpolate", factor=1.0
        )
        boxes = tf.reshape(tf.constant(start.boxes, tf.float32), [-1, 4])
        black, white = tf.constant(0.0), tf.constant(1.0)
        fields = Fields.unpack(packed[1])
        moved, *_ = transform_guarded(
            images[1], fields, boxes, black, white, guard="off", min_fidelity=0.0
        )
        return moved.numpy()
    reconstruction, moved = network.vary(images, noise, mode="interpolate", factor=1.0)
    return (images + moved - reconstruction)[1].numpy()


def _measure_image(
    augment: VAEAugment, element: Mapping[str, Any], samples: int
) -> dict[str, list[float]]:
    """Measure the samples of one image; every value is a list, empty where there is nothing."""
    variants, report = make_variants(augment, element, samples)
    limits = augment.config.value_range
    original = _to_grey(element["image"][None], limits)[0]
    variants = _to_grey(tf.constant(variants), limits)
    boxes = element["objects"]["bbox"].numpy()
    inside = make_box_mask(boxes, *original.shape)
    body = find_body(original)
    spread = variants.std(axis=0, ddof=1)
    pairs = zip(variants[0::2], variants[1::2], strict=False)
    before = [measure_contrast(original, box, inside) for box in boxes]
    kept = [
        (
            ratio,
            abs(measure_contrast(variant, box, inside) - ratio) <= CONTRAST_TOLERANCE * abs(ratio),
        )
        for box, ratio in zip(boxes, before, strict=True)
        if np.isfinite(ratio)
        for variant in variants
    ]
    return {
        "spread_outside": [float(spread[body & ~inside].mean())],
        "spread_inside": [float(spread[inside].mean())] if inside.any() else [],
        "change": [float(np.abs(variants - original)[:, body].mean())],
        "dissimilarity": [float(np.mean([1 - ssim_map(a, b)[body].mean() for a, b in pairs]))],
        "contrast_kept": [float(same) for _, same in kept],
        "visible_contrast_kept": [float(same) for r, same in kept if abs(r) >= _MIN_CONTRAST],
        "guarded": [float(value) for value in report["guarded"].ravel()],
    }


def _to_grey(images: tf.Tensor, value_range: tuple[float, float] | None) -> np.ndarray:
    """Turn `[B, H, W, C]` into `[B, H, W] float32`, in [0, 1] where values are within the range."""
    return compute_grey(images, *find_range(images, value_range)).numpy()[..., 0]


def _summarize(factor: float, images: list[dict[str, list[float]]]) -> Diversity:
    gathered = {name: [v for image in images for v in image[name]] for name in images[0]}
    means = {name: float(np.mean(v)) if v else None for name, v in gathered.items()}
    return Diversity(factor=factor, **means)  # type: ignore[arg-type]


def _write(
    folder: Path,
    table: Sequence[Diversity],
    settings: dict[str, Any],
    augments: Mapping[float, VAEAugment],
    elements: Sequence[dict[str, Any]],
    label_names: Sequence[str],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    report = {"settings": settings, "factors": [dataclasses.asdict(row) for row in table]}
    write_atomic(folder / "diversity.json", (json.dumps(report, indent=1) + "\n").encode())
    shown = _choose_shown(elements)
    for row, augment in zip(table, augments.values(), strict=True):
        write_preview(
            folder / f"samples_{row.factor:g}.png",
            shown,
            augment,
            label_names=label_names,
            count=_SHEET_SAMPLES,
            caption=_describe(row, settings),
        )


def _describe(row: Diversity, settings: Mapping[str, Any]) -> str:
    """Say in a caption what was measured at one strength."""
    figures = {
        "spread outside boxes": row.spread_outside,
        "spread inside": row.spread_inside,
        "change": row.change,
    }
    listed = ", ".join(f"{name} {100 * v:.2f}%" for name, v in figures.items() if v is not None)
    kept = (
        ""
        if row.contrast_kept is None
        else f"; {row.contrast_kept:.0%} of boxes keep their contrast"
    )
    return (
        f"Of {settings['samples']} samples of each of {plural(settings['images'], 'image')}, in "
        f"terms of the grey range: {listed}{kept}."
    )


def _write_pairs(
    path: Path, network: Network, elements: Sequence[dict[str, Any]], label_names: Sequence[str]
) -> None:
    """Write a sheet of the shown images, each on its way to the next, in the network's square."""
    size = network.config.image_size
    starts = []
    for element in _choose_shown(elements):
        height, width = element["image"].shape[:2]
        boxes = letterbox_boxes(element["objects"]["bbox"], height, width, size).numpy()
        names = [label_names[label] for label in element["objects"]["label"].numpy()]
        starts.append(Panel(fit(element, size, 1.0)[0].numpy(), boxes=boxes, names=names))
    others = [start.image for start in starts[1:] + starts[:1]]
    pairs = list(zip(starts, others, strict=True))
    write_interpolation(path, network, pairs, label_names=label_names)


def _choose_shown(elements: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choose a few images, with boxes if any has one, far from each other in their order."""
    with_boxes = [e for e in elements if len(e["objects"]["bbox"])] or list(elements)
    return with_boxes[:: -(-len(with_boxes) // _SHEET_IMAGES)]
