"""A small anchor-free detector for grey images, to measure augmentation with.

One heatmap of box centres per class at stride 4, and the distances from each cell to the four
sides of its box, on EfficientNet-Lite1 with the ImageNet weights of the extra `[lite1]`.

Reference:
    Zhou, Wang and Krähenbühl, Objects as Points (2019), for the heatmap and its loss; Liu et al.,
    Training-Time-Friendly Network for Real-Time Object Detection (AAAI 2020), for boxes that every
    cell near a centre learns, by generalised IoU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from vae_aug.model.lite1 import find_package_weights, load_lite1, make_lite1

STRIDE = 4
_FEATURES = ("block2c", "block3c", "block5d", "block7a")
"""Where the backbone has strides 4, 8, 16 and 32."""

_PRIOR = 0.02
"""What the heatmap starts from, so that the many empty cells do not drown the first steps."""

_SIGMA_SHARE = 0.1
"""Standard deviation of a centre's Gaussian, as a share of the box's side."""

Batch = tuple[np.ndarray, np.ndarray]


def make_detector(size: int, classes: int, seed: int, frozen_to: str = "block3c") -> keras.Model:
    """Make a detector whose head starts from weights drawn by `seed`.

    Args:
        size: Side S of its images in pixels, a multiple of 32.
        classes: Number C of classes.
        seed: Of the head's weights.
        frozen_to: The backbone keeps its weights up to this layer; its batch normalisation keeps
            the published statistics everywhere, which small batches would only blur, and its
            depthwise kernels stay, whose gradients take TensorFlow more than half of a step on a
            CPU.

    Returns:
        Model from `[B, S, S, 1] float32 in [0, 255]` to `[B, S/4, S/4, C + 4] float32`: logits of
        the heatmap, then logarithms of the distances to top, left, bottom, right in cells.
    """
    keras.utils.set_random_seed(seed)
    backbone = make_lite1(size)
    load_lite1(backbone, find_package_weights())
    frozen, kept = True, (keras.layers.BatchNormalization, keras.layers.DepthwiseConv2D)
    for layer in backbone.layers:
        layer.trainable = not frozen and not isinstance(layer, kept)
        frozen = frozen and layer.name != frozen_to
    features = keras.Model(backbone.input, [backbone.get_layer(f).output for f in _FEATURES])
    image = keras.Input((size, size, 1))
    grey = keras.layers.Rescaling(1 / 255)(image)
    *finer, x = features(keras.layers.Concatenate()([grey, grey, grey]))
    x = _project(x, 64)
    for skip, channels in zip(reversed(finer), (64, 48, 32), strict=True):
        x = keras.layers.UpSampling2D(interpolation="bilinear")(_convolve(x, channels, 1))
        x = _convolve(keras.layers.Add()([x, _project(skip, channels)]), channels, 3)
    x = _convolve(x, 64, 3)
    bias = keras.initializers.Constant(float(np.log(_PRIOR / (1 - _PRIOR))))
    small = keras.initializers.RandomNormal(stddev=0.01)
    heat = keras.layers.Conv2D(classes, 1, kernel_initializer=small, bias_initializer=bias)(x)
    sides = keras.layers.Conv2D(4, 1, kernel_initializer=small, bias_initializer="ones")(x)
    return keras.Model(image, keras.layers.Concatenate()([heat, sides]), name="detector")


def _project(feature: keras.KerasTensor, channels: int) -> keras.KerasTensor:
    """Bring a feature of the backbone, a sum of any size, to the head's channels and scale."""
    x = keras.layers.Conv2D(channels, 1, use_bias=False)(feature)
    return keras.layers.ReLU()(keras.layers.GroupNormalization(8)(x))


def _convolve(x: keras.KerasTensor, channels: int, kernel: int) -> keras.KerasTensor:
    return keras.layers.Conv2D(
        channels, kernel, padding="same", activation="relu", kernel_initializer="he_normal"
    )(x)


def make_target(boxes: np.ndarray, labels: np.ndarray, size: int, classes: int) -> np.ndarray:
    """Draw what the detector is to put out for an image.

    Args:
        boxes: `[M, 4] float32`, `yxyx` in pixels.
        labels: `[M] int32`.
        size: Side S of the image in pixels.
        classes: Number C of classes.

    Returns:
        `[S/4, S/4, C + 5] float32`: Gaussians around the centres, 1 in a centre's own cell; the
        distances to a box's sides in cells, 0 where there is no box; and their weight.
    """
    cells = size // STRIDE
    target = np.zeros((cells, cells, classes + 5), np.float32)
    centres = np.arange(cells, dtype=np.float32) + 0.5
    # Small boxes last, so that a cell near two centres belongs to the smaller one.
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    for index in np.argsort(-areas):
        top, left, bottom, right = boxes[index] / STRIDE
        bumps = []
        for start, end in ((top, bottom), (left, right)):
            middle = min(int((start + end) / 2), cells - 1) + 0.5
            sigma = max(_SIGMA_SHARE * (end - start), 0.4)
            bumps.append(np.exp(-((centres - middle) ** 2) / (2 * sigma**2)))
        bump = np.outer(*bumps)
        heat = target[..., labels[index]]
        np.maximum(heat, bump, out=heat)
        y, x = np.meshgrid(centres, centres, indexing="ij")
        sides = np.stack([y - top, x - left, bottom - y, right - x], -1)
        inside = (bump > 0.2) & (sides.min(-1) > 0)
        inside[np.unravel_index(bump.argmax(), bump.shape)] = True
        target[inside, classes:-1] = np.maximum(sides[inside], 0.05)
        target[inside, -1] = bump[inside] / bump[inside].sum()
    return target


def compute_loss(target: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
    """Compute the focal loss of the heatmap and the generalised IoU loss of the boxes.

    Args:
        target: Of `make_target`, `[B, S/4, S/4, C + 5] float32`.
        output: Of the detector, `[B, S/4, S/4, C + 4] float32`.

    Returns:
        Scalar float32, per box of the batch; a batch without boxes counts as one with one box.
    """
    classes = target.shape[-1] - 5
    heat, sides, weight = tf.split(target, [classes, 4, 1], -1)
    logits, log_sides = tf.split(output, [classes, 4], -1)
    chance = tf.sigmoid(logits)
    centre = tf.cast(heat > 0.999, tf.float32)
    found = centre * (1 - chance) ** 2 * tf.nn.softplus(-logits)
    false = (1 - centre) * (1 - heat) ** 4 * chance**2 * tf.nn.softplus(logits)
    predicted = tf.exp(tf.clip_by_value(log_sides, -4.0, 5.0))
    inner, outer = tf.minimum(sides, predicted), tf.maximum(sides, predicted)
    overlap, hull = _area(inner), _area(outer)
    union = _area(sides) + _area(predicted) - overlap
    shortfall = 1 - overlap / (union + 1e-6) + (hull - union) / (hull + 1e-6)
    boxes = tf.maximum(tf.reduce_sum(weight), 1.0)
    return (tf.reduce_sum(found + false) + 2 * tf.reduce_sum(weight[..., 0] * shortfall)) / boxes


def _area(sides: tf.Tensor) -> tf.Tensor:
    return (sides[..., 0] + sides[..., 2]) * (sides[..., 1] + sides[..., 3])


def train_detector(
    model: keras.Model,
    batches: Iterator[Batch],
    steps: int,
    learning_rate: float = 1e-3,
    momentum: float = 0.98,
    progress: Callable[[int, float], None] | None = None,
) -> None:
    """Train for a number of steps, and leave the moving average of the weights in the model.

    The learning rate rises for a tenth of the steps and falls to 0 by a cosine, so that the last
    weights hardly move; their moving average is what is scored. Both take chance out of the score.

    Args:
        model: Of `make_detector`.
        batches: Images `[B, S, S, 1] uint8` and their targets.
        steps: Optimiser steps.
        learning_rate: Peak of the schedule.
        momentum: Share of the average that every step keeps.
        progress: Called every 25 steps and at the end, with the step and the mean loss since.
    """
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - steps // 10, warmup_target=learning_rate, warmup_steps=steps // 10
    )
    optimizer = keras.optimizers.AdamW(
        rate, weight_decay=1e-4, global_clipnorm=10.0, use_ema=True, ema_momentum=momentum
    )
    optimizer.build(model.trainable_variables)

    @tf.function
    def train_step(images: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = compute_loss(targets, model(tf.cast(images, tf.float32), training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    losses = []
    for step in range(1, steps + 1):
        losses.append(train_step(*(tf.constant(part) for part in next(batches))))
        if progress is not None and (step % 25 == 0 or step == steps):
            progress(step, float(np.mean(losses)))
            losses = []
    optimizer.finalize_variable_values(model.trainable_variables)


def detect(model: keras.Model, images: np.ndarray, limit: int = 20) -> list[np.ndarray]:
    """Find boxes: peaks of the heatmap that are the highest of their 3 x 3 cells.

    Args:
        model: Of `make_detector`.
        images: `[N, S, S, 1] uint8`.
        limit: Most detections of an image.

    Returns:
        A `[limit, 6] float32` for each image: `yxyx` in pixels, score, label; best first. Boxes
        that overlap a better one of their class by an IoU above 0.5 are left out.
    """
    size, found = images.shape[1], []
    for start in range(0, len(images), 32):
        batch = images[start : start + 32].astype(np.float32)
        output = tf.constant(model.predict_on_batch(batch))
        logits, log_sides = tf.split(output, [output.shape[-1] - 4, 4], -1)
        scores = tf.sigmoid(logits)
        peaks = tf.where(scores == tf.nn.max_pool2d(scores, 3, 1, "SAME"), scores, 0.0)
        sides = tf.exp(tf.clip_by_value(log_sides, -4.0, 5.0))
        for chances, distances in zip(peaks.numpy(), sides.numpy(), strict=True):
            found.append(list_boxes(chances, distances, size, limit))
    return found


def list_boxes(chances: np.ndarray, sides: np.ndarray, size: int, limit: int) -> np.ndarray:
    best = np.argsort(-chances, axis=None, kind="stable")[: 2 * limit]
    rows, columns, labels = np.unravel_index(best, chances.shape)
    centre = np.stack([rows, columns], 1) + 0.5
    distances = sides[rows, columns]
    corners = np.concatenate([centre - distances[:, :2], centre + distances[:, 2:]], 1)
    corners = np.clip(corners * STRIDE, 0, size).astype(np.float32)
    scores = chances[rows, columns, labels]
    # Moved apart by class, boxes of different classes never overlap.
    apart = corners + (2 * size * labels)[:, None]
    kept = tf.image.non_max_suppression(apart, scores, limit, iou_threshold=0.5).numpy()
    return np.concatenate([corners, scores[:, None], labels[:, None]], 1)[kept].astype(np.float32)
