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


STATISTICS = ("episode", "release")
"""Values of ``statistics.kind``."""


def check_step_settings(
    *,
    statistics: str,
    context: str,
    episodes_per_step: int | None,
    rows_per_step: int | None,
    micro_batch_rows: int | None,
) -> None:
    """UserError for settings that are out of range or make no sense together; names are those of the configuration."""
    if statistics not in STATISTICS:
        raise UserError(f"statistics.kind={statistics}: allowed are {' and '.join(STATISTICS)}")
    for name, value in (
        ("module.episodes_per_step", episodes_per_step),
        ("module.rows_per_step", rows_per_step),
        ("statistics.micro_batch_rows", micro_batch_rows),
    ):
        if value is not None and value < 1:
            raise UserError(f"{name}={value}: allowed are numbers of at least 1, or null")
    if episodes_per_step is not None and rows_per_step is not None:
        raise UserError(
            f"module.rows_per_step={rows_per_step}: allowed is null beside module.episodes_per_step={episodes_per_step}"
        )
    if statistics != "release":
        if micro_batch_rows is not None:
            raise UserError(
                f"statistics.micro_batch_rows={micro_batch_rows}: only statistics=release cuts micro-batches by rows; "
                "allowed is null (module.token_budget bounds their memory)"
            )
        return
    if context != "window":
        raise UserError(
            f"statistics=release: its statistics are over rows of one turn each, but rollout.context={context}; "
            "allowed is rollout=window"
        )
    if rows_per_step is None or micro_batch_rows is None or rows_per_step % micro_batch_rows:
        raise UserError(
            f"module.rows_per_step={rows_per_step}: with statistics=release a multiple of statistics.micro_batch_rows="
            f"{micro_batch_rows} is allowed"
        )


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
    ``token_budget`` padded tokens (rows x longest row); a row that is longer than that is one by itself. Every row is
    in exactly one micro-batch, except rows of length 0, which have nothing to compute and are in none.

    UserError when ``episodes_per_step`` or ``token_budget`` is not positive.
    """
    if episodes_per_step is not None and episodes_per_step < 1:
        raise UserError(f"episodes_per_step is {episodes_per_step}, allowed are numbers of at least 1 or null.")
    _check_budget(token_budget)
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


def plan_row_steps(lengths: Sequence[int], *, steps: int, token_budget: int) -> list[OptimiserStep]:
    """Plan exactly ``steps`` optimiser steps, which cut the rows in order into parts whose sizes differ by at most one.

    The number of steps is given, not counted, so that ranks with different numbers of rows take equally many; a rank
    with fewer rows than steps has empty ones. Rows of length 0 have nothing to compute and are in none. Micro-batches
    as in :func:`plan_steps`. UserError as there.
    """
    _check_budget(token_budget)
    rows = [row for row, length in enumerate(lengths) if length > 0]
    parts = [rows[len(rows) * step // steps : len(rows) * (step + 1) // steps] for step in range(steps)]
    return [OptimiserStep(_micro_batches(part, lengths, token_budget)) for part in parts]


def plan_release_steps(
    lengths: Sequence[int], *, steps: int, rows_per_step: int, micro_batch_rows: int
) -> list[OptimiserStep]:
    """Plan ``steps`` optimiser steps as the paper's code does: rows in order, so many a step, so many a micro-batch.

    The last step that has rows may have fewer of them, and so may its last micro-batch; steps beyond it are empty.
    Rows of length 0 are in none.
    """
    rows = [row for row, length in enumerate(lengths) if length > 0]
    plan: list[OptimiserStep] = []
    for step in range(steps):
        part = rows[step * rows_per_step : (step + 1) * rows_per_step]
        cuts = range(0, len(part), micro_batch_rows)
        plan.append(OptimiserStep([part[start : start + micro_batch_rows] for start in cuts]))
    return plan


def _check_budget(token_budget: int) -> None:
    if token_budget < 1:
        raise UserError(f"The token budget of a micro-batch is {token_budget}, allowed are numbers of at least 1.")


def _micro_batches(rows: Sequence[int], lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Longest first: the greatest need of memory comes at the start, and a micro-batch's first row is its width."""
    batches: list[list[int]] = []
    for row in sorted((r for r in rows if lengths[r] > 0), key=lambda r: (-lengths[r], r)):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= token_budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
