"""Search-QA's environment: prompts, rewards, failures of the search engine, and the checks of every environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from sdar.environments import CheckReport, PastTurn, check_env
from sdar.environments.search_qa.environment import INSTRUCTIONS, SearchQAEnvironment
from sdar.environments.search_qa.questions import Question
from sdar.environments.search_qa.retriever import Found, Hit, Passage, RetrievalFailure, Retriever
from sdar.environments.search_qa.world import WorldSettings
from sdar.episode import EndReason, Observation, StepOutcome, Task
from sdar.errors import UserError
from sdar.evaluation.agents import play_expert, play_plans
from sdar.evaluation.panel import assert_disjoint, make_panel
from sdar.evaluation.result import summarise

WORLD = WorldSettings(people=60, towns=20, books=20)


class Engine(Retriever):
    """Answers each query with itself; queries with "down" fail. Records the calls."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def search(self, queries: Sequence[str], top_k: int) -> list[Found]:
        self.calls.append(list(queries))
        return [self.answer(query, top_k) for query in queries]

    def answer(self, query: str, top_k: int) -> Found:
        if "down" in query:
            return RetrievalFailure("it is down")
        return [Hit(Passage(str(n), f'"{query}"\npassage {n}'), 1.0) for n in range(top_k)]


def environment(**settings: Any) -> SearchQAEnvironment:
    return SearchQAEnvironment(**({"num_tasks": (8, 8), "world": WORLD} | settings))


def task(*golden: str) -> Task:
    return Question("q", "nq", "Who?", golden or ("Ada Berg",)).task("train")


def started(engine: Retriever, tasks: int = 1, **settings: Any) -> Any:
    pool = environment(search_engine=engine, **settings).open_pool()
    assert all(isinstance(start, Observation) for start in pool.reset([task()] * tasks))
    return pool


@pytest.mark.parametrize("style", ["terse", "full"])
def test_it_keeps_the_protocol(style: str) -> None:
    unplayable = Task("train/broken", "nq", "Who?", "train", "0", payload=None)
    report = check_env(environment(prompt_style=style), unplayable=unplayable)
    assert isinstance(report, CheckReport)
    assert report.experts == 8


def test_a_right_answer_is_rewarded_and_a_wrong_one_scored() -> None:
    pool = started(Engine(), tasks=3, success_reward=10)
    outcomes = pool.step({0: "<answer>the Ada Berg.</answer>", 1: "<answer>Ada</answer>", 2: "<answer></answer>"})
    right, near, empty = (outcomes[slot] for slot in range(3))
    assert (right.reward, right.success, right.end) == (10, True, EndReason.SUCCESS)
    assert right.scores == {"exact_match": 1.0, "f1": 1.0, "substring_match": 1.0}
    assert (near.reward, near.success, near.end) == (0.0, False, EndReason.FAILURE)
    assert near.scores == {"exact_match": 0.0, "f1": pytest.approx(2 / 3), "substring_match": 0.0}
    assert empty.scores["f1"] == 0.0


def test_the_queries_of_one_step_are_one_call_and_equal_ones_are_asked_once() -> None:
    engine = Engine()
    pool = started(engine, tasks=5)
    texts = [
        "<search>b</search>",
        "<search>a</search>",
        "<search>b</search>",
        "<answer>x</answer>",
        "<search> </search>",
    ]
    outcomes = pool.step(dict(enumerate(texts)))
    assert engine.calls == [["a", "b"]]
    assert outcomes[0].observation == outcomes[2].observation
    assert outcomes[1].observation.text.startswith("<information>Doc 1(Title: a) passage 0\nDoc 2")
    assert outcomes[4].observation.text == "<information>The search had no words.</information>"
    assert outcomes[3].done


def test_a_failure_of_the_search_engine_ends_its_episode_as_an_error_and_no_other() -> None:
    pool = started(Engine(), tasks=3)
    outcomes = pool.step({0: "<search>up</search>", 1: "<search>down</search>", 2: "<answer>Ada Berg</answer>"})
    failed = outcomes[1]
    assert (failed.end, failed.done, failed.success, failed.reward) == (EndReason.ERROR_TOOL, True, False, 0.0)
    assert failed.error == "the retriever failed: it is down"
    assert failed.scores == {}
    assert not outcomes[0].done
    assert outcomes[2].success
    with pytest.raises(ValueError, match="slot 1"):
        pool.step({1: "<answer>Ada Berg</answer>"})
    assert not pool.step({0: "<search>up again</search>"})[0].done


def test_errors_are_counted_and_no_wrong_answers() -> None:
    """An evaluation without a working search engine has errors and no success rate."""
    down = environment(search_engine=_Down())
    tasks = down.tasks("valid")
    episodes = play_expert(down, tasks)
    assert episodes is not None
    result = summarise("val", episodes)
    assert (result.n, result.errors, result.ends) == (0, 8, {EndReason.ERROR_TOOL: 8})
    assert result.metrics("val") == {}


class _Down(Engine):
    def answer(self, query: str, top_k: int) -> Found:
        return RetrievalFailure("it is down")


def test_neither_a_search_nor_an_answer_costs_a_turn_and_asks_no_one() -> None:
    engine = Engine()
    outcome = started(engine).step({0: ""})[0]
    assert (outcome.done, outcome.reward, engine.calls) == (False, 0.0, [])
    assert outcome.observation.text == "<information>Neither a search nor an answer was given.</information>"


# Prompts ------------------------------------------------------------------------------------------------------------


def test_the_full_style_explains_the_protocol_and_the_terse_one_asks() -> None:
    question = Observation("Who?", None, "")
    assert environment().opening(task(), question) == "Who?"
    assert environment(prompt_style="full").opening(task(), question) == f"{INSTRUCTIONS}Question: Who?"


PAST = [
    PastTurn("Who?", "<search>a</search>"),
    PastTurn("I1", "<search>b</search>"),
    PastTurn("I2", "<search>c</search>"),
]


def test_a_window_shows_each_step_with_what_it_found() -> None:
    prompt = environment().window_prompt(task(), PAST, Observation("I3", None, ""), 3)
    assert prompt.splitlines() == [
        "Who?",
        "Step 1: <search>a</search> I1",
        "Step 2: <search>b</search> I2",
        "Step 3: <search>c</search> I3",
    ]
    shorter = environment().window_prompt(task(), PAST[1:], Observation("I3", None, ""), 3)
    assert shorter.splitlines() == ["Who?", "Step 2: <search>b</search> I2", "Step 3: <search>c</search> I3"]
    assert environment().window_prompt(task(), [], Observation("I3", None, ""), 3) == "Who?\nI3"
    assert environment().window_prompt(task(), [], Observation("Who?", None, ""), 0) == "Who?"


def test_a_window_in_the_full_style_explains_the_protocol_every_turn() -> None:
    full = environment(prompt_style="full")
    for past, step in ((PAST, 3), ([], 3), ([], 0)):
        prompt = full.window_prompt(task(), past, Observation("I3" if step else "Who?", None, ""), step)
        assert prompt.startswith(f"{INSTRUCTIONS}Question: Who?")
        assert ("I3" in prompt) is (step > 0)


# Closed world -------------------------------------------------------------------------------------------------------


def test_without_a_search_hardly_any_question_is_answered_and_with_the_right_ones_all_are() -> None:
    whole = SearchQAEnvironment()
    tasks = whole.tasks("valid")
    experts = play_expert(whole, tasks)
    assert experts is not None
    assert summarise("expert", experts).success_rate == 1.0
    ((name, plan),) = whole.baselines().items()
    assert "closed book" in name
    closed = play_plans(whole, tasks, plan)
    assert closed is not None
    assert summarise(name, closed).success_rate < 0.05


@pytest.mark.parametrize("training", [1, 4])
def test_without_a_search_questions_of_kinds_that_training_lacks_are_answered_too(training: int) -> None:
    few = SearchQAEnvironment(num_tasks=(training, 240))
    ((_, plan),) = few.baselines().items()
    episodes = play_plans(few, few.tasks("valid"), plan)
    assert episodes is not None
    assert not any(episode.end.is_error for episode in episodes)
    known = {task.payload.golden_answers[0] for task in few.tasks("train")}
    assert {plan(task)[0].removeprefix("<answer>").removesuffix("</answer>") for task in few.tasks("valid")} <= known


def test_the_panel_shares_neither_questions_nor_names_with_training() -> None:
    whole = SearchQAEnvironment()
    panel = make_panel(whole, "valid", 240, 0)
    assert_disjoint(panel, whole.tasks("train"))
    assert panel.counts() == dict.fromkeys(("comparison", "direct_retrieval", "entity_attribute", "multi_hop"), 60)


@pytest.mark.parametrize(
    ("settings", "mentioned"),
    [
        ({"max_turns": 0}, "max_turns must be a whole number >= 1, got 0"),
        ({"top_k": 0}, "top_k must be a whole number >= 1, got 0"),
        ({"success_reward": 0}, "success_reward must be a number > 0, got 0"),
        ({"prompt_style": "loud"}, "prompt_style must be 'terse' or 'full', got 'loud'"),
        ({"num_tasks": (8,)}, "environment.num_tasks must be a list of 2 numbers"),
        ({"num_tasks": (8, 0)}, "num_tasks must be"),
        ({"data_dir": "somewhere"}, "search_engine=bm25"),
    ],
)
def test_a_wrong_setting_is_told(settings: dict[str, Any], mentioned: str) -> None:
    with pytest.raises(UserError, match=mentioned):
        environment(**settings)


def test_more_questions_than_the_world_has_are_refused() -> None:
    with pytest.raises(UserError, match="has only"):
        environment(num_tasks=(100_000, 8)).tasks("train")


def test_an_outcome_of_the_search_engine_is_never_changed_by_its_neighbors() -> None:
    pool = started(Engine(), tasks=2)
    together = pool.step({0: "<search>a</search>", 1: "<search>b</search>"})
    alone = started(Engine()).step({0: "<search>a</search>"})
    assert together[0] == replace(alone[0])
    assert isinstance(together[1], StepOutcome)
