"""A running collection: responses are sampled and acted on, turn by turn, until every episode of a wave has ended."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from sdar.environments.base import Projection
from sdar.episode import EndReason, Episode, StepOutcome, Turn
from sdar.rollout.answers import checked_projection
from sdar.rollout.guard import GuardedPool
from sdar.rollout.prompting import Attempt, PromptWriter
from sdar.rollout.requests import CollectProgress, EpisodeRequest
from sdar.rollout.sampling import ResponseGenerator, turn_uniforms
from sdar.rollout.waves import waves


@dataclass
class _Cohort:
    """Episodes whose responses are sampled together, by slot, and what samples them.

    ``wait`` returns the outcomes of their last actions, which the environment may still be working on.
    """

    attempts: dict[int, Attempt]
    generator: ResponseGenerator
    wait: Callable[[], dict[int, StepOutcome]] = field(default=dict)

    @property
    def live(self) -> dict[int, Attempt]:
        return {slot: attempt for slot, attempt in self.attempts.items() if attempt.live}


@dataclass
class Playing:
    """Counters and clocks of one collection; ``seed``, ``key`` and ``progress`` are those of ``Collector.collect``.

    ``total`` episodes are played in all; ``timings`` are in seconds.
    """

    prompts: PromptWriter
    seed: int
    key: tuple[int | str, ...]
    total: int
    progress: Callable[[CollectProgress], None] | None = None
    finished: int = 0
    turns: int = 0
    response_tokens: int = 0
    timings: dict[str, float] = field(default_factory=lambda: {"generate_s": 0.0, "environment_s": 0.0})

    def __post_init__(self) -> None:
        self.environment, self.settings = self.prompts.environment, self.prompts.settings

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Add the seconds spent inside to a timing."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.timings[name] += time.perf_counter() - started

    def play(
        self, requests: Sequence[EpisodeRequest], pool: GuardedPool, generators: Sequence[ResponseGenerator]
    ) -> list[Episode]:
        """Play one wave until every episode has ended; slot numbers are positions in ``requests``.

        With two generators the wave has two halves: while the environment answers one, the other's responses are
        sampled. They take turns, so what shares a batch never depends on the clock.
        """
        with self.clock("environment_s"):
            attempts = self.prompts.begin(requests, pool)
        cohorts = []
        parts = waves(len(attempts), -(-len(attempts) // len(generators)))  # a single one for a single episode
        for part, generator in zip(parts, generators, strict=False):
            generator.start(len(attempts))
            cohorts.append(_Cohort({slot: attempts[slot] for slot in part}, generator))
        self._tell(attempts)
        acting: _Cohort | None = None
        waiting = deque(cohorts)
        while waiting:
            cohort = waiting.popleft()
            if acting is cohort:
                self._finish(cohort, attempts, pool)
                acting = None
            if not cohort.live:
                continue
            with self.clock("generate_s"):
                if self.prompts.window:  # the next prompt does not continue the last one
                    cohort.generator.start(len(attempts))
                responses = self._respond(cohort.live, cohort.generator)
            if acting is not None:
                self._finish(acting, attempts, pool)
            with self.clock("environment_s"):
                self._act(cohort, responses, pool)
            acting = cohort
            waiting.append(cohort)
        self.finished += len(attempts)
        return [attempt.episode for attempt in attempts]

    def _respond(self, live: dict[int, Attempt], generator: ResponseGenerator) -> dict[int, list[int]]:
        """One sampled response per live slot."""
        count = self.settings.sampling.max_response_tokens
        uniforms = {}
        for slot, attempt in live.items():
            task, member, turn = attempt.episode.task, attempt.episode.member, len(attempt.episode.turns)
            uniforms[slot] = turn_uniforms(self.seed, self.key, task.task_id, member, turn, count)
        return generator.respond({slot: attempt.prompt.ids for slot, attempt in live.items()}, uniforms)

    def _act(self, cohort: _Cohort, responses: dict[int, list[int]], pool: GuardedPool) -> None:
        """Turn responses into actions, and let the environment begin to take them."""
        live, log_probs = cohort.live, cohort.generator.log_probs
        turns = {slot: _record(attempt, responses[slot], log_probs(slot)) for slot, attempt in live.items()}
        asked = {
            slot: partial(self._projected, live[slot].conversation.said(live[slot].prompt, turn.response_text))
            for slot, turn in turns.items()
        }
        for slot, projection in pool.ask("project", asked).items():
            if isinstance(projection, StepOutcome):
                live[slot].finish(EndReason.ERROR_ENVIRONMENT, projection)
            else:
                turns[slot].action, turns[slot].valid = projection.action, projection.valid
        cohort.wait = pool.begin_step({slot: turn.action for slot, turn in turns.items() if live[slot].live})
        self.turns += len(live)
        self.response_tokens += sum(len(ids) for ids in responses.values())

    def _projected(self, response: str) -> Projection:
        return checked_projection(self.environment.project(response))

    def _finish(self, cohort: _Cohort, attempts: Sequence[Attempt], pool: GuardedPool) -> None:
        """Take the outcomes of a cohort's actions, and prepare its next prompts."""
        with self.clock("environment_s"):
            for slot, outcome in cohort.wait().items():
                attempt = cohort.attempts[slot]
                attempt.take(outcome, self.environment.max_turns)
                if attempt.live:
                    attempt.episode.scores = dict(outcome.scores)
            self.prompts.prepare(cohort.live, pool)
        self._tell(attempts)

    def _tell(self, attempts: Sequence[Attempt]) -> None:
        if self.progress is not None:
            live = sum(attempt.live for attempt in attempts)
            done = self.finished + len(attempts) - live
            self.progress(CollectProgress(done, self.total, live, self.turns, self.response_tokens))


def _record(attempt: Attempt, response_ids: list[int], log_probs: list[float] | None) -> Turn:
    """Append the turn, still without its action."""
    prompt = attempt.prompt
    text, truncated = attempt.conversation.record(prompt, response_ids)
    turn = Turn(
        context_ids=prompt.ids,
        response_ids=list(response_ids),
        response_text=text,
        action="",
        valid=False,
        observation=attempt.observation,
        splice_index=prompt.splice_index,
        truncated=truncated,
        sampler_log_probs=log_probs,
        dropped_turns=attempt.dropped_turns,
    )
    attempt.episode.turns.append(turn)
    return turn
