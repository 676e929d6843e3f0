from __future__ import annotations

import pytest
import tensorflow as tf

from vae_aug.autotune import leave_untuned


def test_the_tuner_that_holds_up_the_end_of_an_epoch_is_off():
    dataset = leave_untuned(tf.data.Dataset.range(3).map(lambda x: 2 * x).batch(2))
    assert dataset.options().autotune.enabled is False
    assert [batch.tolist() for batch in dataset.as_numpy_iterator()] == [[0, 2], [4]]


@pytest.mark.parametrize("enabled", [True, False])
def test_what_the_user_asked_for_stays(enabled):
    options = tf.data.Options()
    options.autotune.enabled = enabled
    asked = tf.data.Dataset.range(3).with_options(options).batch(2)
    assert leave_untuned(asked) is asked


def test_other_options_stay():
    options = tf.data.Options()
    options.deterministic = False
    dataset = leave_untuned(tf.data.Dataset.range(3).with_options(options))
    assert dataset.options().deterministic is False
    assert dataset.options().autotune.enabled is False


def test_a_dataset_within_a_function_of_another_stays_as_it_is():
    """Its options cannot be read there, and those of the outermost dataset count."""
    seen = []

    def make(_):
        inner = tf.data.Dataset.range(2)
        seen.append(leave_untuned(inner) is inner)
        return inner

    dataset = tf.data.Dataset.range(2).interleave(make)
    assert sorted(dataset.as_numpy_iterator()) == [0, 0, 1, 1]
    assert seen and all(seen)
