"""A job service and a pool of workers, started as the documents say, write the same records."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from test_ingest import read_files
from test_service import find_ports

from vae_aug.phantoms.embedded import write_embedded

pytest.importorskip("apache_beam", reason="install vae-aug[beam]")
pytestmark = pytest.mark.slow

BLOCKS = re.findall(r"```sh\n(.*?)\n```", (ROOT / "docs" / "large-sets.md").read_text(), re.DOTALL)
POOL, AUGMENT, JOB_SERVICE = (
    next(block for block in BLOCKS if word in block)
    for word in ("worker_pool_main", "PortableRunner", "local_job_service_main")
)
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def split(command, ports):
    """Split a command of the documents into arguments, with free ports for its own."""
    for port, free in ports.items():
        command = command.replace(port, str(free))
    return shlex.split(command.replace("\\\n", ""))


def run(folder, *line):
    subprocess.run(line, cwd=folder, env={**os.environ, "PATH": PATH}, check=True, timeout=600)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Start a job service and a pool; yield their ports by those of the documents."""
    ports = dict(zip(("8099", "50000"), find_ports(2), strict=True))
    folder = tmp_path_factory.mktemp("cluster")
    with contextlib.ExitStack() as stack:
        for command, port in ((JOB_SERVICE, "8099"), (POOL, "50000")):
            log = stack.enter_context((folder / f"{port}.log").open("wb"))
            process = subprocess.Popen(
                split(command, ports), env={**os.environ, "PATH": PATH}, stdout=log, stderr=log
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
            wait_for(ports[port], process)
        yield ports


def wait_for(port, process):
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("localhost", port)).close()
            return
        time.sleep(0.1)
    raise AssertionError(f"nothing answers at {port}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a source and its records."""
    folder = tmp_path_factory.mktemp("data")
    write_embedded(folder / "source", counts={"train": 9}, size=64, real=False)
    run(folder, "vae-aug", "ingest", "source", "records", "--split", "train", "--shards", "2")
    return folder


def test_augment_writes_what_one_process_writes(cluster, folder):
    run(folder, *split(AUGMENT, cluster))
    run(folder, "vae-aug", "augment", "records", "one", "--ckpt", "demo", "--seed", "1")
    assert read_files(folder / "augmented") == read_files(folder / "one")


def test_ingest_writes_what_one_process_writes(cluster, folder):
    options = split(AUGMENT, cluster)
    options = options[options.index("--runner") :]
    line = ("vae-aug", "ingest", "source", "others", "--split", "train", "--shards", "2")
    run(folder, *line, *options)
    records, others = read_files(folder / "records"), read_files(folder / "others")
    assert others == records and any("tfrecord" in name for name in records)
