"""Steps of one shape sample what the plain loop samples; a cache that would not fit is refused; 16 bits show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdar.errors import RunFailed, UserError
from sdar.policy import fixed_decoding
from sdar.policy.cache import SlotCache
from sdar.policy.forward import hidden_states
from sdar.policy.log_probs import score_tokens
from toys.conversations import END, LIMIT, generator, play
from toys.models import tiny_random_model


@pytest.mark.parametrize("window", [False, True], ids=["append", "window"])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), look_every=st.integers(1, 12), temperature=st.sampled_from([0.0, 1.0]))
def test_fixed_steps_sample_what_plain_ones_do(window: bool, seed: int, look_every: int, temperature: float) -> None:
    model = tiny_random_model(seed=seed % 5)
    with torch.no_grad():
        model.get_input_embeddings().weight[END] *= 1.5  # rows end at different steps
    plain = play(model, seed, window=window, step="plain", temperature=temperature)
    fixed = play(model, seed, window=window, step="fixed", look_every=look_every, temperature=temperature)
    assert fixed == plain


def test_rows_end_early_and_the_look_is_what_stops_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row ends at its second token: steps go on until the next look, and no longer."""
    model = tiny_random_model()
    head = model.get_output_embeddings()
    steps: list[int] = []

    def says(hidden: torch.Tensor) -> torch.Tensor:
        steps.append(len(hidden))
        logits = torch.full((*hidden.shape[:-1], 300), -30.0)
        logits[..., END if len(steps) > 1 else 7] = 30.0
        return logits

    monkeypatch.setattr(head, "forward", says)
    for look_every, taken in ((1, 2), (4, 4), (16, LIMIT)):
        steps.clear()
        player = generator(model, step="fixed", look_every=look_every)
        player.start(3)
        answers = player.respond({slot: [5, 6] for slot in range(3)}, {slot: np.full(LIMIT, 0.5) for slot in range(3)})
        assert list(answers.values()) == [[7, END]] * 3
        assert len(steps) == taken


def test_a_capacity_serves_several_turns() -> None:
    assert fixed_decoding.capacity(1, 9) == fixed_decoding.capacity(247, 9) == 256
    assert fixed_decoding.capacity(248, 9) == 512


def test_captured_is_fixed_where_there_are_no_cuda_graphs() -> None:
    model = tiny_random_model()
    assert play(model, 3, window=False, step="captured") == play(model, 3, window=False, step="plain")


@pytest.mark.parametrize("step", ["plain", "fixed"])
def test_logits_that_are_not_finite_end_the_run(step: Any) -> None:
    model = tiny_random_model()
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    player = generator(model, step=step)
    player.start(1)
    with pytest.raises(RunFailed, match="not finite"):
        player.respond({0: [5]}, {0: np.full(LIMIT, 0.5)})


@pytest.mark.parametrize(("step", "length"), [("plain", 41 + 128), ("fixed", 256 + 128)])
def test_a_cache_that_does_not_fit_is_refused_with_arithmetic(step: Any, length: int) -> None:
    """A token of the toy takes 2 x 2 layers x 2 heads x 8 numbers of 4 bytes, 256 bytes; buffers grow by 128 ahead."""
    model, rows = tiny_random_model(), 4
    prompts = {slot: [5 + slot] * 41 for slot in range(rows)}
    uniforms = {slot: np.full(LIMIT, 0.5) for slot in range(rows)}
    player = generator(model, step=step, memory_bytes=3 * length * 256)
    player.start(rows)
    with pytest.raises(UserError, match=rf"max_concurrent_episodes must be <= 3 here, got {rows} .* x {length} tokens"):
        player.respond(prompts, uniforms)
    enough = generator(model, step=step, memory_bytes=rows * length * 256)
    enough.start(rows)
    assert len(enough.respond(prompts, uniforms)) == rows


@pytest.mark.parametrize("step", ["plain", "fixed"])
def test_in_bfloat16_log_probs_are_those_of_the_sampler(step: Any) -> None:
    """Sampler and scorer compute alike: they are apart by the rounding of other batches, not by another precision."""
    model, rng = tiny_random_model(spread=0.1), np.random.default_rng(5)
    prompts = {slot: rng.integers(3, 300, 12).tolist() for slot in range(6)}
    uniforms = {slot: rng.random(LIMIT) for slot in range(6)}
    player = generator(model, step=step, compute_dtype=torch.bfloat16, temperature=0.8)
    player.start(6)
    answers = player.respond(prompts, uniforms)
    apart: dict[bool, list[float]] = {True: [], False: []}
    for slot, response in answers.items():
        row = torch.tensor([prompts[slot] + response])
        mask = torch.tensor([[False] * 12 + [True] * len(response)])
        sampled = player.log_probs(slot)
        assert sampled is not None
        assert len(sampled) == len(response)
        for mixed, found in apart.items():
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                scores = score_tokens(model, row, torch.ones_like(mask), mask, temperature=0.8).log_probs[mask]
            found.append(float((scores - torch.tensor(sampled)).abs().max()))
    assert max(apart[True]) < 0.02
    assert not torch.is_autocast_enabled("cpu")


def test_in_float32_nothing_is_kept_of_what_was_sampled() -> None:
    player = generator(tiny_random_model())
    player.start(1)
    player.respond({0: [5]}, {0: np.full(LIMIT, 0.5)})
    assert player.log_probs(0) is None


def test_under_autocast_the_cache_holds_what_attention_computes_with() -> None:
    """In half the bytes, and nothing is lost: attention would cast the same numbers."""
    model, ids = tiny_random_model(), torch.arange(5, 17).reshape(2, 6)
    states = {}
    for kept in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            cache = SlotCache(2)
            cache.place(torch.arange(6).expand(2, 6), 6, first=True)
            states[kept] = hidden_states(
                model, ids, **({"past_key_values": cache, "use_cache": True} if kept else {"use_cache": False})
            )
    assert torch.equal(states[True], states[False])
    assert {layer.keys.dtype for layer in cache.slot_layers} == {torch.bfloat16}
