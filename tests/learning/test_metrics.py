from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdar.learning.metrics import Tally

VALUES = st.lists(st.floats(-100, 100), min_size=1, max_size=30)


def tally_of(values):
    tally = Tally()
    tally.mean("x_mean", math.fsum(values), len(values))
    tally.spread("x_mean", math.fsum(v * v for v in values))
    tally.maximum("x_max", max(values, default=-math.inf))
    tally.total("count", len(values))
    return tally


@given(first=VALUES, second=st.lists(st.floats(-100, 100), max_size=30))
def test_ranks_are_summed_and_then_divided(first, second):
    """Not a mean of means: a rank with more observations weighs more, one with none weighs nothing."""
    other = tally_of(second)
    answers = {}
    other.reduced(lambda tensor, operation: answers.setdefault(operation, tensor))

    def reduce(tensor, operation):
        return tensor + answers["sum"] if operation == "sum" else torch.maximum(tensor, answers["max"])

    everything = first + second
    metrics = tally_of(first).reduced(reduce).metrics()
    assert metrics["x_mean"] == pytest.approx(statistics.fmean(everything), abs=1e-9)
    assert metrics["x_std"] == pytest.approx(statistics.pstdev(everything), abs=1e-4)
    assert metrics["x_max"] == max(everything)
    assert metrics["count"] == len(everything)


def test_a_mean_of_nothing_is_left_out():
    tally = Tally()
    tally.mean("nothing", 0, 0)
    tally.maximum("none", -math.inf)
    assert tally.metrics() == {}


def test_micro_batches_add_up():
    parts = [[1.0, 2.0], [6.0]]
    tally = Tally()
    for part in parts:
        tally.mean("mean", sum(part), len(part))
    assert tally.metrics() == {"mean": 3.0}
