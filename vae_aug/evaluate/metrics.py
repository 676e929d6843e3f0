"""How close an image is to its reference, on all of it or on a region, and how sure that is.

Images are `[H, W]` or `[H, W, 1]` floating point with a data range of 1; computation is in
float64. A region is a boolean mask `[H, W]`; None is the whole image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

SIGMA_PX = 1.5
"""Standard deviation of SSIM's Gaussian window."""

PERFECT_DB = 100.0
"""PSNR of an error below 1e-5 of the range, as of identical images: a mean stays finite."""

_TRUNCATE = 3.5
_RADIUS_PX = int(_TRUNCATE * SIGMA_PX + 0.5)
_C1, _C2 = 0.01**2, 0.03**2
_BODY_SMOOTHING_PX = 2.0
_BODY_GAP = 0.03
"""Radius of the closing, as a share of the longer side."""


def ssim(reference: np.ndarray, image: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Compute the mean structural similarity.

    Args:
        reference: `[H, W]` or `[H, W, 1]` in [0, 1].
        image: Same shape.
        mask: `[H, W] bool`; the mean of `ssim_map` over it. None: over the whole image without
            the border of 5 pixels in which windows reach beyond the image, as the paper and
            scikit-image do (with it, if the image is smaller than a window).

    Returns:
        In [-1, 1], 1 for identical images; NaN for an empty mask.

    Raises:
        ValueError: If shapes disagree.
    """
    return _mean_similarity(ssim_map(reference, image), mask)


def ssim_map(reference: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Compute the structural similarity around every pixel.

    `(2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sx^2 + sy^2 + C2))` of means, variances and
    covariance under a Gaussian window of `SIGMA_PX`, 11 x 11 pixels, with C1 = 0.01^2 and
    C2 = 0.03^2. At the border the image is mirrored.

    Args:
        reference: `[H, W]` or `[H, W, 1]` in [0, 1].
        image: Same shape.

    Returns:
        `[H, W] float64` in [-1, 1].

    Raises:
        ValueError: If shapes disagree.

    Reference:
        Wang et al., Image quality assessment: from error visibility to structural similarity,
        IEEE Transactions on Image Processing 13 (2004) 600-612. The values are those of
        `skimage.metrics.structural_similarity(gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, data_range=1)`.
    """
    x, y = _check_pair(reference, image)
    mean_x, mean_y = _smooth(x), _smooth(y)
    covariance = _smooth(x * y) - mean_x * mean_y
    variances = _smooth(x * x + y * y) - mean_x**2 - mean_y**2
    similarity = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    return similarity / ((mean_x**2 + mean_y**2 + _C1) * (variances + _C2))


def psnr(reference: np.ndarray, image: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Compute the peak signal-to-noise ratio, `-10 log10(mean squared error)`.

    Args:
        reference: `[H, W]` or `[H, W, 1]` in [0, 1].
        image: Same shape.
        mask: `[H, W] bool`, or None for the whole image.

    Returns:
        In dB, at most `PERFECT_DB`; NaN for an empty mask.

    Raises:
        ValueError: If shapes disagree.

    Example:
        >>> round(psnr(np.zeros((4, 4)), np.full((4, 4), 0.1)), 6)
        20.0
    """
    x, y = _select(reference, image, mask)
    error = _mean((x - y) ** 2)
    return float(-10 * np.log10(np.maximum(error, 10 ** (-PERFECT_DB / 10))))


def r2(reference: np.ndarray, image: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Compute the coefficient of determination: the share of the variance that is explained.

    `1 - sum (x - y)^2 / sum (x - mean x)^2`; below 0 the reference's own mean grey is closer.

    Args:
        reference: `[H, W]` or `[H, W, 1]`.
        image: Same shape.
        mask: `[H, W] bool`, or None for the whole image.

    Returns:
        At most 1; NaN where the reference has no variance, or the mask is empty.

    Raises:
        ValueError: If shapes disagree.

    Example:
        >>> r2(np.array([[0.0, 1.0]]), np.array([[0.5, 0.5]]))
        0.0
    """
    x, y = _select(reference, image, mask)
    variance = np.sum((x - x.mean()) ** 2) if x.size else 0.0
    return float(1 - np.sum((x - y) ** 2) / variance) if variance > 0 else float("nan")


def measure_regions(
    reference: np.ndarray, image: np.ndarray, masks: Mapping[str, np.ndarray | None]
) -> dict[str, dict[str, float]]:
    """Compute `ssim`, `psnr` and `r2` on several regions; the map of SSIM is computed once.

    Args:
        reference: `[H, W]` or `[H, W, 1]` in [0, 1].
        image: Same shape.
        masks: Names of regions to their masks, as `ssim` takes them.

    Returns:
        Names of regions to `{"ssim", "psnr", "r2"}`.

    Raises:
        ValueError: If shapes disagree.
    """
    similarity = ssim_map(reference, image)
    return {
        name: {
            "ssim": _mean_similarity(similarity, mask),
            "psnr": psnr(reference, image, mask),
            "r2": r2(reference, image, mask),
        }
        for name, mask in masks.items()
    }


def find_body(image: np.ndarray) -> np.ndarray:
    """Find the body in a slice: the largest bright region, without gaps and holes.

    The image is smoothed, so that a noisy background does not matter, and cut at half of Otsu's
    threshold: the threshold itself separates soft from bright tissue as readily as the body from
    air, half of it lies between tissue and air in both cases. Gaps are closed, because fat is as
    black as air in many a CT window and would leave organs apart.

    Args:
        image: `[H, W]` or `[H, W, 1]`, air dark.

    Returns:
        `[H, W] bool`; everything, if the image is flat.

    Reference:
        Otsu, A threshold selection method from gray-level histograms, IEEE Transactions on
        Systems, Man, and Cybernetics 9 (1979) 62-66.
    """
    smooth = ndimage.gaussian_filter(_to_plane(image), _BODY_SMOOTHING_PX)
    if np.ptp(smooth) < 1e-6:
        return np.ones(smooth.shape, bool)
    darkest = smooth.min()
    bright = smooth > darkest + 0.5 * (threshold_otsu(smooth) - darkest)
    filled = ndimage.binary_fill_holes(_close(bright, _BODY_GAP * max(smooth.shape)))
    regions, count = ndimage.label(filled)
    sizes = ndimage.sum_labels(filled, regions, np.arange(1, count + 1))
    return regions == 1 + int(np.argmax(sizes))


def make_box_mask(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Mark the pixels inside of any box.

    Args:
        boxes: `[N, 4]`, `rel_yxyx`. Boxes that are not finite or have no area mark nothing.
        height: Of the image in pixels.
        width: Of the image in pixels.

    Returns:
        `[height, width] bool`. A box marks every pixel that it touches.
    """
    mask = np.zeros((height, width), bool)
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    usable = np.isfinite(boxes).all(-1) & (boxes[:, 2:] > boxes[:, :2]).all(-1)
    # The tolerance keeps a side stored as float32 from touching the next pixel.
    corners = boxes[usable] * [height, width, height, width]
    starts = np.maximum(np.floor(corners[:, :2] + 1e-3), 0).astype(int)
    ends = np.maximum(np.ceil(corners[:, 2:] - 1e-3), 0).astype(int)
    for (top, left), (bottom, right) in zip(starts, ends, strict=True):
        mask[top:bottom, left:right] = True
    return mask


Unit = Literal["patients", "images"]


def choose_groups(patients: Sequence[str]) -> tuple[list[str], Unit]:
    """Choose what an interval resamples: patients, or images if fewer than two patients are known.

    Args:
        patients: `[N]`, the patient of each image, `""` where none is known.

    Returns:
        The group of each image, for `bootstrap_interval`, and what the groups are. Among patients
        an image whose patient is unknown counts as one.
    """
    groups = [patient or f"image {index}" for index, patient in enumerate(patients)]
    if any(patients) and len(set(groups)) > 1:
        return groups, "patients"
    return [str(index) for index in range(len(patients))], "images"


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    groups: Sequence[str] | np.ndarray,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Estimate the interval of a mean whose values come in groups, e.g. images of patients.

    Whole groups are resampled with replacement and the mean of all their values is taken; the
    interval lies between quantiles of these means. Images of one patient are alike, so resampling
    images would make it too narrow.

    Args:
        values: `[N]` numbers; NaN are left out.
        groups: `[N]`, the group of each.
        level: Share of the means inside of the interval.
        resamples: How often.
        seed: Of the resampling.

    Returns:
        `(low, high)`; NaN if fewer than two groups have values.

    Raises:
        ValueError: If lengths differ or `level` is not in (0, 1).

    Reference:
        Davison and Hinkley, Bootstrap Methods and their Application (1997), 3.8 (hierarchical
        data) and 5.3.1 (percentile method).
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) != len(groups):
        raise ValueError(f"values and groups must be [N]; got {values.shape} and {len(groups)}.")
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1); got {level}.")
    usable = np.isfinite(values)
    _, members = np.unique(np.asarray(groups)[usable], return_inverse=True)
    if not members.size or members.max() < 1:
        return float("nan"), float("nan")
    sums, counts = np.bincount(members, values[usable]), np.bincount(members)
    chosen = np.random.default_rng(seed).integers(0, len(sums), (resamples, len(sums)))
    means = sums[chosen].sum(1) / counts[chosen].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _mean_similarity(values: np.ndarray, mask: np.ndarray | None) -> float:
    """Average a map of SSIM as `ssim` says."""
    if mask is not None:
        return _mean(values[_check_mask(mask, values)])
    inner = values[_RADIUS_PX:-_RADIUS_PX, _RADIUS_PX:-_RADIUS_PX]
    return _mean(inner if inner.size else values)


def _smooth(plane: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(plane, SIGMA_PX, mode="reflect", truncate=_TRUNCATE)


def _close(mask: np.ndarray, radius: float) -> np.ndarray:
    """Close gaps of a mask with a disk; the image's border is no edge."""
    widened = ndimage.distance_transform_edt(~mask) <= radius
    if widened.all():
        return widened
    return ndimage.distance_transform_edt(widened) > radius


def _to_plane(image: np.ndarray) -> np.ndarray:
    """Return an image as `[H, W] float64`."""
    plane = np.asarray(image, np.float64)
    plane = plane[..., 0] if plane.ndim == 3 and plane.shape[2] == 1 else plane
    if plane.ndim != 2 or not plane.size:
        raise ValueError(f"an image must be [H, W] or [H, W, 1]; got shape {np.shape(image)}.")
    return plane


def _check_pair(reference: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = _to_plane(reference), _to_plane(image)
    if x.shape != y.shape:
        raise ValueError(f"reference and image must have one shape; got {x.shape} and {y.shape}.")
    return x, y


def _check_mask(mask: np.ndarray, plane: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.dtype != bool or mask.shape != plane.shape:
        raise ValueError(
            f"mask must be bool of shape {plane.shape}; got {mask.dtype} of shape {mask.shape}."
        )
    return mask


def _select(
    reference: np.ndarray, image: np.ndarray, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return both images' pixels inside of the mask."""
    x, y = _check_pair(reference, image)
    if mask is None:
        return x.ravel(), y.ravel()
    mask = _check_mask(mask, x)
    return x[mask], y[mask]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
