"""Intervals for what is reported: a proportion, a mean over runs, a paired difference.

The intervals come from scipy, so that no formula of ours stands between a figure and its uncertainty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scipy.stats import binomtest, t

CONFIDENCE = 0.95
"""Confidence level of every interval that is reported without saying which."""


class Interval(NamedTuple):
    """A two-sided confidence interval, ``low <= high``."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` values with its interval. With one value the interval is the whole line: nothing is known."""

    mean: float
    interval: Interval
    n: int


def wilson_interval(successes: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a success probability, in [0, 1]. Without a trial it is (0, 1).

    Raises ValueError unless ``0 <= successes <= n``.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials: successes must lie between 0 and the trials")
    if n == 0:
        return Interval(0.0, 1.0)
    interval = binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def mean_over_runs(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Mean of independent runs with Student's t interval (n - 1 degrees of freedom, unbiased variance).

    Raises ValueError for no values or a value that is not finite.
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"a mean over runs needs at least one value, all of them finite, not {list(values)}")
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, Interval(-math.inf, math.inf), n)
    standard_error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    # Not t.interval: it answers NaN where all values are equal, and there the interval is a point.
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
            f"a paired difference needs equally many values: {len(treatment)} and {len(baseline)} were given"
        )
    return mean_over_runs([a - b for a, b in zip(treatment, baseline, strict=True)], confidence)
