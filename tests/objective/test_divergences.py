"""Sampled and full-vocabulary divergences: golden against plain loops, bounds, and that the two kinds agree."""

import math

import plain_loops
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdar.errors import UserError
from sdar.objective.divergence import ImportanceWeightedK3, Sampled, SampledReverseKL
from sdar.objective.full_vocabulary import ForwardKL, JensenShannon, ReverseKL, bounded
from sdar.objective.gate import GapGate, NoGate
from sdar.objective.tokens import DistillationTokens

KINDS = {"reverse_kl": ReverseKL, "forward_kl": ForwardKL, "jsd": JensenShannon}


def random_logits(seed, tokens=6, vocabulary=9, spread=1.5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [spread * torch.randn(tokens, vocabulary, generator=generator, dtype=dtype) for _ in range(2)]


def log_probs(logits):
    return bounded(logits.log_softmax(-1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("top_k", [None, 1, 3, 8])
@pytest.mark.parametrize("seed", range(3))
def test_values_and_gradients_equal_plain_loops(kind, top_k, seed):
    student, teacher = random_logits(seed)
    student.requires_grad_()
    value = KINDS[kind](top_k=top_k).between(log_probs(student), log_probs(teacher))
    (gradient,) = torch.autograd.grad(value.sum(), student)
    for n in range(len(student)):
        expected, slopes = plain_loops.divergence_of_logits(student[n].tolist(), teacher[n].tolist(), kind, top_k)
        assert value[n].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert gradient[n].tolist() == pytest.approx(slopes, rel=1e-5, abs=1e-8)


def test_golden_values_by_hand():
    # p = (1/2, 1/2), q = (1/4, 3/4)
    p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    m = (3 / 8, 5 / 8)
    jsd = 0.5 * sum(
        a * math.log(a / c) + b * math.log(b / c) for a, b, c in zip((0.5, 0.5), (0.25, 0.75), m, strict=True)
    )
    assert ReverseKL().between(p, q).item() == pytest.approx(0.5 * math.log(4 / 3), rel=1e-5)
    assert ForwardKL().between(p, q).item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5), rel=1e-5)
    assert JensenShannon().between(p, q).item() == pytest.approx(jsd, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("top_k", [None, 2])
def test_the_closed_slope_is_the_derivative(kind, top_k):
    student, teacher = map(log_probs, random_logits(4))
    divergence = KINDS[kind](top_k=top_k)
    leaf = student.clone().requires_grad_()
    (expected,) = torch.autograd.grad(divergence.between(leaf, teacher).sum(), leaf)
    torch.testing.assert_close(divergence.slope(student, teacher), expected)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 10_000), spread=st.floats(0.0, 30.0), top_k=st.sampled_from([None, 1, 4]))
def test_divergences_are_never_negative_and_zero_between_equals(kind, seed, spread, top_k):
    student, teacher = map(log_probs, random_logits(seed, spread=spread))
    divergence = KINDS[kind](top_k=top_k)
    assert (divergence.between(student, teacher) >= -1e-12).all()
    assert divergence.between(student, student).abs().max() <= 1e-12
    if kind == "jsd":
        assert (divergence.between(student, teacher) <= math.log(2) + 1e-12).all()


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 10_000), top_k=st.integers(1, 8))
def test_fewer_outcomes_never_tell_more(kind, seed, top_k):
    student, teacher = map(log_probs, random_logits(seed))
    reduced = KINDS[kind](top_k=top_k).between(student, teacher)
    whole = KINDS[kind]().between(student, teacher)
    assert (reduced <= whole + 1e-9).all()
    if top_k == 8:  # nine outcomes: the tail is a single token
        torch.testing.assert_close(reduced, whole)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_teacher_that_rules_tokens_out_gives_finite_numbers(kind, top_k, dtype):
    student, teacher = random_logits(5, dtype=dtype)
    teacher[:, ::2] = -math.inf
    student.requires_grad_()
    divergence = KINDS[kind](top_k=top_k)
    value = divergence.between(log_probs(student), log_probs(teacher))
    (gradient,) = torch.autograd.grad(value.sum(), student)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(divergence.slope(log_probs(student), log_probs(teacher))).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_receives_no_gradient(kind):
    student, teacher = random_logits(6)
    student.requires_grad_()
    teacher.requires_grad_()
    KINDS[kind]().between(log_probs(student), log_probs(teacher)).sum().backward()
    assert teacher.grad is None


@pytest.mark.parametrize("top_k", [0, -1])
def test_an_empty_top_is_refused(top_k):
    with pytest.raises(UserError, match=rf"ReverseKL\.top_k must be a whole number >= 1 or null, got {top_k}"):
        ReverseKL(top_k=top_k)


# ---------------------------------------------------------------- sampled forms

finite = st.floats(-1e4, 0, width=32)


def term(divergence, gate, student, teacher, old=None, dtype=torch.float32):
    student = torch.tensor([student], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([teacher], dtype=dtype)
    tokens = DistillationTokens(student, teacher, None if old is None else torch.tensor([old], dtype=dtype))
    value = gate.value(tokens) * divergence.token_loss(tokens)
    (gradient,) = torch.autograd.grad(value.sum(), student)
    return value, gradient


@given(student=finite, teacher=finite | st.just(-math.inf), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_the_sampled_term_is_a_gated_likelihood_bounded_by_the_gate(student, teacher, dtype):
    """Propositions 1, 2 and 4: the gradient at the log-prob is -gate, never more than 1 in size, whatever the gap."""
    gate = GapGate(beta=5.0)
    value, gradient = term(Sampled(), gate, student, teacher, dtype=dtype)
    low = DistillationTokens(torch.tensor([student], dtype=dtype), torch.tensor([teacher], dtype=dtype))
    expected = -gate.value(low)
    torch.testing.assert_close(gradient.float(), expected, rtol=1e-2 if dtype is torch.bfloat16 else 0.0, atol=1e-6)
    assert abs(gradient.item()) <= 1.0
    assert torch.isfinite(value).all()
    assert value.dtype == torch.float32


@given(student=st.floats(-20, 0), teacher=st.floats(-20, 0), moved=st.floats(-3, 3))
def test_the_score_function_term_equals_the_plain_loop(student, teacher, moved):
    value, gradient = term(SampledReverseKL(), NoGate(), student, teacher, student - moved)
    expected, slope = plain_loops.sampled_rkl(student, teacher, student - moved)
    assert value.item() == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert gradient.item() == pytest.approx(slope, rel=1e-3, abs=1e-3)


@given(student=finite, teacher=finite | st.just(-math.inf), old=finite)
def test_the_score_function_term_is_finite(student, teacher, old):
    value, gradient = term(SampledReverseKL(), NoGate(), student, teacher, old)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()


def test_at_the_first_step_the_gradient_is_minus_the_gap():
    _, gradient = term(SampledReverseKL(), NoGate(), -2.0, -0.5, -2.0)
    assert gradient.item() == -1.5


def test_the_score_function_needs_the_old_policy():
    with pytest.raises(ValueError, match="old log-probs"):
        term(SampledReverseKL(), NoGate(), -1.0, -1.0)


@pytest.mark.parametrize("moved", [False, True])
def test_sampled_and_full_reverse_kl_agree_in_expectation(moved):
    """Value and gradient at every logit, each within 4.5 standard errors (18 comparisons: false alarm below 2e-4)."""
    draws, vocabulary = 200_000, 8
    student, teacher = random_logits(7, tokens=1, vocabulary=vocabulary, spread=1.0)
    old = student + 0.3 * random_logits(8, tokens=1, vocabulary=vocabulary)[0] if moved else student.clone()
    generator = torch.Generator().manual_seed(9)
    tokens = torch.multinomial(old.softmax(-1)[0], draws, replacement=True, generator=generator)
    rows = student.expand(draws, -1).clone().requires_grad_()

    def of_tokens(logits):
        return logits.log_softmax(-1).expand(draws, -1).gather(1, tokens[:, None]).squeeze(1)

    value = SampledReverseKL().token_loss(DistillationTokens(of_tokens(rows), of_tokens(teacher), of_tokens(old)))
    (gradients,) = torch.autograd.grad(value.sum(), rows)
    leaf = student.clone().requires_grad_()
    exact = ReverseKL().between(log_probs(leaf), log_probs(teacher))
    (exact_gradient,) = torch.autograd.grad(exact.sum(), leaf)
    samples = torch.cat([value.detach()[:, None].double(), gradients], dim=1)
    expected = torch.cat([exact.detach(), exact_gradient[0]])
    error = (samples.mean(0) - expected).abs()
    allowed = 4.5 * samples.std(0) / draws**0.5
    assert (error <= allowed).all(), (error / allowed).tolist()
    assert (allowed < 0.02).all()  # the interval says something


def test_the_gated_surrogate_is_not_the_reverse_kl():
    """What Sampled does in expectation is left to the gate: with a constant one its mean gradient is zero."""
    student, teacher = random_logits(10, tokens=1)
    student.requires_grad_()
    p = student.softmax(-1)[0]
    surrogate = sum(
        p[v].detach()
        * Sampled().token_loss(DistillationTokens(student.log_softmax(-1)[0, v], teacher.log_softmax(-1)[0, v]))
        for v in range(9)
    )
    (gradient,) = torch.autograd.grad(surrogate, student)
    assert gradient.abs().max() < 1e-6


# Skill-SD ------------------------------------------------------------------------------------------------------------


@given(st.floats(-8, 0), st.floats(-8, 0), st.floats(-8, 0))
def test_skill_sd_and_its_gradient_through_both_factors_equal_the_plain_loop(student, teacher, old):
    leaf = torch.tensor(student, requires_grad=True)
    others = torch.tensor(teacher, requires_grad=True), torch.tensor(old, requires_grad=True)
    loss = ImportanceWeightedK3().token_loss(DistillationTokens(leaf, *others))
    loss.backward()
    value, slope = plain_loops.skill_sd(leaf.item(), others[0].item(), others[1].item())
    assert loss.item() == pytest.approx(value, rel=1e-4, abs=1e-4)
    assert leaf.grad.item() == pytest.approx(slope, rel=1e-4, abs=1e-3 * (1 + abs(value)))
    assert others[0].grad is None
    assert others[1].grad is None


@pytest.mark.parametrize(("student", "teacher", "old"), [(-40.0, -1.0, -1.0), (-1.0, -2.0, -30.0)])
def test_skill_sd_beyond_its_clamps(student, teacher, old):
    leaf = torch.tensor(student, requires_grad=True)
    loss = ImportanceWeightedK3().token_loss(DistillationTokens(leaf, torch.tensor(teacher), torch.tensor(old)))
    loss.backward()
    value, slope = plain_loops.skill_sd(student, teacher, old)
    assert loss.item() == pytest.approx(value, rel=1e-5)
    assert leaf.grad.item() == pytest.approx(slope, rel=1e-5)


def test_skill_sd_is_finite_where_the_teacher_rules_a_token_out_and_needs_old_log_probs():
    leaf = torch.tensor(-1.0, requires_grad=True)
    loss = ImportanceWeightedK3().token_loss(DistillationTokens(leaf, torch.tensor(-math.inf), torch.tensor(-1.0)))
    loss.backward()
    assert math.isfinite(loss.item())
    assert math.isfinite(leaf.grad.item())
    with pytest.raises(ValueError, match="old log-probs"):
        ImportanceWeightedK3().token_loss(DistillationTokens(leaf, leaf))
