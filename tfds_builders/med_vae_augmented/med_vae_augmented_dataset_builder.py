"""The TFDS builder of med_vae_augmented."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import json
import logging
import operator
import os
import pickle
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from vae_aug.atomic import lock_folder
from vae_aug.augment.transform import VAEAugment
from vae_aug.config import OPTIONAL_SETTINGS, AugmentConfig, Guard, Mode
from vae_aug.extras.augment_split import PARTS_FOR_RUNNER, SplitReport
from vae_aug.extras.cards import make_cards
from vae_aug.extras.croissant import make_tfds_layout
from vae_aug.extras.patients import PatientCounts, count_patients, list_seen, refuse_seen
from vae_aug.extras.tfds_examples import (
    EMBEDDED,
    EMBEDDED_ABOUT,
    ExampleSource,
    count_lost,
    list_parts,
    make_examples,
    open_source,
)
from vae_aug.records.about import read_about

# Settings that reach VAEAugment; its engine and device do not change what is built.
_TRANSFORM_FIELDS = (
    "mode",
    "factor",
    "detail",
    "p",
    "guard",
    "min_fidelity",
    "seed",
    "hardest_of",
    "adaptive",
    "weakest",
)


@dataclasses.dataclass(kw_only=True)
class MedVaeAugmentedConfig(tfds.core.BuilderConfig):
    """What to build; the JSON of `tfds build --config` sets these fields.

    Attributes:
        name: Folder of the result; empty to make it from the source, the mode and a digest of all
            settings, so that other settings get another folder.
        source: Folder written by `vae-aug ingest`, or `"embedded"`.
        checkpoint: As of `VAEAugment`.
        mode: As of `VAEAugment`, like the fields down to `seed`.
        factor: See `VAEAugment`.
        detail: See `VAEAugment`.
        p: See `VAEAugment`.
        guard: See `VAEAugment`.
        min_fidelity: See `VAEAugment`.
        seed: See `VAEAugment`; never None, so that a build can be repeated.
        hardest_of: See `VAEAugment`.
        adaptive: See `VAEAugment`.
        weakest: See `VAEAugment`.
        augment_splits: Splits that pass through the autoencoder.
        augment_evaluation: Must be true for `augment_splits` to name another split than train.
        strict: Whether a network that was trained on a patient of an evaluation split is refused;
            otherwise the log tells of it.
        allow_damaged: Whether records are read of which shards are damaged or not as their
            `dataset.json` says; the log tells how many are lost.
        description: One line for people; None to make it from the fields.
    """

    name: str = ""
    source: str = EMBEDDED
    checkpoint: str = "demo"
    mode: Mode = "sample"
    factor: float = 1.0
    detail: float | None = None
    p: float = 1.0
    guard: Guard = "paste"
    min_fidelity: float = 0.8
    seed: int = 0
    hardest_of: int = 1
    adaptive: bool = False
    weakest: float = 1.0
    augment_splits: tuple[str, ...] = ("train",)
    augment_evaluation: bool = False
    strict: bool = False
    allow_damaged: bool = False
    description: str | None = None

    def __post_init__(self) -> None:
        """Check every field and fill in what depends on others.

        Raises:
            TypeError: If `seed` is no integer.
            ValueError: On a value out of range, or evaluation splits without the force.
        """
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise TypeError(f"seed must be an integer, for a repeatable build; got {self.seed!r}.")
        if isinstance(self.augment_splits, str):
            raise TypeError(f"augment_splits must be a list; got {self.augment_splits!r}.")
        self.augment_splits = tuple(self.augment_splits)
        self.detail = self.transform.detail
        evaluation = sorted(set(self.augment_splits) - {"train"})
        if evaluation and not self.augment_evaluation:
            raise ValueError(
                f"augment_splits names {', '.join(evaluation)}: a model measured on augmented "
                "images is not measured on real ones. Leave them out, or force it with "
                '"augment_evaluation": true.'
            )
        if not self.name:
            digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
            source = re.sub(r"\W+", "_", os.path.basename(os.path.normpath(self.source)))
            self.name = f"{source}_{self.mode}_{digest[:8]}"
        if self.description is None:
            self.description = f"{self.source}, {self.mode} with factor {self.factor:g}."

    @property
    def transform(self) -> AugmentConfig:
        """The settings of `VAEAugment`, checked."""
        return AugmentConfig(**{name: getattr(self, name) for name in _TRANSFORM_FIELDS})

    @property
    def settings(self) -> dict[str, Any]:
        """The fields that decide what is built, as JSON reads them back."""
        names = {*_TRANSFORM_FIELDS, "source", "checkpoint"} - {*OPTIONAL_SETTINGS}
        settings = {name: getattr(self, name) for name in sorted(names)}
        # Folders keep the names that they had before there was a choice.
        settings |= self.transform.list_optional()
        settings["augment_splits"] = list(self.augment_splits)
        return settings | ({"allow_damaged": True} if self.allow_damaged else {})


class Builder(tfds.core.GeneratorBasedBuilder):
    """Builds images with boxes, the training split augmented by a VAE."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 - TFDS reads a plain attribute
    BUILDER_CONFIGS = [  # noqa: RUF012
        MedVaeAugmentedConfig(
            name="phantom_denoise",
            mode="denoise",
            description="The embedded source, its training images denoised.",
        ),
        MedVaeAugmentedConfig(
            name="phantom_sample",
            mode="sample",
            description="The embedded source, its training images varied by a latent draw.",
        ),
    ]

    _on_beam = False

    def _info(self) -> tfds.core.DatasetInfo:
        source = self._source
        image = tfds.features.Image(
            shape=(None, None, source.channels),
            dtype=np.dtype(source.dtype).type,
            encoding_format="png",
        )
        label = tfds.features.ClassLabel(names=list(source.label_names))
        features = {
            "image": image,
            "image/id": tfds.features.Text(doc="Identifier in the source."),
            "objects": tfds.features.Sequence(
                {"bbox": tfds.features.BBoxFeature(), "label": label}
            ),
            "augment/augmented": tfds.features.Scalar(
                np.bool_,
                doc="Whether the transform chose it; the guard may have left it as it was.",
            ),
            "augment/checkpoint": tfds.features.Text(doc="Digest of the checkpoint."),
            "augment/mode": tfds.features.Text(doc="denoise, sample, interpolate or none."),
            "augment/factor": tfds.features.Scalar(np.float32),
            "augment/detail": tfds.features.Scalar(np.float32),
            "augment/guard": tfds.features.Text(doc="paste, keep or off."),
            "augment/min_fidelity": tfds.features.Scalar(np.float32),
            "augment/seed": tfds.features.Scalar(np.int64),
            "augment/settings": tfds.features.Text(
                doc="All settings as JSON, which make the same bytes again; empty if untouched."
            ),
            "augment/version": tfds.features.Text(doc="Version of vae_aug."),
            "augment/fidelity": tfds.features.Sequence(
                np.float32,
                doc="One value a box: SSIM with the source, or where a variation changes tones the "
                "share of its contrast-to-noise ratio that is left, or the square root of that of "
                "its contrast, if it is less; NaN if it cannot be judged.",
            ),
            "augment/contrast": tfds.features.Sequence(
                np.float32,
                doc="One value a box: its contrast-to-noise ratio divided by that in the source, "
                "NaN where either has none.",
            ),
            "augment/guarded": tfds.features.Sequence(
                np.bool_, doc="One value a box: whether the guard acted on it."
            ),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "objects"),
            metadata=tfds.core.MetadataDict(self.builder_config.settings),
        )

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Build the dataset, or reuse the one that stands under this name.

        Args:
            **kwargs: As of `tfds.core.DatasetBuilder.download_and_prepare`.

        Raises:
            ValueError: If what stands under this name was built with other settings.
            CheckpointError: If the checkpoint cannot be loaded.
            RecordError: If the source cannot be read, or another process builds this dataset.
        """
        download_config = kwargs.get("download_config") or tfds.download.DownloadConfig()
        overwrites = download_config.download_mode.overwrite_dataset
        self._on_beam = bool(download_config.beam_options or download_config.beam_runner)
        if self.is_prepared() and not overwrites:
            self._check_built_alike()
            super().download_and_prepare(**kwargs)
        elif "://" in os.fspath(self.data_path):  # an object store, where files cannot be locked
            super().download_and_prepare(**kwargs)
        else:
            with lock_folder(Path(self.data_path), beside=True) as is_locked:
                if is_locked:
                    self._remove_left_over()
                super().download_and_prepare(**kwargs)

    def _download_and_prepare(self, **kwargs: Any) -> None:
        """Write the dataset and then its cards into the folder that TFDS renames at the end."""
        super()._download_and_prepare(**kwargs)
        if self.builder_config.augment_splits and self.info.splits:
            for name, text in self._make_cards().items():
                (self.data_path / name).write_text(text)

    def _make_cards(self) -> dict[str, str]:
        """Make the cards of what was written, which is read for it."""
        reports = {}
        for split in self.info.splits:
            reports[split] = report = SplitReport(lost=self._lost.get(split, 0))
            collections.deque(report.count(self._read_rows(split), operator.getitem), maxlen=0)
        augmented = self.builder_config.augment_splits
        layout = make_tfds_layout(self._file_format.file_suffix)
        return make_cards(
            self.data_path, layout, reports, augmented, self._patients, self._augment, self._about
        )

    def _read_rows(self, split: str) -> Iterable[Any]:
        """Read the examples of a split, images encoded."""
        decoders = {"image": tfds.decode.SkipDecoding()}
        if self._file_format == tfds.core.FileFormat.ARRAY_RECORD:  # TFDS has no tf.data for it
            return iter(self.as_data_source(split=split, decoders=decoders))
        return tfds.as_numpy(self.as_dataset(split=split, decoders=decoders))

    @property
    def _file_format(self) -> tfds.core.FileFormat:
        return self.info.file_format or tfds.core.FileFormat.TFRECORD

    def _remove_left_over(self) -> None:
        """Remove what builds of this dataset have left that were killed."""
        for left in Path(self.data_path.parent).glob(f"incomplete.*_{self.data_path.name}"):
            try:
                shutil.rmtree(left)
            except OSError as error:  # another user's, for example
                logging.getLogger(__name__).warning("%s: cannot be removed (%s)", left, error)

    def _check_built_alike(self) -> None:
        """Raise `ValueError` if the dataset on disk was built with other settings."""
        usual = {**OPTIONAL_SETTINGS, "allow_damaged": False}
        built = usual | dict(self.info.metadata)
        asked = usual | self.builder_config.settings
        differing = [name for name in asked if built.get(name) != asked[name]]
        if differing:
            differences = "; ".join(
                f"{name} was {built.get(name)!r}, now {asked[name]!r}" for name in differing
            )
            raise ValueError(
                f"{self.data_path} was built with other settings: {differences}. Choose another "
                "name for the configuration, or build it again with --overwrite."
            )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # There is nothing to download.
        splits = self._source.splits
        self._lost: dict[str, int] = {}
        source = self.builder_config.source
        self._about = EMBEDDED_ABOUT if source == EMBEDDED else read_about(Path(source))
        unknown = sorted(set(self.builder_config.augment_splits) - set(splits))
        if unknown:
            raise ValueError(
                f"augment_splits names {', '.join(unknown)}; {self.builder_config.source!r} has "
                f"{', '.join(splits)}."
            )
        if self.builder_config.augment_splits:
            # A bad checkpoint is refused before anything is written.
            self._tell_seen_patients()
        return {split: self._generate_examples(split) for split in splits}

    def _generate_examples(self, split: str) -> Any:
        """Return the examples of a split, or how workers of Beam make them."""
        augment = self._augment if split in self.builder_config.augment_splits else None
        parts = list_parts(self._source, split, PARTS_FOR_RUNNER if self._on_beam else 1)
        if self._source.allow_damaged and (lost := count_lost(parts)):
            logging.getLogger(__name__).warning(
                "%s: %d records of the split %r are damaged and are lost",
                self.builder_config.source,
                lost,
                split,
            )
            self._lost[split] = lost
        if not self._on_beam:
            (whole,) = parts
            return make_examples(whole, augment)
        from vae_aug.beam import generate_on_beam  # needs an extra

        pickled = None if augment is None else pickle.dumps(augment)
        return generate_on_beam(make_examples, [(part, pickled) for part in parts])

    def _tell_seen_patients(self) -> None:
        """Tell of evaluation splits with patients whom the network was trained on."""
        config = self.builder_config
        if config.strict:
            refuse_seen(config.source, self._patients)
        for split, count in list_seen(self._patients).items():
            logging.getLogger(__name__).warning(
                "%s was trained on %d patients of the split %r: what is measured on it is too good",
                config.checkpoint,
                count,
                split,
            )

    @functools.cached_property
    def _source(self) -> ExampleSource:
        config = self.builder_config
        return open_source(config.source, allow_damaged=config.allow_damaged)

    @functools.cached_property
    def _patients(self) -> Mapping[str, PatientCounts]:
        config = self.builder_config
        if config.source == EMBEDDED:
            return {}
        damaged = self._source.splits if config.allow_damaged else ()
        return count_patients(config.source, self._augment, damaged=damaged)

    @functools.cached_property
    def _augment(self) -> VAEAugment:
        settings = self.builder_config.transform.to_dict()
        return VAEAugment(
            self.builder_config.checkpoint, **{name: settings[name] for name in _TRANSFORM_FIELDS}
        )
