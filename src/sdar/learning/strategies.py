"""Strategies of the trainer that need more than a name."""

from __future__ import annotations

from datetime import timedelta

from lightning.pytorch.strategies import ModelParallelStrategy

from sdar.processes import count_devices


def fully_sharded(
    devices: int | str | list[int], num_nodes: int, accelerator: str = "auto", timeout_s: float = 1800
) -> ModelParallelStrategy:
    """FSDP2 over all processes: weights, gradients and the optimizer's state are spread, nothing is split by tensor.

    Lightning's own default would shard over nodes only. Checkpoints are assembled on the first process and written
    as one file, which every other strategy reads.

    Args:
        devices: as in ``trainer.devices``.
        num_nodes: as in ``trainer.num_nodes``.
        accelerator: as in ``trainer.accelerator``; what "auto" devices are depends on it.
        timeout_s: seconds after which a process that waits for another gives up; rollouts differ in length.
    """
    return ModelParallelStrategy(
        data_parallel_size=count_devices(devices, accelerator) * num_nodes,
        tensor_parallel_size=1,
        save_distributed_checkpoint=False,
        timeout=timedelta(seconds=timeout_s),
    )
