"""Demonstrations of the warm start: the ids of a rollout, and a loss on imitated parts only."""

import hashlib
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from sdar.environments.alfworld.environment import AlfworldEnvironment
from sdar.environments.alfworld.game import TASK_TYPES
from sdar.episode import EndReason
from sdar.errors import UserError
from sdar.policy.chat import ChatFormat
from sdar.policy.tiny import CONTEXT_TOKENS, build_tokenizer
from sdar.rollout.collector import Collector, EpisodeRequest
from sdar.rollout.sampling import ResponseGenerator
from sdar.rollout.settings import RolloutSettings, SamplingConfig
from sdar.warm_start.demonstrations import DemonstrationStream, Mixture
from sdar.warm_start.domains import load_domain

DOMAIN = load_domain("alfworld")
MAX_TURNS = 14
ONLY = {"right": Mixture(1.0, 0.0, 0.0), "none": Mixture(0.0, 1.0, 0.0), "wrong": Mixture(0.0, 0.0, 1.0)}


@lru_cache
def chat():
    texts = DemonstrationStream(DOMAIN, None, seed=0, max_turns=MAX_TURNS).texts(150)
    return ChatFormat.from_tokenizer(build_tokenizer(texts, DOMAIN.phrases, 1024))


def stream(mixture=None, seed=0):
    return DemonstrationStream(DOMAIN, chat(), seed=seed, max_turns=MAX_TURNS, mixture=mixture)


class Script(ResponseGenerator):
    """Answers with given responses, as a policy would."""

    def __init__(self, responses):
        self._responses = iter(responses)

    def start(self, num_slots):
        assert num_slots == 1

    def respond(self, new_ids, uniforms):
        return {slot: next(self._responses) for slot in new_ids}


def rollout(task, responses, privileged):
    """Ids of the episode that the collector plays when the policy answers with ``responses``."""
    policy = cast(Any, SimpleNamespace(chat=chat(), context_tokens=CONTEXT_TOKENS))
    collector = Collector(
        policy,
        AlfworldEnvironment(max_turns=MAX_TURNS, num_tasks=(1, 1, 1)),
        RolloutSettings(max_concurrent_episodes=1, sampling=SamplingConfig(max_response_tokens=100)),
        generator_factory=lambda *_: Script(responses),
    )
    requests = [EpisodeRequest(task, 0)]
    (episode,) = collector.collect(requests, seed=0, key=("test",), privileged=lambda *_: privileged).episodes
    assert episode.end in (EndReason.SUCCESS, EndReason.TURN_LIMIT)
    return [[*turn.context_ids] for turn in episode.turns], [[*turn.response_ids] for turn in episode.turns]


@pytest.mark.parametrize("kind", ONLY)
@pytest.mark.parametrize("index", range(6))
def test_ids_and_weights_are_those_of_a_rollout_with_the_same_texts(kind, index):
    demonstrations = stream(ONLY[kind])
    task, steps, played_kind = demonstrations.play(index, 0.5)
    assert played_kind == kind
    responses = [[*chat().privileged(DOMAIN.response(step)), chat().end_id] for step in steps]
    contexts, answers = rollout(task, responses, demonstrations.privileged(task, index, kind))
    assert len(contexts) == len(steps)
    expected_ids, expected_weights = [], []
    for number, (context, answer, step) in enumerate(zip(contexts, answers, steps, strict=True)):
        expected_ids += context + answer
        expected_weights += [0.0 if number == 0 else 0.2] * len(context) + [float(step.imitate)] * len(answer)
    demonstration = demonstrations[index]
    assert demonstration.ids == expected_ids
    assert demonstration.weights == expected_weights


def test_responses_are_read_back_as_the_commands_that_were_given():
    environment = AlfworldEnvironment(max_turns=MAX_TURNS, num_tasks=(1, 1, 1))
    _, steps, _ = stream(ONLY["right"]).play(0, 0.5)
    for step in steps:
        text = chat().decode(chat().privileged(DOMAIN.response(step)))
        assert environment.project(text) == environment.project(DOMAIN.response(step))
        assert environment.project(text).action == step.command
        assert environment.project(text).valid


def test_a_demonstration_depends_on_seed_and_number_only():
    again = stream()
    again[5]
    assert again[2] == stream()[2]
    assert stream(seed=1)[2] != stream()[2]


def test_the_kinds_come_in_their_shares():
    demonstrations = stream()
    header = chat().privileged("[Privileged Skill Information]\n")
    with_skills = sum(contains(demonstrations[index].ids, header) for index in range(120))
    assert 0.45 < with_skills / 120 < 0.7  # 0.42 right and 0.16 wrong


def contains(ids, part):
    return any(ids[start : start + len(part)] == part for start in range(len(ids) - len(part)))


def test_every_demonstration_fits_into_the_context():
    demonstrations = stream(ONLY["wrong"])
    assert max(len(demonstrations[index].ids) for index in range(60)) <= CONTEXT_TOKENS


def test_wrong_skills_are_those_of_another_task_type():
    teacher = DOMAIN.teacher()
    task, _, _ = stream().play(0, 0.0)
    right = teacher.privileged_text(task)
    rng = np.random.default_rng(0)
    others = {teacher.privileged_text(DOMAIN.misleading(task, rng)) for _ in range(100)}
    assert len(others) == len(TASK_TYPES) - 1
    assert right not in others


def test_demonstrations_come_from_no_split_that_is_played():
    environment = AlfworldEnvironment(max_turns=MAX_TURNS, num_tasks=(60, 30, 30))
    played = {task.content_hash for split in environment.splits() for task in environment.tasks(split)}
    demonstrations = stream()
    assert not any(demonstrations.play(index, 0.0)[0].content_hash in played for index in range(60))


def test_the_demonstrations_of_the_shipped_models_have_not_changed():
    texts = "".join(DemonstrationStream(DOMAIN, None, seed=0).texts(30))
    assert hashlib.sha256(texts.encode()).hexdigest()[:16] == "146bb6803fc15075"


def test_an_unknown_domain_is_refused():
    with pytest.raises(UserError, match=r"environment must be one of alfworld, .*, got moon"):
        load_domain("moon")
