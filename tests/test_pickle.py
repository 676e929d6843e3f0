"""A transform travels as the name of its checkpoint, and works within datasets of datasets."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from conftest import shorten_stages
from fake_vae import FakeVAE

from vae_aug import VAEAugment
from vae_aug.errors import CheckpointError
from vae_aug.model.checkpoint import save_checkpoint

SETTINGS = {
    "mode": "sample",
    "factor": 0.5,
    "seed": 3,
    "value_range": (0, 255),
    "guard": "keep",
    "weakest": 0.2,
}


@pytest.fixture(scope="module")
def augment(checkpoint):
    return VAEAugment(checkpoint, **SETTINGS)


def make_images(count=4):
    return np.random.default_rng(0).integers(0, 256, (count, 24, 20, 1), np.uint8)


def augment_in_child(data):
    shorten_stages(pytest.MonkeyPatch())
    return pickle.loads(data)(make_images()).numpy()


def test_a_pickle_comes_back_with_the_same_settings_and_bytes(augment):
    data = pickle.dumps(augment)
    assert len(data) < 1000  # no weights in it
    again = pickle.loads(data)
    assert again.config == augment.config
    np.testing.assert_array_equal(again(make_images()), augment(make_images()))


def test_a_relative_path_is_found_from_another_folder(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(checkpoint.parent)
    data = pickle.dumps(VAEAugment(checkpoint.name, **SETTINGS))
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(data).vae.digest


def test_another_checkpoint_under_the_same_name_is_refused(checkpoint, short_vae, tmp_path):
    path = tmp_path / "run.keras"
    shutil.copy(checkpoint, path)
    data = pickle.dumps(VAEAugment(path))
    save_checkpoint(short_vae, path, training={"steps": 1})
    with pytest.raises(CheckpointError, match="Copy the same checkpoint"):
        pickle.loads(data)


def test_a_transform_of_a_network_in_memory_says_why_it_cannot_be_pickled():
    with pytest.raises(TypeError, match="save the network"):
        pickle.dumps(VAEAugment(FakeVAE()))


@pytest.mark.slow
def test_a_spawned_process_gives_the_same_bytes(augment):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(augment_in_child, pickle.dumps(augment)).result(timeout=300)
    np.testing.assert_array_equal(found, augment(make_images()))


@pytest.mark.parametrize("combine", ["interleave", "flat_map"])
def test_apply_within_a_dataset_of_datasets_gives_the_bytes_of_apply(augment, combine):
    source = tf.data.Dataset.from_tensor_slices(
        {"image": make_images(), "image/source_id": ["a", "b", "c", "d"]}
    )
    shards = tf.data.Dataset.range(2)
    inner = getattr(shards, combine)(lambda index: source.shard(2, index).apply(augment))
    expected = {e["image/source_id"]: e["image"] for e in source.apply(augment).as_numpy_iterator()}
    found = {e["image/source_id"]: e["image"] for e in inner.as_numpy_iterator()}
    assert set(found) == set(expected)  # how many are open at once depends on the machine
    for name, image in expected.items():
        np.testing.assert_array_equal(found[name], image)
