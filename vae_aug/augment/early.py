"""The part of an encoder that stays in float32 where the rest of a network is rounded.

Rounding the first maps of an image moves its latent most: with them in bfloat16 `vector` restores
46 dB from float32, without at 63 (ADR 0009).
"""

from __future__ import annotations

from typing import Any

from vae_aug.augment.draws import name_input

_REDUCTION = 8
"""Pixels of the image per pixel of the map at which the early part ends."""

_CONVOLUTIONS = ("Convolution", "GroupConvolution")


def find_early_end(model: Any) -> Any:
    """Find the map that ends the early part: of the first block an eighth of the image wide.

    Args:
        model: `openvino.Model` with an encoder (see `vae_aug.model.encoder`), whose input of images
            `[B, H, W, 1]` has a known height.

    Returns:
        `openvino.Output`, a map `[B, C, H / 8, W / 8] float32`, on which all later ones depend.
    """
    height = model.input(name_input(0)).partial_shape[1].get_length()
    found = [
        node
        for node in model.get_ordered_ops()
        if node.get_type_name() in _CONVOLUTIONS
        and node.get_output_partial_shape(0)[2] == height // _REDUCTION
    ]
    # The depthwise one that narrows, the one that ends its block, and the next block's first.
    return found[2].input_value(0)
