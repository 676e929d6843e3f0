"""One annotated image into one record."""

from __future__ import annotations

import collections
import dataclasses

import cv2
import numpy as np

from vae_aug.boxes import convert_boxes
from vae_aug.codecs.extent import Extent, measure_extent
from vae_aug.codecs.images import EncodedImage
from vae_aug.errors import VAEAugError
from vae_aug.ingest.dicom.stack import NeighbourState
from vae_aug.ingest.formats.source import (
    AnnotatedImage,
    AnnotationState,
    Effect,
    clean_boxes,
    describe_fault,
)
from vae_aug.ingest.items import View
from vae_aug.ingest.privacy import SaltedHashes
from vae_aug.ingest.pseudonyms import PseudonymTable
from vae_aug.records.check import BOX_FLAGS
from vae_aug.records.records import make_example

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

SCANNER_KEY = "image/scanner"
"""Feature of records of DICOM images alone: manufacturer and modality, e.g. `"philips CT"`, each
`"other"` where it is none of those that are known."""

SCANNERS = frozenset(
    f"{maker} {modality}"
    for maker in (*_MANUFACTURERS, "other")
    for modality in (*_MODALITIES, "other")
)
"""All values of that feature."""


@dataclasses.dataclass(frozen=True)
class Conversion:
    """How images become records.

    Attributes:
        label_names: The labels in their order; boxes of others are dropped.
        pseudonyms: For source ids and patients; None keeps them as they are.
        view: How their pixels are shown.
        keep_partial: Whether an image with boxes counts as annotated although its annotation is
            faulty.
        negatives: Whether an image of which the source says nothing counts as one without boxes.
    """

    label_names: tuple[str, ...]
    pseudonyms: SaltedHashes | PseudonymTable | None
    view: View
    keep_partial: bool = False
    negatives: bool = False

    def hide(self, kind: str, identifier: str) -> str:
        """Return the pseudonym of an identifier, or the identifier where names are kept."""
        if self.pseudonyms is None:
            # Names on disk need not be text: bytes that are none become `\udce9` and so on.
            return identifier.encode("utf-8", "backslashreplace").decode()
        return self.pseudonyms.make(kind, identifier)


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


def convert_image(annotated: AnnotatedImage, conversion: Conversion) -> Converted:
    """Make the record of an image.

    Args:
        annotated: The image.
        conversion: How.

    Returns:
        The record, or why there is none; whatever is wrong with the image is in `problems`.
    """
    try:
        loaded = annotated.item.load(conversion.view)
    except VAEAugError as error:
        return Converted(None, ((describe_fault(annotated.path, error), "skipped"),))
    image = loaded.image
    size = (annotated.height or image.height, annotated.width or image.width)
    if size != (image.height, image.width):
        reason = (
            f"the annotation is for {size[0]} x {size[1]} pixels (height x width), the image "
            f"has {image.height} x {image.width}"
        )
        if loaded.turned and size == (image.width, image.height):
            reason += " as its EXIF orientation turns it; --exif ignore takes it as stored"
        return Converted(None, ((reason, "skipped"),))
    boxes, kept, problems = _clean(annotated, image, conversion.label_names)
    annotation = _judge(annotated, len(kept), conversion)
    if annotation != "complete":
        boxes, kept = boxes[:0], []
    labels = [conversion.label_names.index(annotated.labels[index]) for index in kept]
    rows = [(label, *box) for label, box in zip(labels, boxes.tolist(), strict=True)]
    dicom = loaded.dicom
    patient = conversion.hide("patient", annotated.patient or (dicom.patient_id if dicom else ""))
    scanner = _name_scanner(dicom.manufacturer, dicom.modality) if dicom else ""
    extra: dict[str, str] = {} if annotation == "complete" else {ANNOTATION_KEY: annotation}
    example = make_example(
        image,
        source_id=conversion.hide("source", annotated.source_id),
        boxes=convert_boxes(boxes, "xyxy", "rel_yxyx", height=image.height, width=image.width),
        labels=labels,
        label_names=conversion.label_names,
        patient=patient,
        flags={name: [getattr(annotated, name)[index] for index in kept] for name in BOX_FLAGS},
        extra=extra | ({SCANNER_KEY: scanner} if scanner else {}),
    )
    return Converted(
        record=example.SerializeToString(deterministic=True),
        problems=tuple(problems),
        annotation=annotation,
        turned=loaded.turned,
        patient=patient,
        duplicates=sum(count - 1 for count in collections.Counter(rows).values()),
        box_sizes_px=boxes[:, 2:] - boxes[:, :2],
        scanner=scanner,
        histogram=_count_levels(loaded.pixels),
        extent=measure_extent(loaded.pixels, windowed=loaded.windowed),
        burned_in=bool(dicom and dicom.burned_in_annotation),
        neighbours=loaded.neighbours,
    )


def _judge(annotated: AnnotatedImage, kept: int, conversion: Conversion) -> AnnotationState:
    """Tell what a record may say of an image's boxes, of which some could be kept."""
    if annotated.annotation == "none":
        return "complete" if conversion.negatives else "none"
    if annotated.annotation == "complete" and kept == len(annotated.labels):
        return "complete"
    # Without a box left, the record would say that there is none.
    return "complete" if conversion.keep_partial and kept else "faulty"


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
    annotated: AnnotatedImage, image: EncodedImage, label_names: tuple[str, ...]
) -> tuple[np.ndarray, list[int], list[tuple[str, Effect]]]:
    """Return the usable boxes `[M, 4]`, their indices, and what was wrong with others."""
    boxes, usable, faults = clean_boxes(annotated.boxes, image.height, image.width)
    kept: list[int] = []
    problems: list[tuple[str, Effect]] = []
    for index, label in enumerate(annotated.labels):
        where = f"box {index} ({label})"
        if label not in label_names:
            reason = f"{where}: the label is not in the list {list(label_names)}"
            problems.append((reason, "dropped"))
            continue
        if usable[index]:
            kept.append(index)
        if faults[index]:
            corners = ", ".join(f"{value:g}" for value in annotated.boxes[index])
            reason = f"{where}: {faults[index]}, ({corners}) in {image.height} x {image.width}"
            problems.append((reason, "clipped" if usable[index] else "dropped"))
    return boxes[kept], kept, problems
