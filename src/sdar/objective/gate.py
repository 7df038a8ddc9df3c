"""The gap between teacher and student, and the gates that decide how far a token is distilled.

Source: arXiv 2605.15155, sections 2.2-2.3. The gap is measured on the sampled token alone; it is minus a one-sample
estimate of the reverse KL divergence. Everything in here is float32 and carries no gradient: with a gate that is not
detached, the term's gradient could change its sign where the teacher disagrees (Proposition 5).

A gate is a class with settings. Another one is a subclass of :class:`Gate` and a file in ``configs/gate``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor

from sdar.errors import UserError

LOG_PROB_FLOOR = -1e5
"""Lowest log-prob (nats) that enters the arithmetic. A token that the teacher rules out has -inf, and 0 * inf would be
nan; at the floor its gate is exactly 0 for every useful beta, and nothing is lost for finite logits."""

EntropyScale = Literal["normalised", "raw"]


def bounded_log_probs(log_probs: Tensor) -> Tensor:
    """Log-probs in float32, bounded below by ``LOG_PROB_FLOOR``; nan stays nan, so that it is noticed. Any shape."""
    return log_probs.float().clamp(min=LOG_PROB_FLOOR)


def gap(teacher_log_probs: Tensor, student_log_probs: Tensor) -> Tensor:
    """Teacher minus student log-prob of each token, in nats, detached float32. Any shape, equal for both.

    Positive: the teacher endorses the token. Always finite unless an input is nan or +inf.
    """
    return bounded_log_probs(teacher_log_probs.detach()) - bounded_log_probs(student_log_probs.detach())


def gap_gate(gap: Tensor, beta: float) -> Tensor:
    """sigmoid(beta * gap): in [0, 1], non-decreasing in the gap, 0.5 where the gap is 0. Detached float32.

    ``beta`` >= 0, in 1/nats (ValueError below 0); 0 gives 0.5 everywhere, whatever the teacher says.
    """
    if beta < 0:
        raise ValueError(f"beta is {beta}, allowed are numbers of at least 0")
    return torch.sigmoid(beta * gap.detach().float())


class GateTokens(NamedTuple):
    """What a gate may read of the tokens of a batch; tensors of one shape, none of which carries a gradient on.

    ``gap``          teacher minus student log-prob of the sampled token, nats
    ``entropy``      of the student's distribution over the full vocabulary, nats; None unless ``needs_entropy``
    ``max_entropy``  log V, the entropy of the uniform distribution, nats; above 0
    ``advantage``    of the token's turn, shaped where a method shapes it; None where nobody knows it
    ``turn``         0-based turn of the token in its episode; None where nobody knows it
    """

    gap: Tensor
    entropy: Tensor | None = None
    max_entropy: float = 1.0
    advantage: Tensor | None = None
    turn: Tensor | None = None


@dataclass(frozen=True)
class Gate(ABC):
    """The weight of each token in the distillation term. Subclasses are frozen dataclasses of their settings.

    ``threshold``  in [0, 1]; a token counts as strongly gated above it (a metric, no part of the loss)
    """

    threshold: float = 0.5

    name: ClassVar[str]
    """What it is called in ``configs/gate``."""
    reads_gap: ClassVar[bool] = True
    """Whether the gap has a part in it; if not, its activity says nothing of the teacher."""
    needs_entropy: ClassVar[bool] = False
    """Whether :meth:`value` reads the student's entropy; it comes from logits that are computed anyway."""

    def __post_init__(self) -> None:
        """Refuse values that have no meaning."""
        if not 0 <= self.threshold <= 1:
            raise UserError(f"gate.threshold is {self.threshold}, allowed are numbers from 0 to 1.")

    @abstractmethod
    def value(self, tokens: GateTokens) -> Tensor:
        """Gate of each token in [0, 1], detached float32, of the shape of ``tokens.gap``."""

    def scaled(self, factor: float) -> Self:
        """The gate with its slope multiplied by ``factor`` >= 0; itself where it has no slope, or the factor is 1."""
        beta = getattr(self, "beta", None)
        return self if beta is None or factor == 1.0 else replace(self, beta=beta * factor)  # type: ignore[call-arg]


@dataclass(frozen=True)
class _Sloped(Gate):
    """A sigmoid gate. ``beta`` >= 0: its slope; 0 gives 0.5 everywhere."""

    beta: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.beta) and self.beta >= 0):
            raise UserError(f"gate.beta is {self.beta}, allowed are finite numbers of at least 0.")


@dataclass(frozen=True)
class GapGate(_Sloped):
    """sigmoid(beta * gap): trust what the teacher endorses. The paper's default (section 2.3, gate 2).

    ``beta`` is in 1/nats.
    """

    name: ClassVar[str] = "gap"

    def value(self, tokens: GateTokens) -> Tensor:
        """Non-decreasing in the gap, 0.5 where the gap is 0."""
        return gap_gate(tokens.gap, self.beta)


@dataclass(frozen=True)
class EntropyGate(_Sloped):
    """sigmoid(beta * h): trust the teacher where the student is undecided (section 2.3, gate 1). Never below 0.5.

    ``entropy_scale``  normalised: h = entropy / log V, in [0, 1]; raw: h in nats. The paper does not say which.
    """

    entropy_scale: EntropyScale = "normalised"
    name: ClassVar[str] = "entropy"
    reads_gap: ClassVar[bool] = False
    needs_entropy: ClassVar[bool] = True

    def value(self, tokens: GateTokens) -> Tensor:
        """Non-decreasing in the entropy; the gap has no part in it."""
        h = scaled_entropy(tokens.entropy, tokens.max_entropy, self.entropy_scale)
        return torch.sigmoid(self.beta * h).expand_as(tokens.gap)


@dataclass(frozen=True)
class SoftOrGate(_Sloped):
    """sigmoid(beta * [1 - (1 - h)(1 - gap)]): the student is undecided, or the teacher endorses (section 2.3, gate 3).

    The paper's formula as it stands: the gap is in nats and not bounded. With h in [0, 1] the gate is non-decreasing
    in the gap for every gap; it is bounded below by no constant, and where gap = 0 it is the entropy gate's value.

    ``entropy_scale``      normalised: h = entropy / log V; raw: h in nats, refused unless ``allow_raw_entropy``
    ``allow_raw_entropy``  take raw entropies all the same: above 1 nat the gate *falls* as the gap rises
    """

    entropy_scale: EntropyScale = "normalised"
    allow_raw_entropy: bool = False
    name: ClassVar[str] = "soft_or"
    needs_entropy: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse an "or" that turns round, unless it was asked for."""
        super().__post_init__()
        if self.entropy_scale == "raw" and not self.allow_raw_entropy:
            raise UserError(
                "gate.entropy_scale is 'raw' in the soft_or gate, where entropies above 1 nat make the gate fall as "
                "the gap rises; allowed is 'normalised', or gate.allow_raw_entropy=true if that is what you want."
            )

    def value(self, tokens: GateTokens) -> Tensor:
        """Non-decreasing in the gap (and in the entropy where gap <= 1) for normalised entropies."""
        h = scaled_entropy(tokens.entropy, tokens.max_entropy, self.entropy_scale)
        return torch.sigmoid(self.beta * (1.0 - (1.0 - h) * (1.0 - tokens.gap.detach().float())))


@dataclass(frozen=True)
class NoGate(Gate):
    """1 for every token: plain distillation, whatever teacher and student say."""

    name: ClassVar[str] = "none"
    reads_gap: ClassVar[bool] = False

    def value(self, tokens: GateTokens) -> Tensor:
        """1 everywhere."""
        return torch.ones_like(tokens.gap, dtype=torch.float32, requires_grad=False)


def scaled_entropy(entropy: Tensor | None, max_entropy: float, scale: EntropyScale) -> Tensor:
    """The h of the entropy gates, detached float32: nats, or the share of log V, kept within [0, 1].

    ValueError where the entropy was not computed; UserError for another scale.
    """
    if entropy is None:
        raise ValueError("the gate needs the student's entropy, but it was not computed")
    nats = entropy.detach().float()
    if scale == "raw":
        return nats
    if scale == "normalised":
        return (nats / max_entropy).clamp(0.0, 1.0)
    raise UserError(f"gate.entropy_scale is {scale!r}, allowed are 'normalised' and 'raw'.")
