"""WebShop as an environment: tasks, prompts, projection, rewards, and disjoint splits."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webshop_data import FOLDER, needs_data

from sdar.environments.base import PastTurn
from sdar.environments.check import check_env
from sdar.environments.webshop.environment import LONGEST_PROMPT, WebshopEnvironment
from sdar.episode import EndReason, Observation, Task
from sdar.errors import UserError
from sdar.evaluation.agents import play_random

SHOP = WebshopEnvironment()
FULL = WebshopEnvironment(prompt_style="full", list_actions=True)
UNKNOWN = Task("none", "none", "buy nothing", "train", "none", None)


def test_the_environment_keeps_the_protocol():
    report = check_env(SHOP, unplayable=UNKNOWN)
    assert report.experts == report.tasks == 12
    check_env(FULL, unplayable=UNKNOWN)


@needs_data
def test_the_originals_products_keep_the_protocol():
    environment = WebshopEnvironment(data_dir=FOLDER, max_turns=15)
    check_env(environment, unplayable=UNKNOWN)
    assert [len(environment.tasks(split)) for split in ("test", "eval", "train")] == [500, 999, 5402]
    solved = sum(environment.expert(task) is not None for task in environment.tasks("test"))
    assert 0.9 < solved / 500 < 1.0  # some goals can never score 1, due to the reward's quirks


def test_the_expert_buys_what_is_wanted_in_every_built_in_task():
    for split in SHOP.splits():
        assert all(SHOP.expert(task) for task in SHOP.tasks(split)[:200])


def test_one_order_and_one_price_for_all_and_no_task_in_two_splits():
    again = WebshopEnvironment()
    contents = {split: {task.content_hash for task in SHOP.tasks(split)} for split in SHOP.splits()}
    assert list(contents) == ["train", "eval", "test"]
    assert [len(found) for found in contents.values()] == [2820, 1000, 500]
    assert len(set.union(*contents.values())) == 4320
    assert all(again.tasks(split) == SHOP.tasks(split) for split in contents)
    other = WebshopEnvironment(price_seed=1)
    assert other.tasks("test") != SHOP.tasks("test")


def test_only_a_perfect_purchase_is_rewarded():
    task = SHOP.tasks("train")[0]
    plan = SHOP.expert(task)
    pool = SHOP.open_pool()
    pool.reset([task, task])
    for action in plan[:-2]:
        pool.step({0: action, 1: action})
    perfect = pool.step({0: plan[-2]})[0]
    assert (perfect.reward, perfect.done) == (0.0, False)
    outcomes = pool.step({0: plan[-1], 1: plan[-1]})
    assert (outcomes[0].reward, outcomes[0].end, outcomes[0].scores) == (10.0, EndReason.SUCCESS, {"task_score": 1.0})
    assert (outcomes[1].reward, outcomes[1].end, outcomes[1].success) == (0.0, EndReason.FAILURE, False)
    assert 0.0 < outcomes[1].scores["task_score"] < 1.0


def test_a_random_agent_can_play_and_rarely_wins():
    episodes = play_random(SHOP, SHOP.tasks("test")[:40], seed=0)
    assert episodes is not None
    assert sum(episode.success for episode in episodes) < 6
    assert any(episode.scores["task_score"] > 0 for episode in episodes)


@pytest.mark.parametrize(
    ("response", "action", "valid"),
    [
        ("<think>x</think><action>search[Red Scarf]</action>", "search[red scarf]", True),
        ("<think>x</think><action> click[B1] </action><action>click[b2]</action>", "click[b1]", True),
        ("<action>click[buy now]</action>", "click[buy now]", False),
        ("<THINK>x</THINK><ACTION>Click[B1]</ACTION>", "click[b1]", False),
        ("<think>漢</think><action>click[b1]</action>", "click[b1]", False),
        ("I would rather like to click[Buy Now]", "like to click[buy now]"[-20:], False),
        ("", "", False),
    ],
)
def test_a_response_becomes_an_action(response, action, valid):
    projection = SHOP.project(response)
    assert (projection.action, projection.valid) == (action, valid)


@given(st.text(max_size=200))
def test_a_response_without_tags_is_its_last_twenty_characters(text):
    if "<action>" not in text.lower() or "</action>" not in text.lower():
        assert SHOP.project(text) == (SHOP.project(text).__class__)(text.lower()[-20:], False)


def started(environment):
    task = environment.tasks("train")[0]
    pool = environment.open_pool()
    (first,) = pool.reset([task])
    second = pool.step({0: environment.expert(task)[0]})[0].observation
    return task, first, second


def test_terse_messages_are_the_page_alone():
    task, first, second = started(SHOP)
    assert SHOP.opening(task, first) == task.description
    lines = SHOP.reply(second).split("\n")
    assert lines[0] == "Page 1"
    assert len(lines) == 11
    assert all(re.fullmatch(r" [A-Z]\w+ \w+ [\w ]+ B\d{3} \$[\d.]+( to \$[\d.]+)?", line) for line in lines[1:])


@pytest.mark.parametrize(
    ("page", "shown"),
    [
        (
            "Page 2 (Total results: 50) [SEP] < Prev [SEP] B1 [SEP] $9.0 [SEP] B2 [SEP] Hat [SEP] $1.5 to $2e+16",
            "Page 2\n B1 $9.0\n Hat B2 $1.5 to $2e+16",
        ),
        ("< Prev [SEP] Page size: A4 [SEP]  [SEP] Paper", "Page size: A4, Paper"),
        ("Page 1 (Total results: 0) [SEP] Next >", "Page 1"),
    ],
)
def test_terse_pages_of_the_originals_products(page, shown):
    text = f"Instruction: [SEP] Find it [SEP] Back to Search [SEP] {page}"
    assert SHOP.reply(Observation(text, None, text)) == shown


def test_full_messages_explain_and_list_the_actions():
    task, first, second = started(FULL)
    opening = FULL.opening(task, first)
    assert "<think>" in opening
    assert task.description in opening
    assert opening.endswith("Actions you can take now: search[<your words>].")
    reply = FULL.reply(second)
    assert task.description not in reply
    assert reply.startswith("'Back to Search' [SEP] 'Page 1 (Total results: ")
    assert ", click[next >], " in reply


def test_a_window_shows_the_last_turns_and_the_request():
    task, first, second = started(FULL)
    past = [PastTurn(first.text, "search[a]"), PastTurn(second.text, "click[b]")]
    prompt = FULL.window_prompt(task, past, second, 5)
    assert "Steps taken so far: 5. The last 2" in prompt
    assert "> search[a]\n" in prompt
    assert prompt.count(task.description) == 1
    assert prompt.endswith("between <action> and </action>.")
    assert "Steps" not in FULL.window_prompt(task, [], first, 0)


def test_a_window_that_grows_too_long_loses_its_history():
    task, _, second = started(FULL)
    rest = len(FULL.window_prompt(task, [PastTurn("", "search[a]")], second, 1))
    fits = PastTurn("x" * (LONGEST_PROMPT - rest), "search[a]")
    prompt = FULL.window_prompt(task, [fits], second, 1)
    assert len(prompt) == LONGEST_PROMPT
    longer = PastTurn("x" * (LONGEST_PROMPT - rest + 1), "search[a]")
    assert FULL.window_prompt(task, [longer], second, 1) == FULL.window_prompt(task, [], second, 1)


def test_a_page_that_is_no_page_is_shown_as_it_is():
    assert SHOP.reply(Observation("odd", None, "")) == "odd"
    assert FULL.reply(Observation("", None, "")) == ""
    assert FULL.reply(Observation("odd", None, "")) == "odd"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prompt_style": "loud"}, "prompt_style must be 'terse' or 'full', got 'loud'"),
        ({"max_turns": 0}, "max_turns must be a whole number >= 1, got 0"),
        ({"human_goals": True}, "human_goals=true needs"),
        ({"nouns": "guess"}, "nouns must be 'auto' or 'file' or 'spacy' or 'words', got 'guess'"),
        ({"data_dir": "/no/such/folder"}, "/no/such/folder"),
    ],
)
def test_wrong_settings_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        WebshopEnvironment(**settings)


def test_an_unknown_split_is_refused():
    with pytest.raises(UserError, match="split must be one of train, eval, test, got 'valid'"):
        SHOP.tasks("valid")
