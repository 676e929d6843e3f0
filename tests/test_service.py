"""The transform in tf.data service: the same bytes, and each element as often as the mode says."""

from __future__ import annotations

import collections
import socket

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.data.experimental import service

from vae_aug.augment.transform import VAEAugment
from vae_aug.records.records import make_example, read_records, write_records

COUNT, WORKERS = 14, 2
EVERY_WORKER_ALL = ("parallel_epochs", service.ShardingPolicy.OFF)
SHARED_OUT = (
    "distributed_epoch",
    service.ShardingPolicy.DYNAMIC,
    service.ShardingPolicy.DATA,
    service.ShardingPolicy.FILE_OR_DATA,
)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    rng = np.random.default_rng(0)
    examples = [
        make_example(
            rng.integers(0, 256, (40 + index % 3, 48, 1), np.uint8),
            source_id=str(index),
            boxes=[[0.2, 0.2, 0.7, 0.6]],
            labels=[0],
            label_names=("lesion",),
        )
        for index in range(COUNT)
    ]
    write_records(examples, folder, "train", 4, label_names=("lesion",))
    return folder


def find_ports(count):
    """Find ports that are free; policies that shard by worker need to know them beforehand."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def target():
    """The address of a dispatcher with two workers."""
    ports = find_ports(WORKERS)
    addresses = [f"localhost:{port}" for port in ports]
    dispatcher = service.DispatchServer(service.DispatcherConfig(worker_addresses=addresses))
    address = dispatcher.target.partition("://")[2]
    workers = [
        service.WorkerServer(
            service.WorkerConfig(
                dispatcher_address=address, worker_address=f"localhost:{port}", port=port
            )
        )
        for port in ports
    ]
    yield dispatcher.target
    del workers


@pytest.fixture(scope="module")
def augment():
    return VAEAugment("demo", seed=1)


@pytest.fixture(scope="module")
def expected(records, augment):
    elements = read_records(records, "train").map(augment).as_numpy_iterator()
    return {element["image/source_id"]: element["image"] for element in elements}


@pytest.mark.parametrize(
    ("way", "mode"),
    [
        ("map", service.ShardingPolicy.FILE),
        *(("map", mode) for mode in (*EVERY_WORKER_ALL, *SHARED_OUT)),
        *(("apply", mode) for mode in (*EVERY_WORKER_ALL, *SHARED_OUT)),
    ],
    ids=repr,
)
def test_bytes_and_counts(records, target, augment, expected, mode, way):
    source = read_records(records, "train", counted=False)
    served = getattr(source, way)(augment).apply(service.distribute(mode, target))
    seen = collections.Counter()
    for element in served.as_numpy_iterator():
        seen[element["image/source_id"]] += 1
        np.testing.assert_array_equal(element["image"], expected[element["image/source_id"]])
    times = WORKERS if mode in EVERY_WORKER_ALL else 1
    assert seen == dict.fromkeys(expected, times)


def test_shards_by_file_need_a_source_of_files_alone(records, target, augment):
    """The numbers of epochs, which `apply` pairs elements with, are no files."""
    source = read_records(records, "train", counted=False)
    shards = service.distribute(service.ShardingPolicy.FILE, target)
    with pytest.raises(tf.errors.NotFoundError, match="shard"):
        list(source.apply(augment).apply(shards))


def test_two_trainers_share_a_job(records, target, augment, expected):
    """Each element goes to one of them."""
    source = read_records(records, "train", counted=False)
    dataset = source.apply(augment)
    known = service.register_dataset(target, dataset)
    shared = {"job_name": "shared", "element_spec": dataset.element_spec}
    readers = [
        iter(service.from_dataset_id("distributed_epoch", target, known, **shared))
        for _ in range(2)
    ]
    seen = []
    while readers:
        for reader in list(readers):
            element = next(reader, None)
            if element is None:
                readers.remove(reader)
            else:
                seen.append(element["image/source_id"].numpy())
    assert sorted(seen) == sorted(expected)


def test_a_counted_dataset_says_that_a_worker_has_a_share(records, target):
    served = read_records(records, "train").apply(service.distribute("distributed_epoch", target))
    with pytest.raises(tf.errors.FailedPreconditionError, match="expected to contain 14 elements"):
        list(served)
