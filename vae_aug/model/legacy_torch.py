"""Read a weight file of PyTorch's legacy format (before 1.6) whose content is known beforehand.

The format is four pickles (magic number, protocol, system info, state dict), a pickled list of
storage keys, and for each key an int64 count and the raw little-endian elements.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np

from vae_aug.errors import CheckpointError, VAEAugError
from vae_aug.limits import read_bounded

_MAX_FILE_BYTES = 64 * 2**20
_DTYPES: dict[str, np.dtype] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class _Unpickler(pickle.Unpickler):
    """An unpickler that resolves four names and imports nothing.

    A tensor becomes (key of its storage, offset, shape, strides), counted in elements.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *tensor: tensor[:4]
        if module == "torch" and name in _DTYPES:
            return name
        raise CheckpointError(
            f"A weight file may name OrderedDict, _rebuild_tensor_v2, FloatStorage and LongStorage "
            f"only; this one asks for {module}.{name}, which was not run. Do not trust the file."
        )

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        _, storage_type, key, *_ = pid
        return key, storage_type


def read_legacy_torch(path: str | os.PathLike[str], sha256: str) -> dict[str, np.ndarray]:
    """Read the state dict out of a pinned legacy torch file.

    Args:
        path: The file.
        sha256: Expected SHA-256 digest, lower-case hex. A file of another digest is not
            parsed.

    Returns:
        Parameter name to array (float32 or int64), each with its own memory.

    Raises:
        CheckpointError: If the file is missing, no regular file, too large or of another digest, or
            its pickles name anything but tensors and ordered dictionaries.
    """
    data = _read_pinned(path, sha256)
    stream = io.BytesIO(data)
    *_, state, keys = (_Unpickler(stream).load() for _ in range(5))
    types = dict(storage for storage, *_ in state.values())
    starts = {}
    for key in keys:
        count = int.from_bytes(stream.read(8), "little")
        starts[key] = stream.tell()
        stream.seek(count * _DTYPES[types[key]].itemsize, os.SEEK_CUR)
    arrays = {}
    for name, ((key, storage_type), offset, shape, strides) in state.items():
        dtype = _DTYPES[storage_type]
        start, steps = starts[key] + offset * dtype.itemsize, [n * dtype.itemsize for n in strides]
        arrays[name] = np.ndarray(shape, dtype, data, start, steps).copy()
    return arrays


def _read_pinned(path: str | os.PathLike[str], sha256: str) -> bytes:
    try:
        data = read_bounded(path, _MAX_FILE_BYTES)
    except VAEAugError as error:
        raise CheckpointError(f"Cannot read the weight file {error}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise CheckpointError(
            f"Expected {path} to have sha256 {sha256}; got {found}. It is another file or was "
            "altered, and was not opened."
        )
    return data
