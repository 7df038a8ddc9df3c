"""Demonstrations of shopping: the agent's view and actions, in the ids of a rollout."""

from functools import lru_cache
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sdar.environments.webshop.environment import WebshopEnvironment
from sdar.environments.webshop.shop import Session
from sdar.environments.webshop.world import CATEGORIES
from sdar.policy.chat import ChatFormat
from sdar.policy.tiny import CONTEXT_TOKENS, build_tokenizer
from sdar.randomness import keyed_generator
from sdar.rollout.collector import Collector, EpisodeRequest
from sdar.rollout.sampling import ResponseGenerator
from sdar.rollout.settings import RolloutSettings, SamplingConfig
from sdar.warm_start.demonstrations import DemonstrationStream, Mixture
from sdar.warm_start.domains import load_domain

DOMAIN = load_domain("webshop")
ONLY = {"right": Mixture(1.0, 0.0, 0.0), "none": Mixture(0.0, 1.0, 0.0), "wrong": Mixture(0.0, 0.0, 1.0)}


@lru_cache
def chat():
    texts = DemonstrationStream(DOMAIN, None, seed=0).texts(400)
    return ChatFormat.from_tokenizer(build_tokenizer(texts, DOMAIN.phrases, DOMAIN.vocabulary_size))


class Script(ResponseGenerator):
    def __init__(self, responses):
        self._responses = iter(responses)

    def start(self, num_slots):
        assert num_slots == 1

    def respond(self, new_ids, uniforms):
        return {slot: next(self._responses) for slot in new_ids}


@pytest.mark.parametrize("kind", ONLY)
@pytest.mark.parametrize("index", range(5))
def test_ids_are_those_of_a_rollout_with_the_same_texts(kind, index):
    stream = DemonstrationStream(DOMAIN, chat(), seed=0, mixture=ONLY[kind])
    task, steps, _ = stream.play(index, 0.5)
    environment = WebshopEnvironment(max_turns=10)
    number, seed, goal = task.payload
    environment.shop = DOMAIN.catalogue(seed, number)[0]
    object.__setattr__(task, "payload", goal)
    responses = [[*chat().privileged(DOMAIN.response(step)), chat().end_id] for step in steps]
    policy = cast(Any, SimpleNamespace(chat=chat(), context_tokens=CONTEXT_TOKENS))
    collector = Collector(
        policy,
        environment,
        RolloutSettings(max_concurrent_episodes=1, sampling=SamplingConfig(max_response_tokens=100)),
        generator_factory=lambda *_: Script(responses),
    )
    text = stream.privileged(task, index, kind)
    (episode,) = collector.collect([EpisodeRequest(task, 0)], seed=0, key=("t",), privileged=lambda *_: text).episodes
    assert not episode.end.is_error
    expected = [id_ for turn in episode.turns for id_ in [*turn.context_ids, *turn.response_ids]]
    assert len(episode.turns) == len(steps)
    assert stream[index].ids == expected
    assert [turn.action for turn in episode.turns] == [step.command.lower() for step in steps]
    assert all(turn.valid for turn in episode.turns)


def won(index, skilled):
    task = DOMAIN.task(0, index)
    number, seed, goal = task.payload
    session = Session(DOMAIN.catalogue(seed, number)[0], goal)
    rng = keyed_generator(0, "shopper", index)
    for step in DOMAIN.demonstrate(task, rng, skilled=skilled, max_turns=10):
        session.step(step.command.lower())
    return session.score == 1.0


def test_the_skilled_shopper_wins_most_and_the_mediocre_one_little():
    assert sum(won(index, True) for index in range(300)) > 255
    assert 30 < sum(won(index, False) for index in range(300)) < 75


def test_it_searches_for_the_maker_that_the_skills_name():
    for index in range(20):
        task = DOMAIN.task(0, index)
        goal = task.payload[2]
        steps = DOMAIN.demonstrate(task, keyed_generator(0, "search", index), skilled=True, max_turns=10)
        assert CATEGORIES[goal.category].makers_of(goal.attributes[0])[0] in steps[0].command


def test_an_asin_is_one_token_wherever_it_stands_and_a_response_fits_its_limit():
    in_list, in_thought = (
        chat().privileged("\n Belto loose hat B123 $9.0"),
        chat().privileged(": take Belto loose hat B123"),
    )
    in_action = chat().privileged("click[B123]")
    assert in_list[-4] == in_thought[-1] == in_action[1]
    assert in_list[1] == in_thought[1]  # the first word of a title
    assert len(in_action) == 3
    stream = DemonstrationStream(DOMAIN, chat(), seed=0)
    responses = [DOMAIN.response(step) for index in range(200) for step in stream.play(index, index / 200)[1]]
    assert max(len(chat().privileged(text)) for text in responses) < 48
    assert max(len(stream[index].ids) for index in range(60)) <= CONTEXT_TOKENS


def test_demonstrations_are_of_no_task_that_is_played():
    environment = WebshopEnvironment()
    played = {task.content_hash for split in environment.splits() for task in environment.tasks(split)}
    assert not any(DOMAIN.task(0, index).content_hash in played for index in range(3000))
