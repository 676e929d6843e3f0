"""Training on pairs of patients: partners, what the loss compares, and that it learns."""

import numpy as np
import pytest
import tensorflow as tf

from vae_aug.config import VariationConfig
from vae_aug.model.fields import GRID, SQUARE, TONES, Fields, change_tones, move_pixels
from vae_aug.model.transformation import LATENT_DIM, TransformationVAE
from vae_aug.train import pairs
from vae_aug.train.run_files import TrainingError


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


def make_squares(count):
    """Make heads as a training takes them."""
    return np.round(255 * make_heads(count)).astype(np.uint8)


def make_pairs(count):
    """Make heads and pairs of them, as a training takes them."""
    squares = make_squares(count)
    return squares, pairs.find_partners(squares, [str(index) for index in range(count)], 12)


def test_partners_are_similar_and_of_other_patients():
    squares = np.random.default_rng(0).random((6, SQUARE, SQUARE, 1)).astype(np.float32)
    squares[3:] = squares[:3]
    images, partners = pairs.find_partners(squares, ["a", "a", "a", "b", "b", "b"], 12)
    np.testing.assert_array_equal(images, np.arange(6))
    # Of noise, nothing but the copy is alike.
    np.testing.assert_array_equal(partners, [[3] * 3, [4] * 3, [5] * 3, [0] * 3, [1] * 3, [2] * 3])


def test_images_without_a_similar_one_are_left_out():
    rng = np.random.default_rng(0)
    noise = rng.random((2, SQUARE, SQUARE, 1)).astype(np.float32)
    squares = np.concatenate([make_heads(6), noise])
    images, partners = pairs.find_partners(squares, list("abcdefgh"), 3)
    assert images.tolist() == list(range(6)) and partners.max() < 6
    assert all(index not in row for index, row in zip(images, partners.tolist(), strict=True))
    # Where nothing is, the better half is kept.
    alone, _ = pairs.find_partners(rng.random((8, SQUARE, SQUARE, 1)), list("abcdefgh"), 3)
    assert 4 <= len(alone) < 8


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
@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_training_learns_to_turn_one_patient_into_another(jitter):
    config = VariationConfig(steps=150, batch_size=4, beta=0.0, jitter=jitter, learning_rate=3e-3)
    told = []
    pairs.train_transformation(
        *make_pairs(12), config, progress=lambda step, figures: told.append(figures)
    )
    assert set(told[0]) == {"loss", "tone", "pattern", "kl", "displacement"}
    tones = [figures["tone"] for figures in told]
    assert len(tones) == 150 and np.mean(tones[-15:]) < 0.75 * np.mean(tones[:15])


def test_an_interrupted_training_ends_as_an_uninterrupted_one(tmp_path):
    heads = make_pairs(4)
    config = VariationConfig(steps=5, batch_size=2, save_every=2)

    def interrupt(step, figures):
        if step == 3:
            raise KeyboardInterrupt

    whole = pairs.train_transformation(*heads, config).get_weights()
    steps = []
    with pytest.raises(KeyboardInterrupt):
        pairs.train_transformation(*heads, config, folder=tmp_path, progress=interrupt)
    for _ in range(2):  # the second finds it done
        resumed = pairs.train_transformation(
            *heads, config, folder=tmp_path, progress=lambda n, _: steps.append(n)
        ).get_weights()
        for one, other in zip(whole, resumed, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    assert steps == [3, 4, 5]
    (tmp_path / "checkpoint").write_bytes(b"damaged")
    with pytest.raises(TrainingError, match=r"checkpoint: is damaged.* delete"):
        pairs.train_transformation(*heads, config, folder=tmp_path)


def test_a_loss_that_is_not_finite_stops_the_training():
    weights = {"roughness_weight": 3e38, "tone_weight": 3e38, "pattern_weight": 3e38}
    config = VariationConfig(steps=3, batch_size=2, **weights)
    with pytest.raises(TrainingError, match=r"loss of the variation is .* at step 1"):
        pairs.train_transformation(*make_pairs(4), config)


def test_the_strength_brings_samples_as_far_as_other_patients_are():
    squares = make_squares(12)
    network = TransformationVAE()
    for layer in (network.slopes, network.tone):
        layer.kernel.assign(60.0 * layer.kernel)
    found = pairs.find_partners(squares, [str(index) for index in range(12)], 4)
    strength = pairs.calibrate(network, squares, found, seed=1)
    low, high = pairs.STRENGTHS
    assert low < strength < high
    images = tf.constant(squares, tf.float32) / 255.0
    z = tf.random.stateless_normal([12, LATENT_DIM], [3, 3])
    fields = network.sample(network.describe(images), z, tf.ones([12]))
    made, _ = pairs.transform_squares(images, fields.scale(strength))
    away = tf.reduce_mean(pairs.compare_tones(made, images))
    others = tf.gather(images, found.partners[:, 0])
    assert 0.5 < away / tf.reduce_mean(pairs.compare_tones(others, images)) < 2.0


def test_an_image_is_jittered_as_its_partner_is():
    rng = np.random.default_rng(0)
    image = rng.random((1, 3, 32, 32, 1), np.float32)
    both = np.concatenate([image, image])
    moved = pairs.jitter_pairs(both, 1.0, np.random.default_rng(5))
    assert moved.dtype == np.float32 and moved.shape == both.shape
    np.testing.assert_array_equal(moved[0], moved[1])
    assert np.all(np.abs(moved - both).mean(axis=(0, 2, 3, 4)) > 0.05)
    np.testing.assert_array_equal(moved, pairs.jitter_pairs(both, 1.0, np.random.default_rng(5)))


def test_jitter_changes_gamma_and_stays_in_range():
    grey = np.full((2, 200, 32, 32, 1), 0.5, np.float32)
    moved = pairs.jitter_pairs(grey, 1.0, np.random.default_rng(2))
    assert moved.min() == 0.0 and moved.max() <= 1.0
    gammas = -np.log2(moved[0, :, 16, 16, 0])
    assert 0.70 < gammas.min() < 0.75 and 1.35 < gammas.max() < 1.42


def test_jitter_turns_scales_and_shifts_about_the_centre():
    side, moments = 64, []
    blob = np.zeros((2, 200, side, side, 1), np.float32)
    blob[:, :, 28:36, 20:44] = 1.0
    moved = pairs.jitter_pairs(blob, 1.0, np.random.default_rng(1))[0, ..., 0]
    rows, columns = np.mgrid[:side, :side]
    for square in moved:
        mass = square.sum()
        down, across = (square * rows).sum() / mass, (square * columns).sum() / mass
        covariance = (square * (rows - down) * (columns - across)).sum()
        spread = (square * ((columns - across) ** 2 - (rows - down) ** 2)).sum()
        angle = np.degrees(0.5 * np.arctan2(2 * covariance, spread))
        moments.append((down - 31.5, across - 31.5, angle, mass))
    down, across, angle, mass = np.array(moments).T
    for shift in (down, across):
        assert 4.0 < np.abs(shift).max() < 0.08 * side + 0.3
    assert 17.0 < np.abs(angle).max() < 20.5
    assert 1.3 < mass.max() / (8 * 24) < 1.6


def test_no_jitter_leaves_pairs_as_they_are():
    squares, found = make_pairs(4)
    still = VariationConfig(batch_size=3, jitter=0.0)
    chosen = pairs.choose_pairs(squares, found, still, 7)
    own = squares.astype(np.float32) / 255.0
    for square in chosen.reshape(-1, SQUARE, SQUARE, 1):
        assert any(np.array_equal(square, one) for one in (*own, *own[:, :, ::-1]))
    moved = pairs.choose_pairs(squares, found, VariationConfig(batch_size=3, jitter=1.0), 7)
    assert not np.array_equal(chosen, moved)
    for amount in (-0.1, 2.1, float("nan")):
        with pytest.raises(ValueError, match=r"jitter must be in \[0, 2\]"):
            VariationConfig(jitter=amount)
