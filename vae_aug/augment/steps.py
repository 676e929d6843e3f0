"""The transform of one example, in the three steps that `map` and `apply` both take.

A batch exists only for the network: its examples are prepared and finished one by one.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import tensorflow as tf

from vae_aug.augment.batches import Request, arrange, map_examples, map_sizes
from vae_aug.augment.change import ChangeSettings, change_image
from vae_aug.augment.elements import Example, Layout, find_layout, read_example, replace_at
from vae_aug.augment.mistakes import Notices, check_element, tell_marks, watch_boxes, watch_values
from vae_aug.augment.seeds import choose, hash_content, make_seed
from vae_aug.boxes import convert_boxes
from vae_aug.config import AugmentConfig, Guard
from vae_aug.engines.engine import Known, TensorFlowEngine, find_sides
from vae_aug.grey import compute_grey, find_range
from vae_aug.letterbox import letterbox, unletterbox


@dataclasses.dataclass(frozen=True)
class Steps:
    """The three steps of the transform: prepare, compute, finish.

    Attributes:
        config: Settings of the transform.
        engine: The network.
        notices: Warnings of elements that are likely mistaken.
        contrast: Whether the contrast of boxes is measured for the report.
        member: Number of the variant of the same example, each from randomness of its own.
    """

    config: AugmentConfig
    engine: TensorFlowEngine
    notices: Notices = dataclasses.field(default_factory=Notices, compare=False)
    contrast: bool = False
    member: int = 0

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
            if self.engine.makes_fields and layout.marks is not None:
                tell_marks(layout.marks, self.notices)
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
            The element with its image changed, and the report of `finish`, with a batch axis in
            front if the element has one.
        """
        example = read_example(element, layout, epoch)
        if layout.batched:
            image, report = self._run_batch(example, layout)
        else:
            request = self.prepare(example)
            batch = tf.nest.map_structure(lambda part: part[None], request)
            image, report = self.finish(layout, example, self.compute(batch)[0], request.chosen)
        return replace_at(element, layout.image, image), report

    def _run_batch(self, examples: Example, layout: Layout) -> tuple[Any, dict[str, tf.Tensor]]:
        """Take all three steps with the examples of a batch."""
        images, size = examples.image, self.engine.image_size
        flags, numbers = (tf.TensorSpec([None], dtype) for dtype in (tf.bool, tf.float32))
        pixels = tf.TensorSpec([None, 1] if size is None else [None, size, size, 1], tf.float32)
        specs = Request(pixels, tf.TensorSpec([None, 2], tf.int32), flags, {})
        requests = map_examples(self.prepare, (examples,), specs)
        if size is None:
            requests = requests._replace(image=arrange(requests.image, images))
        pixels = tf.TensorSpec([None, images.shape[-1]], images.dtype)
        of_boxes = {"fidelity": numbers, "contrast": numbers, "guarded": flags}
        changed, report = map_examples(
            functools.partial(self.finish, layout),
            (examples, self.compute(requests), requests.chosen),
            (pixels, {"augmented": flags, **of_boxes}),
        )
        report.update({name: arrange(report[name], examples.boxes) for name in of_boxes})
        return arrange(changed, images), report

    def prepare(self, example: Example, known: Known | None = None) -> Request:
        """Make the network's input from an example.

        Args:
            example: The example.
            known: Its description; None without a cache.

        Returns:
            The request.
        """
        config = self.config
        number = f" {self.member}" if self.member else ""
        if known and self.engine.image_size is not None:
            image = known["reconstruction"]  # has the size, and is read for transformations alone
        else:
            image = self._make_input(example.image)
        chosen = tf.constant(not self.is_identity)
        if 0 < config.p < 1:
            chosen &= choose(make_seed(config.seed, f"choose{number}", example), config.p)
        return Request(image, make_seed(config.seed, f"vary{number}", example), chosen, known or {})

    def describe(self, example: Example) -> tuple[tf.Tensor, Known]:
        """Compute what is the same in every variant of an example, for later requests.

        Args:
            example: The example.

        Returns:
            `[] string`, a fingerprint of the image's pixels, and what `prepare` takes.
        """
        known = self.engine.describe(self._make_input(example.image)[None])
        return hash_content(example.image), {name: part[0] for name, part in known.items()}

    # AutoGraph would go on into the library that converts the network for an engine, and fail.
    @tf.autograph.experimental.do_not_convert
    def compute(self, requests: Request) -> tf.Tensor | tf.RaggedTensor:
        """Run the network on the chosen examples: float32 like its images, 0 for the others.

        Images of one size go through at once (in parts, if they are large), so a ragged batch goes
        size by size.
        """
        if self.is_identity:
            return self._make_zeros(requests.image)
        if isinstance(requests.image, tf.RaggedTensor):
            return map_sizes(self._compute_chosen, requests)
        return self._compute_chosen(requests)

    def _compute_chosen(self, requests: Request) -> tf.Tensor:
        """Compute the chosen examples of a dense batch."""
        given = (requests.image, requests.seed, requests.known)
        if self.config.p == 1:
            return self.engine(*given)
        indices = tf.where(requests.chosen)

        def compute() -> tf.Tensor:
            computed = self.engine(
                *tf.nest.map_structure(lambda part: tf.gather(part, indices[:, 0]), given)
            )
            zeros = self._make_zeros(requests.image)
            return tf.tensor_scatter_nd_update(zeros, indices, computed)

        return tf.cond(
            tf.reduce_any(requests.chosen), compute, lambda: self._make_zeros(requests.image)
        )

    def _make_zeros(self, images: tf.Tensor | tf.RaggedTensor) -> Any:
        """Make what `compute` returns for examples that are not chosen."""
        if not self.engine.makes_fields:
            return tf.zeros_like(images)
        length = self.engine.find_output_shape(images)[-1]
        return tf.zeros([tf.shape(images)[0], length])

    def finish(
        self, layout: Layout, example: Example, computed: tf.Tensor, chosen: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Apply the network's output to an example.

        Args:
            layout: Of the element that the example is from.
            example: The example.
            computed: From `compute`, without the batch axis.
            chosen: `[] bool`.

        Returns:
            The image, and the report: `"augmented"` `[] bool`, and that of `change_image`.
        """
        height, width = find_sides(example.image)
        if self.engine.image_size is not None and not self.engine.makes_fields:
            computed = unletterbox(computed, height, width)
        guard: Guard = "off" if layout.boxes is None else self.config.guard
        boxes = convert_boxes(
            example.boxes, layout.box_format, "rel_yxyx", height=height, width=width
        )
        if guard != "off":
            watch_boxes(example.boxes, boxes, layout, height, width, self.notices)
        settings = ChangeSettings(
            guard=guard,
            min_fidelity=self.config.min_fidelity,
            denoised=self.config.mode == "denoise",
            adaptive=self.config.adaptive,
            replaced=self._replaced,
            transformed=self.engine.makes_fields,
            moves=layout.marks is None,
            contrast=self.contrast,
            value_range=self.config.value_range,
        )
        image, report = change_image(
            example.image, computed, boxes, chosen, settings, self.engine.displace
        )
        return image, {"augmented": chosen, **report}

    def _make_input(self, image: tf.Tensor) -> tf.Tensor:
        """Turn `[H, W, C]` into grey, and fit it into the network's square if it has one."""
        watch_values(image, self.config.value_range, self.notices)
        grey = compute_grey(image, *find_range(image, self.config.value_range))
        if self.config.value_range is not None or not image.dtype.is_integer:
            grey = tf.clip_by_value(grey, 0.0, 1.0)
        size = self.engine.image_size
        return grey if size is None else letterbox(grey, size)
