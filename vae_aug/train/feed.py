"""Batches for training and validation: noisy image, clean image, weight of each pixel."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from vae_aug.config import TrainConfig
from vae_aug.grey import compute_grey, find_range
from vae_aug.letterbox import letterbox, letterbox_boxes
from vae_aug.records.records import find_records, parse_example, read_records, read_serialized
from vae_aug.records.tfrecord import get_values
from vae_aug.train.corrupt import corrupt, corrupt_randomly
from vae_aug.train.style import STYLE_DIM, apply_style

Element = dict[str, tf.Tensor]

_do_not_convert = tf.autograph.experimental.do_not_convert

_SHUFFLE_BUFFER = 1024
_ZOOM = 0.15
_GAMMA = 0.25
_FLOOR = 0.08
"""Grey to which air is lifted at most, in half of the images: it is black on few scanners."""

VALIDATION_KEEP = 0.4


@dataclasses.dataclass(frozen=True)
class Source:
    """One split of one folder of records, still serialized, and how to decode it.

    Attributes:
        examples: Scalars string, serialized `tf.train.Example`.
        dtype: Name of the images' dtype, `"uint8"` or `"uint16"`.
        channels: 1 or 3.
    """

    examples: tf.data.Dataset
    dtype: str
    channels: int

    def parse(self, serialized: tf.Tensor) -> Element:
        """Decode one record."""
        return parse_example(serialized, self.dtype, self.channels)


def open_source(folder: str | Path, split: str, *, allow_damaged: bool = False) -> Source:
    """Open one split of a folder that `vae-aug ingest` wrote, unannotated images included.

    Args:
        folder: The folder.
        split: The split.
        allow_damaged: As `read_records`.

    Raises:
        RecordError: As `read_records`.
    """
    kept = {"unannotated": True, "allow_damaged": allow_damaged}
    image = read_records(folder, split, **kept).element_spec["image"]
    examples = read_serialized(find_records(folder, split, **kept)[0])
    if allow_damaged:
        examples = examples.ignore_errors()
    return Source(examples, image.dtype.name, image.shape[-1])


def make_training_feed(
    sources: Sequence[Source],
    size: int,
    config: TrainConfig,
    start: int = 0,
    context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Make the endless, reproducible stream of training batches.

    What a batch holds depends on `config.seed` and its index alone, so a run that starts again
    at step `start` sees the batches that it would have seen. Of several workers each reads all
    records, and decodes those of its own part of every batch.

    Args:
        sources: What to train on, mixed by `config.source_weights`.
        size: Side of the network's square in pixels.
        config: Batch size, corruptions, weights and seed.
        start: Batches to leave out.
        context: Which worker reads, of a strategy of how many workers and replicas; None for all
            of every batch.

    Returns:
        Batches `(noisy, clean, weights)`, each `[B, size, size, 1] float32`; of several replicas
        the parts of the worker's replicas by turns.
    """
    # Serialized records are shuffled and skipped; only those that are used get decoded.
    endless = [
        _number(source, index)
        .shuffle(_SHUFFLE_BUFFER, seed=config.seed, reshuffle_each_iteration=True)
        .repeat()
        for index, source in enumerate(sources)
    ]
    shares = list(config.source_weights or [1.0 / len(sources)] * len(sources))
    mixed = tf.data.Dataset.sample_from_datasets(endless, shares, seed=config.seed)
    fit_example = _make_fit(sources, size, config.box_weight, config.native_share)

    @_do_not_convert
    def prepare(index: tf.Tensor, numbered: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        seeds = tf.unstack(tf.random.split([config.seed, tf.cast(index, tf.int32)], 4))
        clean, weight = fit_example(*numbered, seeds[3])
        if config.shrunk_share:
            # A further seed, so that the others, and with them former runs, stay what they were.
            seed = tf.random.experimental.stateless_fold_in(seeds[3], 1)
            clean, weight = _shrink_some(clean, weight, config.shrunk_share, seed)
        clean, weight = _move(clean, weight, seeds[0])
        if config.restyle:
            style = tf.random.stateless_normal([1, STYLE_DIM], seeds[2])
            clean = apply_style(clean[None], style)[0]
        noisy = corrupt_randomly(
            clean, config.corruptions, config.keep, config.clean_share, seeds[1]
        )
        return noisy, clean, weight

    numbered = mixed.enumerate().skip(start * config.batch_size)
    context = context or tf.distribute.InputContext()
    if context.num_input_pipelines > 1:
        share = config.batch_size // context.num_input_pipelines

        @_do_not_convert
        def is_own(index: tf.Tensor, _: Any) -> tf.Tensor:
            return index % config.batch_size // share == context.input_pipeline_id

        # A stream that may end would have the workers ask each other before every step.
        endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        numbered = numbered.filter(is_own).apply(endless)
    return (
        numbered.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(context.get_per_replica_batch_size(config.batch_size), drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def make_validation_feed(
    sources: Sequence[Source], size: int, config: TrainConfig, limit: int
) -> tf.data.Dataset:
    """Make the batches a network is validated on: always the same images and the same noise.

    Args:
        sources: Where the images come from; `limit` of them are taken, in turn from each.
        size: Side of the network's square in pixels.
        config: Batch size and seed.
        limit: Most images in all.

    Returns:
        Batches `(noisy, clean)`, each `[B, size, size, 1] float32`; noisy is `replace` with 40%
        of the pixels left.
    """
    fit_example = _make_fit(sources, size, box_weight=1.0, native_share=0.0)

    @_do_not_convert
    def prepare(index: tf.Tensor, numbered: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        seed = tf.stack([config.seed, tf.cast(index, tf.int32)])
        clean, _ = fit_example(*numbered, seed)
        return corrupt(clean, "replace", VALIDATION_KEEP, seed), clean

    chosen = choose_in_turn(sources).take(limit)
    return chosen.enumerate().map(prepare).batch(config.batch_size)


def list_validation_patients(sources: Sequence[Source], limit: int) -> list[str]:
    """List the patient of each image of `make_validation_feed`, `""` where none is known."""
    patients = []
    for _, serialized in choose_in_turn(sources).take(limit).as_numpy_iterator():
        example = tf.train.Example.FromString(serialized)
        values = get_values(example, "image/patient", "bytes_list")
        patients.append(b"".join(values).decode("utf-8", "replace"))
    return patients


def choose_in_turn(sources: Sequence[Source]) -> tf.data.Dataset:
    """Take records, numbered by source, in turn from each source until all are used up."""
    return tf.data.Dataset.choose_from_datasets(
        [_number(source, index) for index, source in enumerate(sources)],
        tf.data.Dataset.range(len(sources)).repeat(),
        stop_on_empty_dataset=False,
    )


def _number(source: Source, index: int) -> tf.data.Dataset:
    """Put the number of its source before every record."""
    return source.examples.map(_do_not_convert(lambda serialized: (index, serialized)))


def _make_fit(
    sources: Sequence[Source], size: int, box_weight: float, native_share: float
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Make the function from source number, record and seed to the network's square."""

    def fit_element(element: Element, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if not native_share:
            return fit(element, size, box_weight)
        seeds = tf.unstack(tf.random.split(seed, 2))
        return tf.cond(
            tf.random.stateless_uniform([], seeds[0]) < native_share,
            lambda: cut_out(element, size, box_weight, seeds[1]),
            lambda: fit(element, size, box_weight),
        )

    def fit_example(
        index: tf.Tensor, serialized: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        branches = [
            lambda source=source: fit_element(source.parse(serialized), seed) for source in sources
        ]
        return tf.switch_case(index, branches)

    return fit_example


def fit(element: Element, size: int, box_weight: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Bring an element to the network's grey square by scaling it.

    Args:
        element: As `parse_example` makes it; of colour images the luminance counts.
        size: Side of the square in pixels.
        box_weight: Weight of a pixel inside a box, relative to 1 outside.

    Returns:
        Image `[size, size, 1] float32 in [0, 1]` and weights `[size, size, 1] float32`.
    """
    grey = _to_grey(element["image"])
    shape = tf.shape(grey)
    boxes = letterbox_boxes(element["objects"]["bbox"], shape[0], shape[1], size) * size
    return letterbox(grey, size), _weigh(boxes, size, box_weight)


def cut_out(
    element: Element, size: int, box_weight: float, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Bring an element to the network's grey square by cutting a random part out, unscaled.

    A network that runs at native resolution has to have seen it.

    Args:
        element: As for `fit`. A side shorter than the square is filled up with 0.
        size: As for `fit`.
        box_weight: As for `fit`.
        seed: `[2] int32`, of the place.

    Returns:
        As `fit`.
    """
    grey = _to_grey(element["image"])
    shape = tf.shape(grey)[:2]
    room = tf.cast(tf.maximum(shape - size, 0) + 1, tf.float32)
    corner = tf.cast(tf.random.stateless_uniform([2], seed) * room, tf.int32)
    short = tf.maximum(size - shape, 0)
    padded = tf.pad(grey, [[0, short[0]], [0, short[1]], [0, 0]])
    image = padded[corner[0] : corner[0] + size, corner[1] : corner[1] + size]
    boxes = element["objects"]["bbox"] * tf.cast(tf.tile(shape, [2]), tf.float32)
    boxes -= tf.cast(tf.tile(corner, [2]), tf.float32)
    return tf.ensure_shape(image, [size, size, 1]), _weigh(boxes, size, box_weight)


def _shrink_some(
    image: tf.Tensor, weight: tf.Tensor, share: float, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Scale a share of the squares down to a side of a third to all of it; the rest is black."""
    size = image.shape[0]
    chosen, side, place = tf.unstack(tf.random.split(seed, 3))
    side = tf.random.stateless_uniform([], side, size // 3, size, tf.int32)
    corner = tf.random.stateless_uniform([2], place) * tf.cast(size - side + 1, tf.float32)
    top, left = tf.unstack(tf.cast(corner, tf.int32))

    def shrink(square: tf.Tensor) -> tf.Tensor:
        smaller = tf.image.resize(square, [side, side], antialias=True)
        return tf.image.pad_to_bounding_box(smaller, top, left, size, size)

    return tf.cond(
        tf.random.stateless_uniform([], chosen) < share,
        lambda: (shrink(image), 1.0 + shrink(weight - 1.0)),
        lambda: (image, weight),
    )


def _to_grey(image: tf.Tensor) -> tf.Tensor:
    """Turn `[H, W, C]` into `[H, W, 1] float32 in [0, 1]`, as the transform does."""
    return compute_grey(image, *find_range(image))


def _weigh(boxes: tf.Tensor, size: int, box_weight: float) -> tf.Tensor:
    """Weigh the pixels of the square, given boxes `[N, 4]` in its pixels, y before x."""
    line = tf.range(size, dtype=tf.float32) + 0.5
    rows = _between(line, boxes[:, 0:1], boxes[:, 2:3])
    columns = _between(line, boxes[:, 1:2], boxes[:, 3:4])
    inside = tf.minimum(tf.einsum("ny,nx->yx", rows, columns), 1.0)
    return (1.0 + (box_weight - 1.0) * inside)[..., None]


def _between(line: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """Return 1.0 where a pixel's centre lies in [low, high): `[N, S] float32`."""
    return tf.cast((line >= low) & (line < high), tf.float32)


def _move(image: tf.Tensor, weight: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mirror, zoom, shift an image, change its gamma and its black; its weights move along."""
    size = image.shape[0]
    seeds = tf.unstack(tf.random.split(seed, 5))
    zoom = tf.random.stateless_uniform([], seeds[0], 1.0 - _ZOOM, 1.0 + _ZOOM)
    corner = tf.random.stateless_uniform([2], seeds[1]) * (1.0 - zoom)
    both = tf.concat([image, weight], axis=-1)
    mirrored = tf.random.stateless_uniform([], seeds[2]) < 0.5
    both = tf.where(mirrored, both[:, ::-1], both)
    box = tf.concat([corner, corner + zoom], axis=0)[None]
    both = tf.image.crop_and_resize(both[None], box, [0], (size, size))[0]
    gamma = tf.random.stateless_uniform([], seeds[3], 1.0 - _GAMMA, 1.0 + _GAMMA)
    moved = tf.clip_by_value(both[..., :1], 0.0, 1.0) ** gamma
    floor = tf.nn.relu(tf.random.stateless_uniform([], seeds[4], -_FLOOR, _FLOOR))
    moved = floor + (1.0 - floor) * moved
    # Beyond the old border there is nothing to weigh, and nothing to learn but air.
    return moved, tf.maximum(both[..., 1:], 1e-3)
