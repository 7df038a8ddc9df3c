"""Every gate: golden values by a plain loop, range, monotonicity, no gradient; and what Proposition 5 warns of."""

import math
import re

import plain_loops
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdar.errors import UserError
from sdar.objective.divergence import Sampled
from sdar.objective.gate import EntropyGate, GapGate, NoGate, SoftOrGate
from sdar.objective.tokens import DistillationTokens

V = 50
LOG_V = math.log(V)

GATES = {
    "gap": lambda beta: GapGate(beta=beta),
    "entropy": lambda beta: EntropyGate(beta=beta),
    "entropy_raw": lambda beta: EntropyGate(beta=beta, entropy_scale="raw"),
    "soft_or": lambda beta: SoftOrGate(beta=beta),
    "soft_or_raw": lambda beta: SoftOrGate(beta=beta, entropy_scale="raw", allow_raw_entropy=True),
    "none": lambda beta: NoGate(),
}
gaps = st.floats(-1e4, 1e4, width=32)
entropies = st.floats(0, LOG_V - 1e-3)
betas = st.floats(0, 100, width=32)


def tokens_of(difference, entropy=None):
    """Tokens whose gap is exactly this, nats."""
    return DistillationTokens(
        student=torch.zeros_like(difference), teacher=difference, entropy=entropy, max_entropy=LOG_V
    )


def value_of(name, beta, difference, entropy=1.0):
    return GATES[name](beta).value(tokens_of(torch.tensor(difference), torch.tensor(entropy)))


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("beta", [0.0, 0.7, 5.0])
def test_values_equal_the_plain_loop(name, beta):
    generator = torch.Generator().manual_seed(3)
    differences = 2 * torch.randn(200, generator=generator)
    entropy = LOG_V * torch.rand(200, generator=generator)
    values = GATES[name](beta).value(tokens_of(differences, entropy))
    expected = [
        plain_loops.gates(d, h, LOG_V, beta)[name] for d, h in zip(differences.tolist(), entropy.tolist(), strict=True)
    ]
    assert values.dtype == torch.float32
    assert values.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", GATES)
@given(difference=gaps, entropy=entropies, beta=betas)
def test_every_gate_lies_between_zero_and_one_and_carries_no_gradient(name, difference, entropy, beta):
    student, teacher, nats = (torch.tensor(value, requires_grad=True) for value in (0.0, difference, entropy))
    value = GATES[name](beta).value(DistillationTokens(student, teacher, entropy=nats, max_entropy=LOG_V))
    assert 0.0 <= value.item() <= 1.0
    assert not value.requires_grad


@pytest.mark.parametrize("name", ["gap", "soft_or", "entropy", "none"])
@given(pair=st.tuples(gaps, gaps), entropy=entropies, beta=betas)
def test_no_gate_on_offer_falls_when_the_gap_grows(name, pair, entropy, beta):
    low, high = sorted(pair)
    assert value_of(name, beta, low, entropy) <= value_of(name, beta, high, entropy)


@given(low=st.floats(-15, 14.4), step=st.floats(0.5, 5), beta=st.floats(0.1, 50))
def test_the_gap_gate_rises_strictly_while_beta_times_gap_is_at_most_fifteen(low, step, beta):
    # Steps of 0.5 in beta * gap: next to 1, float32 numbers are 6e-8 apart and the slope at 15 is 3e-7.
    high = min(low + step, 15.0)
    assert value_of("gap", beta, low / beta) < value_of("gap", beta, high / beta)


@given(low=st.floats(-15, 14.0), step=st.floats(0.9, 5), h=st.floats(0, 0.9), beta=st.floats(0.5, 20))
def test_the_soft_or_gate_rises_strictly_too_where_the_student_is_not_wholly_undecided(low, step, h, beta):
    # beta * [1 - (1 - h)(1 - gap)] between -15 and 15, solved for the gap.
    at = [1 - (1 - x / beta) / (1 - h) for x in (low, min(low + step, 15.0))]
    assert value_of("soft_or", beta, at[0], h * LOG_V) < value_of("soft_or", beta, at[1], h * LOG_V)


def test_raw_entropies_above_one_nat_turn_the_soft_or_round():
    assert value_of("soft_or_raw", 1.0, 0.5, entropy=2.0) < value_of("soft_or_raw", 1.0, -0.5, entropy=2.0)


def test_raw_entropy_in_the_soft_or_must_be_asked_for():
    with pytest.raises(UserError, match=r"gate\.entropy_scale='raw'.*gate\.allow_raw_entropy=true"):
        SoftOrGate(entropy_scale="raw")


@given(entropy=entropies, beta=betas)
def test_soft_or_is_the_entropy_gate_where_the_gap_is_zero(entropy, beta):
    assert value_of("soft_or", beta, 0.0, entropy).item() == pytest.approx(
        value_of("entropy", beta, 0.0, entropy).item(), abs=1e-5
    )


def test_golden_values_by_hand():
    # h = 1/2 (half of log V), gap = 0.1, beta = 5: sigmoid(0.5), sigmoid(2.5), sigmoid(5 * (1 - 0.5 * 0.9))
    values = {name: value_of(name, 5.0, 0.1, LOG_V / 2).item() for name in ("gap", "entropy", "soft_or", "none")}
    assert values == pytest.approx({"gap": 0.62246, "entropy": 0.92414, "soft_or": 0.93991, "none": 1.0}, abs=1e-5)


@pytest.mark.parametrize("name", ["gap", "entropy", "soft_or"])
def test_a_teacher_that_rules_the_token_out_gives_a_finite_gate(name):
    tokens = DistillationTokens(
        student=torch.tensor([-1.0]),
        teacher=torch.tensor([-math.inf]),
        entropy=torch.tensor([1.0]),
        max_entropy=LOG_V,
    )
    value = GATES[name](5.0).value(tokens)
    assert torch.isfinite(value).all()


def test_entropy_is_needed_where_it_is_said_and_nowhere_else():
    assert [GATES[name](1.0).needs_entropy for name in ("gap", "none", "entropy", "soft_or")] == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="entropy"):
        EntropyGate().value(tokens_of(torch.zeros(1)))


def test_scaling_changes_the_slope_alone():
    assert SoftOrGate(beta=4.0, threshold=0.6).scaled(0.5) == SoftOrGate(beta=2.0, threshold=0.6)
    assert NoGate().scaled(0.5) == NoGate()


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (GapGate, {"beta": -1.0}, "GapGate.beta must be a number >= 0, got -1.0"),
        (GapGate, {"beta": math.inf}, "GapGate.beta must be a number >= 0, got inf"),
        (GapGate, {"threshold": 2.0}, "GapGate.threshold must be a number >= 0 and <= 1, got 2.0"),
        (
            EntropyGate,
            {"entropy_scale": "nats"},
            "EntropyGate.entropy_scale must be 'normalized' or 'raw', got 'nats'",
        ),
    ],
)
def test_settings_out_of_range_are_refused(kind, settings, message):
    with pytest.raises(UserError, match=re.escape(message)):
        kind(**settings)


@given(student=st.floats(-3, -0.1), difference=st.floats(-3, 3), beta=st.floats(0.5, 10))
def test_the_undetached_gate_flips_the_sign_where_proposition_5_says(student, difference, beta):
    """Not on offer: here only to show why the gate is detached."""
    student = torch.tensor(student, dtype=torch.float64, requires_grad=True)
    teacher = student.detach() + difference
    gate = torch.sigmoid(beta * (teacher - student))
    (slope,) = torch.autograd.grad(gate * (teacher - student), student)
    expected = -(gate + beta * difference * gate * (1 - gate)).item()
    assert slope.item() == pytest.approx(expected, rel=1e-9)
    flips = 1 + beta * difference * (1 - gate.item()) < 0
    assert (slope.item() > 0) == flips
    # ... while the term as it is never turns round.
    single = torch.tensor(student.item(), requires_grad=True)
    tokens = DistillationTokens(single, torch.tensor(teacher.item()))
    (kept,) = torch.autograd.grad(GapGate(beta=beta).value(tokens) * Sampled().token_loss(tokens), single)
    assert kept.item() <= 0


def test_the_undetached_gate_does_flip_somewhere():
    gate = plain_loops.sigmoid(5 * -1.0)
    assert gate + 5 * -1.0 * gate * (1 - gate) < 0
