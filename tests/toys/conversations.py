"""Conversations of several turns with a generator of responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from sdar.episode import Episode
from sdar.policy.generation import TurnGenerator

END, PAD, LIMIT = 2, 0, 9


def generator(model: PreTrainedModel, **changes: Any) -> TurnGenerator:
    return TurnGenerator(model, pad_id=PAD, end_ids={END}, **({"max_response_tokens": LIMIT} | changes))


def play(model: PreTrainedModel, seed: int, *, window: bool, **changes: Any) -> list[dict[int, list[int]]]:
    """Three turns of five conversations, of which one leaves after each; prompts depend on the seed alone."""
    rng = np.random.default_rng(seed)
    player, cut, answers = generator(model, **changes), set[int](), []
    player.start(5)
    for turn in range(3):
        if window:
            player.start(5)
        blocks = {slot: rng.integers(3, 300, int(rng.integers(1, 20))).tolist() for slot in range(5)}
        uniforms = {slot: rng.random(LIMIT) for slot in range(5)}
        live = range(turn, 5)
        told: Mapping[int, list[int]] = {
            slot: ([END] if slot in cut and not window else []) + blocks[slot] for slot in live
        }
        answers.append(player.respond(told, {slot: uniforms[slot] for slot in live}))
        cut = {slot for slot, response in answers[-1].items() if response[-1] != END}
    return answers


def prompts_of(episode: Episode) -> list[list[int]]:
    """The ids that the response of each turn was sampled after."""
    told: list[int] = []
    prompts = []
    for turn in episode.turns:
        told += turn.context_ids
        prompts.append(list(told))
        told += turn.response_ids
    return prompts
