"""Weights of a network in Keras's HDF5 layout: halved when stored, compared when loaded."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from vae_aug.errors import CheckpointError
from vae_aug.network.base import Network
from vae_aug.network.hdf5 import read_arrays
from vae_aug.network.stored import WEIGHTS_NAME

_HALF_LIMIT = 3e4
"""Half of the largest float16; a variable beyond it is stored in float32."""

_MAX_MESSAGE = 500
_READS_PER_VARIABLE = 128
_HDF5_BYTES_PER_VARIABLE = 2**14
"""Of each about five times what Keras's groups around a variable need."""


def halve_weights(weights: Path) -> None:
    """Rewrite an HDF5 file with every float32 array that float16 can hold in float16.

    The layout is the earliest, which is all that `vae_aug.network.hdf5` reads.
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
    stored = _to_stored(values).astype(values.dtype).astype(values.dtype.newbyteorder("<"))
    return {"shape": list(values.shape), "sha256": hashlib.sha256(stored.tobytes()).hexdigest()}


def count_bytes(variables: Mapping[str, Any]) -> int:
    """Count the bytes that the HDF5 file of a manifest's variables has at most."""
    return 4 * _count_weights(variables) + _HDF5_BYTES_PER_VARIABLE * (len(variables) + 1)


def load_weights(path: Path, vae: Network, content: bytes, variables: Mapping[str, Any]) -> None:
    """Load the weights of a network, which must be those that a manifest describes.

    Args:
        path: Of the checkpoint, for messages.
        vae: The network; its weights are set.
        content: The HDF5 file.
        variables: Of the manifest: name to shape and SHA-256.

    Raises:
        CheckpointError: If the file is damaged, holds anything but plain float arrays, or a
            variable is missing, of another shape, not finite or not what its SHA-256 says.
    """
    _check_shapes(path, vae, variables)
    try:
        arrays = read_arrays(content, _READS_PER_VARIABLE * (len(variables) + 1))
    except CheckpointError as error:
        raise CheckpointError(
            f"{path}: {WEIGHTS_NAME}, {error}. The file is damaged or was altered; copy it again "
            "from its source."
        ) from error
    found, wanted = sum(array.size for array in arrays.values()), _count_weights(variables)
    if (len(arrays), found) != (len(variables), wanted):
        raise CheckpointError(
            f"{path}: {WEIGHTS_NAME} has {len(arrays)} arrays of {found} weights; the manifest has "
            f"{len(variables)} of {wanted}."
        )
    with tempfile.TemporaryDirectory() as temporary:
        # Keras finds the array of a layer by a walk of its own, in a file that was written here.
        file = Path(temporary) / WEIGHTS_NAME
        with h5py.File(file, "w") as target:
            for name, array in arrays.items():
                target.create_dataset(name, data=array)
        try:
            vae.load_weights(file)
        except (KeyError, ValueError) as error:
            reason = " ".join(str(error).split())[:_MAX_MESSAGE]
            raise CheckpointError(f"{path}: {WEIGHTS_NAME} does not fit: {reason}") from error
    _check_values(path, vae, variables)


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


def _check_values(path: Path, vae: Network, expected: Mapping[str, Any]) -> None:
    """Check that every loaded variable is finite and, bit for bit, the one that was saved."""
    for variable in vae.weights:
        if not np.all(np.isfinite(variable)):
            raise CheckpointError(
                f"{path}: variable {variable.path} has values that are no numbers."
            )
        if describe_variable(variable)["sha256"] != expected[variable.path]["sha256"]:
            raise CheckpointError(
                f"{path}: variable {variable.path} differs from its SHA-256 in the manifest; "
                "the file is damaged or was altered. Copy it again from its source."
            )
