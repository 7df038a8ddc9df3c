"""The optimizer, its learning rate, and how an iteration is cut into its steps: the group ``optimizer``.

:class:`OptimizerSettings` is AdamW. Other optimizers are classes made from it (:mod:`sdar.learning.optimizers`): they
take the same settings and more, and override :meth:`OptimizerSettings.create`.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn

from sdar.config.fields import AtLeastOne, BelowOne, Count, Fraction, Lax, settings
from sdar.errors import UserError
from sdar.policy.trainable import trainable

Rate = Annotated[float, Ge(1e-12), Le(1)]
"""Float32 weights do not notice steps that are smaller."""

CPU_TOKENS = 4096
ACCELERATOR_TOKENS = 16384
"""Padded tokens of a micro-batch, by device."""

LrSchedule = Literal["constant", "linear", "cosine"]


@settings(frozen=True)
class OptimizerSettings:
    """AdamW and its steps. UserError for a value outside its range.

    ``learning_rate``      in [1e-12, 1]; that of the step in which the warm-up ends
    ``weight_decay``       in [0, 1]
    ``betas``              each in [0, 1)
    ``eps``                in [1e-12, 1], added to the root of the second moment; raise it where bfloat16 gradients are
                           near zero
    ``warmup_steps``       >= 0, optimizer steps over which the learning rate rises linearly to its value
    ``lr_schedule``        what it does after the warm-up: stay constant, or fall in a straight line or along half a
                           cosine until the last iteration ends; see :meth:`decay`
    ``lr_end``             in [0, 1], the share of the learning rate that it falls to
    ``max_grad_norm``      >= 1e-9, the gradient's largest Euclidean norm; None: no limit
    ``max_bad_steps``      >= 0, steps in a row, over iterations too, that are skipped because their loss or gradient is
                           not finite; one more ends the run
    ``episodes_per_step``  episodes of all ranks per optimizer step, a multiple of their number; None: one step per
                           iteration
    ``rows_per_step``      rows of all ranks per optimizer step (a row is an episode with append, a turn with window),
                           instead of ``episodes_per_step``; None: steps are counted in episodes
    ``max_tokens_per_micro_batch``  padded tokens; a longer row is a micro-batch by itself. None: by device, see
                           :meth:`micro_batch_tokens`. With ``loss_aggregation=reference_code`` it bounds the teacher's
                           scoring alone
    ``reuse_scores``       take the old log-probs of an iteration with one optimizer step from that step's own forward
                           pass, where nothing needs them before; the same numbers, one pass less. False: always score
                           them apart
    ``measure_terms_every_n_iterations``  >= 0; every so many iterations the first optimizer step also measures the
                           gradient of each term by itself, which costs a backward pass per term; 0: never

    A class made from this one states two facts:

    ``kind``       what checkpoints call the optimizer; a run continues with the kind it began with
    ``shardable``  whether it may be given shares of weights and gradients (FSDP2): it treats every number by itself
    """

    kind: ClassVar[str] = "adamw"
    shardable: ClassVar[bool] = True

    learning_rate: Rate = 1e-6
    weight_decay: Fraction = 0.01
    betas: Annotated[tuple[BelowOne, BelowOne], Lax] = (0.9, 0.999)
    eps: Rate = 1e-8
    warmup_steps: Count = 0
    lr_schedule: LrSchedule = "constant"
    lr_end: Fraction = 0.0
    max_grad_norm: Annotated[float, Ge(1e-9)] | None = 1.0
    max_bad_steps: Count = 3
    episodes_per_step: AtLeastOne | None = None
    rows_per_step: AtLeastOne | None = None
    max_tokens_per_micro_batch: AtLeastOne | None = None
    reuse_scores: bool = True
    measure_terms_every_n_iterations: Count = 0

    def __post_init__(self) -> None:
        """Refuse steps that are counted twice, and an end of a learning rate that does not fall."""
        if self.episodes_per_step is not None and self.rows_per_step is not None:
            raise UserError(
                f"optimizer.rows_per_step={self.rows_per_step} and optimizer.episodes_per_step="
                f"{self.episodes_per_step} both say how long a step is; set one of them to null"
            )
        if self.lr_schedule == "constant" and self.lr_end != 0:
            raise UserError(
                f"optimizer.lr_end={self.lr_end:g} has no effect with optimizer.lr_schedule=constant; set lr_schedule "
                "to linear or cosine"
            )

    def micro_batch_tokens(self, device: torch.device | str) -> int:
        """Padded tokens of a micro-batch on a device: the setting, else what keeps the device busy and no more.

        Few rows keep a CPU busy, and larger micro-batches no longer fit its caches (``benchmarks/iteration_cost.py``).
        """
        if self.max_tokens_per_micro_batch is not None:
            return self.max_tokens_per_micro_batch
        return CPU_TOKENS if torch.device(device).type == "cpu" else ACCELERATOR_TOKENS

    @property
    def name(self) -> str:
        """:attr:`kind`, or the name of a class that states none of its own."""
        return self.kind if "kind" in vars(type(self)) else type(self).__name__

    def check(self, *, sharded: bool) -> None:
        """UserError where the weights are ``sharded`` and the optimizer needs them whole."""
        if sharded and not self.shardable:
            raise UserError(
                f"optimizer={self.name} needs whole weights and gradients, but trainer.strategy shards them; set "
                "optimizer=adamw, or trainer=ddp"
            )

    def check_available(self) -> None:
        """UserError where a library that the optimizer needs is not installed; cheap, and called before any work."""

    def create(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of the trainable parameters of a model. Override it for another one.

        Each of its parameter groups must have ``lr`` at the learning rate, or at a fixed share of it. What else the
        groups hold are settings: when a run continues, those of the present settings win (:meth:`apply`).
        """
        return torch.optim.AdamW(
            trainable(model), lr=self.learning_rate, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay
        )

    def build(self, model: nn.Module) -> OptimizerLRSchedulerConfig:
        """Optimizer and warm-up, as Lightning takes them."""
        optimizer = self.create(model)
        warmup = self.warmup_steps
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share(step, warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def apply(
        self,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LambdaLR,
        model: nn.Module,
    ) -> None:
        """Give a restored optimizer these settings instead of those it was saved with.

        Its moments, and how many steps of the warm-up are behind it, stay.
        """
        for group, present in zip(optimizer.param_groups, self.create(model).param_groups, strict=True):
            group |= {name: value for name, value in present.items() if name != "params"}
            group["initial_lr"] = present["lr"]
        scheduler.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self._set_rates(optimizer, scheduler.last_epoch, 1.0)

    def set_rate(
        self,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LambdaLR,
        *,
        iteration: int,
        step: int,
        steps: int,
        iterations: int,
    ) -> None:
        """Set the learning rate of the next step, which is step ``step`` of ``steps`` of an iteration."""
        self._set_rates(optimizer, scheduler.last_epoch, self.decay(iteration, step, steps, iterations))

    def _set_rates(self, optimizer: torch.optim.Optimizer, taken: int, decay: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * _share(taken, self.warmup_steps) * decay

    def decay(self, iteration: int, step: int, steps: int, iterations: int) -> float:
        """The learning rate of a step after the warm-up, as a share in [lr_end, 1] of ``learning_rate``.

        How many optimizer steps a run will have is only known once its last iteration has been planned, so progress is
        counted in iterations, and inside an iteration in its planned steps. That is progress in optimizer steps
        wherever all iterations have equally many. The warm-up is converted at the present iteration's number of steps.
        The first step after it has the share 1, and ``lr_end`` would be that of the step after the last one.

        Args:
            iteration: >= 0, of the whole run, earlier parts of it included.
            step: >= 0, in the iteration.
            steps: >= 1, that are planned in the iteration.
            iterations: >= 1, of the whole run.
        """
        done = iteration * steps + step - self.warmup_steps
        total = iterations * steps - self.warmup_steps
        if self.lr_schedule == "constant" or done <= 0 or total <= 0:
            return 1.0
        progress = min(done / total, 1.0)
        fallen = progress if self.lr_schedule == "linear" else (1 - math.cos(math.pi * progress)) / 2
        return 1 - (1 - self.lr_end) * fallen


def _share(step: int, warmup_steps: int) -> float:
    """The learning rate of 0-based optimizer step ``step`` in the warm-up, as a share of its final value."""
    return min(1.0, (step + 1) / (warmup_steps + 1))
