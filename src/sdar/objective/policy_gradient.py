"""The clipped policy gradient with dual clip, per token."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

LOG_RATIO_LIMIT = 20.0
"""Bound (nats) of log pi - log pi_old before it is exponentiated: exp overflows above 88 and 0 * inf would be nan.

exp(20) is far outside every clipping range, so with a dual clip (up to exp(20)) the bound moves a loss or gradient
that clipping leaves alive by at most exp(-20) |A| (where A > 0 and the ratio is below exp(-20)). Without one
(``dual_clip=None``) a token with A < 0 is not clipped upwards: its loss stops growing at -A * exp(20), and there its
gradient is 0."""


class PolicyLoss(NamedTuple):
    """``loss`` float32 per token; ``clipped`` bool: a clip decides this token's loss and its gradient is 0."""

    loss: Tensor
    clipped: Tensor


def policy_gradient_loss(
    log_probs: Float[Tensor, "*shape"],
    old_log_probs: Float[Tensor, "*shape"],
    advantage: Float[Tensor, "*shape"],
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = 3.0,
    segments: Int[Tensor, "*shape"] | None = None,
) -> PolicyLoss:
    """Loss per token of the clipped surrogate.

    With r = exp(log_probs - old_log_probs):  max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)), and where A < 0 at
    most -A * dual_clip, so that a token that became much likelier cannot dominate the step. ``dual_clip`` > 1, or
    None to leave it out: then only ``LOG_RATIO_LIMIT`` bounds the loss of such a token. Gradient flows through
    ``log_probs`` alone.

    ``segments`` gives all tokens of a segment one ratio, the geometric mean of theirs:
    exp of the mean of log_probs - old_log_probs over the segment (arXiv 2507.18071, GSPO: length-normalized, so that
    long and short segments share a clipping range). Tokens of a segment whose advantages have the same sign are then
    clipped together. Tokens of segment -1 belong to none and lose nothing. None: every token has a ratio of its own.

    Source: arXiv 2605.15155, section 2.1 and the algorithm in appendix B.
    """
    advantage = advantage.detach().float()
    log_ratio = log_probs.float() - old_log_probs.detach().float()
    if segments is not None:
        log_ratio = segment_means(log_ratio, segments)
    ratio = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    plain = -advantage * ratio
    bounded = -advantage * ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss = torch.maximum(plain, bounded)
    clipped = bounded > plain
    if dual_clip is not None:
        ceiling = -advantage * dual_clip
        capped = (advantage < 0) & (loss > ceiling)
        loss = torch.where(capped, ceiling, loss)
        clipped = clipped | capped
    return PolicyLoss(loss, clipped.detach())


def segment_means(values: Float[Tensor, "*shape"], segments: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The mean over its segment at every place; 0 where the segment is -1."""
    inside = segments >= 0
    _, index = segments[inside].unique(return_inverse=True)
    chosen = values[inside]
    size = int(index.max()) + 1 if len(index) else 0
    counts = chosen.new_zeros(size).index_add(0, index, torch.ones_like(chosen))
    means = chosen.new_zeros(size).index_add(0, index, chosen) / counts
    return torch.zeros_like(values).masked_scatter(inside, means[index])
