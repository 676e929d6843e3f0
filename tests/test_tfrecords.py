"""Ingest of TFRecords that other tools wrote in the schema of the TF Object Detection API."""

from __future__ import annotations

import io
import os
import random
import struct

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from corpus import tfrecords
from PIL import Image
from test_images import make_noise

from vae_aug.codecs.images import encode_png, strip_jpeg_metadata
from vae_aug.errors import AnnotationError, RecordError
from vae_aug.ingest.formats import read_tfrecords
from vae_aug.ingest.formats.detect import detect_format
from vae_aug.ingest.formats.source import clean_boxes, clean_label
from vae_aug.ingest.ingest import ingest
from vae_aug.ingest.reading import find_hashed
from vae_aug.records.records import iterate_examples, make_example, read_records, write_records
from vae_aug.records.tfrecord import iterate_places, parse_shard_name, read_feature

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


def list_states(annotations):
    return [image.annotation for image in annotations.images]


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
        write_file(tmp_path / name, make_foreign([(BOX, b"cyst", 1)], source_id=[name.encode()]))
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
    records = [
        make_foreign([(BOX, b"cyst", 1)], source_id=[b"a"]),
        make_foreign([(BOX, b"cyst", 1)], image=b"II*\0"),
        make_foreign([(BOX, b"cyst", 1)], object__difficult=[1, 0]),
        make_foreign([(BOX, None, None)]),
        b"\xff",
        make_foreign([(BOX, b"cyst", 1)], source_id=[b"a"]),
        encode_png(make_noise((20, 40), "u1")),
        make_foreign([(BOX, b"\xff", 1), (BOX, b"cyst", 1), ((7, 7, 9, 9), b"cyst", 1)]),
    ]
    write_file(tmp_path / "a.tfrecord", *records)
    found = read_tfrecords(tmp_path)
    assert [(p.file, p.reason, p.effect) for p in found.problems] == [
        ("a.tfrecord", reason, effect)
        for reason, effect in (
            ("record 1: neither PNG nor JPEG; convert the image to one of them", "skipped"),
            ("record 2: difficult has 2 values for 1 box", "unread"),
            ("record 3: its boxes have neither class/text nor class/label", "unread"),
            ("record 4: no tf.train.Example", "skipped"),
            ("record 5: the source holds this image twice; only the first is taken", "skipped"),
            ("record 6: no tf.train.Example, but a bare image", "skipped"),
            ("record 7: box 0: its class/text is no UTF-8", "dropped"),
            ("record 7: box 2: is not relative to the image", "dropped"),
        )
    ]
    assert [image.item.index for image in found.images] == [0, 2, 3, 7]
    assert list_states(found) == ["complete", "faulty", "faulty", "faulty"]


def test_images_that_cannot_be_decoded_or_have_another_size_are_left_out(tmp_path):
    image = encode_png(make_noise((20, 40), "u1"))
    records = [
        make_foreign([(BOX, b"cyst", 1)]),
        make_foreign([(BOX, b"cyst", 1)], image=image[:200]),
        make_foreign([(BOX, b"cyst", 1)], height=[40], width=[20]),
    ]
    write_file(tmp_path / "in" / "a.tfrecord", *records)
    report = ingest(tmp_path / "in", tmp_path / "out")
    cut, other = (reason for _, reason in report.skipped)
    assert cut.startswith("record 1: the PNG data are damaged or cut short")
    assert other.startswith("record 2: the annotation is for 40 x 20 pixels")
    assert report.images == 1


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


@pytest.mark.parametrize("kind", ["GZIP", "ZLIB"])
def test_a_compressed_file_is_told(tmp_path, kind):
    options = tf.io.TFRecordOptions(compression_type=kind)
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord"), options) as writer:
        writer.write(make_foreign())
    with pytest.raises(RecordError, match=r"a\.tfrecord: is compressed; unpack it"):
        list(iterate_places(tmp_path / "a.tfrecord"))
    with pytest.raises(AnnotationError, match=r"no record that can be read; a\.tfrecord: is c"):
        read_tfrecords(tmp_path)
    write_file(tmp_path / "b.tfrecord", make_foreign([(BOX, b"cyst", 1)]))
    found = read_tfrecords(tmp_path)
    assert len(found.images) == 1
    assert [(p.file, p.effect) for p in found.problems] == [("a.tfrecord", "skipped")]


@pytest.mark.parametrize("length", [2**60, 2**63, 2**64 - 1, 2**31])
def test_no_memory_is_set_aside_for_a_length_that_is_only_stated(tmp_path, length):
    path = tmp_path / "a.tfrecord"
    write_file(path, make_foreign([(BOX, b"cyst", 1)]))
    head = struct.pack("<Q", length)
    # The checksum is right, so that the reader of TensorFlow trusts the length.
    path.write_bytes(path.read_bytes() + head + struct.pack("<I", mask_crc(head)) + b"data")
    found = read_tfrecords(path)
    assert list_states(found) == ["complete"]
    (problem,) = found.problems
    assert problem.reason.endswith("cut short), and any behind it are lost")


def mask_crc(data):
    """CRC-32C (Castagnoli), masked as the reference of `vae_aug.records.tfrecord` says."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_a_record_larger_than_any_image_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr("vae_aug.records.tfrecord.MAX_IMAGE_BYTES", 10_000)
    large = make_foreign(image=encode_png(make_noise((200, 200), "u1")))
    assert len(large) > 10_000
    write_file(tmp_path / "a.tfrecord", large, make_foreign([(BOX, b"cyst", 1)]))
    found = read_tfrecords(tmp_path)
    assert [image.item.index for image in found.images] == [1]
    assert "bytes; at most 10000 are read" in found.problems[0].reason


def test_pipes_and_files_outside_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.tfrecord")
    with pytest.raises(RecordError, match="it is no regular file"):
        list(iterate_places(tmp_path / "pipe.tfrecord"))
    write_file(tmp_path / "out" / "b.tfrecord", make_foreign([(BOX, b"cyst", 1)]))
    write_file(tmp_path / "in" / "a.tfrecord", make_foreign([(BOX, b"cyst", 1)]))
    (tmp_path / "in" / "b.tfrecord").symlink_to(tmp_path / "out" / "b.tfrecord")
    found = read_tfrecords(tmp_path / "in")
    assert len(found.images) == 1
    assert [(p.file, "lies outside" in p.reason) for p in found.problems] == [("b.tfrecord", True)]
    (tmp_path / "out" / "label_map.pbtxt").write_text('item { id: 1 name: "cyst" }')
    (tmp_path / "in" / "label_map.pbtxt").symlink_to(tmp_path / "out" / "label_map.pbtxt")
    for source in (tmp_path / "in", tmp_path / "in" / "a*.tfrecord", tmp_path / "in/a.tfrecord"):
        with pytest.raises(AnnotationError, match=r"label_map\.pbtxt: is reached by a link"):
            read_tfrecords(source)


def write_example(path, *contents):
    """Write records whose features are these, empty ones too."""
    features = [
        tf.train.Features(feature={k: make_feature(v) for k, v in c.items()}) for c in contents
    ]
    write_file(path, *(tf.train.Example(features=f).SerializeToString() for f in features))


def make_content(**features):
    encoded = encode_png(make_noise((20, 40), "u1"))
    return {"image/encoded": [encoded]} | {
        f"image/{k.replace('__', '/')}": v for k, v in features.items()
    }


SIDE = "image/object/bbox/xmin"


@pytest.mark.parametrize(
    ("content", "state"),
    [
        ({}, "none"),
        ({"image/class/label": [3]}, "none"),
        ({SIDE: []}, "complete"),
        ({"image/object/class/label": []}, "complete"),
        ({"image/object/class/text": []}, "complete"),
        ({"image/object/area": []}, "none"),
        ({SIDE: [], "image/annotation": [b"none"]}, "none"),
        ({"image/annotation": [b"none"]}, "none"),
        ({SIDE: [], "image/annotation": [b"faulty"]}, "faulty"),
        ({SIDE: [], "image/annotation": [b"partly"]}, "faulty"),
        ({SIDE: [3]}, "faulty"),
        ({SIDE: [0.5]}, "faulty"),
        ({"image/object/class/label": [3]}, "faulty"),
        ({"image/bbox/xmin": [0.5]}, "faulty"),
        ({"image/object/bbox": [0.1, 0.1, 0.5, 0.5]}, "faulty"),
        ({"xmin": [0.5], SIDE: []}, "faulty"),
        ({"objects/bbox": [0.5]}, "faulty"),
        ({"image/object/mask": [b"png"]}, "faulty"),
        ({"image/object/count": [0], SIDE: []}, "complete"),
    ],
)
def test_what_a_record_without_boxes_says(tmp_path, content, state):
    write_example(tmp_path / "a.tfrecord", make_content() | content)
    assert list_states(read_tfrecords(tmp_path)) == [state]


def test_lists_of_features_are_not_read(tmp_path):
    record = tf.train.SequenceExample()
    record.context.feature["image/encoded"].bytes_list.value.append(
        make_content()["image/encoded"][0]
    )
    boxes = tf.train.Feature(float_list=tf.train.FloatList(value=[0.5]))
    record.feature_lists.feature_list[SIDE].feature.append(boxes)
    write_file(tmp_path / "a.tfrecord", record.SerializeToString())
    found = read_tfrecords(tmp_path)
    assert list_states(found) == ["faulty"] and "SequenceExample" in found.problems[0].reason


def test_unannotated_records_of_this_package_stay_so(tmp_path):
    write_file(tmp_path / "train-00000-of-00001.tfrecord", make_foreign([(BOX, b"cyst", 1)]))
    write_file(
        tmp_path / "train_unannotated-00000-of-00001.tfrecord",
        make_foreign(source_id=[b"1"], annotation=[b"none"]),
        make_foreign([(BOX, b"cyst", 1)], source_id=[b"2"], annotation=[b"faulty"]),
    )
    write_file(tmp_path / "val-00000-of-00001.tfrecord", make_foreign())
    found = read_tfrecords(tmp_path, "train")
    assert list_states(found) == ["complete", "none", "faulty"]
    assert [len(image.labels) for image in found.images] == [1, 0, 1]


def test_boxes_in_pixels_are_refused(tmp_path):
    write_file(tmp_path / "a.record", make_foreign([((5.0, 5.0, 10.0, 30.0), b"cyst", 1)]))
    with pytest.raises(
        AnnotationError, match=r"not relative to the image \(1 of 1 reach above 1\.5"
    ):
        read_tfrecords(tmp_path)


def test_boxes_that_reach_out_or_are_no_numbers_are_passed_on(tmp_path):
    boxes = [(-0.1, 0.5, 0.5, 1.2), (float("nan"), 0.0, 1.0, 1.0), (0.5, 0.5, 0.1, 0.1)]
    write_file(tmp_path / "a.record", make_foreign([(box, b"cyst", 1) for box in boxes]))
    (image,) = read_tfrecords(tmp_path).images
    np.testing.assert_allclose(image.boxes[0], [20, -2, 48, 10], rtol=1e-6)
    assert np.isnan(image.boxes[1, 1]) and image.boxes[2, 0] > image.boxes[2, 2]


def test_two_images_of_one_id_are_both_taken(tmp_path):
    other = encode_png(make_noise((20, 40), "u1") + 1)
    records = [
        make_foreign([(BOX, b"cyst", 1)], source_id=[b"0"]),
        make_foreign(image=other, source_id=[b"0"], object__class__label=[]),
    ]
    write_file(tmp_path / "a.record", *records)
    found = read_tfrecords(tmp_path)
    assert [image.source_id for image in found.images] == ["0", "a.record#1"]
    assert "1 record shares its image/source_id" in found.notes[0]


def test_the_case_of_a_newline_in_the_text():
    case = ROOT.parent / "shared" / "cases" / "field" / "13-tfrecord-text-with-newline" / "tfrtext"
    if not case.is_dir():
        pytest.skip(f"no cases: {case} is not a folder")
    found = read_tfrecords(case)
    assert found.label_names == ("nodule",) and not found.problems
    assert [image.labels for image in found.images] == [("nodule", "nodule")]


def find_short(found, truth):
    """Return the images that are complete and lack a box of the source."""
    short = []
    for image in found.images:
        boxes = [
            (label, *np.round(box, 3)) for label, box in zip(image.labels, image.boxes, strict=True)
        ]
        key = f"{image.path.name}#{image.item.index}"
        stated = [(clean_label(name), *np.round(xyxy, 3)) for name, xyxy in truth[key]]
        # What `clean_boxes` finds fault with is no longer complete when it is written.
        sound = not any(clean_boxes(image.boxes, tfrecords.HEIGHT, tfrecords.WIDTH)[2])
        if image.annotation == "complete" and sound and not set(stated) <= set(boxes):
            short.append(key)
    return short


def test_mutated_sources_lose_no_box_without_a_word(tmp_path):
    states = []
    for seed in range(300):
        folder = tmp_path / str(seed)
        folder.mkdir()
        truth = tfrecords.make(random.Random(seed), folder)
        try:
            found = read_tfrecords(folder)
        except AnnotationError:
            continue
        assert not find_short(found, truth), seed
        states += list_states(found)
    assert min(states.count(state) for state in ("complete", "faulty", "none")) > 10


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
    named = {"source_id": [b"DOE^JANE"], "patient": [b"DOE^JANE"]}
    record = make_foreign([(BOX, b"cyst", 1)], image=file.getvalue(), **named)
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
        flags={
            "is_crowd": [i == 1 for i in range(index)],
            "truncated": [i == 0 for i in range(index)],
        },
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
