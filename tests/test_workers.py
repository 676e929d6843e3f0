from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vae_aug.errors import RecordError
from vae_aug.workers import THREAD_VARIABLES, Runner, choose_workers, run_tasks


def write(path: Path, text: str) -> None:
    path.write_text(text)


def be_killed(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait_or_fail(path: Path, seconds: float) -> None:
    if not seconds:
        raise RecordError(f"{path}: no good")
    time.sleep(seconds)


def tell_threads(path: Path) -> None:
    path.write_text(" ".join(os.environ[name] for name in THREAD_VARIABLES))


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_is_done_once_in_order(tmp_path, workers):
    tasks = [(tmp_path / str(number), f"text {number}") for number in range(7)]
    seen = []
    for number, _ in enumerate(run_tasks(write, tasks, workers)):
        seen.append((tmp_path / str(number)).read_text())
    assert seen == [text for _, text in tasks]


def test_a_worker_that_dies_is_an_error_that_says_what_to_do(tmp_path):
    tasks = [(tmp_path / "a",), (tmp_path / "b",)]
    with pytest.raises(RecordError, match="a worker process ended before its task did"):
        list(run_tasks(be_killed, tasks, 2))


def test_an_error_does_not_wait_for_other_tasks(tmp_path):
    tasks = [(tmp_path / "a", 0.0), (tmp_path / "b", 600.0)]
    with pytest.raises(RecordError, match="no good"):
        list(run_tasks(wait_or_fail, tasks, 2))  # or the test takes ten minutes


SCRIPT = """
import os, sys, time
from pathlib import Path
from vae_aug.workers import run_tasks

def tell_and_wait(path):
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    list(run_tasks(tell_and_wait, [(path,) for path in sys.argv[1:]], 2))
"""


def is_running(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    paths = [tmp_path / "a", tmp_path / "b"]
    parent = subprocess.Popen([sys.executable, tmp_path / "script.py", *paths])
    end = time.monotonic() + 60
    while not all(path.exists() and path.read_text() for path in paths):
        assert time.monotonic() < end and parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    pids = [int(path.read_text()) for path in paths]
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < end, "a worker waits for a parent that is gone"
        time.sleep(0.05)


@pytest.mark.parametrize("chosen", [None, "3"])
def test_every_worker_has_its_part_of_the_cores_unless_the_user_chose(
    tmp_path, monkeypatch, chosen
):
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        if chosen:
            monkeypatch.setenv(name, chosen)
    paths = [tmp_path / str(number) for number in range(2)]
    list(run_tasks(tell_threads, [(path,) for path in paths], 2))
    expected = chosen or str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert [path.read_text() for path in paths] == [f"{expected} {expected}"] * 2
    assert os.environ.get(THREAD_VARIABLES[0]) == chosen, "this process keeps its own"


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"workers": 0}, ValueError, "workers must be at least 1; got 0"),
        ({"workers": 1.5}, TypeError, "workers must be an integer; got 1.5"),
        ({"workers": True}, TypeError, "workers must be an integer; got True"),
        ({"runner_options": {"a": "b"}}, ValueError, "runner_options need a runner"),
        ({"workers": 2, "runner": "X"}, ValueError, "a runner has workers of its own"),
    ],
)
def test_settings_that_contradict_each_other(settings, error, message):
    with pytest.raises(error, match=message):
        choose_workers(**settings)


def test_who_does_the_work():
    assert choose_workers(3) == 3
    assert choose_workers(runner="X", runner_options={"a": "b"}) == Runner("X", {"a": "b"})
