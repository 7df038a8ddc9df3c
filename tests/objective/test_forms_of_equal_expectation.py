"""Centred gates and the gate's expectation have the gradient of the paper's surrogate in the mean, with less noise.

"The mean" is taken exactly, over every token of a small vocabulary, and once more by drawing tokens.
"""

import itertools
import math
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from sdar.config.fields import settings
from sdar.errors import UserError
from sdar.objective.chunked_head import OutputHead, TeacherStates, chunked_scores, score_logits
from sdar.objective.divergence import Sampled
from sdar.objective.full_vocabulary import GatedExpected, ReverseKL, bounded
from sdar.objective.gate import CentredGate, EntropyGate, GapGate, Gate, NoGate, SoftOrGate
from sdar.objective.objective import ObjectiveConfig
from sdar.objective.tokens import DistillationTokens

V = 9


def logits(seed, spread=1.5):
    generator = torch.Generator().manual_seed(seed)
    return [spread * torch.randn(V, generator=generator, dtype=torch.float64) for _ in range(3)]


def sampled_gradients(gate, divergence, student, teacher, old):
    """[V, V]: for every token that could have been drawn, the gradient of its gated loss at the student's logits."""
    leaf = student.clone().requires_grad_()
    scores = leaf.log_softmax(-1)
    tokens = DistillationTokens(student=scores, teacher=teacher.log_softmax(-1), old=old.log_softmax(-1))
    losses = gate.value(tokens) * divergence.token_loss(tokens)
    return torch.stack([torch.autograd.grad(loss, leaf, retain_graph=True)[0] for loss in losses])


def expected_gradient(divergence, student, teacher):
    leaf = student.clone().requires_grad_()
    value = divergence.between(bounded(leaf.log_softmax(-1))[None], bounded(teacher.log_softmax(-1))[None])
    return torch.autograd.grad(value.sum(), leaf)[0]


def gradient_of_probability(student, of):
    """At the logits, of the sum over tokens of pi(v) times ``of``, which is a constant."""
    leaf = student.clone().requires_grad_()
    return torch.autograd.grad((leaf.softmax(-1) * of).sum(), leaf)[0]


def expected_over_steps(weights, student, teacher, draws):
    """Of the mean loss of a step of ``draws`` independent tokens: every outcome, with its probability."""
    leaf = student.clone().requires_grad_()
    scores, others = leaf.log_softmax(-1), teacher.log_softmax(-1)
    total = torch.zeros_like(student)
    for outcome in itertools.product(range(len(student)), repeat=draws):
        drawn = list(outcome)
        tokens = DistillationTokens(student=scores[drawn], teacher=others[drawn])
        loss = (weights(tokens) * Sampled().token_loss(tokens)).mean()
        total += scores[drawn].detach().sum().exp() * torch.autograd.grad(loss, leaf, retain_graph=True)[0]
    return total


def less_the_others(gate, tokens):
    """The gates of a step that consists of these tokens."""
    return gate.centred_on(float(gate.value(tokens).double().sum()), len(tokens.gap)).value(tokens)


def mean(gradients, weights):
    return (weights.softmax(-1)[:, None] * gradients).sum(0)


def test_golden_value_by_hand():
    # p = (1/2, 1/2), q = (1/4, 3/4): gaps log(1/2) and log(3/2); 1 / (1 + exp(-x)) with beta 2 is r^2 / (1 + r^2).
    p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    gates = (0.25 / 1.25, 2.25 / 3.25)
    value = GatedExpected().under(GapGate(beta=2.0)).between(p, q)
    assert value.item() == pytest.approx(0.5 - 0.5 * sum(gates), rel=1e-6)


@pytest.mark.parametrize("beta", [0.3, 5.0, 40.0])
@pytest.mark.parametrize("seed", range(4))
def test_all_forms_have_the_same_expected_gradient_on_policy(seed, beta):
    student, teacher, _ = logits(seed)
    paper = sampled_gradients(GapGate(beta=beta), Sampled(), student, teacher, student)
    centred = sampled_gradients(CentredGate(beta=beta), Sampled(), student, teacher, student)
    whole = expected_gradient(GatedExpected().under(GapGate(beta=beta)), student, teacher)
    torch.testing.assert_close(mean(paper, student), whole, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(mean(centred, student), whole, rtol=1e-5, atol=1e-7)
    constant_changes_nothing = expected_gradient(GatedExpected().under(CentredGate(beta=beta)), student, teacher)
    torch.testing.assert_close(constant_changes_nothing, whole, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("gate", [GapGate(beta=5.0), CentredGate(beta=5.0)])
def test_importance_weights_keep_the_expectation_on_stale_samples(gate):
    student, teacher, old = logits(7)
    whole = expected_gradient(GatedExpected().under(GapGate(beta=5.0)), student, teacher)
    weighted = sampled_gradients(gate, Sampled(importance_weighted=True), student, teacher, old)
    torch.testing.assert_close(mean(weighted, old), whole, rtol=1e-5, atol=1e-7)
    # Without them it is another vector: the promise would be empty otherwise.
    plain = sampled_gradients(gate, Sampled(), student, teacher, old)
    assert (mean(plain, old) - whole).norm() > 0.05


def test_in_the_first_step_importance_weights_change_nothing():
    student, teacher, _ = logits(8)
    plain = sampled_gradients(GapGate(), Sampled(), student, teacher, student)
    weighted = sampled_gradients(GapGate(), Sampled(importance_weighted=True), student, teacher, student)
    torch.testing.assert_close(plain, weighted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_flat_gate_is_the_reverse_kl_and_a_steep_one_counts_endorsed_tokens(seed):
    student, teacher, _ = logits(seed)
    flat = expected_gradient(GatedExpected().under(GapGate(beta=1e-3)), student, teacher)
    torch.testing.assert_close(
        flat / (1e-3 / 4), expected_gradient(ReverseKL(), student, teacher), rtol=1e-2, atol=1e-3
    )
    p, q = student.log_softmax(-1), teacher.log_softmax(-1)
    steep = GatedExpected().under(GapGate(beta=1e5))
    assert steep.between(p[None], q[None]).item() == pytest.approx(0.5 - p.exp()[q > p].sum().item(), abs=1e-5)
    gradient = expected_gradient(steep, student, teacher)
    torch.testing.assert_close(gradient, -gradient_of_probability(student, (q > p).double()), rtol=1e-12, atol=1e-15)
    assert gradient.norm() > 0.05


def test_a_steep_gate_counts_half_of_a_token_on_which_both_agree():
    # g(0) - g(Delta) tends to -1/2, 0 or 1/2, and the constant 1/2 has no gradient: ties count a half.
    student, _, _ = logits(3)
    teacher = student.clone()
    teacher[[0, 1]] = student[[1, 0]]
    p, q = student.log_softmax(-1), teacher.log_softmax(-1)
    gradient = expected_gradient(GatedExpected().under(GapGate(beta=1e5)), student, teacher)
    endorsed = torch.where((q - p).abs() < 1e-9, 0.5, (q > p).double())
    assert sorted(endorsed.tolist()) == [0.0, *[0.5] * (V - 2), 1.0]
    torch.testing.assert_close(gradient, -gradient_of_probability(student, endorsed), rtol=1e-7, atol=1e-9)


@given(seed=st.integers(0, 10_000), spread=st.floats(0.0, 30.0), beta=st.floats(0.0, 100.0))
def test_values_and_gradients_are_bounded_and_zero_between_equals(seed, spread, beta):
    student, teacher, _ = logits(seed, spread)
    divergence = GatedExpected().under(GapGate(beta=beta))
    p, q = (bounded(x.log_softmax(-1))[None] for x in (student, teacher))
    assert divergence.between(p, q).abs().item() <= 0.5 + 1e-6
    assert divergence.between(p, p).abs().item() <= 1e-6
    # Proposition 4 with half the constant: |sum_v c_v p_v grad log p_v| with |c| <= 1/2, and |grad log p_v| <= sqrt(2).
    assert expected_gradient(divergence, student, teacher).norm().item() <= math.sqrt(2) / 2 + 1e-6
    each = sampled_gradients(CentredGate(beta=beta), Sampled(), student, teacher, student)
    assert each.norm(dim=-1).max().item() <= math.sqrt(2) / 2 + 1e-6


@examples(max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_drawn_tokens_agree_within_their_interval_and_centring_lowers_the_variance(seed):
    student, noise, _ = logits(seed, spread=1.0)
    # Gaps of a few tenths of a nat. Where a teacher rejects nearly all that is said, 1/2 is no good constant to take.
    teacher = student + 0.2 * noise
    generator = torch.Generator().manual_seed(seed)
    n = 20_000
    drawn = torch.multinomial(student.softmax(-1), n, replacement=True, generator=generator)
    whole = expected_gradient(GatedExpected().under(GapGate(beta=5.0)), student, teacher)
    variance = {}
    for name, gate in {"paper": GapGate(beta=5.0), "centred": CentredGate(beta=5.0)}.items():
        samples = sampled_gradients(gate, Sampled(), student, teacher, student)[drawn]
        error = samples.std(0) / math.sqrt(n)
        # 5 standard errors on each of 9 numbers: one false alarm in 200,000 draws.
        assert ((samples.mean(0) - whole).abs() <= 5 * error + 1e-9).all()
        variance[name] = samples.var(0).sum().item()
    assert variance["centred"] < variance["paper"]


def test_a_gate_centred_on_its_step_is_each_gate_minus_the_mean_of_the_others():
    gaps = torch.tensor([-1.0, 0.2, 0.0, 3.0])
    tokens = DistillationTokens(student=torch.zeros(4), teacher=gaps)
    gate = CentredGate(beta=2.0, baseline="step_mean")
    plain = [1 / (1 + math.exp(-2 * x)) for x in gaps.tolist()]
    centred = gate.centred_on(float(gate.value(tokens).sum()), 4).value(tokens)
    expected = [g - (sum(plain) - g) / 3 for g in plain]
    assert centred.tolist() == pytest.approx(expected, abs=1e-6)
    assert centred.sum().item() == pytest.approx(0, abs=1e-6)
    alone = DistillationTokens(student=torch.zeros(1), teacher=gaps[:1])
    assert gate.centred_on(float(gate.value(alone).sum()), 1).value(alone).tolist() == [0.0]


@settings(frozen=True)
class CoarseGate(CentredGate):
    """In multiples of 1/1024, of which float32 holds the sum and the mean of two without rounding."""

    def value(self, tokens):
        return (super().value(tokens) * 1024).round() / 1024


@pytest.mark.parametrize(
    ("gate", "draws", "error"),
    [
        (CoarseGate(beta=2.0, baseline="step_mean"), 2, 1e-14),
        (CentredGate(beta=2.0, baseline="step_mean"), 2, 1e-6),
        (CentredGate(beta=2.0, baseline="step_mean"), 3, 1e-6),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_the_mean_of_the_others_keeps_the_expected_gradient_and_the_mean_of_all_does_not(seed, gate, draws, error):
    student, teacher = (numbers[:4] for numbers in logits(seed)[:2])
    plain = expected_over_steps(lambda tokens: gate.value(tokens) + 0.5, student, teacher, draws)
    others = expected_over_steps(lambda tokens: less_the_others(gate, tokens), student, teacher, draws)
    torch.testing.assert_close(others, plain, rtol=0, atol=error)

    def less_all(tokens):
        return gate.value(tokens) - gate.value(tokens).mean()

    # With its own token in the mean, the share 1 / n of what it says is taken from it.
    own = expected_over_steps(less_all, student, teacher, draws)
    torch.testing.assert_close(own, plain * (1 - 1 / draws), rtol=0, atol=error)
    assert (own - plain).norm() > 0.02


def test_the_mean_of_others_that_depend_on_the_token_moves_the_expectation():
    # An episode of two tokens; what is said after the first depends on it. The step has no other tokens.
    gate = CoarseGate(beta=2.0, baseline="step_mean")
    generator = torch.Generator().manual_seed(0)
    student, teacher = (1.5 * torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    leaf = student.clone().requires_grad_()
    scores, others = leaf.log_softmax(-1), teacher.log_softmax(-1)
    found = {"plain": torch.zeros_like(student), "others": torch.zeros_like(student)}
    later = torch.zeros((), dtype=torch.float64)
    for first, second in itertools.product(range(4), repeat=2):
        drawn = [0, 1 + first], [first, second]
        tokens = DistillationTokens(student=scores[drawn], teacher=others[drawn])
        probability = scores[drawn].detach().sum().exp()
        for name, weights in {"plain": gate.value(tokens) + 0.5, "others": less_the_others(gate, tokens)}.items():
            loss = (weights * Sampled().token_loss(tokens)).mean()
            found[name] += probability * torch.autograd.grad(loss, leaf, retain_graph=True)[0]
        later = later + scores[0, first].exp() * scores[1 + first, second].detach().exp() * gate.value(tokens)[1]
    # The first token's baseline is the second's gate: its mean, which the first token steers, is a loss of its own.
    (moved,) = torch.autograd.grad(later / 2, leaf)
    torch.testing.assert_close(found["others"], found["plain"] + moved, rtol=0, atol=1e-14)
    assert moved.norm() > 1e-3


EXTREME = st.floats(-1e5, 1e5) | st.floats(-1.0, 1.0) | st.sampled_from([-1e5, -1e-6, 0.0, 1e-6, 1e5])


@given(gaps=st.lists(EXTREME, min_size=2, max_size=20), beta=st.floats(0.0, 100.0))
def test_each_baseline_keeps_its_range(gaps, beta):
    n = len(gaps)
    tokens = DistillationTokens(student=torch.zeros(n), teacher=torch.tensor(gaps))
    assert CentredGate(beta=beta).value(tokens).abs().max() <= 0.5
    gates = less_the_others(CentredGate(beta=beta, baseline="step_mean"), tokens)
    assert gates.abs().max() <= 1 + 1e-6
    # One token may count as much as in the paper; over the step they cannot all.
    assert gates.abs().mean() <= n / (2 * (n - 1)) + 1e-6


def test_each_baseline_reaches_the_ends_of_its_range():
    apart = DistillationTokens(student=torch.zeros(2), teacher=torch.tensor([1e3, -1e3]))
    assert CentredGate().value(apart).tolist() == [0.5, -0.5]
    gate = CentredGate(baseline="step_mean")
    assert less_the_others(gate, apart).tolist() == [1.0, -1.0]
    # The mean is that of the weights that sampled; at others a gate may exceed 1, by as much as n / (n - 1).
    rejected = DistillationTokens(student=torch.zeros(3), teacher=torch.full((3,), -1e3))
    endorsed = DistillationTokens(student=torch.zeros(3), teacher=torch.full((3,), 1e3))
    moved = gate.centred_on(float(gate.value(rejected).sum()), 3).value(endorsed)
    assert moved.tolist() == [1.5, 1.5, 1.5]


def test_a_centred_gate_is_zero_where_nothing_is_known_and_strongly_gated_where_the_paper_says():
    gaps = torch.tensor([-2.0, 0.0, 1e-3, 2.0])
    tokens = DistillationTokens(student=torch.zeros(4), teacher=gaps)
    values = CentredGate().value(tokens)
    assert values[1] == 0
    paper = GapGate()
    assert ((values > CentredGate().threshold) == (paper.value(tokens) > paper.threshold)).all()
    torch.testing.assert_close(values, paper.value(tokens) - 0.5)


@settings(frozen=True)
class PraiseGate(Gate):
    """The gap gate on turns that went well; ``strict``: it does not do without an advantage."""

    strict: bool = False
    name: ClassVar[str] = "praise"

    def value(self, tokens):
        if tokens.advantage is None and not self.strict:
            return torch.zeros_like(tokens.gap)
        return torch.where(tokens.advantage > 0, torch.sigmoid(tokens.gap), 0.0)


@settings(frozen=True)
class LateGate(Gate):
    """The gap gate after the first turns."""

    name: ClassVar[str] = "late"

    def value(self, tokens):
        gate = torch.sigmoid(tokens.gap)
        return gate if tokens.turn is None else torch.where(tokens.turn > 2, gate, 0.0)


@pytest.mark.parametrize("gate", [PraiseGate(), PraiseGate(strict=True), LateGate()])
def test_a_gate_that_reads_more_than_the_gap_has_no_expectation(gate):
    with pytest.raises(
        UserError, match=rf"divergence=gated_expected .*needs a gate of the gap alone, got gate={gate.name}"
    ):
        GatedExpected().check_gate(gate)
    GatedExpected().check_gate(GapGate(beta=0.0))


@pytest.mark.parametrize("top_k", [None, 3, 8])
@pytest.mark.parametrize("gate", [GapGate(beta=5.0), CentredGate(beta=0.7)])
def test_a_chunk_at_a_time_gives_the_gradient_of_whole_logits(gate, top_k):
    generator = torch.Generator().manual_seed(1)

    def numbers(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    hidden, weight = numbers(7, 4).requires_grad_(), numbers(V, 4).requires_grad_()
    teacher = TeacherStates(numbers(7, 4), OutputHead(numbers(V, 4)))
    targets = torch.randint(V, (7,), generator=generator)
    divergence = GatedExpected(top_k=top_k).under(gate)
    weights = numbers(7)

    def gradients(scores):
        return torch.autograd.grad((scores.divergence * weights).sum(), [hidden, weight])

    chunked = chunked_scores(
        hidden, OutputHead(weight), targets, teacher=teacher, divergence=divergence, chunk_tokens=2
    )
    whole = score_logits(
        hidden @ weight.T, targets, teacher_log_probs=teacher.head.log_probs(teacher.hidden), divergence=divergence
    )
    torch.testing.assert_close(chunked.divergence, whole.divergence)
    for mine, theirs in zip(gradients(chunked), gradients(whole), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("gate", [NoGate(), EntropyGate(), SoftOrGate(), CentredGate(baseline="step_mean")])
def test_the_expectation_of_a_gate_that_is_not_of_the_gap_alone_is_refused(gate):
    with pytest.raises(UserError, match=rf"divergence=gated_expected .* got gate={gate.name}; set gate=gap"):
        ObjectiveConfig(gate=gate, divergence=GatedExpected())


def test_stale_samples_need_the_old_log_probs():
    tokens = DistillationTokens(student=torch.zeros(1), teacher=torch.zeros(1))
    with pytest.raises(ValueError, match="importance_weighted=true weighs tokens by pi / pi_old"):
        Sampled(importance_weighted=True).token_loss(tokens)
