"""DICOM images of one frame, from stored values to what a radiologist's display would show.

The order of the steps is that of the standard: stored values, modality transformation (e.g.
to Hounsfield units), value of interest (window), then the polarity of the photometric
interpretation.

Reference:
    DICOM PS3.3 C.11.1 (Modality LUT), C.11.2 (VOI LUT), C.7.6.3.1.2 (Photometric
    Interpretation), C.7.5.1.1.2 (Pixel Padding); PS3.4 N.2 (Pixel Transformation Sequence).
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_modality_lut, apply_voi

from vae_aug.data.images import MAX_PIXELS
from vae_aug.errors import DicomError

Window = str | tuple[float, float]

WINDOWS: dict[str, tuple[float, float]] = {
    "lung": (-600.0, 1500.0),
    "brain": (40.0, 80.0),
    "bone": (400.0, 1800.0),
    "soft-tissue": (40.0, 400.0),
}
"""Presets for CT: name to (center, width) in Hounsfield units."""


@dataclasses.dataclass(frozen=True)
class DicomImage:
    """One image.

    Attributes:
        pixels: `[H, W, 1] uint8` or `uint16`; 0 is black.
        sop_instance_uid: (0008,0018) SOP Instance UID, `""` if the file has none.
        patient_id: (0010,0020) Patient ID, `""` if the file has none. Not in the repr.
        modality: (0008,0060) Modality, `""` if the file has none.
        pixel_spacing_mm: (0028,0030) Pixel Spacing, row then column, or None.
        window: What was mapped to black and white: (center, width) of the window in modality
            units, or None where a VOI LUT or the range of the values was.
    """

    pixels: np.ndarray = dataclasses.field(repr=False)
    sop_instance_uid: str = dataclasses.field(repr=False)
    patient_id: str = dataclasses.field(repr=False)
    modality: str
    pixel_spacing_mm: tuple[float, float] | None
    window: tuple[float, float] | None

    @property
    def source_id(self) -> str:
        """Key of the image: its SOP Instance UID."""
        return self.sop_instance_uid


@dataclasses.dataclass(frozen=True)
class DicomHeader:
    """What a data set needs to know of a DICOM file before its pixels are read.

    Attributes:
        sop_instance_uid: (0008,0018) SOP Instance UID, `""` if the file has none.
        patient_id: (0010,0020) Patient ID, `""` if the file has none. Not in the repr.
        height: (0028,0010) Rows, 0 if the file has none.
        width: (0028,0011) Columns, 0 if the file has none.
    """

    sop_instance_uid: str = dataclasses.field(repr=False)
    patient_id: str = dataclasses.field(repr=False)
    height: int
    width: int


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file has the DICOM prefix (PS3.10 7.1); False if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def check_window(window: Window) -> Window:
    """Check a `window` argument.

    Args:
        window: `"auto"`, `"full"`, a name in `WINDOWS`, or (center, width).

    Returns:
        The argument; a preset as its (center, width).

    Raises:
        ValueError: If it is none of these, or the width is below 1.
    """
    if isinstance(window, str):
        if window in WINDOWS:
            return WINDOWS[window]
        if window in ("auto", "full"):
            return window
    elif len(window) == 2 and np.isfinite(window).all() and window[1] >= 1:
        return float(window[0]), float(window[1])
    names = ", ".join(map(repr, ("auto", "full", *WINDOWS)))
    raise ValueError(f"window must be {names} or (center, width >= 1); got {window!r}.")


def read_header(path: str | os.PathLike[str]) -> DicomHeader:
    """Read what identifies an image and its size, without its pixels.

    Args:
        path: The DICOM file.

    Returns:
        The header.

    Raises:
        DicomError: If the file is missing, no DICOM, or damaged.
    """
    with DicomErrors(path):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        return DicomHeader(
            sop_instance_uid=str(dataset.get("SOPInstanceUID") or ""),
            patient_id=str(dataset.get("PatientID") or ""),
            height=int(dataset.get("Rows") or 0),
            width=int(dataset.get("Columns") or 0),
        )


def read_dicom(
    path: str | os.PathLike[str], window: Window | None = None, *, bits: int | None = None
) -> DicomImage:
    """Read a grey DICOM image of one frame.

    Args:
        path: The DICOM file, in any transfer syntax that the installed packages decode.
        window: `"auto"` (also None): the first VOI LUT or window of the file, else as
            `"full"`. `"full"`: the lowest to the highest value of the image. A name in
            `WINDOWS`, or (center, width), in modality units: for CT, Hounsfield units.
        bits: Depth of the result, 8 or 16. None: 16 if the file stores more than 8 bits.

    Returns:
        The image. Pixels that the file declares as padding are black.

    Raises:
        ValueError: On another window or number of bits.
        DicomError: If the file is missing, no DICOM, damaged, without pixel data, of several
            frames, in colour, larger than `MAX_PIXELS`, or compressed in a syntax that no
            installed package decodes. It names the file, and no identifier in it.
    """
    window = check_window("auto" if window is None else window)
    if bits not in (None, 8, 16):
        raise ValueError(f"bits must be 8, 16 or None; got {bits!r}.")
    with DicomErrors(path):
        dataset = pydicom.dcmread(path)
        check_header(dataset)
        stored = decode_pixels(dataset)
        values, used = _apply_voi(apply_modality(stored, dataset), stored, dataset, window)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            values = 1 - values
        values = np.where(find_padding(stored, dataset), 0.0, values)
        if bits is None:
            bits = 8 if dataset.BitsStored <= 8 else 16
        scaled = np.floor(values * (2**bits - 1) + 0.5)
        return DicomImage(
            pixels=scaled.astype(np.uint8 if bits == 8 else np.uint16)[..., None],
            sop_instance_uid=str(dataset.get("SOPInstanceUID") or ""),
            patient_id=str(dataset.get("PatientID") or ""),
            modality=str(dataset.get("Modality") or ""),
            pixel_spacing_mm=_get_spacing(dataset),
            window=used,
        )


class DicomErrors:
    """Turn whatever reading a file raises into a `DicomError`, and silence its warnings.

    A damaged element can make pydicom raise almost anything, and its messages may quote the
    element's value, so of a foreign error only the kind is told.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Remember which file the messages are about."""
        self._path = os.fspath(path)
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> None:
        self._warnings.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._warnings.__exit__(kind, error, trace)
        match error:
            case None:
                return
            case DicomError():
                raise DicomError(f"{self._path}: {error}") from error
            case InvalidDicomError():
                reason = "not a DICOM file (no DICM prefix)"
            case OSError() if error.strerror:
                reason = f"cannot be read ({error.strerror})"
            case MemoryError():
                reason = "its pixels do not fit into memory"
            case Exception():
                reason = f"damaged or not readable ({kind.__name__})"
            case _:
                return
        raise DicomError(f"{self._path}: {reason}.") from None


def check_header(dataset: pydicom.Dataset) -> None:
    """Refuse what is no grey image of one frame, before its pixels are touched."""
    if not any(key in dataset for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise DicomError("has no pixel data (7FE0,0010); it is no image, leave it out.")
    if not {"FloatPixelData", "DoubleFloatPixelData"}.isdisjoint(dataset.dir()):
        raise DicomError("holds floating-point pixels (7FE0,0008), which are not supported.")
    for keyword, tag in (
        ("Rows", "(0028,0010) Rows"),
        ("Columns", "(0028,0011) Columns"),
        ("BitsStored", "(0028,0101) Bits Stored"),
        ("PhotometricInterpretation", "(0028,0004) Photometric Interpretation"),
    ):
        if not dataset.get(keyword):
            raise DicomError(f"{tag} is missing or 0.")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise DicomError(
            f"has {frames} frames (0028,0008); several frames are not supported yet, "
            "split the file into one file a frame."
        )
    photometric = str(dataset.PhotometricInterpretation)
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise DicomError(
            "(0028,0004) Photometric Interpretation must be MONOCHROME1 or MONOCHROME2; "
            f"got {photometric}."
        )
    if dataset.Rows * dataset.Columns > MAX_PIXELS:
        raise DicomError(
            f"declares {dataset.Rows} x {dataset.Columns} pixels; at most {MAX_PIXELS} are read."
        )


def decode_pixels(dataset: pydicom.Dataset) -> np.ndarray:
    """Return the stored values `[H, W]`."""
    syntax = dataset.file_meta.get("TransferSyntaxUID") if "file_meta" in dir(dataset) else None
    if syntax is None:
        raise DicomError("(0002,0010) Transfer Syntax UID is missing.")
    try:
        stored = dataset.pixel_array
    except (ValueError, AttributeError, RuntimeError, NotImplementedError) as error:
        if (
            syntax.is_compressed
            and syntax.is_encapsulated
            and isinstance(error, RuntimeError | NotImplementedError)
        ):
            raise DicomError(
                f"compressed as {syntax.name}, and it could not be decoded; if no decoder is "
                "installed, run: pip install 'vae-aug[dicom]'."
            ) from error
        raise DicomError(
            f"the pixel data (7FE0,0010) are damaged or do not fit the header "
            f"({type(error).__name__})."
        ) from error
    if stored.ndim != 2:
        raise DicomError(f"expected pixels of shape [Rows, Columns]; got {stored.shape}.")
    return stored


def apply_modality(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Map stored values to modality units, PS3.3 C.11.1.1."""
    return apply_modality_lut(stored, dataset).astype(np.float64)


def _apply_voi(
    values: np.ndarray, stored: np.ndarray, dataset: pydicom.Dataset, window: Window
) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Map modality values to [0, 1], and tell the window that was used."""
    if isinstance(window, tuple):
        return apply_window(values, *window), window
    if window == "auto":
        if dataset.get("VOILUTSequence"):
            return _apply_voi_lut(values, dataset), None
        center, width = (get_first(dataset, k) for k in ("WindowCenter", "WindowWidth"))
        if center is not None and width is not None:
            function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
            try:
                return apply_window(values, center, width, function), (center, width)
            except ValueError as error:
                raise DicomError(
                    f"(0028,1050) Window Center {center:g} and (0028,1051) Window Width "
                    f"{width:g} cannot be applied ({error}); pass window='full' or "
                    "(center, width)."
                ) from error
    shown = values[~find_padding(stored, dataset)]
    low, high = (shown.min(), shown.max()) if shown.size else (0.0, 0.0)
    return np.clip((values - low) / max(high - low, np.finfo(np.float64).tiny), 0, 1), None


def apply_window(
    values: np.ndarray, center: float, width: float, function: str = "LINEAR"
) -> np.ndarray:
    """Map values to [0, 1] through a window.

    `"LINEAR"`: (x - (c - 0.5)) / (w - 1) + 0.5, cut to [0, 1]; `"LINEAR_EXACT"`:
    (x - c) / w + 0.5, cut; `"SIGMOID"`: 1 / (1 + exp(-4 (x - c) / w)).

    Args:
        values: Floating point, in modality units.
        center: (0028,1050) Window Center c.
        width: (0028,1051) Window Width w.
        function: (0028,1056) VOI LUT Function.

    Returns:
        float64 in [0, 1], shape as `values`.

    Raises:
        ValueError: If the width does not suit the function, or the function is unknown.

    Reference:
        DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3.

    Example:
        >>> apply_window(np.array([-160.5, 39.5, 239.5]), 40, 401).tolist()
        [0.0, 0.5, 1.0]
    """
    least = {"LINEAR": 1.0, "LINEAR_EXACT": 0.0, "SIGMOID": 0.0}.get(function)
    if least is None:
        raise ValueError(f"function must be LINEAR, LINEAR_EXACT or SIGMOID; got {function!r}")
    if not np.isfinite([center, width]).all() or width < least or width <= 0:
        raise ValueError(
            f"width must be at least {max(least, np.finfo(float).tiny):g}; got {width:g}"
        )
    if function == "SIGMOID":
        # exp overflows to inf beyond 709, and 1 / (1 + inf) is the 0 that is meant.
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0, 1)


def _apply_voi_lut(values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Map modality values to [0, 1] through the first VOI LUT, PS3.3 C.11.2.1.1."""
    bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
    entries = np.rint(values).astype(np.int64)
    # Before its own clipping pydicom casts to the 16 bits of the table, where larger values wrap.
    first, count = (int(v) for v in (dataset.VOILUTSequence[0].LUTDescriptor[1::-1]))
    entries = np.clip(entries, first, first + (count or 2**16) - 1)
    return np.clip(apply_voi(entries, dataset) / (2.0**bits - 1), 0, 1)


def find_padding(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Mark pixels outside of the imaged area, PS3.3 C.7.5.1.1.2."""
    low = get_first(dataset, "PixelPaddingValue")
    if low is None:
        return np.zeros(stored.shape, bool)
    limit = get_first(dataset, "PixelPaddingRangeLimit")
    low, high = sorted((low, low if limit is None else limit))
    return (stored >= low) & (stored <= high)


def get_first(dataset: pydicom.Dataset, keyword: str) -> float | None:
    """Return the first value of an element of one or more numbers, None if it is empty."""
    value = dataset.get(keyword)
    if isinstance(value, pydicom.multival.MultiValue):
        value = value[0] if value else None
    return None if value is None or value == "" else float(value)


def _get_spacing(dataset: pydicom.Dataset) -> tuple[float, float] | None:
    spacing = dataset.get("PixelSpacing")
    return (float(spacing[0]), float(spacing[1])) if spacing and len(spacing) == 2 else None
