"""The shipped WebShop skills contain the makers' qualities, and every instruction selects its own skill."""

import re

import pytest

from sdar.environments.webshop.environment import WebshopEnvironment
from sdar.environments.webshop.world import CATEGORIES
from sdar.skills.library import SkillLibrary
from sdar.skills.retrieval import KeywordRetrieval

LIBRARY = SkillLibrary.load("webshop")
TEXTS = {skill.name: skill.text for skill in LIBRARY}


def test_every_instruction_of_the_shop_selects_the_skill_of_its_category_alone():
    environment = WebshopEnvironment()
    retrieval = KeywordRetrieval(general=False)
    for split in environment.splits():
        for task in environment.tasks(split):
            assert [skill.name for skill in retrieval.select(LIBRARY, task)] == [task.task_type], task.description


@pytest.mark.parametrize("name", CATEGORIES)
def test_a_skill_names_the_maker_of_every_quality_and_the_options(name):
    assert {maker: quality for quality, maker in re.findall(r"(\w+): (\w+)", TEXTS[name])} == CATEGORIES[name].makers
    assert TEXTS[name].endswith(f"Choose {' and '.join(CATEGORIES[name].options)}.")
