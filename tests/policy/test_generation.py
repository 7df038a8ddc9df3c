"""Turn-by-turn generation gives what a full pass over each conversation would give."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from sdar.policy.generation import TurnGenerator
from sdar.policy.log_probs import score_tokens
from sdar.policy.sampling import TokenSampler
from toys.models import tiny_random_model

END, PAD = 2, 0


def _reprefill(
    model: PreTrainedModel, context: list[int], uniforms: np.ndarray, sampler: TokenSampler, limit: int
) -> list[int]:
    """One response by a full pass over the whole conversation per token, alone in its batch."""
    ids, response = list(context), []
    for step in range(limit):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[:, -1].float()
        token = int(sampler.sample(logits, torch.tensor(uniforms[step : step + 1])))
        response.append(token)
        ids.append(token)
        if token == END:
            break
    return response


@st.composite
def _plays(draw: st.DrawFn) -> tuple[int, float, float, int, list[list[int]]]:
    """Seed, temperature, top_p, top_k, and for each slot the sizes of the blocks it gets (its number of turns)."""
    sizes = st.lists(st.integers(1, 12), min_size=1, max_size=4)
    return (
        draw(st.integers(0, 2**31)),
        draw(st.sampled_from([0.0, 0.7, 1.0])),
        draw(st.sampled_from([1.0, 0.8])),
        draw(st.sampled_from([0, 5])),
        draw(st.lists(sizes, min_size=1, max_size=5)),
    )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@settings(max_examples=15, deadline=None)
@given(play=_plays())
def test_turns_equal_a_full_pass_over_each_conversation(
    attention: str, play: tuple[int, float, float, int, list[list[int]]]
) -> None:
    seed, temperature, top_p, top_k, slots = play
    limit = 6
    model = tiny_random_model(seed=seed % 7)
    model.set_attn_implementation(attention)
    # Few distinct tokens and a likely end token, so that rows end at different steps.
    rng = np.random.default_rng(seed)
    generator = TurnGenerator(
        model, pad_id=PAD, end_ids={END}, temperature=temperature, top_p=top_p, top_k=top_k, max_response_tokens=limit
    )
    _make_end_likely(model)
    generator.start(len(slots))
    sampler = TokenSampler(temperature, top_p, top_k)
    conversations: list[list[int]] = [[] for _ in slots]
    masks: list[list[bool]] = [[] for _ in slots]
    cut = [False] * len(slots)
    for turn in range(max(len(sizes) for sizes in slots)):
        new_ids, uniforms = {}, {}
        for slot, sizes in enumerate(slots):
            if turn < len(sizes):
                block = ([END] if cut[slot] else []) + rng.integers(3, 300, sizes[turn]).tolist()
                new_ids[slot], uniforms[slot] = block, rng.random(limit)
        answers = generator.respond(new_ids, uniforms)
        assert set(answers) == set(new_ids)
        for slot, response in answers.items():
            conversations[slot] += new_ids[slot]
            masks[slot] += [False] * len(new_ids[slot])
            assert response == _reprefill(model, conversations[slot], uniforms[slot], sampler, limit)
            conversations[slot] += response
            masks[slot] += [True] * len(response)
            cut[slot] = response[-1] != END


def _make_end_likely(model: PreTrainedModel) -> None:
    with torch.no_grad():
        model.get_input_embeddings().weight[END] *= 1.5


def test_the_last_logits_of_every_turn_are_those_of_a_full_pass() -> None:
    """The cached forward itself, without the rounding that sampling hides: log-probs agree to 1e-5."""
    model = tiny_random_model(spread=0.2)
    seen: list[tuple[torch.Tensor, list[float]]] = []

    class Recorder(TokenSampler):
        def sample(self, logits: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
            tokens = super().sample(logits, uniforms)
            seen.append((tokens, torch.log_softmax(logits, -1).gather(-1, tokens[:, None])[:, 0].tolist()))
            return tokens

    limit, turns, slots = 8, 5, 6
    generator = TurnGenerator(model, pad_id=PAD, end_ids={END}, max_response_tokens=limit)
    generator.sampler = Recorder()
    generator.start(slots)
    rng = np.random.default_rng(3)
    ids: list[list[int]] = [[] for _ in range(slots)]
    cached: list[list[float]] = [[] for _ in range(slots)]
    scored: list[list[bool]] = [[] for _ in range(slots)]
    for _ in range(turns):
        seen.clear()
        new_ids = {slot: rng.integers(3, 300, int(rng.integers(1, 30))).tolist() for slot in range(slots)}
        answers = generator.respond(new_ids, {slot: rng.random(limit) for slot in range(slots)})
        for slot, response in answers.items():
            ids[slot] += new_ids[slot] + response
            scored[slot] += [False] * len(new_ids[slot]) + [True] * len(response)
            cached[slot] += [seen[step][1][slot] for step in range(len(response))]
    for slot in range(slots):
        row = torch.tensor([ids[slot]])
        mask = torch.tensor([scored[slot]])
        with torch.no_grad():
            full = score_tokens(model, row, torch.ones_like(row, dtype=torch.bool), mask).log_probs[mask]
        assert torch.allclose(full, torch.tensor(cached[slot]), atol=1e-5, rtol=0)


def test_a_draw_does_not_depend_on_the_rows_beside_it() -> None:
    model = tiny_random_model()
    rng = np.random.default_rng(0)
    prompts = {slot: rng.integers(3, 300, 5 + slot).tolist() for slot in range(8)}
    uniforms = {slot: rng.random(10) for slot in range(8)}
    together = _generator(model)
    together.start(8)
    answers = together.respond(prompts, uniforms)
    for slot in range(8):
        alone = _generator(model)
        alone.start(1)
        assert alone.respond({0: prompts[slot]}, {0: uniforms[slot]})[0] == answers[slot]


def test_equal_openings_part_ways() -> None:
    """Equal openings are computed once; from there every row has a history of its own."""
    model = tiny_random_model()
    rng = np.random.default_rng(4)
    opening, reply = rng.integers(3, 300, 9).tolist(), rng.integers(3, 300, 4).tolist()
    uniforms = {slot: rng.random(10) for slot in range(4)}
    together = _generator(model)
    together.start(4)
    first = together.respond(dict.fromkeys(range(4), opening), uniforms)
    second = together.respond(dict.fromkeys(range(4), reply), uniforms)
    assert len({tuple(response) for response in first.values()}) > 1
    for slot in range(4):
        alone = _generator(model)
        alone.start(1)
        assert alone.respond({0: opening}, {0: uniforms[slot]})[0] == first[slot]
        assert alone.respond({0: reply}, {0: uniforms[slot]})[0] == second[slot]


def _generator(model: PreTrainedModel, limit: int = 10) -> TurnGenerator:
    return TurnGenerator(model, pad_id=PAD, end_ids={END}, max_response_tokens=limit)


def test_a_slot_that_left_never_comes_back() -> None:
    generator = _generator(tiny_random_model())
    generator.start(3)
    uniforms = {slot: np.full(10, 0.5) for slot in range(3)}
    generator.respond({0: [5], 1: [6], 2: [7]}, uniforms)
    assert set(generator.respond({0: [5], 2: [7]}, uniforms)) == {0, 2}
    with pytest.raises(ValueError, match="not live"):
        generator.respond({1: [6]}, uniforms)


def test_ending_every_slot_gives_an_empty_answer() -> None:
    generator = _generator(tiny_random_model())
    generator.start(2)
    generator.respond({0: [5], 1: [6]}, {slot: np.full(10, 0.5) for slot in range(2)})
    assert generator.respond({}, {}) == {}


def test_start_forgets_the_conversations_before() -> None:
    generator = _generator(tiny_random_model())
    uniforms = {0: np.random.default_rng(1).random(10)}
    generator.start(1)
    first = generator.respond({0: [5, 6, 7]}, uniforms)
    generator.respond({0: [9]}, uniforms)
    generator.start(1)
    assert generator.respond({0: [5, 6, 7]}, uniforms) == first


def test_generation_leaves_mode_and_gradients_as_they_were() -> None:
    model = tiny_random_model().train()
    generator = _generator(model)
    generator.start(1)
    generator.respond({0: [5]}, {0: np.full(10, 0.5)})
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_bad_calls_are_named() -> None:
    model = tiny_random_model()
    generator = _generator(model)
    generator.start(1)
    with pytest.raises(ValueError, match="at least one token"):
        generator.respond({0: []}, {0: np.full(10, 0.5)})
    with pytest.raises(ValueError, match="uniforms must have 10 numbers"):
        generator.respond({0: [5]}, {0: np.full(3, 0.5)})
    with pytest.raises(ValueError, match="max_response_tokens"):
        _generator(model, limit=0)


def test_buffers_are_freed_at_once() -> None:
    """And not when garbage is looked for, which does not see how large they are."""
    made = tiny_random_model()
    generator = TurnGenerator(made, pad_id=0, end_ids=[1], max_response_tokens=2)
    generator.start(2)
    gc.disable()
    try:
        before = buffers()
        generator.respond({0: [3, 4], 1: [5]}, {0: np.zeros(2), 1: np.zeros(2)})
        assert buffers() > before
        assert generator.cache_bytes > 0
        generator.close()
        assert buffers() == before
        assert generator.cache_bytes == 0
    finally:
        gc.enable()


def buffers() -> int:
    """Tensors of keys and values: those of four dimensions."""
    return sum(1 for found in gc.get_objects() if type(found) is torch.Tensor and found.dim() == 4)


def test_a_call_that_failed_may_be_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it fails behind the prompt: what was fed must not be fed twice."""
    made = tiny_random_model()
    fresh, failing = (TurnGenerator(made, pad_id=PAD, end_ids=[END], max_response_tokens=3) for _ in range(2))
    draws = np.linspace(0.2, 0.8, 3)
    for new in ([3, 4, 5], [6, 7]):
        if not failing.cache_bytes:
            fresh.start(1)
            failing.start(1)
        expected = fresh.respond({0: new}, {0: draws})
        with monkeypatch.context() as patched:
            patched.setattr(TokenSampler, "sample", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                failing.respond({0: new}, {0: draws})
        assert failing.respond({0: new}, {0: draws}) == expected
