"""Displace pixels by OpenCV, for engines whose graphs call Python anyhow.

Reference: `vae_aug.model.fields.displace`, which does the same in TensorFlow's operations.
"""

from __future__ import annotations

import cv2
import numpy as np
import tensorflow as tf

from vae_aug.engines.shutdown import end_at_exit


def displace(image: tf.Tensor, displacement: tf.Tensor) -> tf.Tensor:
    """Take every pixel from elsewhere; see `vae_aug.model.fields.displace`.

    Args:
        image: `[H, W, C] float32`.
        displacement: `[H, W, 2] float32`, pixels down and across.

    Returns:
        `[H, W, C] float32`; a pixel that does not move is copied bit for bit.
    """
    moved = tf.numpy_function(_remap, [image, displacement], tf.float32, stateful=False)
    return tf.ensure_shape(moved, image.shape)


@end_at_exit
def _remap(image: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Sample an image once, where two passes along columns and rows would take its pixels from."""
    height, width = image.shape[:2]
    rows, columns = np.indices((height, width), np.float32, sparse=True)
    down, across = cv2.split(displacement)
    across = np.clip(across + columns, 0.0, width - 1.0)
    down = cv2.remap(
        down,
        across,
        rows + np.zeros_like(columns),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    down = np.clip(down + rows, 0.0, height - 1.0)
    moved = cv2.remap(image, across, down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return moved.reshape(image.shape)
