"""Apply the network's output to an image, in graphs that all transforms of a process share.

The guard is over a thousand operations. Traced anew for every dataset they would take a second,
and again half of one wherever TensorFlow optimises the function around them.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import tensorflow as tf

from vae_aug.augment.adaptive import find_noise_share
from vae_aug.augment.guard import change_guarded, measure_contrast_ratio
from vae_aug.augment.transformed import leave_unchanged, transform_guarded
from vae_aug.config import Guard
from vae_aug.engines.graphs import Graph, find_graph, keep_graph
from vae_aug.grey import compute_grey, find_range
from vae_aug.model import fields
from vae_aug.model.fields import PACKED, Displace, Fields


class ChangeSettings(NamedTuple):
    """All that the graph depends on beside the image's dtype and channels.

    Attributes:
        guard: As of `change_guarded`; `"off"` where there are no boxes.
        min_fidelity: As of `change_guarded`.
        denoised: As of `change_guarded`.
        adaptive: Whether the share of a denoiser's change that is not noise is left out.
        replaced: Share of the image itself that the network's output stands in for.
        transformed: Whether the network computes transformations, as `transform_guarded` takes.
        moves: Whether these may move pixels.
        contrast: Whether to measure the contrast of boxes, which takes longer than all else.
        value_range: As of `find_range`.
    """

    guard: Guard
    min_fidelity: float
    denoised: bool
    adaptive: bool
    replaced: float
    transformed: bool
    moves: bool
    contrast: bool
    value_range: tuple[float, float] | None


def change_image(
    image: tf.Tensor,
    computed: tf.Tensor,
    boxes: tf.Tensor,
    chosen: tf.Tensor,
    settings: ChangeSettings,
    displace: Displace = fields.displace,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Add the network's output to an image, as far as the guard lets it.

    Args:
        image: `[H, W, C]`, of any dtype that `change_luminance` takes.
        computed: `[H, W, 1] float32`, what the network adds, or `[PACKED] float32`, a
            transformation; see `Fields.pack`.
        boxes: `[N, 4] float32`, `rel_yxyx`.
        chosen: `[] bool`; an image that is not chosen stays as it is.
        settings: Of the transform.
        displace: Moves pixels, as the engine does it.

    Returns:
        The image, and `"fidelity"` and `"contrast"` `[N] float32` and `"guarded"` `[N] bool`, see
        `VAEAugment.call_with_report`; the contrast is NaN unless the settings say to measure it.

    Raises:
        tf.errors.InvalidArgumentError: As `find_range`.
    """
    change = trace_change(settings, image.dtype, image.shape[-1], displace)
    changed, *report = change(image, computed, boxes, chosen)
    changed = tf.ensure_shape(changed, image.shape)
    return changed, dict(zip(("fidelity", "contrast", "guarded"), report, strict=True))


@functools.lru_cache(maxsize=64)
def trace_change(
    settings: ChangeSettings, dtype: tf.DType, channels: int, displace: Displace
) -> Any:
    """Return `change_image` as a graph, from the cache if it is there.

    A graph that calls Python, as `displace` of some engines does, is not kept in the cache.
    """
    guarded_by: Any = {"guard": settings.guard, "min_fidelity": settings.min_fidelity}

    def change(image: Any, computed: Any, boxes: Any, chosen: Any) -> Any:
        low, high = find_range(image, settings.value_range)
        grey = compute_grey(image, low, high)
        if settings.transformed:
            changed, fidelity, guarded = tf.cond(
                chosen,
                lambda: transform_guarded(
                    image,
                    Fields.unpack(computed),
                    boxes,
                    low,
                    high,
                    replaced=settings.replaced,
                    move=displace if settings.moves else None,
                    **guarded_by,
                ),
                lambda: leave_unchanged(image, boxes),
            )
        else:
            wanted = computed - settings.replaced * grey if settings.replaced else computed
            if settings.adaptive and settings.replaced:
                seen = tf.clip_by_value(grey, 0.0, 1.0)  # by the network
                restored = computed / settings.replaced
                wanted *= tf.cond(
                    chosen,
                    lambda: find_noise_share(seen, restored - seen),
                    lambda: tf.zeros_like(seen),
                )
            wanted = tf.where(chosen, wanted, 0.0)
            changed, fidelity, guarded = change_guarded(
                image, wanted, boxes, low, high, denoised=settings.denoised, **guarded_by
            )
        contrast = tf.fill(tf.shape(fidelity), float("nan"))
        if settings.contrast:
            contrast = measure_contrast_ratio(grey, compute_grey(changed, low, high), boxes)
        return changed, fidelity, contrast, guarded

    computed = [PACKED] if settings.transformed else [None, None, 1]
    specs = [
        tf.TensorSpec([None, None, channels], dtype),
        tf.TensorSpec(computed, tf.float32),
        tf.TensorSpec([None, 4], tf.float32),
        tf.TensorSpec([], tf.bool),
    ]

    def make() -> Graph:
        return Graph.of(tf.function(change, autograph=False).get_concrete_function(*specs))

    with tf.init_scope():
        if settings.transformed and settings.moves and displace is not fields.displace:
            return make().make_call()
        path = find_graph("transform", [*settings, dtype.name, channels])
        return keep_graph(path, make).make_call()
