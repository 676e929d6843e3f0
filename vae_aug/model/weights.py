"""Store weights in Keras's HDF5 layout, mostly as float16, and load them by their digests."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from vae_aug.errors import CheckpointError
from vae_aug.model.hdf5 import read_arrays
from vae_aug.model.network import Network
from vae_aug.model.stored import WEIGHTS_NAME

_HALF_LIMIT = 3e4
"""Half of the largest float16; a variable beyond it is stored in float32."""

_Key = tuple[tuple[int, ...], str]
"""Shape and SHA-256 of an array."""

_READS_PER_VARIABLE = 128
_HDF5_BYTES_PER_VARIABLE = 2**14
"""Most bytes, per variable, beside the arrays: five times what Keras's groups need."""


def halve_weights(weights: Path) -> None:
    """Rewrite an HDF5 file with every float32 array that float16 can hold in float16.

    The layout is the earliest, which is all that `vae_aug.model.hdf5` reads.
    """
    whole = weights.with_suffix(".whole")
    weights.replace(whole)
    with h5py.File(whole, "r") as source, h5py.File(weights, "w", libver="earliest") as target:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Dataset):
                values = item[()]
                stored = _to_stored(values)
                copied = target.create_dataset(name, data=stored)
            else:
                copied = target.require_group(name)
            copied.attrs.update(item.attrs)

        target.attrs.update(source.attrs)
        source.visititems(copy)
    whole.unlink()


def describe_variable(variable: keras.Variable) -> dict[str, Any]:
    """Return shape and SHA-256 of a variable as it comes back from storage, little endian."""
    values = np.asarray(variable)
    stored = _to_stored(values).astype(values.dtype)
    return {"shape": list(values.shape), "sha256": _digest(stored)}


def count_bytes(variables: Mapping[str, Any]) -> int:
    """Count the bytes that the HDF5 file of a manifest's variables has at most."""
    return 4 * _count_weights(variables) + _HDF5_BYTES_PER_VARIABLE * (len(variables) + 1)


def load_weights(path: Path, vae: Network, content: bytes, variables: Mapping[str, Any]) -> None:
    """Load the weights of a network, which must be those that a manifest describes.

    A variable gets the array of the file that has its shape and SHA-256, whatever its name there.

    Args:
        path: Of the checkpoint, for messages.
        vae: The network; its weights are set.
        content: The HDF5 file.
        variables: Of the manifest: name to shape and SHA-256.

    Raises:
        CheckpointError: If the file is damaged, holds anything but plain float arrays or another
            number of them, or a variable is of another shape, not finite or not in the file. The
            network is then as it was.
    """
    _check_shapes(path, vae, variables)
    try:
        arrays = read_arrays(content, _READS_PER_VARIABLE * (len(variables) + 1))
    except CheckpointError as error:
        raise CheckpointError(
            f"{path}: {WEIGHTS_NAME}, {error}. The file is damaged or was altered; copy it again "
            "from its source."
        ) from error
    found, expected = sum(array.size for array in arrays.values()), _count_weights(variables)
    if (len(arrays), found) != (len(variables), expected):
        raise CheckpointError(
            f"{path}: {WEIGHTS_NAME} has {len(arrays)} arrays of {found} weights; the manifest has "
            f"{len(variables)} of {expected}."
        )
    wanted: dict[_Key, list[keras.Variable]] = {}
    for variable in vae.weights:
        described = variables[variable.path]
        key = tuple(described["shape"]), described["sha256"]
        wanted.setdefault(key, []).append(variable)
    pairs = []
    for name, array in arrays.items():
        # Variables with the same values get one array each.
        alike = wanted.get((array.shape, _digest(array.astype(np.float32))))
        if not alike:
            raise CheckpointError(
                f"{path}: {WEIGHTS_NAME}, {name} has the shape and SHA-256 of no variable in the "
                "manifest; the file is damaged or was altered. Copy it again from its source."
            )
        pairs.append((alike.pop(), array))
        if not np.all(np.isfinite(array)):
            raise CheckpointError(
                f"{path}: variable {pairs[-1][0].path} has values that are no numbers."
            )
    for variable, array in pairs:
        variable.assign(array)


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(values.astype(values.dtype.newbyteorder("<")).tobytes()).hexdigest()


def _count_weights(variables: Mapping[str, Any]) -> int:
    return sum(math.prod(variable["shape"]) for variable in variables.values())


def _to_stored(values: np.ndarray) -> np.ndarray:
    """Return the values in the precision that they are stored in."""
    fits = values.dtype == np.float32 and np.all(np.abs(values) < _HALF_LIMIT)
    return values.astype(np.float16) if fits else values


def _check_shapes(path: Path, vae: Network, expected: Mapping[str, Any]) -> None:
    """Check that the manifest's variables are the network's, by name and shape."""
    shapes = {v.path: list(v.shape) for v in vae.weights}
    for name in sorted(set(shapes) ^ set(expected)):
        side = "is not in the checkpoint" if name in shapes else "is not in the network"
        raise CheckpointError(f"{path}: variable {name[:80]} {side}; another version wrote it.")
    for name, shape in shapes.items():
        if shape != expected[name]["shape"]:
            raise CheckpointError(
                f"{path}: variable {name} has shape {expected[name]['shape']}; "
                f"the network needs {shape}."
            )
