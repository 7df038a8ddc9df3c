"""PREPARE: everything of an iteration that is fixed before the first update, with theta_old and without gradient.

Whole episodes and groups are seen here and nowhere later: advantages, the teacher's context, the log-probs of the old,
teacher and reference policies, and the plan of the optimiser steps.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sdar.episode import Episode
from sdar.learning.batch import TeacherRows, TokenBatch, align, pack, pack_teacher
from sdar.learning.step_plan import OptimiserStep, plan_release_steps, plan_row_steps, plan_steps
from sdar.learning.supervision import SupervisedSteps
from sdar.objective.chunked_head import OutputHead
from sdar.objective.estimator import AdvantageEstimator
from sdar.objective.gate import gap
from sdar.objective.kl import k1_estimate
from sdar.objective.kl_reward import charge_rewards
from sdar.objective.shaping import ScoredTokens, Shaping
from sdar.policy.forward import vocabulary_size
from sdar.policy.log_probs import TokenScores, kept_head, score_tokens
from sdar.teacher.weights import TeacherModel

log = logging.getLogger(__name__)

Combine = Callable[[int, str], int]
"""Combines a number over the ranks: by "sum" or by "max"."""


@dataclass
class Prepared:
    """The input of UPDATE, on the CPU.

    ``batch``             all rows of this rank, with old (and teacher, reference) log-probs
    ``advantages``        one number per turn of each episode
    ``steps``             rows of every micro-batch of every optimiser step
    ``entropy``           [B, T] float32 nats, of theta_old at the sampled positions, 0 elsewhere
    ``privileged_tokens`` length of the privileged block of each row, in tokens; empty: no teacher was scored
    ``teacher_tokens``    length of each of the teacher's rows, in tokens; empty: no teacher was scored
    ``kl_charges``        what the return of each episode without error was charged for its KL to the reference; None:
                          nothing was charged
    ``unshaped``          [B, T] float32, the advantages before the shaping; None: nothing was shaped
    ``max_entropy``       log V, the entropy of the uniform distribution, nats
    ``supervised``        rows that are imitated beside; None: none
    ``teacher``           what the update needs to ask the teacher again; None: no teacher was scored
    """

    batch: TokenBatch
    advantages: list[list[float]]
    steps: list[OptimiserStep]
    entropy: Tensor
    privileged_tokens: list[int] = field(default_factory=list)
    teacher_tokens: list[int] = field(default_factory=list)
    max_entropy: float = math.inf
    kl_charges: list[float] | None = None
    unshaped: Tensor | None = None
    supervised: SupervisedSteps | None = None
    teacher: PreparedTeacher | None = None


@dataclass(frozen=True)
class PreparedTeacher:
    """The teacher's side of the rows, on the CPU but for the head.

    ``rows``    the rows of the batch with the privileged block in their context
    ``states``  hidden states [n, H] of the n response tokens of each row, as they were before the update; None unless
                they are kept
    ``head``    a copy of the output head of that time; None unless states are kept
    """

    rows: TeacherRows
    states: list[Tensor] | None = None
    head: OutputHead | None = None


@dataclass(frozen=True)
class PrepareSettings:
    """How an iteration is prepared.

    ``temperature``        > 0: logits are divided by it, as in sampling; all policies are scored with it
    ``advantage``          credit of every turn
    ``reward_kl_coefficient``  >= 0, units of reward per nat of KL to the reference that rewards are charged
    ``shaping``            what the teacher makes of it, token by token; None: nothing
    ``episodes_per_step``  episodes of this rank per optimiser step; None: one step per iteration
    ``rows_per_step``      rows of all ranks per optimiser step; None: steps are counted in episodes
    ``micro_batch_rows``   rows per micro-batch, for the statistics of the release; None: cut by ``token_budget``
    ``statistics``         release: steps and micro-batches are cut as in the paper's code; else episode
    ``world_size``         number of ranks
    ``token_budget``       padded tokens per micro-batch
    ``context_tokens``     longest row the model takes
    ``pad_id``             id that fills rows; masked everywhere
    ``context``            how the episodes were played: append or window
    """

    temperature: float
    advantage: AdvantageEstimator
    episodes_per_step: int | None
    token_budget: int
    context_tokens: int
    pad_id: int
    context: str = "append"
    shaping: Shaping | None = None
    reward_kl_coefficient: float = 0.0
    rows_per_step: int | None = None
    micro_batch_rows: int | None = None
    statistics: str = "episode"
    world_size: int = 1


def prepare(
    episodes: Sequence[Episode],
    settings: PrepareSettings,
    *,
    student: PreTrainedModel,
    device: torch.device,
    privileged: Sequence[Sequence[int]] | None,
    reference: Callable[[], AbstractContextManager[PreTrainedModel | None]],
    teacher: TeacherModel | None = None,
    combine: Combine = lambda value, _operation: value,
) -> Prepared:
    """Advantages, rows, plan and the log-probs that stay fixed during the update.

    Old and reference log-probs are scored in the very micro-batches of the update: the ratio of the first optimiser
    step is exactly 1 (rows padded to another width would differ in the last bits). Teacher rows never enter those
    batches, so scoring a teacher changes nothing for the others.

    Args:
        episodes: this rank's episodes, whole groups.
        settings: see :class:`PrepareSettings`.
        student: the policy with the weights that sampled.
        device: where the models are.
        privileged: ids of the privileged block of each episode; None leaves the teacher out.
        reference: gives the frozen policy of the KL term for a while (it may be the student with its adapters off);
            None leaves it out.
        teacher: whose weights the teacher has; needed with ``privileged``.
        combine: ``combine(value, "sum" | "max")`` combines a number over the ranks, which then plan equally many
            steps.

    Raises:
        PrivilegedContextError: a privileged block does not fit.
    """
    advantages = settings.advantage.turns(episodes)
    batch = pack(episodes, advantages, settings.pad_id, settings.context)
    steps = _plan(batch, settings, combine)
    micro_batches = [rows for step in steps for rows in step.micro_batches]
    own_rows = TeacherRows(batch.ids, batch.attention_mask, batch.response_mask)
    old = _score(student, own_rows, micro_batches, settings.temperature, device, entropy=True)
    assert old.entropy is not None
    batch = replace(batch, old_log_probs=old.log_probs)
    with reference() as frozen:
        if frozen is not None:
            scores = _score(frozen, own_rows, micro_batches, settings.temperature, device)
            batch = replace(batch, reference_log_probs=scores.log_probs)
    charges = None
    if settings.reward_kl_coefficient != 0:
        charged = _charged(episodes, batch, settings.reward_kl_coefficient)
        charges = [
            before.episode_return - after.episode_return
            for before, after in zip(episodes, charged, strict=True)
            if not before.end.is_error
        ]
        advantages = settings.advantage.turns(charged)
        batch = replace(batch, advantage=pack(charged, advantages, settings.pad_id, settings.context).advantage)
    prepared = Prepared(
        batch, advantages, steps, old.entropy, max_entropy=math.log(vocabulary_size(student)), kl_charges=charges
    )
    if privileged is not None:
        assert teacher is not None
        rows = pack_teacher(episodes, privileged, settings.pad_id, settings.context_tokens, settings.context)
        cut = _teacher_micro_batches(micro_batches, rows.lengths(), settings.token_budget)
        kept: dict[int, Tensor] | None = {} if teacher.settings.keep_hidden else None
        with teacher.model() as model:
            scores = _score(model, rows, cut, settings.temperature, device, states=kept)
            head = None if kept is None else kept_head(model, settings.temperature)
        aligned = align(scores.log_probs, rows.response_mask, batch.response_mask)
        if teacher.is_student:
            # Beside longer rows an empty block's row is padded further, and the last bits would make its gap a sign.
            bare = torch.tensor([not privileged[i] for i in batch.episode_index.tolist()], dtype=torch.bool)
            aligned = torch.where(bare[:, None], old.log_probs, aligned)
        prepared.batch = replace(batch, teacher_log_probs=aligned)
        states = None if kept is None else [kept.get(row, torch.empty(0)) for row in range(len(batch))]
        prepared.teacher = PreparedTeacher(rows, states, head)
        prepared.privileged_tokens = [len(privileged[i]) for i in batch.episode_index.tolist()]
        prepared.teacher_tokens = rows.lengths()
        if settings.shaping is not None:
            prepared.unshaped = batch.advantage
            prepared.batch = _shaped(prepared.batch, episodes, settings.shaping)
    return prepared


def _charged(episodes: Sequence[Episode], batch: TokenBatch, coefficient: float) -> list[Episode]:
    """The episodes with rewards less their KL to the reference."""
    assert batch.old_log_probs is not None
    assert batch.reference_log_probs is not None
    mask = batch.response_mask
    return charge_rewards(
        episodes,
        k1_estimate(batch.old_log_probs[mask], batch.reference_log_probs[mask]),
        batch.episode_index[:, None].expand_as(mask)[mask],
        batch.turn_index[mask],
        coefficient=coefficient,
    )


def _shaped(batch: TokenBatch, episodes: Sequence[Episode], shaping: Shaping) -> TokenBatch:
    """The batch with the advantages that the shaping makes of its own."""
    assert batch.teacher_log_probs is not None
    assert batch.old_log_probs is not None
    mask = batch.response_mask
    # Rows, and turns within a row, are in the order of the episodes, so a mask picks tokens in that order, too.
    tokens = ScoredTokens(
        episodes,
        batch.advantage[mask],
        gap(batch.teacher_log_probs[mask], batch.old_log_probs[mask]),
        batch.episode_index[:, None].expand_as(mask)[mask],
        batch.turn_index[mask],
    )
    advantage = batch.advantage.clone()
    advantage[mask] = shaping.shaped(tokens)
    return replace(batch, advantage=advantage)


def _plan(batch: TokenBatch, settings: PrepareSettings, combine: Combine) -> list[OptimiserStep]:
    """The optimiser steps: by episodes, by rows, or by rows as the release cuts them; equally many on every rank."""
    lengths = batch.lengths()
    rows = sum(length > 0 for length in lengths)
    if settings.statistics != "release":
        _tell_long_rows(lengths, settings.token_budget)
    if settings.rows_per_step is None:
        return plan_steps(
            lengths,
            episodes_per_step=settings.episodes_per_step,
            token_budget=settings.token_budget,
            episode_index=batch.episode_index.tolist(),
        )
    if settings.statistics == "release":
        assert settings.micro_batch_rows is not None
        own = settings.rows_per_step // settings.world_size
        steps = combine(-(-rows // own), "max")
        return plan_release_steps(lengths, steps=steps, rows_per_step=own, micro_batch_rows=settings.micro_batch_rows)
    steps = -(-combine(rows, "sum") // settings.rows_per_step)
    return plan_row_steps(lengths, steps=steps, token_budget=settings.token_budget)


def _tell_long_rows(lengths: Sequence[int], token_budget: int) -> None:
    longer = sum(length > token_budget for length in lengths)
    if longer:
        log.warning(
            "module.token_budget=%d: %d rows are longer, the longest has %d tokens; each is a micro-batch by itself "
            "and needs the memory of its length",
            token_budget,
            longer,
            max(lengths),
        )


def _teacher_micro_batches(
    micro_batches: Sequence[Sequence[int]], lengths: Sequence[int], token_budget: int
) -> list[list[int]]:
    """The student's micro-batches, cut further where the teacher's longer rows exceed the budget.

    With empty privileged blocks nothing is cut, the ids are the student's, and the gap is exactly 0.
    """
    cut: list[list[int]] = []
    for rows in micro_batches:
        own = [lengths[row] for row in rows]
        if len(rows) * max(own) <= token_budget:
            cut.append(list(rows))
            continue
        (step,) = plan_steps(own, episodes_per_step=None, token_budget=token_budget)
        cut += [[rows[i] for i in part] for part in step.micro_batches]
    return cut


@torch.no_grad()
def _score(
    model: PreTrainedModel,
    rows: TeacherRows,
    micro_batches: Sequence[Sequence[int]],
    temperature: float,
    device: torch.device,
    *,
    entropy: bool = False,
    states: dict[int, Tensor] | None = None,
) -> TokenScores:
    """Score the response tokens of all rows, micro-batch by micro-batch; the result is on the CPU.

    ``states``: where to put the hidden states [n, H] of each row's n response tokens; None: they are not wanted.
    """
    # The dtype is stated: under trainer.precision=bf16-true the default is bfloat16 here.
    log_probs = torch.zeros(rows.ids.shape, dtype=torch.float32)
    entropies = torch.zeros(rows.ids.shape, dtype=torch.float32) if entropy else None
    lengths = rows.lengths()
    for part in micro_batches:
        width = max(lengths[row] for row in part)
        index = torch.tensor(list(part))
        tensors = (tensor[index, :width].to(device) for tensor in rows)
        keep = states is not None
        scores = score_tokens(model, *tensors, temperature=temperature, entropy=entropy, states=keep)
        if states is not None and scores.states is not None:
            counts = rows.response_mask[index].sum(dim=1).tolist()
            states |= dict(zip(part, scores.states.cpu().split(counts), strict=True))
        log_probs[index, :width] = scores.log_probs.cpu()
        if entropies is not None and scores.entropy is not None:
            entropies[index, :width] = scores.entropy.cpu()
    return TokenScores(log_probs, entropies)
