import importlib
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from fake_vae import FakeVAE

from vae_aug.records.records import make_example, write_records

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
flops, throughput, pipeline, engine_quality = (
    importlib.import_module(name) for name in ("flops", "throughput", "pipeline", "engine_quality")
)


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


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Sixteen images of 40 x 48 pixels with a box each."""
    rng = np.random.default_rng(0)
    examples = [
        make_example(
            rng.integers(0, 256, (40, 48, 1), dtype=np.uint8),
            source_id=f"image{index}",
            boxes=[[0.2, 0.2, 0.6, 0.7]],
            labels=[0],
            label_names=("lesion",),
        )
        for index in range(16)
    ]
    folder = tmp_path_factory.mktemp("records")
    write_records(examples, folder, "train", 1, label_names=("lesion",))
    return folder


@pytest.mark.slow
def test_every_step_of_a_pipeline_is_timed(monkeypatch, records, short_vae):
    monkeypatch.setattr(pipeline, "DISTINCT", 4)
    augment = pipeline.VAEAugment(short_vae, batch_size=2)
    rows = pipeline.compare_pipelines(augment, str(records), 4, 1)
    assert rows.pop("network alone")["ratio"]["median"] == 1.0
    assert len(rows) == 2 and all(row["ratio"]["median"] > 0 for row in rows.values())
    steps = pipeline.make_steps(str(records), short_vae, "sample", ["tensorflow"])
    costs = pipeline.measure_steps(steps, 1)
    assert len(costs) == 10
    # A step's cost is a difference of measured times, which chance may make negative.
    step = costs["encoder, TensorFlow, an image at a time"]
    assert all(np.isfinite(step[key]["median"]) for key in ("processor_ms", "clock_ms"))


@pytest.mark.slow
def test_engines_that_cannot_run_a_network_are_told_and_not_the_end(monkeypatch, records):
    monkeypatch.setattr(engine_quality, "CHECKPOINTS", ("fake",))
    monkeypatch.setattr(engine_quality, "load_checkpoint", lambda name: FakeVAE())
    monkeypatch.setattr(engine_quality, "MODES", ("denoise",))
    monkeypatch.setattr(engine_quality, "ENGINES", ("tensorflow", "tensorflow", "xla"))
    augment = engine_quality.compute_outputs

    def refuse(vae, mode, engine, elements):
        if engine == "xla":
            raise tf.errors.InvalidArgumentError(None, None, "no such kernel\nand more")
        return augment(vae, mode, engine, elements)

    monkeypatch.setattr(engine_quality, "compute_outputs", refuse)
    same, failed = engine_quality.measure_quality(str(records), 2)
    assert (same["psnr_db"], same["share_of_levels"], same["images"]) == (None, 0.0, 2)
    assert failed["failed"] == "no such kernel"
