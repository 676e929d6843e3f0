"""What a whole input pipeline costs beside its network, and where a millisecond goes.

    .venv/bin/python benchmarks/pipeline.py --records LGG

The first table runs three pipelines in turn (see `throughput.py`): records that are read, decoded,
augmented and batched; the same elements from memory, augmented; and nothing but the network on
what it sees of them. The second runs every step by itself, an element at a time but for the
network, and says what an image costs: processor time, which adds up over cores, and time on the
clock. Differences of two rows are a step that does not run alone.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
from flops import freeze
from throughput import RESULTS, count_rate, describe, describe_machine, spend_pass, take_turns

from vae_aug.atomic import write_atomic
from vae_aug.augment.batches import Request
from vae_aug.augment.elements import find_layout, read_example, replace_at
from vae_aug.augment.steps import Steps
from vae_aug.augment.transform import VAEAugment, make_engine
from vae_aug.config import AugmentConfig
from vae_aug.model.checkpoint import load_checkpoint
from vae_aug.records.records import find_records, parse_example, read_records, read_serialized

DISTINCT, _AT_ONCE = 64, 32
_NETWORK_CALLS = 2  # as under `apply`

_PASSES = 4  # over the images of a step

Cost = tuple[float, float]
"""Milliseconds an image: of all processors together, and on the clock."""


def keep(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Keep what a dataset yields in memory."""
    kept = dataset.cache()
    for _ in kept:
        pass
    return kept


def make_transform(vae: Any, config: AugmentConfig) -> Steps:
    """Make the steps of a `VAEAugment`, which hides them."""
    return Steps(config, make_engine(vae, config))


def make_requests(steps: Steps, elements: tf.data.Dataset) -> tf.data.Dataset:
    """Make what the network sees of elements: `Request` of single images."""
    layout = find_layout(elements.element_spec, None)

    def prepare(element: Any) -> Request:
        return steps.prepare(read_example(element, layout))

    return elements.map(prepare)


def make_pipelines(augment: VAEAugment, records: str) -> dict[str, tf.data.Dataset]:
    """Make the pipelines of the first table, without an end."""
    batch_size = augment.config.batch_size
    steps = make_transform(augment.checkpoint, augment.config)
    elements = read_records(records).take(DISTINCT)
    kept = keep(elements)
    batches = keep(make_requests(steps, kept).batch(batch_size, drop_remainder=True))
    return {
        "network alone": batches.repeat().map(
            lambda request: {"image": steps.compute(request)},
            num_parallel_calls=_NETWORK_CALLS,
        ),
        "elements in memory, apply": kept.repeat().apply(augment),
        "records, decode, apply, batch": elements.repeat()
        .apply(augment)
        .padded_batch(batch_size)
        .prefetch(1),
    }


def compare_pipelines(
    augment: VAEAugment, records: str, images: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """Return images per second, and ratios to the network alone."""
    pipelines = make_pipelines(augment, records)
    measured = take_turns(
        {
            name: functools.partial(count_rate, pipeline, 2 * augment.config.batch_size, images)
            for name, pipeline in pipelines.items()
        },
        rounds,
    )
    rates = {name: [rate for _, rate in pairs] for name, pairs in measured.items()}
    return {
        name: {
            "images_per_second": describe(values),
            "ratio": describe([v / b for v, b in zip(values, rates["network alone"], strict=True)]),
        }
        for name, values in rates.items()
    }


def measure_cost(dataset: tf.data.Dataset, elements: int) -> Cost:
    """Iterate over a step that has no end, and take off what an iterator costs to make.

    Args:
        dataset: The step. Were it the step that is repeated, and not its source, every pass would
            make iterators anew.
        elements: That hold `DISTINCT` images.
    """
    once, again = (spend_pass(dataset.take(passes * elements)) for passes in (1, 1 + _PASSES))
    images = _PASSES * DISTINCT
    processors, clock = (1e3 * (b - a) / images for a, b in zip(once, again, strict=True))
    return processors, clock


def make_steps(
    records: str, vae: Any, mode: str, engines: list[str]
) -> dict[str, tuple[tf.data.Dataset, int]]:
    """Make datasets without an end, each of which does one thing to `DISTINCT` images.

    Returns:
        By name, a dataset and how many of its elements hold those images.
    """
    files, info = find_records(records)
    dtype, channels = ("uint8", 1) if info is None else (info.dtype, info.channels)
    serialized = keep(read_serialized(files).take(DISTINCT))
    elements = keep(serialized.map(lambda s: parse_example(s, dtype, channels)))
    without_boxes = keep(elements.map(lambda element: {"image": element["image"]}))
    fresh = make_transform(vae, AugmentConfig(mode=mode))
    seeded = make_transform(vae, AugmentConfig(mode=mode, seed=0))
    requests = keep(make_requests(fresh, elements))
    batches = keep(requests.batch(_AT_ONCE)).repeat()
    squares = keep(requests.map(lambda request: request.image).batch(1)).repeat()
    computed = keep(requests.map(lambda request: (0.01 * request.image, request.chosen))).repeat()
    serialized, elements, without_boxes = (
        source.repeat() for source in (serialized, elements, without_boxes)
    )
    size = vae.config.image_size
    encode = freeze(vae.encode, tf.TensorSpec([1, size, size, 1], tf.float32))
    singles = {
        "carry an element": elements,
        "decode a record": serialized.map(lambda s: parse_example(s, dtype, channels)),
        "ask: grey, square": make_requests(fresh, elements),
        "ask with a seed: the same, and a hash of the content": make_requests(
            seeded, without_boxes
        ),
        "encoder, TensorFlow, an image at a time": squares.map(lambda images: encode(images)),
    }
    networks = {
        "network, TensorFlow, an image at a time (with a seed)": batches.map(seeded.compute),
    }
    for engine in engines:
        networks[f"network, {engine}, 32 at a time"] = batches.map(
            make_transform(vae, AugmentConfig(mode=mode, engine=engine)).compute
        )
    for name, guard, source in (
        ("finish: restore the size, no boxes", "off", without_boxes),
        ("finish: the same, guard of boxes off", "off", elements),
        ("finish: the same, boxes guarded", "paste", elements),
    ):
        singles[name] = tf.data.Dataset.zip((source, computed)).map(
            _finish(make_transform(vae, AugmentConfig(mode=mode, guard=guard)), source)
        )
    return {
        **{name: (step, DISTINCT) for name, step in singles.items()},
        **{name: (step, DISTINCT // _AT_ONCE) for name, step in networks.items()},
    }


def _finish(steps: Steps, source: tf.data.Dataset) -> Callable[..., Any]:
    layout = find_layout(source.element_spec, None)

    def finish(element: Any, computed: tuple[tf.Tensor, tf.Tensor]) -> Any:
        image, _ = steps.finish(layout, read_example(element, layout), *computed)
        return replace_at(element, layout.image, image)

    return finish


def measure_steps(
    steps: dict[str, tuple[tf.data.Dataset, int]], rounds: int
) -> dict[str, dict[str, Any]]:
    """Return what an image costs in every step."""
    measured = take_turns(
        {name: functools.partial(measure_cost, *step) for name, step in steps.items()},
        rounds,
    )
    return {
        name: {
            "processor_ms": describe([cost[0] for cost in costs]),
            "clock_ms": describe([cost[1] for cost in costs]),
        }
        for name, costs in measured.items()
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", required=True, help="records of at least 64 images")
    parser.add_argument("--ckpt", default="vector")
    parser.add_argument("--mode", default="sample", choices=["denoise", "sample"])
    parser.add_argument("--engines", nargs="*", default=["tensorflow", "openvino"])
    parser.add_argument("--images", type=int, default=128, help="timed in a round")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--intra-op-threads", type=int, default=0, help="TensorFlow's; 0: its own")
    parser.add_argument("--out", type=Path, default=RESULTS / "pipeline.json")
    arguments = parser.parse_args()
    if DISTINCT % arguments.batch_size or arguments.images % (2 * arguments.batch_size):
        parser.error(f"--batch-size must divide {DISTINCT}, and twice that --images")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.intra_op_threads)
    machine = describe_machine()
    vae = load_checkpoint(arguments.ckpt)
    pipelines = {
        engine: compare_pipelines(
            VAEAugment(vae, mode=arguments.mode, engine=engine, batch_size=arguments.batch_size),
            arguments.records,
            arguments.images,
            arguments.rounds,
        )
        for engine in arguments.engines
    }
    steps = make_steps(arguments.records, vae, arguments.mode, arguments.engines)
    result = {
        "benchmark": "pipeline",
        "settings": {k: v for k, v in vars(arguments).items() if k not in ("out", "records")},
        "digest": vae.digest,
        "pipelines": pipelines,
        "steps": measure_steps(steps, arguments.rounds),
        "environment": machine,
    }
    write_atomic(arguments.out, (json.dumps(result, indent=1) + "\n").encode())
    for engine, rows in pipelines.items():
        for name, row in rows.items():
            rate, ratio = row["images_per_second"]["median"], row["ratio"]["median"]
            print(f"{engine + ', ' + name:56} x{ratio:.3f}  {rate:.1f} images/s")
    for name, row in result["steps"].items():
        processor, clock = row["processor_ms"]["median"], row["clock_ms"]["median"]
        print(f"{name:56} {processor:8.2f} ms of processors {clock:8.2f} ms on the clock")


if __name__ == "__main__":
    main()
