"""What is known of the sampled tokens: the one view that gates and divergences read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Float
from torch import Tensor

LOG_PROB_FLOOR = -1e5
"""Lowest log-prob (nats) that enters the arithmetic. A token that the teacher rules out has -inf, and 0 * inf would be
nan; at the floor its gate is exactly 0 for every useful beta, and nothing is lost for finite logits."""


def bounded_log_probs(log_probs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Log-probs in float32, bounded below by ``LOG_PROB_FLOOR``; nan stays nan, so that it is noticed."""
    return log_probs.float().clamp(min=LOG_PROB_FLOOR)


def gap(
    teacher_log_probs: Float[Tensor, "*shape"], student_log_probs: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Teacher minus student log-prob of each token, in nats, detached float32.

    Positive: the teacher endorses the token. Always finite unless an input is nan or +inf.
    """
    return bounded_log_probs(teacher_log_probs.detach()) - bounded_log_probs(student_log_probs.detach())


@dataclass(frozen=True, eq=False)
class DistillationTokens:
    """The sampled tokens of a batch as gate and divergence see them; all tensors of one shape, log-probs in nats.

    ``student``      log-prob of the sampled token at the current weights; the only one that carries a gradient
    ``teacher``      its log-prob in the teacher's context
    ``old``          its log-prob at the weights that sampled it; None where it is not known
    ``divergence``   of the two whole distributions, with gradient; None unless the form is ``full_vocabulary``
    ``entropy``      of the student's distribution over the full vocabulary, nats; None unless the gate needs it
    ``max_entropy``  log V, the entropy of the uniform distribution, nats; above 0
    ``advantage``    of the token's turn, shaped where a method shapes it; None where it is not known
    ``turn``         0-based turn of the token in its episode; None where it is not known
    """

    student: Tensor
    teacher: Tensor
    old: Tensor | None = None
    divergence: Tensor | None = None
    entropy: Tensor | None = None
    max_entropy: float = 1.0
    advantage: Tensor | None = None
    turn: Tensor | None = None

    @cached_property
    def gap(self) -> Tensor:
        """Teacher minus student log-prob, nats, detached float32."""
        return gap(self.teacher, self.student)


@dataclass
class TokenScores:
    """Scores of the tokens of a batch, in nats.

    ``log_probs`` [B, T] float32: log-probability of id t given the ids before it; 0 where not scored.
    ``entropy``   [B, T] float32: entropy of the distribution of id t (full vocabulary, at the scoring temperature); 0
    where not scored; None unless requested.
    ``divergence``, ``teacher_log_probs`` [B, T] float32: distance from the teacher's distribution, and its log-prob of
    the token; 0 where not scored; None without a teacher.
    ``states`` [N, H]: hidden states that predict the N scored tokens, row by row; None unless requested.
    ``max_entropy``: log V.
    """

    log_probs: Tensor
    entropy: Tensor | None = None
    divergence: Tensor | None = None
    teacher_log_probs: Tensor | None = None
    states: Tensor | None = None
    max_entropy: float = math.inf
