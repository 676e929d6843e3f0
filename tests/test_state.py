"""The state of a training comes back from its files, or is named where they are damaged."""

from __future__ import annotations

import shutil
import time
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from vae_aug.model.checkpoint import save_checkpoint
from vae_aug.train.run_files import TrainingError
from vae_aug.train.state import State, restore, restore_files, save_files

pytestmark = pytest.mark.usefixtures("short_stages")


def make_small_state():
    """Make the state of a network of one layer, with the best validation at 20 dB."""
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    optimizer = keras.optimizers.Adam()
    optimizer.build(layer.trainable_variables)
    averages = [tf.Variable(v.value) for v in layer.trainable_variables]
    dropout = keras.layers.Dropout(0.5, seed=1)
    variables = [*layer.variables, *dropout.variables]
    vae = types.SimpleNamespace(weights=layer.weights, variables=variables)
    return State(vae, optimizer, averages, tf.Variable(7), tf.Variable(20.0), tf.Variable(1))


@pytest.fixture
def stopped(short_vae, tmp_path):
    """The folder of a run that was stopped after step 7."""
    checkpoint = make_small_state().make_checkpoint()
    restore_files(checkpoint, tmp_path / "state", keep=2).save(checkpoint_number=7)
    save_checkpoint(short_vae, tmp_path / "checkpoint.keras")
    return tmp_path


def restore_step(folder):
    state = make_small_state()
    state.step.assign(0)
    restore(state, folder)
    return int(state.step)


def test_the_state_of_a_stopped_run_comes_back(stopped):
    assert restore_step(stopped) == 7
    shutil.rmtree(stopped / "state")
    (stopped / "checkpoint.keras").unlink()
    state = make_small_state()
    state.best.assign(-np.inf)
    restore(state, stopped)  # begins anew


def test_what_a_kill_or_a_clock_that_was_set_back_leaves_is_removed(tmp_path, monkeypatch):
    folder, checkpoint = tmp_path / "state", make_small_state().make_checkpoint()
    save_files(restore_files(checkpoint, folder, keep=2), 10)
    (folder / "ckpt-20_temp").mkdir()
    (folder / "ckpt-20_temp" / "part-00000-of-00001.data-00000-of-00001.tempstate1").touch()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 86_400)
    manager = restore_files(checkpoint, folder, keep=2)
    save_files(manager, 20)
    save_files(manager, 30)
    names = {path.name.partition(".")[0] for path in folder.iterdir()}
    assert names == {"checkpoint", "ckpt-20", "ckpt-30"}
    assert restore_files(checkpoint, folder, keep=2).latest_checkpoint.endswith("ckpt-30")


def test_what_dropout_draws_next_comes_back(tmp_path):
    state = make_small_state()
    *_, random = state.vae.variables
    random.assign(random + 5)
    restore_files(state.make_checkpoint(), tmp_path / "state", keep=2).save(checkpoint_number=7)
    other = make_small_state()
    assert np.any(other.vae.variables[-1] != random)
    restore_files(other.make_checkpoint(), tmp_path / "state", keep=2)
    assert np.all(other.vae.variables[-1] == random)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("state/checkpoint", b"\xff damaged"),
        ("state/checkpoint", b""),
        ("state/ckpt-7.index", b""),
        ("state/ckpt-7.index", b"\xff damaged"),
        ("state/ckpt-7.data-00000-of-00001", b""),
        ("state/ckpt-7.index", None),
        ("state/ckpt-7.data-00000-of-00001", None),
        ("checkpoint.keras", b"damaged"),
        ("checkpoint.keras", None),
    ],
)
def test_a_damaged_state_is_named_and_not_trained_over(stopped, file, content):
    (stopped / file).unlink()
    if content is not None:
        (stopped / file).write_bytes(content)
    name = file if file == "checkpoint.keras" else r"state(/checkpoint)?: .*damaged"
    with pytest.raises(TrainingError, match=f"{name}.*delete .*state to train from the first"):
        restore_step(stopped)
