"""A variational autoencoder inside a detector's TensorFlow input pipeline, for medical images.

Example:
    >>> from vae_aug import VAEAugment, read_records
    >>> augment = VAEAugment("demo", seed=1)  # doctest: +SKIP
    >>> train = read_records("records", "train").apply(augment)  # doctest: +SKIP
"""

from vae_aug.augment.transform import VAEAugment
from vae_aug.config import AugmentConfig, ModelConfig, TrainConfig
from vae_aug.data.records import parse_example, read_records
from vae_aug.errors import (
    AnnotationError,
    CheckpointError,
    DicomError,
    MissingPackageError,
    RecordError,
    VAEAugError,
)
from vae_aug.model.checkpoint import load_checkpoint
from vae_aug.version import __version__

__all__ = [
    "AnnotationError",
    "AugmentConfig",
    "CheckpointError",
    "DicomError",
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
