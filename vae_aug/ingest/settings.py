"""The settings of an ingest, checked when they are made."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from vae_aug.config import Exif, Pseudonyms, Unannotated, check_choice
from vae_aug.errors import AnnotationError
from vae_aug.ingest.convert import Conversion
from vae_aug.ingest.dicom.image import WINDOWS, check_window
from vae_aug.ingest.dicom.values import Window
from vae_aug.ingest.formats import READERS
from vae_aug.ingest.formats.source import ReaderOptions
from vae_aug.ingest.items import View
from vae_aug.ingest.nifti import check_axis
from vae_aug.ingest.privacy import SaltedHashes, read_salt
from vae_aug.ingest.pseudonyms import PseudonymTable, open_table
from vae_aug.ingest.stacks import Distance, parse_neighbours
from vae_aug.workers import Workers, choose_workers

_MOST_SHARDS = 99999
"""What the five digits in a shard's name can count."""


@dataclasses.dataclass(frozen=True)
class IngestSettings:
    """How a data set becomes records.

    Attributes:
        format: `"coco"`, `"voc"`, `"yolo"`, `"csv"`, `"labelme"`, `"cvat"`, `"masks"`,
            `"via"`, `"supervisely"`, `"lidc"`, `"dicom"`, `"nifti"`, `"records"`, `"tfds"`,
            `"images"` (without annotations), or `"auto"`, which tells it from the files as
            `vae_aug.ingest.formats.detect.detect_format`.
        shards: Number of files of a split.
        labels: Names of the labels in their order; boxes of other labels are dropped. None
            takes those of the folder of records if they cover the source's, else the source's.
        strict: Raise at the first problem instead of leaving the file or box out, at an image
            whose annotation is faulty, and, unless `unannotated` says otherwise, at one of which
            the source says nothing.
        unannotated: What becomes of images of which the source does not say whether they have
            boxes (`docs/sources.md` tells what counts as saying so). `"keep"` (also None): they go
            to shards of their own, `<split>_unannotated-*`, which `vae-aug train` reads and a
            detector does not. `"skip"`: they are left out. `"negative"`: you say that none has a
            box. `"error"`: they are refused. Images with a faulty annotation are kept or left out
            likewise, and never become negatives.
        keep_partial: Take an image of which some boxes were understood and others not as
            annotated, with the boxes that were.
        images: A folder in which images may lie besides the source. Images elsewhere are left out.
        exif: `"apply"` turns images as their EXIF orientation says, as annotation tools show them;
            `"ignore"` takes pixels as they are stored.
        axis: For NIfTI volumes, along which slices are taken: of `vae_aug.ingest.nifti.AXES`.
        window: For DICOM images, as `read_dicom`; for DeepLesion's PNG files the same, but
            `"auto"` is what the table says of the image; for volumes, as
            `vae_aug.ingest.nifti.read_slice`; for other PNG and TIFF files and records of 16 bits,
            as `vae_aug.ingest.hounsfield.show_stored`, but `"auto"` leaves their values as stored.
        bits: Likewise.
        neighbours: For DICOM images: how far the slices before and behind are that become the
            first and third channel, in slices, or in millimetres as `"5mm"`. Boxes stay those of
            the image, which is the second channel and stands in where a slice is missing. None
            takes the image alone. See `vae_aug.ingest.stacks`.
        salt: For the hashes, as `vae_aug.ingest.privacy.read_salt`.
        pseudonyms: `"hashes"` under a secret salt, or `"random"`, kept in the table of
            `vae_aug.ingest.pseudonyms`, which all processes of one machine share.
        keep_ids: Keep the source's own names and patients, for public data.
        overwrite: Replace a split that is there already.
        leak_check: Search the folder's other splits for patients and images of this one. That
            decodes every image of the folder once more.
        workers: Processes that read images; the records are the same for any number. More
            than one are started anew, so a script needs `if __name__ == "__main__":`.
        runner: Runner of Apache Beam that reads images in the place of `workers`, e.g.
            `"DirectRunner"`; the records are the same. Its workers must share the folders of
            source and records with this process, under the same paths.
        runner_options: Names and values of Beam's `PipelineOptions`.

    Raises:
        ValueError: On a bad value.
        AnnotationError: If `images` is no folder.
    """

    format: str = "auto"
    shards: int = 1
    labels: Sequence[str] | None = None
    strict: bool = False
    unannotated: Unannotated | None = None
    keep_partial: bool = False
    images: str | os.PathLike[str] | None = None
    exif: Exif = "apply"
    axis: str = "axial"
    window: Window | None = None
    bits: int | None = None
    neighbours: int | str | None = None
    salt: str | None = dataclasses.field(default=None, repr=False)
    pseudonyms: Pseudonyms = "hashes"
    keep_ids: bool = False
    overwrite: bool = False
    leak_check: bool = True
    workers: int = 1
    runner: str | None = None
    runner_options: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        check_format(self.format)
        if not 1 <= self.shards <= _MOST_SHARDS:
            raise ValueError(f"shards must be in [1, {_MOST_SHARDS}]; got {self.shards!r}.")
        if self.unannotated is not None:
            check_choice("unannotated", self.unannotated, Unannotated)
        # Whatever is wrong with the others is said before a file is opened.
        _ = self.reader_options, self.conversion, self.distance, self.workers_or_runner

    @property
    def what_of_unannotated(self) -> Unannotated:
        """What becomes of unannotated images, also where nobody said it."""
        return self.unannotated or ("error" if self.strict else "keep")

    @functools.cached_property
    def reader_options(self) -> ReaderOptions:
        """What the reader of the format is told."""
        check_choice("exif", self.exif, Exif)
        folder = None if self.images is None else Path(self.images)
        if folder is not None and not folder.is_dir():
            raise AnnotationError(f"{folder}: no such folder; images wants one that holds images.")
        return ReaderOptions(folder, self.exif, check_axis(self.axis))

    @functools.cached_property
    def conversion(self) -> Conversion:
        """How images are converted; without the labels, which the source has."""
        window = check_window("auto" if self.window is None else self.window)
        if self.bits not in (None, 8, 16):
            raise ValueError(f"bits must be 8, 16 or None; got {self.bits!r}.")
        # A preset keeps its name, by which it is refused for values that are no Hounsfield units.
        stored = self.window if isinstance(self.window, str) and self.window in WINDOWS else window
        return Conversion(
            label_names=(),
            pseudonyms=self._choose_pseudonyms(),
            view=View(window, self.bits, stored, self.exif),
            keep_partial=self.keep_partial,
            negatives=self.unannotated == "negative",
        )

    def _choose_pseudonyms(self) -> SaltedHashes | PseudonymTable | None:
        """Return what names and patients are replaced by; None if they are kept."""
        check_choice("pseudonyms", self.pseudonyms, Pseudonyms)
        if self.pseudonyms == "hashes":
            return None if self.keep_ids else SaltedHashes(read_salt(self.salt))
        if self.keep_ids or self.salt is not None or self.runner is not None:
            raise ValueError(
                'pseudonyms="random" takes no salt and no keep_ids, and no runner, whose workers '
                "may be on machines that cannot lock the table."
            )
        return open_table()

    @functools.cached_property
    def distance(self) -> Distance | None:
        """How far the slices are that become channels."""
        return parse_neighbours(self.neighbours)

    @property
    def workers_or_runner(self) -> Workers:
        """Who reads images."""
        return choose_workers(self.workers, self.runner, self.runner_options)


def check_format(format: str) -> None:
    """Check the name of a format.

    Raises:
        ValueError: If it is neither `"auto"` nor a key of `READERS`.
    """
    if format not in (*READERS, "auto"):
        raise ValueError(f"format must be auto or one of {', '.join(READERS)}; got {format!r}.")
