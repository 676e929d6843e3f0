"""The noise that networks take."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from vae_aug.config import ModelConfig
from vae_aug.model.ladder import LadderVAE
from vae_aug.model.noise import NoiseSpec, sample_batch_noise, sample_noise
from vae_aug.model.vae import VAE

SEEDS = tf.constant([[1, 2], [3, 4], [1, 2]])
SPECS = {"z": NoiseSpec(0, (5,)), "share": NoiseSpec(1, (), uniform=True)}


def test_noise_depends_on_its_own_seed_alone():
    batch = sample_noise(SEEDS, SPECS)
    alone = sample_noise(SEEDS[1:2], {"z": SPECS["z"]})
    np.testing.assert_array_equal(batch["z"][0], batch["z"][2])
    np.testing.assert_array_equal(batch["z"][1], alone["z"][0])
    assert not np.array_equal(batch["z"][0], batch["z"][1])


def test_the_bits_are_those_of_tensorflows_generator():
    """Records name a seed, so what comes of one may not change."""
    seed = tf.random.fold_in(SEEDS[1], 1)
    expected = tf.random.stateless_normal([2, 3], seed)
    np.testing.assert_array_equal(
        sample_noise(SEEDS, {"a": NoiseSpec(1, (2, 3))})["a"][1], expected
    )


def test_noise_is_standard_normal_and_uniform():
    seeds = tf.stack([tf.range(100), tf.range(100)], axis=1)
    noise = sample_noise(seeds, {**SPECS, "z": NoiseSpec(0, (200,))})
    assert abs(np.mean(noise["z"])) < 0.03
    assert abs(np.std(noise["z"]) - 1) < 0.03
    assert np.min(noise["share"]) >= 0
    assert np.max(noise["share"]) < 1
    assert abs(np.mean(noise["share"]) - 0.5) < 0.1


def test_purposes_separate_noise_of_one_shape():
    noise = sample_noise(SEEDS, {"a": NoiseSpec(0, (5,)), "b": NoiseSpec(1, (5,))})
    assert not np.array_equal(noise["a"], noise["b"])


def test_a_batch_from_one_seed_has_no_two_rows_alike():
    noise = sample_batch_noise(SEEDS[0], SPECS, tf.constant(3))
    assert {name: tuple(part.shape) for name, part in noise.items()} == {"z": (3, 5), "share": (3,)}
    assert len(np.unique(noise["z"])) == 15


def test_sizes_that_only_the_graph_knows():
    @tf.function(autograph=False)
    def sample(height):
        spec = NoiseSpec(0, (height, 2))
        return sample_noise(SEEDS, {"a": spec})["a"]

    assert sample(tf.constant(4)).shape == (3, 4, 2)


def test_nothing_is_sampled_where_nothing_is_needed():
    assert sample_noise(SEEDS, VAE.list_noise(ModelConfig(), "denoise")) == {}
    assert LadderVAE.list_noise(ModelConfig(profile="ladder"), "denoise", 32, 32) == {}


def test_what_a_vector_takes():
    config = ModelConfig(latent_dim=16)
    assert VAE.list_noise(config, "sample") == {"z": NoiseSpec(0, (8,))}
    moved = VAE.list_noise(config, "interpolate")
    assert moved == {"z": NoiseSpec(0, (8,)), "share": NoiseSpec(1, (), uniform=True)}


def test_what_a_ladder_takes_goes_by_the_padded_size():
    """40 x 65 pixels are padded to 64 x 96."""
    config = ModelConfig(profile="ladder", latent_dim=14)
    shapes = {
        name: spec.shape for name, spec in LadderVAE.list_noise(config, "sample", 40, 65).items()
    }
    assert shapes == {
        "z": (7,),
        "level16": (4, 6, 16),
        "level8": (8, 12, 8),
        "level4": (16, 24, 4),
        "level2": (32, 48, 4),
    }
    open_size = LadderVAE.list_noise(config, "sample")["level2"].to_tensor_spec(None)
    assert open_size.shape.as_list() == [None, None, None, 4]
