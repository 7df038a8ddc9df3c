"""Scores from hidden states in chunks: the naive numbers and gradients, without ever holding all logits."""

import math
from types import SimpleNamespace

import plain_loops
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from sdar.objective.chunked_head import OutputHead, TeacherStates, chunk_tokens_of, chunked_scores, score_logits
from sdar.objective.full_vocabulary import ForwardKL, JensenShannon, ReverseKL

V, H = 37, 5
FORMS = {
    "reverse_kl": ReverseKL(),
    "forward_kl": ForwardKL(),
    "jsd": JensenShannon(),
    "reverse_kl, top 4": ReverseKL(top_k=4),
    "forward_kl, top 1": ForwardKL(top_k=1),
    "jsd, top 36": JensenShannon(top_k=36),
}
FINISHES = {
    "nothing": None,
    "temperature": lambda logits: logits / 0.7,
    "capped": lambda logits: torch.tanh(logits / 3.0) * 3.0,
}


def case(seed=0, tokens=11, dtype=torch.float64, finish="nothing", bias=True):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    leaves = [draw(tokens, H), draw(V, H), draw(V) if bias else None]
    for leaf in leaves:
        if leaf is not None:
            leaf.requires_grad_()
    head = OutputHead(leaves[1], leaves[2], FINISHES[finish])
    teacher = TeacherStates(draw(tokens, H + 2), OutputHead(draw(V, H + 2), None, FINISHES[finish]))
    targets = torch.randint(V, (tokens,), generator=generator)
    weights = torch.rand(3, tokens, generator=generator, dtype=torch.float64).to(dtype)
    return leaves, head, teacher, targets, weights


def results(scores, weights, leaves):
    given_scores = [score for score in scores[:3] if score is not None]
    loss = sum((weight * score).sum() for weight, score in zip(weights, given_scores, strict=False))
    gradients = torch.autograd.grad(loss, [leaf for leaf in leaves if leaf is not None])
    return [score.detach() for score in scores if score is not None], gradients


@pytest.mark.parametrize("finish", FINISHES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_scores_and_gradients_are_those_of_all_logits_at_once(finish, form, entropy, chunk):
    leaves, head, teacher, targets, weights = case(finish=finish)
    found = chunked_scores(
        leaves[0], head, targets, entropy=entropy, teacher=teacher, divergence=FORMS[form], chunk_tokens=chunk
    )
    naive = score_logits(
        head.finished(head.linear(leaves[0])),
        targets,
        entropy=entropy,
        teacher_log_probs=teacher.head.log_probs(teacher.hidden),
        divergence=FORMS[form],
    )
    for mine, other in zip(results(found, weights, leaves), results(naive, weights, leaves), strict=True):
        for one, two in zip(mine, other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["reverse_kl", "forward_kl", "jsd"])
def test_gradients_at_the_hidden_states_equal_plain_loops(kind):
    leaves, head, teacher, targets, _ = case(seed=1, tokens=4)
    scores = chunked_scores(leaves[0], head, targets, teacher=teacher, divergence=FORMS[kind], chunk_tokens=3)
    (gradient,) = torch.autograd.grad(scores.divergence.sum(), leaves[0])
    logits = head.linear(leaves[0]).tolist()
    teacher_logits = teacher.head.linear(teacher.hidden).tolist()
    weight = leaves[1].tolist()
    for n in range(4):
        value, slopes = plain_loops.divergence_of_logits(logits[n], teacher_logits[n], kind)
        assert scores.divergence[n].item() == pytest.approx(value, rel=1e-8)
        by_hand = [sum(slopes[v] * weight[v][d] for v in range(V)) for d in range(H)]
        assert gradient[n].tolist() == pytest.approx(by_hand, rel=1e-4, abs=1e-7)


def test_autograd_agrees_with_finite_differences():
    leaves, _, teacher, targets, _ = case(seed=2, tokens=3)

    def scores(hidden, weight, bias):
        found = chunked_scores(
            hidden,
            OutputHead(weight, bias),
            targets,
            entropy=True,
            teacher=teacher,
            divergence=FORMS["jsd"],
            chunk_tokens=2,
        )
        return found[:3]

    assert torch.autograd.gradcheck(scores, leaves)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_a_loss_of_some_of_the_scores_has_their_gradient_alone(wanted):
    leaves, head, teacher, targets, weights = case(seed=3)
    both = []
    for chunk in (3, None):
        found = chunked_scores(
            leaves[0], head, targets, entropy=True, teacher=teacher, divergence=FORMS["reverse_kl"], chunk_tokens=chunk
        )
        both.append(torch.autograd.grad(sum((weights[i] * found[i]).sum() for i in wanted), leaves))
    naive = score_logits(
        head.linear(leaves[0]),
        targets,
        entropy=True,
        teacher_log_probs=teacher.head.log_probs(teacher.hidden),
        divergence=FORMS["reverse_kl"],
    )
    expected = torch.autograd.grad(sum((weights[i] * naive[i]).sum() for i in wanted), leaves)
    for found in both:
        for one, two in zip(found, expected, strict=True):
            torch.testing.assert_close(one, two)


@pytest.mark.parametrize(
    ("gigabytes", "vocabulary", "tokens"),
    [(None, 152_000, 68), (None, 10**9, 1), (80, 152_000, 1103), (24, 152_000, 331), (2, 152_000, 68)],
)
def test_a_chunk_fits_the_device(monkeypatch, gigabytes, vocabulary, tokens):
    """40 MiB on a CPU and on a small card; on others four chunks take a thirty-second of the memory."""
    card = SimpleNamespace(total_memory=0 if gigabytes is None else gigabytes * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    device = torch.device("cpu" if gigabytes is None else "cuda")
    found = chunk_tokens_of(vocabulary, device)
    assert found == tokens
    if gigabytes is not None:
        assert 4 * (found * vocabulary * 4) <= max(gigabytes * 2**30 / 32, 160 * 2**20)


def test_a_frozen_head_costs_no_gradient_and_gets_none():
    leaves, _, teacher, targets, _ = case(seed=4, bias=False)
    frozen = OutputHead(leaves[1].detach())
    scores = chunked_scores(leaves[0], frozen, targets, teacher=teacher, divergence=FORMS["jsd"])
    scores.divergence.sum().backward()
    assert leaves[0].grad is not None
    assert leaves[1].grad is None


def test_the_teacher_receives_no_gradient_even_with_the_students_own_head():
    leaves, head, _, targets, _ = case(seed=5)
    hidden = torch.randn(11, H, dtype=torch.float64, requires_grad=True)
    scores = chunked_scores(
        leaves[0], head, targets, teacher=TeacherStates(hidden, head), divergence=FORMS["reverse_kl"]
    )
    scores.divergence.sum().backward()
    assert hidden.grad is None
    assert not scores.teacher_log_probs.requires_grad
    # As with a copy of the head: the gradient is the student's part.
    again, copied, _, _, _ = case(seed=5)
    own = TeacherStates(hidden.detach(), OutputHead(copied.weight.detach(), copied.bias.detach()))
    chunked_scores(again[0], copied, targets, teacher=own, divergence=FORMS["reverse_kl"]).divergence.sum().backward()
    assert torch.equal(leaves[1].grad, again[1].grad)


def test_equal_states_have_no_divergence_and_no_gradient():
    leaves, head, _, targets, _ = case(seed=6, dtype=torch.float32)
    for form in FORMS.values():
        teacher = TeacherStates(leaves[0], head)
        scores = chunked_scores(leaves[0], head, targets, teacher=teacher, divergence=form)
        assert torch.equal(scores.teacher_log_probs, scores.log_probs.detach())
        assert scores.divergence.abs().max() < 1e-6
        gradients = torch.autograd.grad(scores.divergence.sum(), leaves)
        assert max(gradient.abs().max() for gradient in gradients) < 1e-5


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 1000), tokens=st.integers(0, 9), chunk=st.integers(1, 12), data=st.data())
def test_order_and_cut_change_neither_scores_nor_gradients(seed, tokens, chunk, data):
    leaves, head, teacher, targets, weights = case(seed=seed, tokens=tokens)
    options = {"entropy": True, "divergence": FORMS["forward_kl"]}
    whole, gradients = results(chunked_scores(leaves[0], head, targets, teacher=teacher, **options), weights, leaves)
    order = torch.tensor(data.draw(st.permutations(range(tokens))), dtype=torch.long)
    moved = TeacherStates(teacher.hidden[order], teacher.head)
    shuffled = chunked_scores(leaves[0][order], head, targets[order], teacher=moved, chunk_tokens=chunk, **options)
    found, other = results(shuffled, weights[:, order], leaves)
    for one, two in zip(found, whole, strict=True):
        torch.testing.assert_close(one, two[order])
    for one, two in zip(other, gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_gives_float32_scores_close_to_the_exact_ones(autocast):
    leaves, head, teacher, targets, weights = case(seed=7, tokens=40, dtype=torch.float32)
    options = {"entropy": True, "divergence": FORMS["reverse_kl"], "chunk_tokens": 16}
    exact, exact_gradients = results(
        chunked_scores(leaves[0], head, targets, teacher=teacher, **options), weights, leaves
    )
    if not autocast:
        leaves = [leaf.detach().bfloat16().requires_grad_() for leaf in leaves]
        head = OutputHead(*leaves[1:])
        teacher = TeacherStates(teacher.hidden.bfloat16(), teacher.head.to(torch.bfloat16))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        scores = chunked_scores(leaves[0], head, targets, teacher=teacher, **options)
    assert {score.dtype for score in scores} == {torch.float32}
    found, gradients = results(scores, weights, leaves)
    for one, two in zip(found, exact, strict=True):
        torch.testing.assert_close(one, two, rtol=0.05, atol=0.1)
    for leaf, one, two in zip(leaves, gradients, exact_gradients, strict=True):
        assert one.dtype == leaf.dtype
        assert (one.float() - two).norm() <= 0.05 * two.norm()


def test_a_teacher_that_rules_tokens_out_gives_finite_gradients():
    leaves, head, teacher, targets, _ = case(seed=8, dtype=torch.float32)
    bias = torch.where(torch.arange(V) % 3 == 0, -math.inf, 0.0)
    ruled = TeacherStates(teacher.hidden, OutputHead(teacher.head.weight, bias))
    for form in FORMS.values():
        scores = chunked_scores(leaves[0], head, targets, teacher=ruled, divergence=form)
        gradients = torch.autograd.grad(scores.divergence.sum(), leaves)
        assert torch.isfinite(scores.divergence).all()
        assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("form", ["reverse_kl", "jsd", "reverse_kl, top 4"])
def test_the_logits_of_all_tokens_never_exist_and_the_heads_gradient_only_once(form):
    """Counted on every tensor that torch makes: none is larger than a chunk, but for one gradient of the head."""
    leaves, head, teacher, targets, _ = case(tokens=64, dtype=torch.float32, bias=False)
    largest, weights_made = 0, 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest, weights_made
            out = func(*args, **(kwargs or {}))
            inputs = {t.data_ptr() for t in args if isinstance(t, torch.Tensor)}
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if not isinstance(tensor, torch.Tensor) or tensor.data_ptr() in inputs:
                    continue  # a view, or written in place
                if tensor.shape == (V, H):
                    weights_made += 1
                elif tensor.shape[-1:] == (V,):
                    largest = max(largest, tensor.numel())
            return out

    with Watch():
        scores = chunked_scores(leaves[0], head, targets, teacher=teacher, divergence=FORMS[form], chunk_tokens=8)
        (scores.divergence + scores.log_probs).sum().backward()
    assert 0 < largest <= 8 * V
    assert weights_made == 1
    assert leaves[1].grad is not None


def test_bad_requests_are_named():
    leaves, head, teacher, targets, _ = case()
    with pytest.raises(ValueError, match="a divergence needs a teacher"):
        chunked_scores(leaves[0], head, targets, divergence=FORMS["jsd"])
    with pytest.raises(ValueError, match="the teacher has 3 tokens, the student 11"):
        chunked_scores(leaves[0], head, targets, teacher=TeacherStates(teacher.hidden[:3], teacher.head))
    other = OutputHead(teacher.head.weight[:4])
    with pytest.raises(ValueError, match="vocabulary has 4 tokens"):
        chunked_scores(leaves[0], head, targets, teacher=TeacherStates(teacher.hidden, other))
