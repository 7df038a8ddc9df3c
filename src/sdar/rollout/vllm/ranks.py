"""The processes of the run, where it has several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_left: list[bool] = []
"""Not empty: the others have gone."""


def has_ranks() -> bool:
    """Whether this process belongs to a group of processes that train together."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


@contextmanager
def left_alone() -> Iterator[None]:
    """Inside, no other process of the group is waited for: they do something else, or have ended."""
    _left.append(True)
    try:
        yield
    finally:
        _left.pop()


def is_first() -> bool:
    """Whether this process does what one does for all."""
    return bool(_left) or not has_ranks() or torch.distributed.get_rank() == 0


def anyone(true: bool, device: torch.device) -> bool:
    """Whether it is true in any process, once every process has said so. ``device``: where they exchange tensors."""
    if _left or not has_ranks():
        return true
    said = torch.tensor([float(true)], device=device)
    torch.distributed.all_reduce(said, torch.distributed.ReduceOp.MAX)
    return bool(said.item() > 0)
