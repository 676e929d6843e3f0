"""Batches taken apart into examples and put together again, on values worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from vae_aug.augment.batches import Request, arrange, map_examples, map_sizes
from vae_aug.augment.elements import Example

PIXELS, ROWS = tf.TensorSpec([None, 1], tf.int32), tf.TensorSpec([None, 2], tf.int32)


def make_examples(images):
    count = images.shape[0]
    return Example(
        image=images,
        boxes=tf.zeros([count, 3, 4]),
        source_id=tf.fill([count], ""),
        epoch=tf.range(count, dtype=tf.int64),
    )


def make_images(*sizes):
    """Images of an increasing number in each pixel, `[H, W, 1]`."""
    ends = np.cumsum([height * width for height, width in sizes]).tolist()
    pairs = zip(ends, sizes, strict=True)
    return [tf.reshape(tf.range(end - h * w, end), [h, w, 1]) for end, (h, w) in pairs]


def stack_ragged(images):
    return tf.ragged.stack([tf.RaggedTensor.from_tensor(image) for image in images])


def negate(example):
    return -example.image, tf.cast([example.epoch, 7], tf.int32)


@pytest.mark.parametrize("stack", [tf.stack, stack_ragged])
def test_results_are_those_of_each_example_one_below_the_other(stack):
    images = make_images((2, 3), (2, 3))
    batch = stack(images)
    pixels, rows = map_examples(negate, (make_examples(batch),), (PIXELS, ROWS))
    assert pixels[:, 0].numpy().tolist() == [-number for number in range(12)]
    assert rows.numpy().tolist() == [[0, 7], [1, 7]]
    arranged = arrange(pixels, batch)
    assert type(arranged) is type(batch)
    for image, other in zip(images, arranged, strict=True):
        other = other.to_tensor() if isinstance(other, tf.RaggedTensor) else other
        np.testing.assert_array_equal(other, -image)


def test_a_batch_of_no_example_has_no_results():
    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 1], tf.int32)])
    def run(images):
        examples = Example(images, tf.zeros([0, 3, 4]), tf.zeros([0], tf.string), tf.range(0))
        pixels = map_examples(lambda example: example.image, (examples,), PIXELS)
        return arrange(pixels, images)

    assert run(tf.zeros([0, 5, 4, 1], tf.int32)).shape == (0, 5, 4, 1)


def test_images_of_a_size_meet_and_return_to_their_places():
    images = make_images((2, 3), (3, 2), (2, 3), (1, 6), (2, 3))
    seeds = tf.reshape(tf.range(10), [5, 2])
    requests = Request(stack_ragged(images), seeds, tf.fill([5], True), {})
    sizes, seen = [], []

    def compute(request):
        sizes.append(request.image.shape.as_list())
        seen.extend(request.seed[:, 0].numpy())
        return tf.cast(-request.image, tf.float32)

    results = map_sizes(compute, requests)
    assert sizes == [[3, 2, 3, 1], [1, 3, 2, 1], [1, 1, 6, 1]] and seen == [0, 4, 8, 2, 6]
    for image, result in zip(images, results, strict=True):
        np.testing.assert_array_equal(result.to_tensor(), -image)


def test_images_of_one_width_need_no_ragged_rows():
    batch = tf.RaggedTensor.from_row_lengths(tf.zeros([5, 4, 1]), [2, 3])
    requests = Request(batch, tf.zeros([2, 2], tf.int32), tf.fill([2], True), {})
    results = map_sizes(lambda request: request.image + 1.0, requests)
    assert results.ragged_rank == 1 and results.row_lengths().numpy().tolist() == [2, 3]
    np.testing.assert_array_equal(results.flat_values, tf.ones([5, 4, 1]))
