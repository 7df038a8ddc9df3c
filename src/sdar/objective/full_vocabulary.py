"""Divergences between whole next-token distributions.

All take log-probs [N, V] of student and teacher, normalized over V and bounded below (:func:`bounded`), and give one
number per token, in nats. The teacher carries no gradient. The logits they are computed from never exist for all
tokens at once: see :mod:`sdar.objective.chunked_head`.

With ``top_k`` the vocabulary is reduced to k + 1 outcomes, the teacher's k likeliest tokens and "any other", the same
for both sides. By the data-processing inequality this is a lower bound of the full divergence, exact for k = V - 1.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sdar.config.fields import AtLeastOne, settings
from sdar.objective.divergence import Divergence
from sdar.objective.tokens import LOG_PROB_FLOOR, DistillationTokens

LogProbs = Float[Tensor, "*N V"]
"""Of whole distributions, nats."""


def bounded(log_probs: LogProbs) -> LogProbs:
    """Log-probs no lower than ``LOG_PROB_FLOOR``: 0 times -inf would be nan where a side rules a token out."""
    return log_probs.clamp(min=LOG_PROB_FLOOR)


def reverse_kl(student: LogProbs, teacher: LogProbs) -> Float[Tensor, "*N"]:
    """KL(student || teacher) = sum_v p_v (log p_v - log q_v) over the last dimension, p the student."""
    return (student.exp() * (student - teacher)).sum(-1)


def forward_kl(student: LogProbs, teacher: LogProbs) -> Float[Tensor, "*N"]:
    """KL(teacher || student) = sum_v q_v (log q_v - log p_v) over the last dimension, q the teacher."""
    return (teacher.exp() * (teacher - student)).sum(-1)


def jensen_shannon(student: LogProbs, teacher: LogProbs) -> Float[Tensor, "*N"]:
    """Half KL(p || m) plus half KL(q || m) with m = (p + q) / 2; in [0, log 2], symmetric."""
    middle = torch.logaddexp(student, teacher) - math.log(2.0)
    return 0.5 * (student.exp() * (student - middle) + teacher.exp() * (teacher - middle)).sum(-1)


def top_k_and_tail(student: Tensor, teacher: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Log-probs [N, k + 1] of the teacher's k likeliest tokens and of all others together, for both sides.

    ``k`` from 1 to V - 1; which token wins a tie is torch's choice.
    """
    top = teacher.detach().topk(k, dim=-1).indices

    def reduced(log_probs: Tensor) -> Tensor:
        # Not log(1 - sum of the top): that loses all digits, and its gradient its bound, where the top is nearly all.
        tail = log_probs.scatter(-1, top, LOG_PROB_FLOOR).logsumexp(-1, keepdim=True)
        return torch.cat([log_probs.gather(-1, top), tail], dim=-1)

    return reduced(student), reduced(teacher.detach())


@settings(frozen=True)
class FullVocabularyDivergence(Divergence):
    """A divergence of whole distributions.

    ``top_k``  at least 1: compare the teacher's k likeliest tokens and the rest as one; None: every token
    """

    top_k: AtLeastOne | None = None
    full_vocabulary: ClassVar[bool] = True

    def between(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Divergence [N] of bounded log-probs [N, V]; the gradient flows through ``student`` alone."""
        if self._reduces(student):
            assert self.top_k is not None
            return self.measure(*top_k_and_tail(student, teacher, self.top_k))
        return self.measure(student, teacher.detach())

    def slope(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Derivative [N, V] of :meth:`between` by the student's log-probs, each taken as a variable of its own."""
        if not self._reduces(student):
            return self.measure_slope(student, teacher)
        return _derivative(self.between, student, teacher)

    @abstractmethod
    def measure(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Divergence [N] of bounded log-probs [N, outcomes]."""

    def measure_slope(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Derivative of :meth:`measure` by the student's log-probs. A closed form needs less memory than this one."""
        return _derivative(self.measure, student, teacher)

    def _reduces(self, log_probs: Tensor) -> bool:
        return self.top_k is not None and self.top_k < log_probs.shape[-1]

    def token_loss(self, tokens: DistillationTokens) -> Tensor:
        """What :meth:`between` gave where the logits were at hand. ValueError where it was not computed."""
        if tokens.divergence is None:
            raise ValueError("the divergence of the whole distributions was not computed")
        return tokens.divergence.float()


@settings(frozen=True)
class ReverseKL(FullVocabularyDivergence):
    """KL(student || teacher): do not do what the teacher would not do."""

    name: ClassVar[str] = "reverse_kl"

    def measure(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See :func:`reverse_kl`."""
        return reverse_kl(student, teacher)

    def measure_slope(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Closed form: p (log p - log q + 1)."""
        return (student - teacher).add_(1.0).mul_(student.exp())


@settings(frozen=True)
class ForwardKL(FullVocabularyDivergence):
    """KL(teacher || student): be ready to do all that the teacher would do."""

    name: ClassVar[str] = "forward_kl"

    def measure(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See :func:`forward_kl`."""
        return forward_kl(student, teacher)

    def measure_slope(self, student: Tensor, teacher: Tensor) -> Tensor:  # noqa: ARG002
        """Closed form: -q."""
        return teacher.exp().neg_()


@settings(frozen=True)
class JensenShannon(FullVocabularyDivergence):
    """The Jensen-Shannon divergence, between the two and bounded."""

    name: ClassVar[str] = "jsd"

    def measure(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See :func:`jensen_shannon`."""
        return jensen_shannon(student, teacher)

    def measure_slope(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Closed form: p (log p - log m) / 2."""
        ratio = torch.logaddexp(student, teacher).sub_(math.log(2.0)).neg_().add_(student)
        return ratio.mul_(student.exp()).mul_(0.5)


def _derivative(function: Callable[[Tensor, Tensor], Tensor], student: Tensor, teacher: Tensor) -> Tensor:
    """Derivative [N, V] of a sum over tokens by the student's log-probs."""
    with torch.enable_grad():
        leaf = student.detach().requires_grad_()
        (slope,) = torch.autograd.grad(function(leaf, teacher.detach()).sum(), leaf)
    return slope
