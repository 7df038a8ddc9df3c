"""Weights that are sharded over processes (FSDP2): sharding a model, computing with it, and gathering it temporarily.

Each process keeps a part of every weight. A forward or backward pass fetches the whole weights block by block, which
all processes must do equally often. A rollout cannot promise that, because episodes end at different times, so
:func:`gathered` fetches everything beforehand; inside, no process waits for another.

FSDP2 fetches weights when a module's ``forward`` is called. The policy calls decoder and output head separately
(:mod:`sdar.policy.forward`), so :func:`one_pass` runs what belongs to one pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from sdar.errors import UserError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PreTrainedModel

T = TypeVar("T")

_PASS = "_sdar_pass"
"""Name of the method that FSDP2 treats as a forward pass."""


def is_sharded(model: nn.Module) -> bool:
    """Whether :func:`shard` has been applied."""
    return isinstance(model, FSDPModule)


def shard(model: PreTrainedModel, mesh: DeviceMesh, compute_dtype: torch.dtype | None) -> None:
    """Shard the weights over the processes of a one-dimensional mesh, block by block; a second call does nothing.

    Args:
        model: unsharded, with the same weights on every process; changed in place and moved to the mesh's device.
        mesh: the data-parallel processes.
        compute_dtype: dtype of fetched weights; None: that of the stored weights. Gradients are always summed in
            float32 and kept in the dtype of the weights.

    Raises:
        UserError: the model does not name its blocks.
    """
    if is_sharded(model):
        return
    names = set(getattr(model, "_no_split_modules", None) or ())
    blocks = [module for module in model.modules() if type(module).__name__ in names]
    if not blocks:
        raise UserError(
            f"trainer.strategy cannot shard a {type(model).__name__}, which does not name its blocks "
            "(_no_split_modules); set trainer=ddp"
        )
    policy = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32)
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    # Embeddings, last norm and head, tied or not, are needed first and last, so they stay whole during a pass.
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    # Set what is prefetched: by default it follows the passes since the last backward, rollouts included. Those differ
    # between processes, which would then wait for different modules.
    parts = [module for module in [model, *reversed(blocks), model] if isinstance(module, FSDPModule)]
    for part, following in itertools.pairwise(parts):
        part.set_modules_to_backward_prefetch([following])
    setattr(model, _PASS, lambda function: function())
    register_fsdp_forward_method(model, _PASS)
    # The first pass determines the outermost module; inside gathered() that would be the first block.
    one_pass(model, lambda: None)
    cast(FSDPModule, model).reshard()


def one_pass(model: nn.Module, function: Callable[[], T]) -> T:
    """Run ``function`` as one forward pass of the model; it returns a tensor, a tuple of them, or None.

    With sharded weights every process must call this equally often (outside :func:`gathered`).
    """
    if not is_sharded(model):
        return function()
    return cast(T, getattr(model, _PASS)(function))


@contextmanager
def gathered(model: nn.Module | None) -> Iterator[None]:
    """Keep all weights whole on every process, in the compute dtype and without gradient.

    All processes must enter and leave together; in between they are independent. Does nothing to a model that is not
    sharded.
    """
    if model is None or not is_sharded(model):
        yield
        return
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        with torch.no_grad():
            yield
    finally:
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(part is not model, recurse=False)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor of a sharded one (a collective call); any other tensor unchanged."""
    full: Any = getattr(tensor, "full_tensor", None)
    return tensor if full is None else cast(torch.Tensor, full())
