"""With a seed, a real network's bytes are the same however, and wherever, an element comes by."""

from __future__ import annotations

import hashlib
import itertools
import json
import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from test_dataset import run_elsewhere

from vae_aug.augment.transform import VAEAugment
from vae_aug.model.checkpoint import save_checkpoint
from vae_aug.records.records import make_example, read_records, write_records

COUNT = 4
DTYPES = {"uint8": tf.uint8, "uint16": tf.uint16}


def make_element(number, dtype):
    """An image of its own odd size, made in the graph so that any process can make it."""
    size = (21 + 7 * number, 50 - 5 * number, 1)
    levels = tf.random.stateless_uniform(size, [7, number], 0, dtype.max + 1, tf.int32)
    return {
        "image": tf.ensure_shape(tf.cast(levels, dtype), [None, None, 1]),
        "image/source_id": tf.strings.as_string(number),
        "objects": {"bbox": tf.constant([[0.2, 0.2, 0.7, 0.6]])},
    }


def make_source(dtype):
    numbers = tf.data.Dataset.range(COUNT, output_type=tf.int32)
    return numbers.map(lambda number: make_element(number, dtype))


def read_images(dataset):
    """Images by source id, whatever order they come in."""
    images = {}
    for element in dataset:
        image = element["image"]
        image = image.to_tensor() if isinstance(image, tf.RaggedTensor) else image
        images[element["image/source_id"].numpy()] = image.numpy()
    return [images[name] for name in sorted(images)]


def digest(images):
    return hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()


def make_augment(network, mode, **settings):
    return VAEAugment(network, mode=mode, seed=3, detail=0.5, min_fidelity=0.5, **settings)


MAPS = ("8 parallel calls", "apply to shuffled elements")
BATCHES = ("2 parallel calls", "batches", "apply", "apply to batches")


# Each network, mode and dtype at least once; each network in every way.
@pytest.mark.parametrize(
    ("network", "mode", "dtype", "names"),
    [
        ("short_vae", "sample", "uint8", BATCHES),
        pytest.param("short_vae", "interpolate", "uint16", MAPS, marks=pytest.mark.slow),
        ("tiny_ladder", "sample", "uint16", MAPS),
        pytest.param("tiny_ladder", "denoise", "uint8", BATCHES, marks=pytest.mark.slow),
    ],
)
def test_every_way_gives_the_same_bytes(request, network, mode, dtype, names):
    source = make_source(DTYPES[dtype])
    augment = make_augment(request.getfixturevalue(network), mode, batch_size=4)
    expected = read_images(source.map(augment))
    assert all((e != s).any() for e, s in zip(expected, read_images(source), strict=True))
    # Outside of tf.data an operation runs on all cores, see ADR 7.
    for want, element in zip(expected, source, strict=True):
        away = np.abs(augment(element)["image"].numpy().astype(int) - want.astype(int))
        assert away.max() <= 1 and np.mean(away > 0) < 0.01
    ways = {
        "2 parallel calls": lambda: source.map(augment, num_parallel_calls=2),
        "8 parallel calls": lambda: source.map(augment, num_parallel_calls=8),
        "batches": lambda: source.ragged_batch(4).map(augment).unbatch(),
        "apply": lambda: source.apply(augment),
        "apply to shuffled elements": lambda: source.shuffle(COUNT, seed=1).apply(augment),
        "apply to batches": lambda: source.ragged_batch(3).apply(augment).unbatch(),
    }
    assert {*MAPS, *BATCHES} == set(ways)
    for name in names:
        for want, got in zip(expected, read_images(ways[name]()), strict=True):
            np.testing.assert_array_equal(got, want, err_msg=name)


@pytest.mark.parametrize("network", ["short_vae", "tiny_ladder"])
def test_a_dense_batch_gives_each_image_what_it_would_get_alone(request, network):
    images = np.random.default_rng(0).integers(0, 2**16, (5, 32, 32, 1), np.uint16)
    names = np.array([str(number) for number in range(5)])
    augment = make_augment(request.getfixturevalue(network), "sample")
    whole = augment({"image": images, "id": names})["image"]
    for rows in ([0], [4, 1], [3, 2, 0, 1]):
        part = augment({"image": images[rows], "id": names[rows]})["image"]
        np.testing.assert_array_equal(part, whole.numpy()[rows])


def test_a_tf_data_service_gives_the_same_bytes(tiny_ladder):
    dispatcher, worker = start_service()
    source = make_source(tf.uint16)
    augment = make_augment(tiny_ladder, "sample")
    expected = read_images(source.map(augment))
    for way in (source.map(augment), source.apply(augment)):
        served = way.apply(
            tf.data.experimental.service.distribute("parallel_epochs", dispatcher.target)
        )
        for want, got in zip(expected, read_images(served), strict=True):
            np.testing.assert_array_equal(got, want)
    del worker


def start_service():
    """Start a dispatcher and a worker, which live as long as what is returned."""
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer()
    address = dispatcher.target.partition("://")[2]
    worker = service.WorkerServer(service.WorkerConfig(dispatcher_address=address))
    return dispatcher, worker


# Every group of ways below runs in a process of its own, on records, through a stored network.

AUGMENT = {"seed": 3, "mode": "sample", "factor": 0.5}
TAKEN = 2  # images that are read before an iterator is saved


def write_source(folder):
    """Records of images of several sizes, with boxes, so that the guard has something to judge."""
    examples = [
        make_example(
            make_element(number, tf.uint8)["image"].numpy(),
            source_id=str(number),
            boxes=[[0.2, 0.2, 0.7, 0.6]],
            labels=[0],
            label_names=("lesion",),
        )
        for number in range(COUNT)
    ]
    write_records(examples, folder / "records", "train", label_names=("lesion",))


def serve(source, augment):
    dispatcher, worker = start_service()
    served = source.map(augment).apply(
        tf.data.experimental.service.distribute("parallel_epochs", dispatcher.target)
    )
    images = read_images(served)
    del worker
    return images


def keep_iterator(source, augment, folder):
    """Read a part of an epoch, and save it and the iterator."""
    iterator = iter(source.apply(augment))
    part = [next(iterator) for _ in range(TAKEN)]
    np.savez(folder / "part.npz", *read_images(part))
    tf.train.Checkpoint(iterator=iterator).write(str(folder / "iterator"))
    return read_images(source.apply(augment))


def resume(source, augment, folder):
    """Read the rest of the epoch whose iterator another process saved."""
    iterator = iter(source.apply(augment))
    tf.train.Checkpoint(iterator=iterator).read(str(folder / "iterator"))
    with np.load(folder / "part.npz") as part:
        return [*part.values(), *read_images(iterator)]


def build_tfds(_, __, folder):
    sys.path.insert(0, str(ROOT / "tfds_builders"))
    from med_vae_augmented import med_vae_augmented_dataset_builder as module

    settings = {"source": str(folder / "records"), "checkpoint": str(folder / NAME), **AUGMENT}
    config = module.MedVaeAugmentedConfig(name="own", **settings)
    builder = module.Builder(data_dir=folder / "tfds", config=config)
    builder.download_and_prepare()
    elements = builder.as_dataset(split="train")
    return read_images(e | {"image/source_id": e["image/id"]} for e in elements)


NAME = "network.keras"
WAYS = {
    "kept in mid-epoch": keep_iterator,
    "map": lambda source, augment, _: read_images(source.map(augment)),
    "map of batches": lambda source, augment, _: read_images(
        source.ragged_batch(3).map(augment).unbatch()
    ),
    "apply": lambda source, augment, _: read_images(source.apply(augment)),
    "apply, shuffled": lambda source, augment, _: read_images(
        source.shuffle(COUNT, seed=1).apply(augment)
    ),
    "tf.data service": lambda source, augment, _: serve(source, augment),
    "resumed in mid-epoch": resume,
    "TFDS": build_tfds,
}


# In this order: what the first process keeps in mid-epoch, the second resumes.
PROCESSES = (
    ("kept in mid-epoch", "map", "apply, shuffled", "tf.data service"),
    ("resumed in mid-epoch", "map of batches", "TFDS"),
)


def digest_ways(names, folder):
    """What ways make of the records of a folder; in a process that has not begun yet."""
    augment = VAEAugment(folder / NAME, **AUGMENT)
    source = read_records(folder / "records", "train")
    return {name: digest(WAYS[name](source, augment, folder)) for name in names}


def run_ways(names, folder):
    program = (
        "import json, pathlib, test_reproducibility as t; "
        f"print(json.dumps(t.digest_ways({names!r}, pathlib.Path({str(folder)!r}))))"
    )
    return json.loads(run_elsewhere(program).stdout.splitlines()[-1])


@pytest.mark.slow
def test_processes_of_every_kind_give_the_same_bytes(tiny_vae, tmp_path):
    write_source(tmp_path)
    save_checkpoint(tiny_vae, tmp_path / NAME)
    untouched = digest(read_images(read_records(tmp_path / "records", "train")))
    digests = {}
    for names in PROCESSES:
        digests |= run_ways(names, tmp_path)
    [expected] = digest_ways(["apply"], tmp_path).values()
    assert digests == dict.fromkeys(itertools.chain(*PROCESSES), expected)
    assert untouched not in digests.values()


PACKAGED = {"demo": "uint16", "vector": "uint8"}


def run_packaged(name):
    """What a packaged network makes of the source."""
    augment = VAEAugment(name, seed=3, guard="off")
    return read_images(make_source(DTYPES[PACKAGED[name]]).apply(augment))


def save_packaged(folder, threads, names):
    """Keep what packaged networks make; in a process that has not begun yet."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    for name in names:
        np.savez(folder / f"{name}.npz", *run_packaged(name))


def run_packaged_elsewhere(folder, threads, names):
    """Return what packaged networks make in another process, by their name."""
    run_elsewhere(
        "import pathlib, test_reproducibility as t; "
        f"t.save_packaged(pathlib.Path({str(folder)!r}), {threads}, {names!r})"
    )
    made = {}
    for name in names:
        with np.load(folder / f"{name}.npz") as file:
            made[name] = list(file.values())
    return made


@pytest.fixture(scope="module")
def packaged():
    return {name: run_packaged(name) for name in PACKAGED}


@pytest.mark.slow
def test_another_process_gives_the_same_bytes(packaged, tmp_path):
    elsewhere = run_packaged_elsewhere(tmp_path, 0, [*PACKAGED])
    assert digest(elsewhere["demo"]) != digest(read_images(make_source(tf.uint16)))
    for name, images in packaged.items():
        assert digest(elsewhere[name]) == digest(images), name


@pytest.mark.slow
def test_one_thread_moves_hardly_a_pixel_by_a_level(packaged, tmp_path):
    one = run_packaged_elsewhere(tmp_path, 1, ["vector"])["vector"]
    many = np.concatenate([image.ravel() for image in packaged["vector"]]).astype(int)
    moved = np.abs(many - np.concatenate([image.ravel() for image in one]))
    assert moved.max() <= 1
    assert (moved > 0).mean() < 0.01
