"""Every ALFWorld task text selects exactly the skill of its task type."""

import json
import lzma
import os
from pathlib import Path

import pytest

from sdar.environments.alfworld.task_text import TEMPLATES
from sdar.episode import Task
from sdar.skills.library import SkillLibrary
from sdar.skills.retrieval import KeywordRetrieval

REAL_GAMES = Path(os.environ.get("SDAR_TEST_DATA", "no-test-data")) / "alfworld" / "games.jsonl.xz"

LIBRARIES = {name: SkillLibrary.load(name) for name in ("alfworld", "alfworld_llm")}


def selected_types(text, task_type, library="alfworld"):
    task = Task("id", task_type, text, "train", "hash")
    return [skill.task_types for skill in KeywordRetrieval(general=False).select(LIBRARIES[library], task)]


@pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
def test_library_has_general_advice_and_one_skill_per_task_type(library):
    assert library.general
    assert sorted(kind for skill in library.task for kind in skill.task_types) == sorted(TEMPLATES)


def test_both_libraries_choose_by_the_same_words():
    first, second = ({skill.task_types: skill.keywords for skill in library} for library in LIBRARIES.values())
    assert first == second


@pytest.mark.parametrize("task_type", TEMPLATES)
@pytest.mark.parametrize("target", ["cabinet", "coolingbox", "hotplate"])
def test_each_form_of_a_task_selects_its_skill(task_type, target):
    for template in TEMPLATES[task_type]:
        assert selected_types(template.format(obj="mug", target=target), task_type) == [(task_type,)]


@pytest.mark.skipif(not REAL_GAMES.is_file(), reason="SDAR_TEST_DATA names no folder with the real games")
def test_every_real_task_text_selects_its_skill():
    with lzma.open(REAL_GAMES, "rt", encoding="utf-8") as lines:
        games = [json.loads(line) for line in lines]
    task_types = {game["task"]: game["path"].split("/")[2].split("-")[0] for game in games}
    wrong = {
        text: kind
        for text, kind in task_types.items()
        for library in LIBRARIES
        if selected_types(text, kind, library) != [(kind,)]
    }
    assert len(games) > 3000
    assert not wrong
