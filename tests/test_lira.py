"""The attack on scores of which it is known what they tell."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vae_aug.evaluate import lira
from vae_aug.evaluate.lira import (
    attack_all,
    attack_one,
    calibrate,
    compute_auc,
    compute_found,
    compute_own_ratios,
    compute_power,
    compute_ratios,
    draw_halves,
    estimate,
    find_interval,
)

NETWORKS, PATIENTS = 12, 40


@pytest.fixture(autouse=True)
def fewer(monkeypatch):
    monkeypatch.setattr(lira, "RESAMPLES", 40)
    monkeypatch.setattr(lira, "SHUFFLES", 100)
    monkeypatch.setattr(lira, "TRIALS", 30)


def make_scores(shift, seed=0):
    """Scores of patients and networks that differ by themselves; members' are raised by `shift`."""
    rng = np.random.default_rng(seed)
    members = draw_halves(NETWORKS, PATIENTS, rng)
    scores = rng.normal(size=members.shape) + shift * members
    scores += 5 * rng.normal(size=PATIENTS) + 3 * rng.normal(size=(NETWORKS, 1))
    return calibrate(scores, scores), members


@given(st.integers(1, 8), st.integers(2, 31), st.integers(0, 99))
def test_pairs_are_trained_on_complementary_halves(pairs, patients, seed):
    members = draw_halves(2 * pairs, patients, np.random.default_rng(seed))
    assert np.array_equal(members[1::2], ~members[::2])
    assert np.all(members[::2].sum(axis=1) == patients // 2)
    assert np.all(members.sum(axis=0) == pairs)


def test_a_networks_quality_is_taken_off():
    rng = np.random.default_rng(0)
    quality, slopes = rng.normal(size=(NETWORKS, 1)), rng.uniform(0.5, 1.5, size=PATIENTS)
    slopes /= np.median(slopes)
    levels = np.full(PATIENTS, 3.0)
    scores = levels + quality * slopes
    np.testing.assert_allclose(calibrate(scores, scores), 0.0, atol=1e-9)
    # Of a network that is far better, too, and what a patient has beyond it stays.
    better = levels + 20 * slopes + np.where(np.arange(PATIENTS) == 4, 0.5, 0.0)
    left = calibrate(better, scores)
    assert left[4] == pytest.approx(0.5) and np.abs(np.delete(left, 4)).max() < 1e-9
    alike = np.tile(levels, (NETWORKS, 1))
    np.testing.assert_allclose(calibrate(alike, alike), 0.0)


def test_areas_and_shares_by_hand():
    members = np.array([1, 0, 1, 0, 0], bool)
    ratios = np.array([3.0, 1.0, 2.0, 2.0, 0.0])
    assert compute_auc(ratios, members) == pytest.approx((3 + 2 + 0.5) / 6)
    assert compute_auc(-ratios, members) == pytest.approx(0.5 / 6)
    # Pairs of one network count, 5.5 of 6 and 0 of 4, whatever the level of the other.
    both = np.stack([ratios, [10, 10, 11, 12, 13]])
    halves = np.stack([members, [True, True, False, False, False]])
    assert compute_auc(both, halves) == pytest.approx((5.5 + 0) / (6 + 6))
    # Of 20 others two may be above the threshold.
    others = np.arange(20.0)
    members = np.arange(24) >= 20
    assert compute_found(np.concatenate([others, [16, 17, 17.5, 30]]), members) == 0.5


def test_intervals_are_those_of_scipy():
    for hits in (0, 3, 20):
        expected = stats.binomtest(hits, 20).proportion_ci(method="exact")
        assert find_interval(hits / 20, 20) == pytest.approx((expected.low, expected.high))


def test_a_reference_is_the_difference_of_means():
    members = draw_halves(NETWORKS, PATIENTS, np.random.default_rng(0))
    levels = np.linspace(-1, 1, PATIENTS)
    shifts = np.linspace(0.5, 1.5, PATIENTS)
    reference = estimate(levels + shifts * members, members)
    # Nothing is left to chance, so nothing is shrunk. The least shift is above 0 by far.
    np.testing.assert_allclose(reference.shifts, shifts)
    np.testing.assert_allclose(reference.centres, levels + shifts / 2)
    noisy = estimate(*make_scores(1.0))
    assert noisy.variance == pytest.approx(1.0, abs=0.2)
    assert noisy.shifts.mean() == pytest.approx(1.0, abs=0.35) and noisy.shifts.std() < 0.3


def test_an_attack_knows_its_direction_where_a_recipe_leaks_nothing():
    for seed in range(5):
        reference = estimate(*make_scores(0.0, seed))
        assert np.all(reference.shifts > 0)
        assert reference.shifts.max() < 3 * reference.shifts.min()


def test_ratios_are_those_of_two_gaussians():
    reference = lira.Reference(np.array([0.0, 2.0]), np.array([1.0, -0.5]), 0.3)
    scores = np.array([[0.2, 1.0], [-1.0, 3.0]])
    inside = stats.norm.logpdf(scores, reference.centres + reference.shifts / 2, math.sqrt(0.3))
    outside = stats.norm.logpdf(scores, reference.centres - reference.shifts / 2, math.sqrt(0.3))
    np.testing.assert_allclose(compute_ratios(scores, reference), inside - outside)


def test_a_network_is_attacked_without_its_pair():
    scores, members = make_scores(0.5)
    ratios = compute_own_ratios(scores, members)
    swapped = members.copy()
    swapped[:2] = ~members[:2]
    np.testing.assert_array_equal(compute_own_ratios(scores, swapped)[:2], ratios[:2])
    rest = estimate(scores[2:], members[2:])
    np.testing.assert_allclose(ratios[:2], compute_ratios(scores[:2], rest))


def test_a_leak_is_found_and_none_is_not():
    leak = attack_all("elbo", "networks", *make_scores(1.0), seed=1)
    # Of two Gaussians one standard deviation apart, AUC is 0.76; the reference is not exact.
    assert 0.68 < leak.auc < 0.78 and leak.auc_low < leak.auc < leak.auc_high
    assert leak.p_value < 0.01 and leak.auc_low > 0.5
    assert leak.found_low < leak.found < leak.found_high and leak.found > 0.2
    none = attack_all("elbo", "networks", *make_scores(0.0), seed=1)
    assert none.p_value > 0.05 and none.auc_low < 0.5 < none.auc_high
    assert (none.members, none.others) == (PATIENTS, PATIENTS)


def test_without_a_leak_chances_are_uniform(monkeypatch):
    monkeypatch.setattr(lira, "RESAMPLES", 1)
    monkeypatch.setattr(lira, "SHUFFLES", 50)
    p_values = [
        attack_all("elbo", "x", *make_scores(0.0, seed), seed).p_value for seed in range(20)
    ]
    assert stats.kstest(p_values, "uniform").pvalue > 0.001


def test_one_network_is_attacked_among_those_who_count():
    ratios = np.array([5.0, 4.0, 3.0, 2.0, 1.0, 0.0, -1.0, 9.0])
    members = np.array([1, 1, 1, 0, 0, 0, 0, 0], bool)
    attack = attack_one("elbo", "x", ratios, members, np.arange(8) < 7)
    assert dataclasses.astuple(attack)[:5] == ("elbo", "x", 3, 4, 1.0)
    assert attack.found == 1.0 and attack.p_value == pytest.approx(1 / 35)
    assert attack_one("elbo", "x", ratios, members, ratios > -9).auc == pytest.approx(12 / 15)


def test_power_says_which_leak_is_found():
    scores, members = make_scores(0.0)
    power = compute_power(scores, members, seed=1)
    assert 0.5 < power.threshold < power.auc < 0.7 and 0.45 < power.shuffled_auc < 0.55
    assert 0.1 < power.shift < 0.6
    found = [
        attack_all("x", "x", *make_scores(2 * power.shift, s), s).p_value < 0.05 for s in range(5)
    ]
    assert sum(found) >= 4
    # A leak that is there is taken off first, and hides no other.
    assert compute_power(*make_scores(1.0), seed=1).auc < 0.7


def test_a_perfect_attack_on_few_has_a_wide_interval():
    members = np.array([True] * 3 + [False] * 3)
    attack = attack_one("elbo", "x", members * 1.0, members, np.ones(6, bool))
    assert (attack.auc, attack.auc_high) == (1.0, 1.0)
    assert attack.auc_low == pytest.approx(0.025 ** (1 / 3))
