"""Whether a run fits into the memory of its device, before it begins."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import torch

from sdar.learning.module import SDARModule
from sdar.policy.shape import ModelShape
from sdar.policy.trainable import trainable
from sdar.processes import count_devices, world_size
from sdar.run.capacity.memory import MOMENT_BYTES, MemoryPlan, Strategy, told
from sdar.run.rules.processes import is_sharded

_PROMPT_TOKENS = 1024
_OBSERVATION_TOKENS = 128
"""Of a prompt and of a later message, where no setting bounds them."""


def remark(
    module: SDARModule, config: Mapping[str, Any], device: torch.device, *, max_turns: int, panel_size: int
) -> str | None:
    """One sentence where a run will not fit by arithmetic; None: it fits, or the model's shape is not understood.

    Args:
        module: built, its weights still on the CPU.
        config: of the run, in plain values.
        device: where it will train.
        max_turns: of an episode.
        panel_size: episodes of an evaluation, which are played by one process.
    """
    trainer = config["trainer"]
    sharers = count_devices(trainer.get("devices", "auto"), trainer.get("accelerator", "auto"))
    available = device_memory(device, sharers if device.type == "cpu" else 1)
    plan = memory_plan(module, config, device, max_turns=max_turns, panel_size=panel_size)
    if plan is None or available is None:
        return None
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "this machine"
    return told(plan, available, name)


def memory_plan(
    module: SDARModule, config: Mapping[str, Any], device: torch.device, *, max_turns: int, panel_size: int
) -> MemoryPlan | None:
    """What a process of a run keeps on its device; None: the model's shape is not understood. See :func:`remark`."""
    model, rollout = module.model, module.rollout
    shape = ModelShape.of(model.config.get_text_config())
    if shape is None:
        return None
    trainer = config["trainer"]
    processes = world_size(trainer)
    weights = list(model.parameters())
    parameters = sum(weight.numel() for weight in weights)
    size = math.ceil(sum(weight.numel() * weight.element_size() for weight in weights) / parameters)
    strategy: Strategy = "fsdp2" if is_sharded(trainer) else "ddp" if processes > 1 else "one"
    episodes = rollout.tasks_per_iteration * rollout.group_size // processes
    # vLLM bounds its cache by settings of its own, and gives its memory back.
    rows = 0 if rollout.backend == "vllm" else min(rollout.max_concurrent_episodes, max(episodes, panel_size))
    response = rollout.sampling.max_response_tokens
    context = module.policy.context_tokens
    if rollout.context == "window":
        prompt = min(rollout.max_prompt_tokens or _PROMPT_TOKENS, context)
        longest = prompt + response
    else:
        # The members of a group share their first prompt; later messages are short.
        prompt = max(_PROMPT_TOKENS // rollout.group_size, _OBSERVATION_TOKENS)
        longest = _PROMPT_TOKENS + max_turns * (response + _OBSERVATION_TOKENS)
    return MemoryPlan(
        shape=shape,
        parameters=parameters,
        trained=sum(weight.numel() for weight in trainable(model)),
        copies=len(module.frozen),
        strategy=strategy,
        processes=processes,
        weight_bytes=size,
        compute_bytes=2 if str(trainer.get("precision", "32-true")).startswith("bf16") else size,
        moment_bytes=MOMENT_BYTES.get(module.optimizer_settings.name, 8.0),
        rows=rows,
        row_tokens=min(longest, context),
        prompt_tokens=prompt,
        micro_batch_tokens=module.optimizer_settings.micro_batch_tokens(device),
        checkpointing=any(getattr(part, "gradient_checkpointing", False) for part in model.modules()),
        card_bytes=(device_memory(device) or 0.0) if device.type == "cuda" else 0.0,
    )


def device_memory(device: torch.device, sharers: int = 1) -> float | None:
    """Bytes of a device for one of ``sharers`` processes; None: it cannot be told."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "cpu" and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) / sharers
    return None
