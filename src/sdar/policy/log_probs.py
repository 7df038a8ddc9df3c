"""Log-probabilities of given tokens: the one function that scores student, old, teacher and reference.

Everything after the output head is float32 whatever the model's dtype, and the logits of a batch never exist at
once: the head runs on the scored positions only, a chunk at a time, and is run again in the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from sdar.policy.forward import hidden_states, logits_from_hidden
from sdar.policy.sharding import one_pass

_CHUNK_LOGITS = 2**26
"""Default size of a chunk of logits: 64 Mi float32 numbers, 256 MiB."""


@dataclass
class TokenScores:
    """Scores of the tokens of a batch, in nats.

    ``log_probs`` [B, T] float32: log-probability of id t given the ids before it; 0 where not scored.
    ``entropy``   [B, T] float32: entropy of the distribution that id t was drawn from (full vocabulary, at the
    scoring temperature); 0 where not scored; None when it was not asked for.
    """

    log_probs: Tensor
    entropy: Tensor | None = None


def score_tokens(
    model: PreTrainedModel,
    ids: Tensor,
    attention_mask: Tensor,
    score_mask: Tensor,
    *,
    temperature: float = 1.0,
    entropy: bool = False,
    chunk_tokens: int | None = None,
) -> TokenScores:
    """Score the masked tokens of a batch; gradients flow to the model where grad is on.

    ids            [B, T] long.
    attention_mask [B, T] bool: real tokens; holes and padding on either side are allowed.
    score_mask     [B, T] bool: tokens to score; each must be a real token with a real token before it, so column 0
                   must be False.
    temperature    > 0: logits are divided by it, so that scores are those of the sampling distribution.
    chunk_tokens   scored tokens whose logits exist at once; None: as many as fit in 256 MiB of float32 logits.

    Raises ValueError for a temperature that is not positive or a scored first column.
    """
    _check(temperature, score_mask)
    log_probs, spread = one_pass(
        model, lambda: _scores(model, ids, attention_mask, score_mask, temperature, entropy, chunk_tokens)
    )
    return TokenScores(log_probs, spread)


def _scores(
    model: PreTrainedModel,
    ids: Tensor,
    attention_mask: Tensor,
    score_mask: Tensor,
    temperature: float,
    entropy: bool,
    chunk_tokens: int | None,
) -> tuple[Tensor, Tensor | None]:
    """Log-probs and entropies [B, T]."""
    hidden = _hidden(model, ids, attention_mask)
    # Id t is predicted from the hidden state at t - 1; boolean indexing keeps row-major order on both sides.
    selected = hidden[:, :-1][score_mask[:, 1:]]  # [N, H]
    targets = ids[score_mask]  # [N]
    if chunk_tokens is None:
        chunk_tokens = max(1, _CHUNK_LOGITS // model.config.get_text_config().vocab_size)
    # With a single chunk there is nothing to save: recomputing it needs the same memory again.
    recompute = torch.is_grad_enabled() and selected.shape[0] > chunk_tokens

    def score(chunk: Tensor, chunk_targets: Tensor) -> tuple[Tensor, Tensor]:
        return _score_logits(logits_from_hidden(model, chunk), chunk_targets, temperature, entropy)

    parts: list[tuple[Tensor, Tensor]] = []
    for start in range(0, max(1, selected.shape[0]), chunk_tokens):
        pieces = selected[start : start + chunk_tokens], targets[start : start + chunk_tokens]
        if recompute:
            parts.append(checkpoint(score, *pieces, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(score(*pieces))
    return (
        _scatter(score_mask, [part[0] for part in parts]),
        _scatter(score_mask, [part[1] for part in parts]) if entropy else None,
    )


def naive_score_tokens(
    model: PreTrainedModel,
    ids: Tensor,
    attention_mask: Tensor,
    score_mask: Tensor,
    *,
    temperature: float = 1.0,
    entropy: bool = False,
) -> TokenScores:
    """The same scores through the model's full logits [B, T, V]: short, wasteful, the reference for tests."""
    _check(temperature, score_mask)
    logits = model(
        input_ids=ids, attention_mask=attention_mask, position_ids=_positions(attention_mask), use_cache=False
    ).logits
    log_p = torch.log_softmax(logits[:, :-1].float() / temperature, dim=-1)
    taken = log_p.gather(-1, ids[:, 1:, None]).squeeze(-1)
    spread = -(log_p.exp() * log_p).sum(-1)
    scored = score_mask[:, 1:]
    first = torch.zeros_like(taken[:, :1])

    def place(values: Tensor) -> Tensor:
        return torch.cat([first, torch.where(scored, values, 0.0)], dim=1)

    return TokenScores(place(taken), place(spread) if entropy else None)


def _check(temperature: float, score_mask: Tensor) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature must be positive to score tokens, got {temperature}")
    if bool(score_mask[:, 0].any()):
        raise ValueError("the first token of a row has no token before it and cannot be scored")


def _hidden(model: PreTrainedModel, ids: Tensor, attention_mask: Tensor) -> Tensor:
    padded_right_only = not bool((attention_mask[:, 1:] & ~attention_mask[:, :-1]).any())
    if padded_right_only:
        # A causal model never looks to the right, so padding there needs no mask: the plain causal kernels apply.
        return hidden_states(model, ids, use_cache=False)
    return hidden_states(
        model, ids, attention_mask=attention_mask, position_ids=_positions(attention_mask), use_cache=False
    )


def _positions(attention_mask: Tensor) -> Tensor:
    """Position of each real token among the real tokens of its row, 0 for masked ones before the first."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def _score_logits(logits: Tensor, targets: Tensor, temperature: float, entropy: bool) -> tuple[Tensor, Tensor]:
    """Log-probs [N] and entropies [N] (zeros unless asked for) from float32 logits [N, V]."""
    if temperature != 1.0:
        logits = logits / temperature
    normaliser = torch.logsumexp(logits, dim=-1)
    log_probs = logits.gather(-1, targets[:, None]).squeeze(-1) - normaliser
    if not entropy:
        return log_probs, torch.zeros_like(log_probs)
    mean_logit = (torch.softmax(logits, dim=-1) * logits).sum(-1)
    return log_probs, normaliser - mean_logit


def _scatter(mask: Tensor, parts: list[Tensor]) -> Tensor:
    values = torch.cat(parts)
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)
