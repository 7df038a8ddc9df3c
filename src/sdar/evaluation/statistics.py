"""Confidence intervals for reported results: a proportion, a mean over runs, a paired difference.

The intervals come from scipy, so no formula of ours can distort them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, bootstrap, nct, t, ttest_1samp

DIGITS = 12
"""Of differences of rates that are no rounding."""
CONFIDENCE = 0.95
"""Default confidence level of all intervals."""

FEW_RUNS = 6
"""With fewer values a bootstrap interval is much too narrow."""

POWER = 0.8
"""Probability of finding a difference of the size of :func:`detectable_difference`."""


class Interval(NamedTuple):
    """A two-sided confidence interval, ``low <= high``."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` values with its interval. With one value the interval is the whole real line."""

    mean: float
    interval: Interval
    n: int


def wilson_interval(successes: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a success probability, in [0, 1]. Without a trial it is (0, 1).

    Raises ValueError unless ``0 <= successes <= n``.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be in [0, {n}], the number of trials, got {successes}")
    if n == 0:
        return Interval(0.0, 1.0)
    interval = binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def mean_over_runs(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Mean of independent runs with Student's t interval (n - 1 degrees of freedom, unbiased variance).

    Raises ValueError for no values or a value that is not finite.
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"values must be one or more finite numbers, got {list(values)}")
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, Interval(-math.inf, math.inf), n)
    standard_error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    # Not t.interval: it returns NaN if all values are equal, where the interval is a point.
    half_width = float(t.ppf(0.5 + confidence / 2, df=n - 1)) * standard_error
    return Estimate(mean, Interval(mean - half_width, mean + half_width), n)


def paired_difference(
    treatment: Sequence[float], baseline: Sequence[float], confidence: float = CONFIDENCE
) -> Estimate:
    """Mean of ``treatment - baseline`` over pairs (same seed, same panel) with Student's t interval.

    Raises ValueError unless both hold one value per pair.
    """
    if len(treatment) != len(baseline):
        raise ValueError(
            f"treatment and baseline must have the same number of values, got {len(treatment)} and {len(baseline)}"
        )
    return mean_over_runs([a - b for a, b in zip(treatment, baseline, strict=True)], confidence)


def bootstrap_mean(values: Sequence[float], confidence: float = CONFIDENCE, *, seed: int = 0) -> Estimate:
    """Mean of independent runs with a bootstrap interval (bias-corrected and accelerated, 9999 draws, seeded).

    It assumes no distribution, but with fewer than :data:`FEW_RUNS` values it is much too narrow; compare it with
    Student's interval, :func:`mean_over_runs`. If all values are equal, the interval is a point.

    Raises ValueError for no values or a value that is not finite.
    """
    students = mean_over_runs(values, confidence)
    if students.n == 1:
        return students
    if _all_equal(values):
        return Estimate(students.mean, Interval(students.mean, students.mean), students.n)
    found = bootstrap(
        (list(values),), np.mean, confidence_level=confidence, method="BCa", random_state=np.random.default_rng(seed)
    ).confidence_interval
    return Estimate(students.mean, Interval(float(found.low), float(found.high)), students.n)


def p_value(differences: Sequence[float]) -> float:
    """Two-sided p of Student's t test that paired differences have mean 0; 1 for fewer than two of them.

    Where all are equal it is 1 if they are 0, and 0 otherwise.
    """
    if len(differences) < 2:
        return 1.0
    if _all_equal(differences):
        return float(round(differences[0], DIGITS) == 0)
    return float(ttest_1samp(list(differences), 0.0).pvalue)


def _all_equal(values: Sequence[float]) -> bool:
    """Whether values differ in the rounding of rates alone."""
    return len({round(value, DIGITS) for value in values}) == 1


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for testing all of them at once (Holm 1979): each in [0, 1] and never below its own.

    Rejecting those below alpha keeps the probability of any false rejection below alpha, however the tests depend on
    each other.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = highest
    return corrected


def standard_deviation(values: Sequence[float]) -> float:
    """Standard deviation of a sample (n - 1 in the denominator); NaN for fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def detectable_difference(deviation: float, n: int, *, power: float = POWER, confidence: float = CONFIDENCE) -> float:
    """The true mean difference that a paired two-sided t test of ``n`` pairs finds with probability ``power``.

    ``deviation`` is the standard deviation of the paired differences; the result is in the same unit. It is exact, by
    the noncentral t distribution with both tails. Infinite for fewer than two pairs.

    Raises ValueError for a deviation below 0.
    """
    if deviation < 0:
        raise ValueError(f"deviation must be >= 0, got {deviation}")
    if n < 2 or math.isnan(deviation):
        return math.inf
    if deviation == 0:
        return 0.0
    df = n - 1
    critical = float(t.ppf(0.5 + confidence / 2, df))

    def missing(shift: float) -> float:
        upper, lower = nct.sf(critical, df, shift), nct.cdf(-critical, df, shift)
        # Far out, scipy returns NaN for the lower tail, which is 0 there.
        return float(upper) + (0.0 if math.isnan(lower) else float(lower)) - power

    highest = 1.0
    while missing(highest) < 0:
        highest *= 2
    return float(brentq(missing, 0.0, highest)) * deviation / math.sqrt(n)
