"""LongRoPE in every family that has it: up to the context that is left, rows and sampling agree with scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sdar.policy.generation import TurnGenerator
from sdar.policy.language_model import LanguageModel, hf_model
from sdar.policy.log_probs import score_tokens
from sdar.policy.sampling import TokenSampler
from toys.chat_templates import BY_NAME as STRUCTURES
from toys.families import CONTEXT, VOCABULARY, Family
from toys.matrix import save_tokenizer, save_weights

CHANGE = 160
"""Where the long factors begin."""
FACTORS = {"rope_type": "longrope", "rope_theta": 10_000.0, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}


def longrope(kind: str, models: str, factors: dict[str, float] | None = None, **settings: Any) -> Family:
    begins = {"original_max_position_embeddings": CHANGE}
    rope = {"rope_parameters": {**FACTORS, **begins, **(factors or {})}}
    return Family(kind, models, settings=begins | rope | settings)


FAMILIES = [
    longrope("phi3", "Phi 3 and 3.5 128k, Phi 4 mini", sliding_window=None),
    longrope("phimoe", "Phi 3.5 MoE", {"short_mscale": 1.0, "long_mscale": 1.5}, sliding_window=None),
    longrope("minicpm3", "MiniCPM 3", num_key_value_heads=4),
    longrope("llama", "conversions to Llama's architecture"),
]


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.kind)
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    weights = save_weights(tmp_path_factory.mktemp("model"), request.param)
    return hf_model(str(save_tokenizer(weights, STRUCTURES["chatml"])))


class Recorder(TokenSampler):
    """Keeps the log-probs [B] of what was drawn at each step."""

    def sample(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        tokens = super().sample(logits, uniforms)
        self.seen.append(logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0])
        return tokens


def scores(policy: LanguageModel, rows: list[list[int]]) -> Tensor:
    """Log-probs [B, T] of rows side by side, 0 in the padding."""
    width = max(map(len, rows))
    ids, real = torch.zeros((len(rows), width), dtype=torch.long), torch.zeros((len(rows), width), dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row)], real[number, : len(row)] = torch.tensor(row), True
    with torch.no_grad():
        return score_tokens(policy.model, ids, real, real & (torch.arange(width) > 0)).log_probs


def random_row(length: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(3, VOCABULARY, length).tolist()


def test_the_context_ends_where_positions_change(policy: LanguageModel) -> None:
    assert policy.context_tokens == CHANGE < CONTEXT


@pytest.mark.parametrize("length", [30, CHANGE - 1, CHANGE])
def test_a_row_alone_is_the_row_beside_a_longer_one(policy: LanguageModel, length: int) -> None:
    row, longer = random_row(length, 0), random_row(policy.context_tokens, 1)
    beside = scores(policy, [row, longer])[0, :length]
    torch.testing.assert_close(scores(policy, [row])[0], beside, atol=1e-5, rtol=0)


def test_beyond_the_context_it_would_not_be(policy: LanguageModel) -> None:
    row, longer = random_row(30, 0), random_row(policy.context_tokens + 1, 1)
    assert (scores(policy, [row])[0] - scores(policy, [row, longer])[0, :30]).abs().max() > 1e-3


@pytest.mark.parametrize("first", [CHANGE - 16, 20])
def test_what_is_sampled_up_to_the_last_token_is_what_is_scored(policy: LanguageModel, first: int) -> None:
    """Two turns that end with the context; the row beside them is short, or as long."""
    generator = TurnGenerator(policy.model, pad_id=0, end_ids=(), max_response_tokens=4, windows=policy.windows)
    recorder: Any = Recorder()
    generator.sampler = recorder
    generator.start(2)
    rng = np.random.default_rng(2)
    rows: list[list[int]] = [[], []]
    sampled: list[list[tuple[int, float]]] = [[], []]
    for sizes in ((first, 9), (policy.context_tokens - first - 8, 3)):
        blocks = {slot: rng.integers(3, VOCABULARY, size).tolist() for slot, size in enumerate(sizes)}
        recorder.seen = []
        answers = generator.respond(blocks, {slot: rng.random(4) for slot in blocks})
        drawn = torch.stack(recorder.seen, dim=1).tolist()
        for slot, answer in answers.items():
            rows[slot] += blocks[slot]
            sampled[slot] += list(zip(range(len(rows[slot]), len(rows[slot]) + 4), drawn[slot], strict=True))
            rows[slot] += answer
    assert len(rows[0]) == policy.context_tokens
    scored = scores(policy, rows)
    for slot, found in enumerate(sampled):
        for place, log_prob in found:
            assert abs(float(scored[slot, place]) - log_prob) < 1e-4
