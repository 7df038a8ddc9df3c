"""Pictures of a report, as SVG that a page can hold: small enough for a phone, and without a fixed background.

Colours are those of Okabe and Ito, which colour-blind people can tell apart; lines also differ in their markers.
"""

from __future__ import annotations

import importlib.util
import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdar.callbacks.board.colours import blend
from sdar.compare.reporting.bands import Band
from sdar.compare.reporting.history import Curve

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
"""Of the methods in a picture, in order; a picture has no more of them."""
INK, GRID = "#1a1a1b", "#d7d7d8"
"""Text and axes, and what lies behind the lines. Values that nothing else has, so that a page can replace them."""

_MARKERS = "os^Dv"
_WIDTH, _HEIGHT = 3.6, 2.7
"""Inches: one column of a page, and the whole width of a phone."""
_LONGEST_NAME, _SHORT_NAME = 30, 12
"""Letters of a name in a legend: beyond the first it is cut, up to the second there is room for three beside one
another."""
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sdar",
    "text.parse_math": False,
    "font.size": 9,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "path.simplify": True,
}


@dataclass(frozen=True)
class Line:
    """A method in a picture of curves: ``band`` over its seeds, and each seed's curve."""

    label: str
    colour: int
    band: Band
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Dots:
    """A row of dots: single values, their mean, and its interval (None: there is none)."""

    label: str
    values: tuple[float, ...]
    mean: float
    interval: tuple[float, float] | None


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def short(label: str, most: int = _LONGEST_NAME) -> str:
    """A method's name as a picture has room for it: without the folders of an experiment, cut in the middle."""
    name = label.rpartition("/")[2] or label
    return name if len(name) <= most else f"{name[: most - 9]}…{name[-8:]}"


def draw_curves(
    title: str, unit: str, lines: Sequence[Line], *, limits: tuple[float, float] | None = None, legend: bool = True
) -> str:
    """Lines over the iterations, with bands; every seed is a thin line. A line at 0 where values lie on both sides."""
    with _drawing() as drawing:
        axes = drawing.axes()
        for line in lines:
            colour = PALETTE[line.colour]
            for curve in line.curves if len(line.curves) > 1 else ():
                axes.plot(list(curve), list(curve.values()), color=colour, lw=0.6, alpha=0.45)
            band = line.band
            if not all(map(math.isnan, band.low)):
                axes.fill_between(band.steps, band.low, band.high, color=colour, alpha=0.16, lw=0)
            few = len(band.steps) <= 15
            marker = _MARKERS[line.colour] if few or len(lines) > 1 else None
            every = 1 if few else max(1, len(band.steps) // 8)
            axes.plot(band.steps, band.mean, color=colour, marker=marker, markevery=every, label=short(line.label))
        if limits is not None:
            _limit(axes, lines, limits)
        low, high = axes.get_ylim()
        if low < 0 < high:
            axes.axhline(0, color=INK, lw=0.7)
        axes.set_xlabel("iteration")
        axes.set_ylabel(unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
        return drawing.svg(title, legend=legend)


def draw_dots(title: str, unit: str, rows: Sequence[Dots]) -> str:
    """A row per comparison: a ring per pair, their mean, and its interval."""
    with _drawing() as drawing:
        axes = drawing.axes(height=1.15 + 0.3 * len(rows), left=1.35)
        for number, row in enumerate(reversed(rows)):
            axes.plot(row.values, [number] * len(row.values), "o", ms=4.5, mfc="none", color=INK, alpha=0.7)
            if row.interval is not None:
                axes.plot(row.interval, [number, number], color=PALETTE[0], lw=2)
            axes.plot(row.mean, number, "D", color=PALETTE[0], ms=6)
        axes.axvline(0, color=INK, lw=0.8)
        axes.set_yticks(range(len(rows)), [short(row.label, 20) for row in reversed(rows)], fontsize=8)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(unit)
        return drawing.svg(title)


def draw_costs(title: str, unit: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """A bar per row, made of its parts; the parts are the same in all rows."""
    parts = list(dict.fromkeys(part for row in rows.values() for part in row))
    with _drawing() as drawing:
        axes = drawing.axes(height=1.25 + 0.3 * len(rows), left=1.3)
        begin = [0.0] * len(rows)
        for number, part in enumerate(parts):
            lengths = [row.get(part, 0.0) for row in reversed(list(rows.values()))]
            axes.barh(range(len(rows)), lengths, 0.62, left=begin, color=PALETTE[number % len(PALETTE)], label=part)
            begin = [a + b for a, b in zip(begin, lengths, strict=True)]
        axes.set_yticks(range(len(rows)), [short(name, 20) for name in reversed(list(rows))], fontsize=8)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(unit)
        return drawing.svg(title, legend=True)


def draw_map(title: str, unit: str, turns: Sequence[str], cells: Sequence[Sequence[float]], last: int) -> str:
    """Iteration x turn in the colours of gaps. ``cells``: one row per turn, NaN where nothing is."""
    with _drawing() as drawing:
        from matplotlib.colors import ListedColormap

        axes = drawing.axes(right=0.5)
        most = max((abs(value) for row in cells for value in row if not math.isnan(value)), default=0.0) or 1.0
        shades = [tuple(part / 255 for part in blend(place / 128 - 1)) for place in range(257)]
        picture = axes.imshow(
            [list(row) for row in cells],
            cmap=ListedColormap(shades).with_extremes(bad=GRID),
            vmin=-most,
            vmax=most,
            aspect="auto",
            interpolation="nearest",
            extent=(-0.5, last + 0.5, len(turns) - 0.5, -0.5),
        )
        axes.grid(visible=False)
        axes.set_yticks(range(len(turns)), turns)
        axes.set_xlabel("iteration")
        axes.set_ylabel("turn")
        axes.xaxis.get_major_locator().set_params(integer=True)
        drawing.figure.colorbar(picture, ax=axes, label=unit, pad=0.03).outline.set_linewidth(0.4)
        return drawing.svg(title)


def draw_types(title: str, unit: str, labels: Sequence[str], before: Sequence[float], lines: Sequence[Line]) -> str:
    """A row per task type: the warm start as a bar, and every method's mean as its marker."""
    with _drawing() as drawing:
        axes = drawing.axes(height=1.35 + 0.32 * len(labels), left=1.5)
        places = range(len(labels))
        axes.plot(before, places, "|", color=INK, ms=11, mew=1.6, label="warm start")
        for line in lines:
            shift = 0.12 * (line.colour - (len(lines) - 1) / 2)
            colour, marker = PALETTE[line.colour], _MARKERS[line.colour]
            heights = [place + shift for place in line.band.steps]
            for curve in line.curves:
                axes.plot(
                    list(curve.values()), [place + shift for place in curve], marker, color=colour, ms=2.5, alpha=0.4
                )
            axes.plot(line.band.mean, heights, marker, color=colour, ms=5.5, label=short(line.label))
        axes.set_yticks(places, [short(label, 22) for label in labels], fontsize=8)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_xlim(-3, 103)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(unit)
        return drawing.svg(title, legend=True)


def _limit(axes: Any, lines: Sequence[Line], limits: tuple[float, float]) -> None:
    """Keep wide bands from pressing the lines together: a scale that holds every mean and every seed."""
    values = [value for line in lines for value in line.band.mean]
    values += [value for line in lines for curve in line.curves for value in curve.values()]
    low, high = axes.get_ylim()
    room = 0.6 * (max(values) - min(values)) or 0.1 * (limits[1] - limits[0])
    low, high = max(low, min(values) - room), min(high, max(values) + room)
    edge = 0.02 * (limits[1] - limits[0])
    axes.set_ylim(max(low, limits[0] - edge), min(high, limits[1] + edge))


class _Drawing:
    """One figure, with our style while it is open."""

    def __enter__(self) -> _Drawing:
        import matplotlib
        from matplotlib.figure import Figure

        self._style = matplotlib.rc_context(_STYLE)
        self._style.__enter__()
        self._quiet = warnings.catch_warnings()
        self._quiet.__enter__()
        warnings.simplefilter("ignore")  # letters of names that no font here has; the reader's may
        self.figure: Any = Figure()
        return self

    def __exit__(self, *error: Any) -> None:
        self._quiet.__exit__(*error)
        self._style.__exit__(*error)

    def axes(self, height: float = _HEIGHT, left: float = 0.72, right: float = 0.12) -> Any:
        """The axes, with margins in inches: a layout that is computed would take most of the time."""
        self.figure.set_size_inches(_WIDTH, height)
        self._margins = (left, right, height)
        return self.figure.add_subplot()

    def svg(self, title: str, *, legend: bool = False) -> str:
        """The picture, with its title and the legend above the axes."""
        axes = self.figure.axes[0]
        left, right, height = self._margins
        handles, labels = axes.get_legend_handles_labels()
        columns = 3 if all(len(label) <= _SHORT_NAME for label in labels) else 2
        rows = math.ceil(len(labels) / columns) if legend else 0
        top = 0.28 + 0.17 * rows
        self.figure.subplots_adjust(
            left=left / _WIDTH, right=1 - right / _WIDTH, bottom=0.46 / height, top=1 - top / height
        )
        self.figure.text(0.02, 1 - 0.05 / height, title, va="top", fontsize=9.5, weight="bold")
        if legend:
            self.figure.legend(
                handles,
                labels,
                loc="upper left",
                bbox_to_anchor=(0.0, 1 - 0.18 / height),
                ncols=columns,
                fontsize=8,
                handlelength=1.6,
                columnspacing=1.2,
                labelspacing=0.25,
            )
        stream = io.StringIO()
        plain = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        self.figure.savefig(stream, format="svg", transparent=True, metadata=plain)
        return _cleaned(stream.getvalue())


def _drawing() -> _Drawing:
    return _Drawing()


def _cleaned(text: str) -> str:
    """The ``<svg>`` element alone: without prologue, metadata and a size in points."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )
