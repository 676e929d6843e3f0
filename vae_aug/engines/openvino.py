"""The engine OpenVINO: faster than TensorFlow on a CPU, but its graphs cannot be serialised.

The network is converted once, stored in the user's cache, and called from TensorFlow's graph.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import hashlib
import logging
import os
import queue
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from vae_aug.atomic import make_temporary_path
from vae_aug.config import AugmentConfig
from vae_aug.engines import warp
from vae_aug.engines.engine import TensorFlowEngine
from vae_aug.engines.graphs import Graph, get_cache_dir
from vae_aug.engines.shutdown import end_at_exit
from vae_aug.errors import EngineError, MissingPackageError
from vae_aug.model.checkpoint import StoredNetwork
from vae_aug.model.network import Network

# With this package OpenVINO reports to its makers whenever it is imported or converts something,
# unless the user has opted out. Without it it does not.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

try:
    import openvino
except ModuleNotFoundError as error:
    raise MissingPackageError(
        "engine='openvino' needs the PyPI package openvino, which is not installed. "
        "Run: pip install 'vae-aug[openvino]', or choose engine='tensorflow'."
    ) from error

_FIXED_MULTIPLE = 16
"""Height and width that are multiples of this get a network compiled for them alone, which takes a
second and runs 1.3 to 1.7 times as fast. It is the size alone that decides, since the two differ in
the last bits; sets of all sizes, as cameras and cropping make them, hold few such."""

EARLY_END = "block3a_project_bn"
"""Layer of an encoder that ends the early part, at an eighth of the image's side. Rounding the
first maps of an image moves its latent most: with them in bfloat16 `vector` restores 46 dB from
float32, without at 63 (ADR 0009)."""

_KEPT_SIZES = 4
"""Most compiled networks in memory at a time."""

_Infer = Callable[..., np.ndarray]

FROM_MEMORY = sys.version_info < (3, 13)
"""Whether OpenVINO takes graphs from memory. On Python 3.13 it ends with a NameError (seen in
2026.4), so graphs are written to temporary files there."""

_logger = logging.getLogger(__name__)

# OpenVINO's binding sets NumPy's interface up when a tensor is first seen as an array. Two threads
# that both do so wait for each other for ever: one has Python's lock, the other the binding's.
_ = openvino.Tensor(np.zeros(1, np.float32)).data


class OpenVINOEngine(TensorFlowEngine):
    """A VAE compiled by OpenVINO, called by the graph as a NumPy function.

    `"openvino"` computes in float32, `"openvino-bfloat16"` in bfloat16 where OpenVINO finds that it
    pays: convolutions and matrix products. The early part of the encoder stays in float32 where
    its error would show.

    Images are inferred one at a time, as many at once as the CPU runs streams. So a batch never
    decides an image's bytes, and maps stay small enough for the caches. Only `"interpolate"`
    without a seed, which looks at neighbours, infers whole batches.

    A graph that holds it cannot be serialised: tf.data service and SavedModel need the engine
    `"tensorflow"`.
    """

    _finish = staticmethod(Graph.of)
    displace = staticmethod(warp.displace)
    """By OpenCV; see `vae_aug.engines.warp`."""

    def __init__(self, vae: Network | StoredNetwork, config: AugmentConfig) -> None:
        """Check the processor, and copy the weights; see `TensorFlowEngine`.

        Raises:
            EngineError: If bfloat16 is asked of a processor without it.
        """
        self._precision = "bf16" if config.engine == "openvino-bfloat16" else "f32"
        able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if self._precision == "bf16" and "BF16" not in able:
            raise EngineError(
                "engine='openvino-bfloat16' needs a processor with instructions for bfloat16 "
                "(AVX512_BF16 or AMX), and this one has none. Choose engine='openvino'."
            )
        super().__init__(vae, config)

    def find_most(self, height: Any, width: Any) -> Any:
        """Return None but for batches that it infers whole, which need room."""
        whole = self._config.mode == "interpolate" and self._config.seed is None
        return super().find_most(height, width) if whole else None

    @property
    def _divides(self) -> bool:
        """Whether the early part of the encoder stays in float32 where the rest is rounded.

        In a sample its error moves reconstruction and variant alike, and is gone from their
        difference. A ladder's cannot be cut off in one place: its skips lead around it.
        """
        cancelled = self._config.mode == "sample" and self._config.detail == 1
        return self._precision == "bf16" and not cancelled and self.image_size is not None

    def _make_runnable(self, network: Graph, alone: bool) -> Callable[..., tf.Tensor]:
        """Convert and compile a network; see `TensorFlowEngine`."""
        end = network.find_layer(EARLY_END) if self._divides else None
        parts = [(network, self._precision)]
        if end is not None:
            parts = list(zip(network.cut_at(end), ("f32", self._precision), strict=True))
        inferences = []
        for graph, precision in parts:
            model = keep_model(graph)
            if alone:
                model.reshape({port: [1, *port.partial_shape[1:]] for port in model.inputs})
            inferences.append(Inference(model, graph.inputs, not alone, precision))
        infer = end_at_exit(chain(inferences))

        return lambda *tensors: tf.numpy_function(infer, tensors, tf.float32, stateful=False)


class Inference:
    """A model as a function of arrays, safe to call from several threads.

    Attributes:
        get_requests: Returns the idle inference requests of input shapes, compiled if they are new.
    """

    def __init__(
        self, model: openvino.Model, names: Sequence[str], whole: bool, precision: str
    ) -> None:
        """Compile nothing yet, since the shapes come with the first call.

        Args:
            model: The converted network.
            names: Name of the tensor that each argument of a call is.
            whole: Whether a batch is inferred at once, not image by image.
            precision: `"f32"` or `"bf16"`.
        """
        self._model = model
        # A network need not use all of its inputs.
        used = {name for port in model.inputs for name in port.get_names()}
        self._names = [name if name in used else None for name in names]
        self._whole = whole
        # Not a method, which would hold this object, and both until the garbage is collected.
        make = functools.partial(make_requests, model, precision)
        self.get_requests = functools.lru_cache(_KEPT_SIZES)(make)
        self._lock = threading.Lock()

    def __call__(self, images: np.ndarray, *others: np.ndarray) -> np.ndarray:
        """Infer images, or maps; the output has their shape unless the model has one of its own."""
        given = zip(self._names, (images, *others), strict=True)
        used = {name: part for name, part in given if name is not None}
        fixed = not self._whole and not any(n % _FIXED_MULTIPLE for n in images.shape[1:3])
        shapes = tuple((name, part.shape[1:]) for name, part in used.items()) if fixed else None
        shape = self._model.output(0).partial_shape[1:]
        of_one = shape.to_shape() if shape.is_static else images.shape[1:]
        computed = np.empty((len(images), *of_one), np.float32)
        at_once = len(images) if self._whole else 1
        under_way: collections.deque[tuple[openvino.InferRequest, np.ndarray]] = collections.deque()
        try:
            with self._lock:  # Calls start their images in turn, and end side by side.
                idle = self.get_requests(shapes)
                for start in range(0, len(images), at_once or 1):
                    if under_way and idle.empty():  # other calls may hold the rest
                        _finish(*under_way.popleft(), idle)
                    rows = slice(start, start + at_once)
                    request = idle.get()
                    under_way.append((request, computed[rows]))
                    request.start_async({name: part[rows] for name, part in used.items()})
        finally:
            with contextlib.ExitStack() as stack:  # every request goes back, also after a failure
                for request, rest in under_way:
                    stack.callback(_finish, request, rest, idle)
        return computed


def make_requests(
    model: openvino.Model, precision: str, shapes: tuple[tuple[str, tuple[int, ...]], ...] | None
) -> queue.SimpleQueue[openvino.InferRequest]:
    """Compile a model, for inputs of these shapes if there are any; return idle requests."""
    model = model.clone()
    if shapes:
        model.reshape({name: [1, *shape] for name, shape in shapes})
    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision}
    compiled = openvino.Core().compile_model(model, "CPU", hints)
    idle: queue.SimpleQueue[openvino.InferRequest] = queue.SimpleQueue()
    for _ in range(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")):
        idle.put(compiled.create_infer_request())
    return idle


def _finish(
    request: openvino.InferRequest,
    computed: np.ndarray,
    idle: queue.SimpleQueue[openvino.InferRequest],
) -> None:
    """Wait for a request, copy its result, and put it back among the idle ones."""
    try:
        request.wait()
        computed[...] = request.get_output_tensor(0).data
    finally:
        idle.put(request)


def chain(parts: Sequence[_Infer]) -> _Infer:
    """Chain functions of images; the last one also takes the other arguments."""
    *first, last = parts

    def infer(images: np.ndarray, *others: np.ndarray) -> np.ndarray:
        for part in first:
            images = part(images)
        return last(images, *others)

    return infer


def keep_model(graph: Graph) -> openvino.Model:
    """Read a converted graph from the user's cache, or convert it and keep it there.

    The file's name is the digest of all that the model depends on, weights and OpenVINO's version
    included, so that no stale or foreign file is ever read. A cache that cannot be written brings a
    warning.
    """
    digest = hashlib.sha256(openvino.__version__.encode() + graph.pack()).hexdigest()
    path = get_cache_dir() / "openvino" / f"{digest}.xml"
    # Unlike `Path.is_file`, it does not raise in a folder that this user may not read.
    if os.path.isfile(path) and os.path.isfile(path.with_suffix(".bin")):
        return openvino.Core().read_model(path)
    model = _convert(graph)
    try:
        _save(model, path)
    except OSError as error:
        _logger.warning(
            "%s: the converted network cannot be kept (%s); it will be converted again next time.",
            path,
            error.strerror,
        )
    return model


def _convert(graph: Graph) -> openvino.Model:
    """Convert the part of a graph that its outputs depend on."""
    needed = graph.make_function()
    outputs = [tensor.name for tensor in needed.outputs]
    if FROM_MEMORY:
        return openvino.convert_model(needed.graph, output=outputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.pb"
        path.write_bytes(needed.graph.as_graph_def().SerializeToString())
        return openvino.convert_model(path, output=outputs)


def _save(model: openvino.Model, path: Path) -> None:
    """Write the pair of files that is a model; the `.xml` appears last, when both are whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = make_temporary_path(path).with_suffix(".xml")
    weights = temporary.with_suffix(".bin")
    try:
        openvino.save_model(model, temporary, compress_to_fp16=False)
        weights.replace(path.with_suffix(".bin"))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        weights.unlink(missing_ok=True)
