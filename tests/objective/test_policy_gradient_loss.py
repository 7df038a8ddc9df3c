"""The clipped policy gradient: golden values, plain loops, and no overflow."""

import plain_loops
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdar.objective.policy_gradient import policy_gradient_loss


def loss_gradient_clipped(log_prob, old, advantage, **kwargs):
    log_prob = torch.tensor(log_prob, requires_grad=True)
    loss, clipped = policy_gradient_loss(log_prob, torch.tensor(old), torch.tensor(advantage), **kwargs)
    (gradient,) = torch.autograd.grad(loss.sum(), log_prob)
    return loss.tolist(), gradient.tolist(), clipped.tolist()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        (1.0, 2.0, -2.0, -2.0, False),  # on policy: the plain policy gradient
        (1.0, -2.0, 2.0, 2.0, False),
        (1.5, 2.0, -2.4, 0.0, True),  # likelier than the upper clip and good: no further push
        (0.5, 2.0, -1.0, -1.0, False),  # became less likely although good: full gradient
        (0.5, -2.0, 1.6, 0.0, True),  # below the lower clip and bad: no further push
        (1.5, -2.0, 3.0, 3.0, False),  # likelier although bad: full gradient ...
        (4.0, -2.0, 6.0, 0.0, True),  # ... up to the dual clip
        (4.0, 0.0, 0.0, 0.0, False),
    ],
)
def test_golden_values_by_hand(ratio, advantage, loss, gradient, clipped):
    log_prob = torch.tensor(ratio).log().item()
    found = loss_gradient_clipped([log_prob], [0.0], [advantage])
    assert found[0] == pytest.approx([loss], rel=1e-6)
    assert found[1] == pytest.approx([gradient], rel=1e-6)
    assert found[2] == [clipped]


def test_without_dual_clip_a_bad_token_keeps_its_gradient():
    log_prob = torch.tensor(4.0).log().item()
    loss, gradient, clipped = loss_gradient_clipped([log_prob], [0.0], [-2.0], dual_clip=None)
    assert (loss, gradient, clipped) == (pytest.approx([8.0]), pytest.approx([8.0]), [False])


@pytest.mark.parametrize("dual_clip", [3.0, 1.5, None])
@pytest.mark.parametrize(("clip_low", "clip_high"), [(0.2, 0.2), (0.2, 0.28), (0.0, 0.5)])
def test_values_and_gradients_equal_plain_loops(clip_low, clip_high, dual_clip):
    generator = torch.Generator().manual_seed(1)
    old = (-3 * torch.rand(400, generator=generator)).tolist()
    log_prob = (torch.tensor(old) + 0.7 * torch.randn(400, generator=generator)).tolist()
    advantage = torch.randn(400, generator=generator).tolist()
    found = loss_gradient_clipped(log_prob, old, advantage, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip)
    expected = [
        plain_loops.policy(*token, clip_low, clip_high, dual_clip)
        for token in zip(log_prob, old, advantage, strict=True)
    ]
    assert found[0] == pytest.approx([e[0] for e in expected], rel=1e-5, abs=1e-6)
    assert found[1] == pytest.approx([e[1] for e in expected], rel=1e-5, abs=1e-6)
    assert found[2] == [e[2] for e in expected]
    assert any(found[2])
    assert not all(found[2])


@pytest.mark.parametrize("advantage", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("log_ratio", [-1e4, 1e4])
def test_extreme_ratios_stay_finite(log_ratio, advantage):
    loss, gradient, _ = loss_gradient_clipped([log_ratio], [0.0], [advantage])
    assert torch.isfinite(torch.tensor(loss + gradient)).all()


def test_old_policy_and_advantage_receive_no_gradient_and_result_is_float32():
    old = torch.zeros(3, dtype=torch.bfloat16, requires_grad=True)
    advantage = torch.ones(3, requires_grad=True)
    log_prob = torch.zeros(3, dtype=torch.bfloat16, requires_grad=True)
    loss, _ = policy_gradient_loss(log_prob, old, advantage)
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert old.grad is None
    assert advantage.grad is None


# One ratio for a whole segment --------------------------------------------------------------------------------------


def pooled_loop(log_probs, old, advantage, segments, clip_low, clip_high, dual_clip):
    """Loss of every token and d(sum)/d(log_prob), segment by segment with Python floats."""
    losses, slopes = [0.0] * len(log_probs), [0.0] * len(log_probs)
    for name in set(segments) - {-1}:
        members = [i for i, segment in enumerate(segments) if segment == name]
        mean = sum(log_probs[i] - old[i] for i in members) / len(members)
        # all tokens of a segment move the ratio alike, each by 1 / n of its own log-prob
        for i in members:
            losses[i], slope, _ = plain_loops.policy(mean, 0.0, advantage[i], clip_low, clip_high, dual_clip)
            for j in members:
                slopes[j] += slope / len(members)
    return losses, slopes


@given(st.integers(0, 10_000))
def test_pooled_ratios_equal_the_plain_loop(seed):
    generator = torch.Generator().manual_seed(seed)
    size = int(torch.randint(1, 12, (), generator=generator))
    values = torch.randn(3, size, generator=generator)
    segments = torch.randint(-1, 4, (size,), generator=generator)
    log_probs = values[0].clone().requires_grad_()
    clips = {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": 3.0}
    loss, _ = policy_gradient_loss(log_probs, values[1], values[2], segments=segments, **clips)
    inside = segments >= 0
    loss[inside].sum().backward()
    expected, slopes = pooled_loop(*values.tolist(), segments.tolist(), *clips.values())
    wanted = [value for value, segment in zip(expected, segments, strict=True) if segment >= 0]
    assert loss[inside].tolist() == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert log_probs.grad.tolist() == pytest.approx(slopes, rel=1e-3, abs=1e-5)


def test_a_segment_is_the_geometric_mean_of_its_ratios_and_is_clipped_as_a_whole():
    log_probs = torch.log(torch.tensor([2.0, 0.5, 4.0, 1.0]))
    loss, clipped = policy_gradient_loss(log_probs, torch.zeros(4), torch.ones(4), segments=torch.tensor([0, 0, 1, 1]))
    assert loss.tolist() == pytest.approx([-1.0, -1.0, -1.2, -1.2])
    assert clipped.tolist() == [False, False, True, True]


def test_segments_of_one_token_are_the_tokens():
    values = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    alone = policy_gradient_loss(*values)
    assert torch.equal(policy_gradient_loss(*values, segments=torch.arange(7)).loss, alone.loss)


def test_clip_higher_leaves_more_room_above_than_below():
    ratio = torch.tensor([1.25, 0.75])
    loss, clipped = policy_gradient_loss(
        ratio.log(), torch.zeros(2), torch.tensor([1.0, -1.0]), clip_low=0.2, clip_high=0.28
    )
    assert clipped.tolist() == [False, True]
    assert loss.tolist() == pytest.approx([-1.25, 0.8])
