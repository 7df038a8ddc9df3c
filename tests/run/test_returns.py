"""A warning where the floor under a group's spread is larger than any spread of the environment's returns."""

from __future__ import annotations

import statistics

import pytest

from sdar.objective.estimator import CentredAdvantage, GroupAdvantage
from sdar.run.rules.returns import remark


def test_floors_and_penalties_in_another_unit_are_told() -> None:
    said = remark(GroupAdvantage(), 1.0)
    assert said is not None
    assert "std_floor=1 is too large for an environment whose solved episodes return 1:" in said
    assert "set algorithm.advantage.std_floor=0.1 and algorithm.advantage.invalid_penalty=0.01" in said
    assert remark(GroupAdvantage(invalid_penalty=0.01, std_floor=0.1), 1.0) is None
    assert remark(GroupAdvantage(), 10.0) is None
    assert remark(CentredAdvantage(), 1.0) is None  # divides by nothing


@pytest.mark.parametrize(("size", "largest"), [(2, 0.71), (8, 0.53)])
def test_the_largest_spread_of_a_group(size: int, largest: float) -> None:
    spreads = [statistics.stdev([1.0] * solved + [0.0] * (size - solved)) for solved in range(1, size)]
    assert max(spreads) == pytest.approx(largest, abs=0.005)
