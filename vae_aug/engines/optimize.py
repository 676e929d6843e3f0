"""Optimise a traced network for inference: fold constants, compute nothing twice."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.grappler import tf_optimizer

from vae_aug.engines.graphs import Graph

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")

Nodes = dict[str, tf.compat.v1.NodeDef]


def optimize(traced: Any) -> Graph:
    """Fold constants and merge operations once, instead of wherever the graph will run.

    TensorFlow optimises a function that is called eagerly, but hardly one inside `tf.data`: their
    kernels, and with them the last bits, would differ. The result runs on any device.

    Args:
        traced: A concrete function that captures no variables.

    Returns:
        A graph with the same inputs, outputs and results.
    """
    graph = Graph.of(traced)
    meta = tf.compat.v1.train.export_meta_graph(graph_def=graph.definition, graph=traced.graph)
    # The optimiser keeps operations that are listed as training operations.
    meta.collection_def["train_op"].node_list.value.extend([*graph.inputs, *graph.outputs])
    optimized = tf_optimizer.OptimizeGraph(tf.compat.v1.ConfigProto(), meta)
    return graph._replace(definition=fold_batch_norms(optimized))


def fold_batch_norms(graph: tf.compat.v1.GraphDef) -> tf.compat.v1.GraphDef:
    """Fold the parts of batch norms that TensorFlow's own optimiser leaves after convolutions.

    It folds a scale into the filters of a convolution, but not of a depthwise one, and leaves the
    shift as an addition of maps, which takes a CPU longer than adding a bias.

    Args:
        graph: A frozen graph, which is changed in place.

    Returns:
        The graph, with the same names for the same values.
    """
    nodes = {node.name: node for node in graph.node}
    users = Counter(name for node in graph.node for name in node.input)
    folded = set()
    for node in sorted(graph.node, key=lambda node: node.op == "AddV2"):  # scales, then shifts
        convolution, filters, value = _find_operands(node, nodes)
        if convolution is None or users[convolution.name] > 1:
            continue
        if node.op == "AddV2":
            bias = _make_constant(f"{node.name}/bias", value)
            nodes[bias.name] = bias
            node.op, node.input[:] = "BiasAdd", [convolution.name, bias.name]
        else:
            scaled_filters = filters * value.reshape(filters.shape[2:])
            scaled = _make_constant(f"{node.name}/filters", scaled_filters)
            folded.add(convolution.name)
            convolution.name = node.name  # so that users of the scale read the convolution
            convolution.input[1] = scaled.name
            nodes.update({scaled.name: scaled, node.name: convolution})
    kept = [node for name, node in nodes.items() if name not in folded]
    return tf.compat.v1.GraphDef(node=kept, versions=graph.versions, library=graph.library)


def _find_operands(node: tf.compat.v1.NodeDef, nodes: Nodes) -> tuple[Any, Any, Any]:
    """Return the convolution that a node scales or shifts, its filters, and the value per channel.

    Returns:
        The convolution, `[h, w, ...]`, and `[C]`; three None if the node does anything else.
    """
    kinds = {"AddV2": _CONVOLUTIONS, "Mul": _CONVOLUTIONS[1:]}.get(node.op, ())
    for name, other in (node.input[:2], node.input[1::-1]) if kinds else ():
        convolution, value = nodes.get(name), _read(other, nodes)
        if convolution is None or convolution.op not in kinds or value is None:
            continue
        filters = _read(convolution.input[1], nodes)
        if filters is None or convolution.attr["data_format"].s != b"NHWC":
            continue
        axis = 2 if convolution.op == "DepthwiseConv2dNative" else 3
        channels = math.prod(filters.shape[axis:])
        if value.size == channels and value.shape[-1:] == (channels,):
            return convolution, filters, value.ravel()
    return None, None, None


def _read(name: str, nodes: Nodes) -> np.ndarray | None:
    """Return the value of a constant, None if it is none."""
    node = nodes.get(name)
    if node is None or node.op != "Const":
        return None
    return tf.make_ndarray(node.attr["value"].tensor)


def _make_constant(name: str, value: np.ndarray) -> tf.compat.v1.NodeDef:
    node = tf.compat.v1.NodeDef(name=name, op="Const")
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
    return node
