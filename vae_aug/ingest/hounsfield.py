"""Images in files of 16 bits that hold values of some unit, such as Hounsfield's, and not grey."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vae_aug.errors import VAEAugError
from vae_aug.ingest.dicom.image import WINDOWS, check_window
from vae_aug.ingest.dicom.values import Window, apply_window, get_window_limits, quantize


class Hounsfield(NamedTuple):
    """What the pixels of a PNG of 16 bits stand for, where they are no grey.

    Attributes:
        offset: What was added to Hounsfield units.
        window: The units that are black and white, None if the source names none.
    """

    offset: int
    window: tuple[float, float] | None


def show_hounsfield(
    stored: np.ndarray, hounsfield: Hounsfield, window: Window, bits: int | None = None
) -> np.ndarray:
    """Map Hounsfield units to grey, as `vae_aug.ingest.dicom.image.read_dicom` does for DICOM.

    Args:
        stored: `[H, W, C] uint16`, the pixels of the file.
        hounsfield: What they stand for.
        window: As `check_window` returns it. `"auto"`: the image's own, else as `"full"`.
        bits: Depth of the result, 8 or 16 (None).

    Returns:
        As `stored`, uint8 or uint16; 0 is black.
    """
    own = hounsfield.window if window == "auto" else None
    return _show(stored.astype(np.float64) - hounsfield.offset, window, own, bits)


def show_stored(stored: np.ndarray, window: Window, bits: int | None = None) -> np.ndarray:
    """Map values of which nobody knows the unit to grey.

    Args:
        stored: `[H, W, C] uint16`, the pixels of the file.
        window: `"full"`: the image's lowest to its highest value. Or (center, width), in the values
            of the file.
        bits: Depth of the result, 8 or 16 (None).

    Returns:
        As `stored`, uint8 or uint16; 0 is black.

    Raises:
        VAEAugError: If the window is a preset in Hounsfield units.
    """
    _refuse_preset(window)
    return _show(stored.astype(np.float64), window, None, bits)


def find_stored_limits(stored: np.ndarray, window: Window) -> tuple[float, float]:
    """Find which values `show_stored` makes black and white.

    Args:
        stored: As `show_stored`.
        window: As `show_stored`, or as text.

    Returns:
        `(low, high)`, in the values of the file.

    Raises:
        ValueError: If it is no window.
        VAEAugError: As `show_stored`.
    """
    _refuse_preset(window)
    window = check_window(window)
    if isinstance(window, tuple):
        return get_window_limits(*window)
    return float(stored.min()), float(stored.max())


def _refuse_preset(window: Window) -> None:
    if isinstance(window, str) and window in WINDOWS:
        center, width = WINDOWS[window]
        raise VAEAugError(
            f"the window {window} is in Hounsfield units, and the file does not say what its "
            "values stand for; give --window CENTER,WIDTH in these values, e.g. "
            f"{center + 1024:g},{width:g} if they are Hounsfield units + 1024."
        )


def _show(
    values: np.ndarray, window: Window, own: tuple[float, float] | None, bits: int | None
) -> np.ndarray:
    """Map values to grey by a window, else between two values or the lowest and the highest."""
    if isinstance(window, tuple):
        greys = apply_window(values, *window)
    else:
        low, high = own or (values.min(), values.max())
        greys = np.clip((values - low) / max(high - low, 1.0), 0, 1)
    return quantize(greys, bits or 16)
