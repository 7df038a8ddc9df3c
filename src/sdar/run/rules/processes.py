"""What the settings must have in common with the number of processes; checked before any work is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdar.config.targets import shown
from sdar.errors import UserError
from sdar.processes import available_gpus, count_devices, launched_from_outside, world_size

_SHARDED = "sdar.learning.strategies.fully_sharded"
_SHARDED_PRECISIONS = ("32-true", "bf16-mixed", "bf16-true")
_PRECISIONS = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed", "64": "64-true"}
"""Short names that Lightning knows."""


def check_processes(settings: Mapping[str, Any]) -> None:
    """Refuse devices, precisions and numbers of tasks that do not fit the processes of the run.

    Raises:
        UserError: naming the setting and what is allowed.
    """
    trainer = settings["trainer"]
    try:
        processes = world_size(trainer)
    except ValueError as error:
        raise UserError(
            f"trainer.devices={shown(trainer.get('devices'))}: allowed is a number of at least 1, a list, -1 or auto"
        ) from error
    _check_accelerator(trainer)
    _check_launcher(trainer, processes)
    _check_precision(settings)
    _check_shares(settings, processes)


def spreads_weights(trainer: Mapping[str, Any]) -> bool:
    """Whether the strategy spreads weights over the processes (FSDP2)."""
    strategy = trainer.get("strategy")
    return isinstance(strategy, Mapping) and strategy.get("_target_") == _SHARDED


def _check_accelerator(trainer: Mapping[str, Any]) -> None:
    accelerator, devices = trainer.get("accelerator", "auto"), trainer.get("devices", "auto")
    if accelerator not in ("gpu", "cuda"):
        return
    found = available_gpus()
    if found == 0:
        raise UserError(f"trainer.accelerator={accelerator}: no GPU that torch can use was found here; allowed is cpu")
    if count_devices(devices, accelerator) > found:
        raise UserError(f"trainer.devices={shown(devices)}: this machine has {found} GPUs, allowed are at most as many")


def _check_launcher(trainer: Mapping[str, Any], processes: int) -> None:
    launched = launched_from_outside()
    if launched is not None and launched.world_size != processes:
        devices, nodes = shown(trainer.get("devices", "auto")), trainer.get("num_nodes", 1)
        raise UserError(
            f"trainer.devices={devices}, trainer.num_nodes={nodes}: {launched.world_size} processes were started from "
            "outside; allowed are settings whose product is that number"
        )


def _check_precision(settings: Mapping[str, Any]) -> None:
    trainer = settings["trainer"]
    stated = str(trainer.get("precision") or "32-true")
    precision = _PRECISIONS.get(stated, stated)
    sharded = spreads_weights(trainer)
    if precision in ("16-mixed", "16-true") or (sharded and precision not in _SHARDED_PRECISIONS):
        raise UserError(f"trainer.precision={stated}: allowed are {', '.join(_SHARDED_PRECISIONS)}")
    if sharded and settings["model"].get("lora") is not None:
        raise UserError("model.lora: adapters are not sharded; allowed with them is trainer=cpu, gpu or ddp")


def _check_shares(settings: Mapping[str, Any], processes: int) -> None:
    """Tasks are dealt out whole, and every process takes equally many steps."""
    tasks = settings["rollout"]["tasks_per_iteration"]
    if tasks % processes != 0:
        raise UserError(
            f"rollout.tasks_per_iteration={tasks}: allowed are multiples of the {processes} processes of the run "
            "(trainer.devices x trainer.num_nodes)"
        )
    episodes = settings["module"].get("episodes_per_step")
    if episodes is not None and episodes % processes != 0:
        raise UserError(
            f"module.episodes_per_step={episodes}: allowed are multiples of the {processes} processes of the run "
            "(trainer.devices x trainer.num_nodes), or null"
        )
    module = settings["module"]
    rows, micro_batch = module.get("rows_per_step"), module.get("micro_batch_rows")
    counted = module.get("statistics") == "release" and rows is not None and micro_batch is not None
    if counted and rows % (processes * micro_batch) != 0:
        raise UserError(
            f"module.rows_per_step={rows}: with statistics=release allowed are multiples of the {processes} "
            f"processes of the run times the {micro_batch} rows of a micro-batch"
        )
