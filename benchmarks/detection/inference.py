"""How sure a difference between two arms is, and how many seeds it takes to be sure.

**The number of seeds is fixed beforehand**, by a plan and its power. Runs are added over days, and
whoever tests after each of them and stops at the first p under 0.05 finds a difference in far more
than 5% of comparisons in which there is none. So nothing here may decide when to stop: before the
planned number is reached the primary comparison has an estimate and an interval, but no p and no
verdict, and runs beyond that number do not enter it (`select_planned`).

Differences are `arm - base`, in the metric's own unit; a point is a hundredth of it. Two arms are
paired by seed: arms of one seed share training patients, initial weights and order of images.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from scipy import stats

from vae_aug.words import make_markdown_table

ALPHA = 0.05
"""Intervals hold 95%."""

MARGIN = 0.02
"""A difference of two points of mAP is worth having; below it two arms count as alike."""

_MOST_SEEDS = 1_000_000_000
"""Where a search for a number of seeds ends."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """One metric of one arm on one test.

    Attributes:
        seeds: `[R]`, ascending.
        values: `[R] float64`.
        drawn: `[D, R] float64`, the values with test patients drawn anew, where draw d has the same
            patients in all arms and seeds; None where nobody drew.
        patients: Number of the test's patients.
    """

    seeds: tuple[int, ...]
    values: np.ndarray
    drawn: np.ndarray | None = None
    patients: int = 0

    def select(self, seeds: Sequence[int]) -> Scores:
        """Keep some of the seeds, in their order."""
        places = [self.seeds.index(seed) for seed in seeds]
        drawn = None if self.drawn is None else self.drawn[:, places]
        return Scores(tuple(seeds), self.values[places], drawn, self.patients)


def select_planned(scores: Scores, seeds: int) -> Scores:
    """Keep the planned seeds, numbers 0 to `seeds` - 1, whatever was run beyond them."""
    return scores.select([seed for seed in scores.seeds if seed < seeds])


def estimate(values: Sequence[float] | np.ndarray) -> dict[str, float | None]:
    """Estimate a mean and its 95% interval by Student's t; no interval of a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return {"mean": mean, "low": None, "high": None}
    half = float(stats.sem(values) * stats.t.ppf(1 - ALPHA / 2, len(values) - 1))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def compare(base: Scores, arm: Scores, seed: int = 0) -> dict[str, Any]:
    """Compare two arms by the seeds that both have.

    Args:
        base: What is subtracted.
        arm: What it is subtracted from.
        seed: Of the draws of seeds in the bootstrap.

    Returns:
        `seeds`; the mean difference `mean` with its interval over seeds, `low` and `high`, by
        Student's t; `deviation`, the standard deviation of a difference; `p` of the paired t-test,
        two-sided; `both`, the interval of `resample_both`. What cannot be said is None.

    Raises:
        ValueError: If no seed is common.
    """
    seeds = sorted(set(base.seeds) & set(arm.seeds))
    if not seeds:
        raise ValueError(f"no seed is common to {base.seeds} and {arm.seeds}.")
    first, second = base.select(seeds), arm.select(seeds)
    differences = second.values - first.values
    several = len(seeds) > 1
    p = None
    if several and np.ptp(differences) > 0:
        p = float(stats.ttest_rel(second.values, first.values).pvalue)
    both = None
    if first.drawn is not None and second.drawn is not None:
        both = resample_both(second.drawn - first.drawn, arm.patients, seed)
    return {
        "seeds": seeds,
        **estimate(differences),
        "deviation": float(np.std(differences, ddof=1)) if several else None,
        "p": p,
        "both": both,
    }


def resample_both(drawn: np.ndarray, patients: int, seed: int = 0) -> list[float] | None:
    """Estimate the interval of a mean over seeds that carries over to new trainings and patients.

    Seeds are drawn with replacement beside the patients. A draw has the same patients in all of its
    seeds: seeds share their test patients, and drawn anew in each seed the patients' luck would
    average out, which it does not. The percentiles are widened for small samples (Hesterberg, What
    Teachers Should Know About the Bootstrap, 2015): a bootstrap of n values is too narrow by
    sqrt((n - 1) / n), and by the normal distribution in place of Student's t; n is the number of
    seeds or of patients, whichever is smaller. In simulations of 5 to 40 seeds and 10 to 60
    patients it holds the truth in 95 to 99% of cases, so it is rather too wide than too narrow.

    Args:
        drawn: `[D, R]`, a difference for each draw of patients and each seed.
        patients: Number of patients.
        seed: Of the draws of seeds.

    Returns:
        Its two ends; None with a single seed or patient.
    """
    draws, count = drawn.shape
    if min(count, patients) < 2:
        return None
    chosen = np.random.default_rng(seed).integers(0, count, (draws, count))
    means = np.take_along_axis(drawn, chosen, axis=1).mean(1)
    n = min(count, patients)
    level = stats.norm.cdf(-math.sqrt(n / (n - 1)) * stats.t.ppf(1 - ALPHA / 2, n - 1))
    return np.nanquantile(means, [level, 1 - level]).tolist()


@dataclasses.dataclass(frozen=True)
class MixedModel:
    """Value = arm (fixed) + seed (random) + residual, fitted to all arms of one test by REML.

    Every seed has a run of each arm, so REML has a closed form: a difference of arms is that of
    their means, and its test is that of the two-way analysis of variance with the residual
    variance of all arms and (arms - 1)(seeds - 1) degrees of freedom. (Where REML would put the
    variance of seeds at its bound of 0, the test here stays that one, which holds in any case.)
    Beside the paired t-test it has more degrees of freedom, and supposes that all differences
    between arms scatter alike.

    Attributes:
        seeds: Those of which every arm has a run; others are left out.
        left_out: Number of runs left out, for each arm that has some.
        means: Of each arm.
        residual: Standard deviation of the residual.
        between: Standard deviation of seeds.
        degrees: Degrees of freedom of the residual.
    """

    seeds: tuple[int, ...]
    left_out: Mapping[str, int]
    means: Mapping[str, float]
    residual: float
    between: float
    degrees: int

    @classmethod
    def fit(cls, arms: Mapping[str, Scores]) -> MixedModel | None:
        """Fit the model; None where there are not two arms and two common seeds."""
        if len(arms) < 2:
            return None
        common = sorted(set.intersection(*(set(scores.seeds) for scores in arms.values())))
        if len(common) < 2:
            return None
        table = np.stack([scores.select(common).values for scores in arms.values()])
        means, seed_means = table.mean(1), table.mean(0)
        rest = table - means[:, None] - seed_means + table.mean()
        degrees = (len(arms) - 1) * (len(common) - 1)
        variance = float((rest**2).sum() / degrees)
        between = max(float(np.var(seed_means, ddof=1)) - variance / len(arms), 0.0)
        left_out = {name: len(scores.seeds) - len(common) for name, scores in arms.items()}
        return cls(
            seeds=tuple(common),
            left_out={name: count for name, count in left_out.items() if count},
            means=dict(zip(arms, means.tolist(), strict=True)),
            residual=math.sqrt(variance),
            between=math.sqrt(between),
            degrees=degrees,
        )

    def compare(self, base: str, arm: str) -> dict[str, float | None]:
        """Estimate `arm - base`, with its interval and the p of its test."""
        mean = self.means[arm] - self.means[base]
        error = self.residual * math.sqrt(2 / len(self.seeds))
        half = error * float(stats.t.ppf(1 - ALPHA / 2, self.degrees))
        p = 2 * float(stats.t.sf(abs(mean) / error, self.degrees)) if error else None
        return {"mean": mean, "low": mean - half, "high": mean + half, "p": p}


def adjust_holm(values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p of several comparisons by Holm's method; None, an unknown p, counts as one.

    Reference:
        Holm, A Simple Sequentially Rejective Multiple Test Procedure (1979).
    """
    known = [1.0 if value is None else value for value in values]
    adjusted, highest = [1.0] * len(known), 0.0
    for rank, place in enumerate(np.argsort(known, kind="stable")):
        highest = max(highest, min(1.0, (len(known) - rank) * known[place]))
        adjusted[place] = highest
    return [None if p is None else new for p, new in zip(values, adjusted, strict=True)]


def compute_power(sd: float, seeds: int, effect: float, alpha: float = ALPHA) -> float:
    """Compute the power of a two-sided paired t-test, by the noncentral t distribution.

    Args:
        sd: Standard deviation of a paired difference, in the unit of `effect`.
        seeds: Number of pairs, at least 2.
        effect: True mean difference.
        alpha: Level of the test.

    Returns:
        In [0, 1].
    """
    if not sd > 0 or seeds < 2:
        raise ValueError(f"sd must be over 0 and seeds 2 or more; got {sd} and {seeds}.")
    bound = stats.t.ppf(1 - alpha / 2, seeds - 1)
    shift = abs(effect) / sd * math.sqrt(seeds)
    # The other tail holds next to nothing, and SciPy has no value for it where `shift` is large.
    other = stats.nct.cdf(-bound, seeds - 1, shift) if shift < 5 else 0.0
    return float(stats.nct.sf(bound, seeds - 1, shift) + other)


def seeds_needed(
    sd: float, effect: float = MARGIN, power: float = 0.8, alpha: float = ALPHA
) -> int:
    """Count the seeds with which a paired t-test finds an effect with some power, 2 at the least.

    Example:
        >>> seeds_needed(0.038, effect=0.03), seeds_needed(0.064, effect=0.03)
        (15, 38)
    """
    if not effect > 0:
        raise ValueError(f"effect must be over 0; got {effect}.")
    counts = range(2, _MOST_SEEDS)
    place = bisect.bisect_left(counts, power, key=lambda n: compute_power(sd, n, effect, alpha))
    return place + 2


def detectable(sd: float, seeds: int, power: float = 0.8, alpha: float = ALPHA) -> float:
    """Compute the smallest true difference that so many seeds find with some power."""
    low, high = 0.0, sd
    while compute_power(sd, seeds, high, alpha) < power:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        if compute_power(sd, seeds, middle, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def bound_deviation(sd: float, seeds: int) -> tuple[float, float]:
    """Compute the 95% interval of a standard deviation that was measured on so many pairs."""
    degrees = seeds - 1
    low, high = stats.chi2.ppf([1 - ALPHA / 2, ALPHA / 2], degrees)
    return sd * math.sqrt(degrees / low), sd * math.sqrt(degrees / high)


def power_table(
    sd: float,
    effects: Sequence[float] = (0.01, 0.02, 0.03, 0.05),
    seeds: Sequence[int] = (5, 10, 15, 20, 30, 40),
) -> dict[str, Any]:
    """Tabulate seeds by effect, and effects by number of seeds, at a power of 80%.

    Args:
        sd: Standard deviation of a paired difference.
        effects: True differences.
        seeds: Numbers of seeds.

    Returns:
        `needed`: seeds for each effect; `detectable`: effect for each number of seeds.
    """
    return {
        "deviation": sd,
        "needed": {effect: seeds_needed(sd, effect) for effect in effects},
        "detectable": {count: detectable(sd, count) for count in seeds},
    }


def format_power(sd: float) -> str:
    """Write the table of a deviation in Markdown, in points."""
    table = power_table(sd)
    lines = [
        f"Standard deviation of a paired difference: {100 * sd:.1f} points; power 80%, "
        f"two-sided p < {ALPHA:g}.",
        "",
        make_markdown_table(
            ("true difference, points", "seeds needed"),
            ((f"{100 * effect:g}", count) for effect, count in table["needed"].items()),
        ),
        "",
        make_markdown_table(
            ("seeds", "smallest difference that is found, points"),
            ((count, f"{100 * effect:.1f}") for count, effect in table["detectable"].items()),
        ),
    ]
    return "\n".join(lines) + "\n"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a comparison says.

    Attributes:
        kind: `"alike"`: no difference larger than the margin; `"unknown"`: none of the others.
        text: The same in words, with what is to be done.
        more: Number of further seeds that would tell, if it is known.
    """

    kind: Literal["helps", "harms", "alike", "unknown"]
    text: str
    more: int | None = None


def decide(
    comparison: Mapping[str, Any],
    margin: float = MARGIN,
    *,
    adjusted: float | None = None,
    tests: int = 1,
) -> Verdict:
    """Say by rule what a comparison shows.

    It helps or harms if p, adjusted for the other comparisons, is under 0.05; there is no
    difference larger than the margin if the interval over seeds lies within it; else it is not
    known. The words say so where the interval over seeds and patients does not agree.

    Args:
        comparison: Of `compare`.
        margin: Differences up to it do not matter.
        adjusted: p by `adjust_holm`; None for the primary comparison, whose own p counts.
        tests: Number of comparisons that it was adjusted for.

    Returns:
        The verdict.
    """
    mean, low, high = (comparison[key] for key in ("mean", "low", "high"))
    if low is None:
        return Verdict("unknown", "not known; two seeds are the least that can tell")
    other = "; for other patients that is not known"
    both = comparison["both"] or [-math.inf, math.inf]
    p = comparison["p"] if adjusted is None else adjusted
    if p is not None and p < ALPHA:
        kind = "helps" if mean > 0 else "harms"
        small = f", by less than {100 * margin:g} points" if max(-low, high) < margin else ""
        return Verdict(kind, kind + small + (other if both[0] <= 0 <= both[1] else ""))
    if -margin < low and high < margin:
        holds = -margin < both[0] and both[1] < margin
        text = f"no difference larger than {100 * margin:g} points"
        return Verdict("alike", text + ("" if holds else other))
    more = _count_further_seeds(comparison, margin, tests)
    noun = "seed" if more == 1 else "seeds"
    corrected = f" after correction for {tests} comparisons" if low > 0 or high < 0 else ""
    return Verdict("unknown", f"not known{corrected}; {more:,} more {noun} would tell", more)


def _count_further_seeds(comparison: Mapping[str, Any], margin: float, tests: int) -> int:
    """Count the seeds until 0 or the margin is outside of the interval.

    Mean and deviation are taken to stay as they are. The test of a difference is at the level of
    Bonferroni, which is the first step of Holm's.
    """
    mean, deviation, count = abs(comparison["mean"]), comparison["deviation"], comparison["seeds"]

    def tells(seeds: int) -> bool:
        error = deviation / math.sqrt(seeds)
        strict, plain = (stats.t.ppf(1 - ALPHA / 2 / n, seeds - 1) * error for n in (tests, 1))
        return strict < mean or plain < margin - mean

    further = range(len(count) + 1, _MOST_SEEDS)
    return bisect.bisect_left(further, True, key=tells) + 1
