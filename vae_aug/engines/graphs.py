"""Graphs without variables, and their cache on disk.

Building a network, loading its weights, tracing it and folding its constants takes seconds; reading
the resulting graph takes half a second.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from vae_aug.atomic import write_atomic
from vae_aug.errors import VAEAugError
from vae_aug.version import __version__

MAX_KEPT_BYTES = 2**30
"""Most bytes of all graphs in the cache; a new one displaces those that were unused for longest."""

_AS_IT_IS = tf.compat.v1.ConfigProto(
    graph_options=tf.compat.v1.GraphOptions(rewrite_options={"disable_meta_optimizer": True})
).SerializeToString()
"""Settings with which TensorFlow runs a function without optimising it."""

_DIGEST_BYTES = hashlib.sha256().digest_size

_logger = logging.getLogger(__name__)


class Graph(NamedTuple):
    """A graph without variables, with the names of its tensors.

    Attributes:
        definition: The nodes.
        inputs: Names of the input tensors.
        outputs: Names of the output tensors.
        keys: Keys of the outputs, if the traced function returned a dictionary.
    """

    definition: tf.compat.v1.GraphDef
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    keys: tuple[str, ...] = ()

    @classmethod
    def of(cls, traced: Any) -> Graph:
        """Return the graph of a concrete function that captures nothing."""
        inputs, outputs = (
            tuple(tensor.name for tensor in part) for part in (traced.inputs, traced.outputs)
        )
        structure = traced.structured_outputs
        keys = tuple(sorted(structure)) if isinstance(structure, dict) else ()
        return cls(traced.graph.as_graph_def(), inputs, outputs, keys)

    def make_function(self) -> Any:
        """Return a concrete function of the inputs, by position, that returns a list of outputs."""
        return self._import().prune(list(self.inputs), list(self.outputs))

    def make_call(self) -> Callable[..., list[tf.Tensor]]:
        """Return a function of the inputs whose graph TensorFlow leaves as it is.

        Otherwise it would optimise the graph again in every pass over a dataset, and for every size
        of images into another one, whose floats differ in their last bits.
        """
        # TensorFlow does not inline a graph that calls functions, as control flow does.
        calls = bool(self.definition.library.function)
        function = self.make_function() if calls else self._make_sealed()
        types = [tensor.dtype for tensor in function.outputs]
        return lambda *tensors: tf.raw_ops.PartitionedCall(
            args=tensors, Tout=types, f=function, config_proto=_AS_IT_IS
        )

    def _make_sealed(self) -> Any:
        """Return a concrete function that TensorFlow does not inline where it is called."""
        nodes = {node.name: node.attr for node in self.definition.node}
        placeholders = [nodes[name.removesuffix(":0")] for name in self.inputs]

        @tf.function(autograph=False, experimental_attributes={"_noinline": True})
        def run(*tensors: tf.Tensor) -> list[tf.Tensor]:
            given = dict(zip(self.inputs, tensors, strict=True))
            return tf.graph_util.import_graph_def(
                self.definition, given, list(self.outputs), name=""
            )

        return run.get_concrete_function(
            *(tf.TensorSpec(node["shape"].shape, node["dtype"].type) for node in placeholders)
        )

    def _import(self) -> Any:
        """Import the graph into a function that can be pruned."""
        return tf.compat.v1.wrap_function(
            lambda: tf.graph_util.import_graph_def(self.definition, name=""), []
        )

    def find_layer(self, name: str) -> str | None:
        """Return the name of a Keras layer's last tensor; None if there is no such layer."""
        # Keras numbers the calls of a layer from the second on.
        layer = re.compile(rf"/{name}(_\d+)?/")
        nodes = [node.name for node in self.definition.node if layer.search(node.name)]
        return f"{nodes[-1]}:0" if nodes else None

    def cut_at(self, tensor: str) -> tuple[Graph, Graph]:
        """Cut the graph in two at a tensor that all paths from the first input pass.

        Returns:
            A graph from the first input to the tensor; and one from the tensor and all other inputs
            to this graph's outputs.
        """
        whole = self._import()
        first, *others = self.inputs
        parts = (([first], [tensor]), ([tensor, *others], list(self.outputs)))
        early, late = (Graph.of(whole.prune(*part)) for part in parts)
        return early, late

    def pack(self) -> bytes:
        """Write the graph into bytes that begin with their digest."""
        names = json.dumps([self.inputs, self.outputs, self.keys]).encode()
        definition = self.definition.SerializeToString(deterministic=True)
        content = len(names).to_bytes(4, "big") + names + definition
        return hashlib.sha256(content).digest() + content

    @classmethod
    def unpack(cls, packed: bytes) -> Graph | None:
        """Parse the bytes that `pack` wrote; None if they do not match their digest."""
        digest, content = packed[:_DIGEST_BYTES], packed[_DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            return None
        end = 4 + int.from_bytes(content[:4], "big")
        definition = tf.compat.v1.GraphDef.FromString(content[end:])
        return cls(definition, *map(tuple, json.loads(content[4:end])))


def get_cache_dir() -> Path:
    """Return the cache folder, `$XDG_CACHE_HOME/vae-aug` or `~/.cache/vae-aug`.

    It need not exist, be readable or be writable. A user without a home directory, as containers
    have them, gets a folder that cannot exist.

    Reference:
        XDG Base Directory Specification: a relative path in the variable is to be ignored.
    """
    configured = os.environ.get("XDG_CACHE_HOME", "")
    try:
        root = Path(configured) if os.path.isabs(configured) else Path.home() / ".cache"
    except RuntimeError:
        root = Path(os.devnull)
    return root / "vae-aug"


def find_graph(network: str, key: Sequence[Any]) -> Path:
    """Return the file of a graph in the cache, which need not exist.

    Args:
        network: SHA-256 of the checkpoint, whose folder exists once it could be loaded; or
            `"transform"` for graphs around networks.
        key: All else that the graph depends on beside versions, devices and this package's code.
    """
    devices = sorted({device.device_type for device in tf.config.list_physical_devices()})
    known = [*key, *describe_versions(), devices, os.environ.get("TF_ENABLE_ONEDNN_OPTS")]
    digest = hashlib.sha256(json.dumps(known).encode()).hexdigest()
    return get_cache_dir() / "graphs" / network / f"{digest}.graph"


def keep_graph(path: Path, make: Callable[[], Graph]) -> Graph:
    """Read a graph from the cache, or make it and try to store it.

    Args:
        path: From `find_graph`.
        make: Makes the graph if there is none, or a damaged one.

    Returns:
        The graph.
    """
    try:
        graph = Graph.unpack(path.read_bytes())
        if graph is not None:
            with contextlib.suppress(OSError):  # a shared file may have another owner
                os.utime(path)
            return graph
        _logger.warning("%s: is damaged; it is made again.", path)
    except OSError:
        pass  # no file, or none that this user may read
    graph = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        packed = graph.pack()
        _make_room(path.parent.parent, len(packed))
        write_atomic(path, packed)
    except (OSError, VAEAugError) as error:
        _logger.warning(
            "%s: the network's graph cannot be kept (%s); the next start makes it again.",
            path,
            getattr(error, "strerror", None) or error,
        )
    return graph


def _make_room(folder: Path, size: int) -> None:
    """Remove graphs, those first that were not used for longest, until a new one fits."""
    kept = []
    for path in folder.glob("*/*.graph"):
        # Another process may have removed it.
        with contextlib.suppress(FileNotFoundError):
            kept.append((path, path.stat()))
    total = size + sum(stat.st_size for _, stat in kept)
    for path, stat in sorted(kept, key=lambda item: item[1].st_mtime):
        if total <= MAX_KEPT_BYTES:
            return
        path.unlink(missing_ok=True)
        total -= stat.st_size


@functools.cache
def describe_versions() -> tuple[str, ...]:
    """Return the versions, and the digest of the code, that a graph depends on."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.parent.rglob("*.py")):
        code.update(path.read_bytes())
    return tf.__version__, keras.__version__, __version__, code.hexdigest()
