"""What a training shows of itself: a sheet of validation images, and its curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from vae_aug.figures.plot import Chart, Curve, write_plots
from vae_aug.figures.sheet import Panel, write_sheet
from vae_aug.letterbox import letterbox_boxes
from vae_aug.model.loss import structural_similarity
from vae_aug.model.network import Network
from vae_aug.records.tfrecord import get_values
from vae_aug.train.corrupt import corrupt
from vae_aug.train.feed import VALIDATION_KEEP, Source, fit
from vae_aug.train.run_files import CURVES_NAME, SHEET_NAME
from vae_aug.words import plural

_IMAGES = 3
_LOOKED_AT = 500

_CHARTS = (
    ("loss, nats an image", {"train": ("train", "loss")}),
    ("KL, nats an image", {"train": ("train", "kl"), "validation": ("validation", "kl")}),
    (
        "reconstruction, PSNR, dB",
        {
            "train": ("train", "psnr"),
            "validation, clean": ("validation", "psnr"),
            "validation, 40% left": ("validation", "psnr_noisy"),
        },
    ),
    (
        "reconstruction, SSIM",
        {
            "validation, clean": ("validation", "ssim"),
            "validation, 40% left": ("validation", "ssim_noisy"),
        },
    ),
)
"""Titles to curves: names to the kind and the key of lines of the log."""


class TrainingPictures:
    """The sheet and the curves of one run."""

    def __init__(self, out: Path, sources: Sequence[Source], size: int, seed: int) -> None:
        """Choose the images of the sheet, with boxes if any of the first 500 has one.

        Args:
            out: Folder of the run.
            sources: What is validated on.
            size: Side of the network's square in pixels.
            seed: Of the noise.
        """
        self._out = out
        self._clean = _choose_images(sources, size)
        images = np.stack([panel.image for panel in self._clean])
        self._noisy = np.stack(
            [
                corrupt(image, "replace", VALIDATION_KEEP, [seed, number]).numpy()
                for number, image in enumerate(images)
            ]
        )

    def write_sheet(self, vae: Network, step: int) -> np.ndarray:
        """Write `sheet.png`: clean and noisy images, and what the network makes of them.

        Args:
            vae: The network.
            step: Steps done.

        Returns:
            The sheet, `[height, width, 3] uint8`.
        """
        clean = np.stack([panel.image for panel in self._clean])
        restored, decoded = (
            tf.reduce_mean(vae.reconstruct(images), axis=-1, keepdims=True).numpy()
            for images in (self._noisy, clean)
        )
        columns = (
            (f"{VALIDATION_KEEP:.0%} left", self._noisy),
            ("restored", restored),
            ("clean, decoded", decoded),
        )
        rows = [[panel] for panel in self._clean]
        for heading, images in columns:
            similarities = structural_similarity(clean, images).numpy()
            for row, image, similarity in zip(rows, images, similarities, strict=True):
                # The noise itself would set the scale of all errors.
                compared = images is not self._noisy
                note = f"SSIM {similarity:.3f}"
                first = row[0]
                row.append(Panel(image, heading, note, first.boxes, first.names, compared))
        caption = (
            f"Validation images after {plural(step, 'step')}. Noise: replace, "
            f"{VALIDATION_KEEP:.0%} of the pixels left. Restored: what the network makes of the "
            "noisy image; decoded: of the clean one. SSIM is to the clean image."
        )
        return write_sheet(self._out / SHEET_NAME, rows, caption)

    def write_curves(self, log: Path) -> None:
        """Write `curves.png`: loss, KL and reconstruction over the steps.

        Args:
            log: The run's log; a line is an object with `kind`, `step` and figures.
        """
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        charts = []
        for title, wanted in _CHARTS:
            curves = [_read_curve(lines, name, *key) for name, key in wanted.items()]
            curves = [curve for curve in curves if len(curve.x)]
            if curves:
                charts.append(Chart(title, "steps", curves))
        if charts:
            caption = (
                "Train: single batches, noisy as the recipe has it. Validation: clean images, and "
                f"replace with {VALIDATION_KEEP:.0%} of the pixels left, by the averaged weights."
            )
            write_plots(self._out / CURVES_NAME, charts, caption)


def _read_curve(lines: Sequence[dict[str, float]], name: str, kind: str, key: str) -> Curve:
    """Pick the figures of one kind from the lines of a log."""
    points = [
        (line["step"], line[key])
        for line in lines
        if line["kind"] == kind and np.isfinite(line.get(key, np.nan))
    ]
    return Curve(name, [step for step, _ in points], [value for _, value in points])


def _choose_images(sources: Sequence[Source], size: int) -> list[Panel]:
    """Choose a few images, in turn from each source, spread over those with boxes if any has."""
    share = -(-_IMAGES // len(sources))
    chosen = []
    for source in sources:
        counts = [_count_boxes(record) for record in source.examples.take(_LOOKED_AT)]
        places = np.flatnonzero(counts) if any(counts) else np.arange(len(counts))
        spread = np.linspace(0, len(places) - 1, min(share, len(places))).round().astype(int)
        wanted = set(places[spread].tolist())
        for place, record in enumerate(source.examples.take(max(wanted, default=-1) + 1)):
            if place in wanted:
                chosen.append(_make_panel(source, record, size))
    return chosen[:_IMAGES]


def _count_boxes(serialized: tf.Tensor) -> int:
    return len(_read_names(serialized))


def _read_names(serialized: tf.Tensor) -> list[str]:
    example = tf.train.Example.FromString(serialized.numpy())
    texts = get_values(example, "image/object/class/text", "bytes_list")
    return [text.decode("utf-8", "replace") for text in texts]


def _make_panel(source: Source, serialized: tf.Tensor, size: int) -> Panel:
    """Bring an image and its boxes into the network's square."""
    element = source.parse(serialized)
    height, width = element["image"].shape[:2]
    boxes = letterbox_boxes(element["objects"]["bbox"], height, width, size).numpy()
    image = fit(element, size, box_weight=1.0)[0].numpy()
    return Panel(image, "clean", "", boxes, _read_names(serialized))
