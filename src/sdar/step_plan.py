"""The plan of an iteration's optimiser steps: which rows share a step, and which of them a micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdar.errors import UserError


@dataclass(frozen=True)
class OptimiserStep:
    """The rows of one optimiser step, cut into micro-batches. Empty when none of its rows has anything to score."""

    micro_batches: list[list[int]]

    @property
    def rows(self) -> list[int]:
        """All rows of the step, ascending."""
        return sorted(row for micro_batch in self.micro_batches for row in micro_batch)


def plan_steps(
    lengths: Sequence[int],
    *,
    episodes_per_step: int | None,
    token_budget: int,
    episode_index: Sequence[int] | None = None,
) -> list[OptimiserStep]:
    """Plan the optimiser steps of an iteration; deterministic, and known before the first backward.

    ``lengths`` are the rows' lengths in tokens; ``episode_index`` names each row's episode (None: row i is episode
    i). Episodes are cut, in order, into ceil(episodes / episodes_per_step) consecutive steps whose sizes differ by
    at most one: a short last step would weigh as much as a full one. The number of steps depends on the number of
    episodes alone, so that ranks with equally many episodes take equally many steps. None: one step.

    Inside a step rows are sorted by length, longest first, and filled greedily into micro-batches of at most
    ``token_budget`` padded tokens (rows x longest row). Every row is in exactly one micro-batch, except rows of
    length 0, which have nothing to compute and are in none.

    UserError when ``episodes_per_step`` or ``token_budget`` is not positive, or a single row exceeds the budget.
    """
    if token_budget < 1:
        raise UserError(f"The token budget of a micro-batch is {token_budget}, allowed are numbers of at least 1.")
    if episodes_per_step is not None and episodes_per_step < 1:
        raise UserError(f"episodes_per_step is {episodes_per_step}, allowed are numbers of at least 1 or null.")
    if max(lengths, default=0) > token_budget:
        raise UserError(
            f"The token budget of a micro-batch is {token_budget}, but one row has {max(lengths)} tokens; "
            f"allowed are numbers of at least the longest row."
        )
    owner = list(range(len(lengths))) if episode_index is None else list(episode_index)
    if len(owner) != len(lengths):
        raise ValueError(f"{len(owner)} episode indices for {len(lengths)} rows")
    episodes = sorted(set(owner))
    steps = -(-len(episodes) // episodes_per_step) if episodes_per_step else min(1, len(episodes))
    step_of = {episode: position * steps // len(episodes) for position, episode in enumerate(episodes)}
    rows_of: list[list[int]] = [[] for _ in range(steps)]
    for row, episode in enumerate(owner):
        rows_of[step_of[episode]].append(row)
    return [OptimiserStep(_micro_batches(rows, lengths, token_budget)) for rows in rows_of]


def _micro_batches(rows: Sequence[int], lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Longest first: the greatest need of memory comes at the start, and a micro-batch's first row is its width."""
    batches: list[list[int]] = []
    for row in sorted((r for r in rows if lengths[r] > 0), key=lambda r: (-lengths[r], r)):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= token_budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
