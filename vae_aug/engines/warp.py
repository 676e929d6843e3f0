"""Displace pixels by OpenCV, for engines whose graphs call Python anyhow.

`vae_aug.model.fields.displace` does it in TensorFlow's operations, in two passes where this samples
the image once. Where the displacement is smooth both agree; OpenCV before version 5 rounds places
to 1/32 of a pixel.
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
    """Sample an image once, at the places that columns, then rows, are moved from.

    The displacement down is that of the place across, since columns are moved first.
    """
    height, width = image.shape[:2]
    rows, columns = np.indices((height, width), np.float32)
    down, across = cv2.split(displacement)
    across = np.clip(across + columns, 0.0, width - 1.0)
    down = cv2.remap(down, across, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    down = np.clip(down + rows, 0.0, height - 1.0)
    moved = cv2.remap(image, across, down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return moved.reshape(image.shape)
