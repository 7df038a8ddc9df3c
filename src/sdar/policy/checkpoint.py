"""What a checkpoint says of the run it belongs to, and loading the student's weights alone.

Frozen weights (the reference of the KL term, the model under adapters) are not in a checkpoint: they are the run's
initial weights, which the configuration names. The checkpoint records their hash, so that other initial weights are
noticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sdar.errors import UserError
from sdar.policy.language_model import LanguageModel

CHECKPOINT_KEY = "sdar"
"""Where the record lies in the checkpoint."""


def origin(policy: LanguageModel) -> dict[str, Any]:
    """The record: name, class and content hash of the model that a run starts from, and its adapters' settings."""
    return {
        "model": policy.name,
        "architecture": policy.architecture,
        "initial_weights": policy.content_hash,
        "lora": None if policy.lora is None else policy.lora.record(),
    }


def check_origin(checkpoint: Mapping[str, Any], policy: LanguageModel) -> None:
    """UserError unless the checkpoint's run started from what ``policy`` was built with: model, weights, adapters."""
    found = checkpoint.get(CHECKPOINT_KEY)
    if not isinstance(found, Mapping) or "initial_weights" not in found:
        raise UserError("ckpt_path names a checkpoint that no run of sdar has written")
    own = origin(policy)
    model, other = f"this run is of {policy.name!r}", f"ckpt_path names a checkpoint of {found.get('model')!r}"
    # Checkpoints of earlier versions say nothing of architecture and adapters; all of theirs trained all weights.
    if found.get("architecture", own["architecture"]) != own["architecture"]:
        raise UserError(
            f"{other}, a {found['architecture']}, but {model}, a {own['architecture']}; they must be the same model"
        )
    if found["initial_weights"] != own["initial_weights"]:
        raise UserError(
            f"{other}, of a run that started from the weights {found['initial_weights']!r}, but {model}, which starts "
            f"from {own['initial_weights']!r}; they must be the same"
        )
    if found.get("lora") != own["lora"]:
        raise UserError(
            f"{other} with {_adapters(found.get('lora'))}, but {model} with {_adapters(own['lora'])}; model.lora must "
            "be the same"
        )


def keep_trained(checkpoint: dict[str, Any], module: nn.Module, policy: LanguageModel) -> None:
    """Take the frozen weights out of a checkpoint of adapters, in place."""
    if policy.lora is not None:
        names = _trained(module)
        checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name in names}


def check_parameters(checkpoint: Mapping[str, Any], module: nn.Module, policy: LanguageModel) -> None:
    """UserError unless a checkpoint of adapters holds just the parameters that the module trains."""
    if policy.lora is not None and set(checkpoint["state_dict"]) != _trained(module):
        raise UserError(
            f"ckpt_path names a checkpoint whose adapters are not those of {policy.name!r} with "
            f"{_adapters(policy.lora.record())}"
        )


def load_student(module: nn.Module, policy: LanguageModel, path: str | Path) -> None:
    """Load a checkpoint's weights into the module that holds ``policy``, without a trainer.

    Nothing but tensors and plain values is unpickled. UserError: the file cannot be read, or is of another run.
    """
    checkpoint = read_checkpoint(path)
    check_origin(checkpoint, policy)
    check_parameters(checkpoint, module, policy)
    module.load_state_dict(checkpoint["state_dict"], strict=policy.lora is None)


def read_checkpoint(path: str | Path, *, mmap: bool = False) -> Mapping[str, Any]:
    """A checkpoint's content on the CPU; ``mmap``: tensors stay in the file until they are used.

    Nothing but tensors and plain values is unpickled. UserError: the file cannot be read, or is no checkpoint.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "mmap can only be used" in reason:
            reason = "torch.save has not written it"
        raise UserError(f"ckpt_path={path}: it cannot be read as a checkpoint ({reason[:120]})") from error
    if not isinstance(checkpoint, Mapping):
        raise UserError(f"ckpt_path={path}: allowed is a checkpoint that a run of sdar has written")
    return checkpoint


def finished_iterations(checkpoint: Mapping[str, Any]) -> int:
    """Iterations behind a checkpoint, whether it was saved at an iteration's end or after the last one."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
    return int(progress["current"]["processed"])


def _trained(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def _adapters(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return "all weights trained (model.lora=null)"
    return f"model.lora={{{', '.join(f'{name}: {value}' for name, value in record.items())}}}"
