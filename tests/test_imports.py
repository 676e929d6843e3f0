"""Imports point only downwards, and the house order is the one CONTRIBUTING.md states."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

# From the ground up. A module may import from its own layer, without a cycle, and from those below.
CORE = (
    ("errors", "version", "words"),
    ("config",),
    ("atomic", "autotune", "boxes", "grey", "json_values", "letterbox", "limits"),
    ("codecs",),
    ("records",),
    ("model",),
    ("engines",),
    ("augment",),
    ("keras",),
)
"""What a user of `VAEAugment` and of records runs; it imports nothing of the rest."""
BEYOND = (
    ("beam", "workers"),
    ("figures",),
    ("ingest",),
    ("phantoms",),
    ("train",),
    ("evaluate",),
    ("extras",),
    ("demo",),
    ("cli",),
)
LAYERS = (*CORE, *BEYOND)
# What only an extra installs, so that a module needing it must load without it.
OPTIONAL_PACKAGES = {
    "albumentations",
    "apache_beam",
    "bm3d",
    "grain",
    "keras_hub",
    "matplotlib",
    "nibabel",
    "openvino",
    "optuna",
}
# Loaded on demand, because they need one of those at once.
OPTIONAL_MODULES = {
    "vae_aug.augment.grain",
    "vae_aug.augment.grain.GrainAugment",
    "vae_aug.engines.openvino",
    "vae_aug.engines.openvino.OpenVINOEngine",
    "vae_aug.beam",
    "vae_aug.beam.run_on_beam",
}
OUTSIDE = {"benchmarks", "conftest", "tests", "tfds_builders", "vae_aug_tfds"}
# A named tuple's own way to change, what TensorFlow has no public name for, and what TFDS asks
# builders to override.
PRIVATE = {"_replace", "_variant_tensor", "_download_and_prepare"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted((ROOT / "vae_aug").rglob("*.py"))}


def imported_names(node: ast.AST, module: str, is_package: bool) -> list[str]:
    """Absolute dotted names that one import statement brings in; [] for other nodes."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        parents = module.split(".")[: None if is_package else -1]
        parents = parents[: len(parents) - (node.level - 1)]
        base = ".".join([*parents, *([base] if base else [])])
    return [f"{base}.{alias.name}" for alias in node.names]


def imports_of(tree: ast.AST, module: str, is_package: bool = False) -> Iterator[str]:
    for node in ast.walk(tree):
        yield from imported_names(node, module, is_package)


def nested_imports_of(tree: ast.AST, module: str, is_package: bool = False) -> Iterator[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    for node in ast.walk(tree):
        if isinstance(node, functions):
            yield from imports_of(node, module, is_package)


def owning_module(name: str) -> str | None:
    """The module of ours that `name` is or lives in, or None if it is someone else's."""
    while name and name not in SOURCES:
        name = name.rpartition(".")[0]
    return name or None


def layer_of(module: str) -> int:
    part = module.split(".")[1]
    for height, parts in enumerate(LAYERS):
        if part in parts:
            return height
    raise AssertionError(f"{module} is in no layer; name its place in LAYERS")


def upward_imports(module: str, names: Iterator[str]) -> list[str]:
    targets = {owning_module(name) for name in names} - {None, module}
    return sorted(
        target
        for target in targets
        if target == "vae_aug" or layer_of(target) > layer_of(module)  # type: ignore[arg-type]
    )


def private_names_of(tree: ast.AST) -> Iterator[str]:
    """Yield the private names of others that are imported, read, or replaced by `setattr`."""
    for node in ast.walk(tree):
        names: list[Any] = []
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
            names = [node.attr]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr"):
            names = [arg.value for arg in node.args[:2] if isinstance(arg, ast.Constant)]
        for name in names:
            last = str(name).rpartition(".")[2]
            if re.match("_(?!_)", last) and last not in PRIVATE:
                yield last


def parse(module: str) -> tuple[ast.Module, bool]:
    path = SOURCES[module]
    return ast.parse(path.read_text(encoding="utf-8"), str(path)), path.name == "__init__.py"


@pytest.mark.parametrize("module", [m for m in SOURCES if m != "vae_aug"])
def test_imports_point_downwards(module: str) -> None:
    tree, is_package = parse(module)
    assert upward_imports(module, imports_of(tree, module, is_package)) == []


@pytest.mark.parametrize("module", SOURCES)
def test_imports_in_functions_are_of_optional_packages(module: str) -> None:
    tree, is_package = parse(module)
    nested = set(nested_imports_of(tree, module, is_package))
    assert {name.split(".")[0] for name in nested - OPTIONAL_MODULES} <= OPTIONAL_PACKAGES


@pytest.mark.parametrize("module", SOURCES)
def test_the_package_knows_nothing_of_what_surrounds_it(module: str) -> None:
    tree, is_package = parse(module)
    assert not OUTSIDE & {name.split(".")[0] for name in imports_of(tree, module, is_package)}


def test_imports_make_no_cycle() -> None:
    graph = {}
    for module in SOURCES:
        tree, is_package = parse(module)
        targets = {owning_module(name) for name in imports_of(tree, module, is_package)}
        graph[module] = targets - {None, module}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


def list_loaded(code: str) -> set[str]:
    """Return the modules that a process has loaded once it has run `code`."""
    code += "\nimport sys\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_the_transform_loads_the_core_alone() -> None:
    loaded = list_loaded("from vae_aug import VAEAugment")
    parts = {name.split(".")[1] for name in loaded if name.startswith("vae_aug.")}
    core = {part for layer in CORE for part in layer}
    # What decodes files, by OpenCV and Pillow, is for those who have records or files.
    assert "augment" in parts and parts <= core - {"codecs", "records"}


@pytest.mark.parametrize("folder", ["benchmarks", "tests", "tfds_builders", "vae_aug"])
def test_nothing_reaches_for_a_private_name_of_another_module(folder: str) -> None:
    paths = (ROOT / folder).rglob("*.py")
    trees = ((path, ast.parse(path.read_text(encoding="utf-8"))) for path in paths)
    assert {path.name: names for path, tree in trees if (names := [*private_names_of(tree)])} == {}


# The checks above pass on an empty package too, so each rule is shown a breach.
def test_a_breach_of_each_rule_is_seen() -> None:
    reaching = ast.parse(
        "from a import _b, c\na._d = self._e\nm.setattr(a, '_f', 1)\nsetattr('a._g', 1)"
    )
    assert sorted(private_names_of(reaching)) == ["_b", "_d", "_f", "_g"]
    tree = ast.parse("from vae_aug import VAEAugment\ndef f():\n    import vae_aug.cli, json")
    upward = upward_imports("vae_aug.config", imports_of(tree, "vae_aug.config"))
    assert upward == ["vae_aug", "vae_aug.cli"]
    assert list(nested_imports_of(tree, "vae_aug.config")) == ["vae_aug.cli", "json"]


def test_relative_imports_are_resolved() -> None:
    tree = ast.parse("from . import boxes\nfrom .images import read_image\nfrom ..errors import X")
    expected = ["vae_aug.codecs.boxes", "vae_aug.codecs.images.read_image", "vae_aug.errors.X"]
    assert list(imports_of(tree, "vae_aug.codecs.png")) == expected
    assert (
        list(imports_of(ast.parse("from . import boxes"), "vae_aug.codecs", True)) == expected[:1]
    )
