"""A token is the inverse of the filtered cumulative distribution at its own uniform number."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import TopKLogitsWarper, TopPLogitsWarper

from sdar.errors import RunFailed
from sdar.policy.sampling import TokenSampler


def _logits(rows: int = 4, vocabulary: int = 50, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed))


def test_evenly_spread_uniforms_give_the_probabilities() -> None:
    logits, count = _logits(rows=1), 100_000
    uniforms = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    tokens = TokenSampler(temperature=0.7).sample(logits.expand(count, -1), uniforms)
    shares = torch.bincount(tokens, minlength=50) / count
    torch.testing.assert_close(shares, torch.softmax(logits[0] / 0.7, -1), atol=2e-5, rtol=0)


@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3, 1e-6])
@pytest.mark.parametrize("top_k", [0, 1, 7, 50, 80])
@pytest.mark.parametrize("temperature", [0.4, 1.0])
def test_filters_are_those_of_transformers(temperature: float, top_k: int, top_p: float) -> None:
    logits = _logits()
    ids = torch.zeros(4, 1, dtype=torch.long)
    expected = logits / temperature
    if top_k:
        expected = TopKLogitsWarper(top_k)(ids, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(ids, expected)
    kept = TokenSampler(temperature, top_p, top_k).probabilities(logits)
    torch.testing.assert_close(kept / kept.sum(-1, keepdim=True), torch.softmax(expected, -1))


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1.0 - 2.0**-53, 1.0])
def test_a_token_that_was_filtered_out_is_never_drawn(uniform: float) -> None:
    logits = _logits(rows=200)
    sampler = TokenSampler(top_k=3)
    tokens = sampler.sample(logits, torch.full((200,), uniform, dtype=torch.float64))
    assert (sampler.probabilities(logits).gather(-1, tokens[:, None]) > 0).all()


def test_temperature_0_takes_the_most_likely_token() -> None:
    logits = _logits()
    tokens = TokenSampler(temperature=0.0).sample(logits, torch.full((4,), 0.9, dtype=torch.float64))
    assert torch.equal(tokens, logits.argmax(-1))


@pytest.mark.parametrize("setting", [{"temperature": -0.1}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}])
def test_impossible_settings_are_named(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        TokenSampler(**setting)  # type: ignore[arg-type]


@pytest.mark.parametrize("sampler", [TokenSampler(), TokenSampler(0.0), TokenSampler(0.5, 0.9), TokenSampler(1, 1, 3)])
def test_logits_that_are_not_finite_are_told_and_excluded_tokens_are_not(sampler: TokenSampler) -> None:
    uniforms = torch.full((4,), 0.5, dtype=torch.float64)
    logits = _logits()
    logits[:, 10:] = -math.inf
    assert (sampler.sample(logits, uniforms) < 10).all()
    for column, value in ((3, math.nan), (3, math.inf), (slice(None), -math.inf)):
        broken = logits.clone()
        broken[2, column] = value
        with pytest.raises(RunFailed, match="logits are not finite") as caught:
            sampler.sample(broken, uniforms)
        assert "\n" not in str(caught.value)
