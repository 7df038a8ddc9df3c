"""Success over the iterations, with a band over seeds: ``python scripts/picture_learning_curve.py SOURCE OUT.svg``.

SOURCE is the folder of a comparison or its ``comparison.json``, or the few figures of one that ``--data FILE`` wrote.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from svg import METHODS, Drawing

from sdar.compare.reporting.bands import Band, interval_band
from sdar.errors import UserError, command, run_command
from sdar.files import MB, read_json

WIDTH, LEFT, RIGHT, TOP, HEIGHT = 640, 58, 20, 84, 300
"""Of the picture, and what lies left, right and above of the axes, and their height."""
VIEWS = {"val": ("student alone", ""), "val_with_skills": ("with skills in the prompt", "7 6")}
"""Of an evaluation: its name, and how its line is broken."""
_MOST_METHODS = len(METHODS)


class Curve(NamedTuple):
    """A run's evaluations: ``solved`` of ``n`` tasks, by how many iterations the weights have learned from."""

    method: str
    seed: int
    view: str
    n: int
    solved: dict[int, int]


class Source(NamedTuple):
    """What is drawn, the command that made it, and the revision of the code."""

    command: list[str]
    revision: str
    curves: list[Curve]


@command
def main(arguments: list[str]) -> int:
    """Read, draw, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a comparison, or figures that --data wrote")
    parser.add_argument("out", type=Path, help="picture to write")
    parser.add_argument("--data", type=Path, metavar="FILE", help="write the figures that are drawn, too")
    options = parser.parse_args(arguments)
    source = read(options.source)
    options.out.write_text(drawing(source, options.data or options.source, options.out), encoding="utf-8")
    if options.data is not None:
        lines = ",\n".join(json.dumps(curve._asdict()) for curve in source.curves)
        head = json.dumps({"command": source.command, "revision": source.revision})[:-1]
        options.data.write_text(f'{head}, "curves": [\n{lines}\n]}}\n', encoding="utf-8")
    print(options.out)
    return 0


def read(place: Path) -> Source:
    """The evaluations of a comparison. UserError: there are none."""
    file = place / "comparison.json" if place.is_dir() else place
    record: Any = read_json(file, 100 * MB)
    try:
        if "curves" in record:
            found = [Curve(**(one | {"solved": _counts(one["solved"])})) for one in record["curves"]]
            return Source(record["command"], record["revision"], found)
        words = [word for word in record["command"] if not word.startswith(("logs_dir=", "run_dir="))]
        revision = str((record.get("git") or {}).get("revision", "unknown"))[:7]
        return Source(words, revision, [curve for run in record["runs"] for curve in _curves(run)])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"SOURCE must be a comparison, got {file}, which is none ({error})") from None


def _curves(run: Mapping[str, Any]) -> list[Curve]:
    found = []
    for view in VIEWS:
        rows = [row for row in run["curve"] if row["name"] == view]
        if rows:
            solved = {int(row["iterations"]): int(row["successes"]) for row in rows}
            found.append(Curve(run["method"], run["seed"], view, min(row["n"] for row in rows), solved))
    return found


def _counts(solved: Mapping[str, int]) -> dict[int, int]:
    return {int(step): int(count) for step, count in solved.items()}


def drawing(source: Source, data: Path, out: Path) -> str:
    """The picture."""
    methods = list(dict.fromkeys(curve.method for curve in source.curves))
    seeds = sorted({curve.seed for curve in source.curves})
    if not methods or len(methods) > _MOST_METHODS:
        raise UserError(f"SOURCE must have 1 to {_MOST_METHODS} methods with curves, got {len(methods)}")
    bands = {
        (method, view): interval_band([_rates(c) for c in source.curves if (c.method, c.view) == (method, view)])
        for method in methods
        for view in VIEWS
    }
    axes = _Axes([band for band in bands.values() if band.steps])
    image = Drawing(
        WIDTH,
        f"Success over the iterations: {', '.join(methods)}",
        f"{_described(bands)} Lines are means over {len(seeds)} seeds, bands Student's 95 % intervals over seeds. "
        f"Made by: {shlex.join(source.command)}, revision {source.revision}.",
        f"python scripts/picture_learning_curve.py {data} {out}",
    )
    _frame(image, axes, methods, seeds, min(curve.n for curve in source.curves))
    drawn = [(METHODS[methods.index(method)], VIEWS[view][1], band) for (method, view), band in bands.items()]
    for colour, _, band in drawn:
        _band(image, axes, band, colour)
    for colour, dash, band in drawn:
        _line(image, axes, band, colour, dash)
    return image.document(TOP + HEIGHT + 58)


class _Axes:
    """From iterations and per cent to places."""

    def __init__(self, bands: Sequence[Band]) -> None:
        self.last = max((band.steps[-1] for band in bands), default=0) or 1
        ends = [value for band in bands for row in (band.mean, band.low, band.high) for value in row]
        self.most = min(100, 10 * math.ceil(max(value for value in ends if not math.isnan(value)) / 10))

    def x(self, step: float) -> float:
        return round(LEFT + step / self.last * (WIDTH - LEFT - RIGHT), 1)

    def y(self, rate: float) -> float:
        return round(TOP + HEIGHT * (1 - min(max(rate, 0), self.most) / self.most), 1)


def _rates(curve: Curve) -> dict[int, float]:
    return {step: 100 * count / curve.n for step, count in sorted(curve.solved.items())}


def _frame(image: Drawing, axes: _Axes, methods: Sequence[str], seeds: Sequence[int], n: int) -> None:
    """Grid, numbers, and what is what."""
    each = 10 if axes.most <= 60 else 20
    for rate in range(0, axes.most + 1, each):
        image.path(f"M{LEFT} {axes.y(rate):g}H{WIDTH - RIGHT}", stroke="line", thick=1)
        image.text(LEFT - 8, axes.y(rate) + 5, f"{rate} %", colour="faint", anchor="end")
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**9) if axes.last <= 8 * step)
    for iteration in range(0, axes.last + 1, step):
        image.text(axes.x(iteration), TOP + HEIGHT + 22, str(iteration), colour="faint", anchor="middle")
    told = f"iterations ({len(seeds)} seeds, the same {n} unseen tasks each time)"
    image.text((LEFT + WIDTH - RIGHT) / 2, TOP + HEIGHT + 46, told, colour="faint", anchor="middle")
    x: float = LEFT
    for number, method in enumerate(methods):
        image.path(f"M{x:g} 24h24", stroke=METHODS[number], thick=3)
        image.text(x + 32, 29, method, bold=True)
        x += 56 + 9 * len(method)
    x = LEFT
    for name, dash in VIEWS.values():
        image.path(f"M{x:g} 52h28", stroke="faint", dash=dash)
        image.text(x + 36, 57, name, colour="faint")
        x += 68 + 8 * len(name)


def _band(image: Drawing, axes: _Axes, band: Band, colour: str) -> None:
    if not band.steps or any(math.isnan(value) for value in (*band.low, *band.high)):
        return
    upper, lower = _points(axes, band.steps, band.high), _points(axes, band.steps, band.low)
    image.path(f"M{'L'.join([*upper, *reversed(lower)])}Z", fill=colour, opacity=0.16)


def _line(image: Drawing, axes: _Axes, band: Band, colour: str, dash: str) -> None:
    if band.steps:
        image.path(f"M{'L'.join(_points(axes, band.steps, band.mean))}", stroke=colour, thick=2.5, dash=dash)


def _points(axes: _Axes, steps: Sequence[int], values: Sequence[float]) -> list[str]:
    return [f"{axes.x(step):g} {axes.y(value):g}" for step, value in zip(steps, values, strict=True)]


def _described(bands: Mapping[tuple[str, str], Band]) -> str:
    """The ends of the lines, for those who hear the picture."""
    ends = [
        f"{method}, {VIEWS[view][0]}: {band.mean[0]:.1f} to {band.mean[-1]:.1f} %"
        for (method, view), band in bands.items()
        if band.steps
    ]
    return f"{'; '.join(ends)}."


if __name__ == "__main__":
    run_command(main)
