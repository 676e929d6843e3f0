"""Read manifest and model card of a checkpoint without TensorFlow, which takes seconds to load."""

from __future__ import annotations

import hashlib
import importlib.resources
from pathlib import Path
from typing import Any

from vae_aug.errors import CheckpointError
from vae_aug.model.archive import read_member
from vae_aug.model.manifest import MANIFEST_NAME, parse_manifest

WEIGHTS_NAME = "model.weights.h5"
BEST_CHECKPOINT = "checkpoint.keras"
"""Name of the best checkpoint in the folder of a training."""

CARD_NAME = "MODEL_CARD.md"
KERAS_CONFIG, KERAS_METADATA = "config.json", "metadata.json"
MEMBERS = (MANIFEST_NAME, WEIGHTS_NAME, CARD_NAME, KERAS_CONFIG, KERAS_METADATA)
MAX_TEXT_BYTES = 2**23
"""Most bytes of a member of text; the hashes of three hundred thousand patients fit."""


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
    content = read_text(path, MANIFEST_NAME)
    return {**parse_manifest(path, content), "digest": digest_manifest(content), "path": str(path)}


def read_card(checkpoint: str | Path) -> str:
    """Read a checkpoint's model card (Markdown).

    Raises:
        CheckpointError: If it is missing, damaged or no UTF-8.
    """
    path = find_checkpoint(checkpoint)
    try:
        return read_text(path, CARD_NAME).decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: {CARD_NAME} is no UTF-8 ({error}).") from error


def find_checkpoint(checkpoint: str | Path) -> Path:
    """Find a checkpoint by path or packaged name; in the folder of a training, its best one.

    Raises:
        CheckpointError: If there is none; the message lists the packaged names.
    """
    path = Path(checkpoint)
    try:
        if path.exists():
            best = path / BEST_CHECKPOINT
            return best if best.exists() and not (path / MANIFEST_NAME).exists() else path
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: is no checkpoint; it cannot be read ({error}).") from error
    packaged = list_packaged()
    if str(checkpoint) in packaged:
        return packaged[str(checkpoint)]
    raise CheckpointError(
        f"No checkpoint {str(checkpoint)!r}: neither a .keras file or folder that exists, nor a "
        f"packaged one ({', '.join(packaged) or 'none'}). Make one with `vae-aug train`."
    )


def name_checkpoint(path: str | Path) -> str:
    """Name a checkpoint by its file, or by the training whose best one it is."""
    path = Path(path)
    return path.resolve().parent.name if path.name == BEST_CHECKPOINT else path.stem


def list_packaged() -> dict[str, Path]:
    """Return the names of the packaged checkpoints and their files."""
    folder = Path(str(importlib.resources.files("vae_aug"))) / "checkpoints"
    return {path.stem: path for path in sorted(folder.glob("*.keras"))}


def read_text(path: Path, name: str) -> bytes:
    """Read a member of a checkpoint that holds text."""
    return read_member(path, name, MAX_TEXT_BYTES, MEMBERS)


def digest_manifest(content: bytes) -> str:
    """Return the SHA-256, in hex, that names a checkpoint in records and caches."""
    return hashlib.sha256(content).hexdigest()
