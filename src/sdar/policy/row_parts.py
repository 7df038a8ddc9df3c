"""Rows that are computed together."""

from __future__ import annotations

from collections.abc import Sequence


def row_parts(sizes: Sequence[int], most_tokens: int) -> list[range]:
    """Cut rows of these lengths into neighbors that have at most ``most_tokens`` when padded alike, or are one row."""
    parts: list[range] = []
    start = width = 0
    for row, size in enumerate(sizes):
        if row > start and (row + 1 - start) * max(width, size) > most_tokens:
            parts.append(range(start, row))
            start, width = row, 0
        width = max(width, size)
    return [*parts, range(start, len(sizes))]
