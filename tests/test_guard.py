from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from vae_aug.augment.guard import (
    change_guarded,
    guard_change,
    make_windows,
    measure_contrast_ratio,
    measure_fidelity,
)
from vae_aug.evaluate.diversity import measure_contrast
from vae_aug.evaluate.metrics import make_box_mask
from vae_aug.grey import change_luminance, compute_grey
from vae_aug.train.corrupt import corrupt

NAN = float("nan")


def image(seed=0, height=40, width=60):
    return tf.constant(np.random.default_rng(seed).random((height, width, 1), np.float32))


def boxes(*rows):
    return tf.constant(rows, tf.float32)


def ssim_by_hand(x, y, window, span):
    top, left, bottom, right = window
    x = x.numpy()[top:bottom, left:right, 0].astype(np.float64)
    y = y.numpy()[top:bottom, left:right, 0].astype(np.float64)
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    covariance = np.mean((x - x.mean()) * (y - y.mean()))
    return ((2 * x.mean() * y.mean() + c1) * (2 * covariance + c2)) / (
        (x.mean() ** 2 + y.mean() ** 2 + c1) * (x.var() + y.var() + c2)
    )


def test_window_is_the_box_with_its_margin_in_whole_pixels():
    # Rows 10 to 30 of 40: margin 2. Columns 15 to 45 of 60: margin 3.
    windows = make_windows(boxes([0.25, 0.25, 0.75, 0.75]), 40, 60)
    assert [float(side[0]) for side in windows[:4]] == [8.0, 12.0, 32.0, 48.0]


def test_window_stays_inside_the_image():
    windows = make_windows(boxes([0.0, 0.9, 1.0, 1.0]), 40, 60)
    assert [float(side[0]) for side in windows[:4]] == [0.0, 52.0, 40.0, 60.0]


@pytest.mark.parametrize(
    "row",
    [
        [-1, -1, -1, -1],
        [0, 0, 0, 0],
        [NAN, NAN, NAN, NAN],
        [0.1, NAN, 0.5, 0.5],
        [0.5, 0.5, 0.4, 0.6],
        [0.2, 0.3, 0.2, 0.6],
        [1.5, 0.1, 1.8, 0.4],
        [float("-inf"), 0.1, 0.5, float("inf")],
    ],
    ids=["minus-one", "zero", "nan", "part-nan", "reversed", "no-area", "outside", "infinite"],
)
def test_box_without_a_window_has_no_fidelity_and_is_ignored(row):
    x, y = image(0), image(1)
    assert np.isnan(measure_fidelity(x, y, boxes(row)).numpy()).all()
    assert np.isnan(measure_contrast_ratio(x, y, boxes(row)).numpy()).all()
    change = y - x
    kept = guard_change(change, boxes(row), tf.constant([True]), "paste")
    np.testing.assert_array_equal(kept, change)


def test_fidelity_is_ssim_over_the_window():
    x, y = image(0), image(1)
    y = 0.7 * x + 0.3 * y
    measured = measure_fidelity(x, y, boxes([0.25, 0.25, 0.75, 0.75], [0.0, 0.9, 1.0, 1.0]))
    span = float(np.ptp(x.numpy()))
    expected = [
        ssim_by_hand(x, y, (8, 12, 32, 48), span),
        ssim_by_hand(x, y, (0, 52, 40, 60), span),
    ]
    np.testing.assert_allclose(measured, expected, atol=1e-6)


def test_fidelity_of_the_same_image_is_one_and_of_an_erased_lesion_is_low():
    x = np.full((64, 64, 1), 0.3, np.float32)
    x[30:34, 30:34] = 0.8
    box = boxes([30 / 64, 30 / 64, 34 / 64, 34 / 64])
    erased = tf.fill(x.shape, 0.3)
    assert measure_fidelity(tf.constant(x), tf.constant(x), box).numpy() == pytest.approx(1.0)
    assert measure_fidelity(tf.constant(x), erased, box) < 0.2


def test_range_of_the_image_scales_the_constants():
    """12-bit data stored in 16 bits is judged as strictly as if it filled them."""
    x, y = image(0), image(1)
    box = boxes([0.1, 0.1, 0.6, 0.6])
    whole = measure_fidelity(x, y, box)
    np.testing.assert_allclose(measure_fidelity(x / 16, y / 16, box), whole, atol=1e-5)


def test_denoised_lesion_is_not_mistaken_for_a_lost_one():
    rng = np.random.default_rng(3)
    clean = np.full((64, 64, 1), 0.3, np.float32)
    clean[24:40, 24:40] = 0.7
    noisy = tf.constant(clean + rng.normal(0, 0.15, clean.shape).astype(np.float32))
    erased = tf.fill(clean.shape, 0.3)
    box = boxes([24 / 64, 24 / 64, 40 / 64, 40 / 64])
    assert measure_fidelity(noisy, tf.constant(clean), box) < 0.8
    assert measure_fidelity(noisy, tf.constant(clean), box, denoised=True) > 0.9
    assert measure_fidelity(noisy, erased, box, denoised=True) < 0.2


@pytest.mark.parametrize("noise", ["replace", "blend", "gaussian", "rician"])
@pytest.mark.parametrize("side", [10, 24])
def test_a_restored_lesion_passes_and_an_erased_one_does_not_whatever_the_noise(noise, side):
    """With 40% left, noise also takes contrast and lifts the level; giving them back is no harm."""
    clean = np.full((96, 96, 1), 0.2, np.float32)
    end = 36 + side
    clean[36:end, 36:end] = 0.8
    box = boxes([36 / 96, 36 / 96, end / 96, end / 96])
    erased = tf.fill(clean.shape, 0.2)
    for seed in range(5):
        noisy = corrupt(tf.constant(clean), noise, 0.4, [seed, 1])
        assert measure_fidelity(noisy, tf.constant(clean), box) < 0.8
        assert measure_fidelity(noisy, tf.constant(clean), box, denoised=True) > 0.8
        assert measure_fidelity(noisy, erased, box, denoised=True) < 0.8


def test_nothing_can_be_lost_where_nothing_stands_out_of_the_noise():
    flat = tf.fill([64, 64, 1], 0.4)
    box = boxes([0.3, 0.3, 0.6, 0.6])
    passed = [
        measure_fidelity(corrupt(flat, "gaussian", 0.4, [s, 1]), flat, box, denoised=True) >= 0.8
        for s in range(40)
    ]
    assert np.mean(passed) >= 0.95


def test_another_shape_in_the_place_of_a_lesion_fails():
    rng = np.random.default_rng(3)
    clean = np.full((64, 64, 1), 0.3, np.float32)
    clean[24:40, 24:32] = 0.7
    noisy = tf.constant(clean + rng.normal(0, 0.15, clean.shape).astype(np.float32))
    box = boxes([24 / 64, 24 / 64, 40 / 64, 40 / 64])
    mirrored = tf.constant(clean[:, ::-1].copy())
    assert measure_fidelity(noisy, mirrored, box, denoised=True) < 0.2


def test_paste_restores_the_window_exactly_and_fades_outside():
    change = tf.ones([60, 60, 1])
    box = boxes([20 / 60, 20 / 60, 40 / 60, 40 / 60])
    guarded = guard_change(change, box, tf.constant([True]), "paste").numpy()[..., 0]
    np.testing.assert_array_equal(guarded[18:42, 18:42], 0.0)
    edge = guarded[30, 42:50]
    assert (np.diff(edge) >= 0).all() and 0 < edge[0] < 0.2 and edge[-1] == 1.0
    assert guarded[0, 0] == 1.0 and guarded[30, 5] == 1.0


def test_paste_leaves_boxes_that_passed_alone():
    change = tf.ones([60, 60, 1])
    both = boxes([0.1, 0.1, 0.2, 0.2], [0.7, 0.7, 0.9, 0.9])
    guarded = guard_change(change, both, tf.constant([False, True]), "paste").numpy()[..., 0]
    np.testing.assert_array_equal(guarded[6:12, 6:12], 1.0)
    np.testing.assert_array_equal(guarded[42:54, 42:54], 0.0)


def test_overlapping_windows_are_all_exact():
    change = tf.ones([60, 60, 1])
    rows = [[0.2 + 0.01 * i, 0.3, 0.5 + 0.01 * i, 0.6] for i in range(20)]
    guarded = guard_change(change, boxes(*rows), tf.ones([20], tf.bool), "paste")
    windows = make_windows(boxes(*rows), 60, 60)
    for i in range(20):
        top, left, bottom, right = (int(side[i]) for side in windows[:4])
        np.testing.assert_array_equal(guarded[top:bottom, left:right], 0.0)
    assert guarded.numpy().min() >= 0.0 and guarded.numpy().max() <= 1.0


def test_keep_acts_on_the_whole_of_an_image_with_a_failed_box_only():
    change = tf.ones([8, 8, 1])
    two = boxes([0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9])
    failed, passed = (tf.constant([one, False]) for one in (True, False))
    assert guard_change(change, two, failed, "keep").numpy().max() == 0.0
    assert guard_change(change, two, passed, "keep").numpy().min() == 1.0


def test_off_changes_nothing():
    change = tf.ones([8, 8, 1])
    assert guard_change(change, boxes([0, 0, 1, 1]), tf.constant([True]), "off") is change


def test_no_boxes():
    x = image()
    none = tf.zeros([0, 4])
    assert measure_fidelity(x, x, none).shape == (0,)
    assert measure_contrast_ratio(x, x, none).shape == (0,)
    np.testing.assert_array_equal(guard_change(x, none, tf.zeros([0], tf.bool), "paste"), x)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2)])
def test_tiny_images(size):
    x = image(height=size[0], width=size[1])
    box = boxes([0, 0, 1, 1])
    assert measure_fidelity(x, x, box).numpy() == pytest.approx(1.0)
    assert guard_change(x, box, tf.constant([True]), "paste").numpy().max() == 0.0


def guard_plainly(image, change, rows, low, high, guard, denoised):
    """Judge every box of the whole image again in every round."""
    grey, failed = compute_grey(image, low, high), tf.zeros(rows.shape[:1], tf.bool)
    while True:
        changed = change_luminance(image, guard_change(change, rows, failed, guard), low, high)
        after = compute_grey(changed, low, high)
        fidelity = measure_fidelity(grey, after, rows, denoised=denoised)
        new = (fidelity < 0.8) & ~failed
        if guard == "off" or not tf.reduce_any(new):
            return changed, fidelity, failed
        failed |= new


@pytest.mark.parametrize("guard", ["paste", "keep", "off"])
@pytest.mark.parametrize("denoised", [False, True])
def test_guard_that_judges_few_boxes_again_does_what_one_that_judges_all_does(guard, denoised):
    acted = 0
    for seed, side in enumerate((0.05, 0.15, 0.3)):
        rng = np.random.default_rng(seed)
        planes = np.repeat(np.repeat(rng.random((2, 8, 11, 1)), 9, axis=1), 9, axis=2)
        images = tf.cast(255 * (0.7 * planes + 0.3 * rng.random(planes.shape)), tf.uint8)
        limits = (tf.constant(0.0), tf.constant(255.0))
        change = tf.nn.avg_pool2d(compute_grey(images, *limits), 9, 1, "SAME") - planes
        corners = rng.uniform(-0.1, 1.0, (2, 12, 2))
        rows = np.concatenate([corners, corners + side], axis=-1)
        rows[0, 3], rows[1, 5] = -1, NAN
        rows = tf.constant(rows, tf.float32)
        change = tf.cast(change, tf.float32) * (0.1 + seed)
        settings = {"guard": guard, "denoised": denoised}
        for given in zip(images, change, rows, strict=True):
            ours = change_guarded(*given, *limits, min_fidelity=0.8, **settings)
            plain = guard_plainly(*given, *limits, **settings)
            np.testing.assert_array_equal(ours[0], plain[0])
            # Smoothing looks beyond a window, so what was put back may measure a little below 1.
            np.testing.assert_allclose(ours[1], plain[1], atol=1e-4)
            np.testing.assert_array_equal(ours[2], plain[2])
            acted += int(tf.reduce_sum(tf.cast(ours[2], tf.int32)))
    assert (acted > 10) == (guard != "off")


def contrast_ratio_by_evaluation(x, y, rows):
    x, y = (plane.numpy()[..., 0] for plane in (x, y))
    others = make_box_mask(rows, *x.shape)
    return [measure_contrast(y, row, others) / measure_contrast(x, row, others) for row in rows]


def test_contrast_ratio_of_a_lesion_by_hand():
    # Around, columns of 0.4 and 0.6 in equal numbers: mean 0.5, deviation 0.1. The ratio is
    # (0.8 - 0.5) / 0.1 before and (0.65 - 0.5) / 0.1 after, then 0, then inverted.
    grey = np.tile(np.float32([0.4, 0.6]), (20, 10))[..., None]
    box = boxes([0.4, 0.4, 0.6, 0.6])
    images = [grey.copy() for _ in range(4)]
    for image, level in zip(images, (0.8, 0.65, 0.5, 0.2), strict=True):
        image[8:12, 8:12] = level
    ratios = [float(measure_contrast_ratio(images[0], image, box)[0]) for image in images]
    assert ratios == pytest.approx([1.0, 0.5, 0.0, -1.0], abs=1e-5)


def test_contrast_ratio_is_that_of_the_evaluation():
    """Also of boxes that overlap, are cut off by the border, lie on pixels or are a pixel thin."""
    rng = np.random.default_rng(2)
    corners = np.sort(rng.uniform(-0.2, 1.2, (40, 2, 2)), axis=1).reshape(40, 4)
    special = [
        [0.25, 0.25, 0.5, 0.5],
        [0.0, 0.0, 0.1, 0.1],
        [0.9, 0.9, 1.5, 1.5],
        [0.5, 0.5, 0.50001, 0.9],
    ]
    for rows in (corners[:3], corners, np.array(special), corners[5:6]):
        rows = rows.astype(np.float32)
        x = image(5)
        y = 0.6 * x + 0.4 * image(6)
        measured = measure_contrast_ratio(x, y, boxes(*rows)).numpy()
        expected = contrast_ratio_by_evaluation(x, y, rows)
        np.testing.assert_allclose(measured, expected, rtol=2e-3, atol=1e-4)
        if len(rows) == 3:
            assert np.isfinite(measured).all()


def test_padding_does_not_change_the_contrast_of_other_boxes():
    x, y = image(5), image(6)
    rows = [[0.1, 0.2, 0.4, 0.5], [0.5, 0.5, 0.7, 0.7]]
    padded = boxes(*rows, [-1, -1, -1, -1], [NAN, NAN, NAN, NAN], [0, 0, 0, 0])
    alone = measure_contrast_ratio(x, y, boxes(*rows)).numpy()
    np.testing.assert_array_equal(measure_contrast_ratio(x, y, padded).numpy()[:2], alone)


def test_without_noise_surroundings_or_contrast_there_is_no_ratio():
    flat, noisy = tf.fill([40, 60, 1], 0.5), image()
    box = boxes([0.4, 0.4, 0.6, 0.6])
    for x, y, rows in (
        (flat, noisy, box),
        (noisy, flat, box),
        (noisy, noisy, boxes([0, 0, 1, 1])),
    ):
        assert np.isnan(measure_contrast_ratio(x, y, rows).numpy()).all()
