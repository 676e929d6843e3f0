"""Files appear whole or not at all, and a folder has one writer at a time."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from vae_aug import atomic
from vae_aug.atomic import (
    lock_folder,
    make_temporary_path,
    open_atomic,
    remove_temporaries,
    write_atomic,
)
from vae_aug.errors import RecordError


def test_file_replaces_the_former_one(tmp_path):
    path = tmp_path / "a.json"
    for data in (b"one", b"", b"three"):
        write_atomic(path, data)
        assert path.read_bytes() == data
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_permissions_follow_the_umask(tmp_path):
    former = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a", b"")
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize("where", ["os.fsync", "pathlib.Path.replace"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_interrupt_leaves_the_former_file(tmp_path, monkeypatch, where, error):
    write_atomic(tmp_path / "a", b"former")

    def fail(*args):
        raise error

    monkeypatch.setattr(where, fail)
    with pytest.raises(error):
        write_atomic(tmp_path / "a", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"former"


def test_what_is_cut_short_leaves_the_former_file(tmp_path):
    write_atomic(tmp_path / "a", b"former")
    with pytest.raises(KeyboardInterrupt), open_atomic(tmp_path / "a") as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert (tmp_path / "a").read_bytes() == b"former"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_temporary_names_match_no_pattern_for_shards(tmp_path):
    path = make_temporary_path(tmp_path / "train-00000-of-00001.tfrecord")
    assert path.parent == tmp_path and path.name.startswith(".") and path.suffix == ".tmp"


# --- Locks on folders ---------------------------------------------------------------------------


HOLD = """
import pathlib, sys, time
from vae_aug.atomic import lock_folder
with lock_folder(pathlib.Path(sys.argv[1]), beside=sys.argv[2] == "beside"):
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["inside", "beside"])
def where(request):
    return request.param


@pytest.fixture
def holder(tmp_path, where):
    """Another process that holds the lock until it is killed."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run"), where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def lock(folder, where):
    return lock_folder(folder, beside=where == "beside")


def list_all(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_lock_leaves_nothing_behind(tmp_path, where):
    for _ in range(2):
        with lock(tmp_path / "new" / "run", where) as locked:
            assert locked
            expected = {"inside": ["new", "new/run", "new/run/.lock"], "beside": ["new"]}[where]
            expected += ["new/.run.lock"] * (where == "beside")
            assert list_all(tmp_path) == expected
    assert ".lock" not in "".join(list_all(tmp_path))


def test_another_process_is_refused_until_it_is_killed(tmp_path, where, holder):
    with pytest.raises(RecordError, match=r"run: another run writes to this folder; wait"):
        lock(tmp_path / "run", where).__enter__()
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert ".lock" in "".join(list_all(tmp_path))  # the file stays, and locks nothing
    with lock(tmp_path / "run", where) as locked:
        assert locked
    assert ".lock" not in "".join(list_all(tmp_path))


def test_the_same_process_is_refused_too(tmp_path, where):
    problems = []

    def try_again():
        try:
            lock(tmp_path / "run", where).__enter__()
        except RecordError as error:
            problems.append(str(error))

    with lock(tmp_path / "run", where):
        try_again()
        thread = threading.Thread(target=try_again)
        thread.start()
        thread.join()
    assert len(problems) == 2


def test_a_link_to_the_folder_is_the_same_folder(tmp_path, where):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    with lock(tmp_path / "run", where), pytest.raises(RecordError, match="another run"):
        lock(tmp_path / "link", where).__enter__()
    with lock(tmp_path / "run", where), lock(tmp_path / "other", where) as locked:
        assert locked


def test_an_error_in_the_block_ends_the_lock(tmp_path, where):
    with pytest.raises(KeyboardInterrupt), lock(tmp_path / "run", where):
        raise KeyboardInterrupt
    with lock(tmp_path / "run", where) as locked:
        assert locked


def test_a_file_that_was_removed_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    """The run that held the lock ends between this one's `open` and its lock."""
    take, files = atomic.lock_file, []

    def end_first(descriptor):
        files.append(os.fstat(descriptor).st_ino)
        if len(files) == 1:
            (tmp_path / ".lock").unlink()
            (tmp_path / "keeps_the_number").touch()
        take(descriptor)

    monkeypatch.setattr(atomic, "lock_file", end_first)
    with lock_folder(tmp_path):
        assert len(files) == 2
        assert (tmp_path / ".lock").stat().st_ino == files[1]


def test_a_file_system_without_locks_is_warned_of(tmp_path, where, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(atomic, "lock_file", refuse)
    with (
        pytest.warns(UserWarning, match="no locks .No locks available.; make sure that no other"),
        lock(tmp_path / "run", where) as locked,
    ):
        assert not locked


def test_folders_that_a_killed_run_left_are_removed_and_nothing_else(tmp_path):
    out = tmp_path / "out"
    left = make_temporary_path(out)
    (left / "deep").mkdir(parents=True)
    (left / "deep" / "train-00000-of-00001.tfrecord").touch()
    make_temporary_path(out).touch()
    link = tmp_path / ".out.00000000.tmp"
    link.symlink_to(tmp_path / "kept", target_is_directory=True)
    kept = [
        *("kept", "kept/file", "out", ".out2.00000000.tmp", ".out.original.tmp"),
        *("out.00000000.tmp", ".out.00000000", ".out.lock", ".OUT.00000000.tmp"),
    ]
    for name in kept:
        (tmp_path / name).mkdir() if name != "kept/file" else (tmp_path / name).touch()
    remove_temporaries(out)
    assert list_all(tmp_path) == sorted(kept)


@pytest.mark.parametrize("writer", [open_atomic, lock_folder])
def test_an_error_of_the_disk_names_what_was_written(tmp_path, writer):
    full = pytest.raises(OSError, match=r"No space left on device: '.*/report'")
    with full, writer(tmp_path / "report"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
