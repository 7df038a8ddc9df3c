"""The plan of an iteration's optimizer steps: which rows share a step, and which of them a micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sdar.learning.ranks import Ranks


@dataclass(frozen=True)
class OptimizerStep:
    """The rows of one optimizer step, cut into micro-batches. Empty when none of its rows has anything to score."""

    micro_batches: list[list[int]]

    @property
    def rows(self) -> list[int]:
        """All rows of the step, ascending."""
        return sorted(row for micro_batch in self.micro_batches for row in micro_batch)


def even_micro_batches(steps: Sequence[OptimizerStep], ranks: Ranks) -> list[list[list[int]]]:
    """Rows of every micro-batch of every step, filled up with empty ones to the largest number of any rank.

    Each pass over sharded weights is a thing that all ranks do together.
    """
    own = [len(step.micro_batches) for step in steps]
    most = ranks.reduce(torch.tensor(own, dtype=torch.float64), "max").tolist()
    return [
        step.micro_batches + [[]] * (int(count) - len(step.micro_batches))
        for step, count in zip(steps, most, strict=True)
    ]


def plan_steps(
    lengths: Sequence[int],
    *,
    episodes_per_step: int | None,
    max_tokens: int,
    episode_index: Sequence[int] | None = None,
) -> list[OptimizerStep]:
    """Plan the optimizer steps of an iteration; deterministic, and known before the first backward.

    ``lengths`` are the rows' lengths in tokens; ``episode_index`` names each row's episode (None: row i is episode
    i). Episodes are cut, in order, into ceil(episodes / episodes_per_step) consecutive steps whose sizes differ by
    at most one: a short last step would weigh as much as a full one. The number of steps depends on the number of
    episodes alone, so that ranks with equally many episodes take equally many steps. None: one step.

    Inside a step rows are sorted by length, longest first, and filled greedily into micro-batches of at most
    ``max_tokens`` padded tokens (rows x longest row); a row that is longer than that is one by itself. Every row is
    in exactly one micro-batch, except rows of length 0, which have nothing to compute and are in none.

    ``episodes_per_step`` and ``max_tokens`` are at least 1.
    """
    owner = list(range(len(lengths))) if episode_index is None else list(episode_index)
    if len(owner) != len(lengths):
        raise ValueError(f"{len(owner)} episode indices for {len(lengths)} rows")
    episodes = sorted(set(owner))
    steps = -(-len(episodes) // episodes_per_step) if episodes_per_step else min(1, len(episodes))
    step_of = {episode: position * steps // len(episodes) for position, episode in enumerate(episodes)}
    rows_of: list[list[int]] = [[] for _ in range(steps)]
    for row, episode in enumerate(owner):
        rows_of[step_of[episode]].append(row)
    return [OptimizerStep(_micro_batches(rows, lengths, max_tokens)) for rows in rows_of]


def plan_row_steps(lengths: Sequence[int], *, steps: int, max_tokens: int) -> list[OptimizerStep]:
    """Plan exactly ``steps`` optimizer steps, which cut the rows in order into parts whose sizes differ by at most one.

    The number of steps is given, not counted, so that ranks with different numbers of rows take equally many; a rank
    with fewer rows than steps has empty ones. Rows of length 0 have nothing to compute and are in none. Micro-batches
    as in :func:`plan_steps`.
    """
    rows = [row for row, length in enumerate(lengths) if length > 0]
    parts = [rows[len(rows) * step // steps : len(rows) * (step + 1) // steps] for step in range(steps)]
    return [OptimizerStep(_micro_batches(part, lengths, max_tokens)) for part in parts]


def plan_reference_steps(
    lengths: Sequence[int], *, steps: int, rows_per_step: int, micro_batch_rows: int
) -> list[OptimizerStep]:
    """Plan ``steps`` optimizer steps as the paper's code does: rows in order, so many a step, so many a micro-batch.

    The last step that has rows may have fewer of them, and so may its last micro-batch; steps beyond it are empty.
    Rows of length 0 are in none.
    """
    rows = [row for row, length in enumerate(lengths) if length > 0]
    plan: list[OptimizerStep] = []
    for step in range(steps):
        part = rows[step * rows_per_step : (step + 1) * rows_per_step]
        cuts = range(0, len(part), micro_batch_rows)
        plan.append(OptimizerStep([part[start : start + micro_batch_rows] for start in cuts]))
    return plan


def _micro_batches(rows: Sequence[int], lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Longest first: the greatest need of memory comes at the start, and a micro-batch's first row is its width."""
    batches: list[list[int]] = []
    for row in sorted((r for r in rows if lengths[r] > 0), key=lambda r: (-lengths[r], r)):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= max_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
