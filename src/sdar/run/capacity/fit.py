"""Whether a run fits into the memory of its device, before it begins."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sdar.learning.module import SDARModule
from sdar.policy.shape import ModelShape
from sdar.policy.trainable import trainable
from sdar.processes import count_devices, world_size
from sdar.run.capacity.memory import MemoryPlan, Strategy, moment_bytes, told
from sdar.run.rules.processes import is_sharded, precision_of

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
    precision = precision_of(trainer)
    # Under bf16-true Lightning turns all weights into 16 bits later.
    forced = 2 if precision == "bf16-true" else None
    stored, trained = _Stored.of(model.parameters(), forced), _Stored.of(trainable(model), forced)
    computed = 2 if precision.startswith("bf16") else stored.commonest
    optimizer = module.optimizer_settings
    card = (device_memory(device) or 0.0) if device.type == "cuda" else 0.0
    strategy: Strategy = "fsdp2" if is_sharded(trainer) else "ddp" if processes > 1 else "one"
    episodes = rollout.tasks_per_iteration * rollout.group_size // processes
    colocated = rollout.backend == "vllm" and rollout.vllm.url is None
    # vLLM bounds its cache by settings of its own.
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
        parameters=stored.numbers,
        trained=trained.numbers,
        copies=len(module.frozen),
        strategy=strategy,
        processes=processes,
        weight_bytes=stored.mean,
        trained_bytes=trained.mean,
        compute_bytes=computed,
        cast=stored.others(computed) if precision == "bf16-mixed" else 0,
        moment_bytes=moment_bytes(optimizer.name, trained.mean),
        rows=rows,
        row_tokens=min(longest, context),
        prompt_tokens=prompt,
        prefill_tokens=rollout.decode.prefill_tokens,
        micro_batch_tokens=optimizer.micro_batch_tokens(device),
        checkpointing=any(getattr(part, "gradient_checkpointing", False) for part in model.modules()),
        card_bytes=card,
        engine_bytes=rollout.vllm.memory_fraction * card if colocated else 0.0,
        engine_stays=not rollout.vllm.sleep,
        whole_teacher=module.asks_a_frozen_teacher,
    )


@dataclass(frozen=True)
class _Stored:
    """How many numbers weights have, by their size in bytes; apart, the bytes of what is packed (quantized)."""

    by_size: Mapping[int, int]
    packed: int

    @classmethod
    def of(cls, weights: Iterable[torch.Tensor], size: int | None) -> _Stored:
        """``size``: of numbers, whatever they have now; None: that."""
        found: Counter[int] = Counter()
        packed = 0
        for weight in weights:
            if weight.is_floating_point():
                found[size or weight.element_size()] += weight.numel()
            else:
                packed += weight.nbytes
        return cls(found, packed)

    @property
    def numbers(self) -> int:
        return sum(self.by_size.values()) + self.packed

    @property
    def mean(self) -> float:
        whole = sum(size * count for size, count in self.by_size.items())
        return (whole + self.packed) / max(1, self.numbers)

    @property
    def commonest(self) -> int:
        return max(self.by_size, key=lambda size: self.by_size[size], default=4)

    def others(self, size: int) -> int:
        """Numbers of another size; what is packed is unpacked layer by layer."""
        return sum(count for own, count in self.by_size.items() if own != size)


def device_memory(device: torch.device, sharers: int = 1) -> float | None:
    """Bytes of a device for one of ``sharers`` processes; None: it cannot be told."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "cpu" and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) / sharers
    return None
