"""The transform on a batch of images, in the three steps that `map` and `apply` both take."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from vae_aug.augment.elements import Layout, get_at, read_parts, replace_at
from vae_aug.augment.engine import TensorFlowEngine
from vae_aug.augment.guard import guard_change, measure_fidelity
from vae_aug.augment.intensity import change_luminance, compute_grey, find_range
from vae_aug.augment.seeds import draw_choices, draw_seeds, hash_content, make_seeds
from vae_aug.config import AugmentConfig
from vae_aug.data.boxes import convert_boxes
from vae_aug.data.letterbox import letterbox, unletterbox


class Request(NamedTuple):
    """What the network is asked for each example.

    Attributes:
        squares: `[B, S, S, 1] float32`, what it sees.
        seeds: `[B, 2] int32`.
        chosen: `[B] bool`, whether the example is augmented at all.
    """

    squares: tf.Tensor
    seeds: tf.Tensor
    chosen: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Steps:
    """Ask, compute, finish.

    Attributes:
        config: Settings of the transform.
        engine: The network.
    """

    config: AugmentConfig
    engine: TensorFlowEngine

    @property
    def is_identity(self) -> bool:
        """Whether the settings alone say that no image changes."""
        config = self.config
        still = config.factor == 0 or config.mode == "denoise"
        return config.p == 0 or (still and config.detail == 1)

    @property
    def _replaced(self) -> float:
        """Share of the image itself that the network's output stands in for."""
        share = 1.0 - (self.config.detail or 0.0)
        return share * self.config.factor if self.config.mode == "denoise" else share

    def run(
        self, element: Any, layout: Layout, epoch: int | tf.Tensor = 0
    ) -> tuple[Any, dict[str, tf.Tensor]]:
        """Take all three steps.

        Args:
            element: An element or a batch.
            layout: Where things are in it.
            epoch: Scalar, for elements that have none of their own.

        Returns:
            As `finish`.
        """
        request = self.ask(element, layout, epoch)
        return self.finish(element, layout, self.compute(request), request.chosen)

    def ask(self, element: Any, layout: Layout, epoch: int | tf.Tensor = 0) -> Request:
        """Make the network's input from an element or a batch; see `run`."""
        parts = read_parts(element, layout)
        squares = _map_images(self._shrink, parts.images)
        count = tf.shape(squares)[0]
        chosen = tf.fill([count], not self.is_identity)
        if self.config.seed is None:
            seeds, choices = draw_seeds(count), draw_seeds(count)
        else:
            ids = hash_content(parts.images)
            if parts.ids is not None:
                ids = tf.where(tf.equal(parts.ids, ""), ids, parts.ids)
            epochs = tf.cast(epoch if parts.epochs is None else parts.epochs, tf.int64)
            epochs = tf.broadcast_to(epochs, [count])
            seeds = make_seeds(self.config.seed, "vary", ids, epochs)
            choices = make_seeds(self.config.seed, "choose", ids, epochs)
        if 0 < self.config.p < 1:
            chosen &= draw_choices(choices, self.config.p)
        return Request(squares, seeds, chosen)

    def compute(self, request: Request) -> tf.Tensor:
        """Run the network on the chosen examples: `[B, S, S, 1] float32`, 0 for the others."""
        if self.is_identity:
            return tf.zeros_like(request.squares)
        if self.config.p == 1:
            return self.engine(request.squares, request.seeds)
        indices = tf.where(request.chosen)

        def compute_chosen() -> tf.Tensor:
            squares = tf.gather(request.squares, indices[:, 0])
            computed = self.engine(squares, tf.gather(request.seeds, indices[:, 0]))
            shape = tf.shape(request.squares, out_type=tf.int64)
            return tf.scatter_nd(indices, computed, shape)

        return tf.cond(
            tf.reduce_any(request.chosen),
            compute_chosen,
            lambda: tf.zeros_like(request.squares),
        )

    def finish(
        self, element: Any, layout: Layout, computed: tf.Tensor, chosen: tf.Tensor
    ) -> tuple[Any, dict[str, tf.Tensor]]:
        """Apply the network's output.

        Args:
            element: An element or a batch.
            layout: Where things are in it.
            computed: `[B, S, S, 1] float32`, from `compute`.
            chosen: `[B] bool`.

        Returns:
            The element with its images changed, and the report: `"augmented"` `[B] bool`,
            `"fidelity"` `[B, N] float32` and `"guarded"` `[B, N] bool`; without the batch axis
            if the element has none.
        """
        parts = read_parts(element, layout)
        change = self._change_ragged if layout.ragged else self._change
        images, fidelity, guarded = change(parts.images, parts.boxes, computed, chosen, layout)
        report = {"augmented": chosen, "fidelity": fidelity, "guarded": guarded}
        if not layout.batched:
            images = images[0]
            report = {name: value[0] for name, value in report.items()}
        original = get_at(element, layout.image)
        if not layout.ragged:
            images = tf.ensure_shape(images, original.shape)
        return replace_at(element, layout.image, images), report

    def _shrink(self, images: tf.Tensor) -> tf.Tensor:
        """Fit `[B, H, W, C]` images into the network's grey squares."""
        grey = compute_grey(images, *find_range(images, self.config.value_range))
        return letterbox(tf.clip_by_value(grey, 0.0, 1.0), self.engine.image_size)

    def _change(
        self,
        images: tf.Tensor,
        boxes: tf.Tensor,
        computed: tf.Tensor,
        chosen: tf.Tensor,
        layout: Layout,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Change images of one size; return them, the fidelity of their boxes, and what failed."""
        height, width = (images.shape[axis] or tf.shape(images)[axis] for axis in (1, 2))
        low, high = find_range(images, self.config.value_range)
        grey = compute_grey(images, low, high)
        change = unletterbox(computed, height, width)
        if self._replaced:
            change -= self._replaced * grey
        change = tf.where(chosen[:, None, None, None], change, 0.0)
        boxes = convert_boxes(boxes, layout.box_format, "rel_yxyx", height=height, width=width)
        fidelity = self._measure(grey, change, boxes)
        failed = tf.zeros_like(fidelity, tf.bool)
        if layout.boxes is not None and self.config.guard != "off":
            failed = fidelity < self.config.min_fidelity
            change = guard_change(change, boxes, failed, self.config.guard)
            fidelity = self._measure(grey, change, boxes)
        return change_luminance(images, change, low, high), fidelity, failed

    def _change_ragged(
        self,
        images: tf.RaggedTensor,
        boxes: tf.Tensor,
        computed: tf.Tensor,
        chosen: tf.Tensor,
        layout: Layout,
    ) -> tuple[tf.RaggedTensor, tf.Tensor, tf.Tensor]:
        """As `_change`, image by image, since each has its own size."""

        def change_one(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            image, boxes, computed, chosen = inputs
            changed, fidelity, failed = self._change(
                image.to_tensor()[None], boxes[None], computed[None], chosen[None], layout
            )
            return tf.RaggedTensor.from_tensor(changed[0]), fidelity[0], failed[0]

        changed, fidelity, failed = tf.map_fn(
            change_one,
            (images, boxes, computed, chosen),
            fn_output_signature=(
                tf.RaggedTensorSpec([None, None, images.shape[-1]], images.dtype, 1),
                tf.TensorSpec([None], tf.float32),
                tf.TensorSpec([None], tf.bool),
            ),
        )
        # With the very row splits of the input, the result has its static shape too.
        return images.with_flat_values(changed.flat_values), fidelity, failed

    def _measure(self, grey: tf.Tensor, change: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        """Measure the fidelity of boxes under a change, as it will be clipped."""
        after = tf.clip_by_value(grey + change, tf.minimum(grey, 0.0), tf.maximum(grey, 1.0))
        return measure_fidelity(grey, after, boxes, denoised=self.config.mode == "denoise")


def _map_images(function: Callable[[tf.Tensor], tf.Tensor], images: Any) -> tf.Tensor:
    """Apply a function of `[B, H, W, C] to float32` to a batch, image by image if ragged."""
    if not isinstance(images, tf.RaggedTensor):
        return function(images)
    return tf.map_fn(
        lambda image: function(image.to_tensor()[None])[0], images, fn_output_signature=tf.float32
    )
