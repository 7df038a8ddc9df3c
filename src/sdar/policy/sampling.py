"""Drawing tokens from logits with given uniform numbers.

A token is the inverse of the cumulative distribution at its own uniform number, so the draw of a row depends only on
its logits and its number, never on other rows or on the state of a generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdar.errors import RunFailed

_LARGEST_UNIFORM = 1.0 - 2.0**-40
"""Keeps ``uniform * total`` below ``total`` in float64, so a token of probability 0 is never drawn."""


@dataclass(frozen=True)
class TokenSampler:
    """Explicit sampling filters. The defaults filter nothing.

    temperature >= 0; 0 takes the most likely token. top_p in (0, 1]: the smallest set of most likely tokens with at
    least this probability. top_k >= 0: the k most likely tokens; 0: all. With a filter, scores at the same temperature
    are not the log-probs of the sampling distribution. Raises ValueError outside these ranges.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be >= 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be > 0 and <= 1, got {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be >= 0, got {self.top_k}")

    def sample(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        """Tokens [B] from float32 logits [B, V] and float64 uniforms [B] in [0, 1).

        A logit of -inf is a token that is never drawn. Raises RunFailed for a row with nan, +inf or nothing to draw.
        """
        tokens, judged = self.draw(logits, uniforms)
        check_finite(judged)
        return tokens

    def draw(self, logits: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens, and a number for each row that is finite where they mean something (:func:`check_finite`)."""
        if self.temperature == 0:
            tokens = logits.argmax(dim=-1)
            return tokens, logits.gather(-1, tokens[:, None])
        cumulative = self.probabilities(logits).cumsum(dim=-1, dtype=torch.float64)
        targets = uniforms.clamp(max=_LARGEST_UNIFORM)[:, None] * cumulative[:, -1:]
        return torch.searchsorted(cumulative, targets, right=True).squeeze(-1), cumulative[:, -1].log()

    def drawn_log_probs(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Log-probs [B] float32 of tokens [B] at the temperature (at 1 where it is 0), before any filter."""
        scaled = logits / self.temperature if self.temperature > 0 else logits
        return torch.log_softmax(scaled, dim=-1).gather(-1, tokens[:, None])[:, 0]

    def probabilities(self, logits: Tensor) -> Tensor:
        """Filtered probabilities [B, V] (not renormalized; the draw does not need it). Temperature must be > 0."""
        probs = torch.softmax(logits / self.temperature, dim=-1)
        if 0 < self.top_k < probs.shape[-1]:
            kth = probs.topk(self.top_k, dim=-1).values[:, -1:]
            probs = torch.where(probs >= kth, probs, 0.0)
        if self.top_p < 1:
            ordered, order = probs.sort(dim=-1, descending=True, stable=True)
            before = ordered.cumsum(dim=-1) - ordered
            # The filter acts on what top_k left, so its share is relative to that sum.
            outside = before >= self.top_p * ordered.sum(dim=-1, keepdim=True)
            outside[:, 0] = False
            probs = probs.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), 0.0)
        return probs


def check_finite(values: Tensor) -> None:
    """RunFailed unless all values, one of each row, are finite."""
    if not bool(torch.isfinite(values).all()):
        raise RunFailed(
            "the policy's logits are not finite, so no token can be drawn: its weights are not finite, or overflow; "
            "take an earlier checkpoint, and train with a lower optimizer.learning_rate"
        )
