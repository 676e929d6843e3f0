"""What `vae-aug doctor` finds, what it removes, and that it tells nothing of the user."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path

import pytest
from test_cli import run

from vae_aug.atomic import make_temporary_path
from vae_aug.cli import calls
from vae_aug.engines.graphs import find_graph
from vae_aug.errors import CheckpointError, EngineError, MissingPackageError
from vae_aug.extras import doctor
from vae_aug.extras.doctor import Part, diagnose, hide_home, list_extras
from vae_aug.model.stored import list_packaged, read_manifest
from vae_aug.version import __version__

DIGEST = "0a" * 32


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with files of this package and of others, below the home folder."""
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    folder = home / ".cache" / "vae-aug"
    for name in OURS + OTHERS:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    (folder / "graphs" / "transform" / f"{DIGEST[::-1]}.graph").symlink_to(home)
    return folder


OURS = (
    f"graphs/{DIGEST}/{DIGEST}.graph",
    f"graphs/transform/{DIGEST}.graph",
    f"graphs/transform/.{DIGEST}.graph.01234567.tmp",
    f"openvino/{DIGEST}.xml",
    f"openvino/{DIGEST}.bin",
)
OTHERS = (
    f"graphs/{DIGEST}/notes.txt",
    f"graphs/mine/{DIGEST}.graph",
    "openvino/model.xml",
    "scans/patient.dcm",
)


@pytest.fixture(scope="module")
def diagnosis():
    return diagnose()


@pytest.fixture
def found(monkeypatch, diagnosis):
    """Let the command find what was found once, but for the cache."""

    def make(**changes):
        def again():
            return dataclasses.replace(diagnosis, caches=doctor.measure_cache(), **changes)

        monkeypatch.setattr(calls, "diagnose", again)

    make()
    return make


def test_what_this_environment_has_is_found(diagnosis):
    assert diagnosis.version == __version__
    assert diagnosis.python == ".".join(map(str, sys.version_info[:3]))
    assert {part.name for part in diagnosis.packages} == {*doctor.PACKAGES}
    assert {part.state for part in diagnosis.packages} == {"installed"}
    engines = {part.name: part.state for part in diagnosis.engines}
    assert set(engines) == {"tensorflow", "xla", "openvino", "openvino-bfloat16"}
    assert engines["tensorflow"] == engines["xla"] == "works"
    assert {part.name: part.detail for part in diagnosis.checkpoints} == {
        name: read_manifest(name)["digest"] for name in list_packaged()
    }
    assert any("CPU" in name for name in diagnosis.devices) and diagnosis.cores > 0
    assert not diagnosis.broken


def test_every_extra_for_users_is_listed():
    extras = list_extras()
    assert {"openvino", "nifti", "dicom", "albumentations", "lite1"} <= set(extras)
    assert not {"dev", "docs"} & set(extras)
    assert [part.name for part in extras["nifti"]] == ["nibabel"]
    assert [part.name for part in extras["bench"]] == ["psutil"]


def test_what_is_not_installed_has_its_command(monkeypatch):
    def fail(name):
        raise doctor.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", fail)
    [part] = list_extras()["openvino"]
    assert part == Part("openvino", "missing", "not installed", "pip install 'vae-aug[openvino]'")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            MissingPackageError("Run: pip install 'vae-aug[openvino]', or"),
            Part("openvino", "missing", "not installed", "pip install 'vae-aug[openvino]'"),
        ),
        (EngineError("no bfloat16"), Part("openvino", "missing", "no bfloat16")),
        (
            ImportError("libopenvino.so: cannot open\nmore"),
            Part("openvino", "broken", "ImportError: libopenvino.so: cannot open"),
        ),
    ],
)
def test_an_engine_that_cannot_run_says_why(monkeypatch, error, expected):
    def fail(*_):
        raise error

    monkeypatch.setattr(doctor, "make_engine", fail)
    assert doctor.check_engine("openvino") == expected


def test_an_engine_that_computes_wrong_values_is_broken(monkeypatch):
    monkeypatch.setattr(doctor, "make_engine", lambda *_: lambda images, seeds: images)
    assert doctor.check_engine("xla") == Part("xla", "broken", "computes wrong values")


def test_a_codec_without_a_decoder_is_missing(monkeypatch):
    class Decoder:
        is_available = False

    monkeypatch.setattr(doctor, "get_decoder", lambda syntax: Decoder())
    part = doctor.check_codec("JPEG-LS")
    assert (part.state, part.remedy) == ("missing", "pip install 'vae-aug[dicom]'")


def test_a_damaged_checkpoint_is_broken(monkeypatch):
    def fail(name):
        raise CheckpointError("demo.keras: damaged")

    monkeypatch.setattr(doctor, "read_manifest", fail)
    assert doctor.check_checkpoint("demo").state == "broken"


def test_the_cache_is_measured_and_emptied_of_this_package_s_files_alone(cache, found):
    result = run("doctor")
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"cache {cache / 'graphs'}: 3 files" in result.stdout
    assert all((cache / name).exists() for name in OURS + OTHERS)
    result = run("doctor", "--empty-cache")
    assert result.exit_code == 0
    assert f"removed {cache / 'openvino'}: 2 files" in result.stdout
    assert f"cache {cache / 'graphs'}: 0 files" in result.stdout
    assert not any((cache / name).exists() for name in OURS)
    assert all((cache / name).exists() for name in OTHERS)
    assert (cache / "graphs" / "transform" / f"{DIGEST[::-1]}.graph").is_symlink()


def test_json_has_the_home_folder_as_a_tilde(cache, found):
    result = run("doctor", "--json", "--empty-cache")
    content = json.loads(result.stdout)
    assert str(Path.home()) not in result.stdout
    assert content["removed"][0]["path"] == "~/.cache/vae-aug/graphs"
    assert content["removed"][0]["files"] == 3 and content["caches"][0]["bytes"] == 0
    assert content["version"] == __version__ and "openvino" in content["extras"]


def test_tables_fit_80_columns_and_name_what_to_run(found, diagnosis):
    missing = Part("nibabel", "missing", "not installed", "pip install 'vae-aug[nifti]'")
    found(extras={"nifti": [missing]})
    result = run("doctor", columns=80)
    table = [line for line in result.stdout.splitlines() if line[:1] in "│┃┏└"]
    assert max(map(len, table)) <= 80
    assert "nifti: nibabel │ missing │ not installed; run: pip install" in result.stdout


def test_what_is_broken_makes_status_1(found):
    found(engines=[Part("openvino", "broken", "fails")])
    result = run("doctor")
    assert (result.exit_code, result.stderr) == (1, "error: installed, but broken: openvino\n")
    found(engines=[Part("openvino", "missing", "not installed")])
    assert run("doctor").exit_code == 0


def test_the_home_folder_is_hidden_wherever_it_stands(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    value = {"a": ["/home/ann", "in /home/ann/x: no", "/home/anna/x", 1, None]}
    assert hide_home(value) == {"a": ["~", "in ~/x: no", "/home/anna/x", 1, None]}


def test_the_names_of_the_cache_are_those_that_engines_write():
    path = find_graph("transform", [1])
    folders, files = doctor.CACHED["graphs"]
    assert re.fullmatch(folders, path.parent.name) and re.fullmatch(files, path.name)
    temporary = make_temporary_path(Path(f"{DIGEST}.xml")).with_suffix(".bin")
    assert re.fullmatch(doctor.CACHED["openvino"][1], temporary.name)
