"""What is wrong with records is named by file, index and key."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import tensorflow as tf
from test_records import LABELS, make_one
from test_shards import BOX, rewrite, write
from test_shards import make_one as make_boxed

from vae_aug.errors import RecordError
from vae_aug.records.check import check_records
from vae_aug.records.records import read_records, write_records


def test_damage_is_named_with_file_and_index(tmp_path):
    write_records(map(make_one, range(5)), tmp_path, "train", label_names=LABELS)
    path = tmp_path / "train-00000-of-00001.tfrecord"
    whole = path.read_bytes()
    for damage in (whole[:-3], whole[:-30] + b"X" + whole[-29:]):
        path.write_bytes(damage)
        with pytest.raises(RecordError, match=r"train-00000-of-00001\.tfrecord, record 4: damaged"):
            check_records(tmp_path)
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        writer.write(b"no example")
    with pytest.raises(RecordError, match=r"record 0: no tf\.train\.Example"):
        check_records(path)


def set_floats(key, *values):
    def change(example):
        example.features.feature[key].float_list.value[:] = values

    return change


def set_ints(key, *values):
    def change(example):
        example.features.feature[key].int64_list.value[:] = values

    return change


def set_bytes(key, *values):
    def change(example):
        example.features.feature[key].bytes_list.value[:] = values

    return change


def remove(key):
    return lambda example: example.features.feature.pop(key)


@pytest.mark.parametrize(
    ("change", "key", "message"),
    [
        (remove("image/encoded"), "image/encoded", "missing or of another type"),
        (set_bytes("image/encoded", b"x"), "image/encoded", "neither PNG nor JPEG"),
        (remove("image/source_id"), "image/source_id", "missing"),
        (set_ints("image/height", 13), "image/height", "expected 14 .*; got 13"),
        (set_bytes("image/key/sha256", b"0"), "image/key/sha256", "was altered"),
        (set_floats("image/object/bbox/xmin", 0.4, 0), "image/object/bbox/xmin", "0.4.* >= 0.4"),
        (set_floats("image/object/bbox/ymin", 0.5, 0), "image/object/bbox/ymin", "must be below"),
        (set_floats("image/object/bbox/xmax", 0.4, 1.5), "image/object/bbox/xmax", "got 1.5"),
        (set_floats("image/object/bbox/xmax", 0.4, float("nan")), "bbox/xmax", "got nan"),
        (set_floats("image/object/bbox/xmax", 0.4), "bbox/xmax", "one value a label, 2; got 1"),
        (
            set_bytes("image/object/class/text", b"lesion"),
            "class/text",
            r"expected a text for each label of \[2, 1\]",
        ),
        (
            set_bytes("image/object/class/text", b"lesion", b""),
            "class/text",
            "expected a text for each label",
        ),
        (set_ints("image/object/class/label", 2, 0), "class/label", "count from 1; got 0"),
        (set_ints("image/object/class/label", 2, 2), "class/label", r"2 \('stone'\) is not in"),
        (set_ints("image/object/class/label", 2, 9), "class/label", r"9 \('stone'\) is not in"),
    ],
)
def test_faults_are_named_with_file_index_and_key(tmp_path, change, key, message):
    bad = make_one(2)
    change(bad)
    write_records([make_one(0), bad], tmp_path, "train", label_names=LABELS)
    expected = rf"train-00000-of-00001\.tfrecord, record 1, \S*{key}: .*{message}"
    with pytest.raises(RecordError, match=expected):
        check_records(tmp_path)


def test_check_counts_and_tells(tmp_path):
    write_records(map(make_one, range(3)), tmp_path, "train", label_names=LABELS)
    seen = []
    assert check_records(tmp_path, progress=seen.append) == 3
    assert seen == [1, 2, 3]
    content = json.loads((tmp_path / "dataset.json").read_text())
    content["splits"]["train"]["examples"] = 4
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(RecordError, match=r"lists 4 records in .*; the file holds 3"):
        check_records(tmp_path)


def test_check_compares_the_label_map(tmp_path):
    write(tmp_path)
    assert check_records(tmp_path) == 5
    path = tmp_path / "label_map.pbtxt"
    path.write_text(path.read_text().replace("stone", "cyst"))
    with pytest.raises(RecordError, match=r"label_map\.pbtxt: names other labels than dataset"):
        check_records(tmp_path)


@pytest.mark.parametrize(
    "boxes, key",
    [
        ([[0.1, 0.2, np.nan, 0.6]], "ymax: must be finite; got nan"),
        ([[0.1, np.inf, 0.5, 0.6]], "xmin: must be finite; got inf"),
        ([[0.5, 0.2, 0.1, 0.6]], "ymin: must not exceed image/object/bbox/ymax; box 0 has 0.5"),
        ([BOX[0], [0.1, 0.6, 0.5, 0.2]], "xmin: must not exceed image/object/bbox/xmax; box 1"),
    ],
)
def test_boxes_that_cannot_be_are_named_by_file_index_and_key(tmp_path, boxes, key):
    examples = [make_boxed(0), make_boxed(1, boxes)]
    write_records(examples, tmp_path, "train", label_names=LABELS)
    message = rf"train-00000-of-00001\.tfrecord, record 1, image/object/bbox/{key}"
    with pytest.raises(RecordError, match=message):
        read_records(tmp_path)
    # In the graph, which is what counts for sets that are too large to be read through first.
    dataset = read_records(tmp_path, allow_damaged=True)
    assert [e["image/source_id"] for e in dataset.as_numpy_iterator()] == [b"s0"]


def test_columns_of_boxes_of_uneven_length_are_named(tmp_path):
    example = make_boxed(0)
    example.features.feature["image/object/bbox/xmax"].float_list.value.append(0.5)
    write_records([example], tmp_path, "train", label_names=LABELS)
    with pytest.raises(RecordError, match="record 0, image/object/bbox/xmax: expected one value a"):
        read_records(tmp_path)


def test_what_is_no_protobuf_is_named(tmp_path):
    (path,) = write(tmp_path, count=2, shards=1)
    rewrite(tmp_path / "x.tfrecord", [make_boxed(0), b"\xff\xff no protobuf"])
    with pytest.raises(RecordError, match=r"x\.tfrecord, record 1: no tf\.train\.Example"):
        read_records(tmp_path / "x.tfrecord")
    assert path.is_file()
