"""End what TensorFlow's threads do for `tf.data` before the process ends.

An iterator reads ahead on TensorFlow's threads, which run on after the end of the script. Python
ends any thread that asks for its lock while the interpreter is finalised. TensorFlow does not
expect that of its threads: it aborts the process, or waits for the call's result for ever. It
checks that the interpreter exists before it asks, but one that is being finalised passes. See
`PyGILState_Ensure` in the C API of Python, and `PyFuncOp` in TensorFlow's `py_func.cc`.

What XLA has compiled asks for no lock, but a convolution of it that still runs when the process
takes down its libraries is a segmentation fault (TensorFlow 2.21 alone has it, too).
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import logging
import os
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

QUIET_S = 0.05
"""Time without a call after which none is expected to come, or to be returning to TensorFlow."""

GRACE_S = 2.0
"""Time in which threads that read ahead may end by themselves."""

PATIENCE_S = 30.0
"""Time after which calls under way are no longer waited for."""

_IDLE = 0.1
"""Share of a processor below which a process is idle."""

_logger = logging.getLogger(__name__)


class Gate:
    """A gate before what TensorFlow's threads run; when closed, it refuses calls of functions.

    Attributes:
        compiled: Whether the process runs code of XLA's, which cannot be refused, only waited for.
    """

    def __init__(self) -> None:
        """Open the gate, for this process alone."""
        self.compiled = False
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._calls = 0
        self._under_way = 0
        self._functions: weakref.WeakSet[_Function] = weakref.WeakSet()

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same until the gate is closed, and then refuses."""
        wrapped = _Function(self, function)
        self._functions.add(wrapped)
        return wrapped

    def close(self) -> None:
        """End iterators, wait for calls under way, and replace the functions by `_refuse`.

        Nothing then refers to the functions and their compiled networks. A forked child, in which
        TensorFlow has no threads to wait for, leaves all as it is.
        """
        if os.getpid() != self._process or not (self._functions or self.compiled):
            return
        end_iterators()
        if self.compiled:
            wait_until_idle(PATIENCE_S)
        self._wait(GRACE_S)
        for wrapped in list(self._functions):
            wrapped.function = _refuse
        if not self._wait(PATIENCE_S):
            _logger.warning(
                "TensorFlow still calls Python %.0f s after the end of the script; the process may "
                "abort or hang. Delete the iterators of tf.data before the script ends.",
                PATIENCE_S,
            )

    @contextlib.contextmanager
    def count_call(self) -> Iterator[None]:
        """Count a call as under way."""
        with self._lock:
            self._calls += 1
            self._under_way += 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1

    def _wait(self, patience_s: float) -> bool:
        """Wait until nothing calls any more; return whether it came to that."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            calls = self._calls
            time.sleep(QUIET_S)
            if not self._under_way and self._calls == calls:
                return True
        return False


class _Function:
    """A function behind a gate."""

    def __init__(self, gate: Gate, function: Callable[..., Any]) -> None:
        self._gate = gate
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        with self._gate.count_call():
            return self.function(*arguments)


def wait_until_idle(patience_s: float) -> None:
    """Wait until no thread of this process computes, whoever started it."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        used = time.process_time()
        time.sleep(QUIET_S)
        if time.process_time() - used < _IDLE * QUIET_S:
            return


def _refuse(*_: Any) -> Any:
    """Raise the one exception that TensorFlow takes for the end of a sequence and does not log."""
    raise StopIteration("The process is about to end.")


def end_iterators() -> None:
    """Delete the resource of every iterator of `tf.data` in this process, which then has no more.

    TensorFlow then cancels the iterator's threads and waits for the calls under way. A thread that
    waits for a batch gets it.
    """
    # A script that failed inside next() left a frame that holds the resource as well.
    traceback.clear_frames(getattr(sys, "last_traceback", None))
    for thing in gc.get_objects():
        if issubclass(type(thing), tf.data.Iterator):  # isinstance() would load lazy modules
            fields = vars(thing)
            for name in [key for key, one in fields.items() if isinstance(one, _HELD)]:
                del fields[name]
            fields["_next_internal"] = _refuse


_HELD = (tf.Tensor, tf.data.Dataset)
"""What an iterator holds that keeps its resource alive."""

_gate = Gate()
atexit.register(_gate.close)


def end_at_exit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function fit for `tf.numpy_function`: a script may end while TensorFlow calls it.

    Args:
        function: Takes and returns NumPy arrays, in several threads at once.

    Returns:
        A function that does the same until the script ends. The caller must not keep the original
        function, so that its resources are released then.
    """
    return _gate.wrap(function)


def wait_at_exit() -> None:
    """End iterators when the script ends, and wait for what XLA has compiled for them."""
    _gate.compiled = True
