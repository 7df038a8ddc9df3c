"""A panel against an endpoint: the same messages as a rollout's, and errors of the endpoint are no failures."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from fake_endpoint import Reply, completion, endpoint_of, plain, refusal
from served import serving

from sdar.environments.alfworld.environment import AlfworldEnvironment
from sdar.environments.base import Environment
from sdar.episode import EndReason, Episode
from sdar.evaluation.endpoint import Endpoint, EndpointSettings
from sdar.evaluation.endpoint_panel import ChatPlayer
from sdar.evaluation.evaluate import evaluate
from sdar.evaluation.panel import make_panel
from sdar.evaluation.result import summarise
from sdar.policy.language_model import tiny_model
from sdar.rollout.collector import Collector
from sdar.rollout.settings import RolloutSettings, SamplingConfig
from sdar.serving.chat import ChatModel
from sdar.skills.library import SkillLibrary
from sdar.skills.retrieval import KeywordRetrieval
from sdar.teacher.base import join
from sdar.teacher.context import SkillTeacher
from toys.rollouts import CountingEnvironment
from toys.waiting import PATIENCE_S

GREEDY = SamplingConfig(temperature=0.0, max_response_tokens=48)


def test_the_trained_agent_plays_over_http_as_it_plays_here() -> None:
    """Greedy: the same responses in every turn of every task, and so the same result."""
    environment = AlfworldEnvironment(num_tasks=(12, 12, 12), max_turns=7)
    policy = tiny_model("alfworld")
    teacher = SkillTeacher(SkillLibrary.load("alfworld"), KeywordRetrieval())
    join(teacher, environment, policy)
    panel = make_panel(environment, None, 6, seed=0)
    solved = []
    with serving(ChatModel(policy, GREEDY)) as server:
        endpoint = Endpoint(EndpointSettings(endpoint=server.url, concurrency=3))
        model = endpoint.find_model()
        for context, privileged in (("append", None), ("append", teacher.evaluation_text), ("window", None)):
            rollout = RolloutSettings(context=context, sampling=GREEDY)
            here = evaluate(Collector(policy, environment, rollout), panel, seed=0, privileged=privileged)
            there = ChatPlayer(endpoint, model, rollout, privileged=privileged).play(environment, panel.tasks)
            assert said(there) == said(here.episodes)
            assert summarise("val", there, panel.content_hash) == here
            solved.append(here.successes)
    assert 0 < solved[0] < 6


def said(episodes: Any) -> list[list[tuple[str, str, bool, bool]]]:
    return [[(turn.response_text, turn.action, turn.valid, turn.truncated) for turn in e.turns] for e in episodes]


def play(endpoint: Endpoint, environment: Environment | None = None, **settings: Any) -> list[Episode]:
    environment = environment or CountingEnvironment(num_tasks=6)
    player_settings = {name: settings.pop(name) for name in ("privileged", "system", "seed") if name in settings}
    rollout = RolloutSettings(sampling=SamplingConfig(max_response_tokens=4), **settings)
    return ChatPlayer(endpoint, "toy", rollout, **player_settings).play(environment, environment.tasks("valid"))


def test_a_growing_conversation_is_sent_with_its_roles() -> None:
    with endpoint_of([completion("act")]) as fake:
        episodes = play(fake.client(concurrency=1), CountingEnvironment(num_tasks=1))
    assert [episode.end for episode in episodes] == [EndReason.SUCCESS]
    first = {"role": "user", "content": "task 0: turn 0"}
    said = {"role": "assistant", "content": "act"}
    assert [body["messages"] for body in fake.asked] == [[first], [first, said, {"role": "user", "content": "turn 1"}]]
    assert episodes[0].opening == "task 0: turn 0"
    assert len({body["seed"] for body in fake.asked}) == 2
    with endpoint_of([completion("act")]) as again:
        play(again.client(concurrency=1), CountingEnvironment(num_tasks=1))
        play(again.client(concurrency=1), CountingEnvironment(num_tasks=1), seed=1)
    seeds = [body["seed"] for body in again.asked]
    assert seeds[:2] == [body["seed"] for body in fake.asked]
    assert not set(seeds[:2]) & set(seeds[2:])


@pytest.mark.parametrize("system", [False, True])
def test_skills_begin_the_users_message_or_are_the_systems(system: bool) -> None:
    with endpoint_of([completion("act")]) as fake:
        play(
            fake.client(concurrency=1),
            CountingEnvironment(num_tasks=1),
            privileged=lambda task: f"skills of {task.task_id}\n\n",
            system=system,
        )
    block = "skills of valid-0\n\n"
    opening = [{"role": "user", "content": ("" if system else block) + "task 0: turn 0"}]
    before = [{"role": "system", "content": block}] if system else []
    assert fake.asked[0]["messages"] == before + opening
    assert fake.asked[1]["messages"][: len(before) + 1] == before + opening


def test_with_window_every_request_is_one_message() -> None:
    with endpoint_of([completion("act")]) as fake:
        play(fake.client(concurrency=1), CountingEnvironment(num_tasks=4), context="window", history_turns=1)
    assert all(len(body["messages"]) == 1 for body in fake.asked)
    last = fake.asked[-1]["messages"][0]["content"]
    assert "Steps taken: 3" in last
    assert last.count("> act") == 1


def test_no_more_requests_than_allowed_are_under_way() -> None:
    lock, now, most, together = threading.Lock(), [0], [0], threading.Event()

    def slow(_: dict[str, Any], number: int) -> Reply:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            if now[0] == 3:
                together.set()
        together.wait(PATIENCE_S)  # all that are allowed meet, however long it takes
        time.sleep(0.05)
        with lock:
            now[0] -= 1
        return completion("act")

    with endpoint_of(slow) as fake:
        play(fake.client(concurrency=3), CountingEnvironment(num_tasks=12))
    assert most[0] == 3


def outcomes(episodes: list[Episode]) -> list[EndReason]:
    return [episode.end for episode in episodes]


@pytest.mark.parametrize(
    "bad", [refusal(429, "slow down"), refusal(500, "oops"), (200, {}, b"no json"), plain({"choices": []})]
)
def test_what_passes_leaves_no_trace(bad: Reply) -> None:
    with endpoint_of([completion("act")]) as fine:
        expected = play(fine.client())
    with endpoint_of(lambda _, number: bad if number % 2 else completion("act")) as fake:
        client = fake.client(concurrency=1)
        episodes = play(client)
    assert said(episodes) == said(expected)
    assert outcomes(episodes) == outcomes(expected)
    assert client.retries > 0


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (refusal(500, "oops"), "server: status 500: oops"),
        (refusal(429, "slow down"), "rate_limit: status 429"),
        ((200, {}, b"no json"), "invalid_reply: the reply is no JSON"),
        (plain({"choices": []}), "invalid_reply: the reply has no choice"),
        (refusal(400, "I do not like it"), "refused: status 400"),
        (None, "timeout: no whole reply within 0.5 s"),
    ],
    ids=["500", "429", "text", "no choice", "400", "hangs"],
)
def test_an_episode_whose_request_fails_ends_by_an_error_and_the_others_play_on(bad: Reply, kind: str) -> None:
    """And the result excludes it: an error of the endpoint is no failure of the agent."""

    def answer(body: dict[str, Any], _: int) -> Reply:
        return bad if body["messages"][0]["content"].startswith("task 1:") else completion("act")

    with endpoint_of(answer) as fake:
        # Where the limit is short, what is sound may be late as well; it has some more attempts than that.
        client = fake.client(**({"attempts": 6, "timeout_s": 0.5} if bad is None else {"attempts": 2}))
        episodes = play(client)
    result = summarise("x", episodes)
    assert (result.n, result.errors, result.successes) == (5, 1, 4)
    failed = episodes[1]
    assert failed.end is EndReason.ERROR_TOOL
    assert failed.error is not None
    assert failed.error.startswith(f"endpoint: {kind}")
    assert (failed.success, failed.turns) == (False, [])
    assert sum(client.failures.values()) == 1


def test_an_error_in_a_later_turn_keeps_what_was_played() -> None:
    with endpoint_of(lambda body, _: refusal(500, "oops") if len(body["messages"]) == 3 else completion("act")) as fake:
        (episode,) = play(fake.client(attempts=1), CountingEnvironment(num_tasks=1))
    assert (episode.end, len(episode.turns)) == (EndReason.ERROR_TOOL, 1)


def test_a_conversation_that_is_too_long_ends_as_in_a_rollout() -> None:
    def answer(body: dict[str, Any], _: int) -> Reply:
        return refusal(400, "x", "context_length_exceeded") if len(body["messages"]) > 3 else completion("act")

    with endpoint_of(answer) as fake:
        result = summarise("x", play(fake.client()))
    assert result.errors == 0
    assert result.ends == {EndReason.SUCCESS: 2, EndReason.CONTEXT_FULL: 4}


def test_a_window_that_is_too_long_shows_fewer_turns() -> None:
    def answer(body: dict[str, Any], _: int) -> Reply:
        text = body["messages"][0]["content"]
        return refusal(400, "x", "context_length_exceeded") if text.count("> act") > 1 else completion("act")

    with endpoint_of(answer) as fake:
        episodes = play(fake.client(), CountingEnvironment(num_tasks=3), context="window", history_turns=2)
    assert outcomes(episodes) == [EndReason.SUCCESS] * 3
    assert [turn.dropped_turns for turn in episodes[2].turns] == [0, 0, 1, 1]


def test_an_error_of_the_environment_stays_its_own() -> None:
    def broken() -> Any:
        raise RuntimeError("this task is broken")

    environment = CountingEnvironment(num_tasks=3, faults={"valid-1": (1, broken), "valid-2": (0, broken)})
    with endpoint_of([completion("act")]) as fake:
        episodes = play(fake.client(), environment)
    assert outcomes(episodes) == [EndReason.SUCCESS, EndReason.ERROR_ENVIRONMENT, EndReason.ERROR_ENVIRONMENT]
    with endpoint_of([completion("act")]) as fake:
        episodes = play(fake.client(), CountingEnvironment(num_tasks=1, project_fails_on="act"))
    assert outcomes(episodes) == [EndReason.ERROR_ENVIRONMENT]
