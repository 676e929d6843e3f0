"""Training: it learns, and an interrupted run ends as an uninterrupted one."""

from __future__ import annotations

import dataclasses
import json
import shutil
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from vae_aug.config import ModelConfig, TrainConfig
from vae_aug.data.atomic import lock_folder
from vae_aug.data.embedded import read_embedded
from vae_aug.data.records import make_example, write_records
from vae_aug.errors import RecordError
from vae_aug.model.checkpoint import load_checkpoint, read_manifest, save_checkpoint
from vae_aug.model.train import TrainingError, _cut_log, _restore, _State, train

pytestmark = pytest.mark.usefixtures("short_stages")

MODEL = ModelConfig(encoder="efficientnet-lite1", image_size=32, latent_dim=16)
CONFIG = TrainConfig(batch_size=4, steps=4, validate_every=2, validation_images=4, seed=3)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Eight small phantoms to train on and four to validate on."""
    folder = tmp_path_factory.mktemp("records")
    for split, count in ("train", 8), ("validation", 4):
        examples = [
            make_example(
                item.image,
                source_id=item.source_id,
                boxes=item.boxes,
                labels=[0] * len(item.labels),
                label_names=("lesion",),
                patient=f"hash-{item.patient}",
            )
            for item in read_embedded(split, count=count, size=32, real=False)
        ]
        write_records(examples, folder, split, 1, label_names=("lesion",))
    return folder


class Stop(Exception):
    """Stands for the user's interrupt."""


def test_an_interrupted_run_ends_as_an_uninterrupted_one(records, tmp_path):
    def interrupt(step, figures):
        if step == 3:
            raise Stop

    whole = train([records], tmp_path / "whole", model=MODEL, config=CONFIG)
    with pytest.raises(Stop):
        train([records], tmp_path / "cut", model=MODEL, config=CONFIG, progress=interrupt)
    resumed = train([records], tmp_path / "cut", model=MODEL, config=CONFIG)
    assert resumed == whole
    digests = [
        read_manifest(tmp_path / run / "checkpoint.keras")["digest"] for run in ("whole", "cut")
    ]
    assert digests[0] == digests[1]

    # What a run leaves behind.
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert names >= {"checkpoint.keras", "config.json", "log.jsonl", "sheet.png", "tensorboard"}
    assert "curves.png" in names
    fingerprint = read_manifest(tmp_path / "whole" / "checkpoint.keras")["fingerprint"]
    assert fingerprint["images"] == 8
    assert all(patient.startswith("hash-") for patient in fingerprint["patients"])
    vae = load_checkpoint(tmp_path / "whole" / "checkpoint.keras")
    assert np.all(np.asarray(vae.aggregate_std) > 0)
    assert not np.all(np.asarray(vae.aggregate_mean) == 0)

    # A run that was stopped after its last step is finished, not trained again.
    shutil.copy(tmp_path / "whole" / "checkpoint.keras", tmp_path / "kept.keras")
    unfinished = load_checkpoint(tmp_path / "whole" / "checkpoint.keras")
    unfinished.aggregate_mean.assign(0.0 * unfinished.aggregate_mean)
    manifest = read_manifest(tmp_path / "whole" / "checkpoint.keras")
    save_checkpoint(
        unfinished,
        tmp_path / "whole" / "checkpoint.keras",
        training=manifest["training"],
        fingerprint=manifest["fingerprint"],
    )
    train([records], tmp_path / "whole", model=MODEL, config=CONFIG, progress=forbid)
    again = read_manifest(tmp_path / "whole" / "checkpoint.keras")["digest"]
    assert again == read_manifest(tmp_path / "kept.keras")["digest"]

    # Nor is one that was killed between its checkpoint and the copy of its figures.
    best = (tmp_path / "whole" / "best.json").read_text()
    assert json.loads(best) == whole
    (tmp_path / "whole" / "best.json").write_text("{")
    (tmp_path / "whole" / ".checkpoint.keras.0123abcd.tmp").mkdir()

    # A finished run is not trained again; other settings are refused.
    assert train([records], tmp_path / "whole", model=MODEL, config=CONFIG) == whole
    assert (tmp_path / "whole" / "best.json").read_text() == best
    assert not list((tmp_path / "whole").glob(".*"))
    other = dataclasses.replace(CONFIG, learning_rate=0.5)
    with pytest.raises(ValueError, match=r"learning_rate: 0\.001 before, 0\.5 now"):
        train([records], tmp_path / "whole", model=MODEL, config=other)


def forbid(step, figures):
    raise AssertionError(f"step {step} of a run that was done")


def test_patience_that_has_run_out_stays_so(records, tmp_path):
    config = dataclasses.replace(CONFIG, steps=40, validate_every=1, learning_rate=1e-9, patience=1)
    steps = []
    train([records], tmp_path, model=MODEL, config=config, progress=lambda s, f: steps.append(s))
    assert len(steps) < 40
    train([records], tmp_path, model=MODEL, config=config, progress=forbid)


def test_a_ladder_trains_on_restyled_images(records, tmp_path):
    model = dataclasses.replace(MODEL, profile="ladder", latent_dim=24)
    config = dataclasses.replace(
        CONFIG, steps=6, loss="sigma_each", ssim_weight=1.0, restyle=True, learning_rate=3e-3
    )
    figures = train([records], tmp_path, model=model, config=config)
    assert {"kl_0", "kl_1", "kl_2", "kl_3", "kl_4"} <= set(figures)
    assert figures["kl"] == pytest.approx(sum(figures[f"kl_{i}"] for i in range(5)), rel=1e-4)
    trained = load_checkpoint(tmp_path / "checkpoint.keras")
    assert all(np.any(level.posterior.kernel.numpy()) for level in trained.levels)


def test_a_ladder_goes_on_from_a_checkpoint_at_another_size(records, tmp_path):
    model = dataclasses.replace(MODEL, profile="ladder", latent_dim=24)
    first = dataclasses.replace(CONFIG, steps=2, frozen_stages=3)
    train([records], tmp_path / "first", model=model, config=first)
    begin = str(tmp_path / "first" / "checkpoint.keras")
    still = dataclasses.replace(first, start_from=begin, steps=1, learning_rate=1e-12, ema=0.0)
    larger = dataclasses.replace(model, image_size=64)
    train([records], tmp_path / "second", model=larger, config=still)
    before = load_checkpoint(begin)
    after = load_checkpoint(tmp_path / "second" / "checkpoint.keras")
    for old, new in zip(before.trainable_variables, after.trainable_variables, strict=True):
        np.testing.assert_allclose(new.numpy(), old.numpy(), atol=1e-3, err_msg=old.path)
    fingerprint = read_manifest(tmp_path / "second" / "checkpoint.keras")["fingerprint"]
    assert fingerprint["images"] == 8
    digest = read_manifest(begin)["digest"]
    manifest = read_manifest(tmp_path / "second" / "checkpoint.keras")
    assert fingerprint["start_from"] == manifest["training"]["config"]["start_from"] == digest
    assert str(tmp_path) not in json.dumps({**manifest, "path": ""})

    wider = dataclasses.replace(model, latent_dim=32)
    with pytest.raises(ValueError, match="latent_dim 24, not 32"):
        train([records], tmp_path / "third", model=wider, config=still)
    with pytest.raises(ValueError, match="starts from encoder_weights or from start_from"):
        dataclasses.replace(still, encoder_weights="package")


def test_the_loss_falls(records, tmp_path):
    config = dataclasses.replace(
        CONFIG, steps=40, validate_every=40, learning_rate=3e-3, clean_share=1.0, loss="paper"
    )
    losses = []
    train(
        [records],
        tmp_path / "run",
        model=MODEL,
        config=config,
        progress=lambda step, figures: losses.append(figures["loss"]),
    )
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [entry["kind"] for entry in log] == ["train"] * 4 + ["validation"]


def test_a_loss_that_is_not_finite_stops_the_run(records, tmp_path, monkeypatch):
    monkeypatch.setitem(
        train.__globals__["RECONSTRUCTIONS"], "paper", lambda mse, dim: mse[0] * float("nan")
    )
    config = dataclasses.replace(CONFIG, loss="paper")
    with pytest.raises(TrainingError, match="loss is nan at step 0"):
        train([records], tmp_path / "run", model=MODEL, config=config)


def test_missing_splits_are_named(records, tmp_path):
    only_train = tmp_path / "records"
    write_images(only_train, [("one", "")])
    with pytest.raises(RecordError, match="too few images to hold one back"):
        train([only_train], tmp_path / "run", model=MODEL, config=CONFIG)
    with pytest.raises(RecordError, match="has no split 'validation'"):
        train([records], tmp_path / "run1", model=MODEL, config=CONFIG, validation=[only_train])
    with pytest.raises(RecordError, match="nowhere"):
        train([tmp_path / "nowhere"], tmp_path / "run2", model=MODEL, config=CONFIG)


def write_images(folder, names):
    """Write a split train of images with the given (source id, patient)."""
    rng = np.random.default_rng(1)
    examples = [
        make_example(
            rng.integers(0, 256, (32, 32, 1)).astype(np.uint8),
            source_id=name,
            patient=patient,
            boxes=np.zeros((0, 4)),
            labels=[],
            label_names=("lesion",),
        )
        for name, patient in names
    ]
    write_records(examples, folder, "train", 1, label_names=("lesion",))


def test_without_a_validation_split_a_share_is_held_back_and_said_so(tmp_path):
    names = [(f"{patient}_{index}", f"p{patient}") for patient in range(10) for index in range(2)]
    write_images(tmp_path / "records", names)
    said = []
    config = dataclasses.replace(CONFIG, steps=2)
    out = tmp_path / "run"
    train([tmp_path / "records"], out, model=MODEL, config=config, report=said.append)
    (sentence,) = said
    assert sentence.startswith("No split 'validation': 2 of 20 images are held back")
    assert "those of 1 of 10 patients" in sentence
    fingerprint = read_manifest(out)["fingerprint"]
    assert fingerprint["images"] == 18 and len(fingerprint["patients"]) == 9


# --- What another run does, or a killed one left -----------------------------------------------


def test_a_second_run_into_the_same_folder_is_refused_at_once(tmp_path):
    with (
        lock_folder(tmp_path / "run"),
        pytest.raises(RecordError, match="run: another run writes to this folder"),
    ):
        train([tmp_path / "not even records"], tmp_path / "run", model=MODEL, config=CONFIG)
    assert not list((tmp_path / "run").iterdir())


def test_a_network_that_no_checkpoint_holds_is_refused_at_once(tmp_path):
    large = dataclasses.replace(MODEL, latent_dim=10**6)
    with pytest.raises(ValueError, match=r"latent_dim 1000000 .* a network has at most"):
        train([tmp_path], tmp_path / "run", model=large, config=CONFIG)
    assert not (tmp_path / "run").exists()


SETTINGS = {"model": MODEL.to_dict(), "train": CONFIG.to_dict(), "sources": ["records"]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 10**5,
        json.dumps({**SETTINGS, "model": None}).encode(),
        json.dumps({**SETTINGS, "sources": 1}).encode(),
        json.dumps({**SETTINGS, "train": {"loss": "l1"}}).encode(),
        json.dumps({**SETTINGS, "train": {"steps": "4"}}).encode(),
    ],
)
def test_damaged_settings_are_named(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(TrainingError, match=r"config\.json: does not hold .* delete this one"):
        train([tmp_path / "records"], tmp_path, model=MODEL, config=CONFIG)


def make_small_state():
    """Make the state of a network of one layer, with the best validation at 20 dB."""
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    optimizer = keras.optimizers.Adam()
    optimizer.build(layer.trainable_variables)
    averages = [tf.Variable(v.value) for v in layer.trainable_variables]
    vae = types.SimpleNamespace(weights=layer.weights)
    return _State(vae, optimizer, averages, tf.Variable(7), tf.Variable(20.0), tf.Variable(1))


@pytest.fixture
def stopped(short_vae, tmp_path):
    """The folder of a run that was stopped after step 7."""
    make_small_state().make_manager(tmp_path / "state").save(checkpoint_number=7)
    save_checkpoint(short_vae, tmp_path / "checkpoint.keras")
    return tmp_path


def restore(folder):
    state = make_small_state()
    state.step.assign(0)
    _restore(state, folder)
    return int(state.step)


def test_the_state_of_a_stopped_run_comes_back(stopped):
    assert restore(stopped) == 7
    shutil.rmtree(stopped / "state")
    (stopped / "checkpoint.keras").unlink()
    state = make_small_state()
    state.best.assign(-np.inf)
    _restore(state, stopped)  # begins anew


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
        restore(stopped)


def test_the_log_is_cut_to_the_state_that_a_run_goes_on_from(tmp_path):
    path = tmp_path / "log.jsonl"
    _cut_log(path, 3)
    assert not path.exists()
    lines = [b'{"kind": "train", "step": %d}\n' % step for step in (1, 2, 3, 4, 5)]
    path.write_bytes(b"".join(lines) + b'{"kind": "tra')
    _cut_log(path, 3)
    assert path.read_bytes() == b"".join(lines[:3])
    path.write_bytes(lines[0] + b"{\n" + lines[1])
    with pytest.raises(TrainingError, match=r"log\.jsonl, line 2: is damaged .* Delete this file"):
        _cut_log(path, 3)


def test_a_damaged_validation_split_is_not_passed_over(records, tmp_path):
    damaged = shutil.copytree(records, tmp_path / "damaged")
    (path,) = damaged.glob("validation-*")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(RecordError, match="validation-00000-of-00001"):
        train([damaged], tmp_path / "out", model=MODEL, config=CONFIG)
