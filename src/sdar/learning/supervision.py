"""Extra supervised rows: tokens that are imitated beside, with a mask and a denominator of their own.

A source looks at the finished episodes in PREPARE and gives rows of ids. Their loss, minus the mean log-prob of the
masked ids over the whole optimiser step, is added to the objective. They never share a batch with other rows, whose
scores stay what they were to the bit. Another source is a subclass of :class:`Supervision`, named by
``algorithm.supervision``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sdar.episode import Episode
from sdar.errors import UserError
from sdar.learning.batch import TeacherRows, pack
from sdar.learning.step_plan import plan_row_steps
from sdar.policy.log_probs import score_tokens


@dataclass(frozen=True)
class Supervision(ABC):
    """A source of rows. ``coefficient`` >= 0, of their loss; 0 leaves them out altogether."""

    coefficient: float = 0.01
    name: ClassVar[str]
    """What it is called in the documentation."""

    def __post_init__(self) -> None:
        """Refuse values that have no meaning."""
        if not (math.isfinite(self.coefficient) and self.coefficient >= 0):
            raise UserError(
                f"algorithm.supervision.coefficient is {self.coefficient}, allowed are finite numbers of at least 0."
            )

    @abstractmethod
    def rows(self, episodes: Sequence[Episode], context: str, pad_id: int) -> TeacherRows:
        """The rows of this rank's episodes (whole groups), right-padded with ``pad_id``; ``context``: append or window.

        A masked id must not be the first of its row, and no row may be longer than those of the episodes.
        """


@dataclass(frozen=True)
class SolvedEpisodes(Supervision):
    """Self-imitation: what the run's own solved attempts said; of each group the shortest one alone.

    Attempts that an error ended, or that dynamic sampling leaves out, are not imitated.
    """

    name: ClassVar[str] = "own solved episodes"

    def rows(self, episodes: Sequence[Episode], context: str, pad_id: int) -> TeacherRows:
        """The student's own rows of these episodes."""
        best: dict[str, Episode] = {}
        for episode in episodes:
            task = episode.task.task_id
            if episode.success and episode.learned and not episode.end.is_error:
                best[task] = min(best.get(task, episode), episode, key=lambda one: len(one.turns))
        chosen = list(best.values())
        batch = pack(chosen, [[0.0] * len(episode.turns) for episode in chosen], pad_id, context)
        return TeacherRows(batch.ids, batch.attention_mask, batch.response_mask)


class SupervisedSteps(NamedTuple):
    """The rows of an iteration, dealt out to its optimiser steps; ``micro_batches``: per step, rows of each pass."""

    rows: TeacherRows
    coefficient: float
    micro_batches: list[list[list[int]]]
    counts: list[float]
    """Masked ids of each step, over all ranks."""

    def micro_batch(self, rows: Sequence[int], device: torch.device) -> TeacherRows:
        """The named rows on a device; without any, one of two ids of which none is masked (ranks with less to do)."""
        if rows:
            return self.rows.select(rows).to(device)
        ids = torch.zeros(1, 2, dtype=torch.long, device=device)
        return TeacherRows(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool))


def supervised_steps(
    supervision: Supervision,
    episodes: Sequence[Episode],
    *,
    context: str,
    pad_id: int,
    steps: int,
    token_budget: int,
    reduce: Callable[[Tensor, str], Tensor],
) -> SupervisedSteps:
    """Deal the rows out to ``steps`` optimiser steps, in order and nearly equally; all ranks make as many passes.

    ``reduce(tensor, "sum" | "max")`` combines a float64 tensor over the ranks.
    """
    rows = supervision.rows(episodes, context, pad_id)
    plan = plan_row_steps(rows.lengths(), steps=steps, token_budget=token_budget)
    most = reduce(torch.tensor([float(len(step.micro_batches)) for step in plan], dtype=torch.float64), "max").tolist()
    own = [float(rows.response_mask[step.rows].sum()) for step in plan]
    counts = reduce(torch.tensor(own, dtype=torch.float64), "sum").tolist()
    parts = [
        step.micro_batches + [[]] * (int(count) - len(step.micro_batches))
        for step, count in zip(plan, most, strict=True)
    ]
    return SupervisedSteps(rows, supervision.coefficient, parts, counts)


def supervised_sum(model: PreTrainedModel, rows: TeacherRows, temperature: float) -> Tensor:
    """Minus the sum of the masked ids' log-probs, nats, 0-dim, with gradient; at the sampling temperature."""
    log_probs = score_tokens(model, *rows, temperature=temperature).log_probs
    return -torch.where(rows.response_mask, log_probs, 0.0).sum()
