"""PREPARE: everything of an iteration that is fixed before the first update, with theta_old and without gradient.

Whole episodes and groups are seen here and nowhere later: advantages, the teacher's context, the log-probs of the old,
teacher and reference policies, and the plan of the optimizer steps.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sdar.episode import Episode
from sdar.learning.batch import TokenBatch, TokenRows, align, pack, pack_teacher
from sdar.learning.beginnings import shared_beginnings
from sdar.learning.method import Method
from sdar.learning.optimizer import OptimizerSettings
from sdar.learning.prepared import Prepared, PreparedTeacher
from sdar.learning.ranks import Ranks
from sdar.learning.step_plan import OptimizerStep, plan_reference_steps, plan_row_steps, plan_steps
from sdar.learning.supervision import supervised_steps
from sdar.objective.importance import importance_weights
from sdar.objective.kl import k1_estimate
from sdar.objective.kl_reward import charge_rewards
from sdar.objective.shaping import ScoredTokens, Shaping
from sdar.objective.tokens import TokenScores, gap
from sdar.policy.forward import vocabulary_size
from sdar.policy.language_model import LanguageModel
from sdar.policy.log_probs import kept_head, score_tokens
from sdar.policy.shared_prefixes import PrefixStore, SharedRows
from sdar.rollout.settings import RolloutSettings
from sdar.teacher.weights import TeacherModel

log = logging.getLogger(__name__)


def prepare(
    episodes: Sequence[Episode],
    method: Method,
    rollout: RolloutSettings,
    optimizer: OptimizerSettings,
    *,
    policy: LanguageModel,
    device: torch.device | str,
    reference: Callable[[], AbstractContextManager[PreTrainedModel | None]],
    privileged: Sequence[Sequence[int]] | None = None,
    teacher: TeacherModel | None = None,
    ranks: Ranks | None = None,
) -> Prepared:
    """Advantages, rows, plan and the log-probs that stay fixed during the update.

    Old and reference log-probs are scored in the very micro-batches of the update: the ratio of the first optimizer
    step is exactly 1 (rows padded to another width would differ in the last bits). Where that step is the only one, the
    old ones are left to it (:func:`left_to_update`). Teacher rows never enter those batches, so scoring a teacher
    changes nothing for the others.

    Args:
        episodes: this rank's episodes, whole groups.
        method: that of the iteration, its schedules applied.
        rollout: how the episodes were played.
        optimizer: how the iteration is cut into optimizer steps.
        policy: the student, with the weights that sampled.
        device: where the models are.
        reference: gives the frozen policy of the KL term for a while (it may be the student with its adapters off), or
            None, which leaves it out.
        privileged: ids of the privileged block of each episode; None leaves the teacher out.
        teacher: whose weights the teacher has; needed with ``privileged``.
        ranks: the ranks, which plan equally many steps; None: there is one.

    Raises:
        PrivilegedContextError: a privileged block does not fit.
    """
    ranks = ranks or Ranks()
    temperature, context = rollout.sampling.temperature, rollout.context
    advantages = method.estimator.turns(episodes)
    batch = pack(episodes, advantages, policy.pad_id, context)
    max_tokens = optimizer.micro_batch_tokens(device)
    steps = _plan(batch, method, optimizer, max_tokens, ranks)
    micro_batches = [rows for step in steps for rows in step.micro_batches]
    old = None
    dropout = policy.lora is not None and policy.lora.dropout > 0
    stated = not ranks.all(batch.sampler_log_probs is None)
    if stated and batch.sampler_log_probs is None:  # this rank has nothing to learn from
        batch = replace(batch, sampler_log_probs=torch.zeros(batch.ids.shape, dtype=torch.float32))
    own = not stated or rollout.backend == "own"
    left = optimizer.reuse_scores and not dropout and own and left_to_update(method, len(steps), privileged)
    # To ask a teacher can be a thing that all ranks do together.
    left = ranks.all(left)
    if not left:
        old = _score(policy.model, batch.rows, micro_batches, temperature, device, entropy=True)
        batch = replace(batch, old_log_probs=old.log_probs)
    with reference() as frozen:
        if frozen is not None:
            scores = _score(frozen, batch.rows, micro_batches, temperature, device)
            batch = replace(batch, reference_log_probs=scores.log_probs)
    charges = None
    if method.objective.reward_kl_coefficient != 0:
        charged = _charged(episodes, batch, method.objective.reward_kl_coefficient)
        charges = [
            before.episode_return - after.episode_return
            for before, after in zip(episodes, charged, strict=True)
            if not before.end.is_error and before.in_loss
        ]
        advantages = method.estimator.turns(charged)
        batch = replace(batch, advantage=pack(charged, advantages, policy.pad_id, context).advantage)
    informed, unshaped = None, None
    if privileged is not None:
        assert teacher is not None
        rows = pack_teacher(episodes, privileged, policy.pad_id, policy.context_tokens, context)
        blocks = [len(privileged[i]) for i in batch.episode_index.tolist()]
        alike = [(episodes[i].task.task_id, tuple(privileged[i])) for i in batch.episode_index.tolist()]
        # Without a block the teacher's rows are the student's, and computed alike they have the same last bits.
        store = teacher.prefix_store() if all(privileged) else None
        shared = [0] * len(blocks) if store is None else shared_beginnings(rows, alike)
        informed = PreparedTeacher(rows, blocks, shared)
        if not (left and asked_again(method, teacher)):
            cut = teacher_micro_batches(micro_batches, rows.lengths(), max_tokens)
            informed, log_probs = _taught(batch, informed, cut, teacher, store, temperature, device)
            batch = replace(batch, teacher_log_probs=log_probs)
        if method.shaping is not None:
            unshaped = batch.advantage
            batch = _shaped(batch, episodes, method.shaping)
    if not own and batch.sampler_log_probs is not None and rollout.vllm.importance_cap is not None:
        assert batch.old_log_probs is not None
        weights = importance_weights(batch.old_log_probs, batch.sampler_log_probs, rollout.vllm.importance_cap)
        batch = replace(batch, advantage=batch.advantage * weights)
        unshaped = None if unshaped is None else unshaped * weights
    supervised = None
    if method.supervision is not None:
        supervised = supervised_steps(
            method.supervision,
            episodes,
            context=context,
            pad_id=policy.pad_id,
            steps=len(steps),
            max_tokens=max_tokens,
            ranks=ranks,
        )
    return Prepared(
        batch=batch,
        advantages=advantages,
        steps=steps,
        entropy=None if old is None else old.entropy,
        max_entropy=math.log(vocabulary_size(policy.model)),
        kl_charges=charges,
        unshaped=unshaped,
        supervised=supervised,
        teacher=informed,
    )


def left_to_update(method: Method, steps: int, privileged: Sequence[Sequence[int]] | None = None) -> bool:
    """Whether the only optimizer step scores the sampled tokens itself before it moves the weights.

    Not where something needs these scores earlier: a KL charged to the rewards, shaped advantages, a gate that is
    centred on the step, or a teacher without privileged text, whose log-probs are the student's own.
    """
    objective = method.objective
    needed = (
        objective.reward_kl_coefficient != 0
        or method.shaping is not None
        or (objective.gate.centres_on_step and objective.distillation_coefficient != 0)
        or not all(privileged or ())
    )
    return steps == 1 and not needed and any(objective.coefficients().values())


def asked_again(method: Method, teacher: TeacherModel) -> bool:
    """Whether the first optimizer step asks the teacher again, for its whole distributions."""
    objective = method.objective
    wanted = objective.divergence.full_vocabulary and objective.distillation_coefficient != 0
    return wanted and not teacher.settings.keep_hidden


def _taught(
    batch: TokenBatch,
    informed: PreparedTeacher,
    micro_batches: Sequence[Sequence[int]],
    teacher: TeacherModel,
    store: PrefixStore | None,
    temperature: float,
    device: torch.device | str,
) -> tuple[PreparedTeacher, Tensor]:
    """The teacher's side with what is kept of it, and its log-probs [B, T] at the student's positions."""
    rows = informed.rows
    shared = None if store is None else SharedRows(store, informed.shared_tokens)
    kept: dict[int, Tensor] | None = {} if teacher.settings.keep_hidden else None
    with teacher.model() as model:
        scores = _score(model, rows, micro_batches, temperature, device, states=kept, shared=shared)
        head = None if kept is None else kept_head(model, temperature)
    aligned = align(scores.log_probs, rows.response_mask, batch.response_mask)
    if teacher.is_student and batch.old_log_probs is not None:  # left to the update: no block is empty
        # Beside longer rows an empty block's row is padded further, and the last bits would make its gap a sign.
        bare = torch.tensor([not tokens for tokens in informed.privileged_tokens], dtype=torch.bool)
        aligned = torch.where(bare[:, None], batch.old_log_probs, aligned)
    states = None if kept is None else [kept.get(row, torch.empty(0)) for row in range(len(batch))]
    return replace(informed, states=states, head=head), aligned


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


def _plan(
    batch: TokenBatch, method: Method, optimizer: OptimizerSettings, max_tokens: int, ranks: Ranks
) -> list[OptimizerStep]:
    """The optimizer steps, by episodes, by rows, or as the paper's code cuts them; equally many on every rank."""
    lengths = batch.lengths()
    rows = sum(length > 0 for length in lengths)
    # Who set no limit is not told that rows exceed it.
    if optimizer.max_tokens_per_micro_batch is not None and not method.aggregation.is_reference_code:
        _tell_long_rows(lengths, max_tokens)
    if optimizer.rows_per_step is None:
        episodes = optimizer.episodes_per_step
        return plan_steps(
            lengths,
            episodes_per_step=None if episodes is None else episodes // ranks.size,
            max_tokens=max_tokens,
            episode_index=batch.episode_index.tolist(),
        )
    if method.aggregation.is_reference_code:
        assert method.aggregation.micro_batch_rows is not None
        own = optimizer.rows_per_step // ranks.size
        steps = int(ranks.reduce_number(-(-rows // own), "max"))
        part = method.aggregation.micro_batch_rows
        return plan_reference_steps(lengths, steps=steps, rows_per_step=own, micro_batch_rows=part)
    steps = -(-int(ranks.reduce_number(rows, "sum")) // optimizer.rows_per_step)
    return plan_row_steps(lengths, steps=steps, max_tokens=max_tokens)


def _tell_long_rows(lengths: Sequence[int], max_tokens: int) -> None:
    longer = sum(length > max_tokens for length in lengths)
    if longer:
        log.warning(
            "optimizer.max_tokens_per_micro_batch=%d: %d rows are longer, the longest has %d tokens; each is a "
            "micro-batch by itself and needs the memory of its length",
            max_tokens,
            longer,
            max(lengths),
        )


def teacher_micro_batches(
    micro_batches: Sequence[Sequence[int]], lengths: Sequence[int], max_tokens: int
) -> list[list[int]]:
    """The student's micro-batches, cut further where the teacher's longer rows exceed the limit.

    With empty privileged blocks nothing is cut, the ids are the student's, and the gap is exactly 0.
    """
    cut: list[list[int]] = []
    for rows in micro_batches:
        own = [lengths[row] for row in rows]
        if len(rows) * max(own) <= max_tokens:
            cut.append(list(rows))
            continue
        (step,) = plan_steps(own, episodes_per_step=None, max_tokens=max_tokens)
        cut += [[rows[i] for i in part] for part in step.micro_batches]
    return cut


@torch.no_grad()
def _score(
    model: PreTrainedModel,
    rows: TokenRows,
    micro_batches: Sequence[Sequence[int]],
    temperature: float,
    device: torch.device | str,
    *,
    entropy: bool = False,
    states: dict[int, Tensor] | None = None,
    shared: SharedRows | None = None,
) -> TokenScores:
    """Score the response tokens of all rows, micro-batch by micro-batch; the result is on the CPU.

    ``states``: where to put the hidden states [n, H] of each row's n response tokens; None: they are not wanted.
    ``shared``: how all rows share their beginnings; None: they are computed whole.
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
        own = None if shared is None else shared.of(part)
        scores = score_tokens(model, *tensors, temperature=temperature, entropy=entropy, states=keep, shared=own)
        if states is not None and scores.states is not None:
            counts = rows.response_mask[index].sum(dim=1).tolist()
            states |= dict(zip(part, scores.states.cpu().split(counts), strict=True))
        log_probs[index, :width] = scores.log_probs.cpu()
        if entropies is not None and scores.entropy is not None:
            entropies[index, :width] = scores.entropy.cpu()
    return TokenScores(log_probs, entropies)
