"""Checkpoints: one `.keras` archive, or the same files in a folder.

| member | content |
| --- | --- |
| `manifest.json` | format version, model and training settings, fingerprint, variable digests |
| `model.weights.h5` | the weights in Keras's own layout, float16 where that loses nothing real |
| `config.json`, `metadata.json` | what `keras.saving.load_model` wants, after `import vae_aug` |
| `MODEL_CARD.md` | data, licence, figures, limits |

Nothing in a checkpoint is executed: the network is built from the manifest's settings by this
package, and weights are plain arrays that must match the manifest by name, shape and SHA-256.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.resources
import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from vae_aug.config import ModelConfig
from vae_aug.errors import CheckpointError
from vae_aug.model.profiles import Network, make_vae

FORMAT_VERSION = 1
_MANIFEST = "manifest.json"
_WEIGHTS = "model.weights.h5"
_CARD = "MODEL_CARD.md"
_KERAS_CONFIG, _KERAS_METADATA = "config.json", "metadata.json"
_MEMBERS = (_MANIFEST, _WEIGHTS, _CARD, _KERAS_CONFIG, _KERAS_METADATA)
_MAX_MEMBER_BYTES = 2**30
_MAX_TEXT_BYTES = 2**24
_HALF_LIMIT = 3e4
"""Half of the largest float16; a variable beyond it is stored in float32."""


def save_checkpoint(
    vae: Network,
    path: str | Path,
    *,
    training: Mapping[str, Any] | None = None,
    fingerprint: Mapping[str, Any] | None = None,
    card: str = "",
) -> str:
    """Write a checkpoint; `path` never holds a partial one.

    Args:
        vae: The network.
        path: A name ending in `.keras` for one file, anything else for a folder.
        training: Settings and figures of the training run, JSON values only.
        fingerprint: What it was trained on: `{"patients": [salted hashes], "images": count, ...}`.
        card: The model card, Markdown.

    Returns:
        The digest: SHA-256, in hex, of the manifest.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        folder = Path(temporary) / "members"
        folder.mkdir()
        _write_members(vae, folder, training or {}, fingerprint or {}, card)
        digest = _digest((folder / _MANIFEST).read_bytes())
        if path.suffix == ".keras":
            archive = Path(temporary) / "archive"
            _zip(folder, archive)
            archive.replace(path)
        else:
            if path.is_dir():
                shutil.rmtree(path)
            folder.replace(path)
    return digest


def load_checkpoint(checkpoint: str | Path) -> Network:
    """Build the network that a checkpoint describes and load its weights.

    Args:
        checkpoint: A `.keras` file, a checkpoint folder, or the name of a packaged checkpoint,
            e.g. `"demo"`.

    Returns:
        The network, float32, with `digest` and `patients` set.

    Raises:
        CheckpointError: If it is missing, damaged, altered or of another version; the message
            names the member or the variable.
    """
    path = find_checkpoint(checkpoint)
    manifest_bytes = _read_member(path, _MANIFEST, _MAX_TEXT_BYTES)
    manifest = _parse_manifest(path, manifest_bytes)
    vae = make_vae(_parse_config(path, manifest))
    _check_variables(path, vae, manifest["variables"])
    with tempfile.TemporaryDirectory() as temporary:
        weights = Path(temporary) / _WEIGHTS
        weights.write_bytes(_read_member(path, _WEIGHTS, _MAX_MEMBER_BYTES))
        try:
            vae.load_weights(weights)
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path}: {_WEIGHTS} cannot be read: {error}") from error
    _check_digests(path, vae, manifest["variables"])
    vae.digest = _digest(manifest_bytes)
    vae.patients = frozenset(manifest.get("fingerprint", {}).get("patients", ()))
    return vae


def read_manifest(checkpoint: str | Path) -> dict[str, Any]:
    """Read a checkpoint's manifest without building the network.

    Args:
        checkpoint: As `load_checkpoint`.

    Returns:
        The manifest with its `"digest"` and `"path"` added.

    Raises:
        CheckpointError: As `load_checkpoint`.
    """
    path = find_checkpoint(checkpoint)
    content = _read_member(path, _MANIFEST, _MAX_TEXT_BYTES)
    return {**_parse_manifest(path, content), "digest": _digest(content), "path": str(path)}


def read_card(checkpoint: str | Path) -> str:
    """Read a checkpoint's model card (Markdown)."""
    return _read_member(find_checkpoint(checkpoint), _CARD, _MAX_TEXT_BYTES).decode()


def find_checkpoint(checkpoint: str | Path) -> Path:
    """Find a checkpoint by path or packaged name.

    Raises:
        CheckpointError: If there is none; the message lists the packaged names.
    """
    path = Path(checkpoint)
    if path.exists():
        return path
    packaged = {p.stem: p for p in _packaged_folder().glob("*.keras")}
    if str(checkpoint) in packaged:
        return packaged[str(checkpoint)]
    raise CheckpointError(
        f"No checkpoint {str(checkpoint)!r}: neither a .keras file or folder that exists, nor a "
        f"packaged one ({', '.join(sorted(packaged)) or 'none'}). Make one with `vae-aug train`."
    )


def _packaged_folder() -> Path:
    return Path(str(importlib.resources.files("vae_aug"))) / "checkpoints"


def _write_members(
    vae: Network,
    folder: Path,
    training: Mapping[str, Any],
    fingerprint: Mapping[str, Any],
    card: str,
) -> None:
    vae.save_weights(folder / _WEIGHTS)
    _halve(folder / _WEIGHTS)
    manifest = {
        "format": FORMAT_VERSION,
        "model": vae.config.to_dict(),
        "training": dict(training),
        "fingerprint": dict(fingerprint),
        "variables": {v.path: _describe(v) for v in vae.weights},
    }
    text = json.dumps(manifest, indent=1, sort_keys=True)
    (folder / _MANIFEST).write_text(text)
    (folder / _CARD).write_text(card)
    (folder / _KERAS_CONFIG).write_text(json.dumps(keras.saving.serialize_keras_object(vae)))
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d@%H:%M:%S")
    metadata = {"keras_version": keras.__version__, "date_saved": date}
    (folder / _KERAS_METADATA).write_text(json.dumps(metadata))


def _halve(weights: Path) -> None:
    """Rewrite an HDF5 file with every float32 array that float16 can hold in float16."""
    whole = weights.with_suffix(".whole")
    weights.replace(whole)
    with h5py.File(whole, "r") as source, h5py.File(weights, "w") as target:

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


def _to_stored(values: np.ndarray) -> np.ndarray:
    """Return the values in the precision that they are stored in."""
    fits = values.dtype == np.float32 and np.all(np.abs(values) < _HALF_LIMIT)
    return values.astype(np.float16) if fits else values


def _describe(variable: keras.Variable) -> dict[str, Any]:
    """Return shape and SHA-256 of a variable as it comes back from storage, little endian."""
    values = np.asarray(variable)
    stored = _to_stored(values).astype(values.dtype).astype(values.dtype.newbyteorder("<"))
    return {"shape": list(values.shape), "sha256": _digest(stored.tobytes())}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _zip(folder: Path, archive: Path) -> None:
    """Pack the members uncompressed, at a fixed date, so that equal content is equal bytes."""
    with zipfile.ZipFile(archive, "w") as target:
        for name in _MEMBERS:
            target.writestr(zipfile.ZipInfo(name), (folder / name).read_bytes())


def _read_member(path: Path, name: str, limit: int) -> bytes:
    """Read one member of an archive or folder, bounding its size first."""
    try:
        if path.is_dir():
            size = (path / name).stat().st_size
            if size <= limit:
                return (path / name).read_bytes()
        else:
            with zipfile.ZipFile(path) as archive:
                size = archive.getinfo(name).file_size
                if size <= limit:
                    return archive.read(name)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} is no checkpoint of vae_aug: {name} cannot be read ({error})."
        ) from error
    raise CheckpointError(f"{path}: {name} has {size} bytes; at most {limit} are read.")


def _parse_manifest(path: Path, content: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(content)
        version = manifest["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: {_MANIFEST} is not valid ({error}).") from error
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: checkpoint format {version!r}; this version reads {FORMAT_VERSION}. "
            "Install the version of vae-aug that wrote it, or train again."
        )
    return manifest


def _parse_config(path: Path, manifest: dict[str, Any]) -> ModelConfig:
    try:
        return ModelConfig.from_dict(manifest["model"])
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: {_MANIFEST}, model settings: {error}") from error


def _check_variables(path: Path, vae: Network, expected: dict[str, Any]) -> None:
    """Check that the manifest's variables are the network's, by name and shape."""
    shapes = {v.path: list(v.shape) for v in vae.weights}
    for name in sorted(set(shapes) ^ set(expected)):
        side = "is not in the checkpoint" if name in shapes else "is not in the network"
        raise CheckpointError(f"{path}: variable {name} {side}; another version wrote it.")
    for name, shape in shapes.items():
        if shape != expected[name]["shape"]:
            raise CheckpointError(
                f"{path}: variable {name} has shape {expected[name]['shape']}; "
                f"the network needs {shape}."
            )


def _check_digests(path: Path, vae: Network, expected: dict[str, Any]) -> None:
    """Check that every loaded variable is, bit for bit, the one that was saved."""
    for variable in vae.weights:
        if _describe(variable)["sha256"] != expected[variable.path]["sha256"]:
            raise CheckpointError(
                f"{path}: variable {variable.path} differs from its SHA-256 in {_MANIFEST}; "
                "the file is damaged or was altered. Copy it again from its source."
            )
