"""Log-probabilities of given tokens: one function scores student, old, teacher and reference.

Everything after the output head is float32 regardless of the model's dtype. The logits of a batch never exist at once:
the head runs on the scored positions only, a chunk at a time, and runs again in the backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from sdar.errors import UserError
from sdar.objective.chunked_head import (
    HeadScores,
    OutputHead,
    TeacherStates,
    chunk_tokens_of,
    chunked_scores,
    score_logits,
)
from sdar.objective.full_vocabulary import FullVocabularyDivergence
from sdar.objective.tokens import TokenScores
from sdar.policy.forward import hidden_states, logits_from_hidden, output_head, vocabulary_size
from sdar.policy.sharding import one_pass
from sdar.policy.shared_prefixes import SharedRows


def score_tokens(
    model: PreTrainedModel,
    ids: Tensor,
    attention_mask: Tensor,
    score_mask: Tensor,
    *,
    temperature: float = 1.0,
    entropy: bool = False,
    chunk_tokens: int | None = None,
    teacher: TeacherStates | None = None,
    divergence: FullVocabularyDivergence | None = None,
    states: bool = False,
    shared: SharedRows | None = None,
) -> TokenScores:
    """Score the masked tokens of a batch; gradients flow to the model if grad is enabled.

    ids            [B, T] long.
    attention_mask [B, T] bool: real tokens; it may have holes and padding on either side.
    score_mask     [B, T] bool: tokens to score; each must be a real token after a real token, so column 0 must be
                   False.
    temperature    > 0: logits are divided by it, so scores are those of the sampling distribution.
    chunk_tokens   scored tokens whose logits exist at once; None: see :func:`chunk_tokens_of`.
    teacher        the teacher's hidden states for the same tokens, and its head.
    divergence     measured between the two distributions; needs ``teacher``.
    states         whether to return the hidden states, without gradient.
    shared         beginnings that are not computed again, where no gradient is wanted; None: rows are computed whole.

    Raises ValueError for a temperature that is not positive or a scored first column, UserError for a divergence with a
    model whose output head is not a plain linear layer.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0 to score tokens, got {temperature}")
    if bool(score_mask[:, 0].any()):
        raise ValueError("score_mask must be False for the first token of a row, which has no token before it")

    def scores() -> tuple[Tensor | None, ...]:
        hidden, targets = token_states(model, ids, attention_mask, score_mask, shared), ids[score_mask]
        size = chunk_tokens or chunk_tokens_of(vocabulary_size(model), hidden.device)
        head = output_head(model, temperature) if teacher is None else plain_head(model, temperature)
        # Recomputing a single chunk saves nothing: it needs the same memory again.
        if head is not None and (teacher is not None or len(targets) > size):
            found = chunked_scores(
                hidden, head, targets, entropy=entropy, teacher=teacher, divergence=divergence, chunk_tokens=size
            )
        else:
            found = _scores_by_model(model, hidden, targets, temperature, entropy, size)
        placed = (None if values is None else _scatter(score_mask, values) for values in found)
        return *placed, hidden.detach() if states else None

    log_probs, spread, distance, taught, kept = one_pass(model, scores)
    assert log_probs is not None
    return TokenScores(log_probs, spread, distance, taught, kept, math.log(vocabulary_size(model)))


def token_states(
    model: PreTrainedModel,
    ids: Tensor,
    attention_mask: Tensor,
    score_mask: Tensor,
    shared: SharedRows | None = None,
) -> Tensor:
    """Hidden states [N, H] that predict the masked tokens, row by row; see :func:`score_tokens`."""
    if shared is not None and any(shared.tokens):
        return shared.store.states(model, ids, attention_mask, score_mask, shared.tokens)
    padding: dict[str, Tensor] = {}
    # A causal model never attends to the right, so padding there needs no mask and plain causal kernels apply.
    if bool((attention_mask[:, 1:] & ~attention_mask[:, :-1]).any()):
        # Positions count the real tokens of a row; those of masked tokens do not matter.
        positions = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
        padding = {"attention_mask": attention_mask, "position_ids": positions}
    hidden = hidden_states(model, ids, use_cache=False, **padding)
    # Id t is predicted from the hidden state at t - 1; boolean indexing keeps row-major order on both sides.
    return hidden[:, :-1][score_mask[:, 1:]]


def plain_head(model: PreTrainedModel, temperature: float) -> OutputHead:
    """The output head for divergences over the whole vocabulary. UserError unless it is a plain linear layer."""
    head = output_head(model, temperature)
    if head is None:
        raise UserError(
            f"divergence must be sampled or sampled_rkl, because the output head of {type(model).__name__} is not a "
            "plain linear layer, which divergences over the whole vocabulary need"
        )
    return head


def kept_head(model: PreTrainedModel, temperature: float) -> OutputHead:
    """A copy of the output head, which later optimizer steps do not change."""
    head = plain_head(model, temperature)
    bias = None if head.bias is None else head.bias.detach().clone()
    return replace(head, weight=head.weight.detach().clone(), bias=bias)


def _scores_by_model(
    model: PreTrainedModel, hidden: Tensor, targets: Tensor, temperature: float, entropy: bool, size: int
) -> HeadScores:
    """Scores [N] of hidden states [N, H] by the model's own head, ``size`` at a time."""

    def score(chunk: Tensor, chunk_targets: Tensor) -> HeadScores:
        return score_logits(logits_from_hidden(model, chunk, temperature), chunk_targets, entropy=entropy)

    run: Callable[..., HeadScores] = score
    if torch.is_grad_enabled() and len(targets) > size:
        run = partial(checkpoint, score, use_reentrant=False, preserve_rng_state=False)
    parts = [run(*pieces) for pieces in zip(hidden.split(size), targets.split(size), strict=True)]
    spread = torch.cat([part.entropy for part in parts if part.entropy is not None]) if entropy else None
    return HeadScores(torch.cat([part.log_probs for part in parts]), spread)


def _scatter(mask: Tensor, values: Tensor) -> Tensor:
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)
