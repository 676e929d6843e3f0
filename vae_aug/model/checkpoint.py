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

import dataclasses
import datetime
import functools
import hashlib
import json
import reprlib
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from vae_aug.atomic import make_temporary_path, sync_file
from vae_aug.config import ModelConfig
from vae_aug.errors import CheckpointError
from vae_aug.model.archive import read_member
from vae_aug.model.manifest import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    parse_manifest,
    parse_model,
    parse_object,
)
from vae_aug.model.network import Network
from vae_aug.model.profiles import make_vae
from vae_aug.model.stored import (
    BEST_CHECKPOINT,
    CARD_NAME,
    KERAS_CONFIG,
    KERAS_METADATA,
    MAX_TEXT_BYTES,
    MEMBERS,
    WEIGHTS_NAME,
    digest_manifest,
    find_checkpoint,
    name_checkpoint,
    read_card,
    read_manifest,
    read_text,
)
from vae_aug.model.weights import (
    count_bytes,
    describe_variable,
    halve_weights,
    load_weights,
)

__all__ = [
    "BEST_CHECKPOINT",
    "StoredNetwork",
    "find_checkpoint",
    "load_checkpoint",
    "open_checkpoint",
    "read_card",
    "read_manifest",
    "save_checkpoint",
]


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

    Raises:
        CheckpointError: If `path` is a folder of something else, or what is given could not be
            loaded again.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = make_temporary_path(path)
    try:
        folder = temporary / "members"
        folder.mkdir(parents=True)
        digest = _write_members(vae, path, folder, training or {}, fingerprint or {}, card)
        if path.suffix == ".keras":
            archive = temporary / "archive"
            _zip(folder, archive)
            sync_file(archive)
            archive.replace(path)
        else:
            _replace_folder(path, folder, temporary / "former")
        sync_file(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return digest


def load_checkpoint(checkpoint: str | Path, vae: Network | None = None) -> Network:
    """Build the network that a checkpoint describes and load its weights.

    Args:
        checkpoint: A `.keras` file, a checkpoint folder, the folder of a training (of which the
            best checkpoint counts), or the name of a packaged checkpoint, e.g. `"demo"`.
        vae: A network of this architecture that takes the weights; None builds one.

    Returns:
        The network, float32, with `digest`, `checkpoint_name` and `patients` set.

    Raises:
        CheckpointError: If it is missing, damaged, altered or of another version; the message
            names the member or the variable.
    """
    path = find_checkpoint(checkpoint)
    content = read_text(path, MANIFEST_NAME)
    manifest = parse_manifest(path, content)
    variables = manifest["variables"]
    weights = read_member(path, WEIGHTS_NAME, count_bytes(variables), MEMBERS)
    try:
        vae = vae or make_vae(parse_model(path, manifest["model"]))
    except ValueError as error:
        raise CheckpointError(f"{path}: {MANIFEST_NAME}, model settings: {error}") from error
    _check_keras_config(path, vae)
    load_weights(path, vae, weights, variables)
    vae.digest = digest_manifest(content)
    vae.checkpoint_name = name_checkpoint(path)
    vae.patients = frozenset(manifest["fingerprint"].get("patients", ()))
    return vae


@dataclasses.dataclass(frozen=True)
class StoredNetwork:
    """A checkpoint as its manifest describes it; the network is loaded where it is needed.

    Attributes:
        path: Of the file or folder.
        config: The architecture.
        digest: SHA-256 of the manifest, which records store.
        checkpoint_name: As a network has it.
        patients: As a network has them.
        content: SHA-256 of all members, which names the folder of its cached graphs.
    """

    path: Path
    config: ModelConfig
    digest: str
    checkpoint_name: str
    patients: frozenset[str]
    content: str

    def load(self) -> Network:
        """Load the network. Others share the object, so it must not be trained.

        Raises:
            CheckpointError: As `load_checkpoint`, or if the files are no longer what they were.
        """
        if open_checkpoint(self.path) != self:
            raise CheckpointError(f"{self.path}: was changed since it was opened. Open it again.")
        return load_stamped(self.path, _stamp(self.path))


def open_checkpoint(checkpoint: str | Path) -> StoredNetwork:
    """Describe a checkpoint without loading its weights.

    Args:
        checkpoint: As for `load_checkpoint`.

    Raises:
        CheckpointError: If it is missing, or a member is missing, damaged or too large.
    """
    path = find_checkpoint(checkpoint).absolute()
    return open_stamped(path, _stamp(path))


def _stamp(path: Path) -> tuple[Any, ...]:
    """Return the files of a checkpoint, each with its inode, size and time of change."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        stats = [file.stat() for file in files]
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error}).") from error
    stamps = [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats]
    return tuple(zip(files, stamps, strict=True))


@functools.lru_cache(maxsize=8)
def open_stamped(path: Path, stamps: tuple[Any, ...]) -> StoredNetwork:
    """Describe a checkpoint, once for the same stamps of its files."""
    content = read_text(path, MANIFEST_NAME)
    manifest = parse_manifest(path, content)
    members = hashlib.sha256()
    for name in MEMBERS:
        most = count_bytes(manifest["variables"]) if name == WEIGHTS_NAME else MAX_TEXT_BYTES
        members.update(hashlib.sha256(read_member(path, name, most, MEMBERS)).digest())
    return StoredNetwork(
        path=path,
        config=parse_model(path, manifest["model"]),
        digest=digest_manifest(content),
        checkpoint_name=name_checkpoint(path),
        patients=frozenset(manifest["fingerprint"].get("patients", ())),
        content=members.hexdigest(),
    )


@functools.lru_cache(maxsize=2)
def load_stamped(path: Path, stamps: tuple[Any, ...]) -> Network:
    """Load a checkpoint, once for the same stamps of its files."""
    return load_checkpoint(path)


def _write_members(
    vae: Network,
    path: Path,
    folder: Path,
    training: Mapping[str, Any],
    fingerprint: Mapping[str, Any],
    card: str,
) -> str:
    """Write the files of a checkpoint that is going to be `path`, and return its digest."""
    manifest = {
        "format": FORMAT_VERSION,
        "model": vae.config.to_dict(),
        "training": dict(training),
        "fingerprint": dict(fingerprint),
        "variables": {v.path: describe_variable(v) for v in vae.weights},
    }
    content = json.dumps(manifest, indent=1, sort_keys=True).encode()
    # A manifest that could not be read again must not be written.
    parse_manifest(path, content)
    if len(content) > MAX_TEXT_BYTES:
        raise CheckpointError(f"{path}: the manifest would have more than {MAX_TEXT_BYTES} bytes.")
    (folder / MANIFEST_NAME).write_bytes(content)
    vae.save_weights(folder / WEIGHTS_NAME)
    halve_weights(folder / WEIGHTS_NAME)
    (folder / CARD_NAME).write_text(card, encoding="utf-8")
    (folder / KERAS_CONFIG).write_text(json.dumps(keras.saving.serialize_keras_object(vae)))
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d@%H:%M:%S")
    metadata = {"keras_version": keras.__version__, "date_saved": date}
    (folder / KERAS_METADATA).write_text(json.dumps(metadata))
    return digest_manifest(content)


def _replace_folder(path: Path, folder: Path, former: Path) -> None:
    """Put a checkpoint's folder in the place of a former one; refuse any other folder.

    Between the two renames `path` does not exist; a process that is killed there leaves the former
    checkpoint in the hidden folder.
    """
    for file in folder.iterdir():
        sync_file(file)
    if not path.is_dir() or not any(path.iterdir()):
        folder.replace(path)
        return
    if not {MANIFEST_NAME, WEIGHTS_NAME} <= {file.name for file in path.iterdir()}:
        raise CheckpointError(
            f"{path}: is a folder of something else than a checkpoint; name another folder, or "
            "delete this one."
        )
    path.replace(former)
    try:
        folder.replace(path)
    except OSError:
        former.replace(path)
        raise


def _check_keras_config(path: Path, vae: Network) -> None:
    """Check that `keras.saving.load_model` would build this network; nothing is built here.

    Keras runs code that a configuration holds, of a `Lambda` layer for one, if its safe mode is
    off. So a checkpoint whose configuration is not that of its network is refused as a whole.
    """
    parse_object(path, KERAS_METADATA, read_text(path, KERAS_METADATA))
    found = parse_object(path, KERAS_CONFIG, read_text(path, KERAS_CONFIG))
    wanted = keras.saving.serialize_keras_object(vae)
    wanted = {key: wanted[key] for key in ("module", "class_name", "registered_name", "config")}
    # A network that was compiled would bring an optimizer and losses, which may be anything.
    for key, value in {**wanted, "compile_config": {}}.items():
        if found.get(key, {}) != value:
            raise CheckpointError(
                f"{path}: {KERAS_CONFIG}, {key} must be {value!r}; got "
                f"{reprlib.repr(found.get(key))}. The file is another program's, or was altered; "
                "copy it again from its source."
            )


def _zip(folder: Path, archive: Path) -> None:
    """Pack the members uncompressed, at a fixed date, so that equal content is equal bytes."""
    with zipfile.ZipFile(archive, "w") as target:
        for name in MEMBERS:
            target.writestr(zipfile.ZipInfo(name), (folder / name).read_bytes())
