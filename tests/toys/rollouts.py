"""A scripted policy and an environment whose faults are chosen: rollouts without a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from sdar.environments.base import Environment, EnvironmentPool, Projection
from sdar.episode import EndReason, Observation, StepOutcome, Task
from sdar.rollout.collector import Collector, EpisodeRequest
from sdar.rollout.sampling import ResponseGenerator
from sdar.rollout.settings import RolloutSettings, SamplingConfig

END = 0
ALPHABET = 8
"""Sampled ids are 1 .. 7 and the end token 0; ids of fed text lie at 100 and above."""


class FakeChat:
    """One id per character; 90 opens a user message, 91 lets the assistant speak."""

    end_id = END
    end_ids = frozenset({END})
    calls = None

    def check_append(self) -> None:
        pass

    def opening(self, user_text: str) -> tuple[list[int], int]:
        return [90, *text_ids(user_text), 91], 1

    def between(self, user_text: str) -> list[int]:
        return [90, *text_ids(user_text), 91]

    def privileged(self, text: str) -> list[int]:
        return text_ids(text)

    def thought_opened(self, *, first: bool) -> str:
        return ""

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(str(token) for token in ids if token != END)


def text_ids(text: str) -> list[int]:
    return [100 + ord(letter) for letter in text]


class FakeGenerator(ResponseGenerator):
    """Samples id floor(8 u) until the end token: a response is a function of its uniforms alone."""

    def __init__(self, sampling: SamplingConfig) -> None:
        self.limit = sampling.max_response_tokens
        self.calls: list[dict[int, list[int]]] = []
        self.closed = 0

    def start(self, num_slots: int) -> None:
        self.live = set(range(num_slots))

    def respond(self, new_ids: Mapping[int, Sequence[int]], uniforms: Mapping[int, np.ndarray]) -> dict[int, list[int]]:
        assert set(new_ids) <= self.live, "a slot that has ended came back"
        assert set(new_ids) == set(uniforms)
        self.live = set(new_ids)
        self.calls.append({slot: list(ids) for slot, ids in new_ids.items()})
        return {slot: self.sample(uniforms[slot]) for slot in new_ids}

    def close(self) -> None:
        self.closed += 1

    def another(self) -> FakeGenerator:
        other = copy(self)
        other.calls = []
        return other

    def sample(self, uniforms: np.ndarray) -> list[int]:
        assert uniforms.shape == (self.limit,)
        ids: list[int] = []
        for number in uniforms:
            ids.append(int(number * ALPHABET))
            if ids[-1] == END:
                break
        return ids


class FactoryOfFakes:
    """Remembers the generators it made."""

    def __init__(self) -> None:
        self.made: list[FakeGenerator] = []

    def __call__(self, policy: Any, sampling: SamplingConfig) -> FakeGenerator:
        self.made.append(FakeGenerator(sampling))
        return self.made[-1]


def fake_policy(context_tokens: int = 10_000) -> Any:
    most_characters = 16 * context_tokens
    return SimpleNamespace(chat=FakeChat(), context_tokens=context_tokens, most_characters=most_characters, name="fake")


def fake_collector(
    environment: Environment,
    *,
    limit: int = 4,
    context_tokens: int = 10_000,
    reserved_tokens: Callable[[Task], int] | None = None,
    factory: Any = None,
    **settings: Any,
) -> Collector:
    """Plays with responses of at most ``limit`` ids that depend on their uniforms alone."""
    rollout = RolloutSettings(sampling=SamplingConfig(max_response_tokens=limit), **settings)
    return Collector(
        fake_policy(context_tokens),
        environment,
        rollout,
        reserved_tokens,
        generator_factory=factory or FactoryOfFakes(),
    )


@dataclass
class CountingEnvironment(Environment):
    """Task n is solved at turn ``n % 4 + 2``; ``faults`` maps a task id to what happens at its turn (0: at reset).

    A fault is a callable that answers instead of the environment: it may raise.
    """

    max_turns: int = 4
    num_tasks: int = 12
    batched: bool = False
    faults: dict[str, tuple[int, Callable[[], StepOutcome]]] = field(default_factory=dict)
    project_fails_on: str | None = None
    listed: bool = True
    pools: list[CountingPool] = field(default_factory=list)
    name = "counting"

    def splits(self) -> tuple[str, ...]:
        return ("train", "valid")

    def tasks(self, split: str) -> list[Task]:
        types = ("alpha", "beta", "gamma")
        return [
            Task(f"{split}-{n}", types[n % 3], f"task {n}", split, f"hash {split} {n}", payload=n)
            for n in range(self.num_tasks)
        ]

    def open_pool(self) -> CountingPool:
        self.pools.append(CountingPool(self))
        return self.pools[-1]

    def opening(self, task: Task, observation: Observation) -> str:
        return f"{task.description}: {observation.text}"

    def reply(self, observation: Observation) -> str:
        return observation.text

    def project(self, response: str) -> Projection:
        if self.project_fails_on is not None and self.project_fails_on in response:
            raise ValueError("cannot read this")
        return Projection(response, len(response) > 1)

    def expert(self, task: Task) -> list[str] | None:
        return ["act"] * (task.payload % 4 + 2)


class CountingPool(EnvironmentPool):
    def __init__(self, environment: CountingEnvironment) -> None:
        self.environment = environment
        self.batched = environment.batched  # type: ignore[misc]
        self.closed = False

    def reset(self, tasks: Sequence[Task]) -> list[Observation | StepOutcome]:
        self.tasks = list(tasks)
        self.turns = [0] * len(tasks)
        self.ended = [False] * len(tasks)
        return [self._fault(slot) or self._observation(slot) for slot in range(len(tasks))]

    def step(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        return {slot: self._step(slot) for slot in actions}

    def close(self) -> None:
        self.closed = True

    def _observation(self, slot: int) -> Observation:
        actions = ("act", "wait") if self.environment.listed else None
        return Observation(f"turn {self.turns[slot]}", actions, f"{self.turns[slot]}")

    def _fault(self, slot: int) -> StepOutcome | None:
        when, answer = self.environment.faults.get(self.tasks[slot].task_id, (-1, None))
        return answer() if answer is not None and when == self.turns[slot] else None

    def _step(self, slot: int) -> StepOutcome:
        if self.ended[slot]:
            raise ValueError("stepped after the end")
        self.turns[slot] += 1
        fault = self._fault(slot)
        if fault is not None:
            return fault
        won = self.turns[slot] == self.tasks[slot].payload % 4 + 2
        self.ended[slot] = won
        end = EndReason.SUCCESS if won else None
        scores = {"part": self.turns[slot] / 10}
        return StepOutcome(self._observation(slot), 10.0 if won else 0.0, won, won, scores, end)


def requests(environment: Environment, members: int = 2, split: str = "train") -> list[EpisodeRequest]:
    return [EpisodeRequest(task, member) for task in environment.tasks(split) for member in range(members)]
