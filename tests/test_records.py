from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from vae_aug.codecs.images import EncodedImage
from vae_aug.errors import RecordError
from vae_aug.records.check import check_records
from vae_aug.records.records import (
    get_split_name,
    make_example,
    parse_example,
    read_info,
    read_records,
    write_label_map,
    write_records,
)

LABELS = ("stone", "lesion")


def make_image(seed=0, dtype=np.uint8, channels=1):
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max + 1, (12 + seed, 10, channels)).astype(dtype)


def make_one(index=0, dtype=np.uint8, channels=1, **settings):
    boxes = [[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]][: index % 3]
    arguments = {
        "source_id": f"s{index}",
        "boxes": np.array(boxes),
        "labels": [1, 0][: index % 3],
        "label_names": LABELS,
        **settings,
    }
    return make_example(make_image(index, dtype, channels), **arguments)


def list_names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- One example


def test_example_follows_the_schema():
    flags = {"difficult": [True, False]}
    example = make_one(2, patient="ab12", flags=flags, extra={"augment/factor": 0.5})
    feature = example.features.feature
    encoded = feature["image/encoded"].bytes_list.value[0]
    expected = {
        "image/format": [b"png"],
        "image/height": [14],
        "image/width": [10],
        "image/channels": [1],
        "image/bit_depth": [8],
        "image/filename": [b"s2.png"],
        "image/source_id": [b"s2"],
        "image/patient": [b"ab12"],
        "image/key/sha256": [hashlib.sha256(encoded).hexdigest().encode()],
        "image/object/class/text": [b"lesion", b"stone"],
        "image/object/class/label": [2, 1],
        "image/object/is_crowd": [0, 0],
        "image/object/difficult": [1, 0],
        "image/object/truncated": [0, 0],
        "augment/factor": [0.5],
    }
    for key, value in expected.items():
        kind = feature[key].WhichOneof("kind")
        assert list(getattr(feature[key], kind).value) == value, key
    sides = {"ymin": [0.1, 0], "xmin": [0.2, 0], "ymax": [0.3, 1], "xmax": [0.4, 1]}
    for side, values in sides.items():
        stored = feature[f"image/object/bbox/{side}"].float_list.value
        np.testing.assert_array_equal(np.float32(stored), np.float32(values))
    # 0.2 * 0.2 of 14 x 10 pixels, and all of them.
    np.testing.assert_allclose(feature["image/object/area"].float_list.value, [5.6, 140], rtol=1e-6)


def test_extra_takes_numbers_texts_and_arrays():
    extra = {
        "a": "text",
        "b": b"bytes",
        "c": ["x", "y"],
        "d": 3,
        "e": np.array([[0.5, 1.5]]),
        "f": [True, False],
        "g": np.array(["u", "v"]),
    }
    feature = make_one(extra=extra).features.feature
    assert list(feature["a"].bytes_list.value) == [b"text"]
    assert list(feature["b"].bytes_list.value) == [b"bytes"]
    assert list(feature["c"].bytes_list.value) == [b"x", b"y"]
    assert list(feature["d"].int64_list.value) == [3]
    assert list(feature["e"].float_list.value) == [0.5, 1.5]
    assert list(feature["f"].int64_list.value) == [1, 0]
    assert list(feature["g"].bytes_list.value) == [b"u", b"v"]
    with pytest.raises(TypeError, match="augment/x must hold numbers, strings or bytes"):
        make_one(extra={"augment/x": {"a": 1}})
    with pytest.raises(ValueError, match="must not replace image/height"):
        make_one(extra={"image/height": 3})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"boxes": np.zeros((2, 4)), "labels": [0]}, r"got \(2, 4\) and \(1,\) for 's0'"),
        ({"boxes": np.zeros((1, 4)), "labels": [2]}, r"labels must be in \[0, 2\); got \[2\]"),
        ({"boxes": np.zeros((1, 4)), "labels": [-1]}, r"got \[-1\]"),
        ({"flags": {"is_crowd": [1]}}, "is_crowd must have one value a box, 0; got 1"),
        ({"flags": {"crowd": []}}, "flags must be among is_crowd, difficult, .*; got crowd"),
    ],
)
def test_example_checks_its_arguments(settings, message):
    with pytest.raises(ValueError, match=message):
        make_one(**settings)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_parse_gives_back_what_was_made(dtype, channels):
    serialized = make_one(2, np.dtype(dtype), channels).SerializeToString()
    dataset = tf.data.Dataset.from_tensors(serialized)
    element = next(iter(dataset.map(lambda s: parse_example(s, dtype, channels))))
    eager = parse_example(serialized, dtype, channels)
    assert element["image"].dtype == dtype
    np.testing.assert_array_equal(element["image"], make_image(2, np.dtype(dtype), channels))
    np.testing.assert_array_equal(eager["image"], element["image"])
    boxes = np.float32([[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]])
    np.testing.assert_array_equal(element["objects"]["bbox"], boxes)
    np.testing.assert_array_equal(element["objects"]["label"], [1, 0])
    assert element["objects"]["label"].dtype == tf.int64
    assert element["image/source_id"] == b"s2" and element["image/patient"] == b""


def test_parse_without_boxes():
    element = parse_example(make_one(0).SerializeToString())
    assert element["objects"]["bbox"].shape == (0, 4)
    assert element["objects"]["label"].shape == (0,)


def test_static_shapes():
    dataset = tf.data.Dataset.from_tensors(make_one(2).SerializeToString()).map(parse_example)
    spec = dataset.element_spec
    assert spec["image"].shape.as_list() == [None, None, 1]
    assert spec["objects"]["bbox"].shape.as_list() == [None, 4]


def make_jpeg_example():
    image = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8, 1)
    data = tf.io.encode_jpeg(image).numpy()
    encoded = EncodedImage(data, "jpeg", 8, 8, 1, 8)
    example = make_example(encoded, source_id="j.jpg", boxes=[], labels=[], label_names=())
    return example, tf.io.decode_jpeg(data, dct_method="INTEGER_ACCURATE").numpy()


def test_jpeg_is_stored_as_it_is():
    example, pixels = make_jpeg_example()
    assert example.features.feature["image/filename"].bytes_list.value == [b"j.jpg"]
    element = parse_example(example.SerializeToString())
    np.testing.assert_array_equal(element["image"], pixels)


def test_8_bits_read_as_16_span_the_whole_range():
    jpeg, pixels = make_jpeg_example()
    for example, expected in ((jpeg, pixels), (make_one(1), make_image(1))):
        element = parse_example(example.SerializeToString(), "uint16")
        np.testing.assert_array_equal(element["image"], expected.astype(np.uint16) * 257)


def test_16_bits_do_not_fit_uint8():
    serialized = make_one(0, np.uint16).SerializeToString()
    dataset = tf.data.Dataset.from_tensors(serialized).map(parse_example)
    message = "16 bits per channel.*image_dtype=.*uint16.*s0"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        list(dataset)


def test_uneven_lists_are_named():
    example = make_one(2)
    example.features.feature["image/object/bbox/xmax"].float_list.value.append(0.5)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)differ in length.*s2"):
        parse_example(example.SerializeToString())


def test_parse_checks_its_arguments():
    with pytest.raises(ValueError, match="image_dtype must be 'uint8' or 'uint16'; got 'float32'"):
        parse_example(b"", "float32")
    with pytest.raises(ValueError, match="channels must be 1 or 3; got 2"):
        parse_example(b"", channels=2)


# --- Writing and reading


@pytest.mark.parametrize("shards", [1, 3, 9])
def test_written_records_read_in_order(tmp_path, shards):
    info = write_records(map(make_one, range(7)), tmp_path, "train", shards, label_names=LABELS)
    assert (info.examples, info.boxes, info.shards) == (7, 0 + 1 + 2 + 0 + 1 + 2 + 0, shards)
    assert info.class_counts == {"stone": 2, "lesion": 4}
    shard_names = [f"train-{i:05}-of-{shards:05}.tfrecord" for i in range(shards)]
    assert list_names(tmp_path) == sorted([*shard_names, "dataset.json", "label_map.pbtxt"])
    dataset = read_records(tmp_path, "train")
    assert dataset.cardinality() == 7
    for index, element in enumerate(dataset):
        assert element["image/source_id"] == f"s{index}".encode()
        np.testing.assert_array_equal(element["image"], make_image(index))
    assert check_records(tmp_path) == 7


def test_writing_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_records(map(make_one, range(5)), tmp_path / name, "train", 2, label_names=LABELS)
    for name in list_names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_new_shards_replace_the_former_ones(tmp_path):
    write_records(map(make_one, range(7)), tmp_path, "train", 4, label_names=LABELS)
    write_records(map(make_one, range(2)), tmp_path, "train", 2, label_names=LABELS)
    write_records(map(make_one, range(3)), tmp_path, "train-extra", 1, label_names=LABELS)
    assert len(list(read_records(tmp_path, "train"))) == 2
    assert len(list(tmp_path.glob("*.tfrecord"))) == 3
    assert {k: s.examples for k, s in read_info(tmp_path).splits.items()} == {
        "train": 2,
        "train-extra": 3,
    }


def test_all_splits_read_alike(tmp_path):
    write_records([make_one(1)], tmp_path, "train", label_names=LABELS)
    write_records([make_one(1, np.uint16, 3)], tmp_path, "val", label_names=LABELS)
    assert list_names(tmp_path)[-1] == "validation-00000-of-00001.tfrecord"
    for split in ("train", "val", "valid", "validation"):
        element = next(iter(read_records(tmp_path, split)))
        assert element["image"].dtype == tf.uint16 and element["image"].shape[-1] == 3


def test_records_without_a_description(tmp_path):
    info = write_records([make_one(i, np.uint16) for i in range(3)], tmp_path, "train", 2)
    assert info.class_counts == {"lesion": 2, "stone": 1}
    for source in (tmp_path, f"{tmp_path}/train-*", sorted(tmp_path.iterdir())):
        elements = list(read_records(source))
        assert [bytes(e["image/source_id"].numpy()) for e in elements] == [b"s0", b"s1", b"s2"]
        assert elements[0]["image"].dtype == tf.uint16


def test_label_map_is_text_format(tmp_path):
    names = ('stone "big"', "ö\\n", "new\nline")
    write_label_map(tmp_path / "label_map.pbtxt", names)
    # The message has the two fields of the API's StringIntLabelMapItem that are used here.
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="label_map_test.proto", syntax="proto2")
    item, label_map = file.message_type.add(name="Item"), file.message_type.add(name="Map")
    item.field.add(name="name", number=1, type=9, label=1)
    item.field.add(name="id", number=2, type=5, label=1)
    label_map.field.add(name="item", number=1, type=11, label=3, type_name=".Item")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName("Map"))()
    text_format.Parse((tmp_path / "label_map.pbtxt").read_text("utf-8"), message)
    assert [(item.id, item.name) for item in message.item] == list(enumerate(names, start=1))


def test_other_labels_than_the_folders_are_refused(tmp_path):
    write_records([make_one()], tmp_path, "train", label_names=LABELS)
    before = list_names(tmp_path)
    with pytest.raises(RecordError, match=r"labels \['stone', 'lesion'\]; got \['stone'\]"):
        write_records([make_one()], tmp_path, "test", label_names=LABELS[:1])
    assert list_names(tmp_path) == before
    with pytest.raises(ValueError, match="distinct"):
        write_records([make_one()], tmp_path, "test", label_names=("a", "a"))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_interrupted_writing_leaves_nothing_and_touches_nothing(tmp_path, error):
    def interrupted():
        yield make_one(0)
        yield make_one(1)
        raise error

    write_records(map(make_one, range(3)), tmp_path, "test", 3, label_names=LABELS)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for split in ("train", "test"):
        with pytest.raises(error):
            write_records(interrupted(), tmp_path, split, 3, label_names=LABELS)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("where", ["vae_aug.records.records.sync_file", "pathlib.Path.replace"])
def test_disk_full_is_named_and_leaves_nothing(tmp_path, monkeypatch, where):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(where, fail)
    with pytest.raises(
        RecordError, match=r"'train' failed \(No space left on device\).*free space"
    ):
        write_records(map(make_one, range(5)), tmp_path, "train", 2)
    assert list_names(tmp_path) == []


def test_file_size_limit_of_the_system(tmp_path):
    """The real thing: the kernel refuses the bytes, in a process of its own."""
    script = f"""
        import resource, numpy as np
        from vae_aug.records.records import make_example, write_records
        from vae_aug.errors import RecordError
        image = np.random.default_rng(0).integers(0, 256, (99, 99, 1)).astype(np.uint8)
        example = make_example(image, source_id="a", boxes=[], labels=[], label_names=())
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write_records([example] * 50, {os.fspath(tmp_path / "out")!r}, "train", 2)
        except RecordError as error:
            print("refused", error)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.startswith("refused"), run.stderr
    assert list_names(tmp_path / "out") == []


def test_faults_of_the_examples_are_not_blamed_on_the_disk(tmp_path):
    def broken():
        yield make_one()
        raise FileNotFoundError("the caller's")

    with pytest.raises(FileNotFoundError, match="the caller's"):
        write_records(broken(), tmp_path, "train")


def test_writing_checks_its_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"num_shards must be in \[1, 99999\]; got 0"):
        write_records([make_one()], tmp_path, "train", 0)
    with pytest.raises(RecordError, match="no examples for the split 'train'"):
        write_records([], tmp_path, "train")
    for name in ("../train", "a/b", "", ".hidden", "a b"):
        with pytest.raises(ValueError, match="a split is named with"):
            get_split_name(name)


def test_what_cannot_be_found_is_named(tmp_path):
    with pytest.raises(RecordError, match="no such records"):
        read_records(f"{tmp_path}/*.tfrecord")
    with pytest.raises(RecordError, match="holds no records"):
        read_records(tmp_path)
    write_records(map(make_one, range(4)), tmp_path, "train", 4, label_names=LABELS)
    write_records([make_one()], tmp_path, "test", label_names=LABELS)
    with pytest.raises(RecordError, match="holds test, train; say which"):
        read_records(tmp_path)
    with pytest.raises(RecordError, match="has no split 'other'; it has test, train"):
        read_records(tmp_path, "other")
    with pytest.raises(RecordError, match=r"gone: no such file"):
        read_records([tmp_path / "gone"])
    (tmp_path / "train-00002-of-00004.tfrecord").unlink()
    with pytest.raises(RecordError, match="has 3 of 4 shards; an earlier run was cut short"):
        read_records(tmp_path, "train")
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(RecordError, match=r"dataset\.json: not the description"):
        read_records(tmp_path, "test")
