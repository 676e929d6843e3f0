"""Where the numbers of `docs/versions.md` come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from printed_numbers import read_results


def _tell(name: str, found: dict[str, Any]) -> str:
    """Write the row of a Python and of the lowest or highest versions."""
    python, resolution = name.removeprefix("Python ").split(", ")
    tests, demo = found["tests"], "yes" if found["demo"]["ended_well"] else "no"
    versions = (tests["versions"][key] for key in _SHOWN)
    cells = (python, resolution, *versions, demo, f"{tests['passed']:,}", tests["failed"])
    return f"| {' | '.join(map(str, cells))} |"


_SHOWN = ("tensorflow", "keras", "numpy", "tensorflow-datasets")

_CELLS = read_results("matrix.json")["results"]

MEASURED: list[tuple[str, Sequence[float]]] = [
    *((_tell(name, found), []) for name, found in _CELLS.items()),
    ("With them {} tests fail", [_CELLS["Python 3.11.7, lowest"]["tests"]["failed"]]),
]
GIVEN: list[str] = [
    "typer 0.19 warns of the newest click",
    "OpenVINO 2024.4 and Keras 3.5 lack",
    "lowest versions on Python 3.11",
    "runs on Python 3.11 with",
    "not tried on Python 3.12 and 3.13: PyYAML 6.0, the lowest then",
    "OpenCV 4.12 excludes NumPy 1, and with it TensorFlow before 2.18 and scikit-image before 0.24",
    "pydicom 3.0.0 has no slices",
    "TFDS before 4.9.7",
]
