"""The prompts of episodes: the longest that fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sdar.environments.base import Environment, PastTurn
from sdar.environments.tools import as_text
from sdar.episode import EndReason, Observation, StepOutcome, Task, Turn
from sdar.output.printable import printable
from sdar.rollout.answers import checked_preface, checked_prompt
from sdar.rollout.conversation import AppendConversation, Prompt, WindowConversation
from sdar.rollout.guard import GuardedPool
from sdar.rollout.live import LiveEpisode
from sdar.rollout.requests import EpisodeRequest
from sdar.rollout.settings import RolloutSettings

if TYPE_CHECKING:
    from sdar.policy.language_model import LanguageModel


class Attempt(LiveEpisode):
    """A live episode with its conversation and the prompt to feed next."""

    conversation: WindowConversation
    prompt: Prompt
    dropped_turns = 0


@dataclass
class PromptWriter:
    """Starts episodes and writes their prompts, each so that a response of full length fits behind it.

    Its arguments are those of :class:`sdar.rollout.collector.Collector`; ``privileged`` is that of ``collect``.
    """

    policy: LanguageModel
    environment: Environment
    settings: RolloutSettings
    reserved_tokens: Callable[[Task], int] | None = None
    privileged: Callable[[Task, int], str] | None = None

    @property
    def window(self) -> bool:
        """Whether every turn has a fresh prompt."""
        return self.settings.context == "window"

    def begin(self, requests: Sequence[EpisodeRequest], pool: GuardedPool) -> list[Attempt]:
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
                if len(as_text(preface)) > self.policy.most_characters:
                    live.pop(slot).finish(EndReason.CONTEXT_FULL)
                else:
                    live[slot].conversation.chat = chat = self.policy.chat.prefaced(preface)
                    if not self.window:
                        chat.check_append()
        self.prepare(live, pool)
        return attempts

    def prepare(self, attempts: Mapping[int, Attempt], pool: GuardedPool) -> None:
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

    def refusal(self, attempt: Attempt) -> str | None:
        """Why the first prompt of an episode does not fit, in a sentence; None: it does, or there is none."""
        if attempt.live or attempt.episode.end is not EndReason.CONTEXT_FULL:
            return None
        text, longest = attempt.episode.opening, self.settings.sampling.max_response_tokens
        task = printable(attempt.episode.task.task_id)
        characters = len(as_text(attempt.episode.preface)) + len(text)
        context, limit = self.policy.context_tokens, self.settings.max_prompt_tokens if self.window else None
        if characters > self.policy.most_characters:
            needs = f"has {characters} characters"
        else:
            prompt = attempt.conversation.prompt(text)
            needed, own = self._needed(attempt, prompt), len(prompt.ids)
            if limit is not None and own > limit and needed <= context:
                return (
                    f"rollout.max_prompt_tokens must leave room for a first prompt, got {limit}: that of task {task} "
                    f"has {own} tokens"
                )
            reserved = needed - own - longest
            teacher = f" and the teacher's text of {reserved}" if reserved else ""
            needs = f"has {own} tokens, and needs {needed} with a response of {longest}{teacher}"
        return (
            f"the model {self.policy.name!r} has a context of {context} tokens here, but the first prompt of task "
            f"{task} {needs}; use a model with a longer context, or lower rollout.sampling.max_response_tokens"
        )

    def _open(self, request: EpisodeRequest, start: Observation | StepOutcome) -> Attempt:
        """The attempt without a prompt; it has already ended if it could not start."""
        attempt = Attempt(request.task, request.member, start)
        privileged = self.privileged(request.task, request.member) if self.privileged is not None else None
        kind = WindowConversation if self.window else AppendConversation
        attempt.conversation = kind(self.policy.chat, privileged)
        return attempt

    def _take(self, attempt: Attempt, text: str | StepOutcome, dropped: int) -> bool:
        """Whether this settles the attempt: the text becomes its prompt, or is an error that ends it."""
        if isinstance(text, StepOutcome):
            attempt.finish(EndReason.ERROR_ENVIRONMENT, text)
            return True
        if not attempt.episode.turns:
            attempt.episode.opening = text
        results = attempt.observation.results
        characters = max(len(text), sum(map(len, results)))
        if characters > self.policy.context_tokens and characters > self.policy.most_characters:
            return False  # tokenizing it would take a second and 180 MB per million characters
        prompt = attempt.conversation.prompt(text, results)
        if not self._fits(attempt, prompt):
            return False
        attempt.prompt, attempt.dropped_turns = prompt, dropped
        return True

    def _texts(self, attempt: Attempt) -> list[Callable[[], str]]:
        """Ways to write the next user message, the preferred one first; in window mode each shows one turn less."""
        environment, task, seen = self.environment, attempt.episode.task, attempt.observation
        step = len(attempt.episode.turns)
        if not self.window:
            return [partial(environment.reply, seen) if step else partial(environment.opening, task, seen)]
        past = last_turns(attempt.episode.turns, self.settings.history_turns)
        return [partial(environment.window_prompt, task, past[n:], seen, step) for n in range(len(past) + 1)]

    def _fits(self, attempt: Attempt, prompt: Prompt) -> bool:
        """Whether the prompt is within its limit, and fits into the context with a response of full length."""
        limit = self.settings.max_prompt_tokens if self.window else None
        if limit is not None and len(prompt.ids) - prompt.privileged_tokens > limit:
            return False
        return self._needed(attempt, prompt) <= self.policy.context_tokens

    def _needed(self, attempt: Attempt, prompt: Prompt) -> int:
        """Tokens of the context with the prompt, a response of full length, and what is reserved for the teacher."""
        needed = attempt.conversation.length + len(prompt.ids) + self.settings.sampling.max_response_tokens
        # If the block is already in the prompt, its tokens are counted with the prompt's.
        if self.reserved_tokens is not None and self.privileged is None:
            needed += self.reserved_tokens(attempt.episode.task)
            if attempt.episode.preface:  # around the block there are other texts than without one
                blocks = [len(chat.privileged("x")) for chat in (attempt.conversation.chat, self.policy.chat)]
                needed += max(0, blocks[0] - blocks[1])
        return needed


def last_turns(turns: Sequence[Turn], count: int) -> list[PastTurn]:
    """The last ``count`` turns as a window prompt shows them, oldest first."""
    return [PastTurn(turn.observation.text, turn.action) for turn in turns[max(0, len(turns) - count) :]]
