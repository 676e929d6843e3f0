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

from vae_aug.errors import MissingPackageError, VAEAugError
from vae_aug.ingest.dicom.values import Window, apply_window, quantize
from vae_aug.limits import (
    MAX_CHECKED_BYTES,
    MAX_PIXELS,
    MAX_VOLUME_BYTES,
    MAX_VOXELS,
    check_regular,
)

AXES = ("axial", "coronal", "sagittal")
"""Planes of slices. Up is anterior in axial ones and superior in the others; left in the image is
the patient's right, in sagittal ones anterior. Slices go from inferior to superior, from anterior
to posterior and from the patient's right to the left."""

PERCENTILES = (0.5, 99.5)
"""The quantiles of a volume that become black and white where no window is given."""

# Towards which side of the patient rows, columns and slices are counted.
_DIRECTIONS = {"axial": "PLS", "coronal": "ILP", "sagittal": "IPL"}
FEW_VALUES = 64
"""Most different values by which a volume is taken for labels; a scan has hundreds."""

_FEWEST_REPEATS = 8
"""How often a value of labels is there on average, at least; a tiny scan has few voxels."""

_ROUNDING = 1e-3
"""How far a label may be from a whole number: scl_slope is a float32."""

_MOST_LABEL = 2**31
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
        affine: `[4, 4] float64`, indices of voxels as stored to mm.
        is_oriented: Whether the file tells how the volume lies in the patient.
        shown_affine: `[4, 4] float64`, (row, column, slice) to mm.
    """

    height: int
    width: int
    slices: int
    volumes: int
    affine: np.ndarray
    is_oriented: bool
    shown_affine: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Stored:
    """A volume in memory as it is stored, whose values take up to eight times as much.

    Attributes:
        raw: `[X, Y, Z]`, the fastest axis first.
        slope: The header's `scl_slope`, 1 if it is not valid.
        inter: The header's `scl_inter`.
        affine: As `Grid`.
    """

    raw: np.ndarray
    slope: float
    inter: float
    affine: np.ndarray

    def scale(self, raw: np.ndarray) -> np.ndarray:
        """Return the values of a part of `raw`, in the precision that nibabel chooses."""
        scaled: np.ndarray = load_nibabel().volumeutils.apply_read_scaling(
            raw, self.slope, self.inter
        )
        return scaled

    def iterate_raw(self) -> Iterator[np.ndarray]:
        """Yield all voxels `[N]` as they are stored, in the order of the file."""
        flat = self.raw.reshape(-1, order="F")
        for start in range(0, flat.size, _CHUNK_BYTES):
            yield flat[start : start + _CHUNK_BYTES]


@dataclasses.dataclass(frozen=True)
class _Volume:
    """A volume as slices `[height, width, slices]`, and what becomes black and white."""

    stored: _Stored
    slices: np.ndarray
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

    Large ones, which take seconds to inflate, are only looked at where they end: what is wrong
    within is found when they are read.

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
        if not _ends_as_declared(Path(path), header):
            for _ in _iterate_stored(Path(path), header):
                pass
        return _make_grid(header, axis)


def read_shape(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """Read the lengths of the first three axes from the header, the shortest first.

    Args:
        path: As `read_grid`.

    Returns:
        The same for volumes that store the same grid in another order of axes.

    Raises:
        VAEAugError: As `read_grid`, but the data are not looked at.
    """
    with _reading(path):
        return tuple(sorted((*_read_header(Path(path)).get_data_shape(), 1)[:3]))


def count_values(path: str | os.PathLike[str]) -> int | None:
    """Count the different values of a volume, as long as they may be those of labels.

    Args:
        path: As `read_grid`.

    Returns:
        The number; None if there are more than `FEW_VALUES`, or so many that most of them are not
        repeated. A scan is told by the first part of the file that is no background.

    Raises:
        VAEAugError: As `read_grid`.
    """
    with _reading(path):
        header = _read_header(Path(path))
        most = min(FEW_VALUES, math.prod(header.get_data_shape()[:3]) // _FEWEST_REPEATS)
        found = np.empty(0, header.get_data_dtype())
        for chunk in _iterate_stored(Path(path), header):
            # Labels come in long runs, of which one voxel is enough.
            changes = np.flatnonzero(chunk[1:] != chunk[:-1]) + 1
            found = np.union1d(found, chunk[np.append(0, changes)])
            if len(found) > max(most, 1):
                return None
        return len(found)


def has_unit_range(path: str | os.PathLike[str]) -> bool:
    """Tell whether all values of a volume are numbers in [0, 1], as those of probabilities are.

    Args:
        path: As `read_grid`.

    Raises:
        VAEAugError: As `read_grid`.
    """
    with _reading(path):
        header = _read_header(Path(path))
        stored = _make_stored(np.empty(0), header)
        chunks = map(stored.scale, _iterate_stored(Path(path), header))
        return all(((chunk >= 0) & (chunk <= 1)).all() for chunk in chunks)


class LabelSlice(NamedTuple):
    """A slice of a volume of labels.

    Attributes:
        values: `[height, width] int64`, 0 where there is no number.
        is_finite: Whether every voxel is a number.
    """

    values: np.ndarray
    is_finite: bool


def read_labels(path: str | os.PathLike[str], axis: str) -> tuple[Grid, Iterator[LabelSlice]]:
    """Read a volume of labels.

    Args:
        path: As `read_grid`.
        axis: As `read_grid`.

    Returns:
        The grid, and the slices in order. Values within 0.001 of a whole number are rounded.

    Raises:
        VAEAugError: As `read_grid`; or if there is a fourth axis, of which labels would be lost, or
            a value is no whole number, or all are rounded to 0 and some are not 0.
    """
    with _reading(path):
        header = _read_header(Path(path))
        grid = _make_grid(header, axis)
        if grid.volumes > 1:
            raise VAEAugError(f"has {grid.volumes} volumes of labels; expected one")
        stored = _read_stored(Path(path), header)
        parts = [_check_labels(stored.scale(raw)) for raw in stored.iterate_raw()]
        if "small" in parts and "whole" not in parts:
            raise VAEAugError(
                f"has values that are not 0, and all of them below {_ROUNDING}; correct its slope"
            )
        slices = _orient(stored.raw, grid.affine, axis)
    return grid, (_round_slice(path, stored, slices, index) for index in range(slices.shape[2]))


def _check_labels(values: np.ndarray) -> str:
    """Refuse values that number no classes; those that are no number are left to the slices.

    Returns:
        `"whole"` if some number a class; `"small"` if they are all rounded to 0; `""` if all are 0.
    """
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
        if (np.abs(values - np.rint(values)) > _ROUNDING).any():
            raise VAEAugError("has values that are no whole numbers; expected numbers of classes")
    if values.size and not -_MOST_LABEL <= values.min() <= values.max() < _MOST_LABEL:
        raise VAEAugError("has values beyond 32 bits; expected numbers of classes")
    if not values.any():
        return ""
    is_whole = values.dtype.kind != "f" or (np.abs(values) > _ROUNDING).any()
    return "whole" if is_whole else "small"


def _round_slice(
    path: str | os.PathLike[str], stored: _Stored, slices: np.ndarray, index: int
) -> LabelSlice:
    with _reading(path):
        # What lies side by side in the file need not do so in a slice.
        values = stored.scale(np.ascontiguousarray(slices[:, :, index]))
        if values.dtype.kind != "f":
            return LabelSlice(values.astype(np.int64), True)
        finite = np.isfinite(values)
        whole = np.rint(np.where(finite, values, 0)).astype(np.int64)
        return LabelSlice(whole, bool(finite.all()))


def describe_mismatch(labels: Grid, image: Grid) -> str:
    """Tell in what labels do not have the voxels of an image at the same places.

    They may be stored in another order of axes, or from another side.

    Args:
        labels: Of the volume of labels.
        image: Of the image, along the same axis.

    Returns:
        A clause with the numbers in which they differ; `""` if they fit.
    """
    if labels[:3] != image[:3]:
        return (
            f"their {labels.slices} slices of {labels.height} x {labels.width} are not those of "
            f"the image, {image.slices} of {image.height} x {image.width}"
        )
    differing = _find_differing(labels.affine, image.affine)
    if not differing.any() or not _find_differing(labels.shown_affine, image.shown_affine).any():
        return ""
    told = (
        f"{labels.affine[row, column]:.7g} instead of {image.affine[row, column]:.7g} in row "
        f"{row + 1}, column {column + 1}"
        for row, column in np.argwhere(differing)
    )
    return f"they do not lie where the image does: their affine has {', '.join(told)}"


def _find_differing(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    # Affines are stored as float32, and some programs round them.
    return ~np.isclose(first, second, rtol=1e-3, atol=0.01)


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
    volume = _get_volume(Path(path), axis)
    with _reading(path):
        count = volume.slices.shape[2]
        if not 0 <= index < count:
            raise VAEAugError(f"has {count} slices; got the index {index}")
        values = volume.stored.scale(volume.slices[:, :, index, None])
        # The range is that of float32 values, too.
        plane = values.astype(np.float32).astype(np.float64)
    if isinstance(window, str):
        low, high = volume.full if window == "full" else volume.robust
        shown = np.clip((plane - low) / (high - low), 0, 1) if high > low else np.zeros_like(plane)
    else:
        shown = apply_window(plane, *window)
    bits = bits or (8 if volume.stored.raw.itemsize == 1 else 16)
    return quantize(np.nan_to_num(shown, nan=0.0), bits)


@contextlib.contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what reading a file raises into a `VAEAugError` that names it, without its values."""
    nibabel = load_nibabel()
    check_regular(path)
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
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    # gzip's own file type is a binary stream too, but declared as another class.
    return gzip.open(path) if is_gzip else path.open("rb")  # type: ignore[return-value]


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
    count = math.prod(shape[:3])
    if count > MAX_VOXELS:
        raise VAEAugError(f"declares {shape[:3]} voxels; at most {MAX_VOXELS} are read")
    if header.get_data_dtype().kind not in "iuf":
        raise VAEAugError("its voxels are colours or complex; expected real numbers")
    if count * header.get_data_dtype().itemsize > MAX_VOLUME_BYTES:
        raise VAEAugError(
            f"declares {count} voxels of {header.get_data_dtype().itemsize} bytes; at most "
            f"{MAX_VOLUME_BYTES} bytes are read; store it as int16 or crop it"
        )
    if not 0 <= header["vox_offset"] <= _MOST_EXTENSION_BYTES:
        raise VAEAugError(f"its data begin at byte {header['vox_offset']}; that is no header's end")
    return header


def _ends_as_declared(path: Path, header: Any) -> bool:
    """Tell whether a large file ends where its header says; False of small ones.

    Reference:
        RFC 1952, GZIP file format: the last four bytes are the size of what was compressed.
    """
    offset = int(header["vox_offset"]) or header.single_vox_offset
    size = offset + math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
        file.seek(-4, os.SEEK_END)
        end = int.from_bytes(file.read(), "little") if is_gzip else file.tell()
    return size > MAX_CHECKED_BYTES and end == (size % 2**32 if is_gzip else size)


def _iterate_stored(path: Path, header: Any) -> Iterator[np.ndarray]:
    """Yield the first volume's voxels as they are stored, in pieces of at most 1 MiB.

    Nothing is read that lies behind what the header declares, so a small file cannot grow.
    """
    dtype = header.get_data_dtype()
    missing = math.prod(header.get_data_shape()[:3]) * dtype.itemsize
    # Where no offset is stated the data follow the header, as in niftilib.
    offset = int(header["vox_offset"]) or header.single_vox_offset
    with _open(path) as file:
        if len(file.read(offset)) < offset:
            raise VAEAugError("cut short: it ends before its data")
        while missing > 0:
            size = min(missing, _CHUNK_BYTES // dtype.itemsize * dtype.itemsize)
            chunk = file.read(size)
            if len(chunk) < size:
                raise VAEAugError(f"cut short: {missing - len(chunk)} bytes are missing")
            missing -= size
            yield np.frombuffer(chunk, dtype)
        # At the end of its data gzip compares their checksum.
        file.read(1)


def _read_stored(path: Path, header: Any) -> _Stored:
    shape = (*header.get_data_shape(), 1)[:3]
    flat = np.empty(math.prod(shape), header.get_data_dtype())
    start = 0
    for chunk in _iterate_stored(path, header):
        flat[start : start + len(chunk)] = chunk
        start += len(chunk)
    return _make_stored(flat.reshape(shape, order="F"), header)


def _make_stored(raw: np.ndarray, header: Any) -> _Stored:
    slope, inter = header.get_slope_inter()
    return _Stored(
        raw,
        1.0 if slope is None else slope,
        0.0 if inter is None else inter,
        header.get_best_affine(),
    )


def _make_grid(header: Any, axis: str) -> Grid:
    shape = (*header.get_data_shape(), 1, 1)
    affine = header.get_best_affine()
    transform = _find_transform(affine, axis)
    shown = affine @ load_nibabel().orientations.inv_ornt_aff(transform, shape[:3])
    order = np.argsort(transform[:, 0])
    height, width, slices = (int(shape[index]) for index in order)
    if height * width > MAX_PIXELS:
        raise VAEAugError(f"has slices of {height} x {width} pixels; at most {MAX_PIXELS} are read")
    is_oriented = bool(header["qform_code"] > 0 or header["sform_code"] > 0)
    return Grid(height, width, slices, int(shape[3]), affine, is_oriented, shown)


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


_loaded: dict[tuple[Path, str, int, int], _Volume | str] = {}


def _get_volume(path: Path, axis: str) -> _Volume:
    """Return a volume, the one in memory where it is that: slices of one are asked for in turn.

    Raises:
        VAEAugError: As `read_grid`; again at once for each slice of what could not be read.
    """
    with _reading(path):
        status = path.stat()
    key = (path, axis, status.st_size, status.st_mtime_ns)
    if key not in _loaded:
        _loaded.clear()
        try:
            with _reading(path):
                _loaded[key] = read_volume(path, axis)
        except VAEAugError as error:
            _loaded[key] = str(error)
    volume = _loaded[key]
    if isinstance(volume, str):
        raise VAEAugError(volume)
    return volume


def read_volume(path: Path, axis: str) -> _Volume:
    """Read a volume as it is stored, with its axes turned and the range of its values."""
    stored = _read_stored(path, _read_header(path))
    full = _find_range(stored)
    # An odd step does not fall into step with rows of even length.
    sample = stored.raw.reshape(-1, order="F")[:: stored.raw.size // _SAMPLED_VOXELS | 1]
    sample = stored.scale(sample).astype(np.float32)
    sample = sample[np.isfinite(sample)]
    low, high = np.percentile(sample, PERCENTILES).tolist() if sample.size else (0.0, 0.0)
    robust = (low, high) if high > low else full
    return _Volume(stored, _orient(stored.raw, stored.affine, axis), robust, full)


def _find_range(stored: _Stored) -> tuple[float, float]:
    """Return the lowest and highest number among the values, as float32."""
    low, high = np.inf, -np.inf
    for raw in stored.iterate_raw():
        # Of integers two are enough: scaling keeps or turns their order.
        ends = np.array([raw.min(), raw.max()], raw.dtype) if raw.dtype.kind in "iu" else raw
        values = stored.scale(ends).astype(np.float32)
        if not np.isfinite(values).all():
            values = stored.scale(raw).astype(np.float32)
            values = values[np.isfinite(values)]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    return low, high
