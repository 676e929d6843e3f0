from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from fake_vae import BrighteningVAE, CountingVAE, FakeVAE

from vae_aug.augment.transform import VAEAugment

COUNT, S = 7, 32


def make_source():
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 20, 24, 1), np.uint8)
    return tf.data.Dataset.from_tensor_slices({"image": images, "number": np.arange(COUNT)})


def images_of(dataset):
    return np.stack([element["image"] for element in dataset.as_numpy_iterator()])


def test_structure_order_and_cardinality_are_kept():
    def complicate(element):
        count = tf.cast(element["number"], tf.int32)
        boxes = tf.random.stateless_uniform([count, 4], [1, count])
        return element["image"], {
            "boxes": boxes,
            "number": element["number"],
            "name": tf.strings.as_string(count),
            "ragged": tf.ragged.range(tf.range(3)),
            "sparse": tf.sparse.from_dense([[0, 1]]),
        }

    source = make_source().map(complicate)
    augmented = source.apply(VAEAugment(FakeVAE(), batch_size=3, seed=1))
    assert augmented.element_spec == source.element_spec
    assert augmented.cardinality() == COUNT
    for (_, before), (_, after) in zip(source, augmented, strict=True):
        for key in ("boxes", "number", "name"):
            np.testing.assert_array_equal(before[key], after[key])
        assert after["ragged"].to_list() == before["ragged"].to_list()
        np.testing.assert_array_equal(tf.sparse.to_dense(after["sparse"]), [[0, 1]])


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_nothing_is_dropped_whatever_the_batch_size(batch_size):
    augmented = make_source().apply(VAEAugment(BrighteningVAE(), batch_size=batch_size))
    assert [int(element["number"]) for element in augmented] == list(range(COUNT))


def test_at_native_resolution_images_known_to_be_of_one_size_meet_in_batches():
    augment = VAEAugment(CountingVAE(profile="ladder"), batch_size=3, guard="off")
    source = tf.data.Dataset.from_tensors(np.zeros([8, 10, 1], np.float32)).repeat(COUNT)
    seen_with = np.array([image.max() for image in source.apply(augment).as_numpy_iterator()])
    np.testing.assert_allclose(100 * seen_with, [3, 3, 3, 3, 3, 3, 1], atol=1e-4)


def test_at_native_resolution_mixed_sizes_keep_order_structure_and_spec():
    sizes = [(8, 10), (3, 40), (8, 10), (1, 1), (5, 7)]
    signature = {
        "image": tf.TensorSpec([None, None, 1], tf.uint8),
        "number": tf.TensorSpec([], tf.int64),
    }

    def generate():
        for number, size in enumerate(sizes):
            yield {"image": np.full([*size, 1], 40 * number, np.uint8), "number": number}

    source = tf.data.Dataset.from_generator(generate, output_signature=signature)
    augment = VAEAugment(FakeVAE(profile="ladder"), batch_size=3, seed=1)
    augmented = source.apply(augment)
    assert augmented.element_spec == source.element_spec
    elements = list(augmented)
    assert [int(element["number"]) for element in elements] == list(range(len(sizes)))
    for before, after in zip(source, elements, strict=True):
        np.testing.assert_array_equal(after["image"], augment(before)["image"])
    counting = VAEAugment(CountingVAE(profile="ladder"), batch_size=3, guard="off")
    as_floats = source.map(
        lambda element: tf.image.convert_image_dtype(element["image"], "float32")
    )
    pairs = zip(as_floats, as_floats.apply(counting), strict=True)
    for before, after in pairs:
        np.testing.assert_allclose(after - before, 0.01, atol=1e-6)  # alone in its batch
    counting = VAEAugment(CountingVAE(profile="ladder"), batch_size=3, guard="off", device="/CPU:0")
    placed = as_floats.apply(counting)
    assert placed.element_spec == as_floats.element_spec
    met = [2, 1, 2, 1, 1]  # the first and the third of three have one size
    for before, after, count in zip(as_floats, placed, met, strict=True):
        np.testing.assert_allclose(after - before, 0.01 * count, atol=1e-6)


def test_unknown_and_infinite_cardinality():
    augment = VAEAugment(FakeVAE(), batch_size=2, seed=1)
    unknown = make_source().filter(lambda element: element["number"] < 5)
    assert len(list(unknown.apply(augment))) == 5
    endless = make_source().repeat().apply(augment)
    assert endless.cardinality() == tf.data.INFINITE_CARDINALITY
    assert len(list(endless.take(10))) == 10


def test_empty_dataset():
    assert list(make_source().take(0).apply(VAEAugment(FakeVAE(), seed=1))) == []


@pytest.mark.parametrize("batched", [False, True])
def test_each_epoch_differs_and_equals_map_with_that_epoch(batched):
    augment = VAEAugment(FakeVAE(), seed=3, batch_size=4)
    source = make_source().batch(3) if batched else make_source()
    augmented = source.apply(augment)
    augmented = augmented.unbatch() if batched else augmented
    passes = [images_of(augmented) for _ in range(3)]
    for epoch, images in enumerate(passes):
        marked = make_source().map(lambda element, e=epoch: {**element, "epoch": e})
        np.testing.assert_array_equal(images, images_of(marked.map(augment)))
    assert (passes[0] != passes[1]).any() and (passes[1] != passes[2]).any()


def test_repeat_downstream_is_a_new_epoch():
    augment = VAEAugment(FakeVAE(), seed=3)
    one_by_one = make_source().apply(augment)
    expected = np.concatenate([images_of(one_by_one) for _ in range(2)])
    np.testing.assert_array_equal(images_of(make_source().apply(augment).repeat(2)), expected)


def test_state_of_the_source_survives_its_passes():
    """A shuffled source is shuffled anew in each pass, a cached one is read once."""
    reads = tf.Variable(0)

    def read(element):
        reads.assign_add(1)
        return element

    source = make_source().map(read).cache().shuffle(COUNT, seed=1)
    augmented = source.apply(VAEAugment(FakeVAE(), seed=3))
    orders = [[int(element["number"]) for element in augmented] for _ in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    assert int(reads) == COUNT


def test_without_a_seed_every_pass_is_fresh():
    augmented = make_source().apply(VAEAugment(FakeVAE()))
    assert (images_of(augmented) != images_of(augmented)).any()


def test_shuffled_elements_keep_their_own_draw():
    augment = VAEAugment(FakeVAE(), seed=3, batch_size=3)
    straight = {int(e["number"]): e["image"].numpy() for e in make_source().apply(augment)}
    for element in make_source().shuffle(COUNT, seed=2).apply(augment):
        np.testing.assert_array_equal(element["image"], straight[int(element["number"])])


@pytest.mark.parametrize("taken", [1, 5, 9])
def test_an_iterator_resumes_in_the_middle_of_an_epoch(taken, tmp_path):
    def make():
        return iter(
            make_source().apply(VAEAugment(FakeVAE(), seed=3, batch_size=3)).repeat(3).prefetch(2)
        )

    iterator = make()
    for _ in range(taken):
        next(iterator)
    saved = tf.train.Checkpoint(iterator=iterator).write(str(tmp_path / "iterator"))
    rest = [element["image"].numpy() for element in iterator]
    resumed = make()
    tf.train.Checkpoint(iterator=resumed).read(saved)
    again = [element["image"].numpy() for element in resumed]
    np.testing.assert_array_equal(again, rest)


def run_elsewhere(program):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def digest_two_epochs():
    augmented = make_source().apply(VAEAugment(FakeVAE(), seed=3, batch_size=3)).repeat(2)
    return hashlib.sha256(images_of(augmented).tobytes()).hexdigest()


@pytest.mark.slow
def test_bytes_are_the_same_in_another_process():
    run = run_elsewhere("import test_dataset; print(test_dataset.digest_two_epochs())")
    assert run.stdout.strip() == digest_two_epochs()


def test_probability_goes_by_example():
    augment = VAEAugment(BrighteningVAE(), p=0.5, seed=6, batch_size=3, guard="off")
    before, after = images_of(make_source()), images_of(make_source().apply(augment))
    touched = (before != after).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(touched, augment.call_with_report(before)[1]["augmented"])
    assert 0 < touched.sum() < COUNT


def test_identity_returns_the_dataset_itself():
    source = make_source()
    assert source.apply(VAEAugment(FakeVAE(), factor=0)) is source


@pytest.mark.parametrize("batched", [False, True])
def test_the_tuner_that_holds_up_the_end_of_an_epoch_is_off(batched):
    source = make_source().batch(2) if batched else make_source()
    assert source.apply(VAEAugment(FakeVAE())).options().autotune.enabled is False


@pytest.mark.parametrize("first", [True, False])
def test_a_tuner_that_is_asked_for_stays(first):
    options = tf.data.Options()
    options.autotune.enabled = True
    source, augment = make_source(), VAEAugment(FakeVAE())
    asked = source.with_options(options).apply(augment)
    asked_later = source.apply(augment).with_options(options)
    assert (asked if first else asked_later).options().autotune.enabled is True


def test_wrong_elements_are_refused_at_once():
    with pytest.raises(TypeError, match="received int64"):
        tf.data.Dataset.from_tensors(np.zeros((4, 4, 1), np.int64)).apply(VAEAugment(FakeVAE()))


def test_the_graph_is_serialisable_without_outside_state():
    augmented = make_source().apply(VAEAugment(FakeVAE(), seed=3, batch_size=3))
    variant = tf.raw_ops.DatasetToGraphV2(
        input_dataset=augmented._variant_tensor, external_state_policy=2
    )
    names = {node.op for node in tf.compat.v1.GraphDef.FromString(variant.numpy()).node}
    assert not names & {"EagerPyFunc", "PyFunc", "VarHandleOp"}


def test_the_network_runs_where_it_is_told():
    """In a process of its own, since logical devices are made before TensorFlow starts."""
    program = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from conftest import ROOT
from fake_vae import FakeVAE
from test_dataset import images_of, make_source
from vae_aug.augment.transform import VAEAugment
tf.debugging.set_log_device_placement(True)
plain, placed = (VAEAugment(FakeVAE(), seed=3, device=d) for d in (None, "/CPU:1"))
same = (images_of(make_source().apply(plain)) == images_of(make_source().apply(placed))).all()
print("same", same)
"""
    run = run_elsewhere(program)
    assert "same True" in run.stdout
    # The one function that is placed by name is the network.
    assert re.search(r"PartitionedCall.*CPU:1", run.stdout + run.stderr)


def test_a_distributed_training_step_can_call_it():
    program = """
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from fake_vae import FakeVAE
from test_dataset import images_of, make_source
from vae_aug.augment.transform import VAEAugment
augment = VAEAugment(FakeVAE(), seed=3)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
batches = make_source().take(6).batch(2)

@tf.function
def step(batch):
    return strategy.run(lambda part: augment(part)["image"], args=(batch,))

parts = [
    part
    for batch in strategy.experimental_distribute_dataset(batches)
    for part in strategy.experimental_local_results(step(batch))
]
print("replicas", strategy.num_replicas_in_sync, "parts", len(parts))
print("same", (np.concatenate(parts) == images_of(make_source().take(6).map(augment))).all())
"""
    run = run_elsewhere(program)
    assert "replicas 2 parts 6" in run.stdout and "same True" in run.stdout, run.stderr
