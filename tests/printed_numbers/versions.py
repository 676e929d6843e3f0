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
]
GIVEN: list[str] = [
    "runs on Python 3.11 with the versions of",
    "failed on Python 3.11 is",
    "since Keras 3.8 warns",
    "On Python 3.13 `vae-aug demo` failed at first: TensorFlow 2.20 allows protobuf 5.28.0",
    "raised to 5.28.3",
    "the row of Python 3.12 is older",
    "Python 3.13 has none of TensorFlow before 2.20 and NumPy before 2.1",
    "and these want Keras 3.10",
    "Beam's bound was 2.60 then, and is 2.69 now",
    "is held below 1.21",
    "the protobuf of TensorFlow before 2.20",
    "OpenCV 4.12 excludes NumPy 1, and with it TensorFlow before 2.18 and scikit-image before 0.24",
    "pydicom 3.0.0 has no slices",
    "TFDS before 4.9.7",
    "KerasHub before 0.20 names labels",
    "and 0.20 wants Keras 3.8",
    "OpenVINO 2025.0 hung in three of five runs",
    "SciPy 1.13 divides",
    "typer before 0.29",
]
