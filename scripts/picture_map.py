"""The screen of the map, cell by cell: ``python scripts/picture_map.py OUT.svg``.

A panel is a regime, a row a method, a column a coefficient; a box has the mean difference to GRPO in points, outlined
where its 95 % interval excludes 0. Two regimes side by side share their rows. Regimes are those of :data:`CALLED`,
methods those of :data:`GROUPS`; figures are those of ``docs/data/map_screen.json``, which ``benchmarks/map.py collect
screen`` wrote.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from map_cells import BASELINE, PLAN, Cell, Outcome, cells, read
from map_tables import Row, rows
from picture_claims import ROWS, strength
from svg import Drawing, gap_colour

from sdar.errors import UserError, command, run_command

SERIES = "screen"
CALLED = {
    "turns8": "ALFWorld, 8 turns",
    "arithmetic_short": "Arithmetic, groups of 8",
    "webshop": "WebShop",
    "arithmetic_stale": "Arithmetic, stale steps",
    "turns8_stale": "ALFWorld, 8 turns, stale steps",
    "arithmetic": "Arithmetic, 40 iterations",
    "turns6": "ALFWorld, 6 turns",
    "arithmetic_group4": "Arithmetic, groups of 4",
    "turns14": "ALFWorld, 14 turns",
    "arithmetic_group16": "Arithmetic, groups of 16",
    "strong_start": "ALFWorld, 14 turns, strong start",
    "search_qa": "Search-QA",
}
"""Regimes and their headings, in an order that puts those side by side of which the most cells are played."""
GROUPS = {
    "SDAR": (
        *("sdar", "sdar_initial", "sdar_ema", "sdar_weighted"),
        *("centred", "centred_initial", "centred_mean", "centred_weighted", "expected", "expected_initial"),
    ),
    "without a gate": ("hybrid", "hybrid_initial", "hybrid_ema", "raw", "opsd_initial"),
    "schedules": ("hybrid_share", "hybrid_then_grpo", "hybrid_down"),
    "what the teacher reads": (
        *("sdar_wrong", "sdar_random", "sdar_half", "sdar_none", "sdar_demonstration"),
        *("sdar_live_wrong", "sdar_live_random"),
        *("hybrid_wrong", "hybrid_random", "hybrid_half", "hybrid_none", "hybrid_demonstration"),
        *("hybrid_live_wrong", "hybrid_live_random"),
    ),
    "other methods": ("skill_grpo", "skill_sd_initial", "hindsight", "rlsd", "agent_opsd", "gigpo"),
}
"""Methods in their order; between two groups there is a space."""
LABELS = {method: words for method, (words, _) in ROWS.items()} | {
    "sdar_weighted": "SDAR, weighted",
    "centred": "centred, live",
    "centred_initial": "centred, initial",
    "centred_mean": "centred, step mean",
    "centred_weighted": "centred, weighted",
    "expected": "expected, live",
    "opsd_initial": "OPSD, initial",
    "hybrid_share": "share held (target)",
    "hybrid_then_grpo": "OPSD, then GRPO",
    "hybrid_down": "GRPO+OPSD, fading",
    "sdar_half": "SDAR, half wrong",
    "sdar_none": "SDAR, no skills",
    "sdar_demonstration": "SDAR, demonstration",
    "sdar_live_wrong": "SDAR, live, wrong",
    "sdar_live_random": "SDAR, live, random",
    "hybrid_half": "GRPO+OPSD, half wrong",
    "hybrid_none": "GRPO+OPSD, no skills",
    "hybrid_demonstration": "GRPO+OPSD, demonstration",
    "hybrid_live_wrong": "GRPO+OPSD, live, wrong",
    "hybrid_live_random": "GRPO+OPSD, live, random",
    "skill_sd_initial": "Skill-SD, initial",
    "hindsight": "Hindsight",
    "rlsd": "RLSD (weight)",
    "agent_opsd": "AgentOPSD (weight)",
    "gigpo": "GiGPO (weight)",
}
"""Methods, how they are called: as in the pictures of the claims, and those that have no row there."""
COLUMNS = (0.01, 0.03, 0.1, 0.3, 1, 3)
EDGES = (3, 8, 15, 30)
"""Points from which a box has the next colour."""
WIDTH, LEFT, LABEL, GAP = 678, 14, 230, 14
"""Of the picture, left of everything, of the rows' names, and between two panels."""
ROW, CELL, BETWEEN = 22, 34, 3
"""Height of a row, width of a column, and what of both is between two boxes."""
HEAD, SPACE, BELOW = 112, 8, 18
"""Above a panel's rows, for its heading; between two groups of rows, and below all of them."""
DIGIT, POINT = 8.4, 4.2
"""Widths that numbers are given, so that they fit into their boxes with whatever font there is."""
MINUS = "\N{MINUS SIGN}"
__all__ = ["PLAN", "Cell", "Outcome", "cells", "drawing", "main", "read"]


@command
def main(arguments: Sequence[str]) -> int:
    """Read, draw, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="picture to write")
    options = parser.parse_args(arguments)
    options.out.write_text(drawing(read(SERIES), str(options.out)), encoding="utf-8")
    print(options.out)
    return 0


@dataclass(frozen=True)
class Box:
    """A cell of the map: its mean difference to GRPO, and whether the 95 % interval excludes 0."""

    value: int
    clear: bool = False

    @property
    def words(self) -> str:
        """What stands in it."""
        return f"{self.value:+d}".replace("-", MINUS) if self.value else "0"

    @property
    def colour(self) -> str:
        """Of its ground."""
        level = sum(abs(self.value) >= edge for edge in EDGES)
        return gap_colour(level if self.value > 0 else -level) if level else "panel"


Boxes = dict[str, dict[float | None, Box]]
"""Of a regime, by method and coefficient."""


@dataclass(frozen=True)
class Panel:
    """A regime: success before training (with skills in the prompt, too) and after it with GRPO, and its boxes."""

    called: str
    start: str
    reached: str
    boxes: Boxes


def drawing(outcomes: Sequence[Outcome], words: str) -> str:
    """The picture; ``words``: the command's. UserError: a cell has no place in it, or there is none."""
    found = rows(outcomes)
    _check("regimes", [row.regime for row in found], CALLED)
    _check("methods", [row.method for row in found], [BASELINE, *(m for group in GROUPS.values() for m in group)])
    _check("coefficients", [row.coefficient for row in found], [None, *COLUMNS])
    pairs = sorted({row.difference.n for row in found if row.difference is not None})
    if not pairs:
        raise UserError(f"runs of {SERIES} must be in docs/data beside those of {BASELINE}, got none")
    panels = _panels(outcomes, found)
    image = Drawing(
        WIDTH,
        "Success after training minus GRPO's, by regime, method and coefficient",
        f"In points; clear: the 95 % interval excludes 0. {' '.join(map(_told, panels))}",
        f"python scripts/picture_map.py {words}",
    )
    image.text(LEFT, 32, "Success after training minus GRPO's, in points", size=16, bold=True)
    y = _legend(image, pairs, 50)
    for first in range(0, len(panels), 2):
        y = _band(image, panels[first : first + 2], y)
    return image.document(y)


def _panels(outcomes: Sequence[Outcome], found: Sequence[Row]) -> list[Panel]:
    """Of the regimes that have a difference, in their order."""
    panels = []
    for regime, called in CALLED.items():
        boxes: Boxes = {}
        for row in found:
            if row.regime == regime and row.difference is not None:
                low, high = row.difference.interval
                box = Box(round(row.difference.mean), clear=low > 0 or high < 0)
                boxes.setdefault(row.method, {})[row.coefficient] = box
        if boxes:
            start = next(o for o in outcomes if (o.cell.regime, o.cell.method) == (regime, BASELINE))
            skilled = start.before_with_skills
            more = "" if skilled is None else f" / {100 * skilled:.1f} %"
            reached = next(row.after.mean for row in found if (row.regime, row.method) == (regime, BASELINE))
            panels.append(Panel(called, f"{100 * start.before:.1f} %{more}", f"{reached:.1f} %", boxes))
    return panels


def _check(what: str, got: Sequence[object], known: Collection[object]) -> None:
    if unknown := dict.fromkeys(str(one) for one in got if one not in known):
        raise UserError(f"{what} of the map must be of {', '.join(map(str, known))}, got {', '.join(unknown)}")


def _legend(image: Drawing, pairs: Sequence[int], y: float) -> float:
    """Colours and marks; ``pairs``: the numbers of pairs that cells have. The top of what is below."""
    for number, value in enumerate([*(-edge for edge in reversed(EDGES)), 0, *EDGES]):
        _box(image, LEFT + number * CELL, y, Box(value))
    image.text(LEFT + 9 * CELL + 10, y + 15, "colours: from these points on", colour="faint")
    _box(image, LEFT, y + ROW + 4, Box(EDGES[1], clear=True))
    told = "outlined and bold: the 95 % interval over the pairs excludes 0"
    image.text(LEFT + CELL + 10, y + ROW + 19, told, colour="faint")
    count = f"{pairs[0]} to {pairs[-1]}" if len(pairs) > 1 else f"{pairs[0]}"
    lines = [
        f"Boxes: means over {count} pairs of runs. They are indications, not results: of those",
        "without any effect 1 in 20 would be outlined, too. Dots: not run.",
        "A box across its row: a method without a coefficient. (target), (weight): columns",
        "are values of these. Groups of rows, from the top:",
        f"{', '.join(GROUPS)}.",
        "Teachers that read something else have the initial weights, unless they are live.",
    ]
    return image.lines(LEFT, y + 2 * ROW + 22, lines, colour="faint")


def _band(image: Drawing, panels: Sequence[Panel], top: float) -> float:
    """Panels side by side, whose rows are the methods of any of them; the top of the next ones."""
    lefts = [LEFT + LABEL + number * (len(COLUMNS) * CELL + GAP) for number in range(len(panels))]
    image.path(f"M{LEFT} {top:g}H{WIDTH - LEFT}", stroke="line", thick=1)
    for words, below in (("start / with skills", 64), ("GRPO, after training", 84), ("coefficient", 106)):
        image.text(LEFT, top + below, words, colour="faint")
    for left, panel in zip(lefts, panels, strict=True):
        heading, _, more = panel.called.partition(", ")
        image.text(left, top + 24, heading, bold=True)
        image.text(left, top + 44, more)
        image.text(left, top + 64, panel.start)
        image.text(left, top + 84, panel.reached)
        for number, coefficient in enumerate(COLUMNS):
            _number(image, left + number * CELL, top + 106, f"{coefficient:g}", colour="faint")
    y = top + HEAD
    for group in GROUPS.values():
        shown = [method for method in group if any(method in panel.boxes for panel in panels)]
        for method in shown:
            image.text(LEFT, y + 15, LABELS[method])
            for left, panel in zip(lefts, panels, strict=True):
                if method in panel.boxes:
                    _row(image, left, y, panel.boxes[method])
            y += ROW
        y += SPACE if shown else 0
    return y + BELOW - SPACE


def _row(image: Drawing, left: float, y: float, boxes: Mapping[float | None, Box]) -> None:
    """A method's boxes in a panel; dots where there are none."""
    if None in boxes:
        _box(image, left, y, boxes[None], columns=len(COLUMNS))
        return
    for number, coefficient in enumerate(COLUMNS):
        x = left + number * CELL
        if coefficient in boxes:
            _box(image, x, y, boxes[coefficient])
        else:
            image.path(f"M{x + (CELL - BETWEEN) / 2:g} {y + (ROW - BETWEEN) / 2:g}h0", stroke="line", thick=3)


def _box(image: Drawing, x: float, y: float, box: Box, columns: int = 1) -> None:
    width, height = columns * CELL - BETWEEN, ROW - BETWEEN
    if box.clear:  # the line lies within
        image.box(x + 1, y + 1, width - 2, height - 2, fill=box.colour, stroke="ink", thick=2)
    else:
        image.box(x, y, width, height, fill=box.colour)
    _number(image, x, y + 15, box.words, columns, colour="on" if box.colour != "panel" else "ink", bold=box.clear)


def _number(image: Drawing, x: float, y: float, words: str, columns: int = 1, **options: Any) -> None:
    """In the middle of a column, or of several."""
    width = sum(POINT if letter == "." else DIGIT for letter in words)
    image.text(x + (columns * CELL - BETWEEN) / 2, y, words, anchor="middle", width=width, **options)


def _told(panel: Panel) -> str:
    """For those who hear the picture."""
    told = []
    for method in (method for group in GROUPS.values() for method in group if method in panel.boxes):
        boxes = sorted(panel.boxes[method].items(), key=lambda one: one[0] or 0)
        values = [f"{box.words}{strength(number)}{' (clear)' if box.clear else ''}" for number, box in boxes]
        told.append(f"{LABELS[method]} {', '.join(values)}")
    return f"{panel.called}, from {panel.start}, GRPO {panel.reached}: {'; '.join(told)}."


if __name__ == "__main__":
    run_command(main)
