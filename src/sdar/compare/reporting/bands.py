"""From the curves of several seeds to one line with a band."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdar.compare.reporting.history import Curve
from sdar.evaluation.statistics import mean_over_runs

MOST_POINTS = 150
"""Of a line; more cannot be seen, and would make pictures large."""


@dataclass(frozen=True)
class Band:
    """Mean over the seeds that have a point, and what surrounds it; ``low`` and ``high`` are NaN where nothing does."""

    steps: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def interval_band(curves: Sequence[Curve]) -> Band:
    """Mean with Student's 95 % interval over seeds; no band where fewer than three seeds have a point."""
    steps = sorted({step for curve in curves for step in curve})
    rows: list[tuple[float, float, float]] = []
    for step in steps:
        estimate = mean_over_runs([curve[step] for curve in curves if step in curve])
        low, high = estimate.interval if estimate.n > 2 else (math.nan, math.nan)
        rows.append((estimate.mean, low, high))
    return _band(steps, rows)


def range_band(curves: Sequence[Curve]) -> Band:
    """Mean, lowest and highest seed."""
    steps = sorted({step for curve in curves for step in curve})
    rows: list[tuple[float, float, float]] = []
    for step in steps:
        values = [curve[step] for curve in curves if step in curve]
        rows.append((math.fsum(values) / len(values), min(values), max(values)))
    return _band(steps, rows)


def thinned(curves: Sequence[Curve], most: int = MOST_POINTS) -> list[Curve]:
    """The curves as they are, if they have at most ``most`` points each; else means over equal stretches of steps.

    The stretches are the same for all curves. A stretch stands at the middle of those of its steps that have a value in
    any curve. A value at 0, before anything was learned, is in no mean.
    """
    if max(map(len, curves), default=0) <= most:
        return list(curves)
    width = math.ceil(max(max(curve) for curve in curves if curve) / (most - 1))
    steps: dict[int, set[int]] = {}
    for step in set().union(*curves):
        steps.setdefault(_stretch(step, width), set()).add(step)
    places = {number: round((min(found) + max(found)) / 2) for number, found in steps.items()}
    return [_binned(curve, width, places) for curve in curves]


def mean_by_key(curves: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of every entry over those that have it, in the order of first appearance."""
    keys = dict.fromkeys(key for curve in curves for key in curve)
    values = {key: [curve[key] for curve in curves if key in curve] for key in keys}
    return {key: math.fsum(found) / len(found) for key, found in values.items()}


def _stretch(step: int, width: int) -> int:
    return math.ceil(step / width)  # 0 is one by itself


def _binned(curve: Curve, width: int, places: Mapping[int, int]) -> dict[int, float]:
    bins: dict[int, list[float]] = {}
    for step, value in curve.items():
        bins.setdefault(_stretch(step, width), []).append(value)
    return {places[number]: math.fsum(found) / len(found) for number, found in sorted(bins.items())}


def _band(steps: Sequence[int], rows: Sequence[tuple[float, float, float]]) -> Band:
    mean, low, high = zip(*rows, strict=True) if rows else ((), (), ())
    return Band(tuple(steps), tuple(mean), tuple(low), tuple(high))
