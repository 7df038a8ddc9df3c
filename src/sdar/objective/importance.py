"""When somebody else than the policy has sampled: how far both are apart, and what a token then counts for."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def importance_weights(
    policy_log_probs: Float[Tensor, "*shape"], sampler_log_probs: Float[Tensor, "*shape"], cap: float
) -> Float[Tensor, "*shape"]:
    """Probability of the policy over that of the sampler, per token, at most ``cap``; detached float32.

    An expectation over the sampler's tokens times these weights is one over the policy's, but for the truncation, which
    bounds its variance (truncated importance sampling, Ionides 2008).
    """
    difference = policy_log_probs.detach().float() - sampler_log_probs.float()
    return difference.exp().clamp(max=cap)


def sampler_mismatch(
    policy_log_probs: Float[Tensor, "*shape"], sampler_log_probs: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """The k3 estimate of KL(sampler || policy) per token, nats, >= 0, float64, detached; unbiased as a mean.

    Both are nearly equal, so that in float32 most of it would be rounding.
    """
    difference = policy_log_probs.detach().double() - sampler_log_probs.double()
    return (difference.expm1() - difference).clamp(min=0)
