from __future__ import annotations

import sys

import numpy as np
import pytest
from test_blocks import count_conversions, write_many
from test_dicom import write_dicom
from test_ingest import read_files
from typer.testing import CliRunner

from vae_aug.cli import app
from vae_aug.errors import MissingPackageError, RecordError
from vae_aug.ingest import blocks
from vae_aug.ingest.ingest import ingest

beam = pytest.importorskip("apache_beam", reason="install vae-aug[beam]")

# Otherwise DirectRunner would ask GitHub for a program that runs pipelines.
OFFLINE = {"update_compatibility_version": beam.__version__}


pytestmark = pytest.mark.usefixtures("config_home")


@pytest.mark.parametrize("runner", ["DirectRunner", "FnApiRunner"])
def test_a_runner_writes_what_one_worker_writes(tmp_path, monkeypatch, runner):
    """Three blocks; paths are relative to the folder that the command was called in."""
    write_many(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    done = []
    expected = ingest("in", "one", shards=3, salt="s")
    report = ingest(
        "in",
        "out",
        shards=3,
        salt="s",
        runner=runner,
        runner_options=OFFLINE,
        progress=lambda *a: done.append(a),
    )
    assert report == expected and (expected.images, expected.faulty) == (80, 1)
    assert read_files(tmp_path / "out") == read_files(tmp_path / "one")
    assert done == [(count, 82) for count in range(1, 83)]


def test_neighbours_are_found_from_relative_paths(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for z in range(3):
        stored = np.full((4, 4), z, np.uint16)
        place = {"ImagePositionPatient": [0, 0, z], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        write_dicom(tmp_path / "in" / f"{z}.dcm", stored, SeriesInstanceUID="1.2", **place)
    monkeypatch.chdir(tmp_path)
    options = {"format": "dicom", "neighbours": 1, "salt": "s"}
    expected = ingest("in", "one", **options)
    assert expected.neighbours == {"end": 2, "found": 4}
    assert ingest("in", "out", runner="FnApiRunner", **options) == expected
    assert read_files(tmp_path / "out") == read_files(tmp_path / "one")


def test_a_runner_goes_on_where_another_run_stopped(tmp_path, monkeypatch):
    source, out = write_many(tmp_path / "in"), tmp_path / "out"
    whole = ingest(source, tmp_path / "whole", salt="s")
    make_block, made = blocks.make_block, []

    def stop_at_the_third(path, part, conversion):
        if len(made) == 2:
            raise RuntimeError("DOE^JANE")
        make_block(path, part, conversion)
        made.append(path)

    monkeypatch.setattr(blocks, "make_block", stop_at_the_third)
    with pytest.raises(RecordError, match="the Beam runner 'FnApiRunner' failed") as info:
        ingest(source, out, salt="s", runner="FnApiRunner")
    assert "DOE" not in str(info.value)
    monkeypatch.setattr(blocks, "make_block", make_block)
    converted = count_conversions(monkeypatch)
    report = ingest(source, out, salt="s", runner="FnApiRunner")
    assert report == whole and report.resumed in (32 + 32, 32 + 18)
    assert len(converted) == 82 - report.resumed
    assert read_files(out) == read_files(tmp_path / "whole")


def test_an_error_of_ours_is_repeated(tmp_path, monkeypatch):
    def refuse(*task):
        raise RecordError("/out: cannot be written (No space left on device).")

    monkeypatch.setattr(blocks, "make_block", refuse)
    with pytest.raises(RecordError, match=r"FnApiRunner' failed: /out: .*device\)\.$"):
        ingest(write_many(tmp_path / "in"), tmp_path / "out", salt="s", runner="FnApiRunner")


def test_workers_that_do_not_share_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "make_block", lambda *task: None)
    with pytest.raises(
        RecordError, match=r"3 files are not there\. The runner 'FnApiRunner' needs"
    ):
        ingest(write_many(tmp_path / "in"), tmp_path / "out", salt="s", runner="FnApiRunner")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runner": "NoSuchRunner"}, "NoSuchRunner"),
        (
            {"runner": "FnApiRunner", "runner_options": {"direct_num_workers": "x"}},
            "Beam refuses the runner options {'direct_num_workers': 'x'}",
        ),
    ],
)
def test_bad_arguments(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        ingest(write_many(tmp_path / "in"), tmp_path / "out", salt="s", **options)


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delitem(sys.modules, "vae_aug.beam", raising=False)
    with pytest.raises(MissingPackageError, match=r"pip install 'vae-aug\[beam\]'"):
        ingest(write_many(tmp_path / "in"), tmp_path / "out", salt="s", runner="FnApiRunner")


def test_the_command_takes_a_runner_and_its_options(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_AUG_SALT", "s")
    source = write_many(tmp_path / "in")
    ingest(source, tmp_path / "one", salt="s")
    command = ["ingest", str(source), str(tmp_path / "out"), "--runner", "FnApiRunner"]
    options = ["--runner-option", "direct_num_workers=1"]
    bad = CliRunner().invoke(app, [*command, "--runner-option", "direct_num_workers"])
    assert bad.exit_code == 1 and "--runner-option wants KEY=VALUE" in bad.output
    result = CliRunner().invoke(app, [*command, *options])
    assert result.exit_code == 0, result.output
    assert read_files(tmp_path / "out") == read_files(tmp_path / "one")
