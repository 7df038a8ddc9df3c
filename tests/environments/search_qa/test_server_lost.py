"""A whole training run whose search server is killed and restarted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from sdar.environments.search_qa.environment import SearchQAEnvironment
from sdar.environments.search_qa.http_client import HttpRetriever
from sdar.environments.search_qa.world import WorldSettings
from sdar.episode import EndReason, Episode
from sdar.learning.datamodule import Iteration, RolloutDataModule
from sdar.policy.language_model import LanguageModel
from sdar.rollout.collector import Collector
from sdar.rollout.sampling import ResponseGenerator
from sdar.rollout.settings import RolloutSettings, SamplingConfig
from toys.training import PLAIN_GRPO, HintTeacher, Memory, toy_module, toy_policy, toy_trainer
from toys.waiting import held_port

pytestmark = pytest.mark.e2e

LOST = 1
"""The iteration in which the server is killed."""


class Server:
    """The command, as a process that can be killed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{self.port}/retrieve"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "sdar", "search-server", f"port={self.port}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert f"passages at {self.url}" in self.process.stdout.readline()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


class Script(ResponseGenerator):
    """Responds with the plans of its slots, one line per turn; ``before`` is called before each turn."""

    def __init__(self, policy: LanguageModel) -> None:
        self.policy = policy
        self.plans: Sequence[list[str]] = []
        self.before: Callable[[int], None] = lambda turn: None
        self.turn = 0

    def start(self, num_slots: int) -> None:
        assert num_slots == len(self.plans)
        self.turn = 0

    def respond(self, new_ids: Any, uniforms: Any) -> dict[int, list[int]]:
        self.before(self.turn)
        said = {}
        for slot in new_ids:
            plan = self.plans[slot]
            said[slot] = [*self.policy.chat.privileged(plan[min(self.turn, len(plan) - 1)]), self.policy.chat.end_id]
        self.turn += 1
        return said


class Play(RolloutDataModule):
    """Plays as the expert would, half of the members without a search; kills the server after a turn of ``LOST``."""

    script: Script
    server: Server
    seen: list[list[Episode]]

    def collect(self, iteration: int, *, rank: int = 0, world_size: int = 1) -> Iteration:
        def before(turn: int) -> None:
            if iteration == LOST and turn == 1:
                self.server.kill()
            elif iteration == LOST + 1 and turn == 0:
                self.server.start()

        tasks = self.train_tasks[: self.rollout.tasks_per_iteration]
        # every second member answers at once, so that some members of each group finish without the server
        self.script.plans = [
            (self.environment.expert(task) or [])[-1:] if member % 2 else self.environment.expert(task) or []
            for task in tasks
            for member in range(self.rollout.group_size)
        ]
        self.script.before = before
        tasks_drawn = {task.task_id for task in tasks}
        collected = super().collect(iteration, rank=rank, world_size=world_size)
        assert {episode.task.task_id for episode in collected.episodes} == tasks_drawn
        self.seen.append(collected.episodes)
        return collected


@pytest.fixture
def server() -> Iterator[Server]:
    with held_port() as port:
        made = Server(port)
        made.start()
        yield made
        made.kill()


def test_a_server_killed_and_started_again_costs_no_finished_episode_and_stops_nothing(server: Server) -> None:
    engine = HttpRetriever(server.url, attempts=2, timeout_s=60)
    environment = SearchQAEnvironment(num_tasks=(4, 4), search_engine=engine, world=WorldSettings(), success_reward=10)
    policy = toy_policy()
    policy.context_tokens = 4096
    rollout = RolloutSettings(tasks_per_iteration=4, group_size=2, sampling=SamplingConfig(max_response_tokens=60))
    script = Script(policy)
    collector = Collector(policy, environment, rollout, generator_factory=lambda *_: script)
    data = Play(collector, environment, PLAIN_GRPO, rollout, seed=1)
    data.script, data.server, data.seen = script, server, []
    memory = Memory()
    try:
        trainer = toy_trainer(3, logger=memory)
        trainer.fit(toy_module(policy, HintTeacher(), max_tokens_per_micro_batch=8000), datamodule=data)
    finally:
        engine.close()
    ends = [[episode.end for episode in episodes] for episodes in data.seen]
    assert len(ends) == 3
    assert set(ends[0]) == set(ends[2]) == {EndReason.SUCCESS}
    # Two questions need a second search, which fails. All other episodes are finished and keep their rewards.
    assert ends[LOST].count(EndReason.ERROR_TOOL) == 2
    assert ends[LOST].count(EndReason.SUCCESS) == 6
    for episode in data.seen[LOST]:
        assert episode.episode_return == (0.0 if episode.end.is_error else 10.0)
        if episode.end.is_error:
            assert episode.task.task_type in ("comparison", "multi_hop")
            assert server.url in str(episode.error)
    assert memory.steps[LOST]["rollout/end/error_tool"] == pytest.approx(2 / 8)
    assert memory.steps[LOST]["rollout/success_rate"] == 1.0
    assert "rollout/end/error_tool" not in memory.steps[2] or memory.steps[2]["rollout/end/error_tool"] == 0
