"""What is minimized between teacher and student, per token, before the gate.

Two families. The *sampled* forms look at the token that was sampled and need one log-prob of each side. The *full
vocabulary* forms (:mod:`sdar.objective.full_vocabulary`) compare whole distributions and need the teacher's logits
when the student is updated. Another form is a subclass of :class:`Divergence` and a file in ``configs/divergence``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from sdar.config.fields import settings
from sdar.objective.gate import Gate
from sdar.objective.policy_gradient import LOG_RATIO_LIMIT
from sdar.objective.tokens import DistillationTokens, bounded_log_probs


@settings(frozen=True)
class Divergence(ABC):
    """One way to measure, and to shrink, what separates the student from the teacher."""

    name: ClassVar[str]
    """What it is called in ``configs/divergence``."""
    full_vocabulary: ClassVar[bool] = False
    """Whether whole distributions are compared, so that the teacher's logits must exist during the update."""
    applies_gate: ClassVar[bool] = False
    """Whether the gate is part of it, and its loss is not multiplied by the gate of the sampled token."""

    def check_gate(self, gate: Gate) -> None:  # noqa: B027
        """UserError for a gate that this form cannot be used with."""

    @abstractmethod
    def token_loss(self, tokens: DistillationTokens) -> Tensor:
        """Loss per token, float32; the gradient flows through the student's numbers alone."""


@settings(frozen=True)
class Sampled(Divergence):
    """teacher - student log-prob of the sampled token: the paper's surrogate (section 2.3).

    Its gradient is -grad log pi, whatever the teacher says: a likelihood of the student's own tokens. The teacher
    acts through the gate alone, so with a gate that is constant there is no distillation.

    ``importance_weighted``  the gradient times r = pi / pi_old, which from the second optimizer step on keeps its mean
                             for samples of the old policy; the paper has no such factor. In the first step r is 1
    """

    importance_weighted: bool = False
    name: ClassVar[str] = "sampled"

    def token_loss(self, tokens: DistillationTokens) -> Tensor:
        """Finite for every finite student, and for a teacher that rules the token out (-inf).

        ValueError without old log-probs, if they are needed.
        """
        student = bounded_log_probs(tokens.student)
        loss = bounded_log_probs(tokens.teacher.detach()) - student
        if not self.importance_weighted:
            return loss
        ratio = _ratio(tokens, "divergence.importance_weighted=true")
        return loss.detach() + (ratio.detach() - ratio)


@settings(frozen=True)
class SampledReverseKL(Divergence):
    """-stopgrad(gap) * r with r = pi / pi_old: the score-function gradient of KL(student || teacher).

    With r = 1 (the first optimizer step) the gradient is -gap * grad log pi: tokens that the teacher endorses become
    likelier, tokens it rejects less likely, and over the student's samples the mean is the gradient of the reverse
    KL of the next token. Later steps weigh each token by r, which keeps that mean for samples of the old policy (of
    the token; the state it was reached in is taken as it is). Gaps are unbounded, and so is this gradient.
    """

    name: ClassVar[str] = "sampled_rkl"

    def token_loss(self, tokens: DistillationTokens) -> Tensor:
        """Its value is a one-sample estimate of the reverse KL in nats. ValueError without old log-probs."""
        return -tokens.gap * _ratio(tokens, self.name)


@settings(frozen=True)
class ImportanceWeightedK3(Divergence):
    """rho * k3 with k3 = exp(-l) - 1 + l, l = S - T and rho = pi / pi_old: the loss of Skill-SD.

    k3 is a one-sample estimate of KL(student || teacher), never negative; rho makes its mean that of the present
    student. The gradient flows through both factors. For the exponentials -l is at most 20 and log rho at most 10:
    beyond that they are constants. A token that the teacher rules out costs no more than the bound of its log-prob.

    Source: arXiv 2605.15155, table of baselines, and ZJU-REAL/SDAR at 8b85c23, skillsd_utils.py.
    """

    name: ClassVar[str] = "skill_sd"

    def token_loss(self, tokens: DistillationTokens) -> Tensor:
        """In nats, at least 0. ValueError without old log-probs."""
        if tokens.old is None:
            raise ValueError("skill_sd weighs tokens by pi / pi_old and needs the old log-probs")
        student = bounded_log_probs(tokens.student)
        log_ratio = student - bounded_log_probs(tokens.teacher.detach())
        k3 = torch.exp((-log_ratio).clamp(max=20.0)) - 1.0 + log_ratio
        rho = torch.exp((student - bounded_log_probs(tokens.old.detach())).clamp(max=10.0))
        return rho * k3


def _ratio(tokens: DistillationTokens, what: str) -> Tensor:
    """The ratio pi / pi_old of each token, with gradient. ValueError without old log-probs."""
    if tokens.old is None:
        raise ValueError(f"{what} weighs tokens by pi / pi_old and needs the old log-probs")
    log_ratio = bounded_log_probs(tokens.student) - bounded_log_probs(tokens.old.detach())
    return log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
