from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from vae_aug.json_values import make_json


@dataclasses.dataclass
class Inner:
    path: Path
    share: float


@dataclasses.dataclass
class Outer:
    inner: Inner
    several: tuple[Inner, ...]


@pytest.mark.parametrize("value", [None, True, 0, -3, 2**70, 0.5, "", "a", "ä"])
def test_values_that_json_has_stay(value):
    made = make_json(value)
    assert made == value and type(made) is type(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_numbers_that_json_does_not_have_are_none(value):
    assert make_json(value) is None
    assert make_json([{"a": (value, 1.5)}]) == [{"a": [None, 1.5]}]


def test_dataclasses_are_objects_at_every_depth():
    inner = Inner(Path("a/b"), math.nan)
    made = make_json(Outer(inner, (inner,)))
    assert made == {
        "inner": {"path": "a/b", "share": None},
        "several": [{"path": "a/b", "share": None}],
    }


def test_keys_are_text_and_what_can_be_passed_through_is_a_list():
    made = make_json({1: (2, 3), Path("a"): iter("bc"), None: {4}})
    assert made == {"1": [2, 3], "a": ["b", "c"], "None": [4]}


def test_arrays_are_lists_and_their_numbers_are_written():
    made = make_json({"a": np.array([[0.5, math.inf]])})
    assert json.loads(json.dumps(made, allow_nan=False)) == {"a": [[0.5, None]]}


def test_a_class_is_no_object():
    assert make_json(Inner) == str(Inner)
