"""The processes of a run: how many a trainer's settings ask for, and what a launcher from outside says of this one.

Nothing heavy is imported here: it is asked before any work is done.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def wait_passively(environ: MutableMapping[str, str] = os.environ) -> None:
    """Let threads that wait for others sleep instead of spin, unless the environment says otherwise.

    OpenMP's threads spin by default. On a machine that others use, too, a spinning thread takes the core that the one
    it waits for needs, and an iteration takes tens of times as long. No figure depends on it. Has to be called before
    torch is imported.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & environ.keys():
        environ["OMP_WAIT_POLICY"] = "PASSIVE"


@dataclass(frozen=True)
class Launched:
    """A process that torchrun or Slurm has started: its number among all, and how many there are."""

    rank: int
    world_size: int


def launched_from_outside(environ: Mapping[str, str] = os.environ) -> Launched | None:
    """What the launcher says; None: this process was started by hand, or by a strategy of the trainer.

    torchrun is known by ``TORCHELASTIC_RUN_ID``, Slurm's ``srun`` by ``SLURM_NTASKS`` outside an interactive job: the
    same signs that Lightning goes by.
    """
    if "TORCHELASTIC_RUN_ID" in environ and "RANK" in environ:
        return Launched(int(environ["RANK"]), int(environ["WORLD_SIZE"]))
    if "SLURM_NTASKS" in environ and environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return Launched(int(environ.get("SLURM_PROCID", "0")), int(environ["SLURM_NTASKS"]))
    return None


def is_first_process(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is the one that writes, before there is a trainer to ask."""
    launched = launched_from_outside(environ)
    if launched is not None:
        return launched.rank == 0
    # Without a launcher one process per node is started by hand; the strategy starts the others of its node.
    return environ.get("NODE_RANK", "0") == "0" and environ.get("LOCAL_RANK", "0") == "0"


def count_devices(devices: Any, accelerator: str) -> int:
    """How many devices of a node ``trainer.devices`` means: a number, a list, "auto" or -1, or one of these as text.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(devices, list | tuple):
        return len(devices)
    if isinstance(devices, str) and devices != "auto":
        parts = [part for part in devices.split(",") if part.strip()]
        numbers = [int(part) for part in parts]
        if "," in devices:
            return len(numbers)
        devices = numbers[0] if numbers else 0
    if devices in ("auto", -1):
        return max(1, available_gpus()) if accelerator in ("auto", "gpu", "cuda") else 1
    if isinstance(devices, bool) or not isinstance(devices, int) or devices < 1:
        raise ValueError(f"{devices!r} is no number of devices")
    return devices


def available_gpus() -> int:
    """Number of GPUs that torch can use here."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def world_size(trainer: Mapping[str, Any]) -> int:
    """Number of processes of a run: ``trainer.devices`` times ``trainer.num_nodes``.

    Raises:
        ValueError: ``trainer.devices`` cannot be understood.
    """
    return count_devices(trainer.get("devices", "auto"), trainer.get("accelerator", "auto")) * int(
        trainer.get("num_nodes", 1)
    )
