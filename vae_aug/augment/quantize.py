"""A network of OpenVINO in 8-bit integers."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Any

import numpy as np

from vae_aug.augment.early import list_early_names
from vae_aug.errors import MissingPackageError

try:
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet
except ModuleNotFoundError as error:
    raise MissingPackageError(
        "engine='openvino-int8' needs the PyPI package nncf, which is not installed. "
        "Run: pip install 'vae-aug[int8]', or choose engine='openvino'."
    ) from error

RECIPE = f"int8 1, nncf {nncf.__version__}"
"""Changes with whatever changes a quantized network."""


def quantize(model: Any, examples: list[dict[str, np.ndarray]]) -> Any:
    """Quantize weights, and activations to the ranges that examples give them.

    The early part of the encoder (see `find_early_end`) stays in float32, and so does every
    depthwise convolution, whose channels have too little in common for one range.

    Args:
        model: `openvino.Model` with an encoder.
        examples: Its inputs by name, for batches of images.

    Returns:
        `openvino.Model`.

    Reference:
        Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-
        Only Inference (2018).
    """
    sized = model.clone()
    sized.reshape({name: example.shape for name, example in examples[0].items()})
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr):  # where bars of progress belong
        return nncf.quantize(
            model,
            nncf.Dataset(examples),
            subset_size=len(examples),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            ignored_scope=nncf.IgnoredScope(
                names=list_early_names(sized), types=["GroupConvolution"], validate=False
            ),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                # Of all examples: the mean of their extremes, NNCF's choice, cuts bright ones off.
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
                disable_bias_correction=True,  # gained nothing, and fails on a bias of one value
            ),
        )
