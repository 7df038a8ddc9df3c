"""The pictures of a group: which lines, dots and bars they hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sdar.compare.comparison import summarise_pairs
from sdar.compare.records import AFTER, BEFORE
from sdar.compare.reporting.bands import MOST_POINTS, interval_band, mean_by_key, range_band, thinned
from sdar.compare.reporting.blocks import Picture
from sdar.compare.reporting.collection import Group
from sdar.compare.reporting.drawing import (
    PALETTE,
    Dots,
    Line,
    draw_costs,
    draw_curves,
    draw_dots,
    draw_map,
    draw_types,
    short,
)
from sdar.compare.reporting.history import Curve, History

_MOST_METHODS = 25
_MOST_MAPS = 10
_MOST_ROWS = 40


@dataclass(frozen=True)
class Figures:
    """A figure over the iterations.

    ``name``     of the picture
    ``title``, ``unit``  as they are shown
    ``of``       gives a run's curve
    ``factor``   from its values to the unit
    ``limits``   of the unit; None: there are none
    ``tag``      it was logged as; None: it is not of training but of the panel, and the band is an interval over seeds
    """

    name: str
    title: str
    unit: str
    of: Callable[[History], Curve]
    factor: float = 1.0
    limits: tuple[float, float] | None = None
    tag: str | None = None

    @classmethod
    def of_tag(
        cls, tag: str, title: str, unit: str, factor: float = 1.0, limits: tuple[float, float] | None = None
    ) -> Figures:
        """A figure of training. It has so many points that the band is from the lowest to the highest seed."""
        return cls(tag.replace("/", "-"), title, unit, lambda run: run.curve(tag), factor, limits, tag)

    def curve(self, run: History) -> Curve:
        """A run's curve, in the values that were logged."""
        return self.of(run)


def curve_pictures(group: Group, figures: Sequence[Figures]) -> list[Picture]:
    """A picture per figure that any run has, and per five methods."""
    return [picture for one in figures for picture in _curves(group, one)]


def _curves(group: Group, figures: Figures) -> Iterator[Picture]:
    tag = f"Tag {figures.tag}" if figures.tag else ""
    for number, chunk in enumerate(chunks(group.methods), start=1):
        lines = []
        for colour, method in enumerate(chunk):
            found = [curve for run in group.of(method).values() if (curve := figures.curve(run))]
            if found:
                curves = thinned([{step: figures.factor * v for step, v in curve.items()} for curve in found])
                band = (range_band if figures.tag else interval_band)(curves)
                lines.append(Line(method, colour, band, tuple(curves)))
        if _worth(lines, number):
            several = len(group.methods) > 1
            svg = draw_curves(figures.title, figures.unit, lines, limits=figures.limits, legend=several)
            yield Picture(_numbered(figures.name, number), svg, figures.title, tag)


def _worth(lines: Sequence[Line], number: int) -> bool:
    """Whether a picture shows something: after the first one, more than the method that is in all of them."""
    return bool(lines) and (number == 1 or lines != [line for line in lines if line.colour == 0])


def chunks(methods: Sequence[str]) -> list[list[str]]:
    """The methods by pictures: as many as there are colours, and the first one in each, to compare with."""
    if not methods:
        return []
    first, *others = methods[:_MOST_METHODS]
    size = len(PALETTE) - 1
    return [[first, *others[start : start + size]] for start in range(0, max(1, len(others)), size)]


def difference_pictures(group: Group) -> list[Picture]:
    """All pairs' differences after training."""
    rows = []
    for pair in summarise_pairs(group.runs, group.methods, group.seeds)[:_MOST_ROWS]:
        estimate = pair.differences.student
        interval = estimate.interval if math.isfinite(estimate.interval.low) else None
        known = None if interval is None else (100 * interval.low, 100 * interval.high)
        view = "" if pair.view == "without skills" else " +skills"
        label = f"{short(pair.method, 20 - len(view))}{view}"
        rows.append(Dots(label, tuple(100 * value for value in pair.differences.values), 100 * estimate.mean, known))
    if not rows:
        return []
    baseline = group.methods[0]
    svg = draw_dots(f"Difference to {short(baseline, 20)}, by pairs", "success after training, points", rows)
    title = f"Success after training minus that of {baseline} with the same seed"
    caption = f"{title}. Ring: a pair; diamond and bar: their mean and its 95 % interval (Student's t)."
    return [Picture("differences", svg, title, caption)]


def turn_pictures(group: Group) -> list[Picture]:
    """Iteration x turn, a picture per method with such tags."""
    pictures: list[Picture] = []
    for method in group.methods:
        runs = [run for run in group.of(method).values() if run.gap_by_turn]
        if not runs or len(pictures) == _MOST_MAPS:
            continue
        turns = sorted({turn for run in runs for turn in run.gap_by_turn})
        last = max(max(curve) for run in runs for curve in run.gap_by_turn.values())
        columns = min(last + 1, MOST_POINTS)
        cells = [_row([run.gap_by_turn.get(turn, {}) for run in runs], columns, last) for turn in turns]
        svg = draw_map(f"Gap by turn: {short(method)}", "gap, nats", turns, cells, last)
        title = f"{method}: mean gap by iteration and turn, mean over seeds"
        caption = (
            f"{title}. Blue: the teacher finds what the student said likelier than the student does; orange: less "
            "likely; grey: no such turn."
        )
        pictures.append(Picture(_numbered("gap-by-turn", len(pictures) + 1), svg, title, caption))
    return pictures


def _row(curves: Sequence[Curve], columns: int, last: int) -> list[float]:
    """Means over seeds, and over the iterations of a column; NaN where there are none."""
    bins: list[list[float]] = [[] for _ in range(columns)]
    for curve in curves:
        for step, value in curve.items():
            bins[step * columns // (last + 1)].append(value)
    return [math.fsum(values) / len(values) if values else math.nan for values in bins]


def type_pictures(group: Group) -> list[Picture]:
    """The student alone by task type: warm start and trained."""
    found = {
        method: [_rates(run, AFTER) for run in group.of(method).values() if run.by_type.get(AFTER)]
        for method in group.methods
    }
    labels = sorted({name for runs in found.values() for run in runs for name in run})[:_MOST_ROWS]
    starts = mean_by_key([_rates(run, BEFORE) for run in group.histories.values()])
    pictures: list[Picture] = []
    for number, chunk in enumerate(chunks(group.methods), start=1):
        lines = []
        for colour, method in enumerate(chunk):
            rows = [{labels.index(name): rate for name, rate in run.items() if name in labels} for run in found[method]]
            if rows:
                lines.append(Line(method, colour, range_band(rows), tuple(rows)))
        if not _worth(lines, number):
            continue
        before = [starts.get(label, math.nan) for label in labels]
        svg = draw_types("By task type: student alone", "success, %", labels, before, lines)
        caption = "Bar: warm start; large: mean over seeds after training; small: each seed."
        pictures.append(Picture(_numbered("task-types", number), svg, "Success by task type", caption))
    return pictures


def _rates(run: History, row: str) -> dict[str, float]:
    return {name: 100 * solved / n for name, (solved, n) in run.by_type.get(row, {}).items() if n}


def cost_picture(group: Group) -> list[Picture]:
    """Seconds of a run by part."""
    rows = {method: mean_by_key([run.seconds for run in group.of(method).values()]) for method in group.methods}
    rows = {method: parts for method, parts in list(rows.items())[:_MOST_ROWS] if parts}
    if not rows:
        return []
    svg = draw_costs("Seconds of a run, by part", "seconds, mean over seeds", rows)
    return [Picture("costs", svg, "Seconds of a run, by part", "Of several processes, the slowest counts.")]


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"
