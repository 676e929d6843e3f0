"""How much arithmetic a network needs, and how fast this machine multiplies matrices."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from vae_aug.model.noise import sample_noise

MATRIX_SIZES = (512, 1024, 2048)


def freeze(function: Callable[..., Any], *signature: tf.TensorSpec) -> Any:
    """Trace a function of tensors and make constants of its weights."""
    traced = tf.function(function, autograph=False).get_concrete_function(*signature)
    return convert_variables_to_constants_v2(traced)


def count_flops(graph: tf.Graph) -> int:
    """Count the floating-point operations of a graph's convolutions and matrix products.

    A multiplication and an addition are two operations. What goes element by element (activations,
    resizing, normalisation that is not folded) is left out: it costs memory traffic, not
    arithmetic. Positions outside of an image's border are counted, as libraries compute them.

    Args:
        graph: Frozen, with shapes that are known, e.g. of a batch of one.

    Raises:
        ValueError: If a shape is unknown.
    """
    return sum(_count(operation) for operation in graph.get_operations())


def _count(operation: tf.Operation) -> int:
    shapes = [tensor.shape for tensor in operation.inputs]
    if operation.type == "MatMul":
        inner = shapes[0][0 if operation.get_attr("transpose_a") else 1]
        return 2 * _volume(operation.outputs[0].shape) * inner
    if operation.type == "Conv2D":
        height, width, channels, _ = shapes[1]
        return 2 * _volume(operation.outputs[0].shape) * height * width * channels
    if operation.type == "DepthwiseConv2dNative":
        height, width, _, _ = shapes[1]
        return 2 * _volume(operation.outputs[0].shape) * height * width
    if operation.type == "Conv2DBackpropInput":  # every input pixel meets the whole filter
        height, width, channels, _ = shapes[1]
        return 2 * _volume(shapes[2]) * height * width * channels
    return 0


def _volume(shape: tf.TensorShape) -> int:
    count = shape.num_elements()
    if count is None:
        raise ValueError(f"FLOPs need known shapes; got {shape}. Trace the network for one image.")
    return count


def count_network(vae: Any, size: int = 224) -> dict[str, float]:
    """Count the GFLOP of one image: of the encoder alone, and of everything by mode."""
    image = tf.TensorSpec([1, size, size, 1], tf.float32)

    def vary(images: tf.Tensor, mode: str) -> Any:
        specs = vae.list_noise(vae.config, mode, size, size)
        noise = sample_noise(tf.ones([1, 2], tf.int32), specs)
        return vae.vary(images, noise, mode=mode, factor=1.0, alone=True)

    parts = {
        "encoder": vae.encode,
        "denoise": lambda images: vary(images, "denoise"),
        "sample": lambda images: vary(images, "sample"),
    }
    return {
        name: round(count_flops(freeze(part, image).graph) / 1e9, 4) for name, part in parts.items()
    }


def measure_matrix_product() -> dict[str, float]:
    """Return GFLOP/s of float32 matrix products by library and size, each the best of three."""
    rates = {}
    for size in MATRIX_SIZES:
        a, b = np.random.default_rng(0).standard_normal([2, size, size], dtype=np.float32)
        a_tensor, b_tensor = tf.constant(a), tf.constant(b)
        products: dict[str, Callable[[], Any]] = {
            "NumPy": lambda a=a, b=b: a @ b,
            "TensorFlow": lambda a=a_tensor, b=b_tensor: (a @ b).numpy(),
        }
        for library, product in products.items():
            seconds = []
            for _ in range(3):
                begin = time.perf_counter()
                product()
                seconds.append(time.perf_counter() - begin)
            rates[f"{library} {size}"] = 2e-9 * size**3 / min(seconds)
    return rates
