"""How long a training takes: measured on its own steps, so that the rest can be expected."""

from __future__ import annotations

import collections
import datetime
import time

from vae_aug.config import TrainConfig

_WARM_UP = 2
"""Steps of a process that are not counted: the graph is traced, and the pipeline fills up."""

_ENOUGH_STEPS, _ENOUGH_SECONDS = 5, 20.0
_RECENT = 100
"""Steps over which the time of one is averaged, so that it follows the machine's other work."""


class Pace:
    """Times of the steps and validations of this process, and the time that is left."""

    def __init__(
        self, config: TrainConfig, validation_seconds: float = 0.0, began: float | None = None
    ) -> None:
        """Begin with a guess of a validation's time, until one has been timed.

        Args:
            config: The settings of the run.
            validation_seconds: That guess.
            began: When the run did, by `time.perf_counter`; None for now.
        """
        self.began = time.perf_counter() if began is None else began
        self._config = config
        self._recent: collections.deque[float] = collections.deque(maxlen=_RECENT)
        self._steps = 0
        self.validation_seconds = validation_seconds

    def add_step(self, seconds: float) -> None:
        """Count a step, with the time that its batch was waited for."""
        self._steps += 1
        if self._steps > _WARM_UP:
            self._recent.append(seconds)

    @property
    def step_seconds(self) -> float:
        """Mean time of a recent step; NaN before one was counted."""
        return sum(self._recent) / len(self._recent) if self._recent else float("nan")

    @property
    def is_known(self) -> bool:
        """Whether enough steps were counted to build an expectation on."""
        return len(self._recent) >= _ENOUGH_STEPS or sum(self._recent) >= _ENOUGH_SECONDS

    def compute_left(self, step: int) -> float:
        """Compute the seconds that steps and validations after `step` will take; NaN if unknown."""
        steps = self._config.steps - step
        every = self._config.validate_every
        validations = -(-self._config.steps // every) - step // every if steps > 0 else 0
        return steps * self.step_seconds + validations * self.validation_seconds


def describe_pace(pace: Pace, config: TrainConfig, step: int) -> str:
    """Say when a run is expected to end, and from what that was computed."""
    left = pace.compute_left(step)
    latest = " at most, as patience may run out," if config.patience else ""
    spent = time.perf_counter() - pace.began
    return (
        f"time: {format_duration(left)}{latest} until {format_end(left)}; a step takes "
        f"{pace.step_seconds:.2g} s, a validation about {max(pace.validation_seconds, 1):.0f} s. "
        f"Not in it: the {format_duration(spent)} until now, most of them of the start, and at the "
        "end the comparison with classical filters, for which allow a minute or two"
    )


def format_duration(seconds: float) -> str:
    """Write a time as people say it.

    Example:
        >>> [format_duration(s) for s in (40, 300, 7500, 200_000)]
        ['40 s', '5 min', '2 h 05 min', '2 d 7 h']
    """
    seconds = round(seconds)
    if seconds < 100:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def format_end(seconds: float, now: datetime.datetime | None = None) -> str:
    """Write the time of day that is `seconds` away, with the date if it is another day's."""
    now = now or datetime.datetime.now()
    end = now + datetime.timedelta(seconds=seconds)
    return f"{end:%H:%M}" if end.date() == now.date() else f"{end:%Y-%m-%d %H:%M}"
