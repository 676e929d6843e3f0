"""The transform on a batch of images, in the three steps that `map` and `apply` both take."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from vae_aug.augment.change import ChangeSettings, change_images
from vae_aug.augment.elements import (
    Layout,
    find_layout,
    get_at,
    make_dense,
    read_parts,
    replace_at,
)
from vae_aug.augment.mistakes import Notices, check_element, watch_boxes, watch_values
from vae_aug.augment.seeds import choose_examples, hash_content, make_seeds, sample_seeds
from vae_aug.boxes import convert_boxes
from vae_aug.config import AugmentConfig, Guard
from vae_aug.engines.engine import Known, TensorFlowEngine, find_sides
from vae_aug.grey import compute_grey, find_range
from vae_aug.letterbox import letterbox, unletterbox


class Request(NamedTuple):
    """The network's input, for a batch of examples.

    Attributes:
        images: Grey, float32 in [0, 1]: squares `[B, S, S, 1]`, or images of their own size
            `[B, H, W, 1]`, ragged if the batch is.
        seeds: `[B, 2] int32`.
        chosen: `[B] bool`, whether the example is augmented at all.
        known: From the network's `describe`, which it need not compute again; mostly empty.
    """

    images: tf.Tensor | tf.RaggedTensor
    seeds: tf.Tensor
    chosen: tf.Tensor
    known: Known


@dataclasses.dataclass(frozen=True)
class Steps:
    """The three steps of the transform: prepare, compute, finish.

    Attributes:
        config: Settings of the transform.
        engine: The network.
        notices: Warnings of elements that are likely mistaken.
    """

    config: AugmentConfig
    engine: TensorFlowEngine
    notices: Notices = dataclasses.field(default_factory=Notices, compare=False)

    def find_layout(self, element: Any) -> Layout:
        """Find where things are in an element, or its `element_spec`, and check them.

        Args:
            element: An element, a batch, or its `element_spec`.

        Returns:
            The layout.

        Raises:
            ValueError: If there is no image, its shape or the boxes' is not supported, or there are
                boxes that the guard would miss.
            TypeError: If the image's dtype is not supported.
        """
        layout = find_layout(element, self.config.bounding_box_format)
        if not self.is_identity:
            check_element(element, layout, self.config, self.notices)
        return layout

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
        request = self.prepare(element, layout, epoch)
        return self.finish(element, layout, self.compute(request), request.chosen)

    def prepare(
        self,
        element: Any,
        layout: Layout,
        epoch: int | tf.Tensor = 0,
        known: Known | None = None,
    ) -> Request:
        """Make the network's input from an element or a batch.

        Args:
            element: As for `run`.
            layout: As for `run`.
            epoch: As for `run`.
            known: Descriptions of as many images; None without a cache.

        Returns:
            The request.
        """
        parts = read_parts(element, layout)
        if known and self.engine.image_size is not None:
            images = known["reconstruction"]  # the network does not read them
        else:
            images = self._make_input(parts.images)
        count = tf.shape(parts.boxes)[0]
        chosen = tf.fill([count], not self.is_identity)
        if self.config.seed is None:
            seeds, choices = sample_seeds(count), sample_seeds(count)
        else:
            ids = hash_content(parts.images)
            if parts.ids is not None:
                ids = tf.where(tf.equal(parts.ids, ""), ids, parts.ids)
            epochs = tf.cast(epoch if parts.epochs is None else parts.epochs, tf.int64)
            epochs = tf.broadcast_to(epochs, [count])
            seeds = make_seeds(self.config.seed, "vary", ids, epochs)
            choices = make_seeds(self.config.seed, "choose", ids, epochs)
        if 0 < self.config.p < 1:
            chosen &= choose_examples(choices, self.config.p)
        return Request(images, seeds, chosen, known or {})

    def describe(self, element: Any, layout: Layout) -> tuple[tf.Tensor, Known]:
        """Compute what is the same in every variant of an element, for later requests.

        Args:
            element: An element.
            layout: Where things are in it; not batched.

        Returns:
            `[] string`, a fingerprint of the image's pixels, and what `prepare` takes.
        """
        images = read_parts(element, layout).images
        return hash_content(images)[0], self.engine.describe(self._make_input(images))

    # AutoGraph would go on into the library that converts the network for an engine, and fail.
    @tf.autograph.experimental.do_not_convert
    def compute(self, request: Request) -> tf.Tensor | tf.RaggedTensor:
        """Run the network on the chosen examples: float32 like its images, 0 for the others.

        Images of one size go through at once (in parts, if they are large), so a ragged batch goes
        size by size.
        """
        if self.is_identity:
            return tf.zeros_like(request.images)
        if isinstance(request.images, tf.RaggedTensor):
            return _map_sizes(self._compute_chosen, request)
        return self._compute_chosen(request)

    def _compute_chosen(self, request: Request) -> tf.Tensor:
        """Compute the chosen examples of a dense batch."""
        given = (request.images, request.seeds, request.known)
        if self.config.p == 1:
            return self.engine(*given)
        indices = tf.where(request.chosen)

        def compute() -> tf.Tensor:
            computed = self.engine(
                *tf.nest.map_structure(lambda part: tf.gather(part, indices[:, 0]), given)
            )
            shape = tf.shape(request.images, out_type=tf.int64)
            return tf.scatter_nd(indices, computed, shape)

        return tf.cond(
            tf.reduce_any(request.chosen), compute, lambda: tf.zeros_like(request.images)
        )

    def finish(
        self,
        element: Any,
        layout: Layout,
        computed: tf.Tensor | tf.RaggedTensor,
        chosen: tf.Tensor,
    ) -> tuple[Any, dict[str, tf.Tensor]]:
        """Apply the network's output.

        Args:
            element: An element or a batch.
            layout: Where things are in it.
            computed: From `compute`.
            chosen: `[B] bool`.

        Returns:
            The element with its images changed, and the report: `"augmented"` `[B] bool`,
            `"fidelity"` and `"contrast"` `[B, N] float32`, and `"guarded"` `[B, N] bool`; without
            the batch axis if the element has none.
        """
        parts = read_parts(element, layout)
        change = self._change_ragged if layout.ragged else self._change
        images, report = change(parts.images, parts.boxes, computed, chosen, layout)
        report = {"augmented": chosen, **report}
        if not layout.batched:
            images = images[0]
            report = {name: value[0] for name, value in report.items()}
        original = get_at(element, layout.image)
        if not layout.ragged:
            images = tf.ensure_shape(images, original.shape)
        return replace_at(element, layout.image, images), report

    def _make_input(self, images: tf.Tensor | tf.RaggedTensor) -> tf.Tensor | tf.RaggedTensor:
        """Make the network's images from those of a batch."""
        if not isinstance(images, tf.RaggedTensor):
            return self._make_dense_input(images)

        def make_one(image: tf.RaggedTensor) -> tf.Tensor | tf.RaggedTensor:
            made = self._make_dense_input(image.to_tensor()[None])[0]
            return made if square else tf.RaggedTensor.from_tensor(made)

        square = self.engine.image_size is not None
        native = tf.RaggedTensorSpec([None, None, 1], tf.float32, 1)
        made = tf.map_fn(
            make_one,
            images,
            fn_output_signature=tf.float32 if square else native,
            parallel_iterations=1,  # several at a time would need the memory of several
        )
        return made if square else images.with_flat_values(made.flat_values)

    def _make_dense_input(self, images: tf.Tensor) -> tf.Tensor:
        """Turn `[B, H, W, C]` into grey, and fit it into the network's square if it has one."""
        watch_values(images, self.config.value_range, self.notices)
        grey = compute_grey(images, *find_range(images, self.config.value_range))
        if self.config.value_range is not None or not images.dtype.is_integer:
            grey = tf.clip_by_value(grey, 0.0, 1.0)
        size = self.engine.image_size
        return grey if size is None else letterbox(grey, size)

    def _change(
        self,
        images: tf.Tensor,
        boxes: tf.Tensor,
        computed: tf.Tensor,
        chosen: tf.Tensor,
        layout: Layout,
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Change images of one size; return them and the report of their boxes."""
        height, width = find_sides(images)
        if self.engine.image_size is not None:
            computed = unletterbox(computed, height, width)
        guard: Guard = "off" if layout.boxes is None else self.config.guard
        given = boxes
        boxes = convert_boxes(given, layout.box_format, "rel_yxyx", height=height, width=width)
        if guard != "off":
            watch_boxes(given, boxes, layout, height, width, self.notices)
        settings = ChangeSettings(
            guard=guard,
            min_fidelity=self.config.min_fidelity,
            denoised=self.config.mode == "denoise",
            replaced=self._replaced,
            partial=self.config.p < 1,
            value_range=self.config.value_range,
        )
        return change_images(images, computed, boxes, chosen, settings)

    def _change_ragged(
        self,
        images: tf.RaggedTensor,
        boxes: tf.Tensor,
        computed: tf.Tensor | tf.RaggedTensor,
        chosen: tf.Tensor,
        layout: Layout,
    ) -> tuple[tf.RaggedTensor, dict[str, tf.Tensor]]:
        """Change images one by one, since each has its own size; see `_change`."""

        def change_one(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            image, boxes, computed, chosen = inputs
            changed, report = self._change(
                image.to_tensor()[None],
                boxes[None],
                make_dense(computed)[None],
                chosen[None],
                layout,
            )
            report = {name: values[0] for name, values in report.items()}
            return tf.RaggedTensor.from_tensor(changed[0]), report

        changed, report = tf.map_fn(
            change_one,
            (images, boxes, computed, chosen),
            fn_output_signature=(
                tf.RaggedTensorSpec([None, None, images.shape[-1]], images.dtype, 1),
                {
                    "fidelity": tf.TensorSpec([None], tf.float32),
                    "contrast": tf.TensorSpec([None], tf.float32),
                    "guarded": tf.TensorSpec([None], tf.bool),
                },
            ),
        )
        # With the very row splits of the input, the result has its static shape too.
        return images.with_flat_values(changed.flat_values), report


def _map_sizes(function: Callable[[Request], tf.Tensor], request: Request) -> tf.RaggedTensor:
    """Apply a function of dense requests to a ragged one, all images of a size together.

    Args:
        function: Returns `[B, H, W, 1] float32` for as many images.
        request: Of images `[B, (H), (W), 1]`, or `[B, (H), W, 1]` where all have one width.

    Returns:
        Ragged as the images are, float32.
    """
    images = request.images
    lengths = [images.row_lengths()]
    if images.ragged_rank == 2:
        ends = tf.gather(images.values.row_splits, images.row_splits)
        lengths.append(ends[1:] - ends[:-1])  # pixels
    distinct, of_image = tf.raw_ops.UniqueV2(x=tf.stack(lengths, axis=1), axis=[0])

    def apply_to_size(index: tf.Tensor) -> tf.RaggedTensor:
        members = tf.where(of_image == index)[:, 0]
        result = function(
            tf.nest.map_structure(lambda whole: make_dense(tf.gather(whole, members)), request)
        )
        return tf.RaggedTensor.from_tensor(result, ragged_rank=images.ragged_rank)

    grouped = tf.map_fn(
        apply_to_size,
        tf.range(tf.shape(distinct)[0]),
        fn_output_signature=tf.RaggedTensorSpec(
            [None, *images.shape[1:]], tf.float32, images.ragged_rank
        ),
        parallel_iterations=1,  # several at a time would need the memory of several
    )
    places = tf.math.invert_permutation(tf.argsort(of_image, stable=True))
    return images.with_flat_values(tf.gather(grouped.values, places).flat_values)
