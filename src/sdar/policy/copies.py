"""A frozen copy beside the student."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn
from transformers import PreTrainedModel


@torch.no_grad()
def move_as(copy: nn.Module, student: PreTrainedModel, device: torch.device) -> None:
    """Bring a copy to a device, every number in the precision that it has in the student.

    The student's may differ from weight to weight (float32 adapters on 16-bit weights), and strategies change them.
    What the student does not have gets its commonest precision; packed (quantized) weights are left as they are.
    """
    of_student = {name: value.dtype for name, value in chain(student.named_parameters(), student.named_buffers())}
    copy.to(device)
    for name, value in chain(copy.named_parameters(), copy.named_buffers()):
        dtype = of_student.get(name, student.dtype)
        if value.is_floating_point() and dtype.is_floating_point and value.dtype != dtype:
            value.data = value.data.to(dtype)
