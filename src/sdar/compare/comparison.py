"""What finished runs say about methods: per run, per method, and pair by pair against the first method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdar.compare.records import AFTER, BEFORE, WITH_SKILLS, FinishedRun
from sdar.evaluation.statistics import (
    Estimate,
    bootstrap_mean,
    detectable_difference,
    mean_over_runs,
    paired_difference,
    standard_deviation,
)

Runs = Mapping[tuple[str, int], FinishedRun]
"""(method, seed) -> its finished run; runs that are missing are left out."""

VIEWS = {"without skills": "", "with skills": WITH_SKILLS}
"""How the trained student was played: alone, and with the skills in its prompt."""


@dataclass(frozen=True)
class Both:
    """One mean with two intervals: Student's t, and the bootstrap's."""

    student: Estimate
    bootstrap: Estimate

    @classmethod
    def of(cls, values: Sequence[float]) -> Both:
        """Raises ValueError without a value."""
        return cls(mean_over_runs(values), bootstrap_mean(values))


@dataclass(frozen=True)
class MethodSummary:
    """A method over its seeds: success rates of the trained student, and their rise over the warm start."""

    method: str
    view: str
    seeds: tuple[int, ...]
    after: Both
    rise: Both


@dataclass(frozen=True)
class PairedSummary:
    """A method minus the baseline, over the seeds that both have.

    ``deviation``   standard deviation of the differences; NaN for one pair
    ``detectable``  the true difference that this many pairs find with 80 % power; infinite (not known) where the
                    differences do not vary, as with one pair
    """

    method: str
    baseline: str
    view: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    mean: Both
    deviation: float
    detectable: float


def summarise_methods(runs: Runs, methods: Sequence[str], seeds: Sequence[int]) -> list[MethodSummary]:
    """Per method and view, over the seeds that have a finished run; methods without one are left out."""
    found: list[MethodSummary] = []
    for view in VIEWS:
        for method in methods:
            rates = {seed: _rates(runs, method, seed, view) for seed in seeds}
            known = {seed: rate for seed, rate in rates.items() if rate is not None}
            if known:
                after = Both.of([after for _, after in known.values()])
                rise = Both.of([after - before for before, after in known.values()])
                found.append(MethodSummary(method, view, tuple(known), after, rise))
    return found


def summarise_pairs(runs: Runs, methods: Sequence[str], seeds: Sequence[int]) -> list[PairedSummary]:
    """Every further method against the first, after training. Same seed: same tasks, same warm start, same panel."""
    baseline, *others = methods
    found: list[PairedSummary] = []
    for view in VIEWS:
        for method in others:
            pairs: dict[int, tuple[float, float]] = {}
            for seed in seeds:
                ours, theirs = _rates(runs, method, seed, view), _rates(runs, baseline, seed, view)
                if ours is not None and theirs is not None:
                    pairs[seed] = (ours[1], theirs[1])
            if not pairs:
                continue
            differences = tuple(ours - theirs for ours, theirs in pairs.values())
            deviation = standard_deviation(differences)
            found.append(
                PairedSummary(
                    method=method,
                    baseline=baseline,
                    view=view,
                    seeds=tuple(pairs),
                    differences=differences,
                    mean=Both(
                        paired_difference([a for a, _ in pairs.values()], [b for _, b in pairs.values()]),
                        bootstrap_mean(differences),
                    ),
                    deviation=deviation,
                    detectable=detectable_difference(deviation, len(pairs)) if deviation > 0 else math.inf,
                )
            )
    return found


def _rates(runs: Runs, method: str, seed: int, view: str) -> tuple[float, float] | None:
    """Success rates before and after training; None where the run or this view of it is missing."""
    run = runs.get((method, seed))
    if run is None:
        return None
    before, after = run.figures.get(BEFORE + VIEWS[view]), run.figures.get(AFTER + VIEWS[view])
    return None if before is None or after is None else (before.rate, after.rate)
