"""Dropout: that of a loaded model never acts, that of adapters acts in the update alone, drawn by name.

Old log-probs are scored without dropout. A base model that dropped anything in the update would be another policy than
the one that played, and the ratio of the first optimizer step would not be 1. But gradient checkpointing works in
training mode only, and some layers drop in their own ``forward``, so their probabilities are set to 0.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from sdar.randomness import keyed_generator


def remove_dropout(model: nn.Module) -> None:
    """Set every dropout probability of a loaded model to 0, in place; before adapters are added.

    That is dropout modules, the attributes of modules that drop by a function, and the configuration that some modules
    read in their forward pass. ``model.config``, which is saved with the weights, stays as it was loaded.
    """
    quiet: dict[int, PreTrainedConfig] = {}
    for part in model.modules():
        _silence(part, also="p" if "dropout" in type(part).__name__.lower() else "")
        for name, value in list(vars(part).items()):
            if part is not model and isinstance(value, PreTrainedConfig):
                if id(value) not in quiet:
                    quiet[id(value)] = copy.deepcopy(value)
                    _silence(quiet[id(value)])
                setattr(part, name, quiet[id(value)])


def _silence(owner: Any, also: str = "") -> None:
    for name, value in list(vars(owner).items()):
        if isinstance(value, PreTrainedConfig) and isinstance(owner, PreTrainedConfig):
            _silence(value)
        elif isinstance(value, float) and value > 0 and ("drop" in name.lower() or name == also):
            setattr(owner, name, 0.0)


def update_mode(model: nn.Module) -> None:
    """Evaluation mode but for what the update needs: layers that are recomputed, and the dropout of adapters."""
    model.train(False)
    recomputed = [part for part in model.modules() if getattr(part, "gradient_checkpointing", False)]
    # The children of such a layer stay in evaluation mode; models that do not checkpoint by layers say so themselves.
    for part in [part for part in recomputed if isinstance(part, GradientCheckpointingLayer)] or recomputed:
        part.training = True
    for name, part in model.named_modules():
        if name.endswith(".lora_dropout"):
            part.train()


@contextmanager
def keyed_draws(device: torch.device, seed: int, *key: int | str) -> Iterator[None]:
    """Draws of torch's global generators inside the context are a function of ``seed`` and ``key`` alone.

    The generators of the CPU and of ``device`` are left as they were found. Recomputation in the backward pass repeats
    the draws of the forward pass.
    """
    # Apple's GPU has a single generator, which nothing else here draws from.
    devices = [] if device.type in ("cpu", "mps") else [device]
    with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"):
        torch.manual_seed(int(keyed_generator(seed, *key).integers(2**63)))
        yield
