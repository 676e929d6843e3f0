"""Whether the package works with the lowest and the highest versions that it allows.

    make matrix PYTHON=python3.13

For one Python, and for the lowest and the highest versions of each dependency: the wheel is
installed into an environment of its own, `vae-aug demo` runs in an empty folder, and the tests run
on what was installed. It needs PyPI, and nothing but the standard library of the Python under test.
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
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "matrix"
RESULTS = ROOT / "benchmarks" / "results"
RESOLUTIONS = {"lowest": "lowest-direct", "highest": "highest"}
"""What is tried, and what uv calls it: the lowest of what pyproject.toml names."""

_TOLD = ("tensorflow", "keras", "numpy", "tensorflow-datasets", "pydicom", "scipy", "pillow")
_TOOLS = ("uv==0.9.11", "twine==6.2.0")
_TESTS = ("-m", "not slow and not walk", "--numprocesses=auto", "--maxprocesses=2")
_COUNT = re.compile(r"(\d+) (passed|failed|skipped|error)")
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


def try_versions(uv: Path, wheel: Path, resolution: str, folder: Path) -> dict[str, Any]:
    """Install the wheel with some versions of what it needs, and use it.

    Args:
        uv: The installer.
        wheel: The wheel.
        resolution: A key of `RESOLUTIONS`.
        folder: Made for the environment and what the demo writes.

    Returns:
        Versions, and what came of demo and tests; or why it cannot be installed.
    """
    environment = folder / "environment"
    venv.create(environment)
    python = environment / "bin" / "python"
    asked = ("pip", "install", "--quiet", "--python", python)
    how = ("--resolution", RESOLUTIONS[resolution])
    installed = run(uv, *asked, *how, f"vae-aug[dev] @ {wheel.absolute().as_uri()}")
    if installed.returncode:
        return {"installed": False, "reason": installed.stderr[-2000:]}
    listed = json.loads(must(run(uv, "pip", "list", "--python", python, "--format", "json")))
    versions = {one["name"]: one["version"] for one in listed}
    began = time.monotonic()
    demo = run(environment / "bin" / "vae-aug", "demo", cwd=folder)
    seconds = round(time.monotonic() - began)
    # From the repository, whose package is the one that was installed, byte for byte.
    tests = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfE", *_TESTS)
    (folder / "tests.log").write_text(tests.stdout + tests.stderr)
    return {
        "installed": True,
        "versions": {name: versions.get(name) for name in _TOLD},
        "demo": {"ended_well": demo.returncode == 0, "seconds": seconds},
        "tests": read_outcome(tests.stdout),
    }


def works(found: dict[str, Any]) -> bool:
    """Tell whether the demo ended well and the tests ran and passed."""
    tests = found.get("tests", {})
    return bool(tests.get("passed") and not tests["failed"] and found["demo"]["ended_well"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resolutions", nargs="*", default=[*RESOLUTIONS], choices=RESOLUTIONS)
    parser.add_argument("--out", type=Path, default=RESULTS / "matrix.json")
    arguments = parser.parse_args()
    uv, wheel = build(WORK)
    known = json.loads(arguments.out.read_text())["results"] if arguments.out.is_file() else {}
    ended_well = True
    for resolution in arguments.resolutions:
        found = try_versions(uv, wheel, resolution, WORK / resolution)
        known[f"Python {platform.python_version()}, {resolution}"] = found
        ended_well = ended_well and works(found)
        told = {"benchmark": "matrix", "results": known}
        arguments.out.write_text(json.dumps(told, indent=1) + "\n")
        print(resolution, json.dumps(found, indent=1))
    sys.exit(not ended_well)


if __name__ == "__main__":
    main()
