"""Iteration x turn as a picture: where in an episode the teacher has its opinion, and how that moves."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tensorboard.compat.proto.summary_pb2 import Summary

from sdar.callbacks.board.canvas import GRID, HEIGHT, LARGE, SOFT, WIDTH, Canvas
from sdar.callbacks.board.colours import blend
from sdar.callbacks.board.turns import TurnHistory
from sdar.learning.curriculum import TURN_LABELS

GAP, STRONG = "pictures/gap_by_turn", "pictures/strongly_gated_by_turn"

_LEFT, _RIGHT, _TOP, _BOTTOM = 70, WIDTH - 24, 52, 318
_WIDEST = 60
"""Pixels of a column, so that the first iterations are columns, too."""
_BAR = 240
_HELD = 0.95
"""Share of the cells that the scale holds; single ones of few tokens would make all others white."""


def heat_maps(history: TurnHistory) -> list[Summary]:
    """The mean gap, and the strongly gated share of the open tokens; what there is of it."""
    maps = []
    gaps = history.rows("gap_mean")
    if gaps:
        limit = scale_limit(value for row in gaps for value in row if value is not None)
        scaled = [[None if value is None else value / limit for value in row] for row in gaps]
        canvas = _map("Mean gap by iteration and turn", "no such turn", scaled, history.width)
        _legend(canvas, f"rejects  -{limit:g}", f"+{limit:g} nats  endorses")
        maps.append(canvas.summary(GAP))
    shares = history.rows("strongly_gated_of_open")
    if shares:
        scaled = [[None if value is None else 2 * value - 1 for value in row] for row in shares]
        canvas = _map("Strongly gated, of the open tokens", "no open token", scaled, history.width)
        _legend(canvas, "none  0", "1  all of them")
        maps.append(canvas.summary(STRONG))
    return maps


def scale_limit(values: Iterable[float]) -> float:
    """The end of a scale around 0: 1, 2 or 5 times a power of ten, at least 0.01, that holds 95 % of the values."""
    sizes = sorted(abs(value) for value in values)
    most = max(sizes[math.ceil(_HELD * len(sizes)) - 1], 0.01)
    power = 10.0 ** math.floor(math.log10(most))
    return next(limit for limit in (power, 2 * power, 5 * power, 10 * power) if limit >= 0.9999 * most)


def _map(title: str, grey: str, rows: list[list[float | None]], per_column: int) -> Canvas:
    """Rows of values in [-1, 1], one per turn; ``grey``: what it means that there is none."""
    canvas = Canvas()
    canvas.text(16, 24, title, LARGE)
    columns = len(rows[0])
    width = min(_RIGHT - _LEFT, columns * _WIDEST)
    height = _BOTTOM - _TOP
    cells = [[GRID if value is None else blend(value) for value in row] for row in rows]
    canvas.cells(_LEFT, _TOP, width, height, cells)
    for x, y, dx, dy in ((_LEFT, _TOP, 0, height), (_LEFT, _BOTTOM, width, 0)):
        canvas.line(x, y, dx, dy, SOFT)
    for turn in range(len(rows)):
        label = TURN_LABELS[turn].lstrip("0") or "0"
        canvas.text(_LEFT - 10, _TOP + (turn + 0.5) * height / len(rows), label, align="r")
    canvas.text(8, _BOTTOM + 22, "turn", colour=SOFT)
    step = _tick_step(columns * per_column)
    for iteration in range(0, columns * per_column, step):
        middle = _LEFT + (iteration // per_column + 0.5) * width / columns
        canvas.text(middle, _BOTTOM + 22, str(iteration), align="m")
    canvas.text(WIDTH / 2, _BOTTOM + 52, f"iteration; grey: {grey}", colour=SOFT, align="m")
    return canvas


def _tick_step(iterations: int) -> int:
    """Iterations between two numbers on the axis: at most seven numbers."""
    power = int(10 ** max(0, len(str(iterations)) - 2))
    return next(step for step in (power, 2 * power, 5 * power, 10 * power, 20 * power) if 6 * step >= iterations)


def _legend(canvas: Canvas, low: str, high: str) -> None:
    left, y = (WIDTH - _BAR) // 2, HEIGHT - 42
    canvas.cells(left, y, _BAR, 26, [[blend(2 * i / (_BAR - 1) - 1) for i in range(_BAR)]])
    canvas.text(left - 10, y + 13, low, align="r")
    canvas.text(left + _BAR + 10, y + 13, high)
