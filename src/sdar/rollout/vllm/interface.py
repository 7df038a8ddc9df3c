"""What rollouts need from a vLLM engine, wherever it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sdar.rollout.settings import SamplingConfig

if TYPE_CHECKING:
    from sdar.policy.language_model import LanguageModel


@dataclass(frozen=True)
class Sampled:
    """A response: token ids, the end token included where it was sampled, and their log-probs as sampled, nats."""

    ids: list[int]
    log_probs: list[float]


class SamplingEngine(Protocol):
    """An engine with the weights that the policy had at the last :meth:`take_weights`.

    ``suspicion``  the likely reason where its log-probs are not the policy's
    """

    suspicion: str

    def take_weights(self, policy: LanguageModel) -> None:
        """Take over the policy's present weights. RunFailed: its log-probs say that they did not arrive."""

    def sample(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: SamplingConfig, ends: Sequence[int]
    ) -> list[Sampled]:
        """One response to each prompt of token ids, in their order; ``ends``: the tokens that end one."""

    def prompt_log_probs(self, ids: Sequence[int]) -> list[float]:
        """Of the tokens of a text but its first, temperature 1, nats."""

    def rest(self) -> None:
        """Give memory back until the next weights, where that is wanted."""
