"""The gates that decide how far a token is distilled.

Source: arXiv 2605.15155, sections 2.2-2.3. The gap is measured on the sampled token alone; it is minus a one-sample
estimate of the reverse KL divergence. Gates are float32 and carry no gradient: with a gate that is not detached, the
term's gradient could change its sign where the teacher disagrees (Proposition 5).

On policy E[grad log pi] = 0, so a constant taken from every gate leaves the expected gradient of the sampled surrogate
as it is: what is constant in a gate only adds noise, and where samples are stale it sharpens the policy towards them.
:class:`CentredGate` is the paper's gate without that constant.

A gate is a class with settings. Another one is a subclass of :class:`Gate` and a file in ``configs/gate``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from sdar.config.fields import Fraction, NotNegative, settings
from sdar.errors import UserError
from sdar.objective.tokens import DistillationTokens

EntropyScale = Literal["normalized", "raw"]


@settings(frozen=True)
class Gate(ABC):
    """The weight of each token in the distillation term. Subclasses are frozen dataclasses of their settings.

    ``threshold``  in [0, 1]; a token counts as strongly gated above it (a metric, no part of the loss)
    """

    threshold: Fraction = 0.5

    name: ClassVar[str]
    """What it is called in ``configs/gate``."""
    reads_gap: ClassVar[bool] = True
    """Whether the gap has a part in it; if not, its activity says nothing of the teacher."""
    needs_entropy: ClassVar[bool] = False
    """Whether :meth:`value` reads the student's entropy; it comes from logits that are computed anyway."""

    @abstractmethod
    def value(self, tokens: DistillationTokens) -> Tensor:
        """Gate of each token in [0, 1] ([-1, 1] where it is centred), detached float32, of the shape of the gap."""

    @property
    def centres_on_step(self) -> bool:
        """Whether :meth:`centred_on` has to be told of every optimizer step."""
        return False

    def centred_on(self, total: float, count: int) -> Gate:  # noqa: ARG002
        """The gate of an optimizer step of ``count`` tokens, over all ranks, whose gates add up to ``total``."""
        return self

    def scaled(self, factor: float) -> Self:
        """The gate with its slope multiplied by ``factor`` >= 0; itself where it has no slope, or the factor is 1."""
        beta = getattr(self, "beta", None)
        return self if beta is None or factor == 1.0 else replace(self, beta=beta * factor)  # type: ignore[call-arg]


@settings(frozen=True)
class _Sloped(Gate):
    """A sigmoid gate. ``beta`` >= 0: its slope; 0 gives 0.5 everywhere."""

    beta: NotNegative = 5.0


@settings(frozen=True)
class GapGate(_Sloped):
    """sigmoid(beta * gap): trust what the teacher endorses. The paper's default (section 2.3, gate 2).

    ``beta`` is in 1/nats.
    """

    name: ClassVar[str] = "gap"

    def value(self, tokens: DistillationTokens) -> Tensor:
        """Non-decreasing in the gap, 0.5 where the gap is 0."""
        return torch.sigmoid(self.beta * tokens.gap)


@settings(frozen=True)
class CentredGate(_Sloped):
    """sigmoid(beta * gap) minus a constant: endorsed tokens become likelier, rejected ones less likely.

    On policy the expected gradient is that of :class:`GapGate`, with less variance where most gaps are small, as they
    are between a student and itself. (Where a teacher rejects nearly everything, gates near 0 have little to take off.)

    ``beta``      in 1/nats
    ``baseline``  neutral: the constant is 1/2, the gate of a gap of 0. Gates are in [-1/2, 1/2], which halves the bound
                  of Proposition 4.
                  step_mean: the mean gate of the other tokens of the optimizer step (leave-one-out) at the weights
                  that sampled, so that what it endorses more than the rest is raised. Gates are in (-1, 1), and the
                  bound is the paper's. The expectation is exact where the other tokens do not depend on this one.
                  Later tokens of its episode do, a deviation of the order of one episode's share of the step
    """

    threshold: Fraction = 0.0
    baseline: Literal["neutral", "step_mean"] = "neutral"
    name: ClassVar[str] = "centred"

    def value(self, tokens: DistillationTokens) -> Tensor:
        """In [-1/2, 1/2], non-decreasing in the gap, 0 where the gap is 0."""
        return torch.sigmoid(self.beta * tokens.gap) - 0.5

    @property
    def centres_on_step(self) -> bool:
        """Whether the baseline is the step's."""
        return self.baseline == "step_mean"

    def centred_on(self, total: float, count: int) -> Gate:
        """In (-1, 1) at the weights that sampled, where the gates of the step add up to 0.

        A step of one token has no others: its gate is 0 there. The mean stays when the weights move: with stale samples
        a gate of a step of n > 1 tokens is below n / (n - 1) in size.
        """
        if not self.centres_on_step:
            return self
        return _CentredOnStep(self.threshold, gate=self, mean=total / max(count, 1), count=max(count, 2))


@settings(frozen=True)
class EntropyGate(_Sloped):
    """sigmoid(beta * h): trust the teacher where the student is undecided (section 2.3, gate 1). Never below 0.5.

    ``entropy_scale``  normalized: h = entropy / log V, in [0, 1]; raw: h in nats. The paper does not say which.
    """

    entropy_scale: EntropyScale = "normalized"
    name: ClassVar[str] = "entropy"
    reads_gap: ClassVar[bool] = False
    needs_entropy: ClassVar[bool] = True

    def value(self, tokens: DistillationTokens) -> Tensor:
        """Non-decreasing in the entropy; the gap has no part in it."""
        h = scaled_entropy(tokens.entropy, tokens.max_entropy, self.entropy_scale)
        return torch.sigmoid(self.beta * h).expand_as(tokens.gap)


@settings(frozen=True)
class SoftOrGate(_Sloped):
    """sigmoid(beta * [1 - (1 - h)(1 - gap)]): the student is undecided, or the teacher endorses (section 2.3, gate 3).

    The paper's formula as it stands: the gap is in nats and not bounded. With h in [0, 1] the gate is non-decreasing
    in the gap for every gap; it is bounded below by no constant, and where gap = 0 it is the entropy gate's value.

    ``entropy_scale``      normalized: h = entropy / log V; raw: h in nats, refused unless ``allow_raw_entropy``
    ``allow_raw_entropy``  take raw entropies all the same: above 1 nat the gate *falls* as the gap rises
    """

    entropy_scale: EntropyScale = "normalized"
    allow_raw_entropy: bool = False
    name: ClassVar[str] = "soft_or"
    needs_entropy: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse raw entropies unless they were asked for."""
        if self.entropy_scale == "raw" and not self.allow_raw_entropy:
            raise UserError(
                "gate.entropy_scale='raw' makes the soft_or gate fall as the gap rises where the entropy is above 1 "
                "nat; set gate.entropy_scale=normalized, or gate.allow_raw_entropy=true if that is what you want"
            )

    def value(self, tokens: DistillationTokens) -> Tensor:
        """Non-decreasing in the gap (and in the entropy where gap <= 1) for normalized entropies."""
        h = scaled_entropy(tokens.entropy, tokens.max_entropy, self.entropy_scale)
        return torch.sigmoid(self.beta * (1.0 - (1.0 - h) * (1.0 - tokens.gap)))


@settings(frozen=True)
class NoGate(Gate):
    """1 for every token: plain distillation, whatever teacher and student say."""

    name: ClassVar[str] = "none"
    reads_gap: ClassVar[bool] = False

    def value(self, tokens: DistillationTokens) -> Tensor:
        """1 everywhere."""
        return torch.ones_like(tokens.gap, dtype=torch.float32, requires_grad=False)


@dataclass(frozen=True, kw_only=True)
class _CentredOnStep(Gate):
    """What :meth:`CentredGate.centred_on` gives: g_i minus the mean of the others is n / (n - 1) times (g_i - mean)."""

    gate: CentredGate
    mean: float
    count: int
    name: ClassVar[str] = "centred"

    def value(self, tokens: DistillationTokens) -> Tensor:
        """Of each token, minus the others' mean."""
        return (self.gate.value(tokens) - self.mean) * (self.count / (self.count - 1))


def scaled_entropy(entropy: Tensor | None, max_entropy: float, scale: EntropyScale) -> Tensor:
    """The h of the entropy gates, detached float32: nats, or the share of log V, kept within [0, 1].

    ValueError where the entropy was not computed.
    """
    if entropy is None:
        raise ValueError("the gate needs the student's entropy, but it was not computed")
    nats = entropy.detach().float()
    if scale == "raw":
        return nats
    return (nats / max_entropy).clamp(0.0, 1.0)
