"""An augmented record says how it was made, and is made again from its source."""

from __future__ import annotations

import hashlib
import json

import pytest
import tensorflow as tf
from test_augment_records import LABELS, SIZES, make_image
from typer.testing import CliRunner

from vae_aug.augment.transform import VAEAugment
from vae_aug.cli import app
from vae_aug.errors import CheckpointError, RecordError
from vae_aug.extras.augment_records import augment_records, summarize_records
from vae_aug.extras.replay import read_provenance, replay_record, restore_transform
from vae_aug.model.checkpoint import save_checkpoint
from vae_aug.records.records import find_records, iterate_examples, make_example, write_records

RUN = CliRunner()


@pytest.fixture(scope="module")
def folders(tmp_path_factory, checkpoint):
    """Source and augmented records; two of the source have one id."""
    examples = [
        make_example(
            make_image(*size),
            source_id="the same" if index < 2 else f"slice {index}",
            boxes=[[0.1, 0.2, 0.6, 0.7]],
            labels=[0],
            label_names=LABELS,
        )
        for index, size in enumerate(SIZES["train"])
    ]
    tmp_path = tmp_path_factory.mktemp("records")
    write_records(examples, tmp_path / "source", "train", label_names=LABELS)
    augment = VAEAugment(str(checkpoint), seed=3, factor=0.3, detail=0.3, p=0.7, min_fidelity=0.1)
    augment_records(tmp_path / "source", tmp_path / "out", augment)
    return tmp_path / "source", find_records(tmp_path / "out", "train")[0][0]


def test_every_record_is_made_again(folders, checkpoint):
    source, file = folders
    for index in range(3):
        replay = replay_record(file, index, source, checkpoint)
        assert replay.identical and replay.format == "png"
    augmented = [read_provenance(file, index)["augmented"] for index in range(3)]
    assert set(augmented) == {0, 1}  # p=0.7 left one alone


def test_settings_that_are_seldom_used_are_told_and_replayed(folders, checkpoint, tmp_path):
    source, _ = folders
    summaries = []
    for adaptive in (True, False):
        augment = VAEAugment(str(checkpoint), mode="denoise", adaptive=adaptive, seed=3)
        augment_records(source, tmp_path / str(adaptive), augment)
        files = find_records(tmp_path / str(adaptive), "train")[0]
        told = json.loads(read_provenance(files[0], 2)["settings"])
        assert told.get("adaptive", False) == adaptive and "hardest_of" not in told
        assert replay_record(files[0], 2, source, checkpoint).identical
        summaries += summarize_records(files).settings
    assert "adaptive True" in summaries[0] and "adaptive" not in summaries[1]


def test_a_source_that_was_changed_is_noticed(folders, checkpoint, tmp_path):
    _, file = folders
    changed = make_example(
        make_image(17, 31) + 1, source_id="slice 2", boxes=[], labels=[], label_names=LABELS
    )
    write_records([changed], tmp_path / "changed", "train", label_names=LABELS)
    assert not replay_record(file, 2, tmp_path / "changed", checkpoint).identical


def tamper(file, key, value, path):
    """Write the records of a file with a feature of text of the last one replaced."""
    examples = [example for _, example in iterate_examples(file)]
    examples[-1].features.feature[key].bytes_list.value[:] = [value]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            writer.write(example.SerializeToString())
    return path


def test_a_record_that_was_tampered_with_is_noticed(folders, checkpoint, tmp_path):
    source, file = folders
    *_, (_, example) = iterate_examples(file)
    stored, settings = (
        example.features.feature[key].bytes_list.value[0]
        for key in ("image/encoded", "augment/settings")
    )
    other = {**json.loads(settings), "p": 1.0, "seed": 4, "factor": 3.0}
    for key, value in (
        ("image/encoded", stored[:-20] + b"x" + stored[-19:]),
        ("augment/settings", json.dumps(other).encode()),
    ):
        changed = tamper(file, key, value, tmp_path / "changed.tfrecord")
        assert not replay_record(changed, 2, source, checkpoint).identical
    changed = tamper(file, "augment/settings", b"{}", tmp_path / "changed.tfrecord")
    with pytest.raises(RecordError, match=r"record 2: augment/settings must be the JSON of"):
        replay_record(changed, 2, source, checkpoint)


@pytest.mark.parametrize("settings", ["", "{", "[]", "null", '{"mode": "sample"}'])
def test_settings_that_are_none_are_refused(settings):
    with pytest.raises(RecordError, match=r"must be the JSON of mode, .*untouched"):
        restore_transform(settings, "digest")


def test_what_cannot_be_replayed_says_why(folders, checkpoint, tiny_ladder, tmp_path):
    source, file = folders
    save_checkpoint(tiny_ladder, tmp_path / "other.keras")
    with pytest.raises(CheckpointError, match=r"record 0: made with the checkpoint .*--ckpt"):
        replay_record(file, 0, source, tmp_path / "other.keras")
    with pytest.raises(RecordError, match="no record 3; it has 3"):
        replay_record(file, 3, source, checkpoint)
    with pytest.raises(RecordError, match="record 0: was not augmented"):
        replay_record(find_records(source, "train")[0][0], 0, source, checkpoint)
    other = make_example(make_image(9, 9), source_id="x", boxes=[], labels=[], label_names=LABELS)
    write_records([other], tmp_path / "other", "train", label_names=LABELS)
    with pytest.raises(RecordError, match="no record with the source id of record 0"):
        replay_record(file, 0, tmp_path / "other", checkpoint)


def test_commands(folders, checkpoint, tmp_path):
    source, file = folders
    told = RUN.invoke(app, ["info", str(file), "--record", "1"])
    assert told.exit_code == 0 and "min_fidelity" in told.stdout and "fidelity" in told.stdout
    assert "contrast" in told.stdout
    image = tmp_path / "again.png"
    options = ["--source", str(source), "--ckpt", str(checkpoint), "--out", str(image)]
    result = RUN.invoke(app, ["replay", str(file), "--record", "0", *options])
    assert result.exit_code == 0 and "the same" in result.stdout
    _, example = next(iterate_examples(file))
    recorded = example.features.feature["image/key/sha256"].bytes_list.value[0].decode()
    assert hashlib.sha256(image.read_bytes()).hexdigest() == recorded
    *_, (_, last) = iterate_examples(file)
    stored = last.features.feature["image/encoded"].bytes_list.value[0]
    changed = tamper(file, "image/encoded", stored[:-1] + b"x", tmp_path / "changed.tfrecord")
    result = RUN.invoke(app, ["replay", str(changed), "--record", "2", *options])
    assert result.exit_code == 1 and "record 2 of" in result.stderr
    assert "is not what the source" in " ".join(result.stderr.split())
