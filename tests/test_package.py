"""What the wheel holds, and that the places which repeat a fact agree."""

from __future__ import annotations

import ast
import configparser
import email
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

import vae_aug
from vae_aug.version import __version__

# What a build reads; anything else in the repository cannot reach the wheel.
BUILT_FROM = ("LICENSE", "NOTICE", "README.md", "pyproject.toml", "setup.cfg")
PACKAGES = {"vae_aug": "vae_aug", "tfds_builders": "vae_aug_tfds"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel, built from a copy so that the repository stays clean."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, source)
    for folder in PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, source / folder, ignore=ignore)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--no-index", "--wheel-dir", out, source],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("vae_aug-*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def installed(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what installing the wheel would put beside other packages."""
    folder = tmp_path_factory.mktemp("site-packages")
    wheel.extractall(folder)
    return folder


def run_python(code: str, installed: Path) -> str:
    """Run code that sees the wheel's contents before those of the repository."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=installed,
        env=os.environ | {"PYTHONPATH": os.fspath(installed)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def read_dist_info(wheel: zipfile.ZipFile, name: str) -> str:
    return wheel.read(f"vae_aug-{__version__}.dist-info/{name}").decode()


@pytest.mark.parametrize("folder", PACKAGES)
def test_every_module_is_in_the_wheel(wheel: zipfile.ZipFile, folder: str) -> None:
    modules = {path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*.py")}
    assert {f"{PACKAGES[folder]}/{path.as_posix()}" for path in modules} <= set(wheel.namelist())


def test_package_data_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    checkpoints = {path.name for path in (ROOT / "vae_aug" / "checkpoints").glob("*.keras")}
    assert "demo.keras" in checkpoints
    pages = {path.name for path in (ROOT / "vae_aug" / "figures" / "pages").iterdir()}
    assert {"page.css", "preview.html", "preview.js"} <= pages
    data = {f"vae_aug/figures/pages/{name}" for name in pages}
    expected = {f"vae_aug/checkpoints/{name}" for name in checkpoints} | {
        *data,
        "vae_aug/py.typed",
        "vae_aug_tfds/med_vae_augmented/CITATIONS.bib",
        "vae_aug_tfds/med_vae_augmented/README.md",
        "vae_aug_tfds/med_vae_augmented/TAGS.txt",
    }
    assert expected <= set(wheel.namelist())


def test_nothing_else_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert tops == {*PACKAGES.values(), f"vae_aug-{__version__}.dist-info"}
    assert not [name for name in wheel.namelist() if "dummy_data" in name]


def test_the_console_script_points_to_the_command_line(wheel: zipfile.ZipFile) -> None:
    entry_points = configparser.ConfigParser()
    entry_points.read_string(read_dist_info(wheel, "entry_points.txt"))
    assert dict(entry_points["console_scripts"]) == {"vae-aug": "vae_aug.cli:app"}


def test_the_metadata_names_version_licence_and_extras(wheel: zipfile.ZipFile) -> None:
    metadata = email.message_from_string(read_dist_info(wheel, "METADATA"))
    assert metadata["Name"] == "vae-aug"
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE", "NOTICE"]
    extras = {"lite1", "openvino", "beam", "dicom", "bench", "dev"}
    assert extras <= set(metadata.get_all("Provides-Extra"))


def test_the_console_script_runs_when_installed(installed: Path) -> None:
    code = "import sys; sys.argv = ['vae-aug', '--help']; from vae_aug.cli import app; app()"
    assert "augment" in run_python(code, installed)


def test_the_dataset_builder_is_registered_when_installed(installed: Path) -> None:
    # What `tfds build med_vae_augmented --imports vae_aug_tfds.med_vae_augmented` does first.
    code = (
        "import tensorflow_datasets as tfds, vae_aug_tfds.med_vae_augmented\n"
        "builder = tfds.builder_cls('med_vae_augmented')\n"
        "print(builder.__module__, 'lesion' in builder.get_metadata().description)"
    )
    module = "vae_aug_tfds.med_vae_augmented.med_vae_augmented_dataset_builder"
    assert run_python(code, installed).splitlines()[-1] == f"{module} True"


def test_all_is_what_is_exported() -> None:
    exported = {
        name
        for name in dir(vae_aug)
        if not name.startswith("_") and not isinstance(getattr(vae_aug, name), types.ModuleType)
    }
    assert set(vae_aug.__all__) == exported | {"__version__"}
    assert len(vae_aug.__all__) == len(set(vae_aug.__all__))
    with pytest.raises(AttributeError, match="has no attribute 'VAEAugmentation'"):
        _ = vae_aug.VAEAugmentation


def test_type_checkers_see_the_names_that_are_loaded_late() -> None:
    tree = ast.parse((ROOT / "vae_aug" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == {name: getattr(vae_aug, name).__module__ for name in seen}
    early = {
        alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert set(seen) | early == set(vae_aug.__all__)


def test_help_does_not_wait_for_tensorflow(installed: Path) -> None:
    code = "import sys, vae_aug.cli; print('tensorflow' in sys.modules)"
    assert run_python(code, installed) == "False"


def test_changelog_and_citation_have_the_code_s_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE)[0] == __version__
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [__version__]
    assert vae_aug.__version__ == __version__


def test_every_package_that_is_imported_is_a_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[^\w.-]", entry)[0].lower() for entry in project["dependencies"]}
    distributions = importlib.metadata.packages_distributions()
    undeclared = {}
    for folder in PACKAGES:
        for path in (ROOT / folder).rglob("*.py"):
            tops = read_top_level_imports(path) - {*PACKAGES, *sys.stdlib_module_names}
            owners = {top: {n.lower() for n in distributions.get(top, ())} for top in tops}
            missing = sorted(top for top in tops if not owners[top] & declared)
            if missing and not path.name.endswith("_test.py"):
                undeclared[path.relative_to(ROOT).as_posix()] = missing
    assert undeclared == {}


def read_top_level_imports(path: Path) -> set[str]:
    """Top-level packages that loading the module imports; optional ones are in functions."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").split(".")[0])
    return names


def test_constraints_pin_every_package_exactly() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    loose = [line for line in lines if not re.fullmatch(r"#.*|[\w.-]+==[\w.!+]+", line)]
    assert loose == []


def test_the_tour_names_files_and_functions_that_are_there():
    text = (ROOT / "docs" / "tour.md").read_text()
    assert text.count("\n") < 150
    stops = re.findall(r"`((?:vae_aug|tfds_builders)/[\w/]+\.py)`(?:,\s+`(\w+)`)?", text)
    assert len(stops) > 30
    for file, name in stops:
        defined = [
            node.name
            for node in ast.parse((ROOT / file).read_text()).body
            if isinstance(node, ast.ClassDef | ast.FunctionDef)
        ]
        assert not name or name in defined, f"{file} has no {name}"
