"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets, `$VAE_AUG_DATA` or `../shared/data`; skips without one."""
    folder = Path(os.environ.get("VAE_AUG_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not a folder; set VAE_AUG_DATA to one")
    return folder
