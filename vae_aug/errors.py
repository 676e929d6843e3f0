"""The exception tree. Every error says what was expected, what came, where, and what to do."""


class VAEAugError(Exception):
    """Base of all errors that vae_aug raises on purpose, except bad arguments.

    Arguments of the wrong value or type raise `ValueError` or `TypeError`.
    """


class CheckpointError(VAEAugError):
    """A checkpoint cannot be read, was altered, or does not fit this version."""


class CacheError(VAEAugError):
    """A cache of descriptions is damaged, was made with other settings, or cannot be written."""


class DicomError(VAEAugError):
    """A DICOM file cannot be turned into an image."""


class RecordError(VAEAugError):
    """A TFRecord file or one of its records is damaged or breaks the schema."""


class AnnotationError(VAEAugError):
    """An annotation file cannot be read or contradicts the images it describes."""


class MissingSplitError(AnnotationError):
    """A data set has no such split; the message names those that it has."""


class ConformanceError(VAEAugError):
    """A transform changes what it must leave alone, or gives different bytes for the same input."""


class MissingPackageError(VAEAugError, ImportError):
    """An optional package is not installed; the message holds the install command."""


class EngineError(VAEAugError):
    """An engine cannot run on this machine; the message names one that can."""
