"""Read PyTorch's legacy weight files (before 1.6) with NumPy, running no code from them."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import os
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np

from vae_aug.data.limits import read_bounded
from vae_aug.errors import CheckpointError, VAEAugError

MAX_FILE_BYTES = 64 * 2**20
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES: dict[str, np.dtype] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A view of a storage that follows later in the file; counts are in elements."""

    storage: tuple[str, str]  # key, type
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """Unpickler that knows four names, whose stand-ins have no state and no side effects.

    The BUILD opcode may set the state of what it is given, hence the fresh function per use, and
    storage types as strings: a `numpy.dtype` would be shared with the whole process.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _Tensor(
                storage, offset, shape, strides
            )
        if module == "torch" and name in _DTYPES:
            return name
        raise CheckpointError(
            f"A weight file may name OrderedDict, _rebuild_tensor_v2, FloatStorage and LongStorage "
            f"only; this one asks for {module}.{name}, which was not run. Do not trust the file."
        )

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        kind, storage_type, key, _location, _count, view = pid
        if kind != "storage" or storage_type not in _DTYPES or view is not None:
            raise CheckpointError(f"Expected the reference of a whole storage; got {pid!r}.")
        return key, storage_type


def read_legacy_torch(data: bytes) -> dict[str, np.ndarray]:
    """Read the state dict out of a legacy torch file.

    The format is four pickles (magic number, protocol, system info, state dict), a pickled list
    of storage keys, and for each key an int64 count and the raw little-endian elements.

    Args:
        data: The whole file, at most `MAX_FILE_BYTES`.

    Returns:
        Parameter name to array (float32 or int64), each with its own memory.

    Raises:
        CheckpointError: If the data is damaged, of another format, or names anything to import
            or call beyond tensors and ordered dicts. Nothing named in the file is imported.
    """
    if len(data) > MAX_FILE_BYTES:
        raise CheckpointError(
            f"Expected a weight file of at most {MAX_FILE_BYTES} bytes; got {len(data)}."
        )
    stream = io.BytesIO(data)
    try:
        magic, protocol, system, state, keys = (_Unpickler(stream).load() for _ in range(5))
        if (magic, protocol, system["little_endian"]) != (_MAGIC, _PROTOCOL, True):
            raise CheckpointError(
                f"Expected a legacy torch file (magic {_MAGIC:#x}, protocol {_PROTOCOL}, "
                f"little-endian); got magic {magic!r}, protocol {protocol!r}, system {system!r}."
            )
        types = dict(tensor.storage for tensor in state.values())
        storages = {key: _read_storage(stream, key, _DTYPES[types[key]]) for key in keys}
        return {name: _view(name, tensor, storages) for name, tensor in state.items()}
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle may raise anything at all
        raise CheckpointError(
            f"The legacy torch file is damaged: {type(error).__name__}: {error}. "
            "Install or download it again."
        ) from error


def _read_storage(stream: io.BytesIO, key: str, dtype: np.dtype) -> np.ndarray:
    count = int.from_bytes(stream.read(8), "little", signed=True)
    left = len(stream.getbuffer()) - stream.tell()
    if not 0 <= count * dtype.itemsize <= left:
        raise CheckpointError(f"Storage {key} claims {count} elements; {left} bytes are left.")
    return np.frombuffer(stream.read(count * dtype.itemsize), dtype)


def _view(name: str, tensor: _Tensor, storages: dict[str, np.ndarray]) -> np.ndarray:
    storage, shape, strides = storages[tensor.storage[0]], tensor.shape, tensor.strides
    last = tensor.offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    # As many elements as the storage at most: stride 0 could make gigabytes out of one element.
    inside = min((tensor.offset, *strides), default=0) >= 0 and last < storage.size
    if min(shape, default=1) < 1 or not inside or math.prod(shape) > storage.size:
        raise CheckpointError(
            f"Tensor {name} (shape {shape}, strides {strides}, offset {tensor.offset}) does not "
            f"lie inside its storage of {storage.size} elements."
        )
    steps = [s * storage.itemsize for s in strides]
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], shape, steps).copy()


def read_pinned(path: str | os.PathLike[str], sha256: str) -> bytes:
    """Read a file whose content is known beforehand.

    Args:
        path: The file.
        sha256: Expected SHA-256 digest, lower-case hex.

    Returns:
        The content.

    Raises:
        CheckpointError: If the file is missing, none that ends (a named pipe, a device), larger
            than `MAX_FILE_BYTES`, or another one.
    """
    try:
        data = read_bounded(path, MAX_FILE_BYTES)
    except VAEAugError as error:
        raise CheckpointError(f"Cannot read the weight file {error}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise CheckpointError(
            f"Expected {path} to have sha256 {sha256}; got {found}. It is another file or was "
            "altered, and was not opened."
        )
    return data
