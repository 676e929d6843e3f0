import importlib
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
flops, throughput = (importlib.import_module(name) for name in ("flops", "throughput"))


@pytest.mark.parametrize("batch", [None, 2])
def test_a_rate_is_of_the_images_after_the_warm_up(monkeypatch, batch):
    clock = itertools.count()  # a second passes from each look at it to the next
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(clock))
    dataset = tf.data.Dataset.from_tensors({"image": tf.zeros([4, 4, 1])}).repeat()
    dataset = dataset if batch is None else dataset.batch(batch)
    first, rate = throughput.count_rate(dataset, warm_up=4, count=8)
    assert (first, rate) == (1, batch or 1)


def test_everything_is_measured_in_turn_and_the_first_round_does_not_count():
    calls = []

    def measure(name: str) -> int:
        calls.append(name)
        return len(calls)

    measured = throughput.take_turns(
        {"a": lambda: measure("a"), "b": lambda: measure("b"), "c": lambda: measure("c")}, 2
    )
    assert "".join(calls) == "abc" + "abc" + "bca"
    assert measured == {"a": [4, 9], "b": [5, 7], "c": [6, 8]}


def count(function, *shapes):
    return flops.count_flops(flops.freeze(function, *map(tf.TensorSpec, shapes)).graph)


def test_flops_of_every_kind_of_layer_by_hand():
    filters = tf.ones([3, 3, 2, 5])
    # 4 x 4 outputs of 5 channels, each a sum over 3 x 3 x 2; then 8 x 8, whose every other is kept
    assert count(lambda x: tf.nn.conv2d(x, filters, 1, "SAME"), [1, 4, 4, 2]) == 2 * 80 * 18
    assert count(lambda x: tf.nn.conv2d(x, filters, 2, "SAME"), [1, 8, 8, 2]) == 2 * 80 * 18
    depthwise = tf.ones([3, 3, 2, 1])
    assert (
        count(lambda x: tf.nn.depthwise_conv2d(x, depthwise, [1] * 4, "SAME"), [1, 4, 4, 2])
        == 2 * 32 * 9
    )
    # 4 x 4 inputs of 5 channels, each multiplied by 3 x 3 x 2
    assert (
        count(lambda x: tf.nn.conv2d_transpose(x, filters, [1, 8, 8, 2], 2), [1, 4, 4, 5])
        == 2 * 80 * 18
    )
    assert count(lambda x: tf.nn.relu(x @ tf.ones([7, 3])), [2, 7]) == 2 * 2 * 3 * 7


def test_flops_of_an_unknown_number_of_images_are_refused():
    with pytest.raises(ValueError, match="Trace the network for one image"):
        count(lambda x: x @ tf.ones([7, 3]), [None, 7])


def test_a_description_is_median_lowest_and_highest():
    values = np.array([3.0, 1.0, 2.00049]).tolist()
    assert throughput.describe(values) == {"median": 2.0, "lowest": 1.0, "highest": 3.0}
