"""What the processes of a run do together."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning import LightningModule
from lightning.pytorch.strategies import ParallelStrategy, Strategy
from torch import Tensor


class Ranks:
    """The processes that train together; alone without a strategy. All of them must make the same calls in order.

    Args:
        strategy: the trainer's.
        device: where tensors are combined.
        size: number of processes.
    """

    def __init__(self, strategy: Strategy | None = None, device: torch.device | str = "cpu", size: int = 1) -> None:
        self._strategy = strategy
        self._device = device
        self.size = size

    @classmethod
    def of(cls, module: LightningModule) -> Ranks:
        """The ranks of a module that is being trained."""
        return cls(module.trainer.strategy, module.device, int(module.trainer.world_size))

    def reduce(self, tensor: Tensor, operation: Literal["sum", "max"]) -> Tensor:
        """Combine a CPU tensor over the ranks."""
        if self.size == 1 or self._strategy is None or tensor.numel() == 0:
            return tensor
        result = self._strategy.reduce(tensor.to(self._device), reduce_op=operation)
        assert isinstance(result, Tensor)
        return result.cpu()

    def reduce_number(self, value: float, operation: Literal["sum", "max"]) -> float:
        """Combine a number over the ranks, in float64."""
        return float(self.reduce(torch.tensor([value], dtype=torch.float64), operation))

    def all(self, true: bool) -> bool:
        """Whether it is true on every rank."""
        return self.reduce_number(float(not true), "max") == 0

    def gather(self, values: list[Any]) -> list[Any]:
        """The values of all ranks, rank by rank; plain values that can be pickled."""
        if self.size == 1:
            return values
        parts: list[list[Any]] = [[] for _ in range(self.size)]
        torch.distributed.all_gather_object(parts, values)
        return [value for part in parts for value in part]

    def backward(self, module: LightningModule, loss: Tensor, *, synchronize: bool) -> None:
        """Add a share of the loss to the gradients, which are brought together only where ``synchronize`` says so.

        Strategies average gradients over the ranks, but the shares of the ranks add up.
        """
        loss = loss * self.size
        if synchronize or not isinstance(self._strategy, ParallelStrategy):
            module.manual_backward(loss)
            return
        with self._strategy.block_backward_sync():
            module.manual_backward(loss)
