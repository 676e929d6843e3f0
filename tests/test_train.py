"""Training: it learns, and an interrupted run ends as an uninterrupted one."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import shorten_stages, write_phantoms

from vae_aug.atomic import lock_folder
from vae_aug.config import ModelConfig, TrainConfig, VariationConfig
from vae_aug.errors import RecordError
from vae_aug.model.checkpoint import load_checkpoint, read_manifest, save_checkpoint
from vae_aug.records.records import make_example, write_records
from vae_aug.train import train as train_module
from vae_aug.train.objective import compute_loss
from vae_aug.train.recipe import Recipe
from vae_aug.train.run_files import TrainingError, read_start
from vae_aug.train.train import train

pytestmark = pytest.mark.usefixtures("short_stages")

MODEL = ModelConfig(encoder="efficientnet-lite1", image_size=32, latent_dim=16)
CONFIG = TrainConfig(batch_size=4, steps=4, validate_every=2, validation_images=4, seed=3)
LONG = dataclasses.replace(CONFIG, steps=40, validate_every=20, learning_rate=3e-3, loss="paper")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Eight small phantoms to train on and four to validate on."""
    return write_phantoms(tmp_path_factory.mktemp("records"), train=8, validation=4)


@dataclasses.dataclass
class Whole:
    """A run that nothing interrupted: its folder, figures, and what it told whoever watched.

    `killed` is its folder as it was after step 23, when the last state was that of step 20.
    """

    folder: Path
    killed: Path
    best: dict[str, float]
    steps: list[dict[str, float]]
    said: list[str]


@pytest.fixture(scope="module")
def whole(records, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    folder, killed = runs / "whole", runs / "killed"
    steps, said = [], []

    def watch(step, figures):
        steps.append(figures)
        if step == 23:
            shutil.copytree(folder, killed)

    with pytest.MonkeyPatch.context() as patch:
        shorten_stages(patch)
        best = train(
            [records],
            folder,
            Recipe(MODEL, LONG),
            progress=watch,
            report=said.append,
        )
    return Whole(folder, killed, best, steps, said)


def read_log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_loss_falls(whole):
    losses = [figures["loss"] for figures in whole.steps]
    assert len(losses) == 40 and np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    kinds = [(entry["kind"], entry["step"]) for entry in read_log(whole.folder)]
    half = [("train", 10), ("train", 20), ("validation", 20)]
    assert kinds == [("validation", 0), *half, *((kind, step + 20) for kind, step in half)]


def test_a_run_says_what_it_does_and_how_it_stands(whole):
    assert [line.partition(":")[0] for line in whole.said] == [
        *("network", "noise", "images", "plan", "start", "time"),
    ]
    said = dict(line.split(": ", 1) for line in whole.said)
    assert said["network"].startswith("vector on efficientnet-lite1, squares of 32 px; begins with")
    assert said["images"] == "8 to train on, 4 to validate on"
    assert said["plan"].startswith("40 steps of 4 images, 20 times through the images; a validat")
    assert re.search(r"^\d+ s until \d\d:\d\d; a step takes [\d.e-]+ s", said["time"])

    start, first, second = (e for e in read_log(whole.folder) if e["kind"] == "validation")
    assert f"SSIM {start['ssim_noisy']:.3f}" in said["start"]
    assert np.mean(read_start(whole.folder).images["psnr"]) == pytest.approx(
        start["psnr"], rel=1e-5
    )
    for steps, last in (whole.steps[:20], start), (whole.steps[20:], first):
        for figures in steps:
            assert figures["start_ssim"] == pytest.approx(start["ssim_noisy"], rel=1e-5)
            assert figures["last_ssim"] == pytest.approx(last["ssim_noisy"], rel=1e-5)
    assert second["ssim_noisy"] > start["ssim_noisy"]
    left = [figures["seconds_left"] for figures in whole.steps]
    # Two steps are not counted.
    assert np.isnan(left[:2]).all() and np.isfinite(left[2:]).all()
    assert 0 == left[-1] < left[2]


@pytest.mark.slow
def test_an_interrupted_run_ends_as_an_uninterrupted_one(records, whole, tmp_path):
    said = []
    out = shutil.copytree(whole.killed, tmp_path / "cut")
    assert read_log(out)[-1] == {**read_log(out)[-1], "kind": "validation", "step": 20}
    start = (out / "start.json").read_bytes()
    resumed = train([records], out, Recipe(MODEL, LONG), report=said.append)
    assert resumed == whole.best
    digests = [read_manifest(run / "checkpoint.keras")["digest"] for run in (whole.folder, out)]
    assert digests[0] == digests[1]

    # What the training started from is not forgotten, and the run says where it stood.
    assert (out / "start.json").read_bytes() == start == (whole.folder / "start.json").read_bytes()
    lines = [line.partition(":")[0] for line in said]
    assert lines == ["network", "noise", "images", "plan", "start", "run", "time"]
    assert said[4] == whole.said[4]
    assert said[5].startswith("run: goes on after step 20 of 40; its best, of step 20, restores to")
    assert [e["step"] for e in read_log(out)] == [e["step"] for e in read_log(whole.folder)]


def test_a_run_leaves_what_it_made(whole):
    names = {path.name for path in whole.folder.iterdir()}
    assert names >= {"checkpoint.keras", "config.json", "log.jsonl", "sheet.png", "tensorboard"}
    logs = {path.name for path in (whole.folder / "tensorboard").iterdir()}
    assert logs >= {"projector_config.pbtxt", "latents.tsv", "latents_rows.tsv", "latents.png"}
    assert "curves.png" in names
    fingerprint = read_manifest(whole.folder / "checkpoint.keras")["fingerprint"]
    assert fingerprint["images"] == 8
    assert all(patient.startswith("hash-") for patient in fingerprint["patients"])
    vae = load_checkpoint(whole.folder / "checkpoint.keras")
    assert np.all(np.asarray(vae.aggregate_std) > 0)
    assert not np.all(np.asarray(vae.aggregate_mean) == 0)


def test_a_run_that_was_killed_after_its_last_step_is_finished(records, whole, tmp_path):
    out = shutil.copytree(whole.folder, tmp_path / "run")
    # Killed before the statistics of its latents were written ...
    unfinished = load_checkpoint(out / "checkpoint.keras")
    unfinished.aggregate_mean.assign(0.0 * unfinished.aggregate_mean)
    manifest = read_manifest(out / "checkpoint.keras")
    save_checkpoint(
        unfinished,
        out / "checkpoint.keras",
        training=manifest["training"],
        fingerprint=manifest["fingerprint"],
    )
    # ... and another between its checkpoint and the copy of its figures.
    best = (out / "best.json").read_text()
    assert json.loads(best) == whole.best
    (out / "best.json").write_text("{")
    (out / ".checkpoint.keras.0123abcd.tmp").mkdir()

    said = []
    again = train([records], out, Recipe(MODEL, LONG), progress=forbid, report=said.append)
    assert again == whole.best
    digests = [read_manifest(run / "checkpoint.keras")["digest"] for run in (whole.folder, out)]
    assert digests[0] == digests[1]
    assert (out / "best.json").read_text() == best
    assert not list(out.glob(".*"))
    assert said[-1].startswith("run: is done after step 40 of 40; its best, of step")
    other = dataclasses.replace(LONG, learning_rate=0.5)
    with pytest.raises(ValueError, match=r"learning_rate: 0\.003 before, 0\.5 now"):
        train([records], out, Recipe(MODEL, other))


def forbid(step, figures):
    raise AssertionError(f"step {step} of a run that was done")


LADDER = dataclasses.replace(MODEL, profile="ladder", latent_dim=24)


@pytest.fixture(scope="module")
def ladder_run(records, tmp_path_factory):
    """The folder and figures of a ladder's training, of whose encoder three stages are frozen."""
    folder = tmp_path_factory.mktemp("ladder")
    config = dataclasses.replace(
        CONFIG,
        steps=6,
        frozen_stages=3,
        loss="sigma_each",
        ssim_weight=1.0,
        restyle=True,
        learning_rate=3e-3,
    )
    with pytest.MonkeyPatch.context() as patch:
        shorten_stages(patch)
        return folder, train([records], folder, Recipe(LADDER, config))


def test_a_ladder_trains_on_restyled_images(ladder_run):
    folder, figures = ladder_run
    assert {"kl_0", "kl_1", "kl_2", "kl_3", "kl_4"} <= set(figures)
    assert figures["kl"] == pytest.approx(sum(figures[f"kl_{i}"] for i in range(5)), rel=1e-4)
    trained = load_checkpoint(folder / "checkpoint.keras")
    assert all(np.any(level.posterior.kernel.numpy()) for level in trained.levels)


@pytest.mark.slow
def test_a_ladder_goes_on_from_a_checkpoint_at_another_size(records, ladder_run, tmp_path, still):
    begin = str(ladder_run[0] / "checkpoint.keras")
    config = dataclasses.replace(CONFIG, start_from=begin, steps=1, ema=0.0)
    larger = dataclasses.replace(LADDER, image_size=64)
    said = []
    train([records], tmp_path / "second", Recipe(larger, config), report=said.append)
    assert said[0].endswith(f"squares of 64 px; begins with the weights of {begin!r}")
    before = load_checkpoint(begin)
    after = load_checkpoint(tmp_path / "second" / "checkpoint.keras")
    for old, new in zip(before.weights, after.weights, strict=True):
        if "aggregate" not in old.path:
            np.testing.assert_allclose(new.numpy(), old.numpy(), atol=1e-3, err_msg=old.path)
    fingerprint = read_manifest(tmp_path / "second" / "checkpoint.keras")["fingerprint"]
    assert fingerprint["images"] == 8
    digest = read_manifest(begin)["digest"]
    manifest = read_manifest(tmp_path / "second" / "checkpoint.keras")
    assert fingerprint["start_from"] == manifest["training"]["config"]["start_from"] == digest
    assert str(ladder_run[0]) not in json.dumps({**manifest, "path": ""})

    wider = dataclasses.replace(LADDER, latent_dim=32)
    with pytest.raises(ValueError, match="latent_dim 24, not 32"):
        train([records], tmp_path / "third", Recipe(wider, config))
    with pytest.raises(ValueError, match="starts from encoder_weights or from start_from"):
        dataclasses.replace(config, encoder_weights="package")


def test_a_loss_that_is_not_finite_stops_the_run(records, tmp_path, monkeypatch):
    monkeypatch.setitem(
        compute_loss.__globals__["RECONSTRUCTIONS"], "paper", lambda mse, dim: mse[0] * np.nan
    )
    draw = types.SimpleNamespace(reconstruction=tf.zeros([1, 32, 32, 3]), coarse=None, kls=[])
    config = dataclasses.replace(CONFIG, loss="paper")
    ones = tf.ones([1, 32, 32, 1])
    loss = compute_loss(draw, ones, ones, tf.constant(0), config)
    assert np.isnan(loss)
    monkeypatch.setattr(
        train_module, "make_train_step", lambda state, config: lambda *batch: {"loss": loss}
    )
    with pytest.raises(TrainingError, match="loss is nan at step 0"):
        train([records], tmp_path / "run", Recipe(MODEL, config))


def test_missing_splits_are_named(records, tmp_path):
    only_train = tmp_path / "records"
    write_images(only_train, [("one", "")])
    with pytest.raises(RecordError, match="too few images to hold one back"):
        train([only_train], tmp_path / "run", Recipe(MODEL, CONFIG))
    with pytest.raises(RecordError, match="has no split 'validation'"):
        train([records], tmp_path / "run1", Recipe(MODEL, CONFIG), validation=[only_train])
    with pytest.raises(RecordError, match="nowhere"):
        train([tmp_path / "nowhere"], tmp_path / "run2", Recipe(MODEL, CONFIG))


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


PATIENT = dataclasses.replace(CONFIG, steps=40, validate_every=1, patience=1)


@pytest.mark.slow
def test_a_share_is_held_back_and_patience_that_has_run_out_stays_so(tmp_path, still):
    names = [(f"{patient}_{index}", f"p{patient}") for patient in range(10) for index in range(2)]
    write_images(tmp_path / "records", names)
    said, steps = [], []
    train(
        [tmp_path / "records"],
        tmp_path / "run",
        Recipe(MODEL, PATIENT),
        progress=lambda step, figures: steps.append(step),
        report=said.append,
    )
    assert said[0].startswith("No split 'validation': 2 of 20 images are held back")
    assert "those of 1 of 10 patients" in said[0]
    fingerprint = read_manifest(tmp_path / "run")["fingerprint"]
    assert fingerprint["images"] == 18 and len(fingerprint["patients"]) == 9

    # Steps that change nothing bring nothing after the first validation.
    assert steps == [1, 2]
    train([tmp_path / "records"], tmp_path / "run", Recipe(MODEL, PATIENT), progress=forbid)


# --- What another run does, or a killed one left -----------------------------------------------


def test_a_second_run_into_the_same_folder_is_refused_at_once(tmp_path):
    with (
        lock_folder(tmp_path / "run"),
        pytest.raises(RecordError, match="run: another run writes to this folder"),
    ):
        train([tmp_path / "not even records"], tmp_path / "run", Recipe(MODEL, CONFIG))
    assert not list((tmp_path / "run").iterdir())


def test_a_network_that_no_checkpoint_holds_is_refused_at_once(tmp_path):
    large = dataclasses.replace(MODEL, latent_dim=10**6)
    with pytest.raises(ValueError, match=r"latent_dim 1000000 .* a network has at most"):
        train([tmp_path], tmp_path / "run", Recipe(large, CONFIG))
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def varied_run(records, ladder_run, tmp_path_factory):
    """The folder of a run that gave the ladder a variation and left the rest, and what it said."""
    folder, said = tmp_path_factory.mktemp("varied"), []
    with pytest.MonkeyPatch.context() as patch:
        shorten_stages(patch)
        train([records], folder, vary(ladder_run[0], only="variation"), report=said.append)
    return folder, said


def vary(start, **given):
    """Make a recipe that goes on from a run, with a variation of two steps."""
    config = dataclasses.replace(CONFIG, start_from=str(start / "checkpoint.keras"), steps=2)
    model = dataclasses.replace(LADDER, variation=True)
    pairs = VariationConfig(steps=2, batch_size=2)
    return Recipe(model, config, pairs, **given)


def split_weights(folder):
    """Return the weights of a checkpoint by path: those of its variation, and the others."""
    weights = {weight.path: weight.numpy() for weight in load_checkpoint(folder).weights}
    varied = {path for path in weights if "variation" in path}
    return [
        {path: w for path, w in weights.items() if (path in varied) == own} for own in (True, False)
    ]


def test_the_variation_alone_is_trained_and_leaves_the_rest(ladder_run, varied_run, short_stages):
    folder, said = varied_run
    assert said[-2].startswith("variation: 2 steps of 2 pairs, from 8 images of ")
    assert said[-1].startswith("variation: trained; samples are applied ")
    before, after = (
        read_manifest(run / "checkpoint.keras") for run in (ladder_run[0], varied_run[0])
    )
    assert after["model"] == {**before["model"], "variation": True}
    learned = after["training"].pop("variation")
    assert learned["images"] == 8 and 0.25 <= learned["strength"] <= 2.0
    assert after["training"] == before["training"]
    assert after["fingerprint"]["start_from"] == before["digest"]
    assert set(before["fingerprint"]["patients"]) <= set(after["fingerprint"]["patients"])
    own, rest = split_weights(folder / "checkpoint.keras")
    none, kept = split_weights(ladder_run[0] / "checkpoint.keras")
    assert own and not none
    for path, weight in kept.items():
        np.testing.assert_array_equal(rest[path], weight, err_msg=path)


@pytest.mark.slow
def test_both_parts_are_trained_or_the_restoration_alone(records, varied_run, tmp_path, still):
    told = []
    for name, only in (("both", None), ("alone", "restoration")):
        train(
            [records],
            tmp_path / name,
            vary(varied_run[0], only=only),
            variation_progress=lambda step, figures: told.append(step),
        )
    assert told == [1, 2]
    before, both, alone = (
        split_weights(folder / "checkpoint.keras")[0]
        for folder in (varied_run[0], tmp_path / "both", tmp_path / "alone")
    )
    assert all(np.array_equal(alone[path], weight) for path, weight in before.items())
    assert any(not np.array_equal(both[path], weight) for path, weight in before.items())
    old, new = (
        read_manifest(folder / "checkpoint.keras")["training"]["variation"]
        for folder in (varied_run[0], tmp_path / "alone")
    )
    assert old == new


@pytest.mark.slow
def test_from_one_patient_the_restoration_alone_is_trained(ladder_run, tmp_path, still):
    one = write_phantoms(tmp_path / "one", train=1, validation=1)
    said = []
    train([one], tmp_path / "run", vary(ladder_run[0]), report=said.append)
    assert said[0].startswith("variation: is left out; all images are of one patient")
    assert not read_manifest(tmp_path / "run" / "checkpoint.keras")["model"].get("variation")
    with pytest.raises(ValueError, match=r"all images are of one.*--only restoration"):
        train([one], tmp_path / "alone", vary(ladder_run[0], only="variation"))


def test_another_part_in_the_same_folder_is_refused(records, ladder_run, varied_run):
    with pytest.raises(ValueError, match="only: variation before, None now"):
        train([records], varied_run[0], vary(ladder_run[0]))


def test_a_damaged_validation_split_is_not_passed_over(records, tmp_path):
    damaged = shutil.copytree(records, tmp_path / "damaged")
    (path,) = damaged.glob("validation-*")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(RecordError, match="validation-00000-of-00001"):
        train([damaged], tmp_path / "out", Recipe(MODEL, CONFIG))
