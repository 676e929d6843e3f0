"""Ingest of a dataset that TFDS prepared; what TFDS itself reads of it is the peer."""

from __future__ import annotations

import json
import os
import random
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from test_images import make_noise

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.detect import detect_format
from vae_aug.ingest.formats.tfds_folder import read_tfds
from vae_aug.ingest.ingest import ingest
from vae_aug.records.records import read_records
from vae_aug.records.tfrecord import iterate_places

features = tfds.features
# Exact in binary, so that `rel_yxyx` in float32 is what was written.
BOXES = ((0.25, 0.125, 0.5, 0.75), (0.0, 0.0, 1.0, 1.0))


def make_picture(index):
    return make_noise((8 + index, 16, 1), np.uint16)


class Cells(tfds.core.GeneratorBasedBuilder):
    """Features under other names than the usual ones."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=features.FeaturesDict(
                {
                    "scan": {"picture": features.Image(shape=(None, None, 1), dtype=np.uint16)},
                    "kind": features.ClassLabel(names=["x"]),
                    "found": features.Sequence(
                        {
                            "place": features.BBoxFeature(),
                            "class": features.ClassLabel(names=["z", "a"]),
                            "is_crowd": np.bool_,
                        }
                    ),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(4), "validation": self._generate_examples(2)}

    def _generate_examples(self, count):
        for index in range(count):
            found = [
                {"place": features.BBox(*box), "class": number, "is_crowd": number == 1}
                for number, box in list(enumerate(BOXES))[: index % 3]
            ]
            yield index, {"scan": {"picture": make_picture(index)}, "kind": 0, "found": found}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    builder = Cells(data_dir=tmp_path_factory.mktemp("tfds"))
    tfds.disable_progress_bar()
    builder.download_and_prepare()
    return builder


def test_a_prepared_dataset_becomes_records(prepared, tmp_path):
    report = ingest(prepared.data_path, tmp_path / "out", keep_ids=True)
    assert (report.format, report.images, report.boxes) == ("tfds", 4, 3)
    assert report.class_counts == {"z": 2, "a": 1} and not report.problems
    config = tfds.ReadConfig(add_tfds_id=True, interleave_cycle_length=1)
    expected = prepared.as_dataset("train", read_config=config).as_numpy_iterator()
    found = read_records(tmp_path / "out").as_numpy_iterator()
    for one, other in zip(expected, found, strict=True):
        assert other["image/source_id"] == one["tfds_id"]
        np.testing.assert_array_equal(other["image"], one["scan"]["picture"])
        np.testing.assert_array_equal(other["objects"]["bbox"], one["found"]["place"])
        np.testing.assert_array_equal(other["objects"]["label"], one["found"]["class"])


def test_a_record_without_boxes_says_that_there_are_none(prepared):
    images = read_tfds(prepared.data_path).images
    assert {image.annotation for image in images} == {"complete"}
    assert sorted(len(image.labels) for image in images) == [0, 0, 1, 2]


def test_marks_splits_and_folders_above(prepared, tmp_path):
    root = prepared.data_path.parent.parent
    assert detect_format(root).format == "tfds"
    found = read_tfds(root)
    assert [image.is_crowd for image in found.images if len(image.boxes) == 2] == [(False, True)]
    assert len(read_tfds(root, "val").images) == 2 and len(read_tfds(root, "all").images) == 6
    with pytest.raises(AnnotationError, match="no split 'test'; it has train, validation"):
        read_tfds(root, "test")
    shutil.copytree(root, tmp_path / "two")
    shutil.copytree(root / "cells" / "1.0.0", tmp_path / "two" / "cells" / "2.0.0")
    with pytest.raises(AnnotationError, match=r"found cells/1\.0\.0, cells/2\.0\.0"):
        read_tfds(tmp_path / "two")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnnotationError, match="found none"):
        read_tfds(tmp_path / "empty")


def write_dataset(folder, feature, **info):
    """Write the two files of a dataset without records."""
    folder.mkdir()
    features.FeaturesDict(feature).save_config(folder)
    content = {"name": "a", "version": "1.0.0", "fileFormat": "tfrecord", "splits": []} | info
    (folder / "dataset_info.json").write_text(json.dumps(content))
    return folder


IMAGE, BOX = features.Image(), features.Sequence(features.BBoxFeature())


@pytest.mark.parametrize(
    ("feature", "info", "message"),
    [
        ({"image": IMAGE}, {}, r"expected an Image and a BBoxFeature in a Sequence.*image \(Image"),
        ({"image": IMAGE, "bbox": features.BBoxFeature()}, {}, "in a Sequence"),
        ({"a": IMAGE, "b": features.Image(), "bbox": BOX}, {}, "may be the image: a, b"),
        ({"image": features.Image(shape=(2, 2, 1), dtype=np.float32), "bbox": BOX}, {}, "float32"),
        (
            {"image": IMAGE, "bbox": features.Sequence(features.BBoxFeature(bbox_format="XYWH"))},
            {},
            "is XYWH; expected the format REL_YXYX",
        ),
        ({"image": IMAGE, "bbox": BOX}, {"fileFormat": "array_record"}, "kept as array_record"),
        ({"image": IMAGE, "bbox": BOX}, {"version": "one"}, "TFDS cannot read"),
    ],
)
def test_other_datasets_are_refused(tmp_path, feature, info, message):
    with pytest.raises(AnnotationError, match=message):
        read_tfds(write_dataset(tmp_path / "a", feature, **info))


def test_damaged_records_are_named(prepared, tmp_path):
    folder = tmp_path / "a"
    shutil.copytree(prepared.data_path, folder)
    (shard,) = folder.glob("*train*")
    data = bytearray(shard.read_bytes())
    data[40] ^= 1
    shard.write_bytes(data)
    found = read_tfds(folder)
    assert len(found.images) == 3
    assert [(problem.file, problem.reason) for problem in found.problems] == [
        (shard.name, "record 0: damaged (wrong checksum or cut short)")
    ]


def copy_with(prepared, folder, change):
    """Copy the dataset and change the features of each record of the training split."""
    shutil.copytree(prepared.data_path, folder)
    (shard,) = folder.glob("*train*")
    records = [tf.train.Example.FromString(data) for _, data in iterate_places(shard)]
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for record in records:
            change(record.features.feature)
            writer.write(record.SerializeToString())
    return folder


def set_values(feature, key, kind, values):
    feature[key].Clear()
    getattr(feature[key], kind).value.extend(values)


@pytest.mark.parametrize(
    ("change", "effect", "reason"),
    [
        (
            lambda feature: set_values(feature, "found/class", "int64_list", [1] * 5),
            "unread",
            "found/class has 5 values for",
        ),
        (
            lambda feature: (
                set_values(feature, "found/class", "int64_list", [])
                or set_values(feature, "found/is_crowd", "int64_list", [])
                or set_values(feature, "found/place", "int64_list", [1, 1, 2, 2])
            ),
            "unread",
            "found/place is no float_list",
        ),
        (
            lambda feature: set_values(
                feature,
                "found/class",
                "int64_list",
                [-1] * len(feature["found/class"].int64_list.value),
            ),
            "dropped",
            "box 0: found/class is not in [0, 2)",
        ),
    ],
)
def test_features_that_do_not_fit_are_faults_of_their_image(
    prepared, tmp_path, change, effect, reason
):
    found = read_tfds(copy_with(prepared, tmp_path / "a", change))
    assert len(found.images) == 4
    assert any(reason in problem.reason for problem in found.problems)
    assert {problem.effect for problem in found.problems} == {effect}
    assert [i.annotation for i in found.images].count("faulty") >= 2


def test_numbers_that_make_no_boxes_are_a_fault_without_labels_too(prepared, tmp_path):
    def change(feature):
        if feature["found/place"].float_list.value:
            feature["found/place"].float_list.value.append(0.5)

    folder = copy_with(prepared, tmp_path / "a", change)
    picture = features.Image(shape=(None, None, 1), dtype=np.uint16)
    found = features.Sequence({"place": features.BBoxFeature()})
    features.FeaturesDict({"scan": {"picture": picture}, "found": found}).save_config(folder)
    found = read_tfds(folder)
    assert [image.annotation for image in found.images].count("faulty") == 2
    assert any("found/place has 5 numbers; expected" in p.reason for p in found.problems)


def test_shards_are_held_against_what_the_dataset_says(prepared, tmp_path):
    folder = tmp_path / "a"
    shutil.copytree(prepared.data_path, folder)
    (shard,) = folder.glob("*train*")
    starts = [offset for offset, _ in iterate_places(shard)]
    os.truncate(shard, starts[2])
    found = read_tfds(folder)
    assert len(found.images) == 2
    (problem,) = found.problems
    assert problem.reason == "holds 2 records; dataset_info.json says 4"
    shard.unlink()
    with pytest.raises(AnnotationError, match="is missing; prepare the dataset again"):
        read_tfds(folder)
    os.mkfifo(shard)
    with pytest.raises(AnnotationError, match="is missing; prepare the dataset again"):
        read_tfds(folder)


def test_mutated_records_lose_no_box_without_a_word(prepared, tmp_path):
    whole = {image.source_id: image for image in read_tfds(prepared.data_path).images}
    rng = random.Random(3)

    def mutate(feature):
        key = rng.choice(("found/place", "found/class", "found/is_crowd"))
        kind = feature[key].WhichOneof("kind") or "int64_list"
        values = list(getattr(feature[key], kind).value)
        other = rng.choice(("int64_list", "float_list", "bytes_list"))
        match rng.randrange(5):
            case 0:
                set_values(feature, key, kind, values[:-1])
            case 1:
                set_values(feature, key, kind, values * 2)
            case 2:
                del feature[key]
            case 3:
                made = {"int64_list": int, "float_list": float, "bytes_list": lambda v: b"%d" % v}
                set_values(feature, key, other, map(made[other], values))
            case _:
                set_values(feature, key, kind, [value + 7 for value in values])

    for index in range(60):
        try:
            found = read_tfds(copy_with(prepared, tmp_path / str(index), mutate))
        except AnnotationError:
            continue
        for image in found.images:
            expected = whole[image.source_id]
            if image.annotation == "complete":
                assert len(image.labels) >= len(expected.labels), index
