"""Counts and chances worked by hand, and what is said of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vae_aug.evaluate.neighbours import Neighbours
from vae_aug.evaluate.verdict import compare, judge


def make_neighbours(distances, ratio=0.5):
    distances = np.asarray(distances, float)
    both = np.stack([distances, distances / ratio], axis=1)
    return Neighbours(np.zeros(both.shape, int), both, np.zeros(len(both), int))


def test_chances_by_hand():
    # One rank among 3 held-out images: the smallest of all 5 distances is a sample's with chance
    # 2 / 5, and both samples lie below all 3 in 2! 3! of 5! orders.
    for distances, suspects, chance in (([2, 3], 0, 1), ([1, 3], 1, 2 / 5), ([1, 1.5], 2, 1 / 10)):
        row = compare(
            "prior", "pixels", make_neighbours(distances), make_neighbours([4, 2, 3]), 0.01
        )
        assert (row.samples, row.held_out, row.rank) == (2, 3, 1)
        assert (row.threshold, row.expected_share) == (2.0, 0.25)
        assert row.suspects == suspects
        assert row.p_value == pytest.approx(chance)


def test_threshold_is_the_quantile_of_many():
    held_out = make_neighbours(np.arange(1, 200))
    for quantile, rank in ((0.01, 2), (0.05, 10), (0.001, 1), (0.5, 100)):
        row = compare("prior", "pixels", make_neighbours([1.5] * 4), held_out, quantile)
        assert row.threshold == rank
        assert row.expected_share == pytest.approx(rank / 200)


def test_interval_is_that_of_wilson():
    row = compare(
        "prior", "pixels", make_neighbours([1] * 3 + [9] * 7), make_neighbours([5.0] * 9), 0.1
    )
    # (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    z, n, p = 1.959964, 10, 0.3
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    ends = [(p + z**2 / (2 * n) + sign * half) / (1 + z**2 / n) for sign in (-1, 1)]
    assert [row.share_low, row.share_high] == pytest.approx(ends)
    assert row.suspects == 3 and row.identical == 0
    assert row.median_distance == 9.0 and row.held_out_median_distance == 5.0


def test_low_ratios_are_counted():
    found = make_neighbours([9.0] * 4, ratio=0.1)
    row = compare("prior", "pixels", found, make_neighbours([5.0] * 9, ratio=0.8), 0.1)
    assert row.low_ratios == 4 and row.suspects == 0
    assert row.median_ratio == pytest.approx(0.1)
    assert row.held_out_median_ratio == pytest.approx(0.8)


def test_verdicts():
    many = make_neighbours(np.linspace(1, 2, 99))
    for found, held_out, signs, words in (
        (make_neighbours([0.9] * 20 + [3] * 20), many, True, "Signs of memorisation: 20 of 40"),
        (make_neighbours([0.01] + [3] * 39), many, True, "1 as good as identical"),
        (make_neighbours([3] * 40), many, False, "No sign of memorisation"),
        (make_neighbours([0.9] * 2), make_neighbours([1, 2, 3]), None, "Too few images to tell"),
    ):
        row = compare("prior", "pixels", found, held_out, 0.01)
        copies = compare("control", "pixels", make_neighbours([0.9] * 40), held_out, 0.01)
        found_signs, verdict = judge([row], [copies])
        assert found_signs is signs
        assert words in verdict


def test_a_control_that_is_not_suspect_makes_a_weak_test():
    held_out, far = make_neighbours(np.linspace(1, 2, 99)), make_neighbours([3] * 40)
    row, control = (compare(way, "pixels", far, held_out, 0.01) for way in ("prior", "control"))
    signs, verdict = judge([row], [control])
    assert signs is False and "weak test" in verdict


def test_more_comparisons_ask_for_more():
    # 2 of 2 below all of 9: 2! 9! / 11! = 1 / 55, a sign alone but not among three.
    row = compare(
        "prior", "pixels", make_neighbours([0.9] * 2), make_neighbours(range(1, 10)), 0.01
    )
    assert row.p_value == pytest.approx(1 / 55)
    assert judge([row], [])[0] is True
    assert judge([row] * 3, [])[0] is None
