"""The settings of a training, from what was chosen; by default it goes on from `demo`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from vae_aug.config import TRAIN_RECIPES, ModelConfig, TrainConfig
from vae_aug.model.stored import read_manifest

DEFAULT_START = "demo"
DEFAULT_PROFILE = "ladder"
_FREE = {"image_size"}
"""Fields of `ModelConfig` that a ladder may change when it goes on from a checkpoint."""

_STARTS = {"start_from", "encoder_weights"}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The settings of a training.

    Attributes:
        model: The architecture.
        train: The settings of the run.
        reason: Why it begins where it does, a sentence; empty if that was chosen.
    """

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as the `config.json` of a run has them."""
        return {"model": self.model.to_dict(), "train": self.train.to_dict()}


def make_recipe(
    model: Mapping[str, Any], train: Mapping[str, Any], varied: Iterable[str] = ()
) -> Recipe:
    """Complete the settings that were chosen.

    Where nothing was chosen that an architecture or its first weights depend on, training goes on
    from the packaged `demo`. Else it begins as chosen, with random weights unless others are named,
    and the profile is `ladder` unless another is.

    Args:
        model: Fields of `ModelConfig` that were chosen.
        train: Fields of `TrainConfig` that were chosen; None is a choice too.
        varied: Fields of either, as `"model.encoder"`, that a search is going to change.

    Returns:
        The settings; what was not chosen is as in the checkpoint that it starts from and as in
        `TRAIN_RECIPES`.

    Raises:
        CheckpointError: If the checkpoint that it starts from cannot be read.
        ValueError: If a value is out of its range.
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
    architecture = ModelConfig.from_dict({**begun, **model})
    settings = TrainConfig.from_dict({**TRAIN_RECIPES[architecture.profile], **train})
    return Recipe(architecture, settings, reason)
