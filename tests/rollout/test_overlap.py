"""``rollout.overlap``: the environment answers one half of the episodes while responses of the other are sampled."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sdar.environments.worker import Worker
from sdar.episode import EndReason, Episode, StepOutcome
from sdar.rollout import guard
from sdar.rollout.collector import Collector, CollectProgress, EpisodeRequest
from sdar.rollout.sampling import generators
from sdar.rollout.settings import SamplingConfig
from sdar.rollout.vllm.settings import VllmSettings
from toys.fake_vllm import install
from toys.rollouts import (
    CountingEnvironment,
    CountingPool,
    FactoryOfFakes,
    FakeGenerator,
    fake_collector,
    requests,
)
from toys.training import LettersEnvironment, toy_datamodule, toy_module, toy_policy, toy_rollout, train
from toys.waiting import PATIENCE_S

POLICY = toy_policy()


def collect(environment: CountingEnvironment, asked: int | None = None, **settings: Any) -> list[Episode]:
    collector = fake_collector(environment, **settings)
    return collector.collect(requests(environment)[:asked], seed=1, key=("train", 0)).episodes


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    asked=st.integers(1, 24),
    concurrent=st.integers(1, 30),
    context=st.sampled_from(["append", "window"]),
    batched=st.booleans(),
)
def test_episodes_are_those_of_one_whole(asked: int, concurrent: int, context: str, batched: bool) -> None:
    settings: dict[str, Any] = {"max_concurrent_episodes": concurrent, "context": context}
    whole = collect(CountingEnvironment(), asked, **settings)
    assert collect(CountingEnvironment(batched=batched), asked, overlap=True, **settings) == whole


@pytest.mark.parametrize("context", ["append", "window"])
def test_tokens_of_a_model_are_those_of_one_whole(context: str) -> None:
    environment = LettersEnvironment(tasks=4)
    asked = [EpisodeRequest(task, member) for task in environment.tasks("train") for member in range(3)]

    def played(overlap: bool) -> list[Episode]:
        settings = toy_rollout(overlap=overlap, context=context)
        return Collector(POLICY, environment, settings).collect(asked, seed=5, key=("train", 0)).episodes

    assert len({len(episode.turns) for episode in played(False)}) > 1
    assert played(True) == played(False)


class Meeting:
    """Lets neither a step end before the other half is sampled, nor that sampling end before a step has begun."""

    def __init__(self) -> None:
        self.halves: list[tuple[int, ...]] = []
        self.samples, self.steps = 0, 0
        self.changed = threading.Condition()

    def wait_for(self, what: Any) -> None:
        with self.changed:
            assert self.changed.wait_for(what, PATIENCE_S), "sampling and the environment did not meet"

    def generator(self, policy: Any, sampling: SamplingConfig) -> FakeGenerator:
        del policy
        meeting = self

        class Generator(FakeGenerator):
            def respond(self, new_ids: Mapping[int, Any], uniforms: Mapping[int, np.ndarray]) -> dict[int, list[int]]:
                with meeting.changed:
                    meeting.halves.append(tuple(new_ids))
                    meeting.samples += 1
                    meeting.changed.notify_all()
                meeting.wait_for(lambda: meeting.steps >= meeting.samples - 1)
                return super().respond(new_ids, uniforms)

        return Generator(sampling)


class MeetingPool(CountingPool):
    meeting: Meeting
    thread: int | None = None

    def step(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        with self.meeting.changed:
            self.meeting.steps += 1
            mine = self.meeting.steps
            self.meeting.changed.notify_all()
        assert self.thread in (None, threading.get_ident()), "an environment is called by one thread"
        self.thread = threading.get_ident()
        self.meeting.wait_for(lambda: self.meeting.samples > mine or mine == 8)
        return super().step(actions)


def test_the_environment_acts_while_the_other_half_is_sampled() -> None:
    """Four turns of two halves, which would never meet if one came after the other."""
    meeting = Meeting()

    class Environment(CountingEnvironment):
        def open_pool(self) -> CountingPool:
            pool = MeetingPool(self)
            pool.meeting = meeting
            return pool

    environment = Environment(batched=True, max_turns=4, num_tasks=12)
    asked = [request for request in requests(environment, members=1) if request.task.payload % 4 == 2]  # four turns
    collector = fake_collector(environment, factory=meeting.generator, overlap=True, max_concurrent_episodes=2)
    episodes = collector.collect(asked[:2], seed=1, key=("train", 0)).episodes
    assert [(len(episode.turns), episode.end) for episode in episodes] == [(4, EndReason.SUCCESS)] * 2
    assert meeting.halves == [(0,), (1,)] * 4


def test_what_shares_a_batch_does_not_depend_on_the_clock() -> None:
    """Halves take turns whatever the environment's pace, and a half that has ended leaves the other alone."""

    def batches(pause_s: float) -> list[list[tuple[int, ...]]]:
        class Pool(CountingPool):
            def step(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
                time.sleep(pause_s if self.turns[next(iter(actions))] % 2 else 0.0)
                return super().step(actions)

        class Environment(CountingEnvironment):
            def open_pool(self) -> CountingPool:
                return Pool(self)

        made: list[FakeGenerator] = []

        class Generator(FakeGenerator):
            def another(self) -> FakeGenerator:
                made.append(super().another())
                return made[-1]

        def factory(policy: Any, sampling: SamplingConfig) -> FakeGenerator:
            del policy
            made.append(Generator(sampling))
            return made[-1]

        environment = Environment(batched=True)
        collect(environment, 16, factory=factory, overlap=True, max_concurrent_episodes=8)
        return [[tuple(call) for call in generator.calls] for generator in made]

    first, second = batches(0.0)
    assert [first, second] == batches(0.02)
    assert first[0] == (0, 1, 2, 3)
    assert second[0] == (4, 5, 6, 7)


def test_progress_is_told_as_for_one_whole() -> None:
    def told(overlap: bool) -> list[CollectProgress]:
        seen: list[CollectProgress] = []
        environment = CountingEnvironment()
        collector = fake_collector(environment, overlap=overlap, max_concurrent_episodes=8)
        collector.collect(requests(environment), seed=1, key=("train", 0), progress=seen.append)
        return seen

    whole, halves = told(False), told(True)
    assert halves[-1] == whole[-1]
    assert (halves[-1].finished, halves[-1].live) == (24, 0)
    for counts in ([step.finished for step in halves], [step.turns for step in halves]):
        assert counts == sorted(counts)


def test_time_that_was_waited_for_the_environment_is_its_own() -> None:
    class Pool(CountingPool):
        def step(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
            time.sleep(0.05)
            return super().step(actions)

    class Environment(CountingEnvironment):
        def open_pool(self) -> CountingPool:
            return Pool(self)

    def timed() -> dict[str, float]:
        environment = Environment(batched=True, num_tasks=4)
        collector = fake_collector(environment, overlap=True)
        return dict(collector.collect(requests(environment), seed=1, key=("train", 0)).timings)

    # At least the last step of all; generators of fakes take no time, unless the machine is busy with something else.
    tries = [timed() for _ in range(5)]
    assert any(timings["generate_s"] < timings["environment_s"] > 0.05 for timings in tries)


@pytest.mark.parametrize("fails", [False, True])
def test_both_generators_are_closed(fails: bool) -> None:
    made: list[FakeGenerator] = []

    class Generator(FakeGenerator):
        def another(self) -> FakeGenerator:
            made.append(super().another())
            return made[-1]

        def respond(self, new_ids: Mapping[int, Any], uniforms: Mapping[int, np.ndarray]) -> dict[int, list[int]]:
            if fails and 12 in new_ids:
                raise RuntimeError("out of memory")
            return super().respond(new_ids, uniforms)

    def factory(policy: Any, sampling: SamplingConfig) -> FakeGenerator:
        del policy
        made.append(Generator(sampling))
        return made[-1]

    with pytest.raises(RuntimeError, match="out of memory") if fails else nullcontext():
        collect(CountingEnvironment(), factory=factory, overlap=True)
    assert [generator.closed for generator in made] == [1, 1]


def test_without_a_deadline_there_is_one_whole() -> None:
    factory = FactoryOfFakes()
    collect(CountingEnvironment(), factory=factory, overlap=True, environment_timeout_s=None)
    (made,) = factory.made
    assert tuple(made.calls[0]) == tuple(range(24))


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Is set in the end, so that no thread of a test stays behind."""
    event = threading.Event()
    yield event
    event.set()


class HangingPool(CountingPool):
    def step(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        if self.environment.hangs_on & {self.tasks[slot].task_id for slot in actions}:  # type: ignore[attr-defined]
            self.environment.acts.set()  # type: ignore[attr-defined]
            self.environment.released.wait(PATIENCE_S)  # type: ignore[attr-defined]
        return super().step(actions)


class HangingEnvironment(CountingEnvironment):
    hangs_on: frozenset[str] = frozenset()
    released: threading.Event
    acts: threading.Event

    def open_pool(self) -> CountingPool:
        self.pools.append(HangingPool(self))
        return self.pools[-1]


def test_a_half_that_is_late_costs_its_wave_and_no_other(released: threading.Event) -> None:
    environment = HangingEnvironment()
    environment.hangs_on, environment.released, environment.acts = frozenset({"train-0"}), released, threading.Event()
    episodes = collect(environment, overlap=True, max_concurrent_episodes=12, environment_timeout_s=2.0)
    # Task 0 and its second member, whose step hangs, then the other half, whose pool is gone.
    assert all(episode.end is EndReason.ERROR_ENVIRONMENT for episode in episodes[:12])
    assert not any(episode.end.is_error for episode in episodes[12:])
    assert [pool.closed for pool in environment.pools] == [True, True]


def stopped_while_it_acts(environment: CountingEnvironment, stop: type[BaseException], acts: threading.Event) -> None:
    class Generator(FakeGenerator):
        def respond(self, new_ids: Mapping[int, Any], uniforms: Mapping[int, np.ndarray]) -> dict[int, list[int]]:
            if 12 in new_ids:  # the other half
                assert acts.wait(PATIENCE_S)
                raise stop
            return super().respond(new_ids, uniforms)

    with pytest.raises(stop):
        collect(environment, 24, factory=lambda policy, sampling: Generator(sampling), overlap=True)


class CarefulPool(CountingPool):
    """Is closed by the thread that steps it, when no step is running, or says so."""

    acts: threading.Event
    goes_on: threading.Event
    stepped = 0
    thread: int | None = None
    trouble: str | None = None

    def step(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        self.thread, self.stepped = threading.get_ident(), self.stepped + 1
        self.acts.set()
        assert self.goes_on.wait(PATIENCE_S)
        return super().step(actions)

    def close(self) -> None:
        super().close()
        if threading.get_ident() != self.thread:
            self.trouble = "closed by another thread than the one that steps it"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_a_pool_is_closed_after_the_step_that_was_running(
    stop: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = Worker.settle

    def settles(self: Worker, seconds: float) -> None:
        goes_on.set()  # not before the pool is left
        settle(self, seconds)

    monkeypatch.setattr(Worker, "settle", settles)

    class Environment(CountingEnvironment):
        def open_pool(self) -> CountingPool:
            pool = CarefulPool(self)
            pool.acts, pool.goes_on = acts, goes_on
            self.pools.append(pool)
            return pool

    environment, acts, goes_on = Environment(), threading.Event(), threading.Event()
    stopped_while_it_acts(environment, stop, acts)
    (pool,) = environment.pools
    assert isinstance(pool, CarefulPool)
    assert pool.closed
    assert pool.trouble is None
    assert pool.stepped == 1, "of the other eleven slots none is stepped any more"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_a_step_that_never_ends_is_not_waited_for_long(
    stop: type[BaseException], released: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "RELEASE_S", 0.2)
    environment = HangingEnvironment()
    environment.hangs_on, environment.released, environment.acts = frozenset({"train-0"}), released, threading.Event()
    started = time.monotonic()
    stopped_while_it_acts(environment, stop, environment.acts)
    assert time.monotonic() - started < PATIENCE_S / 2
    assert environment.pools[0].closed


def test_an_error_of_one_half_leaves_the_other_alone() -> None:
    def fails() -> StepOutcome:
        raise ValueError("no more")

    sound = collect(CountingEnvironment(), overlap=True)
    episodes = collect(CountingEnvironment(faults={"train-6": (1, fails)}), overlap=True)
    for episode, other in zip(episodes, sound, strict=True):
        if episode.task.task_id == "train-6":
            assert episode.end is EndReason.ERROR_ENVIRONMENT
        else:
            assert episode == other


def test_a_run_learns_what_it_learns_without() -> None:
    def curve(overlap: bool) -> dict[int, dict[str, float]]:
        policy = toy_policy()
        module = toy_module(policy, episodes_per_step=None, distillation_coefficient=0.0)
        data = toy_datamodule(policy)
        data.collector.settings = module.rollout = replace(data.collector.settings, overlap=overlap)
        return train(module, data, 2).curve()

    with_overlap, without = curve(True), curve(False)
    assert with_overlap.keys() == without.keys()
    for iteration, figures in without.items():
        assert with_overlap[iteration] == pytest.approx(figures, rel=1e-4, abs=1e-6)


def test_vllm_samples_both_halves_with_weights_that_are_handed_over_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = install(monkeypatch)
    environment = LettersEnvironment(tasks=4)
    asked = [EpisodeRequest(task, member) for task in environment.tasks("train") for member in range(3)]

    def played(overlap: bool) -> list[Episode]:
        settings = replace(toy_rollout(overlap=overlap), backend="vllm", vllm=VllmSettings())
        collector = Collector(POLICY, environment, settings, generator_factory=generators(settings))
        return collector.collect(asked, seed=5, key=("train", 0)).episodes

    whole, halves = played(False), played(True)
    assert [made.pushes for made in engine.made] == [1, 1]
    for one, other in zip(whole, halves, strict=True):
        assert [turn.response_ids for turn in one.turns] == [turn.response_ids for turn in other.turns]
        assert all(turn.sampler_log_probs is not None for turn in other.turns)


def test_a_call_that_nobody_waits_for_is_given_up_or_settled() -> None:
    worker, released = Worker(PATIENCE_S), threading.Event()

    def slow() -> int:
        released.wait(PATIENCE_S)
        return threading.get_ident()

    first = worker.begin(slow)
    fast = worker.call(threading.get_ident)
    released.set()
    assert first() != fast
    worker.begin(slow)
    worker.settle(PATIENCE_S)
    assert worker.call(threading.get_ident) == fast, "what has ended in time keeps its thread"
    worker.close()
