"""Checkpoints come back bit for bit, or say what is wrong with them."""

from __future__ import annotations

import json
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from vae_aug.errors import CheckpointError
from vae_aug.model.checkpoint import (
    load_checkpoint,
    read_card,
    read_manifest,
    save_checkpoint,
)
from vae_aug.model.vae import VAE

IMAGES = tf.random.stateless_uniform([2, 32, 32, 1], [3, 3])


@pytest.fixture(scope="module")
def saved(tiny_vae, tmp_path_factory):
    """A network and the folder that it was saved in."""
    vae = tiny_vae
    folder = tmp_path_factory.mktemp("saved") / "checkpoint"
    digest = save_checkpoint(
        vae, folder, training={"steps": 3}, fingerprint={"patients": ["ab12"]}, card="# Card\n"
    )
    return vae, folder, digest


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the checkpoint folder that a test may damage."""
    return shutil.copytree(saved[1], tmp_path / "copy")


def edit_manifest(folder, edit):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def test_comes_back_with_half_precision(saved):
    vae, folder, digest = saved
    loaded = load_checkpoint(folder)
    assert loaded.digest == digest
    assert loaded.config == vae.config
    for before, after in zip(vae.weights, loaded.weights, strict=True):
        rounded = np.asarray(before).astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(after, rounded, err_msg=before.path)


def test_an_archive_holds_what_the_folder_does(saved, tmp_path):
    loaded = load_checkpoint(saved[1])
    digest = save_checkpoint(
        loaded,
        tmp_path / "network.keras",
        training={"steps": 3},
        fingerprint={"patients": ["ab12"]},
    )
    assert digest == saved[2]
    by_keras = keras.saving.load_model(tmp_path / "network.keras", safe_mode=True)
    np.testing.assert_array_equal(by_keras(IMAGES), loaded(IMAGES))


def test_manifest_and_card(saved):
    manifest = read_manifest(saved[1])
    assert manifest["fingerprint"] == {"patients": ["ab12"]}
    assert manifest["training"] == {"steps": 3}
    assert manifest["digest"] == saved[2]
    assert read_card(saved[1]) == "# Card\n"


def test_altered_weights_name_the_variable(folder):
    with h5py.File(folder / "model.weights.h5", "r+") as file:
        file["latent/vars/1"][0] = 9.0
    with pytest.raises(CheckpointError, match=r"variable latent/bias differs from its SHA-256"):
        load_checkpoint(folder)


def test_wrong_shape_names_the_variable(folder):
    edit_manifest(folder, lambda m: m["variables"]["latent/bias"].update(shape=[17]))
    with pytest.raises(CheckpointError, match=r"latent/bias has shape \[17\]"):
        load_checkpoint(folder)


def test_missing_variable_is_named(folder):
    edit_manifest(folder, lambda m: m["variables"].pop("latent/kernel"))
    with pytest.raises(CheckpointError, match="latent/kernel is not in the checkpoint"):
        load_checkpoint(folder)


def test_other_versions_are_refused(folder):
    edit_manifest(folder, lambda m: m.update(format=99))
    with pytest.raises(CheckpointError, match="format 99; this version reads 1"):
        load_checkpoint(folder)


def test_unknown_settings_are_refused(folder):
    edit_manifest(folder, lambda m: m["model"].update(run="import os"))
    with pytest.raises(CheckpointError, match="no setting 'run'"):
        load_checkpoint(folder)


@pytest.mark.parametrize("member", ["manifest.json", "model.weights.h5"])
def test_missing_and_damaged_members(folder, member):
    (folder / member).write_bytes(b"\x80 not this")
    with pytest.raises(CheckpointError, match=member):
        load_checkpoint(folder)
    (folder / member).unlink()
    with pytest.raises(CheckpointError, match=member):
        load_checkpoint(folder)


def test_not_an_archive(tmp_path):
    (tmp_path / "x.keras").write_bytes(b"PK not a zip")
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        load_checkpoint(tmp_path / "x.keras")


def test_archive_with_a_bomb_is_refused_before_reading(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b" " * (2**24 + 1))
    with pytest.raises(CheckpointError, match="at most"):
        load_checkpoint(tmp_path / "x.keras")


def test_unknown_name_lists_what_there_is():
    with pytest.raises(CheckpointError, match=r"No checkpoint 'nothing'.*packaged"):
        load_checkpoint("nothing")


def test_a_failed_save_leaves_the_old_checkpoint(saved, tmp_path, monkeypatch):
    path = tmp_path / "network.keras"
    save_checkpoint(saved[0], path)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(VAE, "save_weights", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(saved[0], path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["network.keras"]
