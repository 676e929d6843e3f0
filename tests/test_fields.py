"""Changes of images by smooth fields: what they move, what they keep, and that nothing folds."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vae_aug.model import fields
from vae_aug.model.fields import GRID, TONES, Fields

NO_BOXES = np.zeros([0, 4], np.float32)
sides = st.integers(1, 200)
# TensorFlow takes subnormal numbers for 0.
boxes = arrays.arrays(np.float32, (3, 4), elements=st.floats(0, 1, width=32, allow_subnormal=False))


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 65536, (61, 90, 1)).astype(np.float32)


def make_fields(seed, displacement=0.05, slopes=0.5, white=1.0):
    rng = np.random.default_rng(seed)
    return Fields(
        tf.constant(rng.normal(0, displacement, (GRID, GRID, 2)), tf.float32),
        tf.constant(rng.normal(0, slopes, (GRID, GRID, TONES)), tf.float32),
        tf.constant(white),
    )


def touch(boxes, height, width):
    """Mark the pixels that boxes touch."""
    marked = np.zeros((height, width), bool)
    for top, left, bottom, right in boxes * np.tile([height, width], 2):
        if bottom > top and right > left:
            rows = slice(int(np.floor(top)), int(np.ceil(bottom)))
            marked[rows, int(np.floor(left)) : int(np.ceil(right))] = True
    return marked


def test_no_change_is_the_identity(image):
    still = make_fields(0).scale(0.0)
    np.testing.assert_array_equal(fields.move_pixels(image, still, NO_BOXES), image)
    np.testing.assert_allclose(fields.change_tones(image / 65535, still), image / 65535, rtol=1e-5)


@pytest.mark.parametrize("batch", [(), (3,)])
def test_a_change_is_packed_and_unpacked(batch):
    rng = np.random.default_rng(0)
    shapes = ((GRID, GRID, 2), (GRID, GRID, TONES), ())
    change = Fields(*(tf.constant(rng.random((*batch, *s)), tf.float32) for s in shapes))
    packed = change.pack()
    assert packed.shape == (*batch, fields.PACKED)
    for part, other in zip(change, Fields.unpack(packed), strict=True):
        np.testing.assert_array_equal(part, other)


def test_each_change_of_a_batch_has_its_own_strength():
    one = make_fields(0)
    both = Fields(*(tf.stack([part, part]) for part in one)).scale(tf.constant([0.5, 2.0]))
    np.testing.assert_allclose(both.slopes[1], 2 * one.slopes)
    np.testing.assert_allclose(both.displacement[0], 0.5 * one.displacement)


def test_a_change_is_linear_in_its_factor():
    one = make_fields(0)
    half = fields.compute_displacement(one.scale(0.01).displacement, NO_BOXES, 50, 70)
    whole = fields.compute_displacement(one.scale(0.02).displacement, NO_BOXES, 50, 70)
    np.testing.assert_allclose(2 * half, whole, rtol=1e-4, atol=1e-6)


# Of this box letterboxing leaves nothing.
@example(boxes=np.array([[0.0, 6e-8, 6e-8, 1.0]], np.float32), height=1, width=4, seed=0)
@settings(max_examples=25, deadline=None)
@given(boxes=boxes, height=sides, width=sides, seed=st.integers(0, 99))
def test_nothing_is_displaced_in_boxes(boxes, height, width, seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 65536, (height, width, 1)).astype(np.float32)
    moved = fields.move_pixels(image, make_fields(seed, 1.0), boxes)
    inside = touch(boxes, height, width)
    np.testing.assert_array_equal(moved.numpy()[inside], image[inside])


@settings(max_examples=25, deadline=None)
@given(boxes=boxes, height=sides, width=sides, seed=st.integers(0, 99))
def test_nothing_folds(boxes, height, width, seed):
    strong = make_fields(seed, 10.0).displacement
    displacement = fields.compute_displacement(strong, boxes, height, width).numpy()
    assert np.all(np.diff(displacement[..., 0], axis=0) > -1)
    assert np.all(np.diff(displacement[..., 1], axis=1) > -1)


def test_boxes_that_are_none_hold_nothing():
    none = np.array([[np.nan] * 4, [0.5, 0.5, 0.5, 0.9], [0.8, 0.1, 0.2, 0.9]], np.float32)
    field = make_fields(0).displacement
    held = fields.compute_displacement(field, none, 64, 64)
    np.testing.assert_array_equal(held, fields.compute_displacement(field, NO_BOXES, 64, 64))


def test_a_displacement_comes_back_behind_the_margin():
    box = np.array([[0.45, 0.45, 0.55, 0.55]], np.float32)
    held = fields.hold_boxes(box, fields.MARGIN_PX, 0.0).numpy()[64]
    end = 0.55 * fields.SQUARE + fields.MARGIN_PX
    assert not held[64 : int(end)].any()
    ramp = held[int(end) : int(end + fields.MIN_RAMP_PX)]
    assert np.all(np.diff(ramp) > 0)
    assert np.all(held[int(end + fields.MIN_RAMP_PX) + 1 :] == 1)


def test_a_whole_step_copies_pixels(image):
    planes = np.transpose(image, [2, 0, 1])
    moved = fields.move_along_rows(planes, np.full_like(planes, 3.0))
    np.testing.assert_array_equal(moved[..., :-3], planes[..., 3:])
    np.testing.assert_array_equal(moved[..., -3:], np.repeat(planes[..., -1:], 3, -1))


def test_a_straight_slope_moves_by_parts_of_a_pixel():
    planes = np.tile(np.arange(30, dtype=np.float32), (2, 5, 1))
    for part, off in ((0.5, 1e-5), (0.25, 0.05)):
        moved = fields.move_along_rows(planes, np.full((1, 5, 30), part, np.float32))
        np.testing.assert_allclose(moved[..., 1:-2], planes[..., 1:-2] + part, atol=off)


def test_columns_and_rows_are_taken_from_where_the_field_says():
    rows, columns = np.mgrid[:40, :50].astype(np.float32)
    displacement = np.stack([0.5 + 0 * rows, 0.002 * rows * columns], -1)
    moved = fields.displace(np.stack([rows, columns], -1), displacement).numpy()
    inner = (slice(2, -4), slice(2, -4))
    np.testing.assert_allclose(moved[..., 0][inner], (rows + 0.5)[inner], atol=0.07)
    np.testing.assert_allclose(
        moved[..., 1][inner], (columns + displacement[..., 1])[inner], atol=0.07
    )


@settings(max_examples=25, deadline=None)
@given(length=sides, start=st.floats(0, 0.5), extent=st.floats(0.1, 0.5))
def test_weights_are_shares(length, start, extent):
    weights = fields.make_weights(length, start, extent).numpy()
    assert weights.shape == (length, GRID) and np.all(weights >= 0)
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, rtol=1e-5)


def test_a_wide_image_takes_the_middle_of_the_grid():
    """As letterboxed, an image of 20 x 80 pixels lies in the middle quarter of the square."""
    slopes = np.zeros([GRID, GRID, TONES], np.float32)
    slopes[: GRID // 4] = 9.0
    grey = np.full([20, 80, 1], 0.5, np.float32)
    still = Fields(tf.zeros([GRID, GRID, 2]), tf.constant(slopes), tf.constant(1.0))
    np.testing.assert_allclose(fields.change_tones(grey, still), grey, rtol=1e-5)


def test_what_would_pass_white_dims_the_image():
    grey = np.linspace(0, 1, 90, dtype=np.float32).reshape(9, 10, 1)
    doubled = make_fields(0)._replace(slopes=tf.fill([GRID, GRID, TONES], float(np.log(2))))
    np.testing.assert_allclose(fields.change_tones(grey, doubled), grey, rtol=1e-5)
    np.testing.assert_allclose(fields.change_tones(0.25 * grey, doubled), 0.5 * grey, rtol=1e-5)


def test_tone_curves_rise_from_black():
    planes = tf.linspace(0.0, 1.5, 300)[None, None]
    rows, columns = fields.make_weights(1), fields.make_weights(300)
    same_everywhere = tf.tile(make_fields(3, slopes=1.0).slopes[:1, :1][None], [1, GRID, GRID, 1])
    curve = fields.apply_tones(planes, rows, columns, same_everywhere).numpy()[0, 0]
    assert curve[0] == 0 and np.all(np.diff(curve) > 0)
    slope = np.exp(same_everywhere[0, 0, 0])
    knot = 300 * (1 / TONES) / 1.5
    np.testing.assert_allclose(curve[int(knot)], slope[0] / TONES, rtol=0.02)
    np.testing.assert_allclose(
        np.diff(curve)[-20:] / np.diff(planes[0, 0])[-20:], slope[-1], rtol=1e-2
    )


def test_channels_move_alike(image):
    three = np.repeat(image, 3, -1)
    change = make_fields(1)
    moved = fields.move_pixels(three, change, NO_BOXES)
    for result in (moved.numpy(), fields.change_tones(moved / 65535, change).numpy()):
        np.testing.assert_array_equal(result, np.repeat(result[..., :1], 3, -1))
