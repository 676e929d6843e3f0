"""Processes share the cores of a machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vae_aug.workers import THREAD_VARIABLES, run_tasks


def tell_threads(path):
    """Write how many threads TensorFlow takes in a worker."""
    import tensorflow as tf

    tf.zeros([])
    told = [os.environ[name] for name in THREAD_VARIABLES]
    Path(path).write_text(" ".join([*told, str(os.getpid())]))


@pytest.mark.parametrize("chosen", [None, "3"])
def test_every_worker_has_its_part_of_the_cores_unless_the_user_chose(
    tmp_path, monkeypatch, chosen
):
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        if chosen:
            monkeypatch.setenv(name, chosen)
    paths = [tmp_path / str(index) for index in range(2)]
    assert len(list(run_tasks(tell_threads, [(path,) for path in paths], 2))) == 2
    expected = chosen or str(max(1, len(os.sched_getaffinity(0)) // 2))
    for path in paths:
        intra, inter, pid = path.read_text().split()
        assert (intra, inter) == (expected, expected) and int(pid) != os.getpid()
    assert os.environ.get(THREAD_VARIABLES[0]) == chosen, "this process keeps its own"
