"""Plays one wave of episodes: builds prompts, samples responses and takes actions until every episode has ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from sdar.environments.base import Environment, PastTurn
from sdar.episode import EndReason, Episode, Observation, StepOutcome, Task, Turn
from sdar.rollout.conversation import AppendConversation, Conversation, Prompt, WindowConversation
from sdar.rollout.guard import GuardedPool, guarded
from sdar.rollout.sampling import ResponseGenerator, turn_uniforms
from sdar.rollout.settings import RolloutSettings

if TYPE_CHECKING:
    from sdar.policy.language_model import LanguageModel


@dataclass(frozen=True)
class EpisodeRequest:
    """One episode to play: a task and the 0-based number of the group member."""

    task: Task
    member: int


@dataclass(frozen=True)
class CollectProgress:
    """Counts of a running collection over all its waves. ``live`` episodes are currently played."""

    finished: int
    total: int
    live: int
    turns: int
    response_tokens: int


@dataclass
class RolloutState:
    """A live episode: its conversation, the observation to act on and the prompt to feed next."""

    request: EpisodeRequest
    episode: Episode
    conversation: Conversation
    observation: Observation
    prompt: Prompt = field(default_factory=lambda: Prompt([], None))
    dropped_turns: int = 0
    live: bool = True

    def finish(self, end: EndReason, outcome: StepOutcome | None = None) -> None:
        """End the episode; an outcome sets success, scores and error."""
        self.live = False
        self.episode.end = end
        if outcome is not None:
            self.episode.success = outcome.success and not end.is_error
            self.episode.scores = dict(outcome.scores)
            self.episode.error = outcome.error


@dataclass
class Rollout:
    """One running collection with its settings, counters and clocks.

    The fields are described at :class:`sdar.rollout.collector.Collector`.
    """

    policy: LanguageModel
    environment: Environment
    settings: RolloutSettings
    reserved_tokens: Callable[[Task], int] | None
    seed: int
    key: tuple[int | str, ...]
    privileged: Callable[[Task, int], str] | None
    progress: Callable[[CollectProgress], None] | None
    total: int
    finished: int = 0
    turns: int = 0
    response_tokens: int = 0
    timings: dict[str, float] = field(default_factory=lambda: {"generate_s": 0.0, "environment_s": 0.0})

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Add the seconds spent inside to a timing."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.timings[name] += time.perf_counter() - started

    def play(
        self, requests: Sequence[EpisodeRequest], pool: GuardedPool, generator: ResponseGenerator
    ) -> list[Episode]:
        """Play one wave; slot numbers are positions in ``requests``."""
        with self.clock("environment_s"):
            openings = pool.reset([request.task for request in requests])
            attempts = [self._open(request, opening) for request, opening in zip(requests, openings, strict=True)]
        generator.start(len(attempts))
        live = self._live(attempts)
        while live:
            with self.clock("generate_s"):
                if self.settings.context == "window":  # the next prompt does not continue the last one
                    generator.start(len(attempts))
                responses = self._respond(live, generator)
            with self.clock("environment_s"):
                self._act(live, responses, pool)
            self.turns += len(live)
            self.response_tokens += sum(len(ids) for ids in responses.values())
            live = self._live(attempts)
        return [attempt.episode for attempt in attempts]

    def _live(self, attempts: Sequence[RolloutState]) -> dict[int, RolloutState]:
        """The attempts that are still live, by slot; calls ``progress``."""
        live = {slot: attempt for slot, attempt in enumerate(attempts) if attempt.live}
        done = self.finished + len(attempts) - len(live)
        if not live:
            self.finished = done
        if self.progress is not None:
            self.progress(CollectProgress(done, self.total, len(live), self.turns, self.response_tokens))
        return live

    def _open(self, request: EpisodeRequest, opening: Observation | StepOutcome) -> RolloutState:
        """The attempt with its first prompt; it has already ended if it could not start."""
        task = request.task
        episode = Episode(task, request.member, turns=[], end=EndReason.FAILURE, success=False)
        privileged = self.privileged(task, request.member) if self.privileged is not None else None
        kind = WindowConversation if self.settings.context == "window" else AppendConversation
        conversation = kind(self.policy.chat, privileged)
        if isinstance(opening, StepOutcome):
            attempt = RolloutState(request, episode, conversation, opening.observation)
            attempt.finish(opening.end or EndReason.ERROR_ENVIRONMENT, opening)
            return attempt
        attempt = RolloutState(request, episode, conversation, opening)
        self._prepare(attempt)
        return attempt

    def _prepare(self, attempt: RolloutState) -> None:
        """Set the next prompt, the longest that fits; end the episode if none fits."""
        for dropped, write in enumerate(self._texts(attempt)):
            text = guarded(write)
            if isinstance(text, StepOutcome):
                attempt.finish(EndReason.ERROR_ENVIRONMENT, text)
                return
            if not attempt.episode.turns:
                attempt.episode.opening = text
            prompt = attempt.conversation.prompt(text)
            if self._fits(attempt, prompt):
                attempt.prompt, attempt.dropped_turns = prompt, dropped
                return
        attempt.finish(EndReason.CONTEXT_FULL)

    def _texts(self, attempt: RolloutState) -> list[Callable[[], str]]:
        """Ways to write the next user message, the preferred one first; in window mode each shows one turn less."""
        environment, task, seen = self.environment, attempt.request.task, attempt.observation
        step = len(attempt.episode.turns)
        if self.settings.context != "window":
            return [lambda: environment.reply(seen) if step else environment.opening(task, seen)]
        past = last_turns(attempt.episode.turns, self.settings.history_turns)
        return [partial(environment.window_prompt, task, past[n:], seen, step) for n in range(len(past) + 1)]

    def _fits(self, attempt: RolloutState, prompt: Prompt) -> bool:
        """Whether the prompt is within its limit, and fits into the context with a response of full length."""
        settings = self.settings
        own = len(prompt.ids) - prompt.privileged_tokens
        limit = settings.max_prompt_tokens if settings.context == "window" else None
        if limit is not None and own > limit:
            return False
        needed = attempt.conversation.length + len(prompt.ids) + settings.sampling.max_response_tokens
        # If the block is already in the prompt, its tokens are counted with the prompt's.
        if self.reserved_tokens is not None and self.privileged is None:
            needed += self.reserved_tokens(attempt.request.task)
        return needed <= self.policy.context_tokens

    def _respond(self, live: dict[int, RolloutState], generator: ResponseGenerator) -> dict[int, list[int]]:
        """One sampled response per live slot."""
        count = self.settings.sampling.max_response_tokens
        uniforms = {
            slot: turn_uniforms(
                self.seed, self.key, a.request.task.task_id, a.request.member, len(a.episode.turns), count
            )
            for slot, a in live.items()
        }
        return generator.respond({slot: a.prompt.ids for slot, a in live.items()}, uniforms)

    def _act(self, live: dict[int, RolloutState], responses: dict[int, list[int]], pool: GuardedPool) -> None:
        """Turn responses into actions, step the environment, and prepare the next prompts."""
        actions: dict[int, str] = {}
        for slot, attempt in live.items():
            action = self._record(attempt, responses[slot])
            if action is not None:
                actions[slot] = action
        for slot, outcome in pool.step(actions).items():
            self._take(live[slot], outcome)

    def _record(self, attempt: RolloutState, response_ids: list[int]) -> str | None:
        """Append the turn; returns its action, or None if the projection raised an error."""
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
            dropped_turns=attempt.dropped_turns,
        )
        attempt.episode.turns.append(turn)
        projection = guarded(lambda: self.environment.project(text))
        if isinstance(projection, StepOutcome):
            attempt.finish(EndReason.ERROR_ENVIRONMENT, projection)
            return None
        turn.action, turn.valid = projection.action, projection.valid
        return turn.action

    def _take(self, attempt: RolloutState, outcome: StepOutcome) -> None:
        """Apply the environment's outcome of the last turn."""
        environment = self.environment
        attempt.episode.turns[-1].reward = outcome.reward
        attempt.observation = attempt.episode.last_observation = outcome.observation
        if outcome.done:
            attempt.finish(outcome.end or EndReason.FAILURE, outcome)
        elif len(attempt.episode.turns) >= environment.max_turns:
            attempt.finish(EndReason.TURN_LIMIT, outcome)
        else:
            attempt.episode.scores = dict(outcome.scores)
            self._prepare(attempt)


def last_turns(turns: Sequence[Turn], count: int) -> list[PastTurn]:
    """The last ``count`` turns as a window prompt shows them, oldest first."""
    return [PastTurn(turn.observation.text, turn.action) for turn in turns[max(0, len(turns) - count) :]]
