"""DICOM images, a frame at a time, from stored values to what a radiologist's display shows.

Colour has none of the steps of `vae_aug.ingest.dicom.values`; it becomes RGB, without its ICC
profile.

Reference:
    DICOM PS3.3 C.7.6.3 (Image Pixel), C.7.6.3.1.2 (Photometric Interpretation); PS3.4 N.2 (Pixel
    Transformation Sequence).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from vae_aug.errors import DicomError
from vae_aug.ingest.dicom.elements import get_integer, get_values
from vae_aug.ingest.dicom.file import DicomErrors, get_frames, read_dataset, read_elements
from vae_aug.ingest.dicom.frames import (
    GREY,
    NO_PICTURES,
    VALUE_GROUPS,
    FunctionalGroups,
    check_header,
    decode_frame,
    describe_frame,
)
from vae_aug.ingest.dicom.palette import apply_palette
from vae_aug.ingest.dicom.values import (
    Voi,
    Window,
    apply_modality,
    choose_own_voi,
    choose_voi,
    find_padding,
    get_rescale,
    is_inverted,
    quantize,
)

WINDOWS: dict[str, tuple[float, float]] = {
    "lung": (-600.0, 1500.0),
    "brain": (40.0, 80.0),
    "bone": (400.0, 1800.0),
    "soft-tissue": (40.0, 400.0),
}
"""Presets for CT: name to (center, width) in Hounsfield units."""

_BLOCK_PIXELS = 2**20
"""Pixels whose grey levels are computed at once, to bound the memory for them."""


_OVERLAY, _OVERLAY_ROWS, _OVERLAY_DATA = 0x60, 0x0010, 0x3000


@dataclasses.dataclass(frozen=True)
class DicomImage:
    """One image.

    Attributes:
        pixels: `[H, W, C] uint8` or `uint16`; C = 1, where 0 is black, or 3 (RGB).
        sop_instance_uid: (0008,0018) SOP Instance UID, `""` if the file has none.
        patient_id: (0010,0020) Patient ID, `""` if the file has none. Not in the repr.
        modality: (0008,0060) Modality, `""` if the file has none.
        pixel_spacing_mm: (0028,0030) Pixel Spacing, row then column, or None.
        voi: What is black and white, None for colour. Not in the repr.
        manufacturer: (0008,0070), `""` if the file has none. Not in the repr.
        burned_in_annotation: As in `DicomHeader`.
    """

    pixels: np.ndarray = dataclasses.field(repr=False)
    sop_instance_uid: str = dataclasses.field(repr=False)
    patient_id: str = dataclasses.field(repr=False)
    modality: str
    pixel_spacing_mm: tuple[float, float] | None
    voi: Voi | None = dataclasses.field(repr=False)
    manufacturer: str = dataclasses.field(default="", repr=False)
    burned_in_annotation: bool | None = None

    @property
    def window(self) -> tuple[float, float] | None:
        """The window in modality units, None where `Voi` has none, and for colour."""
        return None if self.voi is None else self.voi.window


@dataclasses.dataclass(frozen=True)
class DicomHeader:
    """What a data set needs to know of a DICOM file before its pixels are read.

    Attributes:
        sop_instance_uid: (0008,0018) SOP Instance UID, `""` if the file has none.
        patient_id: (0010,0020) Patient ID, `""` if the file has none. Not in the repr.
        height: (0028,0010) Rows, 0 if the file has none.
        width: (0028,0011) Columns, 0 if the file has none.
        frames: (0028,0008) Number of Frames, 1 if the file has none.
        series_instance_uid: (0020,000E), `""` if the file has none.
        study_instance_uid: (0020,000D), `""` if the file has none.
        sop_class_uid: (0008,0016), `""` if the file has none.
        modality: (0008,0060), `""` if the file has none.
        manufacturer: (0008,0070), `""` if the file has none.
        burned_in_annotation: (0028,0301): whether the pixels may identify the patient, None
            if the file does not say.
        is_image: Whether the object is a picture; False for segmentations, reports,
            presentation states, structure sets, doses, annotations and others.
        has_overlay: Whether an overlay (60xx,3000) is drawn in it, or lies in its pixels.
        units: (0054,1001), `""` if the file has none.
        rescales: Slopes and intercepts of the frames of a grey image; none of other images, and
            of those whose values cannot be told.
        has_windows: Whether all of these frames have a window or table of their own, None if one
            is damaged.
    """

    sop_instance_uid: str = dataclasses.field(repr=False)
    patient_id: str = dataclasses.field(repr=False)
    height: int
    width: int
    frames: int = 1
    series_instance_uid: str = dataclasses.field(default="", repr=False)
    study_instance_uid: str = dataclasses.field(default="", repr=False)
    sop_class_uid: str = ""
    modality: str = ""
    manufacturer: str = ""
    burned_in_annotation: bool | None = None
    is_image: bool = True
    has_overlay: bool = False
    units: str = ""
    rescales: frozenset[tuple[float, float]] = frozenset()
    has_windows: bool | None = None


# Headers that were read within `keep_headers`.
_headers: ContextVar[dict[str, DicomHeader] | None] = ContextVar("headers", default=None)


@contextlib.contextmanager
def keep_headers() -> Iterator[None]:
    """Read the header of a file once within a `with` block, in which files do not change."""
    token = _headers.set({})
    try:
        yield
    finally:
        _headers.reset(token)


def check_window(window: Window) -> Window:
    """Check a `window` argument.

    Args:
        window: `"auto"`, `"full"`, a name in `WINDOWS`, (center, width), or those two as
            text, `"40,400"`.

    Returns:
        The argument; a preset and text as (center, width).

    Raises:
        ValueError: If it is none of these, or the width is below 1.
    """
    if isinstance(window, str):
        if window in WINDOWS:
            return WINDOWS[window]
        if window in ("auto", "full"):
            return window
        return _parse_window(window)
    if len(window) == 2 and np.isfinite(window).all() and window[1] >= 1:
        return float(window[0]), float(window[1])
    raise _make_window_error(window)


def _parse_window(text: str) -> Window:
    """Read `"center,width"`."""
    try:
        center, width = (float(part) for part in text.split(","))
    except ValueError:
        raise _make_window_error(text) from None
    return check_window((center, width))


def _make_window_error(window: Any) -> ValueError:
    names = ", ".join(map(repr, ("auto", "full", *WINDOWS)))
    return ValueError(f"window must be {names} or (center, width >= 1); got {window!r}.")


def read_header(path: str | os.PathLike[str]) -> DicomHeader:
    """Read what identifies an object and its size, without its pixels.

    Args:
        path: The DICOM file.

    Returns:
        The header. If it has several frames, the pixel data are long enough for them.

    Raises:
        DicomError: If the file is missing, no DICOM, damaged, beyond the bounds of
            `vae_aug.limits`, or has several frames and pixel data for fewer.
    """
    kept = _headers.get()
    if kept is None:
        return _read_header(path)
    name = os.fspath(path)
    if name not in kept:
        kept[name] = _read_header(path)
    return kept[name]


def _read_header(path: str | os.PathLike[str]) -> DicomHeader:
    with DicomErrors(path):
        dataset, frames = read_elements(path)
        height, width = (get_integer(dataset, k) or 0 for k in ("Rows", "Columns"))
        rescales, has_windows = _read_values(path, dataset, frames)
        return DicomHeader(
            sop_instance_uid=str(dataset.get("SOPInstanceUID") or ""),
            patient_id=str(dataset.get("PatientID") or ""),
            height=height,
            width=width,
            frames=frames,
            series_instance_uid=str(dataset.get("SeriesInstanceUID") or ""),
            study_instance_uid=str(dataset.get("StudyInstanceUID") or ""),
            sop_class_uid=str(dataset.get("SOPClassUID") or ""),
            modality=str(dataset.get("Modality") or ""),
            manufacturer=str(dataset.get("Manufacturer") or ""),
            burned_in_annotation=_tell_burned_in(dataset),
            is_image=bool(height and width) and dataset.get("SOPClassUID") not in NO_PICTURES,
            has_overlay=_has_overlay(dataset),
            units=str(dataset.get("Units") or ""),
            rescales=rescales,
            has_windows=has_windows,
        )


def _read_values(
    path: str | os.PathLike[str], dataset: Dataset, frames: int
) -> tuple[frozenset[tuple[float, float]], bool | None]:
    """Return `rescales` and `has_windows` of a header."""
    rescales = set()
    has_windows: bool | None = True
    with contextlib.suppress(DicomError), DicomErrors(path):
        check_header(dataset)
        if dataset.PhotometricInterpretation not in GREY:
            return frozenset(), None
        groups = FunctionalGroups(dataset, VALUE_GROUPS)
        for described in groups.describe_distinct(frames):
            rescales.add(get_rescale(described))
            has_windows = has_windows and _has_window(path, described)
        return frozenset(rescales), has_windows
    return frozenset(), None


def _has_window(path: str | os.PathLike[str], described: Dataset) -> bool | None:
    """Tell whether a frame has a window or table of its own, None if they are damaged."""
    with contextlib.suppress(DicomError), DicomErrors(path):
        return choose_own_voi(described) is not None
    return None


def _has_overlay(dataset: Dataset) -> bool:
    """Tell whether an overlay of a dataset marks a pixel, PS3.3 C.9.2.

    Its group is any even number from 6000 to 601E; old files have it in unused bits of the pixels.
    """
    tags = dataset.keys()
    for tag in (tag for tag in tags if tag.group >> 8 == _OVERLAY):
        if tag.element == _OVERLAY_DATA:
            value = dataset.get_item(tag).value
            # What is long was not read, and is not all zero for certain.
            if not isinstance(value, bytes) or any(value):
                return True
        if tag.element == _OVERLAY_ROWS and (tag.group, _OVERLAY_DATA) not in dataset:
            return True
    return False


def _tell_burned_in(dataset: Dataset) -> bool | None:
    text = str(dataset.get("BurnedInAnnotation") or "").upper()
    return {"YES": True, "NO": False}.get(text)


def read_dicom(
    path: str | os.PathLike[str],
    window: Window | Voi | None = None,
    *,
    bits: int | None = None,
    frame: int | None = None,
    value_range: tuple[float, float] | None = None,
    dataset: Dataset | None = None,
) -> DicomImage:
    """Read one frame of a DICOM image. No other frame is decoded.

    Args:
        path: The DICOM file, in any transfer syntax that the installed packages decode.
        window: Of grey images. `"auto"` (also None): the first VOI LUT of the file that can be
            applied, else its first such window, else as `"full"`. `"full"`: the lowest to the
            highest value of the frame. A name in `WINDOWS`, (center, width), or those as text, in
            modality units: for CT, Hounsfield units. A `Voi`: that of another image.
        bits: Depth of the result, 8 or 16. None: 16 if the file stores more than 8 bits.
        frame: Index of the frame, from 0. None: the only one.
        value_range: Lowest and highest modality value to be shown instead of those of the frame,
            so that images compare, as `vae_aug.ingest.series.find_series_ranges` finds them.
        dataset: As `read_dataset` returns it, where it was read for another frame.

    Returns:
        The image; colour whose channels are equal is grey. Pixels that the file declares as
        padding are black.

    Raises:
        ValueError: On another window or number of bits, or a negative frame.
        DicomError: If the file is missing, no DICOM, damaged, no image, without pixel data, without
            that frame, of several if `frame` is None, beyond the bounds of `vae_aug.limits`,
            of another colour space, or compressed in a syntax that no installed package decodes.
            It names the file, and no identifier in it.
    """
    if not isinstance(window, Voi):
        window = check_window("auto" if window is None else window)
    if bits not in (None, 8, 16):
        raise ValueError(f"bits must be 8, 16 or None; got {bits!r}.")
    if frame is not None and frame < 0:
        raise ValueError(f"frame must be at least 0; got {frame}.")
    with DicomErrors(path):
        dataset = read_dataset(path) if dataset is None else dataset
        check_header(dataset)
        if frame is None and get_frames(dataset) != 1:
            raise DicomError(f"has {get_frames(dataset)} frames (0028,0008); pass frame=.")
        frame = frame or 0
        stored = decode_frame(path, dataset, frame)
        described = describe_frame(dataset, frame)
        voi = None
        if dataset.PhotometricInterpretation in GREY:
            bits = bits or (8 if (get_integer(dataset, "BitsStored") or 16) <= 8 else 16)
            pixels, voi = _show_grey(stored, described, window, bits, value_range)
        else:
            pixels = _show_colour(stored, dataset, bits)
        return DicomImage(
            pixels=pixels,
            sop_instance_uid=str(dataset.get("SOPInstanceUID") or ""),
            patient_id=str(dataset.get("PatientID") or ""),
            modality=str(dataset.get("Modality") or ""),
            pixel_spacing_mm=_get_spacing(described),
            voi=voi,
            manufacturer=str(dataset.get("Manufacturer") or ""),
            burned_in_annotation=_tell_burned_in(dataset),
        )


class _Levels:
    """The values that occur in a grey image `[H, W]`.

    A pixel's grey depends on its stored value alone, so it is computed once for each value.
    """

    def __init__(self, stored: np.ndarray) -> None:
        self._offsets: np.ndarray | None = None
        self.values = stored
        if stored.dtype.kind in "iu" and stored.itemsize <= 2:
            least = stored.min()
            # In the unsigned type of the same size a difference is right although it may wrap.
            self._offsets = (stored - least).view(f"u{stored.itemsize}")
            occurs = np.zeros(int(stored.max()) - int(least) + 1, bool)
            for block in _iterate_blocks(self._offsets):
                occurs[block] = True
            self._occurs = occurs
            self.values = (np.flatnonzero(occurs) + int(least)).astype(stored.dtype)

    def spread(self, greys: np.ndarray) -> np.ndarray:
        """Return the image `[H, W, 1]` of the greys of `values`."""
        if self._offsets is None:
            return greys[..., None]
        table = np.zeros(len(self._occurs), greys.dtype)
        table[self._occurs] = greys
        return _look_up_blocks(table, self._offsets)[..., None]


def _iterate_blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield an array `[N, ...]` in parts of about `_BLOCK_PIXELS` values."""
    count = max(1, _BLOCK_PIXELS * len(array) // max(array.size, 1))
    for start in range(0, len(array), count):
        yield array[start : start + count]


def _look_up_blocks(table: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return `table[places]`, for which NumPy would make all places 8 bytes wide at once."""
    out = np.empty(places.shape, table.dtype)
    for target, block in zip(_iterate_blocks(out), _iterate_blocks(places), strict=True):
        target[...] = table[block]
    return out


def _show_grey(
    stored: np.ndarray,
    dataset: Dataset,
    window: Window | Voi,
    bits: int,
    value_range: tuple[float, float] | None,
) -> tuple[np.ndarray, Voi]:
    """Map stored values `[H, W]` to `[H, W, 1]` of 8 or 16 bits, and tell how."""
    levels = _Levels(stored)
    if isinstance(window, Voi):
        voi = window
    else:
        value_range = value_range or _find_range(levels.values, dataset) or (0.0, 0.0)
        voi = choose_voi(dataset, window, value_range)
    pixels = np.empty(levels.values.shape, np.uint8 if bits == 8 else np.uint16)
    for target, block in zip(_iterate_blocks(pixels), _iterate_blocks(levels.values), strict=True):
        greys = voi.apply(apply_modality(block, dataset))
        if is_inverted(dataset):
            greys = 1 - greys
        target[...] = quantize(np.where(find_padding(block, dataset), 0.0, greys), bits)
    return levels.spread(pixels), voi


def _find_range(stored: np.ndarray, dataset: Dataset) -> tuple[float, float] | None:
    """Return the lowest and the highest modality value that is no padding, None without one."""
    low, high = np.inf, -np.inf
    for block in _iterate_blocks(stored):
        shown = apply_modality(block, dataset)[~find_padding(block, dataset)]
        if shown.size:
            low, high = min(low, float(shown.min())), max(high, float(shown.max()))
    return (low, high) if low <= high else None


def find_frame_range(
    path: str | os.PathLike[str], dataset: Dataset, frame: int
) -> tuple[float, float] | None:
    """Return the lowest and the highest modality value of a frame that is no padding.

    Args:
        path: The DICOM file; use this within `DicomErrors`, after `check_header`.
        dataset: Its elements, pixel data included.
        frame: Index of the frame, from 0.

    Returns:
        The range; None of a frame that is all padding.

    Raises:
        DicomError: As `read_dicom`.
    """
    stored = decode_frame(path, dataset, frame)
    return _find_range(_Levels(stored).values, describe_frame(dataset, frame))


def _show_colour(stored: np.ndarray, dataset: Dataset, bits: int | None) -> np.ndarray:
    """Map colour to `[H, W, 1 or 3]` of 8 or 16 bits."""
    depth = int(dataset.BitsStored)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        stored, depth = apply_palette(stored, dataset)
    if all((block == block[..., :1]).all() for block in _iterate_blocks(stored)):
        stored = stored[..., :1]
    bits = bits or (8 if depth <= 8 else 16)
    if stored.itemsize <= 2:
        table = _scale_colour(np.arange(2 ** (8 * stored.itemsize)), depth, bits)
        return _look_up_blocks(table, stored)
    return np.concatenate([_scale_colour(x, depth, bits) for x in _iterate_blocks(stored)])


def _scale_colour(samples: np.ndarray, depth: int, bits: int) -> np.ndarray:
    return quantize(np.clip(samples / (2.0**depth - 1), 0, 1), bits)


def _get_spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Return (0028,0030) Pixel Spacing; None if it is not two lengths, as it changes no pixel."""
    try:
        row, column = (float(value) for value in get_values(dataset, "PixelSpacing"))
    except (DicomError, TypeError, ValueError):
        return None
    return (row, column) if 0 < row < np.inf and 0 < column < np.inf else None
