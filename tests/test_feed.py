"""Training and validation batches."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from vae_aug.config import TrainConfig
from vae_aug.errors import RecordError
from vae_aug.records.check import iterate_examples
from vae_aug.records.records import make_example, write_records, write_split
from vae_aug.train.feed import (
    cut_out,
    fit,
    make_training_feed,
    make_validation_feed,
    open_source,
)

SIZE = 32


def write_source(folder, dtype, count=6):
    """Write grey squares whose brightness tells them apart, with one box each."""
    top = np.iinfo(dtype).max
    examples = [
        make_example(
            np.full((SIZE, SIZE, 1), top * (index + 1) // (count + 1), dtype),
            source_id=str(index),
            boxes=np.array([[0.25, 0.25, 0.5, 0.75]]),
            labels=[0],
            label_names=("lesion",),
        )
        for index in range(count)
    ]
    for split in "train", "validation":
        write_records(examples, folder, split, 1, label_names=("lesion",))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    return [write_source(root / "eight", np.uint8), write_source(root / "sixteen", np.uint16)]


def collect(feed, count):
    return [tuple(part.numpy() for part in batch) for batch in feed.take(count)]


def test_batches_mix_sources_of_both_depths(folders):
    sources = [open_source(folder, "train") for folder in folders]
    assert [source.dtype for source in sources] == ["uint8", "uint16"]
    config = TrainConfig(batch_size=4, box_weight=3.0)
    for noisy, clean, weights in collect(make_training_feed(sources, SIZE, config), 3):
        assert noisy.shape == clean.shape == weights.shape == (4, SIZE, SIZE, 1)
        assert noisy.dtype == clean.dtype == np.float32
        assert min(noisy.min(), clean.min()) >= 0
        assert max(noisy.max(), clean.max()) <= 1
        assert weights.max() == pytest.approx(3.0)


@pytest.mark.parametrize(("workers", "replicas"), [(2, 2), (3, 6)])
def test_workers_read_the_parts_of_one_batch(folders, workers, replicas):
    sources = [open_source(folder, "train") for folder in folders]
    config = TrainConfig(batch_size=6, seed=5)
    whole = collect(make_training_feed(sources, SIZE, config, start=1), 2)
    local = replicas // workers
    parts = [
        collect(
            make_training_feed(
                sources, SIZE, config, 1, tf.distribute.InputContext(workers, worker, replicas)
            ),
            2 * local,
        )
        for worker in range(workers)
    ]
    for step, expected in enumerate(whole):
        batch = [part for read in parts for part in read[step * local : (step + 1) * local]]
        for left, right in zip(expected, zip(*batch, strict=True), strict=True):
            np.testing.assert_array_equal(left, np.concatenate(right))


def test_a_run_started_later_sees_the_batches_it_would_have_seen(folders):
    sources = [open_source(folder, "train") for folder in folders]
    config = TrainConfig(batch_size=3, seed=5)
    whole = collect(make_training_feed(sources, SIZE, config), 7)
    late = collect(make_training_feed(sources, SIZE, config, start=4), 3)
    for expected, batch in zip(whole[4:], late, strict=True):
        for left, right in zip(expected, batch, strict=True):
            np.testing.assert_array_equal(left, right)


def test_the_seed_changes_the_batches(folders):
    sources = [open_source(folders[0], "train")]
    first, second = (
        collect(make_training_feed(sources, SIZE, TrainConfig(batch_size=4, seed=seed)), 1)[0][0]
        for seed in (1, 2)
    )
    assert not np.array_equal(first, second)


def test_clean_share_of_one_leaves_images_clean(folders):
    sources = [open_source(folders[0], "train")]
    config = TrainConfig(batch_size=6, clean_share=1.0)
    noisy, clean, *_ = collect(make_training_feed(sources, SIZE, config), 1)[0]
    np.testing.assert_array_equal(noisy, clean)


def test_validation_is_always_the_same_and_takes_sources_in_turn(folders):
    sources = [open_source(folder, "validation") for folder in folders]
    feed = make_validation_feed(sources, SIZE, TrainConfig(batch_size=4), limit=6)
    first, second = collect(feed, 9), collect(feed, 9)
    assert sum(len(clean) for _, clean in first) == 6
    for left, right in zip(first, second, strict=True):
        np.testing.assert_array_equal(left[0], right[0])
    noisy, clean = first[0]
    # Both sources hold the same picture first; 40% of the pixels are left of it.
    np.testing.assert_allclose(clean[0], clean[1], atol=0.01)
    assert np.mean(np.isclose(noisy[0], clean[0])) == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("cut", [fit, functools.partial(cut_out, seed=tf.constant([1, 2]))])
def test_colour_is_seen_as_by_the_transform(cut):
    """Luminance by ITU-R BT.601 of a colour, in uint16: 0.299 R + 0.587 G + 0.114 B."""
    element = {
        "image": tf.fill([SIZE, SIZE, 1], 1) * tf.constant([60000, 30000, 10000]),
        "objects": {"bbox": tf.zeros([0, 4])},
    }
    element["image"] = tf.cast(element["image"], tf.uint16)
    image, _ = cut(element, SIZE, 1.0)
    grey = (0.299 * 60000 + 0.587 * 30000 + 0.114 * 10000) / 65535
    np.testing.assert_allclose(image, np.full((SIZE, SIZE, 1), grey), atol=1e-6)


def test_weights_cover_the_box_and_nothing_else():
    element = {
        "image": tf.zeros([20, 40, 3], tf.uint8),
        "objects": {"bbox": tf.constant([[0.5, 0.25, 1.0, 0.5], [0.5, 0.25, 1.0, 0.5]])},
    }
    image, weights = fit(element, 40, 5.0)
    assert image.shape == (40, 40, 1)
    expected = np.ones((40, 40))
    expected[20:30, 10:20] = 5.0  # content lies in rows 10 to 30
    np.testing.assert_array_equal(weights[..., 0], expected)


def test_a_missing_split_is_named(folders):
    with pytest.raises(RecordError, match="test"):
        open_source(folders[0], "test")


def test_cutting_out_neither_scales_nor_loses_a_box():
    values = tf.random.stateless_uniform([50, 70, 1], [1, 1], 0, 256, tf.int32)
    box = [[10 / 50, 20 / 70, 30 / 50, 40 / 70]]
    element = {"image": tf.cast(values, tf.uint8), "objects": {"bbox": tf.constant(box)}}
    corners = set()
    for seed in range(8):
        image, weights = (x.numpy() for x in cut_out(element, 32, 5.0, tf.constant([seed, 0])))
        whole = values.numpy() / 255.0
        places = [
            (top, left)
            for top in range(19)
            for left in range(39)
            if np.allclose(image, whole[top : top + 32, left : left + 32], atol=1e-6)
        ]
        ((top, left),) = places
        expected = np.ones((50, 70, 1), np.float32)
        expected[10:30, 20:40] = 5.0
        np.testing.assert_array_equal(weights, expected[top : top + 32, left : left + 32])
        corners.add((top, left))
    assert len(corners) > 4


def test_cutting_out_of_a_small_image_fills_up_with_black():
    element = {
        "image": tf.fill([20, 40, 1], tf.constant(255, tf.uint8)),
        "objects": {"bbox": tf.zeros([0, 4])},
    }
    image, _ = cut_out(element, 32, 1.0, tf.constant([1, 1]))
    np.testing.assert_array_equal(image[:20], 1.0)
    np.testing.assert_array_equal(image[20:], 0.0)


@pytest.mark.slow
def test_a_native_share_leaves_the_rest_scaled(folders):
    sources = [open_source(folder, "train") for folder in folders]
    plain = TrainConfig(batch_size=16, box_weight=3.0, seed=4)
    mixed = dataclasses.replace(plain, native_share=0.5)
    scaled, some = (
        collect(make_training_feed(sources, SIZE // 2, c), 1)[0][2] for c in (plain, mixed)
    )
    same = [np.array_equal(a, b) for a, b in zip(scaled, some, strict=True)]
    assert 0 < sum(same) < len(same)


def test_a_shrunk_share_is_scaled_down(folders):
    sources = [open_source(folder, "train") for folder in folders]
    plain = TrainConfig(batch_size=16, clean_share=1.0, box_weight=3.0, seed=4)
    some = dataclasses.replace(plain, shrunk_share=0.5)
    ((_, whole, _),) = collect(make_training_feed(sources, SIZE, plain), 1)
    ((_, clean, weights),) = collect(make_training_feed(sources, SIZE, some), 1)
    least = (SIZE // 3) ** 2  # a part of which may be moved out
    filled = [int(np.sum(image > 0)) for image in clean]
    shrunk = [count < int(np.sum(image > 0)) for count, image in zip(filled, whole, strict=True)]
    assert 2 <= sum(shrunk) <= 14
    assert all(least / 3 <= count <= SIZE**2 for count in filled)
    for image, weight, is_shrunk in zip(clean, weights, shrunk, strict=True):
        if is_shrunk:
            assert weight[image == 0].max() <= 1.0
            assert weight.max() > 2.0


def test_restyling_lays_another_style_over_every_image(folders):
    sources = [open_source(folder, "train") for folder in folders]
    plain = TrainConfig(batch_size=4, clean_share=1.0)
    restyled = dataclasses.replace(plain, restyle=True)
    ((_, clean, _),) = collect(make_training_feed(sources, SIZE, plain), 1)
    ((noisy, changed, _),) = collect(make_training_feed(sources, SIZE, restyled), 1)
    np.testing.assert_array_equal(noisy, changed)
    assert np.all(np.abs(changed - clean).mean(axis=(1, 2, 3)) > 1e-3)
    ratios = (changed.mean(axis=(1, 2, 3)) / clean.mean(axis=(1, 2, 3))).round(4)
    assert len(set(ratios)) == len(ratios)


def test_images_that_are_not_annotated_are_learned_from(tmp_path):
    """They are all that a folder of bare images has, and come beside annotated ones."""
    write_source(tmp_path, np.uint8)
    examples = [example for _, example in iterate_examples(next(tmp_path.glob("train-*")))]
    write_split(
        [(example, False) for example in examples[:2]], tmp_path / "bare", "train", label_names=()
    )
    write_split(
        [(example, index % 2 == 0) for index, example in enumerate(examples)],
        tmp_path / "both",
        "train",
        label_names=("lesion",),
    )
    for name, count in (("bare", 2), ("both", 6)):
        source = open_source(tmp_path / name, "train")
        assert sum(1 for _ in source.examples) == count


def test_a_damaged_source_is_refused_unless_told(tmp_path):
    write_source(tmp_path, np.uint8)
    (path,) = tmp_path.glob("train-*")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(RecordError, match="train-00000-of-00001"):
        open_source(tmp_path, "train")
    assert sum(1 for _ in open_source(tmp_path, "train", allow_damaged=True).examples) == 5
