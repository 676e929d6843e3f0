"""Augmentations without a VAE that a detector is trained with: what a VAE has to beat.

Each `make_*` returns a function of an image and its boxes, all of whose randomness comes from the
seed and the number of the call. Boxes stay true to the pixels that moved.

`strong` has what medical image analysis uses today. Where `classical` has the same part, `strong`
takes the wider range and the higher probability of the two, so that it is nowhere weaker.
"SD" is the standard deviation of the image's grey values, 1 is white.

| part | range | p | from |
| --- | --- | --- | --- |
| elastic | alpha 0 to 200, sigma 9 to 13 px | 0.2 | nnU-Net 1, 2D |
| flips | either axis | 0.5 | nnU-Net |
| scale | 0.7 to 1.4, one factor for both axes | 0.7 | nnU-Net; p of `classical` |
| rotation | -20 to 20 degrees | 0.7 | BigAug; p of `classical` |
| translation | -8% to 8% | 0.7 | `classical` |
| tone curve | cubic Bezier, rising | 0.5 | Models Genesis; p of BigAug |
| random convolutions | 4 layers of 2 channels | 0.5 | GIN; p of BigAug |
| bias field | order 3, coefficients -0.5 to 0.5 | 0.5 | TorchIO; p of BigAug |
| noise | variance 0 to 0.1 SD^2 | 0.3 | nnU-Net (paper); p of `classical` |
| blur | sigma 0.5 to 1.5 px | 0.2 | nnU-Net (paper) |
| brightness, factor | 0.75 to 1.25 | 0.15 | nnU-Net |
| brightness, shift | -0.2 to 0.2 | 0.5 | `classical`, which is wider than BigAug's 0.1 |
| contrast | 0.75 to 1.25 | 0.5 | nnU-Net; p of `classical` |
| low resolution | 0.5 to 1 of the pixels on a side | 0.25 | nnU-Net |
| gamma | 0.7 to 1.5 | 0.3 | nnU-Net |
| gamma of the negative | 0.7 to 1.5 | 0.1 | nnU-Net |

nnU-Net turns 2D images by up to 180 degrees, as its truth is a mask that turns along. The true box
of a lesion that turns so far cannot be told from its old box, hence BigAug's 20 degrees. nnU-Net's
p for blur and low resolution are for one sample; that each channel is then spared with
probability 0.5 is meant for several channels, and left out.

References:
    nnU-Net: Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical
    image segmentation, Nature Methods 18 (2021) 203-211, supplement; and its code
    (`data_augmentation_moreDA.py`, `default_data_augmentation.py`), with batchgenerators.
    BigAug: Zhang et al., Generalizing deep learning for medical image segmentation to unseen
    domains via deep stacked transformation, IEEE Transactions on Medical Imaging 39 (2020)
    2531-2540.
    Models Genesis: Zhou et al., Medical Image Analysis 67 (2021) 101840.
    GIN: Ouyang et al., Causality-inspired single-source domain generalization for medical image
    segmentation, IEEE Transactions on Medical Imaging 42 (2023) 1095-1106.
    TorchIO: Pérez-García et al., Computer Methods and Programs in Biomedicine 208 (2021) 106236.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import albumentations as A
import cv2
import numpy as np

from vae_aug.train.style import STYLE_DIM, STYLE_SPREADS

Augmentation = Callable[
    [np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]
]
"""Takes and returns an image `[S, S, 1] uint8`, boxes `[M, 4] float32` (`yxyx` in pixels) and
labels `[M] int32`; boxes that leave the image are dropped with their labels."""

GreyChange = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""Changes the grey values of `[S, S] float32`, in [0, 1] but for what parts before it left there,
and moves nothing."""

_MIN_VISIBILITY = 0.3
"""Share of a box's area that must stay in the image, else the box is dropped."""

_ELASTIC_P, _ELASTIC_ALPHA, _ELASTIC_SIGMA_PX = 0.2, (0.0, 200.0), (9.0, 13.0)

_ELLIPSE_POINTS = 64
"""Points of a box's ellipse that are followed: at 60 px, they are 3 px apart."""

_INVERSE_STEPS = 30
"""Fixed-point steps that invert an elastic field. Its slope has an SD of at most 0.28 (alpha 200,
sigma 9 px), so that errors shrink to a third or so a step."""

_GIN_LAYERS, _GIN_CHANNELS, _GIN_KERNELS, _GIN_SLOPE = 4, 2, (1, 3), 0.01

_EXTREME_SHARE = 0.005
"""Share of the pixels at either end that may be cut off, lest a few of them dim all others."""

_BIAS_ORDER, _BIAS_COEFFICIENT = 3, 0.5

_STYLE_TOE = 0.05
"""Grey below which `style` fades a change of level out; as in `vae_aug.model.style`."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A change of grey values and how often it happens.

    Attributes:
        change: What is done.
        p: Its probability.
    """

    change: GreyChange
    p: float


def make_classical(seed: int) -> Augmentation:
    """Make the classical arm: flips, affine, brightness, contrast and noise by Albumentations."""
    return _wrap(
        [
            A.HorizontalFlip(p=0.5),
            A.VerticalFlip(p=0.5),
            A.Affine(scale=(0.85, 1.15), translate_percent=(-0.08, 0.08), rotate=(-15, 15), p=0.7),
            A.RandomBrightnessContrast(0.2, 0.2, p=0.5),
            A.GaussNoise(std_range=(0.01, 0.05), p=0.3),
        ],
        seed,
    )


def make_strong(seed: int, gin_p: float = 0.5) -> Augmentation:
    """Make the strong arm (see the module).

    Args:
        seed: Of all randomness.
        gin_p: Probability of random convolutions; 0 leaves them out.
    """
    move = make_geometry(seed)
    change = make_grey(list_strong_parts(gin_p), seed)
    return lambda image, boxes, labels: change(*move(image, boxes, labels))


def make_gin(seed: int, p: float = 0.5) -> Augmentation:
    """Make random shallow convolutions alone; boxes are untouched."""
    return make_grey([Part(apply_gin, p)], seed)


def make_style(seed: int, p: float = 0.5) -> Augmentation:
    """Make the hand-written style of the ladder without a network; boxes are untouched."""
    return make_grey([Part(apply_random_style, p)], seed)


def make_geometry(seed: int) -> Augmentation:
    """Make what moves pixels in the strong arm: elastic deformation, flips and affine maps."""
    flip_and_turn = _wrap(
        [
            A.HorizontalFlip(p=0.5),
            A.VerticalFlip(p=0.5),
            A.Affine(
                scale=(0.7, 1.4),
                keep_ratio=True,
                balanced_scale=True,
                translate_percent=(-0.08, 0.08),
                rotate=(-20, 20),
                # The box around a turned box grows; that around a turned ellipse follows a lesion.
                # Kalra et al., Towards rotation invariance in object detection (ICCV 2021).
                rotate_method="ellipse",
                p=0.7,
            ),
        ],
        seed,
    )
    draws = _iterate_generators(seed, 0)

    def move(
        image: np.ndarray, boxes: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = draws()
        if rng.random() < _ELASTIC_P:
            image, boxes = deform(image, boxes, draw_elastic_field(image.shape[0], rng))
            boxes, labels = drop_hidden(boxes, labels, image.shape[0])
        return flip_and_turn(image, boxes, labels)

    return move


def list_strong_parts(gin_p: float = 0.5) -> list[Part]:
    """List what changes grey values in the strong arm, in order: tissue, coil, scanner, display."""
    return [
        Part(apply_bezier, 0.5),
        Part(apply_gin, gin_p),
        Part(apply_bias_field, 0.5),
        Part(add_noise, 0.3),
        Part(blur, 0.2),
        Part(scale_brightness, 0.15),
        Part(shift_brightness, 0.5),
        Part(scale_contrast, 0.5),
        Part(lower_resolution, 0.25),
        Part(apply_negative_gamma, 0.1),
        Part(apply_gamma, 0.3),
    ]


def _wrap(transforms: list[A.BasicTransform], seed: int) -> Augmentation:
    """Make an augmentation of Albumentations' transforms."""
    compose = A.Compose(
        transforms,
        bbox_params=A.BboxParams(
            "pascal_voc", label_fields=["labels"], clip=True, min_visibility=_MIN_VISIBILITY
        ),
        seed=seed,
    )

    def apply(
        image: np.ndarray, boxes: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        result = compose(image=image, bboxes=boxes[:, [1, 0, 3, 2]], labels=labels)
        corners = np.asarray(result["bboxes"], np.float32).reshape(-1, 4)
        changed = result["image"].reshape(image.shape)
        return changed, corners[:, [1, 0, 3, 2]], np.asarray(result["labels"], np.int32)

    return apply


def make_grey(parts: Sequence[Part], seed: int) -> Augmentation:
    """Make an augmentation that changes grey values, one part after the other."""
    draws = _iterate_generators(seed, 1)

    def change(
        image: np.ndarray, boxes: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = draws()
        grey = image[..., 0].astype(np.float32) / 255
        for part in parts:
            if rng.random() < part.p:
                grey = part.change(grey, rng)
        return np.rint(255 * fit_range(grey)).astype(np.uint8)[..., None], boxes, labels

    return change


def _iterate_generators(seed: int, stream: int) -> Callable[[], np.random.Generator]:
    """Make a function whose n-th call returns the generator of (seed, stream, n)."""
    calls = iter(range(2**62))
    return lambda: np.random.default_rng([seed, stream, next(calls)])


def draw_elastic_field(size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a smooth displacement: uniform noise in [-1, 1], blurred, times alpha.

    Returns:
        `[2, size, size] float32`, y and x in pixels.
    """
    alpha, sigma = rng.uniform(*_ELASTIC_ALPHA), rng.uniform(*_ELASTIC_SIGMA_PX)
    noise = rng.uniform(-1, 1, (2, size, size)).astype(np.float32)
    return np.stack([alpha * cv2.GaussianBlur(axis, (0, 0), sigma) for axis in noise])


def deform(
    image: np.ndarray, boxes: np.ndarray, field: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Let every pixel p show what was at p + field(p), and boxes follow.

    Where a point q goes to is the p that solves p + field(p) = q. A box becomes the bounds of where
    its inscribed ellipse goes.

    Args:
        image: `[S, S, 1] uint8`; black comes in from outside.
        boxes: `[M, 4] float32`, `yxyx` in pixels.
        field: `[2, S, S] float32`, y and x in pixels.

    Returns:
        Image and boxes; a box may reach beyond the image.
    """
    grid = np.indices(image.shape[:2], dtype=np.float32)
    rows, columns = grid + field
    moved = cv2.remap(image, columns, rows, cv2.INTER_LINEAR)[..., None]
    if not len(boxes):
        return moved, boxes
    angles = np.linspace(0, 2 * np.pi, _ELLIPSE_POINTS, endpoint=False)
    centres, halves = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    # Boxes count pixels' edges and fields their centres, which are half a pixel on.
    origins = centres[:, :, None] + halves[:, :, None] * [np.sin(angles), np.cos(angles)] - 0.5
    origins = np.moveaxis(origins, 1, 0).astype(np.float32)
    places = origins
    for _ in range(_INVERSE_STEPS):
        y, x = places
        here = [
            cv2.remap(a, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for a in field
        ]
        places = origins - np.stack(here)
    bounds = [places.min(axis=2) + 0.5, places.max(axis=2) + 0.5]
    return moved, np.concatenate(bounds).T.astype(np.float32)


def drop_hidden(boxes: np.ndarray, labels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut boxes at the image's edge, and drop those of which little is left."""
    cut = np.clip(boxes, 0, size)
    left, whole = (np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (cut, boxes))
    kept = left >= _MIN_VISIBILITY * whole
    return cut[kept], labels[kept]


def apply_bezier(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bend grey values by a rising cubic Bezier curve from black to white."""
    curve_in, curve_out = draw_bezier(rng)
    return np.interp(grey, curve_in, curve_out).astype(np.float32)


def draw_bezier(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a curve from (0, 0) to (1, 1) with two control points anywhere in the unit square.

    Either coordinate rises along the curve wherever in [0, 1] its control points are.

    Returns:
        Grey values before and after, `[256] float64` each, both rising.
    """
    t = np.linspace(0, 1, 256)
    basis = np.stack([3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    before, after = (np.array([*rng.random(2), 1.0]) @ basis for _ in range(2))
    return before, after


def apply_gin(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change contrast and texture by random convolutions of the standardised image."""
    spread = float(grey.std())
    if spread < 1e-3:
        return grey
    mean = float(grey.mean())
    return fit_range(spread * convolve_randomly((grey - mean) / spread, rng) + mean)


def convolve_randomly(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blend an image with its output of a random network, and restore its Frobenius norm.

    Each layer draws its kernel's side, weights and shifts; a leaky ReLU is between layers.

    Args:
        values: `[S, S] float32`.
        rng: For layers and blend.

    Returns:
        `[S, S] float32` of the same norm.
    """
    maps = [values]
    for layer in range(_GIN_LAYERS):
        last = layer == _GIN_LAYERS - 1
        side = int(rng.choice(_GIN_KERNELS))
        outputs = 1 if last else _GIN_CHANNELS
        kernels = rng.standard_normal((outputs, len(maps), side, side)).astype(np.float32)
        shifts = rng.standard_normal(outputs).astype(np.float32)
        sums = [
            sum((cv2.filter2D(m, -1, k) for m, k in zip(maps, row, strict=True)), shift)
            for row, shift in zip(kernels, shifts, strict=True)
        ]
        maps = sums if last else [np.maximum(each, _GIN_SLOPE * each) for each in sums]
    alpha = np.float32(rng.random())
    mixed = alpha * maps[0] + (1 - alpha) * values
    return mixed * (np.linalg.norm(values) / max(np.linalg.norm(mixed), 1e-6))


def apply_bias_field(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Multiply by exp of a random polynomial, as an uneven coil does."""
    terms = _BIAS_ORDER + 1
    powers = np.linspace(-1, 1, len(grey)) ** np.arange(terms)[:, None]
    coefficients = rng.uniform(-_BIAS_COEFFICIENT, _BIAS_COEFFICIENT, (terms, terms))
    # Of the terms y^i x^j, those with i + j up to 3 are on and above the antidiagonal.
    kept = np.tri(terms)[::-1]
    field = np.exp(powers.T @ (coefficients * kept) @ powers)
    return fit_range(grey * field.astype(np.float32))


def fit_range(grey: np.ndarray) -> np.ndarray:
    """Shrink grey values linearly into [0, 1] where they leave it, and cut off what is extreme.

    The networks of the sources take any number, so that no shift or gain hides a lesion from them;
    plain cutting at black and white would.
    """
    low, high = np.quantile(grey, [_EXTREME_SHARE, 1 - _EXTREME_SHARE])
    low, high = min(float(low), 0.0), max(float(high), 1.0)
    return np.clip((grey - low) / (high - low), 0, 1)


def add_noise(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add white Gaussian noise, within the range that the image had."""
    sigma = np.float32(np.sqrt(rng.uniform(0, 0.1)) * grey.std())
    noisy = grey + sigma * rng.standard_normal(grey.shape, np.float32)
    return np.clip(noisy, grey.min(), grey.max())


def blur(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur by a Gaussian."""
    return cv2.GaussianBlur(grey, (0, 0), rng.uniform(0.5, 1.5))


def scale_brightness(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Multiply the grey values."""
    return grey * np.float32(draw_around_one(rng, 0.75, 1.25))


def shift_brightness(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add to the grey values."""
    return grey + np.float32(rng.uniform(-0.2, 0.2))


def scale_contrast(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scale the distance from the mean, within the range that the image had."""
    factor = np.float32(draw_around_one(rng, 0.75, 1.25))
    mean = grey.mean()
    return np.clip(mean + factor * (grey - mean), grey.min(), grey.max())


def lower_resolution(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Leave out pixels, and interpolate them by cubics."""
    side = round(len(grey) * rng.uniform(0.5, 1))
    small = cv2.resize(grey, (side, side), interpolation=cv2.INTER_NEAREST_EXACT)
    return cv2.resize(small, grey.shape[::-1], interpolation=cv2.INTER_CUBIC)


def apply_gamma(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Raise the grey values to a power between their least and highest; mean and SD stay."""
    low, high = float(grey.min()), float(grey.max())
    mean, spread = float(grey.mean()), float(grey.std())
    gamma = draw_around_one(rng, 0.7, 1.5)
    if spread < 1e-6:
        return grey
    bent = ((grey - low) / (high - low)) ** np.float32(gamma)
    return (bent - bent.mean()) * (spread / float(bent.std())) + mean


def apply_negative_gamma(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Do as `apply_gamma` to the negative, so that bright tissue is bent most."""
    return 1 - apply_gamma(1 - grey, rng)


def draw_around_one(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw below or above 1 with equal chance, uniformly on either side."""
    return rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high)


def apply_random_style(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply a style from the standard normal distribution."""
    return apply_style(grey, rng.standard_normal(STYLE_DIM))


def apply_style(grey: np.ndarray, style: np.ndarray) -> np.ndarray:
    """Do in NumPy what `vae_aug.train.style.apply_style` does.

    Args:
        grey: `[S, S] float32` in [0, 1].
        style: `[STYLE_DIM]`, in standard deviations.

    Returns:
        `[S, S] float32` in [0, 1].
    """
    gamma, level, gain, tilt_y, tilt_x = style * list(STYLE_SPREADS.values())
    cosine = np.cos(np.pi * (np.arange(len(grey)) + 0.5) / len(grey))
    gains = np.exp(gain + tilt_y * cosine[:, None] + tilt_x * cosine)
    lit = grey * gains.astype(np.float32)
    levelled = np.maximum(lit + np.float32(level) * np.minimum(lit / _STYLE_TOE, 1), 0)
    return (levelled / max(float(levelled.max()), 1.0)) ** np.float32(np.exp(gamma))
