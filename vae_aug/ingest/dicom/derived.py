"""DICOM objects derived from others: the same patient and geometry, changed pixels.

A change is made in the grey picture that a window shows, and written back in stored values. What
lies outside of the window is still there afterwards, because changes are added to it.

Reference:
    DICOM PS3.3 C.7.6.1.1.2 (Image Type), C.12.4 (General Reference), C.7.3.1 (General Series);
    PS3.16 CID 7203 (Image Derivation), CID 7202 (Source Image Purpose of Reference).
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import os

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import set_pixel_data
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from vae_aug.errors import DicomError
from vae_aug.ingest.dicom.elements import get_integer, get_items
from vae_aug.ingest.dicom.file import DicomErrors, get_frames, read_dataset
from vae_aug.ingest.dicom.frames import check_header, decode_frame
from vae_aug.ingest.dicom.image import check_window
from vae_aug.ingest.dicom.values import (
    Window,
    apply_modality,
    choose_own_voi,
    find_padding,
    get_rescale,
    get_voi_function,
    get_window_limits,
    is_inverted,
)

_SERIES_SUFFIX = " (denoised)"
_MAX_LONG_STRING = 64

_PIXEL_DATA = 0x7FE00010

_STALE = (
    "IconImageSequence",
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "InstanceCreationDate",
    "InstanceCreationTime",
    "DigitalSignaturesSequence",
    "MACParametersSequence",
)
"""What describes the former pixels or signs the former object."""


@dataclasses.dataclass(frozen=True, eq=False)
class DicomPicture:
    """A slice as a display shows it, and the way back to its stored values.

    Attributes:
        path: The file.
        pixels: `[H, W, 1] float32 in [0, 1]`; 0 is black, padding is black.
        stored: `[H, W]`, the stored values.
        padding: `[H, W] bool`, pixels outside of the imaged area, which never change.
        scale: Stored values from black to white; negative where the polarity is reversed.
        dataset: Everything else in the file. Not in the repr, as it names the patient.
    """

    path: str
    pixels: np.ndarray = dataclasses.field(repr=False)
    stored: np.ndarray = dataclasses.field(repr=False)
    padding: np.ndarray = dataclasses.field(repr=False)
    scale: float
    dataset: Dataset = dataclasses.field(repr=False)


def read_picture(path: str | os.PathLike[str], window: Window | None = None) -> DicomPicture:
    """Read a grey DICOM image of one frame whose pixels are to be changed.

    Args:
        path: The DICOM file.
        window: As `vae_aug.ingest.dicom.image.read_dicom`; under `"auto"` a VOI LUT and a sigmoid,
            which have no constant way back, count as no window, and the whole range is shown.

    Returns:
        The picture.

    Raises:
        ValueError: On another window.
        DicomError: As `read_dicom`, and if the file has a Modality LUT or more than 16 bits.
    """
    window = check_window("auto" if window is None else window)
    with DicomErrors(path):
        dataset = read_dataset(path)
        check_header(dataset)
        _check_picture(dataset)
        stored = decode_frame(path, dataset, 0)
        padding = find_padding(stored, dataset)
        values = apply_modality(stored, dataset)
        low, high = _find_limits(values[~padding], dataset, window)
        shown = np.clip((values - low) / max(high - low, np.finfo(np.float64).tiny), 0, 1)
        scale = (high - low) / get_rescale(dataset)[0]
        if is_inverted(dataset):
            shown, scale = 1 - shown, -scale
        pixels = np.where(padding, 0.0, shown).astype(np.float32)[..., None]
        return DicomPicture(os.fspath(path), pixels, stored, padding, scale, dataset)


def derive_dicom(picture: DicomPicture, changed: np.ndarray, description: str) -> bytes:
    """Make the DICOM file of a changed picture.

    Pixels are uncompressed, explicit little endian, in the original's bits and rescale; they stay
    within the range of the original's stored values. Patient, study, geometry and window are the
    original's: the result is a clinical object of the same patient. It is `DERIVED`, `SECONDARY`,
    refers to its source, and belongs to a series of its own. Its UIDs follow from source,
    description and pixels, so that the same change twice gives the same bytes.

    Args:
        picture: From `read_picture`.
        changed: `[H, W, 1]` floating point in [0, 1], the picture after the change. Where it
            equals `picture.pixels`, the stored value is kept.
        description: Value of (0008,2111) Derivation Description, at most 1024 characters.

    Returns:
        The file.

    Raises:
        DicomError: If the original's elements cannot be written.
    """
    with DicomErrors(picture.path):
        dataset = _copy(picture.dataset)
        stored = _change_stored(picture, changed)
        source = str(dataset.get("SOPInstanceUID") or "")
        if not dataset.get("SOPClassUID"):
            raise DicomError("(0008,0016) SOP Class UID is missing.")
        bits, photometric = int(dataset.BitsStored), str(dataset.PhotometricInterpretation)
        set_pixel_data(dataset, stored, photometric, bits, generate_instance_uid=False)
        _describe(dataset, source, description)
        _identify(dataset, source, description, stored)
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
        return buffer.getvalue()


def _check_picture(dataset: Dataset) -> None:
    """Refuse an image whose changed pixels could not be written back."""
    photometric, frames = str(dataset.PhotometricInterpretation), get_frames(dataset)
    if frames != 1 or "SharedFunctionalGroupsSequence" in dataset:
        raise DicomError(
            f"is an image of {frames} frames (0028,0008) or an enhanced one, whose pixels cannot "
            "be changed; have it written as PNG, or split into one file a frame."
        )
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise DicomError(
            "(0028,0004) Photometric Interpretation must be MONOCHROME1 or MONOCHROME2; "
            f"got {photometric}."
        )
    if get_items(dataset, "ModalityLUTSequence"):
        raise DicomError(
            "has a (0028,3000) Modality LUT, through which changed pixels have no way back; "
            "have it written as PNG."
        )
    allocated = get_integer(dataset, "BitsAllocated")
    if allocated not in (8, 16):
        raise DicomError(f"(0028,0100) Bits Allocated must be 8 or 16; got {allocated}.")


def _find_limits(shown: np.ndarray, dataset: Dataset, window: Window) -> tuple[float, float]:
    """Return the modality values that are black and white."""
    if window == "auto":
        voi, function = choose_own_voi(dataset), get_voi_function(dataset)
        if voi is not None and voi.window and voi.window[1] > 1 and function != "SIGMOID":
            shift = 1.0 if function == "LINEAR_EXACT" else 0.0
            return get_window_limits(voi.window[0] + shift / 2, voi.window[1] + shift)
        window = "full"
    if isinstance(window, tuple):
        return get_window_limits(*window)
    return (float(shown.min()), float(shown.max())) if shown.size else (0.0, 0.0)


def _change_stored(picture: DicomPicture, changed: np.ndarray) -> np.ndarray:
    """Add the change of the picture to the stored values."""
    stored, kept = picture.stored, picture.padding
    if kept.all():
        return stored.astype(stored.dtype.newbyteorder("<"))
    change = np.asarray(changed, np.float64)[..., 0] - picture.pixels[..., 0]
    values = np.rint(stored + change * picture.scale)
    # Within the former range no pixel can turn into a padding value or overflow.
    values = np.clip(values, stored[~kept].min(), stored[~kept].max())
    return np.where(kept, stored, values).astype(stored.dtype.newbyteorder("<"))


def _copy(original: Dataset) -> Dataset:
    """Copy a dataset, to be written in explicit little endian by this software."""
    dataset = copy.deepcopy(original)
    syntax = dataset.file_meta.TransferSyntaxUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword in ("ImplementationClassUID", "ImplementationVersionName"):
        dataset.file_meta.pop(keyword, None)
    if not syntax.is_little_endian:
        # pydicom keeps words (lookup tables, overlays) as the file's bytes.
        for element in dataset.iterall():
            if element.VR == "OW" and element.value and element.tag != _PIXEL_DATA:
                element.value = np.frombuffer(element.value, ">u2").astype("<u2").tobytes()
    return dataset


def _describe(dataset: Dataset, source: str, description: str) -> None:
    """Say what the pixels are and where they come from."""
    rest = [str(value) for value in dataset.get("ImageType") or ()][2:]
    dataset.ImageType = ["DERIVED", "SECONDARY", *rest]
    dataset.DerivationDescription = description
    dataset.DerivationCodeSequence = [_make_code(codes.DCM.Smoothing)]
    if source:
        reference = Dataset()
        reference.ReferencedSOPClassUID = dataset.SOPClassUID
        reference.ReferencedSOPInstanceUID = source
        purpose = _make_code(codes.DCM.SourceImageForImageProcessingOperation)
        reference.PurposeOfReferenceCodeSequence = [purpose]
        dataset.SourceImageSequence = [reference]
    for keyword in _STALE:
        if keyword in dataset:
            delattr(dataset, keyword)


def _identify(dataset: Dataset, source: str, description: str, stored: np.ndarray) -> None:
    """Give the object and its series UIDs of their own."""
    content = hashlib.sha256(stored.tobytes()).hexdigest()
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[source, description, content])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    if dataset.get("SeriesInstanceUID"):
        series = str(dataset.SeriesInstanceUID)
        dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[series, description])
    series_description = str(dataset.get("SeriesDescription") or "")
    shortened = series_description[: _MAX_LONG_STRING - len(_SERIES_SUFFIX)]
    dataset.SeriesDescription = (shortened + _SERIES_SUFFIX).strip()


def _make_code(code: tuple[str, ...]) -> Dataset:
    """Make an item of a code sequence, PS3.3 8.8."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code[:3]
    return item
