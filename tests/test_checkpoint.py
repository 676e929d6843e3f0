"""Checkpoints come back bit for bit, or say what is wrong with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from vae_aug import VAEAugment
from vae_aug.augment import transform
from vae_aug.errors import CheckpointError
from vae_aug.model.checkpoint import (
    load_checkpoint,
    name_checkpoint,
    open_checkpoint,
    read_card,
    read_manifest,
    save_checkpoint,
)
from vae_aug.model.vae import VAE

pytestmark = pytest.mark.usefixtures("short_stages")

IMAGES = tf.random.stateless_uniform([2, 32, 32, 1], [3, 3])


def test_a_checkpoint_is_shared_while_its_files_stay_the_same(saved_copy, monkeypatch):
    stored = open_checkpoint(saved_copy)
    network = stored.load()
    assert open_checkpoint(str(saved_copy)).load() is network
    assert load_checkpoint(saved_copy) is not network
    made, make = [], transform.make_engine
    monkeypatch.setattr(
        transform,
        "make_engine",
        lambda vae, config: made.append(config.mode) or make(vae, config),
    )
    for mode, seed, guard in (
        ("sample", 1, "off"),
        ("denoise", 1, "off"),
        ("sample", 2, "keep"),
    ):
        VAEAugment(saved_copy, mode=mode, seed=seed, guard=guard)
    assert made == ["sample", "denoise"]
    for _ in range(2):
        VAEAugment(network)
    assert made[2:] == ["sample", "sample"]
    card = saved_copy / "MODEL_CARD.md"
    card.write_text("# Another\n")
    assert open_checkpoint(saved_copy) != stored
    assert open_checkpoint(saved_copy).load() is not network
    with pytest.raises(CheckpointError, match="was changed since it was opened"):
        stored.load()
    (saved_copy / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match="format None"):
        open_checkpoint(saved_copy)


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


def test_altered_weights_name_the_variable(saved_copy):
    with h5py.File(saved_copy / "model.weights.h5", "r+") as file:
        file["latent/vars/1"][0] = 9.0
    with pytest.raises(CheckpointError, match="latent/vars/1 has the shape and SHA-256 of no"):
        load_checkpoint(saved_copy)


def test_wrong_shape_names_the_variable(saved_copy):
    edit_manifest(saved_copy, lambda m: m["variables"]["latent/bias"].update(shape=[17]))
    with pytest.raises(CheckpointError, match=r"latent/bias has shape \[17\]"):
        load_checkpoint(saved_copy)


def test_missing_variable_is_named(saved_copy):
    edit_manifest(saved_copy, lambda m: m["variables"].pop("latent/kernel"))
    with pytest.raises(CheckpointError, match="latent/kernel is not in the checkpoint"):
        load_checkpoint(saved_copy)


def test_other_versions_are_refused(saved_copy):
    edit_manifest(saved_copy, lambda m: m.update(format=99))
    with pytest.raises(CheckpointError, match="format 99; this version reads 1"):
        load_checkpoint(saved_copy)


def test_unknown_settings_are_refused(saved_copy):
    edit_manifest(saved_copy, lambda m: m["model"].update(run="import os"))
    with pytest.raises(CheckpointError, match="no setting 'run'"):
        load_checkpoint(saved_copy)


@pytest.mark.parametrize("member", ["manifest.json", "model.weights.h5"])
def test_missing_and_damaged_members(saved_copy, member):
    (saved_copy / member).write_bytes(b"\x80 not this")
    with pytest.raises(CheckpointError, match=member):
        load_checkpoint(saved_copy)
    (saved_copy / member).unlink()
    with pytest.raises(CheckpointError, match=member):
        load_checkpoint(saved_copy)


@pytest.mark.parametrize(
    ("member", "content", "message"),
    [
        ("config.json", b"\xff", "config.json is not valid"),
        ("config.json", b"[" * 10**6, "config.json is not valid"),
        ("config.json", b"{}", "module must be 'vae_aug.model.vae'; got None"),
        (
            "config.json",
            b'{"module": "keras.layers", "class_name": "Lambda", "config": {"function": "x"}}',
            "module must be .*; got 'keras.layers'",
        ),
        ("metadata.json", b"[]", "metadata.json must hold an object"),
        ("metadata.json", None, "has no metadata.json"),
    ],
)
def test_what_keras_would_build_is_checked(blank_vae, saved_copy, member, content, message):
    (saved_copy / member).unlink()
    if content is not None:
        (saved_copy / member).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved_copy, blank_vae)


def test_a_loss_that_keras_would_restore_is_refused(saved_copy):
    path = saved_copy / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "compile_config": {"loss": {"class_name": "Lambda"}}}))
    with pytest.raises(CheckpointError, match=r"compile_config must be \{\}"):
        load_checkpoint(saved_copy)


def test_a_card_that_is_no_text_is_refused(saved_copy):
    (saved_copy / "MODEL_CARD.md").write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match=r"MODEL_CARD\.md is no UTF-8"):
        read_card(saved_copy)


def test_another_programs_keras_file_is_refused(tmp_path):
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs))
    model.save(tmp_path / "x.keras")
    with pytest.raises(CheckpointError, match=r"has no manifest\.json, only config\.json"):
        load_checkpoint(tmp_path / "x.keras")


HOSTILE = """
import gc, json, resource, sys, time
from vae_aug.errors import CheckpointError
from vae_aug.model.checkpoint import load_checkpoint
_, hard = resource.getrlimit(resource.RLIMIT_CPU)
for path in sys.argv[1:]:
    gc.collect()  # Keras's networks hold themselves; the bound is of one checkpoint
    spent = time.process_time()
    # A signal ends the process: the slowest takes 3 s, and several times as long on a busy machine.
    resource.setrlimit(resource.RLIMIT_CPU, (int(spent) + 20, hard))
    try:
        load_checkpoint(path)
    except CheckpointError as error:
        assert str(error).startswith(path), error
        print(json.dumps(str(error)), flush=True)
# Not ru_maxrss, which begins at the memory of the process that started this one.
[peak] = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
print(peak.split()[1])
"""


def write_hostile(whole, folder):
    """Write checkpoints that claim to be large; return their paths and what is said of them."""
    members = {file.name: file.read_bytes() for file in whole.iterdir()}
    manifest = json.loads(members["manifest.json"])

    def write(name, compression=zipfile.ZIP_DEFLATED, **changes):
        path = folder / f"{name}.keras"
        with zipfile.ZipFile(path, "w", compression) as archive:
            for member, content in {**members, **changes}.items():
                archive.writestr(member, content)
        return str(path)

    def resize(name, **settings):
        model = {**manifest["model"], **settings}
        text = json.dumps({**manifest, "model": model})
        return write(name, **{"manifest.json": text})

    os.mkfifo(folder / "pipe")
    (folder / "pipes").mkdir()
    os.mkfifo(folder / "pipes" / "manifest.json")
    return {
        str(folder / "pipe"): "neither a file nor a folder",
        str(folder / "pipes"): "no regular file",
        write("bomb", **{"model.weights.h5": bytes(2**27)}): "has 134217728 bytes; at most",
        resize("long", latent_dim=10**9): "a network has at most",
        resize("wide", image_size=32 * 10**6): "image_size must be at most 8192",
        resize("deep", decoder_repeats=10**6): "decoder_repeats must be at most 4",
        # The largest that are let through are built, and found to be another network.
        resize("largest", latent_dim=25_000): "must be",
        resize("deepest", encoder="efficientnet-b1", decoder_repeats=4, image_size=4096): "must be",
        write("flat", **{"manifest.json": b"[" + b"[]," * 2_700_000 + b"0]"}): "hold an object",
        write("nested", **{"manifest.json": b'{"a":' * 1_600_000}): "is not valid",
    }


def test_hostile_checkpoints_cost_neither_time_nor_memory(saved, tmp_path):
    expected = write_hostile(saved[1], tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", HOSTILE, *expected], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    *messages, kilobytes = result.stdout.splitlines()
    for (path, part), message in zip(expected.items(), messages, strict=True):
        assert part in message, (path, message)
    assert int(kilobytes) < 2 * 2**20


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


def test_only_a_checkpoints_folder_is_replaced(short_vae, tmp_path):
    records = tmp_path / "records"
    records.mkdir()
    (records / "train-00000-of-00001.tfrecord").write_bytes(b"kept")
    with pytest.raises(CheckpointError, match="records: is a folder of something else"):
        save_checkpoint(short_vae, records)
    assert (records / "train-00000-of-00001.tfrecord").read_bytes() == b"kept"
    for steps in (1, 2):
        save_checkpoint(short_vae, tmp_path / "checkpoint", training={"steps": steps})
    assert read_manifest(tmp_path / "checkpoint")["training"] == {"steps": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "records"]


def test_what_could_not_be_loaded_is_not_saved(short_vae, tmp_path):
    with pytest.raises(CheckpointError, match=r"fingerprint\.patients must be a string, got 7"):
        save_checkpoint(short_vae, tmp_path / "x.keras", fingerprint={"patients": [7]})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("demo", "b2534700f96a8a7bcdc40f036353eda543391850080930bc0ecb1411f85d63cb"),
        ("vector", "749edcb88714736b16ed56d60d00ff2c788f60bd906492926f62a1d076192ace"),
    ],
)
def test_the_packaged_checkpoints_are_those_of_before(name, digest):
    assert read_manifest(name)["digest"] == digest
    assert read_card(name).startswith("# ")


def test_the_folder_of_a_training_stands_for_its_best_checkpoint(saved, tmp_path):
    vae, _, _ = saved
    digest = save_checkpoint(vae, tmp_path / "run" / "checkpoint.keras", card="# Best\n")
    (tmp_path / "run" / "config.json").write_text("{}")
    loaded = load_checkpoint(tmp_path / "run")
    assert loaded.digest == digest and loaded.checkpoint_name == "run"
    assert name_checkpoint("elsewhere/mine.keras") == name_checkpoint("mine") == "mine"
    assert read_manifest(str(tmp_path / "run"))["path"].endswith("run/checkpoint.keras")
    assert read_card(tmp_path / "run") == "# Best\n"
