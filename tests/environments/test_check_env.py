"""check_env accepts environments that follow the protocol and names every violation."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sdar.environments import CheckReport, Environment, EnvironmentCheckError, EnvironmentPool, Projection, check_env
from sdar.environments.alfworld.environment import AlfworldEnvironment
from sdar.environments.alfworld.game import Game
from sdar.episode import EndReason, Observation, StepOutcome
from sdar.errors import UserError

CALLS = itertools.count()
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "environments.md"


@pytest.fixture(scope="module")
def guide() -> dict[str, Any]:
    """The names that the guide's code defines. Running it checks the toy environment."""
    names: dict[str, Any] = {"__name__": "guide"}
    for block in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL):
        exec(compile(block, str(GUIDE), "exec"), names)
    return names


@pytest.fixture
def toy(guide: dict[str, Any]) -> type[Environment]:
    toy: type[Environment] = guide["NumberEnvironment"]
    return toy


def problems(environment: Environment, **settings: Any) -> str:
    with pytest.raises(EnvironmentCheckError) as error:
        check_env(environment, **settings)
    return "\n".join(error.value.problems)


def test_the_environment_of_the_guide_passes(toy: type[Environment]) -> None:
    report = check_env(toy())
    assert report == check_env(toy())
    assert (report.tasks, report.experts) == (7, 7)
    assert report.ends > 7


def test_generated_alfworld_passes_and_keeps_errors_apart() -> None:
    environment = AlfworldEnvironment(num_tasks=(6, 6, 6))
    broken = Game("train/broken", "pick_and_place_simple", "put", "no problem", "train")
    unplayable = replace(environment.tasks("train")[0], task_id="train/broken", payload=broken)
    assert isinstance(check_env(environment, tasks_per_split=2, unplayable=unplayable), CheckReport)


def broken_pool(toy: type[Environment], **methods: Any) -> Environment:
    """The toy environment with methods of its pool replaced."""
    original = type(toy().open_pool())
    pool = type("BrokenPool", (original,), methods)
    return type("Broken", (toy,), {"open_pool": lambda self: pool()})()


def changed_steps(toy: type[Environment], change: Callable[[StepOutcome], StepOutcome]) -> Environment:
    original = type(toy().open_pool())

    def step(self: EnvironmentPool, actions: Any) -> dict[int, StepOutcome]:
        return {slot: change(outcome) for slot, outcome in original.step(self, actions).items()}

    return broken_pool(toy, step=step)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda o: replace(o, reward=float("nan")), "a reward must be a number from -1e+12 to 1e+12, got nan"),
        (lambda o: replace(o, end=None), "'end' must be set if and only if 'done'"),
        (lambda o: replace(o, end=EndReason.FAILURE) if o.done else o, "'success' must agree with 'end'"),
        (lambda o: replace(o, success=True), "'success' must agree with 'end'"),
        (
            lambda o: replace(o, end=EndReason.CONTEXT_FULL, success=False) if o.done else o,
            "is reserved for the collector",
        ),
        (lambda o: replace(o, scores={"f1": 1.5}), "the score 'f1' must be a number in [0, 1], got 1.5"),
        (lambda o: replace(o, error="oh"), "'error' must be set if and only if"),
        (
            lambda o: replace(o, end=EndReason.ERROR_TOOL, success=False) if o.done else o,
            "an error must have reward 0, got",
        ),
        (lambda o: replace(o, observation=replace(o.observation, actions=["5"])), "must be a tuple of strings or None"),
        (lambda o: replace(o, observation="Right."), "is not an Observation"),
    ],
)
def test_an_outcome_that_contradicts_itself_is_named(toy: type[Environment], change: Any, problem: str) -> None:
    assert problem in problems(changed_steps(toy, change))


def test_play_that_depends_on_the_call_order_is_found(toy: type[Environment]) -> None:
    environment = changed_steps(
        toy, lambda outcome: replace(outcome, observation=Observation(f"{next(CALLS)}", None, ""))
    )
    assert "the same actions have different outcomes" in problems(environment)


def test_episodes_that_share_their_state_are_found(toy: type[Environment]) -> None:
    def reset(self: Any, tasks: Any) -> list[Observation]:
        self.numbers = dict.fromkeys(range(len(tasks)), tasks[0].payload)
        return [Observation("Guess.", None, "") for _ in tasks]

    assert "different outcomes in another pool and order" in problems(broken_pool(toy, reset=reset))


def test_a_pool_may_take_apart_what_it_is_given(toy: type[Environment]) -> None:
    class Taking(type(toy().open_pool())):  # type: ignore[misc]
        def reset(self, tasks: Any) -> Any:
            starts = super().reset(tasks)
            tasks.clear()
            return starts

        def step(self, actions: Any) -> Any:
            outcomes = super().step(actions)
            actions.clear()
            return outcomes

    taking = type("Toy", (toy,), {"open_pool": lambda self: Taking()})
    assert check_env(taking()) == check_env(toy())


def test_a_slot_that_goes_on_after_its_end_is_found(toy: type[Environment]) -> None:
    def answer(self: Any, slot: int, guess: str) -> StepOutcome:
        won = guess == self.numbers.get(slot)
        end = EndReason.SUCCESS if won else None
        return StepOutcome(Observation("", None, ""), 0.0, won, won, end=end)

    assert "can be stepped" in problems(broken_pool(toy, answer=answer))


def test_a_step_that_raises_for_an_odd_action_is_found(toy: type[Environment]) -> None:
    original = type(toy().open_pool()).answer

    def answer(self: Any, slot: int, guess: str) -> StepOutcome:
        float(guess)
        outcome: StepOutcome = original(self, slot, guess)
        return outcome

    assert "step() raises ValueError" in problems(broken_pool(toy, answer=answer))


@pytest.mark.parametrize("unplayable", [False, True])
@pytest.mark.parametrize(("method", "at"), [("step", None), *itertools.product(("reset", "step"), (1, 2, 3, 5, 8))])
def test_no_pool_is_left_open(toy: type[Environment], method: str, at: int | None, unplayable: bool) -> None:
    original = type(toy().open_pool())
    opened: set[Any] = set()
    calls = itertools.count(1)

    def called(self: Any, argument: Any) -> Any:
        if next(calls) == at:
            raise ArithmeticError(f"call {at}")
        return getattr(original, method)(self, argument)

    def close(self: Any) -> None:
        opened.discard(self)
        original.close(self)

    pool = type("Pool", (original,), {method: called, "close": close})

    def open_pool(_: Any) -> Any:
        opened.add(made := pool())
        return made

    environment = type("Counted", (toy,), {"open_pool": open_pool})()
    task = environment.tasks("train")[0] if unplayable else None
    with nullcontext() if at is None and task is None else pytest.raises(EnvironmentCheckError):
        check_env(environment, unplayable=task)
    assert not opened


def test_what_raised_first_is_told_where_close_raises_too(toy: type[Environment]) -> None:
    def failing(self: Any, *_: Any) -> Any:
        raise ArithmeticError("first" if _ else "second")

    assert "reset raises ArithmeticError: first" in problems(broken_pool(toy, reset=failing, close=failing))


def test_a_close_that_cannot_be_repeated_is_found(toy: type[Environment]) -> None:
    def close(self: Any) -> None:
        del self.numbers

    assert "close raises AttributeError" in problems(broken_pool(toy, close=close))


def test_a_step_that_answers_for_other_slots_is_found(toy: type[Environment]) -> None:
    original = type(toy().open_pool()).step

    def step(self: Any, actions: Any) -> dict[int, StepOutcome]:
        return dict(list(original(self, actions).items())[:1])

    assert "returns slots [0]" in problems(broken_pool(toy, step=step))


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"max_turns": 0}, "max_turns must be an integer >= 1, got 0"),
        ({"name": ""}, "name must be a non-empty string, got ''"),
        ({"splits": lambda self: ("train", "train")}, "a tuple of distinct names"),
        ({"tasks": lambda self, split: []}, "split 'train' has no tasks"),
        ({"expert": lambda self, task: ["1"]}, "does not succeed with its last action"),
        ({"expert": lambda self, task: ["1"] * 5 + [task.payload]}, "needs 6 turns, but max_turns is 5"),
        ({"project": lambda self, response: Projection(f"{next(CALLS)}", True)}, "is not pure"),
        ({"project": lambda self, response: Projection(response[0], True)}, "raises IndexError"),
        ({"project": lambda self, response: response}, "must return a Projection"),
        ({"reply": lambda self, observation: None}, "reply() must return a string"),
    ],
)
def test_an_environment_that_breaks_the_protocol_is_named(
    toy: type[Environment], attributes: dict[str, Any], problem: str
) -> None:
    assert problem in problems(type("Broken", (toy,), attributes)())


def test_tasks_shared_by_splits_or_ids_used_twice_are_found(toy: type[Environment]) -> None:
    def tasks(self: Any, split: str) -> list[Any]:
        return [replace(task, split=split) for task in toy.tasks(self, "train")]

    found = problems(type("Broken", (toy,), {"tasks": tasks})())
    assert "task ids are not unique" in found
    assert "share 4 tasks by content" in found


def test_an_unplayable_task_that_starts_is_found(toy: type[Environment]) -> None:
    task = toy().tasks("train")[0]
    assert "starts as if it could be played" in problems(toy(), unplayable=task)


def test_all_problems_are_told_at_once(toy: type[Environment]) -> None:
    found = problems(type("Broken", (toy,), {"max_turns": -1, "name": 3})())
    assert len(found.splitlines()) == 2


def test_settings_out_of_range_are_refused(toy: type[Environment]) -> None:
    with pytest.raises(UserError, match="tasks_per_split must be a whole number >= 1, got 0"):
        check_env(toy(), tasks_per_split=0)
