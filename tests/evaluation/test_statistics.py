from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdar.evaluation.statistics import mean_over_runs, paired_difference, wilson_interval

Z = 1.959963984540054


@given(n=st.integers(1, 3000), data=st.data())
def test_wilson_is_the_score_interval(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    low, high = wilson_interval(k, n)
    assert 0 <= low <= k / n <= high <= 1
    # Each end is the probability whose own score test just rejects k of n.
    for end in (low, high):
        if 0 < end < 1 - 1e-12:
            assert abs(k / n - end) == pytest.approx(Z * math.sqrt(end * (1 - end) / n), rel=1e-6, abs=1e-9)


def test_wilson_without_a_trial_knows_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_wilson_of_a_known_case() -> None:
    # 140 games at 50 %: the half-width is 8.2 points.
    low, high = wilson_interval(70, 140)
    assert (low, high) == pytest.approx((0.418, 0.582), abs=5e-4)


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(successes, n)


def test_mean_over_runs_of_a_known_case() -> None:
    # Student's t with 3 degrees of freedom: 3.1824.
    estimate = mean_over_runs([1.0, 2.0, 3.0, 4.0])
    half = 3.182446 * math.sqrt(5 / 3 / 4)
    assert (estimate.mean, estimate.n) == (2.5, 4)
    assert estimate.interval == pytest.approx((2.5 - half, 2.5 + half), rel=1e-6)


def test_equal_runs_give_a_point_and_one_run_gives_no_bounds() -> None:
    assert mean_over_runs([0.25] * 5).interval == (0.25, 0.25)
    assert mean_over_runs([0.25]).interval == (-math.inf, math.inf)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_a_mean_of_nothing_or_of_no_numbers_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one value"):
        mean_over_runs(values)


def test_the_interval_of_the_mean_covers_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(3.0, 2.0, size=(2000, 6))
    covered = [low <= 3.0 <= high for low, high in (mean_over_runs(list(row)).interval for row in draws)]
    assert 0.935 < np.mean(covered) < 0.965


def test_pairs_take_out_what_they_share() -> None:
    baseline = [0.1, 0.5, 0.9]
    estimate = paired_difference([value + 0.05 for value in baseline], baseline)
    assert estimate.mean == pytest.approx(0.05)
    assert estimate.interval == pytest.approx((0.05, 0.05))


def test_unequal_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="equally many"):
        paired_difference([1.0], [1.0, 2.0])
