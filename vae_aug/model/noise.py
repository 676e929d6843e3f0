"""The noise that a network takes as an argument, and how it is sampled from seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import tensorflow as tf

Side: TypeAlias = int | tf.Tensor | None
"""A height or width in pixels; None if it is unknown until the graph runs."""

Noise: TypeAlias = dict[str, tf.Tensor]
"""Noise by its name, each `[B, ...] float32`."""


class NoiseSpec(NamedTuple):
    """Shape and distribution of one kind of noise, for one image.

    Attributes:
        purpose: A number that no other noise of the network has; it is folded into the seed.
        shape: Shape without the batch axis.
        uniform: Whether it is uniform in [0, 1), not standard normal.
    """

    purpose: int
    shape: tuple[Side, ...]
    uniform: bool = False

    def sample(self, seed: tf.Tensor, *batch: tf.Tensor) -> tf.Tensor:
        """Sample noise from a seed `[2] int32`: `[*batch, *shape] float32`."""
        seed = tf.random.fold_in(seed, self.purpose)
        generate = tf.random.stateless_uniform if self.uniform else tf.random.stateless_normal
        return generate([*batch, *self.shape], seed)

    def to_tensor_spec(self, *batch: None) -> tf.TensorSpec:
        """Return its type, with unknown sizes for the axes of `batch`."""
        known = (side if isinstance(side, int) else None for side in self.shape)
        return tf.TensorSpec([*batch, *known], tf.float32)


def sample_noise(seeds: tf.Tensor, specs: Mapping[str, NoiseSpec]) -> Noise:
    """Sample noise whose rows depend on their own seed alone, whatever batch they are in.

    Args:
        seeds: `[B, 2] int32`.
        specs: What is needed, from a network's `list_noise`.

    Returns:
        Noise by the names of `specs`, each `[B, *shape] float32`.
    """
    if not specs:
        return {}
    return tf.map_fn(
        lambda seed: {name: spec.sample(seed) for name, spec in specs.items()},
        seeds,
        fn_output_signature={name: spec.to_tensor_spec() for name, spec in specs.items()},
    )


def sample_batch_noise(seed: tf.Tensor, specs: Mapping[str, NoiseSpec], count: tf.Tensor) -> Noise:
    """Sample noise for a whole batch from one seed, which is fast and is what training needs.

    Args:
        seed: `[2] int32`.
        specs: As for `sample_noise`.
        count: Scalar int32, images of the batch.

    Returns:
        As `sample_noise`.
    """
    return {name: spec.sample(seed, count) for name, spec in specs.items()}
