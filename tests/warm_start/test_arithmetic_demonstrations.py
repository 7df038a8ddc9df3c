"""Demonstrations of arithmetic: problems of their own, and skills that are told apart by the sign."""

from __future__ import annotations

from sdar.environments.arithmetic.environment import ArithmeticEnvironment
from sdar.environments.arithmetic.problem import OPERATIONS
from sdar.randomness import keyed_generator
from sdar.skills.library import SkillLibrary
from sdar.skills.retrieval import KeywordRetrieval, TaskTypeRetrieval
from sdar.warm_start.demonstrations import DemonstrationStream
from sdar.warm_start.domains import load_domain

DOMAIN = load_domain("arithmetic")


def test_a_problem_selects_the_skill_of_its_operation() -> None:
    library = SkillLibrary.load("arithmetic")
    assert {skill.name for skill in library.task} == set(OPERATIONS)
    for task in ArithmeticEnvironment().tasks("train")[:90]:
        for retrieval in (KeywordRetrieval(), TaskTypeRetrieval()):
            assert [skill.name for skill in retrieval.select(library, task)] == ["general", task.task_type]


def test_demonstrations_share_no_problem_with_training_or_validation() -> None:
    environment = ArithmeticEnvironment()
    known = {task.description for split in environment.splits() for task in environment.tasks(split)}
    tasks = [DOMAIN.task(seed, index) for seed in (0, 1) for index in range(300)]
    assert known.isdisjoint(task.description for task in tasks)
    assert [task.task_type for task in tasks[:3]] == list(OPERATIONS)
    assert tasks[0].description != tasks[300].description


def test_every_response_keeps_to_the_format_and_a_wrong_skill_is_another_operations() -> None:
    environment, stream = ArithmeticEnvironment(), DemonstrationStream(DOMAIN, None, seed=0)
    for index in range(60):
        task, (step,), kind = stream.play(index, index / 60)
        assert environment.project(DOMAIN.response(step)).valid
        assert step.observation == task.description
        if kind == "wrong":
            other = DOMAIN.misleading(task, keyed_generator(0, "wrong skill", index))
            assert other.task_type != task.task_type
            assert stream.privileged(task, index, kind) != stream.privileged(task, index, "right")
