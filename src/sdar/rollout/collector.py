"""The collector: plays tasks with the policy and returns episodes of turns.

Episodes are played in waves of at most ``max_concurrent_episodes``, cut from the order of the requests alone: timing
never changes which episodes share a wave. Every sampled token is decided by a uniform keyed by (seed, key, task,
member, turn), so the tokens of an episode do not depend on its wave, its neighbors or their number. (The logits are
equal up to the rounding of batched float arithmetic.)
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

from sdar.environments.base import Environment, PastTurn, Projection
from sdar.environments.tools import as_text
from sdar.episode import EndReason, Episode, Observation, StepOutcome, Task, Turn
from sdar.errors import UserError
from sdar.output.printable import printable
from sdar.rollout.answers import checked_preface, checked_projection, checked_prompt
from sdar.rollout.conversation import AppendConversation, Prompt, WindowConversation
from sdar.rollout.guard import GuardedPool
from sdar.rollout.live import LiveEpisode
from sdar.rollout.sampling import GeneratorFactory, ResponseGenerator, turn_generator, turn_uniforms
from sdar.rollout.settings import RolloutSettings

if TYPE_CHECKING:
    from sdar.policy.language_model import LanguageModel

log = logging.getLogger(__name__)

_LEAST_TOKEN_CHARACTERS = 16
"""Of the longest token that is reckoned with: what a vocabulary does not know may be a token of any length."""


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
class CollectedRollouts:
    """Episodes in the order of the requests; ``timings`` in seconds: ``generate_s``, ``environment_s``."""

    episodes: list[Episode]
    timings: dict[str, float]


@dataclass(eq=False, repr=False)
class Collector:
    """Plays episodes of an environment with a policy.

    Args:
        policy: model, tokenizer and chat format; its weights are read at every collection.
        environment: owner of the tasks' prompts, actions and pools.
        settings: how episodes are played and responses sampled.
        reserved_tokens: context tokens that an episode of a task leaves free, so that the teacher's block fits in front
            of it; None: none. An episode that would need them ends as ``context_full``.
        generator_factory: makes the response generator of a collection; the default decodes with ``policy.model``.

    Raises UserError for a response limit that leaves no room for a prompt, or for ``context=append`` with a chat
    template whose turns cannot be appended.
    """

    policy: LanguageModel
    environment: Environment
    settings: RolloutSettings
    reserved_tokens: Callable[[Task], int] | None = None
    generator_factory: GeneratorFactory = turn_generator

    def __post_init__(self) -> None:
        if self.settings.context == "append":
            self.policy.chat.check_append()
        longest = self.settings.sampling.max_response_tokens
        if longest >= self.policy.context_tokens:
            raise UserError(
                f"rollout.sampling.max_response_tokens must be < {self.policy.context_tokens}, the model's context in "
                f"tokens, got {longest}"
            )

    @cached_property
    def most_characters(self) -> int:
        """A text that is longer cannot fit into the context, whatever it says."""
        longest = max(map(len, self.policy.tokenizer.get_vocab()))
        return self.policy.context_tokens * max(longest, _LEAST_TOKEN_CHARACTERS)

    def check_room(self, tasks: Sequence[Task]) -> None:
        """UserError if none of these tasks has a first prompt that leaves room for a response of full length."""
        refusals = _Rollout(self, 0, ("room",), None, None, total=len(tasks)).refusals(tasks)
        if refusals and None not in refusals:
            raise UserError(refusals[0])

    def collect(
        self,
        requests: Sequence[EpisodeRequest],
        *,
        seed: int,
        key: tuple[int | str, ...],
        privileged: Callable[[Task, int], str] | None = None,
        progress: Callable[[CollectProgress], None] | None = None,
    ) -> CollectedRollouts:
        """Play all requests to their ends.

        Args:
            requests: pairwise different in (task_id, member); ValueError otherwise (two would sample the same tokens).
            seed: the run's seed.
            key: purpose of the rollout, such as ``("train", iteration)``.
            privileged: text of a task and group member that goes into the rollout's own first prompt (append) or every
                prompt (window); None or "" adds nothing.
            progress: called after every turn of a wave, or of its halves.

        An exception or an error outcome of the environment ends its episode with a typed reason and affects no other.
        Errors of the model and interrupts are raised; the pool is closed in all cases.
        """
        if len({(request.task.task_id, request.member) for request in requests}) != len(requests):
            raise ValueError("requests must be pairwise different in (task, member)")
        rollout = _Rollout(self, seed, key, privileged, progress, total=len(requests))
        episodes: list[Episode] = []
        # An engine takes the weights; sharded ones are put together by all ranks, also by one without an episode.
        if requests or self.settings.backend == "vllm":
            generator = self.generator_factory(self.policy, self.settings.sampling)
            with rollout.clock("environment_s"):
                pool = GuardedPool(self.environment, self.settings.environment_timeout_s)
            with pool, ExitStack() as opened:
                generators = [opened.enter_context(closing(generator))]
                # Without a limit the environment runs in this very thread, and nothing can overlap.
                if self.settings.overlap and self.settings.environment_timeout_s is not None:
                    generators.append(opened.enter_context(closing(generator.another())))
                for wave in waves(len(requests), self.settings.max_concurrent_episodes):
                    episodes += rollout.play([requests[index] for index in wave], pool, generators)
        report_troubles(episodes)
        return CollectedRollouts(episodes, rollout.timings)


class _RolloutState(LiveEpisode):
    """A live episode with its conversation and the prompt to feed next."""

    conversation: WindowConversation
    prompt: Prompt
    dropped_turns = 0


@dataclass
class _Cohort:
    """Episodes whose responses are sampled together, by slot, and what samples them.

    ``wait`` returns the outcomes of their last actions, which the environment may still be working on.
    """

    attempts: dict[int, _RolloutState]
    generator: ResponseGenerator
    wait: Callable[[], dict[int, StepOutcome]] = field(default=dict)

    @property
    def live(self) -> dict[int, _RolloutState]:
        return {slot: attempt for slot, attempt in self.attempts.items() if attempt.live}


@dataclass
class _Rollout:
    """One running collection: the arguments of :meth:`Collector.collect`, counters and clocks."""

    collector: Collector
    seed: int
    key: tuple[int | str, ...]
    privileged: Callable[[Task, int], str] | None
    progress: Callable[[CollectProgress], None] | None
    total: int
    finished: int = 0
    turns: int = 0
    response_tokens: int = 0
    timings: dict[str, float] = field(default_factory=lambda: {"generate_s": 0.0, "environment_s": 0.0})

    def __post_init__(self) -> None:
        self.policy, self.environment = self.collector.policy, self.collector.environment
        self.settings = self.collector.settings
        self.window = self.settings.context == "window"

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
            attempts = self._begin(requests, pool)
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
                if self.window:  # the next prompt does not continue the last one
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

    def _finish(self, cohort: _Cohort, attempts: Sequence[_RolloutState], pool: GuardedPool) -> None:
        """Take the outcomes of a cohort's actions, and prepare its next prompts."""
        with self.clock("environment_s"):
            for slot, outcome in cohort.wait().items():
                attempt = cohort.attempts[slot]
                attempt.take(outcome, self.environment.max_turns)
                if attempt.live:
                    attempt.episode.scores = dict(outcome.scores)
            self._prepare(cohort.live, pool)
        self._tell(attempts)

    def refusals(self, tasks: Sequence[Task]) -> list[str | None]:
        """Why the first prompts of tasks do not fit, in sentences; None: it does, or there is none."""
        with GuardedPool(self.environment, self.settings.environment_timeout_s) as pool:
            attempts = self._begin([EpisodeRequest(task, 0) for task in tasks], pool)
        full = EndReason.CONTEXT_FULL
        return [
            None if attempt.live or attempt.episode.end is not full else self._refusal(attempt) for attempt in attempts
        ]

    def _refusal(self, attempt: _RolloutState) -> str:
        text, longest = attempt.episode.opening, self.settings.sampling.max_response_tokens
        characters = len(as_text(attempt.episode.preface)) + len(text)
        context, limit = self.policy.context_tokens, self.settings.max_prompt_tokens if self.window else None
        if characters > self.collector.most_characters:
            needs = f"has {characters} characters"
        else:
            prompt = attempt.conversation.prompt(text)
            needed, own = self._needed(attempt, prompt), len(prompt.ids)
            if limit is not None and own > limit and needed <= context:
                return (
                    f"rollout.max_prompt_tokens must leave room for a first prompt, got {limit}: that of task "
                    f"{printable(attempt.episode.task.task_id)} has {own} tokens"
                )
            reserved = needed - own - longest
            teacher = f" and the teacher's text of {reserved}" if reserved else ""
            needs = f"has {own} tokens, and needs {needed} with a response of {longest}{teacher}"
        return (
            f"the model {self.policy.name!r} has a context of {context} tokens here, but the first prompt of task "
            f"{printable(attempt.episode.task.task_id)} {needs}; use a model with a longer context, or lower "
            "rollout.sampling.max_response_tokens"
        )

    def _tell(self, attempts: Sequence[_RolloutState]) -> None:
        if self.progress is not None:
            live = sum(attempt.live for attempt in attempts)
            done = self.finished + len(attempts) - live
            self.progress(CollectProgress(done, self.total, live, self.turns, self.response_tokens))

    def _begin(self, requests: Sequence[EpisodeRequest], pool: GuardedPool) -> list[_RolloutState]:
        """Start the episodes, with their first prompts."""
        starts = pool.reset([request.task for request in requests])
        attempts = [self._open(request, start) for request, start in zip(requests, starts, strict=True)]
        live = {slot: attempt for slot, attempt in enumerate(attempts) if attempt.live}
        ask = self.environment.preface
        asked = {slot: partial(checked_preface, ask, attempt.episode.task) for slot, attempt in live.items()}
        for slot, preface in pool.ask("preface", asked).items():
            if isinstance(preface, StepOutcome):
                live.pop(slot).finish(EndReason.ERROR_ENVIRONMENT, preface)
            elif preface:
                live[slot].episode.preface = preface
                if len(as_text(preface)) > self.collector.most_characters:
                    live.pop(slot).finish(EndReason.CONTEXT_FULL)
                else:
                    live[slot].conversation.chat = chat = self.policy.chat.prefaced(preface)
                    if not self.window:
                        chat.check_append()
        self._prepare(live, pool)
        return attempts

    def _open(self, request: EpisodeRequest, start: Observation | StepOutcome) -> _RolloutState:
        """The attempt without a prompt; it has already ended if it could not start."""
        attempt = _RolloutState(request.task, request.member, start)
        privileged = self.privileged(request.task, request.member) if self.privileged is not None else None
        kind = WindowConversation if self.window else AppendConversation
        attempt.conversation = kind(self.policy.chat, privileged)
        return attempt

    def _prepare(self, attempts: Mapping[int, _RolloutState], pool: GuardedPool) -> None:
        """Set the next prompts, each the longest that fits; end the episodes for which none fits."""
        waiting = {slot: self._texts(attempt) for slot, attempt in attempts.items()}
        begun = any(attempt.episode.turns for attempt in attempts.values())
        method = "window_prompt" if self.window else "reply" if begun else "opening"
        for dropped in range(max(map(len, waiting.values()), default=0)):
            writes = {slot: texts[dropped] for slot, texts in waiting.items() if dropped < len(texts)}
            asked = {slot: partial(checked_prompt, write) for slot, write in writes.items()}
            for slot, text in pool.ask(method, asked).items():
                if self._take(attempts[slot], text, dropped):
                    del waiting[slot]
        for slot in waiting:
            attempts[slot].finish(EndReason.CONTEXT_FULL)

    def _take(self, attempt: _RolloutState, text: str | StepOutcome, dropped: int) -> bool:
        """Whether this settles the attempt: the text becomes its prompt, or is an error that ends it."""
        if isinstance(text, StepOutcome):
            attempt.finish(EndReason.ERROR_ENVIRONMENT, text)
            return True
        if not attempt.episode.turns:
            attempt.episode.opening = text
        results = attempt.observation.results
        characters = max(len(text), sum(map(len, results)))
        if characters > self.policy.context_tokens and characters > self.collector.most_characters:
            return False  # tokenizing it would take a second and 180 MB per million characters
        prompt = attempt.conversation.prompt(text, results)
        if not self._fits(attempt, prompt):
            return False
        attempt.prompt, attempt.dropped_turns = prompt, dropped
        return True

    def _texts(self, attempt: _RolloutState) -> list[Callable[[], str]]:
        """Ways to write the next user message, the preferred one first; in window mode each shows one turn less."""
        environment, task, seen = self.environment, attempt.episode.task, attempt.observation
        step = len(attempt.episode.turns)
        if not self.window:
            return [partial(environment.reply, seen) if step else partial(environment.opening, task, seen)]
        past = last_turns(attempt.episode.turns, self.settings.history_turns)
        return [partial(environment.window_prompt, task, past[n:], seen, step) for n in range(len(past) + 1)]

    def _fits(self, attempt: _RolloutState, prompt: Prompt) -> bool:
        """Whether the prompt is within its limit, and fits into the context with a response of full length."""
        limit = self.settings.max_prompt_tokens if self.window else None
        if limit is not None and len(prompt.ids) - prompt.privileged_tokens > limit:
            return False
        return self._needed(attempt, prompt) <= self.policy.context_tokens

    def _needed(self, attempt: _RolloutState, prompt: Prompt) -> int:
        """Tokens of the context with the prompt, a response of full length, and what is reserved for the teacher."""
        needed = attempt.conversation.length + len(prompt.ids) + self.settings.sampling.max_response_tokens
        # If the block is already in the prompt, its tokens are counted with the prompt's.
        if self.collector.reserved_tokens is not None and self.privileged is None:
            needed += self.collector.reserved_tokens(attempt.episode.task)
            if attempt.episode.preface:  # around the block there are other texts than without one
                blocks = [len(chat.privileged("x")) for chat in (attempt.conversation.chat, self.policy.chat)]
                needed += max(0, blocks[0] - blocks[1])
        return needed

    def _respond(self, live: dict[int, _RolloutState], generator: ResponseGenerator) -> dict[int, list[int]]:
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
        turns = {slot: self._record(attempt, responses[slot], log_probs(slot)) for slot, attempt in live.items()}
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

    def _record(self, attempt: _RolloutState, response_ids: list[int], log_probs: list[float] | None) -> Turn:
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


def last_turns(turns: Sequence[Turn], count: int) -> list[PastTurn]:
    """The last ``count`` turns as a window prompt shows them, oldest first."""
    return [PastTurn(turn.observation.text, turn.action) for turn in turns[max(0, len(turns) - count) :]]


def waves(total: int, limit: int) -> list[range]:
    """Cut 0 .. total - 1 into the fewest consecutive waves of at most ``limit``; sizes differ by at most 1."""
    count = -(-total // limit)
    return [range(total * wave // count, total * (wave + 1) // count) for wave in range(count)]


def first_error(episodes: Sequence[Episode]) -> str | None:
    """Task and error of the first episode that an error ended; None: there is none."""
    failed = next((episode for episode in episodes if episode.end.is_error), None)
    return None if failed is None else f"task {printable(failed.task.task_id)}: {failed.error}"


def report_troubles(episodes: Sequence[Episode]) -> None:
    """Log one warning for errors, and one for first prompts that did not fit."""
    total = len(episodes)
    if failed := [episode for episode in episodes if episode.end.is_error]:
        log.warning("%d of %d episodes ended by an error; the first: %s", len(failed), total, first_error(failed))
    if unread := [episode for episode in episodes if episode.end is EndReason.CONTEXT_FULL and not episode.turns]:
        task = printable(unread[0].task.task_id)
        log.warning("%d of %d episodes had no room for a first response; the first: task %s", len(unread), total, task)
