"""CT slices in PNG files of 16 bits, which hold Hounsfield units and not grey."""

from __future__ import annotations

import numpy as np

from vae_aug.data.annotations.source import Hounsfield
from vae_aug.data.dicom import Window, apply_window, quantize


def show_hounsfield(
    stored: np.ndarray, hounsfield: Hounsfield, window: Window, bits: int | None = None
) -> np.ndarray:
    """Map Hounsfield units to grey, as `vae_aug.data.dicom.read_dicom` does for DICOM.

    Args:
        stored: `[H, W, C] uint16`, the pixels of the file.
        hounsfield: What they stand for.
        window: As `check_window` returns it. `"auto"`: the image's own, else as `"full"`.
        bits: Depth of the result, 8 or 16 (None).

    Returns:
        As `stored`, uint8 or uint16; 0 is black.
    """
    values = stored.astype(np.float64) - hounsfield.offset
    if isinstance(window, tuple):
        greys = apply_window(values, *window)
    else:
        own = hounsfield.window if window == "auto" else None
        low, high = own or (values.min(), values.max())
        greys = np.clip((values - low) / max(high - low, 1.0), 0, 1)
    return quantize(greys, bits or 16)
