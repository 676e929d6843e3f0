"""Training on pairs of patients: partners, what the loss compares, and that it learns."""

import numpy as np
import pytest
import tensorflow as tf

from vae_aug.model.fields import GRID, SQUARE, TONES, Fields, change_tones, move_pixels
from vae_aug.train import pairs
from vae_aug.train.pairs import TransformationConfig


def make_heads(count, seed=0):
    """Make ellipses of different width and grey with texture, one a patient."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SQUARE, :SQUARE] / SQUARE - 0.5
    squares = []
    for _ in range(count):
        width, height = rng.uniform(0.3, 0.4, 2)
        inside = (rows / height) ** 2 + (columns / width) ** 2 < 1
        texture = 0.1 * np.sin(40 * columns / width) * np.sin(40 * rows / height)
        squares.append(inside * (rng.uniform(0.4, 0.8) + texture))
    return np.array(squares, np.float32)[..., None]


def test_partners_are_similar_and_of_other_patients():
    squares = np.random.default_rng(0).random((6, SQUARE, SQUARE, 1)).astype(np.float32)
    squares[3:] = squares[:3]
    partners = pairs.find_partners(squares, ["a", "a", "a", "b", "b", "b"], 12)
    assert partners.shape == (6, 3)
    np.testing.assert_array_equal(partners[:, 0], [3, 4, 5, 0, 1, 2])
    assert all(set(row) == {3, 4, 5} for row in partners[:3].tolist())


def test_one_patient_has_no_partner():
    with pytest.raises(ValueError, match="all images are of one"):
        pairs.find_partners(make_heads(3), ["a"] * 3, 12)


def test_tones_are_compared_whatever_the_pattern():
    rng = np.random.default_rng(0)
    image = rng.normal(0.5, 0.1, (1, SQUARE, SQUARE, 1)).astype(np.float32)
    other = rng.normal(0.5, 0.1, (1, SQUARE, SQUARE, 1)).astype(np.float32)
    flat = np.full_like(image, 0.5)
    near = pairs.compare_tones(image, other)[0]
    assert near < 0.02 < pairs.compare_tones(flat, other)[0]
    assert pairs.compare_tones(image + 0.1, other)[0] > 0.09


def test_patterns_are_compared_whatever_the_tones():
    heads = make_heads(2)
    same = pairs.compare_patterns(0.5 * heads + 0.2, heads).numpy()
    moved = pairs.compare_patterns(np.roll(heads, 6, axis=2), heads).numpy()
    assert np.all(same < 0.1) and np.all(moved > same + 0.2)


def test_squares_are_transformed_as_images_are():
    rng = np.random.default_rng(0)
    square = make_heads(1)
    square = np.stack([tf.image.resize(tf.image.resize(x, [32, 32]), [SQUARE] * 2) for x in square])
    fields = Fields(
        rng.normal(0, 0.01, (1, GRID, GRID, 2)).astype(np.float32),
        rng.normal(0, 0.3, (1, GRID, GRID, TONES)).astype(np.float32),
        np.ones(1, np.float32),
    )
    changed, displacement = pairs.transform_squares(square, fields)
    one = Fields(*(part[0] for part in fields))
    expected = change_tones(move_pixels(square[0], one, np.zeros([0, 4], np.float32)), one)
    # Less the dimming.
    expected *= tf.reduce_max(changed) / tf.reduce_max(expected)
    assert np.mean(np.abs(changed[0] - expected)) < 0.01
    assert displacement.shape == (1, SQUARE, SQUARE, 2)


@pytest.mark.slow
def test_training_learns_to_turn_one_patient_into_another():
    patients = [str(index) for index in range(12)]
    config = TransformationConfig(steps=150, batch_size=4, beta=0.0, learning_rate=3e-3)
    told = []
    pairs.train_transformation(
        make_heads(12), patients, config, progress=lambda step, figures: told.append(figures)
    )
    assert set(told[0]) == {"loss", "tone", "pattern", "kl", "displacement"}
    tones = [figures["tone"] for figures in told]
    assert len(tones) == 150 and np.mean(tones[-15:]) < 0.75 * np.mean(tones[:15])


def test_the_same_seed_trains_the_same_network():
    squares, config = make_heads(4), TransformationConfig(steps=2, batch_size=2)
    first, second = (
        pairs.train_transformation(squares, list("abcd"), config).get_weights() for _ in range(2)
    )
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("name", ["steps", "batch_size", "partners"])
def test_settings_are_checked(name):
    with pytest.raises(ValueError, match=name):
        TransformationConfig(**{name: 0})
