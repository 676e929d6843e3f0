"""`VAEAugment.as_grain`: in every pipeline of Grain's the bytes of `tf.data`'s map, or Grain's."""

from __future__ import annotations

import hashlib
import importlib
import os
import pickle
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from fake_vae import FakeVAE

from vae_aug.augment.elements import get_at
from vae_aug.augment.steps import Steps
from vae_aug.augment.transform import VAEAugment
from vae_aug.errors import MissingPackageError

grain = pytest.importorskip("grain", reason="install vae-aug[grain]")

COUNT = 6
BOXES = np.array([[0.2, 0.2, 0.7, 0.6], [np.nan] * 4], np.float32)


def make_images(count=COUNT, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (count, 24, 20, 1), dtype)


def make_elements(count=COUNT):
    return [
        {"image": image, "id": f"scan {number}", "objects": {"bbox": BOXES}}
        for number, image in enumerate(make_images(count))
    ]


def map_by_tensorflow(augment, elements):
    """What `Dataset.map` makes of elements of one size."""
    columns = tf.nest.map_structure(lambda *parts: np.stack(parts), *elements)
    return list(tf.data.Dataset.from_tensor_slices(columns).map(augment).as_numpy_iterator())


def load(elements, *operations, epochs=1, seed=7):
    sampler = grain.samplers.IndexSampler(len(elements), num_epochs=epochs, seed=seed)
    return grain.DataLoader(data_source=elements, sampler=sampler, operations=operations)


def find_image(element):
    return next(part for part in tf.nest.flatten(element) if np.ndim(part) == 3)


def images_of(elements):
    return [element["image"] for element in elements]


def check_equal(found, expected):
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


PIPELINES = {
    "DataLoader": lambda elements, transform: load(elements, transform),
    "map": lambda elements, transform: grain.MapDataset.source(elements).map(transform),
    "random_map": lambda elements, transform: (
        grain.MapDataset.source(elements).seed(1).random_map(transform)
    ),
    "IterDataset": lambda elements, transform: (
        grain.MapDataset.source(elements).to_iter_dataset().seed(1).random_map(transform)
    ),
}
LAYOUTS = {
    "TFDS": lambda image: {"image": image, "image/id": 3, "objects": {"bbox": BOXES}},
    "Keras": lambda image: {"images": image, "bounding_boxes": {"boxes": 20.0 * BOXES}},
    "pair": lambda image: (image, {"boxes": 20.0 * BOXES.astype(np.float64), "id": b"a"}),
    "bare": lambda image: image,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_has_the_bytes_of_map_in_every_pipeline(layout):
    augment = VAEAugment(FakeVAE(), seed=3)
    elements = [LAYOUTS[layout](image) for image in make_images(2, np.uint16)]
    expected, transform = map_by_tensorflow(augment, elements), augment.as_grain()
    for make_pipeline in PIPELINES.values():
        found = list(make_pipeline(elements, transform))
        tf.nest.assert_same_structure(found, expected)
        for one, other, before in zip(found, expected, elements, strict=True):
            np.testing.assert_equal(one, other)
            assert not np.array_equal(find_image(one), find_image(before))


@pytest.mark.parametrize(
    "network", ["short_vae", pytest.param("tiny_ladder", marks=pytest.mark.slow)]
)
def test_networks_give_the_bytes_of_map_and_apply_in_threads_and_batches(request, network):
    augment = VAEAugment(request.getfixturevalue(network), seed=3, detail=0.5)
    elements, transform = make_elements(), augment.as_grain()
    columns = {"image": make_images(), "id": [e["id"] for e in elements]}
    columns["objects"] = {"bbox": np.stack([BOXES] * COUNT)}
    expected = list(tf.data.Dataset.from_tensor_slices(columns).apply(augment))
    expected = [image.numpy() for image in images_of(expected)]
    check_equal(images_of(map_by_tensorflow(augment, elements)), expected)
    dataset = grain.MapDataset.source(elements)
    check_equal(images_of(dataset.map(transform).to_iter_dataset()), expected)
    with ThreadPoolExecutor(8) as pool:
        check_equal(images_of(pool.map(transform, elements)), expected)
    for batches in (
        dataset.batch(4).map(transform),
        load(elements, grain.transforms.Batch(4), transform),
    ):
        check_equal([image for batch in batches for image in batch["image"]], expected)


@pytest.mark.parametrize("engine", ["tensorflow", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_pickle_gives_the_same_bytes(checkpoint, engine):
    if engine == "openvino":
        pytest.importorskip("openvino", reason="install vae-aug[openvino]")
    augment = VAEAugment(checkpoint, seed=3, engine=engine)
    expected = images_of(map_by_tensorflow(augment, make_elements()))
    data = pickle.dumps(augment.as_grain())
    assert len(data) < 1000  # no weights in it
    check_equal(images_of(map(pickle.loads(data), make_elements())), expected)


def test_images_of_all_sizes_are_traced_once(monkeypatch):
    traces = []
    run = Steps.run
    monkeypatch.setattr(Steps, "run", lambda *a: (traces.append(1), run(*a))[1])
    transform = VAEAugment(FakeVAE(profile="ladder"), seed=3).as_grain()
    for size in range(20, 26):
        image = np.zeros((size, 45 - size, 3), np.float32)
        assert transform(image).shape == image.shape
    assert len(traces) == 1


def test_what_tensorflow_does_not_know_goes_around_it():
    odd = {
        "none": None,
        "object": object(),
        "uuid": uuid.uuid4(),
        "text": "é",
        "bytes": b"\x00",
        "when": np.array(["2020-01-01"], "datetime64[D]"),
        "objects of NumPy": np.array([None, "a", {}], object),
        "records": np.zeros(2, [("a", "i4"), ("b", "f8")]),
        "nested": {"list": [1, "a", (None, [])], "set": {1}},
        "shape": type("Odd", (), {"shape": "round", "dtype": "wood"})(),
    }
    transform = VAEAugment(FakeVAE(), seed=3).as_grain()
    for key in ("objects", "none at all"):  # without boxes, what there is goes into a warning
        (element,) = make_elements(1)
        element = {**odd, **element, key: element.pop("objects")["bbox"][:, :2]}
        (found,) = grain.MapDataset.source([element]).map(transform)
        assert list(found) == list(element)
        assert all(found[name] is element[name] for name in found if name != "image")
        assert not np.array_equal(found["image"], element["image"])
    with pytest.raises(TypeError, match=r"at \['id'\] must be numbers or text.*received UUID"):
        transform({**element, "id": uuid.uuid4()})


def test_the_key_epoch_makes_the_epochs_of_apply():
    augment = VAEAugment(FakeVAE(), seed=3)
    dataset = grain.MapDataset.source([{"image": image} for image in make_images()])
    count = len(dataset)
    numbered = dataset.map_with_index(lambda i, element: {**element, "epoch": i // count})
    applied = tf.data.Dataset.from_tensor_slices(make_images()).apply(augment)
    expected = [image.numpy() for _ in range(2) for image in applied]
    assert not np.array_equal(expected[0], expected[count])
    found = numbered.map(augment.as_grain()).repeat(2)
    check_equal(images_of(found), expected)
    check_equal(images_of(dataset.map(augment.as_grain()).repeat(2)), 2 * expected[:count])


def test_without_a_seed_variants_follow_grain():
    transform = VAEAugment(FakeVAE(), p=0.9).as_grain()
    source = grain.MapDataset.source(make_elements())

    def read(seed):
        return images_of(source.seed(seed).shuffle().random_map(transform).repeat(2))

    check_equal(read(1), read(1))
    first, second = (sorted(map(bytes, part)) for part in (read(1)[:COUNT], read(1)[COUNT:]))
    assert not set(first) & set(second) - set(map(bytes, make_images()))
    assert sorted(map(bytes, read(2)[:COUNT])) != first
    loaded = [images_of(load(make_elements(), transform, epochs=2)) for _ in range(2)]
    check_equal(*loaded)
    assert not np.array_equal(loaded[0][0], loaded[0][COUNT])


def test_without_a_seed_each_image_of_a_batch_has_its_own_variant():
    transform = VAEAugment(FakeVAE(noise=1.0)).as_grain()
    same = [{"image": np.full((24, 20, 1), 100, np.uint8)}] * 4
    (batch,) = load(same, grain.transforms.Batch(4), transform)
    assert batch["image"].shape == (4, 24, 20, 1)
    assert len(set(map(bytes, batch["image"]))) == 4


def test_without_any_seed_only_what_is_not_random_runs():
    (element,) = make_elements(1)
    with pytest.raises(ValueError, match="Give Grain a seed"):
        list(load([element], VAEAugment(FakeVAE()).as_grain(), seed=None))
    for settings in ({"mode": "denoise"}, {"factor": 0}):
        augment = VAEAugment(FakeVAE(), **settings)
        (found,) = load([element], augment.as_grain(), seed=None)
        (expected,) = map_by_tensorflow(augment, [element])
        check_equal([found["image"]], [expected["image"]])


@pytest.mark.parametrize("seed", [3, None])
@pytest.mark.parametrize("kind", ["DataLoader", "MapDataset", "IterDataset"])
def test_a_restored_iterator_goes_on_with_the_same_bytes(kind, seed):
    transform = VAEAugment(FakeVAE(), seed=seed, p=0.8).as_grain()

    def make_iterator():
        if kind == "DataLoader":
            return iter(load(make_elements(), grain.transforms.Batch(2), transform, epochs=2))
        dataset = grain.MapDataset.source(make_elements()).seed(1).shuffle()
        if kind == "MapDataset":
            return iter(dataset.random_map(transform).repeat(2).batch(2).to_iter_dataset())
        return iter(dataset.repeat(2).to_iter_dataset().batch(2).random_map(transform))

    iterator = make_iterator()
    for _ in range(2):
        next(iterator)
    state = iterator.get_state()
    expected = images_of(iterator)
    restored = make_iterator()
    restored.set_state(state)
    check_equal(images_of(restored), expected)
    assert len(expected) == COUNT - 2


def test_an_element_that_fails_is_not_returned_later(monkeypatch):
    run = Steps.run

    def refuse_black(self, element, layout):
        tf.debugging.assert_positive(tf.reduce_max(get_at(element, layout.image)))
        return run(self, element, layout)

    monkeypatch.setattr(Steps, "run", refuse_black)
    transform = VAEAugment(FakeVAE(), seed=3).as_grain()
    first, second = make_images(2).astype(np.float32) / 255
    expected = [transform(first), transform(second)]
    with pytest.raises(tf.errors.InvalidArgumentError):
        transform(np.zeros_like(first))
    check_equal([transform(first), transform(second)], expected)


def test_the_element_spec_stays():
    dataset = grain.MapDataset.source(make_elements()).map(VAEAugment(FakeVAE()).as_grain())
    spec = {"image": np.zeros((24, 20, 1), np.uint8)}
    assert VAEAugment(FakeVAE()).as_grain().output_spec(spec) is spec
    assert "VAEAugment(" in str(dataset) and ".as_grain()" in str(dataset)


def test_without_the_package(monkeypatch):
    monkeypatch.delitem(sys.modules, "vae_aug.augment.grain")
    monkeypatch.setitem(sys.modules, "grain.transforms", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'vae-aug\[grain\]'"):
        VAEAugment(FakeVAE()).as_grain()
    monkeypatch.undo()
    assert importlib.import_module("vae_aug.augment.grain")


SCRIPT = """
import hashlib, sys
import grain
from vae_aug import VAEAugment
from test_grain import COUNT, load, make_elements

if __name__ == "__main__":
    augment = VAEAugment(sys.argv[1], engine=sys.argv[2], seed=3)
    options = grain.MultiprocessingOptions(num_workers=2, per_worker_buffer_size=1)
    dataset = grain.MapDataset.source(make_elements()).map(augment.as_grain()).repeat()
    iterator = iter(dataset.to_iter_dataset().mp_prefetch(options))
    images = [next(iterator)["image"].tobytes() for _ in range(COUNT)]
    iterator.close()
    print(hashlib.sha256(b"".join(images)).hexdigest())
"""


# Workers still read ahead when the script closes the iterator.
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
def test_workers_give_the_same_bytes_and_end(checkpoint, tmp_path, engine):
    if engine == "openvino":
        pytest.importorskip("openvino", reason="install vae-aug[openvino]")
    # What is traced here is read by the workers, in which stages are not short.
    augment = VAEAugment(checkpoint, seed=3, engine=engine)
    expected = images_of(map_by_tensorflow(augment, make_elements()))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    run = subprocess.run(
        [sys.executable, script, checkpoint, engine],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=300,
    )
    # Grain's own destructors print what they meet at the end of a worker's interpreter.
    assert run.returncode == 0 and "Fatal" not in run.stderr, run.stderr
    digest = hashlib.sha256(b"".join(image.tobytes() for image in expected)).hexdigest()
    assert run.stdout.split() == [digest]
