"""Shards that do not hold what `dataset.json` says are refused before anything is read of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from vae_aug.errors import RecordError
from vae_aug.records.check import check_records
from vae_aug.records.records import make_example, read_records, write_records, write_split
from vae_aug.records.shards import count_records, find_records, read_info

LABELS = ("lesion", "stone")
BOX = [[0.1, 0.2, 0.5, 0.6]]


def make_one(index, boxes=BOX, **extra):
    image = np.full((8, 12, 1), index, np.uint8)
    return make_example(
        image,
        source_id=f"s{index}",
        boxes=np.asarray(boxes, np.float32),
        labels=[0] * len(boxes),
        label_names=LABELS,
        extra=extra,
    )


def write(folder, count=5, shards=2, start=0):
    write_records(
        map(make_one, range(start, start + count)), folder, "train", shards, label_names=LABELS
    )
    return sorted(folder.glob("train-*"))


def rewrite(path, examples):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            writer.write(example if isinstance(example, bytes) else example.SerializeToString())


def test_records_are_counted_by_their_lengths(tmp_path):
    first, second = write(tmp_path)
    assert (count_records(first), count_records(second)) == (3, 2)
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(RecordError, match="record 2: damaged or cut short"):
        count_records(first)


def test_sizes_are_of_every_shard(tmp_path):
    write(tmp_path)
    content = json.loads((tmp_path / "dataset.json").read_text())
    content["splits"]["train"]["shard_bytes"].pop()
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(RecordError, match="'train' has 1 'shard_bytes' for 2 shards"):
        read_records(tmp_path)


def test_a_shard_numbered_beyond_their_count_is_none_of_them(tmp_path):
    _, second = write(tmp_path)
    beyond = second.rename(tmp_path / "train-00005-of-00002.tfrecord")
    with pytest.raises(RecordError, match="has 1 of 2 shards"):
        read_records(tmp_path)
    with pytest.raises(RecordError, match="lists no such shard"):
        read_records(beyond)


@pytest.mark.parametrize("damage", ["cut", "empty", "short", "long", "foreign", "swapped"])
def test_a_shard_that_is_not_as_listed_is_refused(tmp_path, damage):
    first, second = write(tmp_path / "set")
    (other,) = write(tmp_path / "other", count=3, shards=1, start=40)
    data = first.read_bytes()
    if damage == "cut":
        first.write_bytes(data[:-5])
    elif damage == "empty":
        first.write_bytes(b"")
    elif damage == "short":
        rewrite(first, map(make_one, (0, 2)))
    elif damage == "long":
        first.write_bytes(data + second.read_bytes())
    elif damage == "foreign":  # as many records, of another set
        rewrite(first, [make_one(index, name="another") for index in range(3)])
    else:
        first.write_bytes(second.read_bytes())
        second.write_bytes(data)
    assert other.is_file()
    for read in (read_records, check_records, find_records):
        with pytest.raises(RecordError, match=r"train-0000[01]-of-00002"):
            read(tmp_path / "set", "train")


def test_a_shard_that_is_not_listed_is_refused(tmp_path):
    write(tmp_path, shards=2)
    rewrite(tmp_path / "test-00000-of-00001.tfrecord", [make_one(1)])
    with pytest.raises(RecordError, match=r"dataset\.json beside it lists no such shard"):
        read_records(tmp_path, "test")
    assert len(list(read_records(tmp_path, "test", allow_damaged=True))) == 1


def test_sets_of_earlier_versions_are_held_against_their_counts(tmp_path):
    first, _ = write(tmp_path)
    path = tmp_path / "dataset.json"
    content = json.loads(path.read_text())
    del content["splits"]["train"]["shard_bytes"]
    path.write_text(json.dumps(content))
    assert len(list(read_records(tmp_path))) == 5
    rewrite(first, map(make_one, (0, 2)))
    with pytest.raises(RecordError, match="lists 3 records; the file holds 2"):
        read_records(tmp_path)


def test_what_is_left_of_a_damaged_set_can_be_read(tmp_path):
    first, _ = write(tmp_path, count=6)
    first.write_bytes(first.read_bytes()[:-3])
    left = read_records(tmp_path, allow_damaged=True)
    assert sorted(int(e["image"][0, 0, 0]) for e in left) == [0, 1, 2, 3, 5]


@pytest.mark.parametrize(
    "change",
    [{"examples": -1}, {"examples": 1.5}, {"dtype": "float32"}, {"channels": 2}, {"boxes": True}],
)
def test_a_description_that_cannot_be_is_refused(tmp_path, change):
    write(tmp_path)
    path = tmp_path / "dataset.json"
    content = json.loads(path.read_text())
    content["splits"]["train"] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match="not the description of a data set"):
        read_info(tmp_path)


def test_unannotated_images_lie_beside_their_split(tmp_path):
    examples = [(make_one(i), i % 3 > 0) for i in range(6)]
    annotated, bare = write_split(examples, tmp_path, "train", label_names=LABELS)
    assert (annotated.examples, bare.examples) == (4, 2)
    info = read_info(tmp_path)
    assert list(info.splits) == ["train"] and list(info.unannotated) == ["train_unannotated"]
    assert info.image_splits == ("train",)
    values = [int(e["image"][0, 0, 0]) for e in read_records(tmp_path)]
    assert values == [1, 2, 4, 5]
    both = read_records(tmp_path, "train", unannotated=True)
    assert sorted(int(e["image"][0, 0, 0]) for e in both) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="names in '_unannotated' are reserved"):
        write_split(examples, tmp_path, "train_unannotated", label_names=LABELS)


def test_find_records_gives_shards_in_order(tmp_path):
    write_records(map(make_one, range(3)), tmp_path, "train", 3, label_names=LABELS)
    files, info = find_records(tmp_path)
    assert [path.name[:11] for path in files] == ["train-00000", "train-00001", "train-00002"]
    assert info.label_names == LABELS and info.channels == 1
