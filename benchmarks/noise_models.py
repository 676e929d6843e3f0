"""The noise of repeated MR acquisitions, side by side with that of the models in `corrupt`.

    .venv/bin/python -m benchmarks.noise_models --data DATA

Real noise is an acquisition less the mean of all, after what drifts for a whole slice is taken off;
modelled noise is added to that mean, as strong as the real one where the signal is. Compared are
the spectrum, which shows how far neighbouring pixels go together, the distribution, and how the
standard deviation grows with the signal.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.throughput import RESULTS
from benchmarks.weak_noise import REPEATS, read_stacks
from vae_aug.atomic import write_atomic
from vae_aug.figures.plot import Chart, Curve, make_histogram, write_plots
from vae_aug.train.corrupt import corrupt

MODELS = ("rician", "multi_coil", "poisson_gaussian")
BANDS = np.linspace(0.0, 0.5, 11)
"""Edges of the bands of spatial frequency, in cycles a pixel."""

LEVELS = np.linspace(0.0, 1.0, 9)
"""Edges of the levels of signal, in parts of the grey range."""

SIGNAL = 0.1
"""Signal from which a pixel counts for the distribution, and for how strong the noise is."""

EDGES = np.linspace(-4.0, 4.0, 41)


class Noise(NamedTuple):
    """Noise of several slices, as far as it is compared.

    Attributes:
        spectrum: Power in every band, over its mean.
        deviation: Standard deviation at every level of signal.
        values: Noise over its standard deviation at its place, of pixels with signal.
    """

    spectrum: np.ndarray
    deviation: np.ndarray
    values: np.ndarray


def describe(noises: Sequence[np.ndarray], signals: Sequence[np.ndarray]) -> Noise:
    """Describe noise.

    Args:
        noises: Of every slice, `[repeats, H, W]`.
        signals: Its mean, `[H, W]`.
    """
    spectra, deviations, values = [], [], []
    for noise, signal in zip(noises, signals, strict=True):
        height, width = signal.shape
        frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
        power = (np.abs(np.fft.fft2(noise)) ** 2).mean(axis=0)
        spectra.append(average(power, frequency, BANDS))
        deviation = noise.std(axis=0)
        deviations.append(average(deviation, signal, LEVELS))
        shown = signal > SIGNAL
        values.append((noise[:, shown] / np.maximum(deviation[shown], 1e-6)).ravel())
    spectrum = np.nanmean(spectra, axis=0)
    return Noise(spectrum / spectrum.mean(), np.nanmean(deviations, axis=0), np.concatenate(values))


def average(values: np.ndarray, by: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Average values between edges of another quantity; NaN where there are none."""
    places = np.digitize(by, edges) - 1
    inside = [values[places == index] for index in range(len(edges) - 1)]
    return np.array([part.mean() if part.size else np.nan for part in inside])


def take_drift(stack: np.ndarray) -> np.ndarray:
    """Take the mean image off a stack, and from each image what is common to its pixels."""
    noise = stack - stack.mean(axis=0)
    return noise - noise.mean(axis=(1, 2), keepdims=True)


def model(stacks: Sequence[np.ndarray], name: str) -> list[np.ndarray]:
    """Add a model's noise to the mean of each slice, as strong as the slice's own."""
    noises = []
    for number, stack in enumerate(stacks):
        signal = np.clip(stack.mean(axis=0), 0, 1)
        sigma = take_drift(stack).std(axis=0)[signal > SIGNAL].mean()
        keep = float(1.0 / (1.0 + np.sqrt(12.0) * sigma))
        made = [
            corrupt(signal[..., None], name, keep, [number, index]).numpy()[..., 0]
            for index in range(len(stack))
        ]
        noises.append(take_drift(np.stack(made)))
    return noises


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the repeats")
    parser.add_argument("--figure", type=Path, default=Path("docs/images/noise_models.png"))
    parser.add_argument("--out", type=Path, default=RESULTS / "noise-models.json")
    arguments = parser.parse_args()
    described: dict[str, Noise] = {}
    every: list[np.ndarray] = []
    for name in REPEATS:
        stacks = read_stacks(arguments.data / name)
        every += stacks
        signals = [stack.mean(axis=0) for stack in stacks]
        described[f"real, {name.removeprefix('repeat_')}"] = describe(
            [take_drift(stack) for stack in stacks], signals
        )
    signals = [stack.mean(axis=0) for stack in every]
    for name in MODELS:
        described[name] = describe(model(every, name), signals)
    write_figure(arguments.figure, described)
    report: dict[str, Any] = {
        name: {
            "spectrum": [round(float(value), 3) for value in noise.spectrum],
            "deviation": [round(float(value), 5) for value in noise.deviation],
            "kurtosis": round(float(np.mean(noise.values**4)), 2),
        }
        for name, noise in described.items()
    }
    for name, row in report.items():
        print(name, row)
    result = {"bands": BANDS.tolist(), "levels": LEVELS.tolist(), "noise": report}
    write_atomic(arguments.out, (json.dumps(result, indent=1) + "\n").encode())


def write_figure(path: Path, described: dict[str, Noise]) -> None:
    """Draw the three comparisons side by side."""
    band, level = (0.5 * (edges[1:] + edges[:-1]) for edges in (BANDS, LEVELS))
    charts = [
        Chart(
            "power, over its mean",
            "spatial frequency, cycles a pixel",
            [Curve(name, band, noise.spectrum) for name, noise in described.items()],
        ),
        Chart(
            "standard deviation, % of the grey range",
            "signal, parts of the grey range",
            [Curve(name, level, 100 * noise.deviation) for name, noise in described.items()],
        ),
        Chart(
            "share of pixels, logarithm to 10",
            "noise over its standard deviation",
            [make_logarithm(name, noise.values) for name, noise in described.items()],
        ),
    ]
    caption = "Noise of repeated MR acquisitions, and of the models of vae_aug.train.corrupt."
    write_plots(path, charts, caption, columns=3)


def make_logarithm(name: str, values: np.ndarray) -> Curve:
    """Make a histogram whose heights are logarithms of shares."""
    curve = make_histogram(name, values, EDGES)
    shares = np.maximum(np.asarray(curve.y) / len(values), 1e-5)
    return Curve(name, curve.x, np.log10(shares))


if __name__ == "__main__":
    main()
