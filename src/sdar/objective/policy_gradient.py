"""The clipped policy gradient with dual clip, per token."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LOG_RATIO_LIMIT = 20.0
"""Bound (nats) of log pi - log pi_old before it is exponentiated: exp overflows above 88 and 0 * inf would be nan.
exp(20) is far outside every clipping range, so the bound changes no value or gradient that clipping leaves alive."""


class PolicyLoss(NamedTuple):
    """``loss`` float32 per token; ``clipped`` bool: a clip decides this token's loss and its gradient is 0."""

    loss: Tensor
    clipped: Tensor


def policy_gradient_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantage: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = 3.0,
) -> PolicyLoss:
    """Loss per token of the clipped surrogate; all tensors share one shape.

    With r = exp(log_probs - old_log_probs):  max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)), and where A < 0 at
    most -A * dual_clip, so that a token that became much likelier cannot dominate the step. ``dual_clip`` > 1, or
    None to leave it out. Gradient flows through ``log_probs`` alone.

    Source: arXiv 2605.15155, section 2.1 and the algorithm in appendix B.
    """
    advantage = advantage.detach().float()
    log_ratio = (log_probs.float() - old_log_probs.detach().float()).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio = log_ratio.exp()
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
