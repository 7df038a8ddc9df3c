"""UPDATE: the planned optimizer steps of an iteration, their denominators, and what the ranks do together.

Optimization is manual: Lightning's automatic steps know neither whole-step denominators nor empty micro-batches.
Everything here is token-local; whole episodes were seen in PREPARE.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from lightning import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from transformers import PreTrainedModel

from sdar.errors import RunFailed, UserError
from sdar.learning.batch import TokenBatch
from sdar.learning.loss import UpdateTeacher, student_scores
from sdar.learning.method import Method
from sdar.learning.optimizer import OptimizerSettings
from sdar.learning.prepared import Prepared
from sdar.learning.ranks import Ranks
from sdar.learning.step_plan import even_micro_batches
from sdar.learning.supervision import supervised_sum
from sdar.learning.term_gradients import TermGradients
from sdar.objective.chunked_head import TeacherStates
from sdar.objective.gate import Gate
from sdar.objective.objective import ObjectiveConfig, denominators, token_losses, total_loss
from sdar.objective.tokens import TokenScores
from sdar.policy.dropout import keyed_draws
from sdar.policy.sharding import whole
from sdar.policy.shared_prefixes import PrefixStore, SharedRows
from sdar.policy.trainable import WeightProbe, trainable
from sdar.teacher.weights import TeacherModel

log = logging.getLogger(__name__)


@dataclass
class BadSteps:
    """Optimizer steps whose loss or gradient is not finite. They are skipped: neither weights nor warm-up move.

    ``limit``     how many in a row are skipped; one more ends the run
    ``in_a_row``  how many there were since the last good one, over iterations too
    """

    limit: int
    in_a_row: int = 0


@dataclass
class StepReport:
    """What an optimizer step did on this rank.

    ``sums``           per micro-batch: tag -> sum over its response tokens; ``tokens`` is their number
    ``supervised``     per pass over supervised rows: minus the sum of their log-probs, and the number of their tokens
    ``loss``           this rank's share of the step's loss
    ``grad_norm``      Euclidean norm of the gradient before it was clipped; the same on all ranks
    ``learning_rate``  that the step was taken with
    ``skipped``        on all ranks, because loss or gradient was not finite
    ``terms``          what :class:`TermGradients` measured, over all ranks; empty where it was not asked to
    """

    sums: list[dict[str, float]] = field(default_factory=list)
    supervised: list[tuple[float, float]] = field(default_factory=list)
    loss: float = 0.0
    grad_norm: float = 0.0
    learning_rate: float = 0.0
    skipped: bool = False
    terms: dict[str, float] = field(default_factory=dict)


class UpdateLoop:
    """Takes the optimizer steps of every iteration of a fit.

    Args:
        module: the Lightning module whose optimizer and scheduler are stepped.
        model: the student.
        settings: of the optimizer.
        temperature: > 0, the sampling temperature, at which log-probs are taken.
        teacher: asked again during the update where the method needs it; None: no teacher is scored.
        bad_steps: the count of steps that were skipped, which the loop keeps.
        dropout_seed: seed of the adapters' dropout; None: nothing is drawn.
    """

    def __init__(
        self,
        module: LightningModule,
        model: PreTrainedModel,
        settings: OptimizerSettings,
        temperature: float,
        teacher: TeacherModel | None,
        bad_steps: BadSteps,
        dropout_seed: int | None = None,
    ) -> None:
        self.module = module
        self.model = model
        self.settings = settings
        self.temperature = temperature
        self.teacher = teacher
        self.bad_steps = bad_steps
        self.dropout_seed = dropout_seed
        self.ranks = Ranks.of(module)
        self._moves = False
        self._store: PrefixStore | None = None

    def run(self, prepared: Prepared, method: Method) -> tuple[list[StepReport], Prepared]:
        """Take the planned steps; denominators count each whole step over all ranks, beforehand.

        Args:
            prepared: the iteration's input.
            method: that of the iteration, its schedules applied.

        Returns:
            What the steps did, and the input with the scores that were left to the update.

        Raises:
            RunFailed: loss or gradient was not finite in too many steps in a row.
        """
        objective = method.objective
        supervised = [0.0] * len(prepared.steps) if prepared.supervised is None else prepared.supervised.counts
        has_terms = any(objective.coefficients().values())
        if not has_terms and not any(supervised):
            return [], prepared  # a schedule has taken out the only term
        divisors = self._divisors(prepared, objective)
        objectives = self._objectives(prepared, objective)
        parts = even_micro_batches(prepared.steps, self.ranks)
        self._store = None if self.teacher is None else self.teacher.prefix_store()
        reports = []
        old = None if prepared.batch.old_log_probs is not None else _unscored(prepared)
        for number, counts in enumerate(divisors):
            if (has_terms and any(counts.values())) or supervised[number]:
                # Supervised rows leave it to the step's own to bring the ranks together, also where there are none.
                own = (parts[number] if has_terms else []) or [[]]
                of_step = method.under(objectives[number])
                reports.append(self._step(prepared, of_step, number, own, counts, old))
        self._store = None  # the weights have moved, and its memory is needed elsewhere
        return reports, prepared if old is None else prepared.completed(old)

    def _objectives(self, prepared: Prepared, objective: ObjectiveConfig) -> list[ObjectiveConfig]:
        """The objective of each step: a gate may be centred on all ranks' tokens of the step, scored by theta_old."""
        gate = objective.gate
        if not gate.centres_on_step or objective.distillation_coefficient == 0:
            return [objective] * len(prepared.steps)
        own = torch.tensor([gate_sum(prepared, gate, step.rows) for step in prepared.steps], dtype=torch.float64)
        sums = self.ranks.reduce(own.reshape(-1, 2), "sum").tolist()
        return [objective.under(gate.centred_on(total, int(count))) for total, count in sums]

    def _divisors(self, prepared: Prepared, objective: ObjectiveConfig) -> list[dict[str, float]]:
        """What each term is divided by in each step, over all ranks."""
        shares = prepared.batch.episode_shares()
        own = [
            denominators(prepared.batch.select(step.rows), objective, float(shares[step.rows].sum()))
            for step in prepared.steps
        ]
        names = list(objective.coefficients())
        local = torch.tensor([[count[name] for name in names] for count in own], dtype=torch.float64)
        reduced = self.ranks.reduce(local.reshape(-1, len(names)), "sum").tolist()
        return [dict(zip(names, row, strict=True)) for row in reduced]

    def _step(
        self,
        prepared: Prepared,
        method: Method,
        number: int,
        micro_batches: Sequence[Sequence[int]],
        counts: dict[str, float],
        old: TokenScores | None,
    ) -> StepReport:
        """One optimizer step, the backward of every micro-batch included.

        ``old``: where to put the scores before the step; None: they are known.
        """
        report = StepReport()
        objective = method.objective
        if self.teacher is not None and self.teacher.moves_during_update:
            self._store = self.teacher.prefix_store()
        torch.clear_autocast_cache()
        loss = self._supervised_loss(prepared, number, report)
        measured = TermGradients(self.model.parameters()) if self._measures(number) else None
        for i, rows in enumerate(micro_batches):
            batch = prepared.batch.select(rows)
            divisors = _own_divisors(batch, method, self.settings) if method.aggregation.is_reference_code else counts
            with self._draws("rows", number, i):
                scores, batch = student_scores(
                    self.model,
                    batch.to(self.module.device),
                    objective,
                    temperature=self.temperature,
                    teacher=self._update_teacher(prepared, objective, number, rows),
                )
            if old is not None:
                batch = replace(batch, old_log_probs=scores.log_probs.detach())
                _keep(old, rows, replace(scores, teacher_log_probs=batch.teacher_log_probs))
                if not objective.wants_entropy:
                    scores = replace(scores, entropy=None)
            losses = token_losses(scores, batch, objective)
            # Where only supervised rows are left to learn from, these rows (there are none) have no term.
            has_terms = any(objective.coefficients().values())
            share = total_loss(losses, divisors, objective) if has_terms else scores.log_probs.sum()
            loss += share.detach()
            if measured is not None and has_terms:
                measured.add(losses, divisors, objective)
            self.ranks.backward(self.module, share, synchronize=i + 1 == len(micro_batches))
            figures = torch.stack([value.float() for value in losses.diagnostics.values()]).tolist()
            report.sums.append(dict(zip(losses.diagnostics, figures, strict=True)))
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm or math.inf)
        report.loss, report.grad_norm = float(loss), float(whole(norm))
        if measured is not None:
            report.terms = measured.figures(self.ranks)
        self._move(report, number, len(prepared.steps))
        return report

    def _measures(self, number: int) -> bool:
        every = self.settings.measure_terms_every_n_iterations
        return every > 0 and number == 0 and self.module.current_epoch % every == 0

    def _move(self, report: StepReport, number: int, steps: int) -> None:
        """Step optimizer and schedule where loss and gradient are finite on all ranks; otherwise skip the step."""
        optimizer = cast(LightningOptimizer, self.module.optimizers())
        # All ranks must come to the same verdict: one that went on alone would wait for the others.
        total = self.ranks.reduce_number(report.loss, "sum")
        if not self._usable(total, report.grad_norm):
            optimizer.zero_grad()
            report.sums, report.supervised, report.terms, report.skipped = [], [], {}, True
            self._skip(f"iteration {self.module.current_epoch}, optimizer step {number + 1} of {steps}", total, report)
            return
        self.bad_steps.in_a_row = 0
        scheduler, trainer = self.module.lr_schedulers(), self.module.trainer
        assert isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR)
        iteration, iterations = self.module.current_epoch, trainer.max_epochs or 0
        self.settings.set_rate(
            optimizer.optimizer, scheduler, iteration=iteration, step=number, steps=steps, iterations=iterations
        )
        report.learning_rate = float(optimizer.param_groups[0]["lr"])
        probe = None if self._moves or report.grad_norm == 0 else WeightProbe(self.model)
        optimizer.step()
        if probe is not None:
            self._check_movement(probe)
        optimizer.zero_grad()  # frees the gradients' memory for the next rollout
        scheduler.step()

    def _usable(self, loss: float, grad_norm: float) -> bool:
        """Whether the optimizer can take a step: AdamW squares the gradient, in float32 at most."""
        clipped = min(grad_norm, self.settings.max_grad_norm or math.inf)
        return math.isfinite(loss) and math.isfinite(grad_norm) and clipped * clipped < torch.finfo(torch.float32).max

    def _skip(self, step: str, loss: float, report: StepReport) -> None:
        """Count a bad step. RunFailed: it is one too many."""
        bad = self.bad_steps
        bad.in_a_row += 1
        figures = f"{step}: the loss is {loss:g} and the gradient's norm {report.grad_norm:g}"
        if bad.in_a_row > bad.limit:
            raise RunFailed(
                f"{figures}; that makes {bad.in_a_row} in a row, and optimizer.max_bad_steps={bad.limit}: continue "
                "from an earlier checkpoint with a lower optimizer.learning_rate or optimizer.max_grad_norm, or with "
                "model.dtype=float32"
            )
        if self.module.trainer.is_global_zero:
            log.warning("%s; it is skipped (%d in a row, optimizer.max_bad_steps=%d)", figures, bad.in_a_row, bad.limit)

    def _draws(self, kind: str, step: int, micro_batch: int) -> AbstractContextManager[None]:
        """Makes what a forward pass draws depend on its name alone, so that a resumed run draws it again."""
        if self.dropout_seed is None:
            return nullcontext()
        module = self.module
        key = ("dropout", kind, module.current_epoch, step, micro_batch, module.global_rank)
        return keyed_draws(module.device, self.dropout_seed, *key)

    def _check_movement(self, probe: WeightProbe) -> None:
        """UserError when the first step that had a gradient left every weight where it was."""
        if not self.ranks.reduce_number(float(probe.moved()), "sum") > 0:
            raise UserError(
                f"optimizer.learning_rate={self.settings.learning_rate:g} is too small: the first step with a gradient "
                f"moved none of the {len(trainable(self.model))} trained parameters (of {probe.dtype}); set a larger "
                "one, or model.dtype=float32, which can hold smaller steps"
            )
        self._moves = True

    def _supervised_loss(self, prepared: Prepared, number: int, report: StepReport) -> Tensor:
        """The share of a step's loss that this rank's supervised rows have, after their backward; 0 without such."""
        total = torch.zeros((), dtype=torch.float32, device=self.module.device)
        supervised = prepared.supervised
        if supervised is None:
            return total
        count = supervised.counts[number]
        for i, rows in enumerate(supervised.micro_batches[number]):
            part = supervised.micro_batch(rows, self.module.device)
            with self._draws("supervised", number, i):
                negative = supervised_sum(self.model, part, self.temperature)
            share = supervised.coefficient * (negative / max(count, 1.0))
            # The step's other rows come afterwards and bring the ranks together.
            self.ranks.backward(self.module, share, synchronize=False)
            total += share.detach()
            report.supervised.append((float(negative.detach()), float(part.response_mask.sum())))
        return total

    def _update_teacher(
        self, prepared: Prepared, objective: ObjectiveConfig, number: int, rows: Sequence[int]
    ) -> UpdateTeacher | None:
        """The teacher of a micro-batch of optimizer step ``number``; None: its log-probs from PREPARE are enough."""
        kept = prepared.teacher
        if self.teacher is None or kept is None or objective.distillation_coefficient == 0:
            return None
        # Before the first step the present weights are those that PREPARE has scored with.
        moved = self.teacher.moves_during_update and number > 0
        if not (objective.divergence.full_vocabulary or moved):
            return None
        shared = None if self._store is None else SharedRows(self._store, kept.shared_tokens).of(rows)
        states = None
        if kept.states is not None and kept.head is not None:
            # Also of no rows: nobody is asked, as on ranks that have some.
            hidden = torch.cat([torch.empty(0, kept.head.weight.shape[1]), *(kept.states[row] for row in rows)])
            states = TeacherStates(hidden.to(self.module.device), kept.head)
        own = kept.rows.select(rows).to(self.module.device)
        return UpdateTeacher(own, self.teacher, states, shared, self.settings.micro_batch_tokens(self.module.device))


def _unscored(prepared: Prepared) -> TokenScores:
    # The dtype is stated: under trainer.precision=bf16-true the default is bfloat16 here.
    nothing = torch.zeros(prepared.batch.ids.shape, dtype=torch.float32)
    taught = prepared.teacher is not None and prepared.batch.teacher_log_probs is None
    return TokenScores(nothing, nothing.clone(), teacher_log_probs=nothing.clone() if taught else None)


def _keep(old: TokenScores, rows: Sequence[int], scores: TokenScores) -> None:
    """Copy a micro-batch's scores into those of all rows, where these have a place for them."""
    index = torch.tensor(list(rows), dtype=torch.long)
    for name in ("log_probs", "entropy", "teacher_log_probs"):
        place: Tensor | None = getattr(old, name)
        if place is not None:
            values = getattr(scores, name).detach().cpu()
            place[index, : values.shape[1]] = values


def gate_sum(prepared: Prepared, gate: Gate, rows: Sequence[int]) -> tuple[float, int]:
    """Sum of the gates of the rows' tokens, and their number."""
    where = torch.zeros_like(prepared.batch.response_mask)
    where[list(rows)] = prepared.batch.response_mask[list(rows)]
    tokens = prepared.scored(where)
    assert tokens is not None
    return float(gate.value(tokens).double().sum()), int(where.sum())


def _own_divisors(batch: TokenBatch, method: Method, settings: OptimizerSettings) -> dict[str, float]:
    """What the paper's code divides a micro-batch by: its own tokens, times how many micro-batches a whole step has.

    So a short last step counts for less.
    """
    assert settings.rows_per_step is not None
    assert method.aggregation.micro_batch_rows is not None
    parts = settings.rows_per_step / method.aggregation.micro_batch_rows
    return {name: count * parts for name, count in denominators(batch, method.objective).items()}
