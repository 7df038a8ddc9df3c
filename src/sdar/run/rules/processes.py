"""What the settings must have in common with the processes of the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdar.config.words import shown
from sdar.errors import UserError
from sdar.processes import available_gpus, count_devices, launched_from_outside, world_size
from sdar.run.settings import RunSettings

_SHARDED = "sdar.learning.strategies.fully_sharded"
_SHARDED_PRECISIONS = ("32-true", "bf16-mixed", "bf16-true")
_PRECISIONS = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed", "64": "64-true"}
"""Short names that Lightning knows."""


def check_processes(settings: RunSettings) -> None:
    """Refuse devices, precisions and shares that do not fit the processes of the run, and a method they cannot train.

    Raises:
        UserError: naming the setting and what it must be.
    """
    trainer = settings.trainer
    try:
        processes = world_size(trainer)
    except ValueError as error:
        raise UserError(
            f"trainer.devices must be a number >= 1, a list, -1 or auto, got {shown(trainer.get('devices'))}"
        ) from error
    _check_devices(trainer)
    _check_accelerator(trainer)
    _check_launcher(trainer, processes)
    _check_precision(settings)
    _check_hand_over(settings, processes)
    _check_quantization(settings.config["model"])
    settings.method.check(
        settings.teacher,
        settings.rollout,
        settings.optimizer,
        processes=processes,
        sharded=is_sharded(trainer),
        train=settings.train,
    )


def _check_quantization(model: Mapping[str, Any]) -> None:
    if model.get("quantization") is not None and model.get("lora") is None:
        raise UserError(
            f"model.quantization={shown(model['quantization'])} needs model.lora: quantized weights cannot be trained, "
            "only adapters on them"
        )


def is_sharded(trainer: Mapping[str, Any]) -> bool:
    """Whether the strategy shards the weights over the processes (FSDP2)."""
    strategy = trainer.get("strategy")
    return isinstance(strategy, Mapping) and strategy.get("_target_") == _SHARDED


def _check_devices(trainer: Mapping[str, Any]) -> None:
    """Refuse lists of devices that are empty or name one twice, and weights spread over others than these."""
    devices = trainer.get("devices", "auto")
    if is_sharded(trainer):
        for name, value in {"devices": devices, "num_nodes": trainer.get("num_nodes", 1)}.items():
            stated = trainer["strategy"].get(name, value)
            if stated != value:
                raise UserError(f"trainer.strategy.{name} must be trainer.{name}={shown(value)}, got {shown(stated)}")
    numbers = [part.strip() for part in devices.split(",") if part.strip()] if isinstance(devices, str) else devices
    if not isinstance(numbers, list) or (isinstance(devices, str) and "," not in devices):
        return
    whole = [int(number) for number in numbers if str(number).isdecimal()]
    if not numbers or len(set(whole)) < len(numbers):
        raise UserError(f"trainer.devices must be a list of different numbers >= 0, got {shown(devices)}")


def _check_accelerator(trainer: Mapping[str, Any]) -> None:
    accelerator, devices = trainer.get("accelerator", "auto"), trainer.get("devices", "auto")
    if accelerator not in ("gpu", "cuda"):
        return
    found = available_gpus()
    if found == 0:
        raise UserError(f"trainer.accelerator={accelerator}, but no GPU that torch can use is available; set it to cpu")
    if count_devices(devices, accelerator) > found:
        raise UserError(f"trainer.devices={devices}, but only {found} GPUs are available")


def _check_launcher(trainer: Mapping[str, Any], processes: int) -> None:
    launched = launched_from_outside()
    if launched is not None and launched.world_size != processes:
        devices, nodes = trainer.get("devices", "auto"), trainer.get("num_nodes", 1)
        raise UserError(
            f"trainer.devices={devices} x trainer.num_nodes={nodes} must be the {launched.world_size} processes that "
            "were launched from outside"
        )


def precision_of(trainer: Mapping[str, Any]) -> str:
    """By its long name, such as ``bf16-mixed``."""
    stated = str(trainer.get("precision") or "32-true")
    return _PRECISIONS.get(stated, stated)


def _check_precision(settings: RunSettings) -> None:
    trainer = settings.trainer
    stated, precision = trainer.get("precision"), precision_of(trainer)
    sharded = is_sharded(trainer)
    if precision in ("16-mixed", "16-true") or (sharded and precision not in _SHARDED_PRECISIONS):
        raise UserError(f"trainer.precision must be one of {', '.join(_SHARDED_PRECISIONS)}, got {stated}")
    if sharded and settings.config["model"].get("lora") is not None:
        raise UserError("model.lora: adapters cannot be sharded; set trainer=cpu, gpu or ddp")


def _check_hand_over(settings: RunSettings, processes: int) -> None:
    """Refuse a server that nobody would ask, and what would let processes hand weights over at different times."""
    rollout = settings.rollout
    if rollout.backend != "vllm" and rollout.vllm.url is not None:
        raise UserError(f"rollout.vllm.url={rollout.vllm.url} needs rollout.backend=vllm, got {rollout.backend}")
    if rollout.backend != "vllm" or rollout.resample_rounds == 0:
        return
    sharded, served = is_sharded(settings.trainer), rollout.vllm.url is not None and processes > 1
    if sharded or served:
        with_what = "trainer=fsdp2" if sharded else "rollout.vllm.url and several processes"
        raise UserError(
            f"rollout.resample_rounds must be 0 with rollout.backend=vllm and {with_what}, got "
            f"{rollout.resample_rounds}: ranks would hand over weights at different times"
        )
