"""The sum of the terms: equal to plain loops, and blind to padding, row order and the cut into micro-batches."""

import math
import re
from dataclasses import dataclass, replace

import plain_loops
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sdar.errors import UserError
from sdar.learning.batch import TokenBatch
from sdar.objective.divergence import SampledReverseKL
from sdar.objective.full_vocabulary import JensenShannon, ReverseKL
from sdar.objective.gate import EntropyGate, GapGate, NoGate, SoftOrGate
from sdar.objective.objective import ConstantLength, ObjectiveConfig, denominators, token_losses, total_loss
from toys.methods import METHODS, method_settings

FULL = ObjectiveConfig(kl_coefficient=0.3, entropy_coefficient=0.2, distillation_coefficient=0.4)


MAX_ENTROPY = math.log(50)


@dataclass
class Scored:
    log_probs: Tensor
    entropy: Tensor | None
    divergence: Tensor | None = None
    max_entropy: float = MAX_ENTROPY


def random_rows(seed, lengths):
    """Ragged tokens as plain dicts; about every third position is not a response token (None)."""
    generator = torch.Generator().manual_seed(seed)

    def draw():
        return torch.randn((), generator=generator).item()

    rows = []
    for length in lengths:
        row = []
        for _ in range(length):
            log_prob = -abs(draw()) - 0.1
            token = {
                "log_prob": log_prob,
                "old": log_prob + 0.5 * draw(),
                "teacher": log_prob + 0.5 * draw(),
                "reference": log_prob + 0.5 * draw(),
                "advantage": draw(),
                "entropy": min(abs(draw()), MAX_ENTROPY),
                "divergence": abs(draw()),
            }
            row.append(None if draw() > 0.5 else token)
        rows.append(row)
    return rows


def tensors(rows, *, width=None, garbage=0.0):
    """Rows as a batch and scores, right-padded to ``width``; masked-out positions hold ``garbage``."""
    width = width or max(map(len, rows))

    def grid(name):
        return torch.tensor(
            [[t[name] if t else garbage for t in row] + [garbage] * (width - len(row)) for row in rows]
        ).reshape(len(rows), width)

    mask = torch.tensor([[t is not None for t in row] + [False] * (width - len(row)) for row in rows])
    mask = mask.reshape(len(rows), width)
    batch = TokenBatch(
        ids=torch.zeros(len(rows), width, dtype=torch.long),
        attention_mask=torch.tensor([[c < len(row) for c in range(width)] for row in rows]).reshape(len(rows), width),
        response_mask=mask,
        advantage=grid("advantage"),
        turn_index=torch.where(mask, 0, -1),
        episode_index=torch.arange(len(rows)),
        old_log_probs=grid("old"),
        teacher_log_probs=grid("teacher"),
        reference_log_probs=grid("reference"),
    )
    return batch, Scored(*(grid(name).requires_grad_() for name in ("log_prob", "entropy", "divergence")))


def step(rows, config, cut=None, episodes=0.0, **kwargs):
    """Loss of a step and its gradients per row (response tokens only), computed in the given micro-batches."""
    batch, scores = tensors(rows, **kwargs)
    counts = denominators(batch, config, episodes)
    value = 0.0
    for part in cut or [range(len(rows))]:
        index = torch.tensor(list(part))
        piece = batch.select(list(part))
        width = piece.ids.shape[1]
        losses = token_losses(
            Scored(*(leaf[index, :width] for leaf in (scores.log_probs, scores.entropy, scores.divergence))),
            piece,
            config,
        )
        loss = total_loss(losses, counts, config)
        loss.backward()
        value += loss.item()
    gradients = []
    for leaf in (scores.log_probs, scores.entropy, scores.divergence):
        gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        gradients.append([gradient[i][batch.response_mask[i]].tolist() for i in range(len(rows))])
        assert torch.equal(gradient[~batch.response_mask], torch.zeros(int((~batch.response_mask).sum())))
    return value, gradients


def flat(nested):
    return [x for row in nested for x in row]


def assert_same(found, expected, order=None):
    assert found[0] == pytest.approx(expected[0], rel=1e-5, abs=1e-6)
    for mine, other in zip(found[1], expected[1], strict=True):
        rows = other if order is None else [other[i] for i in order]
        assert flat(mine) == pytest.approx(flat(rows), rel=1e-5, abs=1e-8)


CONFIGS = {
    "all terms": FULL,
    "k2, no dual clip": replace(FULL, kl_kind="k2", dual_clip=None, gate=GapGate(beta=1.0)),
    "policy alone": ObjectiveConfig(kl_coefficient=0, entropy_coefficient=0, distillation_coefficient=0),
    "distillation alone": replace(FULL, policy_coefficient=0, kl_coefficient=0, entropy_coefficient=0),
    "clip higher": replace(FULL, clip_high=0.28, clip_low=0.1),
    "entropy gate, score function": replace(FULL, gate=EntropyGate(beta=2.0), divergence=SampledReverseKL()),
    "soft-or gate": replace(FULL, gate=SoftOrGate(beta=1.5)),
    "soft-or gate, whole distributions": replace(FULL, gate=SoftOrGate(beta=1.5), divergence=JensenShannon()),
    "no gate, score function": replace(FULL, gate=NoGate(), divergence=SampledReverseKL()),
    "no gate, whole distributions": replace(FULL, gate=NoGate(), divergence=ReverseKL()),
}


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("ratio", ["token", "turn"])
@pytest.mark.parametrize("divergence", [None, SampledReverseKL(), ReverseKL()])
def test_what_lies_outside_the_mask_has_no_part_in_loss_and_gradient(garbage, ratio, divergence):
    """A nan of the teacher there made the gradient nan: 0 * nan is nan."""
    rows = random_rows(3, [5, 2, 7])
    config = replace(FULL, ratio=ratio, gate=GapGate() if divergence is None else NoGate())
    if divergence is not None:
        config = replace(config, divergence=divergence)
    assert step(rows, config, garbage=garbage) == step(rows, config)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(3))
def test_values_and_gradients_equal_plain_loops(name, seed):
    config = CONFIGS[name]
    rows = random_rows(seed, [7, 1, 19, 4, 12])
    kept = [[token for token in row if token] for row in rows]
    count = sum(map(len, kept))
    value, *gradients = plain_loops.total(kept, config, count, MAX_ENTROPY)
    assert_same(step(rows, config), (value, gradients))


@pytest.mark.parametrize("method", METHODS)
def test_the_objective_of_every_methods_file_equals_plain_loops(method):
    """Value and gradient by every log-prob, entropy and divergence, as the file states terms and coefficients."""
    config = method_settings(method).method.objective
    rows = random_rows(1, [7, 1, 19, 4, 12])
    kept = [[token for token in row if token] for row in rows]
    if not any(config.coefficients().values()):
        with pytest.raises(ValueError, match="every coefficient is 0"):
            step(rows, config)
        return
    count = sum(map(len, kept))
    episodes = float(sum(bool(row) for row in kept))
    policy = None if config.policy_length is None else config.policy_length.tokens * episodes
    value, *gradients = plain_loops.total(kept, config, count, MAX_ENTROPY, policy)
    assert_same(step(rows, config, episodes=episodes), (value, gradients))
    assert any(flat(gradients[0])) or any(flat(gradients[2]))


@settings(deadline=None, max_examples=50)
@given(
    config=st.sampled_from([FULL, CONFIGS["soft-or gate, whole distributions"], CONFIGS["no gate, score function"]]),
    seed=st.integers(0, 1000),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=7),
    data=st.data(),
)
def test_cut_padding_and_row_order_change_neither_loss_nor_gradient(config, seed, lengths, data):
    rows = random_rows(seed, lengths)
    expected = step(rows, config)
    order = data.draw(st.permutations(range(len(rows))))
    shuffled = [rows[i] for i in order]
    where = data.draw(st.permutations(range(len(rows))))
    size = data.draw(st.integers(1, len(rows)))
    cut = [where[i : i + size] for i in range(0, len(where), size)]
    assert_same(step(shuffled, config, cut), expected, order)
    assert_same(step(rows, config, width=max(lengths) + 5), expected)


def test_what_lies_outside_the_mask_has_no_part_in_loss_or_gradient():
    rows = random_rows(4, [5, 9])
    assert_same(step(rows, FULL, garbage=-3.0, width=12), step(rows, FULL))


@pytest.mark.parametrize("term", ["distillation", "kl", "entropy"])
def test_zero_coefficient_is_bit_equal_to_an_objective_without_the_term(term):
    rows = random_rows(5, [8, 8, 8])
    config = replace(FULL, **{f"{term}_coefficient": 0.0})
    batch, scores = tensors(rows)
    counts = denominators(batch, config)
    present = token_losses(scores, batch, config)
    assert term in present.terms  # computed for the log ...
    assert not present.terms[term].loss.requires_grad
    loss = total_loss(present, counts, config)
    gradients = torch.autograd.grad(loss, [scores.log_probs, scores.entropy], allow_unused=True)
    bare, bare_scores = tensors(rows)
    if term == "distillation":
        bare.teacher_log_probs = None
    if term == "kl":
        bare.reference_log_probs = None
    if term == "entropy":
        bare_scores = Scored(bare_scores.log_probs, None)
    absent = token_losses(bare_scores, bare, config)
    bare_loss = total_loss(absent, counts, config)
    (bare_gradient,) = torch.autograd.grad(bare_loss, [bare_scores.log_probs])
    assert term not in absent.terms
    assert torch.equal(loss, bare_loss)  # ... and left out of the sum
    assert torch.equal(gradients[0], bare_gradient)


def test_zero_coefficient_does_not_let_a_broken_term_reach_the_loss():
    batch, scores = tensors(random_rows(6, [6]))
    batch.teacher_log_probs = torch.full_like(batch.ids, math.nan, dtype=torch.float32)
    config = replace(FULL, distillation_coefficient=0.0)
    assert torch.isfinite(total_loss(token_losses(scores, batch, config), denominators(batch, config), config))


@pytest.mark.parametrize(
    ("missing", "term"),
    [("old_log_probs", "policy"), ("teacher_log_probs", "distillation"), ("reference_log_probs", "kl")],
)
def test_a_term_without_its_inputs_is_an_error(missing, term):
    batch, scores = tensors(random_rows(7, [4]))
    setattr(batch, missing, None)
    with pytest.raises(ValueError, match=f"the {term} term has coefficient"):
        token_losses(scores, batch, FULL)


def test_each_term_is_divided_by_its_own_denominator():
    rows = random_rows(8, [6, 6])
    batch, scores = tensors(rows)
    losses = token_losses(scores, batch, FULL)
    counts = {"policy": 2.0, "distillation": 3.0, "kl": 5.0, "entropy": 7.0}
    expected = sum(c * losses.terms[name].sum() / counts[name] for name, c in FULL.coefficients().items())
    torch.testing.assert_close(total_loss(losses, counts, FULL), expected)


def test_diagnostics_are_sums_that_add_up_over_micro_batches():
    rows = random_rows(9, [5, 11, 3, 8])
    batch, scores = tensors(rows)
    whole = token_losses(scores, batch, FULL).diagnostics
    parts = []
    for part in ([0, 2], [1, 3]):
        piece = batch.select(part)
        width = piece.ids.shape[1]
        parts.append(
            token_losses(Scored(scores.log_probs[part][:, :width], scores.entropy[part][:, :width]), piece, FULL)
        )
    assert all(not value.requires_grad and value.dtype == torch.float32 for value in whole.values())
    for tag, value in whole.items():
        torch.testing.assert_close(sum(part.diagnostics[tag] for part in parts), value)
    kept = [token for row in rows for token in row if token]
    assert whole["tokens"] == len(kept)
    gates = [plain_loops.gate(token["teacher"] - token["log_prob"], FULL.gate.beta) for token in kept]
    assert whole["objective/gate_mean"].item() == pytest.approx(sum(gates), rel=1e-5)
    clipped = [plain_loops.policy(t["log_prob"], t["old"], t["advantage"], 0.2, 0.2, 3.0)[2] for t in kept]
    assert whole["train/clip_fraction"] == sum(clipped)
    total = plain_loops.total([kept], FULL, 1)[0]
    assert whole["loss/total"].item() == pytest.approx(total, rel=1e-5)


def test_bfloat16_scores_give_a_float32_loss():
    batch, scores = tensors(random_rows(10, [6]))
    half = Scored(scores.log_probs.bfloat16(), scores.entropy.bfloat16())
    losses = token_losses(half, batch, FULL)
    assert {term.loss.dtype for term in losses.terms.values()} == {torch.float32}
    assert total_loss(losses, denominators(batch, FULL), FULL).dtype == torch.float32


def test_first_optimizer_step_of_the_specification():
    # S = old = T: the SDAR term is 0, its gradient -lambda / 2 per token; the policy term is the plain gradient.
    rows = random_rows(11, [10])
    for token in filter(None, rows[0]):
        token["old"] = token["teacher"] = token["log_prob"]
    count = sum(token is not None for token in rows[0])
    _, (gradient, *_) = step(rows, CONFIGS["distillation alone"])
    assert flat(gradient) == pytest.approx([-0.4 * 0.5 / count] * count)


@pytest.mark.parametrize(
    ("setting", "value", "allowed"),
    [
        ("distillation_coefficient", -0.1, "a number >= 0"),
        ("kl_coefficient", math.nan, "a number >= 0"),
        ("clip_low", 1.0, "a number >= 0 and < 1"),
        ("clip_high", -0.1, "a number >= 0"),
        ("dual_clip", 1.0, "a number > 1 or null"),
        ("kl_kind", "k1", "'k2' or 'k3' or 'k1_in_reward'"),
        ("policy_coefficient", math.inf, "a number >= 0"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(setting, value, allowed):
    with pytest.raises(UserError, match=re.escape(f"ObjectiveConfig.{setting} must be {allowed}, got {value!r}")):
        ObjectiveConfig(**{setting: value})


def test_an_objective_without_any_term_can_be_stated_but_has_no_loss():
    nothing = ObjectiveConfig(0, kl_coefficient=0, entropy_coefficient=0, distillation_coefficient=0)
    batch, scores = tensors(random_rows(0, [3]))
    with pytest.raises(ValueError, match="every coefficient is 0"):
        total_loss(token_losses(scores, batch, nothing), denominators(batch, nothing), nothing)


def test_a_constant_length_divides_the_policy_term_by_episodes_and_nothing_else():
    """Dr. GRPO: the sum over the tokens, over the longest episode there can be times the number of episodes."""
    config = replace(FULL, policy_length=ConstantLength(turns=3, response_tokens=4))
    batch, scores = tensors(random_rows(0, [3, 1, 4]))
    counts = denominators(batch, config, episodes=2.5)
    tokens = int(batch.response_mask.sum())
    assert counts == {"policy": 30.0, "distillation": tokens, "kl": tokens, "entropy": tokens}
    losses = token_losses(scores, batch, config)
    plain = total_loss(losses, denominators(batch, FULL), FULL)
    sums = losses.terms["policy"].sum()
    expected = plain + config.policy_coefficient * (sums / 30 - sums / tokens)
    torch.testing.assert_close(total_loss(losses, counts, config), expected)
    with pytest.raises(UserError, match=r"ConstantLength\.turns must be a whole number >= 1, got 0"):
        ConstantLength(turns=0, response_tokens=4)
