"""TensorFlow Model Garden's own decoder reads our records. CONTRIBUTING.md says how to run this."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from test_images import make_noise

from vae_aug.codecs.images import clean_encoded
from vae_aug.ingest.ingest import ingest
from vae_aug.records.records import make_example, read_serialized, write_records

LABELS = ("stone", "cyst")
IMAGES = {
    "grey": make_noise((7, 9, 1), np.uint8),
    "colour": make_noise((6, 5, 3), np.uint8),
    "deep": make_noise((8, 4, 1), np.uint16),
    "jpeg": clean_encoded(tf.io.encode_jpeg(make_noise((16, 24, 3), np.uint8)).numpy())[0],
}
BOXES = np.array([[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], [0.7, 0.1, 0.9, 0.8]], np.float32)


@pytest.fixture
def decoder(monkeypatch):
    """The decoder, from its own file and its base class's alone.

    The packages around it import most of Model Garden, which pins another TensorFlow; and it
    imports tf_keras without using it.
    """
    spec = importlib.util.find_spec("official")
    folder = Path(*spec.submodule_search_locations) / "vision" / "dataloaders" if spec else Path()
    if not (folder / "tf_example_decoder.py").is_file():
        pytest.skip("needs the PyPI package tf-models-official on the path, see CONTRIBUTING.md")
    names = ("official", "official.vision", "official.vision.dataloaders")
    for name, path in zip(names, (*list(folder.parents)[1::-1], folder), strict=True):
        package = types.ModuleType(name)
        package.__path__ = [str(path)]
        monkeypatch.setitem(sys.modules, name, package)
    monkeypatch.setitem(sys.modules, "tf_keras", types.ModuleType("tf_keras"))
    for name in ("decoder", "tf_example_decoder"):
        monkeypatch.delitem(sys.modules, f"{names[-1]}.{name}", raising=False)
    return importlib.import_module(f"{names[-1]}.tf_example_decoder").TfExampleDecoder()


def make_one(index, name):
    return make_example(
        IMAGES[name],
        source_id=name,
        boxes=BOXES[:index],
        labels=[i % 2 for i in range(index)],
        label_names=LABELS,
        flags={"is_crowd": [i == 1 for i in range(index)]},
    )


def decode(decoder, folder):
    """Decode in a graph, as Model Garden's input readers do."""
    files = sorted(folder.glob("train-*.tfrecord"))
    return list(read_serialized(files).map(decoder.decode).as_numpy_iterator())


def test_it_reads_what_was_written(decoder, tmp_path):
    examples = (make_one(index, name) for index, name in enumerate(IMAGES))
    write_records(examples, tmp_path, "train", 2, label_names=LABELS)
    decoded = decode(decoder, tmp_path)
    assert [one["source_id"].decode() for one in decoded] == list(IMAGES)
    for index, (name, one) in enumerate(zip(IMAGES, decoded, strict=True)):
        np.testing.assert_array_equal(one["groundtruth_boxes"], BOXES[:index])
        assert one["groundtruth_boxes"].dtype == np.float32
        assert one["groundtruth_classes"].tolist() == [1 + i % 2 for i in range(index)]
        assert one["groundtruth_is_crowd"].tolist() == [i == 1 for i in range(index)]
        height, width = one["height"], one["width"]
        sides = BOXES[:index, 2:].astype(float) - BOXES[:index, :2]
        areas = sides.prod(axis=1) * height * width
        np.testing.assert_allclose(one["groundtruth_area"], areas, rtol=1e-6)
        if name == "jpeg":
            pixels = tf.io.decode_jpeg(IMAGES[name].encoded, 3).numpy()
        else:
            # It asks for 8 bits, for which the PNG decoder drops the low byte of 16.
            pixels = IMAGES[name] >> (8 if name == "deep" else 0)
        assert (height, width) == pixels.shape[:2]
        expected = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
        np.testing.assert_array_equal(one["image"], expected)


def test_it_reads_what_ingest_writes(decoder, tmp_path):
    examples = (make_one(index, name) for index, name in enumerate(IMAGES))
    write_records(examples, tmp_path / "in", "train", label_names=LABELS)
    ingest(tmp_path / "in", tmp_path / "out", keep_ids=True)
    given, ingested = (decode(decoder, tmp_path / name) for name in ("in", "out"))
    for one, other in zip(given, ingested, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)
