"""Tasks in several processes, or on the workers of a runner of Apache Beam."""

from __future__ import annotations

import collections
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

from vae_aug.errors import RecordError

THREAD_VARIABLES = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
"""Variables of the environment that TensorFlow reads: threads in an operation, and operations."""


class Runner(NamedTuple):
    """A runner of Apache Beam.

    Attributes:
        name: Name that Beam knows, e.g. `"DirectRunner"` or `"FlinkRunner"`.
        options: Names and values of Beam's `PipelineOptions`.
    """

    name: str
    options: Mapping[str, str]


Workers = int | Runner
"""A number of processes, of which 1 is the calling one, or a runner."""


def choose_workers(
    workers: int = 1, runner: str | None = None, runner_options: Mapping[str, str] | None = None
) -> Workers:
    """Check settings that say who does the work.

    Args:
        workers: Processes, 1 or more.
        runner: Name of a runner of Apache Beam, in the place of `workers`.
        runner_options: Names and values of Beam's `PipelineOptions`.

    Returns:
        The runner if there is one, else the number of processes.

    Raises:
        TypeError: If `workers` is no integer.
        ValueError: If they contradict each other, or `workers` is below 1.
    """
    if isinstance(workers, bool) or not isinstance(workers, int):
        raise TypeError(f"workers must be an integer; got {workers!r}.")
    if workers < 1:
        raise ValueError(f"workers must be at least 1; got {workers!r}.")
    if runner is None:
        if runner_options:
            found = sorted(runner_options)
            raise ValueError(f"runner_options need a runner; got {found} and none.")
        return workers
    if workers != 1:
        raise ValueError(
            f"a runner has workers of its own, set by runner_options; got workers={workers!r}."
        )
    return Runner(runner, dict(runner_options or {}))


def run_tasks(
    function: Callable[..., None], tasks: Sequence[tuple[Any, ...]], workers: Workers
) -> Generator[None, None, None]:
    """Call a function once for each task, or on a runner once or more often.

    Args:
        function: At the top level of a module. Called again for the same task it does the same.
        tasks: Arguments of each call, which are pickled for all workers but the calling process.
            The first is the path of a file that the call makes; for a runner it is absolute, and
            in a folder that its workers share with this process.
        workers: Processes; more than one are started anew, so a script that calls this needs
            `if __name__ == "__main__":`. Several keep at most two tasks each waiting. A runner
            does all tasks before the first is yielded.

    Yields:
        None after each task, in the order of the tasks.

    Raises:
        MissingPackageError: If there is a runner and no Apache Beam.
        ValueError: If Beam refuses an option, or has no runner of that name.
        RecordError: If a process ends before its task, the runner fails, or a file is not there.
    """
    if isinstance(workers, Runner):
        _run_on(workers, function, tasks)
        yield from [None] * len(tasks)
    elif workers == 1 or len(tasks) < 2:
        for task in tasks:
            function(*task)
            yield
    else:
        yield from _run_in_processes(function, tasks, workers)


def _run_on(
    runner: Runner, function: Callable[..., None], tasks: Sequence[tuple[Any, ...]]
) -> None:
    from vae_aug.beam import run_on_beam  # needs an extra

    if tasks:
        run_on_beam(function, tasks, *runner)
    paths: list[Path] = [path for path, *_ in tasks]
    lost = [path for path in paths if not path.is_file()]
    if lost:
        raise RecordError(
            f"{lost[0].parent}: {len(lost)} files are not there. The runner {runner.name!r} needs "
            "workers that share this folder, and all that is read, with this process."
        )


def begin_worker(threads: int) -> None:
    """Prepare a worker process, which has not begun to use TensorFlow.

    TensorFlow takes as many threads as there are cores in each process, and those of several
    processes wait for each other. So it is told how many, unless the user has set that.

    A worker whose parent is killed would wait for tasks for ever, so it ends with its parent. What
    it is about to write is written wholly or not at all.
    """
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, str(threads))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():  # None in no worker
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _count_cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _run_in_processes(
    function: Callable[..., None], tasks: Sequence[tuple[Any, ...]], processes: int
) -> Generator[None, None, None]:
    others = {process.pid for process in multiprocessing.active_children()}
    # A fork would copy TensorFlow's threads in a state that can hang.
    pool = ProcessPoolExecutor(
        processes,
        multiprocessing.get_context("spawn"),
        initializer=begin_worker,
        initargs=(max(1, _count_cores() // min(processes, len(tasks))),),
    )
    pending: collections.deque[Future[None]] = collections.deque()
    try:
        for task in tasks:
            pending.append(pool.submit(function, *task))
            if len(pending) > 2 * processes:
                pending.popleft().result()
                yield
        while pending:
            pending.popleft().result()
            yield
    except BrokenProcessPool as error:
        raise RecordError(
            "a worker process ended before its task did, often for want of memory: choose fewer "
            "workers. In a script, the call must stand under if __name__ == '__main__':."
        ) from error
    except BaseException:
        # Tasks are done wholly or not at all, so nothing need be waited for.
        for process in multiprocessing.active_children():
            if process.pid not in others:
                process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
