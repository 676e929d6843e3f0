"""The cache of descriptions: what it saves, what it refuses, and how it goes on."""

import json

import numpy as np
import pytest
import tensorflow as tf
from fake_vae import FakeVAE

import vae_aug.augment.cache as cache
from vae_aug import CacheError, VAEAugment

COUNT = 7


def make_dataset(count=COUNT, size=(40, 32)):
    images = tf.random.stateless_uniform([count, *size, 1], [2, 5], 0, 256, tf.int32)
    boxes = tf.tile([[[0.2, 0.2, 0.6, 0.7]]], [count, 1, 1])
    return tf.data.Dataset.from_tensor_slices(
        {"image": tf.cast(images, tf.uint8), "objects": {"bbox": boxes}}
    )


@pytest.fixture
def vae():
    return FakeVAE()


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(cache, "ELEMENTS_PER_FILE", 3)


def read_images(dataset):
    return np.stack([element["image"] for element in dataset.as_numpy_iterator()])


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("short_vae", "sample"),
        ("tiny_ladder", "sample"),
        ("varied_ladder", "sample"),
        pytest.param("short_vae", "denoise", marks=pytest.mark.slow),
    ],
)
def test_outputs_are_those_of_apply(tmp_path, request, monkeypatch, name, mode):
    network = request.getfixturevalue(name)
    monkeypatch.setattr(network, "digest", "a" * 64)
    augment = VAEAugment(network, mode=mode, seed=3, guard="off")
    dataset = make_dataset()
    cached = augment.cache(dataset, tmp_path)
    assert cached.element_spec == dataset.element_spec
    assert int(cached.cardinality()) == COUNT
    expected = read_images(dataset.apply(augment)).astype(int)
    assert np.abs(read_images(cached).astype(int) - expected).max() <= 1
    assert np.abs(expected - read_images(dataset)).max() > 1


@pytest.mark.parametrize("axis", [0, 1, None])
def test_sizes_that_nobody_promised_meet_on_a_device(tmp_path, axis):
    def crop(index, element):
        size = 24 + 8 * tf.cast(index % 2, tf.int32)
        rows, columns = (size if axis in (side, None) else None for side in (0, 1))
        return {**element, "image": element["image"][:rows, :columns]}

    dataset = make_dataset().enumerate().map(crop)
    vae = FakeVAE(profile="ladder")
    augment = VAEAugment(vae, seed=3, guard="off", device="/CPU:0", batch_size=5)
    cached = augment.cache(dataset, tmp_path)
    for before, expected, found in zip(dataset, dataset.apply(augment), cached, strict=True):
        assert found["image"].shape == before["image"].shape
        values = [one["image"].numpy().astype(int) for one in (before, expected, found)]
        assert np.abs(values[2] - values[1]).max() <= 1
        assert np.abs(values[1] - values[0]).max() > 1


def test_a_cache_is_read_again(tmp_path, vae):
    dataset = make_dataset()
    first = read_images(VAEAugment(vae, seed=3).cache(dataset, tmp_path))
    assert len(list(tmp_path.glob("*.tfrecord"))) == 3
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    np.testing.assert_array_equal(
        read_images(VAEAugment(vae, seed=3).cache(dataset, tmp_path)), first
    )
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written


def test_every_pass_draws_anew_and_boxes_pass(tmp_path, vae):
    dataset = make_dataset()
    cached = VAEAugment(vae, seed=3, guard="off").cache(dataset, tmp_path)
    assert (read_images(cached) != read_images(cached)).any()
    for element, source in zip(cached, dataset, strict=True):
        np.testing.assert_array_equal(element["objects"]["bbox"], source["objects"]["bbox"])


def test_examples_left_out_are_untouched(tmp_path, vae):
    dataset = make_dataset()
    cached = VAEAugment(vae, seed=3, p=0.5, guard="off").cache(dataset, tmp_path)
    same = (read_images(cached) == read_images(dataset)).all(axis=(1, 2, 3))
    assert 0 < same.sum() < COUNT


@pytest.mark.parametrize("profile", ["vector", "ladder"])
def test_denoising_runs_no_network(tmp_path, monkeypatch, profile):
    dataset, vae = make_dataset(), FakeVAE(profile=profile)
    cached = VAEAugment(vae, mode="denoise", guard="off").cache(dataset, tmp_path)
    for name in ("describe", "redraw", "vary"):
        monkeypatch.setattr(FakeVAE, name, None)
    again = VAEAugment(vae, mode="denoise", guard="off").cache(dataset, tmp_path)
    np.testing.assert_array_equal(read_images(again), read_images(cached))


def test_interrupted_writing_goes_on(tmp_path, vae):
    dataset = make_dataset()
    augment = VAEAugment(vae, seed=1, guard="off")
    whole = augment.cache(dataset, tmp_path / "whole")

    def fail(index, element):
        check = tf.debugging.Assert(index < 5, ["the disk went away"])
        with tf.control_dependencies([check]):
            return tf.nest.map_structure(tf.identity, element)

    with pytest.raises(tf.errors.InvalidArgumentError, match="the disk went away"):
        augment.cache(dataset.enumerate().map(fail), tmp_path / "part")
    [kept] = (tmp_path / "part").glob("*.tfrecord")
    assert json.loads((tmp_path / "part/cache.json").read_text())["elements"] is None
    before = kept.stat().st_mtime_ns
    resumed = augment.cache(dataset, tmp_path / "part")
    assert kept.stat().st_mtime_ns == before
    assert sorted(path.name for path in (tmp_path / "part").iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )
    for path in (tmp_path / "part").iterdir():
        assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()
    np.testing.assert_array_equal(read_images(resumed), read_images(whole))


@pytest.mark.parametrize(
    "change",
    [
        lambda dataset: dataset.shuffle(COUNT, seed=1),
        lambda dataset: dataset.concatenate(dataset),
        lambda dataset: dataset.map(lambda x: {**x, "image": x["image"] ^ 1}),
    ],
    ids=["shuffled", "longer", "other pixels"],
)
def test_another_dataset_is_noticed(tmp_path, vae, change):
    augment = VAEAugment(vae, seed=1, guard="off")
    augment.cache(make_dataset(), tmp_path)
    with pytest.raises(tf.errors.InvalidArgumentError, match="shuffle after cache"):
        list(augment.cache(change(make_dataset()), tmp_path))


def test_another_checkpoint_or_range_is_refused(tmp_path, vae):
    VAEAugment(vae).cache(make_dataset(), tmp_path)
    other = FakeVAE()
    other.digest = "other"
    with pytest.raises(CacheError, match=r"made with checkpoint 'fake', and .* has 'other'"):
        VAEAugment(other).cache(make_dataset(), tmp_path)
    with pytest.raises(CacheError, match=r"value_range None, and this transform has \[0"):
        VAEAugment(vae, value_range=(0, 200)).cache(make_dataset(), tmp_path)


def test_an_error_of_the_disk_is_named_and_one_of_the_dataset_stays(tmp_path, vae, monkeypatch):
    class Full(tf.io.TFRecordWriter):
        def write(self, record):
            raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    augment = VAEAugment(vae)
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match=r"file/cache: the cache cannot be written \(Not a dir"):
        augment.cache(make_dataset(), tmp_path / "file" / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(tf.io, "TFRecordWriter", Full)
        with pytest.raises(CacheError, match=r"No space left on device\)\. Free space"):
            augment.cache(make_dataset(), tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["cache.json"]

    def fail(element):
        tf.debugging.assert_less(element["image"][0, 0, 0], tf.constant(0, tf.uint8))
        return element

    with pytest.raises(tf.errors.InvalidArgumentError):
        augment.cache(make_dataset().map(fail), tmp_path / "cache")
    assert read_images(augment.cache(make_dataset(), tmp_path / "cache")).shape[0] == COUNT


def test_a_foreign_or_damaged_folder_is_refused(tmp_path, vae):
    augment = VAEAugment(vae)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(CacheError, match="not a cache of descriptions"):
        augment.cache(make_dataset(), tmp_path)
    augment.cache(make_dataset(), tmp_path / "cache")
    (tmp_path / "cache/00001.tfrecord").unlink()
    with pytest.raises(CacheError, match=r"00001.tfrecord: missing"):
        augment.cache(make_dataset(), tmp_path / "cache")
    (tmp_path / "cache/cache.json").write_text("{")
    with pytest.raises(CacheError, match=r"cache.json: damaged"):
        augment.cache(make_dataset(), tmp_path / "cache")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda dataset: dataset.batch(2), r"before batch\(\)"),
        (lambda dataset: dataset.repeat(), r"before repeat\(\)"),
    ],
)
def test_what_cannot_be_cached(tmp_path, vae, change, message):
    with pytest.raises(ValueError, match=message):
        VAEAugment(vae).cache(change(make_dataset()), tmp_path)


def test_a_network_without_a_digest(tmp_path, vae):
    vae.digest = ""
    with pytest.raises(ValueError, match="never saved"):
        VAEAugment(vae).cache(make_dataset(), tmp_path)
