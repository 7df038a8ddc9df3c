"""What the teacher thought of each turn in all iterations so far, kept within bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

MOST_COLUMNS = 256
"""When a run has more iterations, neighbours share a column."""


class TurnHistory:
    """Means by iteration and turn of the figures of :attr:`sdar.learning.metrics.IterationReport.by_turn`.

    Attributes:
        width: iterations of a column; column c has those from c * width on.
    """

    def __init__(self) -> None:
        self.width = 1
        self._sums: dict[str, dict[int, list[list[float]]]] = {}

    def add(self, iteration: int, figures: Mapping[str, Sequence[float | None]]) -> None:
        """Take in an iteration: by name one figure per turn; None, or one that is not finite: there is none."""
        while iteration // self.width >= MOST_COLUMNS:
            self._merge()
        for name, values in figures.items():
            _add(
                self._sums.setdefault(name, {}),
                iteration // self.width,
                [[0.0, 0] if value is None or not math.isfinite(value) else [value, 1] for value in values],
            )

    def rows(self, name: str) -> list[list[float | None]]:
        """One row per turn, up to the last one that was played, of means per column; [] without any figure."""
        columns = self._sums.get(name, {})
        played = [turn for column in columns.values() for turn, (_, count) in enumerate(column) if count]
        if not played:
            return []
        return [
            [_mean(columns.get(column), turn) for column in range(max(columns) + 1)] for turn in range(max(played) + 1)
        ]

    def state(self) -> dict[str, Any]:
        """Plain lists and numbers for a checkpoint."""
        columns = {name: [[column, sums] for column, sums in found.items()] for name, found in self._sums.items()}
        return {"width": self.width, "columns": columns}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> TurnHistory:
        """What :meth:`state` gave."""
        history = cls()
        history.width = int(state["width"])
        history._sums = {
            str(name): {int(column): [[float(total), int(count)] for total, count in sums] for column, sums in found}
            for name, found in state["columns"].items()
        }
        return history

    def _merge(self) -> None:
        self.width *= 2
        for name, columns in self._sums.items():
            merged: dict[int, list[list[float]]] = {}
            for column, sums in columns.items():
                _add(merged, column // 2, sums)
            self._sums[name] = merged


def _add(columns: dict[int, list[list[float]]], column: int, sums: list[list[float]]) -> None:
    before = columns.get(column, [[0.0, 0] for _ in sums])
    columns[column] = [[a + c, b + d] for (a, b), (c, d) in zip(before, sums, strict=True)]


def _mean(column: list[list[float]] | None, turn: int) -> float | None:
    if column is None or not column[turn][1]:
        return None
    total, count = column[turn]
    return total / count
