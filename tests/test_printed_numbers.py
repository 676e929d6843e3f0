"""Every number that the README and the pages print is that of a result, or is no measurement."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from printed_numbers import ROOT, checkpoints, list_faults, others, read_prose

MODULES = {
    "README.md": "readme",
    "SECURITY.md": "security",
    "benchmarks/README.md": "benchmarks",
    "docs/large-sets.md": "large_sets",
    "docs/performance.md": "performance",
    "docs/placement.md": "placement",
    "docs/privacy.md": "privacy",
    "docs/scale.md": "scale",
    "docs/versions.md": "versions",
}
"""Pages that print measured numbers, and where these come from."""

ELSEWHERE = {
    "docs/when-to-use.md": "written by a command, see test_benchmark_detection.py",
}
"""Pages whose numbers another test compares."""


def list_other_pages() -> list[str]:
    """List the pages that print no measured number, of the documentation for users."""
    pages = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md"))]
    return [page for page in pages if page not in MODULES and page not in ELSEWHERE]


@pytest.mark.parametrize("page", MODULES)
def test_numbers_of_a_page_are_those_of_the_results(page: str):
    module: Any = import_module(f"printed_numbers.{MODULES[page]}")
    assert not list(list_faults(read_prose(page), module.MEASURED, module.GIVEN))


@pytest.mark.parametrize("page", checkpoints.MEASURED)
def test_numbers_of_the_pages_of_checkpoints_are_those_of_the_results(page: str):
    measured = checkpoints.MEASURED[page]
    given = [*checkpoints.GIVEN[page], *checkpoints.UNVERIFIED[page]]
    assert not list(list_faults(read_prose(page), measured, given))


@pytest.mark.parametrize("page", list_other_pages())
def test_other_pages_print_no_measured_number(page: str):
    assert not list(list_faults(read_prose(page), [], others.GIVEN.get(page, ())))


def test_no_page_is_left_out_and_none_is_gone():
    assert others.GIVEN.keys() <= set(list_other_pages())
    pages = (ROOT / "docs" / "checkpoints").glob("*.md")
    assert checkpoints.MEASURED.keys() == {page.relative_to(ROOT).as_posix() for page in pages}
    assert all((ROOT / page).is_file() for page in (*MODULES, *ELSEWHERE))


def test_wrong_numbers_are_found():
    prose = "It made 12.5 images/s (0.4 to 1,300) of 224 pixels, `batch_size=8`, on B1 and x2.4."
    measured = [("It made {} images/s ({} to {})", (12.46, 0.35, 1300.4)), ("x{}", (2.44,))]
    assert not list(list_faults(prose, measured, ["of 224 pixels"]))

    (fault,) = list_faults(prose, measured, [])
    assert fault.startswith("224 comes from nowhere")
    other = [("It made {} images/s ({} to {})", (13, 0.4, 1300)), *measured[1:]]
    (fault,) = list_faults(prose, other, ["224"])
    assert fault.startswith("12.5 should be 13")
    faults = list(list_faults(prose, [*measured, ("{} GB", (1,))], ["224", "of 512 pixels"]))
    assert faults == ["is there 0 times, with 1 values: {} GB", "is not there: of 512 pixels"]
