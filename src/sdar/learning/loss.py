"""UPDATE: the loss of a micro-batch at the current weights. Token-local: whole episodes were seen in PREPARE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sdar.learning.batch import TeacherRows, TokenBatch, align
from sdar.objective.chunked_head import TeacherStates
from sdar.objective.full_vocabulary import FullVocabularyDivergence
from sdar.objective.objective import ObjectiveConfig, token_losses, total_loss
from sdar.policy.log_probs import TokenScores, plain_head, score_tokens, token_states
from sdar.teacher.weights import TeacherModel


@dataclass(frozen=True)
class UpdateTeacher:
    """The teacher of a micro-batch while the student is updated.

    ``rows``   the micro-batch's rows with the privileged block in their context, on the student's device
    ``model``  whose weights the teacher has
    ``kept``   the teacher as it was before the update; None: it is asked now
    """

    rows: TeacherRows
    model: TeacherModel
    kept: TeacherStates | None = None

    def states(self, temperature: float) -> TeacherStates:
        """Hidden states of all response tokens, row by row, and the head."""
        if self.kept is not None:
            return self.kept
        with self.model.model() as model:
            return TeacherStates(token_states(model, *self.rows), plain_head(model, temperature))

    def log_probs(self, student_mask: Tensor, temperature: float) -> Tensor:
        """Log-probs [B, T] of the response tokens, at the student's positions."""
        with self.model.model() as model:
            scores = score_tokens(model, *self.rows, temperature=temperature)
        return align(scores.log_probs, self.rows.response_mask, student_mask)


def micro_batch_loss(
    model: PreTrainedModel,
    batch: TokenBatch,
    objective: ObjectiveConfig,
    *,
    temperature: float,
    denominators: Mapping[str, float],
    teacher: UpdateTeacher | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Share of the optimiser step's loss that these rows have, with gradient, and the sums of their figures.

    Args:
        model: the student.
        batch: rows on the model's device; there may be none.
        objective: terms and coefficients.
        temperature: > 0, the sampling temperature.
        denominators: tokens that each term counts in the whole step, over all micro-batches and ranks.
        teacher: the teacher of these rows, to be asked again; None: its log-probs of the batch are enough.

    Returns:
        The loss, 0-dim, and tag -> sum over the response tokens (``tokens`` is their number). Without rows the model
        still runs, on tokens that are not scored: the loss is 0, every parameter gets a gradient of 0 and every figure
        a sum of 0. So a rank that has nothing to learn from takes part in what the ranks do together.
    """
    full = objective.divergence if isinstance(objective.divergence, FullVocabularyDivergence) else None
    if len(batch) > 0:
        states = None
        if teacher is not None and full is not None:
            states = teacher.states(temperature)
        elif teacher is not None:
            batch = replace(batch, teacher_log_probs=teacher.log_probs(batch.response_mask, temperature))
        scores = score_tokens(
            model,
            batch.ids,
            batch.attention_mask,
            batch.response_mask,
            temperature=temperature,
            entropy=objective.wants_entropy,
            teacher=states,
            divergence=None if states is None else full,
        )
        if scores.teacher_log_probs is not None:
            # Gap and gate are those of the teacher that the divergence is taken from.
            batch = replace(batch, teacher_log_probs=scores.teacher_log_probs)
    else:
        ids = batch.ids.new_zeros(1, 2)
        nobody = TeacherRows(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool))
        if teacher is not None:
            replace(teacher, rows=nobody).log_probs(nobody.response_mask, temperature)
        nothing = score_tokens(model, *nobody).log_probs.sum()
        empty = nothing.expand(batch.ids.shape)
        scores = TokenScores(
            empty, empty if objective.wants_entropy else None, None if full is None or teacher is None else empty
        )
    losses = token_losses(scores, batch, objective)
    figures = torch.stack([value.float() for value in losses.diagnostics.values()]).tolist()
    # Where nothing but imitated rows is left to learn from, these rows (there are none) have no term.
    terms = any(objective.coefficients().values())
    loss = total_loss(losses, denominators, objective) if terms else scores.log_probs.sum()
    return loss, dict(zip(losses.diagnostics, figures, strict=True))
