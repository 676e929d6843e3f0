"""Transformations of an image: boxes stay where they are and keep their contrast."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from vae_aug.augment.guard import measure_contrast_ratio, measure_contrasts
from vae_aug.augment.transformed import MIN_CONTRAST, leave_unchanged, transform_guarded
from vae_aug.grey import compute_grey
from vae_aug.model.fields import GRID, TONES, Fields

BOXES = np.array([[0.3, 0.3, 0.5, 0.5], [0.7, 0.6, 0.8, 0.8], [np.nan] * 4, [-1.0] * 4], np.float32)
HOLDS = {"guard": "paste", "min_fidelity": 0.8}
LEAVES = {"guard": "off", "min_fidelity": 0.8}


def make_image(dtype=np.uint8, channels=1, size=96):
    """Make a disc with texture and two lesions, the boxes' pixels, of different contrast."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size] / size
    grey = 0.4 * ((rows - 0.5) ** 2 + (columns - 0.5) ** 2 < 0.2)
    for box, brighter in zip(BOXES[:2], (0.3, 0.1), strict=True):
        inside = (rows >= box[0]) & (rows < box[2]) & (columns >= box[1]) & (columns < box[3])
        grey = grey + brighter * inside
    grey = np.clip(grey + rng.normal(0, 0.03, grey.shape), 0, 1)
    high = 1 if np.issubdtype(dtype, np.floating) else np.iinfo(dtype).max
    return tf.constant(np.repeat(grey[..., None] * high, channels, -1).astype(dtype)), high


def make_fields(seed, displacement=0.02, slopes=0.7):
    rng = np.random.default_rng(seed)
    return Fields(
        tf.constant(rng.normal(0, displacement, (GRID, GRID, 2)), tf.float32),
        tf.constant(rng.normal(0, slopes, (GRID, GRID, TONES)), tf.float32),
        tf.constant(0.8),
    )


def transform(image, high, fields, boxes=BOXES, **options):
    return transform_guarded(image, fields, boxes, 0.0, float(high), **{**HOLDS, **options})


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_dtype_and_range_stay(dtype, channels):
    image, high = make_image(dtype, channels)
    changed, fidelity, failed = transform(image, high, make_fields(0))
    assert changed.dtype == image.dtype and changed.shape == image.shape
    values = changed.numpy().astype(np.float32)
    assert values.min() >= 0 and values.max() <= high
    assert np.mean(np.abs(values - image.numpy().astype(np.float32))) > 0.01 * high
    assert fidelity.shape == failed.shape == (4,)
    np.testing.assert_array_equal(np.isnan(fidelity), [False, False, True, True])
    assert not np.any(failed[2:])
    if channels == 3:
        np.testing.assert_array_equal(changed[..., 0], changed[..., 2])


def test_geometry_stays_in_boxes():
    image, high = make_image()
    moved = make_fields(0, slopes=0.0)
    changed, *_ = transform(image, high, moved, **LEAVES)
    rows, columns = (slice(int(96 * BOXES[0, i]), int(96 * BOXES[0, i + 2])) for i in (0, 1))
    np.testing.assert_array_equal(changed[rows, columns], image[rows, columns])
    assert np.any(changed != image)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), size=st.integers(20, 150), strength=st.floats(0.1, 2.0))
def test_no_box_loses_its_contrast(seed, size, strength):
    image, high = make_image(np.float32, size=size)
    changed, fidelity, _ = transform(image, high, make_fields(seed, slopes=strength))
    ratio = measure_contrast_ratio(image, changed, BOXES).numpy()[:2]
    before, after = (measure_contrasts(BOXES, one)[0].difference for one in (image, changed))
    left = np.minimum(ratio, np.sqrt((after / before).numpy()[:2]))
    np.testing.assert_allclose(fidelity[:2], np.minimum(left, 1), atol=1e-5)
    assert np.all(ratio >= HOLDS["min_fidelity"])
    assert np.all(fidelity[:2] >= HOLDS["min_fidelity"])


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 999), darker=st.floats(0.8, 3.0))
def test_no_box_grows_faint_with_all_around_it(seed, darker):
    image, high = make_image(np.float32)
    fields = make_fields(seed, displacement=0.0, slopes=0.2)
    fields = fields._replace(slopes=fields.slopes - darker)
    changed, fidelity, failed = transform(image, high, fields)
    before, after = (measure_contrasts(BOXES, one)[0].difference for one in (image, changed))
    assert np.all((after / before).numpy()[:2] >= HOLDS["min_fidelity"] ** 2)
    assert np.all(failed[:2]) and np.all(fidelity[:2] >= HOLDS["min_fidelity"])
    # The image has grown darker as far as that allows, and is not the original.
    assert float(tf.reduce_mean(changed)) < 0.8 * float(tf.reduce_mean(image))


def test_curves_are_weakened_only_where_a_box_fails():
    image, high = make_image(np.float32)
    sampled = [make_fields(seed, slopes=0.25) for seed in range(20)]
    kept = [transform(image, high, fields) for fields in sampled]
    free = [transform(image, high, fields, **LEAVES) for fields in sampled]
    acted = np.array([np.any(failed) for *_, failed in kept])
    assert 0 < acted.sum() < 20
    for (held, *_), (other, fidelity, failed), guarded in zip(kept, free, acted, strict=True):
        assert not np.any(failed)
        assert np.all(held == other) == (not guarded)
        assert np.any(fidelity[:2] < 0.8) == guarded
        assert np.any(held != image)


def test_keep_returns_the_original():
    image, high = make_image()
    strong = make_fields(1, slopes=2.0)
    changed, fidelity, failed = transform(image, high, strong, guard="keep")
    np.testing.assert_array_equal(changed, image)
    np.testing.assert_array_equal(failed, [True, True, False, False])
    np.testing.assert_array_equal(fidelity, [1.0, 1.0, np.nan, np.nan])


def test_a_box_without_contrast_has_nothing_to_lose():
    image, high = make_image(np.float32)
    box = np.array([[0.55, 0.4, 0.65, 0.5]], np.float32)
    flat = tf.where(image > 0.5, 0.4, image)
    before = transform(flat, high, make_fields(0).scale(0.0), box)[1]
    assert MIN_CONTRAST > 0 and before == [1.0]


def test_detail_can_be_left_out():
    image, high = make_image(np.float32, size=256)
    still = make_fields(0).scale(0.0)
    whole, *_ = transform(image, high, still, **LEAVES)
    np.testing.assert_allclose(whole, image, atol=1e-5)
    smooth, *_ = transform(image, high, still, **LEAVES, replaced=1.0)
    assert np.std(np.diff(smooth[100:150, 60:100, 0], axis=0)) < 0.5 * np.std(
        np.diff(image[100:150, 60:100, 0], axis=0)
    )


def test_an_image_that_is_left_has_a_report_as_well():
    image, _ = make_image()
    same, fidelity, failed = leave_unchanged(image, BOXES)
    np.testing.assert_array_equal(same, image)
    np.testing.assert_array_equal(fidelity, [1.0, 1.0, np.nan, np.nan])
    assert not np.any(failed)


def test_values_beyond_the_range_stay_where_they_are():
    image, _ = make_image(np.float32)
    image = tf.concat([tf.fill([1, 96, 1], -0.5), image[1:-1], tf.fill([1, 96, 1], 1.5)], axis=0)
    changed, *_ = transform(image, 1.0, make_fields(0, displacement=0.0), **LEAVES)
    assert float(tf.reduce_min(changed)) >= -0.5 and float(tf.reduce_max(changed)) <= 1.5
    np.testing.assert_allclose(compute_grey(changed, 0.0, 1.0)[0], -0.5, atol=1e-6)
