"""A variational autoencoder inside a detector's TensorFlow input pipeline, for medical images.

Example:
    >>> from vae_aug import VAEAugment, read_records
    >>> augment = VAEAugment("demo", seed=1)  # doctest: +SKIP
    >>> train = read_records("records", "train").apply(augment)  # doctest: +SKIP
"""

import importlib
import typing

from vae_aug.config import AugmentConfig, ModelConfig, TrainConfig
from vae_aug.errors import (
    AnnotationError,
    CacheError,
    CheckpointError,
    ConformanceError,
    DicomError,
    EngineError,
    MissingPackageError,
    RecordError,
    VAEAugError,
)
from vae_aug.version import __version__

if typing.TYPE_CHECKING:
    from vae_aug.augment.transform import VAEAugment
    from vae_aug.model.checkpoint import load_checkpoint
    from vae_aug.records.records import parse_example, read_records

__all__ = [
    "AnnotationError",
    "AugmentConfig",
    "CacheError",
    "CheckpointError",
    "ConformanceError",
    "DicomError",
    "EngineError",
    "MissingPackageError",
    "ModelConfig",
    "RecordError",
    "TrainConfig",
    "VAEAugError",
    "VAEAugment",
    "__version__",
    "load_checkpoint",
    "parse_example",
    "read_records",
]

# Loaded when first asked for: TensorFlow takes seconds, which `vae-aug --help` need not spend.
_HOMES = {
    "VAEAugment": "vae_aug.augment.transform",
    "load_checkpoint": "vae_aug.model.checkpoint",
    "parse_example": "vae_aug.records.records",
    "read_records": "vae_aug.records.records",
}


def __getattr__(name: str) -> typing.Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
