"""Responses by vLLM, turn by turn: token ids in, token ids out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sdar.rollout.settings import SamplingConfig
from sdar.rollout.vllm.engine import Engine, check_installed
from sdar.rollout.vllm.interface import SamplingEngine
from sdar.rollout.vllm.server import VllmServer
from sdar.rollout.vllm.settings import VllmSettings

if TYPE_CHECKING:
    from sdar.policy.language_model import LanguageModel

_SEEDS = 2**31


class VllmGenerator:
    """A :class:`sdar.rollout.sampling.ResponseGenerator` on an engine.

    A conversation is kept as ids and sent whole; the engine's prefix cache knows what it has read. The seed of a
    response comes from the first of its uniforms, so it is named by the run's seed, task, member and turn; that the
    same seed gives the same tokens is vLLM's to keep.
    """

    def __init__(self, engine: SamplingEngine, policy: LanguageModel, sampling: SamplingConfig) -> None:
        self._engine = engine
        self._sampling = sampling
        self._ends = sorted(policy.chat.end_ids)
        self._conversations: list[list[int]] = []
        self._log_probs: dict[int, list[float]] = {}

    def start(self, num_slots: int) -> None:
        """Open empty conversations."""
        self._conversations = [[] for _ in range(num_slots)]

    def respond(
        self, new_ids: Mapping[int, Sequence[int]], uniforms: Mapping[int, NDArray[np.float64]]
    ) -> dict[int, list[int]]:
        """Sample one response per given slot, the end token included where it was sampled."""
        for slot, ids in new_ids.items():
            self._conversations[slot] += ids
        prompts = [self._conversations[slot] for slot in new_ids]
        seeds = [int(uniforms[slot][0] * _SEEDS) for slot in new_ids]
        responses = {}
        for slot, said in zip(new_ids, self._engine.sample(prompts, seeds, self._sampling, self._ends), strict=True):
            responses[slot], self._log_probs[slot] = said.ids, said.log_probs
            self._conversations[slot] += said.ids
        return responses

    def log_probs(self, slot: int) -> list[float]:
        """Of the slot's last response, as they were sampled from: after temperature and filters, nats."""
        return self._log_probs[slot]

    def another(self) -> VllmGenerator:
        """One for other conversations on the same engine."""
        other = copy(self)
        other._conversations, other._log_probs = [], {}
        return other

    def close(self) -> None:
        """Let the engine rest."""
        self._engine.rest()


@dataclass
class VllmFactory:
    """A generator factory whose engine is made at its first use and takes the policy's weights at every use.

    ``engine``: one that there is already; None: it is built, or the client of a server.

    Raises UserError where vLLM is missing but no server is named.
    """

    settings: VllmSettings
    most_episodes: int
    engine: SamplingEngine | None = None

    def __post_init__(self) -> None:
        if self.settings.url is None:
            check_installed()

    def __call__(self, policy: LanguageModel, sampling: SamplingConfig) -> VllmGenerator:
        """A generator with the policy's present weights."""
        if self.engine is None:
            kind = Engine if self.settings.url is None else VllmServer
            self.engine = kind(policy, self.settings, self.most_episodes)
        self.engine.take_weights(policy)
        return VllmGenerator(self.engine, policy, sampling)
