"""The processes of the run, where it has several."""

from __future__ import annotations

import torch


def has_ranks() -> bool:
    """Whether this process belongs to a group of processes that train together."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def rank() -> int:
    """The number of this process; 0 where it is alone."""
    return torch.distributed.get_rank() if has_ranks() else 0


def wait_for_all() -> None:
    """Return when every process has called this as often."""
    if has_ranks():
        torch.distributed.barrier()
