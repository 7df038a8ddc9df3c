"""Arithmetic: problems, their written calculation, and what counts as right."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sdar
from sdar.environments.arithmetic.demonstrator import demonstrate
from sdar.environments.arithmetic.environment import ArithmeticEnvironment, shares
from sdar.environments.arithmetic.problem import OPERATIONS, Problem, all_problems
from sdar.environments.arithmetic.rewards import answered, is_right, number
from sdar.environments.check import check_env
from sdar.environments.single_turn import Example
from sdar.errors import UserError
from sdar.evaluation.panel import assert_disjoint, make_panel

PROBLEMS = [problem for operation in OPERATIONS for problem in all_problems(operation)]


@pytest.mark.parametrize(
    ("problem", "text", "result", "calculation", "without"),
    [
        (Problem("sum", 47, 38), "47 + 38", 85, ("7 + 8 = 15, carry 1", "4 + 3 + 1 = 8"), 75),
        (Problem("sum", 62, 71), "62 + 71", 133, ("2 + 1 = 3, carry 0", "6 + 7 + 0 = 13"), 133),
        (Problem("difference", 52, 47), "52 - 47", 5, ("12 - 7 = 5, borrow 1", "5 - 1 - 4 = 0"), 15),
        (Problem("product", 39, 7), "39 * 7", 273, ("9 * 7 = 63, carry 6", "3 * 7 + 6 = 27"), 213),
    ],
)
def test_known_problems(problem: Problem, text: str, result: int, calculation: tuple[str, str], without: int) -> None:
    assert problem.text == text
    assert problem.result == result
    assert problem.calculation() == calculation
    assert problem.without_carry() == without


@given(st.sampled_from(PROBLEMS))
def test_every_calculation_is_right_and_leads_to_the_result(problem: Problem) -> None:
    ones, tens = problem.calculation()
    for line in (ones.partition(",")[0], tens):
        left, _, right = line.partition(" = ")
        assert eval(left) == int(right)
    last = int(ones.partition(" = ")[2].partition(",")[0]) % 10
    assert 10 * int(tens.partition(" = ")[2]) + last == problem.result
    assert problem.result >= 0
    carried = not ones.endswith(" 0")
    assert (problem.without_carry() == problem.result) == (not carried)


def test_the_splits_share_no_problem_and_the_operations_take_turns() -> None:
    parts = {
        split: [problem for part in shares(split) for problem in part] for split in ("train", "valid", "warm_start")
    }
    assert sum(map(len, parts.values())) == len(set().union(*parts.values())) == len(PROBLEMS)
    environment = ArithmeticEnvironment(num_tasks=(9, 6))
    assert [task.task_type for task in environment.tasks("train")] == [*OPERATIONS] * 3
    assert check_env(environment).experts > 0
    assert sdar.make("arithmetic").name == "arithmetic"


def test_more_problems_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match=r"environment\.num_tasks: valid has at most 270 problems, got 300"):
        ArithmeticEnvironment(num_tasks=(10, 300))


def test_easier_numbers_are_split_as_the_others_are() -> None:
    environment = ArithmeticEnvironment(numbers=(1, 20), num_tasks=(240, 60))
    problems = {split: [task.description for task in environment.tasks(split)] for split in ("train", "valid")}
    assert len(set(problems["train"]) | set(problems["valid"])) == 300
    found = [int(number) for text in problems["train"] for number in re.findall(r"\d+", text)]
    assert (min(found), max(found)) == (1, 20)
    with pytest.raises(UserError, match=r"environment\.num_tasks: train has at most 240 problems, got 960"):
        ArithmeticEnvironment(numbers=(1, 20))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"numbers": (20, 10)}, r"environment\.numbers must be the least and the largest one, got \[20, 10\]"),
        ({"numbers": (5,)}, r"environment\.numbers must be the least and the largest one, got \[5\]"),
        ({"numbers": (0, 100)}, r"numbers.* 100"),
        ({"extract": "last_number", "compare": "text"}, r"environment\.compare must be number where"),
        ({"extract": "first"}, r"extract must be .* got 'first'"),
    ],
)
def test_settings_that_no_problem_fits_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ArithmeticEnvironment(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("response", "reward", "valid"),
    [
        ("9 - 8 = 1.", 1, True),
        ("The result is 1, of course", 1, True),
        ("1 or 2", 0, True),
        ("9-8=-1", 0, True),
        ("<answer>1</answer>", 1, True),
        ("one", 0, False),
    ],
)
def test_the_last_number_of_a_response_can_count(response: str, reward: float, valid: bool) -> None:
    environment = ArithmeticEnvironment(extract="last_number", prompt_style="full")
    assert environment.reward(response, Example("9 - 8", "1")) == reward
    assert environment.well_formed(response) is valid
    assert check_env(environment).experts > 0


@pytest.mark.parametrize(
    ("given_text", "wanted", "right"),
    [
        ("85", "85", True),
        ("85.0", "85", True),
        ("It is 1,234 apples.", "1234", True),
        ("-5", "5", False),
        ("10 - 5 = 5", "5", True),
        ("", "5", False),
        ("eighty-five", "85", False),
        ("12 #### 7", "7", True),
        ("7", "so 3 + 4 #### 7", True),
        ("no number", "no number", False),
        (".5", "0.5", True),
        (".5", "5", False),
        ("5e-05", "0.00005", True),
        ("-5", "5e-05", False),
        ("it ends at 5.", "5", True),
        ("1.5e3", "1500", True),
    ],
)
def test_numbers_are_compared_by_value(given_text: str, wanted: str, right: bool) -> None:
    assert is_right(given_text, wanted, "number") is right


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "Capital of France?", "answer": "Paris"}, "row 2 must have a number in its answer, got 'Paris'"),
        ({"question": "half \ud800", "answer": 3}, "row 2 must be text that can be written, but its question has half"),
    ],
)
def test_rows_that_can_never_be_right_or_read_are_refused(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    rows = [{"question": "1 + 1", "answer": 2}, row]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=said):
        ArithmeticEnvironment(data_dir=tmp_path).tasks("train")
    if row["answer"] == "Paris":
        assert len(ArithmeticEnvironment(data_dir=tmp_path, compare="text").tasks("train")) == 2


def test_texts_are_compared_without_case_and_spacing() -> None:
    assert is_right(" New  york ", "new York", "text")
    assert not is_right("New York City", "New York", "text")
    assert not is_right(None, "x", "text")


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9))
def test_every_number_is_read_back(value: object) -> None:
    assert number(f"the result is {value} pieces") == value


def test_the_last_answer_counts_and_the_format_is_asked_for() -> None:
    environment = ArithmeticEnvironment()
    example = Example("47 + 38", "85")
    assert answered("<answer>1</answer> no, <ANSWER> 85\n</ANSWER>") == "85"
    assert environment.reward("<answer>85</answer>", example) == 1
    assert environment.reward("85", example) == 0
    assert environment.well_formed("<think></think><answer>85</answer>")
    assert not environment.well_formed("<answer>85</answer>")


def test_the_careless_player_is_wrong_more_often_and_the_other_never() -> None:
    rng = np.random.default_rng(0)
    right = {True: 0, False: 0}
    for problem in PROBLEMS[::40]:
        for skilled in right:
            step = demonstrate(problem, rng, skilled=skilled)
            right[skilled] += is_right(answered(step.command), str(problem.result), "number")
    assert right[True] == len(PROBLEMS[::40])
    assert right[False] < 0.5 * right[True]


def test_problems_of_ones_own(tmp_path: Path) -> None:
    rows = [
        {"question": "Tom has 3 apples and buys 4. How many?", "answer": "3 + 4 = 7\n#### 7"},
        {"question": "Half of 9?", "answer": 4.5, "kind": "fraction"},
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": "1 + 1?", "answer": "2"}))
    environment = ArithmeticEnvironment(data_dir=tmp_path, prompt_style="full")
    assert environment.splits() == ("train", "test")
    first, second = environment.tasks("train")
    assert [task.payload.answer for task in (first, second)] == ["7", "4.5"]
    assert (first.task_type, second.task_type) == ("problem", "fraction")
    assert environment.reward("<answer>4.50</answer>", second.payload) == 1
    observation = environment.open_pool().reset([first])[0]
    assert environment.opening(first, observation).startswith("Solve the problem.")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "must contain train.jsonl, or another split, but"),
        ({"train.parquet": ""}, "has train.parquet"),
        ({"train.jsonl": ""}, "train.jsonl has no problem"),
        ({"train.jsonl": '{"answer": "2"}'}, "row 1 must have a text as its question, got None"),
        ({"train.jsonl": '{"question": "1 + 1", "answer": []}'}, "row 1 must have a text or a number as its answer"),
        ({"train.jsonl": '{"question": "1 + 1", "answer": true}'}, "row 1 must have a text or a number as its answer"),
        ({"train.jsonl": '{"question": "1", "answer": "2", "kind": 3}'}, "row 1 must have a text as its kind, or none"),
        ({"train.jsonl": "not json"}, "line 1 is not JSON"),
        ({"valid.jsonl": '{"question": "1 + 1", "answer": "2"}'}, "has no train.jsonl to train on"),
    ],
)
def test_files_that_are_wrong_are_refused_in_one_sentence(files: dict[str, str], said: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    def read() -> None:
        environment = ArithmeticEnvironment(data_dir=tmp_path)
        environment.tasks(environment.training_split())

    with pytest.raises(UserError, match=re.escape(said)) as caught:
        read()
    assert "\n" not in str(caught.value)


def test_a_panel_with_a_training_problem_is_refused_whatever_its_answer(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps({"question": "What is 1 + 1?", "answer": "2"}))
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": "what is  1 + 1?", "answer": "3"}))
    environment = ArithmeticEnvironment(data_dir=tmp_path)
    with pytest.raises(UserError, match="1 of the panel's 1 tasks are training tasks"):
        assert_disjoint(make_panel(environment, None, 1, 0), environment.tasks("train"))
