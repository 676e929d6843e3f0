"""Records are the same however the work is parted."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from fake_vae import BrighteningVAE
from test_ingest import read_files
from typer.testing import CliRunner

from vae_aug.augment.transform import VAEAugment
from vae_aug.cli import app, calls
from vae_aug.errors import RecordError
from vae_aug.extras import augment_split
from vae_aug.extras.augment_records import augment_records
from vae_aug.records.records import READ_AT_ONCE, make_example, read_in_turn, write_records

LABELS = ("lesion",)


def write_data(folder, count, shards):
    """Images of several sizes, every third without a box, in two splits."""
    rng = np.random.default_rng(0)
    for split in ("train", "validation"):
        examples = [
            make_example(
                rng.integers(0, 256, (24 + index % 3, 32, 1), np.uint8),
                source_id=f"{split}-{index}",
                boxes=[[0.2, 0.1, 0.7, 0.9]][: index % 3],
                labels=[0][: index % 3],
                label_names=LABELS,
            )
            for index in range(count)
        ]
        write_records(examples, folder, split, shards, label_names=LABELS)
    return folder


def make_transform():
    return VAEAugment("demo", seed=3, factor=0.5, batch_size=4)


@pytest.mark.parametrize(
    ("count", "shards", "how"),
    [
        (11, 3, {"workers": 2}),
        # More parts than records.
        pytest.param(5, 1, {"workers": 2, "shards": 2}, marks=pytest.mark.slow),
        pytest.param(11, 3, {"runner": "FnApiRunner"}, marks=pytest.mark.slow),
        pytest.param(
            11,
            2,
            {
                "runner": "DirectRunner",
                "runner_options": {
                    "direct_num_workers": "2",
                    "direct_running_mode": "multi_processing",
                },
            },
            marks=pytest.mark.slow,
        ),
    ],
)
def test_workers_and_runners_write_what_one_process_writes(tmp_path, count, shards, how):
    if "runner" in how:
        beam = pytest.importorskip("apache_beam", reason="install vae-aug[beam]")
        # Otherwise DirectRunner would ask GitHub for a program that runs pipelines.
        offline = {"update_compatibility_version": beam.__version__}
        how = {**how, "runner_options": how.get("runner_options", {}) | offline}
    source = write_data(tmp_path / "in", count, shards)
    augment = make_transform()
    expected = augment_records(source, tmp_path / "one", augment, shards=how.get("shards"))
    told = []
    report = augment_records(
        source, tmp_path / "many", augment, progress=lambda *counts: told.append(counts), **how
    )
    assert read_files(tmp_path / "many") == read_files(tmp_path / "one")
    assert read_files(tmp_path / "many") != read_files(source)
    assert {"card.md", "croissant.json"} <= set(read_files(tmp_path / "many"))
    assert report == expected and expected.augmented["train"].augmented == count
    assert told == sorted(told) and told[-1] == (count, count)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "many", "one"]


def test_a_record_that_was_augmented_before_is_named_by_its_file(tmp_path):
    augment = make_transform()
    augment_records(write_data(tmp_path / "in", 4, 2), tmp_path / "once", augment)
    with pytest.raises(RecordError, match=r"once/train-0000\d-of-00002\.tfrecord, record 0 was"):
        augment_records(tmp_path / "once", tmp_path / "twice", augment, workers=2)
    assert not (tmp_path / "twice").exists()


def test_what_workers_cannot_do_is_refused_before_anything_is_written(tmp_path):
    source, out = write_data(tmp_path / "in", 2, 1), tmp_path / "out"
    with pytest.raises(TypeError, match="was made of a network cannot be pickled"):
        augment_records(source, out, VAEAugment(BrighteningVAE(), seed=0), workers=2)
    with pytest.raises(ValueError, match="allow_damaged needs workers=1 and no runner"):
        augment_records(source, out, make_transform(), workers=2, allow_damaged=True)
    with pytest.raises(ValueError, match="a runner has workers of its own"):
        augment_records(source, out, make_transform(), workers=2, runner="FnApiRunner")
    with pytest.raises(ValueError, match="device='/CPU:0' needs workers=1"):
        augment_records(source, out, VAEAugment("demo", seed=0, device="/CPU:0"), workers=2)
    assert not out.exists()


def test_parts_of_a_shard_are_as_many_as_can_be_read_in_turn(tmp_path, monkeypatch):
    asked = []

    def note(function, tasks, workers):
        asked.extend(tasks)
        raise RecordError("stop here")

    monkeypatch.setattr(augment_split, "run_tasks", note)
    source = write_data(tmp_path / "in", 2, 1)
    with pytest.raises(RecordError, match="stop here"):
        augment_records(source, tmp_path / "out", make_transform(), workers=40)
    assert len(asked) == READ_AT_ONCE


def test_the_command_takes_workers(tmp_path, monkeypatch):
    asked = {}

    def note(*_, **settings):
        asked.update(settings)
        raise RecordError("stop here")

    monkeypatch.setattr(calls, "augment_records", note)
    source = write_data(tmp_path / "in", 3, 1)
    command = ["augment", str(source), str(tmp_path / "out"), "--ckpt", "demo", "--workers", "2"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1 and "stop here" in result.output
    assert asked["workers"] == 2


def test_sources_are_read_in_turn():
    sources = [[0, 3], [10, 2], [20, 0], [30, 1]]

    def read(source):
        return tf.data.Dataset.range(tf.cast(source[1], tf.int64)).map(lambda n: n + source[0])

    read_values = [int(value) for value in read_in_turn(tf.constant(sources, tf.int64), read)]
    assert read_values == [0, 10, 30, 1, 11, 2]
