"""The collector: plays tasks with the policy and returns episodes of turns.

Episodes are played in waves of at most ``max_concurrent_episodes``, cut from the order of the requests alone: timing
never changes which episodes share a wave. Every sampled token is decided by a uniform keyed by (seed, key, task,
member, turn), so the tokens of an episode do not depend on its wave, its neighbors or their number. (The logits are
equal up to the rounding of batched float arithmetic.)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdar.environments.base import Environment
from sdar.episode import EndReason, Episode, Task
from sdar.errors import UserError
from sdar.rollout.guard import GuardedPool
from sdar.rollout.play import CollectProgress, EpisodeRequest, Rollout
from sdar.rollout.sampling import GeneratorFactory, turn_generator
from sdar.rollout.settings import RolloutSettings

if TYPE_CHECKING:
    from sdar.policy.language_model import LanguageModel

__all__ = ["CollectProgress", "CollectedRollouts", "Collector", "EpisodeRequest"]

log = logging.getLogger(__name__)


@dataclass
class CollectedRollouts:
    """Episodes in the order of the requests; ``timings`` in seconds: ``generate_s``, ``environment_s``."""

    episodes: list[Episode]
    timings: dict[str, float]


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

    def __init__(
        self,
        policy: LanguageModel,
        environment: Environment,
        settings: RolloutSettings,
        reserved_tokens: Callable[[Task], int] | None = None,
        generator_factory: GeneratorFactory = turn_generator,
    ) -> None:
        if settings.context == "append":
            policy.chat.check_append()
        longest = settings.sampling.max_response_tokens
        if longest >= policy.context_tokens:
            raise UserError(
                f"rollout.sampling.max_response_tokens must be < {policy.context_tokens}, the model's context in "
                f"tokens, got {longest}"
            )
        self.policy = policy
        self.environment = environment
        self.settings = settings
        self.reserved_tokens = reserved_tokens
        self._generator_factory = generator_factory

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
            progress: called after every turn of a wave.

        An exception or an error outcome of the environment ends its episode with a typed reason and affects no other.
        Errors of the model and interrupts are raised; the pool is closed in all cases.
        """
        names = [(request.task.task_id, request.member) for request in requests]
        if len(set(names)) != len(names):
            raise ValueError("requests must be pairwise different in (task, member)")
        rollout = Rollout(
            self.policy,
            self.environment,
            self.settings,
            self.reserved_tokens,
            seed,
            key,
            privileged,
            progress,
            total=len(requests),
        )
        episodes: list[Episode] = []
        if requests:
            generator = self._generator_factory(self.policy, self.settings.sampling)
            with rollout.clock("environment_s"):
                pool = GuardedPool(self.environment)
            with pool:
                for wave in waves(len(requests), self.settings.max_concurrent_episodes):
                    episodes += rollout.play([requests[index] for index in wave], pool, generator)
        _report_troubles(episodes)
        return CollectedRollouts(episodes, rollout.timings)


def waves(total: int, limit: int) -> list[range]:
    """Cut 0 .. total - 1 into the fewest consecutive waves of at most ``limit``; sizes differ by at most 1."""
    count = -(-total // limit)
    return [range(total * wave // count, total * (wave + 1) // count) for wave in range(count)]


def _report_troubles(episodes: Sequence[Episode]) -> None:
    """Log one warning for errors, and one for first prompts that did not fit."""
    failed = [episode for episode in episodes if episode.end.is_error]
    if failed:
        first = failed[0]
        log.warning(
            "%d of %d episodes ended by an error; the first: task %s: %s",
            len(failed), len(episodes), first.task.task_id, first.error,
        )  # fmt: skip
    unread = [episode for episode in episodes if episode.end is EndReason.CONTEXT_FULL and not episode.turns]
    if unread:
        log.warning(
            "%d of %d episodes had no room for a first response; the first: task %s",
            len(unread), len(episodes), unread[0].task.task_id,
        )  # fmt: skip
