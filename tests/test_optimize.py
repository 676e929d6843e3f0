"""What is folded into convolutions, and that it computes the same."""

import keras
import numpy as np
import tensorflow as tf

from vae_aug.engines.optimize import fold_batch_norms, optimize

SPEC = tf.TensorSpec([None, 8, 8, 3], tf.float32)


def make_weights(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def list_kinds(function):
    return [operation.type for operation in function.graph.get_operations()]


def check(compute, kinds):
    """Check that an optimised function holds these kinds of operations and gives the same."""
    traced = tf.function(compute, autograph=False).get_concrete_function(SPEC)
    optimized = optimize(traced).make_function()
    idle = ("Placeholder", "Const", "Identity")
    found = [kind for kind in list_kinds(optimized) if kind not in idle]
    assert sorted(found) == sorted(kinds)
    images = tf.random.stateless_uniform([2, 8, 8, 3], [1, 2])
    np.testing.assert_allclose(optimized(images)[0], traced(images), rtol=1e-5, atol=1e-5)


def freeze(layers):
    """Return layers as a function whose batch norms have weights unlike those they start with."""
    values = []
    for layer in layers:
        for index, variable in enumerate(layer.variables):
            positive = "variance" in variable.name
            value = make_weights(*variable.shape) + 0.1 * index
            values.append((variable, np.abs(value) + 0.5 if positive else value))

    def compute(images):
        constants = [(variable, tf.constant(value)) for variable, value in values]
        with keras.StatelessScope(state_mapping=constants):
            for layer in layers:
                images = layer(images)
            return images

    return compute


def build(*layers):
    images = keras.Input(SPEC.shape[1:])
    for layer in layers:
        images = layer(images)
    return freeze(layers)


def test_a_batch_norm_becomes_filters_and_a_bias():
    layers = keras.layers
    norm = layers.BatchNormalization
    check(
        build(layers.Conv2D(5, 3, use_bias=False), norm(), layers.ReLU(6.0)),
        ["Conv2D", "BiasAdd", "Relu6"],
    )
    check(
        build(layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False), norm()),
        ["DepthwiseConv2dNative", "BiasAdd"],
    )


def test_what_else_uses_a_convolution_sees_it_unscaled():
    filters, scale = make_weights(3, 3, 3, 1), make_weights(3)

    def compute(images):
        seen = tf.nn.depthwise_conv2d(images, filters, [1, 1, 1, 1], "SAME")
        return seen * scale + tf.nn.relu(seen)

    check(compute, ["DepthwiseConv2dNative", "Mul", "Relu", "AddV2"])


def test_what_is_no_value_per_channel_is_left_alone():
    filters, rows = make_weights(3, 3, 3, 8), make_weights(8, 1)
    check(lambda images: tf.nn.conv2d(images, filters, 1, "SAME") + rows, ["Conv2D", "AddV2"])
    check(
        lambda images: tf.nn.conv2d(images, filters, 1, "SAME") + tf.reduce_max(images),
        ["Conv2D", "Max", "AddV2"],
    )


def test_names_and_functions_are_kept():
    compute = build(keras.layers.Conv2D(2, 1), keras.layers.BatchNormalization())
    graph = tf.function(compute, autograph=False).get_concrete_function(SPEC).graph.as_graph_def()
    names = {node.name for node in graph.node}
    folded = fold_batch_norms(tf.compat.v1.GraphDef.FromString(graph.SerializeToString()))
    assert names <= {node.name for node in folded.node}
    assert folded.library == graph.library and folded.versions == graph.versions
