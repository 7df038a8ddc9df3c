"""Whether an engine has the policy's weights: both score one text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdar.errors import RunFailed
from sdar.policy.forward import evaluation_mode
from sdar.policy.log_probs import score_tokens
from sdar.rollout.vllm.interface import SamplingEngine

if TYPE_CHECKING:
    from sdar.policy.language_model import LanguageModel

_TEXT = "You are in the middle of a room. Looking quickly around you, you see a bed, a desk, a shelf and a lamp."
"""One that models expect: of what surprises them, 16 bits leave the log-probs less exact."""
_TOKENS = 64
SAMPLED_TOKENS = 16
"""That may be sampled behind the text."""


def check_same_weights(engine: SamplingEngine, policy: LanguageModel, max_mismatch: float) -> None:
    """RunFailed where the log-probs of both differ by more than ``max_mismatch`` nats a token."""
    ids = probe_ids(policy)
    theirs = torch.tensor(engine.prompt_log_probs(ids))
    distance = float((theirs - policy_log_probs(policy, ids)).abs().mean())
    if not distance <= max_mismatch:
        raise RunFailed(
            f"vLLM's log-probs differ from the policy's by {distance:.2g} nats a token after its weights were handed "
            f"over, and rollout.vllm.max_mismatch={max_mismatch:g}: {engine.suspicion}"
        )


def probe_ids(policy: LanguageModel) -> list[int]:
    """The text that is scored, in the policy's chat format."""
    return list(policy.chat.opening(_TEXT)[0])[: min(_TOKENS, policy.context_tokens - SAMPLED_TOKENS)]


def policy_log_probs(policy: LanguageModel, ids: Sequence[int], temperature: float = 1.0) -> Tensor:
    """Of the tokens of a text but its first under the policy, [len(ids) - 1] float32 on the CPU, nats."""
    row = torch.tensor([ids], device=policy.model.device)
    scored = torch.ones_like(row, dtype=torch.bool)
    scored[:, 0] = False
    with torch.no_grad(), evaluation_mode(policy.model):
        scores = score_tokens(policy.model, row, torch.ones_like(scored), scored, temperature=temperature)
    return scores.log_probs[0, 1:].float().cpu()
