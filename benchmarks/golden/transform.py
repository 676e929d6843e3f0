"""Sections `transform-*`: `VAEAugment` on small images with boxes, in every way of using it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.golden.record import Notes, serialize_arrays
from benchmarks.golden.sources import make_boxes, make_image, to_integers
from vae_aug import VAEAugment, load_checkpoint

MODES = ("denoise", "sample", "interpolate")
DTYPES = ("uint8", "uint16", "float32")
SIZES = ((44, 40), (40, 52), (44, 40), (36, 36))
"""Heights and widths; those of batches are all the first."""

ENGINE_WAYS = ("map", "apply")
"""Ways that are noted of engines other than TensorFlow."""

# Under these the guard has something to do.
_HARMFUL = {"factor": 2.0, "detail": 0.25, "min_fidelity": 0.9}
SETTINGS: dict[str, dict[str, Any]] = {
    "keep": {"guard": "keep", **_HARMFUL},
    "paste": {"guard": "paste", **_HARMFUL},
    "off": {"guard": "off", **_HARMFUL},
    "half": {"p": 0.5, "factor": 0.5, "detail": 0.5},
    "denoise half": {"mode": "denoise", "factor": 0.5, "detail": 0.25},
    "identity": {"factor": 0.0},
    "xyxy": {"bounding_box_format": "xyxy", **_HARMFUL},
    "value range": {"value_range": (0, 300)},
}
"""Settings beside the seed, which is 5."""

_Dataset = tf.data.Dataset
Element = dict[str, Any]


def make_element(index: int, size: tuple[int, int], dtype: str, channels: int = 1) -> Element:
    """Make a TFDS element of NumPy arrays, whose name and score pass through untouched."""
    image = make_image(index, *size, channels)
    image = image.astype(np.float32) if dtype == "float32" else to_integers(image, dtype)
    objects = {"bbox": make_boxes(index)[: 2 - index % 2], "label": np.arange(2 - index % 2)}
    return {"image": image, "image/source_id": f"image {index}", "objects": objects}


def make_datasets(sizes: tuple[tuple[int, int], ...]) -> dict[str, _Dataset]:
    """Make a dataset of single elements for each dtype; sizes are not known to their graphs."""

    def make_dataset(dtype: str) -> _Dataset:
        elements = [make_element(index, size, dtype) for index, size in enumerate(sizes)]

        def generate() -> Iterator[Element]:
            yield from elements

        signature = {
            "image": tf.TensorSpec([None, None, 1], dtype),
            "image/source_id": tf.TensorSpec([], tf.string),
            "objects": {
                "bbox": tf.TensorSpec([None, 4], tf.float32),
                "label": tf.TensorSpec([None], tf.int64),
            },
        }
        return _Dataset.from_generator(generate, output_signature=signature)

    return {dtype: make_dataset(dtype) for dtype in DTYPES}


def make_ways(augment: VAEAugment, folder: str) -> dict[str, Callable[[], dict[str, _Dataset]]]:
    """Name the ways to augment a dataset, each of which returns one dataset a dtype."""
    mixed, dense = make_datasets(SIZES), make_datasets((SIZES[0],) * len(SIZES))

    def batch(dataset: _Dataset) -> _Dataset:
        # Static sizes, as a detector's batches mostly have.
        known = dataset.map(lambda e: {**e, "image": tf.ensure_shape(e["image"], [*SIZES[0], 1])})
        paddings = {"bbox": -1.0, "label": tf.constant(-1, tf.int64)}
        image = tf.zeros([], dataset.element_spec["image"].dtype)
        padding = {"image": image, "image/source_id": "", "objects": paddings}
        return known.padded_batch(3, padding_values=padding)

    def cache() -> dict[str, _Dataset]:
        caches = {name: augment.cache(one, f"{folder}-{name}") for name, one in mixed.items()}
        return {name: one.repeat(2) for name, one in caches.items()}

    # Two passes of `apply` and `cache`, since every epoch differs.
    return {
        "map": lambda: {name: one.map(augment) for name, one in mixed.items()},
        "batch": lambda: {name: batch(one).map(augment) for name, one in dense.items()},
        "ragged": lambda: {name: one.ragged_batch(3).map(augment) for name, one in mixed.items()},
        "apply": lambda: {name: one.apply(augment).repeat(2) for name, one in mixed.items()},
        "cache": cache,
    }


def note_element(notes: Notes, case: str, element: Any, image: Any) -> None:
    """Note an image, or images, and all else in an element or several."""
    flat = tf.nest.flatten(image, expand_composites=True)
    ours = {id(leaf) for leaf in flat}
    rest = [
        leaf for leaf in tf.nest.flatten(element, expand_composites=True) if id(leaf) not in ours
    ]
    notes.note(f"{case}/image", serialize_arrays(flat))
    if rest:
        notes.note(f"{case}/boxes", serialize_arrays(rest))


def note_matrix(notes: Notes, checkpoint: str, engine: str = "tensorflow") -> None:
    """Note every mode, dtype and way of one checkpoint; fewer ways on other engines.

    Args:
        notes: Where to.
        checkpoint: Name of a packaged one.
        engine: Its name is part of the cases, unless it is TensorFlow.
    """
    network = load_checkpoint(checkpoint)
    told = "" if engine == "tensorflow" else f" on {engine}"
    section = f"transform-{checkpoint}" if not told else "transform-engines"
    for mode in MODES:
        augment = VAEAugment(network, mode=mode, seed=5, engine=engine, batch_size=3)  # type: ignore[arg-type]
        for way, make in make_ways(augment, f"cache-{checkpoint}").items():
            if told and way not in ENGINE_WAYS:
                continue
            # Zipped, they share one pass, whose start costs more than the few images.
            elements = list(_Dataset.zip(make()))
            for dtype in DTYPES:
                own = [element[dtype] for element in elements]
                images = [element["image"] for element in own]
                case = f"{section}/{checkpoint} {mode}{told}, {way}, {dtype}"
                note_element(notes, case, own, images)


def note_vector(notes: Notes) -> None:
    """Section `transform-vector`: the published network."""
    note_matrix(notes, "vector")


def note_ladder(notes: Notes) -> None:
    """Section `transform-demo`: the packaged ladder."""
    note_matrix(notes, "demo")


def note_engines(notes: Notes, engines: list[str]) -> None:
    """Section `transform-engines`: both networks on other engines."""
    for engine, checkpoint in itertools.product(engines, ("vector", "demo")):
        note_matrix(notes, checkpoint, engine)


def note_settings(notes: Notes) -> None:
    """Section `transform-settings`: settings of the transform, layouts of elements, reports."""
    network = load_checkpoint("vector")
    for name, settings in SETTINGS.items():
        augment = VAEAugment(network, **{"mode": "sample", "seed": 5, **settings})
        for dtype, channels in (("uint8", 3), ("uint16", 1)):
            element = _batch([make_element(i, SIZES[0], dtype, channels) for i in (0, 2, 4)])
            element["epoch"] = np.arange(3)
            changed, report = augment.call_with_report(element)
            case = f"transform-settings/{name}, {dtype} of {channels}"
            note_element(notes, case, changed, changed["image"])
            values = [report[key] for key in sorted(report)]
            notes.note(f"{case}/report", serialize_arrays(values))
    _note_layouts(notes, VAEAugment(network, seed=5))


def _batch(elements: list[Element]) -> Element:
    return tf.nest.map_structure(lambda *leaves: np.stack(leaves), *elements)


def _note_layouts(notes: Notes, augment: VAEAugment) -> None:
    """Augment elements of every layout, single and batched, and with odd boxes."""
    single = make_element(0, SIZES[0], "uint8")
    several = _batch([make_element(i, SIZES[0], "uint8") for i in (0, 2)])
    for name, element in {"single": single, "batch": several}.items():
        image, boxes = element["image"], element["objects"]["bbox"]
        pixels = boxes * np.float32([*SIZES[0], *SIZES[0]])
        xyxy = pixels[..., [1, 0, 3, 2]]
        keras = {"images": image, "bounding_boxes": {"boxes": xyxy, "labels": boxes[..., 0]}}
        odd = np.where(boxes > boxes.mean(), boxes, np.nan)
        layouts: dict[str, tuple[Any, Callable[[Any], Any]]] = {
            "TFDS": (element, lambda e: e["image"]),
            "Keras": (keras, lambda e: e["images"]),
            "pair": ((image, {"boxes": xyxy}), lambda e: e[0]),
            "bare": (image, lambda e: e),
            "NaN boxes": ({"image": image, "bbox": odd}, lambda e: e["image"]),
            "no boxes": ({"image": image, "bbox": boxes[..., :0, :]}, lambda e: e["image"]),
            "half": ({"image": (image / 255).astype(np.float16)}, lambda e: e["image"]),
        }
        for layout, (given, find) in layouts.items():
            changed = augment(*given) if isinstance(given, tuple) else augment(given)
            note_element(notes, f"transform-settings/{layout}, {name}", changed, find(changed))
