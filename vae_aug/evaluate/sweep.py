"""A transform at several strengths, for what is measured of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from vae_aug.augment.transform import VAEAugment
from vae_aug.config import Guard, Mode
from vae_aug.model.network import Network


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Strengths of a transform, and what is the same at all of them.

    Attributes:
        factors: Strengths, at least 0.
        guard: As of `VAEAugment`.
        min_fidelity: As of `VAEAugment`.
        value_range: As of `VAEAugment`; what is measured of grey is measured on it, too.
        seed: As of `VAEAugment`.
    """

    factors: Sequence[float] = (0.5, 1.0, 2.0)
    guard: Guard = "paste"
    min_fidelity: float = 0.8
    value_range: tuple[float, float] | None = None
    seed: int = 0

    def make_transforms(self, network: Network, mode: Mode) -> Iterator[VAEAugment]:
        """Make the transform of each strength, with the mode's own default of `detail`.

        Raises:
            ValueError: If a setting is out of its range.
        """
        for factor in self.factors:
            yield VAEAugment(network, mode=mode, factor=factor, **self.describe())

    def describe(self) -> dict[str, Any]:
        """Return what is the same at all strengths, as `VAEAugment` takes it."""
        settings = dataclasses.asdict(self)
        del settings["factors"]
        return settings
