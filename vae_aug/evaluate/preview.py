"""Sheets and pages that show what the transform does to images before a detector sees them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vae_aug.augment.transform import VAEAugment
from vae_aug.evaluate.metrics import find_body, ssim
from vae_aug.figures.page import is_page, write_page
from vae_aug.figures.sheet import Panel, make_panels, write_sheet
from vae_aug.grey import compute_grey, find_range
from vae_aug.model.checkpoint import StoredNetwork
from vae_aug.model.network import Network
from vae_aug.version import __version__

_LOOKED_AT = 1000
_LISTED_BOXES = 3
_DIGEST_LETTERS = 12
_BOX_MEASURES = ("fidelity", "contrast", "guarded")


def make_variants(
    augment: VAEAugment, element: Mapping[str, Any], count: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Make several variants of one image, in one batch.

    Args:
        augment: A transform with a seed.
        element: As `vae_aug.records.records.read_records` yields it.
        count: How many.

    Returns:
        `[count, H, W, C]`, the image's dtype, and the report of `VAEAugment.call_with_report`.
    """
    batch = tf.nest.map_structure(lambda part: tf.stack([part] * count), dict(element))
    # Only the epoch tells the copies apart, and the seed makes each epoch vary anew.
    varied, report = augment.call_with_report({**batch, "epoch": tf.range(count)})
    return varied["image"].numpy(), {name: value.numpy() for name, value in report.items()}


def show_variants(
    augment: VAEAugment,
    element: Mapping[str, Any],
    count: int,
    label_names: Sequence[str],
    heading: str | None = None,
) -> list[Panel]:
    """Show an image and its variants, with the figures of each.

    Args:
        augment: A transform with a seed. With `mode="denoise"` there is one variant.
        element: As `vae_aug.records.records.read_records` yields it.
        count: Variants.
        label_names: Names of the labels; those beyond are numbered.
        heading: Of the variants; None for that of the mode.

    Returns:
        The panels of one row, the image first.
    """
    mode = augment.config.mode
    count = 1 if mode == "denoise" else count
    heading = heading or {"denoise": "denoised", "sample": "sample", "interpolate": "moved"}[mode]
    variants, report = make_variants(augment, element, count)
    images = {"input": element["image"].numpy()}
    notes, measures = {}, {}
    for number, image in enumerate(variants):
        name = heading if count == 1 else f"{heading} {number + 1}"
        images[name] = image
        told = {key: value[number] for key, value in report.items()}
        notes[name] = _describe_variant(augment, images["input"], image, told)
        measures[name] = {key: told[key] for key in _BOX_MEASURES}
    labels = element["objects"]["label"].numpy()
    # Records of other tools come without names.
    names = [label_names[k] if k < len(label_names) else f"label {k + 1}" for k in labels]
    panels = make_panels(images, element["objects"]["bbox"].numpy(), names, notes)
    return [
        dataclasses.replace(panel, measures=measures.get(panel.heading, {})) for panel in panels
    ]


def describe_network(network: Network | StoredNetwork) -> str:
    """Name the checkpoint of a network for a caption: without its folder, with its digest."""
    name, digest = (getattr(network, key, "") for key in ("checkpoint_name", "digest"))
    return f"{name or 'a network'} ({digest[:_DIGEST_LETTERS] or 'without a checkpoint'})"


def describe_transform(augment: VAEAugment) -> str:
    """Name the checkpoint and every setting that changes what the transform puts out."""
    text = ", ".join(f"{name} {value}" for name, value in list_settings(augment).items())
    return f"{text[0].upper()}{text[1:]}."


def list_settings(augment: VAEAugment) -> dict[str, str]:
    """List the checkpoint and every setting that changes what the transform puts out."""
    config = augment.config
    guard = "off" if config.guard == "off" else f"{config.guard} below {config.min_fidelity:g}"
    values = (
        "of the dtype" if config.value_range is None else "{:g} to {:g}".format(*config.value_range)
    )
    return {
        "checkpoint": describe_network(augment.checkpoint),
        "mode": config.mode,
        "factor": f"{config.factor:g}",
        "detail": f"{config.detail:g}",
        "p": f"{config.p:g}",
        "guard": guard,
        "value range": values,
        "seed": str(config.seed),
        "engine": config.engine,
        **{name.replace("_", " "): str(value) for name, value in config.list_optional().items()},
    }


def describe_fidelity(augment: VAEAugment) -> str:
    """Say what the fidelity of a box is: another measure where tones are meant to change."""
    if augment.checkpoint.config.makes_fields(augment.config.mode):
        return (
            "share of a box's contrast-to-noise ratio that is left, or the square root of that of "
            "its contrast, if it is less"
        )
    return "SSIM of a box with its margin to the input"


def describe_figures(augment: VAEAugment) -> str:
    """Say what stands below a variant."""
    return (
        "Below a variant: its mean absolute change and its SSIM to the input, both over the body, "
        f"and the fidelity of boxes ({describe_fidelity(augment)})."
    )


def describe_columns(augment: VAEAugment) -> str:
    """Say what the figures of a page are."""
    return (
        "Change is the mean absolute change. It and the SSIM to the input are those of the body. "
        f"Fidelity of a box: {describe_fidelity(augment)}. Contrast left: the box's "
        "contrast-to-noise ratio to its surroundings, divided by that in the input."
    )


def write_preview(
    path: str | os.PathLike[str],
    elements: Sequence[Mapping[str, Any]],
    augment: VAEAugment,
    *,
    label_names: Sequence[str],
    count: int = 3,
    caption: str = "",
) -> None:
    """Write images and their variants, as a PNG sheet with one row an image or as a page.

    Args:
        path: The file. One that ends in .html or .htm becomes a page, see
            `vae_aug.figures.page.write_page`.
        elements: The rows, as `vae_aug.records.records.read_records` yields them.
        augment: A transform with a seed.
        label_names: Names of the labels.
        count: Variants of each image; with `mode="denoise"` there is one.
        caption: What is to be said besides the settings.

    Raises:
        VAEAugError: If the images are too large for a page.
        OSError: If the file cannot be written.
    """
    rows = [show_variants(augment, element, count, label_names) for element in elements]
    shown: dict[str, Any] = {"label_names": label_names, "value_range": augment.config.value_range}
    if is_page(path):
        digest = {"digest": getattr(augment.checkpoint, "digest", ""), "vae_aug": __version__}
        settings = list_settings(augment) | digest
        text = " ".join(filter(None, (caption, describe_columns(augment))))
        write_page(path, rows, text, settings=settings, **shown)
    else:
        texts = (describe_transform(augment), caption, describe_figures(augment))
        write_sheet(path, rows, " ".join(filter(None, texts)), **shown)


def choose_rows(dataset: tf.data.Dataset, count: int) -> list[dict[str, Any]]:
    """Choose images to show, spread evenly; images without a box only if none has one.

    Args:
        dataset: Elements, as `vae_aug.records.records.read_records` yields them; of a long one the
            first thousand are looked at.
        count: Most images.

    Returns:
        The elements, in their order.
    """
    dataset = dataset.take(_LOOKED_AT)
    # Images are decoded twice, so that no more than the chosen ones are held.
    filled = [len(element["objects"]["label"]) > 0 for element in dataset]
    indices = np.flatnonzero(filled) if any(filled) else np.arange(len(filled))
    places = np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int)
    chosen = set(indices[places].tolist())
    return [element for index, element in enumerate(dataset) if index in chosen]


def _describe_variant(
    augment: VAEAugment, image: np.ndarray, variant: np.ndarray, told: Mapping[str, np.ndarray]
) -> str:
    """Return the figures of a variant."""
    if not told["augmented"]:
        return f"left as it is (p {augment.config.p:g})"
    planes = []
    for pixels in (image, variant):
        batch = tf.constant(pixels[None])
        grey = compute_grey(batch, *find_range(batch, augment.config.value_range))
        planes.append(np.clip(grey.numpy()[0, ..., 0], 0.0, 1.0))
    body = find_body(planes[0])
    change = 100 * float(np.abs(planes[1] - planes[0])[body].mean())
    lines = [f"change {change:.2g}%, SSIM {ssim(planes[0], planes[1], body):.3f}"]
    fidelity = told["fidelity"][np.isfinite(told["fidelity"])]
    if len(fidelity):
        lines.append(_describe_fidelity(fidelity, int(np.sum(told["guarded"]))))
    return "\n".join(lines)


def _describe_fidelity(fidelity: np.ndarray, guarded: int) -> str:
    if len(fidelity) <= _LISTED_BOXES:
        text = "fidelity " + ", ".join(f"{value:.2f}" for value in fidelity)
    else:
        text = f"fidelity of {len(fidelity)} boxes {fidelity.min():.2f} to {fidelity.max():.2f}"
    return text + (f", guarded {guarded}" if guarded else "")
