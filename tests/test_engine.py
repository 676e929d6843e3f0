"""The engines against the network itself; `"openvino"` has tests of its own."""

import gc
import sys
import weakref

import numpy as np
import pytest
import tensorflow as tf

from vae_aug import VAEAugment
from vae_aug.config import AugmentConfig
from vae_aug.engines.engine import TensorFlowEngine, XLAEngine, join_results
from vae_aug.errors import MissingPackageError
from vae_aug.model.fields import PACKED, SQUARE

IMAGES = tf.random.stateless_uniform([3, 32, 32, 1], [3, 3])
SEEDS = tf.reshape(tf.range(6), [3, 2])
# The untrained network moves its output by 1e-3 when its input moves by 1e-7, so that the order of
# a sum shows; 3e-3 is the 50 dB that the engines promise.
TOLERANCE = 3e-3


@pytest.mark.parametrize("engine", [TensorFlowEngine, XLAEngine])
@pytest.mark.parametrize("seed", [None, 1])
def test_denoise_is_the_reconstruction(short_vae, engine, seed):
    config = AugmentConfig(mode="denoise", seed=seed)
    expected = tf.reduce_mean(short_vae.reconstruct(IMAGES), -1, keepdims=True)
    np.testing.assert_allclose(engine(short_vae, config)(IMAGES, SEEDS), expected, atol=TOLERANCE)


def test_xla_inside_a_dataset(short_vae):
    augment = VAEAugment(short_vae, mode="denoise", engine="xla", guard="off")
    reference = VAEAugment(short_vae, mode="denoise", guard="off")
    dataset = tf.data.Dataset.from_tensor_slices({"image": IMAGES}).batch(2)
    for computed, expected in zip(dataset.map(augment), dataset.map(reference), strict=True):
        np.testing.assert_allclose(computed["image"], expected["image"], atol=TOLERANCE)


@pytest.mark.parametrize("profile", ["vector", pytest.param("ladder", marks=pytest.mark.slow)])
def test_xla_computes_from_the_same_draws(profile, short_vae, tiny_ladder):
    vae = {"vector": short_vae, "ladder": tiny_ladder}[profile]
    config = AugmentConfig(seed=1)
    expected = TensorFlowEngine(vae, config)(IMAGES, SEEDS)
    # Other draws would differ by about this spread, and fail below.
    assert float(tf.math.reduce_std(expected)) > 1e-2
    engine = XLAEngine(vae, config)
    computed = engine(IMAGES, SEEDS)
    np.testing.assert_allclose(computed, expected, atol=TOLERANCE)
    again = engine(IMAGES[:2], SEEDS[:2])
    np.testing.assert_array_equal(again, computed[:2])


@pytest.mark.slow
def test_xla_computes_the_same_transformations(varied_ladder):
    images = tf.random.stateless_uniform([2, SQUARE, SQUARE, 1], [3, 3])
    config = AugmentConfig(seed=1)
    expected = TensorFlowEngine(varied_ladder, config)(images, SEEDS[:2])
    computed = XLAEngine(varied_ladder, config)(images, SEEDS[:2])
    assert computed.shape == (2, PACKED) and np.ptp(expected[:, :-1]) > 0.1
    np.testing.assert_allclose(computed, expected, atol=TOLERANCE)


@pytest.mark.parametrize(("count", "ranges"), [(0, []), (1, []), (3, [0, 0, 1])])
def test_results_of_any_length_are_joined(count, ranges):
    specs = {"a": tf.TensorSpec([None], tf.int32), "b": tf.TensorSpec([None, 2], tf.float32)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.int32)])
    def join(count):
        def make(index):
            return {"a": tf.range(index), "b": tf.fill([1, 2], tf.cast(index, tf.float32))}

        return join_results(make, count, specs)

    joined = join(tf.constant(count))
    assert joined["a"].numpy().tolist() == ranges
    assert joined["b"].numpy().tolist() == [[float(index)] * 2 for index in range(count)]


def test_engines_are_freed(short_vae):
    engine = TensorFlowEngine(short_vae, AugmentConfig(mode="denoise"))
    engine(IMAGES, SEEDS)
    alive = weakref.ref(engine)
    del engine
    gc.collect()
    assert alive() is None


def test_a_missing_package_says_how_to_install_it(short_vae, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "vae_aug.engines.openvino", raising=False)
    with pytest.raises(MissingPackageError, match=r"pip install 'vae-aug\[openvino\]'"):
        VAEAugment(short_vae, engine="openvino")
