"""The optimizer, and how an iteration is cut into its steps: the group ``optimizer``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn

from sdar.config.fields import AtLeastOne, BelowOne, Count, Lax, NotNegative, Positive, settings
from sdar.errors import UserError


@settings(frozen=True)
class OptimizerSettings:
    """AdamW and its steps. UserError for a value outside its range.

    ``learning_rate``      > 0; constant after the warm-up
    ``weight_decay``       >= 0
    ``betas``              each in [0, 1)
    ``eps``                > 0, added to the root of the second moment; raise it where bfloat16 gradients are near zero
    ``warmup_steps``       >= 0, optimizer steps over which the learning rate rises linearly to its value
    ``max_grad_norm``      > 0, the gradient's largest Euclidean norm; None: no limit
    ``episodes_per_step``  episodes of all ranks per optimizer step, a multiple of their number; None: one step per
                           iteration
    ``rows_per_step``      rows of all ranks per optimizer step (a row is an episode with append, a turn with window),
                           instead of ``episodes_per_step``; None: steps are counted in episodes
    ``max_tokens_per_micro_batch``  padded tokens; a longer row is a micro-batch by itself. With
                           ``loss_aggregation=reference_code`` it bounds the teacher's scoring alone
    """

    learning_rate: Positive = 1e-6
    weight_decay: NotNegative = 0.01
    betas: Annotated[tuple[BelowOne, BelowOne], Lax] = (0.9, 0.999)
    eps: Positive = 1e-8
    warmup_steps: Count = 0
    max_grad_norm: Positive | None = 1.0
    episodes_per_step: AtLeastOne | None = None
    rows_per_step: AtLeastOne | None = None
    max_tokens_per_micro_batch: AtLeastOne = 16384

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
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / (warmup + 1)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
