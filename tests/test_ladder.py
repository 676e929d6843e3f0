"""The ladder: any size, alive latents, and nothing passes them by."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import shorten_stages
from fake_vae import vary

from vae_aug.config import ModelConfig
from vae_aug.model.checkpoint import load_checkpoint, save_checkpoint
from vae_aug.model.ladder import LEVELS, LadderVAE, count_noise, double_to, spread_over_bins
from vae_aug.model.noise import sample_batch_noise

CONFIG = ModelConfig(profile="ladder", encoder="efficientnet-lite1", image_size=32, latent_dim=14)


@pytest.fixture(scope="module")
def ladder() -> LadderVAE:
    """A ladder whose zero-initialised layers, which hide their input, are random."""
    with pytest.MonkeyPatch.context() as patch:
        shorten_stages(patch)
        keras.utils.set_random_seed(5)
        vae = LadderVAE(CONFIG)
    rng = np.random.default_rng(0)
    for variable in vae.trainable_variables:
        if variable.path.endswith("kernel") and not np.any(variable.numpy()):
            scale = 0.3 / np.sqrt(np.prod(variable.shape[:-1]))
            variable.assign(rng.normal(0, scale, variable.shape))
    return vae


def make_images(*shape: int) -> tf.Tensor:
    return tf.random.stateless_uniform(shape, [1, 2])


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (37, 53), (1, 5)])
def test_any_size_comes_back(ladder, size):
    images = make_images(2, *size, 1)
    specs = ladder.list_noise(ladder.config, "sample", *size)
    draw = ladder.forward(images, sample_batch_noise(tf.constant([1, 2]), specs, 2))
    assert draw.reconstruction.shape == draw.coarse.shape == images.shape
    padded = [-(-side // 32) * 32 for side in size]
    maps = [tuple(side // stride for side in padded) for stride in LEVELS]
    assert [tuple(kl.shape[1:3]) for kl in draw.kls[1:]] == maps


def test_padding_repeats_the_edge(ladder):
    images = make_images(1, 40, 33, 1)
    by_hand = np.pad(images, [(0, 0), (0, 24), (0, 31), (0, 0)], mode="edge")
    expected = ladder.reconstruct(tf.constant(by_hand))[:, :40, :33]
    np.testing.assert_allclose(ladder.reconstruct(images), expected, atol=1e-6)


@pytest.mark.parametrize("index", [1, 3])
def test_the_kl_of_a_level_is_that_of_its_normals(ladder, index):
    level, above = ladder.levels[index], ladder.levels[index - 1]
    channels, (latent,) = level.look_at_skip.filters, level.take.kernel.shape[2:3]
    skip, z = (
        tf.random.normal([1, 4, 4, channels]),
        tf.random.normal([1, CONFIG.latent_dim // 2 - 5]),
    )
    state = tf.random.normal([1, 2, 2, above.look_at_skip.filters])
    pixels = tf.random.uniform([1, 4, 4, latent]) if level.puts_out_pixels else None
    _, latent_map, kl = level(skip, z, state, pixels=pixels, noise=None)
    scale, offset = tf.split(level.modulate(z)[:, None, None], 2, axis=-1)
    own = tf.nn.depth_to_space(level.enlarge(state), 2) * (1 + scale) + offset
    prior_mean, prior_log_var = tf.split(level.prior(own), 2, axis=-1)
    seen = tf.nn.relu(level.look_at_skip(skip) + level.look_at_state(own))
    if level.look is not None:
        seen = tf.nn.relu(level.look(seen))
    mean, log_var = tf.split(level.posterior(seen), 2, axis=-1)
    log_var -= 6.0
    s0 = np.exp(0.5 * prior_log_var)
    # The posterior is relative to the prior, and around the pixels where they are drawn.
    m1, s1 = s0 * mean + (prior_mean if pixels is None else pixels), s0 * np.exp(0.5 * log_var)
    np.testing.assert_allclose(latent_map, m1, atol=1e-4)
    # KL of N(m1, s1^2) to N(m0, s0^2).
    expected = np.log(s0 / s1) + (s1**2 + (m1 - prior_mean) ** 2) / (2 * s0**2) - 0.5
    np.testing.assert_allclose(kl, expected, rtol=1e-4, atol=1e-4)


def test_what_was_read_passes_through_the_latents_alone(ladder):
    """With every posterior the same for all images, the output is."""
    saved = [(level.posterior, level.posterior.get_weights()) for level in ladder.levels]
    try:
        for layer, weights in saved:
            layer.set_weights([np.zeros_like(value) for value in weights])
        z = tf.random.normal([1, CONFIG.latent_dim // 2])
        outputs = []
        for seed in 1, 2:
            features = ladder.read_features(
                tf.random.stateless_uniform([1, 32, 32, 1], [seed, 1]), False
            )
            features = features._replace(pixels=tf.zeros_like(features.pixels))
            outputs.append(ladder.decode_features(features, z, None)[0])
    finally:
        for layer, weights in saved:
            layer.set_weights(weights)
    np.testing.assert_array_equal(*outputs)


def test_a_value_is_shared_by_its_two_nearest_bins():
    # Nine bins lie 1/8 apart: 0.3 is 2.4 of them, so bin 2 holds 0.6 of it and bin 3 holds 0.4.
    coded = spread_over_bins(tf.constant([[0.3, 1.0]]), 9).numpy().reshape(2, 9)
    np.testing.assert_allclose(coded[0], [0, 0, 0.6, 0.4, 0, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(coded[1], [0, 0, 0, 0, 0, 0, 0, 0, 1])


@pytest.mark.parametrize("side", [3, 4])
def test_a_map_is_doubled_whether_its_side_was_rounded_up_or_down(side):
    half = tf.reshape(tf.range(side, dtype=tf.float32), [1, side, 1, 1])
    doubled = double_to(half, tf.zeros([1, 7, 1, 5]))
    expected = {3: [0, 0, 1, 1, 2, 2, 2], 4: [0, 0, 1, 1, 2, 2, 3]}[side]
    np.testing.assert_array_equal(doubled[0, :, 0, 0], expected)


def test_noise_is_told_by_counts_over_the_image():
    """Flat grey: all values in bin 0.5 * 31 = 15.5, so half in two, and all steps in bin 0."""
    counts = count_noise(tf.fill([1, 32, 64, 1], 0.5)).numpy()[0]
    values, steps = counts[:32], counts[32:]
    np.testing.assert_allclose(values[[15, 16]], 5.0, atol=1e-4)
    assert values.sum() == pytest.approx(10) and steps.sum() == pytest.approx(10)
    assert steps[0] > 9.8  # the square root of what keeps its gradient finite is 0.001


def test_samples_vary_with_the_seed_and_the_factor(ladder):
    images = tf.repeat(make_images(1, 32, 32, 1), 8, axis=0)
    seeds = tf.stack([tf.range(8), tf.ones(8, tf.int32)], axis=1)
    spreads = []
    for factor in 0.0, 0.5, 1.0:
        _, variants = vary(ladder, images, seeds, mode="sample", factor=factor)
        spreads.append(float(tf.reduce_mean(tf.math.reduce_std(variants, axis=0))))
    assert spreads[0] < 1e-6 < spreads[1] < spreads[2]


def test_an_images_variant_does_not_depend_on_its_batch(ladder):
    images = make_images(3, 32, 32, 1)
    seeds = tf.constant([[1, 1], [2, 2], [3, 3]])
    _, together = vary(ladder, images, seeds, mode="sample", factor=1.0)
    _, alone = vary(ladder, images[1:2], seeds[1:2], mode="sample", factor=1.0)
    np.testing.assert_allclose(together[1], alone[0], atol=1e-5)


def test_interpolation_moves_towards_the_neighbours_global_latent(ladder):
    images = make_images(2, 32, 32, 1)
    seeds = tf.constant([[1, 1], [2, 2]])
    reconstruction, still = vary(ladder, images, seeds, mode="interpolate", factor=0.0)
    np.testing.assert_allclose(still, reconstruction, atol=1e-6)
    _, moved = vary(ladder, images, seeds, mode="interpolate", factor=1.0)
    assert np.abs(moved - reconstruction).max() > 1e-6


def test_moving_takes_the_neighbours_global_latent(ladder):
    images = tf.concat([make_images(1, 32, 32, 1), 0.2 * make_images(1, 32, 32, 1)], axis=0)
    z_mean, _ = ladder.encode(images)
    noise = {"z": tf.zeros_like(z_mean), "share": tf.ones([2])}
    _, moved = ladder.vary(images, noise, mode="interpolate", factor=1.0)
    features = ladder.read_features(images, training=False)
    expected, _ = ladder.decode_features(features, tf.reverse(z_mean, [0]), None)
    np.testing.assert_allclose(moved, tf.clip_by_value(expected, 0.0, 1.0), atol=1e-5)
    assert np.abs(moved - ladder.reconstruct(images)).max() > 1e-4


def test_values_that_no_layer_reads_are_0(ladder):
    z_mean, z_log_var = ladder.encode(make_images(2, 32, 32, 1))
    assert z_mean.shape == z_log_var.shape == (2, CONFIG.latent_dim // 2)
    np.testing.assert_array_equal(z_mean[:, :5], 0.0)
    assert np.all(z_mean[:, 5:] != 0.0)


def test_every_variable_has_a_name_of_its_own(ladder):
    paths = [variable.path for variable in ladder.weights]
    assert len(set(paths)) == len(paths)


def test_a_checkpoint_comes_back(ladder, tmp_path, short_stages):
    digest = save_checkpoint(ladder, tmp_path / "ladder.keras")
    loaded = load_checkpoint(tmp_path / "ladder.keras")
    assert isinstance(loaded, LadderVAE) and loaded.digest == digest
    images = make_images(1, 40, 40, 1)
    np.testing.assert_allclose(loaded.reconstruct(images), ladder.reconstruct(images), atol=2e-2)


def test_a_latent_that_is_too_short_is_refused():
    with pytest.raises(ValueError, match="latent_dim must be at least 10 for a ladder"):
        LadderVAE(ModelConfig(profile="ladder", encoder="efficientnet-lite1", latent_dim=8))


def test_sums_of_convolutions_do_not_follow_on_each_other(tiny_ladder):
    """The remapper of TensorFlow fails at those, and says so on stderr."""
    shape = tf.TensorSpec([1, 32, 32, 1], tf.float32)
    graph = tf.function(tiny_ladder.reconstruct).get_concrete_function(shape).graph
    sums = {
        op.name: {each.op.name for each in op.inputs}
        for op in graph.get_operations()
        if op.type == "AddV2" and any(each.op.type == "BiasAdd" for each in op.inputs)
    }
    following = [name for name, terms in sums.items() if terms & sums.keys()]
    # That of the bridge ends in nothing that could be fused further, and does no harm.
    assert [name for name in following if not name.startswith("bridge")] == []
    assert any(name.startswith("bridge") for name in following)
