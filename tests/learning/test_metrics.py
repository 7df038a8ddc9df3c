"""Sums of metrics: added over micro-batches and ranks, and only then divided."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdar.learning.metric_sums import MetricSums

VALUES = st.lists(st.floats(-100, 100), min_size=1, max_size=30)


def sums_of(values):
    sums = MetricSums()
    sums.mean("x_mean", math.fsum(values), len(values))
    sums.spread("x_mean", math.fsum(v * v for v in values))
    sums.maximum("x_max", max(values, default=-math.inf))
    sums.total("count", len(values))
    return sums


@given(first=VALUES, second=st.lists(st.floats(-100, 100), max_size=30))
def test_ranks_are_summed_and_then_divided(first, second):
    """Not a mean of means: a rank with more observations weighs more, one with none weighs nothing."""
    own, other = sums_of(first), sums_of(second)

    def gather(state, group=None):
        """What a gather over two ranks gives: this rank's state and the other's."""
        return [state, other.sums if state is own.sums else other.peaks]

    own.dist_sync_fn, own.distributed_available_fn = gather, lambda: True
    everything = first + second
    metrics = own.compute()
    assert metrics["x_mean"] == pytest.approx(statistics.fmean(everything), abs=1e-9)
    assert metrics["x_std"] == pytest.approx(statistics.pstdev(everything), abs=1e-4)
    assert metrics["x_max"] == max(everything)
    assert metrics["count"] == len(everything)


def test_a_mean_of_nothing_is_left_out():
    sums = MetricSums()
    sums.mean("nothing", 0, 0)
    sums.maximum("none", -math.inf)
    assert sums.compute() == {}


def test_micro_batches_add_up():
    sums = MetricSums()
    for part in ([1.0, 2.0], [6.0]):
        sums.mean("mean", sum(part), len(part))
    assert sums.compute() == {"mean": 3.0}
