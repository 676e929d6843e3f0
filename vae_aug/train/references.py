"""Reference networks: one recipe, trained again and again on other patients, for an audit.

What `vae_aug.train.train.train` adds to the steps themselves is left out: validations, which choose
a checkpoint, and files. A reference network is the average of the weights after the last step, so
it has seen its images at least as often as the best of a training has.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from vae_aug.errors import RecordError
from vae_aug.model.network import Network
from vae_aug.records.shards import read_info
from vae_aug.train.feed import Source, make_training_feed, make_validation_feed, open_source
from vae_aug.train.holdout import name_images, select
from vae_aug.train.recipe import Recipe
from vae_aug.train.run_files import TrainingError
from vae_aug.train.state import make_start, make_state
from vae_aug.train.train import make_train_step


class Patients(NamedTuple):
    """Records by patient.

    Attributes:
        sources: The records.
        places: For each source `[N] int64`, which of `keys` each record belongs to.
        keys: `"patient HASH"`, or `"image NAME"` of an image of nobody known, sorted.
    """

    sources: list[Source]
    places: list[np.ndarray]
    keys: list[str]

    def count(self, wanted: np.ndarray | None = None) -> int:
        """Count the images, or those of patients at which `[P] bool` is true."""
        return sum(len(p) if wanted is None else int(wanted[p].sum()) for p in self.places)

    def select(self, wanted: np.ndarray) -> list[Source]:
        """Keep the images of patients at which `[P] bool` is true, in sources that have any."""
        masks = [wanted[places] for places in self.places]
        pairs = zip(self.sources, masks, strict=True)
        return [select(source, mask) for source, mask in pairs if mask.any()]

    def share(self, wanted: np.ndarray) -> list[float]:
        """Compute which share of the images of `select` is in each of its sources."""
        counts = [int(wanted[places].sum()) for places in self.places]
        return [count / sum(counts) for count in counts if count]

    def iterate(self, size: int, batch_size: int) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        """Yield all images, source by source, `(noisy, clean)` as `make_validation_feed` does."""
        config = dataclasses.replace(Recipe().train, seed=0, batch_size=batch_size)
        for source, places in zip(self.sources, self.places, strict=True):
            yield from make_validation_feed([source], size, config, limit=len(places))


def open_patients(folders: Sequence[str], limit: int | None = None) -> Patients:
    """Open all splits of folders of records, by patient.

    Args:
        folders: Folders of records.
        limit: Most images of a patient, evenly spaced over the records; None for all.

    Returns:
        The records.

    Raises:
        RecordError: If a folder holds no records or damaged ones.
    """
    opened = [open_source(f, split) for f in folders for split in read_info(f).image_splits]
    named = [[patient or image for patient, image in name_images(source)] for source in opened]
    keys = sorted({key for names in named for key in names})
    if not keys:
        raise RecordError(f"{', '.join(folders)}: hold no images.")
    places = [np.searchsorted(keys, names) for names in named]
    if limit is None:
        return Patients(opened, places, keys)
    ends = np.cumsum([0, *map(len, places)])
    wanted = _space_out(np.concatenate(places), limit)
    kept = [wanted[first:end] for first, end in itertools.pairwise(ends)]
    chosen = [(s, p, mask) for s, p, mask in zip(opened, places, kept, strict=True) if mask.any()]
    sources = [select(source, mask) for source, _, mask in chosen]
    return Patients(sources, [part[mask] for _, part, mask in chosen], keys)


def _space_out(places: np.ndarray, limit: int) -> np.ndarray:
    """Choose at most so many records of every place, evenly spaced: `[N] bool`."""
    chosen = np.zeros(len(places), bool)
    for place in np.unique(places):
        own = np.flatnonzero(places == place)
        count = min(limit, len(own))
        chosen[own[np.arange(count) * len(own) // count]] = True
    return chosen


class Trainer:
    """Trains one network from its start, as often as wanted; its graph is traced once.

    Attributes:
        network: The network, with the weights of the last step while it trains, and with their
            averages after `train`.
    """

    def __init__(self, recipe: Recipe) -> None:
        """Make the network and its optimiser.

        Args:
            recipe: Of which the restoration is trained.
        """
        self._recipe = recipe
        self._state = make_state(make_start(recipe), recipe.train)
        self._train_step = make_train_step(self._state, recipe.train)
        self._slots = [np.array(variable) for variable in self._state.optimizer.variables]
        self.network: Network = self._state.vae
        self._values = _copy_values(self.network)

    def start(self, seed: int) -> None:
        """Set the network to what a training of this seed starts from.

        Args:
            seed: Of random weights, where the recipe has any.
        """
        if self._recipe.train.start_from is None:
            config = dataclasses.replace(self._recipe.train, seed=seed)
            start = make_start(dataclasses.replace(self._recipe, train=config))
            self._values = _copy_values(start)
        for variable, value in zip(self.network.variables, self._values, strict=True):
            variable.assign(value)

    def train(
        self,
        sources: Sequence[Source],
        shares: Sequence[float],
        seed: int,
        *,
        rounds: int = 1,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Train the network from its start.

        Args:
            sources: What is trained on.
            shares: Of each source in a batch.
            seed: Of random weights, order and noise. Latent noise is that of the recipe's seed.
            rounds: How often all steps are run, each time from the first learning rate on.
            progress: Called after every step.

        Raises:
            TrainingError: If the loss stops being finite.
        """
        self.start(seed)
        for number in range(rounds):
            config = dataclasses.replace(
                self._recipe.train, seed=seed + number, source_weights=tuple(shares)
            )
            self._reset()
            feed = make_training_feed(sources, self.network.config.image_size, config)
            for batch in feed.take(config.steps):
                loss = float(self._train_step(*batch, self._state.step)["loss"])
                if not np.isfinite(loss):
                    raise TrainingError(
                        f"The loss is {loss} at step {int(self._state.step)}. Train with a lower "
                        "learning_rate."
                    )
                self._state.step.assign_add(1)
                progress()
            for variable, mean in zip(
                self.network.trainable_variables, self._state.averages, strict=True
            ):
                variable.assign(mean)

    def _reset(self) -> None:
        """Set step, optimiser and averages to what they are before the first step."""
        state = self._state
        state.step.assign(0)
        for variable, value in zip(state.optimizer.variables, self._slots, strict=True):
            variable.assign(value)
        for variable, mean in zip(self.network.trainable_variables, state.averages, strict=True):
            mean.assign(variable.value)


def _copy_values(network: Network) -> list[np.ndarray]:
    """Copy all that a training changes: weights, and the states of what is random in layers."""
    return [np.array(variable) for variable in network.variables]
