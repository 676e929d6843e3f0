"""How far the engines' outputs lie apart on real images.

    .venv/bin/python benchmarks/engine_quality.py --records LGG

Every engine beside float32 TensorFlow on both packaged checkpoints. All get the same draws, so
what differs is arithmetic.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from throughput import RESULTS, describe_machine

from vae_aug.atomic import write_atomic
from vae_aug.augment.transform import VAEAugment
from vae_aug.errors import EngineError, MissingPackageError
from vae_aug.model.checkpoint import load_checkpoint
from vae_aug.records.records import read_records

CHECKPOINTS = ("vector", "demo")
MODES = ("denoise", "sample")
ENGINES = ("tensorflow", "xla", "openvino", "openvino-bfloat16")


def measure_quality(records: str, limit: int) -> list[dict[str, Any]]:
    """Compare every engine with float32 TensorFlow, image by image, on the same seeds.

    Images go through `apply` twice: as they are, where the output's grey levels are compared, and
    as float32 in [0, 1], where rounding hides nothing.

    Args:
        records: Folder or file of records.
        limit: Images, evenly spread over the records.

    Returns:
        For every checkpoint, mode and engine: `psnr_db` of all images together (None if nothing
        differs) and `max_abs_difference` of grey in [0, 1]; `share_of_change`, the root mean square
        of the difference as a share of that of what TensorFlow changes; `share_of_levels` that
        differ at all, and `max_levels` by which one does.
    """
    elements = list(read_records(records).take(10 * limit).as_numpy_iterator())
    elements = elements[:: max(len(elements) // limit, 1)][:limit]
    return [row for ckpt in CHECKPOINTS for mode in MODES for row in _compare(ckpt, mode, elements)]


def _compare(ckpt: str, mode: str, elements: list[Any]) -> list[dict[str, Any]]:
    vae = load_checkpoint(ckpt)
    expected_levels, expected = compute_outputs(vae, mode, ENGINES[0], elements)
    change = _measure_rms(expected - _collect(_make_dataset(elements).map(_scale)))
    rows = []
    for engine in ENGINES[1:]:
        row: dict[str, Any] = {"ckpt": ckpt, "mode": mode, "engine": engine}
        try:
            levels, values = compute_outputs(vae, mode, engine, elements)
        except (MissingPackageError, EngineError) as error:
            rows.append({**row, "missing": str(error)})
            continue
        except tf.errors.OpError as error:  # e.g. what XLA will not compile
            rows.append({**row, "failed": error.message.splitlines()[0]})
            continue
        error = _measure_rms(values - expected)
        rows.append(
            {
                **row,
                "images": len(elements),
                "psnr_db": round(-20 * np.log10(error), 1) if error else None,
                "share_of_change": error / change,
                "max_abs_difference": float(np.abs(values - expected).max()),
                "share_of_levels": float(np.mean(levels != expected_levels)),
                "max_levels": int(
                    np.abs(levels.astype(np.int32) - expected_levels.astype(np.int32)).max()
                ),
            }
        )
    return rows


def _measure_rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def compute_outputs(
    vae: Any, mode: str, engine: str, elements: list[Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Return all pixels of all outputs: as grey levels, and as float32 in [0, 1]."""
    settings = {"mode": mode, "engine": engine, "seed": 0}
    levels = VAEAugment(vae, **settings)
    values = VAEAugment(vae, **settings, value_range=(0.0, 1.0))

    dataset = _make_dataset(elements)
    return _collect(dataset.apply(levels)), _collect(dataset.map(_scale).apply(values))


def _scale(element: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Turn integers into float32 in [0, 1]."""
    image = element["image"]
    return {**element, "image": tf.cast(image, tf.float32) / float(image.dtype.max)}


def _make_dataset(elements: list[Any]) -> tf.data.Dataset:
    image = elements[0]["image"]
    return tf.data.Dataset.from_generator(
        lambda: (
            {
                "image": e["image"],
                "image/source_id": e["image/source_id"],
                "bbox": e["objects"]["bbox"],
            }
            for e in elements
        ),
        output_signature={
            "image": tf.TensorSpec([None, None, image.shape[-1]], image.dtype),
            "image/source_id": tf.TensorSpec([], tf.string),
            "bbox": tf.TensorSpec([None, 4], tf.float32),
        },
    )


def _collect(dataset: tf.data.Dataset) -> np.ndarray:
    return np.concatenate([e["image"].ravel() for e in dataset.as_numpy_iterator()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", required=True, help="records with at least --images images")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--out", type=Path, default=RESULTS / "engine-quality.json")
    arguments = parser.parse_args()
    result = {
        "benchmark": "engine_quality",
        "settings": {"images": arguments.images, "seed": 0},
        "environment": describe_machine(),
        "results": measure_quality(arguments.records, arguments.images),
    }
    write_atomic(arguments.out, (json.dumps(result, indent=1) + "\n").encode())
    print(json.dumps(result["results"], indent=1))


if __name__ == "__main__":
    main()
