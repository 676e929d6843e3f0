"""Several devices and workers train as one does."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, shorten_stages, write_phantoms

from vae_aug.config import ModelConfig, TrainConfig
from vae_aug.model.latent import sample_posterior, split_latent
from vae_aug.model.loss import kl_divergence
from vae_aug.model.network import Decoded, Network
from vae_aug.train.devices import open_devices
from vae_aug.train.feed import make_training_feed, open_source
from vae_aug.train.recipe import Recipe
from vae_aug.train.state import make_state, restore_files
from vae_aug.train.train import make_train_step, train

MODEL = ModelConfig(encoder="efficientnet-lite1", image_size=32, latent_dim=16)
CONFIG = TrainConfig(
    batch_size=6, steps=8, free_bits=0.01, kl_warmup_steps=0, ema=0.9, learning_rate=1e-2, seed=3
)


class TinyNetwork(Network):
    """Two layers and a batch normalisation, traced within seconds."""

    def __init__(self):
        super().__init__(MODEL, "tiny")
        self.first = keras.layers.Conv2D(3, 3, padding="same")
        self.first.build((None, 32, 32, 1))
        image = keras.Input((32, 32, 3))
        x = keras.layers.Conv2D(8, 4, strides=4)(image)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.5)(x))
        x = keras.layers.GlobalAveragePooling2D()(x)
        self.backbone = keras.Model(image, keras.layers.Dense(16)(x))
        z = keras.Input((8,))
        x = keras.layers.Reshape((32, 32, 3))(keras.layers.Dense(32 * 32 * 3)(z))
        self.decoder = keras.Model(z, keras.layers.Activation("sigmoid")(x))
        self.built = True

    def forward(self, images, noise=None, *, training=False):
        z_mean, z_log_var = split_latent(self.backbone(self.first(images), training=training))
        z = sample_posterior(z_mean, z_log_var, noise["z"])
        return Decoded(self.decoder(z), (kl_divergence(z_mean, z_log_var),), z_mean)


def take_steps(records, folder, devices, steps):
    """Train on some devices up to a step, from the state in a folder if there is one."""
    found = open_devices(Recipe(MODEL, CONFIG, devices=devices), print)
    keras.utils.set_random_seed(1)
    with found.strategy.scope():
        network = TinyNetwork()
    state = make_state(network, CONFIG)
    state.optimizer.global_clipnorm = 0.01  # less than any gradient has
    manager = restore_files(state.make_checkpoint(), folder, keep=1)
    done, source = int(state.step), open_source(records, "train")
    feed = found.strategy.distribute_datasets_from_function(
        lambda context: make_training_feed([source], 32, CONFIG, done, context)
    )
    step = make_train_step(state, CONFIG)
    for batch in feed:
        step(*batch, state.step)
        state.step.assign_add(1)
        if int(state.step) == steps:
            break
    manager.save(checkpoint_number=steps)


def read_state(folder):
    """Read every number of a state: weights, averages, optimiser, counters."""
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(folder)))
    names = [name for name in reader.get_variable_to_shape_map() if name.endswith("VALUE")]
    return {name: reader.get_tensor(name) for name in names if "save_counter" not in name}


def compare_states(folder, other):
    """Return the largest difference between two states of training."""
    states = read_state(folder), read_state(other)
    assert states[0].keys() == states[1].keys() and len(states[0]) > 30
    return max(float(np.max(np.abs(states[0][name] - states[1][name]))) for name in states[0])


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("records"), train=12, validation=4)


def start_process(call, *arguments, **environment):
    """Call a function of this module in a process of its own, where TensorFlow has not started."""
    program = f"import sys, test_devices; test_devices.{call}(*sys.argv[1:])"
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )


def finish(process):
    output, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    return output


def compare_devices(records, folder):
    """Print how far trainings of which one half was on two devices are from one on one."""
    folder, one, two = Path(folder), None, "CPU:0, /device:cpu:1"
    # Two devices first, as they cannot be made later.
    ways = {"fewer": (two, one), "more": (one, two), "one": (one, one)}
    for name, devices in ways.items():
        for half, steps in zip(devices, (4, 8), strict=True):
            take_steps(records, folder / name, half, steps)
    print(json.dumps({name: compare_states(folder / "one", folder / name) for name in ways}))


def test_devices_train_as_one_and_their_number_may_change(records, tmp_path):
    # In a process of its own, since logical devices are made before TensorFlow starts.
    differences = json.loads(finish(start_process("compare_devices", records, tmp_path)))
    # A step moves a weight by up to 0.01.
    assert max(differences.values()) < 2e-4, differences


TWO_WORKERS = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
LADDER = dataclasses.replace(MODEL, profile="ladder", latent_dim=24, variation=True)
STARTED = dataclasses.replace(CONFIG, start_from="demo")


@pytest.mark.parametrize(
    ("recipe", "cluster", "words"),
    [
        *[
            (Recipe(MODEL, CONFIG, devices=devices), None, "expected a number of GPUs")
            for devices in ("", "0", "GPU", "TPU:0", "GPU:0,GPU:0", "CPU:0,GPU:0", "CPU:0,", "-1")
        ],
        (Recipe(MODEL, CONFIG, devices="99"), None, r"sees \d+ GPUs?\. For a trial"),
        (Recipe(MODEL, CONFIG, devices="CPU:98,CPU:99"), None, "sees .*before TensorFlow first"),
        (
            Recipe(LADDER, STARTED, only="variation", devices="CPU:0"),
            None,
            "devices='CPU:0': A variation is trained on one device",
        ),
        (Recipe(LADDER, STARTED), TWO_WORKERS, "TF_CONFIG: A variation is trained on one device"),
        (Recipe(MODEL, CONFIG, devices="2"), TWO_WORKERS, "devices='2': with TF_CONFIG"),
        (
            Recipe(MODEL, dataclasses.replace(CONFIG, batch_size=5)),
            TWO_WORKERS,
            "batch_size=5 cannot be split evenly over 2 replicas",
        ),
        (Recipe(MODEL, CONFIG), {}, "TF_CONFIG is not understood"),
        # By this test's process TensorFlow has long been used.
        (Recipe(MODEL, CONFIG), TWO_WORKERS, "TensorFlow has begun to compute"),
    ],
)
def test_what_cannot_be_split_is_refused_before_anything_is_written(
    tmp_path, monkeypatch, recipe, cluster, words
):
    tf.constant(0)
    if cluster is not None:
        monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(ValueError, match=words):
        train([tmp_path / "nowhere"], tmp_path / "run", recipe)
    assert not list(tmp_path.iterdir())


def test_a_strategy_that_is_in_force_is_not_passed_over(tmp_path):
    with (
        tf.distribute.OneDeviceStrategy("CPU:0").scope(),
        pytest.raises(ValueError, match="outside of a strategy's scope"),
    ):
        train([tmp_path / "nowhere"], tmp_path / "run", Recipe(MODEL, CONFIG))


# --- Whole trainings, in several processes -----------------------------------------------------

# Batch normalisation of maps of one pixel multiplies what floats are rounded by.
FROZEN = Recipe(
    dataclasses.replace(LADDER, variation=False),
    TrainConfig(
        batch_size=4,
        steps=4,
        validate_every=2,
        validation_images=4,
        frozen_stages=7,
        loss="sigma_each",
        ema=0.9,
    ),
)


def run_training(records, out, devices="", pause=0):
    """Train, and print every step; wait after the third for something to happen."""

    def tell(step, _):
        print("step", step, flush=True)
        time.sleep(float(pause) if step == 3 else 0)

    with pytest.MonkeyPatch.context() as patch:
        shorten_stages(patch)
        recipe = dataclasses.replace(FROZEN, devices=devices or None)
        train([records], out, recipe, progress=tell, report=print)


@contextlib.contextmanager
def start_workers(records, out, pause=0):
    """Start two workers on this machine, which end with the block at the latest."""
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in (first, second)]
    configs = [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        for index in range(2)
    ]
    workers = [
        start_process("run_training", records, out, "", pause, TF_CONFIG=config)
        for config in configs
    ]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


@pytest.mark.slow
def test_a_worker_that_was_killed_is_started_again(records, tmp_path):
    finish(start_process("run_training", records, tmp_path / "one"))
    out = tmp_path / "run"
    with start_workers(records, out, pause=5) as (chief, other):
        for line in chief.stdout:
            if line == "step 3\n":
                break
        other.kill()
        _, error = chief.communicate(timeout=300)
    assert chief.returncode == 1
    assert "Another worker has ended or cannot be reached (Error reported from" in error
    assert f"{out} keeps the last state; start all workers again" in error
    assert int(read_state(out / "state")["step/.ATTRIBUTES/VARIABLE_VALUE"]) == 2

    # It goes on with as many workers, or on several devices of one machine.
    alone = shutil.copytree(out, tmp_path / "alone")
    said = finish(start_process("run_training", records, alone, "CPU:0,CPU:1"))
    assert "devices: 2 replicas, 2 images each\n" in said and "run: goes on after step 2" in said
    with start_workers(records, out) as (chief, other):
        said = [finish(worker) for worker in (chief, other)]
    assert "devices: worker 1 of 2 waits for the others\n" in said[1]
    assert all("run: goes on after step 2 of 4" in text for text in said)
    for folder in (alone, out):
        assert compare_states(tmp_path / "one" / "state", folder / "state") < 1e-5
    names = [{path.name for path in folder.iterdir()} for folder in (tmp_path / "one", out)]
    assert names[0] == names[1]
    logs = [(folder / "log.jsonl").read_text() for folder in (tmp_path / "one", out)]
    assert [len(log.splitlines()) for log in logs] == [3, 3]
