"""One function scores tokens: as the full logits would, in float32, without ever holding them."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sdar.policy.log_probs import score_tokens
from toys.models import tiny_random_model
from toys.reference import naive_score_tokens


def _batch(kind: str = "right", rows: int = 5, width: int = 23) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, attention mask and score mask with ragged rows; ``kind`` says where the padding is."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 300, (rows, width), generator=generator)
    lengths = torch.randint(4, width + 1, (rows, 1), generator=generator)
    column = torch.arange(width)
    if kind == "right":
        attention = column < lengths
    elif kind == "left":
        attention = column >= width - lengths
    else:
        attention = torch.rand(rows, width, generator=generator) < 0.7
        attention[:, 0] = True
    score = attention & (torch.rand(rows, width, generator=generator) < 0.6)
    first = attention & (attention.long().cumsum(-1) == 1)
    score &= ~first
    if kind == "holes":  # a scored token's predecessor column must be real
        score[:, 1:] &= attention[:, :-1]
    return ids, attention, score


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1.0, 0.4])
@pytest.mark.parametrize("padding", ["right", "left", "holes"])
def test_scores_and_gradients_are_those_of_the_full_logits(
    padding: str, temperature: float, dtype: torch.dtype
) -> None:
    model = tiny_random_model(dtype=dtype, spread=0.1)
    ids, attention, mask = _batch(padding)
    weights = torch.rand(2, *ids.shape, generator=torch.Generator().manual_seed(2)) * mask
    results = []
    for score, extra in ((score_tokens, {"chunk_tokens": 7}), (naive_score_tokens, {})):
        model.zero_grad()
        scores = score(model, ids, attention, mask, temperature=temperature, entropy=True, **extra)
        assert scores.entropy is not None
        assert scores.log_probs.dtype == scores.entropy.dtype == torch.float32
        assert scores.log_probs.shape == scores.entropy.shape == ids.shape
        (weights[0] * scores.log_probs + weights[1] * scores.entropy).sum().backward()
        gradients = {name: p.grad.float().clone() for name, p in model.named_parameters()}
        results.append((scores.log_probs.detach(), scores.entropy.detach(), gradients))
    (log_probs, entropy, gradients), (naive_log_probs, naive_entropy, naive_gradients) = results
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(log_probs, naive_log_probs, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(entropy, naive_entropy, atol=tolerance, rtol=tolerance)
    for name, gradient in gradients.items():
        scale = naive_gradients[name].abs().max()
        assert (gradient - naive_gradients[name]).abs().max() <= 10 * tolerance * scale, name


@pytest.mark.parametrize("chunk_tokens", [1, 5, 1000])
def test_scores_do_not_depend_on_the_chunk_size(chunk_tokens: int) -> None:
    model = tiny_random_model()
    batch = _batch()
    results = []
    for size in (None, chunk_tokens):
        model.zero_grad()
        scores = score_tokens(model, *batch, entropy=True, chunk_tokens=size)
        assert scores.entropy is not None
        (scores.log_probs.sum() + scores.entropy.sum()).backward()
        results.append([scores.log_probs, scores.entropy, *(p.grad.clone() for p in model.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_tokens_that_are_not_scored_are_zero_and_entropy_is_optional() -> None:
    ids, attention, mask = _batch()
    scores = score_tokens(tiny_random_model(), ids, attention, mask)
    assert scores.entropy is None
    assert (scores.log_probs[~mask] == 0).all()
    assert (scores.log_probs[mask] < 0).all()


def test_padding_and_its_ids_do_not_matter() -> None:
    model = tiny_random_model()
    ids, attention, mask = _batch()
    wider = [torch.nn.functional.pad(tensor, (0, 9)) for tensor in (ids, attention, mask)]
    wider[0][~wider[1]] = 7
    with torch.no_grad():
        narrow = score_tokens(model, ids, attention, mask).log_probs
        wide = score_tokens(model, *wider).log_probs
    torch.testing.assert_close(wide[:, : ids.shape[1]], narrow, atol=1e-5, rtol=1e-5)


def test_nothing_to_score_still_gives_a_graph() -> None:
    model = tiny_random_model()
    ids, attention, mask = _batch()
    scores = score_tokens(model, ids, attention, torch.zeros_like(mask), entropy=True)
    assert (scores.log_probs == 0).all()
    scores.log_probs.sum().backward()


def test_the_logits_of_the_batch_never_exist_at_once() -> None:
    model = tiny_random_model()
    ids, attention, mask = _batch(rows=8, width=64)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor) and tensor.shape[-1:] == (300,):
                    largest = max(largest, tensor.numel())
            return out

    with Watch():
        score_tokens(model, ids, attention, mask, entropy=True, chunk_tokens=48).log_probs.sum().backward()
    assert mask.sum() > 100  # the transposed head has 32 rows, a chunk 48, all scored tokens together more than 100
    assert 0 < largest <= 48 * 300


def test_bad_requests_are_named() -> None:
    model = tiny_random_model()
    ids, attention, mask = _batch()
    with pytest.raises(ValueError, match="temperature must be > 0"):
        score_tokens(model, ids, attention, mask, temperature=0.0)
    mask[0, 0] = True
    with pytest.raises(ValueError, match="first token"):
        score_tokens(model, ids, attention, mask)
