"""Sampling of responses: the uniforms of a turn, and the interface of a response generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from sdar.randomness import keyed_generator
from sdar.rollout.settings import DecodeSettings, RolloutSettings, SamplingConfig

if TYPE_CHECKING:
    from sdar.policy.language_model import LanguageModel


class ResponseGenerator(Protocol):
    """Samples one response per live slot and turn, and keeps the context (see ``policy.generation.TurnGenerator``)."""

    def start(self, num_slots: int) -> None:
        """Reset; slots 0 .. num_slots - 1 begin with an empty context."""

    def respond(
        self, new_ids: Mapping[int, Sequence[int]], uniforms: Mapping[int, NDArray[np.float64]]
    ) -> dict[int, list[int]]:
        """Feed the new ids of each live slot and sample one response; slots that are left out have ended.

        ``uniforms``: per slot [max_response_tokens] float64 in [0, 1), one per sampled token.
        """

    def log_probs(self, slot: int) -> list[float] | None:  # noqa: ARG002
        """Of the slot's last response as it was sampled, nats, one per token; None: the policy's scores are the same.

        The same up to rounding, that is, with the same weights in the same precision.
        """
        return None

    def close(self) -> None:
        """Free what it holds; nothing is sampled afterwards."""

    def another(self) -> ResponseGenerator:
        """One for other conversations, with the same weights and settings; it is closed by itself."""


GeneratorFactory = Callable[["LanguageModel", SamplingConfig], ResponseGenerator]


def generators(settings: RolloutSettings) -> GeneratorFactory:
    """The factory that ``rollout.backend`` names. UserError: it is not installed."""
    if settings.backend == "own":
        if settings.decode == DecodeSettings():
            return turn_generator
        return partial(turn_generator, decode=settings.decode)
    from sdar.rollout.vllm.generator import VllmFactory

    return VllmFactory(settings.vllm, settings.max_concurrent_episodes)


def turn_generator(
    policy: LanguageModel, sampling: SamplingConfig, decode: DecodeSettings | None = None
) -> ResponseGenerator:
    """The default factory: the model's own decode loop with a KV cache kept across turns."""
    from sdar.policy.generation import TurnGenerator

    return TurnGenerator(
        policy.model,
        pad_id=policy.pad_id,
        end_ids=policy.chat.end_ids,
        windows=policy.windows,
        compute_dtype=policy.compute_dtype,
        **asdict(decode or DecodeSettings()),
        **asdict(sampling),
    )


def turn_uniforms(
    seed: int, key: tuple[int | str, ...], task_id: str, member: int, turn: int, count: int
) -> NDArray[np.float64]:
    """The uniforms [count] float64 in [0, 1) that decide one turn's tokens, a function of the arguments alone."""
    return keyed_generator(seed, *key, task_id, member, turn, "sample").random(count)
