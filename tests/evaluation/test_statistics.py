from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdar.evaluation.statistics import (
    bootstrap_mean,
    detectable_difference,
    holm,
    mean_over_runs,
    p_value,
    paired_difference,
    standard_deviation,
    wilson_interval,
)

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
    with pytest.raises(ValueError, match="values must be one or more finite numbers"):
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
    with pytest.raises(ValueError, match="must have the same number of values, got 1 and 2"):
        paired_difference([1.0], [1.0, 2.0])


def test_the_bootstrap_interval_lies_within_the_values_and_is_the_same_twice() -> None:
    values = [0.1, 0.4, 0.35, 0.2, 0.3, 0.25, 0.5]
    estimate = bootstrap_mean(values)
    assert estimate.mean == pytest.approx(sum(values) / 7)
    assert min(values) < estimate.interval.low < estimate.mean < estimate.interval.high < max(values)
    assert bootstrap_mean(values) == estimate


def test_the_bootstrap_agrees_with_students_interval_for_many_normal_values() -> None:
    values = list(np.random.default_rng(3).normal(0.5, 0.1, size=400))
    ours, students = bootstrap_mean(values).interval, mean_over_runs(values).interval
    assert ours == pytest.approx(students, abs=0.05 * (students.high - students.low))


def test_the_bootstrap_of_few_values_is_narrower_than_students_interval() -> None:
    values = [0.2, 0.5, 0.35]
    ours, students = bootstrap_mean(values).interval, mean_over_runs(values).interval
    assert students.low < ours.low < ours.high < students.high


def test_the_bootstrap_of_equal_values_is_a_point_and_of_one_value_unbounded() -> None:
    assert bootstrap_mean([0.25] * 4).interval == (0.25, 0.25)
    assert bootstrap_mean([0.25]).interval == (-math.inf, math.inf)


def test_p_values_agree_with_students_interval_and_are_1_where_nothing_is_known() -> None:
    values = [1.2, -0.3, 2.2, 0.7, 1.9]
    # t = mean / (sd / sqrt n) = 1.14 / 0.44565 = 2.5581; with 4 degrees of freedom the two tails have in closed form
    # 1 - x (3 - x^2) / 2 with x = t / sqrt(4 + t^2)
    x = 2.5581 / math.sqrt(4 + 2.5581**2)
    assert p_value(values) == pytest.approx(1 - x * (3 - x**2) / 2, abs=1e-5)
    low, _ = mean_over_runs(values, 1 - p_value(values)).interval
    assert low == pytest.approx(0.0, abs=1e-9)
    assert p_value([3.0]) == p_value([]) == p_value([0.0, 0.0]) == 1.0
    assert p_value([2.0, 2.0]) == 0.0


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_is_between_the_plain_p_and_bonferronis(values: list[float]) -> None:
    corrected = holm(values)
    assert len(corrected) == len(values)
    for plain, adjusted in zip(values, corrected, strict=True):
        assert plain <= adjusted <= min(1.0, len(values) * plain) or adjusted == max(corrected)
    assert sorted(corrected) == [corrected[i] for i in sorted(range(len(values)), key=lambda i: values[i])]


def test_holm_of_a_known_case() -> None:
    # statsmodels 0.14: multipletests([0.01, 0.04, 0.03, 0.005], method="holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_the_standard_deviation_divides_by_one_less() -> None:
    assert standard_deviation([1.0, 2.0, 3.0, 4.0]) == pytest.approx(math.sqrt(5 / 3))
    assert math.isnan(standard_deviation([1.0]))


def test_the_detectable_difference_of_known_cases() -> None:
    # statsmodels 0.15.0: TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8)
    for n, expected in ((2, 11.549890), (3, 3.264044), (5, 1.681997), (10, 0.996002), (34, 0.495029)):
        assert detectable_difference(1.0, n) == pytest.approx(expected, rel=1e-5)
    # many pairs: the normal approximation (1.95996 + 0.84162) / sqrt(n)
    assert detectable_difference(2.0, 10_000) == pytest.approx(2 * 2.80158 / 100, rel=1e-3)


def test_the_detectable_difference_is_found_as_often_as_it_says() -> None:
    # By simulation, without the noncentral t distribution.
    n, rng = 6, np.random.default_rng(0)
    true = detectable_difference(1.0, n)
    samples = rng.normal(true, 1.0, size=(40_000, n))
    statistic = samples.mean(axis=1) / (samples.std(axis=1, ddof=1) / math.sqrt(n))
    assert np.mean(np.abs(statistic) > 2.570582) == pytest.approx(0.8, abs=0.01)


def test_the_detectable_difference_of_nothing_is_not_known() -> None:
    assert detectable_difference(1.0, 1) == math.inf
    assert detectable_difference(math.nan, 5) == math.inf
    assert detectable_difference(0.0, 5) == 0.0
    with pytest.raises(ValueError, match="deviation must be >= 0, got -1"):
        detectable_difference(-1.0, 5)
