"""The decoder: the encoder's stages in reverse order, from the latent vector to an image."""

from __future__ import annotations

import keras
import tensorflow as tf

from vae_aug.config import ModelConfig
from vae_aug.model.encoder import STAGES, Stage

_STEM_CHANNELS = 32
_TOTAL_STRIDE = 32
_NORM_MOMENTUM = 0.9
"""At 0.99 running statistics need five hundred steps to forget their initial values, with which a
stack of twenty layers puts out nothing like an image."""

_SEED_CHANNELS = 64
"""Channels of the first map, which a dense layer computes from the latent vector."""


class Conv2DTranspose(keras.layers.Conv2DTranspose):
    """Keras's layer for filters of 4 by 4 pixels and a stride of 2, computed twice as fast.

    One convolution of 2 by 2 places computes the four pixels that a place of the map becomes as
    channels, which are then laid out as pixels. Keras names weights in a file by the class of their
    layer, so this class has the name of Keras's.

    Reference: Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient
    Sub-Pixel Convolutional Neural Network (2016), for channels laid out as pixels.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Map `[B, H, W, C]` to `[B, 2 H, 2 W, filters]`."""
        return lay_out(self.compute_blocks(inputs))

    def compute_blocks(self, inputs: tf.Tensor) -> tf.Tensor:
        """Map `[B, H, W, C]` to `[B, H + 1, W + 1, 4 filters]`, see `lay_out`."""
        # Of each axis, pixel 2 j - 1 + q takes place j - 1 + a by row 2 - 2 a + q of the filter,
        # with a and q either 0 or 1.
        kernel = tf.reshape(self.kernel, [2, 2, 2, 2, self.filters, inputs.shape[-1]])
        kernel = tf.transpose(kernel[::-1, :, ::-1], [0, 2, 5, 1, 3, 4])
        kernel = tf.reshape(kernel, [2, 2, inputs.shape[-1], 4 * self.filters])
        padding = [[0, 0], [1, 1], [1, 1], [0, 0]]
        blocks = tf.nn.conv2d(inputs, kernel, 1, padding)
        return tf.nn.bias_add(blocks, tf.tile(self.bias, [4]))


def lay_out(blocks: tf.Tensor) -> tf.Tensor:
    """Lay channels out as pixels: `[B, H + 1, W + 1, 4 C]` to `[B, 2 H, 2 W, C]`.

    Args:
        blocks: Channels of the upper left pixel, the upper right, the lower left, the lower right;
            the outermost pixels lie outside of the image.
    """
    return tf.nn.depth_to_space(blocks, 2)[:, 1:-1, 1:-1]


def make_decoder(config: ModelConfig) -> keras.Model:
    """Make the mirror of the encoder.

    Every stage of the encoder appears in reverse order with its kernel, its expansion and its
    stride turned into up-sampling; it ends with as many channels as the encoder's stage began with.
    The mirror of the stem is a transposed convolution to three channels.

    Args:
        config: Encoder, image size, latent length and blocks per stage.

    Returns:
        A model from `z [B, latent_dim / 2] float32` to `[B, S, S, 3] float32 in [0, 1]`.
    """
    stages = STAGES[config.encoder]
    side = config.image_size // _TOTAL_STRIDE
    z = keras.Input((config.latent_dim // 2,), name="z")
    x = keras.layers.Dense(side * side * _SEED_CHANNELS, name="unpool")(z)
    x = keras.layers.Reshape((side, side, _SEED_CHANNELS), name="unpool_map")(x)
    x = _convolve(x, stages[-1].channels, "head")
    ends = [_STEM_CHANNELS, *(stage.channels for stage in stages[:-1])]
    for index in reversed(range(len(stages))):
        x = _mirror_stage(x, stages[index], ends[index], config.decoder_repeats, f"stage{index}")
    x = Conv2DTranspose(3, 4, strides=2, padding="same", name="stem")(x)
    image = keras.layers.Activation("sigmoid", name="image")(x)
    return keras.Model(z, image, name="decoder")


def _mirror_stage(
    x: keras.KerasTensor, stage: Stage, channels: int, repeats: int, name: str
) -> keras.KerasTensor:
    """Apply a stage backwards: its equal blocks first, then the one that changes size."""
    for index in range((repeats or stage.repeats) - 1):
        y = _inverted_residual(x, stage, stage.channels, f"{name}_block{index}")
        x = keras.layers.Add(name=f"{name}_block{index}_add")([x, y])
    # Before up-sampling the widened map costs a quarter.
    x = _inverted_residual(x, stage, channels, f"{name}_last")
    if stage.stride > 1:
        x = keras.layers.UpSampling2D(stage.stride, interpolation="bilinear", name=f"{name}_up")(x)
    return x


def _inverted_residual(
    x: keras.KerasTensor, stage: Stage, channels: int, name: str
) -> keras.KerasTensor:
    """Widen by `stage.expand`, convolve each channel, narrow to `channels`.

    Reference: Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks (2018).
    """
    if stage.expand > 1:
        x = _convolve(x, x.shape[-1] * stage.expand, f"{name}_expand")
    x = keras.layers.DepthwiseConv2D(
        stage.kernel, padding="same", use_bias=False, name=f"{name}_depthwise"
    )(x)
    x = keras.layers.BatchNormalization(momentum=_NORM_MOMENTUM, name=f"{name}_depthwise_norm")(x)
    x = keras.layers.ReLU(name=f"{name}_depthwise_relu")(x)
    x = keras.layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_project")(x)
    return keras.layers.BatchNormalization(momentum=_NORM_MOMENTUM, name=f"{name}_project_norm")(x)


def _convolve(x: keras.KerasTensor, channels: int, name: str) -> keras.KerasTensor:
    """Apply a 1x1 convolution, batch normalisation and ReLU."""
    x = keras.layers.Conv2D(channels, 1, use_bias=False, name=name)(x)
    x = keras.layers.BatchNormalization(momentum=_NORM_MOMENTUM, name=f"{name}_norm")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)
