"""Randomness keyed by what an example is, never by where or when it is processed.

A seed is a hash of (the user's seed, what is sampled, source id or content, epoch). Workers,
batches, order and resumption are not in it, so none of them can change what is sampled.
"""

from __future__ import annotations

import tensorflow as tf

from vae_aug.augment.elements import Example

COUNTED_EPOCHS = 1024
"""Passes over a dataset that `count_epochs` numbers 0, 1, 2, ..."""

_SEPARATOR = "\x1f"


def hash_content(image: tf.Tensor) -> tf.Tensor:
    """Name an image of any shape by its pixels, dtype and shape.

    Returns:
        `[] string`, a 64-bit fingerprint in decimal.
    """
    serialized = tf.io.serialize_tensor(image)
    return tf.strings.as_string(tf.strings.to_hash_bucket_fast(serialized, tf.int64.max))


def make_seed(seed: int | None, purpose: str, example: Example) -> tf.Tensor:
    """Make the stateless seed of an example.

    Args:
        seed: The user's; None for a fresh one, which `tf.random.set_seed` does not repeat either.
        purpose: What is sampled from it, e.g. `"choose"`; different purposes are independent.
        example: Its `source_id`, or its content if that is empty, and its epoch count.

    Returns:
        `[2] int32`, for `tf.random.stateless_*`.
    """
    if seed is None:
        # The Python API folds the global seed in, and tf.data would repeat it in every pass.
        return tf.raw_ops.RandomUniformInt(
            shape=[2], minval=0, maxval=tf.int32.max, seed=0, seed2=0
        )
    named = tf.not_equal(example.source_id, "")
    name = tf.where(named, example.source_id, hash_content(example.image))
    parts = [str(seed), purpose, name, tf.strings.as_string(example.epoch)]
    hashed = tf.strings.to_hash_bucket_fast(tf.strings.join(parts, _SEPARATOR), tf.int64.max)
    return tf.bitcast(hashed, tf.int32)


def choose(seed: tf.Tensor, probability: float) -> tf.Tensor:
    """Decide by a seed `[2] int32` with a probability: `[] bool`."""
    # The second half of a seed is a hash, or a random number, that is uniform over 31 bits.
    return tf.cast(seed[1], tf.float64) < probability * 2.0**31


def count_epochs(seed: int) -> tf.data.Dataset:
    """Make an endless dataset that repeats the number of the pass over it: 0, then 1, ...

    A pass is every iteration of the dataset object, also one that `.repeat()` downstream starts.
    The count is part of an iterator's checkpoint, and starts at 0 in every process and in every
    worker of tf.data service. From pass `COUNTED_EPOCHS` on, numbers are no longer consecutive but
    still differ and are reproducible.

    Args:
        seed: Of the numbers behind the count.

    Returns:
        A dataset of `[] int64`.
    """

    def make_source() -> tf.data.Dataset:
        return tf.data.Dataset.random(seed=seed % 2**31, rerandomize_each_iteration=True)

    # tf.data keeps no count of passes, but it can sample anew in each one. Sampling the same
    # sequence in advance turns the first number of pass k back into k.
    with tf.init_scope():
        first = make_source().take(1).repeat(COUNTED_EPOCHS)
        table = tf.constant(list(first.as_numpy_iterator()), tf.int64)

    @tf.autograph.experimental.do_not_convert
    def number_pass(epoch: tf.Tensor, sampled: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        match = tf.equal(table, sampled)
        known = tf.argmax(tf.cast(match, tf.int32))
        number = tf.where(tf.reduce_any(match), known, COUNTED_EPOCHS + sampled)
        epoch = tf.where(epoch < 0, number, epoch)
        return epoch, epoch

    return make_source().scan(tf.constant(-1, tf.int64), number_pass)
