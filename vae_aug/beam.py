"""Work in parallel on a runner of Apache Beam, for data sets that outgrow one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vae_aug.errors import MissingPackageError, RecordError, VAEAugError

try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
except ModuleNotFoundError as error:
    raise MissingPackageError(
        "A runner needs the PyPI package apache-beam, which is not installed. "
        "Run: pip install 'vae-aug[beam]', or take workers= (--workers) in its place."
    ) from error


def run_on_beam(
    function: Callable[..., None],
    tasks: Sequence[tuple[Any, ...]],
    runner: str,
    options: Mapping[str, str],
) -> None:
    """Call a function once or more often for each task, in any order, and wait.

    Args:
        function: Has the same effect when a runner calls it again for the same task.
        tasks: Arguments of each call; functions and arguments travel pickled.
        runner: Name as Beam knows it, e.g. `"DirectRunner"` or `"FlinkRunner"`.
        options: Names and values as `PipelineOptions` takes them.

    Raises:
        ValueError: If Beam refuses an option, or has no runner of that name.
        RecordError: If the runner fails.
    """
    pipeline = _make_pipeline(runner, options)
    try:
        with pipeline:
            _ = pipeline | beam.Create(tasks) | beam.Reshuffle() | beam.MapTuple(function)
    except Exception as error:
        # A message of the runner may quote a task, and with it a patient; ours do not.
        if isinstance(error, VAEAugError):
            said = str(error).partition(" [while running")[0]
            raise RecordError(f"the Beam runner {runner!r} failed: {said}") from error
        raise RecordError(
            f"the Beam runner {runner!r} failed ({type(error).__name__}); its own log says why. "
            "Run it again when that is mended."
        ) from error


def generate_on_beam(
    function: Callable[..., Iterable[Any]], tasks: Sequence[tuple[Any, ...]]
) -> beam.PTransform:
    """Make a transform of a pipeline that yields what a function yields for each task.

    Args:
        function: Yields the same when a runner calls it again for the same task.
        tasks: Arguments of each call; functions and arguments travel pickled.

    Returns:
        A transform that takes no collection.
    """
    return beam.Create(tasks) | beam.Reshuffle() | beam.FlatMapTuple(function)


def _make_pipeline(runner: str, options: Mapping[str, str]) -> beam.Pipeline:
    try:
        settings = PipelineOptions.from_dictionary({**options, "runner": runner})
        settings.get_all_options()
        return beam.Pipeline(options=settings)
    except SystemExit as error:
        # Beam reads options as those of a command, and prints what is wrong with them.
        raise ValueError(f"Beam refuses the runner options {dict(options)}, as it says.") from error
