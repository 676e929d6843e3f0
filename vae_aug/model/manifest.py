"""The manifest of a checkpoint: JSON whose every field is checked before anything relies on it.

| field | content |
| --- | --- |
| `format` | version of the format, 1 |
| `model` | every field of `ModelConfig` |
| `training` | `validation`: figures, `config`: settings, `variation`: its own; may be missing |
| `fingerprint` | `patients`: salted hashes, `images`: a count, `start_from`: a digest; likewise |
| `variables` | name to `shape` and `sha256` of every variable of the network |
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae_aug.config import OPTIONAL_FIELDS, ModelConfig
from vae_aug.errors import CheckpointError

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
MAX_WEIGHTS = 2**25
"""Most weights of a network; the packaged ones have a fifth of it."""

MAX_VARIABLES = 2**12
_MAX_DEPTH = 64
_MAX_IMAGE_SIZE = 2**13
_MAX_DECODER_REPEATS = 4
"""Most decoder blocks per stage; encoders have three on average."""

_MAX_MESSAGE = 500
"""Most characters of a message that repeats a value."""

_PARTS = {"model": dict, "training": dict, "fingerprint": dict, "variables": dict}
_NAMES = {dict: "an object", list: "a list", str: "a string", int: "a whole number"}
_SHA256 = re.compile(r"[0-9a-f]{64}")


def parse_manifest(path: Path, content: bytes) -> dict[str, Any]:
    """Parse and check a manifest.

    Args:
        path: Of the checkpoint, for messages.
        content: The manifest.

    Returns:
        The manifest, with the fields of the module's table and of the types that they must have.

    Raises:
        CheckpointError: If it is no JSON object, of another version, or a field is missing,
            unknown, of another type or out of its range; the message names it.
    """
    manifest = parse_object(path, MANIFEST_NAME, content)
    version = manifest.get("format")
    if type(version) is not int or version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: checkpoint format {reprlib.repr(version)}; this version reads "
            f"{FORMAT_VERSION}. Install the version of vae-aug that wrote it, or train again."
        )
    if unknown := sorted(manifest.keys() - _PARTS.keys() - {"format"}):
        raise _make_error(path, reprlib.repr(unknown[0]), "is no field of it")
    for name, kind in _PARTS.items():
        _check_type(path, name, manifest.get(name), kind)
    parse_model(path, manifest["model"])
    _check_training(path, manifest["training"])
    _check_fingerprint(path, manifest["fingerprint"])
    _check_variables(path, manifest["variables"])
    return manifest


def parse_object(path: Path, member: str, content: bytes) -> dict[str, Any]:
    """Parse a member of a checkpoint that holds a JSON object.

    Raises:
        CheckpointError: If it is no UTF-8, no JSON, names a key twice, is nested deeper than
            `_MAX_DEPTH`, or is no object.
    """
    try:
        value = json.loads(content.decode(), object_pairs_hook=_make_object)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: {member} is not valid ({error}).") from error
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [child for parent in level for child in _list_children(parent)]
    if level:
        raise CheckpointError(f"{path}: {member} is nested deeper than {_MAX_DEPTH} levels.")
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: {member} must hold an object; got {reprlib.repr(value)}.")
    return value


def parse_model(path: Path, values: Mapping[str, Any]) -> ModelConfig:
    """Make the settings of the network, of which only `OPTIONAL_FIELDS` may be missing.

    Raises:
        CheckpointError: If a field is missing, unknown, of another type or out of its range.
    """
    for field in dataclasses.fields(ModelConfig):
        if field.name not in values:
            if field.name in OPTIONAL_FIELDS:
                continue
            raise _make_error(path, f"model.{field.name}", "is missing")
        _check_type(path, f"model.{field.name}", values[field.name], type(field.default))
    try:
        config = ModelConfig.from_dict(values)
        check_size(config)
    except ValueError as error:
        problem = str(error)[:_MAX_MESSAGE]
        raise CheckpointError(f"{path}: {MANIFEST_NAME}, model settings: {problem}") from error
    return config


def check_size(config: ModelConfig) -> None:
    """Refuse a network that is larger than a checkpoint may hold.

    Raises:
        ValueError: If a size is beyond its bound, or the layers before and after the latent vector
            have more than `MAX_WEIGHTS` weights.
    """
    for name, most in (("image_size", _MAX_IMAGE_SIZE), ("decoder_repeats", _MAX_DECODER_REPEATS)):
        if getattr(config, name) > most:
            raise ValueError(f"{name} must be at most {most}; got {getattr(config, name)}.")
    # The layer before the latent reads 1280 features; the one after it reads half of the latent and
    # writes 64 channels at stride 32.
    places = 32 * (config.image_size // 32) ** 2 if config.profile == "vector" else 0
    weights = config.latent_dim * (1280 + places)
    if weights > MAX_WEIGHTS:
        raise ValueError(
            f"latent_dim {config.latent_dim} at image_size {config.image_size} needs more than "
            f"{weights} weights; a network has at most {MAX_WEIGHTS}."
        )


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object from its keys and values; refuse a key that is there twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("an object names a key twice")
    return values


def _list_children(value: Any) -> list[Any]:
    """List the values inside a JSON value."""
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _make_error(path: Path, field: str, problem: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: {MANIFEST_NAME}, {field} {problem}; the file is damaged, was altered, or another "
        "version wrote it. Copy it again from its source."
    )


def _check_type(path: Path, field: str, value: Any, kind: type) -> None:
    """Refuse a value that is not exactly of a type; JSON's true is no number."""
    if type(value) is not kind:
        got = "nothing" if value is None else reprlib.repr(value)
        raise _make_error(path, field, f"must be {_NAMES[kind]}, got {got}")


def _check_training(path: Path, training: Mapping[str, Any]) -> None:
    """Check the settings and figures of the training."""
    for name in ("validation", "config", "variation"):
        _check_type(path, f"training.{name}", training.get(name, {}), dict)
    for name, value in training.get("validation", {}).items():
        if type(value) not in (int, float):
            raise _make_error(
                path,
                f"training.validation.{name[:80]!r}",
                f"must be a number, got {reprlib.repr(value)}",
            )


def _check_fingerprint(path: Path, fingerprint: Mapping[str, Any]) -> None:
    """Check number of images, hashes of patients and digest of the start of the training."""
    _check_type(path, "fingerprint.patients", fingerprint.get("patients", []), list)
    for patient in fingerprint.get("patients", []):
        _check_type(path, "fingerprint.patients", patient, str)
    images = fingerprint.get("images", 0)
    _check_type(path, "fingerprint.images", images, int)
    if images < 0:
        raise _make_error(path, "fingerprint.images", "must not be negative")
    if fingerprint.get("start_from") is not None:
        _check_type(path, "fingerprint.start_from", fingerprint["start_from"], str)


def _check_variables(path: Path, variables: Mapping[str, Any]) -> None:
    """Check shape and digest of every variable, and how many weights there are in all."""
    if not 0 < len(variables) <= MAX_VARIABLES:
        raise _make_error(path, "variables", f"are {len(variables)}, must be 1 to {MAX_VARIABLES}")
    weights = 0
    for name, variable in variables.items():
        field = f"variables.{name[:80]!r}"
        _check_type(path, field, variable, dict)
        if variable.keys() != {"shape", "sha256"}:
            raise _make_error(path, field, "must have shape and sha256, and nothing else")
        shape, digest = variable["shape"], variable["sha256"]
        _check_type(path, f"{field}.shape", shape, list)
        for side in shape:
            _check_type(path, f"{field}.shape", side, int)
        if len(shape) > 8 or not all(0 < side <= MAX_WEIGHTS for side in shape):
            raise _make_error(path, f"{field}.shape", f"cannot be {reprlib.repr(shape)}")
        _check_type(path, f"{field}.sha256", digest, str)
        if not _SHA256.fullmatch(digest):
            raise _make_error(path, f"{field}.sha256", "must be 64 hexadecimal digits")
        weights += math.prod(shape)
    if weights > MAX_WEIGHTS:
        raise _make_error(path, "variables", f"are {weights} weights, at most {MAX_WEIGHTS}")
