"""Images per second of `VAEAugment` beside what else would run its network, or be used instead.

    .venv/bin/python benchmarks/rivals.py

Three groups run in turn within every round (see `throughput.py`):

- `VAEAugment(...).apply` on a dataset with boxes, on every engine;
- the same network alone, without resizing, boxes or a dataset, as fast as TensorFlow, OpenVINO,
  ONNX Runtime and PyTorch run it. Each first has to give TensorFlow's output;
- what would be put into a pipeline instead: Albumentations, Keras layers, MONAI's AutoencoderKL.

Rivals that are not installed are listed as missing, with the command that installs them. Beside
the rates stand the network's FLOPs, and the share that each reaches of a float32 matrix product
measured in the same rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.metadata
import json
import operator
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from flops import count_network, freeze, measure_matrix_product
from throughput import (
    RESULTS,
    count_rate,
    describe,
    describe_machine,
    make_source,
    take_turns,
)

from vae_aug.atomic import write_atomic
from vae_aug.augment.transform import VAEAugment
from vae_aug.errors import EngineError
from vae_aug.model.checkpoint import load_checkpoint
from vae_aug.model.latent import sample_posterior

SIZE = 224
REFERENCE = "network alone, OpenVINO"
PRODUCT = "matrix product"
_DISTINCT = 64
_MIN_PSNR = {"f32": 100.0, "bf16": 50.0}
_PACKAGES = ("openvino", "onnxruntime", "tf2onnx", "torch", "monai", "albumentations")

Round = Callable[[], float]
"""Takes one turn and returns images per second."""


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
    """What every contestant runs on.

    Attributes:
        vae: The network, of the profile `vector`.
        source: Elements `{"image": [224, 224, 1] uint8, "bbox": [N, 4] float32}` without an end.
        images: `[N, 224, 224, 1] float32 in [0, 1]`, for the network alone.
        noise: `[N, d] float32`, what is drawn for them.
        frozen: The network as a concrete function of images and noise.
        batch_size: Images that run at a time, where more than one do.
        count: Images of a round.
    """

    vae: Any
    source: tf.data.Dataset
    images: np.ndarray
    noise: np.ndarray
    frozen: Any
    batch_size: int
    count: int

    def follow(self, pipeline: tf.data.Dataset) -> Round:
        """Make rounds of a pipeline."""
        return lambda: count_rate(pipeline, 2 * self.batch_size, self.count)[1]

    def call(
        self, network: Callable[[slice], np.ndarray], at_once: int, precision: str = "f32"
    ) -> Round:
        """Make rounds of a network that gives the outputs of a slice of the images.

        Raises:
            ValueError: If its outputs are not those of TensorFlow, as nearly as `precision` allows.
        """
        few = slice(0, at_once)
        expected = self.frozen(tf.constant(self.images[few]), tf.constant(self.noise[few]))[0]
        psnr = -10 * np.log10(np.mean((network(few) - expected.numpy()) ** 2) + 1e-20)
        if not psnr >= _MIN_PSNR[precision]:
            raise ValueError(f"outputs are {psnr:.0f} dB from TensorFlow's.")

        def run() -> float:
            done, begin = 0, time.perf_counter()
            while done < self.count:
                start = done % len(self.images)
                done += len(network(slice(start, start + at_once)))
            return done / (time.perf_counter() - begin)

        return run


def make_track(ckpt: str, batch_size: int, count: int) -> Track:
    """Load the network, make the images, and freeze the network with its noise as an input."""
    vae = load_checkpoint(ckpt)
    if vae.config.profile != "vector" or vae.config.image_size != SIZE:
        raise ValueError(f"--ckpt must be a vector of {SIZE} pixels; got {vae.config}.")
    depth = vae.config.latent_dim // 2

    def compute(images: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        z_mean, z_log_var = vae.encode(images)
        z = sample_posterior(z_mean, z_log_var, noise)
        both = tf.reduce_mean(vae.decode(tf.concat([z_mean, z], axis=0)), axis=-1, keepdims=True)
        reconstruction, variant = tf.split(both, 2, axis=0)
        return variant - reconstruction

    frozen = freeze(
        compute,
        tf.TensorSpec([None, SIZE, SIZE, 1], tf.float32, "images"),
        tf.TensorSpec([None, depth], tf.float32, "noise"),
    )
    source = make_source(_DISTINCT, SIZE)
    images = np.stack([e["image"] for e in source.as_numpy_iterator()]).astype(np.float32) / 255
    noise = np.random.default_rng(0).standard_normal([_DISTINCT, depth], dtype=np.float32)
    return Track(vae, source.repeat(), images, noise, frozen, batch_size, count)


def run_apply(track: Track, engine: str, seed: int | None = None) -> Round:
    """The product: a dataset with boxes in, a dataset with boxes out."""
    augment = VAEAugment(track.vae, seed=seed, engine=engine, batch_size=track.batch_size)
    return track.follow(track.source.apply(augment))


def run_tensorflow(track: Track) -> Round:
    """The frozen graph, called on batches."""
    return track.call(
        lambda rows: track.frozen(tf.constant(track.images[rows]), tf.constant(track.noise[rows]))[
            0
        ].numpy(),
        track.batch_size,
    )


def run_openvino(track: Track, precision: str = "f32") -> Round:
    """OpenVINO's own loop for throughput: an image a request, as many as it asks for at once."""
    import openvino

    core = openvino.Core()
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in able:
        raise EngineError("this processor has no instructions for bfloat16")
    model = openvino.convert_model(track.frozen.graph)
    model.reshape({port: [1, *port.partial_shape[1:]] for port in model.inputs})
    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision}
    queue = openvino.AsyncInferQueue(core.compile_model(model, "CPU", hints))
    output = np.empty_like(track.images)

    def keep(request: Any, index: int) -> None:
        output[index] = request.get_output_tensor(0).data[0]

    queue.set_callback(keep)

    def infer(rows: slice) -> np.ndarray:
        for index in range(rows.start, rows.stop):
            one = slice(index, index + 1)
            queue.start_async(
                {"images:0": track.images[one], "noise:0": track.noise[one]},
                index,
                share_inputs=True,
            )
        queue.wait_all()
        return output[rows]

    return track.call(infer, len(track.images), precision)


@functools.lru_cache(maxsize=1)
def _convert_to_onnx(track: Track) -> bytes:
    """Convert the frozen graph to ONNX, with what is constant folded and convolutions fused."""
    import onnxruntime
    import tf2onnx

    definition = track.frozen.graph.as_graph_def()
    for node in definition.node:
        if node.op == "Const" and node.attr["dtype"].type == tf.float32.as_datatype_enum:
            shape = node.attr["value"].tensor.tensor_shape
            if not shape.dim:
                # tf2onnx 1.17 cannot move a transposition past the addition of a scalar.
                shape.dim.add(size=1)
    model, _ = tf2onnx.convert.from_graph_def(
        definition,
        input_names=["images:0", "noise:0"],
        output_names=[track.frozen.outputs[0].name],
        opset=17,
    )
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = os.path.join(folder, "network.onnx")
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return Path(options.optimized_model_filepath).read_bytes()


def run_onnx_runtime(track: Track, at_once: int) -> Round:
    """ONNX Runtime with its own choice of threads."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        _convert_to_onnx(track), providers=["CPUExecutionProvider"]
    )

    def infer(rows: slice) -> np.ndarray:
        feeds = {"images:0": track.images[rows], "noise:0": track.noise[rows]}
        return session.run(None, feeds)[0]

    return track.call(infer, at_once)


def _put_channels_first(model: Any) -> None:
    """Lay `DepthToSpace` out as PyTorch's `pixel_shuffle`, the only way onnx2torch knows.

    TensorFlow's channels go through the pixels of a block first, then through the three colours.
    """
    import onnx

    for index, node in reversed([*enumerate(model.graph.node)]):
        if node.op_type != "DepthToSpace":
            continue
        (block,) = (a.i for a in node.attribute if a.name == "blocksize")
        order = np.arange(3 * block**2).reshape(-1, 3).T.ravel()
        model.graph.initializer.append(onnx.numpy_helper.from_array(order, f"{node.name}/order"))
        names = [node.input[0], f"{node.name}/order"]
        shuffled = onnx.helper.make_node("Gather", names, [f"{node.name}/shuffled"], axis=1)
        node.input[0] = shuffled.output[0]
        del node.attribute[:]
        settings = {"blocksize": block, "mode": "CRD"}
        node.attribute.extend(onnx.helper.make_attribute(*pair) for pair in settings.items())
        model.graph.node.insert(index, shuffled)


def run_pytorch(track: Track, at_once: int, how: str) -> Round:
    """PyTorch on the ONNX network: `"eager"`, frozen by `"TorchScript"`, or `"torch.compile"`."""
    import onnx
    import onnx2torch
    import torch

    graph = onnx.load_from_string(_convert_to_onnx(track))
    _put_channels_first(graph)
    model = onnx2torch.convert(graph).eval()
    images, noise = torch.from_numpy(track.images), torch.from_numpy(track.noise)
    if how == "TorchScript":
        with torch.no_grad():
            traced = torch.jit.trace(model, (images[:at_once], noise[:at_once]))
        model = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
    elif how == "torch.compile":
        # The compiler cannot follow shapes that are tensors, as ONNX has them.
        for node in model.graph.nodes:
            if "OnnxReshape" in str(getattr(model, str(node.target), "")):
                given, shape = node.args
                sizes = operator.attrgetter(shape.target)(model).tolist()
                node.op, node.target, node.args = "call_method", "reshape", (given, *sizes)
        model.recompile()
        model = torch.compile(model)

    def infer(rows: slice) -> np.ndarray:
        with torch.inference_mode():
            return model(images[rows], noise[rows]).numpy()

    return track.call(infer, at_once)


def use_albumentations(source: tf.data.Dataset) -> tf.data.Dataset:
    """Apply an elastic transform and shot noise with boxes, an image at a time, in parallel."""
    import albumentations

    compose = albumentations.Compose(
        [albumentations.ElasticTransform(p=1.0), albumentations.ShotNoise(p=1.0)],
        bbox_params=albumentations.BboxParams("albumentations", label_fields=[]),
    )

    def change(image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        changed = compose(image=image, bboxes=boxes[:, [1, 0, 3, 2]])
        boxes = np.reshape(changed["bboxes"], [-1, 4])[:, [1, 0, 3, 2]].astype(np.float32)
        return changed["image"], boxes

    def augment(element: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        image, boxes = tf.numpy_function(
            change, [element["image"], element["bbox"]], [tf.uint8, tf.float32]
        )
        return {
            "image": tf.ensure_shape(image, element["image"].shape),
            "bbox": tf.ensure_shape(boxes, [None, 4]),
        }

    return source.map(augment, num_parallel_calls=tf.data.AUTOTUNE)


def run_albumentations(track: Track) -> Round:
    """An elastic transform and shot noise with boxes, an image at a time, in parallel calls."""
    return track.follow(use_albumentations(track.source))


def run_keras_layers(track: Track) -> Round:
    """A flip with its boxes, contrast, and an elastic transform, batch by batch."""
    flip = keras.layers.RandomFlip("horizontal", bounding_box_format="rel_yxyx")
    layers = [
        keras.layers.RandomContrast(0.5),
        keras.layers.RandomElasticTransform(factor=(1.0, 1.0), scale=(1.0, 1.0)),
    ]

    def augment(element: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        boxes = element["bbox"]
        flipped = flip(
            {
                "images": element["image"],
                "bounding_boxes": {"boxes": boxes, "labels": tf.zeros_like(boxes[..., 0])},
            },
            training=True,
        )
        image = flipped["images"]
        for layer in layers:
            image = layer(image, training=True)
        return {"image": image, "bbox": flipped["bounding_boxes"]["boxes"]}

    batches = track.source.padded_batch(
        track.batch_size, padding_values={"image": np.uint8(0), "bbox": -1.0}
    )
    return track.follow(batches.map(augment, num_parallel_calls=tf.data.AUTOTUNE))


def run_monai(track: Track, at_once: int) -> Round:
    """Another autoencoder, untrained, of about as many FLOPs an image (1.8 G): encode and decode.

    Three convolutional stages more, no attention; it gives one image where `VAEAugment` decodes
    two to know what changed.
    """
    import torch
    from monai.networks.nets import AutoencoderKL

    model = AutoencoderKL(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        channels=(8, 16, 32, 64),
        latent_channels=4,
        num_res_blocks=1,
        norm_num_groups=4,
        attention_levels=(False,) * 4,
        with_encoder_nonlocal_attn=False,
        with_decoder_nonlocal_attn=False,
    ).eval()
    images = torch.from_numpy(track.images).permute(0, 3, 1, 2)

    def run() -> float:
        done, begin = 0, time.perf_counter()
        with torch.inference_mode():
            while done < track.count:
                start = done % len(images)
                done += len(model(images[start : start + at_once])[0])
        return done / (time.perf_counter() - begin)

    return run


CONTESTANTS: dict[str, tuple[Callable[[Track], Round], str]] = {
    "apply, tensorflow": (lambda t: run_apply(t, "tensorflow"), ""),
    "apply, tensorflow, with a seed": (lambda t: run_apply(t, "tensorflow", 0), ""),
    "apply, xla": (lambda t: run_apply(t, "xla"), ""),
    "apply, openvino": (lambda t: run_apply(t, "openvino"), "pip install 'vae-aug[openvino]'"),
    "apply, openvino, with a seed": (
        lambda t: run_apply(t, "openvino", 0),
        "pip install 'vae-aug[openvino]'",
    ),
    "apply, openvino-bfloat16": (
        lambda t: run_apply(t, "openvino-bfloat16"),
        "pip install 'vae-aug[openvino]'",
    ),
    "network alone, TensorFlow": (run_tensorflow, ""),
    REFERENCE: (run_openvino, "pip install openvino"),
    "network alone, OpenVINO, bfloat16": (
        lambda t: run_openvino(t, "bf16"),
        "pip install openvino",
    ),
    "network alone, ONNX Runtime, an image at a time": (
        lambda t: run_onnx_runtime(t, 1),
        "pip install onnxruntime tf2onnx",
    ),
    "network alone, ONNX Runtime, 8 images at a time": (
        lambda t: run_onnx_runtime(t, 8),
        "pip install onnxruntime tf2onnx",
    ),
    "network alone, PyTorch, eager, 8 images at a time": (
        lambda t: run_pytorch(t, 8, "eager"),
        "pip install torch torchvision onnx2torch onnxruntime tf2onnx",
    ),
    "network alone, PyTorch, TorchScript, 8 images at a time": (
        lambda t: run_pytorch(t, 8, "TorchScript"),
        "pip install torch torchvision onnx2torch onnxruntime tf2onnx",
    ),
    "network alone, PyTorch, torch.compile, 8 images at a time": (
        lambda t: run_pytorch(t, 8, "torch.compile"),
        "pip install torch torchvision onnx2torch onnxruntime tf2onnx",
    ),
    "Albumentations: elastic, shot noise": (
        run_albumentations,
        "pip install 'vae-aug[albumentations]'",
    ),
    "Keras layers: flip, contrast, elastic": (run_keras_layers, ""),
    "MONAI AutoencoderKL, 8 images at a time": (lambda t: run_monai(t, 8), "pip install monai"),
}


def enter(track: Track, names: list[str]) -> tuple[dict[str, Round], dict[str, str]]:
    """Make the contestants; return them, and those that are missing with what would help."""
    rounds, missing = {}, {}
    for name in names:
        make, command = CONTESTANTS[name]
        try:
            rounds[name] = make(track)
        except ImportError as error:
            missing[name] = f"{error.msg.splitlines()[0]}; {command}"
        except EngineError as error:
            missing[name] = str(error)
    return rounds, missing


def summarize(measured: dict[str, list[Any]], gflop: float) -> dict[str, Any]:
    """Return ratios to the reference, rates, and shares of the matrix product, per round."""
    products = measured.pop(PRODUCT)
    best = [max(product.values()) for product in products]
    reference = REFERENCE if REFERENCE in measured else "apply, tensorflow"
    bases = measured.get(reference)
    results: dict[str, Any] = {}
    for name, rates in measured.items():
        results[name] = {"images_per_second": describe(rates)}
        if bases:
            ratios = [rate / base for rate, base in zip(rates, bases, strict=True)]
            results[name]["ratio"] = describe(ratios)
        if name.startswith(("apply", "network alone")):
            shares = [rate * gflop / peak for rate, peak in zip(rates, best, strict=True)]
            results[name]["share_of_matrix_product"] = describe(shares)
        results[name]["rounds"] = [round(rate, 2) for rate in rates]
    return {
        "ratios_are_to": reference,
        "results": results,
        "matrix_product_gflop_per_second": {
            "best": describe(best),
            **{
                key: round(statistics.median(product[key] for product in products), 1)
                for key in products[0]
            },
        },
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ckpt", default="vector", help="a checkpoint of the profile vector")
    parser.add_argument("--images", type=int, default=128, help="timed in a round")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="*", metavar="WORD", help="contestants with such a word")
    parser.add_argument("--out", type=Path, default=RESULTS / "rivals.json")
    arguments = parser.parse_args()
    if _DISTINCT % arguments.batch_size:
        parser.error(f"--batch-size must divide {_DISTINCT}")
    if arguments.images % (2 * arguments.batch_size):
        parser.error("--images must be a multiple of two batches, which `apply` has under way")
    return arguments


def find_versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "missing"
    return versions


def main() -> None:
    arguments = parse_arguments()
    machine = describe_machine()
    track = make_track(arguments.ckpt, arguments.batch_size, arguments.images)
    words = arguments.only or [""]
    names = [name for name in CONTESTANTS if any(word in name for word in words)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the rivals' own: tracing, deprecations
        rounds, missing = enter(track, names)
        print(f"{len(rounds)} contestants are ready; the rounds begin.", flush=True)
        measured = take_turns({PRODUCT: measure_matrix_product, **rounds}, arguments.rounds)
    print("The rounds are over.", flush=True)
    gflop = count_network(track.vae)
    result = {
        "benchmark": "rivals",
        "settings": {k: v for k, v in vars(arguments).items() if k != "out"},
        "digest": track.vae.digest,
        "gflop_an_image": {
            arguments.ckpt: gflop,
            "demo": count_network(load_checkpoint("demo")),
        },
        **summarize(measured, gflop["sample"]),
        "missing": missing,
        "environment": {**machine, **find_versions()},
    }
    write_atomic(arguments.out, (json.dumps(result, indent=1) + "\n").encode())
    for name, figures in result["results"].items():
        rate, ratio = figures["images_per_second"], figures.get("ratio", {})
        print(
            f"{name:56} x{ratio.get('median', float('nan')):.3f} "
            f"({ratio.get('lowest', float('nan')):.3f} to {ratio.get('highest', float('nan')):.3f})"
            f"  {rate['median']:.1f} images/s ({rate['lowest']:.1f} to {rate['highest']:.1f})"
        )
    for name, reason in missing.items():
        print(f"{name:56} missing: {reason}")
    print(f"ratios are to {result['ratios_are_to']!r}; written to {arguments.out}")


if __name__ == "__main__":
    main()
