"""The bound of the log-ratio in the policy gradient: what it does without a dual clip, and next to nothing with one."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdar.objective.policy_gradient import LOG_RATIO_LIMIT, policy_gradient_loss

LARGEST = math.exp(LOG_RATIO_LIMIT)
"""The ratio at the bound."""


def loss_and_gradient(log_ratio: list[float], advantage: list[float], **settings: object) -> tuple[list, list]:
    log_probs = torch.tensor(log_ratio, requires_grad=True)
    old = torch.zeros(len(log_ratio))
    loss, _ = policy_gradient_loss(log_probs, old, torch.tensor(advantage), **settings)
    (gradient,) = torch.autograd.grad(loss.sum(), log_probs)
    return loss.tolist(), gradient.tolist()


@pytest.mark.parametrize("advantage", [-1e-3, -1.0, -50.0])
@pytest.mark.parametrize("log_ratio", [20.001, 30.0, 89.0, 1e4, math.inf])
def test_without_dual_clip_the_loss_of_a_bad_token_ends_at_the_bound(log_ratio: float, advantage: float) -> None:
    """exp(89) is inf in float32, and 0 * inf is nan."""
    loss, gradient = loss_and_gradient([log_ratio], [advantage], dual_clip=None)
    assert loss == pytest.approx([-advantage * LARGEST], rel=1e-6)
    assert gradient == [0.0]


@pytest.mark.parametrize("log_ratio", [1.0, 10.0, 19.999])
def test_without_dual_clip_a_bad_token_below_the_bound_keeps_its_gradient(log_ratio: float) -> None:
    loss, gradient = loss_and_gradient([log_ratio], [-2.0], dual_clip=None)
    assert loss == gradient == pytest.approx([2.0 * math.exp(log_ratio)], rel=1e-5)


def test_a_pooled_ratio_is_bounded_after_its_mean_is_taken() -> None:
    """The mean of 60 and -30 is below the bound, that of 60 and 30 above it."""
    settings = {"dual_clip": None, "segments": torch.tensor([0, 0, 1, 1])}
    loss, gradient = loss_and_gradient([60.0, -30.0, 60.0, 30.0], [-1.0] * 4, **settings)
    assert loss == pytest.approx([math.exp(15.0)] * 2 + [LARGEST] * 2, rel=1e-5)
    # Both losses of a segment depend on each of its two log-probs by half.
    assert gradient == pytest.approx([math.exp(15.0)] * 2 + [0.0] * 2, rel=1e-5)


def unbounded(log_ratio: float, advantage: float, low: float, high: float, dual: float) -> tuple[float, float]:
    """Loss and its derivative by the log-prob, in 64 bits."""
    ratio = math.exp(log_ratio)
    plain, clipped = -advantage * ratio, -advantage * min(max(ratio, 1 - low), 1 + high)
    loss, slope = (plain, plain) if plain >= clipped else (clipped, 0.0)
    return (-advantage * dual, 0.0) if advantage < 0 and loss > -advantage * dual else (loss, slope)


@given(
    log_ratio=st.floats(-80, 80, width=32),
    advantage=st.sampled_from([-5.0, -0.5, 0.5, 5.0]),
    low=st.sampled_from([0.0, 0.2, 0.75]),
    high=st.sampled_from([0.0, 0.25, 4.0]),
    dual=st.sampled_from([1.5, 3.0, 1e6, LARGEST]),
)
def test_with_a_dual_clip_the_bound_moves_a_token_by_less_than_3e_9_of_its_advantage(
    log_ratio: float, advantage: float, low: float, high: float, dual: float
) -> None:
    """What is moved at all are good tokens that became less likely than exp(-20) of what they were."""
    edges = [math.log(edge) for edge in (1 - low, 1 + high, dual)]
    if min(abs(log_ratio - edge) for edge in edges) < 1e-4:
        return  # on which side of an edge it lies, rounding decides
    settings = {"clip_low": low, "clip_high": high, "dual_clip": dual}
    (loss,), (gradient,) = loss_and_gradient([log_ratio], [advantage], **settings)
    expected = unbounded(log_ratio, advantage, low, high, dual)
    most = abs(advantage) / LARGEST
    assert most < 3e-9 * abs(advantage)
    assert loss == pytest.approx(expected[0], rel=1e-4, abs=1.01 * most)
    assert gradient == pytest.approx(expected[1], rel=1e-4, abs=1.01 * most)
    if advantage < 0 or log_ratio > -LOG_RATIO_LIMIT:
        assert (loss, gradient) == pytest.approx(expected, rel=1e-4)
