"""Estimates, from the sampled token alone, of the KL divergence from the policy to a reference."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

KL_LIMIT = 10.0
"""Bound of the k3 estimate, in nats: one token that left the reference must not dominate a step."""

_EXP_LIMIT = 20.0  # exp() of more would overflow to inf, whose gradient behind the clamp is nan; k3 is > KL_LIMIT there

IN_REWARD = "k1_in_reward"
"""k2 and k3 are losses. k1 = log pi - log ref may be taken from the reward (:mod:`sdar.objective.kl_reward`)."""

K1_REFUSED = "k1 is a metric (objective/kl_k1) and no loss: as a loss its gradient has mean zero"


def k1_estimate(
    log_probs: Float[Tensor, "*shape"], reference_log_probs: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Policy minus reference log-prob per token, in nats, detached float32: the unbiased estimate, of either sign."""
    return log_probs.detach().float() - reference_log_probs.detach().float()


def kl_estimate(
    log_probs: Float[Tensor, "*shape"], reference_log_probs: Float[Tensor, "*shape"], kind: str = "k3"
) -> Float[Tensor, "*shape"]:
    """Estimate of KL(policy || reference) per token, in nats, float32.

    With d = reference - policy log-prob:  k3 = exp(d) - d - 1, clamped to [-10, 10];  k2 = d^2 / 2. Both are >= 0
    and 0 where d = 0. Gradient flows through ``log_probs`` alone. ValueError for another kind.
    """
    difference = reference_log_probs.detach().float() - log_probs.float()
    if kind == "k3":
        bounded = difference.clamp(max=_EXP_LIMIT)
        return (bounded.exp() - bounded - 1.0).clamp(-KL_LIMIT, KL_LIMIT)
    if kind == "k2":
        return 0.5 * difference.square()
    reason = f"; {K1_REFUSED}" if kind == "k1" else ""
    raise ValueError(f"kl_kind must be k2 or k3, got {kind!r}{reason}")
