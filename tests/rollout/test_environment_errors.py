"""An error of an environment becomes a typed end reason of its own episode; it never becomes a reward."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace

import pytest

from sdar.episode import EndReason, Episode, Observation, StepOutcome
from sdar.errors import UserError
from sdar.rollout.guard import NOTHING, error_outcome
from toys.rollouts import CountingEnvironment, FakeGenerator, fake_collector, requests


def collect(environment: CountingEnvironment, concurrent: int = 64) -> list[Episode]:
    collector = fake_collector(environment, max_concurrent_episodes=concurrent)
    return collector.collect(requests(environment, 1), seed=0, key=("train", 0)).episodes


def crash() -> StepOutcome:
    raise RuntimeError("the simulator is gone")


def tool_error() -> StepOutcome:
    return error_outcome("the search server is gone", EndReason.ERROR_TOOL)


def rewarded_error() -> StepOutcome:
    """An environment that reports an error but forgets to say that the episode is over."""
    return StepOutcome(NOTHING, reward=10.0, done=False, success=True, error="half a win")


def endless_reward() -> StepOutcome:
    return StepOutcome(NOTHING, reward=float("nan"), done=False, success=False)


FAULTS: list[tuple[Callable[[], StepOutcome], EndReason, str]] = [
    (crash, EndReason.ERROR_ENVIRONMENT, "RuntimeError: the simulator is gone"),
    (tool_error, EndReason.ERROR_TOOL, "the search server is gone"),
    (rewarded_error, EndReason.ERROR_ENVIRONMENT, "half a win"),
    (endless_reward, EndReason.ERROR_ENVIRONMENT, "the reward must be a number from -1e+12 to 1e+12, got nan"),
]


@pytest.mark.parametrize("concurrent", [64, 5])
@pytest.mark.parametrize("turn", [0, 1, 2])
@pytest.mark.parametrize(("fault", "end", "error"), FAULTS)
def test_an_error_ends_its_own_episode_only(
    fault: Callable[[], StepOutcome], end: EndReason, error: str, turn: int, concurrent: int
) -> None:
    sound = collect(CountingEnvironment(), concurrent)
    faulty = collect(CountingEnvironment(faults={"train-6": (turn, fault)}), concurrent)
    for before, after in zip(sound, faulty, strict=True):
        if after.task.task_id != "train-6":
            assert after == before
            continue
        assert (after.end, after.error, after.success, after.episode_return) == (end, error, False, 0.0)
        assert len(after.turns) == turn
        assert [t.response_ids for t in after.turns] == [t.response_ids for t in before.turns[:turn]]


def test_several_tasks_that_cannot_start_do_not_stop_the_others() -> None:
    faults = dict.fromkeys(("train-0", "train-5", "train-11"), (0, crash))
    sound = collect(CountingEnvironment())
    for before, after in zip(sound, collect(CountingEnvironment(faults=faults)), strict=True):
        assert (after.end is EndReason.ERROR_ENVIRONMENT) == (after.task.task_id in faults)
        assert after.task.task_id in faults or after == before


def test_when_no_task_can_start_every_episode_says_so(caplog: pytest.LogCaptureFixture) -> None:
    faults = {task.task_id: (0, crash) for task in CountingEnvironment().tasks("train")}
    episodes = collect(CountingEnvironment(faults=faults))
    assert {episode.end for episode in episodes} == {EndReason.ERROR_ENVIRONMENT}
    assert "12 of 12 episodes ended by an error; the first: task train-0" in caplog.text


def test_a_batched_pool_that_raises_ends_the_episodes_of_its_call() -> None:
    faults = {"train-6": (1, crash)}
    episodes = collect(CountingEnvironment(batched=True, faults=faults), concurrent=6)
    # Waves of six: the second is lost as a whole, the first is not touched.
    assert [episode.end for episode in episodes[:6]] == [episode.end for episode in collect(CountingEnvironment())[:6]]
    assert {episode.end for episode in episodes[6:]} == {EndReason.ERROR_ENVIRONMENT}


def test_a_projection_that_raises_is_an_error_of_that_episode() -> None:
    sound = collect(CountingEnvironment())
    victim = sound[4]
    text = victim.turns[1].response_text
    # The text is looked for as a substring, so it may strike elsewhere, too: those episodes are errors as well.
    for before, after in zip(sound, collect(CountingEnvironment(project_fails_on=text)), strict=True):
        struck = [number for number, turn in enumerate(before.turns) if text in turn.response_text]
        if not struck:
            assert after == before
            continue
        assert (after.end, after.error) == (EndReason.ERROR_ENVIRONMENT, "ValueError: cannot read this")
        assert len(after.turns) == struck[0] + 1
        assert replace(after.turns[-1], action="", valid=False, reward=0.0) == after.turns[-1]


@pytest.mark.parametrize("method", ["opening", "reply"])
def test_prompt_text_that_raises_is_an_error_of_that_episode(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: CountingEnvironment, *arguments: object) -> str:
        raise KeyError("no text")

    monkeypatch.setattr(CountingEnvironment, method, broken)
    for episode in collect(CountingEnvironment()):
        assert (episode.end, episode.error) == (EndReason.ERROR_ENVIRONMENT, "KeyError: 'no text'")
        assert len(episode.turns) == (method == "reply")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, UserError])
def test_pools_are_closed_on_every_way_out(stop: type[BaseException]) -> None:
    def interrupt() -> StepOutcome:
        if stop is KeyboardInterrupt:  # as Ctrl-C does: it reaches the main thread, which waits
            signal.raise_signal(signal.SIGINT)
            return StepOutcome(Observation("", None, ""), 0.0, False, False)
        raise stop("enough")

    environment = CountingEnvironment(faults={"train-3": (1, interrupt)})
    with pytest.raises(stop):
        collect(environment)
    collect(CountingEnvironment(num_tasks=3))
    assert [pool.closed for pool in environment.pools] == [True]


def test_pools_are_closed_after_a_collection() -> None:
    environment = CountingEnvironment()
    collect(environment, concurrent=2)
    assert [pool.closed for pool in environment.pools] == [True]


class OutOfMemory(FakeGenerator):
    def sample(self, uniforms: object) -> list[int]:
        raise MemoryError("the cache is too large")


def test_errors_of_the_model_are_raised() -> None:
    environment = CountingEnvironment()
    collector = fake_collector(environment, factory=lambda policy, sampling: OutOfMemory(sampling))
    with pytest.raises(MemoryError):
        collector.collect(requests(environment), seed=0, key=("train", 0))
    assert environment.pools[0].closed
