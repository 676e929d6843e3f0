"""From distances to a verdict: how many samples lie too near, and what chance makes of that.

Reference:
    Gumbel and von Schelling, The Distribution of the Number of Exceedances, Annals of Mathematical
    Statistics 21 (1950) 247-262, for the chance of as many suspects.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from vae_aug.evaluate.neighbours import Neighbours

IDENTICAL = 0.1
"""Share of the threshold below which one sample alone is a sign: no image of others is so near."""

LEVEL = 0.05
"""Chance of a false sign in a whole audit of a network that copies nothing."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How near one kind of samples lies to the training images, in one measure.

    Attributes:
        way: How samples were made: `"prior"`, `"variants"`, `"interpolated"` or `"control"`.
        measure: One of `MEASURES`.
        samples: Number of samples.
        held_out: Number of held-out images.
        rank: Rank, from 1, of the held-out image whose distance is the threshold.
        threshold: Distance below which a sample is a suspected copy.
        expected_share: Share of samples below it if they are as held-out images are.
        suspects: Samples below it.
        share_low: Lower end of the 95% interval of their share (Wilson).
        share_high: Upper end.
        p_value: Chance of as many suspects, or more, if samples are as held-out images are.
        identical: Samples nearer than `IDENTICAL` of the threshold.
        median_distance: Of samples to the nearest training image.
        held_out_median_distance: Of held-out images to the nearest training image.
        median_ratio: Distance to the nearest by that to the second nearest; near 0 for a copy
            whose original is in the training set once.
        held_out_median_ratio: The same of held-out images.
        low_ratios: Samples whose ratio is below that of all but `expected_share` of held-out
            images.
    """

    way: str
    measure: str
    samples: int
    held_out: int
    rank: int
    threshold: float
    expected_share: float
    suspects: int
    share_low: float
    share_high: float
    p_value: float
    identical: int
    median_distance: float
    held_out_median_distance: float
    median_ratio: float
    held_out_median_ratio: float
    low_ratios: int


def compare(
    way: str, measure: str, found: Neighbours, held_out: Neighbours, quantile: float
) -> Comparison:
    """Count the samples that are nearer to training images than held-out images are.

    With the threshold at the distance of rank k among n held-out images, the number of m samples
    below it is beta-binomial of m, k and n + 1 - k, if samples are as held-out images are.

    Args:
        way: How the samples were made.
        measure: Of the distances.
        found: Neighbours of the samples among the training images.
        held_out: Neighbours of held-out images among the training images.
        quantile: Share of held-out images below the threshold, in (0, 0.5].

    Returns:
        The comparison.
    """
    count, others = len(found.distances), len(held_out.distances)
    # The tolerance keeps 0.01 * 100 from falling below 1.
    rank = max(math.floor(quantile * (others + 1) + 1e-9), 1)
    threshold = float(np.sort(held_out.distances[:, 0])[rank - 1])
    suspects = int(np.sum(found.distances[:, 0] < threshold))
    interval = stats.binomtest(suspects, count).proportion_ci(method="wilson")
    return Comparison(
        way=way,
        measure=measure,
        samples=count,
        held_out=others,
        rank=rank,
        threshold=threshold,
        expected_share=rank / (others + 1),
        suspects=suspects,
        share_low=float(interval.low),
        share_high=float(interval.high),
        p_value=_compute_chance(suspects, count, rank, others),
        identical=int(np.sum(found.distances[:, 0] < IDENTICAL * threshold)),
        median_distance=float(np.median(found.distances[:, 0])),
        held_out_median_distance=float(np.median(held_out.distances[:, 0])),
        median_ratio=float(np.median(found.ratios)),
        held_out_median_ratio=float(np.median(held_out.ratios)),
        low_ratios=int(np.sum(found.ratios < np.sort(held_out.ratios)[rank - 1])),
    )


def judge(
    comparisons: Sequence[Comparison], controls: Sequence[Comparison]
) -> tuple[bool | None, str]:
    """Say in a sentence whether there are signs of memorisation.

    A comparison is a sign if a sample is as good as identical to a training image, or if its
    `p_value` is below `LEVEL`, divided by the number of comparisons.

    Args:
        comparisons: At least one.
        controls: The same of samples that should be a sign.

    Returns:
        True, False, or None if not even copies alone could have been told from chance; and the
        sentence.
    """
    level = LEVEL / len(comparisons)
    signs, seen = (
        [c for c in rows if c.identical or c.p_value < level] for rows in (comparisons, controls)
    )
    if signs:
        worst = min(signs, key=lambda c: (c.p_value, -c.identical))
        identical = f", {worst.identical} as good as identical to it" if worst.identical else ""
        return True, (
            f"Signs of memorisation: {worst.suspects} of {worst.samples} samples "
            f"({worst.way}, {worst.measure}) lie nearer to a training image than the nearest "
            f"{worst.expected_share:.1%} of held-out images do{identical}; "
            f"{len(signs)} of {len(comparisons)} comparisons show signs."
        )
    if all(_compute_best_chance(c) >= level for c in comparisons):
        return None, (
            "Too few images to tell: even if every sample were a near copy of a training image, "
            "chance could explain it. Take more held-out images and more samples."
        )
    most = max(comparisons, key=lambda c: c.suspects / c.samples)
    figures = (
        f"at most {most.suspects} of {most.samples} samples lie nearer to a training image than "
        f"the nearest {most.expected_share:.1%} of held-out images do, no more than chance explains"
    )
    if seen:
        return False, f"No sign of memorisation: {figures}."
    return False, (
        f"No sign of memorisation, by a weak test: {figures}; but not even variants of training "
        "images do, so what this network puts out is too coarse to be told for anybody's image."
    )


def _compute_chance(suspects: int, samples: int, rank: int, others: int) -> float:
    """Compute the chance of as many suspects, or more; see `compare`."""
    return float(stats.betabinom.sf(suspects - 1, samples, rank, others + 1 - rank))


def _compute_best_chance(comparison: Comparison) -> float:
    """Compute the smallest `p_value` that a comparison can have: that of copies alone."""
    count = comparison.samples
    return _compute_chance(count, count, comparison.rank, comparison.held_out)
