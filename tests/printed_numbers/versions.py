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

MEASURED: list[tuple[str, Sequence[float]]] = [
    (_tell(name, found), []) for name, found in read_results("matrix.json")["results"].items()
]
GIVEN: list[str] = [
    "scikit-image before 0.24 was built for NumPy 1, which OpenCV 4.12 excludes",
    "TensorFlow before 2.18",
    "pydicom 3.0.0 has no slices",
    "TFDS before 4.9.7",
]
