from __future__ import annotations

import os
import stat

import pytest

from vae_aug.atomic import make_temporary_path, open_atomic, write_atomic


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
        write_atomic(tmp_path / "b", b"", mode=0o600)
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600


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
