"""The optimizer, and how an iteration is cut into its steps: the group ``optimizer``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch
from annotated_types import Ge, Le
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn

from sdar.config.fields import AtLeastOne, BelowOne, Count, Fraction, Lax, settings
from sdar.errors import UserError

Rate = Annotated[float, Ge(1e-12), Le(1)]
"""Float32 weights do not notice steps that are smaller."""


@settings(frozen=True)
class OptimizerSettings:
    """AdamW and its steps. UserError for a value outside its range.

    ``learning_rate``      in [1e-12, 1]; constant after the warm-up
    ``weight_decay``       in [0, 1]
    ``betas``              each in [0, 1)
    ``eps``                in [1e-12, 1], added to the root of the second moment; raise it where bfloat16 gradients are
                           near zero
    ``warmup_steps``       >= 0, optimizer steps over which the learning rate rises linearly to its value
    ``max_grad_norm``      >= 1e-9, the gradient's largest Euclidean norm; None: no limit
    ``max_bad_steps``      >= 0, steps in a row, over iterations too, that are skipped because their loss or gradient is
                           not finite; one more ends the run
    ``episodes_per_step``  episodes of all ranks per optimizer step, a multiple of their number; None: one step per
                           iteration
    ``rows_per_step``      rows of all ranks per optimizer step (a row is an episode with append, a turn with window),
                           instead of ``episodes_per_step``; None: steps are counted in episodes
    ``max_tokens_per_micro_batch``  padded tokens; a longer row is a micro-batch by itself. With
                           ``loss_aggregation=reference_code`` it bounds the teacher's scoring alone
    ``reuse_scores``       take the old log-probs of an iteration with one optimizer step from that step's own forward
                           pass, where nothing needs them before; the same numbers, one pass less. False: always score
                           them apart
    ``measure_terms_every_n_iterations``  >= 0; every so many iterations the first optimizer step also measures the
                           gradient of each term by itself, which costs a backward pass per term; 0: never
    """

    learning_rate: Rate = 1e-6
    weight_decay: Fraction = 0.01
    betas: Annotated[tuple[BelowOne, BelowOne], Lax] = (0.9, 0.999)
    eps: Rate = 1e-8
    warmup_steps: Count = 0
    max_grad_norm: Annotated[float, Ge(1e-9)] | None = 1.0
    max_bad_steps: Count = 3
    episodes_per_step: AtLeastOne | None = None
    rows_per_step: AtLeastOne | None = None
    max_tokens_per_micro_batch: AtLeastOne = 16384
    reuse_scores: bool = True
    measure_terms_every_n_iterations: Count = 0

    def __post_init__(self) -> None:
        """Refuse steps that are counted twice."""
        if self.episodes_per_step is not None and self.rows_per_step is not None:
            raise UserError(
                f"optimizer.rows_per_step={self.rows_per_step} and optimizer.episodes_per_step="
                f"{self.episodes_per_step} both say how long a step is; set one of them to null"
            )

    def build(self, parameters: Iterable[nn.Parameter]) -> OptimizerLRSchedulerConfig:
        """Optimizer and schedule of the learning rate, as Lightning takes them."""
        optimizer = torch.optim.AdamW(
            parameters, lr=self.learning_rate, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay
        )
        warmup = self.warmup_steps
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share(step, warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def apply(self, optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LambdaLR) -> None:
        """Give a restored optimizer these settings instead of those it was saved with.

        Its moments, and how many steps of the warm-up are behind it, stay.
        """
        rate = self.learning_rate
        for group in optimizer.param_groups:
            group |= {"betas": self.betas, "eps": self.eps, "weight_decay": self.weight_decay}
            group |= {"initial_lr": rate, "lr": rate * _share(scheduler.last_epoch, self.warmup_steps)}
        scheduler.base_lrs = [rate] * len(optimizer.param_groups)


def _share(step: int, warmup_steps: int) -> float:
    """The learning rate of 0-based optimizer step ``step``, as a share of its final value."""
    return min(1.0, (step + 1) / (warmup_steps + 1))
