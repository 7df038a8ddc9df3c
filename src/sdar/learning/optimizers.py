"""Optimizers other than AdamW: 8-bit moments by bitsandbytes, and Muon."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Le
from torch import nn

from sdar.config.fields import BelowOne, settings
from sdar.errors import UserError
from sdar.learning.optimizer import OptimizerSettings
from sdar.policy.trainable import trainable


@settings(frozen=True)
class AdamW8bit(OptimizerSettings):
    """AdamW whose moments are 8-bit numbers in blocks of 256 (bitsandbytes): 2 bytes per weight in place of 8.

    Those of parameters with fewer than 4,096 numbers stay float32.

    ``paged``  keep the moments in memory that the GPU's driver moves to the host when the GPU has no room. Not on CPUs
    """

    kind: ClassVar[str] = "adamw_8bit"
    shardable: ClassVar[bool] = False

    paged: bool = False

    def check_available(self) -> None:
        """UserError where bitsandbytes is not installed."""
        if importlib.util.find_spec("bitsandbytes") is None:
            raise UserError(
                f"optimizer={'paged_' if self.paged else ''}{self.kind} needs bitsandbytes, which is not installed: "
                "pip install 'sdar[quant]'"
            )

    def create(self, model: nn.Module) -> torch.optim.Optimizer:
        """See :meth:`OptimizerSettings.create`."""
        self.check_available()
        from bitsandbytes.optim import AdamW8bit as BlockwiseAdamW

        made: torch.optim.Optimizer = BlockwiseAdamW(
            trainable(model),
            lr=self.learning_rate,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            is_paged=self.paged,
        )
        return made


@settings(frozen=True)
class Muon(OptimizerSettings):
    """Muon for the matrices of the hidden layers, AdamW for embeddings, output head, norms, biases and the like.

    Muon makes the momentum of a matrix nearly orthogonal before it steps (Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon). Its steps are scaled to the size of AdamW's (arXiv 2502.16982, section
    2.2), so both parts have the same learning rate and weight decay. ``betas`` and ``eps`` are AdamW's.

    ``momentum``   in [0, 1), of Muon
    ``nesterov``   whether it looks ahead
    ``ns_steps``   in [1, 20], of the Newton-Schulz iteration that makes a matrix nearly orthogonal
    """

    kind: ClassVar[str] = "muon"
    shardable: ClassVar[bool] = False

    momentum: BelowOne = 0.95
    nesterov: bool = True
    ns_steps: Annotated[int, Ge(1), Le(20)] = 5

    def check_available(self) -> None:
        """UserError where torch does not have Muon."""
        if not hasattr(torch.optim, "Muon"):
            raise UserError(f"optimizer=muon needs torch >= 2.9, got {torch.__version__}; set optimizer=adamw")

    def create(self, model: nn.Module) -> torch.optim.Optimizer:
        """See :meth:`OptimizerSettings.create`. UserError where no hidden layer has a matrix that is trained."""
        self.check_available()
        hidden, others = split_parameters(model)
        if not hidden:
            raise UserError("optimizer=muon: no hidden layer has a matrix that is trained; set optimizer=adamw")
        parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                hidden,
                lr=self.learning_rate,
                weight_decay=self.weight_decay,
                momentum=self.momentum,
                nesterov=self.nesterov,
                ns_steps=self.ns_steps,
                adjust_lr_fn="match_rms_adamw",
            )
        ]
        if others:
            parts.append(
                torch.optim.AdamW(
                    others, lr=self.learning_rate, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay
                )
            )
        return SideBySide(*parts)


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trained matrices of hidden layers, and all other trained parameters, in the model's order.

    Other ones are what has not two dimensions (norms, biases, experts that are stored as one tensor), and whatever
    embeddings and the output head hold, tied or not.
    """
    outer: list[nn.Module] = [part for part in model.modules() if isinstance(part, nn.Embedding)]
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if isinstance(head, nn.Module):
        outer.append(head)
    spared = {id(parameter) for part in outer for parameter in part.parameters()}
    hidden: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in trainable(model):
        (hidden if parameter.ndim == 2 and id(parameter) not in spared else others).append(parameter)
    return hidden, others


class SideBySide(torch.optim.Optimizer):
    """Several optimizers of disjoint parameters as one, with one state and one group of each part or more."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self._parts = parts
        self._groups = [len(part.param_groups) for part in parts]
        super().__init__([group for part in parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every part; ``closure`` is called once, before them."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        first = 0
        for part, count in zip(self._parts, self._groups, strict=True):
            # A restored state replaces both objects.
            part.param_groups, part.state = self.param_groups[first : first + count], self.state
            part.step()
            first += count
        return loss
