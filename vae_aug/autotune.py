"""Keep tf.data's tuner from holding up the end of an epoch."""

from __future__ import annotations

import tensorflow as tf


def leave_untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Switch tf.data's tuner off for a pipeline, unless its options say that it is wanted.

    Measured with TensorFlow 2.21: where the tuner runs, dropping an iterator, which is how an epoch
    ends, often waits until the tuner's next turn is due. Its turns are spaced twice as far each
    time, up to a minute. Its thread is woken before it can see that it was cancelled
    (`Model::OptimizeLoop`, `CancellationManager`), and falls asleep again. See ADR 0011.

    Without it, `tf.data.AUTOTUNE` stands for as many parallel calls as there are cores, up to 16.

    Args:
        dataset: Any.

    Returns:
        The same elements. What a user sets later, by `Dataset.with_options`, has the last word.
    """
    # Within `interleave` the options of the outermost dataset count, and these cannot be read.
    if not tf.executing_eagerly() or dataset.options().autotune.enabled is not None:
        return dataset
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
