"""An epoch of tf.data service goes on when a process is killed, as docs/large-sets.md says."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from tensorflow.data.experimental import service
from test_service import find_ports

from vae_aug.augment.transform import VAEAugment
from vae_aug.records.records import make_example, read_records, write_records

COUNT, SHARDS = 400, 20
SCRIPTS = re.findall(
    r"```sh\npython -c '\n(.*?)'\n```", (ROOT / "docs" / "large-sets.md").read_text(), re.DOTALL
)
pytestmark = pytest.mark.slow


class Service:
    """A dispatcher and two workers, each a process that runs a script of the documents."""

    def __init__(self, work_dir, stack):
        self.ports = dict(zip(("5050", "5051", "5052", "5053"), find_ports(4), strict=True))
        self.work_dir, self.stack, self.processes = work_dir, stack, {}
        for port in ("5050", "5051", "5052"):
            self.start(port)

    def start(self, port):
        """Start the dispatcher, which has port 5050 in the documents, or a worker."""
        dispatcher, worker = SCRIPTS
        script = dispatcher if port == "5050" else worker.replace("5051", port)
        for number, free in self.ports.items():
            script = script.replace(number, str(free))
        script = script.replace("/srv/tf-data", str(self.work_dir))
        process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        self.processes[port] = process
        while process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("localhost", self.ports[port])).close()
                return
        raise AssertionError(f"the process of port {port} ended")

    def kill(self, port):
        self.processes[port].kill()
        self.processes[port].wait()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    rng = np.random.default_rng(0)
    examples = [
        make_example(
            rng.integers(0, 256, (32, 32, 1), np.uint8),
            source_id=str(index),
            boxes=[[0.2, 0.2, 0.7, 0.6]],
            labels=[0],
            label_names=("lesion",),
        )
        for index in range(COUNT)
    ]
    write_records(examples, folder, "train", SHARDS, label_names=("lesion",))
    return read_records(folder, "train", counted=False)


@pytest.fixture(scope="module")
def augment():
    return VAEAugment("demo", seed=1)


@pytest.fixture(scope="module")
def expected(source, augment):
    elements = source.map(augment).as_numpy_iterator()
    return {element["image/source_id"]: element["image"] for element in elements}


def kill_a_worker(running):
    running.kill("5051")
    running.start("5051")


def restart_the_dispatcher(running):
    running.kill("5050")
    running.start("5050")


def add_a_worker(running):
    running.start("5053")


@pytest.mark.parametrize("fault", [kill_a_worker, restart_the_dispatcher, add_a_worker])
def test_an_epoch_goes_on(fault, source, augment, expected, tmp_path):
    with contextlib.ExitStack() as stack:
        running = Service(tmp_path, stack)
        shared_out = service.distribute(
            "distributed_epoch",
            f"grpc://localhost:{running.ports['5050']}",
            max_outstanding_requests=2,
        )
        seen = []
        for element in source.map(augment).apply(shared_out).as_numpy_iterator():
            seen.append(element["image/source_id"])
            np.testing.assert_array_equal(element["image"], expected[seen[-1]])
            if len(seen) == COUNT // 10:
                fault(running)
    assert len(seen) == len(set(seen)) and set(seen) <= set(expected)
    # A shard has 20 elements; the killed worker may have begun with a second one.
    assert len(seen) >= (COUNT - 2 * COUNT // SHARDS if fault is kill_a_worker else COUNT)
