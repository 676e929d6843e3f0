"""One annotated image into one record."""

from __future__ import annotations

import collections
import dataclasses

import cv2
import numpy as np

from vae_aug.boxes import convert_boxes
from vae_aug.codecs.extent import Extent, measure_extent
from vae_aug.codecs.images import (
    EncodedImage,
    clean_encoded,
    encode_image,
    read_encoded,
    read_image,
    read_orientation,
)
from vae_aug.config import Exif
from vae_aug.errors import VAEAugError
from vae_aug.ingest.dicom.image import Window, is_dicom, read_dicom
from vae_aug.ingest.formats.source import (
    AnnotatedImage,
    AnnotationState,
    Effect,
    NeighbourState,
    clean_boxes,
    describe_fault,
)
from vae_aug.ingest.hounsfield import show_hounsfield, show_stored
from vae_aug.ingest.nifti import is_nifti, read_slice
from vae_aug.ingest.privacy import hash_identifier
from vae_aug.ingest.stacks import stack_neighbours
from vae_aug.records.check import BOX_FLAGS
from vae_aug.records.records import make_example
from vae_aug.records.tfrecord import read_feature

ANNOTATION_KEY = "image/annotation"
"""Feature of unannotated records alone: `"none"` or `"faulty"`, as in `AnnotatedImage`."""

HISTOGRAM_BINS = 16
_HISTOGRAM_BLOCK = 2**20
# Text elements may hold anything, a patient's name too, so a scanner is told in these words only.
_MANUFACTURERS = (
    *("agfa", "canon", "carestream", "esaote", "fonar", "fuji", "ge", "hitachi", "hologic"),
    *("konica", "mindray", "neusoft", "philips", "samsung", "shimadzu", "siemens", "toshiba"),
    *("uih", "varian"),
)
_MODALITIES = frozenset(
    (
        *("CR", "CT", "DX", "ES", "GM", "IO", "MG", "MR", "NM", "OCT", "OP", "OPT", "PT", "PX"),
        *("RF", "SM", "US", "XA", "XC"),
    )
)


@dataclasses.dataclass(frozen=True)
class Conversion:
    """How images become records.

    Attributes:
        label_names: The labels in their order; boxes of others are dropped.
        salt: For hashes of source ids and patients; None keeps them as they are.
        window: For DICOM images, as `read_dicom`; for PNG files of Hounsfield units, as
            `show_hounsfield`; for volumes, as `read_slice`.
        bits: Likewise.
        stored_window: For other images of 16 bits, as `show_stored`; `"auto"` leaves their values
            as they are stored.
        exif: Whether the EXIF orientation of image files is applied, as `read_encoded`.
        keep_partial: Whether an image with boxes counts as annotated although its annotation is
            faulty.
        negatives: Whether an image of which the source says nothing counts as one without boxes.
    """

    label_names: tuple[str, ...]
    salt: bytes | None = dataclasses.field(repr=False)
    window: Window
    bits: int | None
    stored_window: Window = "auto"
    exif: Exif = "apply"
    keep_partial: bool = False
    negatives: bool = False

    def hide(self, kind: str, identifier: str) -> str:
        """Return the hash of an identifier, or the identifier where names are kept."""
        if self.salt is None:
            # Names on disk need not be text: bytes that are none become `\udce9` and so on.
            return identifier.encode("utf-8", "backslashreplace").decode()
        return hash_identifier(kind, identifier, self.salt)


@dataclasses.dataclass(frozen=True)
class Converted:
    """What became of one image.

    Attributes:
        record: A serialised `tf.train.Example`; None if the image was skipped.
        problems: What was skipped, dropped or clipped, as (reason, effect).
        annotation: What the record says of boxes, as in `AnnotatedImage`; a detector may learn
            from `"complete"` alone, and records of other images hold no boxes.
        turned: Whether the EXIF orientation turned the image.
        patient: The patient as the record names it, `""` if unknown.
        duplicates: Boxes that equal an earlier one of the same label.
        box_sizes_px: `[N, 2]` widths and heights of the boxes written.
        scanner: Manufacturer and modality of a DICOM image, e.g. `"philips CT"`; `""` of others.
        histogram: `[HISTOGRAM_BINS] float64`, share of pixels by grey level from 0 to white.
        extent: What an image of 16 bits fills of its range.
        burned_in: Whether the file says that its pixels may identify the patient.
        neighbours: What became of the slices before and behind, where they are channels.
    """

    record: bytes | None = dataclasses.field(repr=False)
    problems: tuple[tuple[str, Effect], ...]
    annotation: AnnotationState = "complete"
    turned: bool = False
    patient: str = ""
    duplicates: int = 0
    box_sizes_px: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 2)))
    scanner: str = ""
    histogram: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(HISTOGRAM_BINS))
    extent: Extent = dataclasses.field(default_factory=Extent)
    burned_in: bool = False
    neighbours: tuple[NeighbourState, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Loaded:
    image: EncodedImage
    pixels: np.ndarray
    patient: str
    turned: bool = False
    windowed: bool = False
    scanner: str = ""
    burned_in: bool = False
    neighbours: tuple[NeighbourState, ...] = ()


def convert_image(item: AnnotatedImage, conversion: Conversion) -> Converted:
    """Make the record of an image.

    Args:
        item: The image.
        conversion: How.

    Returns:
        The record, or why there is none; whatever is wrong with the image is in `problems`.
    """
    converted = _convert(item, conversion)
    if not item.place:
        return converted
    problems = tuple((f"{item.place}: {reason}", effect) for reason, effect in converted.problems)
    return dataclasses.replace(converted, problems=problems)


def _convert(item: AnnotatedImage, conversion: Conversion) -> Converted:
    try:
        loaded = _load(item, conversion)
    except VAEAugError as error:
        return Converted(None, ((describe_fault(item.path, error), "skipped"),))
    image = loaded.image
    size = (item.height or image.height, item.width or image.width)
    if size != (image.height, image.width):
        reason = (
            f"the annotation is for {size[0]} x {size[1]} pixels (height x width), the image "
            f"has {image.height} x {image.width}"
        )
        if loaded.turned and size == (image.width, image.height):
            reason += " as its EXIF orientation turns it; --exif ignore takes it as stored"
        return Converted(None, ((reason, "skipped"),))
    boxes, kept, problems = _clean(item, image, conversion.label_names)
    annotation = _judge(item, len(kept), conversion)
    if annotation != "complete":
        boxes, kept = boxes[:0], []
    labels = [conversion.label_names.index(item.labels[index]) for index in kept]
    rows = [(label, *box) for label, box in zip(labels, boxes.tolist(), strict=True)]
    patient = conversion.hide("patient", loaded.patient)
    example = make_example(
        image,
        source_id=conversion.hide("source", item.source_id),
        boxes=convert_boxes(boxes, "xyxy", "rel_yxyx", height=image.height, width=image.width),
        labels=labels,
        label_names=conversion.label_names,
        patient=patient,
        flags={name: [getattr(item, name)[index] for index in kept] for name in BOX_FLAGS},
        extra=None if annotation == "complete" else {ANNOTATION_KEY: annotation},
    )
    return Converted(
        record=example.SerializeToString(deterministic=True),
        problems=tuple(problems),
        annotation=annotation,
        turned=loaded.turned,
        patient=patient,
        duplicates=sum(count - 1 for count in collections.Counter(rows).values()),
        box_sizes_px=boxes[:, 2:] - boxes[:, :2],
        scanner=loaded.scanner,
        histogram=_count_levels(loaded.pixels),
        extent=measure_extent(loaded.pixels, windowed=loaded.windowed),
        burned_in=loaded.burned_in,
        neighbours=loaded.neighbours,
    )


def _judge(item: AnnotatedImage, kept: int, conversion: Conversion) -> AnnotationState:
    """Tell what a record may say of an image's boxes, of which some could be kept."""
    if item.annotation == "none":
        return "complete" if conversion.negatives else "none"
    if item.annotation == "complete" and kept == len(item.labels):
        return "complete"
    # Without a box left, the record would say that there is none.
    return "complete" if conversion.keep_partial and kept else "faulty"


def _load(item: AnnotatedImage, conversion: Conversion) -> _Loaded:
    if is_nifti(item.path):
        pixels = read_slice(
            item.path, item.part, item.frame, conversion.window, bits=conversion.bits
        )
        return _Loaded(encode_image(pixels), pixels, item.patient, windowed=True)
    if item.part:
        encoded = read_feature(item.path, item.offset, item.part)
        # Readers of records show the image as it is stored.
        image, pixels = clean_encoded(encoded, exif="ignore")
        if pixels.dtype == np.uint16 and conversion.stored_window != "auto":
            return _show_values(pixels, item, conversion)
        return _Loaded(image, pixels, item.patient)
    if not is_dicom(item.path):
        return _load_file(item, conversion)
    # Only the readers of DICOM know of frames; of an image of several, others mean none.
    is_told = item.source_id.endswith(f"#{item.frame}")
    dicom = read_dicom(
        item.path,
        conversion.window,
        bits=conversion.bits,
        frame=item.frame if is_told else None,
        value_range=item.value_range,
    )
    pixels = dicom.pixels
    neighbours: tuple[NeighbourState, ...] = ()
    if item.neighbours:
        pixels, neighbours = stack_neighbours(dicom, item.neighbours)
    return _Loaded(
        image=encode_image(pixels),
        pixels=dicom.pixels,
        patient=item.patient or dicom.patient_id,
        windowed=True,
        scanner=_name_scanner(dicom.manufacturer, dicom.modality),
        burned_in=bool(dicom.burned_in_annotation),
        neighbours=neighbours,
    )


def _load_file(item: AnnotatedImage, conversion: Conversion) -> _Loaded:
    exif = conversion.exif
    turned = exif == "apply" and read_orientation(item.path) != 1
    if item.hounsfield is not None or conversion.stored_window != "auto":
        pixels = read_image(item.path, exif=exif)
        if pixels.dtype == np.uint16:
            return _show_values(pixels, item, conversion, turned)
    return _Loaded(*read_encoded(item.path, exif=exif), item.patient, turned)


def _show_values(
    stored: np.ndarray, item: AnnotatedImage, conversion: Conversion, turned: bool = False
) -> _Loaded:
    """Bring the values of an image of 16 bits to grey."""
    if item.hounsfield is not None:
        pixels = show_hounsfield(stored, item.hounsfield, conversion.window, conversion.bits)
    else:
        pixels = show_stored(stored, conversion.stored_window, conversion.bits)
    return _Loaded(encode_image(pixels), pixels, item.patient, turned, windowed=True)


def _name_scanner(manufacturer: str, modality: str) -> str:
    words = manufacturer.lower().replace(",", " ").split()
    maker = next((name for name in _MANUFACTURERS for word in words[:1] if word == name), None)
    maker = maker or next((n for n in _MANUFACTURERS if len(n) > 3 and n in " ".join(words)), None)
    return f"{maker or 'other'} {modality if modality in _MODALITIES else 'other'}"


def _count_levels(pixels: np.ndarray) -> np.ndarray:
    values = pixels.reshape(-1)
    counts = np.zeros(HISTOGRAM_BINS)
    # OpenCV counts in float32, which is exact up to 2**24.
    for start in range(0, values.size, _HISTOGRAM_BLOCK):
        block = values[start : start + _HISTOGRAM_BLOCK]
        high = block if block.itemsize == 1 else (block >> 8).astype(np.uint8)
        counts += cv2.calcHist([high], [0], None, [HISTOGRAM_BINS], [0, 256]).ravel()
    return counts / pixels.size


def _clean(
    item: AnnotatedImage, image: EncodedImage, label_names: tuple[str, ...]
) -> tuple[np.ndarray, list[int], list[tuple[str, Effect]]]:
    """Return the usable boxes `[M, 4]`, their indices, and what was wrong with others."""
    boxes, usable, faults = clean_boxes(item.boxes, image.height, image.width)
    kept: list[int] = []
    problems: list[tuple[str, Effect]] = []
    for index, label in enumerate(item.labels):
        where = f"box {index} ({label})"
        if label not in label_names:
            reason = f"{where}: the label is not in the list {list(label_names)}"
            problems.append((reason, "dropped"))
            continue
        if usable[index]:
            kept.append(index)
        if faults[index]:
            corners = ", ".join(f"{value:g}" for value in item.boxes[index])
            reason = f"{where}: {faults[index]}, ({corners}) in {image.height} x {image.width}"
            problems.append((reason, "clipped" if usable[index] else "dropped"))
    return boxes[kept], kept, problems
