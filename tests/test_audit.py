"""The audit against networks known to copy or not to."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import ndimage
from typer.testing import CliRunner

from vae_aug import cli
from vae_aug.cli import calls
from vae_aug.config import ModelConfig
from vae_aug.errors import RecordError
from vae_aug.evaluate import audit as module
from vae_aug.evaluate.audit import STATEMENT, audit_memorisation
from vae_aug.evaluate.neighbours import MEASURES
from vae_aug.evaluate.subset import Subset
from vae_aug.model.noise import NoiseSpec
from vae_aug.records.records import make_example, write_records

SIZE = 32
TRAINING, HELD_OUT, SAMPLES = 40, 30, 30


def make_textures(count, seed, sigma=1.5):
    """Independent smooth noise in [0, 1], `[count, SIZE, SIZE, 1] uint8`: no two are alike."""
    noise = np.random.default_rng(seed).normal(size=(count, SIZE, SIZE))
    smooth = ndimage.gaussian_filter(noise, (0, sigma, sigma))
    grey = np.clip(0.5 + 0.2 * smooth / smooth.std(), 0, 1)
    return np.rint(255 * grey).astype(np.uint8)[..., None]


def write_images(folder, split, images, patients=None):
    patients = patients or [f"patient{split}{index}" for index in range(len(images))]
    examples = [
        make_example(
            image,
            source_id=f"name{split}{index}",
            patient=patient,
            boxes=np.zeros((0, 4)),
            labels=[],
            label_names=("lesion",),
        )
        for index, (image, patient) in enumerate(zip(images, patients, strict=True))
    ]
    write_records(examples, folder, split, 1, label_names=("lesion",))
    return folder


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Textures, each of its own patient, in the splits train and validation."""
    folder = tmp_path_factory.mktemp("records")
    write_images(folder, "train", make_textures(TRAINING, 1))
    return write_images(folder, "validation", make_textures(HELD_OUT, 2))


class Number(NoiseSpec):
    """The number of a sample, in place of noise."""

    def sample(self, seed, *batch):
        return tf.cast(seed[1], tf.float32)


class Unfolded(NoiseSpec):
    """Noise that is sampled from the seed itself, by which these tests' images are chosen."""

    def sample(self, seed, *batch):
        return tf.random.stateless_normal(self.shape, seed)


class BankVAE:
    """Puts out the images of a bank, whatever it is asked for; encodes means of 4x4 pixels."""

    digest = "bank"

    def __init__(self, bank, profile="vector"):
        self.config = ModelConfig(image_size=SIZE, profile=profile)
        self.bank = tf.constant(bank, tf.float32)
        self.aggregate_mean = tf.zeros([8])
        self.aggregate_std = tf.ones([8])

    @staticmethod
    def list_noise(config, mode, height=None, width=None):
        return {"z": Unfolded(0, (8,)), "number": Number(1, ())}

    def encode(self, images):
        pooled = tf.nn.avg_pool2d(images, 4, 4, "VALID")
        flat = tf.reshape(pooled, [-1, (SIZE // 4) ** 2])
        return flat, tf.zeros_like(flat)

    def decode(self, z):
        chosen = tf.cast(tf.abs(z[:, 0]) * 1e5, tf.int32) % len(self.bank)
        return tf.repeat(tf.gather(self.bank, chosen), 3, axis=-1)

    def vary(self, images, noise, *, mode, factor, alone=False):
        assert factor == 1.0 and mode in ("sample", "interpolate") and alone
        return images, tf.gather(self.bank, tf.cast(noise["number"], tf.int32) % len(self.bank))


class FaithfulVAE(BankVAE):
    """A variant is the image itself, a little darker; only samples without one are of the bank."""

    def vary(self, images, noise, *, mode, factor, alone=False):
        return images, 0.99 * images


def to_bank(images):
    return images.astype(np.float32) / 255.0


def blur(bank, sigma):
    return ndimage.gaussian_filter(bank, (0, sigma, sigma, 0))


def run(records, bank, limit=None, **options):
    training = Subset(records, "train", limit)
    return audit_memorisation(BankVAE(bank), training, samples=SAMPLES, **options)


# --- Planted faults --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil",
    [
        lambda bank: bank,
        lambda bank: bank[:, :, ::-1],
        lambda bank: blur(bank, 2.0),
        lambda bank: bank + np.random.default_rng(0).normal(0, 0.03, bank.shape),
    ],
    ids=["verbatim", "mirrored", "smooth", "noisy"],
)
def test_copies_are_caught(records, spoil):
    audit = run(records, spoil(to_bank(make_textures(TRAINING, 1))))
    assert audit.signs is True
    assert audit.verdict.startswith("Signs of memorisation")
    for row in audit.comparisons:
        assert row.suspects == row.samples == SAMPLES
        assert row.share_low > row.expected_share
        assert row.median_ratio < 0.5 < row.held_out_median_ratio


def test_copies_of_another_brightness_are_caught_by_correlation(records):
    audit = run(records, 0.35 + 0.6 * to_bank(make_textures(TRAINING, 1)))
    assert audit.signs is True
    assert all(row.suspects == SAMPLES for row in audit.comparisons if row.measure == "correlation")


def test_one_copy_among_others_is_caught(records):
    bank = to_bank(make_textures(SAMPLES, 3))
    bank[11] = to_bank(make_textures(TRAINING, 1))[7]
    audit = run(records, bank)
    assert audit.signs is True
    worst = next(suspect for suspect in audit.suspects if suspect.way == "variants")
    assert (worst.sample, worst.source, worst.nearest, worst.mirrored) == (11, 11, 7, False)
    assert worst.relative == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("bank", "verdict", "strict", "status"),
    [
        (make_textures(TRAINING, 1), "Signs of", [], 0),
        (make_textures(TRAINING, 1), "Signs of", ["--strict"], 1),
        (make_textures(500, 3), "No sign of", ["--strict"], 0),
    ],
    ids=["training images", "training images, strict", "others, strict"],
)
def test_the_command_prints_the_verdict(tmp_path, monkeypatch, bank, verdict, strict, status):
    """Held-out images are those of the split that is named, in the folder that is named."""
    write_images(tmp_path / "records", "train", make_textures(TRAINING, 1))
    write_images(tmp_path / "others", "test", make_textures(HELD_OUT, 2))
    monkeypatch.setattr(calls, "load_checkpoint", lambda name: BankVAE(to_bank(bank)))
    folders = [tmp_path / "records", "--held-out", tmp_path / "others"]
    options = [*folders, "--split", "test", "--samples", SAMPLES, "--out", tmp_path]
    result = CliRunner().invoke(cli.app, ["evaluate", "audit", *strict, *map(str, options)])
    assert result.exit_code == status, result.stderr
    assert f"{verdict} memorisation" in result.stdout and STATEMENT in " ".join(
        result.stdout.split()
    )
    settings = json.loads((tmp_path / "audit.json").read_text())["settings"]
    assert (settings["held_out_split"], settings["held_out_images"]) == ("test", HELD_OUT)


@pytest.mark.parametrize("sigma", [0.0, 1.0, 3.0])
def test_images_of_others_are_not_taken_for_copies(records, sigma):
    audit = run(records, blur(to_bank(make_textures(500, 3)), sigma))
    assert audit.signs is False
    assert audit.verdict.startswith("No sign of memorisation")
    assert audit.notes[0] == STATEMENT
    for row in audit.comparisons:
        assert row.identical == 0 and row.p_value > 0.01
        assert row.median_distance == pytest.approx(row.held_out_median_distance, rel=0.1)
    for smoothing in audit.smoothing_px.values():
        assert smoothing == pytest.approx(sigma, abs=0.1)
    # The bank is put out around training images, too: nothing could have been found.
    assert "weak test" in audit.verdict


def test_faithful_variants_are_no_copies_and_those_of_training_images_prove_it(records):
    network = FaithfulVAE(to_bank(make_textures(500, 3)))
    audit = audit_memorisation(network, Subset(records, "train"), samples=SAMPLES)
    assert audit.signs is False and "weak test" not in audit.verdict
    assert [row.measure for row in audit.controls] == list(MEASURES)
    for row in audit.controls:
        assert row.way == "control" and row.suspects == row.samples == SAMPLES
    for row in audit.comparisons:
        assert row.identical == 0 and row.p_value > 0.01


def test_without_matched_smoothness_smooth_images_would_look_like_copies(records, monkeypatch):
    bank = blur(to_bank(make_textures(500, 3)), 3.0)
    monkeypatch.setattr(module, "match_smoothness", lambda images, samples: 0.0)
    rows = {(row.way, row.measure): row for row in run(records, bank).comparisons}
    assert rows["prior", "pixels"].suspects == SAMPLES


# --- The whole -------------------------------------------------------------------------------


def test_outputs_name_no_patient_and_no_image(records, tmp_path):
    audit = run(records, to_bank(make_textures(TRAINING, 1)), out=tmp_path / "out")
    text = (tmp_path / "out" / "audit.json").read_text()
    assert text == audit.to_json()
    assert "patienttrain" not in text and "name" not in text and str(records) not in text
    report = json.loads(text)
    assert report["signs"] is True and len(report["comparisons"]) == 6
    settings = report["settings"]
    assert settings["training_images"] == settings["training_patients"] == TRAINING
    assert settings["held_out_images"] == settings["held_out_patients"] == HELD_OUT
    assert settings["digest"] == "bank" and settings["quantile"] == 0.01
    assert any("too few for a quantile" in note for note in report["notes"])
    with Image.open(tmp_path / "out" / "audit.png") as sheet:
        # Of a variant: itself, what it was made of, and the nearest in three measures.
        assert sheet.width == 8 + 5 * 148 - 4 + 8
        assert sheet.height > len(audit.suspects) * 2 * 144
    headings, rows = audit.tabulate()
    assert len(rows) == 9 and all(len(row) == len(headings) for row in rows)
    assert rows[0][:3] == ("prior", "pixels", f"{SAMPLES} of {SAMPLES}")


def test_the_seed_repeats_and_progress_is_counted(records):
    bank = to_bank(make_textures(200, 3))
    steps = []
    first = run(records, bank, seed=5, progress=lambda done, total: steps.append((done, total)))
    assert run(records, bank, seed=5) == first
    assert run(records, bank, seed=6).comparisons[0] != first.comparisons[0]
    assert all(one[0] < other[0] for one, other in itertools.pairwise(steps))
    assert len({total for _, total in steps}) == 1 and steps[-1][0] == steps[-1][1]


def test_held_out_images_of_the_training_set_are_left_out(tmp_path):
    training, held_out = make_textures(6, 1), make_textures(5, 2)
    write_images(tmp_path, "train", training)
    held_out[1] = training[3]
    patients = ["a", "b", "c", "patienttrain4", ""]
    write_images(tmp_path, "validation", held_out, patients)
    subset = Subset(tmp_path, "train")
    audit = audit_memorisation(BankVAE(to_bank(training)), subset, samples=4)
    assert audit.settings["held_out_images"] == 3
    assert audit.settings["held_out_images_left_out"] == 2
    assert any("2 held-out images are in the training set" in note for note in audit.notes)
    assert {s.source for s in audit.suspects if s.way == "variants"} == {0, 2, 4}


def test_no_held_out_image_left_is_an_error(tmp_path):
    write_images(tmp_path, "train", make_textures(4, 1))
    subset = Subset(tmp_path, "train")
    with pytest.raises(RecordError, match="got 0 of 4"):
        audit_memorisation(BankVAE(np.zeros((1, 32, 32, 1))), subset, subset)


def test_unknown_patients_are_noted(tmp_path):
    write_images(tmp_path, "train", make_textures(4, 1), [""] * 4)
    write_images(tmp_path, "validation", make_textures(3, 2), [""] * 3)
    network = BankVAE(to_bank(make_textures(9, 3)))
    audit = audit_memorisation(network, Subset(tmp_path, "train"), samples=3)
    assert any("name no patients" in note for note in audit.notes)
    assert audit.signs is None


def test_several_folders_are_one_training_set(records, tmp_path):
    more = make_textures(3, 9)
    write_images(tmp_path / "more", "train", more, ["x", "y", "z"])
    audit = run([records, tmp_path / "more"], to_bank(more))
    assert audit.settings["training_images"] == TRAINING + 3
    assert audit.settings["held_out_images"] == HELD_OUT
    assert {suspect.nearest for suspect in audit.suspects} <= set(range(TRAINING, TRAINING + 3))
    training, held_out = Subset(tmp_path / "more", "train"), Subset(records, "train")
    apart = audit_memorisation(BankVAE(to_bank(more)), training, held_out, samples=4)
    assert apart.settings["held_out_images"] == TRAINING


def test_a_limit_takes_images_evenly_and_says_so(records):
    audit = run(records, to_bank(make_textures(TRAINING, 1)), limit=10)
    assert audit.settings["training_images"] == audit.settings["held_out_images"] == 10
    assert {s.nearest for s in audit.suspects} <= set(range(0, TRAINING, 4))
    assert {s.source for s in audit.suspects} <= {None, *range(0, HELD_OUT, 3)}
    assert any(note.startswith("At most 10 images of each set") for note in audit.notes)


def test_the_sets_may_have_limits_of_their_own(records):
    audit = run(records, to_bank(make_textures(TRAINING, 1)), 10, held_out=Subset(records, limit=5))
    assert (audit.settings["training_images"], audit.settings["limit"]) == (10, 10)
    assert (audit.settings["held_out_images"], audit.settings["held_out_limit"]) == (5, 5)
    assert any(note.startswith("At most 10 training images were") for note in audit.notes)


def test_a_collapsed_encoder_is_told(records):
    network = BankVAE(to_bank(make_textures(200, 3)))
    network.encode = lambda images: (tf.zeros([tf.shape(images)[0], 4]),) * 2
    audit = audit_memorisation(network, Subset(records, "train"), samples=4)
    assert {row.measure for row in audit.comparisons} == {"pixels", "correlation"}
    assert any("tells no two training images apart" in note for note in audit.notes)


def test_the_published_network_is_audited(records, short_vae, tmp_path):
    subset = Subset(records, "train", 6)
    audit = audit_memorisation(short_vae, subset, samples=5, out=tmp_path)
    assert {row.way for row in audit.comparisons} == {"prior", "variants"}
    assert len(audit.comparisons) == 6
    assert (tmp_path / "audit.png").exists()


def test_a_ladder_samples_around_images_alone(records, tiny_ladder):
    audit = audit_memorisation(tiny_ladder, Subset(records, "train", 6), samples=5)
    assert {row.way for row in audit.comparisons} == {"variants", "interpolated"}
    assert all(suspect.source is not None for suspect in audit.suspects)
    assert any("makes nothing without an image" in note for note in audit.notes)


def test_bad_arguments_are_named(records, tmp_path):
    network = BankVAE(np.zeros((1, SIZE, SIZE, 1)))
    for options, message in (
        ({"samples": 0}, "samples must be in"),
        ({"quantile": 0.0}, "quantile must be in"),
        ({"quantile": 0.6}, "quantile must be in"),
        ({"seed": -1}, "seed must be in"),
        ({"held_out": Subset(records, limit=1)}, r"limit must be in \[2"),
    ):
        with pytest.raises(ValueError, match=message):
            audit_memorisation(network, Subset(records, "train"), **options)
    with pytest.raises(ValueError, match=r"limit must be in \[2"):
        audit_memorisation(network, Subset(records, "train", 1))
    with pytest.raises(RecordError, match="no split 'test'"):
        audit_memorisation(network, Subset(records, "train"), Subset(records, "test"))
    write_images(tmp_path, "train", make_textures(1, 1))
    with pytest.raises(RecordError, match="no split 'validation'; pass records of held-out"):
        audit_memorisation(network, Subset(tmp_path, "train"))
    with pytest.raises(RecordError, match="'train': an audit needs at least 2 images; got 1"):
        audit_memorisation(network, Subset(tmp_path, "train"), Subset(records))
