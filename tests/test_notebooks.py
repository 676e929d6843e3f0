"""The notebooks run, and their outputs that are kept show no fault and no path of a machine."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))

nbformat = pytest.importorskip("nbformat", reason="install vae-aug[dev]")


def read_cells(path: Path) -> list:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def list_shown(cell) -> list:
    """Return the outputs of a cell but for logs and progress, which are not kept."""
    return [output for output in cell.outputs if output.get("name") != "stderr"]


def list_texts(cell) -> list[str]:
    """Return what a cell shows as text."""
    outputs = list_shown(cell)
    return [out.get("text", "") or out.get("data", {}).get("text/plain", "") for out in outputs]


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["own_data", "pipeline"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_those_of_one_run_from_top_to_bottom(path):
    cells = read_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"]
    text = "\n".join(text for cell in cells for text in list_texts(cell))
    assert not re.findall(r"/(?:tmp|home|root|work)/\S*|Traceback|\berror:", text)
    assert any("image/png" in out.get("data", {}) for cell in cells for out in cell.outputs)
    assert path.stat().st_size < 1_500_000


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_shows(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="install vae-aug[dev]")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=900, resources=resources).execute()
    ran = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell, kept in zip(ran, read_cells(path), strict=True):
        shown = [{out.output_type for out in list_shown(one)} for one in (cell, kept)]
        assert shown[0] == shown[1], cell.source
        assert not [text for text in list_texts(cell) if "error:" in text], cell.source
