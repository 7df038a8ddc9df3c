"""The collector: plays tasks with the policy and returns episodes of turns.

Episodes are played in waves of at most ``max_concurrent_episodes``, cut from the order of the requests alone: timing
never changes which episodes share a wave. Every sampled token is decided by a uniform keyed by (seed, key, task,
member, turn), so the tokens of an episode do not depend on its wave, its neighbors or their number. (The logits are
equal up to the rounding of batched float arithmetic.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdar.environments.base import Environment
from sdar.episode import Episode, Task
from sdar.errors import UserError
from sdar.rollout.guard import GuardedPool
from sdar.rollout.playing import Playing
from sdar.rollout.prompting import PromptWriter
from sdar.rollout.requests import CollectedRollouts, CollectProgress, EpisodeRequest
from sdar.rollout.sampling import GeneratorFactory, generators, turn_generator
from sdar.rollout.settings import RolloutSettings
from sdar.rollout.troubles import report_troubles
from sdar.rollout.waves import waves

if TYPE_CHECKING:
    from sdar.policy.language_model import LanguageModel

__all__ = ["CollectProgress", "CollectedRollouts", "Collector", "EpisodeRequest"]


@dataclass(eq=False, repr=False)
class Collector:
    """Plays episodes of an environment with a policy.

    Args:
        policy: model, tokenizer and chat format; its weights are read at every collection.
        environment: owner of the tasks' prompts, actions and pools.
        settings: how episodes are played and responses sampled.
        reserved_tokens: context tokens that an episode of a task leaves free, so that the teacher's block fits in front
            of it; None: none. An episode that would need them ends as ``context_full``.
        generator_factory: makes the response generator of a collection; the default is the one that
            ``settings.backend`` and ``settings.decode`` name.

    Raises UserError for a response limit that leaves no room for a prompt, for ``context=append`` with a chat template
    whose turns cannot be appended, or for a backend that is not installed.
    """

    policy: LanguageModel
    environment: Environment
    settings: RolloutSettings
    reserved_tokens: Callable[[Task], int] | None = None
    generator_factory: GeneratorFactory = turn_generator

    def __post_init__(self) -> None:
        if self.generator_factory is turn_generator:
            self.generator_factory = generators(self.settings)
        if self.settings.context == "append":
            self.policy.chat.check_append()
        longest = self.settings.sampling.max_response_tokens
        if longest >= self.policy.context_tokens:
            raise UserError(
                f"rollout.sampling.max_response_tokens must be < {self.policy.context_tokens}, the model's context in "
                f"tokens, got {longest}"
            )

    def check_room(self, tasks: Sequence[Task]) -> None:
        """UserError if none of these tasks has a first prompt that leaves room for a response of full length."""
        prompts = self._prompts()
        with GuardedPool(self.environment, self.settings.environment_timeout_s) as pool:
            attempts = prompts.begin([EpisodeRequest(task, 0) for task in tasks], pool)
        refusals = [prompts.refusal(attempt) for attempt in attempts]
        if refusals and refusals[0] is not None and None not in refusals:
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
        playing = Playing(self._prompts(privileged), seed, key, len(requests), progress)
        episodes: list[Episode] = []
        # An engine takes the weights; sharded ones are put together by all ranks, also by one without an episode.
        if requests or self.settings.backend == "vllm":
            generator = self.generator_factory(self.policy, self.settings.sampling)
            with playing.clock("environment_s"):
                pool = GuardedPool(self.environment, self.settings.environment_timeout_s)
            with pool, ExitStack() as opened:
                generators = [opened.enter_context(closing(generator))]
                # Without a limit the environment runs in this very thread, and nothing can overlap.
                if self.settings.overlap and self.settings.environment_timeout_s is not None:
                    generators.append(opened.enter_context(closing(generator.another())))
                for wave in waves(len(requests), self.settings.max_concurrent_episodes):
                    episodes += playing.play([requests[index] for index in wave], pool, generators)
        report_troubles(episodes)
        return CollectedRollouts(episodes, playing.timings)

    def _prompts(self, privileged: Callable[[Task, int], str] | None = None) -> PromptWriter:
        return PromptWriter(self.policy, self.environment, self.settings, self.reserved_tokens, privileged)
