"""A corruption benchmark for detectors on medical images, as ImageNet-C is for photographs.

    python -m benchmarks.detection.corruptions

prints `DIALS` anew (2 minutes on one core).

Seven of the corruptions in `vae_aug.train.corrupt` are used; denoisers and noise arms may be
trained with them.
Four artefacts besides are in no training here, so they tell robustness from having seen it all
before: Gibbs ringing and ghosts of MR, spikes in k-space, streaks of CT.

Each has five strengths. Strength 1 to 5 is the dial `keep` (1 leaves the image as it is) at which
the mean SSIM of the body, as `vae_aug.evaluate.metrics.find_body` finds it, is 0.9, 0.8, 0.7, 0.6
and 0.5. Air is left out: any noise on black takes its SSIM to nearly 0, so additive noise would be
set far below noise that scales with the signal. Dials are found once, on the phantoms of the
embedded source, and hold for all data, as those of ImageNet-C do; on darker or flatter images the
same noise costs more SSIM. `calibrate` finds the dials of a user's own images.

References:
    Hendrycks and Dietterich, Benchmarking neural network robustness to common corruptions and
    perturbations (ICLR 2019). Michaelis et al., Benchmarking robustness in object detection:
    autonomous driving when winter is coming (2019), for mPC and rPC. Zhuo and Gullapalli, MR
    artifacts, safety, and quality control, RadioGraphics 26 (2006) 275-297. Barrett and Keat,
    Artifacts in CT: recognition and avoidance, RadioGraphics 24 (2004) 1679-1691.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from vae_aug.augment.transform import VAEAugment
from vae_aug.evaluate.classical import Filter, list_methods, make_grid, tune_filters
from vae_aug.evaluate.metrics import find_body, ssim, ssim_map
from vae_aug.phantoms.embedded import read_embedded
from vae_aug.train.corrupt import CORRUPTIONS, corrupt_image

Restorer = Callable[[np.ndarray], np.ndarray]
"""Takes and returns `[N, S, S, 1] uint8`."""

Artefact = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
"""Takes `[S, S]` in [0, 1], `keep` in (0, 1] and a generator; returns `[S, S]`."""

STRENGTHS = (1, 2, 3, 4, 5)
TARGETS = (0.9, 0.8, 0.7, 0.6, 0.5)
"""Mean SSIM of the body at each strength."""

DIALS: Mapping[str, tuple[float, ...]] = {
    "replace": (0.9854, 0.9678, 0.9444, 0.9136, 0.8705),
    "blend": (0.9078, 0.8537, 0.8007, 0.7444, 0.6821),
    "gaussian": (0.9054, 0.854, 0.8043, 0.7521, 0.6955),
    "rician": (0.9076, 0.8564, 0.8076, 0.7576, 0.7052),
    "poisson_gaussian": (0.8917, 0.832, 0.7752, 0.717, 0.656),
    "speckle": (0.8817, 0.8114, 0.7432, 0.6746, 0.604),
    "missing_lines": (0.9644, 0.9268, 0.8869, 0.8325, 0.7733),
    "ringing": (0.4393, 0.3249, 0.2549, 0.1984, 0.1618),
    "ghosts": (0.5348, 0.4186, 0.341, 0.2809, 0.2328),
    "spike": (0.9012, 0.849, 0.8004, 0.7511, 0.7001),
    "streaks": (0.8718, 0.8039, 0.7407, 0.6772, 0.6114),
}
"""`keep` at each strength, as this module's command prints it."""

_LEAST_KEEP, _BISECTIONS = 0.01, 14

TUNED_ON = 8
"""Training images on which classical filters are tuned."""

_TUNING_SEED = 1
"""Seed of the noise that filters are tuned on; test images usually have 0."""


def list_corruptions(unseen: bool = False) -> list[str]:
    """List the seven corruptions that training may know, or the four artefacts that it must not."""
    return list(ARTEFACTS) if unseen else [name for name in CORRUPTIONS if name in DIALS]


def corrupt_samples(images: np.ndarray, name: str, strength: int, seed: int = 0) -> np.ndarray:
    """Corrupt images, each with a seed of its own that the other images do not change.

    Args:
        images: `[N, S, S, 1] uint8`.
        name: One of `list_corruptions`, with or without `unseen`.
        strength: 1 to 5.
        seed: Of the noise.

    Returns:
        Same shape and dtype.

    Raises:
        ValueError: On an unknown name or strength.
    """
    if name not in DIALS or strength not in STRENGTHS:
        raise ValueError(
            f"a corruption is one of {', '.join(DIALS)}, at a strength of 1 to 5; "
            f"got {name!r} at {strength}."
        )
    return corrupt_by_dial(images, name, DIALS[name][strength - 1], seed)


def corrupt_by_dial(images: np.ndarray, name: str, keep: float, seed: int) -> np.ndarray:
    """Corrupt images at `keep` in (0, 1]; arguments as `corrupt_samples`."""
    if not len(images):
        return images
    rows = [corrupt_one(image, name, keep, (seed, index)) for index, image in enumerate(images)]
    return np.stack(rows)


def corrupt_one(image: np.ndarray, name: str, keep: float, seed: tuple[int, int]) -> np.ndarray:
    if name in CORRUPTIONS:
        return corrupt_image(image, name, tf.constant(keep), tf.constant(seed, tf.int32)).numpy()
    changed = ARTEFACTS[name](image[..., 0] / 255.0, keep, np.random.default_rng(seed))
    return np.rint(255 * np.clip(changed, 0, 1)).astype(np.uint8)[..., None]


def _find_noise_ratio(keep: float) -> float:
    """Return the noise-to-signal ratio that `vae_aug.train.corrupt` has at `keep`."""
    return (1 - keep) / (keep * np.sqrt(12))


def add_ringing(grey: np.ndarray, keep: float, rng: np.random.Generator) -> np.ndarray:
    """Keep the lowest share `keep` of the spatial frequencies along either axis, cut off sharply.

    The outermost frequency that is left counts in part, so that the change is gradual.
    """
    size = len(grey)
    distance = np.abs(np.fft.fftfreq(size) * size)
    window = np.clip(keep * (size / 2 + 1) - distance, 0, 1)
    return np.abs(np.fft.ifft2(np.fft.fft2(grey) * window[:, None] * window))


def add_ghosts(grey: np.ndarray, keep: float, rng: np.random.Generator) -> np.ndarray:
    """Move the image to and fro along one axis while its lines of k-space are read along it.

    The amplitude is (1 - keep) / keep pixels; a period takes 4 to 12 lines.
    """
    turned = grey.T if rng.random() < 0.5 else grey
    lines = np.fft.fftshift(np.fft.fftfreq(len(turned)))
    period, phase = rng.uniform(4, 12), rng.uniform(0, 2 * np.pi)
    places = np.sin(2 * np.pi * np.arange(len(lines)) / period + phase)
    moves = (1 - keep) / keep * places
    spectrum = np.fft.fft2(turned) * np.fft.ifftshift(np.exp(-2j * np.pi * lines * moves))[:, None]
    moved = np.abs(np.fft.ifft2(spectrum))
    return moved.T if turned is not grey else moved


def add_spike(grey: np.ndarray, keep: float, rng: np.random.Generator) -> np.ndarray:
    """Add one wrong point in k-space: waves across the image, of the noise ratio of `keep`."""
    angle, frequency = rng.uniform(0, np.pi), rng.uniform(0.05, 0.3)
    phase = rng.uniform(0, 2 * np.pi)
    y, x = np.indices(grey.shape)
    waves = 2 * np.pi * frequency * (y * np.sin(angle) + x * np.cos(angle)) + phase
    return np.abs(grey + np.sqrt(2) * _find_noise_ratio(keep) * np.exp(1j * waves))


def add_streaks(grey: np.ndarray, keep: float, rng: np.random.Generator) -> np.ndarray:
    """Add light and dark rays from a point of the body, as metal and starved rays do in CT."""
    size = len(grey)
    bright = np.argwhere(grey >= grey.mean())
    top, left = bright[rng.integers(len(bright))]
    y, x = np.indices(grey.shape)
    # A ray is a line: opposite directions have the same value.
    angles = np.arctan2(y - top, x - left) % np.pi / np.pi
    rays = rng.standard_normal(size)
    ray = np.interp(angles, np.arange(size + 1) / size, np.append(rays, rays[0]))
    return grey + _find_noise_ratio(keep) * ray


ARTEFACTS: Mapping[str, Artefact] = {
    "ringing": add_ringing,
    "ghosts": add_ghosts,
    "spike": add_spike,
    "streaks": add_streaks,
}


def calibrate(
    images: np.ndarray, names: Sequence[str], targets: Sequence[float] = TARGETS, seed: int = 0
) -> dict[str, tuple[float, ...]]:
    """Find the dials at which the mean SSIM of the bodies has given values, by bisection.

    Args:
        images: `[N, S, S, 1] uint8`.
        names: Corruptions and artefacts.
        targets: Mean SSIM, one for each strength.
        seed: Of the noise, which stays the same while the dial turns.

    Returns:
        Names to dials.

    Raises:
        ValueError: If a corruption cannot get so low.
    """
    planes = [image[..., 0] / 255.0 for image in images]
    bodies = [find_body(plane) for plane in planes]

    def measure(name: str, keep: float) -> float:
        noisy = corrupt_by_dial(images, name, keep, seed)[..., 0] / 255.0
        return float(
            np.mean(
                [
                    ssim_map(plane, changed)[body].mean()
                    for plane, changed, body in zip(planes, noisy, bodies, strict=True)
                ]
            )
        )

    return {
        name: tuple(bisect(functools.partial(measure, name), t) for t in targets) for name in names
    }


def bisect(measure: Callable[[float], float], target: float) -> float:
    """Find where a function that rises on (0, 1] has a value; to four digits."""
    low, high = _LEAST_KEEP, 1.0
    if measure(low) > target:
        raise ValueError(f"an SSIM of {target} is not reached at keep = {low}.")
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if measure(middle) < target else (low, middle)
    return round((low + high) / 2, 4)


def summarize(clean: float, table: Mapping[str, Mapping[int, float]]) -> dict[str, float | None]:
    """Summarise scores under corruption: mPC is their mean, and rPC the share of the clean score.

    Args:
        clean: P, the score on clean images.
        table: Corruption to strength to score.

    Returns:
        `P`, `mPC`, and `rPC = mPC / P`, None if P is 0.

    Raises:
        ValueError: If the table is empty, or corruptions differ in their strengths, whose mean
            would weigh some more than others.
    """
    strengths = {tuple(sorted(scores)) for scores in table.values()}
    if len(strengths) != 1 or not all(strengths):
        raise ValueError(f"all corruptions need the same strengths; got {sorted(strengths)}.")
    mean = float(np.mean([list(scores.values()) for scores in table.values()]))
    return {"P": clean, "mPC": mean, "rPC": mean / clean if clean else None}


def draw_noisy(images: np.ndarray, seed: int) -> np.ndarray:
    """Corrupt every image by a corruption and a strength of its own, all with equal chance.

    The artefacts are none of them.

    Args:
        images: `[N, S, S, 1] uint8`.
        seed: Of all draws.

    Returns:
        Same shape and dtype.
    """
    rows = [
        _corrupt_somehow(image, np.random.default_rng([seed, 3, index]))
        for index, image in enumerate(images)
    ]
    return np.stack(rows) if rows else images


def _corrupt_somehow(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    names = list_corruptions()
    name = names[rng.integers(len(names))]
    keep = DIALS[name][rng.integers(len(STRENGTHS))]
    first, second = rng.integers(2**31, size=2)
    return corrupt_one(image, name, keep, (int(first), int(second)))


def make_restorers(
    train_images: np.ndarray, name: str, strength: int, checkpoints: Sequence[str] = ()
) -> dict[str, Restorer]:
    """Name what restores images of one corruption, which is told: that favours the filters.

    Args:
        train_images: `[N, S, S, 1] uint8`, clean; filters are tuned on `TUNED_ON` of them.
        name: Of the corruption.
        strength: Of the corruption.
        checkpoints: Of VAEs, paths or names of packaged ones.

    Returns:
        `"none"`, each classical method, and each checkpoint by its name without folder and ending.
    """
    clean = _choose(train_images)
    noisy = corrupt_samples(clean, name, strength, _TUNING_SEED)
    # Contrast shrinks in `vae_aug.train.corrupt` only; of artefacts nothing is undone.
    keep = DIALS[name][strength - 1]
    restorers: dict[str, Restorer] = {"none": lambda images: images}
    for method, chosen in tune_filters(_pair(clean, noisy), name, keep).items():
        restorers[method] = _make_filter(chosen)
    for checkpoint in checkpoints:
        restorers[Path(checkpoint).stem] = make_denoiser(checkpoint)
    return restorers


def make_blind_filter(train_images: np.ndarray) -> tuple[Filter, Restorer]:
    """Make the classical filter that is best when nobody tells the corruption.

    It is the one of the highest mean SSIM on two training images at all corruptions, with the odd
    strengths, and on the clean images, which count as one more corruption. A minute at 192 pixels.

    Args:
        train_images: `[N, S, S, 1] uint8`, clean.

    Returns:
        The filter and the restorer.
    """
    clean = _choose(train_images, 2)
    strengths = STRENGTHS[::2]
    pairs = len(strengths) * _pair(clean, clean)
    for name in list_corruptions():
        for strength in strengths:
            pairs += _pair(clean, corrupt_samples(clean, name, strength, _TUNING_SEED))
    candidates = [f for method in list_methods() for f in make_grid(method, "gaussian", 1.0)]
    scores = [np.mean([ssim(a, candidate(b)) for a, b in pairs]) for candidate in candidates]
    best = candidates[int(np.argmax(scores))]
    return best, _make_filter(best)


def make_denoiser(checkpoint: str) -> Restorer:
    """Make a restorer of a VAE, which no corruption is told and no box can guide."""
    augment = VAEAugment(checkpoint, mode="denoise", guard="off", seed=0, batch_size=16)

    def denoise(images: np.ndarray) -> np.ndarray:
        if not len(images):
            return images
        dataset = tf.data.Dataset.from_tensor_slices(images).apply(augment)
        return np.stack(list(dataset.as_numpy_iterator()))

    return denoise


def make_restorer(by: str, train_images: np.ndarray) -> Restorer:
    """Make the restorer that a detector is trained and tested behind.

    Args:
        by: `"filter"` for `make_blind_filter`, else a checkpoint.
        train_images: `[N, S, S, 1] uint8`, clean.
    """
    return make_blind_filter(train_images)[1] if by == "filter" else make_denoiser(by)


def _choose(images: np.ndarray, count: int = TUNED_ON) -> np.ndarray:
    """Choose images evenly."""
    places = (np.arange(count) + 0.5) / count * len(images)
    return images[np.unique(places.astype(int))]


def _pair(clean: np.ndarray, noisy: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(a[..., 0] / 255.0, b[..., 0] / 255.0) for a, b in zip(clean, noisy, strict=True)]


def _make_filter(chosen: Filter) -> Restorer:
    def restore(images: np.ndarray) -> np.ndarray:
        rows = [chosen(image[..., 0] / 255.0) for image in images]
        return np.rint(255 * np.stack(rows)[..., None]).astype(np.uint8) if rows else images

    return restore


def main() -> None:
    items = read_embedded("train", count=12, size=192, real=False)
    images = np.stack([item.image for item in items])
    names = list_corruptions() + list_corruptions(unseen=True)
    for name, dials in calibrate(images, names).items():
        print(json.dumps({name: dials}), flush=True)


if __name__ == "__main__":
    main()
