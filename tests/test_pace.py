"""The time that a training is expected to take."""

from __future__ import annotations

import datetime
import math
import re
import time

import pytest

from vae_aug.config import TrainConfig
from vae_aug.train.pace import Pace, describe_pace, format_end

CONFIG = TrainConfig(steps=10, validate_every=4)


def make_pace(*seconds, validation=3.0):
    pace = Pace(CONFIG, validation)
    for step in seconds:
        pace.add_step(step)
    return pace


def test_the_first_steps_which_trace_the_graph_are_not_counted():
    assert math.isnan(make_pace(30.0, 2.0).compute_left(2))
    pace = make_pace(30.0, 2.0, 1.0, 2.0)
    assert pace.step_seconds == 1.5 and not pace.is_known


@pytest.mark.parametrize(
    ("step", "validations"), [(0, 3), (3, 3), (4, 2), (7, 2), (8, 1), (9, 1), (10, 0)]
)
def test_steps_and_validations_that_are_left_are_added_up(step, validations):
    # Validations are at steps 4, 8 and, as the last, 10.
    pace = make_pace(9.0, 9.0, 2.0)
    assert pace.compute_left(step) == (10 - step) * 2.0 + validations * 3.0


def test_an_expectation_needs_five_steps_or_twenty_seconds():
    assert not make_pace(9, 9, 1, 1, 1, 1).is_known and make_pace(9, 9, 1, 1, 1, 1, 1).is_known
    assert make_pace(9, 9, 20).is_known


def test_a_slower_machine_is_followed():
    pace = make_pace(*[1.0] * 102, *[3.0] * 100)
    assert pace.step_seconds == 3.0


def test_the_end_is_said_with_its_day_if_that_is_another():
    now = datetime.datetime(2026, 3, 31, 23, 0)
    assert format_end(1800, now) == "23:30"
    assert format_end(7200, now) == "2026-04-01 01:00"


def test_what_the_time_leaves_out_is_said():
    pace = Pace(CONFIG, 3.0, began=time.perf_counter() - 50)
    for _ in range(8):
        pace.add_step(1.0)
    text = describe_pace(pace, CONFIG, 8)
    assert re.search(r"a validation about 3 s\. Not in it: the 50 s until now, .+ comparison", text)


def test_patience_makes_it_the_latest_end():
    pace = make_pace(9, 9, 60, 60)
    assert describe_pace(pace, CONFIG, 4).startswith("time: 6 min until ")
    patient = TrainConfig(steps=10, validate_every=4, patience=2)
    assert "6 min at most, as patience may run out, until" in describe_pace(pace, patient, 4)
