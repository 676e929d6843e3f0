"""Apply the network's output to images, in graphs that all transforms of a process share.

The guard is over a thousand operations. Traced anew for every dataset they would take a second,
and again half of one wherever TensorFlow optimises the function around them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import tensorflow as tf

from vae_aug.augment.guard import change_guarded, measure_contrast_ratio
from vae_aug.config import Guard
from vae_aug.engines.graphs import Graph, find_graph, keep_graph
from vae_aug.grey import compute_grey, find_range

_Range = tuple[float, float] | None


class ChangeSettings(NamedTuple):
    """All that the graph depends on beside the images' dtype and channels.

    Attributes:
        guard: As of `change_guarded`; `"off"` where there are no boxes.
        min_fidelity: As of `change_guarded`.
        denoised: As of `change_guarded`.
        replaced: Share of the image itself that the network's output stands in for.
        partial: Whether some images may not be chosen.
        value_range: As of `find_range`.
    """

    guard: Guard
    min_fidelity: float
    denoised: bool
    replaced: float
    partial: bool
    value_range: _Range


def change_images(
    images: tf.Tensor,
    computed: tf.Tensor,
    boxes: tf.Tensor,
    chosen: tf.Tensor,
    settings: ChangeSettings,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Add the network's output to images of one size, as far as the guard lets it.

    Args:
        images: `[B, H, W, C]`, of any dtype that `change_luminance` takes.
        computed: `[B, H, W, 1] float32`, what the network adds.
        boxes: `[B, N, 4] float32`, `rel_yxyx`.
        chosen: `[B] bool`; other images stay as they are, if the settings are `partial`.
        settings: Of the transform.

    Returns:
        The images, and `"fidelity"` and `"contrast"` `[B, N] float32` and `"guarded"`
        `[B, N] bool`, see `VAEAugment.call_with_report`.

    Raises:
        tf.errors.InvalidArgumentError: As `find_range`.
    """
    low, high = find_range(images, settings.value_range)
    kind = (images.dtype, images.shape[-1])
    change = trace_change(settings, *kind)
    measure = trace_contrast(settings.value_range, *kind)
    changed, fidelity, guarded = change(images, computed, boxes, chosen, low, high)
    # A call of its own, which TensorFlow prunes where its output is not used, as under `apply`.
    [contrast] = measure(images, changed, boxes, low, high)
    changed = tf.ensure_shape(changed, images.shape)
    return changed, {"fidelity": fidelity, "contrast": contrast, "guarded": guarded}


def _find_static_range(images: tf.Tensor, low: Any, high: Any, value_range: _Range) -> Any:
    """Return the range of values, as constants where the dtype and the settings say it."""
    return find_range(images, value_range) if images.dtype.is_integer else (low, high)


@functools.lru_cache(maxsize=64)
def trace_change(settings: ChangeSettings, dtype: tf.DType, channels: int) -> Any:
    """Trace `change_images` but for the contrast: images, fidelity and what was guarded."""

    def change(images: Any, computed: Any, boxes: Any, chosen: Any, low: Any, high: Any) -> Any:
        low, high = _find_static_range(images, low, high, settings.value_range)
        wanted = computed
        if settings.replaced:
            wanted -= settings.replaced * compute_grey(images, low, high)
        if settings.partial:
            wanted = tf.where(chosen[:, None, None, None], wanted, 0.0)
        return change_guarded(
            images,
            wanted,
            boxes,
            low,
            high,
            guard=settings.guard,
            min_fidelity=settings.min_fidelity,
            denoised=settings.denoised,
        )

    images, boxes, *limits = _make_specs(dtype, channels)
    computed = tf.TensorSpec([None, None, None, 1], tf.float32)
    specs = [images, computed, boxes, tf.TensorSpec([None], tf.bool), *limits]
    return _keep(change, specs, settings)


@functools.lru_cache(maxsize=64)
def trace_contrast(value_range: _Range, dtype: tf.DType, channels: int) -> Any:
    """Trace what measures the contrast of boxes before and after a change."""

    def measure(images: Any, changed: Any, boxes: Any, low: Any, high: Any) -> Any:
        low, high = _find_static_range(images, low, high, value_range)
        before, after = (compute_grey(pixels, low, high) for pixels in (images, changed))
        return measure_contrast_ratio(before, after, boxes)

    images, boxes, *limits = _make_specs(dtype, channels)
    return _keep(measure, [images, images, boxes, *limits], [value_range])


def _keep(function: Callable[..., Any], specs: list[tf.TensorSpec], settings: Iterable[Any]) -> Any:
    """Return the graph of a function, from the cache if it is there."""

    def make() -> Graph:
        return Graph.of(tf.function(function, autograph=False).get_concrete_function(*specs))

    key = [function.__name__, *settings, specs[0].dtype.name, specs[0].shape[-1]]
    with tf.init_scope():
        return keep_graph(find_graph("transform", key), make).make_call()


def _make_specs(dtype: tf.DType, channels: int) -> list[tf.TensorSpec]:
    """Return the types of images, boxes, and the values of black and white."""
    limit = tf.TensorSpec([None, 1, 1, 1], tf.float32)
    images = tf.TensorSpec([None, None, None, channels], dtype)
    return [images, tf.TensorSpec([None, None, 4], tf.float32), limit, limit]
