"""The loading of TensorFlow: late, and without what it reports of itself."""

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


class _Calls:
    """Stands for `vae_aug.cli.calls` and loads it when something of it is first used."""

    module: ModuleType | None = None

    def __getattr__(self, name: str) -> Any:
        if self.module is None:
            with silence_loading():
                self.module = importlib.import_module("vae_aug.cli.calls")
        return getattr(self.module, name)


if TYPE_CHECKING:
    from vae_aug.cli import calls as calls
else:
    calls = _Calls()
