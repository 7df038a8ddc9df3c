"""The shipped skills of Search-QA: questions select the skills of their type and no others."""

from __future__ import annotations

import pytest

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


@pytest.mark.parametrize(
    ("question", "skill"),
    [
        ("who told the story of the prodigal son", "direct_retrieval"),
        ("What is the occupation of Æthelburh of Wilton?", "entity_attribute"),
        ("Who was born earlier, Ada Berg or Otto Vogt?", "comparison"),
        ("Where was the director of film Thomas Jefferson (Film) born?", "multi_hop"),
    ],
)
def test_the_open_library_knows_the_kind_of_a_question_by_its_words(question: str, skill: str) -> None:
    library = SkillLibrary.load("search_qa_open")
    chosen = KeywordRetrieval().select(library, Task("1", "nq", question, "train", "0"))
    assert [found.name for found in chosen] == ["general", skill]


def test_the_open_library_has_a_skill_for_each_of_the_seven_data_sets() -> None:
    types = [name for skill in SkillLibrary.load("search_qa_open").task for name in skill.task_types]
    sets = {"nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique", "bamboogle"}
    assert sets <= set(types)
    assert len(set(types)) == len(types)
