"""Where the pixels of an image are, and how they are loaded: a class for each kind of file.

The reader of a format makes the item of an image; conversion calls `load`, whatever the kind.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import numpy as np
from pydicom.dataset import Dataset

from vae_aug.codecs.images import (
    EncodedImage,
    Exif,
    clean_encoded,
    encode_image,
    read_encoded,
    read_image,
    read_orientation,
)
from vae_aug.ingest.dicom.file import DicomErrors, is_dicom, read_dataset
from vae_aug.ingest.dicom.image import DicomImage, read_dicom
from vae_aug.ingest.dicom.stack import Neighbour, NeighbourState, stack_neighbours
from vae_aug.ingest.dicom.values import Window
from vae_aug.ingest.hounsfield import Hounsfield, show_hounsfield, show_stored
from vae_aug.ingest.nifti import read_slice
from vae_aug.records.tfrecord import read_feature


class View(NamedTuple):
    """How pixels are shown.

    Attributes:
        window: For DICOM images, as `read_dicom`; for PNG files of Hounsfield units, as
            `show_hounsfield`; for volumes, as `read_slice`.
        bits: Likewise.
        stored_window: For other images of 16 bits, as `show_stored`; `"auto"` leaves their values
            as they are stored.
        exif: Whether the EXIF orientation of image files is applied, as `read_encoded`.
    """

    window: Window = "auto"
    bits: int | None = None
    stored_window: Window = "auto"
    exif: Exif = "apply"


@dataclasses.dataclass(frozen=True)
class Loaded:
    """An image that was loaded.

    Attributes:
        image: What a record stores.
        pixels: `[H, W, C] uint8` or `uint16`; of a stack of slices, the middle one.
        turned: Whether the EXIF orientation turned it.
        windowed: Whether its grey levels come of a window or range, so that they fill their depth.
        dicom: What its DICOM file says; None of other files.
        neighbours: What became of the slices before and behind, where they are channels.
    """

    image: EncodedImage
    pixels: np.ndarray
    turned: bool = False
    windowed: bool = False
    dicom: DicomImage | None = None
    neighbours: tuple[NeighbourState, ...] = ()


@dataclasses.dataclass(frozen=True)
class Item(abc.ABC):
    """Where the pixels of an image are; items of one place are equal, however they are shown.

    Attributes:
        path: The file.
        index: Which frame, record or slice of the file, from 0.
    """

    path: Path
    index: int = 0
    _part: ClassVar[str] = ""

    @property
    def place(self) -> str:
        """Where in a file of many images this one is, for messages; `""` of other files."""
        return f"{self._part} {self.index}" if self._part else ""

    def locate(self, reason: str) -> str:
        """Return a reason behind the place, if there is one."""
        return f"{self.place}: {reason}" if self.place else reason

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are loaded."""
        return (self.path,)

    def make_absolute(self) -> Self:
        """Return the same for a process that runs in another folder."""
        return dataclasses.replace(self, path=self.path.absolute())

    @abc.abstractmethod
    def load(self, view: View) -> Loaded:
        """Load the image, or raise `VAEAugError` if it cannot be read."""


@dataclasses.dataclass(frozen=True)
class ImageFile(Item):
    """A PNG, JPEG or TIFF file.

    Attributes:
        hounsfield: What the pixels stand for if they have 16 bits; None for grey.
    """

    hounsfield: Hounsfield | None = dataclasses.field(default=None, compare=False)

    def load(self, view: View) -> Loaded:
        """Load the image as the file has it, or through a window."""
        turned = view.exif == "apply" and read_orientation(self.path) != 1
        if self.hounsfield is not None or view.stored_window != "auto":
            stored = read_image(self.path, exif=view.exif)
            if stored.dtype == np.uint16:
                return _show_values(stored, view, self.hounsfield, turned)
        return Loaded(*read_encoded(self.path, exif=view.exif), turned)


@dataclasses.dataclass(frozen=True)
class Record(Item):
    """An image in a record of a TFRecord file.

    Attributes:
        offset: Byte at which the record begins.
        key: Key of the feature that holds the image.
    """

    offset: int = dataclasses.field(kw_only=True)
    key: str = dataclasses.field(kw_only=True)
    _part: ClassVar[str] = "record"

    def load(self, view: View) -> Loaded:
        """Load the image as the record has it, or through a window."""
        # Readers of records show the image as it is stored.
        data = read_feature(self.path, self.offset, self.key)
        image, pixels = clean_encoded(data, exif="ignore")
        if pixels.dtype == np.uint16 and view.stored_window != "auto":
            return _show_values(pixels, view)
        return Loaded(image, pixels)


def _show_values(
    stored: np.ndarray, view: View, hounsfield: Hounsfield | None = None, turned: bool = False
) -> Loaded:
    """Bring the values of an image of 16 bits to grey."""
    if hounsfield is not None:
        pixels = show_hounsfield(stored, hounsfield, view.window, view.bits)
    else:
        pixels = show_stored(stored, view.stored_window, view.bits)
    return Loaded(encode_image(pixels), pixels, turned, windowed=True)


@dataclasses.dataclass(frozen=True)
class VolumeSlice(Item):
    """A slice of a NIfTI volume.

    Attributes:
        axis: Of `vae_aug.ingest.nifti.AXES`.
    """

    axis: str = dataclasses.field(kw_only=True)
    _part: ClassVar[str] = "slice"

    def load(self, view: View) -> Loaded:
        """Load the slice through a window."""
        pixels = read_slice(self.path, self.axis, self.index, view.window, bits=view.bits)
        return Loaded(encode_image(pixels), pixels, windowed=True)


@dataclasses.dataclass(frozen=True)
class DicomFrame(Item):
    """A frame of a DICOM file.

    Attributes:
        is_only: Whether it is taken for the only one; a file of several is then refused.
        value_range: Lowest and highest modality value of its series where the images of that would
            not compare otherwise, as `vae_aug.ingest.series.find_series_ranges`; else None.
        neighbours: Slices before and behind that become channels; empty for none.
    """

    is_only: bool = True
    value_range: tuple[float, float] | None = dataclasses.field(default=None, compare=False)
    neighbours: tuple[Neighbour, ...] = dataclasses.field(default=(), compare=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, and those of its neighbours."""
        return (self.path, *(n.path for n in self.neighbours if n.path is not None))

    def make_absolute(self) -> Self:
        """Return the same for a process that runs in another folder."""
        neighbours = tuple(n._replace(path=n.path and n.path.absolute()) for n in self.neighbours)
        return dataclasses.replace(super().make_absolute(), neighbours=neighbours)

    def load(self, view: View) -> Loaded:
        """Load the frame through a window, with its neighbours as channels if it has any."""
        dicom = read_dicom(
            self.path,
            view.window,
            bits=view.bits,
            frame=None if self.is_only else self.index,
            value_range=self.value_range,
            dataset=None if self.is_only else _read_frames(self.path),
        )
        pixels = dicom.pixels
        states: tuple[NeighbourState, ...] = ()
        if self.neighbours:
            pixels, states = stack_neighbours(dicom, self.neighbours)
        return Loaded(
            encode_image(pixels), dicom.pixels, windowed=True, dicom=dicom, neighbours=states
        )


def _read_frames(path: Path) -> Dataset:
    """Read the elements of a file once for all of its frames, which are loaded in turn."""
    with DicomErrors(path):
        state = path.stat()
        return _read_frames_once(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(1)
def _read_frames_once(path: Path, size: int, mtime_ns: int) -> Dataset:
    return read_dataset(path)


def find_item(path: Path, hounsfield: Hounsfield | None = None) -> Item:
    """Make the item of a file that holds one image, of whose kind its first bytes tell.

    Args:
        path: The file, which need not be there.
        hounsfield: As in `ImageFile`.
    """
    return DicomFrame(path) if is_dicom(path) else ImageFile(path, hounsfield=hounsfield)
