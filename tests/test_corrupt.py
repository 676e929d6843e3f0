"""Statistics of the noise against values worked by hand, five or more standard errors wide."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from vae_aug.train.corrupt import (
    CORRUPTIONS,
    check_names,
    compute_sigma,
    corrupt,
    corrupt_randomly,
    make_corruption,
)

SIDE = 256
GREY = tf.fill([SIDE, SIDE, 1], 0.5)
BLACK = tf.zeros([SIDE, SIDE, 1])
RAMP = tf.random.stateless_uniform([24, 20, 3], [1, 2])
SIGMA_09 = 0.1 / (0.9 * math.sqrt(12))  # 0.0321: far from both ends of the range at mid grey


def draw(name, keep, image=GREY, seed=(3, 4)):
    return corrupt(image, name, keep, list(seed)).numpy()


@pytest.mark.parametrize("name", CORRUPTIONS)
class TestEvery:
    def test_keeping_all_is_the_identity(self, name):
        np.testing.assert_array_equal(draw(name, 1.0, RAMP), RAMP)

    def test_a_seed_is_reproducible_and_another_differs(self, name):
        first = draw(name, 0.4, RAMP)
        np.testing.assert_array_equal(first, draw(name, 0.4, RAMP))
        assert (first != draw(name, 0.4, RAMP, seed=(3, 5))).any()

    @pytest.mark.parametrize("keep", [0.05, 0.4, 0.999])
    def test_shape_dtype_and_range_are_kept(self, name, keep):
        for image in (RAMP, tf.zeros([9, 7, 1]), tf.ones([2, 9, 7, 1])):
            noisy = draw(name, keep, image)
            assert noisy.dtype == np.float32 and noisy.shape == image.shape
            assert np.isfinite(noisy).all() and noisy.min() >= 0 and noisy.max() <= 1

    @pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (5, 4)])
    def test_small_images_get_little_noise_if_most_is_kept(self, name, size):
        image = np.full((*size, 1), 0.5, np.float32)
        changes = [draw(name, 0.97, image, seed=(3, seed)) - image for seed in range(30)]
        assert np.sqrt(np.mean(np.square(changes))) < 0.12  # `replace` has 0.05

    def test_images_of_a_batch_get_noise_of_their_own(self, name):
        image = np.random.default_rng(0).random((1, 24, 18, 3)).astype(np.float32)
        noisy = draw(name, 0.6, np.repeat(image, 2, axis=0))
        assert noisy.shape == (2, 24, 18, 3)
        changes = noisy - image
        assert abs(np.corrcoef(changes[0].ravel(), changes[1].ravel())[0, 1]) < 0.9
        assert np.any(changes[0] != changes[1])

    def test_less_kept_is_more_lost(self, name):
        errors = [np.mean((draw(name, keep) - 0.5) ** 2) for keep in (0.9, 0.6, 0.3)]
        assert errors == sorted(errors)

    def test_in_a_graph_the_noise_is_the_same(self, name):
        traced = tf.function(lambda image, keep: corrupt(image, name, keep, [3, 4]))
        # A graph may contract products and sums, which moves the last bit of a float32.
        off = 2e-4 if name == "low_dose" else 3e-7  # of which it adds up many, on AVX-512 more
        np.testing.assert_allclose(traced(RAMP, tf.constant(0.4)), draw(name, 0.4, RAMP), atol=off)


def test_sigma_is_the_noise_to_signal_ratio_of_blend():
    # (1 - 0.4) of a uniform variable, of deviation 1/sqrt(12), over 0.4 of the image.
    assert float(compute_sigma(0.4)) == pytest.approx(0.6 / math.sqrt(12) / 0.4)
    ratio = draw("blend", 0.4).std() / 0.4
    assert ratio == pytest.approx(float(compute_sigma(0.4)), rel=0.01)


def test_replace_keeps_the_share_of_pixels_and_draws_the_rest_uniformly():
    noisy = draw("replace", 0.4)
    kept = noisy == 0.5
    # Binomial: sqrt(0.4 * 0.6 / 65536) = 0.0019; the mean of 39322 uniforms is 0.0015 off.
    assert kept.mean() == pytest.approx(0.4, abs=0.01)
    assert noisy[~kept].mean() == pytest.approx(0.5, abs=0.008)
    assert noisy[~kept].std() == pytest.approx(1 / math.sqrt(12), abs=0.005)


def test_replace_takes_all_channels_of_a_pixel():
    kept = draw("replace", 0.5, tf.fill([64, 64, 3], 0.5)) == 0.5
    assert ((kept.sum(-1) == 0) | (kept.sum(-1) == 3)).all()


def test_blend_mixes():
    noisy = draw("blend", 0.4, tf.ones([SIDE, SIDE, 1]))
    assert noisy.min() >= 0.4
    assert noisy.mean() == pytest.approx(0.4 + 0.6 / 2, abs=0.005)


@pytest.mark.parametrize("name", ["gaussian", "poisson_gaussian", "speckle"])
def test_additive_and_signal_dependent_noise_agree_at_mid_grey(name):
    noisy = draw(name, 0.9)
    # The deviation of 65536 normals is estimated to 0.3%.
    assert noisy.std() == pytest.approx(SIGMA_09, rel=0.03)
    assert noisy.mean() == pytest.approx(0.5, abs=0.001)


def test_rician_on_no_signal_is_rayleigh():
    noisy = draw("rician", 0.9, BLACK)
    assert noisy.mean() == pytest.approx(SIGMA_09 * math.sqrt(math.pi / 2), rel=0.015)
    assert noisy.var() == pytest.approx((2 - math.pi / 2) * SIGMA_09**2, rel=0.03)


def test_rician_on_strong_signal_is_nearly_gaussian():
    noisy = draw("rician", 0.9)
    assert noisy.std() == pytest.approx(SIGMA_09, rel=0.03)
    # Gudbjartsson and Patz: the mean is sqrt(A^2 + sigma^2) for A >> sigma.
    assert noisy.mean() == pytest.approx(math.hypot(0.5, SIGMA_09), abs=0.001)


def test_variance_of_counting_grows_with_the_signal():
    """0.9 sigma^2 of it from counting, linear in the signal; 0.1 sigma^2 from readout, constant."""
    for grey in (0.25, 0.75):
        noisy = draw("poisson_gaussian", 0.9, tf.fill([SIDE, SIDE, 1], grey))
        expected = (0.9 * grey / 0.5 + 0.1) * SIGMA_09**2
        assert noisy.var() == pytest.approx(expected, rel=0.05)
        assert noisy.mean() == pytest.approx(grey, abs=0.001)


def test_counting_is_continuous_where_it_becomes_normal():
    """1e4 quanta at white are at sigma^2 = 0.5 / 0.9e4, keep = 1 / (1 + sigma sqrt(12))."""
    border = 1 / (1 + math.sqrt(0.5 / 0.9e4) * math.sqrt(12))
    spreads = [draw("poisson_gaussian", border + step).std() for step in (-1e-4, 1e-4)]
    assert spreads[0] == pytest.approx(spreads[1], rel=0.03)


def test_speckle_multiplies():
    assert (draw("speckle", 0.4, BLACK) == 0).all()
    spread = draw("speckle", 0.9, tf.fill([SIDE, SIDE, 1], 0.25)).std()
    assert spread == pytest.approx(SIGMA_09 / 2, rel=0.03)


def test_missing_lines_loses_whole_rows():
    image = tf.fill([4096, 3, 2], 0.5)
    noisy = draw("missing_lines", 0.7, image)
    assert (noisy == noisy[:, :1, :1]).all()
    kept = noisy[:, 0, 0] == 0.5
    # Binomial: sqrt(0.7 * 0.3 / 4096) = 0.007.
    assert kept.mean() == pytest.approx(0.7, abs=0.04)
    assert noisy[~kept].std() == pytest.approx(1 / math.sqrt(12), abs=0.02)


def test_coils_add_up_to_a_bright_background():
    """Without signal their root of squares has the mean of a chi distribution of 8 degrees."""
    noisy = draw("multi_coil", 0.9, tf.zeros([200, 240, 1]))
    mean = math.sqrt(2) * math.gamma(4.5) / math.gamma(4)
    assert noisy.mean() == pytest.approx(mean * SIGMA_09, rel=0.03)


def test_noise_of_coils_is_correlated_and_varies():
    noise = draw("multi_coil", 0.9)[..., 0] - 0.5
    assert noise.std() == pytest.approx(SIGMA_09, rel=0.15)
    beside = np.mean((noise[:, 1:] - noise.mean()) * (noise[:, :-1] - noise.mean())) / noise.var()
    assert beside > 0.15
    parts = [part.std() for rows in np.split(noise, 4) for part in np.split(rows, 4, axis=1)]
    assert max(parts) > 1.2 * min(parts)


def make_slice(side=160):
    """Make a slice as broad as the image and a quarter as high."""
    rows, columns = np.mgrid[:side, :side] / (side - 1) * 2 - 1
    return (0.5 * (columns**2 + 16 * rows**2 < 0.95))[..., None].astype(np.float32)


def test_noise_of_few_quanta_has_the_ratio_of_its_dial():
    noise = draw("low_dose", 0.95)[..., 0] - 0.5
    rows, columns = np.mgrid[-1 : 1 : noise.shape[0] * 1j, -1 : 1 : noise.shape[1] * 1j]
    sigma = (1 - 0.95) / (0.95 * math.sqrt(12))
    assert noise[rows**2 + columns**2 < 1].std() == pytest.approx(sigma, rel=0.02)


def test_rays_through_much_tissue_count_least():
    """Their noise makes streaks along them: it hardly changes along rows, and much across."""
    clean = make_slice()
    noise = (draw("low_dose", 0.9, clean) - clean)[..., 0][72:88, 40:120]
    along, across = (np.mean(np.diff(noise, axis=axis) ** 2) for axis in (1, 0))
    assert along < 0.6 * across


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.01, float("nan")])
def test_keep_outside_of_its_range_is_refused(keep):
    with pytest.raises(ValueError, match=r"keep must be in \(0, 1\]; got"):
        corrupt(GREY, "blend", keep, [0, 0])
    with pytest.raises(ValueError, match=r"keep must be in \(0, 1\]; got"):
        make_corruption("blend", keep)


def test_unknown_names_are_refused():
    for call in (
        lambda: corrupt(GREY, "salt", 0.4, [0, 0]),
        lambda: make_corruption("salt", 0.4),
        lambda: check_names(["blend", "salt"]),
    ):
        with pytest.raises(ValueError, match=r"replace, blend, .*low_dose; got .*salt"):
            call()
    with pytest.raises(ValueError, match="got \\[\\]"):
        check_names([])


def test_drawing_at_random_spares_the_clean_share():
    names = ("replace", "speckle", "missing_lines")
    noisy = [corrupt_randomly(RAMP, names, (0.3, 0.6), 0.5, [7, i]).numpy() for i in range(60)]
    clean = sum(bool((image == RAMP.numpy()).all()) for image in noisy)
    assert 15 < clean < 45  # binomial(60, 1/2), deviation 3.9
    always = corrupt_randomly(RAMP, names, (0.3, 0.6), 1.0, [7, 0])
    np.testing.assert_array_equal(always, RAMP)


class TestMakeCorruption:
    IMAGES = tf.random.stateless_uniform([6, 12, 10, 1], [5, 6])

    @pytest.mark.parametrize("dtype", [tf.uint8, tf.uint16, tf.float16, tf.bfloat16, tf.float32])
    @pytest.mark.parametrize("name", CORRUPTIONS)
    def test_dtype_and_at_keep_one_every_bit_are_kept(self, name, dtype):
        white = dtype.max if dtype.is_integer else 1
        image = tf.cast(self.IMAGES[0] * float(white), dtype)
        noisy = make_corruption(name, 0.4, seed=1)(image)
        assert noisy.dtype == dtype and noisy.shape == image.shape
        assert tf.reduce_any(noisy != image)
        same = make_corruption(name, 1.0, seed=1)(image)
        np.testing.assert_array_equal(same.numpy(), image.numpy())

    def test_integers_round_to_the_corrupted_grey(self):
        image = tf.fill([64, 64, 1], tf.constant(100, tf.uint8))
        noisy = make_corruption("blend", 0.4, seed=1)(image).numpy()
        # 0.4 * 100 = 40 from the image, up to 0.6 * 255 = 153 from noise.
        assert noisy.min() == 40 and noisy.max() == 193

    def test_with_a_seed_neither_order_nor_parallel_calls_matter(self):
        add_noise = make_corruption("gaussian", 0.4, seed=1)
        eager = [add_noise(image).numpy() for image in self.IMAGES]
        dataset = tf.data.Dataset.from_tensor_slices(self.IMAGES)
        mapped = dataset.map(add_noise, num_parallel_calls=2)
        for _ in range(2):
            np.testing.assert_array_equal(list(mapped.as_numpy_iterator()), eager)
        backwards = tf.data.Dataset.from_tensor_slices(self.IMAGES[::-1]).map(add_noise)
        np.testing.assert_array_equal(list(backwards.as_numpy_iterator()), eager[::-1])
        other = make_corruption("gaussian", 0.4, seed=2)(self.IMAGES[0]).numpy()
        assert (other != eager[0]).any()

    def test_different_images_get_different_noise(self):
        add_noise = make_corruption("replace", 0.4, seed=1)
        first, second = (add_noise(tf.fill([16, 16, 1], grey)) for grey in (0.25, 0.5))
        assert tf.reduce_any((first == 0.25) != (second == 0.5))

    def test_without_a_seed_every_pass_is_fresh(self):
        dataset = tf.data.Dataset.from_tensors(self.IMAGES[0]).map(make_corruption("blend", 0.4))
        first, second = (next(dataset.as_numpy_iterator()) for _ in range(2))
        assert (first != second).any()

    def test_everything_beside_the_image_is_untouched(self):
        boxes = tf.constant([[0.1, 0.2, float("nan"), 0.4]])
        element = {
            "image": tf.cast(self.IMAGES[0] * 255, tf.uint8),
            "objects": {"bbox": boxes, "label": tf.constant([1], tf.int64)},
        }
        add_noise = make_corruption("missing_lines", 0.4, seed=1)
        noisy = add_noise(element)
        assert noisy["objects"]["bbox"] is boxes
        assert list(noisy) == list(element)
        dataset = tf.data.Dataset.from_tensors(element)
        (mapped,) = dataset.map(add_noise)
        np.testing.assert_array_equal(mapped["image"], noisy["image"])
        assert dataset.map(add_noise).element_spec == dataset.element_spec

    def test_wrong_elements_are_refused_when_traced(self):
        add_noise = make_corruption("blend", 0.4)
        with pytest.raises(ValueError, match=r"\[H, W, C\]; got shape .*Map before batching"):
            add_noise(self.IMAGES)
        with pytest.raises(TypeError, match=r"uint8, uint16.*got int64"):
            add_noise(tf.zeros([4, 4, 1], tf.int64))
        with pytest.raises(TypeError, match=r"the key 'image'; the element has \['x'\]"):
            add_noise({"x": 1})
