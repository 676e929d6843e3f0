"""A network asked for samples and features, small enough to keep and to compare by the thousand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from vae_aug.engines.engine import find_batch_size
from vae_aug.evaluate.subset import space_out, take_places
from vae_aug.model.network import Network
from vae_aug.model.noise import sample_noise

GRID_PX = 64
"""Largest side of the grey squares that are kept and compared."""

_BATCH = 16


class Samples(NamedTuple):
    """Samples of one kind: grids `[N, G, G] float32`, and sources `[N] int64` or None."""

    grids: np.ndarray
    sources: np.ndarray | None


class Progress:
    """Adds up images that were read, made or encoded."""

    def __init__(
        self,
        show: Callable[[int, int], None] | None,
        ways: Sequence[str],
        training: int,
        held_out: int,
        samples: int,
    ) -> None:
        """Reckon how many there will be of training, held-out images and samples of each way."""
        made = [samples if way == "prior" else min(samples, held_out) for way in ways]
        control = min(samples, training)
        self._total = (1 + len(ways)) * training + (1 + 2 * len(ways)) * held_out
        self._total += 3 * (sum(made) + control)
        self._done = 0
        self._show = show

    def advance(self, count: int) -> None:
        """Count images, and show the count."""
        self._done += count
        if self._show is not None:
            self._show(self._done, self._total)

    def finish(self) -> None:
        """Count what held-out images that were left out would have been."""
        if self._done < self._total:
            self.advance(self._total - self._done)


class Probe:
    """A network as functions of images and numbers of samples, each traced once.

    Attributes:
        grid: Side of the grids in pixels.
    """

    def __init__(self, network: Network, seed: int) -> None:
        """Take a network, and the seed of all samples; nothing is traced before it is called."""
        self._network, self._seed = network, seed
        self._size = network.config.image_size
        self.grid = min(GRID_PX, self._size)
        self.batch = find_batch_size(self._size, _BATCH)
        images = tf.TensorSpec([None, self._size, self._size, 1], tf.float32)
        numbers = tf.TensorSpec([None], tf.int32)
        grids = tf.TensorSpec([None, self.grid, self.grid], tf.float32)
        trace = functools.partial(tf.function, autograph=False)
        self.shrink = trace(self._shrink, input_signature=[images])
        self.sample_prior = trace(self._sample_prior, input_signature=[numbers])
        self.sample = trace(
            functools.partial(self._vary, "sample"), input_signature=[images, numbers]
        )
        self.interpolate = trace(
            functools.partial(self._vary, "interpolate"), input_signature=[images, numbers]
        )
        self._encode_batch = trace(self._encode, input_signature=[grids])

    def encode(self, grids: np.ndarray, report: Progress) -> np.ndarray:
        """Encode `[N, G, G]`: `z_mean`, `[N, d] float32`."""
        parts = []
        for start in range(0, len(grids), self.batch):
            part = grids[start : start + self.batch]
            parts.append(self._encode_batch(part).numpy())
            report.advance(len(part))
        return np.concatenate(parts)

    def _shrink(self, images: tf.Tensor) -> tf.Tensor:
        return tf.image.resize(images, (self.grid, self.grid), antialias=True)[..., 0]

    def _sample_prior(self, numbers: tf.Tensor) -> tf.Tensor:
        network = self._network
        specs = {"z": network.list_noise(network.config, "sample")["z"]}
        noise = sample_noise(self._make_seeds(numbers), specs)["z"]
        images = network.decode(network.aggregate_mean + network.aggregate_std * noise)
        return self._shrink(tf.reduce_mean(images, axis=-1, keepdims=True))

    def _vary(self, mode: str, images: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
        network = self._network
        specs = network.list_noise(network.config, mode, self._size, self._size)
        noise = sample_noise(self._make_seeds(numbers), specs)
        _, variants = network.vary(images, noise, mode=mode, factor=1.0, alone=True)
        return self._shrink(variants)

    def _encode(self, grids: tf.Tensor) -> tf.Tensor:
        images = tf.image.resize(grids[..., None], (self._size, self._size))
        return self._network.encode(images)[0]

    def _make_seeds(self, numbers: tf.Tensor) -> tf.Tensor:
        return tf.stack([tf.fill(tf.shape(numbers), self._seed), numbers], axis=-1)


def make_samples(
    way: str,
    probe: Probe,
    images: tf.data.Dataset,
    places: np.ndarray,
    samples: int,
    report: Progress,
) -> Samples:
    """Make samples; those around images, one of each, so that they are independent."""
    grids = []
    if way == "prior":
        for start in range(0, samples, probe.batch):
            numbers = np.arange(start, min(start + probe.batch, samples), dtype=np.int32)
            grids.append(probe.sample_prior(numbers).numpy())
            report.advance(len(numbers))
        return Samples(np.concatenate(grids), None)
    vary = probe.sample if way == "variants" else probe.interpolate
    sources = places[space_out(len(places), samples)]
    done = 0
    for squares, _ in take_places(images, sources).batch(probe.batch).prefetch(1):
        numbers = np.arange(done, done + len(squares), dtype=np.int32)
        grids.append(vary(squares, numbers).numpy())
        done += len(squares)
        report.advance(len(squares))
    return Samples(np.concatenate(grids), sources)
