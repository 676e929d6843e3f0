from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from vae_aug.augment.seeds import (
    COUNTED_EPOCHS,
    choose_examples,
    count_epochs,
    hash_content,
    make_seeds,
    sample_seeds,
)


def seeds_of(*, seed=1, purpose="vary", ids=("a", "b"), epochs=(0, 0)):
    epochs = tf.constant(epochs, tf.int64)
    return make_seeds(seed, purpose, tf.constant(ids), epochs).numpy().tolist()


def passes(dataset, count):
    return [[int(value) for value in dataset.take(2)] for _ in range(count)]


def test_seed_depends_on_each_of_its_parts_and_on_nothing_else():
    first, second = seeds_of()
    assert seeds_of() == [first, second]
    assert seeds_of(ids=("b", "a")) == [second, first]
    changed = [seeds_of(seed=2), seeds_of(purpose="choose"), seeds_of(epochs=(1, 1))]
    assert all(first != other[0] for other in changed)
    assert (
        len({tuple(s) for s in seeds_of(ids=[str(i) for i in range(500)], epochs=[0] * 500)}) == 500
    )


def test_parts_cannot_run_into_each_other():
    assert seeds_of(seed=1, ids=("1", "1")) != seeds_of(seed=11, ids=("", ""))


def test_seeds_are_the_same_in_another_process():
    program = (
        "import tensorflow as tf; from vae_aug.augment.seeds import make_seeds;"
        "print(make_seeds(1, 'vary', tf.constant(['a', 'b']), tf.constant([0, 0], tf.int64))"
        ".numpy().tolist())"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == str(seeds_of())


def test_content_is_hashed_per_image_whatever_the_batch():
    images = np.arange(2 * 4 * 5, dtype=np.uint8).reshape(2, 4, 5, 1)
    both = hash_content(tf.constant(images)).numpy()
    alone = [hash_content(tf.constant(image[None])).numpy()[0] for image in images]
    ragged = hash_content(tf.ragged.stack([tf.RaggedTensor.from_tensor(i) for i in images])).numpy()
    assert both.tolist() == alone == ragged.tolist()
    assert both[0] != both[1]


def test_equal_bytes_of_another_shape_are_other_content():
    image = np.zeros((1, 4, 6, 1), np.uint8)
    assert hash_content(tf.constant(image)) != hash_content(tf.constant(image.reshape(1, 6, 4, 1)))


def test_fresh_seeds_differ_even_under_a_global_seed():
    drawn = []
    for _ in range(2):
        tf.random.set_seed(1)
        drawn.append(sample_seeds(tf.constant(4)).numpy().tolist())
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("probability", [0.03, 0.3, 0.9])
def test_choices_follow_the_probability(probability):
    names = tf.strings.as_string(tf.range(4000))
    keyed = make_seeds(1, "choose", names, tf.zeros([4000], tf.int64))
    for seeds in (keyed, sample_seeds(tf.constant(4000))):
        share = np.mean(choose_examples(seeds, probability).numpy())
        deviation = (probability * (1 - probability) / 4000) ** 0.5
        assert abs(share - probability) < 5 * deviation


def one_each():
    return count_epochs(5).take(1)


def test_each_pass_is_the_next_epoch():
    assert passes(count_epochs(5), 3) == [[0, 0], [1, 1], [2, 2]]


def test_repeat_downstream_starts_epochs():
    assert [int(epoch) for epoch in one_each().repeat(4)] == [0, 1, 2, 3]


def test_a_checkpointed_iterator_counts_on(tmp_path):
    iterator = iter(one_each().repeat(5))
    for _ in range(3):
        next(iterator)
    saved = tf.train.Checkpoint(iterator=iterator).write(str(tmp_path / "iterator"))
    restored = iter(one_each().repeat(5))
    tf.train.Checkpoint(iterator=restored).read(saved)
    assert [int(epoch) for epoch in restored] == [3, 4]


def test_epochs_beyond_the_counted_ones_still_differ():
    repeated = one_each().repeat(COUNTED_EPOCHS + 2)
    epochs = [int(epoch) for epoch in repeated.skip(COUNTED_EPOCHS - 1)]
    assert epochs[0] == COUNTED_EPOCHS - 1
    assert len(set(epochs)) == 3 and min(epochs[1:]) >= COUNTED_EPOCHS
