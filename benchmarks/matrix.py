"""Whether the package works with the lowest and the highest versions that it allows.

    make matrix PYTHON=python3.13

For one Python, and for the lowest and the highest versions of each dependency: the wheel is
installed into an environment of its own and `vae-aug demo` runs in an empty folder; then the wheel
is installed with all extras into another, and the tests run there. They are two, since extras ask
for higher versions of what the package itself needs.

Of the lowest versions, those count for which there is a wheel for the Python; where a
higher one than that of `pyproject.toml` was installed, the result tells it as `raised`. It needs
PyPI, and nothing but the standard library of the Python under test.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "matrix" / "{}.{}".format(*sys.version_info[:2])
RESULTS = ROOT / "benchmarks" / "results"
RESOLUTIONS = {"lowest": "lowest-direct", "highest": "highest"}
"""What is tried, and what uv calls it: the lowest of what `pyproject.toml` names."""

_CONSTRAINTS = {"lowest": "tensorflow-metadata<1.21\n", "highest": ""}
"""TensorFlow before 2.20 keeps protobuf 5; tensorflow-metadata 1.21 cannot be imported with it."""

_COMPILED = [
    "apache-beam",
    "grain",
    "h5py",
    "mypy",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "protobuf",
    "psutil",
    "pycocotools",
    "pyjpegls",
    "pylibjpeg-openjpeg",
    "python-gdcm",
    "pyyaml",
    "ruff",
    "scikit-image",
    "scipy",
    "tensorflow",
]
"""Packages of compiled code. Their versions without a wheel for the Python are passed over."""

_TOLD = ("tensorflow", "keras", "numpy", "tensorflow-datasets", "pydicom", "scipy", "pillow")
_TOOLS = ("uv==0.13.9", "twine==7.0.0")
_TESTS = ("-m", "not slow and not walk", "--numprocesses=auto", "--maxprocesses=2")
_COUNT = re.compile(r"(\d+) (passed|failed|skipped|error)")
_LOWEST = re.compile(r"([\w.-]+)(?:\[[^]]*\])?>=([\d.]+)")
_FAILURE = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)


def read_outcome(text: str) -> dict[str, Any]:
    """Read what pytest says at its end: counts, and the names of tests that failed."""
    last = next((line for line in reversed(text.splitlines()) if _COUNT.search(line)), "")
    counts = {name: int(count) for count, name in _COUNT.findall(last)}
    return {
        "passed": counts.get("passed", 0),
        "failed": counts.get("failed", 0) + counts.get("error", 0),
        "skipped": counts.get("skipped", 0),
        "failures": _FAILURE.findall(text),
    }


def list_raised(needs: Sequence[str], versions: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """List what was installed in a higher version than the lowest that is asked for.

    Args:
        needs: Requirements as in `pyproject.toml`; those without `>=` are passed over.
        versions: What is installed, by name.

    Returns:
        The version that is asked for, and that which is installed, by name.
    """

    def split(version: str) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", version)]

    raised = {}
    for need in needs:
        match = _LOWEST.match(need)
        installed = versions.get(match[1]) if match else None
        if match and installed and split(installed)[: len(split(match[2]))] != split(match[2]):
            raised[match[1]] = match[2], installed
    return raised


def list_needs(with_extras: bool) -> list[str]:
    """List what the package asks for, and its extras, too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values() if with_extras else ()
    return sum(extras, project["dependencies"])


def run(*words: str | os.PathLike[str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a program; what it prints is kept, and nothing of it shown."""
    told = {"TF_CPP_MIN_LOG_LEVEL": "3", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return subprocess.run(
        list(map(os.fspath, words)),
        cwd=cwd,
        env=os.environ | told,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def must(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a program printed, or end with it if it failed."""
    if done.returncode:
        said = done.stdout + done.stderr
        raise SystemExit(f"{shlex.join(done.args)} failed:\n{said[-4000:]}")
    return done.stdout


def build(work: Path) -> tuple[Path, Path]:
    """Build wheel and source distribution, and check how PyPI would show them.

    Args:
        work: Folder, made anew.

    Returns:
        uv, and the wheel.
    """
    shutil.rmtree(work, ignore_errors=True)
    venv.create(work / "tools", with_pip=True)
    tools = work / "tools" / "bin"
    must(run(tools / "python", "-m", "pip", "install", "--quiet", *_TOOLS))
    must(run(tools / "uv", "build", "--quiet", "--out-dir", work / "dist", ROOT))
    made = sorted((work / "dist").glob("vae_aug-*"))
    must(run(tools / "twine", "check", "--strict", *made))
    (wheel,) = (path for path in made if path.suffix == ".whl")
    return tools / "uv", wheel


def install(
    uv: Path, wheel: Path, extras: Sequence[str], resolution: str, environment: Path
) -> dict[str, Any]:
    """Make an environment with some versions of what the wheel needs.

    Args:
        uv: The installer.
        wheel: The wheel.
        extras: Its extras.
        resolution: A key of `RESOLUTIONS`.
        environment: Made for it.

    Returns:
        `versions` of what matters most, and what was `raised` above its lowest version; or the
        `reason` why it cannot be installed.
    """
    venv.create(environment, with_pip=True)  # which tests of the package use
    python, pinned = environment / "bin" / "python", environment / "pinned.txt"
    constraints = environment / "constraints.txt"
    constraints.write_text(_CONSTRAINTS[resolution])
    # Of the wheel itself, what it needs would count as indirect, of which the highest is taken.
    how = ("--resolution", RESOLUTIONS[resolution], *(f"--extra={name}" for name in extras))
    how += ("--constraint", constraints, "--output-file", pinned)
    wheels = [f"--only-binary={name}" for name in _COMPILED]
    asked = (uv, "pip", "compile", "--quiet", "--python", python, *how, *wheels)
    chosen = run(*asked, ROOT / "pyproject.toml")
    into = (uv, "pip", "install", "--quiet", "--python", python, *wheels)
    installed = run(*into, "--requirement", pinned) if chosen.returncode == 0 else chosen
    if installed.returncode:
        reason = installed.stderr[-2000:].replace(str(ROOT), ".")
        return {"installed": False, "reason": reason}
    must(run(*into, "--no-deps", wheel))
    listed = json.loads(must(run(uv, "pip", "list", "--python", python, "--format", "json")))
    versions = {one["name"]: one["version"] for one in listed}
    found = {"installed": True, "versions": {name: versions.get(name) for name in _TOLD}}
    if resolution == "lowest":
        found["raised"] = list_raised(list_needs(bool(extras)), versions)
    return found


def try_demo(uv: Path, wheel: Path, resolution: str, folder: Path) -> dict[str, Any]:
    """Install the wheel and nothing that it does not need, and run its demo."""
    environment = folder / "package"
    found = install(uv, wheel, (), resolution, environment)
    if found["installed"]:
        began = time.monotonic()
        demo = run(environment / "bin" / "vae-aug", "demo", cwd=folder)
        (folder / "demo.log").write_text(demo.stdout + demo.stderr)
        found["ended_well"] = demo.returncode == 0
        found["seconds"] = round(time.monotonic() - began)
    return found


def try_tests(uv: Path, wheel: Path, resolution: str, folder: Path) -> dict[str, Any]:
    """Install the wheel with all of its extras, and run the tests."""
    environment = folder / "with_extras"
    found = install(uv, wheel, ("dev",), resolution, environment)
    if found["installed"]:
        # From the repository, whose package is the one that was installed, byte for byte.
        python = environment / "bin" / "python"
        tests = run(
            python,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-rfE",
            "--dist=loadfile",
            *_TESTS,
        )
        (folder / "tests.log").write_text(tests.stdout + tests.stderr)
        found |= read_outcome(tests.stdout)
    return found


def works(found: dict[str, Any]) -> bool:
    """Tell whether the demo ended well, and tests ran and passed."""
    demo, tests = found["demo"], found["tests"]
    return bool(demo.get("ended_well") and tests.get("passed") and not tests["failed"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resolutions", nargs="*", default=[*RESOLUTIONS], choices=RESOLUTIONS)
    parser.add_argument("--out", type=Path, default=RESULTS / "matrix.json")
    arguments = parser.parse_args()
    uv, wheel = build(WORK)
    known = json.loads(arguments.out.read_text())["results"] if arguments.out.is_file() else {}
    ended_well = True
    for resolution in arguments.resolutions:
        folder = WORK / resolution
        folder.mkdir()
        found = {
            "demo": try_demo(uv, wheel, resolution, folder),
            "tests": try_tests(uv, wheel, resolution, folder),
        }
        known[f"Python {platform.python_version()}, {resolution}"] = found
        ended_well = ended_well and works(found)
        told = {"benchmark": "matrix", "results": known}
        arguments.out.write_text(json.dumps(told, indent=1) + "\n")
        print(resolution, json.dumps(found, indent=1))
    sys.exit(not ended_well)


if __name__ == "__main__":
    main()
