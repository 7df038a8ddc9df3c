"""How responses are sampled: explicit filters, the uniforms of a turn, what the collector asks of a generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from sdar.errors import UserError
from sdar.randomness import keyed_generator

if TYPE_CHECKING:
    from sdar.policy.language_model import LanguageModel


@dataclass(frozen=True)
class SamplingConfig:
    """Filters of the next-token distribution, all stated, none taken from a model's generation defaults.

    ``temperature`` >= 0, 0 means greedy. ``top_p`` in (0, 1], 1 keeps all. ``top_k`` >= 0, 0 keeps all.
    ``max_response_tokens`` >= 1, the limit of one response, end token included. Raises UserError otherwise.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_response_tokens: int = 512

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise UserError(f"temperature is {self.temperature}, but it must be 0 (greedy) or a positive number")
        if not 0.0 < self.top_p <= 1.0:
            raise UserError(f"top_p is {self.top_p}, but it must lie in (0, 1], where 1 keeps every token")
        if self.top_k < 0:
            raise UserError(f"top_k is {self.top_k}, but it must be 0 (keep every token) or a positive number")
        if self.max_response_tokens < 1:
            raise UserError(f"max_response_tokens is {self.max_response_tokens}, but it must be at least 1")


class ResponseGenerator(Protocol):
    """Samples one response per live slot and turn; keeps what it has read (see ``policy.generation.TurnGenerator``)."""

    def start(self, num_slots: int) -> None:
        """Forget everything; slots 0 .. num_slots - 1 begin with an empty context."""
        ...

    def respond(
        self, new_ids: Mapping[int, Sequence[int]], uniforms: Mapping[int, NDArray[np.float64]]
    ) -> dict[int, list[int]]:
        """Feed the new ids of each live slot and sample one response; slots left out have ended for good.

        ``uniforms``: per slot [max_response_tokens] float64 in [0, 1), one per sampled token.
        """
        ...


GeneratorFactory = Callable[["LanguageModel", SamplingConfig], ResponseGenerator]


def turn_generator(policy: LanguageModel, sampling: SamplingConfig) -> ResponseGenerator:
    """The default factory: the model's own decode loop with a KV cache kept across turns."""
    from sdar.policy.generation import TurnGenerator

    pad_id = policy.tokenizer.pad_token_id
    return TurnGenerator(
        policy.model,
        pad_id=policy.chat.end_id if pad_id is None else pad_id,
        end_id=policy.chat.end_id,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_response_tokens=sampling.max_response_tokens,
    )


def turn_uniforms(
    seed: int, key: tuple[int | str, ...], task_id: str, member: int, turn: int, count: int
) -> NDArray[np.float64]:
    """The uniforms [count] float64 in [0, 1) that decide one turn's tokens: a function of their names alone."""
    return keyed_generator(seed, *key, task_id, member, turn, "sample").random(count)
