"""Classical filters, at their best: the floors that a network has to be above.

Each filter's strength is the best of a small grid, by mean SSIM on a few images whose clean
version is known. That favours the filters, as nobody has a clean version when it matters.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import ndimage
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from vae_aug.evaluate.metrics import ssim

GREY_PULLING = ("replace", "blend", "missing_lines")
"""Corruptions whose expected value is `keep * image + (1 - keep) / 2`: contrast shrinks."""

_NLM_PATCH_PX, _NLM_DISTANCE_PX = 5, 6


def _filter_median(plane: np.ndarray, window_px: float) -> np.ndarray:
    return ndimage.median_filter(plane, size=int(window_px))


def _filter_tv(plane: np.ndarray, weight: float) -> np.ndarray:
    return denoise_tv_chambolle(plane, weight=weight)


def _filter_nlm(plane: np.ndarray, h: float) -> np.ndarray:
    return denoise_nl_means(
        plane, patch_size=_NLM_PATCH_PX, patch_distance=_NLM_DISTANCE_PX, h=h, fast_mode=True
    )


def _filter_bm3d(plane: np.ndarray, sigma: float) -> np.ndarray:
    # Its licence is non-commercial, so it is the user's to install and never a dependency.
    import bm3d

    return bm3d.bm3d(plane, sigma_psd=sigma)


METHODS: dict[str, tuple[Callable[[np.ndarray, float], np.ndarray], str, tuple[float, ...]]] = {
    "median": (_filter_median, "window_px", (3, 5, 9, 13)),
    "tv": (_filter_tv, "weight", (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)),
    "nlm": (_filter_nlm, "h", (0.1, 0.2, 0.4, 0.8, 1.2, 1.6)),
    "bm3d": (_filter_bm3d, "sigma", (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)),
}


@dataclasses.dataclass(frozen=True)
class Filter:
    """A classical filter, its strength fixed.

    Attributes:
        method: `"median"`, `"tv"` (Chambolle), `"nlm"` (non-local means, patches of 5 pixels up
            to 6 pixels apart) or `"bm3d"`.
        strength: Window in pixels, weight, h or sigma, in this order.
        stretch: Share of the contrast that is left, which is undone around mid grey before
            filtering; 1 for none.
    """

    method: str
    strength: float
    stretch: float = 1.0

    def __call__(self, plane: np.ndarray) -> np.ndarray:
        """Filter an image: `[H, W]` in [0, 1] to `[H, W] float64` in [0, 1]."""
        function, _, _ = METHODS[self.method]
        stretched = (np.asarray(plane, np.float64) - 0.5) / self.stretch + 0.5
        return np.clip(function(stretched, self.strength), 0.0, 1.0)

    def to_dict(self) -> dict[str, float]:
        """Return the parameters by name, JSON values."""
        return {METHODS[self.method][1]: self.strength, "contrast_undone": 1 / self.stretch}


def list_methods() -> list[str]:
    """List the methods that are installed; BM3D only if the user has the package `bm3d`."""
    methods = list(METHODS)
    if importlib.util.find_spec("bm3d") is None:
        methods.remove("bm3d")
    return methods


def describe_grids() -> dict[str, dict[str, list[float]]]:
    """Return the strengths that are tried, by method and parameter, JSON values."""
    return {method: {METHODS[method][1]: list(METHODS[method][2])} for method in list_methods()}


def make_grid(method: str, corruption: str, keep: float) -> list[Filter]:
    """List the filters to choose from: each strength, and with and without contrast undone.

    Args:
        method: One of `list_methods`.
        corruption: What the filter is to remove; contrast is undone where it shrank.
        keep: Share of the information left, in (0, 1].

    Returns:
        The filters.
    """
    stretches = (1.0, keep) if corruption in GREY_PULLING and keep < 1 else (1.0,)
    strengths = METHODS[method][2]
    return [Filter(method, strength, stretch) for strength in strengths for stretch in stretches]


def tune_filters(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    corruption: str,
    keep: float,
    progress: Callable[[], None] | None = None,
) -> Mapping[str, Filter]:
    """Choose the best filter of every installed method.

    Args:
        pairs: Clean and noisy images, `[H, W]` in [0, 1] each.
        corruption: What made them noisy.
        keep: Share of the information left, in (0, 1].
        progress: Called after each pair.

    Returns:
        Methods to filters, by the highest mean SSIM over the pairs.
    """
    grids = {method: make_grid(method, corruption, keep) for method in list_methods()}
    scores = dict.fromkeys((f for grid in grids.values() for f in grid), 0.0)
    for clean, noisy in pairs:
        for candidate in scores:
            scores[candidate] += ssim(clean, candidate(noisy))
        if progress is not None:
            progress()
    return {method: max(grid, key=scores.__getitem__) for method, grid in grids.items()}
