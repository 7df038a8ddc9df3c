"""Success after training by method, over the seeds of the claims: ``python scripts/picture_claims.py OUT.svg``.

A dot is a run, a bar the mean over seeds with its 95 % interval (Student's t). Series and their regimes are those of
:data:`PANELS`, rows those of :data:`ROWS`; figures are those of ``docs/data/map_SERIES.json``, which
``benchmarks/map.py collect SERIES`` wrote.
Regimes of which a planned run is missing are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from map_cells import BASELINE, Cell, Outcome, cells, read
from svg import METHODS, Drawing

from sdar.errors import UserError, command, run_command
from sdar.evaluation.statistics import mean_over_runs

WIDTH, LEFT, RIGHT, TOP, ROW = 640, 222, 190, 48, 30
"""Of the picture: its width, what lies left, right and above of the first panel, and the height of a row."""
HEAD, GAP = 56, 40
"""Above a panel's rows, for its heading, and below them, for its numbers."""
WORDS = 60
"""Least distance at which two words stand above their lines; nearer ones stand beside them."""
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
    "teachers": {"turns8": "ALFWorld, eight turns", "webshop": "WebShop"},
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
}
"""Methods, how they are called, and the number of their colour."""
__all__ = ["Cell", "Outcome", "complete", "drawing", "main"]


@command
def main(arguments: list[str]) -> int:
    """Read, draw, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="picture to write")
    parser.add_argument("--series", choices=PANELS, default="claims", help="of benchmarks/map.yaml (claims)")
    options = parser.parse_args(arguments)
    found = complete(read(options.series), options.series)
    if not found:
        raise UserError(f"--series must be one whose runs were collected, got {options.series}")
    words = f"{options.out} --series {options.series}"
    options.out.write_text(drawing(found, words, PANELS[options.series]), encoding="utf-8")
    print(options.out)
    return 0


def complete(outcomes: Sequence[Outcome], series: str) -> list[Outcome]:
    """Those of the regimes of which every planned cell has been played."""
    played, planned = {o.cell for o in outcomes}, cells(series)
    whole = {cell.regime for cell in planned} - {cell.regime for cell in planned if cell not in played}
    return [outcome for outcome in outcomes if outcome.cell.regime in whole]


def drawing(outcomes: Sequence[Outcome], words: str, called: Mapping[str, str] = PANELS["claims"]) -> str:
    """The picture. ``words``: the command's, ``called``: regimes in their order, and their headings."""
    panels = {name: _rows([o for o in outcomes if o.cell.regime == name]) for name in called}
    image = Drawing(
        WIDTH,
        "Success of the student alone after training, by method",
        " ".join(_told(called[name], rows) for name, rows in panels.items() if rows),
        f"python scripts/picture_claims.py {words}",
    )
    image.text(16, 32, "Success without skills in the prompt, after training", size=16, bold=True)
    y = TOP
    for name, rows in panels.items():
        if rows:
            y = _panel(image, called[name], rows, y)
    image.text(
        16, y + 4, "Dots: runs. Bars: means, 95 % intervals over seeds. Dashed: before training.", colour="faint"
    )
    return image.document(y + 24)


Rows = dict[tuple[str, float | None], list[Outcome]]


def _rows(outcomes: Sequence[Outcome]) -> Rows:
    rows: Rows = {}
    for name in ROWS:
        for outcome in outcomes:
            if outcome.cell.method == name:
                rows.setdefault((name, outcome.cell.coefficient), []).append(outcome)
    return rows


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
        strength = "" if coefficient is None else f"  \N{GREEK SMALL LETTER LAMDA} {coefficient:g}"
        image.text(16, y + 5, words, (strength, "faint"))
        _marks(image, [100 * o.after for o in found], y, METHODS[colour])
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


def _x(rate: float) -> float:
    return round(LEFT + rate / 100 * (WIDTH - LEFT - RIGHT), 1)


def _told(heading: str, rows: Rows) -> str:
    """For those who hear the picture."""
    means = [f"{ROWS[key[0]][0]} {100 * sum(o.after for o in found) / len(found):.1f} %" for key, found in rows.items()]
    return f"{heading}: {', '.join(means)}."


if __name__ == "__main__":
    run_command(main)
