"""Extra supervised rows: tokens whose likelihood is added to the loss, with a mask and a denominator of their own.

A source looks at the finished episodes in PREPARE and gives rows of ids. Their loss, minus the mean log-prob of the
masked ids over the whole optimizer step, is added to the objective. They never share a batch with other rows, whose
scores stay what they were to the bit. Another source is a subclass of :class:`Supervision`, named by
``algorithm.supervision``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sdar.config.fields import NotNegative, settings
from sdar.episode import Episode
from sdar.learning.batch import TokenRows, pack
from sdar.learning.ranks import Ranks
from sdar.learning.step_plan import even_micro_batches, plan_row_steps
from sdar.policy.log_probs import score_tokens


@settings(frozen=True)
class Supervision(ABC):
    """A source of rows. ``coefficient`` >= 0, of their loss; 0 leaves them out altogether."""

    coefficient: NotNegative = 0.01
    name: ClassVar[str]
    """What it is called in the documentation."""

    @abstractmethod
    def rows(self, episodes: Sequence[Episode], context: str, pad_id: int) -> TokenRows:
        """The rows of this rank's episodes (whole groups), right-padded with ``pad_id``; ``context``: append or window.

        A masked id must not be the first of its row, and no row may be longer than those of the episodes.
        """


@settings(frozen=True)
class SolvedEpisodes(Supervision):
    """Self-imitation: what the run's own solved attempts said; of each group the shortest one alone.

    Attempts that an error ended, or that dynamic sampling leaves out, are not imitated.
    """

    name: ClassVar[str] = "own solved episodes"

    def rows(self, episodes: Sequence[Episode], context: str, pad_id: int) -> TokenRows:
        """The student's own rows of these episodes."""
        best: dict[str, Episode] = {}
        for episode in episodes:
            task = episode.task.task_id
            if episode.success and episode.in_loss and not episode.end.is_error:
                best[task] = min(best.get(task, episode), episode, key=lambda one: len(one.turns))
        chosen = list(best.values())
        batch = pack(chosen, [[0.0] * len(episode.turns) for episode in chosen], pad_id, context)
        return batch.rows


class SupervisedSteps(NamedTuple):
    """The rows of an iteration, dealt out to its optimizer steps; ``micro_batches``: per step, rows of each pass."""

    rows: TokenRows
    coefficient: float
    micro_batches: list[list[list[int]]]
    counts: list[float]
    """Masked ids of each step, over all ranks."""

    def micro_batch(self, rows: Sequence[int], device: torch.device) -> TokenRows:
        """The named rows on a device; without any, one of two ids of which none is masked (ranks with less to do)."""
        return self.rows.select(rows).to(device) if rows else TokenRows.nobody(device)


def supervised_steps(
    supervision: Supervision,
    episodes: Sequence[Episode],
    *,
    context: str,
    pad_id: int,
    steps: int,
    max_tokens: int,
    ranks: Ranks,
) -> SupervisedSteps:
    """Deal the rows out to ``steps`` optimizer steps, in order and nearly equally; all ranks make as many passes.

    ``max_tokens``: padded tokens per micro-batch.
    """
    rows = supervision.rows(episodes, context, pad_id)
    plan = plan_row_steps(rows.lengths(), steps=steps, max_tokens=max_tokens)
    own = [float(rows.response_mask[step.rows].sum()) for step in plan]
    counts = ranks.reduce(torch.tensor(own, dtype=torch.float64), "sum").tolist()
    return SupervisedSteps(rows, supervision.coefficient, even_micro_batches(plan, ranks), counts)


def supervised_sum(model: PreTrainedModel, rows: TokenRows, temperature: float) -> Tensor:
    """Minus the sum of the masked ids' log-probs, nats, 0-dim, with gradient; at the sampling temperature."""
    log_probs = score_tokens(model, *rows, temperature=temperature).log_probs
    return -torch.where(rows.response_mask, log_probs, 0.0).sum()
