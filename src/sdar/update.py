"""UPDATE: the loss of a micro-batch at the current weights. Token-local: whole episodes were seen in PREPARE."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sdar.batch import TokenBatch
from sdar.objective.objective import ObjectiveConfig, token_losses, total_loss
from sdar.policy.log_probs import TokenScores, score_tokens


def micro_batch_loss(
    model: PreTrainedModel,
    batch: TokenBatch,
    objective: ObjectiveConfig,
    *,
    temperature: float,
    denominators: Mapping[str, float],
) -> tuple[Tensor, dict[str, float]]:
    """Share of the optimiser step's loss that these rows have, with gradient, and the sums of their figures.

    Args:
        model: the student.
        batch: rows on the model's device; there may be none.
        objective: terms and coefficients.
        temperature: > 0, the sampling temperature.
        denominators: tokens that each term counts in the whole step, over all micro-batches and ranks.

    Returns:
        The loss, 0-dim, and tag -> sum over the response tokens (``tokens`` is their number). Without rows the model
        still runs, on tokens that are not scored: the loss is 0, every parameter gets a gradient of 0 and every figure
        a sum of 0. So a rank that has nothing to learn from takes part in what the ranks do together.
    """
    wants_entropy = objective.entropy_coefficient != 0
    if len(batch) > 0:
        scores = score_tokens(
            model,
            batch.ids,
            batch.attention_mask,
            batch.response_mask,
            temperature=temperature,
            entropy=wants_entropy,
        )
    else:
        ids = batch.ids.new_zeros(1, 2)
        nothing = score_tokens(
            model, ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
        )
        empty = nothing.log_probs.sum().expand(batch.ids.shape)
        scores = TokenScores(empty, empty if wants_entropy else None)
    losses = token_losses(scores, batch, objective)
    figures = torch.stack([value.float() for value in losses.diagnostics.values()]).tolist()
    return total_loss(losses, denominators, objective), dict(zip(losses.diagnostics, figures, strict=True))
