"""The libraries for language models over real WebShop instructions and real questions, if SDAR_TEST_DATA has them.

The expected skill comes from elsewhere: the product's place in the shop's category tree, or the question's data set.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sdar.environments.webshop.environment import WebshopEnvironment
from sdar.episode import Task
from sdar.skills.library import SkillLibrary
from sdar.skills.retrieval import KeywordRetrieval

DATA = Path(os.environ.get("SDAR_TEST_DATA", "no-test-data"))
QUESTIONS = {
    # data set: skills of which at least one is meant, share of questions that select it, and it as the first
    "nq": ({"direct_retrieval"}, 0.96, 0.96),
    "triviaqa": ({"direct_retrieval"}, 0.93, 0.93),
    "popqa": ({"entity_attribute"}, 1.0, 0.99),
    "2wikimultihopqa": ({"multi_hop", "comparison"}, 0.99, 0.99),
    "bamboogle": ({"multi_hop", "comparison"}, 0.4, 0.25),  # free wording: only the data set identifies the type
    "hotpotqa": ({"multi_hop", "comparison"}, 0.4, 0.4),
}
RETRIEVAL = KeywordRetrieval(general=False)


def selected(library: SkillLibrary, description: str) -> list[str]:
    return [skill.name for skill in RETRIEVAL.select(library, Task("t", "any", description, "train", "hash"))]


def intended_product_skills(category: str, place: list[str]) -> set[str]:
    """By the category and the place of the product: the skills of which exactly one is meant."""
    if category != "fashion":
        return {{"beauty": "beauty", "electronics": "electronics", "garden": "home", "grocery": "food"}[category]}
    if place == [""]:
        return {"apparel", "footwear", "accessories"}
    return {"footwear"} if "Shoes" in place else {"apparel", "accessories"}


@pytest.mark.skipif(not (DATA / "webshop").is_dir(), reason="SDAR_TEST_DATA names no folder with WebShop's files")
def test_every_instruction_selects_the_one_skill_of_its_kind_of_product() -> None:
    products = json.loads((DATA / "webshop" / "items_shuffle_1000.json").read_text(encoding="utf-8"))
    places = {product["asin"]: product["product_category"].split(" › ") for product in products}
    environment = WebshopEnvironment(data_dir=DATA / "webshop", nouns="words")
    library = SkillLibrary.load("webshop_products")
    tasks = [task for split in environment.splits() for task in environment.tasks(split)]
    assert len(tasks) > 6800
    wrong = {
        task.description: found
        for task in tasks
        if len(found := selected(library, task.description)) != 1
        or found[0] not in intended_product_skills(task.task_type, places[task.payload.asin])
    }
    assert not wrong


@pytest.mark.skipif(not (DATA / "searchqa").is_dir(), reason="SDAR_TEST_DATA names no folder with real questions")
@pytest.mark.parametrize("data_set", QUESTIONS)
def test_real_questions_select_the_skill_of_their_data_set(data_set: str) -> None:
    meant, among, first = QUESTIONS[data_set]
    library = SkillLibrary.load("search_qa_open")
    lines = (DATA / "searchqa" / f"{data_set}.jsonl").read_text(encoding="utf-8").splitlines()
    found = [selected(library, json.loads(line)["question"]) for line in lines]
    assert all(found)
    assert sum(bool(meant & set(names)) for names in found) >= among * len(found)
    assert sum(names[0] in meant for names in found) >= first * len(found)
