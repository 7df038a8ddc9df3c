"""Success in training of the pretrained model by iteration: ``python scripts/picture_pretrained.py OUT.svg``.

A thin line is a run, a thick one the mean over the runs of a method. Figures are those of
``docs/data/map_pretrained.json``, which ``benchmarks/map.py collect pretrained`` wrote.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from map_cells import Cell, Outcome, read
from picture_claims import PANELS, ROWS, rows_of, strength
from svg import METHODS, Drawing

from sdar.errors import UserError, command, run_command

SERIES = "pretrained"
WIDTH, LEFT, RIGHT, TOP, HEIGHT = 640, 62, 24, 108, 260
"""Of the picture, and what lies left, right and above of the axes, and their height."""
STEP = 10
"""Per cent between two lines of the grid."""
__all__ = ["Cell", "Outcome", "drawing", "main"]


@command
def main(arguments: Sequence[str]) -> int:
    """Read, draw, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="picture to write")
    options = parser.parse_args(arguments)
    options.out.write_text(drawing(read(SERIES), str(options.out)), encoding="utf-8")
    print(options.out)
    return 0


Curves = dict[tuple[str, float | None], list[list[float]]]


def drawing(outcomes: Sequence[Outcome], words: str) -> str:
    """The picture; ``words``: the command's. UserError: a run has no curve, or one of other iterations."""
    lengths = sorted({len(outcome.success_curve) for outcome in outcomes})
    if len(lengths) != 1 or not lengths[0]:
        told = ", ".join(map(str, lengths)) or "no run"
        raise UserError(f"runs of {SERIES} must have curves of the same length in docs/data, got lengths of {told}")
    curves = {
        key: [[round(100 * rate, 2) for rate in outcome.success_curve] for outcome in found]
        for key, found in rows_of(outcomes).items()
    }
    (heading,) = PANELS[SERIES].values()
    image = Drawing(
        WIDTH,
        f"{heading}: success in training by iteration",
        f"Thin lines are runs, thick ones means. {_told(curves)}",
        f"python scripts/picture_pretrained.py {words}",
    )
    image.text(16, 32, f"{heading}: success in training by iteration", size=16, bold=True)
    _legend(image, curves)
    axes = _Axes(curves)
    _frame(image, axes)
    for thick, opacity in ((1.5, 0.4), (3.5, 1.0)):  # the means above all runs
        for (method, _), runs in curves.items():
            for curve in runs if opacity < 1 else [_mean(runs)]:
                points = [f"{axes.x(step):g} {axes.y(rate):g}" for step, rate in enumerate(curve)]
                colour = METHODS[ROWS[method][1]]
                image.path(f"M{'L'.join(points)}", stroke=colour, thick=thick, opacity=opacity)
    image.text(16, TOP + HEIGHT + 76, "Thin: runs. Thick: means over the runs of a method.", colour="faint")
    return image.document(TOP + HEIGHT + 96)


class _Axes:
    """From iterations and per cent to places."""

    def __init__(self, curves: Curves) -> None:
        every = [curve for runs in curves.values() for curve in runs]
        self.last = max(len(every[0]) - 1, 1)
        self.most = min(100, STEP * math.ceil((max(map(max, every)) or 1) / STEP))

    def x(self, step: float) -> float:
        return round(LEFT + step / self.last * (WIDTH - LEFT - RIGHT), 1)

    def y(self, rate: float) -> float:
        return round(TOP + HEIGHT * (1 - rate / self.most), 1)


def _frame(image: Drawing, axes: _Axes) -> None:
    """Grid, numbers, and what they are."""
    image.text(16, TOP - 16, "success of the iteration's responses", colour="faint")
    for rate in range(0, axes.most + 1, STEP):
        image.path(f"M{LEFT} {axes.y(rate):g}H{WIDTH - RIGHT}", stroke="line", thick=1)
        image.text(LEFT - 10, axes.y(rate) + 5, f"{rate} %", colour="faint", anchor="end")
    for step in range(axes.last + 1):
        image.text(axes.x(step), TOP + HEIGHT + 22, str(step), colour="faint", anchor="middle")
    told = "iterations that the weights have learned from"
    image.text((LEFT + WIDTH - RIGHT) / 2, TOP + HEIGHT + 46, told, colour="faint", anchor="middle")


def _legend(image: Drawing, curves: Curves) -> None:
    x = 16.0
    for method, coefficient in curves:
        words, colour = ROWS[method]
        image.path(f"M{x + 2:g} 59h24", stroke=METHODS[colour], thick=3.5)
        image.text(x + 36, 64, words, (strength(coefficient), "faint"))
        x += 64 + 8 * len(words + strength(coefficient))


def _mean(runs: Sequence[Sequence[float]]) -> list[float]:
    return [sum(rates) / len(rates) for rates in zip(*runs, strict=True)]


def _told(curves: Mapping[tuple[str, float | None], Sequence[Sequence[float]]]) -> str:
    """The ends of the means, for those who hear the picture."""
    means = {ROWS[method][0]: _mean(runs) for (method, _), runs in curves.items()}
    return f"{', '.join(f'{name}: {mean[0]:.1f} to {mean[-1]:.1f} %' for name, mean in means.items())}."


if __name__ == "__main__":
    run_command(main)
