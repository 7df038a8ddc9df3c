"""Plain computations that the package does in another way: references for its results."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sdar.objective.tokens import TokenScores


def naive_score_tokens(
    model: PreTrainedModel,
    ids: Tensor,
    attention_mask: Tensor,
    score_mask: Tensor,
    *,
    temperature: float = 1.0,
    entropy: bool = False,
) -> TokenScores:
    """The scores of ``score_tokens`` from the model's full logits [B, T, V]: short and wasteful."""
    positions = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=attention_mask, position_ids=positions, use_cache=False).logits
    log_p = torch.log_softmax(logits[:, :-1].float() / temperature, dim=-1)
    taken = log_p.gather(-1, ids[:, 1:, None]).squeeze(-1)
    spread = -(log_p.exp() * log_p).sum(-1)
    first = torch.zeros_like(taken[:, :1])

    def place(values: Tensor) -> Tensor:
        return torch.cat([first, torch.where(score_mask[:, 1:], values, 0.0)], dim=1)

    return TokenScores(place(taken), place(spread) if entropy else None)
