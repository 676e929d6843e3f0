"""Likelihood ratios of membership: whether a network's scores tell whom it was trained on.

Networks come in pairs, and the two of a pair are trained on complementary halves of the patients.
So of any pair exactly one has seen a patient, and without a pair a patient is left with as many
networks that have seen it ("in") as have not ("out"), whichever half it was in. If only the
attacked network were left out, members would be left with one "in" fewer than others, and the
attack of a network that leaks nothing would come out below chance.

Scores are `[networks, patients] float64`, higher for what a network knows better, and members
`[networks, patients] bool`.

Reference:
    Carlini et al., Membership Inference Attacks From First Principles, IEEE Symposium on Security
    and Privacy (2022), section IV; a variance that is pooled where networks are few: section VI-C.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.05
"""Chance of a false alarm of one attack on a network that leaks nothing."""

FALSE_POSITIVES = 0.1
"""Share of others that may be taken for members where the true positives are counted."""

POWER = 0.8
"""Chance with which the smallest leak is found that a report says could not have been missed."""

RESAMPLES = 500
"""Resamples of patients behind an interval."""

SHUFFLES = 500
"""Draws of halves behind a chance."""

TRIALS = 200
"""Simulations of a leak behind a power."""

_SHIFTS = np.linspace(0.0, 3.0, 61)
"""Shifts of members' scores in standard deviations, of which the least that is found is told."""


class Reference(NamedTuple):
    """What networks of which the members are known say of each patient's scores.

    Attributes:
        centres: `[P]`, midway between the means of networks with and without the patient.
        shifts: `[P]`, by how much the first mean lies above the second, above 0.
        variance: Of the scores of one patient around their mean, pooled over the patients.
    """

    centres: np.ndarray
    shifts: np.ndarray
    variance: float


@dataclasses.dataclass(frozen=True)
class Attack:
    """How well members are told from others.

    Attributes:
        score: What of the networks was looked at.
        target: What was attacked.
        members: Patients that it was trained on; of several networks, those of any.
        others: Patients that it was not trained on, likewise.
        auc: Chance that a member is ranked above another patient; 0.5 if nothing leaks.
        auc_low: Lower end of its 95% interval.
        auc_high: Upper end.
        found: Share of members that are found while `FALSE_POSITIVES` of the others are taken for
            members.
        found_low: Lower end of its 95% interval (Clopper and Pearson).
        found_high: Upper end.
        p_value: Chance of such an AUC, or a higher one, if nothing leaks.
    """

    score: str
    target: str
    members: int
    others: int
    auc: float
    auc_low: float
    auc_high: float
    found: float
    found_low: float
    found_high: float
    p_value: float


@dataclasses.dataclass(frozen=True)
class Power:
    """What an attack on all networks could have missed.

    Attributes:
        auc: Mean AUC of the smallest leak that is found with a chance of `POWER`; NaN if none is.
        found: Mean share of members found of that leak, as `Attack.found`.
        shift: By how much it raises the scores of members, in standard deviations of one patient's
            scores between networks.
        threshold: AUC above which an attack is a sign: quantile 1 - `level` of attacks with
            halves that were drawn anew, as if nothing leaked.
        shuffled_auc: Mean AUC of those.
    """

    auc: float
    found: float
    shift: float
    threshold: float
    shuffled_auc: float


def draw_halves(networks: int, patients: int, rng: np.random.Generator) -> np.ndarray:
    """Draw whom each network is trained on: complementary halves for each pair.

    Args:
        networks: Even number of networks.
        patients: Number of patients; of an odd number one half has one more.
        rng: Where the choice comes from.

    Returns:
        `[networks, patients] bool`.
    """
    members = np.zeros((networks, patients), bool)
    for first in range(0, networks, 2):
        members[first, rng.permutation(patients)[: patients // 2]] = True
        members[first + 1] = ~members[first]
    return members


def calibrate(scores: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Take from scores what is the patient's and what is the network's, whoever was trained on.

    A network that is better at all scores every patient higher, hard patients by more than easy
    ones. So each patient's scores are taken to be linear in the network's median over patients, and
    what is left counts. Nobody's membership is used for it.

    Args:
        scores: `[..., P]`, of networks that are attacked.
        references: `[N, P]`, by which patients are known.

    Returns:
        `[..., P]`.
    """
    quality = np.median(references, axis=1)
    spread = quality - quality.mean()
    slopes = spread @ references / max(float(spread @ spread), np.finfo(np.float64).tiny)
    own = np.median(scores, axis=-1, keepdims=True) - quality.mean()
    return scores - references.mean(axis=0) - own * slopes


def estimate(scores: np.ndarray, members: np.ndarray) -> Reference:
    """Estimate how each patient's scores differ between networks with it and without it.

    Few networks say little of a single patient. So the variance is pooled over patients, as the
    reference does, and besides a patient's shift is shrunk towards the mean of all patients', as
    far as chance may explain that they differ (by two standard errors of their variance).

    Training raises the scores of what it sees. So no shift is taken to be below the standard error
    of their mean, and where a recipe leaks next to nothing, the attack goes by how far a score lies
    above the patient's others. Else chance would choose its direction, and it would overlook even a
    network that was trained in another way and leaks all.

    Args:
        scores: `[N, P]`, calibrated.
        members: `[N, P]`; of each patient at least 2 networks with it and 2 without it.

    Returns:
        The estimate.
    """
    count_in, count_out = members.sum(axis=0), (~members).sum(axis=0)
    mean_in = (scores * members).sum(axis=0) / count_in
    mean_out = (scores * ~members).sum(axis=0) / count_out
    residuals = scores - np.where(members, mean_in, mean_out)
    variance = float((residuals**2).sum() / (residuals.size - 2 * residuals.shape[1]))
    variance = max(variance, np.finfo(np.float64).tiny)
    shifts = mean_in - mean_out
    chance = variance * (1 / count_in + 1 / count_out)
    patients = scores.shape[1]
    surely = 1.0 + 2.0 * math.sqrt(2.0 / (patients - 1))
    spread = max(float(shifts.var(ddof=1) - surely * chance.mean()), 0.0)
    mean = shifts.mean()
    shrunk = mean + spread / (spread + chance) * (shifts - mean)
    least = math.sqrt(chance.mean() / patients)
    return Reference((mean_in + mean_out) / 2, np.maximum(shrunk, least), variance)


def compute_ratios(scores: np.ndarray, reference: Reference) -> np.ndarray:
    """Compute log likelihood ratios of "in" against "out", of two Gaussians of one variance.

    `((s - out)^2 - (s - in)^2) / (2 variance) = shift (s - centre) / variance`

    Args:
        scores: `[..., P]`, calibrated, of attacked networks.
        reference: From other networks.

    Returns:
        `[..., P]`, above 0 for patients that are rather members.
    """
    return reference.shifts * (scores - reference.centres) / reference.variance


def compute_own_ratios(scores: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Compute the ratios of all networks, each attacked with the help of all pairs but its own.

    Args:
        scores: `[N, P]`, calibrated, pair after pair, at least 3 pairs.
        members: `[N, P]`, from `draw_halves`.

    Returns:
        `[N, P]`.
    """
    ratios = np.empty_like(scores)
    for first in range(0, len(scores), 2):
        pair = slice(first, first + 2)
        rest = np.delete(np.arange(len(scores)), pair)
        ratios[pair] = compute_ratios(scores[pair], estimate(scores[rest], members[rest]))
    return ratios


def compute_auc(ratios: np.ndarray, members: np.ndarray) -> float:
    """Compute the area under the ROC curve, ties counting half.

    Of several networks it is the mean over pairs of a member and another patient of one network:
    without a leak 0.5 on average, while over pairs of different networks it would not be, since
    the ratios of one depend on who is a member of the other.

    Args:
        ratios: `[..., P]`.
        members: `[..., P]`, some True and some False in one network at least.

    Returns:
        In [0, 1].
    """
    ranks = stats.rankdata(ratios, axis=-1)
    count = members.sum(axis=-1)
    higher = (ranks * members).sum(axis=-1) - count * (count + 1) / 2
    return float(higher.sum() / (count * (members.shape[-1] - count)).sum())


def compute_found(ratios: np.ndarray, members: np.ndarray) -> float:
    """Compute the share of members found where `FALSE_POSITIVES` of the others, at most, are too.

    Args:
        ratios: `[...]`.
        members: `[...]`, some True and some False.

    Returns:
        In [0, 1].
    """
    others = np.sort(ratios[~members])[::-1]
    # The tolerance keeps 0.1 * 30 from falling below 3.
    threshold = others[math.floor(FALSE_POSITIVES * len(others) + 1e-9)]
    return float(np.mean(ratios[members] > threshold))


def find_interval(share: float, count: int) -> tuple[float, float]:
    """Find the 95% interval of a share, by Clopper and Pearson.

    Args:
        share: In [0, 1].
        count: Independent trials; the successes `share * count` need not be a whole number.

    Returns:
        Its ends.

    Example:
        >>> [round(end, 4) for end in find_interval(0.0, 10)]
        [0.0, 0.3085]
    """
    hits = share * count
    low = stats.beta.ppf(0.025, hits, count - hits + 1) if hits > 0 else 0.0
    high = stats.beta.ppf(0.975, hits + 1, count - hits) if hits < count else 1.0
    return float(low), float(high)


def attack_one(
    score: str, target: str, ratios: np.ndarray, members: np.ndarray, among: np.ndarray
) -> Attack:
    """Attack one network.

    Its interval is that of Hanley and McNeil, The Meaning and Use of the Area under a ROC Curve,
    Radiology 143 (1982) 29-36, and at 0 and 1 that of a share (`find_interval`); the chance is that
    of Mann and Whitney.

    Args:
        score: Name of the score.
        target: Name of the network.
        ratios: `[P]`.
        members: `[P]`.
        among: `[P] bool`, the patients that count; some of them members, some not.

    Returns:
        The attack.
    """
    ratios, members = ratios[among], members[among]
    count, others = int(members.sum()), int((~members).sum())
    auc, found = compute_auc(ratios, members), compute_found(ratios, members)
    spread = auc * (1 - auc)
    spread += (count - 1) * (auc / (2 - auc) - auc**2)
    spread += (others - 1) * (2 * auc**2 / (1 + auc) - auc**2)
    margin = 1.96 * math.sqrt(max(spread, 0.0) / (count * others))
    low, high = max(auc - margin, 0.0), min(auc + margin, 1.0)
    if auc in (0.0, 1.0):  # where that interval has no width, however few patients there are
        low, high = find_interval(auc, min(count, others))
    test = stats.mannwhitneyu(ratios[members], ratios[~members], alternative="greater")
    return Attack(
        score,
        target,
        count,
        others,
        auc,
        low,
        high,
        found,
        *find_interval(found, count),
        float(test.pvalue),
    )


def attack_all(
    score: str, target: str, scores: np.ndarray, members: np.ndarray, seed: int
) -> Attack:
    """Attack every network with the help of the others: networks times patients decisions.

    Decisions on one patient are no independent ones. So the interval of the AUC is a percentile
    bootstrap of patients, which estimates the reference anew each time, and that of the share
    counts each patient once. The chance is how often halves that are drawn anew, in the place of
    those that were trained on, give such an AUC: a randomisation test, exact whatever the scores
    are distributed like.

    Args:
        score: Name of the score.
        target: What the networks, or their patients, are called.
        scores: `[N, P]`, calibrated.
        members: `[N, P]`, from `draw_halves`.
        seed: Of resamples and drawn halves.

    Returns:
        The attack.
    """
    rng = np.random.default_rng(seed)
    patients = scores.shape[1]
    ratios = compute_own_ratios(scores, members)
    auc, found = compute_auc(ratios, members), compute_found(ratios, members)
    drawn = rng.integers(patients, size=(RESAMPLES, patients))
    low, high = np.quantile([_attack(scores[:, p], members[:, p]) for p in drawn], [0.025, 0.975])
    shuffled = _shuffle(scores, rng)
    return Attack(
        score,
        target,
        patients,
        patients,
        auc,
        float(low),
        float(high),
        found,
        *find_interval(found, patients),
        float((1 + np.sum(shuffled >= auc)) / (1 + len(shuffled))),
    )


def compute_power(
    scores: np.ndarray, members: np.ndarray, seed: int, level: float = LEVEL
) -> Power:
    """Compute which leak an attack on all networks finds with a chance of `POWER`.

    The leak is simulated: what members' scores are higher by is taken off, halves are drawn anew,
    and the scores of their members are raised, all by the same.

    Args:
        scores: `[N, P]`, calibrated.
        members: `[N, P]`, from `draw_halves`.
        seed: Of the simulation.
        level: Chance of a false alarm.

    Returns:
        The power.
    """
    rng = np.random.default_rng(seed)
    reference = estimate(scores, members)
    clean = scores - (scores[members].mean() - scores[~members].mean()) * members
    shuffled = _shuffle(clean, rng)
    threshold = float(np.quantile(shuffled, 1 - level))
    deviation = math.sqrt(reference.variance)
    low, high = 0, len(_SHIFTS)
    best = (math.nan, math.nan)
    while low < high:  # the least index whose leak is found often enough
        middle = (low + high) // 2
        aucs, found = _plant(clean, _SHIFTS[middle] * deviation, rng)
        if np.mean(aucs > threshold) >= POWER:
            high, best = middle, (float(aucs.mean()), float(found.mean()))
        else:
            low = middle + 1
    shift = float(_SHIFTS[low]) if low < len(_SHIFTS) else math.nan
    return Power(*best, shift, threshold, float(shuffled.mean()))


def _shuffle(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Attack all networks with halves that are drawn anew: `[SHUFFLES]` AUCs."""
    networks, patients = scores.shape
    drawn = [draw_halves(networks, patients, rng) for _ in range(SHUFFLES)]
    return np.array([_attack(scores, members) for members in drawn])


def _attack(scores: np.ndarray, members: np.ndarray) -> float:
    return compute_auc(compute_own_ratios(scores, members), members)


def _plant(
    scores: np.ndarray, shift: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Attack all networks after a leak was planted: AUCs and shares found, `[TRIALS]` each."""
    figures = []
    for _ in range(TRIALS):
        members = draw_halves(len(scores), scores.shape[1], rng)
        ratios = compute_own_ratios(scores + shift * members, members)
        figures.append((compute_auc(ratios, members), compute_found(ratios, members)))
    aucs, found = np.array(figures).T
    return aucs, found
