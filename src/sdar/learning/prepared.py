"""What PREPARE gives to UPDATE: the rows of an iteration with all that stays fixed while the weights move."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import Tensor

from sdar.learning.batch import TokenBatch, TokenRows
from sdar.learning.step_plan import OptimizerStep
from sdar.learning.supervision import SupervisedSteps
from sdar.objective.chunked_head import OutputHead
from sdar.objective.tokens import DistillationTokens, TokenScores


@dataclass(frozen=True)
class Prepared:
    """The input of UPDATE, on the CPU.

    ``batch``        all rows of this rank, with old (and teacher, reference) log-probs; those are None that the
                     update's own passes give (:func:`sdar.learning.prepare.left_to_update`)
    ``advantages``   one number per turn of each episode
    ``steps``        rows of every micro-batch of every optimizer step
    ``entropy``      [B, T] float32 nats, of theta_old at the sampled positions, 0 elsewhere; None as the old log-probs
    ``max_entropy``  log V, the entropy of the uniform distribution, nats
    ``kl_charges``   what the return of each episode without error was charged for its KL to the reference; None:
                     nothing was charged
    ``unshaped``     [B, T] float32, the advantages before the shaping; None: nothing was shaped
    ``supervised``   extra supervised rows; None: there are none
    ``teacher``      the teacher's side of the rows; None: no teacher was scored
    """

    batch: TokenBatch
    advantages: list[list[float]]
    steps: list[OptimizerStep]
    entropy: Tensor | None
    max_entropy: float = math.inf
    kl_charges: list[float] | None = None
    unshaped: Tensor | None = None
    supervised: SupervisedSteps | None = None
    teacher: PreparedTeacher | None = None

    def completed(self, old: TokenScores) -> Prepared:
        """With the scores [B, T] that were left to the update."""
        teacher = self.batch.teacher_log_probs if old.teacher_log_probs is None else old.teacher_log_probs
        batch = replace(self.batch, old_log_probs=old.log_probs, teacher_log_probs=teacher)
        return replace(self, batch=batch, entropy=old.entropy)

    def scored(self, where: Tensor | None = None) -> DistillationTokens | None:
        """Sampled tokens as a gate sees them at theta_old, row by row; None: no teacher was scored.

        ``where`` [B, T] bool: which of the response tokens; None: all.
        """
        batch = self.batch
        if self.teacher is None or batch.teacher_log_probs is None or batch.old_log_probs is None:
            return None
        where = batch.response_mask if where is None else where
        return DistillationTokens(
            student=batch.old_log_probs[where],
            teacher=batch.teacher_log_probs[where],
            old=batch.old_log_probs[where],
            entropy=None if self.entropy is None else self.entropy[where],
            max_entropy=self.max_entropy,
            advantage=batch.advantage[where],
            turn=batch.turn_index[where],
        )


@dataclass(frozen=True)
class PreparedTeacher:
    """The teacher's side of the rows, on the CPU but for the head.

    ``rows``               the rows of the batch with the privileged block in their context
    ``privileged_tokens``  length of the block of each row, in tokens
    ``shared_tokens``      how many of its first ids each row shares with others; all 0: rows are computed whole
    ``states``             hidden states [n, H] of the n response tokens of each row, as they were before the update;
                           None unless they are kept
    ``head``               a copy of the output head of that time; None unless states are kept
    """

    rows: TokenRows
    privileged_tokens: list[int]
    shared_tokens: list[int]
    states: list[Tensor] | None = None
    head: OutputHead | None = None

    def fed_tokens(self, rows: Iterable[int]) -> int:
        """Tokens that scoring these rows feeds to the teacher at one state of its weights, padding left out."""
        chosen, lengths = list(rows), self.rows.lengths()
        beginnings = {tuple(self.rows.ids[row, : self.shared_tokens[row]].tolist()) for row in chosen}
        return sum(lengths[row] - self.shared_tokens[row] for row in chosen) + sum(map(len, beginnings))
