from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from test_dataset import run_elsewhere

from vae_aug.augment.elements import Example
from vae_aug.augment.seeds import (
    COUNTED_EPOCHS,
    choose,
    count_epochs,
    hash_content,
    make_seed,
)


def make_example(name, epoch=0, pixels=((0,),)):
    image = tf.constant(pixels, tf.uint8)[..., None]
    return Example(
        image, tf.zeros([0, 4]), tf.convert_to_tensor(name), tf.constant(epoch, tf.int64)
    )


def seeds_of(*, seed=1, purpose="vary", ids=("a", "b"), epochs=(0, 0)):
    examples = map(make_example, ids, epochs)
    return [make_seed(seed, purpose, example).numpy().tolist() for example in examples]


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
    assert seeds_of(purpose="vary", ids=("1", "1")) != seeds_of(purpose="var", ids=("y1", "y1"))
    assert seeds_of(ids=("1", "1"), epochs=(11, 11)) != seeds_of(ids=("11", "11"), epochs=(1, 1))


def test_an_example_without_a_name_goes_by_its_pixels():
    dark, bright = make_example(""), make_example("", pixels=((9,),))
    content = hash_content(dark.image).numpy()
    seeds = [make_seed(1, "vary", one).numpy().tolist() for one in (dark, bright)]
    assert seeds[0] != seeds[1]
    assert seeds[0] == make_seed(1, "vary", make_example(content)).numpy().tolist()


def test_seeds_are_the_same_in_another_process():
    run = run_elsewhere("import test_seeds; print(test_seeds.seeds_of())")
    assert run.stdout.strip() == str(seeds_of())


def test_content_is_hashed_by_pixels():
    images = np.arange(2 * 4 * 5, dtype=np.uint8).reshape(2, 4, 5, 1)
    first, second = (hash_content(tf.constant(image)) for image in images)
    assert first == hash_content(tf.constant(images)[0]) and first != second


def test_equal_bytes_of_another_shape_are_other_content():
    image = np.zeros((4, 6, 1), np.uint8)
    assert hash_content(tf.constant(image)) != hash_content(tf.constant(image.reshape(6, 4, 1)))


def test_fresh_seeds_differ_even_under_a_global_seed():
    drawn = []
    for _ in range(2):
        tf.random.set_seed(1)
        drawn.append(seeds_of(seed=None))
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("probability", [0.03, 0.3, 0.9])
def test_choices_follow_the_probability(probability):
    for seed in (1, None):

        def decide(name, seed=seed):
            return choose(make_seed(seed, "choose", make_example(name)), probability)

        names = tf.data.Dataset.from_tensor_slices(tf.strings.as_string(tf.range(4000)))
        share = np.mean(list(names.map(decide).as_numpy_iterator()))
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
