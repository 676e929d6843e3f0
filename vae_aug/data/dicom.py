"""DICOM images, a frame at a time, from stored values to what a radiologist's display shows.

The order of the steps is that of the standard: stored values, modality transformation (e.g.
to Hounsfield units), value of interest (window), then the polarity of the presentation. Colour
has none of these steps; it becomes RGB, without its ICC profile.

Reference:
    DICOM PS3.3 C.11.1 (Modality LUT), C.11.2 (VOI LUT), C.11.6 (Presentation LUT Shape),
    C.7.6.3.1.2 (Photometric Interpretation), C.7.5.1.1.2 (Pixel Padding), C.7.6.16
    (Functional Groups); PS3.4 N.2 (Pixel Transformation Sequence).
"""

from __future__ import annotations

import collections
import dataclasses
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError
from pydicom.filereader import data_element_generator, read_file_meta_info
from pydicom.pixels import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi,
    get_decoder,
    pixel_array,
)
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    MRSpectroscopyStorage,
    RTDoseStorage,
    SegmentationStorage,
)

from vae_aug.data.images import MAX_PIXELS, iterate_segments
from vae_aug.errors import DicomError

Window = str | tuple[float, float]

WINDOWS: dict[str, tuple[float, float]] = {
    "lung": (-600.0, 1500.0),
    "brain": (40.0, 80.0),
    "bone": (400.0, 1800.0),
    "soft-tissue": (40.0, 400.0),
}
"""Presets for CT: name to (center, width) in Hounsfield units."""

LABEL_MAP_SEGMENTATION_STORAGE = UID("1.2.840.10008.5.1.4.1.1.66.7")
"""Label Map Segmentation Storage, which pydicom 3.0 does not name."""

_NO_PICTURES = {
    SegmentationStorage,
    LABEL_MAP_SEGMENTATION_STORAGE,
    RTDoseStorage,
    MRSpectroscopyStorage,
}
"""SOP classes with rows and columns whose values are labels, doses or spectra."""

_PIXEL_DATA = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")

_FUNCTIONAL_GROUPS = (
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
)
"""What enhanced objects say of a frame's values and place, PS3.3 C.7.6.16.2."""

_LOSSLESS_FRAME = 0xC3
"""Marker of the frame header of a lossless JPEG, SOF3 of ITU-T T.81."""

_DEFERRED = 2**20
"""Bytes above which a value is not read with the file: pixels of many frames."""

_MAX_INFLATED = 2**30
"""Most bytes that a deflated file may grow to."""


@dataclasses.dataclass(frozen=True)
class Voi:
    """What is black, white and between in one image, to show another by the same.

    Attributes:
        apply: Maps modality values `[...]` to float64 in [0, 1].
        window: (center, width) in modality units, or None where a VOI LUT or the range of the
            values was taken.
    """

    apply: Callable[[np.ndarray], np.ndarray]
    window: tuple[float, float] | None


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
        The header.

    Raises:
        DicomError: If the file is missing, no DICOM, or damaged.
    """
    with DicomErrors(path):
        dataset = read_dataset(path, stop_before_pixels=True)
        height, width = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
        return DicomHeader(
            sop_instance_uid=str(dataset.get("SOPInstanceUID") or ""),
            patient_id=str(dataset.get("PatientID") or ""),
            height=height,
            width=width,
            frames=get_frames(dataset),
            series_instance_uid=str(dataset.get("SeriesInstanceUID") or ""),
            study_instance_uid=str(dataset.get("StudyInstanceUID") or ""),
            sop_class_uid=str(dataset.get("SOPClassUID") or ""),
            modality=str(dataset.get("Modality") or ""),
            manufacturer=str(dataset.get("Manufacturer") or ""),
            burned_in_annotation=_tell_burned_in(dataset),
            is_image=bool(height and width) and dataset.get("SOPClassUID") not in _NO_PICTURES,
        )


def _tell_burned_in(dataset: Dataset) -> bool | None:
    text = str(dataset.get("BurnedInAnnotation") or "").upper()
    return {"YES": True, "NO": False}.get(text)


def read_dicom(
    path: str | os.PathLike[str],
    window: Window | Voi | None = None,
    *,
    bits: int | None = None,
    frame: int | None = None,
) -> DicomImage:
    """Read one frame of a DICOM image. No other frame is decoded.

    Args:
        path: The DICOM file, in any transfer syntax that the installed packages decode.
        window: Of grey images. `"auto"` (also None): the first VOI LUT or window of the file,
            else as `"full"`. `"full"`: the lowest to the highest value of the frame. A name in
            `WINDOWS`, (center, width), or those as text, in modality units: for CT, Hounsfield
            units. A `Voi`: that of another image.
        bits: Depth of the result, 8 or 16. None: 16 if the file stores more than 8 bits.
        frame: Index of the frame, from 0. None: the only one.

    Returns:
        The image; colour whose channels are equal is grey. Pixels that the file declares as
        padding are black.

    Raises:
        ValueError: On another window or number of bits, or a negative frame.
        DicomError: If the file is missing, no DICOM, damaged, no image, without pixel data, without
            that frame, of several if `frame` is None, larger than `MAX_PIXELS`, of another colour
            space, or compressed in a syntax that no installed package decodes. It names the file,
            and no identifier in it.
    """
    if not isinstance(window, Voi):
        window = check_window("auto" if window is None else window)
    if bits not in (None, 8, 16):
        raise ValueError(f"bits must be 8, 16 or None; got {bits!r}.")
    if frame is not None and frame < 0:
        raise ValueError(f"frame must be at least 0; got {frame}.")
    with DicomErrors(path):
        dataset = read_dataset(path)
        check_header(dataset)
        if frame is None and get_frames(dataset) != 1:
            raise DicomError(f"has {get_frames(dataset)} frames (0028,0008); pass frame=.")
        frame = frame or 0
        stored = decode_frame(path, dataset, frame)
        described = describe_frame(dataset, frame)
        levels = voi = None
        if dataset.PhotometricInterpretation in _GREY:
            levels = _Levels(stored)
            values, voi = _show_grey(levels.values, described, window)
            depth = int(dataset.get("BitsStored") or 16)
        else:
            values, depth = _show_colour(stored, dataset)
        if bits is None:
            bits = 8 if depth <= 8 else 16
        pixels = quantize(values, bits)
        return DicomImage(
            pixels=pixels if levels is None else levels.spread(pixels),
            sop_instance_uid=str(dataset.get("SOPInstanceUID") or ""),
            patient_id=str(dataset.get("PatientID") or ""),
            modality=str(dataset.get("Modality") or ""),
            pixel_spacing_mm=_get_spacing(described),
            voi=voi,
            manufacturer=str(dataset.get("Manufacturer") or ""),
            burned_in_annotation=_tell_burned_in(dataset),
        )


def read_dataset(path: str | os.PathLike[str], *, stop_before_pixels: bool = False) -> Dataset:
    """Read the elements of a file; use it within `DicomErrors`.

    Args:
        path: The DICOM file.
        stop_before_pixels: Leave out the pixel data.

    Returns:
        The dataset. Values of more than 1 MiB are read when they are asked for.

    Raises:
        DicomError: If the file is deflated and more than 1 GiB long when inflated.
    """
    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        _check_inflated_size(path)
    return pydicom.dcmread(path, _DEFERRED, stop_before_pixels=stop_before_pixels)


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


def get_frames(dataset: Dataset) -> int:
    """Return the number of frames, (0028,0008)."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames < 1:
        raise DicomError(f"(0028,0008) Number of Frames must be at least 1; got {frames}.")
    return frames


def _name_kind(dataset: Dataset) -> str:
    """Name what has no rows or is no picture, e.g. "Segmentation Storage"; `""` else."""
    uid = UID(str(dataset.get("SOPClassUID") or ""))
    if uid == LABEL_MAP_SEGMENTATION_STORAGE:
        return "Label Map Segmentation Storage"
    if uid not in _NO_PICTURES and dataset.get("Rows"):
        return ""
    meta = getattr(dataset, "file_meta", {})
    uid = uid or UID(str(meta.get("MediaStorageSOPClassUID") or ""))
    return _name_uid(uid)


def _name_uid(uid: UID) -> str:
    """Name a UID of the standard; another is not repeated, since it may identify anything."""
    return uid.name if uid.type or not uid else "a private UID"


def check_header(dataset: Dataset) -> None:
    """Refuse what is no image, before its pixels are touched."""
    kind = _name_kind(dataset)
    if dataset.get("SOPClassUID") in _NO_PICTURES or (kind and "Image" not in kind):
        raise DicomError(f"is no image but an object of {kind}; leave it out.")
    for keyword, tag in (
        ("Rows", "(0028,0010) Rows"),
        ("Columns", "(0028,0011) Columns"),
        ("BitsAllocated", "(0028,0100) Bits Allocated"),
        ("PhotometricInterpretation", "(0028,0004) Photometric Interpretation"),
    ):
        if not dataset.get(keyword):
            raise DicomError(f"{tag} is missing or 0.")
    get_frames(dataset)
    if str(dataset.PhotometricInterpretation) not in _GREY + _COLOUR:
        # What a text element holds is not repeated: it may be anything, a name too.
        raise DicomError(
            "(0028,0004) Photometric Interpretation must be one of "
            f"{', '.join(_GREY + _COLOUR)}; got another."
        )
    if dataset.Rows * dataset.Columns > MAX_PIXELS:
        raise DicomError(
            f"declares {dataset.Rows} x {dataset.Columns} pixels; at most {MAX_PIXELS} are read."
        )


def decode_frame(path: str | os.PathLike[str], dataset: Dataset, frame: int) -> np.ndarray:
    """Decode one frame; use it within `DicomErrors`, after `check_header`.

    Args:
        path: The DICOM file.
        dataset: Its elements, pixel data included.
        frame: Index of the frame, from 0.

    Returns:
        Stored values `[H, W]`, or `[H, W, 3]` (RGB).

    Raises:
        DicomError: If there is no such frame, or it cannot be decoded.
    """
    frames = get_frames(dataset)
    if frame >= frames:
        raise DicomError(f"has {frames} frames (0028,0008); got frame {frame}, counted from 0.")
    meta = getattr(dataset, "file_meta", {})
    syntax = meta.get("TransferSyntaxUID")
    if syntax is None:
        raise DicomError("(0002,0010) Transfer Syntax UID is missing.")
    _check_decoder(syntax)
    is_lossless_jpeg = syntax in (JPEGLossless, JPEGLosslessSV1)
    if not any(keyword in dataset for keyword in _PIXEL_DATA):
        raise DicomError("has no pixel data (7FE0,0010); leave it out.")
    if frames == 1 or syntax == DeflatedExplicitVRLittleEndian or is_lossless_jpeg:
        if is_lossless_jpeg:
            _check_jpeg(dataset, frame, frames)
        stored = _decode(dataset, syntax, frame)
    else:
        if not syntax.is_encapsulated:
            _check_file_size(path, dataset, frames)
        stored = _decode(path, syntax, frame)
    shape = (int(dataset.Rows), int(dataset.Columns))
    if stored.shape[:2] != shape or stored.shape[2:] not in ((), (3,)):
        raise DicomError(f"expected pixels of shape {shape} or {(*shape, 3)}; got {stored.shape}.")
    return stored


def _decode(source: str | os.PathLike[str] | Dataset, syntax: UID, frame: int) -> np.ndarray:
    """Decode a frame of a dataset, or straight from a file without reading the other frames."""
    failure = None
    for plugin in _list_plugins(syntax):
        try:
            return pixel_array(source, index=frame, decoding_plugin=plugin)
        except MemoryError:
            raise
        except Exception as error:
            failure = failure or error
    if syntax == JPEGExtended12Bit and isinstance(failure, RuntimeError):
        raise DicomError(
            f"compressed as {syntax.name}, whose 12 bits only decoders under the GPL read; "
            "convert it, or install pylibjpeg and pylibjpeg-libjpeg if that licence suits you."
        ) from failure
    raise DicomError(
        f"the pixel data (7FE0,0010), {syntax.name}, are damaged or do not fit the header "
        f"({type(failure).__name__})."
    ) from failure


def _list_plugins(syntax: UID) -> list[str]:
    """Return the decoders to ask in their order, without GDCM where there is another.

    GDCM, which pydicom would ask first, ends the whole process on some damaged images.
    """
    available = get_decoder(syntax).available_plugins
    order = ("pillow",) if syntax == JPEGBaseline8Bit else ("pyjpegls", "pylibjpeg", "pillow")
    # "" is pydicom's own choice.
    return [plugin for plugin in order if plugin in available] or [""]


def _check_jpeg(dataset: Dataset, frame: int, frames: int) -> None:
    """Refuse a damaged lossless JPEG, on some of which its only decoder ends the process."""
    data = get_frame(dataset.PixelData, frame, number_of_frames=frames)
    sizes = [
        struct.unpack(">BHHB", data[start + 4 : start + 10])
        for marker, start, _ in iterate_segments(data)
        if marker == _LOSSLESS_FRAME
    ]
    expected = (int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel))
    if [size[1:] for size in sizes] != [expected] or b"\xff\xd9" not in data[-16:]:
        raise DicomError(
            f"the JPEG of frame {frame} is damaged or does not fit the header: it must have "
            f"{expected} rows, columns and samples, and an end."
        )


def _check_file_size(path: str | os.PathLike[str], dataset: Dataset, frames: int) -> None:
    """Refuse an uncompressed file that cannot hold all its frames."""
    bits = int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) * frames
    # YBR_FULL_422 stores two of three samples.
    samples = 2 if dataset.PhotometricInterpretation == "YBR_FULL_422" else dataset.SamplesPerPixel
    if os.path.getsize(path) < bits * samples // 8:
        raise DicomError(f"is too short for its {frames} frames (0028,0008).")


def _check_decoder(syntax: UID) -> None:
    """Refuse a transfer syntax that nothing installed decodes."""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise DicomError(
            f"(0002,0010) Transfer Syntax UID, {_name_uid(syntax)}, is not supported; convert the "
            "file."
        ) from None
    if not decoder.is_available:
        raise DicomError(
            f"compressed as {syntax.name}, which no installed package decodes; run: "
            "pip install 'vae-aug[dicom]'."
        )


def _check_inflated_size(path: str | os.PathLike[str]) -> None:
    """Refuse a deflated dataset that would fill the memory."""
    inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    with open(path, "rb") as file:
        file.seek(132)
        # What is deflated begins behind the group 0002, whose length not every file tells.
        collections.deque(data_element_generator(file, False, True, _is_behind_meta), maxlen=0)
        while (data := inflater.unconsumed_tail or file.read(2**16)) and not inflater.eof:
            size += len(inflater.decompress(data, 2**20))
            if size > _MAX_INFLATED:
                raise DicomError(f"is longer than {_MAX_INFLATED} bytes when inflated.")


def _is_behind_meta(tag: int, vr: str | None, length: int) -> bool:
    return tag >> 16 != 2


def describe_frame(dataset: Dataset, frame: int) -> Dataset:
    """Return the elements that hold for a frame, without sequences of functional groups.

    Args:
        dataset: An object, enhanced or not.
        frame: Index of the frame, from 0.

    Returns:
        A dataset, the object itself if it has no such groups; what the frame's own groups say
        goes before what all frames share, and that before what the object says.

    Raises:
        DicomError: If the object has groups for some frames, but none for this one.
    """
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or ())[:1]
    own = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    if not shared and not own:
        return dataset
    described = Dataset()
    described.update(dataset)
    if own and frame >= len(own):
        raise DicomError(f"(5200,9230) describes {len(own)} frames; frame {frame} is missing.")
    for groups in (*shared, *own[frame : frame + 1]):
        for keyword in _FUNCTIONAL_GROUPS:
            for item in (groups.get(keyword) or ())[:1]:
                described.update(item)
    return described


def is_inverted(dataset: Dataset) -> bool:
    """Tell whether high values are dark.

    MONOCHROME1 and a Presentation LUT Shape INVERSE say the same thing, PS3.3 C.8.11.3.1.2, so
    one of them is enough and both together invert once.
    """
    return (
        dataset.PhotometricInterpretation == "MONOCHROME1"
        or dataset.get("PresentationLUTShape") == "INVERSE"
    )


class _Levels:
    """The values that occur in a grey image `[H, W]`.

    A pixel's grey depends on its stored value alone, so it is computed once for each value.
    """

    def __init__(self, stored: np.ndarray) -> None:
        if stored.ndim != 2:
            raise DicomError("(0028,0002) Samples per Pixel must be 1 for a grey image; got 3.")
        self._offsets: np.ndarray | None = None
        self.values = stored
        if stored.dtype.kind in "iu" and stored.itemsize <= 2:
            least = stored.min()
            # In the unsigned type of the same size a difference is right although it may wrap.
            self._offsets = (stored - least).view(f"u{stored.itemsize}")
            occurs = np.zeros(int(stored.max()) - int(least) + 1, bool)
            occurs[self._offsets] = True
            self._occurs = occurs
            self.values = (np.flatnonzero(occurs) + int(least)).astype(stored.dtype)

    def spread(self, greys: np.ndarray) -> np.ndarray:
        """Return the image `[H, W, 1]` of the greys of `values`."""
        if self._offsets is None:
            return greys
        table = np.zeros(len(self._occurs), greys.dtype)
        table[self._occurs] = greys[..., 0]
        return table[self._offsets][..., None]


def _show_grey(
    stored: np.ndarray, dataset: Dataset, window: Window | Voi
) -> tuple[np.ndarray, Voi]:
    """Map stored values `[...]` to `[..., 1]` in [0, 1], and tell what is black and white."""
    values, padding = apply_modality(stored, dataset), find_padding(stored, dataset)
    voi = window if isinstance(window, Voi) else _choose_voi(values[~padding], dataset, window)
    greys = voi.apply(values)
    if is_inverted(dataset):
        greys = 1 - greys
    return np.where(padding, 0.0, greys)[..., None], voi


def _show_colour(stored: np.ndarray, dataset: Dataset) -> tuple[np.ndarray, int]:
    """Map colour to `[H, W, 1 or 3]` in [0, 1], and tell its bits."""
    bits = int(dataset.BitsStored)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
        bits = 8 * stored.itemsize
    if stored.ndim != 3:
        raise DicomError("(0028,0002) Samples per Pixel must be 3 for a colour image; got 1.")
    if (stored == stored[..., :1]).all():
        stored = stored[..., :1]
    return np.clip(stored / (2.0**bits - 1), 0, 1), bits


def apply_modality(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Map stored values to modality units, PS3.3 C.11.1.1."""
    return apply_modality_lut(stored, dataset).astype(np.float64)


def _choose_voi(shown: np.ndarray, dataset: Dataset, window: Window) -> Voi:
    """Tell what is black and white in an image of these modality values."""
    if isinstance(window, tuple):
        return Voi(lambda values: apply_window(values, *window), window)
    if window == "auto":
        if dataset.get("VOILUTSequence"):
            return Voi(lambda values: _apply_voi_lut(values, dataset), None)
        center, width = (get_first(dataset, k) for k in ("WindowCenter", "WindowWidth"))
        if center is not None and width is not None:
            function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
            try:
                _check_function(center, width, function)
            except ValueError as error:
                raise DicomError(
                    f"(0028,1050) Window Center {center:g} and (0028,1051) Window Width "
                    f"{width:g} cannot be applied ({error}); pass window='full' or "
                    "(center, width)."
                ) from error
            return Voi(lambda x: apply_window(x, center, width, function), (center, width))
    low, high = (shown.min(), shown.max()) if shown.size else (0.0, 0.0)
    span = max(high - low, np.finfo(np.float64).tiny)
    return Voi(lambda values: np.clip((values - low) / span, 0, 1), None)


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
    _check_function(center, width, function)
    if function == "SIGMOID":
        # exp overflows to inf beyond 709, and 1 / (1 + inf) is the 0 that is meant.
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0, 1)


def quantize(greys: np.ndarray, bits: int) -> np.ndarray:
    """Turn grey values in [0, 1] into uint8 (8 bits) or uint16 (16), rounding half up."""
    return np.floor(greys * (2**bits - 1) + 0.5).astype(np.uint8 if bits == 8 else np.uint16)


def _check_function(center: float, width: float, function: str) -> None:
    least = {"LINEAR": 1.0, "LINEAR_EXACT": 0.0, "SIGMOID": 0.0}.get(function)
    if least is None:
        raise ValueError("function must be LINEAR, LINEAR_EXACT or SIGMOID; got another")
    if not np.isfinite([center, width]).all() or width < least or width <= 0:
        raise ValueError(
            f"width must be at least {max(least, np.finfo(float).tiny):g}; got {width:g}"
        )


def _apply_voi_lut(values: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Map modality values to [0, 1] through the first VOI LUT, PS3.3 C.11.2.1.1."""
    bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
    entries = np.rint(values).astype(np.int64)
    # Before its own clipping pydicom casts to the 16 bits of the table, where larger values wrap.
    first, count = (int(v) for v in (dataset.VOILUTSequence[0].LUTDescriptor[1::-1]))
    entries = np.clip(entries, first, first + (count or 2**16) - 1)
    return np.clip(apply_voi(entries, dataset) / (2.0**bits - 1), 0, 1)


def find_padding(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Mark pixels outside of the imaged area, PS3.3 C.7.5.1.1.2, and what is no number."""
    low = get_first(dataset, "PixelPaddingValue")
    if low is None:
        return ~np.isfinite(stored)
    limit = get_first(dataset, "PixelPaddingRangeLimit")
    low, high = sorted((low, low if limit is None else limit))
    return ((stored >= low) & (stored <= high)) | ~np.isfinite(stored)


def get_first(dataset: Dataset, keyword: str) -> float | None:
    """Return the first value of an element of one or more numbers, None if it is empty."""
    value = dataset.get(keyword)
    if isinstance(value, pydicom.multival.MultiValue):
        value = value[0] if value else None
    return None if value is None or value == "" else float(value)


def _get_spacing(dataset: Dataset) -> tuple[float, float] | None:
    spacing = dataset.get("PixelSpacing")
    return (float(spacing[0]), float(spacing[1])) if spacing and len(spacing) == 2 else None
