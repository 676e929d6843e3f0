"""The transform on a batch of images, in the three steps that `map` and `apply` both take."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import tensorflow as tf

from vae_aug.augment.elements import Layout, get_at, read_boxes, replace_at
from vae_aug.augment.engine import TensorFlowEngine
from vae_aug.augment.guard import guard_change, measure_fidelity
from vae_aug.augment.intensity import change_luminance, compute_grey, find_range
from vae_aug.augment.seeds import draw_choices, draw_seeds, hash_content, make_seeds
from vae_aug.config import AugmentConfig
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
        share = 1.0 - self.config.detail
        return share * self.config.factor if self.config.mode == "denoise" else share

    def ask(self, element: Any, layout: Layout, epoch: tf.Tensor) -> Request:
        """Make the network's input from a batched element.

        Args:
            element: The element, every component with a batch axis.
            layout: Where things are in it.
            epoch: Scalar int64, for elements that have none of their own.

        Returns:
            One request per example.
        """
        images = get_at(element, layout.image)
        squares = _map_ragged(self._shrink, images) if layout.ragged else self._shrink(images)
        count = tf.shape(squares)[0]
        if self.config.seed is None:
            seeds, choices = draw_seeds(count), draw_seeds(count)
        else:
            ids, epochs = _read_ids(element, layout), _read_epochs(element, layout, epoch, count)
            seeds = make_seeds(self.config.seed, "vary", ids, epochs)
            choices = make_seeds(self.config.seed, "choose", ids, epochs)
        chosen = tf.ones([count], tf.bool)
        if self.config.p < 1:
            chosen = draw_choices(choices, self.config.p)
        return Request(squares, seeds, chosen)

    def compute(self, request: Request) -> tf.Tensor:
        """Run the network on the chosen examples: `[B, S, S, 1] float32`, 0 for the others."""
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
        """Apply the network's output to a batched element.

        Args:
            element: As in `ask`.
            layout: Where things are in it.
            computed: `[B, S, S, 1] float32`, from `compute`.
            chosen: `[B] bool`.

        Returns:
            The element with its images changed, and the report: `"augmented"` `[B] bool`,
            `"fidelity"` `[B, N] float32` and `"guarded"` `[B, N] bool`.
        """
        images = get_at(element, layout.image)
        boxes = tf.zeros([tf.shape(computed)[0], 0, 4])
        if layout.boxes is not None:
            boxes = get_at(element, layout.boxes)
        if not layout.ragged:
            changed, fidelity, guarded = self._change(images, boxes, computed, chosen, layout)
            changed = tf.ensure_shape(changed, images.shape)
        else:
            if isinstance(boxes, tf.RaggedTensor):
                boxes = tf.cast(boxes, tf.float32).to_tensor(float("nan"))

            def change_one(inputs: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
                image, *rest = inputs
                parts = [_to_dense(image)[None], *(part[None] for part in rest)]
                image, fidelity, guarded = self._change(*parts, layout)
                return tf.RaggedTensor.from_tensor(image[0]), fidelity[0], guarded[0]

            changed, fidelity, guarded = tf.map_fn(
                change_one,
                (images, boxes, computed, chosen),
                fn_output_signature=(
                    tf.RaggedTensorSpec([None, None, images.shape[-1]], images.dtype, 1),
                    tf.TensorSpec([None], tf.float32),
                    tf.TensorSpec([None], tf.bool),
                ),
            )
            # The very row splits of the input, so that both combine without a check.
            changed = images.with_flat_values(changed.flat_values)
        report = {"augmented": chosen, "fidelity": fidelity, "guarded": guarded}
        return replace_at(element, layout.image, changed), report

    def _shrink(self, images: tf.Tensor) -> tf.Tensor:
        """Fit `[B, H, W, C]` images into the network's grey squares."""
        grey = compute_grey(images, *find_range(images, self.config.value_range))
        return letterbox(tf.clip_by_value(grey, 0.0, 1.0), self.engine.image_size)

    def _change(
        self,
        images: tf.Tensor,
        boxes: Any,
        computed: tf.Tensor,
        chosen: tf.Tensor,
        layout: Layout,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Change images of one size; return them, the fidelity of their boxes, and what failed."""
        images = tf.convert_to_tensor(images)
        height, width = tf.shape(images)[1], tf.shape(images)[2]
        low, high = find_range(images, self.config.value_range)
        grey = compute_grey(images, low, high)
        change = unletterbox(
            computed, images.shape[1] or height, images.shape[2] or width
        )
        if self._replaced:
            change -= self._replaced * grey
        change = tf.where(chosen[:, None, None, None], change, 0.0)
        boxes = read_boxes(boxes, layout.box_format, height, width)
        fidelity = self._measure(grey, change, boxes)
        failed = tf.zeros_like(fidelity, tf.bool)
        if layout.boxes is not None and self.config.guard != "off":
            failed = fidelity < self.config.min_fidelity
            change = guard_change(change, boxes, failed, self.config.guard)
            fidelity = self._measure(grey, change, boxes)
        return change_luminance(images, change, low, high), fidelity, failed

    def _measure(self, grey: tf.Tensor, change: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        """Measure the fidelity of boxes under a change, as it will be clipped."""
        after = tf.clip_by_value(grey + change, tf.minimum(grey, 0.0), tf.maximum(grey, 1.0))
        return measure_fidelity(grey, after, boxes, denoised=self.config.mode == "denoise")


def _map_ragged(function: Any, images: tf.RaggedTensor) -> tf.Tensor:
    """Apply a function of `[1, H, W, C]` to every image of a ragged batch."""
    return tf.map_fn(
        lambda image: function(_to_dense(image)[None])[0],
        images,
        fn_output_signature=tf.float32,
    )


def _to_dense(image: Any) -> tf.Tensor:
    return image.to_tensor() if isinstance(image, tf.RaggedTensor) else image


def _read_ids(element: Any, layout: Layout) -> tf.Tensor:
    """Return what each example is called: `[B] string`."""
    images = get_at(element, layout.image)
    content = hash_content(images)
    if layout.source_id is None:
        return content
    ids = tf.convert_to_tensor(get_at(element, layout.source_id))
    ids = ids if ids.dtype == tf.string else tf.strings.as_string(ids)
    ids = tf.reshape(ids, tf.shape(content))
    return tf.where(tf.equal(ids, ""), content, ids)


def _read_epochs(
    element: Any, layout: Layout, epoch: tf.Tensor, count: tf.Tensor
) -> tf.Tensor:
    """Return the epoch of each example: `[B] int64`."""
    if layout.epoch is not None:
        epoch = tf.convert_to_tensor(get_at(element, layout.epoch))
    return tf.broadcast_to(tf.cast(epoch, tf.int64), [count])
