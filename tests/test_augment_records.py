"""Augmented records: what changes, what does not, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from fake_vae import BrighteningVAE, ErasingVAE, FakeVAE

from vae_aug.atomic import lock_folder
from vae_aug.augment.transform import VAEAugment
from vae_aug.codecs.images import EncodedImage, decode_image
from vae_aug.errors import RecordError
from vae_aug.extras.augment_records import augment_records, summarize_records
from vae_aug.extras.patients import count_patients, refuse_seen
from vae_aug.records.check import check_records
from vae_aug.records.records import (
    find_records,
    iterate_examples,
    make_example,
    read_info,
    read_records,
    write_records,
)
from vae_aug.version import __version__

LABELS = ("lesion", "stone")
# Not one of these survives a detour through float16, or through pixels and back.
BOXES = np.array([[1 / 3, 0.1, 0.7, 0.9], [0, 0, 1, 1], [0.2, 1 / 7, 0.3, 6 / 7]], np.float32)
SIZES = {"train": ((24, 20), (40, 32), (17, 31)), "validation": ((24, 20),), "test": ((16, 16),)}


def make_image(height, width, dtype=np.uint8, channels=1):
    """A ramp of the lower half of the range, so that 0.25 can be added without clipping."""
    ramp = np.arange(height * width).reshape(height, width, 1) % 120
    ramp = ramp.astype(dtype) * (1 if dtype is np.uint8 else 257)
    return np.repeat(ramp, channels, axis=2)


def write_data(folder, shards=1, **image):
    for split, sizes in SIZES.items():
        examples = [
            make_example(
                make_image(*size, **image),
                source_id=f"{split}-{index}",
                patient=f"{split}-patient",
                boxes=BOXES[:index],
                labels=[1, 0, 1][:index],
                label_names=LABELS,
                flags={"difficult": [True, False, False][:index]},
                extra={"clinic/scanner": "A"},
            )
            for index, size in enumerate(sizes)
        ]
        write_records(examples, folder, split, min(shards, len(sizes)), label_names=LABELS)
    return folder


@pytest.fixture
def records(tmp_path):
    return write_data(tmp_path / "records")


def make_augment(vae=None, **settings):
    return VAEAugment(vae or BrighteningVAE(), **{"seed": 0, "guard": "off", **settings})


def read_examples(folder, split):
    files, _ = find_records(folder, split)
    return [example for path in files for _, example in iterate_examples(path)]


def values(example, key):
    feature = example.features.feature[key]
    return list(getattr(feature, feature.WhichOneof("kind")).value)


def get_image(example):
    return decode_image(values(example, "image/encoded")[0])


def test_training_images_change_and_nothing_else_does(records, tmp_path):
    report = augment_records(records, tmp_path / "out", make_augment())
    before, after = read_examples(records, "train"), read_examples(tmp_path / "out", "train")
    assert len(after) == 3
    for old, new in zip(before, after, strict=True):
        # The stand-in adds 0.25 of the range: 255 / 4 = 63.75, rounded.
        np.testing.assert_array_equal(get_image(new), get_image(old) + 64)
        changed = {"image/encoded", "image/key/sha256"}
        for key in set(old.features.feature) - changed:
            assert new.features.feature[key] == old.features.feature[key], key
    assert check_records(tmp_path / "out", "train") == 3
    split = report.augmented["train"]
    assert (split.images, split.augmented, split.boxes, split.judged) == (3, 3, 3, 3)
    assert report.copied == {"validation": 1, "test": 1}


def test_other_splits_are_copied_byte_for_byte(records, tmp_path):
    out = tmp_path / "out"
    augment_records(records, out, make_augment())
    for split in ("validation", "test"):
        name = f"{split}-00000-of-00001.tfrecord"
        assert (out / name).read_bytes() == (records / name).read_bytes()
    assert (out / "label_map.pbtxt").read_bytes() == (records / "label_map.pbtxt").read_bytes()
    before, after = (json.loads((folder / "dataset.json").read_text()) for folder in (records, out))
    # The augmented images are other files.
    assert before["splits"]["train"].pop("shard_bytes") != after["splits"]["train"].pop(
        "shard_bytes"
    )
    assert after == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "records"]


SETTINGS = (
    b'{"detail": 1.0, "engine": "tensorflow", "factor": 0.5, "guard": "off", '
    b'"min_fidelity": 0.25, "mode": "sample", '
    b'"p": 1.0, "seed": 7, "value_range": null}'
)


def test_each_record_says_what_was_done_to_it(records, tmp_path):
    augment = make_augment(mode="sample", factor=0.5, seed=7, min_fidelity=0.25)
    augment_records(records, tmp_path / "out", augment)
    for index, example in enumerate(read_examples(tmp_path / "out", "train")):
        told = {k: values(example, k) for k in example.features.feature if "augment/" in k}
        fidelity = told.pop("augment/fidelity")
        assert len(fidelity) == index and all(0 < value < 1 for value in fidelity)
        assert len(told.pop("augment/contrast")) == index
        assert told == {
            "augment/augmented": [1],
            "augment/checkpoint": [b"fake"],
            "augment/mode": [b"sample"],
            "augment/factor": [0.5],
            "augment/detail": [1.0],
            "augment/guard": [b"off"],
            "augment/min_fidelity": [0.25],
            "augment/seed": [7],
            "augment/version": [__version__.encode()],
            "augment/settings": [SETTINGS],
            "augment/guarded": [0] * index,
        }


def test_the_guard_s_work_is_recorded(records, tmp_path):
    augment = make_augment(ErasingVAE(), guard="paste")
    report = augment_records(records, tmp_path / "out", augment)
    third = read_examples(tmp_path / "out", "train")[2]
    assert values(third, "augment/guarded") == [1, 1]
    assert values(third, "augment/fidelity") == pytest.approx([1, 1])
    assert report.augmented["train"].guarded == 3
    assert report.augmented["train"].lowest_fidelity == pytest.approx(1)


def test_records_that_were_not_chosen_keep_their_bytes(records, tmp_path):
    report = augment_records(records, tmp_path / "out", make_augment(p=0.0))
    assert report.augmented["train"].augmented == 0
    before, after = read_examples(records, "train"), read_examples(tmp_path / "out", "train")
    for old, new in zip(before, after, strict=True):
        assert values(new, "image/encoded") == values(old, "image/encoded")
        assert values(new, "augment/augmented") == [0]


def test_the_result_is_what_the_transform_makes_of_the_elements(records, tmp_path):
    augment = make_augment(FakeVAE(), seed=3)
    augment_records(records, tmp_path / "out", augment)
    expected = read_records(records, "train").map(augment)
    written = read_records(tmp_path / "out", "train")
    for wanted, got in zip(expected, written, strict=True):
        np.testing.assert_array_equal(got["image"], wanted["image"])
        assert (
            got["objects"]["bbox"].numpy().tobytes() == wanted["objects"]["bbox"].numpy().tobytes()
        )


def test_two_runs_are_byte_identical(records, tmp_path):
    for name in ("a", "b"):
        augment_records(records, tmp_path / name, make_augment(FakeVAE(), seed=3))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize("shards", [None, 2])
def test_shards_keep_the_order(tmp_path, shards):
    records = write_data(tmp_path / "records", shards=3)
    augment_records(records, tmp_path / "out", make_augment(), shards=shards)
    files, _ = find_records(tmp_path / "out", "train")
    assert len(files) == (shards or 3)
    ids = [e["image/source_id"].numpy().decode() for e in read_records(tmp_path / "out", "train")]
    assert ids == ["train-0", "train-1", "train-2"]


def test_depth_and_channels_of_each_record_are_kept(tmp_path):
    folder = tmp_path / "records"
    kinds = [(np.uint8, 1), (np.uint16, 1), (np.uint8, 3)]
    examples = [
        make_example(
            make_image(20, 24, dtype, channels),
            source_id=f"{index}",
            boxes=BOXES[:0],
            labels=[],
            label_names=LABELS,
        )
        for index, (dtype, channels) in enumerate(kinds)
    ]
    write_records(examples, folder, "train", label_names=LABELS)
    augment_records(folder, tmp_path / "out", make_augment())
    for example, (dtype, channels) in zip(
        read_examples(tmp_path / "out", "train"), kinds, strict=True
    ):
        image, original = get_image(example), make_image(20, 24, dtype, channels)
        assert image.dtype == dtype and image.shape == original.shape
        step = 64 if dtype is np.uint8 else round(65535 / 4)
        np.testing.assert_array_equal(image, original + step)


def test_a_jpeg_becomes_a_png(tmp_path):
    pixels = make_image(16, 16)
    encoded = tf.io.encode_jpeg(pixels).numpy()
    example = make_example(
        EncodedImage(encoded, "jpeg", 16, 16, 1, 8),
        source_id="scan.jpg",
        boxes=BOXES[:1],
        labels=[0],
        label_names=LABELS,
    )
    write_records([example], tmp_path / "records", "train", label_names=LABELS)
    augment_records(tmp_path / "records", tmp_path / "out", make_augment())
    (example,) = read_examples(tmp_path / "out", "train")
    assert values(example, "image/format") == [b"png"]
    assert values(example, "image/filename") == [b"scan.png"]
    assert values(example, "image/source_id") == [b"scan.jpg"]
    assert check_records(tmp_path / "out") == 1


def test_evaluation_splits_are_augmented_only_by_force(records, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"splits names validation: .*--augment-evaluation"):
        augment_records(records, out, make_augment(), splits=["train", "val"])
    assert not out.exists()
    report = augment_records(records, out, make_augment(), splits=["val"], augment_evaluation=True)
    assert report.copied == {"train": 3, "test": 1}
    (example,) = read_examples(out, "validation")
    np.testing.assert_array_equal(get_image(example), make_image(24, 20) + 64)


@pytest.mark.parametrize("splits", [["trian"], []])
def test_splits_that_the_source_lacks_are_refused(records, tmp_path, splits):
    with pytest.raises(ValueError, match="splits must name some of test, train, validation"):
        augment_records(
            records, tmp_path / "out", make_augment(), splits=splits, augment_evaluation=True
        )


def test_a_transform_without_seed_is_refused(records, tmp_path):
    with pytest.raises(ValueError, match="needs a VAEAugment with a seed"):
        augment_records(records, tmp_path / "out", make_augment(seed=None))


def read_attributes(example):
    prefix = "image/object/attribute/"
    return {
        k.removeprefix(prefix): values(example, k) for k in example.features.feature if prefix in k
    }


def test_boxes_have_integer_attributes_that_other_decoders_read(records, tmp_path):
    augment_records(records, tmp_path / "out", make_augment(ErasingVAE(), guard="off"))
    example = read_examples(tmp_path / "out", "train")[2]
    fidelity = values(example, "augment/fidelity")
    assert read_attributes(example) == {
        "fidelity_permille": [round(1000 * value) for value in fidelity],
        "contrast_permille": [-1, -1],  # the second box leaves no surroundings
        "guarded": [0, 0],
    }


def test_contrast_is_told_as_the_transform_tells_it(records, tmp_path):
    augment = make_augment(FakeVAE(noise=0.3), guard="off")
    augment_records(records, tmp_path / "out", augment)
    (report,) = [
        augment.call_with_report(element)[1]
        for element in read_records(records, "train")
        if element["image/source_id"] == b"train-1"
    ]
    example = read_examples(tmp_path / "out", "train")[1]
    (contrast,) = report["contrast"].numpy()
    assert contrast > 0
    assert values(example, "augment/contrast") == [contrast]
    assert read_attributes(example)["contrast_permille"] == [round(1000 * float(contrast))]


def test_a_box_that_cannot_be_judged_is_told_by_a_number_no_fidelity_has(tmp_path):
    example = make_example(
        make_image(24, 20),
        source_id="a",
        boxes=np.array([[0.5, 0.5, 0.5, 0.9]], np.float32),
        labels=[0],
        label_names=LABELS,
    )
    write_records([example], tmp_path / "records", "train", label_names=LABELS)
    augment_records(tmp_path / "records", tmp_path / "out", make_augment())
    (example,) = read_examples(tmp_path / "out", "train")
    assert read_attributes(example) == {
        "fidelity_permille": [-1],
        "contrast_permille": [-1],
        "guarded": [0],
    }


def test_patients_that_the_network_was_trained_on_are_told_in_evaluation_splits(records, tmp_path):
    network = BrighteningVAE()
    network.patients = frozenset({"train-patient", "test-patient"})
    report = augment_records(records, tmp_path / "out", make_augment(network))
    assert report.seen_patients == {"test": 1}
    with pytest.raises(RecordError, match=r"patients of evaluation splits \(1 of the split 'test'"):
        refuse_seen(records, count_patients(records, make_augment(network)))
    network.patients = frozenset({"train-patient"})
    refuse_seen(records, count_patients(records, make_augment(network)))


def test_a_folder_that_is_not_empty_is_left_alone(records, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    augment_records(records, out, make_augment())
    before = (out / "train-00000-of-00001.tfrecord").stat()
    with pytest.raises(RecordError, match="not empty"):
        augment_records(records, out, make_augment())
    with pytest.raises(RecordError, match="not empty"):
        augment_records(records, records, make_augment())
    assert (out / "train-00000-of-00001.tfrecord").stat() == before


def test_augmented_records_are_not_augmented_again(records, tmp_path):
    augment_records(records, tmp_path / "once", make_augment())
    with pytest.raises(RecordError, match="record 0 of the split 'train' was augmented before"):
        augment_records(tmp_path / "once", tmp_path / "twice", make_augment())
    assert not (tmp_path / "twice").exists()


def test_a_damaged_record_is_named_and_nothing_is_left(records, tmp_path):
    path = records / "train-00000-of-00001.tfrecord"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"train-00000-of-00001\.tfrecord, record 2: damaged"):
        augment_records(records, tmp_path / "out", make_augment())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["records"]


def test_an_interrupt_leaves_nothing(records, tmp_path):
    def interrupt(done, total):
        assert total == 3
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        augment_records(records, tmp_path / "out", make_augment(), progress=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["records"]


def test_a_summary_counts_and_names_nobody(records, tmp_path):
    augment_records(records, tmp_path / "out", make_augment())
    summary = summarize_records(find_records(tmp_path / "out", "train")[0])
    assert (summary.images, summary.boxes, summary.patients, summary.augmented) == (3, 3, 1, 3)
    assert summary.labels == {"stone": 2, "lesion": 1}
    assert summary.formats == {"png, 8 bits, 1 channel": 3}
    (settings,) = summary.settings
    assert settings.startswith("mode sample, factor 1, detail 1, guard off")
    assert "patient" not in json.dumps(settings) and "train-" not in settings
    untouched = summarize_records(find_records(tmp_path / "out", "test")[0])
    assert untouched.augmented == 0 and not untouched.settings


# --- Folders that another run holds, or left; records that are damaged


def test_a_second_run_into_the_same_folder_is_refused(records, tmp_path):
    with (
        lock_folder(tmp_path / "out", beside=True),
        pytest.raises(RecordError, match="another run writes to this folder"),
    ):
        augment_records(records, tmp_path / "out", make_augment())
    augment_records(records, tmp_path / "out", make_augment())


def test_what_a_killed_run_left_is_removed(records, tmp_path):
    left = tmp_path / ".out.0123abcd.tmp"
    left.mkdir()
    (left / "train-00000-of-00001.tfrecord").write_bytes(b"half")
    other = tmp_path / ".other.0123abcd.tmp"
    other.mkdir()
    augment_records(records, tmp_path / "out", make_augment())
    assert not left.exists() and other.is_dir()


def test_a_damaged_split_is_refused_or_its_loss_is_told(records, tmp_path):
    (path,) = records.glob("train-*")
    whole = read_info(records).splits["train"].examples
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(RecordError, match="train-00000-of-00001"):
        augment_records(records, tmp_path / "out", make_augment())
    assert not (tmp_path / "out").exists()
    report = augment_records(records, tmp_path / "out", make_augment(), allow_damaged=True)
    assert report.augmented["train"].lost == 1
    written = read_info(tmp_path / "out").splits["train"]
    assert (written.examples, written.lost) == (whole - 1, 1)
    assert check_records(tmp_path / "out", "train") == whole - 1


def test_unannotated_images_are_copied(records, tmp_path):
    info = read_info(records)
    example = read_examples(records, "train")[0]
    write_records([example], records, "train_unannotated", label_names=info.label_names)
    augment_records(records, tmp_path / "out", make_augment())
    name = "train_unannotated-00000-of-00001.tfrecord"
    assert (tmp_path / "out" / name).read_bytes() == (records / name).read_bytes()
    assert list(read_info(tmp_path / "out").unannotated) == ["train_unannotated"]
