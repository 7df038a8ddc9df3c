"""What became of a task: the figures of its group, over all ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from sdar.episode import Episode, Task, TaskOutcome
from sdar.learning.batch import TokenBatch
from sdar.learning.ranks import Ranks

_SUMS = 5
"""Episodes, returns, successes, gaps and tokens of solved episodes."""


def task_outcomes(
    tasks: Sequence[Task],
    episodes: Sequence[Episode],
    batch: TokenBatch,
    ranks: Ranks,
    replaced: Sequence[Episode] = (),
) -> list[TaskOutcome]:
    """The outcomes of all tasks, in their order.

    Args:
        tasks: of all ranks.
        episodes: of this rank.
        batch: the rows of these episodes, with old log-probs, and the teacher's where it was scored.
        ranks: whose sums are added. A task is played by one rank, so that nothing is added but zeros, and the result is
            exact.
        replaced: of this rank, played and thrown away by dynamic sampling: they have returns, and no gap was measured.
    """
    position = {task.task_id: i for i, task in enumerate(tasks)}
    sums = torch.zeros(len(tasks), _SUMS, dtype=torch.float64)
    for number, episode in enumerate([*episodes, *replaced]):
        if not episode.end.is_error:
            scored = episode.success and number < len(episodes)
            gap, tokens = _gaps(batch, number) if scored else (0.0, 0)
            row = sums[position[episode.task.task_id]]
            row += torch.tensor([1, episode.episode_return, episode.success, gap, tokens], dtype=torch.float64)
    return [_outcome(task, row) for task, row in zip(tasks, ranks.reduce(sums, "sum").tolist(), strict=True)]


def _gaps(batch: TokenBatch, episode: int) -> tuple[float, int]:
    """Sum of the gaps of an episode's response tokens, and their number."""
    if batch.teacher_log_probs is None or batch.old_log_probs is None:
        return 0.0, 0
    mask = batch.response_mask & (batch.episode_index == episode)[:, None]
    gaps = batch.teacher_log_probs[mask].double() - batch.old_log_probs[mask].double()
    return math.fsum(gaps.tolist()), int(mask.sum())


def _outcome(task: Task, sums: Sequence[float]) -> TaskOutcome:
    episodes, returns, successes, gap, tokens = sums
    count = max(episodes, 1.0)
    return TaskOutcome(task, int(episodes), returns / count, successes / count, gap / tokens if tokens else None)
