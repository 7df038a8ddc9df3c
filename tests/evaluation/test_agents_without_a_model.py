from __future__ import annotations

from collections import Counter

import pytest

from sdar.episode import EndReason, StepOutcome
from sdar.evaluation.agents import play_expert, play_random
from toys.rollouts import CountingEnvironment


def crash() -> StepOutcome:
    raise RuntimeError("gone")


def test_the_random_agent_draws_admissible_actions_evenly() -> None:
    environment = CountingEnvironment(num_tasks=200, max_turns=5)
    episodes = play_random(environment, environment.tasks("valid"), 0)
    assert episodes is not None
    counts = Counter(turn.action for episode in episodes for turn in episode.turns)
    assert set(counts) == {"act", "wait"}
    assert abs(counts["act"] / counts.total() - 0.5) < 0.06


@pytest.mark.parametrize("concurrent", [1, 7, 64])
def test_random_actions_do_not_depend_on_waves(concurrent: int) -> None:
    environment = CountingEnvironment()
    tasks = environment.tasks("valid")
    whole = play_random(environment, tasks, 3)
    assert play_random(environment, tasks[::-1], 3, max_concurrent_episodes=concurrent) == (whole or [])[::-1]
    assert play_random(environment, tasks, 4) != whole
    assert all(pool.closed for pool in environment.pools)


def test_without_listed_actions_there_is_no_random_agent() -> None:
    environment = CountingEnvironment(listed=False)
    assert play_random(environment, environment.tasks("valid"), 0) is None


def test_the_expert_solves_what_its_plans_solve() -> None:
    environment = CountingEnvironment(max_turns=5)
    episodes = play_expert(environment, environment.tasks("valid"))
    assert episodes is not None
    assert all(episode.success and episode.end is EndReason.SUCCESS for episode in episodes)
    assert [len(episode.turns) for episode in episodes] == [n % 4 + 2 for n in range(12)]
    assert {episode.episode_return for episode in episodes} == {10.0}


def test_the_turn_limit_holds_for_the_expert() -> None:
    environment = CountingEnvironment(max_turns=4)
    episodes = play_expert(environment, environment.tasks("valid")[3:4])
    assert episodes is not None
    assert (episodes[0].end, len(episodes[0].turns)) == (EndReason.TURN_LIMIT, 4)


def test_a_plan_that_ends_too_early_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = {0: [], 1: ["act"], 2: None}
    monkeypatch.setattr(CountingEnvironment, "expert", lambda self, task: plans[task.payload])
    environment = CountingEnvironment(num_tasks=3)
    episodes = play_expert(environment, environment.tasks("valid"))
    assert episodes is not None
    assert [(episode.end, len(episode.turns)) for episode in episodes] == [
        (EndReason.FAILURE, 0),
        (EndReason.FAILURE, 1),
        (EndReason.FAILURE, 0),
    ]


def test_without_any_plan_there_is_no_expert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CountingEnvironment, "expert", lambda self, task: None)
    environment = CountingEnvironment()
    assert play_expert(environment, environment.tasks("valid")) is None


def test_errors_are_typed_and_stay_with_their_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = CountingEnvironment.expert

    def expert(self: CountingEnvironment, task: object) -> list[str] | None:
        if task.payload == 5:  # type: ignore[attr-defined]
            raise LookupError("no plan")
        return usual(self, task)  # type: ignore[arg-type]

    monkeypatch.setattr(CountingEnvironment, "expert", expert)
    environment = CountingEnvironment(max_turns=5, faults={"valid-0": (0, crash), "valid-1": (2, crash)})
    episodes = play_expert(environment, environment.tasks("valid"))
    assert episodes is not None
    failed = {e.task.task_id: e.error for e in episodes if e.end is EndReason.ERROR_ENVIRONMENT}
    assert failed == {
        "valid-0": "RuntimeError: gone",
        "valid-1": "RuntimeError: gone",
        "valid-5": "LookupError: no plan",
    }
    assert all(e.success for e in episodes if e.task.task_id not in failed)
