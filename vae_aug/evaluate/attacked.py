"""The parts of a network that an audit of membership attacks: its restoration, or its variation.

Both are trained from anew on some of the patients, and then score all of them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from vae_aug.config import VariationConfig
from vae_aug.evaluate.canaries import SHARE
from vae_aug.evaluate.patient_scores import SCORES, make_score_batch, score_patients
from vae_aug.model.fields import SQUARE
from vae_aug.model.ladder import LadderVAE
from vae_aug.model.network import Network
from vae_aug.model.transformation import LATENT_DIM, TransformationVAE
from vae_aug.train.pairs import measure_pairs, rank_partners, train_transformation, weigh_terms
from vae_aug.train.recipe import Recipe
from vae_aug.train.references import Patients, Trainer
from vae_aug.train.variation import read_patients

_PARTNERS = 4
"""Images of others with which each image is scored, both ways."""

_BATCH = 32


class Attacked(Protocol):
    """A part of a network that is trained on some patients and scores all of them.

    Attributes:
        scores: What its scores are, by their names; the first is the primary one. Members score
            higher.
        steps: Steps of a training of one round, so many that it sees patients that are not planted
            as often as the recipe says.
    """

    scores: Mapping[str, str]
    steps: int

    def start(self, seed: int) -> None:
        """Set the network to what a training of this seed starts from."""

    def train(
        self, members: np.ndarray, seed: int, *, rounds: int, progress: Callable[[], None]
    ) -> None:
        """Train the network from its start.

        Args:
            members: `[P] bool`, whom it is trained on. Canaries among them are a quarter of what
                it sees.
            seed: Of all that is random.
            rounds: How often all steps are run.
            progress: Called after every step.

        Raises:
            TrainingError: If the loss stops being finite.
        """

    def score(self) -> dict[str, np.ndarray]:
        """Score every patient, `[P] float64`, by the names of `scores`."""

    def score_target(self, target: Network) -> dict[str, np.ndarray]:
        """Score every patient by a checkpoint."""


class Restoration:
    """What denoises and decodes: the network of a recipe but for its variation."""

    scores: Mapping[str, str] = SCORES

    def __init__(self, recipe: Recipe, patients: Patients, planted: np.ndarray) -> None:
        """Take what the network is trained by; it is made when it is first needed.

        Args:
            recipe: Of which the restoration is trained.
            patients: The records.
            planted: `[P] bool`, which of the patients are canaries.
        """
        self.steps = _prolong(recipe.train.steps)
        train = dataclasses.replace(recipe.train, steps=self.steps)
        self._recipe = dataclasses.replace(recipe, train=train)
        self._patients, self._planted = patients, planted

    @functools.cached_property
    def _trainer(self) -> Trainer:
        return Trainer(self._recipe)

    @functools.cached_property
    def _score_batch(self) -> Any:
        return self._make_graph(self._trainer.network)

    def start(self, seed: int) -> None:
        """As `Attacked`."""
        self._trainer.start(seed)

    def train(
        self, members: np.ndarray, seed: int, *, rounds: int, progress: Callable[[], None]
    ) -> None:
        """As `Attacked`."""
        own, canaries = members & ~self._planted, members & self._planted
        parts = [(own, 1.0)]
        if canaries.any():
            parts = [(own, 1.0 - SHARE), (canaries, SHARE)]
        self._trainer.train(
            [source for part, _ in parts for source in self._patients.select(part)],
            [share * weight for part, weight in parts for share in self._patients.share(part)],
            seed,
            rounds=rounds,
            progress=progress,
        )

    def score(self) -> dict[str, np.ndarray]:
        """As `Attacked`."""
        return score_patients(self._score_batch, self._patients, self._size)

    def score_target(self, target: Network) -> dict[str, np.ndarray]:
        """As `Attacked`; raise `ValueError` for another architecture than the recipe's."""
        wanted, found = self._recipe.model.to_dict(), target.config.to_dict()
        # A ladder takes squares of any size, and is scored at that of the recipe.
        sizes = {"image_size"} if self._recipe.model.input_size is None else set()
        differing = [
            key for key in wanted.keys() - {"variation"} - sizes if wanted[key] != found.get(key)
        ]
        if differing:
            described = ", ".join(
                f"{key} {found.get(key)!r}, not {wanted[key]!r}" for key in sorted(differing)
            )
            raise ValueError(
                f"The checkpoint is another architecture than the recipe: {described}. Take the "
                "settings of its own training, config=RUN/config.json."
            )
        return score_patients(self._make_graph(target), self._patients, self._size)

    @property
    def _size(self) -> int:
        return self._recipe.model.image_size

    def _make_graph(self, network: Network) -> Any:
        return make_score_batch(network, self._recipe.train, self._size)


class Variation:
    """What samples: a network of transformations between patients.

    Attributes:
        squares: `[N, SQUARE, SQUARE, 1] uint8`, the images of all patients.
        places: `[N] int64`, the patient of each.
        names: The names of these.
        network: The network, random at first.
    """

    scores: Mapping[str, str] = {
        "elbo": "evidence bound of the transformations between an image and those of other "
        "patients that are most similar, both ways: what training raises",
        "tone": "how much nearer these bring grey values and contrast",
        "pattern": "how much nearer these bring the pattern",
    }

    def __init__(self, config: VariationConfig, patients: Patients, planted: np.ndarray) -> None:
        """Read the images of all patients.

        Args:
            config: How it is trained.
            patients: The records.
            planted: `[P] bool`, which of the patients are canaries.
        """
        self.steps = _prolong(config.steps)
        self._config = dataclasses.replace(config, steps=self.steps)
        self._planted = planted
        self.places = np.concatenate(patients.places)
        self.names = [patients.keys[place] for place in self.places]
        self.squares = read_patients(patients.sources, config.seed, patients.count()).squares
        self.network = TransformationVAE()

    @functools.cached_property
    def _score_pairs(self) -> Any:
        return self._make_graph(self.network)

    def start(self, seed: int) -> None:
        """As `Attacked`."""
        keras.utils.set_random_seed(seed)
        self.network.set_weights(TransformationVAE().get_weights())

    def train(
        self, members: np.ndarray, seed: int, *, rounds: int, progress: Callable[[], None]
    ) -> None:
        """As `Attacked`; a canary's image is there so often that all are a quarter."""
        own, canaries = (
            np.flatnonzero(part[self.places])
            for part in (members & ~self._planted, members & self._planted)
        )
        times = max(1, round(SHARE / (1.0 - SHARE) * len(own) / max(len(canaries), 1)))
        chosen = np.concatenate([own, np.tile(canaries, times)])
        trained = train_transformation(
            self.squares[chosen],
            [self.names[index] for index in chosen],
            dataclasses.replace(self._config, steps=rounds * self.steps, seed=seed),
            progress=lambda *_: progress(),
        )
        self.network.set_weights(trained.get_weights())

    def score(self) -> dict[str, np.ndarray]:
        """As `Attacked`."""
        return self._score_by(self._score_pairs)

    def score_target(self, target: Network) -> dict[str, np.ndarray]:
        """As `Attacked`; raise `ValueError` for a checkpoint without a variation."""
        if not isinstance(target, LadderVAE) or target.variation is None:
            raise ValueError("The checkpoint has no variation, so that cannot be attacked.")
        return self._score_by(self._make_graph(target.variation))

    def _make_graph(self, network: TransformationVAE) -> Any:
        square = tf.TensorSpec([None, SQUARE, SQUARE, 1], tf.float32)

        @tf.function(autograph=False, input_signature=[square, square])
        def score_pairs(images: tf.Tensor, partners: tf.Tensor) -> dict[str, tf.Tensor]:
            noise = tf.zeros([tf.shape(images)[0], LATENT_DIM])
            terms = measure_pairs(network, images, partners, noise)
            loss = weigh_terms(terms, self._config)
            return {"elbo": -loss, "tone": -terms["tone"], "pattern": -terms["pattern"]}

        return score_pairs

    def _score_by(self, score_pairs: Callable[..., dict[str, tf.Tensor]]) -> dict[str, np.ndarray]:
        """Average over each patient's pairs, both ways."""
        partners, _ = rank_partners(self.squares, self.names, _PARTNERS)
        first = np.repeat(np.arange(len(self.squares)), partners.shape[1])
        pairs = np.stack([first, partners.ravel()])
        images, others = np.concatenate([pairs, pairs[::-1]], axis=1)
        scores: dict[str, list[np.ndarray]] = {name: [] for name in self.scores}
        for start in range(0, len(images), _BATCH):
            batch = (part[start : start + _BATCH] for part in (images, others))
            squares = (tf.constant(self.squares[part], tf.float32) / 255.0 for part in batch)
            for name, values in score_pairs(*squares).items():
                scores[name].append(values.numpy())
        patients = np.tile(self.places[first], 2)
        count = np.bincount(patients, minlength=len(self._planted))
        return {
            name: np.bincount(patients, np.concatenate(values)) / count
            for name, values in scores.items()
        }


def _prolong(steps: int) -> int:
    """Compute the steps in which patients that are not planted are seen as often as by `steps`."""
    return math.ceil(steps / (1.0 - SHARE))
