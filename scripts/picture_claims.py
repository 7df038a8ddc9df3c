"""Success after training by method, over the seeds of the claims: ``python scripts/picture_claims.py OUT.svg``.

A dot is a run, a bar the mean over seeds with its 95 % interval (Student's t), a hollow mark the mean with skills in
the prompt. Where statements of the series are about the strongly gated share, a last panel has its ends, run by run.
Series and their regimes are those of :data:`PANELS`, rows those of :data:`ROWS`; figures are those of
``docs/data/map_SERIES.json``, which ``benchmarks/map.py collect SERIES`` wrote. Regimes of which a planned run is
missing are left out. Rows of several series stand in one panel where they are of one regime and the same seeds.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from map_cells import BASELINE, PLAN, Cell, Outcome, cells, read
from map_claims import Statement, statements
from svg import METHODS, Drawing

from sdar.errors import UserError, command, run_command
from sdar.evaluation.statistics import mean_over_runs

WIDTH, LEFT, RIGHT, TOP, ROW = 676, 266, 186, 48, 30
"""Of the picture: its width, what lies left, right and above of the first panel, and the height of a row."""
HEAD, GAP = 56, 40
"""Above a panel's rows, for its heading, and below them, for its numbers."""
WORDS = 60
"""Least distance at which two words stand above their lines; nearer ones stand beside them."""
SHARE = "curriculum/strongly_gated_fraction"
"""The curve of the last panel."""
SHARES_LEFT, SHARES_HEAD, SHARES_HEIGHT, STEP = 64, 100, 130, 5
"""Of that panel: what lies left and above of its axes, their height, and the per cent between two of their lines."""
PANELS = {
    "claims": {
        "turns8": "ALFWorld, eight turns",
        "webshop": "WebShop",
        "arithmetic_short": "Arithmetic, 15 iterations",
        "arithmetic_stale": "The same, several optimizer steps on every rollout",
    },
    "sizes": {
        "stale_small": "Arithmetic, several optimizer steps: 0.05 million parameters",
        "arithmetic_stale": "0.17 million parameters",
        "stale_large": "0.64 million parameters",
    },
    "teachers": {
        "turns8": "ALFWorld, eight turns",
        "webshop": "WebShop",
        "arithmetic_short": "Arithmetic, 15 iterations",
        "arithmetic_stale": "The same, several optimizer steps on every rollout",
    },
    "default": {"turns14": "ALFWorld, fourteen turns (the default)"},
    "pretrained": {"arithmetic_smollm2": "SmolLM2-135M, arithmetic"},
}
"""Regimes of a series, and how they are called."""
ROWS = {
    "grpo": ("GRPO", 0),
    "sdar": ("SDAR", 1),
    "sdar_ema": ("SDAR, average", 1),
    "sdar_initial": ("SDAR, initial", 1),
    "hybrid": ("GRPO+OPSD, live", 2),
    "hybrid_ema": ("GRPO+OPSD, average", 2),
    "hybrid_initial": ("GRPO+OPSD, initial", 3),
    "expected_initial": ("expected, initial", 4),
    "raw": ("raw gap as weight", 2),
    "skill_grpo": ("Skill-GRPO", 0),
    "sdar_wrong": ("SDAR, wrong skills", 1),
    "sdar_random": ("SDAR, random skills", 1),
    "hybrid_wrong": ("GRPO+OPSD, wrong skills", 3),
    "hybrid_random": ("GRPO+OPSD, random skills", 3),
}
"""Methods, how they are called, and the number of their colour. Wrong and random skills have the initial teacher."""
BRIEF = ("grpo", "sdar", "sdar_ema", "hybrid", "hybrid_initial")
"""Methods of the short picture: the paper's, with and without its gate, and what is recommended of either."""
__all__ = [
    "BRIEF",
    "PANELS",
    "ROWS",
    "Cell",
    "Outcome",
    "complete",
    "drawing",
    "main",
    "rows_of",
    "strength",
    "together",
]


@command
def main(arguments: Sequence[str]) -> int:
    """Read, draw, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="picture to write")
    parser.add_argument(
        "--series", nargs="+", choices=PANELS, default=["claims"], help="of benchmarks/map.yaml (claims)"
    )
    parser.add_argument("--brief", action="store_true", help="the methods of README alone, without the last panel")
    options = parser.parse_args(arguments)
    words = f"{options.out} --series {' '.join(options.series)}{' --brief' if options.brief else ''}"
    found, called = together(options.series)
    shares = [each for name in options.series for each in statements(PLAN["series"][name]) if each.figure == SHARE]
    if options.brief:
        found, shares = [outcome for outcome in found if outcome.cell.method in BRIEF], []
    options.out.write_text(drawing(found, words, called, shares), encoding="utf-8")
    print(options.out)
    return 0


def together(names: Sequence[str]) -> tuple[list[Outcome], dict[str, str]]:
    """Runs of several series, each cell's once, and the headings of their regimes, those of the first that has them.

    Raises:
        UserError: a series has no complete regime, or two have one regime and not the same seeds.
    """
    found: dict[Cell, Outcome] = {}
    called: dict[str, str] = {}
    seeds: dict[str, list[int]] = {}
    for name in names:
        own, planned = complete(read(name), name), PLAN["series"][name]["seeds"]
        if not own:
            raise UserError(f"--series must be one whose runs were collected, got {name}")
        for regime, heading in PANELS[name].items():
            if seeds.setdefault(regime, planned) != planned:
                raise UserError(f"--series must have the same seeds in {regime}, got {' '.join(names)}")
            called.setdefault(regime, heading)
        found |= {outcome.cell: outcome for outcome in own}
    return list(found.values()), called


def complete(outcomes: Sequence[Outcome], series: str) -> list[Outcome]:
    """Those of the regimes of which every planned cell has been played."""
    played, planned = {o.cell for o in outcomes}, cells(series)
    whole = {cell.regime for cell in planned} - {cell.regime for cell in planned if cell not in played}
    return [outcome for outcome in outcomes if outcome.cell.regime in whole]


def drawing(
    outcomes: Sequence[Outcome],
    words: str,
    called: Mapping[str, str] = PANELS["claims"],
    shares: Sequence[Statement] = (),
) -> str:
    """The picture. UserError: a method has no row.

    Args:
        outcomes: of all regimes.
        words: the command's.
        called: regimes in their order, and their headings.
        shares: statements about the strongly gated share.
    """
    panels = {name: rows_of([o for o in outcomes if o.cell.regime == name]) for name in called}
    panels = {name: rows for name, rows in panels.items() if rows}
    ends = {s: _ends(panels[s.regime], s.of) for s in shares if s.regime in panels}
    told = [_told(called[name], rows) for name, rows in panels.items()]
    told += [_told_share(called[s.regime], found) for s, found in ends.items()]
    image = Drawing(
        WIDTH,
        "Success of the student alone after training, by method",
        " ".join(told),
        f"python scripts/picture_claims.py {words}",
    )
    image.text(16, 32, "Success without skills in the prompt, after training", size=16, bold=True)
    y: float = TOP
    for name, rows in panels.items():
        y = _panel(image, called[name], rows, y)
    legend = ["Dots: runs. Bars: means, 95 % intervals over seeds. Dashed: before training."]
    if any(o.after_with_skills is not None for o in outcomes):
        legend.append("Hollow: means with skills in the prompt, after training.")
    y = image.lines(16, y + 4, legend, colour="faint")
    if ends:
        y = _shares(image, {s: (called[s.regime], found) for s, found in ends.items()}, y + 8)
    return image.document(y)


Rows = dict[tuple[str, float | None], list[Outcome]]
Ends = list[tuple[float, float]]


def rows_of(outcomes: Sequence[Outcome]) -> Rows:
    """Runs by method and coefficient, in the order of :data:`ROWS`. UserError: a method is none of these."""
    if unknown := sorted({outcome.cell.method for outcome in outcomes} - ROWS.keys()):
        raise UserError(f"methods of the picture must be of {', '.join(ROWS)}, got {', '.join(unknown)}")
    rows: Rows = {}
    for name in ROWS:
        for outcome in outcomes:
            if outcome.cell.method == name:
                rows.setdefault((name, outcome.cell.coefficient), []).append(outcome)
    return rows


def _ends(rows: Rows, of: str) -> Ends:
    """Per cent in the first and in the last iterations of each run of what a statement is about."""
    curves = [outcome.curves[SHARE] for outcome in rows[_cell(of)]]
    return [(round(100 * first, 3), round(100 * last, 3)) for first, last, _ in curves]


def _cell(of: str) -> tuple[str, float | None]:
    """Method and coefficient of a statement's words."""
    method, _, number = of.partition(" ")
    return method, float(number) if number else None


def _panel(image: Drawing, heading: str, rows: Rows, top: float) -> float:
    first = next(iter(rows.values()))[0]
    bottom = top + HEAD + ROW * len(rows)
    image.text(16, top + 20, heading, bold=True)
    image.text(WIDTH - RIGHT + 18, top + HEAD - 14, "above GRPO, points", colour="faint")
    for rate in range(0, 101, 25):
        image.path(f"M{_x(rate):g} {top + HEAD - 8:g}V{bottom:g}", stroke="line", thick=1)
        if rate % 50 == 0:
            image.text(_x(rate), bottom + 19, f"{rate} %", colour="faint", anchor="middle")
    starts = [(first.before, "start")]
    if first.before_with_skills is not None:
        starts.append((first.before_with_skills, "with skills"))
    places = [_x(100 * rate) for rate, _ in starts]
    apart = max(places) - min(places) > WORDS or len(places) == 1
    for place, (_, words) in zip(places, starts, strict=True):
        image.path(f"M{place:g} {top + HEAD - 8:g}V{bottom:g}", stroke="faint", dash="4 4", thick=1.5)
        anchor = "middle" if apart else "end" if place == min(places) else "start"
        image.text(place, top + HEAD - 14, words, colour="faint", anchor=anchor)
    base = {o.cell.seed: o.after for key, found in rows.items() if key[0] == BASELINE for o in found}
    for number, ((method, coefficient), found) in enumerate(rows.items()):
        y = top + HEAD + ROW * (number + 0.5)
        words, colour = ROWS[method]
        image.text(16, y + 5, words, (strength(coefficient), "faint"))
        _marks(image, [100 * o.after for o in found], y, METHODS[colour])
        if skilled := _skilled(found):
            # Above the bar, which it may meet.
            image.path(_diamond(_x(mean_over_runs(skilled).mean), y), fill="back", stroke=METHODS[colour], thick=2)
        pairs = [100 * (o.after - base[o.cell.seed]) for o in found if o.cell.seed in base]
        if method != BASELINE and pairs:
            estimate = mean_over_runs(pairs)
            low, high = estimate.interval
            span = f"  {low:.1f} to {high:.1f}" if estimate.n > 1 else ""
            image.text(WIDTH - RIGHT + 18, y + 5, f"{estimate.mean:+.1f}", (span, "faint"))
    return bottom + GAP


def _marks(image: Drawing, rates: Sequence[float], y: float, colour: str) -> None:
    for rate in rates:
        image.path(f"M{_x(rate) - 4:g} {y:g}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0", fill=colour, opacity=0.35)
    estimate = mean_over_runs(rates)
    low, high = (min(max(end, 0.0), 100.0) for end in estimate.interval)
    if estimate.n > 1:
        image.path(f"M{_x(low):g} {y:g}H{_x(high):g}", stroke=colour, thick=3)
    image.path(f"M{_x(estimate.mean):g} {y - 9:g}V{y + 9:g}", stroke=colour, thick=4)


def _skilled(found: Sequence[Outcome]) -> list[float]:
    return [100 * o.after_with_skills for o in found if o.after_with_skills is not None]


def _diamond(x: float, y: float, size: float = 5) -> str:
    return f"M{x:g} {y - size:g}l{size:g} {size:g}l{-size:g} {size:g}l{-size:g} {-size:g}Z"


def strength(coefficient: float | None) -> str:
    """What stands behind a method's name."""
    return "" if coefficient is None else f"  \N{GREEK SMALL LETTER LAMDA} {coefficient:g}"


def _x(rate: float) -> float:
    return round(LEFT + rate / 100 * (WIDTH - LEFT - RIGHT), 1)


def _shares(image: Drawing, plots: Mapping[Statement, tuple[str, Ends]], top: float) -> float:
    """Plots side by side on one scale: a thin line per run, a thick one for their mean."""
    every = [rate for _, found in plots.values() for pair in found for rate in pair]
    low, high = STEP * math.floor(min(every) / STEP), STEP * math.ceil(max(every) / STEP)
    above, room = top + SHARES_HEAD, (WIDTH - SHARES_LEFT) / len(plots)

    def y(rate: float) -> float:
        return round(above + SHARES_HEIGHT * (high - rate) / (high - low), 1)

    image.text(16, top + 20, "Strongly gated share, first to last iterations", bold=True)
    image.text(16, top + 42, "Thin: runs. Thick: means.", colour="faint")
    for rate in range(low, high + 1, STEP):
        image.text(SHARES_LEFT - 10, y(rate) + 5, f"{rate} %", colour="faint", anchor="end")
    for number, (statement, (heading, found)) in enumerate(plots.items()):
        method, coefficient = _cell(statement.of)
        words, colour = ROWS[method]
        left = round(SHARES_LEFT + number * room, 1)
        right = round(left + room - 40, 1)
        first, last = (sum(ends) / len(found) for ends in zip(*found, strict=True))
        image.text(left, above - 32, heading)
        told = f"{words}{strength(coefficient)}"
        image.text(left, above - 12, told, (f"  {last - first:+.1f} points", "faint"))
        for rate in range(low, high + 1, STEP):
            image.path(f"M{left:g} {y(rate):g}H{right:g}", stroke="line", thick=1)
        for start, end in found:
            image.path(f"M{left:g} {y(start):g}L{right:g} {y(end):g}", stroke=METHODS[colour], thick=1.5, opacity=0.4)
        image.path(f"M{left:g} {y(first):g}L{right:g} {y(last):g}", stroke=METHODS[colour], thick=4)
        image.text(left, above + SHARES_HEIGHT + 22, "first", colour="faint")
        image.text(right, above + SHARES_HEIGHT + 22, "last", colour="faint", anchor="end")
    return above + SHARES_HEIGHT + 40


def _told(heading: str, rows: Rows) -> str:
    """For those who hear the picture."""
    means = []
    for (method, coefficient), found in rows.items():
        skilled = _skilled(found)
        more = f" ({mean_over_runs(skilled).mean:.1f} % with skills)" if skilled else ""
        mean = mean_over_runs([100 * o.after for o in found]).mean
        words = ROWS[method][0] + (f" ({strength(coefficient).strip()})" if coefficient is not None else "")
        means.append(f"{words} {mean:.1f} %{more}")
    return f"{heading}: {', '.join(means)}."


def _told_share(heading: str, found: Ends) -> str:
    first, last = (sum(ends) / len(found) for ends in zip(*found, strict=True))
    return f"{heading}, strongly gated share: {first:.1f} to {last:.1f} %."


if __name__ == "__main__":
    run_command(main)
