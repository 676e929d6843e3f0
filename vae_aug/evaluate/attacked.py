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

from vae_aug.config import TrainedPart
from vae_aug.evaluate.canaries import SHARE
from vae_aug.evaluate.patient_scores import SCORES, make_score_batch, score_patients
from vae_aug.model.checkpoint import load_checkpoint
from vae_aug.model.fields import SQUARE
from vae_aug.model.ladder import LadderVAE
from vae_aug.model.network import Network
from vae_aug.model.transformation import LATENT_DIM, TransformationVAE
from vae_aug.train.pairs import (
    Partners,
    measure_pairs,
    rank_partners,
    train_transformation,
    weigh_terms,
)
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
        canaries: What its planted patients are, a sentence.
        steps: Steps of a training of one round, so many that it sees patients that are not planted
            as often as the recipe says.
    """

    scores: Mapping[str, str]
    canaries: str
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
    canaries = "Each is a random texture of its own."

    def __init__(self, recipe: Recipe, patients: Patients, planted: np.ndarray) -> None:
        """Take what the network is trained by; it is made when it is first needed.

        Args:
            recipe: Of which the restoration is trained.
            patients: The records.
            planted: `[P] bool`, which of the patients are canaries.
        """
        self.steps = _prolong(recipe.train.steps)
        model = dataclasses.replace(recipe.model, variation=False)
        train = dataclasses.replace(recipe.train, steps=self.steps)
        self._recipe = dataclasses.replace(recipe, model=model, train=train, only="restoration")
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
        """As `Attacked`."""
        return score_patients(self._make_graph(target), self._patients, self._size)

    @property
    def _size(self) -> int:
        return self._recipe.model.image_size

    def _make_graph(self, network: Network) -> Any:
        return make_score_batch(network, self._recipe.train, self._size)


class Variation:
    """What samples: a network of transformations between patients.

    A training pairs images that are alike. Here every image is paired with those of other members
    that are most like it, however like it they are, so that every member is trained on.

    Attributes:
        squares: `[N, SQUARE, SQUARE, 1] uint8`, the images of all patients.
        places: `[N] int64`, the patient of each.
        network: The network, random at first.
    """

    scores: Mapping[str, str] = {
        "elbo": "evidence bound of transformations: what training raises. Each image is turned "
        "into the four of other patients that are most like it, and these into it",
        "tone": "how near that brings grey values and contrast",
        "pattern": "how near that brings the pattern",
    }
    canaries = "All have one random texture, each under a shading of its own."

    def __init__(self, recipe: Recipe, patients: Patients, planted: np.ndarray) -> None:
        """Read the images of all patients, and what the training starts from.

        Args:
            recipe: Of which the variation is trained, from that of `start_from` if there is one.
            patients: The records.
            planted: `[P] bool`, which of the patients are canaries.
        """
        config = recipe.variation
        self.steps = _prolong(config.steps)
        self._config = dataclasses.replace(config, steps=self.steps)
        self._planted = planted
        self.places = np.concatenate(patients.places)
        self.squares = read_patients(patients.sources, config.seed, patients.count()).squares
        self.network = TransformationVAE()
        self._begun = None
        if recipe.train.start_from:
            begun = load_checkpoint(recipe.train.start_from)
            if isinstance(begun, LadderVAE) and begun.variation is not None:
                self._begun = begun.variation.get_weights()

    @functools.cached_property
    def _score_pairs(self) -> Any:
        return self._make_graph(self.network)

    @functools.cached_property
    def _scored(self) -> np.ndarray:
        """Which images are turned into which, `[2, pairs] int64`."""
        parts = [part for part in (~self._planted, self._planted) if part.any()]
        pairs = [self.pair(part, _PARTNERS) for part in parts]
        images = [np.repeat(one.images, one.partners.shape[1]) for one in pairs]
        partners = [one.partners.ravel() for one in pairs]
        return np.stack([np.concatenate(images), np.concatenate(partners)])

    def start(self, seed: int) -> None:
        """As `Attacked`."""
        keras.utils.set_random_seed(seed)
        self.network.set_weights(self._begun or TransformationVAE().get_weights())

    def train(
        self, members: np.ndarray, seed: int, *, rounds: int, progress: Callable[[], None]
    ) -> None:
        """As `Attacked`."""
        self.start(seed)
        train_transformation(
            self.squares,
            self.pair_members(members),
            dataclasses.replace(self._config, steps=rounds * self.steps, seed=seed),
            network=self.network,
            progress=lambda *_: progress(),
        )

    def pair_members(self, members: np.ndarray) -> Partners:
        """Pair images of members, canaries and others apart; canaries are a quarter of the rows.

        Args:
            members: `[P] bool`.

        Returns:
            The pairs, of which rows are repeated.
        """
        count = self._config.partners
        own = self.pair(members & ~self._planted, count)
        if not (members & self._planted).any():
            return own
        canaries = self.pair(members & self._planted, count)
        odds = SHARE / (1.0 - SHARE)
        times = math.ceil(len(canaries.images) / (odds * len(own.images)))
        rows = np.tile(np.arange(len(own.images)), times)
        planted = np.resize(np.arange(len(canaries.images)), round(odds * len(rows)))
        widest = max(own.partners.shape[1], canaries.partners.shape[1])
        partners = [np.resize(p, (widest,)) for p in (*own.partners, *canaries.partners)]
        chosen = np.concatenate([rows, len(own.images) + planted])
        images = np.concatenate([own.images, canaries.images])
        return Partners(images[chosen], np.stack(partners)[chosen])

    def pair(self, wanted: np.ndarray, count: int) -> Partners:
        """Pair each image of some patients with those of others of them that are most like it.

        Args:
            wanted: `[P] bool`.
            count: Most partners of an image.

        Returns:
            The pairs, a row for each image.
        """
        images = np.flatnonzero(wanted[self.places])
        names = [str(place) for place in self.places[images]]
        partners, _ = rank_partners(self.squares[images], names, count)
        return Partners(images, images[partners])

    def score(self) -> dict[str, np.ndarray]:
        """As `Attacked`."""
        return self._score_by(self._score_pairs)

    def score_target(self, target: Network) -> dict[str, np.ndarray]:
        """As `Attacked`."""
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
        images, others = np.concatenate([self._scored, self._scored[::-1]], axis=1)
        scores: dict[str, list[np.ndarray]] = {name: [] for name in self.scores}
        for start in range(0, len(images), _BATCH):
            batch = (part[start : start + _BATCH] for part in (images, others))
            squares = (tf.constant(self.squares[part], tf.float32) / 255.0 for part in batch)
            for name, values in score_pairs(*squares).items():
                scores[name].append(values.numpy())
        patients = np.tile(self.places[self._scored[0]], 2)
        count = np.bincount(patients, minlength=len(self._planted))
        return {
            name: np.bincount(patients, np.concatenate(values)) / count
            for name, values in scores.items()
        }


def make_attacked(
    only: TrainedPart, recipe: Recipe, patients: Patients, planted: np.ndarray
) -> Attacked:
    """Take the part of a recipe that is attacked.

    Args:
        only: The part.
        recipe: How it is trained.
        patients: The records.
        planted: `[P] bool`, which of the patients are canaries.

    Returns:
        The part.
    """
    made = Variation if only == "variation" else Restoration
    return made(recipe, patients, planted)


def check_attack(only: TrainedPart, recipe: Recipe, target: Network | None) -> None:
    """Raise `ValueError` unless a recipe has the part, and a checkpoint one to compare with it."""
    if only == "variation":
        if not recipe.model.variation:
            raise ValueError(
                f"only='variation': a {recipe.model.profile!r} of this recipe has no variation."
            )
        if target is not None and not target.config.variation:
            raise ValueError(
                "The checkpoint has no variation that could be attacked; attack its restoration."
            )
        return
    if target is None:
        return
    wanted, found = recipe.model.to_dict(), target.config.to_dict()
    # A ladder takes squares of any size, and is scored at that of the recipe.
    ignored = {"variation"} | ({"image_size"} if recipe.model.input_size is None else set())
    differing = [key for key in wanted if key not in ignored and wanted[key] != found.get(key)]
    if differing:
        described = ", ".join(f"{key} {found.get(key)!r}, not {wanted[key]!r}" for key in differing)
        raise ValueError(
            f"The checkpoint is another architecture than the recipe: {described}. Take the "
            "settings of its own training, config=RUN/config.json."
        )


def _prolong(steps: int) -> int:
    """Compute the steps in which patients that are not planted are seen as often as by `steps`."""
    return math.ceil(steps / (1.0 - SHARE))
