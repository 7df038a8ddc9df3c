"""Arithmetic in one response: generated problems, or problems of your own with a final answer (GSM8K's form)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge, Le

from sdar.config.fields import AtLeastOne, Positive, TaskCount, checked
from sdar.environments.arithmetic.files import read_problems, splits_of
from sdar.environments.arithmetic.problem import OPERATIONS, TWO_DIGITS, Problem, dealt
from sdar.environments.arithmetic.rewards import Compare, Extract, answered, is_right, last_number
from sdar.environments.base import PromptStyle
from sdar.environments.single_turn import Example, SingleTurnEnvironment
from sdar.environments.task_list import problem_of
from sdar.episode import Observation, Task
from sdar.errors import UserError
from sdar.randomness import keyed_generator

INSTRUCTIONS: dict[Extract, str] = {
    "tagged": "Solve the problem. Think step by step, between <think> and </think>. Then give the result alone, "
    "between <answer> and </answer>.\n\nProblem: ",
    "last_number": "Solve the problem, and end with the result.\n\nProblem: ",
}
"""First part of a prompt in the full style."""
Number = Annotated[int, Ge(0), Le(99)]
"""Of a generated problem."""
SPLITS = ("train", "valid", "warm_start")
"""The last one is the warm start's: no problem of it is trained on or evaluated."""


class ArithmeticEnvironment(SingleTurnEnvironment):
    """Problems with one right answer.

    Args:
        data_dir: folder of problems, ``<split>.jsonl`` with rows of ``question`` and
            ``answer`` (GSM8K's names and form); None: generated ones, sums and differences of two ``numbers``, and
            products of one of them with 2 to 9.
        extract: whether the answer is what stands between its tags, or the last number of the response, for models
            that do not keep to a format. Then a response with a number is valid.
        compare: whether answers are compared as numbers, or as texts.
        numbers: the least and the largest number of generated sums and differences, in [0, 99].
        success_reward: reward of a right answer; anything else gives 0.
        prompt_style: ``full`` explains the format to a pretrained model; ``terse`` is for a model that was
            warm-started on it.
        max_turns: no effect: an episode is one response.
        list_actions: no effect; model files set it for every environment.
        num_tasks: generated problems per split, in the order train, valid; a third of each operation.
    """

    name: ClassVar[str] = "arithmetic"

    @checked
    def __init__(
        self,
        *,
        data_dir: str | Path | None = None,
        extract: Extract = "tagged",
        compare: Compare = "number",
        numbers: Sequence[Number] = TWO_DIGITS,
        max_turns: AtLeastOne = 1,
        success_reward: Positive = 10.0,
        prompt_style: PromptStyle = "terse",
        list_actions: bool = False,
        num_tasks: Sequence[TaskCount] = (960, 240),
    ) -> None:
        self.solved_return = success_reward
        self._data = None if data_dir is None else Path(data_dir)
        if extract == "last_number" and compare == "text":
            raise UserError("environment.compare must be number where environment.extract is last_number, got text")
        if len(numbers) != 2 or not numbers[0] <= numbers[1]:
            raise UserError(f"environment.numbers must be the least and the largest one, got {list(numbers)}")
        self._extract: Extract = extract
        self._compare: Compare = compare
        self._numbers = (numbers[0], numbers[1])
        self._full = prompt_style == "full"
        self._splits = SPLITS[:2] if self._data is None else splits_of(self._data)
        if len(num_tasks) != 2:
            raise UserError(f"environment.num_tasks must have two numbers, for train and valid, got {list(num_tasks)}")
        self._counts = dict(zip(SPLITS[:2], num_tasks, strict=True))
        for split, count in self._counts.items() if self._data is None else ():
            most = len(OPERATIONS) * min(map(len, shares(split, self._numbers)))
            if count > most:
                raise UserError(f"environment.num_tasks: {split} has at most {most} problems, got {count}")

    def splits(self) -> tuple[str, ...]:
        """The splits that have problems."""
        return self._splits

    def training_split(self) -> str:
        """``train``. UserError for a folder without it."""
        if "train" not in self._splits:
            raise UserError(f"environment.data_dir={self._data} has no train.jsonl to train on")
        return "train"

    def examples(self, split: str) -> Sequence[Example]:
        """Generated problems, the operations taking turns, or those of the file."""
        if self._data is not None:
            return read_problems(self._data, split, self._compare)
        parts = shares(split, self._numbers)
        count = self._counts[split]
        return [example_of(parts[place % len(parts)][place // len(parts)]) for place in range(count)]

    def _task(self, split: str, place: int, example: Example) -> Task:
        # With another answer in another file it is still the same problem.
        return replace(super()._task(split, place, example), problem=problem_of(example.prompt))

    def reward(self, response: str, example: Example) -> float:
        """1 for the right answer, else 0."""
        given = answered(response) if self._extract == "tagged" else last_number(response)
        return float(is_right(given, example.answer, self._compare))

    def well_formed(self, response: str) -> bool:
        """Whether there is a thought before an answer between tags, or a number."""
        if self._extract == "last_number":
            return last_number(response) is not None
        return "<think>" in response and "</think>" in response and answered(response) is not None

    def self_contained(self) -> bool:
        """Yes: a task's content is its problem and answer."""
        return True

    def opening(self, task: Task, observation: Observation) -> str:
        """The problem, after the instructions in the full style."""
        return (INSTRUCTIONS[self._extract] if self._full else "") + super().opening(task, observation)

    def expert(self, task: Task) -> list[str] | None:
        """The right response."""
        answer = task.payload.answer
        return [f"<think></think><answer>{answer}</answer>" if self._extract == "tagged" else answer]


@cache
def shares(split: str, numbers: tuple[int, int] = TWO_DIGITS) -> list[list[Problem]]:
    """The problems of a split, operation by operation: half of all are for training, an eighth for panels."""
    found = []
    for operation in OPERATIONS:
        problems = dealt(operation, keyed_generator(0, "arithmetic", operation), numbers)
        ends = [0, len(problems) // 2, len(problems) * 5 // 8, len(problems)]
        place = SPLITS.index(split)
        found.append(problems[ends[place] : ends[place + 1]])
    return found


def example_of(problem: Problem) -> Example:
    """A generated problem as it is asked."""
    return Example(problem.text, str(problem.result), problem.operation)
