"""What ways to vary an image vary: how much, where, beyond a curve, and at what cost to lesions.

    python -m benchmarks.variation --data DATA --work DIR

Every way sees the same validation patients, fitted into squares of 128 pixels, and makes six
variants of each image. Ways that learn have learned from the training patients alone; two others
take statistics of a random training image. `random fields` is what the
learned transformation applies, with numbers of the same size that nothing was learned for.

Measures, means over images: the standard deviation over the variants of a pixel's grey, outside and
inside boxes, in parts of the grey range; the share of a variant's change that a cubic of the grey
value times (1, row, column) leaves unexplained; the contrast-to-noise ratio of a box after by that
before, of boxes that stand out by half the noise at least; precision and recall of one variant of
each training image among validation images, by the third neighbour in the features of `vector`'s
backbone (Kynkaanniemi et al., Improved Precision and Recall Metric, 2019).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow as tf

from benchmarks.detection import strong
from benchmarks.detection.samples import Samples, Source, read_samples
from benchmarks.throughput import describe_machine
from vae_aug import VAEAugment
from vae_aug.atomic import write_atomic
from vae_aug.config import VariationConfig
from vae_aug.evaluate.diversity import measure_contrast
from vae_aug.evaluate.metrics import find_body, make_box_mask
from vae_aug.model.checkpoint import load_checkpoint
from vae_aug.model.fields import GRID, SQUARE, TONES, Fields, change_tones, move_pixels
from vae_aug.model.transformation import (
    LATENT_DIM,
    MAX_DISPLACEMENT,
    MAX_LOG_SLOPE,
    TransformationVAE,
    make_squares,
)
from vae_aug.train.pairs import find_partners, train_transformation

RESULTS = Path(__file__).parent / "results"
SETS: dict[str, float | None] = {"lgg_flair": None, "ibsi_sts": 4095.0, "cheng_brain_t1c": None}
"""Sets, and the grey value of white if it is not the dtype's. Those with a `train.json` are learned
from and judged on their `val.json`; the last is judged on alone, every tenth of its images."""

LEARNED = (
    "transformation, factor 1",
    "transformation, factor 0.5",
    "amplitudes (FDA)",
    "statistics (MixStyle)",
)
"""Rows that need training on the set, or its training images."""

VARIANTS, IMAGES, REALISM_IMAGES = 6, 60, 200
_MIN_CONTRAST = 0.5
_NEIGHBOUR = 3

Vary = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
"""Image `[S, S] float32 in [0, 1]`, boxes `rel_yxyx` and a generator to a variant."""


def mix_amplitudes(grey: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give an image the low frequencies of another's amplitude, and keep its phase.

    Reference: Yang and Soatto, FDA (2020), whose largest band, 9% of the side, is used.
    """
    spectra = [np.fft.fftshift(np.fft.fft2(x)) for x in (grey, other)]
    amplitude = np.abs(spectra[0])
    reach = int(rng.uniform(0.01, 0.09) * len(grey))
    middle = slice(len(grey) // 2 - reach, len(grey) // 2 + reach + 1)
    amplitude[middle, middle] = np.abs(spectra[1])[middle, middle]
    mixed = amplitude * np.exp(1j * np.angle(spectra[0]))
    return np.clip(np.fft.ifft2(np.fft.ifftshift(mixed)).real, 0, 1).astype(np.float32)


def mix_statistics(grey: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move mean and standard deviation towards another image's.

    Reference: Zhou et al., Domain Generalization with MixStyle (2021), on pixels for features.
    """
    share = rng.beta(0.1, 0.1)
    mean, spread = (
        share * getattr(grey, name)() + (1 - share) * getattr(other, name)()
        for name in ("mean", "std")
    )
    return strong.fit_range((grey - grey.mean()) / max(grey.std(), 1e-3) * spread + mean)


def change_brightness(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change brightness and contrast as nnU-Net does."""
    changed = strong.scale_contrast(strong.scale_brightness(grey, rng), rng)
    return np.clip(changed, 0, 1)


def make_network_way(network: TransformationVAE, factor: float) -> Vary:
    """Sample transformations from the prior."""

    @tf.function
    def vary(image: tf.Tensor, boxes: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
        squares, white = make_squares(image[None])
        fields = network.sample(network.describe(squares), z[None], white)
        one = Fields(*(part[0] for part in fields)).scale(factor * network.strength)
        return change_tones(move_pixels(image, one, boxes), one)

    def call(grey: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        z = rng.standard_normal(LATENT_DIM).astype(np.float32)
        return vary(grey[..., None], boxes, z).numpy()[..., 0]

    return call


def make_random_way(displacement_px: float, log_slope: float) -> Vary:
    """Apply smooth random numbers as fields."""

    def sample(rng: np.random.Generator, channels: int, most: float) -> np.ndarray:
        coarse = rng.standard_normal((4, 4, channels)).astype(np.float32)
        grid = cv2.resize(coarse, (GRID, GRID), interpolation=cv2.INTER_CUBIC)
        return most * np.tanh(grid.reshape(GRID, GRID, channels) / most)

    @tf.function
    def vary(image: tf.Tensor, boxes: tf.Tensor, fields: Fields) -> tf.Tensor:
        fields = fields._replace(white=make_squares(image[None])[1][0])
        return change_tones(move_pixels(image, fields, boxes), fields)

    def call(grey: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        scale = displacement_px / SQUARE
        fields = Fields(
            scale * sample(rng, 2, MAX_DISPLACEMENT / scale),
            log_slope * sample(rng, TONES, MAX_LOG_SLOPE / log_slope),
            np.float32(1.0),
        )
        return vary(grey[..., None], boxes, fields).numpy()[..., 0]

    return call


def make_checkpoint_way(name: str) -> Vary:
    """Sample from a packaged checkpoint, as `VAEAugment` does."""
    augment = VAEAugment(name, value_range=(0.0, 1.0), seed=0)

    @tf.function
    def vary(image: tf.Tensor, boxes: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        return augment({"image": image, "objects": {"bbox": boxes}, "epoch": epoch})["image"]

    def call(grey: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return vary(grey[..., None], boxes, rng.integers(2**31)).numpy()[..., 0]

    return call


def list_learned_ways(network: TransformationVAE, samples: Samples) -> dict[str, Vary]:
    """List the ways that learn from training images, or use them, by their names."""
    train = samples.images[..., 0].astype(np.float32) / 255

    def pair(mix: Callable[..., np.ndarray]) -> Vary:
        return lambda grey, boxes, rng: mix(grey, train[rng.integers(len(train))], rng)

    ways = (
        make_network_way(network, 1.0),
        make_network_way(network, 0.5),
        pair(mix_amplitudes),
        pair(mix_statistics),
    )
    return dict(zip(LEARNED, ways, strict=True))


def list_ways() -> dict[str, Vary]:
    """List the ways that need no training images, by their names."""

    def alone(change: Callable[..., np.ndarray]) -> Vary:
        return lambda grey, boxes, rng: change(grey, rng)

    return {
        "unchanged": lambda grey, boxes, rng: grey,
        "random fields": make_random_way(1.5, 0.35),
        "random networks (GIN)": alone(strong.apply_gin),
        "monotone curves (Bezier)": alone(strong.apply_bezier),
        "brightness, contrast": alone(change_brightness),
        "style by hand": alone(strong.apply_random_style),
        "demo, sample": make_checkpoint_way("demo"),
        "vector, sample": make_checkpoint_way("vector"),
    }


def read_set(folder: Path, white: float | None) -> tuple[Samples | None, Samples]:
    """Read the images that are learned from, if there are any, and those that are judged on."""
    train, test = folder / "train.json", folder / "val.json"
    if train.is_file():
        found = (read_samples(Source((str(file),), SQUARE, white)) for file in (train, test))
        return next(found), next(found)
    (file,) = folder.glob("*.json")
    samples = read_samples(Source((str(file),), SQUARE, white))
    return None, samples.take(np.arange(0, len(samples), 10))


def get_image(samples: Samples, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image `[S, S] float32 in [0, 1]` and its boxes `[N, 4] float32`, `rel_yxyx`."""
    grey = samples.images[index, ..., 0].astype(np.float32) / 255
    return grey, (samples.boxes[index] / SQUARE).astype(np.float32)


def measure_way(vary: Vary, samples: Samples, seed: int) -> dict[str, Any]:
    """Measure one way on some of the images."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(samples))[:IMAGES]
    per_image: dict[str, list[float]] = {
        "spread_outside": [], "spread_inside": [], "change": [], "beyond": []
    }  # fmt: skip
    ratios: list[float] = []
    for index in chosen:
        grey, boxes = get_image(samples, index)
        variants = np.stack([vary(grey, boxes, rng) for _ in range(VARIANTS)])
        inside = make_box_mask(boxes, *grey.shape)
        body = find_body(grey) & ~inside
        spread = variants.std(axis=0, ddof=1)
        per_image["spread_outside"].append(spread[body].mean())
        if inside.any():
            per_image["spread_inside"].append(spread[inside].mean())
        per_image["change"].append(np.abs(variants - grey)[:, body].mean())
        per_image["beyond"].append(measure_beyond(grey, variants, body).mean())
        for box in boxes:
            before = measure_contrast(grey, box, inside)
            if abs(before) >= _MIN_CONTRAST:
                after = (measure_contrast(variant, box, inside) for variant in variants)
                ratios += [each / before for each in after]
    lost = ~(np.array(ratios) >= 0.5)  # a box without contrast is NaN
    return {
        **{name: float(np.mean(values)) for name, values in per_image.items()},
        "contrast_median": float(np.nanmedian(ratios)),
        "contrast_below_half": float(lost.mean()),
        "boxes": len(ratios) // VARIANTS,
    }


def measure_beyond(grey: np.ndarray, variants: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Compute the share of each change that a cubic of grey times (1, row, column) leaves over."""
    rows, columns = np.mgrid[: len(grey), : len(grey)] / len(grey) - 0.5
    values, changes = grey[body], (variants - grey)[:, body].T
    places = [np.ones_like(values), rows[body], columns[body]]
    basis = np.stack([values**power * place for power in range(4) for place in places], axis=1)
    left = changes - basis @ np.linalg.lstsq(basis, changes, rcond=None)[0]
    return (left**2).sum(axis=0) / np.maximum((changes**2).sum(axis=0), 1e-9)


def measure_realism(
    vary: Vary, describe: Callable[[np.ndarray], np.ndarray], train: Samples, test: Samples
) -> dict[str, float]:
    """Compute precision and recall of variants of training images among the test's images."""
    rng = np.random.default_rng(0)
    variants = []
    for index in rng.permutation(len(train))[:REALISM_IMAGES]:
        variants.append(vary(*get_image(train, index), rng))
    kept = rng.permutation(len(test))[:REALISM_IMAGES]
    real = describe(test.images[kept, ..., 0].astype(np.float32) / 255)
    made = describe(np.stack(variants))
    return {"precision": cover(real, made), "recall": cover(made, real)}


def cover(references: np.ndarray, queries: np.ndarray) -> float:
    """Compute the share of queries within the third neighbour's distance of any reference."""

    def measure(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0))

    reach = np.sort(measure(references, references), axis=1)[:, _NEIGHBOUR]
    return float((measure(queries, references) <= reach).any(axis=1).mean())


def make_describer() -> Callable[[np.ndarray], np.ndarray]:
    """Make the function from images `[N, S, S]` to the backbone's features `[N, 1280]`."""
    network: Any = load_checkpoint("vector")
    size = network.config.image_size

    @tf.function
    def describe(images: tf.Tensor) -> tf.Tensor:
        return network.backbone(network.first(tf.image.resize(images, [size, size])))

    def call(images: np.ndarray) -> np.ndarray:
        parts = [images[i : i + 16, ..., None] for i in range(0, len(images), 16)]
        return np.concatenate([describe(part).numpy() for part in parts]).astype(np.float64)

    return call


def get_network(name: str, samples: Samples, work: Path, steps: int) -> TransformationVAE:
    """Train a network on a set, or load what a former run trained."""
    path = work / f"{name}.weights.h5"
    if path.is_file():
        network = TransformationVAE()
        network.load_weights(path)
        return network
    squares, _ = make_squares(samples.images.astype(np.float32) / 255)

    def tell(number: int, figures: dict[str, float]) -> None:
        if number % 100 == 0:
            print(name, number, {k: round(v, 3) for k, v in figures.items()}, flush=True)

    config = VariationConfig(steps=steps)
    groups = [str(group) for group in samples.groups]
    whole = np.round(255 * squares.numpy()).astype(np.uint8)
    pairs = find_partners(whole, groups, config.partners)
    network = train_transformation(whole, pairs, config, progress=tell)
    network.save_weights(path)
    return network


def write_sheet(path: Path, vary: Vary, samples: Samples, rows: int = 6) -> None:
    """Write images with boxes, each with six variants, as a picture."""
    rng = np.random.default_rng(1)
    lines = []
    with_boxes = [index for index in range(len(samples)) if len(samples.boxes[index])]
    for index in rng.permutation(with_boxes)[:rows]:
        grey, boxes = get_image(samples, index)
        cells = []
        for image in [grey, *(vary(grey, boxes, rng) for _ in range(VARIANTS))]:
            large = cv2.resize(np.clip(255 * image, 0, 255).astype(np.uint8), (192, 192))
            cell = cv2.cvtColor(large, cv2.COLOR_GRAY2BGR)
            for top, left, bottom, right in np.round(192 * boxes).astype(int).tolist():
                cv2.rectangle(cell, (left, top), (right, bottom), (0, 200, 255), 1)
            cells.append(cell)
        lines.append(np.hstack(cells))
    cv2.imwrite(str(path), np.vstack(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--work", type=Path, required=True, help="for weights and sheets")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--steps", type=int, default=VariationConfig.steps)
    parser.add_argument("--ways", nargs="+", help="only these rows, by their names")
    parser.add_argument("--out", type=Path, default=RESULTS / "variation.json")
    arguments = parser.parse_args()
    unlearned = list_ways()
    wanted = arguments.ways or [*unlearned, *LEARNED]
    if unknown := set(wanted) - {*unlearned, *LEARNED}:
        known = ", ".join((*unlearned, *LEARNED))
        parser.error(f"--ways: no {', '.join(unknown)}; there are {known}")
    arguments.work.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    describe = make_describer()
    # What an earlier run measured is kept, unless it is asked for again.
    out = arguments.out
    results: dict[str, Any] = json.loads(out.read_text())["sets"] if out.is_file() else {}
    for name in arguments.sets:
        train, test = read_set(arguments.data / name, SETS[name])
        ways, sheet = dict(unlearned), unlearned["demo, sample"]
        if train is not None and set(wanted) & set(LEARNED):
            network = get_network(name, train, arguments.work, arguments.steps)
            ways |= list_learned_ways(network, train)
            sheet = make_network_way(network, 1.0)
        rows = results.setdefault(name, {})
        for way in (each for each in ways if each in wanted):
            vary = ways[way]
            rows[way] = measure_way(vary, test, seed=0)
            if train is not None:
                rows[way] |= measure_realism(vary, describe, train, test)
            print(name, way, {k: round(v, 3) for k, v in rows[way].items()}, flush=True)
        write_sheet(arguments.work / f"{name}.png", sheet, test)
        result = {
            "benchmark": "variation",
            "steps": arguments.steps,
            "sets": results,
            "environment": machine,
        }
        write_atomic(out, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
