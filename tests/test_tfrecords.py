"""Ingest of TFRecords that other tools wrote in the schema of the TF Object Detection API."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from test_images import make_noise

from vae_aug.data.annotations import read_tfrecords
from vae_aug.data.annotations.detect import detect_format
from vae_aug.data.annotations.source import Collector
from vae_aug.data.convert import Conversion, convert_image
from vae_aug.data.images import encode_png, strip_jpeg_metadata
from vae_aug.data.ingest import find_hashed, ingest
from vae_aug.data.records import iterate_examples, make_example, read_records, write_records
from vae_aug.data.tfrecord import iterate_places, parse_shard_name, read_feature
from vae_aug.errors import AnnotationError, RecordError

SIDES = ("ymin", "xmin", "ymax", "xmax")


def make_feature(value):
    first = value[0] if value else 0
    if isinstance(first, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=value))
    if isinstance(first, float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=value))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=value))


def make_foreign(boxes=(), image=None, **features):
    """A record as other tools make it; a box is (rel_yxyx, text, number)."""
    content = {
        "image/encoded": [encode_png(make_noise((20, 40), "u1")) if image is None else image]
    }
    for index, side in enumerate(SIDES):
        content[f"image/object/bbox/{side}"] = [float(box[0][index]) for box in boxes]
    content["image/object/class/text"] = [box[1] for box in boxes if box[1] is not None]
    content["image/object/class/label"] = [box[2] for box in boxes if box[2] is not None]
    content |= {f"image/{key.replace('__', '/')}": value for key, value in features.items()}
    feature = {key: make_feature(value) for key, value in content.items() if value}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def write_file(path, *records):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def list_found(annotations):
    return [(i.source_id, i.labels, i.boxes.tolist()) for i in annotations.images]


BOX = (0.25, 0.125, 0.5, 0.75)
PIXELS = [5, 5, 30, 10]  # `xyxy` of BOX in 20 x 40


def test_boxes_labels_and_marks(tmp_path):
    first = make_foreign(
        [(BOX, b"cyst", 2), ((0, 0, 1, 1), b"stone", 1)],
        source_id=[b"17"],
        patient=[b"DOE"],
        height=[20],
        width=[40],
        object__is_crowd=[0, 1],
        object__difficult=[1, 0],
    )
    second = make_foreign([(BOX, None, 2)], filename=[b"b.jpg"])
    write_file(tmp_path / "train.tfrecord", first, second, make_foreign())
    (tmp_path / "map.pbtxt").write_text(
        "# classes\nitem { id: 2 name: \"cyst\" }\nitem { name: 'stone' id: 1 keypoints { id: 3 } }"
    )
    found = read_tfrecords(tmp_path)
    assert found.label_names == ("stone", "cyst") and not found.problems
    assert list_found(found) == [
        ("17", ("cyst", "stone"), [PIXELS, [0, 0, 40, 20]]),
        ("b.jpg", ("cyst",), [PIXELS]),
        ("train.tfrecord#2", (), []),
    ]
    image = found.images[0]
    assert (image.patient, image.height, image.width) == ("DOE", 20, 40)
    assert (image.is_crowd, image.difficult) == ((False, True), (True, False))
    assert image.truncated == (False, False)


@pytest.mark.parametrize(
    ("boxes", "names"),
    [
        ([(BOX, b"z", 1), (BOX, b"a", 2)], ("z", "a")),
        ([(BOX, b"z", None), (BOX, b"a", None)], ("a", "z")),
        ([(BOX, None, 10), (BOX, None, 9)], ("9", "10")),
    ],
)
def test_the_order_of_labels_without_a_map(tmp_path, boxes, names):
    write_file(tmp_path / "a.record", make_foreign(boxes))
    assert read_tfrecords(tmp_path).label_names == names


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (["coco_train.record-00000-of-00002", "coco_train.record-00001-of-00002"], "train", 2),
        (["train.tfrecord", "valid.tfrecord", "test.tfrecord"], "validation", 1),
        (["train-00000-of-00001.tfrecord", "val-00000-of-00001.tfrecord"], "all", 2),
        (["train/cells.tfrecord", "valid/cells.tfrecord"], "val", 1),
        (["cells.tfrec"], "test", 1),
    ],
)
def test_file_names_tell_the_split(tmp_path, names, split, expected):
    for index, name in enumerate(names):
        write_file(tmp_path / name, make_foreign(source_id=[b"%d" % index]))
    assert len(read_tfrecords(tmp_path, split).images) == expected
    assert detect_format(tmp_path).format == "records"


def test_files_and_patterns(tmp_path):
    for name in ("train_a.tfrecord", "train_b.tfrecord", "test.tfrecord"):
        write_file(tmp_path / name, make_foreign(source_id=[name.encode()]))
    for source, count in (("train_*.tfrecord", 2), ("test.tfrecord", 1)):
        assert detect_format(tmp_path / source).format == "records"
        assert len(read_tfrecords(tmp_path / source).images) == count
    report = ingest(tmp_path / "train_*.tfrecord", tmp_path / "out")
    assert (report.format, report.images) == ("records", 2)
    with pytest.raises(AnnotationError, match="no such file, folder or pattern"):
        read_tfrecords(tmp_path / "gone*.tfrecord")


def test_what_leaves_nothing_to_read(tmp_path):
    with pytest.raises(AnnotationError, match="holds no TFRecords"):
        read_tfrecords(tmp_path)
    write_file(tmp_path / "train-00000-of-00003.tfrecord", make_foreign())
    with pytest.raises(AnnotationError, match="train has 1 of 3 shards"):
        read_tfrecords(tmp_path)
    with pytest.raises(
        AnnotationError, match=r"no file is named after the split 'test'; found tra"
    ):
        read_tfrecords(tmp_path, "test")
    write_file(tmp_path / "b" / "a.tfrecord", make_foreign())
    for text in ("item {", "item { id: 1 }", 'item { name: "a" } item { name: "b" }'):
        (tmp_path / "b" / "x.pbtxt").write_text(text)
        with pytest.raises(AnnotationError, match=r"x\.pbtxt: (no label map|every item needs)"):
            read_tfrecords(tmp_path / "b")
    (tmp_path / "b" / "y.pbtxt").write_text("")
    with pytest.raises(AnnotationError, match=r"several label maps \(x.pbtxt, y.pbtxt\)"):
        read_tfrecords(tmp_path / "b")


def test_faults_are_named_by_file_and_index(tmp_path):
    image = encode_png(make_noise((20, 40), "u1"))
    records = [
        make_foreign([(BOX, b"cyst", 1)], source_id=[b"a"]),
        make_foreign([(BOX, b"cyst", 1)], image=b"II*\0"),
        make_foreign([(BOX, b"cyst", 1)], object__difficult=[1, 0]),
        make_foreign([(BOX, None, None)]),
        b"\xff",
        make_foreign([(BOX, b"cyst", 1)], source_id=[b"a"]),
        make_foreign([(BOX, b"cyst", 1)], image=image[:200]),
        make_foreign([((0.5, 0, 0.5, 1), b"cyst", 1), (BOX, b"cyst", 1)], height=[20], width=[40]),
        make_foreign(height=[40], width=[20]),
    ]
    write_file(tmp_path / "in" / "a.tfrecord", *records)
    report = ingest(tmp_path / "in", tmp_path / "out")
    reasons = [reason for _, reason in report.skipped]
    expected = [
        "record 1: neither PNG nor JPEG",
        "record 2: difficult has 2 values for 1 boxes",
        "record 3: its boxes have neither class/text nor class/label",
        "record 4: no tf.train.Example",
        "record 5: the source holds this image twice",
        "record 6: the PNG data are damaged or cut short",
        "record 8: the annotation is for 40 x 20 pixels",
    ]
    assert len(reasons) == len(expected)
    for reason, start in zip(reasons, expected, strict=True):
        assert reason.startswith(start)
    assert (report.images, report.boxes, report.dropped) == (2, 2, 1)
    zero_area = "record 7: box 0 (cyst): zero area, (0, 10, 40, 10) in 20 x 40"
    assert zero_area in [problem.reason for problem in report.problems]
    assert {file for file, _ in report.skipped} == {"a.tfrecord"}


def test_reading_goes_on_behind_a_damaged_record(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_file(path, *(make_foreign(source_id=[name]) for name in (b"a", b"b", b"c")))
    data = path.read_bytes()
    starts = [offset for offset, _ in iterate_places(path)]
    assert starts[1] == 16 + struct.unpack("<Q", data[:8])[0]
    damaged = bytearray(data)
    damaged[starts[1] + 100] ^= 1
    path.write_bytes(damaged)
    found = read_tfrecords(path)
    assert [image.source_id for image in found.images] == ["a", "c"]
    assert [problem.reason for problem in found.problems] == [
        "record 1: damaged (wrong checksum or cut short)"
    ]
    for end in (starts[1] + 5, starts[2] - 1):
        path.write_bytes(data[:end])
        found = read_tfrecords(path)
        assert [image.source_id for image in found.images] == ["a"]
        (problem,) = found.problems
        assert problem.reason.endswith("cut short), and any behind it are lost")


def test_a_compressed_file_is_told(tmp_path):
    options = tf.io.TFRecordOptions(compression_type="GZIP")
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord"), options) as writer:
        writer.write(make_foreign())
    with pytest.raises(RecordError, match=r"a\.tfrecord: is compressed; unpack it"):
        read_tfrecords(tmp_path)


def test_features_by_place(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_file(path, make_foreign(), make_foreign(source_id=[b"b"]))
    _, (offset, _) = iterate_places(path)
    assert read_feature(path, offset, "image/source_id") == b"b"
    for place, key, message in (
        (0, "image/source_id", "image/source_id is missing"),
        (1, "image/source_id", "damaged since"),
        (10**9, "image/source_id", "damaged since"),
    ):
        with pytest.raises(RecordError, match=message):
            read_feature(path, place, key)
    with pytest.raises(RecordError, match="cannot be read"):
        read_feature(tmp_path / "gone.tfrecord", 0, "a")
    assert parse_shard_name(tmp_path / "a.b-train.tfrecord-00001-of-00003") == ("a.b-train", 3)


def test_jpegs_are_stripped_and_ids_hashed(tmp_path):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "DOE^JANE"
    Image.fromarray(make_noise((20, 40, 3), "u1")).save(file, "JPEG", exif=exif)
    assert b"DOE^JANE" in file.getvalue()
    record = make_foreign(image=file.getvalue(), source_id=[b"DOE^JANE"], patient=[b"DOE^JANE"])
    write_file(tmp_path / "in" / "a.tfrecord", record)
    ingest(tmp_path / "in", tmp_path / "out", salt="s")
    shard = tmp_path / "out" / "train-00000-of-00001.tfrecord"
    assert b"DOE^JANE" not in shard.read_bytes()
    ((_, example),) = iterate_examples(shard)
    feature = example.features.feature
    stored = feature["image/encoded"].bytes_list.value[0]
    assert stored == strip_jpeg_metadata(file.getvalue())
    key = feature["image/source_id"].bytes_list.value[0].decode()
    assert find_hashed(tmp_path / "in", [key], salt="s") == {key: "a.tfrecord, record 0"}


def make_ours(index):
    boxes = np.random.default_rng(index).uniform(0, 0.4, (index, 4))
    boxes[:, 2:] += 0.5
    return make_example(
        make_noise((33 + index, 47, 3 if index == 1 else 1), np.uint16 if index % 2 else np.uint8),
        source_id=f"s{index}",
        boxes=boxes,
        labels=[i % 2 for i in range(index)],
        label_names=("z", "a"),
        patient=f"p{index // 2}",
        is_crowd=[i == 1 for i in range(index)],
        truncated=[i == 0 for i in range(index)],
    )


def test_our_own_records_come_back_byte_for_byte(tmp_path):
    write_records(map(make_ours, range(5)), tmp_path / "in", "train", 2, label_names=("z", "a"))
    report = ingest(tmp_path / "in", tmp_path / "out", shards=2, keep_ids=True)
    assert (report.format, report.images, report.boxes, report.problems) == ("records", 5, 10, ())
    # The images are encoded anew by the same encoder, so that even their bytes are the same.
    given, written = (
        {
            example.features.feature["image/source_id"].bytes_list.value[0]: example
            for path in sorted(folder.glob("*.tfrecord"))
            for _, example in iterate_examples(path)
        }
        for folder in (tmp_path / "in", tmp_path / "out")
    )
    assert written == given
    assert len(list(read_records(tmp_path / "out"))) == 5


def test_a_feature_called_like_a_plane_is_not_taken_for_a_volume(tmp_path):
    """MR sets prepared with TFDS may well call their image `axial`."""
    pixels = make_noise((6, 8), "u1")
    feature = {"axial": make_feature([encode_png(pixels)])}
    record = tf.train.Example(features=tf.train.Features(feature=feature))
    write_file(tmp_path / "a.tfrecord", record.SerializeToString())
    collector = Collector(tmp_path)
    collector.add(tmp_path / "a.tfrecord", part="axial")
    [image] = collector.finish(()).images
    assert image.place == "record 0"
    converted = convert_image(image, Conversion((), None, "auto", None))
    assert not converted.problems and len(converted.record) > pixels.size
