"""`VAEAugment` as a transform of Grain (extra `[grain]`), on NumPy elements.

TensorFlow sees an image, its boxes, id and epoch, and nothing else of an element, which may hold
whatever Python has. It runs as a dataset of `tf.data`, which hands out elements as they are put in,
since the last bits of a float depend on how an operation is run (ADR 0007): so bytes are those of
`Dataset.map`, on every processor.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from vae_aug.augment.dataset import NETWORK_CALLS
from vae_aug.augment.elements import Layout, Path, get_at, replace_at
from vae_aug.augment.steps import Steps
from vae_aug.autotune import leave_untuned
from vae_aug.errors import MissingPackageError

try:
    from grain.transforms import RandomMap
except ModuleNotFoundError as error:
    raise MissingPackageError(
        "as_grain() needs the PyPI package grain, which is not installed. "
        "Run: pip install 'vae-aug[grain]'."
    ) from error

_NUMBER: Path = ("number of Grain's generator",)
"""Where a random number stands in for the id of an example."""

_Channel = Callable[[list[tf.Tensor]], np.ndarray]


class GrainAugment(RandomMap):
    """A `VAEAugment` for Grain; made by `VAEAugment.as_grain`, which says how it is used."""

    def __init__(self, steps: Steps, augment: Any) -> None:
        """Trace nothing yet.

        Args:
            steps: Those of the `VAEAugment`.
            augment: The `VAEAugment`, which is what a pickle holds.
        """
        config = steps.config
        varies = config.mode != "denoise" or config.p < 1
        self._follows_grain = config.seed is None and varies and not steps.is_identity
        if self._follows_grain:  # numbers of Grain's are hashed as ids are; which seed is no matter
            steps = dataclasses.replace(steps, config=dataclasses.replace(config, seed=0))
        self._augment = augment
        self._steps = steps
        self._networks: dict[tuple[Any, ...], _Network] = {}
        self._lock = threading.Lock()

    def random_map(self, element: Any, rng: np.random.Generator | None) -> Any:
        """Augment an element or a batch.

        Args:
            element: NumPy arrays in a layout that `VAEAugment` takes, and anything beside them.
            rng: Grain's generator; not used if `VAEAugment` has a seed.

        Returns:
            The same structure with its images changed, `np.ndarray` of the same dtype and shape.
            Every other value is the very same object.

        Raises:
            ValueError: If neither `VAEAugment` nor Grain has a seed; and as `VAEAugment`.
            TypeError: If the id or the epoch is nothing that TensorFlow takes; and as `VAEAugment`.
        """
        layout = self._steps.find_layout(element)
        if self._steps.is_identity:
            return element
        parts = {
            path: _convert(get_at(element, path), path)
            for path in (layout.image, layout.boxes, layout.source_id, layout.epoch)
            if path is not None
        }
        if self._follows_grain:
            count = parts[layout.image].shape[:1] if layout.batched else ()
            layout = dataclasses.replace(layout, source_id=_NUMBER, epoch=None)
            parts[_NUMBER] = _sample_numbers(rng, count)
        image = self._find_network(layout, parts)(list(parts.values()))
        return replace_at(element, layout.image, image)

    def __call__(self, element: Any) -> Any:
        """Augment an element without Grain's randomness, as Grain's `map` calls it."""
        return self.random_map(element, None)

    def output_spec(self, input_spec: Any) -> Any:
        """Return the spec that Grain infers for what comes out: that of what goes in."""
        return input_spec

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as `VAEAugment` does; a worker traces its own graphs."""
        return self._augment.as_grain, ()

    def __repr__(self) -> str:
        """Return the call that made it, which Grain shows."""
        return f"{self._augment!r}.as_grain()"

    def _find_network(self, layout: Layout, parts: dict[Path, tf.Tensor]) -> _Network:
        """Find what computes elements of a layout and these dtypes, or make it."""
        specs = [
            tf.TensorSpec([None] * part.shape.rank, part.dtype)
            if path != layout.image
            else tf.TensorSpec([*[None] * (part.shape.rank - 1), part.shape[-1]], part.dtype)
            for path, part in parts.items()
        ]
        key = (layout, *parts, *specs)
        with self._lock:
            if key not in self._networks:
                self._networks[key] = _Network(self._steps, layout, list(parts), specs)
            return self._networks[key]


class _Network:
    """The steps of the transform for elements of one layout and dtypes, and of any size.

    It may be called by several threads; `NETWORK_CALLS` of them run, and the others wait.
    """

    def __init__(
        self, steps: Steps, layout: Layout, paths: list[Path], specs: list[tf.TensorSpec]
    ) -> None:
        """Trace nothing yet.

        Args:
            steps: The steps.
            layout: Where parts are in the user's element.
            paths: Paths of the parts that a call takes, in order.
            specs: Their specs.
        """
        # The graph has the parts in a dict by their paths, which has room for Grain's numbers.
        flat = dataclasses.replace(
            layout,
            image=(layout.image,),
            boxes=layout.boxes and (layout.boxes,),
            source_id=layout.source_id and (layout.source_id,),
            epoch=layout.epoch and (layout.epoch,),
        )
        self._dtypes = [spec.dtype for spec in specs]

        def run(handle: tf.Tensor) -> tf.Tensor:
            given = tf.raw_ops.QueueDequeueV2(handle=handle, component_types=self._dtypes)
            element = {
                path: tf.ensure_shape(part, spec.shape)
                for path, part, spec in zip(paths, given, specs, strict=True)
            }
            return steps.run(element, flat)[0][layout.image]

        def make_dataset(handle: tf.Tensor) -> tf.data.Dataset:
            endless = tf.data.Dataset.counter()
            run_next = tf.autograph.experimental.do_not_convert(lambda _: run(handle))
            return endless.map(run_next)

        # A function, so that a second dataset does not trace the network again.
        self._make_dataset = tf.function(make_dataset, autograph=False)
        self._idle: queue.LifoQueue[_Channel | None] = queue.LifoQueue()
        for _ in range(NETWORK_CALLS):
            self._idle.put(None)

    def __call__(self, parts: list[tf.Tensor]) -> np.ndarray:
        """Compute the image, or the images, of an element.

        Args:
            parts: Parts of the element, as the specs say.

        Returns:
            What is in the place of the first part.
        """
        channel, done = self._idle.get(), None
        try:
            channel = channel or self._open_channel()
            image = channel(parts)
            done = channel
        finally:
            # An interrupted one may hold the element still, and would return it in the next call.
            self._idle.put(done)
        return image

    def _open_channel(self) -> _Channel:
        """Make a function that puts an element into a dataset of its own, and takes it out."""
        entry = tf.queue.FIFOQueue(1, self._dtypes)
        results = iter(leave_untuned(self._make_dataset(entry.queue_ref)))

        def compute(parts: list[tf.Tensor]) -> np.ndarray:
            entry.enqueue(parts)
            return next(results).numpy()

        return compute


def _convert(value: Any, path: Path) -> tf.Tensor:
    """Convert what TensorFlow reads of an element, or say why that cannot be."""
    try:
        return tf.convert_to_tensor(np.asarray(value))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"the value at {list(path)} must be numbers or text, since VAEAugment reads it; "
            f"received {type(value).__name__}. Give the key another name, or convert it."
        ) from error


def _sample_numbers(rng: np.random.Generator | None, shape: Any) -> tf.Tensor:
    """Sample a random number for each example: `int64`, not negative."""
    if rng is None:
        raise ValueError(
            "VAEAugment has no seed, and Grain passed no generator. Give Grain a seed: "
            "IndexSampler(..., seed=1), or dataset.seed(1).random_map(augment.as_grain()); or pass "
            "VAEAugment(seed=...), which gives an image the same variant in every epoch."
        )
    return tf.constant(rng.integers(np.iinfo(np.int64).max, size=shape))
