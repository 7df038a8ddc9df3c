"""Strategies of the trainer that need more than a name."""

from __future__ import annotations

from datetime import timedelta

from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

from sdar.processes import count_devices

WAITING_S = 1800.0
"""Seconds after which a process that waits for another gives up; rollouts differ in length."""


def data_parallel(timeout_s: float = WAITING_S) -> DDPStrategy:
    """DDP over all processes; ``timeout_s``: seconds after which a process that waits for another gives up."""
    return DDPStrategy(timeout=timedelta(seconds=timeout_s))


def fully_sharded(
    devices: int | str | list[int], num_nodes: int, accelerator: str = "auto", timeout_s: float = WAITING_S
) -> ModelParallelStrategy:
    """FSDP2 over all processes: weights, gradients and the optimizer's state are spread, nothing is split by tensor.

    Lightning's own default would shard over nodes only. Checkpoints are assembled on the first process and written
    as one file, which every other strategy reads.

    Args:
        devices: as in ``trainer.devices``.
        num_nodes: as in ``trainer.num_nodes``.
        accelerator: as in ``trainer.accelerator``; what "auto" devices are depends on it.
        timeout_s: seconds after which a process that waits for another gives up.
    """
    return ModelParallelStrategy(
        data_parallel_size=count_devices(devices, accelerator) * num_nodes,
        tensor_parallel_size=1,
        save_distributed_checkpoint=False,
        timeout=timedelta(seconds=timeout_s),
    )
