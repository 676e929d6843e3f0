from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vae_aug.evaluate.metrics import (
    PERFECT_DB,
    bootstrap_interval,
    choose_groups,
    find_body,
    make_box_mask,
    measure_regions,
    psnr,
    r2,
    ssim,
    ssim_map,
)
from vae_aug.phantoms.phantom import make_phantom

RNG = np.random.default_rng(0)
PHANTOM = make_phantom("abdomen_ct", 1, size=96).image / np.float64(255)
PAIRS = {
    "noise": (RNG.random((48, 40)), RNG.random((48, 40))),
    "noisy phantom": (
        PHANTOM[..., 0],
        np.clip(PHANTOM[..., 0] + RNG.normal(0, 0.1, (96, 96)), 0, 1),
    ),
    "flat": (np.full((32, 32), 0.25), np.full((32, 32), 0.75)),
    "inverse": (PHANTOM[..., 0], 1 - PHANTOM[..., 0]),
    "one window": (RNG.random((11, 11)), RNG.random((11, 11))),
    "float32": (RNG.random((32, 33), np.float32), RNG.random((32, 33), np.float32)),
}


@pytest.mark.parametrize("reference, image", PAIRS.values(), ids=PAIRS)
class TestPeers:
    def test_ssim_is_that_of_scikit_image(self, reference, image):
        mean, full = structural_similarity(
            reference.astype(np.float64),
            image.astype(np.float64),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
            full=True,
        )
        assert ssim(reference, image) == pytest.approx(mean, abs=1e-9)
        np.testing.assert_allclose(ssim_map(reference, image), full, atol=1e-9)

    def test_ssim_is_that_of_tensorflow(self, reference, image):
        images = [tf.constant(x[..., None], tf.float32) for x in (reference, image)]
        assert ssim(reference, image) == pytest.approx(float(tf.image.ssim(*images, 1.0)), abs=1e-4)

    def test_psnr_is_that_of_scikit_image(self, reference, image):
        peer = peak_signal_noise_ratio(reference, image, data_range=1)
        assert psnr(reference, image) == pytest.approx(peer, rel=1e-6)


def test_ssim_of_flat_images_by_hand():
    """Without variance the second factor is 1: (2 * 1/4 * 3/4 + C1) / (1/16 + 9/16 + C1)."""
    expected = (0.375 + 1e-4) / (0.625 + 1e-4)
    assert ssim(*PAIRS["flat"]) == pytest.approx(expected)


def test_identical_images_are_perfect():
    assert ssim(PHANTOM, PHANTOM) == pytest.approx(1)
    assert psnr(PHANTOM, PHANTOM) == PERFECT_DB
    assert r2(PHANTOM, PHANTOM) == 1


def test_an_image_smaller_than_a_window_counts_its_border():
    reference, image = RNG.random((8, 8)), RNG.random((8, 8))
    assert ssim(reference, image) == pytest.approx(ssim_map(reference, image).mean())


def test_masks_by_hand():
    reference = np.array([[0.0, 1.0], [0.5, 0.5]])
    image = np.array([[0.1, 0.8], [0.5, 0.0]])
    top = np.array([[True, True], [False, False]])
    # Errors 0.1 and 0.2: mean square 0.025; variance 2 * 0.25 around 0.5.
    assert psnr(reference, image, top) == pytest.approx(-10 * math.log10(0.025))
    assert r2(reference, image, top) == pytest.approx(1 - 0.05 / 0.5)
    assert ssim(reference, image, top) == pytest.approx(ssim_map(reference, image)[0].mean())
    # The whole: squares 0.01 + 0.04 + 0.25 over 0.5.
    assert r2(reference, image) == pytest.approx(1 - 0.3 / 0.5)


def test_all_measures_on_all_regions_at_once():
    reference, image = PAIRS["noisy phantom"]
    masks = {"whole": None, "left": np.indices(reference.shape)[1] < 40}
    measured = measure_regions(reference, image, masks)
    assert list(measured) == ["whole", "left"]
    for region, mask in masks.items():
        expected = {f.__name__: f(reference, image, mask) for f in (ssim, psnr, r2)}
        assert measured[region] == pytest.approx(expected)


def test_nothing_to_measure_is_nan():
    empty = np.zeros((12, 12), bool)
    reference = RNG.random((12, 12))
    for measure in (ssim, psnr, r2):
        assert math.isnan(measure(reference, reference, empty))
    assert math.isnan(r2(np.ones((12, 12)), reference))


def test_shapes_that_disagree_are_refused():
    for measure in (ssim, psnr, r2):
        with pytest.raises(ValueError, match="one shape"):
            measure(np.zeros((4, 4)), np.zeros((4, 5)))
        with pytest.raises(ValueError, match=r"\[H, W\] or \[H, W, 1\]; got shape \(4, 4, 3\)"):
            measure(np.zeros((4, 4, 3)), np.zeros((4, 4, 3)))
        with pytest.raises(ValueError, match=r"bool of shape \(4, 4\); got float64"):
            measure(np.zeros((4, 4)), np.zeros((4, 4)), np.zeros((4, 4)))


class TestBody:
    @staticmethod
    def make_disk(side=96, radius=30):
        y, x = np.mgrid[:side, :side] - side / 2
        return np.hypot(y, x) < radius

    def test_a_disk_with_a_dark_hole_in_noise(self):
        disk = self.make_disk()
        image = np.where(disk & ~self.make_disk(radius=10), 0.6, 0.0)
        image[2:6, 2:6] = 1.0  # a label burnt into the corner
        noisy = np.clip(image + np.abs(RNG.normal(0, 0.03, image.shape)), 0, 1)
        found = find_body(noisy[..., None])
        assert found.dtype == bool and not found[:10, :10].any()
        overlap = (found & disk).sum() / (found | disk).sum()
        assert overlap > 0.9

    def test_organs_that_black_fat_separates_are_one_body(self):
        image = np.zeros((96, 96))
        image[20:76, 20:46] = image[20:76, 50:76] = 0.5
        found = find_body(image)
        assert found[30:66, 25:71].all()

    def test_a_flat_image_is_all_body(self):
        assert find_body(np.full((16, 16), 0.3)).all()

    @pytest.mark.parametrize("kind", ["head_mr", "abdomen_ct"])
    def test_lesions_lie_in_the_body(self, kind):
        for seed in range(3):
            phantom = make_phantom(kind, seed, size=96)
            body = find_body(phantom.image / 255)
            assert 0.1 < body.mean() < 0.95
            boxes = make_box_mask(phantom.boxes, 96, 96)
            assert (body & boxes).sum() >= 0.9 * boxes.sum()


def test_box_mask_by_hand():
    boxes = [[0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.1, 0.1], [np.nan] * 4, [0.5, 0.5, 0.5, 0.9]]
    expected = np.zeros((4, 4), bool)
    expected[1:3, 2:4] = True
    expected[0, 0] = True  # a box smaller than a pixel marks the pixel it is in
    np.testing.assert_array_equal(make_box_mask(np.array(boxes, np.float32), 4, 4), expected)
    assert not make_box_mask(np.zeros((0, 4)), 4, 4).any()


def test_box_mask_stays_inside_and_ignores_float32_rounding():
    third = np.float32(1) / np.float32(3)
    mask = make_box_mask(np.array([[-0.5, -1.0, third, 2.0]], np.float32), 3, 3)
    np.testing.assert_array_equal(mask, [[True] * 3, [False] * 3, [False] * 3])


class TestBootstrap:
    def test_interval_of_a_mean_is_that_of_the_normal_approximation(self):
        values = RNG.normal(5, 2, 400)
        low, high = bootstrap_interval(values, np.arange(400).astype(str))
        assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.05)
        assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.08)

    def test_images_of_one_patient_do_not_make_it_narrower(self):
        patients = RNG.normal(0, 1, 30)
        values, groups = np.repeat(patients, 20), np.repeat(np.arange(30), 20)
        narrow = bootstrap_interval(values, np.arange(600))
        wide = bootstrap_interval(values, groups)
        assert np.diff(wide) > 3 * np.diff(narrow)
        np.testing.assert_allclose(wide, bootstrap_interval(patients, np.arange(30)))

    def test_two_groups_by_hand(self):
        # Draws of two from {a: 0, 0; b: 3}: aa 0, ab and ba 1, bb 3; quantiles reach the ends.
        assert bootstrap_interval([0, 0, 3], ["a", "a", "b"]) == (0, 3)

    def test_a_seed_is_reproducible(self):
        values, groups = RNG.random(20), np.arange(20)
        first = bootstrap_interval(values, groups, seed=1)
        assert first == bootstrap_interval(values, groups, seed=1)
        assert first != bootstrap_interval(values, groups, seed=2)

    def test_one_group_says_nothing(self):
        for values, groups in (([1, 2], ["a", "a"]), ([], []), ([1, math.nan], ["a", "b"])):
            assert all(map(math.isnan, bootstrap_interval(values, groups)))

    def test_bad_arguments(self):
        with pytest.raises(ValueError, match=r"\[N\]; got \(2,\) and 1"):
            bootstrap_interval([1, 2], ["a"])
        with pytest.raises(ValueError, match="level"):
            bootstrap_interval([1, 2], ["a", "b"], level=1)


@pytest.mark.parametrize(
    ("patients", "count", "unit"),
    [
        (["a", "a", "b"], 2, "patients"),
        (["a", "", ""], 3, "patients"),
        (["a", "a"], 2, "images"),
        (["", ""], 2, "images"),
    ],
)
def test_images_are_drawn_where_fewer_than_two_patients_are_known(patients, count, unit):
    groups, found = choose_groups(patients)
    assert (len(set(groups)), found) == (count, unit)
