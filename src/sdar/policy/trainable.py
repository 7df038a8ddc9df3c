"""Which parameters are trained, and whether a step changes them."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that take a gradient."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


class WeightProbe:
    """Keeps the number with the largest gradient of each parameter that has a gradient.

    A copy of all weights would cost their memory again. These numbers change in any step that changes anything (AdamW's
    first step is the learning rate times the gradient's sign), unless the weights' dtype cannot represent the step.
    """

    def __init__(self, model: nn.Module) -> None:
        self._numbers: list[tuple[nn.Parameter, int, float]] = []
        for parameter in trainable(model):
            if parameter.grad is not None and (gradient := _local(parameter.grad)).numel():
                index = int(gradient.abs().argmax())
                self._numbers.append((parameter, index, float(_local(parameter)[index])))

    def moved(self) -> bool:
        """Whether any of the numbers has changed."""
        return any(float(_local(parameter)[index]) != before for parameter, index, before in self._numbers)

    @property
    def dtype(self) -> torch.dtype | None:
        """Dtype of the weights (the first, if they differ)."""
        return self._numbers[0][0].dtype if self._numbers else None


def _local(tensor: Tensor) -> Tensor:
    """The local part of a tensor that may be sharded, flat and without gradient."""
    tensor = tensor.detach()
    local = cast(Any, tensor).to_local() if hasattr(tensor, "to_local") else tensor
    return cast(Tensor, local).reshape(-1)
