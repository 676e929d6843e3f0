"""Fit an image of any size into the network's square, and bring results back."""

from __future__ import annotations

import tensorflow as tf


def compute_content(height: tf.Tensor, width: tf.Tensor, size: int) -> tuple[tf.Tensor, ...]:
    """Compute where the scaled image lies in the square.

    Args:
        height: Scalar int32, height of the image in pixels.
        width: Scalar int32, width of the image in pixels.
        size: Side of the square in pixels.

    Returns:
        Scalars int32 `(top, left, content_height, content_width)` in pixels of the square.
    """
    longest = tf.maximum(height, width)
    # Integer arithmetic (round half up) so that every device agrees on the geometry.
    content_height = tf.maximum((2 * height * size + longest) // (2 * longest), 1)
    content_width = tf.maximum((2 * width * size + longest) // (2 * longest), 1)
    top = (size - content_height) // 2
    left = (size - content_width) // 2
    return top, left, content_height, content_width


def letterbox(images: tf.Tensor, size: int) -> tf.Tensor:
    """Scale images to fit a square, keeping the aspect ratio; fill the rest with 0.

    Args:
        images: `[H, W, C]` or `[B, H, W, C]`, float32.
        size: Side of the square in pixels.

    Returns:
        `[size, size, C]` or `[B, size, size, C]`, float32. Down-scaling is antialiased.
    """
    *batch, _, _, channels = images.shape
    square = tf.TensorShape([*batch, size, size, channels])
    if images.shape == square:
        return images
    height, width = tf.unstack(tf.shape(images)[-3:-1])
    top, left, height, width = compute_content(height, width, size)
    scaled = _scale(images, height, width)
    return tf.ensure_shape(tf.image.pad_to_bounding_box(scaled, top, left, size, size), square)


def unletterbox(squares: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Cut the content out of squares and scale it to the original size.

    Args:
        squares: `[S, S, C]` or `[B, S, S, C]`, float32, e.g. a difference computed in the network's
            square.
        height: Original height in pixels.
        width: Original width in pixels.

    Returns:
        `[height, width, C]` or `[B, height, width, C]`, float32.
    """
    size = squares.shape[-2]
    height, width = tf.convert_to_tensor(height), tf.convert_to_tensor(width)
    if tf.get_static_value(height) == size and tf.get_static_value(width) == size:
        return squares
    top, left, content_height, content_width = compute_content(height, width, size)
    content = tf.image.crop_to_bounding_box(squares, top, left, content_height, content_width)
    return tf.image.resize(content, (height, width))


def letterbox_boxes(boxes: tf.Tensor, height: tf.Tensor, width: tf.Tensor, size: int) -> tf.Tensor:
    """Move boxes of an image into the coordinates of its letterboxed square.

    Args:
        boxes: `[..., 4] float32`, `rel_yxyx` of the image.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        size: Side of the square in pixels.

    Returns:
        `[..., 4] float32`, `rel_yxyx` of the square.
    """
    geometry = compute_content(tf.convert_to_tensor(height), tf.convert_to_tensor(width), size)
    top, left, content_height, content_width = (tf.cast(g, tf.float32) for g in geometry)
    scale = tf.stack([content_height, content_width, content_height, content_width])
    offset = tf.stack([top, left, top, left])
    return (boxes * scale + offset) / size


def _scale(images: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Do what `tf.image.resize(images, (height, width), antialias=True)` does, in half its time.

    TensorFlow's kernel is fast along channels only, so in both passes the other axis poses as them.
    """
    for side in (height, width):
        *batch, rows, columns, channels = tf.unstack(tf.shape(images))
        flat = tf.reshape(images, [*batch, rows, 1, columns * channels])
        scaled = tf.image.resize(flat, (side, 1), antialias=True)
        # The second pass turns the image back.
        turned = [1, 0, 2] if not batch else [0, 2, 1, 3]
        images = tf.transpose(tf.reshape(scaled, [*batch, side, columns, channels]), turned)
    return images
