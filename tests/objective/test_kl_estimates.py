"""The KL estimates: golden values, plain loops, bounds, and what they estimate."""

import math

import plain_loops
import pytest
import torch

from sdar.objective.kl import k1_estimate, kl_estimate


def value_and_gradient(log_prob, reference, kind):
    log_prob = torch.tensor(log_prob, requires_grad=True)
    value = kl_estimate(log_prob, torch.tensor(reference), kind)
    (gradient,) = torch.autograd.grad(value.sum(), log_prob)
    return value.tolist(), gradient.tolist()


@pytest.mark.parametrize(
    ("kind", "difference", "value", "gradient"),
    [
        ("k3", 0.0, 0.0, 0.0),
        ("k3", 1.0, math.e - 2.0, 1.0 - math.e),
        ("k3", -1.0, 1.0 / math.e, 1.0 - 1.0 / math.e),
        ("k3", 3.0, 10.0, 0.0),  # e^3 - 4 = 16.1 is bounded
        ("k3", 1e4, 10.0, 0.0),
        ("k3", -1e4, 10.0, 0.0),
        ("k2", 0.0, 0.0, 0.0),
        ("k2", 2.0, 2.0, -2.0),
        ("k2", -3.0, 4.5, 3.0),
    ],
)
def test_golden_values_by_hand(kind, difference, value, gradient):
    found = value_and_gradient([0.0], [difference], kind)
    assert found[0] == pytest.approx([value], rel=1e-6)
    assert found[1] == pytest.approx([gradient], rel=1e-6)


@pytest.mark.parametrize("kind", ["k2", "k3"])
def test_values_and_gradients_equal_plain_loops(kind):
    generator = torch.Generator().manual_seed(2)
    log_prob = (-4 * torch.rand(300, generator=generator)).tolist()
    reference = (torch.tensor(log_prob) + 1.5 * torch.randn(300, generator=generator)).tolist()
    value, gradient = value_and_gradient(log_prob, reference, kind)
    expected = [plain_loops.kl(p, r, kind) for p, r in zip(log_prob, reference, strict=True)]
    assert value == pytest.approx([e[0] for e in expected], rel=1e-4, abs=1e-6)
    assert gradient == pytest.approx([e[1] for e in expected], rel=1e-4, abs=1e-6)


def test_k3_averages_to_the_divergence():
    generator = torch.Generator().manual_seed(3)
    policy = torch.randn(6, generator=generator).log_softmax(-1)
    reference = torch.randn(6, generator=generator).log_softmax(-1)
    expected = (policy.exp() * kl_estimate(policy, reference, "k3")).sum()
    divergence = (policy.exp() * (policy - reference)).sum()
    torch.testing.assert_close(expected, divergence)


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"kl_kind must be k2 or k3, got 'k4'$"):
        kl_estimate(torch.zeros(1), torch.zeros(1), "k4")


def test_k1_is_refused_as_a_loss_because_its_gradient_has_mean_zero():
    with pytest.raises(ValueError, match=r"got .k1.; k1 is a metric.*gradient has mean zero"):
        kl_estimate(torch.zeros(1), torch.zeros(1), "k1")
    # ... which is so: the mean over the policy's own samples of grad log pi.
    logits = torch.randn(6, generator=torch.Generator().manual_seed(4)).requires_grad_()
    log_p = logits.log_softmax(-1)
    (gradient,) = torch.autograd.grad((log_p.exp().detach() * log_p).sum(), logits)
    assert gradient.abs().max() < 1e-6


def test_k1_as_a_metric_is_unbiased_and_carries_no_gradient():
    generator = torch.Generator().manual_seed(5)
    policy = torch.randn(6, generator=generator).requires_grad_()
    reference = torch.randn(6, generator=generator).log_softmax(-1)
    log_p = policy.log_softmax(-1)
    k1 = k1_estimate(log_p, reference)
    assert not k1.requires_grad
    divergence = (log_p.exp() * (log_p - reference)).sum()
    torch.testing.assert_close((log_p.exp() * k1).sum(), divergence)


def test_reference_receives_no_gradient_and_bfloat16_gives_float32():
    reference = torch.zeros(2, requires_grad=True)
    value = kl_estimate(torch.full((2,), -1.0, dtype=torch.bfloat16, requires_grad=True), reference)
    value.sum().backward()
    assert reference.grad is None
    assert value.dtype == torch.float32
