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
    """The curves with at most ``most`` points each: means over equal stretches, the same ones for all curves."""
    last = max((max(curve) for curve in curves if curve), default=0)
    width = math.ceil((last + 1) / most)
    if width <= 1:
        return list(curves)
    return [_binned(curve, width) for curve in curves]


def mean_by_key(curves: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of every entry over those that have it, in the order of first appearance."""
    keys = dict.fromkeys(key for curve in curves for key in curve)
    values = {key: [curve[key] for curve in curves if key in curve] for key in keys}
    return {key: math.fsum(found) / len(found) for key, found in values.items()}


def _binned(curve: Curve, width: int) -> dict[int, float]:
    bins: dict[int, list[float]] = {}
    for step, value in curve.items():
        bins.setdefault(step // width, []).append(value)
    return {number * width + width // 2: math.fsum(found) / len(found) for number, found in sorted(bins.items())}


def _band(steps: Sequence[int], rows: Sequence[tuple[float, float, float]]) -> Band:
    mean, low, high = zip(*rows, strict=True) if rows else ((), (), ())
    return Band(tuple(steps), tuple(mean), tuple(low), tuple(high))
