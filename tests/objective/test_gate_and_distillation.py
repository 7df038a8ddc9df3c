"""The gate is detached, bounded and monotone; the SDAR term is a gated likelihood and always finite."""

import math
from types import SimpleNamespace

import plain_loops
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdar.errors import UserError
from sdar.objective.gate import GapGate
from sdar.objective.objective import ObjectiveConfig, token_losses
from sdar.objective.tokens import DistillationTokens, gap

gaps = st.floats(-1e4, 1e4, width=32)
betas = st.floats(0, 100, width=32)
log_probs = st.floats(-1e4, 0, width=32)


def gap_gate(difference, beta):
    return GapGate(beta=beta).value(DistillationTokens(student=torch.zeros(()), teacher=difference))


def distillation_term(student, teacher, beta):
    """The paper's term, gap gate and sampled surrogate: loss, gate and gap of every token, all of the student's shape.

    The loss is that of the objective; gate and gap are those of the view that it is computed from.
    """
    config = ObjectiveConfig(
        0, kl_coefficient=0, entropy_coefficient=0, distillation_coefficient=1, gate=GapGate(beta=beta)
    )
    row = student[None]
    scores = SimpleNamespace(log_probs=row, entropy=None, divergence=None, max_entropy=1.0)
    batch = SimpleNamespace(
        response_mask=torch.ones(row.shape, dtype=torch.bool),
        advantage=torch.zeros(row.shape),
        turn_index=torch.zeros(row.shape, dtype=torch.long),
        old_log_probs=None,
        teacher_log_probs=teacher[None],
        reference_log_probs=None,
    )
    loss = token_losses(scores, batch, config).terms["distillation"].loss[0]
    tokens = DistillationTokens(student, teacher)
    return SimpleNamespace(loss=loss, gate=config.gate.value(tokens), gap=tokens.gap)


def term_and_gradient(student, teacher, beta, dtype=torch.float32):
    student = torch.tensor(student, dtype=dtype, requires_grad=True)
    term = distillation_term(student, torch.tensor(teacher, dtype=dtype), beta)
    (gradient,) = torch.autograd.grad(term.loss.sum(), student)
    return term, gradient


@pytest.mark.parametrize(("difference", "expected"), [(0.1, 0.6225), (-0.1, 0.3775), (0.0, 0.5)])
def test_gate_has_the_values_of_the_specification(difference, expected):
    assert gap_gate(torch.tensor(difference), 5.0).item() == pytest.approx(expected, abs=5e-5)


def test_a_gap_of_zero_is_not_strongly_gated():
    assert not (gap_gate(torch.tensor(0.0), 5.0) > 0.5)


def test_steepest_slope_of_the_gate_is_a_quarter_of_beta():
    step = 1e-3
    slope = (gap_gate(torch.tensor(step), 5.0) - gap_gate(torch.tensor(-step), 5.0)) / (2 * step)
    assert slope.item() == pytest.approx(1.25, rel=1e-3)


def test_equal_teacher_and_student_give_no_loss_and_half_a_likelihood_gradient():
    values = [-0.3, -2.0, -7.5]
    term, gradient = term_and_gradient(values, values, beta=5.0)
    assert torch.equal(term.loss, torch.zeros(3))
    assert torch.equal(gradient, torch.full((3,), -0.5))


def test_beta_zero_opens_every_gate_by_half_whatever_the_teacher_says():
    _, gradient = term_and_gradient([-1.0, -1.0], [-20.0, -0.1], beta=0.0)
    assert torch.equal(gradient, torch.full((2,), -0.5))


def test_negative_beta_is_refused():
    with pytest.raises(UserError, match=r"GapGate\.beta must be a number >= 0, got -1\.0"):
        GapGate(beta=-1.0)


@given(difference=gaps, beta=betas)
def test_gate_lies_between_zero_and_one_and_carries_no_gradient(difference, beta):
    value = gap_gate(torch.tensor(difference, requires_grad=True), beta)
    assert 0.0 <= value.item() <= 1.0
    assert not value.requires_grad


@given(pair=st.tuples(gaps, gaps), beta=betas)
def test_gate_never_falls_when_the_gap_grows(pair, beta):
    low, high = sorted(pair)
    assert gap_gate(torch.tensor(low), beta) <= gap_gate(torch.tensor(high), beta)


@given(difference=st.floats(-3, 2), step=st.floats(1e-2, 1), beta=st.floats(0.5, 4))
def test_gate_rises_strictly_where_the_sigmoid_is_not_flat(difference, step, beta):
    assert gap_gate(torch.tensor(difference), beta) < gap_gate(torch.tensor(difference + step), beta)


@given(student=log_probs, teacher=log_probs, beta=st.floats(0, 50))
def test_gradient_of_the_term_is_minus_the_gate(student, teacher, beta):
    term, gradient = term_and_gradient([student], [teacher], beta)
    assert torch.equal(gradient, -term.gate)
    assert abs(gradient.item()) <= 1.0
    assert math.isfinite(term.loss.item())


@given(student=log_probs, teacher=log_probs, beta=st.floats(0, 50))
def test_term_equals_the_plain_loop(student, teacher, beta):
    term, gradient = term_and_gradient([student], [teacher], beta)
    # Loosely, because float32 rounds the gap, and a gate that is nearly closed magnifies that by beta.
    loss, slope = plain_loops.distillation(student, teacher, beta)
    assert term.loss.item() == pytest.approx(loss, rel=2e-2, abs=1e-4)
    assert gradient.item() == pytest.approx(slope, rel=2e-2, abs=1e-6)


@pytest.mark.parametrize("beta", [0.0, 5.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_teacher_that_rules_a_token_out_gives_a_finite_term(beta, dtype):
    term, gradient = term_and_gradient([-1.0, 0.0, -1e4], [-math.inf] * 3, beta, dtype)
    assert torch.isfinite(term.loss).all()
    assert torch.isfinite(term.gap).all()
    assert torch.equal(gradient.float(), torch.full((3,), 0.0 if beta else -0.5))


def test_nan_is_not_hidden():
    term, _ = term_and_gradient([-1.0], [math.nan], beta=5.0)
    assert torch.isnan(term.loss).all()


def test_bfloat16_inputs_give_float32_numbers():
    student = torch.tensor([-1.0, -2.0], dtype=torch.bfloat16, requires_grad=True)
    teacher = torch.tensor([-0.5, -3.0], dtype=torch.bfloat16)
    term = distillation_term(student, teacher, 5.0)
    assert {term.loss.dtype, term.gate.dtype, term.gap.dtype, gap(teacher, student).dtype} == {torch.float32}
    assert not term.gate.requires_grad
    assert not term.gap.requires_grad


def test_teacher_receives_no_gradient():
    teacher = torch.tensor([-0.5], requires_grad=True)
    student = torch.tensor([-1.0], requires_grad=True)
    distillation_term(student, teacher, 5.0).loss.sum().backward()
    assert teacher.grad is None


def test_gradient_through_the_softmax_is_the_gated_likelihood_gradient():
    # Proposition 2 on whole distributions: d term / d logits = -gate * (one-hot - softmax).
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 11, generator=generator, requires_grad=True)
    tokens = torch.randint(0, 11, (5, 1), generator=generator)
    teacher = -torch.rand(5, generator=generator) * 4
    student = logits.log_softmax(-1).gather(1, tokens).squeeze(1)
    term = distillation_term(student, teacher, 5.0)
    (gradient,) = torch.autograd.grad(term.loss.sum(), logits)
    one_hot = torch.zeros(5, 11).scatter(1, tokens, 1.0)
    expected = -term.gate[:, None] * (one_hot - logits.detach().softmax(-1))
    torch.testing.assert_close(gradient, expected)
