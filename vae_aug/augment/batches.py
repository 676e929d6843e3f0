"""From a batch to its examples and back, and from a batch of mixed sizes to batches of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from vae_aug.augment.elements import make_dense
from vae_aug.engines.engine import Known, join_results


class Request(NamedTuple):
    """The network's input for an example; for a batch, with a batch axis in front.

    Attributes:
        image: Grey, float32 in [0, 1]: a square `[S, S, 1]`, or an image of its own size
            `[H, W, 1]`, in a batch ragged if the batch is.
        seed: `[2] int32`.
        chosen: `[] bool`, whether the example is augmented at all.
        known: From the network's `describe`, which it need not compute again; mostly empty.
    """

    image: tf.Tensor | tf.RaggedTensor
    seed: tf.Tensor
    chosen: tf.Tensor
    known: Known


def map_examples(function: Callable[..., Any], examples: tuple[Any, ...], specs: Any) -> Any:
    """Call a function for each example of a batch, one after the other.

    Args:
        function: Of plain tensors; returns tensors in any structure.
        examples: What it is called with: tensors in any structure, dense or ragged, with a batch
            axis; the first is an `Example`.
        specs: A `tf.TensorSpec` for each result, whose first axis is None.

    Returns:
        The structure of `specs`: results as rows of their specs' other axes, those of all examples
        one below the other.
    """

    def call(index: tf.Tensor) -> Any:
        one = tf.nest.map_structure(lambda part: make_dense(part[index]), examples)
        return tf.nest.map_structure(
            lambda spec, result: tf.reshape(result, [-1, *spec.shape[1:]]), specs, function(*one)
        )

    return join_results(call, tf.size(examples[0].epoch), specs)


def arrange(rows: tf.Tensor, like: tf.Tensor | tf.RaggedTensor) -> Any:
    """Arrange rows as those of a batch, e.g. pixels `[P, C]` as those of images `[B, H, W, ...]`.

    Args:
        rows: One for each vector along the last axis of `like`.
        like: The batch, dense or ragged.

    Returns:
        `[B, ...]`, dense or ragged as `like`.
    """
    if isinstance(like, tf.RaggedTensor):
        return like.with_flat_values(arrange(rows, like.flat_values))
    arranged = tf.reshape(rows, [*tf.unstack(tf.shape(like)[:-1]), *rows.shape[1:]])
    return tf.ensure_shape(arranged, [*like.shape[:-1], *rows.shape[1:]])


def map_sizes(function: Callable[[Request], tf.Tensor], requests: Request) -> tf.RaggedTensor:
    """Apply a function of dense requests to ragged ones, all images of a size together.

    Args:
        function: Returns `[B, H, W, 1] float32` for as many images.
        requests: Of images `[B, (H), (W), 1]`, or `[B, (H), W, 1]` where all have one width.

    Returns:
        Ragged as the images are, float32.
    """
    images = requests.image
    lengths = [images.row_lengths()]
    if images.ragged_rank == 2:
        ends = tf.gather(images.values.row_splits, images.row_splits)
        lengths.append(ends[1:] - ends[:-1])  # pixels
    distinct, of_image = tf.raw_ops.UniqueV2(x=tf.stack(lengths, axis=1), axis=[0])

    def apply_to_size(index: tf.Tensor) -> tf.Tensor:
        members = tf.where(of_image == index)[:, 0]
        result = function(
            tf.nest.map_structure(lambda whole: make_dense(tf.gather(whole, members)), requests)
        )
        return tf.reshape(result, [-1, 1])

    spec = tf.TensorSpec([None, 1], tf.float32)
    pixels = join_results(apply_to_size, tf.shape(distinct)[0], spec)
    by_size = tf.argsort(of_image, stable=True)
    arranged = arrange(pixels, tf.gather(images, by_size))
    return images.with_flat_values(
        tf.gather(arranged, tf.math.invert_permutation(by_size)).flat_values
    )
