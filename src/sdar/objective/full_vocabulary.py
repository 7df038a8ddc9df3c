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
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sdar.config.fields import AtLeastOne, settings
from sdar.errors import UserError
from sdar.objective.divergence import Divergence
from sdar.objective.gate import Gate
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

    def under(self, gate: Gate) -> FullVocabularyDivergence:  # noqa: ARG002
        """The form to be measured in an update with this gate; itself, unless the gate is part of it."""
        return self

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


@settings(frozen=True)
class GatedExpected(FullVocabularyDivergence):
    """The expectation of the gated surrogate over the student's whole distribution: SDAR without sampling noise.

    With p the student, q the teacher, Delta_v = log q_v - log p_v and g the gate, the loss of a token is
    sum_v p_v (g(0) - g(Delta_v)), and the gradient sum_v (g(0) - g(Delta_v)) grad p_v, the gate detached. That is the
    mean of the sampled surrogate's gradient over tokens drawn from p (constants drop out of it). For a sigmoid gate
    of slope beta it is bounded by 1/2, tends to beta / 4 times the gradient of KL(student || teacher) as beta goes to
    0, and to that of minus the probability that the student gives to endorsed tokens as beta goes to infinity.

    The sum is at the present weights, so no drawn token is left to be weighted, however stale the samples are; the
    states are taken as sampled.
    """

    name: ClassVar[str] = "gated_expected"
    applies_gate: ClassVar[bool] = True

    def check_gate(self, gate: Gate) -> None:
        """Of the gap alone: the expectation of a gate that does not read it has no gradient.

        What else a gate reads is known of the sampled token, and not of the whole vocabulary.
        """
        if not gate.reads_gap or gate.needs_entropy or gate.centres_on_step or not _reads_only_the_gap(gate):
            raise UserError(
                f"divergence={self.name} takes the gate's mean over the vocabulary and needs a gate of the gap alone, "
                f"got gate={gate.name}; set gate=gap (a constant taken from the gate makes no difference here)"
            )

    def under(self, gate: Gate) -> FullVocabularyDivergence:
        """With that gate."""
        return _ExpectedGate(self.top_k, gate=gate)

    def measure(self, student: Tensor, teacher: Tensor) -> Tensor:  # noqa: ARG002
        """ValueError: it has no gate of its own, and is measured :meth:`under` one."""
        raise ValueError(f"divergence={self.name} is measured under a gate; call under(gate) first")


def _reads_only_the_gap(gate: Gate) -> bool:
    """Whether advantage and turn make no difference to the gate of some gaps."""
    gaps = torch.linspace(-2.0, 2.0, 9)
    alone = DistillationTokens(student=torch.zeros(9), teacher=gaps)
    try:
        expected = gate.value(alone)
        others = [
            gate.value(replace(alone, advantage=torch.full((9,), advantage), turn=torch.full((9,), turn)))
            for advantage, turn in ((1.0, 0), (-1.0, 3))
        ]
    except Exception:  # a gate of the user's own that does without neither
        return False
    return all(torch.equal(expected, other) for other in others)


@dataclass(frozen=True, kw_only=True)
class _ExpectedGate(FullVocabularyDivergence):
    """:class:`GatedExpected` with its gate."""

    gate: Gate
    name: ClassVar[str] = "gated_expected"
    applies_gate: ClassVar[bool] = True

    def measure(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (student.exp() * self._cost(student, teacher)).sum(-1)

    def measure_slope(self, student: Tensor, teacher: Tensor) -> Tensor:
        return self._cost(student, teacher).mul_(student.exp())

    def _cost(self, student: Tensor, teacher: Tensor) -> Tensor:
        """g(0) - g of every token, detached, in the dtype of the log-probs."""
        gates = self.gate.value(DistillationTokens(student=student.detach(), teacher=teacher))
        nothing = student.new_zeros(1)
        neutral = self.gate.value(DistillationTokens(student=nothing, teacher=nothing))
        return (neutral - gates).to(student.dtype)


def _derivative(function: Callable[[Tensor, Tensor], Tensor], student: Tensor, teacher: Tensor) -> Tensor:
    """Derivative [N, V] of a sum over tokens by the student's log-probs."""
    with torch.enable_grad():
        leaf = student.detach().requires_grad_()
        (slope,) = torch.autograd.grad(function(leaf, teacher.detach()).sum(), leaf)
    return slope
