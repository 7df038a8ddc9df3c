"""A run with a template that opens the thought: responses that close it are valid, and cost nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from policy.test_encoding import chat_of
from sdar.environments.base import Environment, Projection
from sdar.environments.slots import tagged_action
from sdar.episode import Episode
from sdar.objective.advantage import group_advantages
from sdar.policy.language_model import LanguageModel
from sdar.rollout.collector import Collector, EpisodeRequest
from sdar.rollout.sampling import ResponseGenerator
from sdar.rollout.settings import RolloutSettings, SamplingConfig
from toys.families import VOCABULARY
from toys.models import tiny_random_model
from toys.training import LettersEnvironment

CLOSED = "I look around.</think><action>go to desk 3</action>"
WHOLE = f"<think>{CLOSED}"
OPENING = ("deepseek_r1_distill", "qwen3_thinking")


class Tagged(LettersEnvironment):
    """Letters whose responses are read as ALFWorld's and WebShop's are."""

    def project(self, response: str) -> Projection:
        return tagged_action(response, 20)


class Says(ResponseGenerator):
    """A generator that always gives one response."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids

    def start(self, num_slots: int) -> None:
        pass

    def respond(self, new_ids: Mapping[int, Sequence[int]], uniforms: Mapping[int, np.ndarray]) -> dict[int, list[int]]:
        return {slot: list(self.ids) for slot in new_ids}


def play(template: str, response: str, context: Any) -> list[Episode]:
    chat = chat_of(template)
    model = tiny_random_model(vocab_size=VOCABULARY, num_layers=1)
    policy = LanguageModel(model, chat.tokenizer, chat, 2048, "toy", "hash")
    ids = [*chat.tokenizer.encode(response, add_special_tokens=False), chat.end_id]
    settings = RolloutSettings(context=context, sampling=SamplingConfig(max_response_tokens=len(ids)))
    environment: Environment = Tagged(tasks=3)
    collector = Collector(policy, environment, settings, generator_factory=lambda policy, sampling: Says(ids))
    asked = [EpisodeRequest(task, member) for task in environment.tasks("train") for member in range(2)]
    return collector.collect(asked, seed=0, key=("train", 0)).episodes


def learns_as_if_free(episodes: list[Episode]) -> bool:
    return group_advantages(episodes, invalid_penalty=0.1) == group_advantages(episodes, invalid_penalty=0.0)


@pytest.mark.parametrize("context", ["append", "window"])
@pytest.mark.parametrize("template", OPENING)
def test_a_response_that_closes_the_prompts_thought_is_valid_in_every_turn(template: str, context: str) -> None:
    episodes = play(template, CLOSED, context)
    turns = [turn for episode in episodes for turn in episode.turns]
    assert len(turns) > len(episodes)
    assert {(turn.action, turn.valid, turn.response_text) for turn in turns} == {("go to desk 3", True, CLOSED)}
    assert learns_as_if_free(episodes)


@pytest.mark.parametrize("template", ["chatml", "qwen3", "deepseek_v3.1"])
def test_without_a_thought_in_the_prompt_the_same_response_is_invalid(template: str) -> None:
    closed, whole = play(template, CLOSED, "window"), play(template, WHOLE, "window")
    assert not any(turn.valid for episode in closed for turn in episode.turns)
    assert all(turn.valid for episode in whole for turn in episode.turns)
    assert learns_as_if_free(whole)
    assert not learns_as_if_free(closed)


@pytest.mark.parametrize("template", OPENING)
def test_a_thought_that_is_never_closed_is_invalid(template: str) -> None:
    (episode, *_) = play(template, "I look around.<action>go to desk 3</action>", "append")
    assert not any(turn.valid for turn in episode.turns)
