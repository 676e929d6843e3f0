"""The decoder mirrors the encoder, and its last layer computes what Keras's does."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from vae_aug.config import ModelConfig
from vae_aug.model.decoder import Conv2DTranspose, make_decoder
from vae_aug.model.encoder import STAGES


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 1e-6), ("mixed_bfloat16", 2e-2)])
def test_transposed_convolution_is_keras_own_computed_in_another_way(dtype, atol):
    settings = {"strides": 2, "padding": "same", "bias_initializer": "normal", "dtype": dtype}
    ours = Conv2DTranspose(3, 4, **settings)
    theirs = keras.layers.Conv2DTranspose(3, 4, **settings)
    maps = tf.random.stateless_normal([2, 5, 7, 8], [1, 2])
    weights = []
    for layer in (ours, theirs):
        layer.build(maps.shape)
        weights = weights or layer.get_weights()
        layer.set_weights(weights)
    drawn = ours(maps)
    assert drawn.shape == theirs(maps).shape == (2, 10, 14, 3)
    assert drawn.dtype == theirs(maps).dtype
    np.testing.assert_allclose(*(tf.cast(f(maps), tf.float32) for f in (ours, theirs)), atol=atol)


def test_decoder_mirrors_the_encoders_stages(short_stages):
    config = ModelConfig(encoder="efficientnet-lite1", image_size=64, latent_dim=16)
    shapes = {layer.name: layer.output.shape for layer in make_decoder(config).layers}
    ends = [32, *(stage.channels for stage in STAGES["efficientnet-lite1"][:-1])]
    assert shapes["head_relu"] == (None, 2, 2, 320)
    side = 2
    for index in reversed(range(7)):
        assert shapes[f"stage{index}_last_project"] == (None, side, side, ends[index])
        side *= STAGES["efficientnet-lite1"][index].stride
    assert shapes["image"] == (None, 64, 64, 3)


def test_full_depth_repeats_every_block():
    config = ModelConfig(
        encoder="efficientnet-lite1", image_size=32, latent_dim=16, decoder_repeats=0
    )
    names = [layer.name for layer in make_decoder(config).layers]
    blocks = sum(stage.repeats for stage in STAGES["efficientnet-lite1"])
    assert sum(name.endswith("_project") for name in names) == blocks
