"""UPDATE of a whole iteration: the planned optimiser steps, their denominators, what ranks do together.

The loss of a micro-batch is in :mod:`sdar.learning.loss`; here it becomes gradients and steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from lightning import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor
from transformers import PreTrainedModel

from sdar.errors import UserError
from sdar.learning.loss import UpdateTeacher, micro_batch_loss
from sdar.learning.metrics import Tally
from sdar.learning.prepare import Prepared
from sdar.learning.step_plan import OptimiserStep
from sdar.learning.supervision import supervised_sum
from sdar.objective.chunked_head import TeacherStates
from sdar.objective.objective import ObjectiveConfig, denominators
from sdar.policy.sharding import whole
from sdar.policy.trainable import WeightProbe, trainable
from sdar.teacher.weights import TeacherModel


class OptimisingModule(LightningModule):
    """The half of :class:`sdar.learning.module.SDARModule` that moves the weights; it has no settings of its own.

    Optimisation is manual: Lightning's automatic steps know neither whole-step denominators nor empty micro-batches.
    """

    model: PreTrainedModel
    objective: ObjectiveConfig
    statistics: str
    rows_per_step: int | None
    micro_batch_rows: int | None
    learning_rate: float
    max_grad_norm: float | None
    temperature: float
    _teacher_model: TeacherModel | None
    _moves: bool

    def _update(self, index: int, prepared: Prepared, objective: ObjectiveConfig, tally: Tally) -> None:
        """Take the planned optimiser steps; denominators count each whole step over all ranks, beforehand."""
        imitated = [0.0] * len(prepared.steps) if prepared.supervised is None else prepared.supervised.counts
        learned = any(objective.coefficients().values())
        if not learned and not any(imitated):
            return  # a schedule has taken out the only term
        shares = prepared.batch.episode_shares()
        counts = [
            denominators(prepared.batch.select(step.rows), objective, float(shares[step.rows].sum()))
            for step in prepared.steps
        ]
        names = list(objective.coefficients())
        local = torch.tensor([[count[name] for name in names] for count in counts], dtype=torch.float64)
        reduced = self._reduce(local.reshape(-1, len(names)), "sum")
        parts = self._micro_batches(prepared.steps)
        sums: dict[str, float] = {}
        for number, row in enumerate(reduced.tolist()):
            if (learned and any(row)) or imitated[number]:
                divisors = dict(zip(names, row, strict=True))
                # Imitated rows leave it to the step's own to bring the ranks together, also where there are none.
                own = (parts[number] if learned else []) or [[]]
                self._step(index, number, prepared, objective, own, divisors, sums, tally)
        tokens = sums.pop("tokens", 0.0)
        for name, value in sums.items():
            tally.mean(name, value, tokens)

    def _micro_batches(self, steps: Sequence[OptimiserStep]) -> list[list[list[int]]]:
        """Rows of every micro-batch of every step, filled up with empty ones to the largest number of any rank.

        Each pass over sharded weights is a thing that all ranks do together.
        """
        own = [len(step.micro_batches) for step in steps]
        most = self._reduce(torch.tensor(own, dtype=torch.float64), "max").tolist()
        return [
            step.micro_batches + [[]] * (int(count) - len(step.micro_batches))
            for step, count in zip(steps, most, strict=True)
        ]

    def _step(
        self,
        index: int,
        number: int,
        prepared: Prepared,
        objective: ObjectiveConfig,
        micro_batches: Sequence[Sequence[int]],
        counts: dict[str, float],
        sums: dict[str, float],
        tally: Tally,
    ) -> None:
        """One optimiser step; diagnostic sums are added to ``sums``."""
        optimizer = cast(LightningOptimizer, self.optimizers())
        torch.clear_autocast_cache()
        loss = self._supervised_loss(prepared, number, tally)
        for i, rows in enumerate(micro_batches):
            share = self._loss(prepared, objective, number, rows, self._denominators(prepared, rows, counts), sums)
            loss += share.detach()
            # Gradients are averaged over the ranks, but the shares of the ranks add up.
            self._backward(share * self._world_size, synchronise=i + 1 == len(micro_batches))
        norm = float(whole(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm or math.inf)))
        # All ranks must come to the same verdict: one that went on alone would wait for the others.
        total = float(self._reduce(loss.cpu(), "sum"))
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise FloatingPointError(
                f"iteration {index}, optimiser step {number + 1} of {len(prepared.steps)}: the loss is {total} "
                f"and the gradient's norm {norm}; the weights are those before this step"
            )
        tally.maximum("train/learning_rate", float(optimizer.param_groups[0]["lr"]))
        probe = None if self._moves or norm == 0 else WeightProbe(self.model)
        optimizer.step()
        if probe is not None:
            self._check_movement(probe)
        optimizer.zero_grad()  # frees the gradients' memory for the next rollout
        scheduler = self.lr_schedulers()
        assert isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR)
        scheduler.step()
        # The norm is the same on all ranks; so is the number of steps.
        tally.mean("train/grad_norm", norm, 1)

    def _check_movement(self, probe: WeightProbe) -> None:
        """UserError when the first step that had a gradient left every weight where it was."""
        moved = self._reduce(torch.tensor([float(probe.moved())]), "sum")
        if not float(moved) > 0:
            raise UserError(
                f"module.learning_rate={self.learning_rate:g}: the first optimiser step with a gradient has moved none "
                f"of the {len(trainable(self.model))} trained parameters (of {probe.dtype}); allowed is a rate whose "
                "steps the weights can hold, such as model.dtype=float32 with a small one"
            )
        self._moves = True

    def _denominators(self, prepared: Prepared, rows: Sequence[int], counts: dict[str, float]) -> dict[str, float]:
        """What the sums of these rows are divided by: the step's counts, or with ``release`` the rows' own.

        The release takes the mean of each micro-batch, divided by how many a whole step has: a short last step counts
        for less.
        """
        if self.statistics != "release":
            return counts
        assert self.rows_per_step is not None
        assert self.micro_batch_rows is not None
        parts = self.rows_per_step / self.micro_batch_rows
        own = denominators(prepared.batch.select(rows), self.objective)
        return {name: count * parts for name, count in own.items()}

    def _loss(
        self,
        prepared: Prepared,
        objective: ObjectiveConfig,
        number: int,
        rows: Sequence[int],
        counts: dict[str, float],
        sums: dict[str, float],
    ) -> Tensor:
        """These rows' share of the step's loss, with gradient; their figures are added to ``sums``."""
        loss, figures = micro_batch_loss(
            self.model,
            prepared.batch.select(rows).to(self.device),
            objective,
            temperature=self.temperature,
            denominators=counts,
            teacher=self._update_teacher(prepared, objective, number, rows),
        )
        for name, value in figures.items():
            sums[name] = sums.get(name, 0.0) + value
        return loss

    def _supervised_loss(self, prepared: Prepared, number: int, tally: Tally) -> Tensor:
        """The share of a step's loss that this rank's imitated rows have, after their backward; 0 without such."""
        total = torch.zeros((), dtype=torch.float32, device=self.device)
        supervised = prepared.supervised
        if supervised is None:
            return total
        count = supervised.counts[number]
        for rows in supervised.micro_batches[number]:
            part = supervised.micro_batch(rows, self.device)
            negative = supervised_sum(self.model, part, self.temperature)
            share = supervised.coefficient * (negative / max(count, 1.0))
            # The step's other rows come afterwards and bring the ranks together.
            self._backward(share * self._world_size, synchronise=False)
            total += share.detach()
            tally.mean("loss/supervised", float(negative.detach()), float(part.response_mask.sum()))
        return total

    def _update_teacher(
        self, prepared: Prepared, objective: ObjectiveConfig, number: int, rows: Sequence[int]
    ) -> UpdateTeacher | None:
        """The teacher of a micro-batch of optimiser step ``number``; None: its log-probs from PREPARE are enough."""
        if self._teacher_model is None or prepared.teacher is None or objective.distillation_coefficient == 0:
            return None
        # Before the first step the present weights are those that PREPARE has scored with.
        moved = self._teacher_model.moves_during_update and number > 0
        if not (objective.divergence.full_vocabulary or moved):
            return None
        kept = prepared.teacher
        states = None
        if kept.states is not None and kept.head is not None and len(rows) > 0:
            hidden = torch.cat([kept.states[row] for row in rows]).to(self.device)
            states = TeacherStates(hidden, kept.head)
        return UpdateTeacher(kept.rows.select(rows).to(self.device), self._teacher_model, states)

    def _backward(self, loss: Tensor, *, synchronise: bool) -> None:
        strategy = self.trainer.strategy
        if synchronise or not isinstance(strategy, ParallelStrategy):
            self.manual_backward(loss)
            return
        with strategy.block_backward_sync():
            self.manual_backward(loss)

    @property
    def _world_size(self) -> int:
        return int(self.trainer.world_size)

    def _reduce(self, tensor: Tensor, operation: str) -> Tensor:
        """Combine a CPU tensor over the ranks."""
        if self._world_size == 1 or tensor.numel() == 0:
            return tensor
        result = self.trainer.strategy.reduce(tensor.to(self.device), reduce_op=operation)
        assert isinstance(result, Tensor)
        return result.cpu()
