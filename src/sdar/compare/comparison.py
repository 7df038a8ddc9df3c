"""The figures of a comparison: per method over its seeds, and pair by pair against the baseline, the first method."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sdar.compare.records import AFTER, BEFORE, WITH_SKILLS, FinishedRun
from sdar.evaluation.statistics import (
    DIGITS,
    Estimate,
    bootstrap_mean,
    detectable_difference,
    mean_over_runs,
    standard_deviation,
)

Runs = Mapping[tuple[str, int], FinishedRun]
"""(method, seed) -> its finished run. Missing runs have no entry."""

VIEWS = {"without skills": "", "with skills": WITH_SKILLS}
"""How the student was evaluated -> what that adds to the name of its row."""


@dataclass(frozen=True)
class Sample:
    """One value per run, at least one, and the estimates of their mean.

    Values are rates of a panel or differences of such: their last digits are rounding, without which equal differences
    are equal.
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        """Leave the rounding out."""
        object.__setattr__(self, "values", tuple(round(value, DIGITS) for value in self.values))

    @cached_property
    def student(self) -> Estimate:
        """Mean with Student's t interval."""
        return mean_over_runs(self.values)

    @cached_property
    def bootstrap(self) -> Estimate:
        """Mean with the bootstrap interval."""
        return bootstrap_mean(self.values)

    @property
    def deviation(self) -> float:
        """Standard deviation of the values. NaN for one value."""
        return standard_deviation(self.values)

    @property
    def detectable(self) -> float:
        """The true mean that this many values detect with 80 % power. Infinite (unknown) if the values do not vary."""
        return detectable_difference(self.deviation, len(self.values)) if self.deviation > 0 else math.inf


@dataclass(frozen=True)
class MethodSummary:
    """A method over its seeds: success rates of the trained student, and their rise over the warm start."""

    method: str
    view: str
    seeds: tuple[int, ...]
    after: Sample
    rise: Sample


@dataclass(frozen=True)
class PairedSummary:
    """A method minus the baseline, after training, over the seeds of both."""

    method: str
    baseline: str
    view: str
    seeds: tuple[int, ...]
    differences: Sample


def summarise_methods(runs: Runs, methods: Sequence[str], seeds: Sequence[int]) -> list[MethodSummary]:
    """One summary per method and view, over the seeds that have a finished run. Methods without one are left out."""
    found: list[MethodSummary] = []
    for view, method in itertools.product(VIEWS, methods):
        if rates := _rates(runs, method, seeds, view):
            after = Sample(tuple(after for _, after in rates.values()))
            rise = Sample(tuple(after - before for before, after in rates.values()))
            found.append(MethodSummary(method, view, tuple(rates), after, rise))
    return found


def summarise_pairs(runs: Runs, methods: Sequence[str], seeds: Sequence[int]) -> list[PairedSummary]:
    """One summary per view and method after the first. The same seed means the same tasks, warm start and panel."""
    baseline, *others = methods
    found: list[PairedSummary] = []
    for view, method in itertools.product(VIEWS, others):
        ours, theirs = _rates(runs, method, seeds, view), _rates(runs, baseline, seeds, view)
        pairs = tuple(seed for seed in ours if seed in theirs)
        if pairs:
            differences = Sample(tuple(ours[seed][1] - theirs[seed][1] for seed in pairs))
            found.append(PairedSummary(method, baseline, view, pairs, differences))
    return found


def _rates(runs: Runs, method: str, seeds: Sequence[int], view: str) -> dict[int, tuple[float, float]]:
    """Seed -> success rates before and after training, for the runs that have this view."""
    before, after = BEFORE + VIEWS[view], AFTER + VIEWS[view]
    found = {seed: runs[method, seed].figures for seed in seeds if (method, seed) in runs}
    return {
        seed: (figures[before].rate, figures[after].rate)
        for seed, figures in found.items()
        if before in figures and after in figures
    }
