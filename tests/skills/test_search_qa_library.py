"""The shipped skills of Search-QA: each question of the closed world selects those of its own kind, and no others."""

from __future__ import annotations

from sdar.environments.search_qa.world import TYPES, World, WorldSettings
from sdar.episode import Task
from sdar.skills.library import SkillLibrary
from sdar.skills.retrieval import KeywordRetrieval


def test_each_wording_of_a_question_selects_the_skill_of_its_kind() -> None:
    library, retrieval = SkillLibrary.load("search_qa"), KeywordRetrieval()
    assert {skill.name for skill in library.task} == set(TYPES)
    for split in ("train", "valid"):
        world = World(WorldSettings(), split)
        for index in range(600):
            question = world.question(index)
            task = Task(str(index), question.task_type, question.text, split, "0")
            assert [skill.name for skill in retrieval.select(library, task)] == ["general", question.task_type]
