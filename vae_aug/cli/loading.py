"""The loading of what takes time: late, and of TensorFlow without what it reports of itself."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any


@contextlib.contextmanager
def silence_loading() -> Iterator[None]:
    """Hide what TensorFlow's C++ reports as it loads, unless the user wants its log.

    A part of it is written before TensorFlow reads the variable, straight to the file descriptor.
    """
    wanted = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0"
    if wanted:
        yield
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class _Late:
    """Stands for a module and loads it when something of it is first used."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.module: ModuleType | None = None

    def __getattr__(self, attribute: str) -> Any:
        if self.module is None:
            with silence_loading():
                self.module = importlib.import_module(self.name)
        return getattr(self.module, attribute)


if TYPE_CHECKING:
    from vae_aug.cli import calls as calls
    from vae_aug.figures import page as page
else:
    calls = _Late("vae_aug.cli.calls")
    page = _Late("vae_aug.figures.page")  # needs no TensorFlow
