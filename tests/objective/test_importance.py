"""Importance of tokens that another program has sampled."""

from __future__ import annotations

import pytest
import torch

from sdar.objective.importance import importance_weights, sampler_mismatch


def test_the_weight_is_the_ratio_of_probabilities_up_to_the_cap_and_carries_no_gradient() -> None:
    policy = torch.tensor([0.5, 0.2, 0.9, 0.3]).log().requires_grad_()
    sampler = torch.tensor([0.25, 0.4, 0.1, 0.3]).log()
    weights = importance_weights(policy, sampler, 3.0)
    assert weights.tolist() == pytest.approx([2.0, 0.5, 3.0, 1.0])
    assert not weights.requires_grad


def test_weighted_means_over_the_samplers_tokens_are_the_policys() -> None:
    generator = torch.Generator().manual_seed(1)
    policy, sampler = torch.randn(2, 9, generator=generator).double().softmax(1)
    value = torch.randn(9, generator=generator).double()
    weights = importance_weights(policy.log(), sampler.log(), 100.0).double()
    assert float((sampler * weights * value).sum()) == pytest.approx(float((policy * value).sum()), rel=1e-4)
    assert float((sampler * sampler_mismatch(policy.log(), sampler.log())).sum()) == pytest.approx(
        float((sampler * (sampler / policy).log()).sum())
    )


def test_equal_probabilities_have_weight_one_and_no_mismatch() -> None:
    log_probs = torch.randn(20).sub(3).clamp(max=0)
    assert importance_weights(log_probs, log_probs, 2.0).tolist() == [1.0] * 20
    assert sampler_mismatch(log_probs, log_probs).tolist() == [0.0] * 20
