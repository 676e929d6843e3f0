"""The settings of a training, from what was chosen; by default it goes on from `demo`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from vae_aug.config import (
    TRAIN_RECIPES,
    ModelConfig,
    TrainConfig,
    TrainedPart,
    VariationConfig,
    check_choice,
)
from vae_aug.model.stored import read_manifest

DEFAULT_START = "demo"
DEFAULT_PROFILE = "ladder"
_FREE = {"image_size", "variation"}
"""Fields of `ModelConfig` that a ladder may change when it goes on from a checkpoint."""

_STARTS = {"start_from", "encoder_weights"}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The settings of a training.

    Attributes:
        model: The architecture.
        train: The settings of the run.
        variation: Those of the training of its `variation`, if the architecture has one.
        only: The one part that is trained, while the other stays as in the checkpoint that the run
            starts from; None for all parts.
        reason: Why it begins where it does, a sentence; empty if that was chosen.
        devices: Devices over which a batch of the restoration is split: how many GPUs, `"2"`, or
            names, `"GPU:0,GPU:2"`; None for TensorFlow's choice of one. No part of the settings
            that a run keeps, since it may go on with others.

    Raises:
        ValueError: If `only` is `"variation"` and the architecture has none, or there is no
            checkpoint to start from.
    """

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    variation: VariationConfig = dataclasses.field(default_factory=VariationConfig)
    only: TrainedPart | None = None
    reason: str = ""
    devices: str | None = None

    def __post_init__(self) -> None:
        """Check what is to be trained."""
        if not isinstance(self.devices, str | None):
            raise TypeError(
                f"devices must be text, e.g. '2' or 'GPU:0,GPU:1'; got {self.devices!r}."
            )
        if self.only is not None:
            check_choice("only", self.only, TrainedPart)
        if self.only == "variation" and not self.model.variation:
            raise ValueError(
                f"only='variation': a {self.model.profile!r} with variation={self.model.variation} "
                "has no such part; it is one of the profile 'ladder'."
            )
        if self.only == "variation" and not self.train.start_from:
            raise ValueError(
                "only='variation' leaves the restoration as it is, so there has to be one: name "
                "its checkpoint as start_from."
            )

    def trains(self, part: TrainedPart) -> bool:
        """Whether a part of the network is trained."""
        exists = part == "restoration" or self.model.variation
        return exists and self.only in (None, part)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as the `config.json` of a run has them."""
        settings: dict[str, Any] = {"model": self.model.to_dict(), "train": self.train.to_dict()}
        if self.trains("variation"):
            settings["variation"] = self.variation.to_dict()
        return settings if self.only is None else {**settings, "only": self.only}


def make_recipe(
    model: Mapping[str, Any],
    train: Mapping[str, Any],
    variation: Mapping[str, Any] | None = None,
    *,
    only: TrainedPart | None = None,
    varied: Iterable[str] = (),
    devices: str | None = None,
) -> Recipe:
    """Complete the settings that were chosen.

    Where nothing was chosen that an architecture or its first weights depend on, training goes on
    from the packaged `demo`. Else it begins as chosen, with random weights unless others are named,
    and the profile is `ladder` unless another is. A ladder gets a `variation`, unless none is
    trained and the checkpoint that it starts from has none.

    Args:
        model: Fields of `ModelConfig` that were chosen.
        train: Fields of `TrainConfig` that were chosen; None is a choice too.
        variation: Fields of `VariationConfig` that were chosen.
        only: As of `Recipe`.
        varied: Fields of either, as `"model.encoder"`, that a search is going to change.
        devices: As of `Recipe`.

    Returns:
        The settings; what was not chosen is as in the checkpoint that it starts from and as in
        `TRAIN_RECIPES`.

    Raises:
        CheckpointError: If the checkpoint that it starts from cannot be read.
        ValueError: If a value is out of its range, or as `Recipe`.
    """
    chosen = {f"model.{name}" for name in model.keys() - _FREE}
    chosen |= {f"train.{name}" for name in train.keys() & _STARTS}
    searched = [name for name in varied if name.startswith("model.") or name[6:] in _STARTS]
    reason = ""
    if not chosen and not searched:
        train = {**train, "start_from": DEFAULT_START}
        reason = (
            f"No profile was chosen: a ladder goes on from the packaged {DEFAULT_START!r}, which "
            "saves most of the time. --profile ladder, or vector, begins with random weights."
        )
    start_from = train.get("start_from")
    begun = read_manifest(start_from)["model"] if start_from else {"profile": DEFAULT_PROFILE}
    wanted = {**begun, **model}
    if only != "restoration" and wanted["profile"] == "ladder":
        wanted = {**wanted, "variation": model.get("variation", True)}
    architecture = ModelConfig.from_dict(wanted)
    settings = TrainConfig.from_dict({**TRAIN_RECIPES[architecture.profile], **train})
    pairs = VariationConfig.from_dict(variation or {})
    return Recipe(architecture, settings, pairs, only, reason, devices)
