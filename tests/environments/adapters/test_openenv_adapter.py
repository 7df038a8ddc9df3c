"""Environments behind a server of OpenEnv: sessions side by side, and every failure of the server by its name."""

from __future__ import annotations

import asyncio
import pickle
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sdar.environments import check_env
from sdar.environments.adapters.openenv import OpenEnvEnvironment, OpenEnvPool
from sdar.episode import EndReason, Observation, StepOutcome
from sdar.errors import UserError
from toys.training import toy_datamodule, toy_module, toy_policy, train
from toys.waiting import PATIENCE_S, until


class FakeClient:
    """A session of a game: the letter number ``seed % 3`` has to be said. Words name what goes wrong."""

    alive = 0
    away = False

    def __init__(self, base_url: str, connect_timeout_s: float, message_timeout_s: float) -> None:
        self.seed: int | None = None

    async def reset(self, seed: int) -> Any:
        await asyncio.sleep(0)
        if FakeClient.away:
            raise ConnectionError("Failed to connect to ws://nowhere")
        FakeClient.alive += 1
        self.seed, self.letter = seed, "abc"[seed % 3]
        return SimpleNamespace(observation={"text": f"Round {seed}.", "metadata": {}}, reward=None, done=False)

    async def step(self, action: dict[str, Any]) -> Any:
        await asyncio.sleep(0)
        word = action.get("message", "")
        if word == "away":
            raise ConnectionResetError("connection closed")
        if word == "slow":
            raise TimeoutError
        if word == "garbage":
            raise ValueError("no JSON")
        if word == "crash":
            raise RuntimeError("Server error: division by zero (code: EXECUTION_ERROR)")
        if "message" not in action:
            raise RuntimeError("Server error: message is missing (code: VALIDATION_ERROR)")
        won = word == self.letter
        return SimpleNamespace(
            observation={"text": "yes" if won else "no"}, reward=float(won), done=won or word == "end"
        )

    async def close(self) -> None:
        FakeClient.alive -= self.seed is not None
        self.seed = None


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module ``openenv.core`` whose client needs no server."""
    core = ModuleType("openenv.core")
    vars(core).update(GenericEnvClient=FakeClient)
    monkeypatch.setitem(sys.modules, "openenv", ModuleType("openenv"))
    monkeypatch.setitem(sys.modules, "openenv.core", core)
    monkeypatch.setattr(FakeClient, "away", False)
    monkeypatch.setattr(FakeClient, "alive", 0)
    return FakeClient


def saying(url: str = "http://nowhere", **settings: Any) -> OpenEnvEnvironment:
    return OpenEnvEnvironment(url, **({"num_tasks": [6, 6], "max_turns": 4, "observation_field": "text"} | settings))


def played(environment: OpenEnvEnvironment, *actions: str, task: int = 0) -> list[Any]:
    pool = environment.open_pool()
    walk: list[Any] = pool.reset([environment.tasks("train")[task]])
    walk += [pool.step({0: action})[0] for action in actions]
    pool.close()
    return walk


@pytest.mark.parametrize(
    "settings", [{}, {"action_format": "whole"}, {"action_field": None}, {"observation_field": None}], ids=str
)
def test_it_keeps_to_the_protocol_and_ends_its_sessions(fake: Any, settings: dict[str, Any]) -> None:
    assert check_env(saying(**settings)).tasks == 8
    assert fake.alive == 0


def test_what_the_server_answers_is_the_outcome(fake: Any) -> None:
    start, wrong, right = played(saying(reward_scale=10), "b", "a")
    assert start == Observation("Round 0.", None, "Round 0.")
    assert (wrong.observation.text, wrong.reward, wrong.done) == ("no", 0.0, False)
    assert (right.reward, right.end) == (10.0, EndReason.SUCCESS)
    assert played(saying(), "end")[-1].end is EndReason.FAILURE
    whole, *_ = played(saying(observation_field=None))
    assert whole.text == '{"text": "Round 0."}'


@pytest.mark.parametrize(
    ("word", "end", "told"),
    [
        ("away", EndReason.ERROR_TOOL, "ConnectionResetError: connection closed"),
        ("slow", EndReason.ERROR_TOOL, "http://nowhere did not answer within 60 s"),
        ("garbage", EndReason.ERROR_TOOL, "ValueError: no JSON"),
        ("crash", EndReason.ERROR_ENVIRONMENT, "division by zero"),
    ],
)
def test_a_failure_ends_its_own_episode_by_its_name(fake: Any, word: str, end: EndReason, told: str) -> None:
    environment = saying()
    pool = environment.open_pool()
    pool.reset(environment.tasks("train")[:2])
    outcomes = pool.step({0: word, 1: "b"})
    assert (outcomes[0].end, outcomes[0].reward, outcomes[0].done) == (end, 0.0, True)
    assert told in str(outcomes[0].error)
    assert outcomes[1].success
    pool.close()
    assert fake.alive == 0


ANSWER = {"observation": {"text": "no"}, "reward": 0.0, "done": False}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"reward": float("nan")}, "reward"),
        ({"reward": "much"}, "much"),
        ({"reward": [1.0]}, "list"),
        ({"observation": {"text": "\ud800"}}, "text"),
        ({"observation": {"text": 3}}, "'text' must be text, got int"),
        ({"observation": None}, "NoneType"),
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["reset", "step"])
def test_a_wrong_answer_is_the_environments_error(
    fake: Any, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], told: str, method: str
) -> None:
    async def wrong(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(**ANSWER | answer)

    monkeypatch.setattr(FakeClient, method, wrong)
    outcome = played(saying(), *(["b"] if method == "step" else []))[-1]
    if method == "reset" and "reward" in answer:
        assert isinstance(outcome, Observation)  # the reward of a reset means nothing
        return
    assert (outcome.end, outcome.reward, outcome.done) == (EndReason.ERROR_ENVIRONMENT, 0.0, True)
    assert told in str(outcome.error)


@pytest.mark.parametrize("error", [ValueError("no JSON"), KeyError("type"), OSError("no route")], ids=repr)
@pytest.mark.parametrize("method", ["__init__", "reset", "step"])
def test_what_the_client_cannot_read_is_the_connections_error(
    fake: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, method: str
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(FakeClient, method, failing)
    assert played(saying(), *(["b"] if method == "step" else []))[-1].end is EndReason.ERROR_TOOL


def test_a_server_that_is_away_is_told_before_a_run_and_ends_episodes_in_it(fake: Any) -> None:
    saying().check_ready()
    fake.away = True
    (start,) = played(saying())
    assert isinstance(start, StepOutcome)
    assert start.end is EndReason.ERROR_TOOL
    with pytest.raises(UserError, match="environment=openenv cannot be played: ConnectionError: Failed to connect"):
        saying().check_ready()


def test_sessions_of_a_reset_are_started_side_by_side(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits until all others have begun; one that fails ends its own episode."""
    begun: list[int] = []
    plain = FakeClient.reset

    async def together(self: Any, seed: int) -> Any:
        begun.append(seed)
        while len(begun) < 4:
            await asyncio.sleep(0.001)
        if seed == 2:
            raise ConnectionError("gone")
        return await plain(self, seed)

    monkeypatch.setattr(FakeClient, "reset", together)
    environment = saying()
    pool = environment.open_pool()
    starts = pool.reset(environment.tasks("train")[:4])
    pool.close()
    assert [isinstance(start, StepOutcome) for start in starts] == [False, False, True, False]
    assert starts[3].text == "Round 3."


@pytest.mark.parametrize("stop", [KeyboardInterrupt, UserError])
def test_a_reset_that_is_stopped_leaves_no_session_open(
    fake: Any, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    """All four are connected when the second one's start is stopped."""
    plain = OpenEnvPool.first

    def stopping(pool: OpenEnvPool, state: Any, task: Any) -> Any:
        if task.payload == 1:
            raise stop("stopped")
        return plain(pool, state, task)

    monkeypatch.setattr(OpenEnvPool, "first", stopping)
    environment = saying()
    pool = environment.open_pool()
    with pytest.raises(stop):
        pool.reset(environment.tasks("train")[:4])
    assert fake.alive == 4
    pool.close()
    assert fake.alive == 0


def test_an_action_that_is_none_is_refused(fake: Any) -> None:
    environment = saying(action_field=None)
    _, text, empty, right = played(environment, "a", "{}", '{"message": "a"}')
    assert (text.observation.text, text.observation.refused) == ("An action must be a JSON object.", True)
    assert "VALIDATION_ERROR" in empty.observation.text
    assert empty.observation.anchor == "Round 0."
    assert right.success


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_an_action_without_a_form_in_json_is_none(fake: Any, number: str) -> None:
    _, refused = played(saying(action_field=None), f'{{"message": "a", "at": {number}}}')
    assert (refused.observation.text, refused.observation.refused) == ("An action must be a JSON object.", True)


def test_a_field_that_is_no_text_is_named(fake: Any) -> None:
    with pytest.raises(UserError, match="observation 'board' must be text, got NoneType"):
        saying(observation_field="board").check_ready()


def test_tasks_are_seeds_and_survive_another_process(fake: Any) -> None:
    environment = saying()
    seeds = [{task.payload for task in environment.tasks(split)} for split in ("train", "valid")]
    assert seeds[0].isdisjoint(seeds[1])
    assert pickle.loads(pickle.dumps(environment)).tasks("train") == environment.tasks("train")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openenv.core", None)
    with pytest.raises(UserError, match=r"pip install 'sdar\[openenv\]'"):
        saying().check_ready()


@pytest.mark.e2e
def test_two_iterations_train_on_it(fake: Any) -> None:
    policy = toy_policy()
    environment = saying(action_format="whole", prompt_style="terse", instructions="go", max_turns=2)
    module = toy_module(policy, distillation_coefficient=0.0, episodes_per_step=None)
    curve = train(module, toy_datamodule(policy, environment=environment, tasks=3), 2).curve()
    assert len(curve) == 2
    assert all(figures["rollout/end/error_environment"] == 0 for figures in curve.values())


class Served:
    """A server of the real package, in a thread."""

    def __init__(self, app: Any) -> None:
        uvicorn = pytest.importorskip("uvicorn")
        listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        self.thread = threading.Thread(target=self.server.run, args=([listening],), daemon=True)
        self.thread.start()
        until(lambda: self.server.started)

    def stop(self) -> None:
        self.server.should_exit = self.server.force_exit = True
        self.thread.join(PATIENCE_S)


@pytest.fixture
def serve() -> Iterator[Any]:
    """Starts a server with the same game, for so many sessions at a time."""
    pytest.importorskip("openenv.core")
    from openenv.core.env_server.http_server import create_fastapi_app
    from openenv.core.env_server.interfaces import Environment
    from openenv.core.env_server.types import Action, State
    from openenv.core.env_server.types import Observation as Seen

    class Say(Action):
        message: str

    class Text(Seen):
        text: str

    class Letters(Environment):  # type: ignore[misc]
        SUPPORTS_CONCURRENT_SESSIONS = True

        def reset(self, seed: int = 0, **more: Any) -> Text:
            self.letter = "abc"[seed % 3]
            return Text(text=f"Round {seed}.")

        def step(self, action: Say, **more: Any) -> Text:
            if action.message == "crash":
                raise ZeroDivisionError("by zero")
            if action.message == "slow":
                time.sleep(6)
            won = action.message == self.letter
            return Text(text="yes" if won else "no", reward=float(won), done=won)

        @property
        def state(self) -> State:
            return State()

    started: list[Served] = []

    def start(sessions: int = 32) -> Served:
        started.append(Served(create_fastapi_app(Letters, Say, Text, max_concurrent_envs=sessions)))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.mark.e2e
def test_a_real_server_is_played_and_its_failures_have_names(serve: Any) -> None:
    served = serve()
    environment = saying(served.url)
    environment.check_ready()
    assert check_env(saying(served.url)).tasks == 8
    assert check_env(saying(served.url, action_field=None), tasks_per_split=1).tasks == 2
    assert played(environment, "b", "a")[-1].success
    assert played(environment, "crash")[-1].end is EndReason.ERROR_ENVIRONMENT
    slow = played(saying(served.url, timeout_s=2.0), "slow")[-1]
    assert (slow.end, "did not answer within 2 s" in str(slow.error)) == (EndReason.ERROR_TOOL, True)
    pool = environment.open_pool()
    pool.reset(environment.tasks("train")[:1])
    served.stop()
    assert pool.step({0: "a"})[0].end is EndReason.ERROR_TOOL
    pool.close()
    with pytest.raises(UserError, match="environment=openenv cannot be played: ConnectionError"):
        environment.check_ready()


@pytest.mark.e2e
def test_a_full_server_is_a_failure_of_the_server(serve: Any) -> None:
    environment = saying(serve(sessions=1).url)
    pool = environment.open_pool()
    first, second = pool.reset(environment.tasks("train")[:2])
    assert isinstance(first, Observation)
    assert isinstance(second, StepOutcome)
    assert second.end is EndReason.ERROR_TOOL  # its text depends on whether the refusal or the closing comes first
    assert pool.step({0: "a"})[0].success
    pool.close()


@pytest.mark.e2e
def test_two_iterations_train_on_a_real_server(serve: Any) -> None:
    policy = toy_policy()
    environment = saying(serve().url, action_format="whole", prompt_style="terse", instructions="go", max_turns=2)
    module = toy_module(policy, distillation_coefficient=0.0, episodes_per_step=None)
    curve = train(module, toy_datamodule(policy, environment=environment, tasks=3), 2).curve()
    assert all(figures["rollout/end/error_tool"] == 0 for figures in curve.values())
