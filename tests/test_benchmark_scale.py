"""The simulation of many workers, by hand where it can be, and the tables of its page."""

from __future__ import annotations

import json

import pytest
from conftest import ROOT

from benchmarks.scale import RESULTS, Costs, count_parts, make_tables, simulate

COSTS = Costs(start=5.0, begin=1.0, image=0.1, merge=0.01)


@pytest.mark.parametrize(
    ("images", "workers", "parts", "seconds"),
    [
        (100, 1, 1, 5 + 1 + 10 + 1),
        (100, 2, 2, 5 + 1 + 5 + 1),
        (100, 2, 4, 5 + 2 + 5 + 1),
        (100, 8, 4, 5 + 1 + 2.5 + 1),  # four workers have nothing to do
        (90, 2, 3, 5 + 2 + 6 + 0.9),  # one has two parts, the other waits
    ],
)
def test_the_simulation_by_hand(images, workers, parts, seconds):
    assert simulate(COSTS, images, workers, parts) == pytest.approx(seconds)


def test_parts_are_those_of_the_command():
    assert count_parts(16, "processes", 2) == 16
    assert count_parts(3, "processes", 2) == 9
    assert count_parts(16, "Beam", 2) == 32


def test_the_page_has_the_tables_that_the_results_give():
    page = (ROOT / "docs" / "scale.md").read_text()
    tables = make_tables(json.loads((RESULTS / "workers.json").read_text()))
    assert len(tables) == 4
    for name, table in tables.items():
        assert table in page, name
