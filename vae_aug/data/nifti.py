"""Slices of NIfTI volumes, laid out as a radiologist sees them.

Reference:
    NIfTI-1 and NIfTI-2 data format (nifti.nimh.nih.gov): `nifti1.h`, `nifti2.h`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from vae_aug.data.dicom import Window, apply_window, quantize
from vae_aug.data.images import MAX_PIXELS
from vae_aug.errors import MissingPackageError, VAEAugError

AXES = ("axial", "coronal", "sagittal")
"""Planes of slices. Up is anterior in axial ones and superior in the others; left in the image is
the patient's right, in sagittal ones anterior. Slices go from inferior to superior, from anterior
to posterior and from the patient's right to the left."""

MAX_VOXELS = 2**29
"""Most voxels that a volume may declare; one takes 4 bytes, as float32."""

PERCENTILES = (0.5, 99.5)
"""Of the values of a volume, what becomes black and white where no window is given."""

# Towards which side of the patient rows, columns and slices are counted.
_DIRECTIONS = {"axial": "PLS", "coronal": "ILP", "sagittal": "IPL"}
_HEADER_BYTES = 540
_MOST_EXTENSION_BYTES = 2**24
_SAMPLED_VOXELS = 2**22
_CHUNK_BYTES = 2**20


class Grid(NamedTuple):
    """What the header of a volume tells, seen along an axis.

    Attributes:
        height: Of a slice, in pixels.
        width: Of a slice, in pixels.
        slices: Number of slices.
        volumes: Length of the fourth axis, of which the first is read; 1 if there is none.
        affine: `[4, 4] float64`, indices of voxels to mm.
        is_oriented: Whether the file tells how the volume lies in the patient.
    """

    height: int
    width: int
    slices: int
    volumes: int
    affine: np.ndarray
    is_oriented: bool


@dataclasses.dataclass(frozen=True)
class _Volume:
    """A volume in memory: `[height, width, slices] float32` and what becomes black and white."""

    values: np.ndarray
    stored_bits: int
    robust: tuple[float, float]
    full: tuple[float, float]


def load_nibabel() -> Any:
    """Import nibabel.

    Raises:
        MissingPackageError: If it is not installed.
    """
    try:
        import nibabel
    except ImportError as error:
        raise MissingPackageError(
            "NIfTI needs the PyPI package nibabel, which is not installed. "
            "Run: pip install 'vae-aug[nifti]'"
        ) from error
    return nibabel


def is_nifti(path: Path) -> bool:
    """Tell whether a file is named as NIfTI volumes are."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def check_axis(axis: str) -> str:
    """Check the name of an axis.

    Raises:
        ValueError: If it is not in `AXES`.
    """
    if axis not in AXES:
        raise ValueError(f"axis must be one of {', '.join(AXES)}; got {axis!r}.")
    return axis


def read_grid(path: str | os.PathLike[str], axis: str) -> Grid:
    """Read the header of a volume, and check that its data are all there, in constant memory.

    Args:
        path: `.nii` or `.nii.gz`, of two to four dimensions.
        axis: Of `AXES`.

    Returns:
        The grid.

    Raises:
        VAEAugError: If the file is missing, no NIfTI, damaged, cut short or larger than
            `MAX_VOXELS`, or its voxels are no real numbers.
    """
    with _reading(path):
        header = _read_header(Path(path))
        _check_complete(Path(path), header)
        return _make_grid(header, axis)


def read_labels(path: str | os.PathLike[str], axis: str, grid: Grid) -> np.ndarray:
    """Read a volume of labels.

    Args:
        path: As `read_grid`.
        axis: As `read_grid`.
        grid: That of the volume that the labels are of.

    Returns:
        `[height, width, slices] int32`.

    Raises:
        VAEAugError: As `read_grid`; or if the grid is another or a value is no whole number.
    """
    with _reading(path):
        found = _make_grid(_read_header(Path(path)), axis)
        if found[:3] != grid[:3] or not np.allclose(
            found.affine, grid.affine, rtol=1e-3, atol=0.01
        ):
            raise VAEAugError(
                f"its {found.slices} slices of {found.height} x {found.width} are not those of "
                f"the image, {grid.slices} of {grid.height} x {grid.width} at the same place; "
                "resample it"
            )
        values, _ = _read_values(Path(path))
        labels = values.astype(np.int32)
        if not np.array_equal(labels, values):
            raise VAEAugError("has values that are no whole numbers; expected numbers of classes")
        return _orient(labels, found.affine, axis)


def read_slice(
    path: str | os.PathLike[str],
    axis: str,
    index: int,
    window: Window = "auto",
    *,
    bits: int | None = None,
) -> np.ndarray:
    """Read a slice of a volume. The volume stays in memory until another one is read.

    Args:
        path: As `read_grid`.
        axis: As `read_grid`.
        index: Of the slice, from 0.
        window: `"auto"`: from the percentile 0.5 to 99.5 of the volume (of 4 million voxels spread
            over it, if it has more), or as `"full"` where these are equal. `"full"`: its lowest to
            its highest value. Or (center, width), in units of the scaled values, as DICOM's.
        bits: Depth of the result, 8 or 16. None: 16 if a voxel is stored in more than 8 bits.

    Returns:
        `[H, W, 1] uint8` or `uint16`; voxels that are no number are black.

    Raises:
        VAEAugError: As `read_grid`, or if there is no such slice.
    """
    with _reading(path):
        volume = _get_volume(Path(path), axis)
        if not 0 <= index < volume.values.shape[2]:
            raise VAEAugError(f"has {volume.values.shape[2]} slices; got the index {index}")
        plane = volume.values[:, :, index, None].astype(np.float64)
    if isinstance(window, str):
        low, high = volume.full if window == "full" else volume.robust
        shown = np.clip((plane - low) / (high - low), 0, 1) if high > low else np.zeros_like(plane)
    else:
        shown = apply_window(plane, *window)
    bits = bits or (8 if volume.stored_bits <= 8 else 16)
    return quantize(np.nan_to_num(shown, nan=0.0), bits)


@contextlib.contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what reading a file raises into a `VAEAugError` that names it, without its values."""
    nibabel = load_nibabel()
    try:
        with warnings.catch_warnings(), nibabel.imageglobals.LoggingOutputSuppressor():
            warnings.simplefilter("ignore")
            yield
    except VAEAugError as error:
        raise VAEAugError(f"{os.fspath(path)}: {error}.") from error
    except MemoryError as error:
        raise VAEAugError(f"{os.fspath(path)}: does not fit into memory.") from error
    except Exception as error:
        kind = getattr(error, "strerror", None) or type(error).__name__
        raise VAEAugError(f"{os.fspath(path)}: damaged or not readable ({kind}).") from error


def _open(path: Path) -> IO[bytes]:
    # gzip's own file type is a binary stream too, but declared as another class.
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]


def _read_header(path: Path) -> Any:
    """Read and check the header alone: nibabel would read extensions of any size with it."""
    nibabel = load_nibabel()
    with _open(path) as file:
        block = file.read(_HEADER_BYTES)
    sizes = {int.from_bytes(block[:4], order) for order in ("little", "big")}
    if 348 in sizes:
        header = nibabel.Nifti1Header(block[:348])
    elif 540 in sizes:
        header = nibabel.Nifti2Header(block)
    else:
        raise VAEAugError("no NIfTI: its header has another length than 348 or 540 bytes")
    shape = header.get_data_shape()
    if not 2 <= len(shape) <= 4 or min(shape) < 1:
        raise VAEAugError(f"has the shape {shape}; expected two to four dimensions")
    if math.prod(shape[:3]) > MAX_VOXELS:
        raise VAEAugError(f"declares {shape[:3]} voxels; at most {MAX_VOXELS} are read")
    if header.get_data_dtype().kind not in "iuf":
        raise VAEAugError("its voxels are colours or complex; expected real numbers")
    if not 0 <= header["vox_offset"] <= _MOST_EXTENSION_BYTES:
        raise VAEAugError(f"its data begin at byte {header['vox_offset']}; that is no header's end")
    return header


def _check_complete(path: Path, header: Any) -> None:
    count = math.prod(header.get_data_shape()[:3])
    missing = int(header["vox_offset"]) + count * header.get_data_dtype().itemsize
    with _open(path) as file:
        while missing > 0 and (chunk := file.read(min(missing, _CHUNK_BYTES))):
            missing -= len(chunk)
        # At the end of its data gzip compares their checksum.
        file.read(1)
    if missing > 0:
        raise VAEAugError(f"cut short: {missing} bytes are missing")


def _make_grid(header: Any, axis: str) -> Grid:
    shape = (*header.get_data_shape(), 1, 1)
    affine = header.get_best_affine()
    transform = _find_transform(affine, axis)
    order = np.argsort(transform[:, 0])
    height, width, slices = (int(shape[index]) for index in order)
    if height * width > MAX_PIXELS:
        raise VAEAugError(f"has slices of {height} x {width} pixels; at most {MAX_PIXELS} are read")
    is_oriented = bool(header["qform_code"] > 0 or header["sform_code"] > 0)
    return Grid(height, width, slices, int(shape[3]), affine, is_oriented)


def _find_transform(affine: np.ndarray, axis: str) -> np.ndarray:
    """Return `[3, 2]`: for each axis as stored, where it goes and whether it is turned around."""
    orientations = load_nibabel().orientations
    stored = orientations.io_orientation(affine)
    if not np.isfinite(stored).all():
        raise VAEAugError("its affine gives an axis no direction in the patient")
    shown = orientations.axcodes2ornt(tuple(_DIRECTIONS[axis]))
    return orientations.ornt_transform(stored, shown)


def _orient(values: np.ndarray, affine: np.ndarray, axis: str) -> np.ndarray:
    """Return a view with rows, columns and slices as `AXES` says."""
    return load_nibabel().orientations.apply_orientation(values, _find_transform(affine, axis))


_loaded: dict[tuple[Path, str, int, int], _Volume] = {}


def _get_volume(path: Path, axis: str) -> _Volume:
    """Return a volume, the one in memory where it is that: slices of one are asked for in turn."""
    status = path.stat()
    key = (path, axis, status.st_size, status.st_mtime_ns)
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = _read_volume(path, axis)
    return _loaded[key]


def _read_volume(path: Path, axis: str) -> _Volume:
    header = _read_header(path)
    values, affine = _read_values(path)
    finite = np.isfinite(values)
    full = (
        float(values.min(where=finite, initial=np.inf)),
        float(values.max(where=finite, initial=-np.inf)),
    )
    # An odd step does not fall into step with rows of even length.
    sample = values.reshape(-1, order="F")[:: values.size // _SAMPLED_VOXELS | 1]
    sample = sample[np.isfinite(sample)]
    low, high = np.percentile(sample, PERCENTILES).tolist() if sample.size else (0.0, 0.0)
    robust = (low, high) if high > low else full
    stored_bits = 8 * header.get_data_dtype().itemsize
    return _Volume(_orient(values, affine, axis), stored_bits, robust, full)


def _read_values(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return `[X, Y, Z] float32`, scaled by scl_slope and scl_inter, and the affine."""
    image = load_nibabel().load(path)
    spatial, others = image.shape[:3], image.shape[3:]
    data = image.dataobj[(..., 0)] if others else np.asanyarray(image.dataobj)
    return data.astype(np.float32).reshape(*spatial, *[1] * (3 - len(spatial))), image.affine
