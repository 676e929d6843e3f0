"""A traced network in two parts, so that every engine computes from the very same draws.

TensorFlow's generators of random numbers are its own: OpenVINO has none of them, and XLA draws
other numbers from the same seed, and only in sizes known before it compiles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from vae_aug.augment.graphs import Graph
from vae_aug.model.latent import DRAW_NAME


class Rest(NamedTuple):
    """What a network computes from images and draws.

    Attributes:
        definition: Graph whose placeholders are called by `name_input`.
        used: Which of the inputs it has a placeholder for; a network need not use all.
        output: Name of the tensor that is computed.
    """

    definition: tf.compat.v1.GraphDef
    used: tuple[int, ...]
    output: str

    def make_function(self) -> Callable[..., tf.Tensor]:
        """Return it as a function of images, what is known of them, and what was drawn."""
        inputs = tuple(map(name_input, self.used))
        compute = Graph(self.definition, inputs, (self.output,)).make_function()
        return lambda *given: compute(*(given[index] for index in self.used))[0]


def name_input(index: int) -> str:
    """Name the tensor of an input: images, then what is known, then what was drawn for them."""
    return f"input_{index}:0"


def cut_at_draws(network: Graph) -> tuple[Callable[..., list[tf.Tensor]], Rest]:
    """Cut a traced network in two: what is drawn, and what is computed from it.

    Args:
        network: Of images, seeds and what is known of the images; it has one output.

    Returns:
        A function of images and seeds that gives the draws, and the rest.
    """
    images, seeds, *known = network.inputs
    [output] = network.outputs
    draws = [
        f"{node.name}:0"
        for node in network.definition.node
        if node.op == "Identity" and node.name.split("/")[-1].startswith(DRAW_NAME)
    ]
    drawn = Graph(network.definition, (images, seeds), tuple(draws)).make_function()
    with tf.Graph().as_default() as whole:
        tf.graph_util.import_graph_def(network.definition, name="")
    with tf.Graph().as_default() as graph:
        feeds = {}
        for index, name in enumerate([images, *known, *draws]):
            tensor = whole.get_tensor_by_name(name)
            feeds[name] = tf.compat.v1.placeholder(
                tensor.dtype, tensor.shape, name_input(index)[:-2]
            )
        [computed] = tf.graph_util.import_graph_def(
            network.definition, feeds, [output], name="network"
        )
    rest = _prune(graph.as_graph_def(), computed)
    names = {node.name for node in rest.node}
    used = tuple(index for index in range(len(feeds)) if name_input(index)[:-2] in names)
    return drawn if draws else lambda images, seeds: [], Rest(rest, used, computed.name)


def _prune(definition: tf.compat.v1.GraphDef, output: tf.Tensor) -> tf.compat.v1.GraphDef:
    """Keep what an output needs, since OpenVINO converts all that a graph holds.

    No function is kept: the network calls none, and their names differ from trace to trace, which
    would keep the digest of the same network from ever being the same.
    """
    needed: set[str] = set()
    reached = [output.op]
    while reached:
        operation = reached.pop()
        if operation.name not in needed:
            needed.add(operation.name)
            reached += [tensor.op for tensor in operation.inputs] + operation.control_inputs
    kept = [node for node in definition.node if node.name in needed]
    return tf.compat.v1.GraphDef(node=kept, versions=definition.versions)
