"""Responses by vLLM, turn by turn: token ids in, token ids out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sdar.rollout.settings import SamplingConfig
from sdar.rollout.vllm.engine import Engine, check_installed
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

    def __init__(self, engine: Engine, policy: LanguageModel, sampling: SamplingConfig) -> None:
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
        from vllm import SamplingParams

        sampling = self._sampling
        for slot, ids in new_ids.items():
            self._conversations[slot] += ids
        parameters = [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                max_tokens=sampling.max_response_tokens,
                seed=int(uniforms[slot][0] * _SEEDS),
                stop_token_ids=self._ends,
                ignore_eos=True,  # the chat format's end tokens alone
                logprobs=0,
                detokenize=False,
            )
            for slot in new_ids
        ]
        outputs = self._engine.sample([self._conversations[slot] for slot in new_ids], parameters)
        responses = {}
        for slot, output in zip(new_ids, outputs, strict=True):
            (completion,) = output.outputs
            responses[slot] = [int(token) for token in completion.token_ids]
            self._log_probs[slot] = [
                float(entry[token].logprob) for token, entry in zip(responses[slot], completion.logprobs, strict=True)
            ]
            self._conversations[slot] += responses[slot]
        return responses

    def log_probs(self, slot: int) -> list[float]:
        """Of the slot's last response, as they were sampled from: after temperature and filters, nats."""
        return self._log_probs[slot]

    def close(self) -> None:
        """Let the engine rest."""
        self._engine.rest()


@dataclass
class VllmFactory:
    """A generator factory whose engine is built at its first use and takes the policy's weights at every use.

    ``engine``: one that there is already; None: it is built.

    Raises UserError where vLLM is missing.
    """

    settings: VllmSettings
    most_episodes: int
    engine: Engine | None = None

    def __post_init__(self) -> None:
        check_installed()

    def __call__(self, policy: LanguageModel, sampling: SamplingConfig) -> VllmGenerator:
        """A generator with the policy's present weights."""
        if self.engine is None:
            self.engine = Engine(policy, self.settings, self.most_episodes)
        self.engine.take_weights(policy)
        return VllmGenerator(self.engine, policy, sampling)
