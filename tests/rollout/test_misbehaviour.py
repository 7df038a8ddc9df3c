"""Whatever an environment answers, raises or leaves out: its episodes end by an error that says so, the run goes on."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from sdar.environments.base import Projection
from sdar.environments.check import EnvironmentCheckError, check_env
from sdar.episode import EndReason, Episode, Observation, StepOutcome, Task
from sdar.errors import UserError
from sdar.evaluation.agents import play_expert
from sdar.output.printable import printable
from sdar.rollout.guard import MOST_LATE
from sdar.rollout.readiness import check_ready
from toys.rollouts import CountingEnvironment, CountingPool, fake_collector, requests
from toys.waiting import Deadlines, passing_deadlines

VICTIM = "train-6"
SEEN = Observation("seen", ("act",), "seen")


class Text(str):
    """A text that says of itself that it is another one."""

    def __str__(self) -> str:
        return "another"


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("I cannot be told")


class LeavingError(Exception):
    def __str__(self) -> str:
        raise SystemExit(0)


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("I cannot be shown")


class Leaving:
    def __repr__(self) -> str:
        raise SystemExit(0)


class Wavering:
    """The first time an attribute is asked for it is what it should be, later it is 3."""

    def __getattribute__(self, name: str) -> Any:
        asked = object.__getattribute__(self, "__dict__").setdefault("asked", set())
        if name in asked:
            return 3
        if not name.startswith("_"):
            asked.add(name)
        return object.__getattribute__(self, name)


class WaveringObservation(Wavering, Observation):
    pass


class WaveringOutcome(Wavering, StepOutcome):
    pass


class Endless(tuple[str, ...]):
    """A tuple that says that it is longer than it is."""

    def __len__(self) -> int:
        return 99


def outcome(**change: Any) -> StepOutcome:
    return StepOutcome(**({"observation": SEEN, "reward": 0.0, "done": False, "success": False} | change))


def seen(**change: Any) -> StepOutcome:
    return outcome(observation=Observation(**({"text": "seen", "actions": None, "anchor": ""} | change)))


REWARD = "the reward must be a number from -1e+12 to 1e+12, got "
AGREE = "done, success and end must agree, got "
SCORE = "the score 'em' must be a number from 0 to 1, got "

OUTCOMES: dict[str, tuple[Any, str]] = {
    "reward: a text": (outcome(reward="10"), REWARD + "'10'"),
    "reward: None": (outcome(reward=None), REWARD + "None"),
    "reward: a list": (outcome(reward=[1.0]), REWARD + "[1.0]"),
    "reward: complex": (outcome(reward=1j), REWARD + "1j"),
    "reward: True": (outcome(reward=True), REWARD + "True"),
    "reward: an array": (outcome(reward=np.zeros(2)), REWARD + "array([0., 0.])"),
    "reward: 10**400": (outcome(reward=10**400), REWARD + "1000000"),
    "reward: 10**5000": (outcome(reward=10**5000), REWARD + "an object of type int"),
    "reward: a fraction of such": (outcome(reward=Fraction(10**400)), REWARD + "Fraction"),
    "reward: nan": (outcome(reward=float("nan")), REWARD + "nan"),
    "reward: infinite": (outcome(reward=float("inf")), REWARD + "inf"),
    "reward: sums that overflow": (outcome(reward=1e308), REWARD + "1e+308"),
    "reward: minus such": (outcome(reward=-1e308), REWARD + "-1e+308"),
    "reward: a float32 infinity": (outcome(reward=np.float32("inf")), REWARD),
    "reward: not to be shown": (outcome(reward=Unshowable()), REWARD + "<Unshowable instance"),
    "reward: that exits when it is shown": (outcome(reward=Leaving()), REWARD + "an object of type Leaving"),
    "outcome: a mapping": ({"reward": 1.0}, "an outcome must be a StepOutcome, got {'reward': 1.0}"),
    "outcome: a tuple of gym": ((SEEN, 1.0, False, {}), "an outcome must be a StepOutcome, got (Observation("),
    "outcome: an observation": (SEEN, "an outcome must be a StepOutcome, got Observation("),
    "outcome: the class": (StepOutcome, "an outcome must be a StepOutcome, got <class"),
    "outcome: False": (False, "an outcome must be a StepOutcome, got False"),
    "end: a text": (outcome(done=True, end="success"), "the end must be an EndReason or None, got 'success'"),
    "end: a number": (outcome(done=True, end=1), "the end must be an EndReason or None, got 1"),
    "end: the collector's": (outcome(done=True, end=EndReason.CONTEXT_FULL), "which is the collector's"),
    "end: before it is done": (outcome(end=EndReason.FAILURE), AGREE + "done=False, success=False, end=FAILURE"),
    "end: another than success": (outcome(done=True, success=True, end=EndReason.FAILURE), AGREE),
    "done: a number": (outcome(done=1), "done must be True or False, got 1"),
    "done: a text": (outcome(done="no"), "done must be True or False, got 'no'"),
    "done: None": (outcome(done=None), "done must be True or False, got None"),
    "success: a number": (outcome(success=0), "success must be True or False, got 0"),
    "success: a text": (outcome(done=True, success="yes"), "success must be True or False, got 'yes'"),
    "success: before it is done": (outcome(success=True), AGREE + "done=False, success=True, end=None"),
    "scores: None": (outcome(scores=None), "the scores must be a mapping of names to numbers, got None"),
    "scores: a list": (outcome(scores=[("em", 1.0)]), "the scores must be a mapping of names to numbers, got [("),
    "scores: a text": (outcome(scores={"em": "x"}), SCORE + "'x'"),
    "scores: None inside": (outcome(scores={"em": None}), SCORE + "None"),
    "scores: nan": (outcome(scores={"em": float("nan")}), SCORE + "nan"),
    "scores: above 1": (outcome(scores={"em": 1.5}), SCORE + "1.5"),
    "scores: below 0": (outcome(scores={"em": -1}), SCORE + "-1"),
    "scores: a number for a name": (outcome(scores={3: 1.0}), "the name of a score must be a text, got 3"),
    "scores: half a character": (outcome(scores={"\ud800": 1.0}), "the name of a score must be Unicode text"),
    "observation: None": (outcome(observation=None), "the observation of an outcome must be an Observation, got None"),
    "observation: a text": (outcome(observation="seen"), "must be an Observation, got 'seen'"),
    "observation: a number": (outcome(observation=3), "must be an Observation, got 3"),
    "text: a number": (seen(text=3), "the text of an observation must be a text, got 3"),
    "text: bytes": (seen(text=b"seen"), "the text of an observation must be a text, got b'seen'"),
    "text: None": (seen(text=None), "the text of an observation must be a text, got None"),
    "text: half a character": (seen(text="a\udcffb"), r"must be Unicode text, got the lone surrogate '\udcff'"),
    "actions: a list": (seen(actions=["act"]), "must be a tuple of texts or None, got ['act']"),
    "actions: a text": (seen(actions="act"), "must be a tuple of texts or None, got 'act'"),
    "actions: a number inside": (seen(actions=("act", 3)), "an action of an observation must be a text, got 3"),
    "actions: half a character": (seen(actions=("\ud800",)), "an action of an observation must be Unicode text"),
    "anchor: a number": (seen(anchor=7), "the anchor of an observation must be a text, got 7"),
    "anchor: a list": (seen(anchor=[]), "the anchor of an observation must be a text, got []"),
    "refused: a text": (seen(refused="no"), "refused of an observation must be True or False, got 'no'"),
    "error: an exception": (outcome(error=ValueError("x")), "ValueError('x')"),
    "error: escapes": (outcome(error="\x1b[2J gone\x9b31m"), r"\x1b[2J gone\x9b31m"),
    "error: a very long one": (outcome(error="x" * 10_000), "x" * 400),
}
"""What the victim's step answers, and what its error says."""


def raising(error: BaseException) -> Callable[..., Any]:
    def call(*_: Any) -> Any:
        raise error

    return call


RAISED: dict[str, tuple[BaseException, str]] = {
    "an exception": (RuntimeError("gone"), "RuntimeError: gone"),
    "sys.exit": (SystemExit(0), "SystemExit: 0"),
    "an exit of its own kind": (asyncio.CancelledError("stop"), "CancelledError: stop"),
    "an error that cannot be told": (MuteError(), "MuteError"),
    "an error that exits when it is told": (LeavingError(), "LeavingError"),
    "the end of a generator": (GeneratorExit(), "GeneratorExit"),
    "several errors": (BaseExceptionGroup("two", [ValueError("v"), SystemExit(0)]), "BaseExceptionGroup: two"),
    "recursion": (RecursionError("deep"), "RecursionError: deep"),
    "no memory": (MemoryError("full"), "MemoryError: full"),
    "stop of an iteration": (StopIteration("over"), "StopIteration: over"),
    "escapes": (RuntimeError("\x1b[31mred\nand \x07more"), r"RuntimeError: \x1b[31mred and \x07more"),
}


def collect(environment: CountingEnvironment, concurrent: int = 64, **settings: Any) -> list[Episode]:
    collector = fake_collector(environment, max_concurrent_episodes=concurrent, **settings)
    episodes = collector.collect(requests(environment, 1), seed=0, key=("train", 0)).episodes
    for episode in episodes:  # nothing that got through may spoil a file or a terminal
        json.dumps([turn.observation.text for turn in episode.turns], ensure_ascii=False).encode()
        assert episode.error is None or (printable(episode.error) == episode.error and "\n" not in episode.error)
    return episodes


SOUND = collect(CountingEnvironment())


def assert_only_the_victim_fails(episodes: Sequence[Episode], error: str) -> None:
    for before, after in zip(SOUND, episodes, strict=True):
        if after.task.task_id == VICTIM:
            assert after.end is EndReason.ERROR_ENVIRONMENT
            assert error in str(after.error)
            assert (after.success, after.episode_return) == (False, 0.0)
        else:
            assert after == before


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("name", OUTCOMES)
def test_an_answer_that_is_not_allowed_ends_its_episode_and_says_why(name: str, batched: bool) -> None:
    answer, error = OUTCOMES[name]
    environment = CountingEnvironment(faults={VICTIM: (1, lambda: answer)}, batched=batched)
    assert_only_the_victim_fails(collect(environment), error)


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("name", RAISED)
def test_whatever_is_raised_ends_its_episode_and_says_what(name: str, at: int) -> None:
    error, told = RAISED[name]
    assert_only_the_victim_fails(collect(CountingEnvironment(faults={VICTIM: (at, raising(error))})), told)


STARTS: dict[str, tuple[Any, str]] = {
    "a text": ("seen", "an answer of reset must be an Observation, got 'seen'"),
    "a mapping": ({"text": "seen"}, "an answer of reset must be an Observation, got {'text': 'seen'}"),
    "a number as text": (Observation(3, None, ""), "the text of an observation must be a text, got 3"),  # type: ignore[arg-type]
    "going on": (outcome(), "a slot that cannot start must be done with an error, got StepOutcome("),
    "already won": (outcome(done=True, success=True), "a slot that cannot start must be done with an error"),
    "not started": (outcome(done=True, error="no file"), "no file"),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_start_that_is_not_allowed_ends_its_episode(name: str) -> None:
    answer, error = STARTS[name]
    assert_only_the_victim_fails(collect(CountingEnvironment(faults={VICTIM: (0, lambda: answer)})), error)


@dataclass
class Odd(CountingEnvironment):
    """Answers of one method are changed: ``changes`` maps a method to what is made of its arguments."""

    changes: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def __getattribute__(self, name: str) -> Any:
        changes = object.__getattribute__(self, "__dict__").get("changes", {})
        return changes[name] if name in changes and name in ENVIRONMENTS else super().__getattribute__(name)

    def open_pool(self) -> CountingPool:
        pool = super().open_pool()
        for name, change in self.changes.items():
            if name not in ENVIRONMENTS:
                setattr(pool, name, partial(change, getattr(pool, name)))
        return pool


ENVIRONMENTS = ("open_pool", "project", "opening", "reply", "window_prompt")


def halfway(old: Any, tasks: Sequence[Task]) -> Iterator[Observation]:
    yield SEEN
    raise RuntimeError("halfway")


def endless(old: Any, tasks: Sequence[Task]) -> Iterator[Observation]:
    while True:
        yield SEEN


RESET = "reset must return one observation per task, got "
POOLS: dict[str, tuple[str, Any, str]] = {
    "reset: None": ("reset", lambda old, tasks: None, RESET + "None"),
    "reset: a number": ("reset", lambda old, tasks: 3, RESET + "3"),
    "reset: a list of None": ("reset", lambda old, tasks: [None] * len(tasks), "must be an Observation, got None"),
    "reset: one too few": ("reset", lambda old, tasks: old(tasks)[1:], RESET + "0 for 1 tasks"),
    "reset: one too many": ("reset", lambda old, tasks: [*old(tasks), SEEN], RESET + "more for 1 tasks"),
    "reset: a generator that raises": ("reset", halfway, "RuntimeError: halfway"),
    "reset: a generator without an end": ("reset", endless, RESET + "more for 1 tasks"),
    "reset: by slot": (
        "reset",
        lambda old, tasks: dict(enumerate(old(tasks))),
        "an answer of reset must be an Observation, got ",
    ),
    "reset: a text": ("reset", lambda old, tasks: "x" * len(tasks), "must be an Observation, got 'x'"),
    "reset: raises": ("reset", raising(OSError("no disk")), "OSError: no disk"),
    "step: None": ("step", lambda old, actions: None, "step must return outcomes by slot, got None"),
    "step: a list": (
        "step",
        lambda old, actions: list(old(actions).values()),
        "step must return outcomes by slot, got",
    ),
    "step: a slot missing": ("step", lambda old, actions: {}, "must return an outcome for this slot, got None"),
    "step: a slot of nobody": ("step", lambda old, a: old(a) | {99: outcome()}, "slots it was given, got [99], too"),
    "step: a slot of text": (
        "step",
        lambda old, a: {str(s): o for s, o in old(a).items()},
        "slots it was given, got ['",
    ),
    "step: raises": ("step", raising(SystemExit(3)), "SystemExit: 3"),
    "open_pool: None": ("open_pool", lambda: None, "open_pool must return an EnvironmentPool, got None"),
    "open_pool: a list": ("open_pool", list, "open_pool must return an EnvironmentPool, got []"),
    "open_pool: raises": ("open_pool", raising(RuntimeError("no licence")), "RuntimeError: no licence"),
    "open_pool: exits": ("open_pool", raising(SystemExit("bye")), "SystemExit: bye"),
    "project: None": ("project", lambda text: None, "project must return a Projection, got None"),
    "project: a text": ("project", lambda text: text, "project must return a Projection, got '"),
    "project: a number inside": (
        "project",
        lambda text: Projection(3, True),
        "the action of a projection must be a text",
    ),  # type: ignore[arg-type]
    "project: no flag": (
        "project",
        lambda text: Projection(text, "yes"),
        "valid of a projection must be True or False",
    ),  # type: ignore[arg-type]
    "project: half a character": ("project", lambda text: Projection("\ud800", True), "must be Unicode text"),
    "project: raises": ("project", raising(SystemExit(1)), "SystemExit: 1"),
    **{
        f"{method}: {name}": (method, lambda *_, answer=answer: answer, f"a prompt must be {error}")
        for method in ("opening", "reply", "window_prompt")
        for name, answer, error in (
            ("None", None, "a text, got None"),
            ("a number", 5, "a text, got 5"),
            ("bytes", b"x", "a text, got b'x'"),
            ("half a character", "a\ud8ff", "Unicode text"),
        )
    },
}


def of_every_episode(name: str) -> tuple[list[Episode], str]:
    method, change, error = POOLS[name]
    context = "window" if method == "window_prompt" else "append"
    return collect(Odd(changes={method: change}), concurrent=5, context=context), error


@pytest.mark.parametrize("name", POOLS)
def test_a_method_that_misbehaves_costs_episodes_and_no_run(name: str) -> None:
    episodes, error = of_every_episode(name)
    assert len(episodes) == 12
    for episode in episodes:
        assert episode.end is EndReason.ERROR_ENVIRONMENT
        assert error in str(episode.error)


def test_there_are_at_least_66_of_them() -> None:
    assert len(OUTCOMES) + len(RAISED) + len(STARTS) + len(POOLS) >= 66


def test_what_is_not_quite_plain_is_taken_as_what_it_is() -> None:
    """Subclasses of texts, and numpy's numbers and flags."""
    won = StepOutcome(
        Observation(Text("seen"), (Text("act"),), Text("a")),
        np.float32(2.5),  # type: ignore[arg-type]
        np.bool_(True),  # type: ignore[arg-type]
        np.bool_(True),  # type: ignore[arg-type]
        {Text("em"): np.float64(0.5)},
    )
    found = next(e for e in collect(CountingEnvironment(faults={VICTIM: (1, lambda: won)})) if e.task.task_id == VICTIM)
    assert (found.end, found.success, found.episode_return, found.scores) == (EndReason.SUCCESS, True, 2.5, {"em": 0.5})
    view = found.last_observation
    assert view == Observation("seen", ("act",), "a")
    assert [type(view.text), type(view.anchor), type(found.episode_return)] == [str, str, float]


def test_objects_whose_attributes_change_are_read_once() -> None:
    view = WaveringObservation("seen", Endless(("act",)), "a")
    won = WaveringOutcome(view, 2.5, True, True, MappingProxyType({"em": 0.5}))
    found = next(e for e in collect(CountingEnvironment(faults={VICTIM: (1, lambda: won)})) if e.task.task_id == VICTIM)
    assert (found.end, found.episode_return, found.scores) == (EndReason.SUCCESS, 2.5, {"em": 0.5})
    assert found.last_observation == Observation("seen", ("act",), "a")


def emptied(old: Any, given: Any) -> Any:
    answer = old(given)
    given.clear()
    return answer


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("method", ["reset", "step"])
def test_what_a_pool_was_given_is_its_own(method: str, batched: bool) -> None:
    """It may take the list of tasks, or the actions, apart."""
    assert collect(Odd(changes={method: emptied}, batched=batched)) == SOUND


def test_closing_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    environment = Odd(changes={"close": lambda old: raising(SystemExit("\x1b[1mno"))()})
    assert collect(environment) == SOUND
    assert r"close of the environment's pool: SystemExit: \x1b[1mno" in caplog.text


# Deadlines ---------------------------------------------------------------------------------------------------------

LATE_S = 60.0


@pytest.fixture
def deadlines() -> Iterator[Deadlines]:
    """Pass as soon as something hangs."""
    with passing_deadlines() as made:
        yield made


@pytest.mark.parametrize("batched", [False, True])
def test_a_step_that_never_returns_costs_its_wave_and_the_next_one_gets_a_new_pool(
    deadlines: Deadlines, batched: bool
) -> None:
    environment = CountingEnvironment(faults={VICTIM: (2, deadlines.hang)}, batched=batched)
    episodes = collect(environment, concurrent=4, environment_timeout_s=LATE_S)
    assert episodes[:4] + episodes[8:] == SOUND[:4] + SOUND[8:]
    lost = [episode for episode in episodes[4:8] if episode.end is EndReason.ERROR_ENVIRONMENT]
    assert VICTIM in {episode.task.task_id for episode in lost}
    assert {episode.error for episode in lost} == {"step did not answer within 60 s"}
    assert len(environment.pools) == 2
    deadlines.release()  # the thread that comes back disturbs nobody
    assert collect(CountingEnvironment(), environment_timeout_s=LATE_S) == SOUND


@pytest.mark.parametrize("method", ["reset", "open_pool"])
def test_an_environment_that_never_starts_is_given_up_after_two_waves(deadlines: Deadlines, method: str) -> None:
    episodes = collect(Odd(changes={method: deadlines.hang}), concurrent=1, environment_timeout_s=LATE_S)
    assert {episode.error for episode in episodes} == {f"{method} did not answer within 60 s"}
    assert deadlines.hung == MOST_LATE == 2  # and not a deadline for each of twelve waves


@pytest.mark.parametrize("method", ["opening", "reply", "project", "window_prompt"])
def test_a_text_that_never_comes_costs_its_wave(deadlines: Deadlines, method: str) -> None:
    context = "window" if method == "window_prompt" else "append"
    environment = Odd(changes={method: deadlines.hang})
    episodes = collect(environment, concurrent=3, context=context, environment_timeout_s=LATE_S)
    assert {episode.error for episode in episodes} == {f"{method} did not answer within 60 s"}
    assert deadlines.hung == len(environment.pools) == MOST_LATE


def test_plans_that_never_come_are_given_up_after_two(deadlines: Deadlines) -> None:
    class Slow(CountingEnvironment):
        def expert(self, task: Task) -> list[str] | None:
            return super().expert(task) if task.task_id == "train-0" else deadlines.hang()

    environment = Slow()
    first, *others = play_expert(environment, environment.tasks("train"), timeout_s=LATE_S) or []
    assert first.success
    assert {episode.error for episode in others} == {"a plan did not answer within 60 s"}
    assert deadlines.hung == 2


def test_one_text_that_never_comes_leaves_those_before_it(deadlines: Deadlines) -> None:
    """Slots that were answered in time are not blamed, but their pool is gone with the thread it ran in."""

    class Slow(CountingEnvironment):
        def opening(self, task: Task, observation: Observation) -> str:
            if task.task_id == VICTIM:
                deadlines.hang()
            return super().opening(task, observation)

    episodes = collect(Slow(), concurrent=4, environment_timeout_s=LATE_S)
    assert episodes[:4] + episodes[8:] == SOUND[:4] + SOUND[8:]
    assert {episode.error for episode in episodes[4:8]} == {"opening did not answer within 60 s"}
    assert [episode.opening for episode in episodes[4:7]] == ["task 4: turn 0", "task 5: turn 0", ""]


def test_many_slots_have_the_time_of_a_step_each(deadlines: Deadlines) -> None:
    """A pool that is not batched gives a sign of life with every slot."""

    def slowly(old: Any, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        deadlines.skip(LATE_S / 2)
        return dict(old(actions))

    assert collect(Odd(changes={"step": slowly}, num_tasks=6), environment_timeout_s=LATE_S) == SOUND[:6]


@pytest.mark.parametrize(("stop", "timeout_s"), [(KeyboardInterrupt, None), (UserError, None), (UserError, 60.0)])
def test_interrupts_and_mistakes_of_the_user_pass(stop: type[BaseException], timeout_s: float | None) -> None:
    environment = CountingEnvironment(faults={VICTIM: (1, raising(stop("enough")))})
    with pytest.raises(stop, match="enough"):
        collect(environment, environment_timeout_s=timeout_s)
    assert environment.pools[0].closed


def test_an_interrupt_that_an_environment_raises_in_its_own_thread_is_its_error() -> None:
    """Signals reach the main thread: nobody pressed Ctrl-C."""
    environment = CountingEnvironment(faults={VICTIM: (1, raising(KeyboardInterrupt("enough")))})
    assert_only_the_victim_fails(collect(environment), "KeyboardInterrupt: enough")


def test_a_working_directory_that_an_environment_changes_is_set_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def stray(old: Any, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        os.chdir(tmp_path)
        return dict(old(actions))

    before = Path.cwd()
    assert collect(Odd(changes={"step": stray})) == SOUND
    assert Path.cwd() == before
    assert caplog.text.count("the environment changed the working directory to") == 1
    with pytest.raises(UserError, match="it must leave the working directory alone, and changed it to"):
        check_ready(Odd(changes={"step": stray}))
    with pytest.raises(EnvironmentCheckError, match="it must leave the working directory alone"):
        check_env(Odd(changes={"step": stray}), tasks_per_split=1)
    assert Path.cwd() == before


def test_a_pool_that_goes_elsewhere_when_it_closes_is_noticed(tmp_path: Path) -> None:
    def leave(old: Any) -> None:
        os.chdir(tmp_path)

    before = Path.cwd()
    assert collect(Odd(changes={"close": leave})) == SOUND
    assert Path.cwd() == before
    with pytest.raises(UserError, match="it must leave the working directory alone"):
        check_ready(Odd(changes={"close": leave}))


def test_without_a_deadline_everything_runs_in_the_callers_thread() -> None:
    threads: set[int] = set()

    def step(old: Any, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        threads.add(threading.get_ident())
        return dict(old(actions))

    assert collect(Odd(changes={"step": step}), environment_timeout_s=None) == SOUND
    assert threads == {threading.get_ident()}


# Long texts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", ["append", "window"])
def test_a_text_that_cannot_fit_is_not_tokenized(context: str, monkeypatch: pytest.MonkeyPatch) -> None:
    huge = StepOutcome(Observation("x" * 1_000_000, None, "a"), 0.0, False, False)
    environment = CountingEnvironment(faults={VICTIM: (1, lambda: huge)})
    collector = fake_collector(environment, context=context, context_tokens=1000)
    longest = 0
    for name in ("opening", "between"):

        def counted(encode: Callable[[str], Any], text: str) -> Any:
            nonlocal longest
            longest = max(longest, len(text))
            return encode(text)

        monkeypatch.setattr(collector.policy.chat, name, partial(counted, getattr(collector.policy.chat, name)))
    episodes = collector.collect(requests(environment, 1), seed=0, key=("train", 0)).episodes
    assert {e.task.task_id: e.end for e in episodes}[VICTIM] is EndReason.CONTEXT_FULL
    assert longest < 1000


# Before a run ------------------------------------------------------------------------------------------------------

AT_THE_START = [name for name in POOLS if not name.startswith("window_prompt") and name != "reply: half a character"]


@pytest.mark.parametrize("name", AT_THE_START)
def test_an_environment_that_cannot_be_played_is_refused_in_one_sentence(name: str) -> None:
    method, change, error = POOLS[name]
    with pytest.raises(UserError, match=r"^environment 'counting' cannot be played: ") as refused:
        check_ready(Odd(changes={method: change}))
    told = str(refused.value)
    assert error.split(" for ")[0].removesuffix("more") in told
    assert told.endswith("sdar check says all that is wrong")
    assert "\n" not in told


TASKS: dict[str, tuple[Callable[[list[Task]], Any], str]] = {
    "no tasks": (lambda tasks: [], "split 'train' has no tasks"),
    "one id twice": (lambda tasks: [*tasks, tasks[0]], "task ids must differ, got 'train-0' more than once"),
    "no task": (lambda tasks: ["task"], "a task of split 'train' must be a Task, got 'task'"),
    "half a character": (
        lambda tasks: [Task("a", "b", "\ud800", "train", "c")],
        "description of task 'a' must be Unicode text, got '\\ud800'",
    ),
    "no id": (lambda tasks: [Task(3, "b", "c", "train", "d")], "task_id of task 3 must be a non-empty string"),  # type: ignore[arg-type]
    "nothing": (lambda tasks: None, "TypeError: 'NoneType' object is not iterable"),
    "an exit": (raising(SystemExit(1)), "SystemExit: 1"),
}


@pytest.mark.parametrize("name", TASKS)
def test_tasks_that_cannot_be_told_apart_or_read_are_refused(name: str) -> None:
    change, error = TASKS[name]

    class Listed(CountingEnvironment):
        def tasks(self, split: str) -> Any:
            return change(super().tasks(split)) if split == "train" else super().tasks(split)

    with pytest.raises(UserError, match=r"^environment") as refused:
        check_ready(Listed())
    assert error in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"max_turns": 0}, "max_turns must be an integer >= 1, got 0"),
        ({"max_turns": "4"}, "max_turns must be an integer >= 1, got '4'"),
        ({"name": "\x1b[1m"}, "name must be a non-empty string"),
        ({"solved_return": 0}, "solved_return must be a number > 0, got 0"),
    ],
)
def test_a_description_is_checked(settings: dict[str, Any], error: str) -> None:
    environment = CountingEnvironment()
    for name, value in settings.items():
        setattr(environment, name, value)
    with pytest.raises(UserError) as refused:
        check_ready(environment)
    assert error in str(refused.value)
    assert printable(str(refused.value)) == str(refused.value)


def test_a_sound_environment_is_ready_and_one_that_hangs_is_not(deadlines: Deadlines) -> None:
    check_ready(CountingEnvironment())
    with pytest.raises(UserError, match=r"reset did not answer within 60 s \(task 'train-0'\)"):
        check_ready(Odd(changes={"reset": deadlines.hang}), LATE_S)


METHODS = ("check_ready", "splits", "training_split", "tasks", "baselines")


def broken(method: str, fault: Any) -> CountingEnvironment:
    return type("Broken", (CountingEnvironment,), {method: lambda self, *_: fault()})()


@pytest.mark.parametrize("method", [*METHODS, "opening", "reply", "project"])
def test_an_environment_that_does_not_answer_is_not_waited_for(deadlines: Deadlines, method: str) -> None:
    with pytest.raises(UserError, match=rf"^environment .* cannot be played: {method} did not answer within 60 s"):
        check_ready(broken(method, deadlines.hang), LATE_S)


def test_a_deadline_passes_in_time() -> None:
    """By the real clock, on which the first answer is late."""
    over = threading.Event()
    try:
        with pytest.raises(UserError, match=r"check_ready did not answer within 0\.05 s"):
            check_ready(broken("check_ready", over.wait), 0.05)
    finally:
        over.set()


@pytest.mark.parametrize("error", [SystemExit(0), GeneratorExit(), OSError("\x1b[31mgone"), LeavingError()])
@pytest.mark.parametrize("method", METHODS)
def test_an_environment_that_raises_is_refused_in_one_sentence(method: str, error: BaseException) -> None:
    told = rf"^environment .* cannot be played: {method} raises {type(error).__name__}"
    with pytest.raises(UserError, match=told) as refused:
        check_ready(broken(method, raising(error)))
    assert printable(str(refused.value)) == str(refused.value)


@pytest.mark.parametrize("method", METHODS)
def test_what_an_environment_says_is_wrong_is_told_in_its_own_words(method: str) -> None:
    def refuse() -> None:
        raise UserError("environment.data_dir must be set")

    if method == "training_split":  # data for evaluation only
        check_ready(broken(method, refuse))
    else:
        with pytest.raises(UserError, match=r"^environment\.data_dir must be set$"):
            check_ready(broken(method, refuse))


GROWING = count(3)
ANSWERS: dict[str, tuple[str, Callable[[], Any], str]] = {
    "no splits": ("splits", tuple, "splits must return a tuple of different names, got ()"),
    "a text of splits": ("splits", lambda: "train", "splits must return a tuple of different names, got 'train'"),
    "a split twice": ("splits", lambda: ("train", "train"), "splits must return a tuple of different names"),
    "a split of escapes": ("splits", lambda: ("train", "\x1b"), "splits must return a tuple of different names"),
    "another split": ("training_split", lambda: "test", "training_split must return one of the splits, got 'test'"),
    "no training split": ("training_split", lambda: None, "training_split must return one of the splits, got None"),
    "tasks without a number": (
        "tasks",
        lambda: iter(CountingEnvironment().tasks("train")),
        "tasks raises TypeError: object of type 'list_iterator' has no len()",
    ),
    "other tasks every time": (
        "tasks",
        lambda: CountingEnvironment(num_tasks=next(GROWING)).tasks("train"),
        "tasks must list the same tasks of split 'train' in the same order every time",
    ),
    "a task that cannot be shown": (
        "tasks",
        lambda: [Task("a", "b", Unshowable(), "train", "c")],  # type: ignore[arg-type]
        "what it answers raises RuntimeError: I cannot be shown",
    ),
    "no players": ("baselines", lambda: None, "baselines must return functions by name, got None"),
    "players in a list": ("baselines", lambda: [len], "baselines must return functions by name, got [<built-in"),
    "no function": ("baselines", lambda: {"a": 3}, "baselines must return functions by name, got {'a': 3}"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_a_run_is_planned_with_is_checked(name: str) -> None:
    method, answer, error = ANSWERS[name]
    with pytest.raises(UserError) as refused:
        check_ready(broken(method, answer))
    assert error in str(refused.value)


def test_what_an_environment_needs_is_its_own_to_say() -> None:
    class Needy(CountingEnvironment):
        def check_ready(self) -> None:
            raise UserError("environment.key must be set")

    with pytest.raises(UserError, match=r"environment\.key must be set"):
        check_ready(Needy())
