"""The gated self-distillation term (SDAR) per token."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from sdar.objective.gate import bounded_log_probs, gap, gap_gate


class DistillationLoss(NamedTuple):
    """Per token, float32: ``loss`` carries the gradient; ``gate`` in [0, 1] and ``gap`` in nats are detached."""

    loss: Tensor
    gate: Tensor
    gap: Tensor


def gated_distillation_loss(student_log_probs: Tensor, teacher_log_probs: Tensor, beta: float) -> DistillationLoss:
    """Gate * (teacher - student log-prob) of each sampled token; both inputs share one shape.

    The teacher and the gate are constants, so the gradient is -gate * grad log pi: a likelihood of the student's own
    tokens, weighted by how much the teacher endorses them, and never larger than the likelihood's own gradient.
    Finite for every finite student and for a teacher that rules the token out (-inf).

    Source: arXiv 2605.15155, section 2.3 (gap gate) and appendix A, Propositions 1, 2 and 4.
    """
    teacher = bounded_log_probs(teacher_log_probs.detach())
    difference = gap(teacher, student_log_probs)
    gate = gap_gate(difference, beta)
    return DistillationLoss(gate * (teacher - bounded_log_probs(student_log_probs)), gate, difference)
