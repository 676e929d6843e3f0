"""Filter images with a Gaussian, in TensorFlow's operations."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def make_kernel(sigma_px: float) -> np.ndarray:
    """Make the weights of a Gaussian of a standard deviation, cut off at 8/3 of it, with sum 1."""
    radius = round(8 / 3 * sigma_px)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma_px) ** 2)
    return kernel / kernel.sum()


def smooth(images: tf.Tensor, sigma_px: float) -> tf.Tensor:
    """Filter `[H, W, C] float32` with a Gaussian whose weights, at the edge, are those inside."""
    kernel = tf.constant(make_kernel(sigma_px), tf.float32)[:, None, None, None]

    def filter_rows(planes: tf.Tensor) -> tf.Tensor:
        # The other axis as channels: many times as fast as a convolution of one channel.
        height, width, channels = tf.unstack(tf.shape(planes))
        flat = tf.reshape(planes, [1, height, 1, width * channels])
        kernels = tf.tile(kernel, [1, 1, width * channels, 1])
        filtered = tf.nn.depthwise_conv2d(flat, kernels, [1] * 4, "SAME")
        inside = tf.nn.conv2d(tf.ones([1, height, 1, 1]), kernel, 1, "SAME")
        return tf.reshape((filtered / inside)[0], [height, width, channels])

    turned = tf.transpose(filter_rows(images), [1, 0, 2])
    return tf.transpose(filter_rows(turned), [1, 0, 2])
