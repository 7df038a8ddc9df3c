"""Demonstrations of Search-QA: separate worlds, a skilled player and a mediocre one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from sdar.environments.search_qa.environment import SearchQAEnvironment
from sdar.environments.search_qa.protocol import Answer, parse
from sdar.environments.search_qa.scoring import exact_match
from sdar.environments.search_qa.world import World, WorldSettings
from sdar.policy.chat import ChatFormat
from sdar.policy.tiny import build_tokenizer
from sdar.randomness import keyed_generator
from sdar.skills.retrieval import KeywordRetrieval
from sdar.warm_start.demonstrations import DemonstrationStream, Mixture
from sdar.warm_start.domains import load_domain
from sdar.warm_start.domains.search_qa import world_of

DOMAIN = load_domain("search_qa")


def success(skilled: bool, count: int = 240) -> float:
    right = 0.0
    for index in range(count):
        task = DOMAIN.task(0, index)
        steps = DOMAIN.demonstrate(task, keyed_generator(0, "test", index), skilled=skilled, max_turns=4)
        assert 1 <= len(steps) <= 4
        said = parse(steps[-1].command)
        assert isinstance(said, Answer)
        right += exact_match(said.text, golden(task))
    return right / count


def golden(task: Any) -> tuple[str, ...]:
    number, question = task.payload
    return (world_of(number)[0].question(question).answer,)


def test_skill_is_what_makes_the_difference() -> None:
    assert success(skilled=True) > 0.95
    assert 0.2 < success(skilled=False) < 0.5


def test_every_response_is_read_as_the_command_that_was_meant() -> None:
    environment = SearchQAEnvironment()
    for index in range(40):
        task, steps, _ = DemonstrationStream(DOMAIN, None, seed=0).play(index, index / 40)
        assert steps[0].observation == task.description
        for step in steps:
            projection = environment.project(DOMAIN.response(step))
            assert projection.valid
            assert parse(projection.action) == parse(step.command)


def test_demonstrations_share_no_name_with_training_or_validation() -> None:
    names = World(WorldSettings(), "train").names | World(WorldSettings(), "valid").names
    stream = DemonstrationStream(DOMAIN, None, seed=0)
    for index in (0, 1, 250, 999):
        _, steps, _ = stream.play(index, 0.0)
        assert not any(name in step.observation for step in steps for name in names)


def test_a_name_has_other_facts_in_another_world() -> None:
    """Facts do not carry over, so that reading is all that can be learned."""
    facts = [world_of(number)[0].facts for number in range(6)]
    known = Counter(key for world in facts for key in world)
    again = [key for key, count in known.items() if count > 1]
    assert len(again) > 50
    same = [len({world[key] for world in facts if key in world}) == 1 for key in again]
    assert sum(same) / len(same) < 0.2


@pytest.mark.parametrize("seed", [0, 3])
def test_a_demonstration_depends_on_its_number_alone(seed: int) -> None:
    first = DemonstrationStream(DOMAIN, None, seed=seed)
    second = DemonstrationStream(DOMAIN, None, seed=seed)
    forward = [first.play(index, 0.5) for index in (1, 2, 300)]
    assert forward == [second.play(index, 0.5) for index in (300, 2, 1)][::-1]


def test_misleading_skills_are_those_of_another_kind() -> None:
    teacher = DOMAIN.teacher()
    for index in range(20):
        task = DOMAIN.task(0, index)
        wrong = DOMAIN.misleading(task, keyed_generator(0, "test", index))
        chosen = KeywordRetrieval(general=False).select(teacher.library, wrong)
        assert [skill.name for skill in chosen] == [wrong.task_type]
        assert wrong.task_type != task.task_type


def test_names_are_single_tokens_wherever_they_stand() -> None:
    """Copying a name is then copying one or two ids, which a tiny model can learn."""
    texts = DemonstrationStream(DOMAIN, None, seed=0).texts(4000)
    tokenizer = build_tokenizer(texts, DOMAIN.phrases, DOMAIN.vocabulary_size, DOMAIN.context_tokens)
    stream = DemonstrationStream(DOMAIN, ChatFormat.from_tokenizer(tokenizer), seed=0, mixture=Mixture(1.0, 0.0, 0.0))
    for index in range(40):
        task, steps, _ = stream.play(index, 0.0)
        (answer,) = golden(task)
        ids = tokenizer.encode(f" {answer}", add_special_tokens=False)
        assert len(ids) == len(answer.split())
        written = tokenizer.encode(DOMAIN.response(steps[-1]), add_special_tokens=False)
        read = tokenizer.encode(steps[-1].observation, add_special_tokens=False)
        assert all(token in read and token in written for token in ids)
