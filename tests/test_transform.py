from __future__ import annotations

import functools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf
from fake_vae import BrighteningVAE, CountingVAE, ErasingVAE, FakeVAE

from vae_aug.augment.transform import VAEAugment
from vae_aug.engines import engine
from vae_aug.evaluate.diversity import measure_contrast
from vae_aug.evaluate.metrics import make_box_mask
from vae_aug.letterbox import letterbox, unletterbox

RNG = np.random.default_rng(0)
S = 32


def make_image(height=S, width=S, channels=1, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.random((height, width, channels))
    if np.issubdtype(dtype, np.integer):
        return (values * np.iinfo(dtype).max).astype(dtype)
    return values.astype(dtype)


def brighten(image, **settings):
    return VAEAugment(BrighteningVAE(), guard="off", **settings)(image)


def test_sample_adds_the_difference_of_variant_and_reconstruction():
    image = make_image()
    # 0.25 of 255 is 63.75.
    expected = np.minimum(np.round(image.astype(np.float32) + 63.75), 255).astype(np.uint8)
    np.testing.assert_array_equal(brighten(image), expected)


def test_factor_scales_the_difference():
    image = make_image(dtype=np.float32) * 0.5
    np.testing.assert_allclose(brighten(image, factor=0.4), image + 0.1, atol=1e-6)


def test_denoise_returns_the_reconstruction_at_the_image_s_own_size():
    image = make_image(48, 20, dtype=np.float32)
    augment = VAEAugment(FakeVAE(), mode="denoise", guard="off")
    expected = unletterbox(0.5 * letterbox(tf.constant(image[None]), S), 48, 20)[0]
    np.testing.assert_allclose(augment(image), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("factor", "detail", "expected"), [(1.0, 0.0, 0.5), (0.5, 0.0, 0.75), (1.0, 0.5, 0.75)]
)
def test_denoise_blends_with_the_input(factor, detail, expected):
    image = make_image(dtype=np.float32)
    augment = VAEAugment(FakeVAE(), mode="denoise", factor=factor, detail=detail, guard="off")
    np.testing.assert_allclose(augment(image), expected * image, atol=1e-6)


def test_detail_zero_in_sample_leaves_what_the_network_draws():
    image = make_image(dtype=np.float32)
    augment = VAEAugment(FakeVAE(noise=0.0), detail=0.0, guard="off")
    np.testing.assert_allclose(augment(image), 0.5 * image, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_dtype_range_and_channels(dtype, channels):
    image = make_image(40, 20, channels, dtype)
    changed = brighten(image).numpy()
    assert changed.dtype == dtype and changed.shape == image.shape
    top = 1.0 if np.issubdtype(dtype, np.floating) else np.iinfo(dtype).max
    expected = np.minimum(image.astype(np.float64) + 0.25 * top, top)
    tolerance = {np.uint8: 0.51, np.uint16: 0.51, np.float16: 1e-3, np.float32: 1e-6}[dtype]
    inside = np.abs(changed.astype(np.float64) - expected)
    assert inside.max() <= tolerance


def test_bfloat16():
    image = tf.cast(make_image(dtype=np.float32) * 0.5, tf.bfloat16)
    changed = brighten(image)
    assert changed.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(changed - image, tf.float32), 0.25, atol=4e-3)


def test_colour_changes_in_luminance_alone():
    image = make_image(channels=3, dtype=np.float32) * 0.5
    difference = brighten(image).numpy() - image
    np.testing.assert_allclose(difference, 0.25, atol=1e-6)


def test_three_equal_channels_stay_equal_and_match_one():
    image = make_image(20, 30)
    augment = VAEAugment(FakeVAE(), detail=0.3, seed=1, guard="off")
    element = {"image": image, "id": 1}
    grey = augment(element)["image"].numpy()
    colour = augment({"image": np.repeat(image, 3, -1), "id": 1})["image"].numpy()
    np.testing.assert_array_equal(colour, np.repeat(grey, 3, -1))


def test_floats_up_to_255_are_recognised_per_image_of_a_batch():
    unit = make_image(dtype=np.float32) * 0.5
    batch = np.stack([unit, unit * 255])
    changed = brighten(batch).numpy()
    np.testing.assert_allclose(changed[0] - unit, 0.25, atol=1e-5)
    np.testing.assert_allclose(changed[1] - unit * 255, 63.75, atol=1e-3)


def test_value_range_is_taken_at_its_word():
    image = (make_image(dtype=np.float32) * 2000).astype(np.uint16)
    changed = brighten(image, value_range=(0, 4095)).numpy().astype(np.float64)
    np.testing.assert_allclose(changed - image, 1024, atol=0.51)
    signed = make_image(dtype=np.float32) - 1.0
    np.testing.assert_allclose(brighten(signed, value_range=(-1, 1)) - signed, 0.5, atol=1e-6)


@pytest.mark.parametrize("value", [-700.0, 3000.0, np.nan, np.inf])
def test_floats_of_unknown_range_are_refused_by_name(value):
    image = make_image(dtype=np.float32)
    image[3, 4, 0] = value
    with pytest.raises(tf.errors.InvalidArgumentError, match="value_range"):
        brighten(image)
    with pytest.raises(tf.errors.InvalidArgumentError, match="value_range"):
        list(tf.data.Dataset.from_tensors(image).map(VAEAugment(BrighteningVAE())))


def test_values_a_little_outside_are_neither_clipped_nor_moved_outwards():
    image = np.array([-0.1, -0.0, 0.5, 1.2], np.float32).reshape(2, 2, 1)
    image = np.tile(image, (16, 16, 1))
    changed = brighten(image).numpy()
    np.testing.assert_allclose(changed[:2, :2, 0], [[0.15, 0.25], [0.75, 1.2]], atol=1e-6)


IDENTITIES = [
    {"factor": 0.0},
    {"mode": "interpolate", "factor": 0.0},
    {"mode": "denoise", "detail": 1.0},
    {"p": 0.0},
]


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    settings=st.sampled_from(IDENTITIES),
    profile=st.sampled_from(["vector", "ladder"]),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float16, np.float32]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3])),
    data=st.data(),
)
def test_identity_is_bit_for_bit(settings, profile, dtype, size, data):
    seed = data.draw(st.integers(0, 2**32 - 1))
    image = make_image(*size, dtype=dtype, seed=seed)
    image.flat[0] = -0.0
    augment = VAEAugment(ErasingVAE(profile=profile), **settings)
    assert np.asarray(augment(image)).tobytes() == image.tobytes()
    reported, report = augment.call_with_report(image)
    assert reported.numpy().tobytes() == image.tobytes() and not report["augmented"]


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    rows=st.lists(
        st.tuples(*[st.floats(width=32, allow_nan=True, allow_infinity=True)] * 4), max_size=12
    ),
    guard=st.sampled_from(["paste", "keep", "off"]),
)
def test_any_boxes_pass_bit_for_bit(rows, guard):
    boxes = tf.constant(np.array(rows, np.float32).reshape(-1, 4))
    element = {"image": make_image(), "objects": {"bbox": boxes, "label": tf.range(len(rows))}}
    changed = VAEAugment(ErasingVAE(), guard=guard)(element)
    assert changed["objects"] == element["objects"]
    assert changed["objects"]["bbox"] is boxes


def boxed(dtype=np.uint8):
    boxes = np.array([[0.25, 0.25, 0.5, 0.5], [-1, -1, -1, -1]], np.float32)
    return {"image": make_image(64, 64, dtype=dtype), "objects": {"bbox": boxes}}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_paste_restores_the_bytes_of_a_box_and_says_so(dtype):
    element = boxed(dtype)
    changed, report = VAEAugment(ErasingVAE()).call_with_report(element)
    image, before = changed["image"].numpy(), element["image"]
    np.testing.assert_array_equal(image[16:32, 16:32], before[16:32, 16:32])
    assert (image[40:, 40:] != before[40:, 40:]).mean() > 0.9
    assert report["guarded"].numpy().tolist() == [True, False]
    assert report["fidelity"].numpy()[0] == pytest.approx(1.0)
    assert np.isnan(report["fidelity"].numpy()[1])


def test_guard_acts_below_min_fidelity_and_not_above():
    element = boxed(np.float32)
    network = FakeVAE(noise=0.3)
    _, report = VAEAugment(network, seed=1, guard="off").call_with_report(element)
    fidelity = float(report["fidelity"][0])
    assert 0.1 < fidelity < 0.9
    for least, acts in ((fidelity - 0.01, False), (fidelity + 0.01, True)):
        augment = VAEAugment(network, seed=1, guard="paste", min_fidelity=least)
        _, report = augment.call_with_report(element)
        assert report["guarded"].numpy().tolist() == [acts, False]


def test_report_tells_the_contrast_of_boxes_in_padded_and_ragged_batches():
    """Noise of the same size everywhere: the box stays, and its surroundings become noisier."""
    single = boxed()
    augment = VAEAugment(FakeVAE(noise=0.3), seed=1, guard="off")
    changed, report = augment.call_with_report(single)
    grey = [x[..., 0] / 255 for x in (single["image"], changed["image"].numpy())]
    box = single["objects"]["bbox"][:1]
    others = make_box_mask(box, 64, 64)
    before, after = (measure_contrast(plane, box[0], others) for plane in grey)
    assert report["contrast"].numpy()[0] == pytest.approx(after / before, rel=1e-3)
    assert np.isnan(report["contrast"].numpy()[1])
    batch = {
        "image": np.stack([single["image"]] * 2),
        "objects": {"bbox": tf.ragged.constant([[*box.tolist()], []], inner_shape=(4,))},
    }
    ragged = batch | {"image": tf.RaggedTensor.from_tensor(batch["image"], ragged_rank=2)}
    for element in (batch, ragged):
        told = augment.call_with_report(element)[1]["contrast"].numpy()
        np.testing.assert_array_equal(told[0], report["contrast"].numpy()[:1])
        assert np.isnan(told[1]).all()


def test_keep_returns_the_original_and_off_reports_the_loss():
    element = boxed()
    kept, report = VAEAugment(ErasingVAE(), guard="keep").call_with_report(element)
    np.testing.assert_array_equal(kept["image"], element["image"])
    assert report["augmented"].numpy() and report["guarded"].numpy().tolist() == [True, False]
    lost, report = VAEAugment(ErasingVAE(), guard="off").call_with_report(element)
    assert lost["image"].numpy().mean() < 50 and report["fidelity"].numpy()[0] < 0.5
    assert not report["guarded"].numpy().any()


def test_guard_leaves_faithful_boxes_alone():
    element = boxed(np.float32)
    _, report = VAEAugment(FakeVAE(noise=0.01)).call_with_report(element)
    assert not report["guarded"].numpy().any() and report["fidelity"].numpy()[0] > 0.9


def test_a_box_that_the_edge_of_a_paste_harms_is_pasted_too():
    """Brighter by 0.25, the dark box fails; the bright one passes until the edge crosses it."""
    image = np.full((60, 60, 1), 0.6, np.float32)
    image[20:40, 10:30] = 0.05
    dark, bright = np.array([[20, 10, 40, 30], [25, 33, 35, 43]], np.float32) / 60
    augment = VAEAugment(BrighteningVAE(), guard="paste")
    alone = augment.call_with_report({"image": image, "objects": {"bbox": bright[None]}})[1]
    assert not alone["guarded"].numpy().any()
    both = {"image": image, "objects": {"bbox": np.stack([dark, bright])}}
    _, report = augment.call_with_report(both)
    assert report["guarded"].numpy().all() and (report["fidelity"].numpy() >= 0.8).all()


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(st.data())
def test_no_box_leaves_below_the_threshold_under_paste_or_keep(data):
    """Whatever boxes overlap, and however much a network erases."""
    guard = data.draw(st.sampled_from(["paste", "keep"]))
    mode = data.draw(st.sampled_from(["sample", "denoise"]))
    count = data.draw(st.integers(1, 8))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    corners = rng.uniform(0, 0.8, (count, 2))
    sides = rng.uniform(0.02, 0.3, (count, 2))
    element = {
        "image": rng.integers(0, 256, (40, 56, 1)).astype(np.uint8),
        "objects": {"bbox": np.concatenate([corners, corners + sides], 1).astype(np.float32)},
    }
    network = data.draw(st.sampled_from([ErasingVAE(), FakeVAE(noise=0.3)]))
    _, report = VAEAugment(network, mode=mode, guard=guard).call_with_report(element)
    assert (report["fidelity"].numpy() >= 0.8).all()


def test_guard_reads_boxes_in_the_format_it_is_told():
    """The same box as pixels, which `boxes` means, and as `xywh` when said so."""
    image = make_image(64, 48)
    expected = VAEAugment(ErasingVAE())({"image": image, "bbox": np.float32([[0.25, 0.5, 0.5, 1]])})
    for row, box_format in (([24, 16, 48, 32], None), ([24, 16, 24, 16], "xywh")):
        element = {"image": image, "boxes": np.float32([row])}
        changed = VAEAugment(ErasingVAE(), bounding_box_format=box_format)(element)
        np.testing.assert_array_equal(changed["image"], expected["image"])


def test_probability_is_per_example_and_reproducible():
    images = np.stack([make_image(seed=i) for i in range(64)])
    augment = VAEAugment(BrighteningVAE(), p=0.5, seed=4)
    changed, report = augment.call_with_report(images)
    chosen = report["augmented"].numpy()
    assert 16 < chosen.sum() < 48
    touched = (changed.numpy() != images).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(touched, chosen)
    singles = [augment(image).numpy() for image in images[:8]]
    np.testing.assert_array_equal(singles, changed[:8])


class RefusingVAE(FakeVAE):
    def vary(self, images, noise, **_):
        with tf.control_dependencies([tf.debugging.Assert(False, ["ran"])]):
            return tf.identity(images), tf.identity(images)


def test_network_is_not_run_for_a_batch_without_a_chosen_example():
    augment = VAEAugment(RefusingVAE(), p=1e-9, seed=1)
    images = np.stack([make_image(seed=i) for i in range(4)])
    np.testing.assert_array_equal(augment(images), images)


def elements():
    shapes = [(S, S), (20, 45), (64, 33), (7, 9), (100, 90), (S, 31)]
    return [
        {
            "image": make_image(*shape, seed=i),
            "image/source_id": f"slice-{i}",
            "objects": {"bbox": RNG.random((i, 4)).astype(np.float32)},
        }
        for i, shape in enumerate(shapes)
    ]


SIGNATURE = {
    "image": tf.TensorSpec([None, None, 1], tf.uint8),
    "image/source_id": tf.TensorSpec([], tf.string),
    "objects": {"bbox": tf.TensorSpec([None, 4], tf.float32)},
}


@functools.cache
def mixed_sizes():
    return elements(), tf.data.Dataset.from_generator(
        lambda: iter(mixed_sizes()[0]), output_signature=SIGNATURE
    )


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        pytest.param("sample", "vector", marks=pytest.mark.slow),
        pytest.param("interpolate", "vector", marks=pytest.mark.slow),
        ("denoise", "vector"),
        ("sample", "ladder"),
        pytest.param("interpolate", "ladder", marks=pytest.mark.slow),
    ],
)
def test_bytes_do_not_depend_on_how_elements_are_processed(mode, profile):
    augment = VAEAugment(FakeVAE(profile=profile), mode=mode, seed=7, batch_size=4, detail=0.5)
    compare_ways(augment)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "interpolate", "detail": 0.5, "p": 0.7},
        pytest.param({"hardest_of": 3}, marks=pytest.mark.slow),
        pytest.param({"weakest": 0.3}, marks=pytest.mark.slow),
    ],
)
def test_transformations_do_not_depend_on_how_elements_are_processed(varied_ladder, options):
    compare_ways(VAEAugment(varied_ladder, seed=7, batch_size=4, **options))


class BlurringVAE(FakeVAE):
    """Its reconstruction is the mean of three by three pixels."""

    def vary(self, images, noise, *, mode, factor, alone=False):
        blurred = tf.nn.avg_pool2d(images, 3, 1, "SAME")
        return blurred, blurred


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_adaptive_denoiser_leaves_what_is_no_noise(dtype, channels):
    rows, columns = np.mgrid[:96, :96]
    edges = np.where((rows // 16 + columns // 16) % 2, 0.7, 0.3)[..., None]
    noisy = edges + 0.1 * np.random.default_rng(0).uniform(-1, 1, edges.shape)
    white = 1 if dtype == np.float32 else np.iinfo(dtype).max

    def measure_error(grey: np.ndarray, **options) -> float:
        image = np.repeat(grey * white, channels, axis=-1).astype(dtype)
        network = BlurringVAE(profile="ladder")
        augment = VAEAugment(network, mode="denoise", guard="off", **options)
        return np.mean((augment(image).numpy() / white - edges) ** 2)

    assert measure_error(edges, adaptive=True) < 0.05 * measure_error(edges)
    assert measure_error(noisy, adaptive=True) < 0.95 * measure_error(noisy)
    assert measure_error(noisy, adaptive=True) < 0.95 * measure_error(noisy, factor=0)


def test_an_adaptive_denoiser_judges_what_the_network_sees():
    """Air far below a window is no noise that would hide the loss of edges."""
    rows, columns = np.mgrid[:96, :96]
    edges = np.where((rows // 8 + columns // 8) % 2, 200.0, -100.0)
    body = (rows - 48) ** 2 + (columns - 48) ** 2 < 1600
    image = np.where(body, edges, -1024.0)[..., None].astype(np.float32)
    options = {"mode": "denoise", "guard": "off", "value_range": (-160, 240)}
    full, adaptive = (
        VAEAugment(BlurringVAE(profile="ladder"), adaptive=adaptive, **options)(image) - image
        for adaptive in (False, True)
    )
    assert np.mean(adaptive[body] ** 2) < 0.1 * np.mean(full[body] ** 2)


def test_an_adaptive_denoiser_works_in_every_way():
    compare_ways(VAEAugment(FakeVAE(), mode="denoise", adaptive=True, seed=7, batch_size=4))
    with pytest.raises(ValueError, match="adaptive is for mode='denoise'; got mode='sample'"):
        VAEAugment(FakeVAE(), adaptive=True)
    with pytest.raises(TypeError, match="adaptive must be True or False"):
        VAEAugment(FakeVAE(), mode="denoise", adaptive="auto")


def test_the_hardest_is_chosen_of_samples_of_a_variation_alone(varied_ladder, tiny_ladder):
    with pytest.raises(ValueError, match="this checkpoint has no variation"):
        VAEAugment(tiny_ladder, hardest_of=2)
    with pytest.raises(ValueError, match="chooses among samples; got mode='denoise'"):
        VAEAugment(varied_ladder, mode="denoise", hardest_of=2)
    with pytest.raises(ValueError, match="hardest_of must be in"):
        VAEAugment(varied_ladder, hardest_of=65)


@pytest.mark.parametrize("marks", [{}, {"mask": np.ones((64, 64), np.uint8)}])
def test_no_pixel_moves_where_a_mask_would_no_longer_fit(varied_ladder, marks, caplog):
    image = np.where(make_image(64, 64, 1) > 127, 200, 0).astype(np.uint8)
    element = {"image": image, "bbox": np.zeros([0, 4], np.float32), **marks}
    changed = VAEAugment(varied_ladder, seed=1)(element)
    moved = np.any(np.asarray(changed["image"])[image == 0])
    assert moved != bool(marks) and np.any(changed["image"] != image)
    assert ("tones are varied and shapes are not" in caplog.text) == bool(marks)


def test_a_pair_is_two_variants_of_one_image(tiny_vae):
    source, dataset = mixed_sizes()
    augment = VAEAugment(tiny_vae, seed=7)
    for element, (first, second) in zip(source, dataset.map(augment.pair), strict=True):
        np.testing.assert_array_equal(first["image"], augment(element)["image"])
        assert first["image"].shape == second["image"].shape
        assert np.any(first["image"] != second["image"])
        tf.nest.map_structure(
            np.testing.assert_array_equal,
            {key: part for key, part in first.items() if key != "image"},
            {key: part for key, part in second.items() if key != "image"},
        )
    fresh = VAEAugment(tiny_vae).pair(source[0])
    assert np.any(fresh[0]["image"] != fresh[1]["image"])
    with pytest.raises(TypeError, match=r"dataset\.map\(augment\.pair\)"):
        dataset.apply(augment.pair)


def compare_ways(augment):
    """Compare what every way to use a transform makes of elements of mixed sizes."""
    source, dataset = mixed_sizes()
    expected = [augment(element)["image"].numpy() for element in source]
    changed = [(e != s["image"]).any() for e, s in zip(expected, source, strict=True)]
    assert all(changed) if augment.config.p == 1 else any(changed)
    ways = {
        "map": dataset.map(augment),
        "parallel map": dataset.map(augment, num_parallel_calls=4),
        "ragged batch": dataset.ragged_batch(3).map(augment).unbatch(),
        "apply": dataset.apply(augment),
        "apply to batches": dataset.ragged_batch(4).apply(augment).unbatch(),
    }
    for name, way in ways.items():
        for want, element in zip(expected, way, strict=True):
            image = element["image"]
            image = image.to_tensor() if isinstance(image, tf.RaggedTensor) else image
            np.testing.assert_array_equal(image, want, err_msg=name)


class TestNativeResolution:
    """A network of the profile `ladder` sees images as they are."""

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32])
    @pytest.mark.parametrize("size", [(37, 53, 1), (5, 7, 3), (1, 1, 1)])
    def test_every_pixel_is_the_network_s_own(self, size, dtype):
        image = make_image(*size, dtype=dtype)
        augment = VAEAugment(BrighteningVAE(profile="ladder"), guard="off")
        changed = augment(image).numpy()
        assert changed.dtype == dtype and changed.shape == image.shape
        if np.issubdtype(dtype, np.integer):
            top = np.iinfo(dtype).max
            expected = np.minimum(np.round(image + np.float32(0.25 * top)), top)
            np.testing.assert_array_equal(changed, expected)
        else:
            expected = np.minimum(image.astype(np.float32) + 0.25, 1)
            np.testing.assert_allclose(changed, expected, atol=np.finfo(dtype).eps)

    def test_nothing_is_lost_in_a_square(self):
        """Noise of single pixels, which 32 pixels a side cannot hold."""
        image = make_image(64, 100, dtype=np.float32)
        augment = VAEAugment(FakeVAE(profile="ladder"), mode="denoise", guard="off")
        np.testing.assert_allclose(augment(image), 0.5 * image, atol=1e-6)

    def test_a_ragged_batch_is_its_images_one_by_one(self):
        images = [make_image(*size, seed=i) for i, size in enumerate([(37, 53), (1, 1), (5, 40)])]
        batch = tf.ragged.stack([tf.RaggedTensor.from_tensor(image) for image in images])
        augment = VAEAugment(FakeVAE(profile="ladder"), detail=0.5, seed=3, guard="off")
        eager, traced = augment(batch), tf.function(lambda batch: augment(batch))(batch)
        for index, image in enumerate(images):
            expected = augment(image)
            assert (expected.numpy() != image).any()
            np.testing.assert_array_equal(eager[index].to_tensor(), expected)
            np.testing.assert_array_equal(traced[index].to_tensor(), expected)

    def test_probability_is_per_example_of_a_ragged_batch(self):
        images = [make_image(4 + i % 3, 6, seed=i) for i in range(24)]
        batch = tf.ragged.stack([tf.RaggedTensor.from_tensor(image) for image in images])
        augment = VAEAugment(BrighteningVAE(profile="ladder"), p=0.5, seed=4)
        changed, report = augment.call_with_report(batch)
        chosen = report["augmented"].numpy()
        assert 4 < chosen.sum() < 20
        pairs = zip(images, changed, strict=True)
        touched = [(before != after.to_tensor()).numpy().any() for before, after in pairs]
        np.testing.assert_array_equal(touched, chosen)

    def test_network_is_not_run_for_an_example_that_is_not_chosen(self):
        images = np.stack([make_image(seed=i) for i in range(4)])
        augment = VAEAugment(RefusingVAE(profile="ladder"), p=1e-9, seed=1)
        ragged = tf.RaggedTensor.from_tensor(images, ragged_rank=2)
        np.testing.assert_array_equal(augment(ragged).to_tensor(), images)
        np.testing.assert_array_equal(augment(images), images)

    @pytest.mark.parametrize("p", [1.0, 0.5])
    def test_a_large_batch_goes_through_in_parts(self, monkeypatch, p):
        images = np.stack([make_image(10, 10, seed=i, dtype=np.float32) for i in range(5)]) * 0.5
        whole = VAEAugment(FakeVAE(profile="ladder"), p=p, seed=1, guard="off")(images)
        monkeypatch.setattr(engine, "MAX_PIXELS", 250)
        parts = VAEAugment(FakeVAE(profile="ladder"), p=p, seed=1, guard="off")(images)
        np.testing.assert_array_equal(parts, whole)
        counting = VAEAugment(CountingVAE(profile="ladder"), guard="off")
        counted = tf.function(lambda batch: counting(batch))(images) - images
        # Two images of 100 pixels at a time.
        np.testing.assert_allclose(counted[:, 0, 0, 0], [0.02, 0.02, 0.02, 0.02, 0.01], atol=1e-6)
        larger = make_image(20, 20, dtype=np.float32) * 0.5
        np.testing.assert_allclose(counting(larger) - larger, 0.01, atol=1e-6)

    def test_interpolation_without_a_seed_takes_neighbours_of_one_size(self):
        images = np.stack([make_image(9, 11, dtype=np.float32, seed=i) for i in range(3)])
        augment = VAEAugment(FakeVAE(profile="ladder"), mode="interpolate", guard="off")
        expected = np.clip(images + 0.5 * (np.roll(images, 1, 0) - images), 0, 1)
        np.testing.assert_allclose(augment(images), expected, atol=1e-6)
        alone = make_image(9, 10, dtype=np.float32)
        parts = [tf.RaggedTensor.from_tensor(image) for image in (images[0], alone, *images[1:])]
        first, other, *rest = augment(tf.ragged.stack(parts))
        together = [image.to_tensor() for image in (first, *rest)]
        np.testing.assert_allclose(together, expected, atol=1e-6)
        assert (other.to_tensor() != alone).numpy().mean() > 0.5

    @pytest.mark.parametrize("mode", ["denoise", "sample"])
    def test_a_real_ladder(self, tiny_ladder, mode):
        augment = VAEAugment(tiny_ladder, mode=mode, seed=1, guard="off")
        image = make_image(37, 53, dtype=np.uint16)
        changed = augment(image)
        assert changed.dtype == tf.uint16 and changed.shape == image.shape
        assert np.mean(changed.numpy() != image) > 0.3  # untrained, it draws black elsewhere
        if mode == "denoise":
            expected = 65535 * tiny_ladder.reconstruct(image[None] / np.float32(65535))[0]
            np.testing.assert_allclose(to_integers(changed), expected, atol=2)
        # Other graphs are optimised in other ways: the last of 16 bits may differ.
        (mapped,) = tf.data.Dataset.from_tensors(image).map(augment)
        np.testing.assert_allclose(to_integers(mapped), to_integers(changed), atol=2)
        ragged = tf.ragged.stack([tf.RaggedTensor.from_tensor(x) for x in (image[:1, :1], image)])
        tiny, same = augment(ragged)
        assert tiny.to_tensor().shape == (1, 1, 1)
        np.testing.assert_allclose(to_integers(same.to_tensor()), to_integers(changed), atol=2)


def to_integers(image):
    """Return an image of unsigned integers as one whose differences can be negative."""
    return image.numpy().astype(int)


def test_order_does_not_matter_and_identity_does():
    images = np.stack([make_image(seed=i) for i in range(6)])
    augment = VAEAugment(FakeVAE(), seed=7)
    forwards, backwards = augment(images).numpy(), augment(images[::-1]).numpy()
    np.testing.assert_array_equal(forwards, backwards[::-1])
    named = augment({"image": images, "id": np.arange(6)})["image"].numpy()
    assert (named != forwards).any()
    same = augment({"image": images[:1].repeat(2, 0), "id": np.array([1, 2])})["image"].numpy()
    assert (same[0] != same[1]).any()


def test_empty_source_id_falls_back_on_the_content():
    image = make_image()
    augment = VAEAugment(FakeVAE(), seed=7)
    unnamed = augment({"image": image, "source_id": ""})["image"]
    np.testing.assert_array_equal(unnamed, augment(image))


def test_epoch_key_is_the_epoch():
    image = make_image()
    augment = VAEAugment(FakeVAE(), seed=7)
    outputs = [augment({"image": image, "epoch": epoch})["image"].numpy() for epoch in (0, 1, 0)]
    np.testing.assert_array_equal(outputs[0], outputs[2])
    np.testing.assert_array_equal(outputs[0], augment(image))
    assert (outputs[0] != outputs[1]).any()


def test_seed_decides_and_none_is_fresh():
    image = make_image()
    one, two = (VAEAugment(FakeVAE(), seed=seed)(image).numpy() for seed in (1, 2))
    assert (one != two).any()
    fresh = VAEAugment(FakeVAE())
    assert (fresh(image).numpy() != fresh(image).numpy()).any()
    repeated = tf.data.Dataset.from_tensors(image).map(fresh)
    assert (next(iter(repeated)).numpy() != next(iter(repeated)).numpy()).any()


def test_interpolation_without_a_seed_moves_towards_the_neighbour():
    images = np.stack([make_image(dtype=np.float32, seed=i) for i in range(3)])
    changed = VAEAugment(FakeVAE(), mode="interpolate", guard="off")(images).numpy()
    expected = np.clip(images + 0.5 * (np.roll(images, 1, 0) - images), 0, 1)
    np.testing.assert_allclose(changed, expected, atol=1e-6)
    alone = VAEAugment(FakeVAE(), mode="interpolate", guard="off")(images[0]).numpy()
    assert (alone != images[0]).any()


def test_it_works_inside_a_training_step():
    augment = VAEAugment(FakeVAE(), seed=2)
    images = np.stack([make_image(seed=i) for i in range(2)])
    step = tf.function(lambda batch: augment(batch), autograph=True)
    np.testing.assert_array_equal(step(images), augment(images))


def test_wrong_elements_are_refused_when_the_map_is_traced():
    with pytest.raises(TypeError, match="received int32"):
        tf.data.Dataset.from_tensors(np.zeros((4, 4, 1), np.int32)).map(VAEAugment(FakeVAE()))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mode": "blur"}, "mode must be one of 'denoise', 'sample', 'interpolate'; got 'blur'"),
        ({"engine": "abacus"}, "engine must be one of 'tensorflow', 'xla', 'openvino'"),
        ({"factor": -1}, "factor"),
        ({"p": 1.5}, "p must be in"),
        ({"detail": 2}, "detail"),
        ({"value_range": (1, 0)}, "value_range"),
    ],
)
def test_settings_are_checked_when_it_is_made(settings, words):
    with pytest.raises(ValueError, match=words):
        VAEAugment(FakeVAE(), **settings)


def test_a_checkpoint_is_a_path_or_a_network():
    with pytest.raises(TypeError, match="received int"):
        VAEAugment(3)


def test_printing_tells_the_settings():
    augment = VAEAugment(FakeVAE(), mode="denoise", seed=5)
    assert augment.get_config()["detail"] == 0.0 and augment.get_config()["digest"] == "fake"
    assert "mode='denoise'" in repr(augment) and "seed=5" in repr(augment)
