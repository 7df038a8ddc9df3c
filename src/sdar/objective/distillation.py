"""The self-distillation term per token: a gate times a divergence."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from sdar.objective.divergence import DistillationTokens, Divergence
from sdar.objective.gate import Gate, GateTokens, gap


class DistillationLoss(NamedTuple):
    """Per token, float32: ``loss`` carries the gradient; ``gate`` in [0, 1] and ``gap`` in nats are detached."""

    loss: Tensor
    gate: Tensor
    gap: Tensor


def distillation_loss(
    tokens: DistillationTokens,
    gate: Gate,
    divergence: Divergence,
    *,
    entropy: Tensor | None = None,
    max_entropy: float = 1.0,
    advantage: Tensor | None = None,
    turn: Tensor | None = None,
) -> DistillationLoss:
    """Gate times divergence of each sampled token.

    Teacher and gate are constants. With the defaults of the paper (gap gate, sampled) the gradient is
    -gate * grad log pi: a likelihood of the student's own tokens, weighted by how much the teacher endorses them, and
    never larger than the likelihood's own gradient.

    ``entropy`` of the student, nats, where the gate needs it, ``max_entropy`` = log V, ``advantage`` and ``turn`` are
    for the gate: see :class:`sdar.objective.gate.GateTokens`.

    Source: arXiv 2605.15155, section 2.3 and appendix A, Propositions 1, 2 and 4.
    """
    difference = gap(tokens.teacher, tokens.student)
    value = gate.value(GateTokens(difference, entropy, max_entropy, advantage, turn))
    return DistillationLoss(value * divergence.token_loss(tokens), value, difference)
