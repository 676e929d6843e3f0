"""The augmentations that a VAE has to beat: boxes stay true, and each part does what it says."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

from vae_aug.train.style import STYLE_DIM
from vae_aug.train.style import apply_style as apply_tf_style

pytest.importorskip("albumentations", reason="needs the extra [albumentations]")
sys.path.insert(0, str(ROOT))

import benchmarks.detection.strong as strong

SIZE = 192
MAKERS = {
    "classical": strong.make_classical,
    "geometry": strong.make_geometry,
    "strong": strong.make_strong,
    "gin": strong.make_gin,
    "style": strong.make_style,
}
LABELS = np.array([3], np.int32)


def make_disc(centre: tuple[float, float], radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw a bright disc, `[S, S, 1] uint8`, and its box `[1, 4]`."""
    y, x = np.indices((SIZE, SIZE)) + 0.5
    distance = np.hypot(y - centre[0], x - centre[1])
    image = np.rint(255 * np.clip(radius + 0.5 - distance, 0, 1)).astype(np.uint8)
    low, high = np.array(centre) - radius, np.array(centre) + radius
    return image[..., None], np.concatenate([low, high])[None].astype(np.float32)


def find_box(image: np.ndarray) -> np.ndarray:
    """Find the bounds of what is brighter than half, `yxyx` in pixels."""
    rows, columns = np.nonzero(image[..., 0] > 127)
    return np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1], np.float32)


def make_picture(seed: int = 0) -> np.ndarray:
    """Make a smooth random picture with black air, `[S, S, 1] uint8`."""
    noise = np.random.default_rng(seed).random((12, 12)).astype(np.float32)
    body = strong.cv2.resize(noise, (SIZE, SIZE), interpolation=strong.cv2.INTER_CUBIC)
    y, x = np.indices((SIZE, SIZE)) - SIZE / 2
    air = np.hypot(y, x) > 0.4 * SIZE
    return np.where(air, 0, 40 + 180 * body).clip(0, 255).astype(np.uint8)[..., None]


def draw_boxes(count: int) -> np.ndarray:
    """Draw boxes that lie in the middle of the picture."""
    generator = np.random.default_rng(5)
    corners = generator.uniform(70, 100, (count, 2))
    return np.concatenate([corners, corners + generator.uniform(8, 20, (count, 2))], 1).astype(
        np.float32
    )


@pytest.mark.parametrize("radius", [5.0, 20.0])
@pytest.mark.parametrize("seed", range(4))
def test_boxes_follow_an_elastic_field(seed, radius):
    rng = np.random.default_rng(seed)
    image, box = make_disc((90.0, 110.0), radius)
    moves = []
    for _ in range(6):
        field = strong.draw_elastic_field(SIZE, rng)
        moved, boxes = strong.deform(image, box, field)
        np.testing.assert_allclose(boxes[0], find_box(moved), atol=1.5)
        moves.append(np.abs(find_box(moved) - box[0]).max())
    assert max(moves) > 1.5, "nothing moved, so nothing was tested"


def test_boxes_follow_a_shift_exactly():
    image, box = make_disc((90.0, 110.0), 8.0)
    # Pixels show what was 7 px further down and 3 px to the left: all moves up and to the right.
    field = np.stack([np.full((SIZE, SIZE), 7.0), np.full((SIZE, SIZE), -3.0)]).astype(np.float32)
    moved, boxes = strong.deform(image, box, field)
    np.testing.assert_allclose(boxes, box + np.array([-7, 3, -7, 3]), atol=0.05)
    np.testing.assert_array_equal(moved[:-10, 10:], image[7:-3, 7:-3])


def test_an_elastic_field_hardly_ever_folds():
    # Where the map p + field(p) turns over, several points go to one.
    rng = np.random.default_rng(1)
    fields = np.stack([strong.draw_elastic_field(SIZE, rng) for _ in range(40)])
    (y_y, y_x), (x_y, x_x) = (np.gradient(fields[:, i], axis=(1, 2)) for i in (0, 1))
    assert np.mean((1 + y_y) * (1 + x_x) - y_x * x_y <= 0) < 1e-3
    # 0.577 / (2 sqrt(pi) sigma) of alpha: on average 100 at 11 px.
    assert 1 < fields.std() < 2.5


@pytest.mark.parametrize("name", ["classical", "geometry", "strong"])
def test_boxes_are_true_to_the_pixels(name):
    # Without noise and tone, which would move the edge that is looked for.
    augment = strong.make_geometry(1) if name == "strong" else MAKERS[name](1)
    errors, seen = [], set()
    for centre in [(60.0, 80.0), (130.0, 90.0), (100.0, 40.0)] * 12:
        image, box = make_disc(centre, 14.0)
        moved, boxes, labels = augment(image, box, LABELS)
        if len(boxes) == 0 or boxes[0, :2].min() < 2 or boxes[0, 2:].max() > SIZE - 2:
            continue
        assert labels.tolist() == [3]
        seen.add(boxes.tobytes())
        found = find_box(moved)
        # `classical` bounds the turned box, so it may be larger by (cos 15 + sin 15 - 1) / 2.
        slack = 0.12 * (boxes[0, 2] - boxes[0, 0]) if name == "classical" else 0.0
        assert np.all(boxes[0, :2] <= found[:2] + 2) and np.all(boxes[0, 2:] >= found[2:] - 2)
        errors.append(np.abs(boxes[0] - found).max() - slack)
    assert len(seen) > 15
    assert max(errors) < 2


def test_strong_moves_as_its_geometry_does():
    image, boxes = make_picture(), draw_boxes(3)
    labels = np.arange(3, dtype=np.int32)
    geometry, whole = strong.make_geometry(4), strong.make_strong(4)
    for _ in range(10):
        expected, found = geometry(image, boxes, labels), whole(image, boxes, labels)
        np.testing.assert_array_equal(found[1], expected[1])
        np.testing.assert_array_equal(found[2], expected[2])


@pytest.mark.parametrize("name", MAKERS)
def test_only_boxes_that_left_the_image_are_lost(name):
    augment, boxes = MAKERS[name](2), draw_boxes(4)
    labels = np.arange(4, dtype=np.int32)
    for index in range(40):
        image, moved, kept = augment(make_picture(index), boxes, labels)
        assert (image.shape, image.dtype) == ((SIZE, SIZE, 1), np.uint8)
        assert (moved.dtype, kept.dtype) == (np.float32, np.int32)
        # Scaling by 1.4 about the middle and 8% of shift leave boxes of the middle in the image.
        assert kept.tolist() == [0, 1, 2, 3]
        assert moved.min() >= 0 and moved.max() <= SIZE
        assert np.all(moved[:, 2:] - moved[:, :2] > 4)


def test_a_box_that_is_mostly_outside_is_dropped_with_its_label():
    # At the very edge, where an elastic field alone may push a box out.
    augment = strong.make_geometry(0)
    boxes = np.array([[0, 0, 4, 4], [80, 80, 100, 100]], np.float32)
    kept = []
    for _ in range(100):
        _, moved, labels = augment(make_picture(), boxes, np.array([8, 9], np.int32))
        assert len(moved) == len(labels)
        kept.append(labels.tolist())
    assert [9] in kept and [8, 9] in kept
    assert all(labels in ([9], [8, 9]) for labels in kept)


def test_what_is_left_of_a_box_is_cut_at_the_edge():
    boxes = np.array([[-6, 10, 4, 20], [-8, 10, 2, 20], [5, 5, 9, 9], [-9, 5, -2, 9]], np.float32)
    cut, labels = strong.drop_hidden(boxes, np.arange(4, dtype=np.int32), 32)
    assert cut.tolist() == [[0, 10, 4, 20], [5, 5, 9, 9]]
    assert labels.tolist() == [0, 2]


@pytest.mark.parametrize("name", MAKERS)
def test_no_boxes_stay_no_boxes(name):
    augment = MAKERS[name](3)
    for _ in range(8):
        _, boxes, labels = augment(
            make_picture(), np.zeros((0, 4), np.float32), np.zeros(0, np.int32)
        )
        assert boxes.shape == (0, 4) and labels.shape == (0,)


@pytest.mark.parametrize("name", MAKERS)
def test_the_seed_and_the_number_of_the_call_decide(name):
    boxes, labels = draw_boxes(2), np.zeros(2, np.int32)
    first, again, other = MAKERS[name](7), MAKERS[name](7), MAKERS[name](8)
    # What was augmented before must not matter.
    first(make_picture(1), boxes, labels)
    again(make_picture(2), boxes[:1], labels[:1])
    other(make_picture(1), boxes, labels)
    results = [
        [augment(make_picture(), boxes, labels) for _ in range(6)]
        for augment in (first, again, other)
    ]
    for one, same in zip(results[0], results[1], strict=True):
        for left, right in zip(one, same, strict=True):
            np.testing.assert_array_equal(left, right)
    assert any(
        not np.array_equal(one[0], another[0])
        for one, another in zip(results[0], results[2], strict=True)
    )
    assert len({image.tobytes() for image, _, _ in results[0]}) > 1


@pytest.mark.parametrize("name", ["gin", "style"])
def test_arms_of_grey_leave_boxes_and_half_of_the_images_alone(name):
    augment, boxes = MAKERS[name](11), draw_boxes(2)
    same = 0
    for _ in range(100):
        image, kept, _ = augment(make_picture(), boxes, np.zeros(2, np.int32))
        np.testing.assert_array_equal(kept, boxes)
        same += np.array_equal(image, make_picture())
    # Three standard deviations of a fair coin.
    assert 35 <= same <= 65


PARTS = [part.change for part in strong.list_strong_parts()] + [strong.apply_random_style]


@pytest.mark.parametrize("change", PARTS, ids=lambda change: change.__name__)
def test_each_part_changes_the_image_and_keeps_its_shape(change):
    grey = make_picture()[..., 0].astype(np.float32) / 255
    before = grey.copy()
    changed = change(grey, np.random.default_rng(3))
    np.testing.assert_array_equal(grey, before)
    assert (changed.shape, changed.dtype) == (grey.shape, np.float32)
    assert np.abs(changed - grey).mean() > 1e-3
    # A flat image, as an empty slice is, must not divide by zero.
    flat = change(np.zeros_like(grey), np.random.default_rng(3))
    assert np.isfinite(flat).all()


@pytest.mark.parametrize("seed", range(20))
def test_a_tone_curve_rises_from_black_to_white(seed):
    before, after = strong.draw_bezier(np.random.default_rng(seed))
    assert np.all(np.diff(before) >= 0) and np.all(np.diff(after) >= 0)
    np.testing.assert_allclose([before[0], after[0], before[-1], after[-1]], [0, 0, 1, 1])


def test_a_tone_curve_by_hand():
    # At t = 1/2 a cubic Bezier curve is at (0 + 3 p1 + 3 p2 + 1) / 8.
    class Drawn:
        values = iter([[0.2, 0.4], [0.6, 0.8]])

        def random(self, count):
            return np.array(next(self.values)[:count])

    before, after = strong.draw_bezier(Drawn())
    middle = np.interp(0.5, np.linspace(0, 1, 256), before)
    np.testing.assert_allclose(middle, (3 * 0.2 + 3 * 0.4 + 1) / 8, atol=1e-4)
    middle = np.interp(0.5, np.linspace(0, 1, 256), after)
    np.testing.assert_allclose(middle, (3 * 0.6 + 3 * 0.8 + 1) / 8, atol=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_random_convolutions_keep_the_norm_and_the_range(seed):
    grey = make_picture()[..., 0].astype(np.float32) / 255
    standard = (grey - grey.mean()) / grey.std()
    convolved = strong.convolve_randomly(standard, np.random.default_rng(seed))
    np.testing.assert_allclose(np.linalg.norm(convolved), np.linalg.norm(standard), rtol=1e-5)
    changed = strong.apply_gin(grey, np.random.default_rng(seed))
    assert changed.min() >= -1e-6 and changed.max() <= 1 + 1e-6
    # But for a hundredth, what was drawn and what is returned differ by a scale and a shift.
    whole = (changed > 0) & (changed < 1)
    assert np.corrcoef(convolved[whole], changed[whole])[0, 1] > 0.9999


def test_a_bias_field_is_the_exponential_of_a_polynomial():
    flat = np.full((SIZE, SIZE), 0.05, np.float32)
    axis = np.linspace(-1, 1, SIZE)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    terms = [y**i * x**j for i in range(4) for j in range(4 - i)]
    design = np.stack([term.ravel() for term in terms], 1)
    for seed in range(5):
        field = np.log(strong.apply_bias_field(flat, np.random.default_rng(seed)) / 0.05).ravel()
        weights, *_ = np.linalg.lstsq(design, field, rcond=None)
        np.testing.assert_allclose(design @ weights, field, atol=1e-4)
        assert len(weights) == 10
        assert 0.2 < np.abs(weights).max() <= 0.5 + 1e-4


def test_contrast_brightness_and_gamma_by_hand():
    grey = make_picture()[..., 0].astype(np.float32) / 255
    for seed in range(10):
        draw = strong.draw_around_one(np.random.default_rng(seed), 0.75, 1.25)
        assert 0.75 <= draw <= 1.25
        brighter = strong.scale_brightness(grey, np.random.default_rng(seed))
        np.testing.assert_allclose(brighter, draw * grey, rtol=1e-5)
        stretched = strong.scale_contrast(grey, np.random.default_rng(seed))
        expected = grey.mean() + draw * (grey - grey.mean())
        np.testing.assert_allclose(stretched, expected.clip(grey.min(), grey.max()), atol=1e-5)
        for gamma in (strong.apply_gamma, strong.apply_negative_gamma):
            bent = gamma(grey, np.random.default_rng(seed))
            np.testing.assert_allclose([bent.mean(), bent.std()], [grey.mean(), grey.std()], 1e-3)
            # Tissue keeps its order.
            order = np.argsort(grey.ravel(), kind="stable")
            assert np.diff(bent.ravel()[order]).min() > -1e-5


def test_grey_that_leaves_the_range_shrinks_but_for_extremes():
    ramp = np.linspace(-0.5, 1.5, 1001, dtype=np.float32)[None]
    # The 0.5% quantiles are at 5 of 1000 steps: -0.49 and 1.49.
    np.testing.assert_allclose(strong.fit_range(ramp), ((ramp + 0.49) / 1.98).clip(0, 1), atol=1e-6)
    inside = np.linspace(0.2, 0.7, 1001, dtype=np.float32)[None]
    np.testing.assert_array_equal(strong.fit_range(inside), inside)


def test_no_shift_hides_a_dark_image():
    dark = (make_picture() // 5).astype(np.uint8)
    parts = [strong.Part(lambda grey, _: grey - np.float32(0.5), 1.0)]
    image, _, _ = strong.make_grey(parts, 0)(dark, draw_boxes(1), LABELS)
    np.testing.assert_allclose(image, dark / 1.5, atol=1)


def test_style_is_that_of_the_ladder():
    grey = make_picture()[..., 0].astype(np.float32) / 255
    styles = 2 * np.random.default_rng(0).standard_normal((6, STYLE_DIM))
    images = tf.repeat(grey[None, ..., None], 6, axis=0)
    expected = apply_tf_style(images, tf.constant(styles, tf.float32)).numpy()[..., 0]
    for style, image in zip(styles, expected, strict=True):
        np.testing.assert_allclose(strong.apply_style(grey, style), image, atol=2e-6)
