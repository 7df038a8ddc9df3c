"""How a report tabulates: means over seeds, at some iterations, over a stretch of training, or over all of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from sdar.compare.reporting.bands import mean_by_key
from sdar.compare.reporting.blocks import Block, Pictures, Table, Text
from sdar.compare.reporting.collection import Group
from sdar.compare.reporting.curves import Figures, curve_pictures
from sdar.compare.reporting.history import History

DASH = "-"
"""Where there is no figure."""
_MOST_COLUMNS = 8

_LINES = "Thick: mean over seeds; thin: each seed; band:"
WHOLE = f"{_LINES} 95 % interval over seeds (Student's t, from three seeds on), which may leave the picture."
"""How to read curves of the panel."""
_RANGE = f"{_LINES} from the lowest to the highest seed."


def over_iterations(group: Group, figures: Figures, caption: str) -> list[Block]:
    """A table of means over seeds at some iterations, the first and the last among them."""
    curves = {method: [figures.curve(run) for run in group.of(method).values()] for method in group.methods}
    steps = sorted({step for found in curves.values() for curve in found for step in curve})
    if len(steps) < 2:
        return []
    steps = _some(steps)
    rows = []
    for method, found in curves.items():
        values = [[figures.factor * curve[step] for curve in found if step in curve] for step in steps]
        rows.append((method, *(f"{mean(value):.1f}" if value else DASH for value in values)))
    return [Table(("method",), tuple(f"after {step}" for step in steps), tuple(rows), caption)]


def course(group: Group, figures: Sequence[Figures], draw: bool) -> list[Block]:
    """Curves over the iterations, and a table with their first and last quarter."""
    rows = [
        (f"{one.title}, {one.unit}", method, *quarters)
        for one in figures
        for method in group.methods
        if (quarters := _quarters(one, group.of(method).values())) is not None
    ]
    if not rows:
        return []
    caption = "First and last quarter of training, mean over seeds"
    table = Table(("figure", "method"), ("first quarter", "last quarter"), tuple(rows), caption)
    return [Text(_RANGE), Pictures(tuple(curve_pictures(group, figures))), table] if draw else [table]


def over_training(group: Group, tags: Mapping[str, str], form: str) -> tuple[tuple[str, ...], ...]:
    """A row per method that has any of the tags: their means, by the names of the columns."""
    rows = []
    for method in group.methods:
        runs = group.of(method).values()
        found = [{name: value for name, tag in tags.items() if (value := run.mean_of(tag)) is not None} for run in runs]
        if means := mean_by_key(found):
            rows.append((method, *cells(means, tags, form)))
    return tuple(rows)


def cells(values: Mapping[str, float], names: Iterable[str], form: str) -> list[str]:
    """The values of these names, formatted; a dash where there is none."""
    return [format(values[name], form) if name in values else DASH for name in names]


def mean(values: Sequence[float]) -> float:
    """Of one value or more."""
    return math.fsum(values) / len(values)


def three(value: float) -> str:
    """With three digits."""
    return f"{value:#.3g}".rstrip(".")


def _some(steps: Sequence[int]) -> list[int]:
    """Up to ``_MOST_COLUMNS`` of them, evenly, with both ends."""
    count = min(len(steps), _MOST_COLUMNS)
    return [steps[round(number * (len(steps) - 1) / (count - 1))] for number in range(count)]


def _quarters(figures: Figures, runs: Iterable[History]) -> tuple[str, str] | None:
    curves = [list(curve.values()) for run in runs if (curve := figures.curve(run))]
    if not curves:
        return None
    first = mean([mean(values[: max(1, len(values) // 4)]) for values in curves])
    last = mean([mean(values[-max(1, len(values) // 4) :]) for values in curves])
    return three(figures.factor * first), three(figures.factor * last)
